//! The files that Gantry writes into a container before its init starts, and when its variables change.
//!
//! What is in the file system is the container's own doing by then, so nothing is followed out of
//! it: directories are resolved beneath its root, files are replaced and never opened for writing.
//! What the owner wrote stays, octet by octet: ours are lines between two marks, or files that still carry
//! a mark. A file of which we could not keep everything is left alone.

use std::{
    collections::BTreeMap,
    fs::File,
    io::{self, Read as _, Write as _},
    net::{IpAddr, Ipv4Addr},
    os::fd::{AsFd, BorrowedFd, OwnedFd},
    path::Path,
};

use gantry_model::ContainerId;
use rustix::fs::{AtFlags, FileType, Gid, Mode, OFlags, ResolveFlags, Uid};

use crate::Order;

pub(crate) const BEGIN: &str = "# Gantry writes the lines down to its end mark at each start.";
const END: &str = "# Gantry: end";

/// No file that we keep parts of is larger.
pub(crate) const FILE_BYTES_MAX: u64 = 256 << 10;

/// Where inits are looked for, in this order.
const INITS: [&str; 4] = ["/sbin/init", "/usr/sbin/init", "/etc/init", "/bin/sh"];

/// The root file system of a container.
#[derive(Debug)]
pub(crate) struct Guest {
    root: OwnedFd,
    owner: Owner,
    resolve: ResolveFlags,
}

/// Whose the files of a container's root user are on the host.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Owner {
    pub(crate) user: u32,
    pub(crate) group: u32,
}

/// What a container shall know of itself.
pub(crate) struct Identity<'a> {
    pub(crate) order: &'a Order,
    pub(crate) address: Ipv4Addr,
    pub(crate) nameservers: &'a [IpAddr],
}

impl Guest {
    /// Opens the file system at `root`, whose root user is the host's `owner`.
    pub(super) fn open(root: &Path, owner: u32) -> io::Result<Self> {
        let root = rustix::fs::open(
            root,
            OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC,
            Mode::empty(),
        )?;
        Ok(Self::at(root, Owner { user: owner, group: owner }))
    }

    fn at(root: OwnedFd, owner: Owner) -> Self {
        let resolve = ResolveFlags::IN_ROOT | ResolveFlags::NO_MAGICLINKS;
        Self { root, owner, resolve }
    }

    /// The file system below the root of a container that runs. What it has mounted in there (a device of its
    /// own, a file system that never answers) is not looked into.
    pub(crate) fn of_running(root: OwnedFd, owner: Owner) -> Self {
        let guest = Self::at(root, owner);
        Self { resolve: guest.resolve | ResolveFlags::NO_XDEV, ..guest }
    }

