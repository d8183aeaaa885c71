//! What makes an image: packages, files and commands, for each release and kit.
//!
//! Every image boots systemd as its init, and quickly: what manages hardware, networks, logins on
//! consoles or the host's clock is switched off, because the runtime or the host does it.

use gantry_model::{Service, container::ImageName};

use crate::catalogue::{Entry, WELCOME_PORT, catalogue, entry};

/// Which services an image carries beside the operating system.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Kit {
    /// The operating system alone.
    None,
    /// The Kit services.
    Base,
    /// The Kit services and the developer's ones; those are not provided yet, so the same as
    /// [`Kit::Base`].
    Dev,
}

/// How an image is made. Plain data for a builder.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Recipe {
    /// The name that containers ask for.
    pub image: ImageName,
    /// The kit that they ask for.
    pub kit: Kit,
    /// The release of Debian, as its archive names it (`trixie`).
    pub suite: &'static str,
    /// Packages to install beside the essential ones, `name` or `name/release`.
    pub packages: Vec<String>,
    /// Files to write after that, owned by root.
    pub files: Vec<File>,
    /// Shell commands to run in the image after that, in order, as root.
    pub commands: Vec<String>,
}

/// A file in an image.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct File {
    /// Absolute path in the image.
    pub path: &'static str,
    /// Permission bits, as 0o644.
    pub mode: u32,
    /// What it holds.
    pub contents: Vec<u8>,
}

/// The releases that images are made for.
const RELEASES: [(&str, &str); 2] = [("debian/13", "trixie"), ("debian/12", "bookworm")];

/// Every kit, in the order in which a list shows them.
const KITS: [Kit; 3] = [Kit::None, Kit::Base, Kit::Dev];

/// How the image of this name and kit is made; `None` when there is no such image.
pub fn recipe(image: &ImageName, kit: Kit) -> Option<Recipe> {
    let (_, suite) = RELEASES.into_iter().find(|(name, _)| *name == image.as_str())?;
    let mut packages = owned(PACKAGES_BASE);
    let mut files = files(FILES_BASE);
    let mut commands = vec![mask_command(suite)];
    match kit {
        Kit::None => {}
        Kit::Base | Kit::Dev => {
            packages.extend(owned(PACKAGES_KIT));
            let provided = catalogue().iter().filter(|entry| entry.provided);
            packages
                .extend(provided.flat_map(|entry| entry.packages).map(|name| package(name, suite)));
            files.extend(self::files(FILES_KIT));
            commands.extend(owned(COMMANDS_KIT));
        }
    }
    Some(Recipe { image: image.clone(), kit, suite, packages, files, commands })
}

/// Every recipe there is.
pub fn recipes() -> Vec<Recipe> {
    let images = RELEASES.iter().filter_map(|(name, _)| ImageName::parse("image", name).ok());
    images.flat_map(|image| KITS.into_iter().filter_map(move |kit| recipe(&image, kit))).collect()
}

/// A package of this release, taken from the next one where this one's is unusable: in Debian 12 the
/// file that `libjs-xterm` is for has nothing in it.
fn package(name: &str, suite: &str) -> String {
    match (name, suite) {
        ("libjs-xterm", "bookworm") => "libjs-xterm/trixie".to_owned(),
        _ => name.to_owned(),
    }
}

fn owned(texts: &[&str]) -> Vec<String> {
    texts.iter().map(|&text| text.to_owned()).collect()
}

/// In every image.
const PACKAGES_BASE: &[&str] = &[
    "systemd",
    "systemd-sysv",
    "dbus",
    "ca-certificates",
    "curl",
    "iproute2",
    "iputils-ping",
    "less",
    "libcap2-bin",
    "libnss-myhostname",
    "nano-tiny",
    "netbase",
    "procps",
];

/// With the Kit, beside what its services need.
const PACKAGES_KIT: &[&str] = &["bash-completion", "sudo"];

