//! The repository itself, for tests that look at it.

use std::{
    path::{Path, PathBuf},
    process::Command,
};

use anyhow::{Context, Result, ensure};

/// The root of the work tree.
pub fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap_or_else(|| Path::new("."))
}

/// Every file that belongs to the repository: tracked, or new and not ignored. Without git (a
/// source archive), whatever is there but build products.
pub fn files() -> Result<Vec<PathBuf>> {
    let output = Command::new("git")
        .args(["ls-files", "-z", "--cached", "--others", "--exclude-standard"])
        .current_dir(root())
        .output();
    let mut files: Vec<PathBuf> = match output {
        Ok(output) if output.status.success() => output
            .stdout
            .split(|octet| *octet == 0)
            .filter(|name| !name.is_empty())
            .map(|name| root().join(String::from_utf8_lossy(name).as_ref()))
            .filter(|path| path.is_file())
            .collect(),
        Ok(_) | Err(_) => {
            let mut found = Vec::new();
            walk(root(), &mut found)?;
            found
        }
    };
    files.sort();
    ensure!(!files.is_empty(), "no files below {}", root().display());
    Ok(files)
}

fn walk(directory: &Path, found: &mut Vec<PathBuf>) -> Result<()> {
    let entries = directory.read_dir().with_context(|| directory.display().to_string())?;
    for entry in entries {
        let entry = entry?;
        let name = entry.file_name();
        if matches!(name.to_str(), Some("target" | ".git" | "node_modules")) {
            continue;
        }
        let path = entry.path();
        if entry.file_type()?.is_dir() { walk(&path, found)? } else { found.push(path) }
    }
    Ok(())
}
