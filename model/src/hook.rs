//! Hooks: scripts of a container that see its requests before its services do.

use std::num::NonZeroU32;

use crate::access::{GroupName, Program};

/// One rule: which requests of a service go to which script.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Hook {
    /// The service whose requests it sees.
    pub service: Program,
    /// Which of them.
    pub matches: Match,
    /// Where they go.
    pub script: Script,
    /// The script must answer within so many milliseconds, 1 to 30,000.
    pub timeout_ms: NonZeroU32,
    /// Only requests of these groups; of everybody when empty.
    pub groups: Vec<GroupName>,
}

/// Which requests a hook sees; all conditions must hold.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Match {
    /// The methods, in upper case; every one but `OPTIONS` when empty. `HEAD` counts as `GET`.
    pub methods: Vec<String>,
    /// The path: `*`, or a pattern that begins with `/`.
    pub path: String,
    /// Header fields that must have exactly these values; names in lower case.
    pub headers: Vec<(String, String)>,
}

/// A script of the container's `exec` service.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Script {
    /// Its path, which begins with `/`.
    pub path: String,
    /// Its directory: `default`, or 1 to 63 of `a-z0-9`.
    pub subdomain: String,
    /// Which instance runs it: 1 to 64 of `a-z0-9`.
    pub exec_id: Option<String>,
}
