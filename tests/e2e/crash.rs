//! Many containers, and Gantry dying among them.

use std::{
    collections::BTreeMap,
    sync::atomic::{AtomicBool, AtomicU64, Ordering},
    thread,
    time::Duration,
};

use anyhow::{Context, Result, bail, ensure};
use gantry_tests::{Container, Gantry, Options, wait_until, walk};

const RUNNING: usize = 20;
const AT_ONCE: usize = 100;

#[test]
fn twenty_containers_outlive_a_killed_gantry_and_nothing_acknowledged_is_lost() {
    walk(Options::embedded(), |gantry| {
        let project = gantry.create_project("many")?;
        let containers = create_many(gantry, &project, RUNNING)?;
        wait_all_running(gantry, &containers)?;
        let mut inits = BTreeMap::new();
        for container in &containers {
            gantry.wait_200(&welcome(gantry, container), Duration::from_mins(1))?;
            inits.insert(container.clone(), gantry.init_pid(container)?);
        }

        let acknowledged = kill_under_load(gantry, &containers)?;
        gantry.start_again()?;
        for (container, init) in &inits {
            ensure!(gantry.init_pid(container)? == *init, "another init runs in {}", container.id);
            gantry.wait_200(&welcome(gantry, container), Duration::from_secs(30))?;
            gantry.wait_status(container, "running", Duration::from_secs(30))?;
        }
        ensure!(!acknowledged.is_empty(), "nothing was written before the kill");
        for id in &acknowledged {
            gantry.json(&["projects", "get", id]).context("an acknowledged project is lost")?;
        }
        Ok(())
    });
}

fn welcome(gantry: &Gantry, container: &Container) -> String {
    gantry.url(container, "http-19800", "/")
}

/// Kills Gantry while URLs are fetched and projects are made; gives the acknowledged projects.
fn kill_under_load(gantry: &mut Gantry, containers: &[Container]) -> Result<Vec<String>> {
    let (over, fetched) = (AtomicBool::new(false), AtomicU64::new(0));
    let urls: Vec<String> = containers.iter().map(|one| welcome(gantry, one)).collect();
    let curl = gantry.curl();
    let post = gantry.curl_api().with(["-X", "POST", "-H", "Content-Type: application/json"]);
    let projects = gantry.api_url("projects");
    thread::scope(|scope| {
        let readers: Vec<_> = (0..2)
            .map(|lane| {
                let (over, fetched, urls, curl) = (&over, &fetched, &urls, &curl);
                scope.spawn(move || {
                    for url in urls.iter().cycle().skip(lane).step_by(2).take(10_000) {
                        if over.load(Ordering::SeqCst) {
                            return;
                        }
                        if curl.status(url) == 200 {
                            fetched.fetch_add(1, Ordering::SeqCst);
                        }
                    }
                })
            })
            .collect();
        let writer = scope.spawn(|| {
            let mut acknowledged = Vec::new();
            for number in 0..10_000 {
                if over.load(Ordering::SeqCst) {
                    break;
                }
                let body = format!("{{\"alias\": \"project {number}\"}}");
                let made = post.with(["-d", &body]).fetch(&projects);
                if let Ok(answer) = made
                    && answer.status == 201
                    && let Ok(answer) = answer.json()
                    && let Some(id) = answer["data"]["id"].as_str()
                {
                    acknowledged.push(id.to_owned());
                }
            }
            acknowledged
        });
        let flowing = wait_until("requests flow", Duration::from_secs(30), || {
            fetched.load(Ordering::SeqCst) >= 40
        });
        let killed = gantry.kill();
        over.store(true, Ordering::SeqCst);
        for reader in readers {
            reader.join().map_err(|panic| anyhow::anyhow!("a reader panicked: {panic:?}"))?;
        }
        let acknowledged =
            writer.join().map_err(|panic| anyhow::anyhow!("the writer panicked: {panic:?}"))?;
        flowing.and(killed)?;
        Ok(acknowledged)
    })
}

/// Asks for containers from several clients at the same time.
fn create_many(gantry: &Gantry, project: &str, count: usize) -> Result<Vec<Container>> {
    let servers = gantry.json(&["servers", "list"])?;
    let server = servers[0]["server_id"].as_str().context("no server")?;
    let url = gantry.api_url(&format!("projects/{project}/containers"));
    let post = gantry.curl_api().with(["-H", "Content-Type: application/json"]);
    let lanes = 10;
    thread::scope(|scope| {
        let lanes: Vec<_> = (0..lanes)
            .map(|lane| {
                let (post, url) = (&post, &url);
                scope.spawn(move || -> Result<Vec<Container>> {
                    let mut made = Vec::new();
                    for number in (lane..count).step_by(lanes) {
                        let body =
                            format!("{{\"server_id\": \"{server}\", \"name\": \"box-{number}\"}}");
                        let answer = post.with(["-d", &body]).fetch(url)?.expect(201)?.json()?;
                        let id = answer["data"]["id"].as_str().context("no id")?.to_owned();
                        made.push(Container { project: project.to_owned(), id });
                    }
                    Ok(made)
                })
            })
            .collect();
        let mut all = Vec::new();
        for lane in lanes {
            all.extend(
                lane.join().map_err(|panic| anyhow::anyhow!("a client panicked: {panic:?}"))??,
            );
        }
        ensure!(all.len() == count, "{} of {count} were made", all.len());
        Ok(all)
    })
}

fn wait_all_running(gantry: &Gantry, containers: &[Container]) -> Result<()> {
    let mut statuses = BTreeMap::new();
    let settled = |statuses: &BTreeMap<String, String>| {
        let runs = |one: &Container| statuses.get(&one.id).is_some_and(|now| now == "running");
        containers.iter().all(runs) || statuses.values().any(|now| now == "failed")
    };
    wait_until("all containers run", Duration::from_mins(10), || {
        statuses = statuses_of(gantry).unwrap_or_default();
        settled(&statuses)
    })
    .with_context(|| format!("{statuses:?}"))?;
    for container in containers {
        if statuses.get(&container.id).is_some_and(|status| status == "failed") {
            bail!("{} failed: {}", container.id, gantry.field(container, "error")?);
        }
    }
    Ok(())
}

fn statuses_of(gantry: &Gantry) -> Result<BTreeMap<String, String>> {
    let list = gantry.json(&["containers", "list", "--limit", "100"])?;
    let text = |value: &serde_json::Value| value.as_str().unwrap_or_default().to_owned();
    let list = list["containers"].as_array().context("no list")?.iter();
    Ok(list.map(|one| (text(&one["id"]), text(&one["status"]))).collect())
}

#[test]
fn a_hundred_creates_at_once_succeed() {
    walk(Options::embedded().set("runtime.memory_mib=128"), |gantry| {
        let project = gantry.create_project("hundred")?;
        let containers = create_many(gantry, &project, AT_ONCE)?;
        wait_all_running(gantry, &containers)?;
        // Addresses are the containers' own: no two answer for each other.
        for container in containers.iter().step_by(9) {
            gantry.wait_200(&welcome(gantry, container), Duration::from_mins(2))?;
        }
        Ok(())
    });
}
