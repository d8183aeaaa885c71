//! Messages as they travel: those of the protocol arrive as they were, and of all others none does harm.

use std::os::fd::{AsFd as _, OwnedFd};

use gantry_session::{
    protocol::{
        Exit, FromHelper, MESSAGE_LEN_MAX, Process, Reason, Run, Size, Target, Terminal, ToHelper,
    },
    wire::{Receiver, Wire, WireError},
};
use proptest::{collection::vec, option, prelude::*};
use rustix::net::{SendFlags, send};
use serde::{Serialize, de::DeserializeOwned};

use crate::edge::pair;

fn octets() -> impl Strategy<Value = Vec<u8>> {
    vec(any::<u8>(), 0..40)
}

fn target() -> impl Strategy<Value = Target> {
    prop_oneof![
        (any::<String>(), any::<u16>()).prop_map(|(host, port)| Target::Tcp(host, port)),
        octets().prop_map(Target::Unix),
    ]
}

fn size() -> impl Strategy<Value = Size> {
    any::<[u16; 4]>().prop_map(|[columns, rows, width, height]| Size {
        columns,
        rows,
        width,
        height,
    })
}

fn run() -> impl Strategy<Value = Run> {
    prop_oneof![
        Just(Run::Shell),
        Just(Run::Sftp),
        octets().prop_map(Run::Command),
        (vec(octets(), 1..4), option::of(octets()))
            .prop_map(|(argv, directory)| Run::Program { argv, directory }),
    ]
}

fn process() -> impl Strategy<Value = Process> {
    let terminal = (any::<String>(), size(), vec(any::<(u8, u32)>(), 0..9))
        .prop_map(|(term, size, modes)| Terminal { term, size, modes });
    let env = vec((octets(), octets()), 0..4);
    let connection = option::of(any::<[String; 4]>());
    let user = (any::<String>(), any::<bool>());
    (user, run(), env, option::of(terminal), any::<bool>(), connection).prop_map(
        |((user, is_strict), run, env, terminal, agent, connection)| Process {
            user,
            is_strict,
            run,
            env,
            terminal,
            agent,
            connection,
        },
    )
}

fn order() -> impl Strategy<Value = ToHelper> {
    let id = any::<u64>;
    prop_oneof![
        (id(), process()).prop_map(|(id, process)| ToHelper::Start { id, process }),
        (id(), target(), any::<String>()).prop_map(|(id, target, user)| ToHelper::Connect {
            id,
            target,
            user
        }),
        (id(), target(), any::<String>()).prop_map(|(id, at, user)| ToHelper::Listen {
            id,
            at,
            user
        }),
        id().prop_map(|id| ToHelper::Take { id }),
        (id(), size()).prop_map(|(id, size)| ToHelper::Resize { id, size }),
        (id(), any::<String>()).prop_map(|(id, name)| ToHelper::Signal { id, name }),
        id().prop_map(|id| ToHelper::End { id }),
    ]
}

fn answer() -> impl Strategy<Value = FromHelper> {
    let id = any::<u64>;
    let reason =
        prop_oneof![Just(Reason::Prohibited), Just(Reason::Failed), Just(Reason::Shortage)];
    let exit = prop_oneof![
        any::<u8>().prop_map(Exit::Status),
        any::<(String, bool)>().prop_map(|(name, core)| Exit::Signal(name, core)),
    ];
    prop_oneof![
        any::<u32>().prop_map(|version| FromHelper::Ready { version }),
        id().prop_map(|id| FromHelper::Started { id }),
        (id(), reason, any::<String>()).prop_map(|(id, reason, message)| FromHelper::Refused {
            id,
            reason,
            message
        }),
        (id(), exit).prop_map(|(id, exit)| FromHelper::Exited { id, exit }),
        (id(), any::<u16>()).prop_map(|(id, port)| FromHelper::Listening { id, port }),
        (id(), id(), option::of(any::<(String, u16)>()))
            .prop_map(|(id, listener, peer)| FromHelper::Accepted { id, listener, peer }),
    ]
}

