//! `gantry certs trust`: has this machine, and the browsers of a user, trust the development CA.
//!
//! Such a CA can vouch for names of the installation's domain and for nothing else; all the same it is
//! installed by whoever is root here, and by nobody on the quiet.

use std::{
    env, fs,
    io::{self, Write as _},
    os::unix::{
        fs::MetadataExt as _, fs::OpenOptionsExt as _, fs::PermissionsExt as _,
        process::CommandExt as _,
    },
    path::{Path, PathBuf},
    process::Command,
};

use anyhow::Context as _;
use gantry_certs::common_name;

use super::{certs, explain, files::Files};
use crate::{
    args::Meant,
    config::Issuing,
    exit::{Class, Failure},
    output,
};

/// Where Debian has CAs of the machine's own, and what makes the system's list anew.
const ANCHORS: &str = "/usr/local/share/ca-certificates";
const UPDATE: &str = "update-ca-certificates";
/// What changes the databases of browsers.
const CERTUTIL: &str = "certutil";
/// Where Chromium has its database, below a home.
const CHROMIUM: [&str; 3] =
    [".pki/nssdb", ".local/share/pki/nssdb", "snap/chromium/current/.pki/nssdb"];
/// Where Firefox has its profiles, each with a database.
const FIREFOX: [&str; 3] = [
    ".mozilla/firefox",
    "snap/firefox/common/.mozilla/firefox",
    ".var/app/org.mozilla.firefox/.mozilla/firefox",
];

/// What is to be done.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Way {
    Install,
    Uninstall,
    Print,
}

/// The root that is to be trusted.
struct Root {
    pem: String,
    /// What it calls itself, which tells it from those of other installations.
    name: String,
}

impl Root {
    fn read(files: &Files) -> Result<Self, Failure> {
        let path = files.ca_dir().join("ca.pem");
        let pem = fs::read_to_string(&path).map_err(|error| {
            let message = format!("cannot read the development CA {}: {error}", path.display());
            Failure::new(Class::NotFound, message)
                .hint("the first start of Gantry makes it; --state names another directory")
        })?;
        let name = common_name(pem.as_bytes()).with_context(|| {
            format!("{} holds no certificate of a development CA", path.display())
        })?;
        Ok(Self { pem, name })
    }

    /// Its file among the machine's CAs.
    fn anchor(&self) -> PathBuf {
        let plain =
            |one: char| if one.is_ascii_alphanumeric() { one.to_ascii_lowercase() } else { '-' };
        let name: String = self.name.chars().map(plain).collect();
        Path::new(ANCHORS).join(format!("{name}.crt"))
    }
}

/// `gantry certs trust`
pub(super) fn trust(way: Way, meant: &Meant) -> Result<(), Failure> {
    let config = explain::config_of(meant.state.as_deref(), &meant.settings)?;
    let files = Files::new(&config.server.state);
    if way != Way::Uninstall {
        let by_file = matches!(config.certificates.issuing, Issuing::Development);
        require_development(&files, by_file)?;
    }
    let root = Root::read(&files)?;
    if way == Way::Print {
        return output::raw(root.pem.as_bytes());
    }
    if !rustix::process::geteuid().is_root() {
        let args: Vec<_> = env::args_os().skip(1).map(|it| quoted(&it.to_string_lossy())).collect();
        let program = env::current_exe().context("cannot find this program's own file")?;
        let (program, args) = (quoted(&program.display().to_string()), args.join(" "));
        return Err(Failure::new(Class::Denied, "only root may change what this machine trusts")
            .hint(format!("sudo {program} {args}"))
            .hint("or have --print print the CA's certificate, and install it by hand"));
    }
    let of_system = of_system(way, &root)?;
    output::line(&of_system)?;
    of_browsers(way, &root)
}

/// Refuses where what is shown is issued by somebody else.
fn require_development(files: &Files, by_file: bool) -> Result<(), Failure> {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .context("cannot start a runtime")?;
    let is_development = match runtime.block_on(certs::is_development(&files.socket())) {
        Ok(is_development) => is_development,
        // Whoever may not ask the process goes by the configuration; to install takes root in any case.
        Err(error)
            if certs::is_absent(&error) || error.kind() == io::ErrorKind::PermissionDenied =>
        {
            by_file
        }
        Err(error) => {
            let message = format!("cannot ask through {}: {error}", files.socket().display());
            return Err(Failure::new(Class::Unavailable, message));
        }
    };
    if is_development {
        return Ok(());
    }
    let message = "certificates come from CAs by ACME here (certificates.issuer = \"acme\"), not from the \
                   development CA, so that there is nothing to trust";
    Err(Failure::new(Class::Conflict, message).hint(
        "clients that do not trust such a CA need its own root: see certificates.authorities",
    ))
}

