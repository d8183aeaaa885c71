//! The files that Gantry writes into a container before its init starts, through Incus: it resolves
//! every path inside of the container.

use bytes::Bytes;

use super::{
    client::{Client, Entry, Fault, Written},
    instance::{Init, digest},
};
use crate::embedded::guest::{
    FILE_BYTES_MAX, Identity, block, hosts, is_owners, pam, resolver, systemd,
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
            hosts: hosts(identity.address, &identity.order.hostname),
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
        guest.set_hostname(&self.hostname, &self.hosts).await?;
        let path = "/etc/resolv.conf";
        if guest.content(path).await?.is_some_and(|present| !is_owners(&present)) {
            guest.replace(path, &block(b"", &self.resolver)).await?;
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
    /// Writes the name that the container has, and the addresses of names.
    pub(super) async fn set_hostname(&self, hostname: &str, hosts: &str) -> Result<(), Fault> {
        self.replace("/etc/hostname", hostname.as_bytes()).await?;
        self.replace_block("/etc/hosts", hosts).await
    }

    /// Writes the variables where logins and, at their next start, services take them from.
    pub(super) async fn set_environment(&self, pam: &str, systemd: &str) -> Result<(), Fault> {
        self.replace_block("/etc/environment", pam).await?;
        if self.exists("/etc/systemd").await? {
            let dir = "/etc/systemd/system.conf.d";
            self.report(dir, self.client.write_file(self.name, dir, Written::Directory).await)?;
            let path = "/etc/systemd/system.conf.d/90-gantry.conf";
            self.replace(path, systemd.as_bytes()).await?;
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

    /// What a regular file holds; nothing for anything else. `None` for a file that is too large to be kept
    /// in part: it stays as it is.
    async fn content(&self, path: &str) -> Result<Option<Bytes>, Fault> {
        Ok(match self.entry(path).await? {
            Some(Entry::File(bytes)) if bytes.len() as u64 > FILE_BYTES_MAX => {
                let (container, octets) = (self.name, bytes.len());
                tracing::warn!(container, path, octets, "a file is too large and stays as it is");
                None
            }
            Some(Entry::File(bytes)) => Some(bytes),
            Some(Entry::Link(_) | Entry::Other) | None => Some(Bytes::new()),
        })
    }

    /// Replaces our lines in a file and keeps the others.
    async fn replace_block(&self, path: &str, lines: &str) -> Result<(), Fault> {
        match self.content(path).await? {
            Some(present) => self.replace(path, &block(&present, lines)).await,
            None => Ok(()),
        }
    }

    /// Writes a file. A link in its place is replaced, not followed.
    async fn replace(&self, path: &str, content: &[u8]) -> Result<(), Fault> {
        if let Some(Entry::Link(_)) = self.entry(path).await? {
            self.report(path, self.client.remove_file(self.name, path).await)?;
        }
        let written = self.client.write_file(self.name, path, Written::File(content)).await;
        self.report(path, written)
    }
}
