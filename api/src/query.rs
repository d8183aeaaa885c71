//! Query parameters, taken by name like the fields of a body.
//!
//! Parameters that a call does not know are ignored, as everywhere on the web; known ones with a
//! wrong value are refused, all at once. A wrong order of a list is answered 422, everything else
//! 400, as the clients of the reference have it.

use axum::extract::Query as Pairs;
use gantry_model::{FieldError, Id};
use http::Uri;

use crate::problem::{Kind, Problem};

/// The most entries of one page.
pub(crate) const LIMIT_MAX: u32 = 100;
/// The last page that can be asked for.
pub(crate) const PAGE_MAX: u32 = 1_000_000;

/// The most texts of one name.
const TEXTS_MAX: usize = 1000;

/// What a parameter holds.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Holds {
    /// An integer within bounds.
    Count { min: u32, max: u32 },
    /// One of some words, for the order of a list.
    Sort(&'static [&'static str]),
    /// One of some words.
    Word(&'static [&'static str]),
    /// `true` or `false`.
    Flag,
    /// 24 lower-case hexadecimal digits.
    Id,
    /// Any text.
    Text,
    /// Any texts, each given by itself.
    Texts,
}

/// One parameter that a call knows.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Param {
    pub(crate) name: &'static str,
    pub(crate) holds: Holds,
    pub(crate) about: &'static str,
}

impl Param {
    pub(crate) const fn new(name: &'static str, holds: Holds, about: &'static str) -> Self {
        Self { name, holds, about }
    }
}

/// The page of a list, from 1.
pub(crate) const PAGE: Param =
    Param::new("page", Holds::Count { min: 1, max: PAGE_MAX }, "The page, from 1");
/// How many entries a page has.
pub(crate) const LIMIT: Param =
    Param::new("limit", Holds::Count { min: 1, max: LIMIT_MAX }, "The most entries of a page");
/// The direction of a list.
pub(crate) const SORT_ORDER: Param =
    Param::new("sort_order", Holds::Sort(&["asc", "desc"]), "The direction of the order");
/// The realm that a list is narrowed to.
pub(crate) const REALM: Param =
    Param::new("realm_id", Holds::Id, "Narrows the list to one realm, as the realm's host does");
/// A state to wait for.
pub(crate) const WAIT: Param = Param::new(
    "wait",
    Holds::Word(&["running", "stopped", "paused", "deleted"]),
    "Answers when the container has reached this state, has failed, or the timeout is over",
);
/// How long to wait for it.
pub(crate) const TIMEOUT: Param = Param::new(
    "timeout",
    Holds::Count { min: 0, max: 300 },
    "How long to wait, in seconds; 30 unless given",
);

/// The parameters of one request and the mistakes found in them so far.
#[derive(Debug)]
pub(crate) struct Query {
    table: &'static [Param],
    pairs: Vec<(String, String)>,
    errors: Vec<FieldError>,
    sort_errors: Vec<FieldError>,
}

impl Query {
    /// Reads the query of `uri`; a parameter of `table` that is given twice is a mistake.
    pub(crate) fn new(uri: &Uri, table: &'static [Param]) -> Self {
        let mut errors = Vec::new();
        let pairs = match Pairs::<Vec<(String, String)>>::try_from_uri(uri) {
            Ok(Pairs(pairs)) => pairs,
            Err(error) => {
                errors.push(FieldError::new("query", error.to_string()));
                Vec::new()
            }
        };
        for param in table.iter().filter(|param| !matches!(param.holds, Holds::Texts)) {
            if pairs.iter().filter(|(name, _)| name == param.name).count() > 1 {
                errors.push(FieldError::new(param.name, "is given more than once"));
            }
        }
        Self { table, pairs, errors, sort_errors: Vec::new() }
    }

