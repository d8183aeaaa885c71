//! The state machine of a container, held against its table.

use gantry_model::{Event, Phase, Refused, Wish, phase::Outcome};
use proptest::{prelude::*, sample::select};

/// What the machine does, one row for each phase, one column for each event, in the words of
/// people who plan it: `same` is accepted without effect, `!…` is a refusal.
const TABLE: &str = "
|          | create    | start     | stop        | restart     | pause       | resume      | refill      | delete   | booted  | filled  | exited  | lost    | gone    |
| creating | same      | same      | stopping    | !unfinished | !unfinished | !unfinished | !unfinished | deleting | running | same    | failed  | failed  | failed  |
| copying  | !exists   | same      | !copying    | !copying    | !copying    | !copying    | !copying    | deleting | running | stopped | failed  | failed  | failed  |
| claiming | !exists   | same      | !unfinished | !unfinished | !unfinished | !unfinished | !unfinished | deleting | running | same    | failed  | failed  | failed  |
| starting | !exists   | same      | stopping    | !starting   | !starting   | !starting   | !starting   | deleting | running | same    | failed  | failed  | failed  |
| running  | !exists   | same      | stopping    | stopping    | paused      | same        | copying     | deleting | same    | same    | failed  | failed  | failed  |
| paused   | !exists   | !paused   | stopping    | !paused     | same        | running     | copying     | deleting | same    | same    | failed  | failed  | failed  |
| stopping | !exists   | !stopping | same        | !stopping   | !stopping   | !stopping   | !stopping   | deleting | same    | same    | stopped | stopped | stopped |
| stopped  | !exists   | starting  | same        | starting    | !stopped    | !stopped    | copying     | deleting | same    | same    | same    | same    | same    |
| failed   | !exists   | starting  | stopped     | starting    | !failed     | !failed     | copying     | deleting | same    | same    | same    | same    | same    |
| deleting | !deleting | !deleting | !deleting   | !deleting   | !deleting   | !deleting   | !deleting   | same     | same    | same    | same    | same    | removed |
";

fn event(word: &str) -> Event {
    match word {
        "create" => Event::Create,
        "start" => Event::Start,
        "stop" => Event::Stop,
        "restart" => Event::Restart,
        "pause" => Event::Pause,
        "resume" => Event::Resume,
        "refill" => Event::Refill,
        "delete" => Event::Delete,
        "booted" => Event::Booted,
        "filled" => Event::Filled,
        "exited" => Event::Exited,
        "lost" => Event::Lost,
        "gone" => Event::Gone,
        other => panic!("no event {other}"),
    }
}

fn outcome(phase: Phase, word: &str) -> Result<Outcome, Refused> {
    Ok(Outcome::Phase(match word {
        "same" => phase,
        "removed" => return Ok(Outcome::Removed),
        "!exists" => return Err(Refused::Exists),
        "!unfinished" => return Err(Refused::Unfinished),
        "!copying" => return Err(Refused::CopyInProgress),
        "!starting" => return Err(Refused::StartInProgress),
        "!stopping" => return Err(Refused::StopInProgress),
        "!paused" => return Err(Refused::Paused),
        "!stopped" => return Err(Refused::NotRunning),
        "!failed" => return Err(Refused::Failed),
        "!deleting" => return Err(Refused::Deleting),
        word => Phase::from_word(word).unwrap(),
    }))
}

#[test]
fn every_event_in_every_phase_does_what_the_table_says() {
    let mut rows = TABLE
        .trim()
        .lines()
        .map(|line| line.trim_matches('|').split('|').map(str::trim).collect::<Vec<&str>>());
    let events: Vec<Event> = rows.next().unwrap()[1..].iter().map(|word| event(word)).collect();
    assert_eq!(events, Event::ALL, "a column for every event");
    let mut phases = Vec::new();
    for row in rows {
        let phase = Phase::from_word(row[0]).unwrap();
        phases.push(phase);
        assert_eq!(row.len(), events.len() + 1);
        for (event, word) in events.iter().zip(&row[1..]) {
            assert_eq!(phase.on(*event), outcome(phase, word), "{event:?} while {phase}");
        }
    }
    assert_eq!(phases, Phase::ALL, "a row for every phase");
}

