//! The decision: who may pass, given what a request has proved.

use std::{collections::BTreeMap, net::IpAddr};

use super::{Access, Document, Fallback, GroupName, Method, Program};

/// A set of groups of one [`Policy`], by their places in [`Policy::groups`].
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct GroupSet(u128);

impl GroupSet {
    /// The set without groups.
    pub const EMPTY: Self = Self(0);
    /// How many groups a set can tell apart.
    pub const CAPACITY: usize = 128;

    /// The set of the first `count` groups.
    pub const fn first(count: usize) -> Self {
        if count >= Self::CAPACITY { Self(u128::MAX) } else { Self((1 << count) - 1) }
    }

    /// Adds the group at this place; a place that no policy has is left out.
    pub const fn insert(&mut self, at: usize) {
        if at < Self::CAPACITY {
            self.0 |= 1 << at;
        }
    }

    /// Whether it has the group at this place.
    pub const fn contains(self, at: usize) -> bool {
        at < Self::CAPACITY && self.0 >> at & 1 == 1
    }

    /// Whether it has none.
    pub const fn is_empty(self) -> bool {
        self.0 == 0
    }

    /// How many it has.
    pub const fn len(self) -> usize {
        self.0.count_ones() as usize
    }

    /// The groups of either.
    #[must_use]
    pub const fn union(self, other: Self) -> Self {
        Self(self.0 | other.0)
    }

    /// The groups of both.
    #[must_use]
    pub const fn intersection(self, other: Self) -> Self {
        Self(self.0 & other.0)
    }

    /// The groups of this that the other lacks.
    #[must_use]
    pub const fn difference(self, other: Self) -> Self {
        Self(self.0 & !other.0)
    }

    /// The places, in ascending order.
    pub fn iter(self) -> impl Iterator<Item = usize> {
        (0..Self::CAPACITY).filter(move |at| self.contains(*at))
    }
}

/// What a request has shown of its sender, beside the address that it comes from.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Caller {
    /// No credential, or none that proved anything.
    Unknown,
    /// A token or password that a group of the policy accepts.
    Known,
}

/// What becomes of a request.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Decision {
    /// It passes.
    Allow,
    /// 403: nothing that the caller could prove here would help.
    Forbidden(Reason),
    /// 401: the caller may log in with a name and a password.
    Challenge,
}

/// Why a request is refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Reason {
    /// `enable_proxy` is false: nothing passes.
    Closed,
    /// The caller belongs to groups, and none of them opens this.
    Group,
    /// The caller belongs to no group that says anything, and the default is to refuse.
    Default,
}

/// What the documents of a project and a container say together.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Policy {
    groups: Vec<(GroupName, Vec<Method>)>,
    /// The groups that have a cell, each program once, sorted by it.
    cells: Vec<Row>,
    /// The groups with a password.
    passwords: GroupSet,
    default: Fallback,
    /// False when the kill switch is thrown.
    open: bool,
}

/// The cells of one program.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Row {
    program: Program,
    groups: GroupSet,
    cells: Vec<(usize, Access)>,
}

impl Policy {
    /// What both documents say together: the container's wins for a group of the same name, for a
    /// cell, and with its default and its switch; one without the switch follows the project's.
    /// Without any document there is no policy, and everything passes.
    pub fn merge(project: Option<&Document>, container: Option<&Document>) -> Option<Self> {
        let (main, base) = match (project, container) {
            (None, None) => return None,
            (Some(project), None) => (project, None),
            (project, Some(container)) => (container, project),
        };
        let switch = main.enable_proxy.or_else(|| base?.enable_proxy);
        // Later ones replace earlier ones.
        let documents = || base.into_iter().chain([main]);
        let groups: BTreeMap<&GroupName, &Vec<Method>> =
            documents().flat_map(|document| &document.groups).collect();
        // Documents have at most 64 groups each.
        let groups: Vec<_> = groups.into_iter().take(GroupSet::CAPACITY).collect();
        let mut cells: BTreeMap<Program, BTreeMap<usize, &Access>> = BTreeMap::new();
        for (name, row) in documents().flat_map(|document| &document.permissions) {
            let Ok(at) = groups.binary_search_by_key(&name, |(name, _)| name) else { continue };
            for (program, access) in row {
                cells.entry(*program).or_default().insert(at, access);
            }
        }
        let row = |(program, cells): (Program, BTreeMap<usize, &Access>)| Row {
            program,
            groups: set(cells.keys().copied()),
            cells: cells.into_iter().map(|(at, access)| (at, access.clone())).collect(),
        };
        let has_password = |methods: &[Method]| {
            methods.iter().any(|method| matches!(method, Method::Password { .. }))
        };
        let passwords = groups.iter().enumerate().filter(|(_, (_, methods))| has_password(methods));
        Some(Self {
            passwords: set(passwords.map(|(at, _)| at)),
            cells: cells.into_iter().map(row).collect(),
            groups: groups
                .into_iter()
                .map(|(name, methods)| (name.clone(), methods.clone()))
                .collect(),
            default: main.default,
            open: switch.unwrap_or(true),
        })
    }

