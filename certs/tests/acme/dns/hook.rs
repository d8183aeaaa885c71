//! Programs of an operator's: good ones, bad ones, and ones that do not end.

use std::{
    fs,
    os::unix::fs::PermissionsExt as _,
    path::{Path, PathBuf},
    sync::Arc,
    time::{Duration, Instant},
};

use anyhow::Result;
use gantry_certs::dns::DnsProvider;
use serde_json::json;
use tempfile::TempDir;

use super::{propagation, provider, txt, value};
use crate::{wait_for, wait_until};

const NAME: &str = "_acme-challenge.example.test";
const BOUND: Duration = Duration::from_secs(10);

/// A script, and a directory that it knows as `$HERE`.
struct Script {
    dir: TempDir,
    hook: Arc<dyn DnsProvider>,
}

impl Script {
    fn new(lines: &str, timeout_s: u64) -> Result<Self> {
        let dir = tempfile::tempdir()?;
        let path = dir.path().join("hook");
        fs::write(&path, format!("#!/bin/sh\nHERE={}\n{lines}\n", dir.path().display()))?;
        fs::set_permissions(&path, fs::Permissions::from_mode(0o700))?;
        let table = json!({ "provider": "exec", "program": path, "timeout_s": timeout_s });
        let hook = provider(&table, &propagation(&["127.0.0.1:53".to_owned()], 53, 1));
        Ok(Self { dir, hook })
    }

    fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    async fn error(&self) -> String {
        self.hook.append(&txt(NAME, 'a')).await.unwrap_err().to_string()
    }
}

/// The process whose id is in a file, once it is there.
fn process(path: &Path) -> Result<PathBuf> {
    let id = wait_for("a process id", BOUND, || {
        fs::read_to_string(path).ok().filter(|text| text.ends_with('\n'))
    })?;
    Ok(Path::new("/proc").join(id.trim()))
}

/// Whether a process has ended, though nobody may have asked for its status yet.
fn has_ended(process: &Path) -> bool {
    let state = fs::read_to_string(process.join("stat")).unwrap_or_default();
    state.rsplit_once(')').is_none_or(|(_, rest)| rest.trim_start().starts_with('Z'))
}

#[tokio::test]
async fn a_program_gets_three_words_and_nothing_else() -> Result<()> {
    let lines = "printf '%s\\n' \"$@\" >>$HERE/words; pwd >>$HERE/words; cat /proc/$$/environ >$HERE/environ";
    let script = Script::new(lines, 10)?;
    script.hook.append(&txt(NAME, 'a')).await?;
    let environ = fs::read_to_string(script.path("environ"))?;
    let mut environ: Vec<_> = environ.split_terminator('\0').collect();
    environ.sort_unstable();
    assert_eq!(
        environ,
        [
            "GANTRY_DNS_ACTION=append",
            &format!("GANTRY_DNS_NAME={NAME}"),
            &format!("GANTRY_DNS_VALUE={}", value('a')),
            "PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin",
        ]
    );
    // No shell is between: such a value is one word.
    let odd = gantry_certs::dns::Txt { name: NAME.to_owned(), value: "$(id) ; 'x\"".to_owned() };
    script.hook.remove(&odd).await?;
    let words = fs::read_to_string(script.path("words"))?;
    let a = value('a');
    let want = ["append", NAME, &a, "/", "remove", NAME, "$(id) ; 'x\"", "/"];
    assert_eq!(words.lines().collect::<Vec<_>>(), want);
    Ok(())
}

#[tokio::test]
async fn a_failure_shows_the_end_of_what_was_said() -> Result<()> {
    let lines = "i=0; while [ $i -lt 5000 ]; do echo \"line $i\" >&2; i=$((i + 1)); done\n\
                 printf 'no \\033[31msuch zone\\n' >&2; echo ignored; exit 7";
    let script = Script::new(lines, 10)?;
    let text = script.error().await;
    let begin =
        format!("{} append {NAME}: has failed (exit status: 7): ", script.path("hook").display());
    assert!(text.starts_with(&begin), "{text}");
    assert!(text.ends_with("/ line 4999 / no \u{fffd}[31msuch zone"), "{text}");
    assert!(text.len() < begin.len() + 2048 && !text.contains("ignored"), "{text}");

    let silent = Script::new("kill -9 $$", 10)?;
    let text = silent.error().await;
    assert!(text.ends_with("has failed (signal: 9 (SIGKILL)), and has said nothing"), "{text}");
    Ok(())
}

#[tokio::test]
async fn a_program_that_hangs_is_killed_with_what_it_has_started() -> Result<()> {
    let lines = "echo asking >&2; sleep 1000 & echo $! >$HERE/child; echo $$ >$HERE/self; wait";
    let script = Script::new(lines, 3)?;
    let began = Instant::now();
    let text = script.error().await;
    assert!(text.ends_with(": was killed after 3 s: asking"), "{text}");
    assert!(began.elapsed() < Duration::from_secs(7), "{:?}", began.elapsed());
    for name in ["self", "child"] {
        let process = process(&script.path(name))?;
        wait_until(name, BOUND, || has_ended(&process))?;
    }
    Ok(())
}

#[tokio::test]
async fn a_program_ends_with_who_waits_for_it() -> Result<()> {
    let script = Script::new("sleep 1000 & echo $! >$HERE/child; wait", 60)?;
    let hook = Arc::clone(&script.hook);
    let task = tokio::spawn(async move { hook.append(&txt(NAME, 'a')).await });
    let path = script.path("child");
    let process = tokio::task::spawn_blocking(move || process(&path)).await??;
    assert!(!has_ended(&process));
    task.abort();
    assert!(task.await.unwrap_err().is_cancelled());
    wait_until("the end", BOUND, || has_ended(&process))
}

#[tokio::test]
async fn what_a_program_leaves_running_is_not_waited_for() -> Result<()> {
    let script = Script::new("sleep 1000 & echo $! >$HERE/child; exit 0", 60)?;
    let began = Instant::now();
    script.hook.append(&txt(NAME, 'a')).await?;
    assert!(began.elapsed() < Duration::from_secs(10), "{:?}", began.elapsed());
    let process = process(&script.path("child"))?;
    // It has succeeded, so that it may have wanted that.
    assert!(!has_ended(&process));
    let id = process.file_name().unwrap().to_str().unwrap().to_owned();
    assert!(std::process::Command::new("kill").arg(id).status()?.success());
    Ok(())
}

#[test]
fn a_table_of_exec_says_what_is_wrong() -> Result<()> {
    let dir = tempfile::tempdir()?;
    let plain = dir.path().join("plain");
    fs::write(&plain, "")?;
    for (program, timeout_s, want) in [
        (Path::new("hook"), 60, "program: hook: must be an absolute path"),
        (Path::new("/nowhere/hook"), 60, "program: /nowhere/hook: No such file"),
        (&plain, 60, "must be a file that may be executed: chmod +x"),
        (dir.path(), 60, "must be a file that may be executed: chmod +x"),
        (Path::new("/bin/true"), 601, "timeout_s: must be 1 to 600 seconds, found 601"),
    ] {
        let table = json!({ "provider": "exec", "program": program, "timeout_s": timeout_s });
        let config: gantry_certs::dns::DnsConfig = serde_json::from_value(table)?;
        let propagation = propagation(&["127.0.0.1:53".to_owned()], 53, 1);
        let faults = config.provider(&propagation).unwrap_err();
        let text = faults[0].to_string();
        assert!(faults.len() == 1 && text.contains(want), "{text}\nwanted: {want}");
    }
    Ok(())
}
