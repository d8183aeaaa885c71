//! What the library calls: authentication, and what a client asks of its channels.
//!
//! The callbacks run inside the loop of their connection, which stands still meanwhile: nothing is waited for
//! in them but that a forward's listener begins or closes, for which the protocol wants the answer in order: a
//! bounded time, after that in which a container is woken that sleeps, where no channel of the connection leads
//! anywhere yet.

use std::{
    collections::HashMap,
    sync::{Arc, atomic::Ordering},
};

use gantry_model::ssh::KeyFingerprint;
use gantry_session::protocol::{Process, Run, Target, Terminal};
use russh::{
    Channel, ChannelId, ChannelOpenFailure, Pty, Sig,
    keys::{Algorithm, PublicKey, PublicKeyBase64 as _},
    server::{
        Auth, ChannelOpenHandle, Handle, Handler, Msg, PublicKeyOffer, Session, VerifiedPublicKey,
    },
};
use tokio::sync::mpsc;

use crate::{
    audit::Forward,
    channel::{self, Control, Write, relay, signal_name},
    conn::{Admitted, Conn},
    doors::Refusal,
    forwards::begin_connection,
    listeners::Listeners,
    measures::{NAME_LEN_MAX, is_sound, len_of, may_set, port, size},
};

/// Requests to a process that wait.
const CONTROLS_MAX: usize = 64;

/// A connection's callbacks.
pub(crate) struct Callbacks {
    conn: Arc<Conn>,
    channels: HashMap<ChannelId, Prepared>,
    listeners: Listeners,
}

/// A session channel, and what has been asked for before its process.
struct Prepared {
    write: Arc<Write>,
    env: Vec<(Vec<u8>, Vec<u8>)>,
    terminal: Option<Terminal>,
    agent: bool,
    /// Present once a process has been asked for.
    controls: Option<mpsc::Sender<Control>>,
}

/// What ends a connection.
#[derive(Debug, thiserror::Error)]
pub(crate) enum SessionError {
    #[error(transparent)]
    Ssh(#[from] russh::Error),
    #[error("the client sent more than its window allows")]
    Overrun,
    #[error("the client confirmed channels that it was not asked for")]
    Unasked,
}

impl Callbacks {
    pub(crate) fn new(conn: Arc<Conn>) -> Self {
        let listeners = Listeners::new(Arc::clone(&conn));
        Self { conn, channels: HashMap::new(), listeners }
    }

    /// The container that a key opens for this user, from wherever.
    fn find(&self, user: &str, key: &PublicKey, algorithm: &Algorithm) -> Option<Admitted> {
        // SHA-1.
        if matches!(algorithm, Algorithm::Rsa { hash: None }) {
            return None;
        }
        let key = KeyFingerprint::of_blob(&key.public_key_bytes());
        let door = self.conn.shared.doors.find(&key)?;
        let (user, narrow) = match user.split_once('+') {
            Some((user, container)) => (user, Some(container)),
            None => (user, None),
        };
        let is_another = narrow.is_some_and(|wanted| wanted != door.container.to_string());
        if is_another || user.len() > NAME_LEN_MAX {
            return None;
        }
        Some(Admitted { container: door.container, key, user: user.to_owned() })
    }

    fn user(&self) -> String {
        self.conn.admitted.get().map(|admitted| admitted.user.clone()).unwrap_or_default()
    }

    /// Starts a process on a channel; `false` if there is one.
    fn start(&mut self, id: ChannelId, run: Run, handle: Handle) -> bool {
        let user = self.user();
        let Some(prepared) = self.channels.get_mut(&id) else { return false };
        if prepared.controls.is_some() {
            return false;
        }
        let (sender, controls) = mpsc::channel(CONTROLS_MAX);
        prepared.controls = Some(sender);
        let (peer, local) = (self.conn.peer, self.conn.local);
        let connection = [
            peer.ip().to_string(),
            peer.port().to_string(),
            local.ip().to_string(),
            local.port().to_string(),
        ];
        let process = Process {
            user,
            is_strict: false,
            run,
            env: std::mem::take(&mut prepared.env),
            terminal: prepared.terminal.take(),
            agent: prepared.agent,
            connection: Some(connection),
        };
        let weight = self.conn.pause.weigh(len_of(&process));
        let session = channel::Session {
            conn: Arc::clone(&self.conn),
            lane: self.conn.lane(id),
            write: Arc::clone(&prepared.write),
            handle,
            controls,
            has_agent: process.agent,
        };
        self.conn.spawn(session.run(process, weight));
        true
    }

