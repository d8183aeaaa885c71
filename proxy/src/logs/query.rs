//! What is asked of a log: which entries, how many, with what.

use gantry_model::FieldError;

use super::{
    entry::{Bodies, Entry, Head, Kind, Level, Source},
    ring::Octets,
};
use crate::guard::query::decode;

/// The most entries that one answer has, and how many it has unless asked otherwise.
pub(super) const LIMIT_MAX: u64 = 1_000;
const LIMIT: u64 = 100;
/// The most entries that a look at the end shows.
const LAST_MAX: u64 = 1_000;
/// Where the farthest page begins.
const OFFSET_MAX: u64 = 5_000_000;

/// A filter by one word.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
enum Pick<T> {
    #[default]
    Any,
    One(T),
    /// Several words at once are no word that an entry has.
    None,
}

impl<T: Copy + PartialEq> Pick<T> {
    fn takes(self, value: T) -> bool {
        match self {
            Self::Any => true,
            Self::One(one) => one == value,
            Self::None => false,
        }
    }
}

/// Which entries are wanted.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Filter {
    kind: Pick<Kind>,
    level: Pick<Level>,
    source: Pick<Source>,
    method: Option<String>,
    /// Honoured by streams alone.
    pub(super) service: Option<String>,
    pub(super) bodies: Bodies,
}

impl Filter {
    /// Whether an entry is wanted.
    pub(super) fn takes(&self, head: &Head, text: &Octets<'_>) -> bool {
        self.kind.takes(head.kind)
            && self.level.takes(head.level)
            && self.source.takes(head.source)
            && self.method.as_ref().is_none_or(|method| head.has_method(method, text.iter()))
            && self
                .service
                .as_ref()
                .is_none_or(|name| head.kind == Kind::Event || head.served.is_named(name))
    }
}

/// Which part of the wanted entries a list shows.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Part {
    /// A page, newest first.
    Page { limit: u64, offset: u64 },
    /// The last ones, oldest first.
    Last(u64),
    /// Those after one, oldest first.
    After { seq: u64, limit: u64 },
}

/// A list that is asked for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct List {
    pub(super) filter: Filter,
    pub(super) part: Part,
}

/// A stream that is asked for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Follow {
    pub(super) filter: Filter,
    /// How many entries of the past it begins with.
    pub(super) last: u64,
    /// The last entry that its reader has.
    pub(super) after: Option<u64>,
}

/// The parameters of a request, and what is wrong with them.
struct Reader<'q> {
    query: &'q str,
    errors: Vec<FieldError>,
}

impl<'q> Reader<'q> {
    const fn new(query: &'q str) -> Self {
        Self { query, errors: Vec::new() }
    }

    fn refuse(&mut self, name: &str, rule: impl Into<String>) {
        self.errors.push(FieldError::new(name, rule));
    }

    fn text(&mut self, name: &str) -> Option<String> {
        let split = |part: &'q str| part.split_once('=').unwrap_or((part, ""));
        let values = self.query.split('&').map(split);
        let mut values = values.filter(|(key, _)| *decode(key) == *name.as_bytes());
        let (_, value) = values.next()?;
        if values.next().is_some() {
            self.refuse(name, "must be given once");
            return None;
        }
        if let Ok(text) = String::from_utf8(decode(value).into_owned()) {
            return Some(text);
        }
        self.refuse(name, "must be UTF-8");
        None
    }

    fn number(&mut self, name: &str, min: u64, max: u64) -> Option<u64> {
        let text = self.text(name)?;
        let digits = !text.is_empty() && text.bytes().all(|octet| octet.is_ascii_digit());
        let number = text.parse().ok().filter(|number| digits && (min..=max).contains(number));
        if number.is_none() {
            self.refuse(name, format!("must be a whole number from {min} to {max}"));
        }
        number
    }

    fn flag(&mut self, name: &str) -> bool {
        match self.text(name).as_deref() {
            None | Some("false") => false,
            Some("true") => true,
            Some(_) => {
                self.refuse(name, "must be true or false");
                false
            }
        }
    }

    fn word<T: Copy>(&mut self, name: &str, all: &[T], word: fn(T) -> &'static str) -> Pick<T> {
        let Some(text) = self.text(name) else { return Pick::Any };
        let find = |text: &str| all.iter().copied().find(|one| word(*one) == text);
        match find(&text) {
            Some(one) => Pick::One(one),
            None if text.contains(',') && text.split(',').all(|text| find(text).is_some()) => {
                Pick::None
            }
            None => {
                let words: Vec<_> = all.iter().copied().map(word).collect();
                self.refuse(name, format!("must be one of {}", words.join(", ")));
                Pick::Any
            }
        }
    }

    fn filter(&mut self) -> Filter {
        Filter {
            kind: self.word("kind", &Kind::ALL, Kind::as_str),
            level: self.word("level", &Level::ALL, Level::as_str),
            source: self.word("source", &Source::ALL, Source::as_str),
            method: self.text("method").map(|method| method.to_ascii_uppercase()),
            service: None,
            bodies: Bodies {
                request: self.flag("includeRequestBody"),
                response: self.flag("includeResponseBody"),
                hidden: false,
            },
        }
    }

    fn finish<T>(self, value: T) -> Result<T, Vec<FieldError>> {
        if self.errors.is_empty() { Ok(value) } else { Err(self.errors) }
    }
}

