//! Accounts of the container, by its own `/etc/passwd` and `/etc/group`.
//!
//! The program is linked statically and knows no name service: what is in other sources than these files
//! is no account.

use std::{
    ffi::{OsStr, OsString},
    os::unix::ffi::{OsStrExt as _, OsStringExt as _},
    path::{Path, PathBuf},
};

use super::files;

/// The most supplementary groups; Linux takes 65536.
const GROUPS_MAX: usize = 65_536;

/// Who a process runs as.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Account {
    pub(super) name: OsString,
    pub(super) uid: u32,
    pub(super) gid: u32,
    /// All of its groups, the first one too.
    pub(super) groups: Vec<u32>,
    pub(super) home: PathBuf,
    pub(super) shell: PathBuf,
}

impl Account {
    /// The account of a login name below a root directory (`/`); root's for a name that is none.
    ///
    /// A file that is missing or cannot be read is one without entries: an image may have none.
    pub(super) fn look_up(root: &Path, login: &str) -> Self {
        let passwd = files::read(&root.join("etc/passwd")).unwrap_or_default();
        let group = files::read(&root.join("etc/group")).unwrap_or_default();
        Self::find(&passwd, &group, login)
    }

    /// The account of a user id; nameless and without a home if there is none.
    pub(super) fn of(uid: u32) -> Self {
        let passwd = files::read(Path::new("/etc/passwd")).unwrap_or_default();
        let found = lines(&passwd).filter_map(Self::parse).find(|found| found.uid == uid);
        found.unwrap_or_else(|| Self {
            name: uid.to_string().into(),
            uid,
            home: "/".into(),
            ..Self::root()
        })
    }

    /// Whether it is the one of this login name; `root` is one in every container.
    pub(super) fn is_called(&self, login: &str) -> bool {
        self.name.as_bytes() == login.as_bytes() || (login == "root" && self.uid == 0)
    }

    fn find(passwd: &[u8], group: &[u8], login: &str) -> Self {
        let entry = |name: &[u8]| {
            lines(passwd).filter_map(Self::parse).find(|found| found.name.as_bytes() == name)
        };
        let mut account = entry(login.as_bytes())
            .or_else(|| entry(b"root"))
            .or_else(|| lines(passwd).filter_map(Self::parse).find(|found| found.uid == 0))
            .unwrap_or_else(Self::root);
        account.groups.extend(
            lines(group)
                .filter_map(|line| membership(line, account.name.as_bytes()))
                .filter(|gid| *gid != account.gid)
                .take(GROUPS_MAX - 1),
        );
        account
    }

    fn root() -> Self {
        Self {
            name: "root".into(),
            uid: 0,
            gid: 0,
            groups: vec![0],
            home: "/root".into(),
            shell: "/bin/sh".into(),
        }
    }

    fn parse(line: &[u8]) -> Option<Self> {
        let fields: Vec<&[u8]> = line.split(|octet| *octet == b':').collect();
        let [name, _, uid, gid, _, home, shell] = fields.as_slice() else { return None };
        let gid = number(gid)?;
        let or = |path: &[u8], other: &str| match path {
            [] => PathBuf::from(other),
            _ => PathBuf::from(OsStr::from_bytes(path)),
        };
        Some(Self {
            name: OsString::from_vec(name.to_vec()),
            uid: number(uid)?,
            gid,
            groups: vec![gid],
            home: or(home, "/"),
            shell: or(shell, "/bin/sh"),
        })
    }
}

/// The id of a group by its name.
pub(super) fn group_id(root: &Path, name: &str) -> Option<u32> {
    let group = files::read(&root.join("etc/group")).ok()?;
    lines(&group).find_map(|line| {
        let mut fields = line.split(|octet| *octet == b':');
        (fields.next()? == name.as_bytes()).then(|| number(fields.nth(1)?))?
    })
}

/// The ids and names of a file of users or groups.
pub(super) fn names(file: &Path) -> Vec<(u32, String)> {
    let octets = files::read(file).unwrap_or_default();
    let entry = |line: &[u8]| {
        let mut fields = line.split(|octet| *octet == b':');
        let name = String::from_utf8_lossy(fields.next()?).into_owned();
        Some((number(fields.nth(1)?)?, name))
    };
    lines(&octets).filter_map(entry).collect()
}

fn lines(octets: &[u8]) -> impl Iterator<Item = &[u8]> {
    octets.split(|octet| *octet == b'\n').map(<[u8]>::trim_ascii)
}

/// The id of the group of this line, if the account is a member.
fn membership(line: &[u8], name: &[u8]) -> Option<u32> {
    let mut fields = line.split(|octet| *octet == b':');
    let gid = number(fields.nth(2)?)?;
    fields.next()?.split(|octet| *octet == b',').any(|member| member == name).then_some(gid)
}

/// An id; the highest one means none to the kernel.
fn number(digits: &[u8]) -> Option<u32> {
    std::str::from_utf8(digits).ok()?.parse().ok().filter(|id| *id != u32::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    const PASSWD: &[u8] = b"# a comment\nroot:x:0:0:root:/root:/bin/bash\n\
        ann:x:1000:1000:Ann,,,:/srv/ann:\nbroken:x:many:1:::\nnone:x:4294967295:1::/:/bin/sh\n";
    const GROUP: &[u8] = b"root:x:0:\nann:x:1000:ann\nwheel:x:10:bob,ann\ndocker:x:11:annabel\n";

    #[test]
    fn an_account_has_what_its_lines_say() {
        let ann = Account::find(PASSWD, GROUP, "ann");
        assert_eq!((ann.uid, ann.gid), (1000, 1000));
        assert_eq!(ann.groups, [1000, 10]);
        assert_eq!(ann.home, Path::new("/srv/ann"));
        assert_eq!(ann.shell, Path::new("/bin/sh"), "an empty shell");
    }

    #[test]
    fn a_name_that_is_no_account_means_root() {
        for (login, why) in [
            ("nobody", "no line"),
            ("broken", "a line without a uid"),
            ("none", "the uid that means none"),
            ("# a comment", "a comment"),
            ("", "an empty name"),
        ] {
            let found = Account::find(PASSWD, GROUP, login);
            assert_eq!((found.name.to_str(), found.uid), (Some("root"), 0), "{why}");
        }
        let bare = Account::find(b"", b"", "ann");
        assert_eq!(bare, Account::root());
        let renamed = Account::find(b"toor:x:0:0::/r:/bin/ash\n", b"", "ann");
        assert_eq!(renamed.shell, Path::new("/bin/ash"));
    }
}
