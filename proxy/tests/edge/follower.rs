//! A reader of logs as they grow.

use serde_json::Value;

use crate::{
    bed::{Bed, CONTAINER, host},
    client::Client,
};

/// A stream of events, read by hand.
pub(crate) struct Follower {
    client: Client,
    text: String,
}

/// One event: its id, its name, its data.
#[derive(Debug)]
pub(crate) struct Event {
    pub(crate) id: Option<u64>,
    pub(crate) name: String,
    pub(crate) data: Value,
}

impl Follower {
    pub(crate) fn new(bed: &Bed, container: &str, query: &str, fields: &str) -> Self {
        let mut client = bed.client();
        let name = host(container, "logs-1");
        client.send(format!("GET /_logs/stream{query} HTTP/1.1\r\nHost: {name}\r\n{fields}\r\n"));
        let head = client.head().to_lowercase();
        assert!(head.starts_with("http/1.1 200"), "{head}");
        assert!(head.contains("content-type: text/event-stream"), "{head}");
        Self { client, text: String::new() }
    }

    /// The next event; nothing at the end.
    pub(crate) fn event(&mut self) -> Option<Event> {
        loop {
            while let Some((frame, rest)) = self.text.split_once("\n\n") {
                let (frame, rest) = (frame.to_owned(), rest.to_owned());
                self.text = rest;
                let field = |name: &str| {
                    frame.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(": "))
                };
                let Some(data) = field("data") else { continue };
                return Some(Event {
                    id: field("id").map(|id| id.parse().unwrap()),
                    name: field("event").unwrap_or_default().to_owned(),
                    data: serde_json::from_str(data).unwrap(),
                });
            }
            let chunk = self.client.chunk()?;
            self.text.push_str(&String::from_utf8(chunk).unwrap());
        }
    }

    /// The past, which comes first.
    pub(crate) fn past(&mut self) -> Vec<Value> {
        let event = self.event().unwrap();
        assert_eq!((event.id, event.name.as_str()), (None, ""));
        event.data.as_array().unwrap().clone()
    }

    /// The next entry that is about a response.
    pub(crate) fn response(&mut self) -> Value {
        loop {
            let event = self.event().expect("a response");
            if event.data["kind"] == "response" {
                assert_eq!(event.data["id"], event.id.unwrap(), "{event:?}");
                return event.data;
            }
        }
    }
}

/// A stream of the container of most tests, of which nothing was logged yet.
pub(crate) fn follow(bed: &Bed) -> Follower {
    let mut follower = Follower::new(bed, CONTAINER, "", "");
    assert!(follower.past().is_empty());
    follower
}