/// Changes what the system trusts.
fn of_system(way: Way, root: &Root) -> Result<String, Failure> {
    let anchor = root.anchor();
    if !Path::new(ANCHORS).is_dir() || find_program(UPDATE).is_none() {
        let message =
            format!("this system has no {ANCHORS} and {UPDATE}, the one way that is known here");
        return Err(Failure::new(Class::General, message)
            .hint("on Debian: apt install ca-certificates")
            .hint("elsewhere, have --print print the CA's certificate, and install it by hand"));
    }
    let shown = anchor.display();
    let done = match way {
        Way::Install | Way::Print => {
            replace(&anchor, root.pem.as_bytes())
                .with_context(|| format!("cannot write {shown}"))?;
            format!("The system trusts {} ({shown}).", root.name)
        }
        Way::Uninstall => match fs::remove_file(&anchor) {
            Ok(()) => format!("The system does not trust {} any more.", root.name),
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                return Ok(format!("The system did not trust {}.", root.name));
            }
            Err(error) => {
                return Err(anyhow::Error::new(error)
                    .context(format!("cannot remove {shown}"))
                    .into());
            }
        },
    };
    run(&mut Command::new(UPDATE)).map_err(|why| Failure::new(Class::General, why))?;
    Ok(done)
}

/// Writes a file that everybody may read, whole or not at all.
fn replace(path: &Path, contents: &[u8]) -> io::Result<()> {
    let beside = path.with_extension("tmp");
    match fs::remove_file(&beside) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
        Ok(()) | Err(_) => {}
    }
    let mut file = fs::OpenOptions::new().write(true).create_new(true).mode(0o644).open(&beside)?;
    // Whatever the umask is: others than root read it, too.
    file.set_permissions(fs::Permissions::from_mode(0o644))?;
    file.write_all(contents)?;
    file.sync_all()?;
    fs::rename(&beside, path)
}

/// Changes what the browsers of the calling user trust.
fn of_browsers(way: Way, root: &Root) -> Result<(), Failure> {
    let Some(home) = home() else {
        output::note("Browsers are left as they are: there is no home of whoever calls this.");
        return Ok(());
    };
    let databases = databases(&home);
    if databases.is_empty() {
        return output::line(&format!("Below {} no browser has a database.", home.display()));
    }
    if find_program(CERTUTIL).is_none() {
        output::note(&format!(
            "Browsers of {} are left as they are: there is no {CERTUTIL} (apt install libnss3-tools).",
            home.display()
        ));
        return Ok(());
    }
    let mut failed = Vec::new();
    for database in &databases {
        match change(way, root, database) {
            Ok(done) => output::line(&format!("{done} ({}).", database.path.display()))?,
            Err(why) => failed.push(format!("{}: {why}", database.path.display())),
        }
    }
    if failed.is_empty() {
        return Ok(());
    }
    let failure = Failure::new(Class::General, "not every browser could be told; the system was");
    Err(failed.into_iter().fold(failure, Failure::hint))
}

fn change(way: Way, root: &Root, database: &Database) -> Result<String, String> {
    let at = format!("sql:{}", database.path.display());
    let is_there = run(database.certutil().args(["-L", "-d", &at, "-n", &root.name])).is_ok();
    if is_there {
        run(database.certutil().args(["-D", "-d", &at, "-n", &root.name]))?;
    }
    if way == Way::Uninstall {
        let how = if is_there { "does not trust it any more" } else { "did not trust it" };
        return Ok(format!("A browser {how}"));
    }
    // The owner may not be able to read the state directory.
    let path = root.anchor().display().to_string();
    // C: a CA for servers, and for nothing else.
    let add = ["-A", "-d", &at, "-n", &root.name, "-t", "C,,", "-i", &path];
    run(database.certutil().args(add))?;
    Ok("A browser trusts it".to_owned())
}

/// A directory in which a browser has what it trusts.
struct Database {
    path: PathBuf,
    owner: (u32, u32),
}

impl Database {
    /// As its owner: its files stay the owner's, and nobody has root write elsewhere by a link.
    fn certutil(&self) -> Command {
        let mut command = Command::new(CERTUTIL);
        let (uid, gid) = self.owner;
        command.uid(uid).gid(gid).current_dir("/");
        command
    }
}

