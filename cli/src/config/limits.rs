//! What clients and containers may use: the section `limits`.

use gantry_control::MEMBERS_MAX;
use gantry_proxy::{Limits, Rate};

use super::reader::Reader;

/// Reads the section. The times that stand in the section `edge` have their defaults here.
pub(super) fn read(reader: &mut Reader<'_>) -> Option<Limits> {
    // Read everything before the first `?`: one bad key must not hide the others.
    let connections = count(reader, "limits.connections_per_worker", 1, 10_000_000);
    let of_address = count(reader, "limits.connections_per_address", 1, 10_000_000);
    let handshakes = count(reader, "limits.handshakes_per_worker", 1, 1_000_000);
    let handshakes_of_address = count(reader, "limits.handshakes_per_address", 1, 1_000_000);
    let handshake_rate = rate(reader, "handshake");
    let request_rate = rate(reader, "request");
    let active = count(reader, "limits.requests_per_worker", 1, 10_000_000);
    let of_container = reader.number("limits.requests_per_container", 1, 10_000_000);
    let requests = reader.number("limits.requests_per_connection", 1, 1_000_000_000);
    let streams = reader.number("limits.streams_per_connection", 1, 1_000);
    let ahead = reader.number("limits.uploads_ahead_mib", 0, 1 << 20);
    let frames = reader.number("limits.frames_per_connection", 16, 1_000_000);
    let resets = reader.number("limits.resets_per_connection", 1, 1_000_000);
    let head_bytes = count(reader, "limits.head_bytes", 4_096, 1 << 20);
    let head_fields = count(reader, "limits.head_fields", 16, 1_000);
    let handshake_timeout = reader.seconds("limits.handshake_timeout_s", 1, 120);
    let body_pause = reader.seconds("limits.body_pause_s", 1, 3_600);
    let body_rate_min = reader.number("limits.body_rate_min", 1, 1 << 20);
    let expect_timeout = reader.seconds("limits.expect_timeout_s", 1, 60);
    let body_bytes_max = reader.number_or_off("limits.body_bytes_max", 1 << 50);
    let send_pause = reader.seconds("limits.send_pause_s", 1, 3_600);
    let send_rate_min = reader.number("limits.send_rate_min", 1, 1 << 20);
    let broken = reader.number("limits.broken_requests_per_connection", 0, 1_000_000);
    let unproven = count(reader, "limits.unproven_handshakes_per_worker", 0, 1_000_000);
    let passwords = reader.number("limits.password_failures_per_minute", 1, 1_000_000);
    let checks = count(reader, "limits.credential_checks", 1, 256);
    let pool_per_port = count(reader, "limits.idle_upstreams_per_port", 0, 1_000_000);
    let pool = count(reader, "limits.idle_upstreams_per_worker", 0, 1_000_000);
    let pool_idle = reader.seconds("limits.upstream_idle_s", 1, 3_600);
    Some(Limits {
        connections_max: connections?,
        connections_per_address_max: of_address?,
        handshakes_max: handshakes?,
        handshakes_per_address_max: handshakes_of_address?,
        handshake_rate: on(handshake_rate?),
        request_rate: on(request_rate?),
        requests_active_max: active?,
        requests_per_container_max: u32::try_from(of_container?).ok()?,
        requests_max: requests?,
        streams_max: u32::try_from(streams?).ok()?,
        uploads_ahead_max: ahead? << 20,
        frames_max: u32::try_from(frames?).ok()?,
        resets_max: u32::try_from(resets?).ok()?,
        head_bytes_max: head_bytes?,
        fields_max: head_fields?,
        tls_timeout: handshake_timeout?,
        body_idle: body_pause?,
        body_rate_min: u32::try_from(body_rate_min?).ok()?,
        expect_timeout: expect_timeout?,
        body_bytes_max: Some(body_bytes_max?).filter(|max| *max > 0),
        send_idle: send_pause?,
        send_rate_min: u32::try_from(send_rate_min?).ok()?,
        broken_max: u32::try_from(broken?).ok()?,
        unproven_max: unproven?,
        password_failures_max: u32::try_from(passwords?).ok()?,
        credential_checks_max: checks?,
        pool_per_port_max: pool_per_port?,
        pool_max: pool?,
        pool_idle: pool_idle?,
        ..Limits::default()
    })
}