    fn control(&self, id: ChannelId, control: Control) {
        let sender = self.channels.get(&id).and_then(|prepared| prepared.controls.as_ref());
        if let Some(sender) = sender
            && let Err(error) = sender.try_send(control)
        {
            tracing::debug!(%error, "a request to a process is left out");
        }
    }

    /// Connects a channel to an address inside, and answers its opening by what comes of it.
    fn connect(
        &self,
        channel: Channel<Msg>,
        reply: ChannelOpenHandle,
        target: Target,
        handle: Handle,
    ) {
        let conn = Arc::clone(&self.conn);
        let user = self.user();
        let end = self.conn.may_forward();
        let is_sound = is_sound(&target);
        let has_room = end.is_some() && is_sound && self.conn.has_room();
        let id = channel.id();
        // Counted from here on, however many are opened at once.
        let lane = has_room.then(|| conn.lane(id));
        self.conn.spawn(async move {
            let Some(end) = end else {
                return reply.reject(ChannelOpenFailure::AdministrativelyProhibited).await;
            };
            if !is_sound {
                return reply.reject(ChannelOpenFailure::ConnectFailed).await;
            }
            let Some(lane) = lane else {
                reply.reject(ChannelOpenFailure::ResourceShortage).await;
                return conn.end_if_worn(handle);
            };
            conn.forwards(Forward::In, &target);
            let connected = end.run_until_cancelled(begin_connection(&conn, target, user)).await;
            match connected.unwrap_or(Err(ChannelOpenFailure::AdministrativelyProhibited)) {
                Ok(inside) => {
                    let (_, write) = channel.split();
                    reply.accept().await;
                    relay(conn, lane, write, inside, &end).await;
                }
                Err(reason) => {
                    conn.closed(id);
                    reply.reject(reason).await;
                }
            }
        });
    }
}

impl Handler for Callbacks {
    type Error = SessionError;

    async fn auth_publickey_offered(
        &mut self,
        user: &str,
        offer: PublicKeyOffer<'_>,
    ) -> Result<Auth, SessionError> {
        self.conn.shared.metrics.offered();
        Ok(match self.find(user, offer.public_key, offer.algorithm) {
            Some(_) => Auth::Accept,
            None => Auth::reject(),
        })
    }

    async fn auth_publickey(
        &mut self,
        user: &str,
        key: VerifiedPublicKey<'_>,
    ) -> Result<Auth, SessionError> {
        // It may have been taken away since it was offered.
        let Some(admitted) = self.find(user, key.public_key, key.algorithm) else {
            return Ok(Auth::reject());
        };
        let shared = &self.conn.shared;
        // Not before the signature: an owner hears of whoever has the key, and of nobody else.
        if !shared.doors.admits(&admitted.key, self.conn.peer.ip()) {
            shared.refuse(&self.conn, &admitted, Refusal::Address);
            return Ok(Auth::reject());
        }
        if !shared.sessions.admit(&self.conn, &admitted) {
            shared.refuse(&self.conn, &admitted, Refusal::Connections);
            return Ok(Auth::reject());
        }
        let is_first = self.conn.admitted.set(admitted).is_ok();
        // What has changed since is seen here or by who looks after sessions.
        if is_first && self.conn.is_welcome() {
            return Ok(Auth::Accept);
        }
        self.conn.shared.sessions.remove(&self.conn);
        Ok(Auth::reject())
    }

    async fn auth_succeeded(&mut self, session: &mut Session) -> Result<(), SessionError> {
        self.conn.shared.sessions.begun(&self.conn, session);
        Ok(())
    }

