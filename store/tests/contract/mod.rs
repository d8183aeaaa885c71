//! What every engine must do. [`contract!`] makes one test of each case, each on a store of its own.

pub(crate) mod accounts;
pub(crate) mod certificates;
pub(crate) mod containers;
pub(crate) mod edge;
pub(crate) mod factors;
pub(crate) mod feed;
pub(crate) mod firewall;
pub(crate) mod fixture;
pub(crate) mod history;
pub(crate) mod idempotency;
pub(crate) mod images;
pub(crate) mod members;
pub(crate) mod outbound;
pub(crate) mod pool;
pub(crate) mod projects;
pub(crate) mod races;
pub(crate) mod roundtrip;
pub(crate) mod shares;
pub(crate) mod snapshots;
pub(crate) mod token_profiles;
pub(crate) mod vault;

/// Makes the tests. `$open` is an async function that returns an empty store and something to keep
/// until the end of the test.
macro_rules! contract {
    ($open:path) => {
        contract!(@cases $open, accounts:
            a_user_is_found_by_id_and_by_name,
            a_username_is_taken_once,
            a_password_and_the_session_generation_change,
            a_token_is_found_by_its_hash_and_changes,
            a_token_belongs_to_its_owner,
            a_use_of_a_token_is_noted_at_most_once_a_minute,
            the_first_candidate_becomes_the_secret,
            a_server_is_made_once);
        contract!(@cases $open, certificates:
            a_plan_holds_only_for_the_record_that_it_was_made_for,
            a_wish_during_an_attempt_outlives_its_failure,
            what_comes_for_other_names_than_are_wanted_is_not_taken,
            a_ca_is_left_alone_until_it_says_and_no_longer);
        contract!(@cases $open, projects:
            a_project_is_stored_as_given,
            an_alias_is_unique_for_its_owner_only,
            projects_are_listed_by_owner_and_realm_in_pages,
            an_update_of_a_project_needs_its_version,
            a_project_is_deleted_only_when_empty);
        contract!(@cases $open, containers:
            a_container_is_stored_as_given_and_logged,
            a_refused_creation_leaves_nothing,
            a_name_is_unique_in_its_project_only,
            a_key_is_unique_everywhere,
            a_freed_key_waits_before_it_opens_a_strangers_container,
            a_quota_counts_what_is_being_deleted,
            a_spec_changes_with_its_version_only,
            a_wish_counts_up_and_logs_a_change_of_phase,
            a_status_replaces_the_last_and_logs_why,
            variables_count_their_changes_and_what_came_of_them_is_noted,
            a_restart_keeps_its_promise_all_the_way,
            a_removed_container_frees_its_name_and_key,
            containers_are_filtered,
            containers_are_sorted_and_paged,
            status_logs_are_sorted_and_paged);
        contract!(@cases $open, edge:
            a_document_changes_with_its_version_only,
            a_document_is_in_the_feed_for_each_of_its_containers,
            a_removed_document_gates_nothing,
            settings_change_with_their_version_only,
            an_alias_is_stored_as_given_and_in_the_feed,
            the_end_of_an_alias_is_told_once_before_and_once_after,
            every_target_of_an_alias_is_read_as_it_was_written,
            a_label_is_unique_in_the_whole_store,
            an_account_may_have_so_many_aliases,
            a_freed_label_waits_for_its_owner,
            a_freed_label_waits_for_members_of_its_project_however_many_are_freed,
            an_update_of_an_alias_needs_its_version,
            aliases_are_filtered,
            a_hostname_leads_where_its_alias_does_while_it_is_proven,
            a_hostname_goes_to_whom_the_names_prove,
            all_that_is_set_goes_with_its_container);
        contract!(@cases $open, factors:
            each_door_has_attempts_of_its_own_and_locks_grow_up_to_a_day,
            a_new_secret_has_new_attempts);
        contract!(@cases $open, firewall:
            rules_change_with_their_version_only,
            a_copy_has_the_rules_of_its_source_if_it_is_asked_for);
        contract!(@cases $open, outbound:
            a_network_changes_with_its_version_only,
            a_copy_has_the_network_that_its_source_still_has);
        contract!(@cases $open, members:
            a_member_is_stored_as_given_once_and_up_to_the_limit,
            lists_hold_what_a_member_sees,
            memory_is_shared_only_where_there_are_no_members,
            a_user_is_a_member_of_so_many_projects,
            a_write_about_a_member_holds_for_what_is_so_at_that_moment_only);
        contract!(@cases $open, images:
            images_are_seen_once_taken_once_and_rated_by_each_user_once);
        contract!(@cases $open, idempotency:
            a_key_is_fresh_once_and_then_answers,
            an_abandoned_key_is_fresh_again,
            a_key_is_forgotten_after_a_day,
            a_sweep_takes_what_is_old);
        contract!(@cases $open, history:
            the_oldest_events_of_an_account_go_when_there_are_too_many,
            a_long_history_goes_in_parts_by_age_and_by_number);
        contract!(@cases $open, feed:
            every_change_of_a_container_is_in_the_feed,
            a_refusal_is_not_in_the_feed,
            changes_come_in_pages,
            a_revision_of_the_future_is_of_another_epoch,
            the_head_follows_the_commits,
            routes_are_loaded_with_their_revision,
            route_records_say_what_is_gone,
            two_watchers_see_every_change_of_sixteen_writers);
        contract!(@cases $open, pool:
            a_claim_takes_the_oldest_that_is_alike_and_another_takes_its_place,
            what_waits_is_claimed_by_its_owner_in_its_realm_and_when_it_runs,
            the_pool_has_bounds_and_counts_for_no_quota);
        contract!(@cases $open, races:
            of_64_claims_of_one_container_one_wins,
            of_64_creations_with_one_name_one_wins,
            of_64_creations_with_one_key_one_wins,
            of_64_updates_of_one_version_one_wins,
            of_64_documents_on_one_version_one_wins,
            of_64_aliases_with_one_label_one_wins,
            a_quota_holds_against_64_creations,
            of_64_requests_with_one_idempotency_key_one_is_fresh,
            a_hundred_creations_at_once_succeed);
        contract!(@cases $open, snapshots:
            a_snapshot_is_stored_as_given_and_finished,
            names_limits_and_operations_under_way_are_watched,
            an_account_has_so_many_snapshots,
            snapshots_outlive_their_container,
            a_removed_snapshot_is_discarded_with_its_last_reference,
            what_is_fetched_has_not_ended,
            what_is_being_used_is_not_removed);
        contract!(@cases $open, shares:
            a_share_is_read_as_it_was_written_and_feeds_whom_it_reaches,
            failures_are_those_of_the_last_look_and_overrides_stay,
            rights_bounds_and_ends_hold);
        contract!(@cases $open, vault:
            an_entry_is_stored_as_given_and_changes_in_parts,
            realms_and_owners_keep_entries_apart,
            an_account_has_so_many_entries_and_octets);
        contract!(@cases $open, roundtrip:
            any_container_spec_is_read_as_it_was_written,
            any_project_spec_is_read_as_it_was_written,
            any_token_is_read_as_it_was_written);
        contract!(@cases $open, token_profiles:
            a_profile_is_found_by_its_key_and_goes_with_its_token,
            tokens_of_an_account_show_no_more_than_they_may,
            an_account_has_no_more_tokens_than_it_may);
    };
    (@cases $open:path, $module:ident: $($case:ident),+) => {
        mod $module {
            $(
                #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
                async fn $case() {
                    let (store, _keep) = $open().await;
                    let world = crate::contract::fixture::World::new(store).await;
                    crate::contract::$module::$case(&world).await;
                    world.store.close().await;
                }
            )+
        }
    };
}