/// Units that have nothing to do in a container. What a path or timer would start goes with it.
const MASKED: &[&str] = &[
    "apt-daily-upgrade.timer",
    "apt-daily.timer",
    "console-getty.service",
    "container-getty@.service",
    "dev-hugepages.mount",
    "dev-mqueue.mount",
    "dpkg-db-backup.timer",
    "e2scrub_all.timer",
    "e2scrub_reap.service",
    "fstrim.timer",
    "getty@.service",
    "getty.target",
    "kmod-static-nodes.service",
    "ldconfig.service",
    "modprobe@.service",
    "proc-sys-fs-binfmt_misc.automount",
    "sys-fs-fuse-connections.mount",
    "sys-kernel-config.mount",
    "sys-kernel-debug.mount",
    "sys-kernel-tracing.mount",
    "systemd-ask-password-console.path",
    "systemd-ask-password-wall.path",
    "systemd-binfmt.service",
    "systemd-boot-system-token.service",
    "systemd-boot-update.service",
    "systemd-firstboot.service",
    "systemd-hwdb-update.service",
    "systemd-journal-catalog-update.service",
    "systemd-journal-flush.service",
    "systemd-machine-id-commit.service",
    "systemd-modules-load.service",
    "systemd-network-generator.service",
    "systemd-networkd-wait-online.service",
    "systemd-networkd.service",
    "systemd-networkd.socket",
    "systemd-pcrphase-sysinit.service",
    "systemd-pcrphase.service",
    "systemd-pstore.service",
    "systemd-random-seed.service",
    "systemd-remount-fs.service",
    "systemd-repart.service",
    "systemd-sysctl.service",
    "systemd-sysext.service",
    "systemd-sysusers.service",
    "systemd-tmpfiles-clean.timer",
    "systemd-tmpfiles-setup-dev-early.service",
    "systemd-tmpfiles-setup-dev.service",
    "systemd-udev-trigger.service",
    "systemd-udevd.service",
    "systemd-update-done.service",
    "systemd-update-utmp-runlevel.service",
    "systemd-update-utmp.service",
];

/// Masks units, and takes the login manager out of the boot; it still starts when it is called.
fn mask_command(_suite: &str) -> String {
    let links: Vec<String> = MASKED
        .iter()
        .map(|unit| format!("ln -sf /dev/null '/etc/systemd/system/{unit}'"))
        .collect();
    format!(
        "# Switch off what has nothing to do in a container\n{}\n\
         mkdir -p /etc/systemd/system/multi-user.target.wants\n\
         ln -sf /dev/null /etc/systemd/system/multi-user.target.wants/systemd-logind.service\n\
         systemctl set-default multi-user.target\n\
         setcap cap_net_raw+ep /usr/bin/ping",
        links.join("\n")
    )
}

/// After the files of the Kit are there.
const COMMANDS_KIT: &[&str] = &[
    "# Add the user\n\
     useradd --create-home --uid 1000 --shell /bin/bash --groups sudo user\n\
     passwd --lock user >/dev/null",
    // The servers of the Kit run from units of its own; what the packages start is the owner's.
    "# Set up the services\n\
     systemctl disable lighttpd.service >/dev/null 2>&1 || :\n\
     systemctl enable gantry-welcome.socket\n\
     /usr/bin/python3 -m compileall -q /usr/lib/gantry\n\
     visudo --check --quiet",
];

type Source = (&'static str, u32, &'static str);

/// In every image.
const FILES_BASE: &[Source] = &[
    ("/etc/systemd/system.conf.d/gantry.conf", 0o644, include_str!("../image/base/system.conf")),
    (
        "/etc/systemd/journald.conf.d/gantry.conf",
        0o644,
        include_str!("../image/base/journald.conf"),
    ),
    ("/etc/hosts", 0o644, include_str!("../image/base/hosts")),
];

/// With the Kit.
const FILES_KIT: &[Source] = &[
    ("/etc/sudoers.d/gantry", 0o440, "user ALL=(ALL:ALL) NOPASSWD: ALL\n"),
    ("/etc/profile.d/gantry.sh", 0o644, include_str!("../image/base/profile.sh")),
    ("/usr/lib/gantry/start", 0o755, include_str!("../image/base/start.sh")),
    ("/usr/lib/gantry/environment.bash", 0o644, include_str!("../image/base/environment.bash")),
    ("/etc/gantry/mime.conf", 0o644, include_str!("../image/files/mime.conf")),
    // The terminal.
    ("/etc/gantry/tmux.conf", 0o644, include_str!("../image/terminal/tmux.conf")),
    ("/usr/lib/gantry/session", 0o755, include_str!("../image/terminal/session.sh")),
    ("/usr/lib/gantry/shell", 0o755, include_str!("../image/terminal/shell.bash")),
    ("/usr/lib/gantry/terminal", 0o755, include_str!("../image/terminal/terminal.sh")),
    ("/usr/lib/gantry/command", 0o755, include_str!("../image/terminal/command.bash")),
    ("/usr/lib/gantry/terminal_server.py", 0o644, include_str!("../image/terminal/server.py")),
    ("/usr/lib/gantry/terminal_commands.py", 0o644, include_str!("../image/terminal/commands.py")),
    ("/usr/share/gantry/terminal/index.html", 0o644, include_str!("../image/terminal/index.html")),
    (
        "/usr/share/gantry/terminal/terminal.css",
        0o644,
        include_str!("../image/terminal/terminal.css"),
    ),
    (
        "/usr/share/gantry/terminal/terminal.js",
        0o644,
        include_str!("../image/terminal/terminal.js"),
    ),
    (
        "/usr/lib/systemd/system/gantry-terminal@.service",
        0o644,
        include_str!("../image/terminal/gantry-terminal@.service"),
    ),
    (
        "/usr/lib/systemd/system/gantry-sessions.service",
        0o644,
        include_str!("../image/terminal/gantry-sessions.service"),
    ),
    // Files.
    ("/etc/gantry/files.conf", 0o644, include_str!("../image/files/lighttpd.conf")),
    ("/usr/share/gantry/files/files.css", 0o644, include_str!("../image/files/files.css")),
    ("/usr/share/gantry/files/files.js", 0o644, include_str!("../image/files/files.js")),
    ("/usr/share/gantry/files/health.json", 0o644, include_str!("../image/files/health.json")),
    (
        "/usr/lib/systemd/system/gantry-files.socket",
        0o644,
        include_str!("../image/files/gantry-files.socket"),
    ),
    (
        "/usr/lib/systemd/system/gantry-files.service",
        0o644,
        include_str!("../image/files/gantry-files.service"),
    ),
    // The welcome page.
    ("/etc/gantry/welcome.conf", 0o644, include_str!("../image/welcome/lighttpd.conf")),
    ("/usr/share/gantry/welcome/index.html", 0o644, include_str!("../image/welcome/index.html")),
    ("/usr/share/gantry/welcome/welcome.css", 0o644, include_str!("../image/welcome/welcome.css")),
    ("/usr/share/gantry/welcome/welcome.js", 0o644, include_str!("../image/welcome/welcome.js")),
    (
        "/usr/lib/systemd/system/gantry-welcome.socket",
        0o644,
        include_str!("../image/welcome/gantry-welcome.socket"),
    ),
    (
        "/usr/lib/systemd/system/gantry-welcome.service",
        0o644,
        include_str!("../image/welcome/gantry-welcome.service"),
    ),
];

