//! Builds the program that runs inside containers, which this crate carries along.
//!
//! It has to run in whatever image a container was made from, so it is one static file, unlike everything
//! else here. Cargo cannot build a program for another one in one go, so it is called once more: from the
//! same lock file, into a directory of its own, and free of what was meant for the outer build.

use std::{
    env,
    ffi::OsString,
    path::{Path, PathBuf},
    process::{Command, ExitCode, Stdio},
};

/// The package and its program.
const NAME: &str = "gantry-session";

/// The profile in the workspace's manifest.
const PROFILE: &str = "inside";

/// What stays of the variables that begin with `CARGO`: where crates come from, and how they are linked.
const KEPT: [&str; 5] =
    ["CARGO_HOME", "CARGO_NET_", "CARGO_HTTP_", "CARGO_REGISTR", "CARGO_SOURCE_"];

#[expect(clippy::print_stderr, reason = "what cargo shows of a build script that failed")]
fn main() -> ExitCode {
    match build() {
        Ok(program) => {
            println!("cargo::rustc-env=GANTRY_SESSION={}", program.display());
            ExitCode::SUCCESS
        }
        Err(why) => {
            eprintln!("the program that runs inside containers ({NAME}) could not be built: {why}");
            ExitCode::FAILURE
        }
    }
}

fn build() -> Result<PathBuf, String> {
    let own = PathBuf::from(variable("CARGO_MANIFEST_DIR")?);
    let workspace = own.parent().ok_or("this crate is in no workspace")?;
    for path in ["session/Cargo.toml", "session/src", "Cargo.lock", "Cargo.toml"] {
        println!("cargo::rerun-if-changed={}", workspace.join(path).display());
    }
    let triple = variable("TARGET")?;
    let triple = triple.to_str().ok_or("the target's name is no text")?;
    let out = PathBuf::from(variable("OUT_DIR")?);
    let target = shared(&out).join("inside");
    call(workspace, triple, &target)?;
    let (made, program) = (target.join(triple).join(PROFILE).join(NAME), out.join(NAME));
    std::fs::copy(&made, &program)
        .map_err(|error| format!("cargo succeeded, but {}: {error}", made.display()))?;
    Ok(program)
}

/// The directory of all builds: debug and release, with and without clippy, have the same program in them.
fn shared(out: &Path) -> &Path {
    // <target>/<profile>/build/<package>/out
    let is_usual = out.ancestors().nth(2).is_some_and(|dir| dir.ends_with("build"));
    out.ancestors().nth(4).filter(|_| is_usual).unwrap_or(out)
}

fn call(workspace: &Path, triple: &str, target: &Path) -> Result<(), String> {
    let cargo = variable("CARGO")?;
    let mut command = Command::new(&cargo);
    for (name, _) in env::vars_os().filter(|(name, _)| !is_kept(name, triple)) {
        command.env_remove(name);
    }
    command
        .args(["rustc", "--locked", "--package", NAME, "--bin", NAME, "--profile", PROFILE])
        .args(["--target", triple, "--target-dir"])
        .arg(target)
        .arg("--manifest-path")
        .arg(workspace.join("Cargo.toml"))
        .args(["--jobs".into(), variable("NUM_JOBS")?])
        .args(["--", "-C", "target-feature=+crt-static"])
        .current_dir(workspace)
        .stdin(Stdio::null());
    let output = command
        .output()
        .map_err(|error| format!("{} does not run: {error}", Path::new(&cargo).display()))?;
    if output.status.success() {
        return Ok(());
    }
    let said = String::from_utf8_lossy(&output.stderr);
    let hint =
        if ["cannot find -lc", "cannot find rcrt1.o", "have you installed the static version"]
            .iter()
            .any(|words| said.contains(words))
        {
            "\nIt needs the static C library (Debian: libc6-dev, Fedora: glibc-static)."
        } else {
            ""
        };
    Err(format!("cargo ended with {}\n{said}{hint}", output.status))
}

/// Whether a variable of the outer build is one of the inner build, too.
fn is_kept(name: &OsString, triple: &str) -> bool {
    let Some(name) = name.to_str() else { return true };
    let of_linking = format!("CARGO_TARGET_{}_LINKER", triple.to_uppercase().replace('-', "_"));
    if name.starts_with("CARGO") {
        return name == of_linking || KEPT.iter().any(|kept| name.starts_with(kept));
    }
    // Of the compiler: wrappers (as clippy is one) and flags; and what cargo tells build scripts.
    let is_of_outer = ["RUSTC", "RUSTFLAGS", "RUSTDOC", "DEP_"].iter();
    let is_of_script = ["OUT_DIR", "TARGET", "HOST", "OPT_LEVEL", "DEBUG", "PROFILE", "MAKEFLAGS"];
    !is_of_outer.copied().any(|begin| name.starts_with(begin)) && !is_of_script.contains(&name)
}

fn variable(name: &str) -> Result<OsString, String> {
    env::var_os(name).ok_or_else(|| format!("cargo does not say {name}"))
}
