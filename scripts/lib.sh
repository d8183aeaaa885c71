# Shared by the scripts beside it; sourced, never run.
# shellcheck shell=bash

REPO=$(cd -- "$(dirname -- "${BASH_SOURCE[0]}")/.." && pwd)
export REPO

# What building and running Gantry takes on Debian 12 and 13.
BUILD_PACKAGES=(gcc g++ libc6-dev make cmake ca-certificates)
RUN_PACKAGES=(
    runc nftables mmdebstrap debian-archive-keyring uidmap iproute2 util-linux procps curl jq
)
export BUILD_PACKAGES RUN_PACKAGES

say() { printf '%s\n' "$*"; }
warn() { printf '%s\n' "$*" >&2; }
die() {
    warn "error: $*"
    exit 1
}

need_root() {
    [ "$(id -u)" -eq 0 ] || die "run this as root: containers, bridges and mounts need it"
}

# Installs the packages that are missing; the network is asked only if there are any.
need_packages() {
    local package missing=()
    for package in "$@"; do
        case $(dpkg-query -W -f '${db:Status-Abbrev}' "$package" 2>/dev/null || true) in
        ii*) ;;
        *) missing+=("$package") ;;
        esac
    done
    [ ${#missing[@]} -gt 0 ] || return 0
    command -v apt-get >/dev/null || die "this is no Debian; please install: ${missing[*]}"
    need_root
    say "Installing ${missing[*]} …"
    export DEBIAN_FRONTEND=noninteractive
    local log failed=
    log=$(mktemp)
    { apt-get -o DPkg::Lock::Timeout=300 update && install_quietly "${missing[@]}"; } \
        >"$log" 2>&1 || failed=1
    [ -z "$failed" ] || cat "$log" >&2
    rm -f "$log"
    [ -z "$failed" ] || die "apt-get could not install: ${missing[*]}"
}

# Installs packages without starting the servers that are in them: tests start their own, with their
# own configuration.
install_quietly() {
    local policy=/usr/sbin/policy-rc.d mine='' status=0
    if [ ! -e "$policy" ]; then
        mine=1
        printf '#!/bin/sh\nexit 101\n' >"$policy"
        chmod 0755 "$policy"
    fi
    apt-get -o DPkg::Lock::Timeout=300 install -y --no-install-recommends "$@" || status=$?
    [ -z "$mine" ] || rm -f "$policy"
    return "$status"
}

need_rust() {
    # rustup puts the toolchain there, and a login shell may not have been started since.
    if ! command -v cargo >/dev/null && [ -x "$HOME/.cargo/bin/cargo" ]; then
        PATH="$HOME/.cargo/bin:$PATH"
        export PATH
    fi
    command -v cargo >/dev/null ||
        die "Rust is missing: install version 1.95 or newer with rustup, then run this again"
    local have want=1.95.0
    have=$(rustc --version | cut -d' ' -f2)
    [ "$(printf '%s\n%s\n' "$want" "${have%%-*}" | sort -V | head -n1)" = "$want" ] ||
        die "Rust $have is too old: version 1.95 or newer is needed (rustup update)"
}

# Where cargo puts what it builds.
target_dir() {
    cargo metadata --manifest-path "$REPO/Cargo.toml" --format-version 1 --no-deps --locked |
        jq -r .target_directory
}

now_ms() { date +%s%3N; }

# wait_until SECONDS COMMAND…: runs the command until it succeeds or time is up.
wait_until() {
    local end=$(($(now_ms) + $1 * 1000))
    shift
    until "$@"; do
        [ "$(now_ms)" -lt "$end" ] || return 1
        sleep 0.05
    done
}