/// The files with their ports filled in.
fn files(sources: &[Source]) -> Vec<File> {
    let port = |service: Service, index| -> String {
        let entry: &Entry = entry(service);
        entry.port(index).to_string()
    };
    let ports = [
        ("@WELCOME_PORT@", WELCOME_PORT.to_string()),
        ("@FILES_PORT@", port(Service::Files, 1)),
        ("@TERMINAL_PORT@", port(Service::Terminal, 0)),
    ];
    let filled = |text: &str| {
        ports.iter().fold(text.to_owned(), |text, (mark, port)| text.replace(mark, port))
    };
    sources
        .iter()
        .map(|&(path, mode, text)| File { path, mode, contents: filled(text).into_bytes() })
        .collect()
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    fn image(name: &str) -> ImageName {
        ImageName::parse("image", name).unwrap()
    }

    #[test]
    fn the_default_image_has_every_kit_and_an_unknown_one_none() {
        for kit in KITS {
            let recipe = recipe(&image(ImageName::DEFAULT), kit).unwrap();
            assert_eq!(recipe.suite, "trixie");
        }
        assert_eq!(recipe(&image("alpine/3.19"), Kit::Base), None);
        assert_eq!(recipes().len(), RELEASES.len() * KITS.len());
    }

    #[test]
    fn every_provided_service_is_installed_and_has_its_unit_in_the_kit_alone() {
        for name in ["debian/13", "debian/12"] {
            let kit = recipe(&image(name), Kit::Base).unwrap();
            let plain = recipe(&image(name), Kit::None).unwrap();
            let has = |recipe: &Recipe, unit: &str| {
                let path = format!("/usr/lib/systemd/system/{unit}");
                recipe.files.iter().any(|file| file.path == path)
            };
            for entry in catalogue().iter().filter(|entry| entry.provided) {
                let unit = entry.unit.unwrap();
                assert!(has(&kit, unit) && !has(&plain, unit), "unit {unit}");
                for package in entry.packages {
                    let installs = |recipe: &Recipe| {
                        recipe.packages.iter().any(|name| name.split('/').next() == Some(package))
                    };
                    assert!(installs(&kit) && !installs(&plain), "package {package}");
                }
            }
        }
    }

    #[test]
    fn a_recipe_names_nothing_twice_and_leaves_no_mark_unfilled() {
        for recipe in recipes() {
            let paths: BTreeSet<&str> = recipe.files.iter().map(|file| file.path).collect();
            assert_eq!(paths.len(), recipe.files.len());
            let packages: BTreeSet<&String> = recipe.packages.iter().collect();
            assert_eq!(packages.len(), recipe.packages.len());
            for file in &recipe.files {
                let text = std::str::from_utf8(&file.contents).unwrap();
                assert!(!text.contains("_PORT@"), "{}", file.path);
                assert!(file.path.starts_with('/') && text.ends_with('\n'), "{}", file.path);
                let program = file.path.starts_with("/usr/lib/gantry/") && !file.path.contains('.');
                assert_eq!(program, file.mode == 0o755, "{}", file.path);
                assert_eq!(program, text.starts_with("#!"), "{}", file.path);
            }
        }
    }
}
