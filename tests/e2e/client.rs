//! The client commands as scripts see them: exit codes, messages, output.

use std::{os::unix::fs::PermissionsExt, process::Output};

use anyhow::{Result, ensure};
use gantry_tests::{Gantry, Options, walk};

use crate::dns::Zone;

fn expect(output: &Output, code: i32, said: &str) -> Result<()> {
    let text = String::from_utf8_lossy(&output.stderr).into_owned();
    ensure!(output.status.code() == Some(code), "exit {:?}: {text}", output.status.code());
    ensure!(text.contains(said), "{said:?} is not said: {text}");
    Ok(())
}

#[test]
fn every_class_of_failure_has_its_exit_code() {
    walk(Options::fake(), |gantry| {
        let nobody = "0123456789abcdef01234567";
        let project = gantry.create_project("codes")?;
        for (args, code, said) in [
            (&["containers", "get", "NOT-AN-ID"][..], 2, "hexadecimal"),
            (&["containers", "get", nobody], 4, "not found"),
            (&["projects", "create", "--alias", "codes", "--color", "reddish"], 6, "color"),
            (&["--token", "hdy_wrong", "projects", "list"], 3, "gantry login"),
            (&["--connect", "127.99.99.99", "projects", "list"], 7, "is Gantry running?"),
            (&["--ca", "/dev/null", "projects", "list"], 2, "/dev/null"),
            (&["--api-url", "http://api.example.com", "projects", "list"], 2, "https"),
        ] {
            expect(&gantry.cli(args)?, code, said)
                .map_err(|error| error.context(args.join(" ")))?;
        }
        let named = ["containers", "create", "--project", &project, "--name", "taken"];
        expect(&gantry.cli(&named)?, 0, "")?;
        expect(&gantry.cli(&named)?, 5, "already in use")
    });
}

#[test]
fn a_token_works_until_it_is_deleted_and_no_list_shows_it() {
    walk(Options::fake(), |gantry| {
        let token = gantry.json(&["auth", "create", "--alias", "ci-bot"])?;
        let secret = token["token"].as_str().unwrap_or_default().to_owned();
        ensure!(secret.starts_with("hdy_"), "{token}");
        let id = token["id"].as_str().unwrap_or_default();
        let with_token = ["--token", &secret, "-o", "json", "projects", "list"];
        expect(&gantry.cli(&with_token)?, 0, "")?;
        let change = ["--expires-at", "null", "--permission-template", "read_only"];
        let changed =
            gantry.json(&[&["tokens", "update", id, "--alias", "bot"], &change[..]].concat())?;
        ensure!(changed["alias"] == "bot" && changed["expires_at"].is_null(), "{changed}");
        ensure!(gantry.json(&["tokens", "get", id])?["alias"] == "bot", "by its id");
        ensure!(gantry.json(&["tokens", "templates"])?.to_string().contains("read_only"), "named");
        expect(&gantry.cli(&["tokens", "update", id, "--enabled", "false"])?, 0, "")?;
        expect(&gantry.cli(&with_token)?, 3, "401")?;
        expect(&gantry.cli(&["tokens", "update", id, "--enabled", "true"])?, 0, "")?;
        expect(&gantry.cli(&with_token)?, 0, "")?;
        let key = "ab".repeat(32);
        let shown = ["tokens", "profile", "--public-key", &key, "--public-storage", "hello"];
        let shown = gantry.cli(&[&["--token", &secret], &shown[..]].concat())?;
        // A token that only reads shows nothing of itself.
        expect(&shown, 3, "resources.auth_token_public_profile")?;
        let shown = gantry.json(&["tokens", "profile", "--id", id, "--public-key", &key])?;
        ensure!(shown["public_key"] == key.as_str(), "{shown}");
        let shown = gantry.json(&["tokens", "profile", "--of", &key])?;
        ensure!(shown["public_key"] == key.as_str() && shown["public_storage"].is_null());
        let list = gantry.json(&["tokens", "list"])?;
        ensure!(!list.to_string().contains(&secret), "a list shows a secret: {list}");
        expect(&gantry.cli(&["auth", "delete", id])?, 0, "Deleted")?;
        expect(&gantry.cli(&with_token)?, 3, "401")
    });
}