/// Reads what the section `control` says of users. The rest of its limits are the processor's.
pub(super) fn read_control(reader: &mut Reader<'_>) -> Option<gantry_control::Limits> {
    const MINUTE_MS: u64 = 60_000;
    const DAY_MS: u64 = 24 * 60 * MINUTE_MS;
    let containers = reader.number("control.containers_per_user", 0, 1_000_000);
    let running = reader.number("control.running_containers_per_user", 0, 1_000_000);
    let here = reader.number("control.containers_per_server", 0, 1_000_000);
    let projects = reader.number("control.projects_per_user", 0, 1_000_000);
    let tokens = count(reader, "control.tokens_per_user", 1, 1_000_000);
    let aliases = reader.number("control.aliases_per_user", 0, 1_000_000);
    // The store forgets freed names after 400 days.
    let quarantine = reader.number("control.alias_quarantine_days", 0, 365);
    let snapshots = reader.number("control.snapshots_per_container", 0, 1_000);
    let of_user = reader.number("control.snapshots_per_user", 0, 10_000_000);
    let members = reader.number("control.members_per_project", 0, MEMBERS_MAX.into());
    let vault_keys = reader.number("control.vault_keys_per_user", 0, 100_000);
    let vault_mib = reader.number("control.vault_mib_per_user", 0, 1_024);
    let shares = reader.number("control.shares_per_container", 0, 10_000);
    let shares_of_user = reader.number("control.shares_per_user", 0, 1_000_000);
    let warm = reader.number("control.prespawned_per_user", 0, 10_000);
    let warm_here = reader.number("control.prespawned_per_server", 0, 100_000);
    let of_address = reader.number("control.login_failures_per_address", 1, 1_000_000);
    let of_account = reader.number("control.login_failures_per_account", 1, 1_000_000);
    let window = reader.number("control.login_window_min", 1, 1_440);
    let queue = count(reader, "control.logins_waiting", 1, 10_000);
    Some(gantry_control::Limits {
        containers_per_user_max: u32::try_from(containers?).ok()?,
        running_containers_per_user_max: u32::try_from(running?).ok()?,
        containers_per_server_max: u32::try_from(here?).ok()?,
        projects_per_user_max: u32::try_from(projects?).ok()?,
        tokens_per_user_max: tokens?,
        aliases_per_user_max: u32::try_from(aliases?).ok()?,
        alias_quarantine_ms: i64::try_from(quarantine? * DAY_MS).ok()?,
        snapshots_per_container_max: u32::try_from(snapshots?).ok()?,
        snapshots_per_user_max: u32::try_from(of_user?).ok()?,
        members_per_project_max: u32::try_from(members?).ok()?,
        vault_keys_per_user_max: u32::try_from(vault_keys?).ok()?,
        vault_octets_per_user_max: vault_mib? << 20,
        shares_per_container_max: u32::try_from(shares?).ok()?,
        shares_per_user_max: u32::try_from(shares_of_user?).ok()?,
        prespawned_per_user_max: u32::try_from(warm?).ok()?,
        prespawned_per_server_max: u32::try_from(warm_here?).ok()?,
        login_failures_per_address_max: u32::try_from(of_address?).ok()?,
        login_failures_per_account_max: u32::try_from(of_account?).ok()?,
        login_window_ms: i64::try_from(window? * MINUTE_MS).ok()?,
        password_queue_max: queue?,
        ..gantry_control::Limits::default()
    })
}

fn count(reader: &mut Reader<'_>, key: &str, min: u64, max: u64) -> Option<usize> {
    usize::try_from(reader.number(key, min, max)?).ok()
}

/// Calls per second, 0 if that is off, and how many at once.
fn rate(reader: &mut Reader<'_>, of: &str) -> Option<(u32, u32)> {
    let per_second = reader.number_or_off(&format!("limits.{of}_rate_per_address"), 1_000_000);
    let burst = reader.number(&format!("limits.{of}_burst_per_address"), 1, 10_000_000);
    Some((u32::try_from(per_second?).ok()?, u32::try_from(burst?).ok()?))
}

fn on((per_second, burst): (u32, u32)) -> Option<Rate> {
    (per_second > 0).then_some(Rate { per_second, burst })
}
