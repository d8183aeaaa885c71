//! Images that an operator brings: what users make of them, and containers from them.

use std::{fs, path::Path, process::Command};

use anyhow::{Context as _, Result, ensure};
use gantry_tests::{Gantry, Options, walk};
use serde_json::{Value, json};

/// An image of one program and an init that sleeps, as release 1.
pub(crate) fn small_image(dir: &Path) -> Result<()> {
    fs::create_dir_all(dir)?;
    let script = "set -e; cd \"$(mktemp -d)\"
        mkdir bin sbin etc proc sys dev run root ramdisk tmp; cp /bin/busybox bin
        for name in sh sleep cat ip; do ln -s busybox bin/$name; done
        echo 'root:x:0:0::/root:/bin/sh' > etc/passwd
        printf '#!/bin/sh\ntrap \"exit 0\" TERM\nwhile :; do sleep 1000 & wait $!; done\n' > sbin/init
        chmod 755 sbin/init; tar -cf \"$1\" *; rm -r \"$PWD\"";
    let tar = dir.join("1.tar");
    let output = Command::new("sh").args(["-c", script, "sh"]).arg(&tar).output()?;
    ensure!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    Ok(())
}

/// The images of a list, by their names.
fn named(list: &Value) -> Result<Vec<String>> {
    let list = list["images"].as_array().context("no images")?;
    Ok(list.iter().map(|image| image["alias"].to_string().trim_matches('"').to_owned()).collect())
}

#[test]
fn an_image_is_taken_rated_and_started_from() {
    // Builds of images are shared by all tests; this one's is nobody else's.
    let cache = tempfile::Builder::new().prefix("gantry-images-").tempdir_in("/var/tmp");
    let cache = cache.expect("a directory for images");
    let options = Options::embedded().set(&format!("runtime.images={}", cache.path().display()));
    walk(options, |gantry| {
        let dir = gantry.state().join("images/busybox");
        small_image(&dir)?;
        let icon = [b"\x89PNG\r\n\x1a\n".as_slice(), b"of the walk"].concat();
        fs::write(dir.join("1.png"), &icon)?;
        let list = gantry.json(&["images", "list"])?;
        let images = list["images"].as_array().context("no images")?;
        let id_of = |name: &str| {
            let found = images.iter().find(|image| image["alias"] == name);
            let id = found.and_then(|image| image["id"].as_str()).map(str::to_owned);
            id.with_context(|| format!("no {name} in {list}"))
        };
        let (id, other) = (id_of("busybox/1")?, id_of("debian/13")?);

        it_is_taken_and_rated(gantry, &id)?;
        // A picture needs no credential, and every image has one.
        let picture = |id: &str| {
            gantry.curl().fetch(&gantry.api_url(&format!("images/{id}/icon")))?.expect(200)
        };
        let (its, common) = (picture(&id)?, picture(&other)?);
        ensure!(its.header("content-type") == Some("image/png"), "{:?}", its.headers);
        ensure!(its.body == icon, "not the operator's: {:?}", its.body);
        ensure!(common.body.starts_with(b"\x89PNG") && common.body != icon, "{:?}", common.body);

        let project = gantry.create_project("from-images")?;
        let image = ["--container-image", "busybox/1", "--no-hoody-kit"];
        let container = gantry.create_running(&project, &image)?;
        ensure!(gantry.field(&container, "container_image")? == "busybox/1");
        let seen = gantry.inside(&container, &["cat", "/etc/passwd"])?;
        ensure!(seen.stdout == b"root:x:0:0::/root:/bin/sh\n", "{seen:?}");

        // What is not offered any more is in no list, and what was made of it comes back with it.
        fs::rename(dir.join("1.tar"), dir.join("away"))?;
        ensure!(named(&gantry.json(&["images", "mine"])?)?.is_empty(), "it is gone");
        fs::rename(dir.join("away"), dir.join("1.tar"))?;
        let mine = gantry.json(&["images", "mine"])?;
        ensure!(named(&mine)? == ["busybox/1"] && mine["images"][0]["user_rating"] == 4, "{mine}");
        Ok(())
    });
}

fn it_is_taken_and_rated(gantry: &Gantry, id: &str) -> Result<()> {
    ensure!(named(&gantry.json(&["images", "mine"])?)?.is_empty(), "nothing was taken");
    gantry.json(&["images", "import", id])?;
    ensure!(named(&gantry.json(&["images", "mine"])?)? == ["busybox/1"], "it is in the list");
    let rated = gantry.json(&["images", "rate", id, "4"])?;
    ensure!(rated["average_rating"] == 4.0 && rated["rating_count"] == 1, "{rated}");

    // Somebody else, by another client.
    let file = gantry.home().join("dora");
    let password = "Passw0rd!dora";
    fs::write(&file, password)?;
    let file = file.display().to_string();
    gantry.json(&["users", "create", "dora", "--password-file", &file])?;
    let login = ["login", "-u", "dora", "--password-file", &file, "--print-token"];
    let session = gantry.cli_anonymous(&login)?;
    let session = String::from_utf8_lossy(&session.stdout).trim().to_owned();
    let by_dora = |method: &str, path: &str, body: &Value| {
        let bearer = format!("authorization: Bearer {session}");
        let head = ["-X", method, "-H", &bearer, "-H", "content-type: application/json"];
        let curl = gantry.curl().with(head).with(["-d", &body.to_string()]);
        curl.fetch(&gantry.api_url(&format!("images/{path}")))
    };
    let rate = |rating: i32| by_dora("POST", &format!("rate/{id}"), &json!({ "rating": rating }));
    let wrong = rate(6)?.expect(400)?.json()?;
    ensure!(wrong["data"][0]["field"] == "rating", "{wrong}");
    let rated = rate(1)?.expect(200)?.json()?;
    ensure!(rated["data"]["average_rating"] == 2.5, "{rated}");
    let bearer = format!("authorization: Bearer {session}");
    let mine = gantry.curl().with(["-H", &bearer]).fetch(&gantry.api_url("images/user"))?;
    ensure!(named(&mine.expect(200)?.json()?["data"])?.is_empty(), "lists are each user's");
    let seen = gantry.json(&["images", "get", id])?;
    ensure!(seen["average_rating"] == 2.5 && seen["rating_count"] == 2, "{seen}");
    Ok(())
}
