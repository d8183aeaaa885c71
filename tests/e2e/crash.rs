//! Many containers, and Gantry dying among them.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering},
    thread,
    time::Duration,
};

use anyhow::{Context, Result, bail, ensure};
use gantry_tests::{Container, Curl, Gantry, Options, wait_for, wait_until, walk};
use serde_json::Value;

const RUNNING: usize = 20;
const AT_ONCE: usize = 100;

#[test]
fn twenty_containers_survive_two_kills_of_gantry_and_nothing_acknowledged_is_lost() {
    walk(Options::embedded(), |gantry| {
        let project = gantry.create_project("many")?;
        let containers = create_through_a_kill(gantry, &project)?;
        wait_all_running(gantry, &containers)?;
        let mut inits = BTreeMap::new();
        let mut addresses = BTreeSet::new();
        for container in &containers {
            gantry.wait_200(&welcome(gantry, container), Duration::from_mins(1))?;
            let init = gantry.init_pid(container)?;
            addresses.insert(address_of(init)?);
            inits.insert(container.clone(), init);
        }
        ensure!(addresses.len() == RUNNING, "shared addresses: {addresses:?}");
        let there: BTreeSet<String> = gantry.runc_list()?.into_iter().collect();
        let wanted: BTreeSet<String> = containers.iter().map(|one| one.id.clone()).collect();
        ensure!(there == wanted, "{there:?} instead of {wanted:?}");

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

/// Asks for containers and kills Gantry in the middle of that; clients ask again with the same keys
/// until they are answered.
fn create_through_a_kill(gantry: &mut Gantry, project: &str) -> Result<Vec<Container>> {
    let servers = gantry.json(&["servers", "list"])?;
    let server = servers[0]["server_id"].as_str().context("no server")?.to_owned();
    let url = gantry.api_url(&format!("projects/{project}/containers"));
    let post = gantry.curl_api().with(["-H", "Content-Type: application/json"]);
    let answered = AtomicUsize::new(0);
    let acknowledged = thread::scope(|scope| -> Result<Vec<Vec<String>>> {
        let lanes: Vec<_> = (0..4)
            .map(|lane| {
                let (post, url, server, answered) = (&post, &url, &server, &answered);
                scope.spawn(move || -> Result<Vec<String>> {
                    let mut ids = Vec::new();
                    for number in (lane..RUNNING).step_by(4) {
                        ids.extend(insist(post, url, server, number)?);
                        answered.fetch_add(1, Ordering::SeqCst);
                    }
                    Ok(ids)
                })
            })
            .collect();
        let middle = wait_until("some are being made", Duration::from_mins(1), || {
            answered.load(Ordering::SeqCst) >= 5
                && gantry.runc_list().is_ok_and(|ids| !ids.is_empty())
        });
        let again = gantry.kill().and_then(|()| gantry.start_again());
        let lanes = lanes.into_iter().map(|lane| {
            lane.join().map_err(|panic| anyhow::anyhow!("a client panicked: {panic:?}"))?
        });
        let ids = lanes.collect();
        middle.and(again)?;
        ids
    })?;
    let listed = gantry.json(&["containers", "list", "--limit", "100"])?;
    let listed = listed["containers"].as_array().context("no list")?;
    let field = |one: &Value, name: &str| one[name].as_str().unwrap_or_default().to_owned();
    let names: BTreeSet<String> = listed.iter().map(|one| field(one, "name")).collect();
    let wanted = (0..RUNNING).map(|number| format!("box-{number}")).collect();
    ensure!(listed.len() == RUNNING && names == wanted, "{} made: {names:?}", listed.len());
    let ids: BTreeSet<String> = listed.iter().map(|one| field(one, "id")).collect();
    for id in acknowledged.iter().flatten() {
        ensure!(ids.contains(id), "{id} was acknowledged and is lost");
    }
    Ok(ids.into_iter().map(|id| Container { project: project.to_owned(), id }).collect())
}

/// Asks for a container until it is there; gives its id, unless an answer that is lost had it.
fn insist(post: &Curl, url: &str, server: &str, number: usize) -> Result<Option<String>> {
    let body = format!("{{\"server_id\": \"{server}\", \"name\": \"box-{number}\"}}");
    let key = format!("Idempotency-Key: create-{number}");
    let post = post.with(["-d", &body, "-H", &key]);
    wait_for("a container is accepted", Duration::from_mins(1), || {
        let answer = post.fetch(url).ok()?;
        let json = answer.json().unwrap_or_default();
        match answer.status {
            201 => json["data"]["id"].as_str().map(|id| Some(id.to_owned())),
            409 if json["code"] == "CONTAINER_NAME_IN_USE" => Some(None),
            _ => None,
        }
    })
}

/// The address in the network namespace of a process.
fn address_of(pid: u64) -> Result<String> {
    let text = std::fs::read_to_string(format!("/proc/{pid}/net/fib_trie"))?;
    let mut last = "";
    for line in text.lines().map(str::trim) {
        if let Some(address) = line.strip_prefix("|-- ") {
            last = address;
        } else if line.starts_with("/32 host LOCAL") && !last.starts_with("127.") {
            return Ok(last.to_owned());
        }
    }
    bail!("process {pid} has no address: {text}")
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
    let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
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