#[test]
fn a_user_has_as_much_as_the_operator_wants() {
    let options = Options::fake()
        .set("control.tokens_per_user=1")
        .set("control.aliases_per_user=1")
        .set("control.vault_keys_per_user=1")
        .set("control.vault_mib_per_user=1")
        .set("control.snapshots_per_container=0");
    walk(options, |gantry| {
        let project = gantry.create_project("frugal")?;
        let container = gantry.create_running(&project, &[])?;
        let id = container.id.as_str();
        let alias = |name| {
            let port = ["--alias", name, "--program", "http", "--port", "3000"];
            gantry.cli(&[&["proxy", "create", "--container-id", id], &port[..]].concat())
        };
        let token = |name| gantry.cli(&["auth", "create", "--alias", name]);
        ensure!(alias("one")?.status.success() && token("one")?.status.success());
        let snapshot = gantry.cli(&["snapshots", "create", "-c", id, "--alias", "one"])?;
        let put_away = |key| gantry.cli(&["vault", "set", key, "--value", "v"]);
        ensure!(put_away("one")?.status.success(), "one fits");
        ensure!(gantry.json(&["vault", "stats"])?["limit_mb"] == 1.0, "a MiB");
        for (refused, why) in [
            (alias("two")?, "ALIAS_LIMIT_REACHED"),
            (token("two")?, "too many tokens"),
            (snapshot, "CONTAINER_SNAPSHOT_LIMIT"),
            (put_away("two")?, "at most 1 keys"),
        ] {
            let said = String::from_utf8_lossy(&refused.stderr).into_owned();
            ensure!(!refused.status.success() && said.contains(why), "{why}: {said}");
        }
        Ok(())
    });
}

#[test]
fn a_session_is_kept_for_its_owner_alone_and_forgotten_at_logout() {
    walk(Options::fake(), |gantry| {
        let (username, password) = gantry.administrator()?;
        let whoami = ["-o", "json", "auth", "whoami"];
        expect(&gantry.cli_anonymous(&whoami)?, 3, "gantry login")?;
        let login = ["login", "--username", &username, "--password-file", &password];
        expect(&gantry.cli_anonymous(&login)?, 0, "Logged in")?;
        let kept = gantry.home().join(".config/gantry/credentials.json");
        let mode = kept.metadata()?.permissions().mode() & 0o777;
        ensure!(mode == 0o600, "{} has mode {mode:o}", kept.display());
        expect(&gantry.cli_anonymous(&whoami)?, 0, "")?;
        // A session belongs to one API: it is not sent to another.
        let other = "https://0123456789abcdef01234567.api.gantry.localhost:8443";
        let elsewhere = [&["--api-url", other], &whoami[..]].concat();
        expect(&gantry.cli_anonymous(&elsewhere)?, 3, "gantry login")?;
        expect(&gantry.cli_anonymous(&["logout"])?, 0, "Logged out")?;
        ensure!(!kept.exists(), "{} is left", kept.display());
        expect(&gantry.cli_anonymous(&whoami)?, 3, "gantry login")
    });
}

#[test]
fn completions_know_the_commands() -> Result<()> {
    let gantry = Gantry::prepare(Options::fake())?;
    for shell in ["bash", "zsh", "fish"] {
        let output = gantry.cli(&["completions", shell])?;
        let script = String::from_utf8_lossy(&output.stdout).into_owned();
        ensure!(output.status.success() && script.contains("status-logs"), "{shell}: {script}");
    }
    Ok(())
}

