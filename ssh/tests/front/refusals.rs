//! What somebody hears who does not get in: the same, whatever the reason.
//!
//! How long it takes is compared by `benches/refusals`.

use std::{
    sync::atomic::Ordering,
    time::{Duration, Instant},
};

use gantry_ssh::{DoorState, Limits};

use crate::{
    bed::{Bed, door, text},
    foreign::Script,
    hangs::resident,
};

#[tokio::test(flavor = "multi_thread")]
async fn all_refusals_are_the_same() {
    let bed = Bed::new().await;
    bed.key("unknown", "ed25519");
    let gone = bed.key("gone", "ed25519");
    bed.doors.set(gone, Some(door(DoorState::Open)));
    let stopped = bed.key("stopped", "ed25519");
    bed.doors.set(stopped, Some(door(DoorState::Shut("is stopped"))));
    let Some(mut script) = Script::start(&bed, "refusals.py", &[]) else { return };
    // Each message, and how often the keys were looked at for it.
    let mut ask = async |line: &str| {
        let before = bed.doors.looks.load(Ordering::Relaxed);
        script.tell(line).await;
        let said = script.line().await;
        (said, bed.doors.looks.load(Ordering::Relaxed) - before)
    };
    let (said, _) = ask("root gone offered").await;
    assert!(said.starts_with("60 "), "{said}");
    bed.doors.set(gone, None);
    // One that is stopped is known to whoever has its key, and says so only after the login.
    let (said, _) = ask("root stopped offered").await;
    assert!(said.starts_with("60 "), "{said}");

    let refusal = ask("root unknown offered").await;
    // The methods that can go on, and no partial success.
    let want = format!(
        "51 {}00",
        [&[0, 0, 0, 9], &b"publickey"[..]]
            .concat()
            .iter()
            .fold(String::new(), |text, octet| format!("{text}{octet:02x}"),)
    );
    assert_eq!(refusal, (want, 1));
    let other = "root+0123456789abcdef01234568";
    for line in [
        "root unknown signed",
        "root unknown forged",
        "root gone offered",
        "root gone signed",
        "root id forged",
        "root stopped forged",
        &format!("{other} id offered"),
        &format!("{other} id signed"),
        &format!("{other} unknown signed"),
        "nobody unknown offered",
    ] {
        assert_eq!(ask(line).await, refusal, "{line}");
    }
    bed.doors.shuts_out.store(true, Ordering::Relaxed);
    // There the key may be proved, so that its owner hears who has it; an offer shows what it shows elsewhere.
    let (said, _) = ask("root id offered").await;
    assert!(said.starts_with("60 "), "{said}");
    for line in ["root id signed", "root id forged", "root unknown signed", "root unknown offered"]
    {
        assert_eq!(ask(line).await.0, refusal.0, "{line}, from a wrong address");
    }
    bed.doors.shuts_out.store(false, Ordering::Relaxed);
    let (said, _) = ask("root id signed").await;
    assert_eq!(said, "52 ");
    script.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn offering_a_known_key_again_and_again_ends_with_the_time_for_the_login() {
    let grace = Duration::from_secs(2);
    let bed = Bed::limited(Limits { grace, ..Limits::default() }).await;
    let Some(mut script) = Script::start(&bed, "refusals.py", &[]) else { return };
    script.tell("root id offered").await;
    assert!(script.line().await.starts_with("60 "));
    let (before, began) = (resident(), Instant::now());
    script.tell("flood root id").await;
    script.says("True True True").await;
    assert!(began.elapsed() >= grace, "{:?}", began.elapsed());
    let grown = resident().saturating_sub(before);
    assert!(grown < 32 << 20, "{grown}");
    assert_eq!(text(bed.run("echo ok")).await, "ok\n");
    script.end().await;
}
