//! What Prometheus is told.

use std::{collections::HashSet, sync::Arc};

use anyhow::{Context as _, Result};
use gantry_certs::Metrics;

use crate::bench::{DOMAIN, Edge, Edges, World};

#[tokio::test(flavor = "multi_thread")]
async fn names_of_the_installation_are_told_one_by_one_and_others_are_counted() -> Result<()> {
    let world = World::new()?;
    let wire = world.wire()?;
    let mut edges = Edges::new(vec![world.authority(&wire)], Some(world.names.dns()?), &[DOMAIN]);
    edges.permitted =
        HashSet::from(["shop.customer.test", "blog.customer.test"].map(str::to_owned));
    let clock = edges.ahead.clock();
    let mut edge = Edge::start(&world.names.store(), edges).await?;
    edge.await_shown(DOMAIN, None).await?;
    // For one customer the CA finds nobody, for the other it does.
    assert!(edge.resolver.lacks("blog.customer.test"));
    edge.await_failed("blog.customer.test").await?;
    edge.open_doors(&world.setup).await?;
    assert!(edge.resolver.lacks("shop.customer.test"));
    edge.await_shown("shop.customer.test", None).await?;
    edge.await_no_order().await?;

    let metrics = Metrics {
        names: vec![DOMAIN.to_owned(), "*.containers.example.test".to_owned()],
        resolver: Arc::clone(&edge.resolver),
        shelf: Arc::clone(&edge.shelf),
        figures: Arc::clone(&edge.figures),
        clock,
    };
    let ca = world.pebble.directory();
    let record = edge.store.certificate(DOMAIN).await?.context("no record")?;
    let issued = record.issued.context("nothing was issued")?;
    // The budgets are looked at with each pass.
    let left = |limit: &str, left: u32| {
        format!("gantry_acme_budget_left{{ca=\"{ca}\",limit=\"{limit}\"}} {left}\n")
    };
    let wanted = [
        format!(
            "gantry_certificate_not_after_timestamp_seconds{{name=\"{DOMAIN}\"}} {}\n",
            issued.not_after_ms / 1000
        ),
        format!(
            "gantry_certificate_due_timestamp_seconds{{name=\"{DOMAIN}\"}} {}\n",
            record.due_at_ms / 1000
        ),
        "gantry_certificates_of_customers{state=\"shown\"} 1\n".to_owned(),
        "gantry_certificates_of_customers{state=\"missing\"} 1\n".to_owned(),
        "gantry_certificates_of_customers_failing 1\n".to_owned(),
        "gantry_certificates_of_customers_ending{days=\"60\"} 0\n".to_owned(),
        format!("gantry_acme_attempts_total{{ca=\"{ca}\"}} 3\n"),
        format!("gantry_acme_issued_total{{ca=\"{ca}\"}} 2\n"),
        format!("gantry_acme_failures_total{{ca=\"{ca}\"}} 1\n"),
        left("orders", 297),
        left("orders_for_customers", 197),
        // Each for a domain of its own.
        left("domain", 49),
        left("duplicates", 4),
        left("failures", 4),
    ];
    let text = || {
        let mut text = String::new();
        metrics.render(&mut text);
        text
    };
    let is_told = || wanted.iter().all(|line| text().contains(line));
    let told = crate::wait_until("the figures", crate::bench::BOUND, is_told);
    let missing: Vec<_> = wanted.iter().filter(|line| !text().contains(*line)).collect();
    told.with_context(|| format!("{missing:?} in\n{}", text()))?;
    // Neither what is not shown nor a customer has a series.
    assert!(!text().contains("containers.example.test") && !text().contains("customer.test"));
    edge.stop().await;
    Ok(())
}