    async fn channel_open_session(
        &mut self,
        channel: Channel<Msg>,
        reply: ChannelOpenHandle,
        session: &mut Session,
    ) -> Result<(), SessionError> {
        if !self.conn.has_room() {
            reply.reject(ChannelOpenFailure::ResourceShortage).await;
            self.conn.end_if_worn(session.handle());
            return Ok(());
        }
        // Those of channels that were closed from here.
        self.channels.retain(|id, _| self.conn.has_lane(*id));
        let id = channel.id();
        self.conn.lane(id);
        let (_, write) = channel.split();
        let prepared = Prepared {
            write: Arc::new(write),
            env: Vec::new(),
            terminal: None,
            agent: false,
            controls: None,
        };
        self.channels.insert(id, prepared);
        // What is asked for on the channel finds the way open.
        let conn = Arc::clone(&self.conn);
        self.conn.spawn(async move {
            if let Err(message) = conn.enter().await {
                tracing::debug!(message, "the way in is not open");
            }
        });
        reply.accept().await;
        Ok(())
    }

    async fn channel_open_direct_tcpip(
        &mut self,
        channel: Channel<Msg>,
        host: &str,
        to: u32,
        _from: &str,
        _from_port: u32,
        reply: ChannelOpenHandle,
        session: &mut Session,
    ) -> Result<(), SessionError> {
        match port(to) {
            Some(port) => {
                let target = Target::Tcp(host.to_owned(), port);
                self.connect(channel, reply, target, session.handle());
            }
            None => reply.reject(ChannelOpenFailure::ConnectFailed).await,
        }
        Ok(())
    }

    async fn channel_open_direct_streamlocal(
        &mut self,
        channel: Channel<Msg>,
        path: &str,
        reply: ChannelOpenHandle,
        session: &mut Session,
    ) -> Result<(), SessionError> {
        let target = Target::Unix(path.as_bytes().to_vec());
        self.connect(channel, reply, target, session.handle());
        Ok(())
    }

    async fn channel_open_confirmation(
        &mut self,
        id: ChannelId,
        _packet: u32,
        _window: u32,
        _session: &mut Session,
    ) -> Result<(), SessionError> {
        if self.conn.confirm(id) { Ok(()) } else { Err(SessionError::Unasked) }
    }

    fn adjust_window(&mut self, channel: ChannelId, _current: u32) -> u32 {
        self.conn.renewed(channel)
    }

    async fn data(
        &mut self,
        channel: ChannelId,
        data: &[u8],
        _session: &mut Session,
    ) -> Result<(), SessionError> {
        self.conn.received(channel, data).map_err(|_overrun| SessionError::Overrun)
    }

    async fn extended_data(
        &mut self,
        channel: ChannelId,
        _code: u32,
        data: &[u8],
        _session: &mut Session,
    ) -> Result<(), SessionError> {
        self.conn.wasted(channel, data.len()).map_err(|_overrun| SessionError::Overrun)
    }

    async fn channel_eof(
        &mut self,
        channel: ChannelId,
        _session: &mut Session,
    ) -> Result<(), SessionError> {
        self.conn.ended(channel);
        Ok(())
    }

    async fn channel_close(
        &mut self,
        channel: ChannelId,
        _session: &mut Session,
    ) -> Result<(), SessionError> {
        self.channels.remove(&channel);
        self.conn.closed(channel);
        Ok(())
    }

    async fn pty_request(
        &mut self,
        channel: ChannelId,
        term: &str,
        columns: u32,
        rows: u32,
        width: u32,
        height: u32,
        modes: &[(Pty, u32)],
        session: &mut Session,
    ) -> Result<(), SessionError> {
        let Some(prepared) = self.channels.get_mut(&channel) else {
            return Ok(session.channel_failure(channel)?);
        };
        let is_late = prepared.controls.is_some() || prepared.terminal.is_some();
        if is_late || term.len() > NAME_LEN_MAX {
            return Ok(session.channel_failure(channel)?);
        }
        prepared.terminal = Some(Terminal {
            term: term.to_owned(),
            size: size(columns, rows, width, height),
            modes: modes.iter().map(|(mode, value)| (*mode as u8, *value)).collect(),
        });
        Ok(session.channel_success(channel)?)
    }

    async fn env_request(
        &mut self,
        channel: ChannelId,
        name: &str,
        value: &str,
        session: &mut Session,
    ) -> Result<(), SessionError> {
        let prepared = self.channels.get_mut(&channel);
        let Some(prepared) = prepared.filter(|prepared| may_set(&prepared.env, name, value)) else {
            return Ok(session.channel_failure(channel)?);
        };
        prepared.env.push((name.as_bytes().to_vec(), value.as_bytes().to_vec()));
        Ok(session.channel_success(channel)?)
    }

