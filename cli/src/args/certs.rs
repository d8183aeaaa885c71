//! What is asked about certificates, of the Gantry that runs on this machine.

use std::path::PathBuf;

use clap::{Args, Subcommand};
use gantry_certs::acme::Reason;

use super::Settings;

/// Which Gantry is meant.
#[derive(Args, Debug)]
pub(crate) struct Meant {
    /// The state directory of the Gantry that is meant; by default the one of the configuration.
    #[arg(long, value_name = "DIR")]
    pub(crate) state: Option<PathBuf>,
    #[command(flatten)]
    pub(crate) settings: Settings,
}

#[derive(Debug, Subcommand)]
pub(crate) enum CertsCommand {
    /// List the certificates that are shown, and those that are still to be had.
    List(CertsList),
    /// Renew a certificate now, and wait for what comes of it.
    Renew {
        /// One of its hostnames, or what `list` calls it.
        name: String,
        /// Do not wait: `list` shows the outcome.
        #[arg(long)]
        no_wait: bool,
        #[command(flatten)]
        meant: Meant,
    },
    /// Have the CA revoke a certificate that was ordered from it, and order another one with another key.
    ///
    /// From the first moment nobody shows it any more: until the next one has come, its names have none. Waits for
    /// what comes of both.
    Revoke {
        /// One of its hostnames, or what `list` calls it.
        name: String,
        /// Why (RFC 5280): unspecified, key-compromise, affiliation-changed, superseded, cessation-of-operation or
        /// privilege-withdrawn.
        #[arg(long, default_value_t = Reason::Unspecified)]
        reason: Reason,
        /// Only the certificate with this serial number, as `list` shows it.
        #[arg(long)]
        serial: Option<String>,
        /// Even if no other can be had in its place at present.
        #[arg(long)]
        force: bool,
        #[command(flatten)]
        meant: Meant,
    },
    /// Have this machine and its browsers trust the development CA.
    ///
    /// Installs it where the system keeps CAs (Debian's `/usr/local/share/ca-certificates`), and into the databases of
    /// Chromium and Firefox of whoever calls this (behind `sudo`: of whoever called that), if `certutil` is there.
    Trust {
        /// Take it out again everywhere.
        #[arg(long, conflicts_with = "print")]
        uninstall: bool,
        /// Install nothing: print the CA's certificate (PEM).
        #[arg(long)]
        print: bool,
        #[command(flatten)]
        meant: Meant,
    },
}

#[derive(Args, Debug)]
pub(crate) struct CertsList {
    /// Only those with this in a hostname.
    pub(crate) filter: Option<String>,
    /// The page, from 1.
    #[arg(long, default_value_t = 1, value_parser = clap::value_parser!(u32).range(1..))]
    pub(crate) page: u32,
    /// How many on a page.
    #[arg(long, default_value_t = 50, value_parser = clap::value_parser!(u32).range(1..=1000))]
    pub(crate) limit: u32,
    /// JSON with all there is to say (the same as `-o json`).
    #[arg(long)]
    pub(crate) json: bool,
    #[command(flatten)]
    pub(crate) meant: Meant,
}

#[derive(Args, Debug)]
pub(crate) struct Doctor {
    /// A hostname, whose certificate is looked at; without one the whole installation is.
    pub(crate) name: Option<String>,
    /// JSON with all findings (the same as `-o json`).
    #[arg(long)]
    pub(crate) json: bool,
    #[command(flatten)]
    pub(crate) meant: Meant,
}
