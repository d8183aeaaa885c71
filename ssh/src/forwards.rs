//! Connections between a client and addresses inside its container, either way.

use std::sync::Arc;

use gantry_session::protocol::{Target, ToHelper};
use russh::{ChannelOpenFailure, server::Handle};
use tokio_util::sync::CancellationToken;

use crate::{
    channel::{Ways, open_failure, open_for},
    conn::Conn,
    link::{Ticket, Told},
};

/// Connects to an address inside; otherwise why not.
pub(crate) async fn begin_connection(
    conn: &Arc<Conn>,
    target: Target,
    user: String,
) -> Result<(Ticket, Ways), ChannelOpenFailure> {
    let link = conn.enter().await.map_err(|_shut| ChannelOpenFailure::ConnectFailed)?;
    let shortage = ChannelOpenFailure::ResourceShortage;
    let Ok((ours, theirs)) = Ways::new() else { return Err(shortage) };
    let begun = link.begin(|id| ToHelper::Connect { id, target, user }, theirs, None);
    let mut ticket = begun.ok_or(shortage)?;
    match ticket.told().await {
        Some(Told::Started) => Ok((ticket, ours)),
        Some(Told::Refused(reason, _)) => Err(open_failure(reason)),
        Some(Told::Exited(_) | Told::Listening(_) | Told::Accepted { .. } | Told::Closed)
        | None => Err(ChannelOpenFailure::ConnectFailed),
    }
}

/// Opens a channel to the client for each connection that a listener inside accepts, until that has closed.
/// What it has accepted outlives the listener, but not `end`.
pub(crate) async fn accept(
    conn: Arc<Conn>,
    ticket: &mut Ticket,
    at: Target,
    handle: Handle,
    end: CancellationToken,
) {
    while let Some(told) = ticket.told().await {
        let (id, peer) = match told {
            Told::Accepted { id, peer } => (id, peer),
            Told::Closed => return,
            Told::Started | Told::Refused(..) | Told::Exited(_) | Told::Listening(_) => continue,
        };
        let link = Arc::clone(ticket.link());
        let Some(place) = conn.place().filter(|_| conn.has_room()) else {
            link.leave(id);
            // A client that only listens opens nothing by which it would notice.
            conn.end_if_worn(handle.clone());
            continue;
        };
        let (conn, at, handle, end) = (Arc::clone(&conn), at.clone(), handle.clone(), end.clone());
        let spawner = Arc::clone(&conn);
        spawner.spawn(async move {
            let opening = async {
                let opened = match at {
                    Target::Tcp(host, port) => {
                        let (from, from_port) = peer.unwrap_or_default();
                        let opening = handle.channel_open_forwarded_tcpip(
                            host,
                            port.into(),
                            from,
                            from_port.into(),
                        );
                        opening.await
                    }
                    Target::Unix(path) => {
                        let path = String::from_utf8_lossy(&path).into_owned();
                        handle.channel_open_forwarded_streamlocal(path).await
                    }
                };
                opened.ok()
            };
            open_for(conn, &link, id, place, opening, &end).await;
        });
    }
}