    async fn shell_request(
        &mut self,
        channel: ChannelId,
        session: &mut Session,
    ) -> Result<(), SessionError> {
        self.answer(channel, Some(Run::Shell), session)
    }

    async fn exec_request(
        &mut self,
        channel: ChannelId,
        command: &[u8],
        session: &mut Session,
    ) -> Result<(), SessionError> {
        self.answer(channel, Some(Run::Command(command.to_vec())), session)
    }

    async fn subsystem_request(
        &mut self,
        channel: ChannelId,
        name: &str,
        session: &mut Session,
    ) -> Result<(), SessionError> {
        self.answer(channel, (name == "sftp").then_some(Run::Sftp), session)
    }

    async fn x11_request(
        &mut self,
        channel: ChannelId,
        _single: bool,
        _protocol: &str,
        _cookie: &str,
        _screen: u32,
        session: &mut Session,
    ) -> Result<(), SessionError> {
        // There is none; but clients wait for the answer.
        Ok(session.channel_failure(channel)?)
    }

    async fn window_change_request(
        &mut self,
        channel: ChannelId,
        columns: u32,
        rows: u32,
        width: u32,
        height: u32,
        _session: &mut Session,
    ) -> Result<(), SessionError> {
        self.control(channel, Control::Resize(size(columns, rows, width, height)));
        Ok(())
    }

    async fn signal(
        &mut self,
        channel: ChannelId,
        signal: Sig,
        _session: &mut Session,
    ) -> Result<(), SessionError> {
        let name = signal_name(&signal);
        if name.len() <= NAME_LEN_MAX {
            self.control(channel, Control::Signal(name));
        }
        Ok(())
    }

    async fn agent_request(
        &mut self,
        channel: ChannelId,
        _session: &mut Session,
    ) -> Result<bool, SessionError> {
        let Some(prepared) = self.channels.get_mut(&channel) else { return Ok(false) };
        prepared.agent = true;
        Ok(true)
    }

    async fn tcpip_forward(
        &mut self,
        address: &str,
        wanted: &mut u32,
        session: &mut Session,
    ) -> Result<bool, SessionError> {
        let Some(number) = port(*wanted) else { return Ok(false) };
        let at = Target::Tcp(address.to_owned(), number);
        let listening = self.listeners.begin(at, session.handle(), self.user()).await;
        Ok(match listening {
            Some(got) => {
                *wanted = got.into();
                true
            }
            None => false,
        })
    }

    async fn cancel_tcpip_forward(
        &mut self,
        address: &str,
        number: u32,
        _session: &mut Session,
    ) -> Result<bool, SessionError> {
        let Some(number) = port(number) else { return Ok(false) };
        Ok(self.listeners.end(&Target::Tcp(address.to_owned(), number)).await)
    }

    async fn streamlocal_forward(
        &mut self,
        path: &str,
        session: &mut Session,
    ) -> Result<bool, SessionError> {
        let at = Target::Unix(path.as_bytes().to_vec());
        Ok(self.listeners.begin(at, session.handle(), self.user()).await.is_some())
    }

    async fn cancel_streamlocal_forward(
        &mut self,
        path: &str,
        _session: &mut Session,
    ) -> Result<bool, SessionError> {
        Ok(self.listeners.end(&Target::Unix(path.as_bytes().to_vec())).await)
    }
}

impl Callbacks {
    /// Answers a request for a process at once: whether it could start is told by how it ends, as by sshd.
    fn answer(
        &mut self,
        channel: ChannelId,
        run: Option<Run>,
        session: &mut Session,
    ) -> Result<(), SessionError> {
        let started = run.is_some_and(|run| self.start(channel, run, session.handle()));
        if started {
            Ok(session.channel_success(channel)?)
        } else {
            Ok(session.channel_failure(channel)?)
        }
    }
}

impl Drop for Callbacks {
    fn drop(&mut self) {
        self.conn.shared.metrics.moved(
            self.conn.received.load(Ordering::Relaxed),
            self.conn.sent.load(Ordering::Relaxed),
        );
    }
}
