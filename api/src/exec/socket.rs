//! A session over a `WebSocket`, in the words of Kubernetes (`v5.channel.k8s.io`).
//!
//! Each stream of the process is a pipe, and nothing is read from it before what was read last is on its
//! way: who reads slowly holds the process back, and costs no memory. The client is asked every few seconds
//! whether it is there.

use std::{fmt, time::Duration};

use axum::{
    body::Body,
    extract::{FromRequestParts, Request, State},
    response::Response,
};
use bytes::{Bytes, BytesMut};
use futures_util::{
    SinkExt as _, StreamExt as _,
    stream::{SplitSink, SplitStream},
};
use gantry_model::{FieldError, UserId, id::kind};
use http::{HeaderMap, HeaderName, HeaderValue, Version, header, request::Parts};
use serde::Deserialize;
use tokio::{
    io::{AsyncWriteExt as _, DuplexStream},
    net::unix::pipe,
    sync::{Mutex, watch},
    time::{interval, timeout},
};
use tokio_tungstenite::{
    WebSocketStream,
    tungstenite::{
        Error, Message,
        handshake::server::create_response,
        protocol::{CloseFrame, Role, WebSocketConfig, frame::coding::CloseCode},
    },
};
use tokio_util::sync::CancellationToken;

use super::{
    Ended, Meter, Running, RunningProcess, TerminalSize, full, read,
    visit::{Unwelcome, Visit},
    wanted::Session,
};
use crate::{
    Front,
    caller::{Caller, PathId},
    live::Upgrade,
    problem::{Kind, Problem},
    streams::Place,
    wire::Outcome,
};

/// The subprotocols, the better one first.
const PROTOCOLS: [&str; 2] = ["v5.channel.k8s.io", "v4.channel.k8s.io"];
const PROTOCOL: HeaderName = header::SEC_WEBSOCKET_PROTOCOL;

/// The channels of both.
const INPUT: u8 = 0;
const OUTPUT: u8 = 1;
const ERRORS: u8 = 2;
const OUTCOME: u8 = 3;
const SIZE: u8 = 4;
/// The end of the channel that follows, since the fifth version.
const CLOSE: u8 = 255;

/// The longest message of a client, in octets.
const MESSAGE_MAX: usize = 1 << 20;
/// The buffers of one session, in octets.
const BUFFER: usize = 16 << 10;
/// How often the client is asked whether it is there. More seldom the edge would take it for gone.
const PING: Duration = Duration::from_secs(20);
/// How long a client may take to hear how its process ended,
const LAST_WORDS: Duration = Duration::from_secs(30);
/// and that it has to go.
const FAREWELL: Duration = Duration::from_secs(2);

type Socket = WebSocketStream<DuplexStream>;
type Sink = Mutex<SplitSink<Socket, Message>>;
type Stream = SplitStream<Socket>;

/// Why a session ends.
enum End {
    /// The process has ended; nothing if its container has.
    Process(Option<Ended>),
    /// The client has gone.
    Left,
    /// The client does not keep to the protocol.
    Wrong(&'static str),
    Unwelcome(Unwelcome),
    Closing,
}

/// The client takes nothing more.
struct Gone;

pub(super) async fn open(
    State(front): State<Front>,
    request: Request,
) -> Result<Response, Problem> {
    let (mut parts, _) = request.into_parts();
    let Caller(actor) = Caller::from_request_parts(&mut parts, &front).await?;
    let PathId(id) = PathId::<kind::Container>::from_request_parts(&mut parts, &front).await?;
    let wanted = Session::read(&parts.uri)?;
    let user = actor.user;
    let visit = Visit::begin(&front, &parts, actor, id).await?;
    let protocol = protocol(&parts.headers)?;
    let mut response = shake_hands(&mut parts)?;
    response.headers_mut().insert(PROTOCOL, HeaderValue::from_static(protocol));
    let io = parts.extensions.get::<Upgrade>().and_then(Upgrade::take);
    let io = io.ok_or_else(|| no_websocket("the connection cannot leave HTTP"))?;
    if front.config.ending.is_cancelled() {
        return Err(Problem::new(Kind::Unavailable, "The server is about to stop").retry_after_s(1));
    }
    let place = front.room.sessions.take(user).map_err(full)?;
    let running = visit.start(wanted.command.clone()).await?;
    let ending = front.config.ending.clone();
    let has_close = protocol == PROTOCOLS[0];
    front.config.tasks.spawn(async move {
        let config = WebSocketConfig::default()
            .read_buffer_size(BUFFER)
            .write_buffer_size(0)
            .max_message_size(Some(MESSAGE_MAX))
            .max_frame_size(Some(MESSAGE_MAX));
        let socket = WebSocketStream::from_raw_socket(io, Role::Server, Some(config)).await;
        let talk = Talk { visit, wanted, has_close, ending, _place: place };
        talk.run(socket, running).await;
    });
    Ok(response)
}

/// The answer to a handshake.
fn shake_hands(parts: &mut Parts) -> Result<Response, Problem> {
    let mut asked = Request::new(());
    *asked.method_mut() = parts.method.clone();
    *asked.uri_mut() = parts.uri.clone();
    *asked.headers_mut() = parts.headers.clone();
    // It may have come over HTTP/2, from which the edge has translated it.
    *asked.version_mut() = Version::HTTP_11;
    let response = create_response(&asked).map_err(|why| no_websocket(&why.to_string()))?;
    Ok(response.map(|()| Body::empty()))
}

fn no_websocket(why: &str) -> Problem {
    let rule = format!(
        "must ask for a WebSocket (RFC 6455, or RFC 8441 over HTTP/2): {why}. For one answer over HTTP, \
         use POST"
    );
    Problem::fields(Kind::Invalid, &[FieldError::new(header::UPGRADE.as_str(), rule)])
}

/// Which of the subprotocols that the client speaks is taken.
fn protocol(headers: &HeaderMap) -> Result<&'static str, Problem> {
    let spoken = headers.get_all(PROTOCOL).iter().filter_map(|value| value.to_str().ok());
    let spoken: Vec<&str> = spoken.flat_map(|value| value.split(',')).map(str::trim).collect();
    PROTOCOLS.into_iter().find(|known| spoken.contains(known)).ok_or_else(|| {
        let rule = format!("must name one of {}", PROTOCOLS.join(", "));
        Problem::fields(Kind::Invalid, &[FieldError::new("Sec-WebSocket-Protocol", rule)])
    })
}

