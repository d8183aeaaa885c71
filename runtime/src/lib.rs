//! The port to container runtimes: a fake of real behaviour and the embedded one on runc.
