//! The program inside containers. See `gantry_session` for what it is and how it is driven.

mod helper;

use std::process::ExitCode;

fn main() -> ExitCode {
    helper::main(std::env::args_os().collect())
}