/// A client and what it has asked for.
struct Talk {
    visit: Visit,
    wanted: Session,
    /// Whether channels can be closed.
    has_close: bool,
    ending: CancellationToken,
    _place: Place<UserId>,
}

/// The size of a terminal, as Kubernetes writes it.
#[derive(Deserialize)]
struct Size {
    #[serde(rename = "Width")]
    width: u16,
    #[serde(rename = "Height")]
    height: u16,
}

impl Talk {
    async fn run(self, socket: Socket, running: Running) {
        let (sink, mut stream) = socket.split();
        let sink = Mutex::new(sink);
        let mut end = self.serve(&sink, &mut stream, running).await;
        // By force: perhaps because its container ends.
        if matches!(end, End::Process(None | Some(Ended::Signal(_))))
            && let Some(why) = self.visit.why().await
        {
            end = End::Unwelcome(why);
        }
        self.visit.log(&end.to_string());
        say_goodbye(&sink, &mut stream, &end).await;
        if matches!(end, End::Wrong(_))
            && let Ok(mut socket) = stream.reunite(sink.into_inner())
        {
            // Whoever is in the middle of a message hears why only after its end.
            let rest = async { tokio::io::copy(socket.get_mut(), &mut tokio::io::sink()).await };
            drop(timeout(FAREWELL, rest).await);
        }
    }

    /// Carries octets and sizes between the client and the process until either ends.
    async fn serve(&self, sink: &Sink, stream: &mut Stream, running: Running) -> End {
        let Running { input, output, errors, mut process, meter } = running;
        let (sizes, size) = watch::channel(None);
        let exited = CancellationToken::new();
        let whole = async {
            // That it has begun, as Kubernetes tells it.
            send(sink, Bytes::from_static(&[OUTPUT])).await?;
            let watching = async {
                let ended = look_after(&mut *process, size).await;
                exited.cancel();
                Ok(ended)
            };
            let Session { output: is_output_told, errors: are_errors_told, .. } = self.wanted;
            let reader = |from| read::Reader::new(from, &exited, &*meter);
            let output = carry(sink, OUTPUT, reader(output), is_output_told);
            let errors = async {
                match errors {
                    Some(errors) => carry(sink, ERRORS, reader(errors), are_errors_told).await,
                    None => Ok(()),
                }
            };
            tokio::try_join!(watching, output, errors)
        };
        tokio::select! {
            biased;
            done = whole => match done {
                Ok((ended, (), ())) => End::Process(ended),
                Err(Gone) => End::Left,
            },
            why = self.visit.unwelcome() => End::Unwelcome(why),
            () = self.ending.cancelled() => End::Closing,
            end = self.hear(stream, input, &sizes, &*meter) => end,
            Gone = ask(sink) => End::Left,
        }
    }

