//! What the compiler does not check: who imports whom, and that the repository is tidy.

#![expect(
    clippy::indexing_slicing,
    reason = "an index into JSON gives null where there is nothing; a test may end with a panic"
)]

use std::{
    collections::{BTreeMap, BTreeSet},
    fs,
    process::Command,
};

use anyhow::{Context, Result, ensure};
use gantry_tests::repository::{files, root};

type Imports = BTreeMap<String, BTreeSet<String>>;

/// The table of `ARCHITECTURE.md`: crate → crates that it may import.
fn allowed() -> Result<Imports> {
    let text = fs::read_to_string(root().join("ARCHITECTURE.md"))?;
    let mut rows = text
        .lines()
        .skip_while(|line| !line.starts_with("| crate | may import |"))
        .skip(2)
        .take_while(|line| line.starts_with('|'))
        .peekable();
    ensure!(rows.peek().is_some(), "ARCHITECTURE.md has no table of imports");
    let names = |cell: &str| -> BTreeSet<String> {
        cell.split(',').map(|name| name.trim().trim_matches('`').to_owned()).collect()
    };
    let mut table = Imports::new();
    for row in rows {
        let cells: Vec<&str> = row.trim_matches('|').split('|').map(str::trim).collect();
        let [crates, imports] = cells[..] else { continue };
        for name in names(crates) {
            let imports =
                if imports.starts_with("nothing") { BTreeSet::new() } else { names(imports) };
            table.insert(name, imports);
        }
    }
    Ok(table)
}

/// What the manifests say, by cargo itself; tests may import more.
fn imported() -> Result<Imports> {
    let output = Command::new(env!("CARGO"))
        .args(["metadata", "--no-deps", "--format-version", "1", "--locked", "--offline"])
        .current_dir(root())
        .output()?;
    ensure!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let metadata: serde_json::Value = serde_json::from_slice(&output.stdout)?;
    let ours = |value: &serde_json::Value| {
        value["name"].as_str().and_then(|name| name.strip_prefix("gantry-")).map(str::to_owned)
    };
    let packages = metadata["packages"].as_array().context("no packages")?;
    let mut table = Imports::new();
    for package in packages {
        let name = ours(package).context("a crate that is not called gantry-…")?;
        let dependencies = package["dependencies"].as_array().context("no dependencies")?;
        let normal = dependencies.iter().filter(|dependency| dependency["kind"].is_null());
        table.insert(name, normal.filter_map(ours).collect());
    }
    Ok(table)
}

#[test]
fn crates_import_only_what_the_architecture_allows() -> Result<()> {
    let (allowed, imported) = (allowed()?, imported()?);
    for (name, imports) in &imported {
        if matches!(name.as_str(), "tests" | "benches") {
            continue;
        }
        let row = allowed.get(name).with_context(|| format!("{name} has no row in the table"))?;
        if row.iter().any(|word| word.starts_with("all")) {
            continue;
        }
        let stray: Vec<_> = imports.difference(row).collect();
        ensure!(stray.is_empty(), "{name} imports {stray:?}, which ARCHITECTURE.md does not allow");
    }
    let cli_users: Vec<_> =
        imported.iter().filter(|(_, imports)| imports.contains("cli")).collect();
    ensure!(cli_users.is_empty(), "nobody imports cli: {cli_users:?}");
    for name in allowed.keys() {
        ensure!(imported.contains_key(name), "the table speaks of {name}, which does not exist");
    }
    Ok(())
}

/// Texts of the repository with their names, relative to its root.
fn texts() -> Result<Vec<(String, String)>> {
    let mut texts = Vec::new();
    for path in files()? {
        let name = path.strip_prefix(root())?.display().to_string();
        // Files that are no text (keys, corpora) have no lines to look at.
        if let Ok(text) = fs::read_to_string(&path) {
            texts.push((name, text));
        }
    }
    Ok(texts)
}

#[test]
fn no_file_is_longer_than_six_hundred_lines() -> Result<()> {
    let mut long = Vec::new();
    for (name, text) in texts()? {
        let source = [".rs", ".sh", ".py", ".js", ".css"].iter().any(|end| name.ends_with(end))
            || name.starts_with("scripts/");
        if source && text.lines().count() > 600 {
            long.push(format!("{name}: {} lines", text.lines().count()));
        }
    }
    ensure!(long.is_empty(), "{long:#?}");
    Ok(())
}

#[test]
fn no_test_is_switched_off() -> Result<()> {
    // Spelled in two parts, so that this file does not find itself.
    let mark = concat!("#[", "ignore");
    let found: Vec<_> = texts()?
        .into_iter()
        .filter(|(name, text)| name.rsplit('.').next() == Some("rs") && text.contains(mark))
        .map(|(name, _)| name)
        .collect();
    ensure!(found.is_empty(), "{found:?}");
    Ok(())
}

#[test]
fn nothing_names_a_machine_or_a_registry() -> Result<()> {
    // A path or a host that is right on one machine only. In two parts, as above.
    let marks = [
        concat!("/work", "/"),
        concat!("/home", "/"),
        concat!("/root/.", "cargo"),
        concat!("deb.debian", ".org"),
        concat!("registry.npmjs", ".org"),
        concat!("pypi", ".org"),
        concat!("index.crates", ".io"),
    ];
    let mut found = Vec::new();
    for (name, text) in texts()? {
        for (number, line) in text.lines().enumerate() {
            let named = marks.iter().any(|mark| line.contains(mark));
            // Cargo writes the lock file itself, under the one name that everybody has.
            if named && name != "Cargo.lock" {
                found.push(format!("{name}:{}: {}", number + 1, line.trim()));
            }
        }
    }
    ensure!(found.is_empty(), "{found:#?}");
    Ok(())
}

#[test]
fn every_crate_takes_the_lints_of_the_workspace() -> Result<()> {
    let manifests = texts()?.into_iter().filter(|(name, text)| {
        name.ends_with("/Cargo.toml") && text.contains("name = \"gantry-") && !name.contains("fuzz")
    });
    for (name, text) in manifests {
        ensure!(text.contains("[lints]\nworkspace = true"), "{name}");
    }
    Ok(())
}

#[test]
fn licences_are_said_once_for_all_crates() -> Result<()> {
    for (name, text) in texts()? {
        if name.ends_with("/Cargo.toml") && text.contains("[package]") && !name.contains("fuzz") {
            ensure!(text.contains("license.workspace = true"), "{name}");
        }
    }
    Ok(())
}
