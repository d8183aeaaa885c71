//! Custom hostnames that are checked again without anybody asking.

use std::time::Duration;

use gantry_control::{Clock, RecheckConfig, Rechecker};
use serde_json::{Value, json};

use crate::proxy::Scene;

const HOST: &str = "shop.node-test.containers.edge.test";
const NAME: &str = "www.example.com";
const PERIOD: Duration = Duration::from_hours(1);

/// A bound hostname, and whoever checks it, with a clock of his own.
struct Bound {
    scene: Scene,
    clock: Clock,
    rechecker: Rechecker,
}

impl Bound {
    async fn new() -> Self {
        let scene = Scene::set().await;
        let alias = scene.made_alias(json!({ "alias": "shop" })).await;
        scene.lab.names.cname(NAME, HOST);
        let body = json!({ "hostname": NAME, "alias_id": alias["id"] });
        assert_eq!(scene.send("POST", "{C}/hostnames", Some(&body)).await.status, 201);
        let clock = Clock::manual(Clock::system().now_ms());
        let config = RecheckConfig { period: PERIOD, misses_max: 3 };
        let rechecker = Rechecker::new(scene.lab.control.clone(), clock.clone(), config);
        Self { scene, clock, rechecker }
    }

    /// Lets the time pass after which a check is due for certain; says whether there was one.
    async fn later(&mut self) -> bool {
        self.clock.advance(PERIOD * 11 / 10);
        self.rechecker.look().await.unwrap() == 1
    }

    async fn told(&self) -> Value {
        self.scene.get("{C}/hostnames").await["hostnames"][0].clone()
    }

    async fn is_verified(&self) -> bool {
        self.told().await["verified"] == true
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_hostname_that_leads_here_no_more_leads_nowhere_in_the_end() {
    let mut bound = Bound::new().await;
    assert_eq!(bound.rechecker.look().await.unwrap(), 0, "it was checked just now");
    let before = bound.told().await["checked_at"].clone();
    assert!(bound.later().await);
    assert!(bound.is_verified().await);
    assert_ne!(bound.told().await["checked_at"], before);
    assert_eq!(bound.rechecker.look().await.unwrap(), 0, "once");
    // Two misses, an outage that says nothing, and a third one.
    let names = bound.scene.lab.names.clone();
    names.forget(NAME);
    for _ in 0..2 {
        assert!(bound.later().await);
        assert!(bound.is_verified().await);
    }
    names.set_away(true);
    assert!(bound.later().await);
    assert!(bound.is_verified().await);
    names.set_away(false);
    assert!(bound.later().await);
    assert!(!bound.is_verified().await);
    assert!(bound.later().await);
    assert!(!bound.is_verified().await);
    // And back.
    names.cname(NAME, HOST);
    assert!(bound.later().await);
    assert!(bound.is_verified().await);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn misses_count_only_in_a_row() {
    let mut bound = Bound::new().await;
    let names = bound.scene.lab.names.clone();
    for _ in 0..2 {
        names.forget(NAME);
        for _ in 0..2 {
            assert!(bound.later().await);
        }
        names.cname(NAME, HOST);
        assert!(bound.later().await);
        assert!(bound.is_verified().await);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_hostname_that_is_unbound_is_forgotten() {
    let mut bound = Bound::new().await;
    let unbound = bound.scene.send("DELETE", &format!("{{C}}/hostnames/{NAME}"), None).await;
    assert_eq!(unbound.status, 200);
    assert!(!bound.later().await);
    assert_eq!(bound.scene.get("{C}/hostnames").await["count"], 0);
}
