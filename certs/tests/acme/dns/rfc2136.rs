//! Updates of a Knot, read by dig.

use std::{net::UdpSocket, sync::Arc, time::Instant};

use anyhow::Result;
use serde_json::json;

use super::{
    Lab, provider, quoted,
    servers::{Forger, Truncating},
    txt, with,
};
use crate::knot::{Key, Place, nsupdate};

const NAME: &str = "_acme-challenge.node.example.test";

#[tokio::test]
async fn two_orders_have_a_value_each_and_a_foreign_record_stays() -> Result<()> {
    let lab = Lab::new()?;
    let provider = provider(&lab.rfc2136(), &lab.propagation(9));
    let kept = "_acme-challenge.kept.example.test";
    for name in [NAME, kept] {
        for letter in ['a', 'b', 'a'] {
            provider.append(&txt(name, letter)).await?;
        }
    }
    assert_eq!(lab.knot.dig(NAME, "TXT")?, quoted("ab"));
    for _ in 0..2 {
        provider.remove(&txt(NAME, 'a')).await?;
        provider.remove(&txt(kept, 'a')).await?;
    }
    assert_eq!(lab.knot.dig(NAME, "TXT")?, quoted("b"));
    let foreign = "\"somebody else's\"".to_owned();
    assert_eq!(lab.knot.dig(kept, "TXT")?, [quoted("b"), vec![foreign.clone()]].concat());
    provider.remove(&txt(NAME, 'b')).await?;
    provider.remove(&txt(kept, 'b')).await?;
    // The name itself is gone: the wildcard answers for it again.
    assert_eq!(lab.knot.dig(NAME, "TXT")?, ["edge.example.test."]);
    assert_eq!(lab.knot.dig(kept, "TXT")?, [foreign]);
    Ok(())
}

#[tokio::test]
async fn changes_at_the_same_time_all_count() -> Result<()> {
    let lab = Lab::new()?;
    let provider = provider(&lab.rfc2136(), &lab.propagation(9));
    let mut changes = tokio::task::JoinSet::new();
    for letter in 'a'..='j' {
        let provider = Arc::clone(&provider);
        changes.spawn(async move {
            provider.append(&txt(NAME, letter)).await?;
            if letter > 'e' { provider.remove(&txt(NAME, letter)).await } else { Ok(()) }
        });
    }
    changes.join_all().await.into_iter().collect::<Result<(), _>>()?;
    assert_eq!(lab.knot.dig(NAME, "TXT")?, quoted("abcde"));
    Ok(())
}

#[tokio::test]
async fn the_value_lives_for_a_minute_and_a_foreign_client_removes_it() -> Result<()> {
    let lab = Lab::new()?;
    let provider = provider(&lab.rfc2136(), &lab.propagation(9));
    provider.append(&txt(NAME, 'a')).await?;
    let whole = std::process::Command::new("kdig")
        .args([&format!("@{}", lab.place.host(1)), "-p", &lab.place.port.to_string()])
        .args(["+noall", "+answer", NAME, "TXT"])
        .output()?;
    let text = String::from_utf8(whole.stdout)?;
    let words: Vec<_> = text.split_whitespace().collect();
    assert_eq!(words[1..4], ["60", "IN", "TXT"], "{text}");

    let dir = tempfile::tempdir()?;
    let lines = format!("zone example.test\nupdate delete {NAME} TXT");
    nsupdate(lab.knot.address(), &lab.key, dir.path(), &lines)?;
    provider.remove(&txt(NAME, 'a')).await?;
    Ok(())
}

#[tokio::test]
async fn keys_of_each_algorithm_do() -> Result<()> {
    let place = Place::new()?;
    for (host, algorithm) in [(1, "hmac-sha384"), (2, "hmac-sha512")] {
        let key = Key::new("a.longer.key-name", algorithm)?;
        let lab = Lab::of(place, key, host, &super::ZONES)?;
        provider(&lab.rfc2136(), &lab.propagation(9)).append(&txt(NAME, 'a')).await?;
        assert_eq!(lab.knot.dig(NAME, "TXT")?, quoted("a"), "{algorithm}");
    }
    Ok(())
}

#[tokio::test]
async fn a_refusal_says_what_would_be_right() -> Result<()> {
    let lab = Lab::new()?;
    let table = lab.rfc2136();
    let other = Key::new("acme-key", "hmac-sha256")?.secret;
    let outside = "_acme-challenge.example.org";
    for (table, name, want) in [
        (
            with(table.clone(), "key_secret", other),
            NAME,
            "TSIG refused: BADSIG, the secret of key acme-key is another one there",
        ),
        (
            with(table.clone(), "key_name", "other-key"),
            NAME,
            "TSIG refused: BADKEY, it knows no key other-key of algorithm hmac-sha256",
        ),
        (
            with(table.clone(), "key_algorithm", "hmac-sha512"),
            NAME,
            "TSIG refused: BADKEY, it knows no key acme-key of algorithm hmac-sha512",
        ),
        (
            with(table.clone(), "zone", "example.org"),
            outside,
            "NOTAUTH: it is not the primary of zone example.org",
        ),
        (with(table.clone(), "zone", "acme.test"), NAME, "is outside of the zone acme.test"),
        (table.clone(), outside, "it has no zone for _acme-challenge.example.org"),
        // A CNAME stands alone at its name.
        (table, "_acme-challenge.delegated.example.test", ""),
    ] {
        let refused = provider(&table, &lab.propagation(9)).append(&txt(name, 'a')).await;
        if want.is_empty() {
            // RFC 2136 has the server ignore that silently.
            refused?;
            assert_eq!(lab.knot.dig(name, "TXT")?, ["one.acme.test."]);
            continue;
        }
        let text = refused.unwrap_err().to_string();
        assert!(text.contains(want), "{text}\nwanted: {want}");
        let server = lab.knot.address();
        assert!(text.contains(&format!("at {name} was not added: {server}: ")), "{text}");
    }
    assert_eq!(lab.knot.dig(NAME, "TXT")?, ["edge.example.test."]);
    Ok(())
}

