//! Where a record belongs, and who has it: against a primary, its secondary, and servers that are
//! down, lame or out of reach.

use std::time::{Duration, Instant};

use anyhow::Result;
use gantry_certs::dns::{Propagation, PropagationConfig};
use serde_json::json;

use super::{Lab, propagation, provider, servers::Truncating, txt, with};
use crate::knot::{Key, Knot, Place, Zone};

const NAME: &str = "_acme-challenge.pair.test";

/// A zone with two name servers.
const PAIR: [Zone<'static>; 1] = [("pair.test", "@ NS ns1\n@ NS ns2\nns1 A HOST1\nns2 A HOST2")];

fn pair() -> Result<Lab> {
    Lab::of(Place::new()?, Key::new("acme-key", "hmac-sha256")?, 1, &PAIR)
}

#[tokio::test]
async fn a_record_belongs_to_the_end_of_its_delegation() -> Result<()> {
    let lab = Lab::new()?;
    let propagation = lab.propagation(9);
    for (name, want) in [
        ("_acme-challenge.delegated.example.test", "one.acme.test"),
        ("_acme-challenge.Delegated.example.TEST.", "one.acme.test"),
        ("_acme-challenge.twice.example.test", "one.acme.test"),
        ("_acme-challenge.kept.example.test", "_acme-challenge.kept.example.test"),
        // The wildcard's CNAME ends where the record begins.
        ("_acme-challenge.example.test", "_acme-challenge.example.test"),
        ("_acme-challenge.a.b.example.test", "_acme-challenge.a.b.example.test"),
    ] {
        assert_eq!(propagation.resolve_target(name).await?, want, "{name}");
    }
    let circle = propagation.resolve_target("_acme-challenge.circle.example.test").await;
    let text = circle.unwrap_err().to_string();
    assert!(text.contains("leads in a circle: _acme-challenge.circle.example.test -> "), "{text}");
    Ok(())
}

#[tokio::test]
async fn a_delegated_record_is_written_and_awaited_at_its_end() -> Result<()> {
    let lab = Lab::new()?;
    let propagation = lab.propagation(9);
    let provider = provider(&lab.rfc2136(), &propagation);
    let name = "_acme-challenge.delegated.example.test";
    let target = propagation.resolve_target(name).await?;
    provider.append(&txt(&target, 'a')).await?;
    propagation.wait(&txt(&target, 'a')).await?;
    // By the name that the CA asks for, too.
    propagation.wait(&txt(name, 'a')).await?;
    let short = lab.propagation(8);
    let (other, from_wildcard) = (txt(name, 'b'), txt("_acme-challenge.example.test", 'b'));
    let (other, from_wildcard) = tokio::join!(short.wait(&other), short.wait(&from_wildcard));
    let (text, from_wildcard) = (other.unwrap_err().to_string(), from_wildcard.unwrap_err());
    assert!(from_wildcard.to_string().contains("has a CNAME to edge.example.test there"));
    let address = lab.knot.address();
    let want = format!("of acme.test, ns1.example.test ({address}) has 1 other TXT records there");
    assert!(text.contains(&want), "{text}");
    Ok(())
}

#[tokio::test]
async fn every_server_must_have_it() -> Result<()> {
    let lab = pair()?;
    let second = Knot::secondary(lab.place.at(2), lab.knot.address(), &["pair.test"])?;
    provider(&lab.rfc2136(), &lab.propagation(9)).append(&txt(NAME, 'a')).await?;
    // Both servers answer, so that the time is not waited for anybody who does not.
    let text = lab.propagation(8).wait(&txt(NAME, 'a')).await.unwrap_err().to_string();
    let (first, lagging) = (lab.knot.address(), second.address());
    assert!(
        text.contains("was not visible within 8 s: of the name servers of pair.test, "),
        "{text}"
    );
    assert!(text.contains(&format!("ns1.pair.test ({first}) has it")), "{text}");
    assert!(text.contains(&format!("ns2.pair.test ({lagging}) has no such name")), "{text}");

    // It comes while it is waited for.
    let propagation = lab.propagation(20);
    let awaited = tokio::spawn(async move { propagation.wait(&txt(NAME, 'a')).await });
    let refreshed = tokio::task::spawn_blocking(move || {
        second.refresh("pair.test", &lab.knot).map(|()| (second, lab))
    });
    let _running = refreshed.await??;
    awaited.await??;
    Ok(())
}

#[tokio::test]
async fn a_server_that_is_down_is_left_out_in_time() -> Result<()> {
    let mut lab = pair()?;
    let propagation = lab.propagation(3);
    provider(&lab.rfc2136(), &propagation).append(&txt(NAME, 'a')).await?;
    let began = Instant::now();
    propagation.wait(&txt(NAME, 'a')).await?;
    assert!(began.elapsed() >= Duration::from_secs(1), "it was waited for: {:?}", began.elapsed());

    // But somebody must have it.
    lab.knot.stop()?;
    let other =
        Knot::primary(lab.place.at(3), &lab.key, &[("other.test", "@ NS ns1\nns1 A 127.0.0.1")])?;
    let resolvers = [other.address().to_string()];
    let lost = super::propagation(&resolvers, lab.place.port, 1);
    let text = lost.wait(&txt(NAME, 'a')).await.unwrap_err().to_string();
    assert!(
        text.contains("the resolver does not say CNAME of _acme-challenge.pair.test"),
        "{text}"
    );
    Ok(())
}

#[tokio::test]
async fn somebody_must_have_it() -> Result<()> {
    // The resolver knows the zone; its name servers do not run.
    let lab = Lab::of(Place::new()?, Key::new("acme-key", "hmac-sha256")?, 3, &PAIR)?;
    provider(&lab.rfc2136(), &lab.propagation(3)).append(&txt(NAME, 'a')).await?;
    let text = lab.propagation(3).wait(&txt(NAME, 'a')).await.unwrap_err().to_string();
    let want = format!("ns2.pair.test ({}) cannot be reached: ", lab.place.at(2));
    assert!(text.contains(&want), "{text}");
    Ok(())
}

#[tokio::test]
async fn an_address_out_of_reach_says_nothing() -> Result<()> {
    let zone = (
        "pair.test",
        "@ NS ns1\n@ NS ns6\nns1 A HOST1\nns1 AAAA 2001:db8::53\nns6 AAAA 2001:db8::54",
    );
    let lab = Lab::of(Place::new()?, Key::new("acme-key", "hmac-sha256")?, 1, &[zone])?;
    provider(&lab.rfc2136(), &lab.propagation(9)).append(&txt(NAME, 'a')).await?;
    // With a route to nowhere they would be waited for, a third of the time.
    lab.propagation(6).wait(&txt(NAME, 'a')).await?;
    Ok(())
}

#[tokio::test]
async fn a_lame_server_is_named() -> Result<()> {
    let lab = pair()?;
    let zone = ("other.test", "@ NS ns1\nns1 A 127.0.0.1");
    let lame = Knot::primary(lab.place.at(2), &lab.key, &[zone])?;
    provider(&lab.rfc2136(), &lab.propagation(9)).append(&txt(NAME, 'a')).await?;
    let text = lab.propagation(8).wait(&txt(NAME, 'a')).await.unwrap_err().to_string();
    let want = format!("ns2.pair.test ({}) refuses to answer for the zone", lame.address());
    assert!(text.contains(&want), "{text}");
    Ok(())
}

#[tokio::test]
async fn an_answer_that_is_cut_off_is_asked_for_by_tcp() -> Result<()> {
    let lab = pair()?;
    let relay = Truncating::start(lab.place.at(2), lab.knot.address())?;
    provider(&lab.rfc2136(), &lab.propagation(9)).append(&txt(NAME, 'a')).await?;
    lab.propagation(9).wait(&txt(NAME, 'a')).await?;
    assert!(relay.cut_off() > 0 && relay.connections() > 0);
    Ok(())
}

#[tokio::test]
async fn without_the_check_nobody_is_asked() -> Result<()> {
    let config = json!({ "check": false, "resolvers": ["127.0.0.1:1"] });
    let config: PropagationConfig = serde_json::from_value(config)?;
    Propagation::new(&config).unwrap().wait(&txt("_acme-challenge.nowhere.test", 'a')).await?;
    let asked = propagation(&["127.0.0.1:1".to_owned()], 53, 1);
    assert!(asked.wait(&txt("_acme-challenge.nowhere.test", 'a')).await.is_err());
    Ok(())
}

#[test]
fn a_table_of_propagation_says_what_is_wrong() {
    let good = json!({ "resolvers": ["127.0.0.1:53"] });
    for (key, value, want) in [
        ("timeout_s", json!(0), "timeout_s: must be 1 to 3600 seconds, found 0"),
        ("delay_s", json!(3601), "delay_s: must be 0 to 3600 seconds, found 3601"),
        ("port", json!(0), "port: must be 1 to 65535, usually 53"),
    ] {
        let config: PropagationConfig =
            serde_json::from_value(with(good.clone(), key, value)).unwrap();
        let faults = Propagation::new(&config).unwrap_err();
        assert_eq!(faults.iter().map(ToString::to_string).collect::<Vec<_>>(), [want]);
    }
    let unknown = serde_json::from_value::<PropagationConfig>(with(good, "resolver", ""));
    assert!(unknown.unwrap_err().to_string().contains("unknown field `resolver`"));
}
