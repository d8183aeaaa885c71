//! Questions for names, which go through the proxy as DNS over TCP.

use std::{net::SocketAddr, time::Duration};

use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    time::timeout,
};

use super::{Client, NAMES, Shared};
use crate::BoxError;

/// How long one server may take.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(5);
/// What every way takes in one packet.
const PACKET_MAX: usize = 1232;
/// The octets of a head: id, flags, and how many questions and records follow.
const HEAD: usize = 12;

/// What the first server says that answers.
pub(super) async fn ask(
    shared: &Shared,
    client: &Client,
    question: &[u8],
) -> Result<Vec<u8>, BoxError> {
    let len = u16::try_from(question.len())?;
    let mut why: BoxError = "no server is configured".into();
    for server in &client.proxy.dns_servers {
        if !shared.addresses.may_be_aim(*server) {
            why = format!("{server} may not be asked").into();
            continue;
        }
        let asked = async {
            let mut stream = shared.dialler.dial(client, SocketAddr::new(*server, NAMES)).await?;
            stream.write_all(&[&len.to_be_bytes()[..], question].concat()).await?;
            stream.flush().await?;
            let mut answer = vec![0; stream.read_u16().await?.into()];
            stream.read_exact(&mut answer).await?;
            Ok::<_, BoxError>(answer)
        };
        match timeout(ANSWER_TIMEOUT, asked).await {
            Ok(Ok(answer)) => return Ok(answer),
            Ok(Err(error)) => why = error,
            Err(_elapsed) => why = format!("{server} does not answer in time").into(),
        }
    }
    Err(why)
}

/// An answer as one packet; in the place of one that is too long, the word to ask over TCP.
pub(super) fn fit(question: &[u8], answer: Vec<u8>) -> Vec<u8> {
    if answer.len() <= PACKET_MAX {
        return answer;
    }
    let (Some(head), Some(body)) = (answer.first_chunk::<HEAD>(), question.get(HEAD..)) else {
        return Vec::new();
    };
    // The name ends with an empty label; its type and class follow.
    let end = body.iter().position(|octet| *octet == 0).map_or(body.len(), |end| end + 5);
    let mut short = head.to_vec();
    for (at, octet) in short.iter_mut().enumerate() {
        match at {
            2 => *octet |= 0x02,
            // One question and no records.
            5 => *octet = 1,
            4 | 6.. => *octet = 0,
            _ => {}
        }
    }
    short.extend_from_slice(body.get(..end).unwrap_or(body));
    short
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_answer_that_is_too_long_is_asked_for_again_over_tcp() {
        let question = b"\x12\x34\x01\x00\0\x01\0\0\0\0\0\x01\x01a\x02nl\0\0\x01\0\x01\0\0\x29";
        let mut answer = question.to_vec();
        answer[2] = 0x81;
        assert_eq!(fit(question, answer.clone()), answer);
        answer[7] = 90;
        answer.resize(PACKET_MAX + 1, 7);
        let short = fit(question, answer);
        assert_eq!(short, b"\x12\x34\x83\x00\0\x01\0\0\0\0\0\0\x01a\x02nl\0\0\x01\0\x01");
    }
}