    /// The program to start.
    pub(super) fn init(&self) -> &'static str {
        let exists = |path: &&&str| {
            let file = self.resolve(path, OFlags::PATH);
            file.is_ok_and(|file| {
                rustix::fs::fstat(file)
                    .is_ok_and(|stat| FileType::from_raw_mode(stat.st_mode).is_file())
            })
        };
        INITS.iter().find(exists).copied().unwrap_or("/sbin/init")
    }

    /// Writes everything. A file that cannot be written is the container's own doing and must not
    /// keep it from starting, so that is only reported.
    pub(super) fn identify(&self, identity: &Identity<'_>) {
        let order = identity.order;
        self.set_hostname(order.id, &order.hostname, identity.address);
        report(order.id, "/etc/resolv.conf", self.write_resolver(identity.nameservers));
        self.set_environment(order.id, &order.env);
    }

    /// Writes the name that the container has, and the address that belongs to it.
    pub(crate) fn set_hostname(&self, id: ContainerId, hostname: &str, address: Ipv4Addr) {
        report(id, "/etc/hostname", self.write("etc", "hostname", format!("{hostname}\n")));
        report(id, "/etc/hosts", self.write_block("etc", "hosts", &hosts(address, hostname)));
    }

    /// Writes the variables where logins and, at their next start, services take them from. The
    /// container may run and do to these files what it likes.
    pub(crate) fn set_environment(&self, id: ContainerId, env: &BTreeMap<String, String>) {
        report(id, "/etc/environment", self.write_block("etc", "environment", &pam(env)));
        if self.resolve("etc/systemd", OFlags::PATH | OFlags::DIRECTORY).is_ok() {
            let path = "/etc/systemd/system.conf.d/90-gantry.conf";
            let written = self
                .make_dir("etc/systemd", "system.conf.d")
                .and_then(|()| self.write(SYSTEMD_DIR, "90-gantry.conf", systemd(env)));
            report(id, path, written);
        }
    }

    /// A resolver configuration, unless the owner has made a file of his own. A link is the image's
    /// (to a service's output) and is replaced.
    fn write_resolver(&self, nameservers: &[IpAddr]) -> io::Result<()> {
        let present = self.read("etc/resolv.conf")?.unwrap_or_default();
        if is_owners(&present) {
            return Ok(());
        }
        self.write("etc", "resolv.conf", block(b"", &resolver(nameservers)))
    }

    /// Replaces our lines in a file and keeps the others.
    fn write_block(&self, dir: &str, name: &str, lines: &str) -> io::Result<()> {
        let present = self.read(&format!("{dir}/{name}"))?.unwrap_or_default();
        self.write(dir, name, block(&present, lines))
    }

    fn write(&self, dir: &str, name: &str, content: impl AsRef<[u8]>) -> io::Result<()> {
        let dir_fd = match self.resolve(dir, OFlags::PATH | OFlags::DIRECTORY) {
            Err(error) if error.kind() == io::ErrorKind::NotFound && !dir.contains('/') => {
                self.make_dir("/", dir)?;
                self.resolve(dir, OFlags::PATH | OFlags::DIRECTORY)?
            }
            other => other?,
        };
        let fresh = format!(".gantry-{name}");
        match rustix::fs::unlinkat(&dir_fd, fresh.as_str(), AtFlags::empty()) {
            Ok(()) | Err(rustix::io::Errno::NOENT) => {}
            Err(error) => return Err(error.into()),
        }
        let flags =
            OFlags::CREATE | OFlags::EXCL | OFlags::WRONLY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let mut file =
            File::from(rustix::fs::openat(&dir_fd, fresh.as_str(), flags, Mode::from(0o644))?);
        file.write_all(content.as_ref())?;
        self.own(file.as_fd(), 0o644)?;
        rustix::fs::renameat(&dir_fd, fresh.as_str(), &dir_fd, name)?;
        Ok(())
    }

    fn make_dir(&self, above: &str, name: &str) -> io::Result<()> {
        let above = self.resolve(above, OFlags::PATH | OFlags::DIRECTORY)?;
        match rustix::fs::mkdirat(&above, name, Mode::from(0o755)) {
            Ok(()) => {
                let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
                let dir = rustix::fs::openat(&above, name, flags, Mode::empty())?;
                self.own(dir.as_fd(), 0o755)
            }
            Err(rustix::io::Errno::EXIST) => Ok(()),
            Err(error) => Err(error.into()),
        }
    }

    /// Whether the directory is there, by now, that shares are mounted in. A container that has put
    /// something else there starts without.
    pub(super) fn has_place_for_shares(&self, id: ContainerId) -> bool {
        let made = self.make_dir("/", "hoody").and_then(|()| self.make_dir("hoody", "shares"));
        let flags = OFlags::PATH | OFlags::DIRECTORY;
        let is_there = made.and_then(|()| self.resolve("hoody/shares", flags).map(drop));
        if let Err(error) = &is_there {
            tracing::warn!(container = %id, %error, "it has no place for shares");
        }
        is_there.is_ok()
    }

    fn own(&self, file: BorrowedFd<'_>, mode: u32) -> io::Result<()> {
        let Owner { user, group } = self.owner;
        let (user, group) = (Uid::from_raw(user), Gid::from_raw(group));
        rustix::fs::fchown(file, Some(user), Some(group))?;
        rustix::fs::fchmod(file, Mode::from(mode))?;
        Ok(())
    }

    /// What a regular file holds; `None` if there is none, or something else. An error if that cannot be
    /// had as a whole, so that nobody writes a part of it back.
    fn read(&self, path: &str) -> io::Result<Option<Vec<u8>>> {
        // A terminal must not become ours.
        let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::NOCTTY;
        let file = match self.resolve(path, flags) {
            Ok(file) => file,
            Err(error) => {
                return match rustix::io::Errno::from_io_error(&error) {
                    // Nothing, a link, a socket, a device without a driver.
                    Some(
                        rustix::io::Errno::NOENT
                        | rustix::io::Errno::NOTDIR
                        | rustix::io::Errno::LOOP
                        | rustix::io::Errno::NXIO
                        | rustix::io::Errno::NODEV,
                    ) => Ok(None),
                    _ => Err(error),
                };
            }
        };
        if !FileType::from_raw_mode(rustix::fs::fstat(&file)?.st_mode).is_file() {
            return Ok(None);
        }
        let mut content = Vec::new();
        File::from(file).take(FILE_BYTES_MAX + 1).read_to_end(&mut content)?;
        if content.len() as u64 > FILE_BYTES_MAX { Err(too_large()) } else { Ok(Some(content)) }
    }

    /// Opens a path as the container would see it.
    fn resolve(&self, path: &str, flags: OFlags) -> io::Result<OwnedFd> {
        let flags = flags | OFlags::CLOEXEC;
        Ok(rustix::fs::openat2(&self.root, path, flags, Mode::empty(), self.resolve)?)
    }
}