#[test]
fn a_table_and_json_tell_the_same() {
    walk(Options::fake(), |gantry| {
        let project = gantry.create_project("both")?;
        let table = gantry.cli(&["projects", "list"])?;
        let table = String::from_utf8_lossy(&table.stdout).into_owned();
        ensure!(table.contains("ALIAS") && table.contains(&project), "{table}");
        let json = gantry.json(&["projects", "list"])?;
        ensure!(json["projects"][0]["id"] == project.as_str(), "{json}");
        let events = gantry.json(&["events", "list"])?;
        ensure!(events["events"][0]["resource_id"] == project.as_str(), "{events}");
        let event = events["events"][0]["id"].as_str().unwrap_or_default();
        ensure!(gantry.json(&["events", "get", event])?["id"] == event, "by its id");
        expect(&gantry.cli(&["events", "delete-many"])?, 2, "--all")?;
        let old = gantry.json(&["--yes", "events", "clean-up", "--retention-days", "7"])?;
        ensure!(old["deleted_count"] == 0, "nothing is so old: {old}");
        expect(&gantry.cli(&["--yes", "events", "delete", event])?, 0, "Deleted")?;
        expect(&gantry.cli(&["events", "get", event])?, 4, "")?;
        let left = gantry.json(&["--yes", "events", "delete-many", "--all"])?;
        ensure!(left["deleted_count"].is_u64(), "{left}");
        let server = gantry.json(&["servers", "list"])?;
        let server = server[0]["server_id"].as_str().unwrap_or_default().to_owned();
        expect(&gantry.cli(&["servers", "get", &server])?, 0, "")?;
        let writes = gantry.json(&["activity", "list"])?;
        let paths = writes.as_array().into_iter().flatten().map(|write| &write["path"]);
        ensure!(paths.into_iter().any(|path| path == "/api/v1/projects"), "{writes}");
        Ok(())
    });
}

