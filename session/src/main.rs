//! The helper.
fn main() {}
