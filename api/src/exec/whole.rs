//! A command with one answer.

use std::time::Duration;

use axum::{
    body::{Body, Bytes, to_bytes},
    extract::{FromRequest, FromRequestParts, Request, State},
    response::{IntoResponse as _, Response},
};
use bytes::BytesMut;
use gantry_model::{UserId, id::kind};
use tokio::{io::AsyncWriteExt as _, net::unix::pipe, time::timeout};
use tokio_util::sync::CancellationToken;

use super::{Ended, Meter, NotStarted, Running, full, read, visit::Visit, wanted::Question};
use crate::{
    Front,
    answer::Answer,
    body::JsonObject,
    caller::{Caller, PathId},
    idempotency::KeptInstead,
    problem::{Kind, Problem},
    streams::Place,
    wire::Executed,
};

/// How much of a stream is answered, in octets.
const ANSWER_MAX: usize = 1 << 20;
/// And in JSON, where a character may take six.
const JSON_MAX: usize = 2 << 20;

/// What a stream has said.
#[derive(Debug, Default)]
struct Said {
    octets: Vec<u8>,
    /// Whether there was more.
    is_cut: bool,
}

/// An answer and its place, which is free again when nobody has the answer in memory any more.
struct Held {
    octets: Bytes,
    _place: Place<UserId>,
}

impl AsRef<[u8]> for Held {
    fn as_ref(&self) -> &[u8] {
        &self.octets
    }
}

pub(super) async fn run(State(front): State<Front>, request: Request) -> Result<Response, Problem> {
    let (mut parts, body) = request.into_parts();
    let Caller(actor) = Caller::from_request_parts(&mut parts, &front).await?;
    let PathId(id) = PathId::<kind::Container>::from_request_parts(&mut parts, &front).await?;
    let user = actor.user;
    let asked = Request::from_parts(parts.clone(), body);
    let body = JsonObject::from_request(asked, &front).await?;
    let question = Question::read(body)?;
    let visit = Visit::begin(&front, &parts, actor, id).await?;
    let place = front.room.questions.take(user).map_err(full)?;
    let running = visit.start(question.command).await?;
    let limit = Duration::from_secs(question.timeout_s.into());
    let answer = tokio::select! {
        answered = answer(running, question.input, limit) => answered,
        why = visit.unwelcome() => return Err(why.into()),
    };
    let Some(answer) = answer else {
        let why = visit.why().await.map(Problem::from);
        return Err(why.unwrap_or_else(|| NotStarted::NotRunning.into()));
    };
    let answered = |answer| Answer::ok("Command executed", answer);
    let kept = answered(answer.without_output()).to_bytes();
    let (mut head, body) = answered(answer).into_response().into_parts();
    // It is there already, in one piece.
    let octets = to_bytes(body, usize::MAX).await.map_err(|error| {
        Problem::new(Kind::Internal, "The answer could not be written").caused_by(error)
    })?;
    head.extensions.insert(KeptInstead(Bytes::from(kept)));
    let octets = Bytes::from_owner(Held { octets, _place: place });
    Ok(Response::from_parts(head, Body::from(octets)))
}

/// What comes of a process within its time; nothing if its container has ended.
async fn answer(running: Running, text: String, limit: Duration) -> Option<Executed> {
    let Running { mut input, output, errors, mut process, meter } = running;
    let meter = &*meter;
    let exited = CancellationToken::new();
    let (mut out, mut err) = (Said::default(), Said::default());
    // Known even if others go on in its streams until the time is over.
    let mut end = None;
    let feed = async {
        // That it does not want all of it is its own affair.
        drop(input.write_all(text.as_bytes()).await);
        drop(input);
    };
    let whole = async {
        let ending = async {
            end = Some(process.ended().await);
            exited.cancel();
        };
        let said = async {
            tokio::join!(
                collect(Some(output), &mut out, &exited, meter),
                collect(errors, &mut err, &exited, meter)
            )
        };
        let feed = exited.run_until_cancelled(feed);
        tokio::join!(ending, said, feed);
    };
    let is_late = timeout(limit, whole).await.is_err();
    if is_late && end.is_none() {
        process.kill();
    }
    let ended = match end {
        Some(Some(ended)) => Some(ended),
        Some(None) => return None,
        None => None,
    };
    let signal = match &ended {
        Some(Ended::Signal(name)) => Some(name.clone()),
        Some(Ended::Status(_)) | None => None,
    };
    let ((stdout, is_out_cut), (stderr, is_err_cut)) = (text_of(&out), text_of(&err));
    Some(Executed {
        exit_code: ended.as_ref().map(Ended::code),
        signal,
        stdout,
        stderr,
        truncated: is_out_cut || is_err_cut,
        timed_out: ended.is_none(),
    })
}

/// What a stream has said, as a text whose length in JSON has a bound; and whether there was more.
fn text_of(said: &Said) -> (String, bool) {
    let mut text = String::from_utf8_lossy(&said.octets).into_owned();
    let mut len = 0;
    let end = text.char_indices().find_map(|(at, it)| {
        len += json_len(it);
        (len > JSON_MAX).then_some(at)
    });
    if let Some(end) = end {
        text.truncate(end);
    }
    (text, said.is_cut || end.is_some())
}

/// How many octets a character has in a text in JSON.
fn json_len(it: char) -> usize {
    match it {
        '"' | '\\' | '\u{8}' | '\t' | '\n' | '\u{c}' | '\r' => 2,
        it if it < ' ' => 6,
        it => it.len_utf8(),
    }
}

async fn collect(
    from: Option<pipe::Receiver>,
    said: &mut Said,
    exited: &CancellationToken,
    meter: &dyn Meter,
) {
    let Some(from) = from else { return };
    let (mut reader, mut buffer) = (read::Reader::new(from, exited, meter), BytesMut::new());
    loop {
        match reader.some(&mut buffer, &[]).await {
            // What cannot be read has ended.
            Ok(0) | Err(_) => return,
            Ok(_) => {}
        }
        let room = ANSWER_MAX.saturating_sub(said.octets.len());
        said.is_cut |= buffer.len() > room;
        said.octets.extend_from_slice(buffer.get(..room).unwrap_or(&buffer));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_text_has_a_bound_in_json() {
        for it in ('\0'..='\u{7f}').chain(['ä', '\u{2028}', '\u{fffd}']) {
            assert_eq!(json_len(it) + 2, serde_json::to_string(&it).unwrap().len(), "{it:?}");
        }
        for (octet, want) in [
            (b'x', (ANSWER_MAX, false)),
            (b'"', (ANSWER_MAX, false)),
            (0, (JSON_MAX / 6, true)),
            (0xff, (JSON_MAX / 3 * 3, true)), // of three octets each
        ] {
            let said = Said { octets: vec![octet; ANSWER_MAX], is_cut: false };
            let (text, is_cut) = text_of(&said);
            assert_eq!((text.len(), is_cut), want, "{octet}");
        }
    }
}