/// The databases below a home that are of its owner.
fn databases(home: &Path) -> Vec<Database> {
    let Ok(of_home) = fs::metadata(home) else { return Vec::new() };
    let chromium = CHROMIUM.iter().map(|place| home.join(place));
    let profiles = FIREFOX.iter().filter_map(|place| fs::read_dir(home.join(place)).ok());
    let firefox = profiles.flatten().filter_map(Result::ok).map(|entry| entry.path());
    let mut seen = Vec::new();
    let all = chromium.chain(firefox).filter_map(|path| {
        let about = fs::metadata(path.join("cert9.db")).ok()?;
        let real = fs::canonicalize(&path).ok()?;
        if about.uid() != of_home.uid() || seen.contains(&real) {
            return None;
        }
        seen.push(real);
        Some(Database { path, owner: (of_home.uid(), of_home.gid()) })
    });
    all.collect()
}

/// The home of whoever has called this, before `sudo`.
fn home() -> Option<PathBuf> {
    let caller = env::var_os("SUDO_USER").filter(|caller| caller != "root");
    match caller {
        Some(caller) => {
            let passwd = fs::read_to_string("/etc/passwd").ok()?;
            home_of(&passwd, &caller.to_string_lossy())
        }
        None => env::var_os("HOME").map(PathBuf::from),
    }
}

fn home_of(passwd: &str, user: &str) -> Option<PathBuf> {
    let line = passwd.lines().find(|line| line.split(':').next() == Some(user))?;
    line.split(':').nth(5).filter(|home| home.starts_with('/')).map(PathBuf::from)
}

fn find_program(name: &str) -> Option<PathBuf> {
    let paths = env::var_os("PATH")?;
    env::split_paths(&paths).map(|dir| dir.join(name)).find(|path| path.is_file())
}

/// Runs a program to its end; what it has said where it fails.
fn run(command: &mut Command) -> Result<(), String> {
    let name = command.get_program().to_string_lossy().into_owned();
    let output = command.output().map_err(|error| format!("cannot run {name}: {error}"))?;
    if output.status.success() {
        return Ok(());
    }
    let said = String::from_utf8_lossy(&output.stderr);
    Err(format!("{name} has failed ({}): {}", output.status, said.trim()))
}

/// A word as a shell takes it.
fn quoted(word: &str) -> String {
    let is_plain = |one: char| one.is_ascii_alphanumeric() || "-_./=:,@%+".contains(one);
    if !word.is_empty() && word.chars().all(is_plain) {
        return word.to_owned();
    }
    format!("'{}'", word.replace('\'', "'\\''"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_command_is_told_as_a_shell_takes_it() {
        for (word, want) in [
            ("--state=/var/lib/gantry", "--state=/var/lib/gantry"),
            ("a b", "'a b'"),
            ("it's", "'it'\\''s'"),
            ("", "''"),
            ("$HOME", "'$HOME'"),
        ] {
            assert_eq!(quoted(word), want, "{word:?}");
        }
    }

    #[test]
    fn the_home_of_who_has_called_sudo_is_in_the_list_of_users() {
        let passwd = "root:x:0:0:root:/root:/bin/sh\nann:x:1000:1000:Ann,,,:/srv/ann:/bin/bash\n";
        assert_eq!(home_of(passwd, "ann"), Some("/srv/ann".into()));
        assert_eq!(home_of(passwd, "an"), None);
        assert_eq!(home_of("bob:x:1:1::nowhere:", "bob"), None);
    }

    #[test]
    fn databases_are_those_that_are_there_and_each_once() {
        let home = tempfile::tempdir().unwrap();
        for place in [".pki/nssdb", ".mozilla/firefox/a.default", ".mozilla/firefox/b.none"] {
            fs::create_dir_all(home.path().join(place)).unwrap();
        }
        for place in [".pki/nssdb", ".mozilla/firefox/a.default"] {
            fs::write(home.path().join(place).join("cert9.db"), "").unwrap();
        }
        let link = home.path().join(".local/share/pki");
        fs::create_dir_all(&link).unwrap();
        std::os::unix::fs::symlink(home.path().join(".pki/nssdb"), link.join("nssdb")).unwrap();
        let found = databases(home.path());
        let found: Vec<_> =
            found.iter().map(|it| it.path.strip_prefix(home.path()).unwrap()).collect();
        assert_eq!(found, [Path::new(".pki/nssdb"), Path::new(".mozilla/firefox/a.default")]);
    }
}
