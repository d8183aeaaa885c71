//! The files that Gantry writes into a container before its init starts, through Incus: it resolves
//! every path inside of the container.

use super::{
    client::{Client, Entry, Fault, Written},
    instance::{Init, digest},
};
use crate::embedded::guest::{
    BEGIN, FILE_BYTES_MAX, Identity, block, hosts, pam, resolver, systemd,
};

/// What is to be written.
pub(super) struct Texts {
    hostname: String,
    hosts: String,
    resolver: String,
    pam: String,
    systemd: String,
}

impl Texts {
    pub(super) fn new(identity: &Identity<'_>) -> Self {
        Self {
            hostname: format!("{}\n", identity.order.hostname),
            hosts: hosts(identity),
            resolver: resolver(identity.nameservers),
            pam: pam(&identity.order.env),
            systemd: systemd(&identity.order.env),
        }
    }

    /// Tells whether it is the same as last time.
    pub(super) fn digest(&self) -> String {
        let Self { hostname, hosts, resolver, pam, systemd } = self;
        digest(&[hostname, hosts, resolver, pam, systemd])
    }

    /// Writes everything, and tells what the init is. What the container's own doing keeps from
    /// being written must not keep it from starting, so that is only reported.
    pub(super) async fn write(&self, guest: &Guest<'_>) -> Result<Init, Fault> {
        guest.replace("/etc/hostname", &self.hostname).await?;
        guest.replace_block("/etc/hosts", &self.hosts).await?;
        let own = guest.text("/etc/resolv.conf").await?;
        if own.trim().is_empty() || own.contains(BEGIN) {
            guest.replace("/etc/resolv.conf", &block("", &self.resolver)).await?;
        }
        guest.set_environment(&self.pam, &self.systemd).await?;
        Ok(match guest.client.read_file(guest.name, "/sbin/init").await {
            Ok(Some(Entry::Link(to))) => Init::of(Some(&to)),
            Ok(_) | Err(Fault::Refused { .. }) => Init::of(None),
            Err(fault) => return Err(fault),
        })
    }
}

/// The file system of a container.
pub(super) struct Guest<'a> {
    pub(super) client: &'a Client,
    pub(super) name: &'a str,
}

impl Guest<'_> {
    /// Writes the variables where logins and, at their next start, services take them from.
    pub(super) async fn set_environment(&self, pam: &str, systemd: &str) -> Result<(), Fault> {
        self.replace_block("/etc/environment", pam).await?;
        if self.exists("/etc/systemd").await? {
            let dir = "/etc/systemd/system.conf.d";
            self.report(dir, self.client.write_file(self.name, dir, Written::Directory).await)?;
            self.replace("/etc/systemd/system.conf.d/90-gantry.conf", systemd).await?;
        }
        Ok(())
    }

    /// Reports what the container is to blame for; passes on the rest.
    fn report(&self, path: &str, result: Result<(), Fault>) -> Result<(), Fault> {
        match result {
            Err(error @ Fault::Refused { .. }) => {
                tracing::warn!(container = self.name, path, %error, "cannot write into it");
                Ok(())
            }
            other => other,
        }
    }

    async fn entry(&self, path: &str) -> Result<Option<Entry>, Fault> {
        match self.client.read_file(self.name, path).await {
            Err(Fault::Refused { .. }) => Ok(None),
            other => other,
        }
    }

    async fn exists(&self, path: &str) -> Result<bool, Fault> {
        self.entry(path).await.map(|entry| entry.is_some())
    }

    /// The text of a regular file; empty for anything else, and for a file too large to be ours.
    async fn text(&self, path: &str) -> Result<String, Fault> {
        Ok(match self.entry(path).await? {
            Some(Entry::File(bytes)) if bytes.len() as u64 <= FILE_BYTES_MAX => {
                String::from_utf8_lossy(&bytes).into_owned()
            }
            Some(_) | None => String::new(),
        })
    }

    /// Replaces our lines in a file and keeps the others.
    async fn replace_block(&self, path: &str, lines: &str) -> Result<(), Fault> {
        let present = self.text(path).await?;
        self.replace(path, &block(&present, lines)).await
    }

    /// Writes a file. A link in its place is replaced, not followed.
    async fn replace(&self, path: &str, content: &str) -> Result<(), Fault> {
        if let Some(Entry::Link(_)) = self.entry(path).await? {
            self.report(path, self.client.remove_file(self.name, path).await)?;
        }
        let written = self.client.write_file(self.name, path, Written::File(content)).await;
        self.report(path, written)
    }
}