#[test]
fn what_stands_before_containers_is_set_by_commands() {
    let (zone, resolver) = Zone::serve().expect("a name server");
    walk(Options::fake().set(&format!("control.resolver={resolver}")), |gantry| {
        let project = gantry.create_project("guarded")?;
        let container = gantry.create_running(&project, &[])?;
        let id = container.id.as_str();
        let write = |name: &str, text: &str| -> Result<String> {
            let file = gantry.state().join(name);
            std::fs::write(&file, text)?;
            Ok(file.display().to_string())
        };
        let office = write("office.json", r#"{"type": "ip", "range": "203.0.113.0/24"}"#)?;
        let of_project = gantry.json(&["permissions", "show", &project, "--project"])?;
        ensure!(of_project["file_version"] == 0, "{of_project}");
        for args in [
            &["permissions", "set-group", &project, "office", &office, "--project"][..],
            &["permissions", "allow", &project, "office", "http", "3000-3999", "--project"],
            &["permissions", "set-group", id, "team", &office],
            &["permissions", "allow", id, "team", "http", "[3000,8080]", "--if-match", "file:v1"],
        ] {
            expect(&gantry.cli(args)?, 0, "").map_err(|error| error.context(args.join(" ")))?;
        }
        let of_project = gantry.json(&["permissions", "show", &project, "--project"])?;
        ensure!(of_project["permissions"]["office"]["http"] == "3000-3999", "{of_project}");
        let document = gantry.json(&["permissions", "show", id])?;
        ensure!(document["permissions"]["team"]["http"][1] == 8080, "{document}");
        let stale = ["permissions", "allow", id, "team", "http", "*", "--if-match", "file:v1"];
        expect(&gantry.cli(&stale)?, 5, "")?;
        let switches =
            ["permissions", "settings", id, "--default", "deny", "--enable-proxy", "false"];
        let after = gantry.json(&switches)?;
        ensure!(after["default"] == "deny" && after["enable_proxy"] == false, "{after}");
        let groups = gantry.json(&["permissions", "groups", &project, "--project"])?;
        ensure!(groups["groups"][0]["name"] == "office", "{groups}");
        let services = gantry.json(&["permissions", "services", id])?;
        ensure!(services["services"][0] == "http", "{services}");
        hooks(gantry, id, &write("hook.json", HOOK)?)?;
        for args in [
            &["--yes", "permissions", "delete-group", id, "team"][..],
            &["permissions", "forget", &project, "office", "http", "--project"],
            &["--yes", "permissions", "delete", &project, "--project"],
            &["--yes", "permissions", "delete", id],
        ] {
            expect(&gantry.cli(args)?, 0, "").map_err(|error| error.context(args.join(" ")))?;
        }
        names(gantry, id, &zone)
    });
}

const HOOK: &str = r#"{"match": {"method": "POST"}, "script": {"path": "/check"}}"#;

/// Sets hooks in every way that there is.
fn hooks(gantry: &Gantry, id: &str, file: &str) -> Result<()> {
    let first = gantry.json(&["hooks", "create", id, "http", file])?;
    let first = first["hook"]["id"].as_str().unwrap_or_default().to_owned();
    let second = gantry.json(&["hooks", "create", id, "http", file, "--position", "0"])?;
    let second = second["hook"]["id"].as_str().unwrap_or_default().to_owned();
    let listed = || gantry.json(&["hooks", "list", id, "--service", "http"]);
    ensure!(listed()?["hooks"][0]["id"] == second.as_str(), "{}", listed()?);
    expect(&gantry.cli(&["hooks", "move", id, "http", &first, "0"])?, 0, "")?;
    ensure!(listed()?["hooks"][0]["id"] == first.as_str(), "{}", listed()?);
    expect(&gantry.cli(&["hooks", "update", id, "http", &first, file])?, 0, "")?;
    let table = gantry.cli(&["hooks", "list", id])?;
    let table = String::from_utf8_lossy(&table.stdout).into_owned();
    ensure!(table.contains(&first) && table.contains("/check"), "{table}");
    let stale = ["--yes", "hooks", "delete", id, "http", &first, "--if-match", "file:v0"];
    expect(&gantry.cli(&stale)?, 5, "")?;
    expect(&gantry.cli(&["--yes", "hooks", "delete", id, "http", &first])?, 0, "Deleted")?;
    expect(&gantry.cli(&["hooks", "get", id, "http", &first])?, 4, "")?;
    expect(&gantry.cli(&["--yes", "hooks", "delete", id, "http", "--all"])?, 0, "Deleted")?;
    ensure!(listed()?["hooks"].as_array().is_some_and(Vec::is_empty), "{}", listed()?);
    Ok(())
}

/// What leads to a container can be taken back by commands.
fn names(gantry: &Gantry, id: &str, zone: &Zone) -> Result<()> {
    let new = ["proxy", "create", "--container-id", id, "--program", "http", "--port", "3000"];
    let rest = ["--target-path", "/a", "--expires-at", "2040-01-01T00:00:00Z"];
    let alias = gantry.json(&[&new[..], &rest, &["--no-allow-path-override"]].concat())?;
    ensure!(alias["target_path"] == "/a" && alias["allow_path_override"] == false, "{alias}");
    let alias_id = alias["id"].as_str().unwrap_or_default();
    let change = ["--target-path", "null", "--expires-at", "null", "--allow-path-override"];
    let alias = gantry.json(&[&["proxy", "update", alias_id][..], &change].concat())?;
    ensure!(alias["target_path"].is_null() && alias["expires_at"].is_null(), "{alias}");
    ensure!(alias["allow_path_override"] == true, "{alias}");
    let expired = gantry.json(&["proxy", "list", "--container-id", id, "--expired", "true"])?;
    ensure!(expired["count"] == 0, "{expired}");
    let bind = ["hostnames", "bind", id, "api.gantry.localhost", "--alias-id", alias_id];
    expect(&gantry.cli(&bind)?, 6, "hostname")?;
    let listed = || gantry.json(&["hostnames", "list", id]);
    ensure!(listed()?["count"] == 0, "{}", listed()?);
    let delete = ["--yes", "hostnames", "delete", id, "www.example.com"];
    expect(&gantry.cli(&delete)?, 4, "")?;
    // Whose name it is says the domain name system alone.
    let bind = ["hostnames", "bind", id, "www.example.com", "--alias-id", alias_id];
    let alias_host = format!("{}.local.containers.gantry.localhost", text(&alias["alias"]));
    expect(&gantry.cli(&bind)?, 6, &alias_host)?;
    zone.www_leads_to("elsewhere.example.com");
    expect(&gantry.cli(&bind)?, 6, &alias_host)?;
    zone.www_leads_to(&alias_host);
    expect(&gantry.cli(&bind)?, 0, "")?;
    let bound = listed()?;
    ensure!(bound["count"] == 1 && bound.to_string().contains("www.example.com"), "{bound}");
    let state = gantry.state().display().to_string();
    let explain = ["explain", "https://www.example.com:8443/", "--state", &state];
    let set = ["--set", "edge.https=127.0.0.1:8443"];
    let found = gantry.json(&[&explain[..], &set].concat())?["steps"].to_string();
    ensure!(found.contains("http port 3000") && found.contains(id), "{found}");
    expect(&gantry.cli(&delete)?, 0, "")?;
    ensure!(listed()?["count"] == 0, "{}", listed()?);
    Ok(())
}

fn text(value: &serde_json::Value) -> &str {
    value.as_str().unwrap_or_default()
}
