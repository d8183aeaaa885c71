//! The embedded runtime keeps the promises of the port, with real containers.
//!
//! Needs root, `runc`, `nft` and `busybox` (the static one). Where they are missing the tests say so
//! and pass, unless `CI` is set.

#![expect(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    clippy::print_stderr,
    reason = "a test fails by panicking and says what it cannot test"
)]

#[path = "../busybox/mod.rs"]
mod busybox;
#[path = "../contract/mod.rs"]
mod contract;
mod crashes;
#[path = "../firewall/mod.rs"]
mod firewall;
mod inside;
mod machine;
mod network;
#[path = "../outbound/mod.rs"]
mod outbound;
#[path = "../sessions/mod.rs"]
mod sessions;
#[path = "../shares/mod.rs"]
mod shares;
mod snapshots;
mod system;
#[path = "../transfer/mod.rs"]
mod transfer;
#[path = "../world/mod.rs"]
mod world;

use machine::run;

contract!(run);

/// One test on a machine of its own for each function named.
macro_rules! tests {
    ($($module:ident::$name:ident)*) => { $(
        #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
        async fn $name() {
            run(async |machine| $module::$name(machine).await).await;
        }
    )* };
}

tests! {
    inside::commands_and_init_share_an_unprivileged_user_namespace
    inside::a_container_starts_in_time
    inside::a_container_knows_its_name_and_its_environment
    inside::a_new_environment_takes_effect_at_the_next_start
    inside::the_kernel_is_kept_out_of_reach
    inside::an_init_divides_its_own_group_and_is_still_reached
    inside::limits_hold
    inside::an_init_that_will_not_end_is_killed
    inside::other_users_of_the_host_do_not_reach_its_files
    inside::a_ramdisk_survives_stops_and_not_deletion
    inside::changes_survive_stops_and_do_not_reach_the_image
    inside::a_dropped_command_is_killed_with_its_children
    inside::a_dropped_terminal_hangs_up
    firewall::rules_decide_about_connections
    outbound::a_shut_container_answers_and_begins_nothing
    sessions::a_session_is_a_process_of_its_container
    sessions::a_session_ends_with_its_container
    sessions::the_place_of_sessions_is_out_of_reach
    shares::a_share_is_what_was_shared_and_no_more
    shares::a_share_comes_and_goes_with_both_sides
    outbound::tcp_and_names_leave_through_the_proxy_of_the_owner_only
    network::the_host_reaches_a_container_on_its_address
    network::containers_reach_the_hosts_chosen_ports_only
    network::the_world_is_reached_through_the_hosts_address_and_does_not_reach_in
    network::containers_do_not_reach_each_other
    network::what_is_sent_to_a_stopped_container_reaches_nobody
    network::a_container_cannot_take_another_address
    network::what_another_network_has_is_left_to_it
    crashes::an_interrupted_start_is_completed_by_the_next
    crashes::what_an_interrupted_creation_left_is_removed
    crashes::calls_of_a_killed_runtime_are_ended
    crashes::an_init_that_ends_alone_is_told_and_can_start_again
    crashes::a_directory_has_one_runtime_at_a_time
    crashes::a_reboot_is_noticed
    crashes::images_in_use_are_not_removed
    snapshots::what_hides_the_image_is_kept_and_copied
    snapshots::a_copy_forgets_who_it_was
    snapshots::interrupted_snapshots_and_restorations_are_completed
    snapshots::what_an_interrupted_snapshot_left_is_removed
    snapshots::images_of_snapshots_are_not_removed
    snapshots::an_archive_under_way_keeps_no_images_from_being_removed
    snapshots::what_interrupted_archives_left_is_removed
    snapshots::nothing_of_the_image_shows_through_an_archive
    snapshots::what_comes_from_elsewhere_is_given_up
    transfer::what_is_in_an_archive_arrives
    transfer::a_hostile_archive_reaches_nothing
    system::systemd_boots_serves_and_powers_off
}
