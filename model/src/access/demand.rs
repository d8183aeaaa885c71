//! What a request asks for, in the words of permission documents.

use super::{Caller, Decision, GroupSet, Policy, Program};
use crate::{Service, Target, selector::desktop_session};

/// What a request asks for, in the words of permission documents.
///
/// A plain port on which a Kit service listens is that service, too, whatever name led there: who may
/// not have the service does not get it by its port. A desktop is a session of the terminal, whose program
/// answers for it: it is that session, too.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Demand {
    service: Asked,
    kit: Option<Asked>,
}

/// A program, and the index or port that a cell may name.
type Asked = (Program, Option<u16>);

impl Demand {
    /// What a hostname or an alias leads to. `kit_at` says which Kit service listens on a port, and
    /// its index, unless all indexes do; it is asked for plain ports only.
    pub fn of(
        target: &Target<'_>,
        kit_at: impl FnOnce(u16) -> Option<(Service, Option<u16>)>,
    ) -> Self {
        let (number, kit) = match *target {
            Target::Kit { service: Service::Desktop, index, .. } => {
                (Some(index), Some((Service::Terminal, Some(desktop_session(index)))))
            }
            Target::Kit { index, .. } => (Some(index), None),
            Target::Port { port, .. } => (Some(port), kit_at(port)),
            Target::Ssh => (None, None),
        };
        let kit = kit.map(|(service, index)| (service.into(), index));
        Self { service: (Program::of(target), number), kit }
    }

    /// The Kit service on whose port a plain port is, or that answers for a desktop.
    pub fn kit(&self) -> Option<Program> {
        self.kit.map(|(program, _)| program)
    }

    /// What must be open for it: the Kit service, if there is one, before the port.
    pub fn programs(&self) -> impl Iterator<Item = Program> {
        self.asked().map(|(program, _)| program)
    }

    /// The groups that are worth checking, as [`Policy::wants`].
    pub fn wants(&self, policy: &Policy) -> GroupSet {
        let wants = self.asked().map(|(program, number)| policy.wants(program, number));
        wants.fold(GroupSet::EMPTY, GroupSet::union)
    }

    /// The groups that say something about it, as [`Policy::speaking`].
    pub fn speaking(&self, policy: &Policy) -> GroupSet {
        self.programs()
            .map(|program| policy.speaking(program))
            .fold(GroupSet::EMPTY, GroupSet::union)
    }

    /// What becomes of the request, as [`Policy::decide`]: it passes where all that it asks for does.
    pub fn decide(&self, policy: &Policy, matched: GroupSet, caller: Caller) -> Decision {
        self.asked()
            .map(|(program, number)| policy.decide(program, number, matched, caller))
            .find(|decision| *decision != Decision::Allow)
            .unwrap_or(Decision::Allow)
    }

    fn asked(&self) -> impl Iterator<Item = Asked> {
        self.kit.into_iter().chain([self.service])
    }
}
