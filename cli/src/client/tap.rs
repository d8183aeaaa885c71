//! `gantry tap`: the requests to a container as they come.
//!
//! The API sends server-sent events. A connection that ends is made again, and goes on after the last
//! entry that was seen.

use std::time::Duration;

use serde_json::Value;
use tokio::time::{sleep, timeout};

use super::{Client, view::field};
use crate::{
    args::Tap,
    exit::{Class, Failure},
    output::{self, Format},
};

/// The edge says something every 15 seconds; a connection that is silent for so long is dead.
const SILENCE: Duration = Duration::from_secs(45);
/// The pauses between tries to connect, in seconds.
const PAUSES_S: [u64; 3] = [1, 2, 5];
/// The longest event.
const EVENT_MAX: usize = 64 << 20;

/// Why the following has stopped.
enum End {
    /// Nobody reads what is printed.
    Unread,
    /// The container is gone.
    Gone,
    /// The connection has ended.
    Lost,
}

/// What has been seen and said.
#[derive(Default)]
struct Tapped {
    /// The last entry.
    after: Option<u64>,
    /// Tries to connect since the last one that was good.
    tries: usize,
}

impl Client {
    pub(super) async fn tap(&self, tap: Tap) -> Result<(), Failure> {
        tokio::select! {
            result = self.follow(&tap) => result,
            _ = tokio::signal::ctrl_c() => Ok(()),
        }
    }

    async fn follow(&self, tap: &Tap) -> Result<(), Failure> {
        let mut tapped = Tapped::default();
        let mut connected = false;
        loop {
            match self.open(tap, tapped.after).await {
                Ok(response) => {
                    connected = true;
                    match self.read(tap, response, &mut tapped).await? {
                        End::Unread => return Ok(()),
                        End::Gone => {
                            output::note("The container was deleted.");
                            return Ok(());
                        }
                        End::Lost => {}
                    }
                }
                // What is wrong from the start, or will not become right by itself.
                Err(failure) if !connected || !failure.may_pass() => return Err(failure),
                Err(_) => {}
            }
            if tapped.tries == 0 {
                output::note("The connection has ended; trying again.");
            }
            let pause = PAUSES_S.get(tapped.tries).copied().unwrap_or(5);
            tapped.tries = tapped.tries.saturating_add(1);
            sleep(Duration::from_secs(pause)).await;
        }
    }

    async fn open(&self, tap: &Tap, after: Option<u64>) -> Result<reqwest::Response, Failure> {
        let text = |name, value: &Option<String>| value.clone().map(|value| (name, value));
        let mut query = vec![("last", tap.last.to_string())];
        query.extend(text("level", &tap.level));
        query.extend(text("method", &tap.method));
        query.extend(text("serviceName", &tap.service));
        let path = format!("containers/{}/logs/stream", tap.container);
        self.api.events(&path, &query, after).await
    }

    async fn read(
        &self,
        tap: &Tap,
        mut response: reqwest::Response,
        tapped: &mut Tapped,
    ) -> Result<End, Failure> {
        let mut events = Events::default();
        loop {
            let Ok(Ok(Some(chunk))) = timeout(SILENCE, response.chunk()).await else {
                return Ok(End::Lost);
            };
            tapped.tries = 0;
            events.add(&chunk)?;
            while let Some(event) = events.next() {
                match event.name.as_str() {
                    "scope-destroyed" => return Ok(End::Gone),
                    "gap" => output::note("Some requests are not shown: they came too fast."),
                    "reset" => {
                        output::note("Gantry was restarted; its log begins anew.");
                        tapped.after = None;
                    }
                    _ => {}
                }
                if !event.name.is_empty() {
                    continue;
                }
                // The past comes as one array.
                let past = event.data.as_array().map(Vec::as_slice);
                let entries = past.unwrap_or_else(|| std::slice::from_ref(&event.data));
                for entry in entries {
                    tapped.after = field(entry, "id").as_u64().or(tapped.after);
                    if tap.wants(entry) && !self.print(tap, entry)? {
                        return Ok(End::Unread);
                    }
                }
            }
        }
    }

    /// Prints an entry; false when nobody reads any more.
    fn print(&self, tap: &Tap, entry: &Value) -> Result<bool, Failure> {
        match self.out {
            _ if tap.json => output::stream(&entry.to_string()),
            Format::Json => output::stream(&entry.to_string()),
            Format::Table => match line(entry) {
                Some(line) => output::stream(&line),
                None => Ok(true),
            },
        }
    }
}

impl Tap {
    fn wants(&self, entry: &Value) -> bool {
        let status = field(entry, "status").as_u64();
        self.status.is_none_or(|wanted| status.is_some_and(|status| wanted.holds(status)))
    }
}

