//! The log: to standard error, as text or JSON.

use std::{
    fmt::{self, Write as _},
    io,
};

use tracing_subscriber::{
    Layer,
    field::MakeExt as _,
    filter::{LevelFilter, Targets},
    fmt::{FormatFields, format::debug_fn},
    layer::SubscriberExt,
    util::SubscriberInitExt,
};

use crate::config::{LogConfig, LogFormat};

/// Libraries that log what strangers say as often as they say it, and what of them is logged.
const TALKATIVE: [(&str, LevelFilter); 5] = [
    // It calls that errors, too.
    ("russh", LevelFilter::OFF),
    ("rustls", LevelFilter::ERROR),
    ("h2", LevelFilter::ERROR),
    ("h3", LevelFilter::ERROR),
    ("quinn", LevelFilter::ERROR),
];

/// Starts logging for the rest of the process.
pub(super) fn start(config: &LogConfig) -> anyhow::Result<()> {
    let filter = filter(&config.level)?;
    let layer = tracing_subscriber::fmt::layer().with_writer(io::stderr);
    let layer = match config.format {
        LogFormat::Text => layer
            .with_ansi(io::IsTerminal::is_terminal(&io::stderr()))
            .fmt_fields(one_line())
            .boxed(),
        LogFormat::Json => layer.json().flatten_event(true).boxed(),
    };
    tracing_subscriber::registry().with(layer.with_filter(filter)).try_init()?;
    Ok(())
}

/// What is logged: little of talkative libraries, unless they are named.
fn filter(level: &str) -> anyhow::Result<Targets> {
    let asked: Targets = level.parse()?;
    let of_others = asked.default_level().unwrap_or(LevelFilter::OFF);
    let is_named = |library: &str| {
        let mut targets = asked.iter().map(|(target, _)| target);
        targets.any(|target| target.split("::").next() == Some(library))
    };
    let unnamed = TALKATIVE.into_iter().filter(|(library, _)| !is_named(library));
    let capped: Vec<_> = unnamed.map(|(library, most)| (library, most.min(of_others))).collect();
    Ok(asked.clone().with_targets(capped))
}

/// Fields as text, of which none begins another line: what it quotes may be a stranger's.
fn one_line() -> impl for<'w> FormatFields<'w> + Send + Sync + 'static {
    debug_fn(|writer, field, value| {
        let name = field.name();
        if name == "message" {
            write!(Line(writer), "{value:?}")
        } else if name.starts_with("log.") {
            // Where a record of another kind comes from.
            Ok(())
        } else {
            write!(writer, "{}=", name.trim_start_matches("r#"))?;
            write!(Line(writer), "{value:?}")
        }
    })
    .delimited(" ")
}

/// Writes control characters as escapes.
struct Line<'a, W>(&'a mut W);

impl<W: fmt::Write> fmt::Write for Line<'_, W> {
    fn write_str(&mut self, text: &str) -> fmt::Result {
        for piece in text.split_inclusive(char::is_control) {
            match piece.char_indices().next_back() {
                Some((at, last)) if last.is_control() => {
                    self.0.write_str(piece.get(..at).unwrap_or_default())?;
                    write!(self.0, "{}", last.escape_debug())?;
                }
                _ => self.0.write_str(piece)?,
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use std::sync::{Arc, Mutex};

    use tracing::Level;

    use super::*;

    #[test]
    fn libraries_that_quote_strangers_are_heard_only_when_they_are_named() {
        for level in ["info", "debug", "info,audit=warn", "trace"] {
            let filter = filter(level).unwrap();
            for of_it in [Level::ERROR, Level::WARN, Level::INFO] {
                assert!(!filter.would_enable("russh::server::encrypted", &of_it), "{level}");
            }
            assert!(filter.would_enable("gantry_ssh::front", &Level::INFO), "{level}");
            for library in ["rustls::msgs", "h2::proto", "h3::server", "quinn_proto::connection"] {
                assert!(!filter.would_enable(library, &Level::WARN), "{level} {library}");
                assert!(filter.would_enable(library, &Level::ERROR), "{level} {library}");
            }
        }
        let named = filter("info,russh=debug").unwrap();
        assert!(named.would_enable("russh::server::encrypted", &Level::DEBUG));
        let part = filter("info,russh::server=warn").unwrap();
        assert!(part.would_enable("russh::server::encrypted", &Level::WARN));
        let off = filter("off").unwrap();
        for target in ["gantry_ssh::front", "russh::server", "rustls::msgs"] {
            assert!(!off.would_enable(target, &Level::ERROR), "{target}");
        }
    }

    #[derive(Clone, Default)]
    struct Buffer(Arc<Mutex<Vec<u8>>>);

    impl io::Write for Buffer {
        fn write(&mut self, octets: &[u8]) -> io::Result<usize> {
            self.0.lock().unwrap().write(octets)
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    #[test]
    fn nobody_forges_a_line_of_the_log() {
        let buffer = Buffer::default();
        let writer = buffer.clone();
        let layer = tracing_subscriber::fmt::layer()
            .with_writer(move || writer.clone())
            .with_ansi(false)
            .fmt_fields(one_line());
        let subscriber = tracing_subscriber::registry().with(layer);
        let forged = "x\n2026-01-01T00:00:00Z  INFO audit: ssh begun\r\u{1b}[2J";
        tracing::subscriber::with_default(subscriber, || {
            tracing::info!(target: "audit", user = %forged, seen = ?forged, number = 7, "who: {forged}");
            tracing::info!("plain, \"quoted\", ä");
        });
        let said = String::from_utf8(buffer.0.lock().unwrap().clone()).unwrap();
        assert_eq!(said.lines().count(), 2, "{said}");
        assert!(!said.contains(['\r', '\u{1b}']), "{said:?}");
        let escaped = "x\\n2026-01-01T00:00:00Z  INFO audit: ssh begun\\r\\u{1b}[2J";
        let fields = format!("audit: who: {escaped} user={escaped} seen=\"{escaped}\" number=7\n");
        assert!(said.contains(&fields), "{said}");
        assert!(said.ends_with("plain, \"quoted\", ä\n"), "{said}");
    }
}