/// Sends a message over a new connection, and receives it by both of its ways.
fn carried<T: Serialize + DeserializeOwned>(message: &T) -> [T; 2] {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    runtime.block_on(async {
        let (ours, theirs) = pair();
        let (ours, mut by_thread) = (Wire::new(ours).unwrap(), receiver(&theirs));
        let by_task = Wire::new(theirs).unwrap();
        ours.send(message, &[]).await.unwrap();
        let (first, descriptors) = by_task.receive().await.unwrap();
        assert!(descriptors.is_empty());
        ours.send(message, &[]).await.unwrap();
        [first, by_thread.receive().unwrap()]
    })
}

fn receiver(socket: &OwnedFd) -> Receiver {
    Receiver::new(rustix::io::fcntl_dupfd_cloexec(socket.as_fd(), 0).unwrap())
}

/// What the receiver makes of these octets.
fn received<T: DeserializeOwned>(octets: &[u8]) -> Result<T, WireError> {
    let (ours, theirs) = pair();
    send(&ours, octets, SendFlags::NOSIGNAL).unwrap();
    receiver(&theirs).receive()
}

/// The octets of a message as they travel.
fn written(message: &impl Serialize) -> Vec<u8> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let (ours, theirs) = pair();
    runtime.block_on(async { Wire::new(ours).unwrap().send(message, &[]).await.unwrap() });
    let mut octets = vec![0; MESSAGE_LEN_MAX];
    let (len, _) =
        rustix::net::recv(&theirs, &mut octets[..], rustix::net::RecvFlags::empty()).unwrap();
    octets.truncate(len);
    octets
}

/// Octets of a message, spoilt: another octet at a place, another length, or more at the end.
fn spoilt(
    mut octets: Vec<u8>,
    at: prop::sample::Index,
    octet: u8,
    more: &[u8],
    cut: bool,
) -> Vec<u8> {
    let at = at.index(octets.len());
    octets[at] = octet;
    if cut {
        octets.truncate(at + 1);
    }
    octets.extend_from_slice(more);
    octets
}

proptest! {
    #[test]
    fn orders_arrive_as_they_were(order in order()) {
        prop_assert_eq!(carried(&order), [order.clone(), order]);
    }

    #[test]
    fn answers_arrive_as_they_were(answer in answer()) {
        prop_assert_eq!(carried(&answer), [answer.clone(), answer]);
    }

    /// Whatever a container says is understood as something, or is none of the protocol.
    #[test]
    fn any_octets_are_a_message_or_an_error(octets in vec(any::<u8>(), 1..200)) {
        match received::<FromHelper>(&octets) {
            Ok(message) => prop_assert!(written(&message).len() <= octets.len()),
            Err(error) => prop_assert!(matches!(error, WireError::Malformed(_)), "{error}"),
        }
    }

    #[test]
    fn spoilt_answers_are_messages_or_errors(
        answer in answer(), at: prop::sample::Index, octet: u8, more in octets(), cut: bool,
    ) {
        let octets = spoilt(written(&answer), at, octet, &more, cut);
        match received::<FromHelper>(&octets) {
            Ok(message) => prop_assert!(written(&message).len() <= octets.len()),
            Err(error) => prop_assert!(matches!(error, WireError::Malformed(_)), "{error}"),
        }
    }

    #[test]
    fn spoilt_orders_are_messages_or_errors(
        order in order(), at: prop::sample::Index, octet: u8, more in octets(), cut: bool,
    ) {
        let octets = spoilt(written(&order), at, octet, &more, cut);
        match received::<ToHelper>(&octets) {
            Ok(message) => prop_assert!(written(&message).len() <= octets.len()),
            Err(error) => prop_assert!(matches!(error, WireError::Malformed(_)), "{error}"),
        }
    }
}

#[test]
fn a_message_that_is_too_long_or_empty_ends_the_connection() {
    let long = vec![0; MESSAGE_LEN_MAX + 1];
    assert!(matches!(received::<FromHelper>(&long), Err(WireError::Io(_))));
    // As the end of the connection looks.
    assert!(matches!(received::<FromHelper>(&[]), Err(WireError::Closed)));
}
