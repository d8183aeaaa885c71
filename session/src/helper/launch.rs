//! What a process of a session does before it becomes what was asked for.
//!
//! `serve` starts this program again as `run`, with the descriptors that the process shall have; here it
//! makes its session, becomes the user, and executes the user's program. It is one thread, so that the
//! kernel's calls, which change the rights of one thread, change those of the process.

use std::{
    ffi::{OsStr, OsString},
    io::{self, Write as _, stdin},
    os::unix::{
        ffi::{OsStrExt as _, OsStringExt as _},
        process::CommandExt as _,
    },
    path::{Path, PathBuf},
    process::{Command, ExitCode},
};

use gantry_session::protocol::{Process, Run};
use rustix::{
    fs::{Gid, Mode, Uid, fchmod, fchown},
    process::{Resource, Rlimit, ioctl_tiocsctty, setrlimit, setsid, umask},
    thread::{set_thread_groups, set_thread_res_gid, set_thread_res_uid},
};
use serde::{Deserialize, Serialize};

use super::{
    account::{self, Account},
    environment::{Variables, name_of, unpacked},
    files, plain, say,
};

/// What `run` has to know beside the arguments of the user's program, which follow it, and the variables,
/// which are packed in its own.
#[derive(Debug, Serialize, Deserialize)]
pub(super) struct Launch {
    pub(super) user: String,
    pub(super) is_strict: bool,
    pub(super) what: What,
    pub(super) directory: Option<Vec<u8>>,
    /// The path of the terminal, if it has one; it is on all three descriptors then.
    pub(super) tty: Option<String>,
    pub(super) term: Option<String>,
    pub(super) agent: Option<Vec<u8>>,
    pub(super) connection: Option<[String; 4]>,
    /// The limits of open files that `serve` was started with.
    pub(super) files: (Option<u64>, Option<u64>),
}

/// What it becomes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) enum What {
    Shell,
    Command,
    Program,
    Sftp,
}

impl Launch {
    /// From what the edge asks for; and the arguments to follow.
    pub(super) fn new(process: Process) -> (Self, Vec<OsString>) {
        let (what, directory, argv) = match process.run {
            Run::Shell => (What::Shell, None, Vec::new()),
            Run::Command(line) => (What::Command, None, vec![line]),
            Run::Program { argv, directory } => (What::Program, directory, argv),
            Run::Sftp => (What::Sftp, None, Vec::new()),
        };
        let launch = Self {
            user: process.user,
            is_strict: process.is_strict,
            what,
            directory,
            tty: None,
            term: process.terminal.map(|terminal| terminal.term),
            agent: None,
            connection: process.connection,
            files: (None, None),
        };
        (launch, argv.into_iter().map(OsString::from_vec).collect())
    }

    /// As an argument.
    pub(super) fn pack(&self) -> Result<String, postcard::Error> {
        Ok(hex::encode(postcard::to_stdvec(self)?))
    }

    fn unpack(argument: &OsStr) -> io::Result<Self> {
        let malformed =
            || io::Error::new(io::ErrorKind::InvalidInput, "`run` is for `serve` alone");
        let octets = hex::decode(argument.as_bytes()).map_err(|_error| malformed())?;
        postcard::from_bytes(&octets).map_err(|_error| malformed())
    }
}

/// Becomes what the arguments say. Returns only if that fails, or when it has served files.
pub(super) fn main(arguments: Vec<OsString>) -> io::Result<ExitCode> {
    let mut arguments = arguments.into_iter();
    let launch = Launch::unpack(&arguments.next().unwrap_or_default())?;
    setsid()?;
    let account = Account::look_up(Path::new("/"), &launch.user);
    if launch.is_strict && !account.is_called(&launch.user) {
        say(&format!("there is no account {} in this container", launch.user.escape_debug()));
        return Ok(ExitCode::from(126));
    }
    if launch.tty.is_some() {
        take_terminal(&account)?;
    }
    settle(&launch)?;
    become_user(&account)?;
    if let Some(code) = no_login(&account) {
        return Ok(code);
    }
    enter_directory(&account, &launch)?;
    execute(&account, &launch, arguments.collect())
}