fn report(id: ContainerId, path: &str, result: io::Result<()>) {
    if let Err(error) = result {
        tracing::warn!(container = %id, path, %error, "cannot write into it");
    }
}

/// Why a file of the owner's is left alone.
fn too_large() -> io::Error {
    let rule = format!("it holds more than {FILE_BYTES_MAX} octets, so it stays as it is");
    io::Error::new(io::ErrorKind::FileTooLarge, rule)
}

/// Whether a file holds something and nothing of ours.
pub(crate) fn is_owners(present: &[u8]) -> bool {
    let ours = present.split(|octet| *octet == b'\n').any(|line| line == BEGIN.as_bytes());
    !present.trim_ascii().is_empty() && !ours
}

/// The container's names for addresses.
pub(crate) fn hosts(address: Ipv4Addr, hostname: &str) -> String {
    format!(
        "127.0.0.1\tlocalhost\n::1\tlocalhost ip6-localhost ip6-loopback\n{address}\t{hostname}\n"
    )
}

/// The name servers, as a resolver reads them.
pub(crate) fn resolver(nameservers: &[IpAddr]) -> String {
    nameservers.iter().map(|ip| format!("nameserver {ip}\n")).collect::<Vec<_>>().concat()
}

const SYSTEMD_DIR: &str = "etc/systemd/system.conf.d";

/// `present` with our lines in place of those of last time, or at its end. Where the owner has removed
/// one of the marks, nobody knows which lines are ours, and all of them stay.
pub(crate) fn block(present: &[u8], lines: &str) -> Vec<u8> {
    let mut kept = Vec::new();
    // Where the lines after a beginning start in what is kept.
    let mut begin = None;
    for line in present.split_inclusive(|octet| *octet == b'\n') {
        let bare = line.strip_suffix(b"\n").unwrap_or(line);
        if bare == BEGIN.as_bytes() {
            begin = Some(kept.len());
        } else if bare == END.as_bytes() {
            kept.truncate(begin.take().unwrap_or(kept.len()));
        } else {
            kept.extend_from_slice(bare);
            kept.push(b'\n');
        }
    }
    kept.extend_from_slice(format!("{BEGIN}\n{lines}{END}\n").as_bytes());
    kept
}

/// For login sessions (`pam_env`), which know neither line breaks nor escapes.
pub(crate) fn pam(env: &BTreeMap<String, String>) -> String {
    let lines = env.iter().filter(|(_, value)| !value.contains(['\n', '\r']));
    let quote = |value: &str| if value.contains('"') { "" } else { "\"" };
    let lines = lines.map(|(key, value)| format!("{key}={0}{value}{0}\n", quote(value)));
    lines.collect::<Vec<_>>().concat()
}

