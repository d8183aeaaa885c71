//! How commands in containers end.

use serde::Serialize;
use utoipa::ToSchema;

use crate::exec::Ended;

/// What came of a command.
#[derive(Serialize, ToSchema)]
pub(crate) struct Executed {
    /// Its exit status, as a shell has it: 128 and the number of the signal that ended it. Absent when its time
    /// was over.
    pub(crate) exit_code: Option<i32>,
    /// The signal that ended it, such as `KILL`.
    pub(crate) signal: Option<String>,
    /// The beginning of what it said.
    pub(crate) stdout: String,
    /// The beginning of its errors.
    pub(crate) stderr: String,
    /// Whether it said more than that.
    pub(crate) truncated: bool,
    /// Whether it was killed because its time was over.
    pub(crate) timed_out: bool,
}

impl Executed {
    /// The same without what was said.
    pub(crate) fn without_output(&self) -> Self {
        let Self { exit_code, timed_out, ref signal, .. } = *self;
        let signal = signal.clone();
        let (stdout, stderr) = (String::new(), String::new());
        Self { exit_code, signal, stdout, stderr, truncated: true, timed_out }
    }
}

/// How a session has ended, as Kubernetes tells it: a `Status`.
#[derive(Debug, Serialize)]
pub(crate) struct Outcome {
    metadata: Nothing,
    status: &'static str,
    #[serde(skip_serializing_if = "Option::is_none")]
    message: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    reason: Option<&'static str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    details: Option<Details>,
    #[serde(skip_serializing_if = "Option::is_none")]
    code: Option<u16>,
}

#[derive(Debug, Serialize)]
struct Nothing {}

#[derive(Debug, Serialize)]
struct Details {
    causes: Vec<Cause>,
}

#[derive(Debug, Serialize)]
struct Cause {
    #[serde(skip_serializing_if = "Option::is_none")]
    reason: Option<&'static str>,
    message: String,
}

impl Outcome {
    /// Of a process that has ended.
    pub(crate) fn of(ended: &Ended) -> Self {
        let code = ended.code();
        if code == 0 {
            let (message, reason, details, code) = (None, None, None, None);
            return Self {
                metadata: Nothing {},
                status: "Success",
                message,
                reason,
                details,
                code,
            };
        }
        let mut causes = vec![Cause { reason: Some("ExitCode"), message: code.to_string() }];
        if let Ended::Signal(name) = ended {
            causes.push(Cause { reason: Some("Signal"), message: name.clone() });
        }
        Self {
            metadata: Nothing {},
            status: "Failure",
            message: Some(format!("command terminated with non-zero exit code: {code}")),
            reason: Some("NonZeroExitCode"),
            details: Some(Details { causes }),
            code: None,
        }
    }

    /// Of a session whose process has not ended by itself.
    pub(crate) fn failure(why: String) -> Self {
        Self {
            metadata: Nothing {},
            status: "Failure",
            message: Some(why.clone()),
            reason: Some("InternalError"),
            details: Some(Details { causes: vec![Cause { reason: None, message: why }] }),
            code: Some(500),
        }
    }
}