impl List {
    /// Reads the query of a list. Parameters that it does not know are ignored; `projectId` and
    /// `containerId` are, because the host says what is listed.
    pub(super) fn parse(query: &str) -> Result<Self, Vec<FieldError>> {
        let mut reader = Reader::new(query);
        let filter = reader.filter();
        let limit = reader.number("limit", 1, LIMIT_MAX);
        let offset = reader.number("offset", 0, OFFSET_MAX);
        let last = reader.number("last", 1, LAST_MAX);
        let after = reader.number("afterId", 0, u64::MAX);
        if reader.text("cursor").is_some() {
            reader.refuse("cursor", "is not supported; use offset, or afterId");
        }
        if last.is_some() && after.is_some() {
            reader.refuse("last", "cannot be given together with afterId");
        }
        let part = match (last, after) {
            // With bodies the answer is always a page.
            _ if filter.bodies.any() => Part::Page {
                limit: limit.or(last).unwrap_or(LIMIT).min(LIMIT_MAX),
                offset: offset.unwrap_or(0),
            },
            (Some(last), _) => Part::Last(last),
            (None, Some(seq)) => Part::After { seq, limit: limit.unwrap_or(LIMIT) },
            (None, None) => {
                Part::Page { limit: limit.unwrap_or(LIMIT), offset: offset.unwrap_or(0) }
            }
        };
        reader.finish(Self { filter, part })
    }
}

impl Follow {
    /// Reads the query of a stream, and the `Last-Event-ID` of one that goes on.
    pub(crate) fn parse(query: &str, last_event: Option<&[u8]>) -> Result<Self, Vec<FieldError>> {
        let mut reader = Reader::new(query);
        let mut filter = reader.filter();
        filter.service = reader.text("serviceName");
        let last = reader.number("last", 0, LAST_MAX).unwrap_or(LIMIT);
        let after = reader.number("afterId", 0, u64::MAX);
        let number = |octets: &[u8]| std::str::from_utf8(octets).ok()?.trim().parse().ok();
        let after = match last_event {
            None | Some(b"") => after,
            // An id that is none of ours is one that has gone.
            Some(octets) => Some(number(octets).unwrap_or(0)),
        };
        reader.finish(Self { filter, last, after })
    }
}

/// The wanted entries of a part, and how many there are in all.
pub(super) fn select<'r>(
    entries: impl Iterator<Item = (u64, &'r Head, Octets<'r>)>,
    list: &List,
) -> (Vec<Entry>, usize) {
    let wanted = entries.filter(|(_, head, text)| list.filter.takes(head, text));
    let wanted: Vec<_> = wanted.collect();
    let count = |number: u64| usize::try_from(number).unwrap_or(usize::MAX);
    let own = |(seq, head, text): &(u64, &Head, Octets<'_>)| text.entry(*seq, head);
    let shown = match list.part {
        Part::Page { limit, offset } => {
            wanted.iter().rev().skip(count(offset)).take(count(limit)).map(own).collect()
        }
        Part::Last(number) => {
            wanted.iter().skip(wanted.len().saturating_sub(count(number))).map(own).collect()
        }
        Part::After { seq, limit } => {
            let after = wanted.iter().filter(|(own, ..)| *own > seq);
            after.take(count(limit)).map(own).collect()
        }
    };
    (shown, wanted.len())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_wrong_with_a_query_is_named() {
        for (query, field) in [
            ("kind=x", "kind"),
            ("level=INFO", "level"),
            ("source=", "source"),
            ("kind=request,x", "kind"),
            ("limit=0", "limit"),
            ("limit=1001", "limit"),
            ("limit=%2B5", "limit"),
            ("limit=1&limit=2", "limit"),
            ("offset=-1", "offset"),
            ("last=5001", "last"),
            ("afterId=x", "afterId"),
            ("cursor=abc", "cursor"),
            ("last=1&afterId=1", "last"),
            ("includeRequestBody=1", "includeRequestBody"),
            ("method=%ff", "method"),
        ] {
            let errors = List::parse(query).unwrap_err();
            assert_eq!(errors[0].field, field, "{query}");
        }
        assert_eq!(Follow::parse("last=x&level=y", None).unwrap_err().len(), 2);
    }

    #[test]
    fn a_query_says_which_part() {
        for (query, want) in [
            ("", Part::Page { limit: 100, offset: 0 }),
            ("projectId=x&serviceName=y&z", Part::Page { limit: 100, offset: 0 }),
            ("limit=5&offset=10", Part::Page { limit: 5, offset: 10 }),
            ("last=3", Part::Last(3)),
            ("afterId=7&limit=2", Part::After { seq: 7, limit: 2 }),
            ("last=3&includeRequestBody=true", Part::Page { limit: 3, offset: 0 }),
        ] {
            assert_eq!(List::parse(query).unwrap().part, want, "{query}");
        }
        assert_eq!(List::parse("kind=request,event").unwrap().filter.kind, Pick::None);
        let follow = |last: Option<&[u8]>| Follow::parse("afterId=3", last).unwrap().after;
        assert_eq!(follow(None), Some(3));
        assert_eq!(follow(Some(b"9")), Some(9));
        assert_eq!(follow(Some(b"abc")), Some(0), "whatever it is, it is not here");
    }
}