/// For services: the environment that systemd gives to all of them.
pub(crate) fn systemd(env: &BTreeMap<String, String>) -> String {
    let mut text = vec!["# Gantry writes this file at each start.\n[Manager]\n".to_owned()];
    for (key, value) in env {
        let value = value
            .replace('\\', "\\\\")
            .replace('"', "\\\"")
            .replace('%', "%%")
            .replace('\n', "\\n")
            .replace('\r', "\\r");
        text.push(format!("DefaultEnvironment=\"{key}={value}\"\n"));
    }
    text.concat()
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::{MetadataExt as _, symlink};

    use super::*;

    fn me() -> u32 {
        rustix::process::getuid().as_raw()
    }

    #[test]
    fn lines_of_the_owner_stay_and_ours_are_replaced() {
        let first = block(b"mine=1", "A=1\n");
        assert_eq!(first, format!("mine=1\n{BEGIN}\nA=1\n{END}\n").as_bytes());
        let second = block(&[&first[..], b"late=2\n"].concat(), "B=2\n");
        assert_eq!(second, format!("mine=1\nlate=2\n{BEGIN}\nB=2\n{END}\n").as_bytes());
    }

    /// Whatever it holds: octets that are no text, ends of lines of another system, marks of which the
    /// owner has removed one, more than we would ever read.
    #[test]
    fn nothing_of_the_owners_is_lost() {
        let dir = tempfile::tempdir().unwrap();
        let (root, path) = (dir.path(), dir.path().join("etc/environment"));
        std::fs::create_dir(root.join("etc")).unwrap();
        let guest = Guest::open(root, me()).unwrap();
        let env = BTreeMap::from([("A".to_owned(), "1".to_owned())]);
        let ours = format!("{BEGIN}\nA=\"1\"\n{END}\n");
        let large = format!("B=2\n{}", "# padding\n".repeat(30_000));
        let half = format!("B=2\n{BEGIN}\nC=3\n");
        for (present, want) in [
            (&b"B=\xff\n"[..], [b"B=\xff\n", ours.as_bytes()].concat()),
            (b"B=2\r\nC=3", [b"B=2\r\nC=3\n", ours.as_bytes()].concat()),
            (half.as_bytes(), [b"B=2\nC=3\n", ours.as_bytes()].concat()),
            (large.as_bytes(), large.clone().into_bytes()),
        ] {
            std::fs::write(&path, present).unwrap();
            for _ in 0..2 {
                guest.set_environment(ContainerId::from_bytes([1; 12]), &env);
                let found = std::fs::read(&path).unwrap();
                assert!(found == want, "{:?}", String::from_utf8_lossy(&found));
            }
        }
    }

    fn env() -> BTreeMap<String, String> {
        BTreeMap::from([("A".to_owned(), "1".to_owned())])
    }

    #[test]
    fn what_never_says_anything_is_not_waited_for() {
        let dir = tempfile::tempdir().unwrap();
        std::fs::create_dir(dir.path().join("etc")).unwrap();
        let path = dir.path().join("etc/environment");
        let mode = Mode::RUSR | Mode::WUSR;
        rustix::fs::mknodat(rustix::fs::CWD, &path, FileType::Fifo, mode, 0).unwrap();
        let guest = Guest::open(dir.path(), me()).unwrap();
        guest.set_environment(ContainerId::from_bytes([1; 12]), &env());
        let written = std::fs::read_to_string(path).unwrap();
        assert_eq!(written, format!("{BEGIN}\nA=\"1\"\n{END}\n"));
    }

    /// The number of the terminal that this process belongs to.
    fn terminal() -> String {
        let stat = std::fs::read_to_string("/proc/self/stat").unwrap();
        stat.rsplit(')').next().unwrap().split_whitespace().nth(4).unwrap().to_owned()
    }

    /// Only who leads a session and has no terminal can get one, so that this is run once more by itself.
    #[test]
    fn a_terminal_in_place_of_a_file_does_not_become_ours() {
        const LEADS: &str = "GANTRY_TEST_LEADS_A_SESSION";
        const NAME: &str =
            "embedded::guest::tests::a_terminal_in_place_of_a_file_does_not_become_ours";
        if !rustix::process::geteuid().is_root() {
            eprintln!("not run: mounting needs root");
            return;
        }
        if std::env::var_os(LEADS).is_none() {
            let output = std::process::Command::new("unshare")
                .args(["--mount", "--propagation", "private", "setsid", "--wait"])
                .arg(std::env::current_exe().unwrap())
                .args(["--exact", NAME])
                .env(LEADS, "1")
                .output()
                .unwrap();
            let said = String::from_utf8_lossy(&output.stdout);
            assert!(output.status.success() && said.contains("1 passed"), "{output:?}");
            return;
        }
        let flags = rustix::pty::OpenptFlags::RDWR | rustix::pty::OpenptFlags::NOCTTY;
        let ours = rustix::pty::openpt(flags).unwrap();
        rustix::pty::grantpt(&ours).unwrap();
        rustix::pty::unlockpt(&ours).unwrap();
        let theirs = rustix::pty::ptsname(&ours, Vec::new()).unwrap();
        let dir = tempfile::tempdir().unwrap();
        std::fs::create_dir(dir.path().join("etc")).unwrap();
        let path = dir.path().join("etc/environment");
        std::fs::write(&path, "").unwrap();
        rustix::mount::mount_bind(&theirs, &path).unwrap();
        let guest = Guest::open(dir.path(), me()).unwrap();
        guest.set_environment(ContainerId::from_bytes([1; 12]), &env());
        assert_eq!(guest.read("etc/environment").unwrap(), None, "it is no file");
        assert_eq!(terminal(), "0");
        // What has mounts of its own is not looked into at all.
        let owner = Owner { user: me(), group: me() };
        let root = rustix::fs::open(dir.path(), OFlags::PATH, Mode::empty()).unwrap();
        let running = Guest::of_running(root, owner);
        let error = running.read("etc/environment").unwrap_err();
        assert_eq!(rustix::io::Errno::from_io_error(&error), Some(rustix::io::Errno::XDEV));
        // It would have been so easy.
        let plain = File::open(&path).unwrap();
        assert_ne!(terminal(), "0");
        rustix::mount::unmount(&path, rustix::mount::UnmountFlags::DETACH).unwrap();
        // Who leads a session does not outlive its terminal.
        std::mem::forget((plain, ours));
    }

    #[test]
    fn values_are_quoted_for_their_reader() {
        let env = BTreeMap::from([
            ("A".to_owned(), "two words".to_owned()),
            ("B".to_owned(), "50% \"q\" \\".to_owned()),
            ("C".to_owned(), "line\nbreak".to_owned()),
        ]);
        assert_eq!(pam(&env), "A=\"two words\"\nB=50% \"q\" \\\n");
        let text = systemd(&env);
        assert!(text.contains(r#"DefaultEnvironment="B=50%% \"q\" \\""#), "{text}");
        assert!(text.contains(r#"DefaultEnvironment="C=line\nbreak""#), "{text}");
    }

    /// A container may lay links to anywhere; the host's files behind them are never touched.
    #[test]
    fn links_out_of_the_container_lead_nowhere() {
        let dir = tempfile::tempdir().unwrap();
        let (root, outside) = (dir.path().join("root"), dir.path().join("outside"));
        std::fs::create_dir_all(root.join("etc")).unwrap();
        std::fs::create_dir_all(&outside).unwrap();
        std::fs::write(outside.join("hosts"), "host's own").unwrap();
        symlink(outside.join("hosts"), root.join("etc/hosts")).unwrap();
        symlink(&outside, root.join("etc/systemd")).unwrap();
        let guest = Guest::open(&root, me()).unwrap();
        guest.write_block("etc", "hosts", "ours\n").unwrap();
        assert_eq!(std::fs::read_to_string(outside.join("hosts")).unwrap(), "host's own");
        let written = std::fs::read_to_string(root.join("etc/hosts")).unwrap();
        assert_eq!(written, format!("{BEGIN}\nours\n{END}\n"));
        assert_eq!(std::fs::symlink_metadata(root.join("etc/hosts")).unwrap().uid(), me());
        assert!(guest.make_dir("etc/systemd", "system.conf.d").is_err());
        assert_eq!(std::fs::read_dir(&outside).unwrap().count(), 1, "nothing was added");
    }

    #[test]
    fn a_resolver_of_the_owners_own_stays() {
        let dir = tempfile::tempdir().unwrap();
        let guest = Guest::open(dir.path(), me()).unwrap();
        let servers = ["192.0.2.1".parse().unwrap()];
        guest.write_resolver(&servers).unwrap();
        let read = || String::from_utf8(guest.read("etc/resolv.conf").unwrap().unwrap()).unwrap();
        assert!(read().contains("nameserver 192.0.2.1\n"));
        guest.write_resolver(&["192.0.2.2".parse().unwrap()]).unwrap();
        assert!(read().contains("192.0.2.2") && !read().contains("192.0.2.1"));
        std::fs::write(dir.path().join("etc/resolv.conf"), "nameserver 192.0.2.9\n").unwrap();
        guest.write_resolver(&servers).unwrap();
        assert_eq!(read(), "nameserver 192.0.2.9\n");
    }
}