    fn take(&mut self, name: &str) -> Option<(Holds, String)> {
        let Some(param) = self.table.iter().find(|param| param.name == name) else {
            debug_assert!(false, "{name} is not in the table of parameters");
            return None;
        };
        let at = self.pairs.iter().position(|(given, _)| given == name)?;
        // The others stay in their order.
        Some((param.holds, self.pairs.remove(at).1))
    }

    /// Takes an integer.
    pub(crate) fn count(&mut self, name: &str) -> Option<u32> {
        let (holds, text) = self.take(name)?;
        let (min, max) = match holds {
            Holds::Count { min, max } => (min, max),
            Holds::Sort(_)
            | Holds::Word(_)
            | Holds::Flag
            | Holds::Id
            | Holds::Text
            | Holds::Texts => (0, u32::MAX),
        };
        let digits = !text.is_empty() && text.bytes().all(|octet| octet.is_ascii_digit());
        let count = text.parse().ok().filter(|count| digits && (min..=max).contains(count));
        if count.is_none() {
            self.errors
                .push(FieldError::new(name, format!("must be an integer from {min} to {max}")));
        }
        count
    }

    /// Takes `true` or `false`.
    pub(crate) fn flag(&mut self, name: &str) -> Option<bool> {
        let (_, text) = self.take(name)?;
        let flag = text.parse().ok();
        if flag.is_none() {
            self.errors.push(FieldError::new(name, "must be true or false"));
        }
        flag
    }

    /// Takes `true` or `false` in whatever spelling clients of Kubernetes have for it.
    pub(crate) fn switch(&mut self, name: &str) -> Option<bool> {
        if let Some((_, text)) = self.pairs.iter_mut().find(|(given, _)| given == name) {
            text.make_ascii_lowercase();
            match text.as_str() {
                "1" => "true".clone_into(text),
                "0" => "false".clone_into(text),
                _ => {}
            }
        }
        self.flag(name)
    }

    /// Takes all texts of a name, in their order.
    pub(crate) fn texts(&mut self, name: &str) -> Vec<String> {
        let is_known = self.table.iter().any(|param| param.name == name);
        debug_assert!(is_known, "{name} is not in the table of parameters");
        let taken = self.pairs.extract_if(.., |pair| pair.0 == name);
        let texts: Vec<String> = taken.map(|(_, text)| text).collect();
        if texts.len() > TEXTS_MAX {
            let rule = format!("must be given at most {TEXTS_MAX} times");
            self.errors.push(FieldError::new(name, rule));
        }
        texts
    }

    /// Takes an id.
    pub(crate) fn id<K>(&mut self, name: &str) -> Option<Id<K>> {
        let (_, text) = self.take(name)?;
        match text.parse() {
            Ok(id) => Some(id),
            Err(error) => {
                self.errors.push(FieldError::new(name, error.to_string()));
                None
            }
        }
    }

    /// Takes an id in digits of either case.
    pub(crate) fn id_of_any_case<K>(&mut self, name: &str) -> Option<Id<K>> {
        if let Some((_, text)) = self.pairs.iter_mut().find(|(given, _)| given == name) {
            text.make_ascii_lowercase();
        }
        self.id(name)
    }

    /// Takes any text.
    pub(crate) fn text(&mut self, name: &str) -> Option<String> {
        self.take(name).map(|(_, text)| text)
    }

    /// Takes one of some words.
    pub(crate) fn word<T: Copy>(&mut self, name: &str, words: &[(&str, T)]) -> Option<T> {
        let (holds, text) = self.take(name)?;
        let found = words.iter().find(|(word, _)| *word == text).map(|(_, value)| *value);
        if found.is_none() {
            let listed: Vec<&str> = words.iter().map(|(word, _)| *word).collect();
            let error = FieldError::new(name, format!("must be one of {}", listed.join(", ")));
            match holds {
                Holds::Sort(_) => self.sort_errors.push(error),
                Holds::Count { .. }
                | Holds::Word(_)
                | Holds::Flag
                | Holds::Id
                | Holds::Text
                | Holds::Texts => self.errors.push(error),
            }
        }
        found
    }

