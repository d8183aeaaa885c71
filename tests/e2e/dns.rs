//! A name server with authority for one zone, example.com.

use std::{
    net::{SocketAddr, UdpSocket},
    sync::{Arc, Mutex},
    thread,
};

use anyhow::Result;

/// `www.example.com`, as it stands in a question.
const WWW: &[u8] = b"\x03www\x07example\x03com\0";

/// What the zone says now.
#[derive(Clone, Default)]
pub(crate) struct Zone(Arc<Mutex<Option<String>>>);

impl Zone {
    /// Serves the zone until the process ends. It is empty at first.
    pub(crate) fn serve() -> Result<(Self, SocketAddr)> {
        let zone = Self::default();
        let socket = UdpSocket::bind("127.0.0.1:0")?;
        let address = socket.local_addr()?;
        let served = zone.clone();
        thread::spawn(move || {
            let mut buffer = [0; 512];
            while let Ok((length, from)) = socket.recv_from(&mut buffer) {
                let answer = buffer.get(..length).and_then(|question| served.answer(question));
                // A question that is none has no answer.
                answer.map(|answer| socket.send_to(&answer, from));
            }
        });
        Ok((zone, address))
    }

    /// From now on `www.example.com` is a CNAME record that leads there.
    pub(crate) fn www_leads_to(&self, target: &str) {
        let mut zone = self.0.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
        *zone = Some(target.to_owned());
    }

    fn answer(&self, question: &[u8]) -> Option<Vec<u8>> {
        const CNAME: &[u8] = &[0, 5];
        let (head, rest) = question.split_at_checked(12)?;
        let end = rest.iter().position(|octet| *octet == 0)? + 1;
        let (name, rest) = rest.split_at_checked(end)?;
        let asked = rest.get(..4)?;
        let zone = self.0.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
        let target = zone.as_ref().filter(|_| name.eq_ignore_ascii_case(WWW));
        let record = target.filter(|_| asked.starts_with(CNAME));
        // An answer with authority; there is no such name where nothing stands.
        let code = if target.is_some() { 0 } else { 3 };
        let counts = [0, 1, 0, u8::from(record.is_some()), 0, 0, 0, 0];
        let mut answer = [head.get(..2)?, &[0x85, code], &counts, name, asked].concat();
        if let Some(record) = record {
            let mut data = Vec::new();
            for label in record.split('.') {
                data.push(u8::try_from(label.len()).ok()?);
                data.extend_from_slice(label.as_bytes());
            }
            data.push(0);
            // The name is that of the question; it holds for a minute.
            answer.extend_from_slice(&[0xc0, 12, 0, 5, 0, 1, 0, 0, 0, 60]);
            answer.extend_from_slice(&u16::try_from(data.len()).ok()?.to_be_bytes());
            answer.extend_from_slice(&data);
        }
        Some(answer)
    }
}