    /// The groups, sorted by name; a [`GroupSet`] counts them from 0. At most 128.
    pub fn groups(&self) -> &[(GroupName, Vec<Method>)] {
        &self.groups
    }

    /// The groups with these names; names that no group has are left out.
    pub fn named(&self, names: &[GroupName]) -> GroupSet {
        let place = |name: &GroupName| self.groups.binary_search_by(|(own, _)| own.cmp(name)).ok();
        set(names.iter().filter_map(place))
    }

    /// The groups that are worth checking for a request: whether it belongs to any other one does not
    /// change what [`Policy::decide`] lets pass. Empty for a program that no group says anything
    /// about, so that open services cost nothing.
    pub fn wants(&self, program: Program, number: Option<u16>) -> GroupSet {
        let Some(row) = self.row(program).filter(|_| self.open) else { return GroupSet::EMPTY };
        match self.fallback(program) {
            // A group without a cell lets its members pass where another one would not.
            Fallback::Allow => GroupSet::first(self.groups.len()),
            // Who has logged in is told 403, not 401, whatever the group opens.
            Fallback::Deny => {
                row.granting(program, number).union(row.groups.intersection(self.passwords))
            }
        }
    }

    /// The groups that have a cell for a program, whatever it says.
    pub fn speaking(&self, program: Program) -> GroupSet {
        self.row(program).map_or(GroupSet::EMPTY, |row| row.groups)
    }

    /// Whether only a group that is let in sees this program: whoever belongs to none does not.
    pub fn denies_by_default(&self, program: Program) -> bool {
        self.fallback(program) == Fallback::Deny
    }

    /// What becomes of a request for this number of this program (`None` for one without numbers),
    /// whose sender belongs to the groups `matched`.
    ///
    /// One group that grants is enough. A group that says nothing about the program leaves it to the
    /// default, and so does belonging to none. Where a password opens the program, who has proved
    /// nothing is asked for it, even if the default is to pass. `logs` passes by default only while
    /// no group opens anything.
    pub fn decide(
        &self,
        program: Program,
        number: Option<u16>,
        matched: GroupSet,
        caller: Caller,
    ) -> Decision {
        if !self.open {
            return Decision::Forbidden(Reason::Closed);
        }
        let (granting, speaking) = self
            .row(program)
            .map_or_else(Default::default, |row| (row.granting(program, number), row.groups));
        if !granting.intersection(matched).is_empty() {
            return Decision::Allow;
        }
        if caller == Caller::Unknown && !speaking.intersection(self.passwords).is_empty() {
            return Decision::Challenge;
        }
        if !matched.is_empty() && matched.difference(speaking).is_empty() {
            return Decision::Forbidden(Reason::Group);
        }
        match self.fallback(program) {
            Fallback::Allow => Decision::Allow,
            Fallback::Deny => Decision::Forbidden(Reason::Default),
        }
    }

    /// Whether SSH connections may come from an address. Only groups with ranges of addresses say anything
    /// about them, by their cell of `ssh`, neither the switch nor the default does: where one lets its
    /// addresses in, others stay out, and where one keeps its addresses out, they stay out.
    pub fn admits_ssh(&self, address: IpAddr) -> bool {
        let Some(row) = self.row(Program::SSH) else { return true };
        let ranges = |at: usize| {
            let methods = self.groups.get(at).map(|(_, methods)| methods.as_slice());
            methods.unwrap_or_default().iter().filter_map(|method| match method {
                Method::Ip(range) => Some(range),
                Method::Jwt { .. } | Method::Password { .. } | Method::Token { .. } => None,
            })
        };
        let (mut some_grant, mut is_refused) = (false, false);
        for (at, access) in &row.cells {
            if ranges(*at).next().is_none() {
                continue;
            }
            let grants = access.grants(Program::SSH, None);
            let matches = ranges(*at).any(|range| range.contains(&address.to_canonical()));
            if grants && matches {
                return true;
            }
            some_grant |= grants;
            is_refused |= matches;
        }
        !some_grant && !is_refused
    }

    fn row(&self, program: Program) -> Option<&Row> {
        let at = self.cells.binary_search_by_key(&program, |row| row.program).ok()?;
        self.cells.get(at)
    }

    fn fallback(&self, program: Program) -> Fallback {
        if program == Program::LOGS && !self.cells.is_empty() {
            return Fallback::Deny;
        }
        self.default
    }
}

impl Row {
    /// The groups that open this number.
    fn granting(&self, program: Program, number: Option<u16>) -> GroupSet {
        let grants = |(_, access): &&(usize, Access)| access.grants(program, number);
        set(self.cells.iter().filter(grants).map(|(at, _)| *at))
    }
}

fn set(places: impl IntoIterator<Item = usize>) -> GroupSet {
    let mut set = GroupSet::EMPTY;
    for at in places {
        set.insert(at);
    }
    set
}
