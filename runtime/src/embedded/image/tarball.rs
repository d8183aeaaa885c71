//! Reads the operator's tarballs, and adds a recipe to those that are Debian's.

use std::{
    fs::File,
    io::{self, Read},
    path::{Path, PathBuf},
};

use lzma_rust2::XzReader;
use tar::Archive as Tar;

use super::{
    script::{APT_OPTIONS, DPKG_OPTIONS, Script, quoted, source_lines},
    source::{Archive, Packing},
};
use crate::embedded::Recipe;

/// The most that a compressed tarball may become, in bytes.
const UNPACKED_BYTES_MAX: u64 = 64 << 30;

/// What unpacking of xz may take of memory, in KiB; its strongest preset takes 65 MiB.
const XZ_KIB_MAX: u32 = 128 << 10;

/// How long the file that names a release may be, in bytes.
const OS_RELEASE_BYTES_MAX: u64 = 1 << 16;

/// What a file system says about itself.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Release {
    /// The distribution, as `debian`.
    pub(super) id: String,
    /// The release, as `trixie`; empty where there is none.
    pub(super) codename: String,
}

/// The tar stream of a tarball.
pub(super) fn open(path: &Path, packing: Packing) -> io::Result<Box<dyn Read + Send>> {
    let file = io::BufReader::new(File::open(path)?);
    Ok(match packing {
        Packing::Plain => Box::new(file),
        Packing::Gzip => {
            Box::new(flate2::bufread::MultiGzDecoder::new(file).take(UNPACKED_BYTES_MAX))
        }
        // Several streams, one after the other, as programs with threads write them.
        Packing::Xz => {
            Box::new(XzReader::new_mem_limit(file, true, XZ_KIB_MAX).take(UNPACKED_BYTES_MAX))
        }
        Packing::Zstd => Box::new(zstd::Decoder::with_buffer(file)?.take(UNPACKED_BYTES_MAX)),
    })
}

/// What the tarball holds; `None` when it does not say. Reads all of it.
pub(super) fn release_of(path: &Path, packing: Packing) -> io::Result<Option<Release>> {
    let mut tar = Tar::new(open(path, packing)?);
    let mut text = None;
    for entry in tar.entries()? {
        let mut entry = entry?;
        let path = entry.path()?;
        let path: PathBuf = path.components().filter(|part| part.as_os_str() != ".").collect();
        let path = path.strip_prefix("/").unwrap_or(&path).to_owned();
        // `etc/os-release` is most often a link to the other.
        let names = ["etc/os-release", "usr/lib/os-release"];
        if names.iter().any(|name| path == Path::new(name)) && entry.header().entry_type().is_file()
        {
            let mut found = String::new();
            entry.by_ref().take(OS_RELEASE_BYTES_MAX).read_to_string(&mut found)?;
            text = Some(found);
        }
    }
    Ok(text.map(|text| parse_release(&text)))
}

fn parse_release(text: &str) -> Release {
    let value = |key: &str| {
        let line = text.lines().find_map(|line| line.strip_prefix(key)?.strip_prefix('='));
        line.unwrap_or_default().trim().trim_matches(['"', '\'']).to_owned()
    };
    Release { id: value("ID"), codename: value("VERSION_CODENAME") }
}

/// The program that adds a recipe to the file system in `$1` and writes it to its standard output:
/// packages with the image's own apt, then what [`Script`] does.
pub(super) fn install_text(
    recipe: &Recipe,
    archives: &[Archive],
    script: &Script,
    options: &[String],
) -> String {
    let append =
        |text: &str, file: &str| format!("printf '%s\\n' {} >> \"$root/{file}\"", quoted(text));
    let mut lines = vec![PREPARE.to_owned()];
    lines.push(format!("{} \"$root\"", quoted(&script.pinning.to_string_lossy())));
    for source in source_lines(recipe, archives) {
        lines.push(append(&source, "etc/apt/gantry-build.list"));
    }
    for option in DPKG_OPTIONS {
        lines.push(append(option, "etc/dpkg/dpkg.cfg.d/99mmdebstrap"));
    }
    for option in APT_OPTIONS.iter().copied().chain(options.iter().map(String::as_str)) {
        lines.push(append(&format!("{option};"), "etc/apt/apt.conf.d/99mmdebstrap"));
    }
    lines.push("echo 'I: running apt-get update'; apt update".to_owned());
    let packages: Vec<String> = recipe.packages.iter().map(|package| quoted(package)).collect();
    if !packages.is_empty() {
        lines.push("echo 'I: installing remaining packages'".to_owned());
        lines.push(format!("apt install {}", packages.join(" ")));
    }
    lines.push(TIDY.to_owned());
    lines.push(format!("{} \"$root\"", quoted(&script.program.to_string_lossy())));
    lines.push(WRITE.to_owned());
    lines.join("\n")
}

/// Makes the root usable for packages: names are resolved as on the host, no service is started.
const PREPARE: &str = r#"#!/bin/sh
set -eu
root=$1
export LC_ALL=C.UTF-8 HOME=/root DEBIAN_FRONTEND=noninteractive
exec 3>&1 >&2
mount -t proc proc "$root/proc"
mount -t tmpfs -o mode=755 none "$root/dev"
for name in null zero full random urandom tty; do
    : > "$root/dev/$name"
    mount --bind "/dev/$name" "$root/dev/$name"
done
resolv=$root/etc/resolv.conf
[ ! -e "$resolv" ] && [ ! -h "$resolv" ] || mv "$resolv" "$resolv.gantry"
cat /etc/resolv.conf > "$resolv" || :
printf '#!/bin/sh\nexit 101\n' > "$root/usr/sbin/policy-rc.d"
chmod 755 "$root/usr/sbin/policy-rc.d"
apt() {
    chroot "$root" apt-get -y -o Dir::Etc::SourceList=/etc/apt/gantry-build.list \
        -o Dir::Etc::SourceParts=- "$@" </dev/null
}"#;

/// Takes back what [`PREPARE`] and the packages' installation left.
const TIDY: &str = r#"rm -f "$root/etc/apt/gantry-build.list" "$root/usr/sbin/policy-rc.d" "$resolv"
[ ! -e "$resolv.gantry" ] && [ ! -h "$resolv.gantry" ] || mv "$resolv.gantry" "$resolv""#;

/// Writes the root as a tar stream.
const WRITE: &str = r#"rm -rf "$root/run"/* "$root/tmp"/*
umount -R "$root/dev" "$root/proc"
echo 'I: creating tarball'
tar -C "$root" --numeric-owner --format=posix --xattrs --xattrs-include='*' -cf - . >&3
"#;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_release_is_read_with_and_without_quotes() {
        let text = "NAME=\"Debian\"\nVERSION_CODENAME=trixie\nID=debian\n";
        let want = Release { id: "debian".into(), codename: "trixie".into() };
        assert_eq!(parse_release(text), want);
        let text = "ID='alpine'\nVERSION_ID=3.19.1\n";
        let want = Release { id: "alpine".into(), codename: String::new() };
        assert_eq!(parse_release(text), want);
    }
}