#[test]
fn words_of_phases_and_wishes_are_read_back() {
    for phase in Phase::ALL {
        assert_eq!(Phase::from_word(phase.as_str()), Some(phase));
        assert_eq!(phase.to_string(), phase.as_str());
    }
    for wish in Wish::ALL {
        assert_eq!(Wish::from_word(wish.as_str()), Some(wish));
    }
    for word in ["", "Running", "asleep", "running "] {
        assert_eq!((Phase::from_word(word), Wish::from_word(word)), (None, None), "{word:?}");
    }
}

#[test]
fn clients_see_only_statuses_that_they_know() {
    const KNOWN: [&str; 9] = [
        "creating", "running", "paused", "stopped", "failed", "deleted", "copying", "deleting",
        "claiming",
    ];
    for phase in Phase::ALL {
        assert!(KNOWN.contains(&phase.api_status()), "{phase}");
    }
    assert_eq!(Phase::Starting.api_status(), "stopped");
    assert_eq!(Phase::Stopping.api_status(), "running");
}

#[test]
fn a_refusal_says_what_to_do_about_it() {
    for (refused, says) in [
        (Phase::Paused.start(), "resume it first"),
        (Phase::Stopped.pause(), "start it first"),
        (Phase::Failed.resume(), "start it again or delete it"),
        (Phase::Stopping.start(), "is stopping"),
        (Phase::Deleting.stop(), "being deleted"),
        (Phase::Copying.restart(), "files are being copied"),
    ] {
        let text = refused.unwrap_err().to_string();
        assert!(text.contains(says), "{text}");
    }
}

/// Whether the runtime has, or is about to have, an init of this container.
fn is_alive(phase: Phase) -> bool {
    match phase {
        Phase::Creating
        | Phase::Copying
        | Phase::Claiming
        | Phase::Starting
        | Phase::Running
        | Phase::Paused => true,
        Phase::Stopping | Phase::Stopped | Phase::Failed | Phase::Deleting => false,
    }
}

fn is_report(event: Event) -> bool {
    match event {
        Event::Booted | Event::Filled | Event::Exited | Event::Lost | Event::Gone => true,
        Event::Create
        | Event::Start
        | Event::Stop
        | Event::Restart
        | Event::Pause
        | Event::Resume
        | Event::Refill
        | Event::Delete => false,
    }
}

proptest! {
    /// A report about the past never revives: only a client's wish leads out of rest.
    #[test]
    fn no_report_revives_a_container(
        first in select(&Phase::ALL[..]),
        events in proptest::collection::vec(select(&Event::ALL[..]), 0..40),
    ) {
        let mut phase = first;
        for event in events {
            let next = match phase.on(event) {
                Ok(Outcome::Phase(next)) => next,
                Ok(Outcome::Removed) => {
                    prop_assert_eq!((phase, event), (Phase::Deleting, Event::Gone));
                    break;
                }
                Err(_) => {
                    prop_assert!(!is_report(event), "the runtime's reports are never refused");
                    phase
                }
            };
            if is_report(event) {
                prop_assert!(is_alive(phase) || !is_alive(next), "{:?}: {} to {}", event, phase, next);
            }
            if phase == Phase::Deleting {
                prop_assert_eq!(next, Phase::Deleting, "a deletion is never taken back");
            }
            phase = next;
        }
    }

    /// A report that comes twice changes nothing the second time.
    #[test]
    fn reports_may_be_repeated(first in select(&Phase::ALL[..]), event in select(&Event::ALL[..])) {
        if let Ok(Outcome::Phase(next)) = first.on(event)
            && is_report(event)
        {
            prop_assert_eq!(next.on(event), Ok(Outcome::Phase(next)));
        }
    }

    /// Whatever happened, a client can get rid of a container.
    #[test]
    fn every_phase_can_be_deleted(first in select(&Phase::ALL[..])) {
        prop_assert_eq!(first.on(Event::Delete), Ok(Outcome::Phase(Phase::Deleting)));
    }
}
