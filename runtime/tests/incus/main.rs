//! Incus keeps the promises of the port, with real containers, on two kinds of storage.
//!
//! Needs root, `nft`, `busybox` (the static one) and an Incus whose socket `GANTRY_TEST_INCUS`
//! names, with the storage pools `gantry-dir` and `gantry-btrfs`: `scripts/incus run` starts one.
//! Where they are missing the tests say so and pass, unless `CI` is set.

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
#[expect(dead_code, reason = "the tests of that runtime use all of it")]
#[path = "../embedded/machine.rs"]
mod embedded;
#[path = "../firewall/mod.rs"]
mod firewall;
mod inside;
mod installations;
mod machine;
mod network;
#[path = "../outbound/mod.rs"]
mod outbound;
#[path = "../sessions/mod.rs"]
mod sessions;
#[path = "../shares/mod.rs"]
mod shares;
#[path = "../transfer/mod.rs"]
mod transfer;
#[path = "../world/mod.rs"]
mod world;

/// Every file system in a directory.
mod dir {
    use crate::{contract, machine::on_dir};

    contract!(on_dir);

    #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
    async fn what_is_in_an_archive_arrives() {
        on_dir(async |machine| crate::transfer::what_is_in_an_archive_arrives(machine).await).await;
    }

    #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
    async fn a_copy_that_gives_way_leaves_nothing() {
        on_dir(async |machine| {
            crate::installations::a_copy_that_gives_way_leaves_nothing(machine).await;
        })
        .await;
    }
}

/// Every file system a clone.
mod btrfs {
    use crate::{contract, machine::on_btrfs};

    contract!(on_btrfs);
}

/// One test on a machine of its own for each function named.
macro_rules! tests {
    ($($module:ident::$name:ident)*) => { $(
        #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
        async fn $name() {
            machine::on_btrfs(async |machine| $module::$name(machine).await).await;
        }
    )* };
}

tests! {
    inside::commands_and_init_share_an_unprivileged_user_namespace
    inside::a_container_knows_its_name_and_its_environment
    inside::a_ramdisk_survives_stops_and_not_deletion
    inside::limits_hold
    inside::a_dropped_terminal_hangs_up
    inside::an_init_that_ends_alone_is_told_and_can_start_again
    inside::what_a_container_mounts_over_its_files_is_left_alone
    firewall::rules_decide_about_connections
    outbound::a_shut_container_answers_and_begins_nothing
    sessions::a_session_is_a_process_of_its_container
    sessions::a_session_ends_with_its_container
    sessions::the_place_of_sessions_is_out_of_reach
    shares::a_share_is_what_was_shared_and_no_more
    shares::a_share_comes_and_goes_with_both_sides
    outbound::tcp_and_names_leave_through_the_proxy_of_the_owner_only
    network::containers_reach_neither_each_other_nor_the_host_nor_take_addresses
    installations::two_of_them_do_not_see_each_other
    installations::an_image_is_handed_over_once
    installations::what_an_interrupted_creation_left_is_made_anew
    installations::a_container_without_a_place_for_sessions_gets_it_while_it_runs
    installations::what_interrupted_archives_left_is_removed
    installations::a_container_goes_to_another_kind_of_runtime_and_back
    transfer::what_is_in_an_archive_arrives
    transfer::a_hostile_archive_reaches_nothing
}