    /// Does what the client says.
    async fn hear(
        &self,
        stream: &mut Stream,
        input: pipe::Sender,
        sizes: &watch::Sender<Option<TerminalSize>>,
        meter: &dyn Meter,
    ) -> End {
        let mut input = self.wanted.input.then_some(input);
        loop {
            let message = match stream.next().await {
                Some(Ok(message)) => message,
                Some(Err(Error::Capacity(_))) => {
                    return End::Wrong("a message is longer than 1 MiB");
                }
                Some(Err(_)) | None => return End::Left,
            };
            match message {
                Message::Binary(_) | Message::Text(_) => {}
                Message::Ping(_) | Message::Pong(_) => continue,
                Message::Close(_) | Message::Frame(_) => return End::Left,
            }
            let octets = message.into_data();
            let Some((channel, said)) = octets.split_first() else { continue };
            match *channel {
                INPUT => {
                    meter.typed();
                    if let Some(open) = &mut input
                        && open.write_all(said).await.is_err()
                    {
                        // Nobody inside reads it any more.
                        input = None;
                    }
                }
                SIZE => match serde_json::from_slice(said) {
                    Ok(Size { width, height }) => {
                        sizes.send_replace(Some(TerminalSize { columns: width, rows: height }));
                    }
                    Err(_) => return End::Wrong("a size is no {\"Width\":…,\"Height\":…}"),
                },
                CLOSE if self.has_close => {
                    if said == [INPUT] {
                        input = None;
                    }
                }
                _ => return End::Wrong("a message is for a channel that clients do not have"),
            }
        }
    }
}

/// Waits for the end of a process, and gives its terminal its sizes until then.
async fn look_after(
    process: &mut dyn RunningProcess,
    mut sizes: watch::Receiver<Option<TerminalSize>>,
) -> Option<Ended> {
    loop {
        tokio::select! {
            ended = process.ended() => return ended,
            Ok(()) = sizes.changed() => {}
        }
        let size = *sizes.borrow_and_update();
        if let Some(size) = size {
            process.resize(size);
        }
    }
}

/// Carries what a process says, as long as somebody takes it; what shall not be told is left out.
async fn carry(
    sink: &Sink,
    channel: u8,
    mut reader: read::Reader<'_>,
    is_told: bool,
) -> Result<(), Gone> {
    let mut buffer = BytesMut::new();
    // What cannot be read has ended.
    while let Ok(1..) = reader.some(&mut buffer, &[channel]).await {
        if is_told {
            send(sink, buffer.split().freeze()).await?;
        }
    }
    Ok(())
}

async fn send(sink: &Sink, octets: Bytes) -> Result<(), Gone> {
    sink.lock().await.send(Message::Binary(octets)).await.map_err(|_error| Gone)
}

/// Asks the client from time to time whether it is there.
async fn ask(sink: &Sink) -> Gone {
    let mut times = interval(PING);
    loop {
        times.tick().await;
        if sink.lock().await.send(Message::Ping(Bytes::new())).await.is_err() {
            return Gone;
        }
    }
}

/// Tells how it ended, and leaves when the client has heard that.
async fn say_goodbye(sink: &Sink, stream: &mut Stream, end: &End) {
    let (outcome, code, patience) = match end {
        End::Process(Some(ended)) => (Outcome::of(ended), CloseCode::Normal, LAST_WORDS),
        End::Left => return,
        End::Process(None) => (Outcome::failure(end.to_string()), CloseCode::Normal, FAREWELL),
        End::Wrong(_) => (Outcome::failure(end.to_string()), CloseCode::Policy, FAREWELL),
        End::Unwelcome(_) => (Outcome::failure(end.to_string()), CloseCode::Policy, FAREWELL),
        End::Closing => (Outcome::failure(end.to_string()), CloseCode::Away, FAREWELL),
    };
    let mut octets = vec![OUTCOME];
    // It always has a JSON form.
    octets.extend(serde_json::to_vec(&outcome).unwrap_or_default());
    let telling = async {
        send(sink, octets.into()).await?;
        let close = CloseFrame { code, reason: "".into() };
        sink.lock().await.send(Message::Close(Some(close))).await.map_err(|_error| Gone)
    };
    // What it has sent meanwhile is taken, so that it comes to hear this.
    let hearing = async { while let Some(Ok(_)) = stream.next().await {} };
    let both = async { tokio::join!(telling, hearing).0 };
    if timeout(patience, both).await.is_err() {
        tracing::debug!("a client of a session has not said goodbye");
    }
}

impl fmt::Display for End {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Process(Some(Ended::Status(status))) => write!(f, "exit status {status}"),
            Self::Process(Some(Ended::Signal(name))) => write!(f, "signal {name}"),
            Self::Process(None) => f.write_str("the container has stopped"),
            Self::Left => f.write_str("the client has left"),
            Self::Wrong(why) => write!(f, "the client does not keep to the protocol: {why}"),
            Self::Unwelcome(why) => write!(f, "the session was ended: {why}"),
            Self::Closing => f.write_str("the session was ended: the server is about to stop"),
        }
    }
}
