//! The commands that run something in a container.

use super::ContainerRef;

const EXEC_HELP: &str = "\
The exit status is the command's: 128 and the number of the signal if one has ended it, 126 or 127
if it could not be started, as in a shell. What goes wrong here has the codes of `gantry --help`, and
is said on standard error; a session that breaks off is 255.

Examples:
  gantry exec web -- ls -l /srv               what it says goes to standard output and error
  gantry exec -it web bash                    a shell with a terminal
  tar c src | gantry exec -i web -- tar x     input from a pipe, to its end
  gantry exec web -- sh -c 'echo $HOSTNAME'   shell syntax needs a shell";

const SSH_HELP: &str = "\
Without a key: the credential of the API opens it, and the session ends with that. For scp, sftp,
forwarding and agents, see `gantry ssh-config`.

Examples:
  gantry ssh web
  gantry ssh ann@web -- 'cd /srv && ls'       a command line for the user's shell";

/// `gantry exec`
#[derive(Debug, clap::Args)]
#[command(after_help = EXEC_HELP)]
pub(crate) struct Exec {
    /// The container, by its id or its name.
    pub(crate) container: ContainerRef,
    /// Send standard input; without it, the command has none.
    #[arg(short, long)]
    pub(crate) interactive: bool,
    /// Give the command a terminal.
    #[arg(short, long)]
    pub(crate) tty: bool,
    /// The account of the container that runs it; root unless given.
    #[arg(short, long)]
    pub(crate) user: Option<String>,
    /// The directory that it begins in; the account's home unless given.
    #[arg(short = 'w', long, value_name = "PATH")]
    pub(crate) cwd: Option<String>,
    /// A variable; can be given several times.
    #[arg(short, long, value_name = "KEY=VALUE")]
    pub(crate) env: Vec<String>,
    /// The kind of this terminal.
    #[arg(long, env = "TERM", hide = true)]
    pub(crate) term: Option<String>,
    /// The program and its arguments.
    #[arg(required = true, trailing_var_arg = true)]
    pub(crate) command: Vec<String>,
}

/// `gantry ssh`
#[derive(Debug, clap::Args)]
#[command(after_help = SSH_HELP)]
pub(crate) struct Ssh {
    /// The container, by its id or its name, and perhaps the account in it; root unless given.
    #[arg(value_name = "[USER@]CONTAINER")]
    pub(crate) destination: Destination,
    /// Have a terminal even for a command line.
    #[arg(short, long)]
    pub(crate) tty: bool,
    /// The kind of this terminal.
    #[arg(long, env = "TERM", hide = true)]
    pub(crate) term: Option<String>,
    /// A command line for the user's shell.
    #[arg(trailing_var_arg = true)]
    pub(crate) command: Vec<String>,
}

/// A container and perhaps an account in it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Destination {
    pub(crate) user: Option<String>,
    pub(crate) container: ContainerRef,
}

impl std::str::FromStr for Destination {
    type Err = &'static str;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let (user, container) = match text.split_once('@') {
            Some((user, container)) => (Some(user.to_owned()), container),
            None => (None, text),
        };
        Ok(Self { user, container: container.parse()? })
    }
}

#[cfg(test)]
mod tests {
    use clap::Parser as _;

    use super::*;
    use crate::args::{Cli, Command};

    fn exec(line: &str) -> Exec {
        match Cli::try_parse_from(line.split_whitespace()).map(|cli| cli.command) {
            Ok(Command::Exec(exec)) => exec,
            other => panic!("{line}: {other:?}"),
        }
    }

    #[test]
    fn what_follows_the_program_is_its_own() {
        for (line, interactive, tty, command) in [
            ("gantry exec web -- ls -l -o x", false, false, "ls -l -o x"),
            ("gantry exec web -i -t -u ann -w /srv -e A=b -- ls --help", true, true, "ls --help"),
            ("gantry exec -it web bash -l -i", true, true, "bash -l -i"),
            ("gantry exec web cat -- -t", false, false, "cat -- -t"),
            ("gantry exec -i web -- -odd", true, false, "-odd"),
        ] {
            let exec = exec(line);
            let words: Vec<&str> = command.split(' ').collect();
            assert_eq!((exec.interactive, exec.tty), (interactive, tty), "{line}");
            assert_eq!(exec.command, words, "{line}");
            assert_eq!(exec.container, ContainerRef::Name("web".to_owned()), "{line}");
        }
        assert!(Cli::try_parse_from(["gantry", "exec", "web"]).is_err(), "what to run?");
    }

    #[test]
    fn a_destination_may_name_an_account() {
        let id = "890abcdef12345678901cdef";
        for (text, user, container) in [
            ("web", None, ContainerRef::Name("web".to_owned())),
            (id, None, ContainerRef::Id(id.parse().unwrap())),
            ("ann@web", Some("ann"), ContainerRef::Name("web".to_owned())),
        ] {
            let want = Destination { user: user.map(str::to_owned), container };
            assert_eq!(text.parse(), Ok(want), "{text}");
        }
        assert!("ann@".parse::<Destination>().is_err());
    }
}
