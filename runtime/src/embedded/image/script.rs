//! What a recipe does to a file system, as files that the programs which apply it read.

use std::{
    fs::{self, File},
    io,
    os::unix::fs::OpenOptionsExt as _,
    path::{Path, PathBuf},
};

use tar::{EntryType, Header};

use super::source::{Archive, Part};
use crate::embedded::Recipe;

/// What the script prints before each command, for the progress.
pub(super) const COMMAND_MARK: &str = "gantry: command ";

/// The options of dpkg while an image is built: no pages that nobody reads in a container, and no
/// waiting for the disk, because a build that is cut short is thrown away.
pub(super) const DPKG_OPTIONS: [&str; 6] = [
    "force-unsafe-io",
    "path-exclude=/usr/share/man/*",
    "path-exclude=/usr/share/locale/*",
    "path-exclude=/usr/share/doc/*",
    "path-include=/usr/share/doc/*/copyright",
    "path-exclude=/usr/share/info/*",
];

/// The options of apt while an image is built.
pub(super) const APT_OPTIONS: [&str; 3] = [
    r#"Apt::Install-Recommends "false""#,
    r#"Acquire::Languages "none""#,
    r#"Acquire::Retries "3""#,
];

/// Where the image's apt reads what it may take from other releases, while it is built.
const PINS: &str = "etc/apt/preferences.d/gantry-build";

/// A recipe written out into a directory.
#[derive(Debug)]
pub(super) struct Script {
    /// A program that takes the file system's root as its argument and does what comes after the
    /// packages: files, apt sources, commands, cleaning.
    pub(super) program: PathBuf,
    /// A program that takes the root as well and prepares apt for packages from other releases.
    pub(super) pinning: PathBuf,
}

/// Writes a recipe out. `archives` become the image's own apt sources.
pub(super) fn write(dir: &Path, recipe: &Recipe, archives: &[Archive]) -> io::Result<Script> {
    let files = dir.join("files.tar");
    write_files(&files, recipe, archives)?;
    let program = dir.join("apply");
    write_program(&program, &apply_text(&files, recipe))?;
    let pinning = dir.join("pin");
    write_program(&pinning, &pinning_text(recipe))?;
    Ok(Script { program, pinning })
}

/// The releases beside its own that a recipe takes packages from, written `package/release`.
pub(super) fn other_releases(recipe: &Recipe) -> Vec<&str> {
    let mut releases: Vec<&str> = recipe
        .packages
        .iter()
        .filter_map(|package| package.split_once('/'))
        .map(|(_, release)| release)
        .filter(|release| *release != recipe.suite)
        .collect();
    releases.sort_unstable();
    releases.dedup();
    releases
}

fn write_program(path: &Path, text: &str) -> io::Result<()> {
    let mut options = fs::OpenOptions::new();
    let file = options.write(true).create_new(true).mode(0o755).open(path)?;
    io::Write::write_all(&mut &file, text.as_bytes())
}

fn pinning_text(recipe: &Recipe) -> String {
    let mut lines = vec![
        "#!/bin/sh".to_owned(),
        "set -eu".to_owned(),
        "mkdir -p \"$1/etc/apt/preferences.d\"".to_owned(),
    ];
    // Less than what is installed: taken only where a package is asked for by its release.
    lines.extend(other_releases(recipe).into_iter().map(|release| {
        let pin = format!("Package: *\\nPin: release n={release}\\nPin-Priority: 50\\n\\n");
        format!("printf '{pin}' >> \"$1/{PINS}\"")
    }));
    lines.join("\n") + "\n"
}

fn apply_text(files: &Path, recipe: &Recipe) -> String {
    let files = quoted(&files.to_string_lossy());
    let mut lines = vec![
        "#!/bin/sh".to_owned(),
        "set -eu".to_owned(),
        "root=$1".to_owned(),
        "export LC_ALL=C.UTF-8 HOME=/root DEBIAN_FRONTEND=noninteractive".to_owned(),
        "rm -f \"$root/etc/apt/sources.list\" \"$root/etc/apt/sources.list.d\"/*".to_owned(),
        format!("rm -f \"$root/{PINS}\""),
        format!(
            // Missing directories are made by the umask, and the files are as old as the image.
            "umask 022; tar -C \"$root\" --keep-directory-symlink --numeric-owner -xpmf {files}"
        ),
    ];
    for command in &recipe.commands {
        let title = command.lines().next().unwrap_or_default();
        lines.push(format!("printf '%s%s\\n' {} {} >&2", quoted(COMMAND_MARK), quoted(title)));
        lines.push(format!("chroot \"$root\" /bin/sh -euc {} >&2 </dev/null", quoted(command)));
    }
    lines.join("\n") + CLEANING
}

