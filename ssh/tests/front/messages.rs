//! Messages against the rules from who has logged in: they cost at most their own connection.

use std::sync::atomic::Ordering;

use crate::{
    bed::{Bed, PATIENCE, text},
    foreign::Script,
    handshakes::count_panics,
    hangs::resident,
    hardening::metric,
    master::Master,
};

/// What the script says, line by line, beside another connection that goes on.
async fn says(what: &[&str], lines: &[&str]) {
    let bed = Bed::new().await;
    let panics = count_panics();
    let master = Master::new(&bed, &[]).await;
    let before = resident();
    let Some(mut script) = Script::start(&bed, "messages.py", what) else { return };
    let mut said = Vec::new();
    for _ in lines {
        said.push(script.line().await);
    }
    assert_eq!(said, lines);
    script.end().await;
    assert_eq!(text(master.run("echo ok")).await, "ok\n");
    let gone = async {
        while metric(&bed, "gantry_ssh_connections") > 1 {
            tokio::time::sleep(std::time::Duration::from_millis(10)).await;
        }
    };
    tokio::time::timeout(PATIENCE, gone).await.expect("nothing is left of it");
    assert_eq!(panics.load(Ordering::Relaxed), 0);
    let grown = resident().saturating_sub(before);
    assert!(grown < 64 << 20, "{grown}");
    master.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn packets_that_are_too_large_are_taken_whole_or_end_the_connection() {
    says(&["packets"], &["100000 100000", "200000 200000", "300000 ended"]).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn channels_that_take_nothing_get_nothing() {
    says(&["zero"], &["packet ended", "window b'1\\n2\\n'", "rest 3889", "overflow 3893"]).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn messages_about_what_is_not_there_are_left_out_or_end_the_connection() {
    // To say that a channel is open which nobody wanted is the one that goes too far.
    let mut lines = vec!["91 ended".to_owned()];
    for kind in [92, 93, 94, 95, 96, 97, 98, 98, 99, 100] {
        lines.push(format!("{kind} goes on"));
    }
    lines.push("echo ok".to_owned());
    let lines: Vec<&str> = lines.iter().map(String::as_str).collect();
    says(&["strangers"], &lines).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn spoilt_messages_harm_no_other_connection() {
    says(&["anything", "40"], &["sent True"]).await;
}
