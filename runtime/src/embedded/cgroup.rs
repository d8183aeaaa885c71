//! Control groups: what they count, whether they are frozen, and who owns them.
//!
//! Three layouts exist: version 1 (a hierarchy per controller), version 2 (one hierarchy), and the
//! hybrid of version 1 with an empty version 2 beside it, which counts as version 1 here.

use std::{
    collections::BTreeMap,
    ffi::CString,
    fs, io,
    os::{fd::OwnedFd, unix::fs::chown},
    path::{Path, PathBuf},
};

use gantry_model::ContainerId;
use rustix::fs::{AtFlags, CWD, Dir, FileType, Mode, OFlags, openat, unlinkat};

use super::image::Mapping;
use crate::{Error, Result, Stats};

/// The most groups that an init may have in each other and below its own, where the kernel can be
/// told (version 2).
const LIMITS: [(&str, &str); 2] = [("cgroup.max.depth", "32"), ("cgroup.max.descendants", "4096")];

/// How many steps, down and up, one removal of groups takes at most.
const STEPS_MAX: usize = 1 << 18;

/// The hierarchies of this host, and our group in them.
#[derive(Clone, Debug)]
pub(super) struct Cgroups {
    hierarchies: Hierarchies,
    parent: String,
}

#[derive(Clone, Debug, PartialEq, Eq)]
struct Hierarchies {
    /// Version 1: the mount point of each controller, `name=systemd` among them.
    controllers: BTreeMap<String, PathBuf>,
    /// Version 2.
    unified: Option<PathBuf>,
}

impl Cgroups {
    /// Finds the hierarchies; containers go into the group `parent` at their tops.
    pub(super) fn open(parent: &str) -> Result<Self> {
        let failed = |error| Error::failed("looking for control groups", error);
        let mounts = fs::read_to_string("/proc/self/mountinfo").map_err(failed)?;
        let hierarchies = Hierarchies::parse(&mounts);
        if hierarchies.controllers.is_empty() && hierarchies.unified.is_none() {
            return Err(Error::Denied { missing: vec!["control groups".to_owned()] });
        }
        Ok(Self { hierarchies, parent: parent.to_owned() })
    }

    /// The container's group, from the top of each hierarchy.
    pub(super) fn path(&self, id: ContainerId) -> String {
        format!("/{}/{id}", self.parent)
    }

    /// Gives an init the groups that it may divide further: those that carry no limits (version 1),
    /// or the subtree whose limits lie in files that stay root's (version 2). Before it starts.
    pub(super) fn delegate(&self, id: ContainerId, mapping: Mapping) -> Result<()> {
        let failed = |error| Error::failed("handing over the control groups", error);
        if let Some(top) = &self.hierarchies.unified {
            let group = self.group(top, id);
            for (file, most) in LIMITS {
                present(fs::write(group.join(file), most)).map_err(failed)?;
            }
        }
        let named = self.hierarchies.controllers.get("name=systemd");
        for top in named.into_iter().chain(&self.hierarchies.unified) {
            let group = self.group(top, id);
            for entry in ["", "cgroup.procs", "cgroup.threads", "cgroup.subtree_control", "tasks"] {
                let owner = Some(mapping.base);
                present(chown(group.join(entry), owner, owner)).map_err(failed)?;
            }
        }
        Ok(())
    }

    /// Whether the container is frozen.
    pub(super) fn is_frozen(&self, id: ContainerId) -> bool {
        let read = |path: PathBuf| fs::read_to_string(path).unwrap_or_default();
        match (self.hierarchies.controllers.get("freezer"), &self.hierarchies.unified) {
            (Some(top), _) => {
                matches!(
                    read(self.group(top, id).join("freezer.state")).trim(),
                    "FROZEN" | "FREEZING"
                )
            }
            (None, Some(top)) => read(self.group(top, id).join("cgroup.freeze")).trim() == "1",
            (None, None) => false,
        }
    }

    /// Removes groups that the OCI runtime has left (an init makes groups of its own below). Blocks.
    pub(super) fn remove(&self, id: ContainerId) {
        for top in self.tops() {
            remove_tree(&self.group(top, id));
        }
    }

    /// Removes our own group, when no container is in it. Blocks.
    pub(super) fn remove_parent(&self) {
        for top in self.tops() {
            remove_tree(&top.join(&self.parent));
        }
    }