/// Removes what belongs to one machine, and what apt can fetch again. Not `/tmp`: `mmdebstrap` keeps
/// the configuration there that ties its apt to the image, and empties it itself in the end.
const CLEANING: &str = r#"
rm -f "$root/etc/apt/apt.conf.d/99mmdebstrap" "$root/etc/dpkg/dpkg.cfg.d/99mmdebstrap"
rm -rf "$root/var/lib/apt/lists"/* "$root/var/cache/apt"/*.bin "$root/var/cache/ldconfig"
rm -f "$root/var/cache/apt/archives"/*.deb "$root/var/log/apt"/* "$root/var/log"/*.log
rm -f "$root/var/cache/debconf"/*-old "$root/var/lib/dpkg"/*-old
rm -f "$root/etc/ssh"/ssh_host_* "$root/var/lib/systemd/random-seed"
rm -f "$root/var/lib/dbus/machine-id"
if [ -e "$root/etc/machine-id" ]; then : > "$root/etc/machine-id"; fi
rm -f "$root/etc/hostname" "$root/etc/resolv.conf"
: > "$root/etc/resolv.conf"
"#;

/// The text as one word of a shell.
pub(super) fn quoted(text: &str) -> String {
    format!("'{}'", text.replace('\'', r"'\''"))
}

fn write_files(path: &Path, recipe: &Recipe, archives: &[Archive]) -> io::Result<()> {
    let sources = sources_text(archives, &recipe.suite);
    let sources = [("/etc/apt/sources.list.d/debian.sources", 0o644, sources.as_bytes())];
    let own = recipe.files.iter().map(|file| (file.path.as_str(), file.mode, &*file.contents));
    let mut builder = tar::Builder::new(File::create_new(path)?);
    for (path, mode, contents) in sources.into_iter().chain(own) {
        let mut header = header(EntryType::Regular, mode, contents.len() as u64);
        builder.append_data(&mut header, path.trim_start_matches('/'), contents)?;
    }
    builder.into_inner()?.sync_data()
}

fn header(kind: EntryType, mode: u32, size: u64) -> Header {
    let mut header = Header::new_gnu();
    header.set_entry_type(kind);
    header.set_mode(mode);
    header.set_size(size);
    header.set_uid(0);
    header.set_gid(0);
    header.set_mtime(0);
    header
}

/// The apt sources of an image: the host's archive, without what the host logs in with.
fn sources_text(archives: &[Archive], suite: &str) -> String {
    let paragraphs: Vec<String> = archives
        .iter()
        .map(|archive| {
            format!(
                "Types: deb\nURIs: {}\nSuites: {}\nComponents: main\nSigned-By: {KEYRING}\n",
                without_login(&archive.uri),
                archive.part.suite(suite),
            )
        })
        .collect();
    paragraphs.join("\n")
}

/// The sources: every part of the recipe's release, and the release itself of those that single
/// packages come from.
pub(super) fn source_lines(recipe: &Recipe, archives: &[Archive]) -> Vec<String> {
    let line = |archive: &Archive, codename: &str| {
        format!("deb {} {} main", archive.uri, archive.part.suite(codename))
    };
    let own = archives.iter().map(|archive| line(archive, &recipe.suite));
    let others = other_releases(recipe).into_iter().flat_map(|release| {
        let whole = archives.iter().filter(|archive| archive.part == Part::Release);
        whole.map(move |archive| line(archive, release))
    });
    own.chain(others).collect()
}

/// Where Debian's keys are, on the host and in the image.
pub(super) const KEYRING: &str = "/usr/share/keyrings/debian-archive-keyring.gpg";

fn without_login(uri: &str) -> String {
    let Some((scheme, rest)) = uri.split_once("://") else { return uri.to_owned() };
    let (authority, path) = rest.split_once('/').unwrap_or((rest, ""));
    let host = authority.rsplit('@').next().unwrap_or(authority);
    format!("{scheme}://{host}/{path}")
}

#[cfg(test)]
mod tests {
    use gantry_model::container::ImageName;

    use super::*;
    use crate::Kit;

    #[test]
    fn packages_of_another_release_bring_its_archive_but_not_its_updates() {
        let recipe = Recipe {
            image: ImageName::parse("image", "debian/12").unwrap(),
            kit: Kit::Base,
            suite: "bookworm".to_owned(),
            packages: vec!["tmux".to_owned(), "libjs-xterm/trixie".to_owned()],
            files: Vec::new(),
            commands: Vec::new(),
        };
        let archives = [
            Archive { uri: "http://m.test/debian/".to_owned(), part: Part::Release },
            Archive { uri: "http://m.test/security/".to_owned(), part: Part::Security },
        ];
        assert_eq!(
            source_lines(&recipe, &archives),
            [
                "deb http://m.test/debian/ bookworm main",
                "deb http://m.test/security/ bookworm-security main",
                "deb http://m.test/debian/ trixie main",
            ]
        );
    }
}
