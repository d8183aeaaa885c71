//! A command with one answer.

use std::time::Duration;

use axum::{
    body::{Body, Bytes},
    extract::{FromRequest, FromRequestParts, Request, State},
    response::{IntoResponse as _, Response},
};
use bytes::BytesMut;
use gantry_model::id::kind;
use tokio::{io::AsyncWriteExt as _, net::unix::pipe, time::timeout};
use tokio_util::sync::CancellationToken;

use super::{Ended, NotStarted, Running, full, read, visit::Visit, wanted::Question};
use crate::{
    Front,
    answer::Answer,
    body::JsonObject,
    caller::{Caller, PathId},
    idempotency::KeptInstead,
    problem::Problem,
    wire::Executed,
};

/// How much of a stream is answered, in octets.
const ANSWER_MAX: usize = 1 << 20;

/// What a stream has said.
#[derive(Debug, Default)]
struct Said {
    octets: Vec<u8>,
    /// Whether there was more.
    is_cut: bool,
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
    let _place = front.room.questions.take(user).map_err(full)?;
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
    let mut response = answered(answer).into_response();
    response.extensions_mut().insert(KeptInstead(Bytes::from(kept)));
    Ok(response.map(Body::new))
}

/// What comes of a process within its time; nothing if its container has ended.
async fn answer(running: Running, text: String, limit: Duration) -> Option<Executed> {
    let Running { mut input, output, errors, mut process } = running;
    let exited = CancellationToken::new();
    let (mut out, mut err) = (Said::default(), Said::default());
    let feed = async {
        // That it does not want all of it is its own affair.
        drop(input.write_all(text.as_bytes()).await);
        drop(input);
    };
    let whole = async {
        let end = async {
            let ended = process.ended().await;
            exited.cancel();
            ended
        };
        let said = async {
            tokio::join!(
                collect(Some(output), &mut out, &exited),
                collect(errors, &mut err, &exited)
            )
        };
        let feed = exited.run_until_cancelled(feed);
        tokio::join!(end, said, feed).0
    };
    let ended = match timeout(limit, whole).await {
        Ok(Some(ended)) => Some(ended),
        Ok(None) => return None,
        Err(_elapsed) => {
            process.kill();
            None
        }
    };
    let signal = match &ended {
        Some(Ended::Signal(name)) => Some(name.clone()),
        Some(Ended::Status(_)) | None => None,
    };
    Some(Executed {
        exit_code: ended.as_ref().map(Ended::code),
        signal,
        stdout: text_of(&out.octets),
        stderr: text_of(&err.octets),
        truncated: out.is_cut || err.is_cut,
        timed_out: ended.is_none(),
    })
}

fn text_of(octets: &[u8]) -> String {
    String::from_utf8_lossy(octets).into_owned()
}

async fn collect(from: Option<pipe::Receiver>, said: &mut Said, exited: &CancellationToken) {
    let Some(from) = from else { return };
    let mut buffer = BytesMut::new();
    loop {
        match read::some(&from, &mut buffer, &[], exited).await {
            // What cannot be read has ended.
            Ok(0) | Err(_) => return,
            Ok(_) => {}
        }
        let room = ANSWER_MAX.saturating_sub(said.octets.len());
        said.is_cut |= buffer.len() > room;
        said.octets.extend_from_slice(buffer.get(..room).unwrap_or(&buffer));
    }
}