    /// What the container has used. Memory without the page cache that is not in use.
    pub(super) fn stats(&self, id: ContainerId) -> Stats {
        let unified = self.hierarchies.unified.as_deref();
        let v1 = |controller: &str, file: &str| {
            self.hierarchies.controllers.get(controller).map(|top| self.group(top, id).join(file))
        };
        let pick = |controller: &str, old: &str, new: &str| {
            v1(controller, old).or_else(|| Some(self.group(unified?, id).join(new)))
        };
        let cpu_ns = match v1("cpuacct", "cpuacct.usage") {
            Some(path) => number(&path),
            None => unified.map_or(0, |top| {
                field(&self.group(top, id).join("cpu.stat"), "usage_usec").saturating_mul(1000)
            }),
        };
        let read = |path: Option<PathBuf>| path.map_or(0, |path| number(&path));
        let idle = match v1("memory", "memory.stat") {
            Some(path) => field(&path, "total_inactive_file"),
            None => unified
                .map_or(0, |top| field(&self.group(top, id).join("memory.stat"), "inactive_file")),
        };
        Stats {
            cpu_ns,
            memory_bytes: read(pick("memory", "memory.usage_in_bytes", "memory.current"))
                .saturating_sub(idle),
            memory_peak_bytes: read(pick("memory", "memory.max_usage_in_bytes", "memory.peak")),
            pids: read(pick("pids", "pids.current", "pids.current")),
            ..Stats::default()
        }
    }

    fn group(&self, top: &Path, id: ContainerId) -> PathBuf {
        top.join(&self.parent).join(id.to_string())
    }

    fn tops(&self) -> impl Iterator<Item = &Path> {
        let controllers = self.hierarchies.controllers.values();
        controllers.chain(&self.hierarchies.unified).map(PathBuf::as_path)
    }
}

impl Hierarchies {
    /// Reads `/proc/self/mountinfo`. Of several mounts of one hierarchy the first counts.
    fn parse(mounts: &str) -> Self {
        let mut found = Self { controllers: BTreeMap::new(), unified: None };
        for line in mounts.lines() {
            let Some((left, right)) = line.split_once(" - ") else { continue };
            let left: Vec<&str> = left.split(' ').collect();
            let right: Vec<&str> = right.split(' ').collect();
            let (Some(&root), Some(&point), Some(&kind)) =
                (left.get(3), left.get(4), right.first())
            else {
                continue;
            };
            if root != "/" {
                continue;
            }
            match kind {
                "cgroup2" => {
                    found.unified.get_or_insert_with(|| point.into());
                }
                "cgroup" => {
                    for option in right.get(2).into_iter().flat_map(|options| options.split(',')) {
                        if !matches!(option, "rw" | "ro" | "xattr" | "noprefix" | "clone_children")
                        {
                            let point = PathBuf::from(point);
                            found.controllers.entry(option.to_owned()).or_insert(point);
                        }
                    }
                }
                _ => {}
            }
        }
        found
    }
}

/// What does not exist in this layout (the empty version 2 of a hybrid) needs nothing.
fn present(result: io::Result<()>) -> io::Result<()> {
    result.or_else(
        |error| {
            if error.kind() == io::ErrorKind::NotFound { Ok(()) } else { Err(error) }
        },
    )
}

/// Removes a group and those below it. Groups hold no files that could be deleted, and one with a
/// process in it refuses, so this cannot do harm; what refuses is left for the next time.
///
/// An init chose how deep they lie in each other, so this neither recurses nor uses long paths.
fn remove_tree(top: &Path) {
    if let Err(error) = remove_below(top).and_then(|()| fs::remove_dir(top))
        && error.kind() != io::ErrorKind::NotFound
    {
        tracing::debug!(group = %top.display(), %error, "control group stays");
    }
}

fn remove_below(top: &Path) -> io::Result<()> {
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    let mut dir = openat(CWD, top, flags, Mode::empty())?;
    let mut left = groups_in(&dir)?;
    // The way down to `dir`: the name of each group, and what is left beside it.
    let mut way: Vec<(CString, Vec<CString>)> = Vec::new();
    for _ in 0..STEPS_MAX {
        if let Some(name) = left.pop() {
            dir = openat(&dir, &name, flags, Mode::empty())?;
            way.push((name, std::mem::replace(&mut left, groups_in(&dir)?)));
        } else if let Some((name, beside)) = way.pop() {
            dir = openat(&dir, "..", flags, Mode::empty())?;
            unlinkat(&dir, &name, AtFlags::REMOVEDIR)?;
            left = beside;
        } else {
            return Ok(());
        }
    }
    Err(io::Error::other("too many groups for one time"))
}