#[tokio::test]
async fn a_policy_that_forbids_it_is_named() -> Result<()> {
    let place = Place::new()?;
    let key = Key::new("acme-key", "hmac-sha256")?;
    let rule = "    update-owner: name\n    update-owner-match: equal\n    update-owner-name: [only.example.test.]\n";
    let lab = Lab::restricted(place, key, 1, &super::ZONES, rule)?;
    let provider = provider(&lab.rfc2136(), &lab.propagation(9));
    provider.append(&txt("only.example.test", 'a')).await?;
    let text = provider.append(&txt(NAME, 'a')).await.unwrap_err().to_string();
    let want = "or its rules do not let that key change TXT records at _acme-challenge.node";
    assert!(text.contains(want), "{text}");
    Ok(())
}

#[tokio::test]
async fn servers_are_tried_in_turn_within_their_time() -> Result<()> {
    let lab = Lab::new()?;
    // Bound, and silent for ever.
    let silent = UdpSocket::bind(lab.place.at(2))?;
    let silent = silent.local_addr()?.to_string();
    let closed = lab.place.at(3).to_string();
    let table = with(lab.rfc2136(), "timeout_s", 1);
    let good = lab.knot.address().to_string();
    let all = with(table.clone(), "servers", json!([closed, silent, good]));
    let began = Instant::now();
    provider(&all, &lab.propagation(9)).append(&txt(NAME, 'a')).await?;
    assert!(began.elapsed().as_secs_f32() < 6.0, "{:?}", began.elapsed());
    assert_eq!(lab.knot.dig(NAME, "TXT")?, quoted("a"));

    let none = with(table, "servers", json!([closed, silent]));
    let failed = provider(&none, &lab.propagation(9)).append(&txt(NAME, 'b')).await;
    let text = failed.unwrap_err().to_string();
    let (closed, silent) = (format!("{closed}: cannot be reached"), format!("{silent}: "));
    assert!(text.contains(&closed) && text.contains(&silent), "{text}");
    Ok(())
}

#[tokio::test]
async fn what_is_too_long_for_a_datagram_goes_by_tcp() -> Result<()> {
    // A relay that answers every datagram as cut off, and passes TCP on.
    let lab = Lab::new()?;
    let relay = Truncating::start(lab.place.at(2), lab.knot.address())?;
    let table = with(lab.rfc2136(), "servers", json!([lab.place.at(2).to_string()]));
    provider(&table, &lab.propagation(9)).append(&txt(NAME, 'a')).await?;
    assert_eq!(lab.knot.dig(NAME, "TXT")?, quoted("a"));
    assert!(relay.cut_off() > 0 && relay.connections() > 0);

    let other = with(table, "key_secret", Key::new("acme-key", "hmac-sha256")?.secret);
    let refused = provider(&other, &lab.propagation(9)).append(&txt(NAME, 'b')).await;
    let text = refused.unwrap_err().to_string();
    assert!(text.contains("TSIG refused: BADSIG"), "{text}");
    Ok(())
}

#[tokio::test]
async fn an_answer_without_the_key_is_no_success() -> Result<()> {
    let lab = Lab::new()?;
    let forger = Forger::start(lab.place.at(2))?;
    let table = with(lab.rfc2136(), "servers", json!([lab.place.at(2).to_string()]));
    let table = with(table, "zone", "example.test");
    let failed = provider(&table, &lab.propagation(9)).append(&txt(NAME, 'a')).await;
    let text = failed.unwrap_err().to_string();
    assert!(text.contains("its answer is not signed with the key"), "{text}");
    assert!(forger.answers() > 0);
    Ok(())
}

#[tokio::test]
async fn the_secret_is_in_no_text_of_ours() -> Result<()> {
    let lab = Lab::new()?;
    let provider = provider(&lab.rfc2136(), &lab.propagation(9));
    let config: gantry_certs::dns::DnsConfig = serde_json::from_value(lab.rfc2136())?;
    let octets = format!("{:?}", base64_octets(&lab.key.secret));
    for text in [format!("{provider:?}"), format!("{config:?}"), format!("{config:#?}")] {
        assert!(text.contains("acme-key"), "{text}");
        assert!(!text.contains(&lab.key.secret) && !text.contains(&octets), "{text}");
    }
    Ok(())
}

fn base64_octets(text: &str) -> Vec<u8> {
    use base64::Engine as _;
    base64::engine::general_purpose::STANDARD.decode(text).unwrap()
}