/// Makes the terminal the session's, and the user's own, as others may write messages to it.
fn take_terminal(account: &Account) -> io::Result<()> {
    ioctl_tiocsctty(stdin())?;
    // Without a group for terminals nobody may write but the user.
    let tty = account::group_id(Path::new("/"), "tty");
    let (group, mode) = tty.map_or((account.gid, 0o600), |tty| (tty, 0o620));
    fchown(stdin(), Some(Uid::from_raw(account.uid)), Some(Gid::from_raw(group)))?;
    fchmod(stdin(), Mode::from_raw_mode(mode))?;
    Ok(())
}

/// Undoes what the helper has for itself.
fn settle(launch: &Launch) -> io::Result<()> {
    umask(Mode::from_raw_mode(0o022));
    let (current, maximum) = launch.files;
    setrlimit(Resource::Nofile, Rlimit { current, maximum })?;
    // Where /proc is missing or hidden, nothing has changed the score either.
    let hidden = |error: &io::Error| {
        use io::ErrorKind::{NotFound, PermissionDenied, ReadOnlyFilesystem};
        [NotFound, PermissionDenied, ReadOnlyFilesystem].contains(&error.kind())
    };
    match std::fs::write("/proc/self/oom_score_adj", "0") {
        Err(error) if !hidden(&error) => Err(error),
        _ => Ok(()),
    }
}

/// Gives up all rights but the user's. It is one thread (see the module).
pub(super) fn become_user(account: &Account) -> io::Result<()> {
    let groups: Vec<Gid> = account.groups.iter().map(|gid| Gid::from_raw(*gid)).collect();
    let (uid, gid) = (Uid::from_raw(account.uid), Gid::from_raw(account.gid));
    set_thread_groups(&groups)?;
    set_thread_res_gid(gid, gid, gid)?;
    set_thread_res_uid(uid, uid, uid)?;
    Ok(())
}

/// While there is `/etc/nologin`, only root comes in; others are told what is in it.
fn no_login(account: &Account) -> Option<ExitCode> {
    let notice = (account.uid != 0).then(|| files::read(Path::new("/etc/nologin")))?;
    match notice {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return None,
        Err(error) => say(&format!("/etc/nologin: {error}")),
        Ok(notice) => drop(io::stderr().write_all(&notice)),
    }
    Some(ExitCode::from(254))
}

fn enter_directory(account: &Account, launch: &Launch) -> io::Result<()> {
    if let Some(directory) = &launch.directory {
        let directory = PathBuf::from(OsString::from_vec(directory.clone()));
        return std::env::set_current_dir(&directory).map_err(|error| {
            io::Error::new(error.kind(), format!("{}: {}", directory.display(), plain(&error)))
        });
    }
    if let Err(error) = std::env::set_current_dir(&account.home) {
        let (home, words) = (account.home.display(), plain(&error));
        say(&format!("Could not chdir to home directory {home}: {words}"));
        std::env::set_current_dir("/")?;
    }
    Ok(())
}

fn execute(account: &Account, launch: &Launch, argv: Vec<OsString>) -> io::Result<ExitCode> {
    let mut argv = argv.into_iter();
    let mut name = name_of(&account.shell);
    let mut command = match launch.what {
        What::Shell => {
            if launch.tty.is_some() {
                greet(account);
            }
            let mut login = OsString::from("-");
            login.push(&name);
            name = login;
            Command::new(&account.shell)
        }
        What::Command => {
            let mut command = Command::new(&account.shell);
            command.arg("-c");
            command
        }
        What::Program => {
            name = argv.next().unwrap_or_default();
            Command::new(&name)
        }
        What::Sftp => return super::sftp::serve(account),
    };
    let variables = Variables::of(account, launch, unpacked());
    // It returns when it has failed.
    let error = command.arg0(&name).args(argv).env_clear().envs(variables).exec();
    say(&format!("{}: {}", Path::new(command.get_program()).display(), plain(&error)));
    let found = error.kind() != io::ErrorKind::NotFound;
    Ok(ExitCode::from(if found { 126 } else { 127 }))
}

/// The message of the day, for one who logs in at a terminal and does not refuse it.
fn greet(account: &Account) {
    if account.home.join(".hushlogin").exists() {
        return;
    }
    for file in ["/run/motd.dynamic", "/etc/motd"] {
        // What is not there is not said, and a terminal that has hung up will tell the shell so.
        let message = files::read(Path::new(file)).unwrap_or_default();
        drop(io::stdout().write_all(&message).and_then(|()| io::stdout().flush()));
    }
}