/// The names of the groups in a group.
fn groups_in(dir: &OwnedFd) -> io::Result<Vec<CString>> {
    let mut names = Vec::new();
    for entry in Dir::read_from(dir)? {
        let entry = entry?;
        let name = entry.file_name();
        if entry.file_type() == FileType::Directory && !matches!(name.to_bytes(), b"." | b"..") {
            names.push(name.to_owned());
        }
    }
    Ok(names)
}

/// The number in a file; 0 when there is none.
fn number(path: &Path) -> u64 {
    fs::read_to_string(path).ok().and_then(|text| text.trim().parse().ok()).unwrap_or(0)
}

/// The number behind a name in a file of `name number` lines; 0 when there is none.
fn field(path: &Path, name: &str) -> u64 {
    let text = fs::read_to_string(path).unwrap_or_default();
    text.lines()
        .filter_map(|line| line.split_once(' '))
        .find(|(key, _)| *key == name)
        .and_then(|(_, value)| value.trim().parse().ok())
        .unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use std::{collections::BTreeSet, os::unix::fs::MetadataExt as _};

    use super::*;

    #[test]
    fn each_layout_is_recognised() {
        let hybrid = "\
            30 24 0:26 / /sys/fs/cgroup rw - tmpfs tmpfs rw,mode=755\n\
            31 30 0:27 / /sys/fs/cgroup/cpu,cpuacct rw,nosuid shared:9 - cgroup cgroup rw,cpu,cpuacct\n\
            32 30 0:28 / /sys/fs/cgroup/systemd rw - cgroup cgroup rw,xattr,name=systemd\n\
            33 30 0:29 /inner /elsewhere rw - cgroup cgroup rw,memory\n\
            34 30 0:30 / /sys/fs/cgroup/unified rw - cgroup2 cgroup2 rw\n";
        let found = Hierarchies::parse(hybrid);
        let names: Vec<&str> = found.controllers.keys().map(String::as_str).collect();
        assert_eq!(names, ["cpu", "cpuacct", "name=systemd"], "not what is mounted in part");
        assert_eq!(found.controllers["cpuacct"], Path::new("/sys/fs/cgroup/cpu,cpuacct"));
        assert_eq!(found.unified.as_deref(), Some(Path::new("/sys/fs/cgroup/unified")));
        let v2 = Hierarchies::parse("30 24 0:26 / /sys/fs/cgroup rw - cgroup2 cgroup2 rw\n");
        assert!(v2.controllers.is_empty());
        assert_eq!(v2.unified.as_deref(), Some(Path::new("/sys/fs/cgroup")));
    }

    const PARENT: &str = "ours";
    const OWNER: u32 = 1_000_000;
    const V1: [&str; 7] =
        ["cpu", "cpuacct", "devices", "freezer", "memory", "name=systemd", "pids"];

    /// Hierarchies that are directories, with a group of one container in each.
    struct Host {
        dir: tempfile::TempDir,
        cgroups: Cgroups,
        id: ContainerId,
    }

    impl Host {
        fn new(controllers: &[&str], unified: Option<&str>) -> Self {
            let dir = tempfile::tempdir().unwrap();
            let place = |name: &str| dir.path().join(name);
            let hierarchies = Hierarchies {
                controllers: controllers.iter().map(|c| ((*c).to_owned(), place(c))).collect(),
                unified: unified.map(place),
            };
            let cgroups = Cgroups { hierarchies, parent: PARENT.to_owned() };
            let id = ContainerId::from_bytes([7; 12]);
            let host = Self { dir, cgroups, id };
            for top in controllers.iter().chain(&unified) {
                fs::create_dir_all(host.group(top)).unwrap();
            }
            host
        }

        fn v1() -> Self {
            Self::new(&V1, None)
        }

        fn v2() -> Self {
            Self::new(&[], Some("v2"))
        }

        /// Version 1, with a version 2 beside it that has no controllers.
        fn hybrid() -> Self {
            Self::new(&V1, Some("v2"))
        }

        fn group(&self, top: &str) -> PathBuf {
            self.dir.path().join(top).join(PARENT).join(self.id.to_string())
        }

        fn write(&self, files: &[(&str, &str, &str)]) {
            for (top, file, content) in files {
                fs::write(self.group(top).join(file), content).unwrap();
            }
        }

        fn read(&self, top: &str, file: &str) -> String {
            fs::read_to_string(self.group(top).join(file)).unwrap()
        }

        /// The files and directories that belong to the mapped root, from the top of all.
        fn delegated(&self) -> BTreeSet<String> {
            let mut found = BTreeSet::new();
            let mut left = vec![self.dir.path().to_owned()];
            while let Some(path) = left.pop() {
                let meta = fs::symlink_metadata(&path).unwrap();
                if meta.uid() == OWNER || meta.gid() == OWNER {
                    assert_eq!((meta.uid(), meta.gid()), (OWNER, OWNER), "{}", path.display());
                    let below = path.strip_prefix(self.dir.path()).unwrap();
                    found.insert(below.to_str().unwrap().to_owned());
                }
                if meta.is_dir() {
                    left.extend(fs::read_dir(path).unwrap().map(|entry| entry.unwrap().path()));
                }
            }
            found
        }

        /// The same, said by group and file.
        fn names(&self, top: &str, files: &[&str]) -> BTreeSet<String> {
            let name = |file: &&str| format!("{top}/{PARENT}/{}/{file}", self.id);
            files.iter().map(|file| name(file).trim_end_matches('/').to_owned()).collect()
        }
    }

    const STATS_V1: [(&str, &str, &str); 5] = [
        ("cpuacct", "cpuacct.usage", "1234567\n"),
        ("memory", "memory.stat", "inactive_file 1\ntotal_inactive_file 3000\n"),
        ("memory", "memory.usage_in_bytes", "10000\n"),
        ("memory", "memory.max_usage_in_bytes", "20000\n"),
        ("pids", "pids.current", "5\n"),
    ];

    const STATS_V2: [(&str, &str, &str); 5] = [
        ("v2", "cpu.stat", "usage_usec 98\nuser_usec 50\nsystem_usec 48\n"),
        ("v2", "memory.stat", "anon 9\ninactive_anon 2\ninactive_file 400\n"),
        ("v2", "memory.current", "1000\n"),
        ("v2", "memory.peak", "2000\n"),
        ("v2", "pids.current", "3\n"),
    ];

    #[test]
    fn what_a_container_uses_is_read_where_the_layout_keeps_it() {
        let old = Stats {
            cpu_ns: 1_234_567,
            memory_bytes: 7000,
            memory_peak_bytes: 20_000,
            pids: 5,
            ..Stats::default()
        };
        let host = Host::v1();
        host.write(&STATS_V1);
        assert_eq!(host.cgroups.stats(host.id), old);
        let host = Host::hybrid();
        host.write(&STATS_V1);
        host.write(&STATS_V2);
        assert_eq!(host.cgroups.stats(host.id), old, "the empty version 2 counts nothing");
        let host = Host::v2();
        host.write(&STATS_V2);
        let new = Stats {
            cpu_ns: 98_000,
            memory_bytes: 600,
            memory_peak_bytes: 2000,
            pids: 3,
            ..Stats::default()
        };
        assert_eq!(host.cgroups.stats(host.id), new);
    }

    #[test]
    fn what_cannot_be_read_counts_as_nothing() {
        let host = Host::v2();
        assert_eq!(host.cgroups.stats(host.id), Stats::default());
        host.write(&[
            ("v2", "memory.current", "100"),
            ("v2", "memory.stat", "inactive_file 400\n"),
            ("v2", "pids.current", "max"),
            ("v2", "cpu.stat", "usage_usec 18446744073709551615\n"),
        ]);
        let stats = host.cgroups.stats(host.id);
        assert_eq!((stats.memory_bytes, stats.pids, stats.cpu_ns), (0, 0, u64::MAX));
    }

    #[test]
    fn each_layout_tells_whether_a_container_is_frozen() {
        for host in [Host::v1(), Host::hybrid()] {
            assert!(!host.cgroups.is_frozen(host.id), "nothing says so");
            for (state, frozen) in [("THAWED\n", false), ("FREEZING\n", true), ("FROZEN\n", true)] {
                host.write(&[("freezer", "freezer.state", state)]);
                assert_eq!(host.cgroups.is_frozen(host.id), frozen, "{state}");
            }
        }
        let host = Host::v2();
        assert!(!host.cgroups.is_frozen(host.id), "nothing says so");
        for (state, frozen) in [("0\n", false), ("1\n", true)] {
            host.write(&[("v2", "cgroup.freeze", state)]);
            assert_eq!(host.cgroups.is_frozen(host.id), frozen, "{state}");
        }
    }

    #[test]
    fn an_init_gets_the_groups_that_it_may_divide_and_no_limit() {
        if !rustix::process::geteuid().is_root() {
            assert!(std::env::var_os("CI").is_none(), "this test gives files away: be root");
            eprintln!("\n*** NOT TESTED: only root gives files away ***\n");
            return;
        }
        let mapping = Mapping { base: OWNER, ..Mapping::default() };
        let v1_files = ["cgroup.procs", "tasks", "notify_on_release", "cgroup.clone_children"];
        let v2_given = ["", "cgroup.procs", "cgroup.threads", "cgroup.subtree_control"];
        let v2_kept = ["cgroup.freeze", "cgroup.kill", "cgroup.type", "memory.max", "pids.max"];
        for host in [Host::v1(), Host::v2(), Host::hybrid()] {
            let mut want = BTreeSet::new();
            for top in host.cgroups.hierarchies.controllers.keys() {
                let limits = ["memory.limit_in_bytes", "freezer.state", "devices.allow"];
                for file in v1_files.iter().chain(&limits) {
                    host.write(&[(top, file, "")]);
                }
                if top == "name=systemd" {
                    want.extend(host.names(top, &["", "cgroup.procs", "tasks"]));
                }
            }
            if host.cgroups.hierarchies.unified.is_some() {
                for file in v2_given.iter().chain(&v2_kept).filter(|file| !file.is_empty()) {
                    host.write(&[("v2", file, "")]);
                }
                want.extend(host.names("v2", &v2_given));
            }
            host.cgroups.delegate(host.id, mapping).unwrap();
            assert_eq!(host.delegated(), want);
            if host.cgroups.hierarchies.unified.is_some() {
                for (file, most) in LIMITS {
                    assert_eq!(host.read("v2", file), most);
                }
            }
        }
    }

    #[test]
    fn a_hierarchy_without_the_containers_group_needs_nothing() {
        let host = Host::hybrid();
        for top in ["v2", "name=systemd"] {
            fs::remove_dir(host.group(top)).unwrap();
        }
        host.cgroups.delegate(host.id, Mapping::default()).unwrap();
        assert!(!host.group("v2").exists());
    }

    #[test]
    fn the_groups_of_one_container_go_and_then_ours() {
        for host in [Host::v1(), Host::v2(), Host::hybrid()] {
            let tops: Vec<PathBuf> = host.cgroups.tops().map(Path::to_owned).collect();
            let other = ContainerId::from_bytes([8; 12]);
            for top in &tops {
                let ours = top.join(PARENT);
                fs::create_dir_all(ours.join(host.id.to_string()).join("init.scope/deep")).unwrap();
                fs::create_dir_all(ours.join(other.to_string()).join("system.slice")).unwrap();
                fs::create_dir(top.join("others")).unwrap();
            }
            host.cgroups.remove(host.id);
            host.cgroups.remove(host.id);
            for top in &tops {
                let ours = top.join(PARENT);
                assert!(!ours.join(host.id.to_string()).exists());
                assert!(ours.join(other.to_string()).join("system.slice").exists());
            }
            host.cgroups.remove_parent();
            for top in &tops {
                assert!(!top.join(PARENT).exists() && top.join("others").exists());
            }
        }
    }

    #[test]
    fn groups_are_removed_however_deep_and_wide_they_lie() {
        let dir = tempfile::tempdir().unwrap();
        let top = dir.path().join("top");
        for name in ["a/b/c", "a/d", "e"] {
            fs::create_dir_all(top.join(name)).unwrap();
        }
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
        let mut deep = openat(CWD, &top, flags, Mode::empty()).unwrap();
        for _ in 0..3000 {
            rustix::fs::mkdirat(&deep, "deep", Mode::RWXU).unwrap();
            deep = openat(&deep, "deep", flags, Mode::empty()).unwrap();
        }
        remove_tree(&top);
        assert!(!top.exists());
        fs::create_dir_all(top.join("held")).unwrap();
        fs::write(top.join("held/by"), b"").unwrap();
        remove_tree(&top);
        assert!(top.join("held/by").exists(), "what refuses stays");
    }
}