/// One entry as a line; nothing for the beginning of a request.
fn line(entry: &Value) -> Option<String> {
    let text = |name: &str| field(entry, name).as_str().unwrap_or_default();
    let data = field(entry, "data");
    let time = text("tsIso").get(11..23).unwrap_or_default();
    match text("kind") {
        "event" => {
            let event = field(data, "event").as_str().unwrap_or_default();
            Some(format!("{time}  -- container {} --", printable(event)))
        }
        "response" => {
            let url = text("url");
            let path =
                url.split_once("://").and_then(|(_, rest)| rest.find('/').map(|at| (rest, at)));
            let path = path.and_then(|(rest, at)| rest.get(at..)).unwrap_or(url);
            let error = field(data, "error").as_str();
            let error = error.map(|error| format!("  {error}")).unwrap_or_default();
            let number = |name: &str| field(data, name).as_u64().unwrap_or_default();
            Some(printable(&format!(
                "{time}  {:<7} {:<11} {} {path}  {}  {}  {}{error}",
                text("method"),
                text("serviceName"),
                field(entry, "status"),
                duration(number("durationUs")),
                size(number("sent")),
                text("clientIp"),
            )))
        }
        _ => None,
    }
}

/// Text that cannot move the cursor of a terminal.
fn printable(text: &str) -> String {
    text.chars().map(|it| if it.is_control() { '\u{fffd}' } else { it }).collect()
}

fn duration(us: u64) -> String {
    match us {
        0..1_000 => format!("{us} us"),
        1_000..1_000_000 => format!("{}.{} ms", us / 1_000, us / 100 % 10),
        1_000_000.. => format!("{}.{} s", us / 1_000_000, us / 100_000 % 10),
    }
}

fn size(octets: u64) -> String {
    match octets {
        0..1_000 => format!("{octets} B"),
        1_000..1_000_000 => format!("{}.{} kB", octets / 1_000, octets / 100 % 10),
        1_000_000.. => format!("{}.{} MB", octets / 1_000_000, octets / 100_000 % 10),
    }
}

/// Server-sent events out of the pieces that they come in.
#[derive(Default)]
struct Events {
    buffer: Vec<u8>,
}

#[derive(Debug, PartialEq, Eq)]
struct Event {
    name: String,
    data: Value,
}

impl Events {
    fn add(&mut self, chunk: &[u8]) -> Result<(), Failure> {
        if self.buffer.len() + chunk.len() > EVENT_MAX {
            return Err(Failure::new(Class::General, "the API sent an event that is too long"));
        }
        self.buffer.extend_from_slice(chunk);
        Ok(())
    }

    /// The next whole event that has data.
    fn next(&mut self) -> Option<Event> {
        loop {
            let end = self.buffer.windows(2).position(|two| two == b"\n\n")?;
            let frame: Vec<u8> = self.buffer.drain(..end + 2).collect();
            let frame = String::from_utf8_lossy(&frame);
            let value = |name: &str| {
                frame.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(": "))
            };
            if let Some(Ok(data)) = value("data").map(serde_json::from_str) {
                return Some(Event { name: value("event").unwrap_or_default().to_owned(), data });
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn events_are_read_whatever_pieces_they_come_in() {
        let text = b": heartbeat\n\ndata: [1]\n\nevent: gap\ndata: {\"after\":1}\n\nid: 7\ndata: {\"id\":7}\n\nid: 8";
        let want = [("", json!([1])), ("gap", json!({"after": 1})), ("", json!({"id": 7}))];
        for size in [1, 2, 7, 1000] {
            let (mut events, mut got) = (Events::default(), Vec::new());
            for chunk in text.chunks(size) {
                events.add(chunk).unwrap();
                got.extend(std::iter::from_fn(|| events.next()));
            }
            let got: Vec<_> = got.iter().map(|it| (it.name.as_str(), it.data.clone())).collect();
            assert_eq!(got, want, "{size}");
        }
    }

    #[test]
    fn a_request_is_one_line() {
        let mut entry = json!({
            "id": 1, "kind": "response", "tsIso": "2026-11-26T07:30:00.125Z", "method": "GET",
            "serviceName": "http-3000", "url": "https://a.example:8443/x\u{1b}[2J?b=c", "status": 502,
            "clientIp": "192.0.2.1",
            "data": {"durationUs": 12_345, "sent": 2_500, "error": "PORT_CLOSED"},
        });
        let want = "07:30:00.125  GET     http-3000   502 /x\u{fffd}[2J?b=c  12.3 ms  2.5 kB  192.0.2.1  PORT_CLOSED";
        assert_eq!(line(&entry).unwrap(), want);
        entry["kind"] = "request".into();
        assert_eq!(line(&entry), None, "it will be one when it has ended");
        let event = json!({"kind": "event", "tsIso": "2026-11-26T07:30:00.125Z", "data": {"event": "paused"}});
        assert_eq!(line(&event).unwrap(), "07:30:00.125  -- container paused --");
    }
}
