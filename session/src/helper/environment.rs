//! The variables that a session begins with, as sshd gives them.

use std::{
    ffi::OsString,
    os::unix::ffi::{OsStrExt as _, OsStringExt as _},
    path::Path,
};

use super::{account::Account, files, launch::Launch};

/// What sshd of the distributions has for root, and for others.
const PATH_ROOT: &str = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";
const PATH_USER: &str = "/usr/local/bin:/usr/bin:/bin:/usr/games";

/// Variables in order, each name once.
#[derive(Debug, Default)]
pub(super) struct Variables(Vec<(OsString, OsString)>);

impl Variables {
    /// All that a session of this account has; what comes later goes before what was there.
    pub(super) fn of(
        account: &Account,
        launch: &Launch,
        client: impl IntoIterator<Item = (OsString, OsString)>,
    ) -> Self {
        let mut all = Self::default();
        let path = if account.uid == 0 { PATH_ROOT } else { PATH_USER };
        all.set("USER", &account.name);
        all.set("LOGNAME", &account.name);
        all.set("HOME", &account.home);
        all.set("PATH", path);
        all.set("MAIL", Path::new("/var/mail").join(&account.name));
        all.set("SHELL", &account.shell);
        for file in ["/etc/environment", "/etc/default/locale"] {
            // Most images have not both.
            for (name, value) in parse(&files::read(Path::new(file)).unwrap_or_default()) {
                all.set(OsString::from_vec(name), OsString::from_vec(value));
            }
        }
        if let Some([client, client_port, server, server_port]) = &launch.connection {
            all.set("SSH_CLIENT", format!("{client} {client_port} {server_port}"));
            all.set("SSH_CONNECTION", format!("{client} {client_port} {server} {server_port}"));
        }
        if let (Some(tty), Some(_)) = (&launch.tty, &launch.connection) {
            all.set("SSH_TTY", tty);
        }
        if let Some(term) = launch.term.as_ref().filter(|term| !term.is_empty()) {
            all.set("TERM", term);
        }
        if let Some(agent) = &launch.agent {
            all.set("SSH_AUTH_SOCK", OsString::from_vec(agent.clone()));
        }
        for (name, value) in client {
            all.set(name, value);
        }
        all
    }

    fn set(&mut self, name: impl Into<OsString>, value: impl Into<OsString>) {
        let (name, value) = (name.into(), value.into());
        match self.0.iter_mut().find(|(known, _)| *known == name) {
            Some((_, old)) => *old = value,
            None => self.0.push((name, value)),
        }
    }
}

impl IntoIterator for Variables {
    type Item = (OsString, OsString);
    type IntoIter = std::vec::IntoIter<Self::Item>;

    fn into_iter(self) -> Self::IntoIter {
        self.0.into_iter()
    }
}

/// Reads variables as `pam_env` does: one a line, perhaps with `export` before it; a value may stand in
/// quotes, which are taken off; what is no assignment to a name is left out. Other than there, a `#` inside
/// of quotes begins no comment.
fn parse(octets: &[u8]) -> Vec<(Vec<u8>, Vec<u8>)> {
    octets.split(|octet| *octet == b'\n').filter_map(assignment).collect()
}

fn assignment(line: &[u8]) -> Option<(Vec<u8>, Vec<u8>)> {
    let line = line.trim_ascii();
    let line = line.strip_prefix(b"export ").map_or(line, <[u8]>::trim_ascii_start);
    let equals = line.iter().position(|octet| *octet == b'=')?;
    let (name, value) = (line.get(..equals)?, line.get(equals + 1..)?);
    let named = !name.is_empty() && name.iter().all(|c| c.is_ascii_alphanumeric() || *c == b'_');
    (named && !value.contains(&0)).then(|| (name.to_vec(), unquoted(value).to_vec()))
}

fn unquoted(value: &[u8]) -> &[u8] {
    if let [quote @ (b'"' | b'\''), rest @ ..] = value {
        let end = rest.iter().rposition(|octet| octet == quote);
        return end.and_then(|end| rest.get(..end)).unwrap_or_else(|| uncommented(rest));
    }
    uncommented(value)
}

fn uncommented(value: &[u8]) -> &[u8] {
    value.split(|octet| *octet == b'#').next().unwrap_or_default().trim_ascii_end()
}

/// The last part of a shell's path, by which it is called.
pub(super) fn name_of(shell: &Path) -> OsString {
    shell.file_name().unwrap_or(shell.as_os_str()).to_owned()
}

/// A variable's name on its way to the process that will have it: with a sign before it, so that nothing
/// in between heeds it.
pub(super) fn packed(name: &[u8]) -> OsString {
    let mut packed = vec![b'+'];
    packed.extend_from_slice(name);
    OsString::from_vec(packed)
}

/// The variables that were packed into this process's own.
pub(super) fn unpacked() -> Vec<(OsString, OsString)> {
    let unpack = |(name, value): (OsString, OsString)| {
        let name = name.as_bytes().strip_prefix(b"+")?.to_vec();
        Some((OsString::from_vec(name), value))
    };
    std::env::vars_os().filter_map(unpack).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_of_variables_is_read_as_pam_does() {
        for (line, want) in [
            ("A=1", Some(("A", "1"))),
            ("  export A=1  ", Some(("A", "1"))),
            ("A=\"good day\"", Some(("A", "good day"))),
            ("A='good \"day\"'", Some(("A", "good \"day\""))),
            ("A=\"open", Some(("A", "open"))),
            ("A=x # why", Some(("A", "x"))),
            ("A=\"#1\" # why", Some(("A", "#1"))),
            ("A=", Some(("A", ""))),
            ("A=b=c", Some(("A", "b=c"))),
            ("# A=1", None),
            ("A B=1", None),
            ("=1", None),
            ("A", None),
        ] {
            let want: Vec<_> =
                want.iter().map(|(n, v)| (n.as_bytes().to_vec(), v.as_bytes().to_vec())).collect();
            assert_eq!(parse(line.as_bytes()), want, "{line}");
        }
    }

    #[test]
    fn what_comes_later_goes_before() {
        let mut all = Variables::default();
        all.set("A", "1");
        all.set("B", "2");
        all.set("A", "3");
        let got: Vec<_> = all.into_iter().collect();
        assert_eq!(got, [("A".into(), "3".into()), ("B".into(), "2".into())]);
    }
}