    /// Takes the direction of a list; the newest or greatest comes first unless asked otherwise.
    pub(crate) fn descending(&mut self) -> bool {
        self.word("sort_order", &[("asc", false), ("desc", true)]).unwrap_or(true)
    }

    /// Refuses every parameter that the call does not know, where one that is overlooked would do harm.
    pub(crate) fn refuse_unknown(&mut self) {
        let known = |name: &str| self.table.iter().any(|param| param.name == name);
        for (name, _) in self.pairs.iter().filter(|(name, _)| !known(name)) {
            self.errors.push(FieldError::new(name, "is not a known parameter"));
        }
    }

    /// Adds a mistake.
    pub(crate) fn refuse(&mut self, error: FieldError) {
        self.errors.push(error);
    }

    /// Ends the reading.
    pub(crate) fn finish(self) -> Result<(), Problem> {
        if !self.errors.is_empty() {
            let all: Vec<FieldError> = self.errors.into_iter().chain(self.sort_errors).collect();
            return Err(Problem::fields(Kind::Invalid, &all));
        }
        if !self.sort_errors.is_empty() {
            return Err(Problem::fields(Kind::InvalidSort, &self.sort_errors));
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    static TABLE: [Param; 5] = [
        PAGE,
        LIMIT,
        REALM,
        Param::new("sort_by", Holds::Sort(&["name"]), ""),
        Param::new("runtime", Holds::Flag, ""),
    ];

    fn read(query: &str) -> Result<(Option<u32>, Option<u32>), (Kind, usize)> {
        let uri: Uri = format!("/x?{query}").parse().unwrap();
        let mut query = Query::new(&uri, &TABLE);
        let page = query.count("page");
        let limit = query.count("limit");
        let _: Option<gantry_model::RealmId> = query.id("realm_id");
        query.word("sort_by", &[("name", ())]);
        query.flag("runtime");
        let errors = query.errors.len() + query.sort_errors.len();
        query.finish().map_err(|problem| (problem.kind(), errors))?;
        Ok((page, limit))
    }

    #[test]
    fn pages_and_limits_have_bounds() {
        for (query, want) in [
            ("", Ok((None, None))),
            ("page=2&limit=100", Ok((Some(2), Some(100)))),
            ("unknown=1", Ok((None, None))),
            ("page=0", Err((Kind::Invalid, 1))),
            ("page=1000001", Err((Kind::Invalid, 1))),
            ("page=-1&limit=101", Err((Kind::Invalid, 2))),
            ("limit=", Err((Kind::Invalid, 1))),
            ("limit=%2B5", Err((Kind::Invalid, 1))), // one spelling: no sign
            ("limit=ten", Err((Kind::Invalid, 1))),
            ("limit=99999999999", Err((Kind::Invalid, 1))),
            ("limit=1&limit=2", Err((Kind::Invalid, 1))),
            ("runtime=yes", Err((Kind::Invalid, 1))),
            ("realm_id=AAAAAAAAAAAAAAAAAAAAAAAA", Err((Kind::Invalid, 1))),
            ("sort_by=size", Err((Kind::InvalidSort, 1))),
            ("sort_by=size&limit=0", Err((Kind::Invalid, 2))),
        ] {
            assert_eq!(read(query), want, "query {query:?}");
        }
    }

    proptest::proptest! {
        /// Whatever stands behind the question mark is read, ignored or refused.
        #[test]
        fn any_query_is_read_or_refused(query in "[ -~&&[^ #<>\"`{}|\\\\^]]{0,60}") {
            if let Ok((page, limit)) = read(&query) {
                proptest::prop_assert!(page.is_none_or(|page| (1..=PAGE_MAX).contains(&page)));
                proptest::prop_assert!(limit.is_none_or(|limit| (1..=LIMIT_MAX).contains(&limit)));
            }
        }
    }
}
