//! The behaviour of the store as plain async functions, run on every engine.
//!
//! A case gets a [`Home`]: an open store and two tenants of its own. It says what must hold and nothing about
//! the engine. [`for_each_case!`](crate::for_each_case) hands the list of all cases to a macro, which makes a
//! test of each for each engine (`tests/conformance.rs`).

#![allow(clippy::disallowed_methods, reason = "a test needs names of its own, not the ids of a store")]

pub mod agent_versions;
pub mod agents;
pub mod api_keys;
pub mod approvals;
pub mod artifacts;
pub mod budgets;
pub mod checkpoints;
pub mod controls;
pub mod deployments;
mod fixtures;
pub mod idempotency;
pub mod job_claims;
pub mod job_costs;
pub mod jobs;
pub mod ledger;
pub mod lock;
pub mod mcp_servers;
pub mod memories;
pub mod messages;
pub mod metrics;
pub mod preferences;
pub mod prices;
pub mod prompts;
pub mod raw;
pub mod routing_decisions;
pub mod runs;
pub mod session_events;
pub mod sessions;
pub mod statements;
pub mod stats;
pub mod streams;
pub mod support;
pub mod teams;
pub mod tenants;
pub mod users;

use agentkeep_core::{NewTenant, Result};

use crate::{Store, TenantStore};

/// Where a case lives.
pub struct Home {
    /// The open store.
    pub store: Store,
    /// The tenant of the case; empty.
    pub tenant: TenantStore,
    /// A second tenant, for what must not be seen or blocked across; empty.
    pub other: TenantStore,
}

impl Home {
    /// Makes two new tenants on an open store.
    ///
    /// # Errors
    /// What the database reports.
    pub async fn new(store: Store) -> Result<Self> {
        let new = async |what: &str| {
            let name = support::new_name(what);
            store.tenants().create(NewTenant::new(name)).await.map(|tenant| store.tenant(tenant.id))
        };
        let (tenant, other) = (new("case").await?, new("other").await?);
        Ok(Self { store, tenant, other })
    }
}

/// Calls `$callback! { module: case, case; … }` with every case of the suite.
#[macro_export]
macro_rules! for_each_case {
    ($callback:path) => {
        $callback! {
            statements: every_statement_is_understood;
            agents:
                an_agent_is_created_read_changed_and_deleted,
                ids_are_serial_in_each_tenant_and_never_given_again,
                a_taken_name_is_told_and_nothing_changes,
                bad_agents_are_refused_by_field,
                an_upsert_creates_or_changes_and_says_what_was_given,
                racing_upserts_of_one_name_make_one_agent,
                racing_creates_of_one_name_make_one_agent,
                a_soft_deleted_agent_is_hidden_and_its_name_is_free,
                a_soft_deleted_agent_comes_back_unless_its_name_is_taken,
                racing_runs_and_uses_are_all_counted,
                a_session_is_linked_to_an_agent_and_outlives_it,
                a_deleted_agent_takes_what_is_its_own,
                agents_are_filtered_and_ordered,
                what_was_made_of_an_agent_holds_until_it_or_its_prompt_changes,
                agents_of_two_tenants_do_not_meet;
            agent_versions:
                every_change_of_an_agent_makes_a_version_and_nothing_else_does,
                racing_changes_make_distinct_versions_and_lose_nothing,
                a_stale_version_is_told_and_nothing_changes,
                versions_are_compared_by_field,
                a_version_is_restored_as_a_new_one,
                a_version_is_not_restored_over_a_taken_name;
            mcp_servers:
                an_mcp_server_is_created_read_changed_and_deleted,
                secrets_are_kept_and_not_shown,
                bad_mcp_servers_are_refused_and_nothing_changes,
                racing_upserts_of_one_mcp_server_make_one,
                an_mcp_server_is_assigned_to_agents_and_taken_away,
                a_link_to_nothing_is_told,
                mcp_servers_of_two_tenants_do_not_meet;
            stats:
                totals_are_those_of_the_lists;
            teams:
                a_team_is_created_read_changed_and_deleted,
                a_taken_team_name_is_told_and_nothing_changes,
                racing_upserts_of_one_team_make_one_team,
                teams_are_filtered_and_ordered,
                members_join_move_and_leave_without_holes,
                what_is_wrong_with_a_member_is_told_and_nothing_changes,
                racing_changes_of_members_leave_no_holes,
                a_deleted_agent_leaves_its_teams_without_holes,
                teams_of_two_tenants_do_not_meet;
            users:
                a_user_is_created_read_changed_and_deleted,
                a_taken_email_is_told_and_nothing_changes,
                racing_upserts_of_one_email_make_one_user,
                users_are_found_by_id_email_or_phone_number,
                lists_are_filtered_ordered_and_paged,
                a_list_refuses_what_it_does_not_know,
                tenants_do_not_see_or_block_each_other;
            memories:
                a_memory_is_created_read_changed_and_deleted,
                a_taken_name_is_told_and_nothing_changes,
                memories_without_agent_or_user_share_one_place,
                racing_upserts_of_one_memory_make_one,
                memories_are_listed_by_owner_mode_and_pattern,
                expired_memories_are_hidden_replaced_and_removed,
                bad_memories_are_refused_by_field,
                memories_go_with_their_user_agent_and_session,
                tenants_keep_their_memories_apart;
            prompts:
                versions_are_numbered_activated_and_read,
                prompts_of_each_agent_are_counted_apart,
                racing_versions_get_distinct_numbers,
                racing_activations_leave_exactly_one_active,
                bad_prompts_are_refused_by_field,
                tenants_keep_their_prompts_apart;
            preferences:
                preferences_are_upserted_read_patched_and_deleted,
                bad_preferences_are_refused_by_field,
                preferences_are_found_by_json_path,
                racing_patches_lose_nothing,
                preferences_go_with_their_user_and_stay_in_their_tenant;
            artifacts:
                an_artifact_takes_its_session_from_its_message,
                bad_artifacts_are_refused_by_field,
                artifacts_go_with_their_message_and_session;
            metrics:
                samples_are_recorded_read_and_listed,
                statistics_count_every_sample_in_range,
                bad_samples_are_refused_and_of_a_batch_nothing_remains,
                old_samples_are_pruned;
            routing_decisions:
                decisions_are_recorded_read_and_listed,
                bad_decisions_are_refused_by_field,
                decisions_go_with_their_team_session_and_message;
            checkpoints:
                a_checkpoint_is_kept_to_the_letter,
                putting_again_replaces_the_state_and_keeps_the_writes,
                racing_writes_are_all_kept_in_one_piece,
                all_but_the_newest_checkpoints_are_deleted,
                bad_checkpoints_are_refused_by_field,
                checkpoints_go_with_their_session_and_stay_in_their_tenant;
            approvals:
                an_approved_job_goes_on_and_a_rejected_one_is_canceled,
                another_proposal_takes_the_place_of_the_pending_one,
                what_may_not_be_decided_is_told_and_nothing_changes,
                what_nobody_decides_in_time_is_rejected_by_the_system,
                an_attempt_may_ask_and_go_on_when_approved;
            job_claims:
                higher_priorities_and_older_jobs_come_first,
                a_run_is_claimed_in_parts_and_in_order,
                what_changes_within_a_run_is_passed_over,
                runs_that_overlap_give_each_job_once,
                ids_of_a_callers_own_make_no_runs,
                runs_go_with_their_tenant,
                racing_claims_share_the_jobs;
            job_costs:
                a_job_over_budget_waits_at_the_gate_and_says_so,
                what_a_job_logs_counts_once,
                an_attempt_that_ends_holds_nothing,
                a_job_that_is_run_by_hand_has_to_fit,
                budgets_of_user_agent_and_model_apply_to_jobs,
                a_job_that_waits_for_money_keeps_the_order_of_its_session,
                a_small_job_is_found_behind_many_that_do_not_fit,
                what_direct_sql_leaves_reserved_is_found;
            jobs:
                a_job_is_enqueued_claimed_and_completed,
                bad_jobs_are_refused_by_field_and_nothing_is_written,
                many_jobs_are_enqueued_whole_or_not_at_all,
                what_is_enqueued_in_a_transaction_comes_with_its_commit,
                a_late_attempt_has_no_say,
                a_failed_attempt_is_followed_by_another_until_none_is_left,
                a_job_that_is_put_off_or_given_back_loses_no_attempt,
                a_checkpoint_is_there_for_the_next_attempt,
                jobs_of_a_session_run_one_after_another,
                racing_enqueues_of_one_session_lose_nothing_and_keep_their_order,
                a_job_for_later_waits_and_joins_its_session_then,
                one_unfinished_job_has_a_unique_key,
                racing_enqueues_of_one_key_make_one_job,
                a_queued_job_is_canceled_at_once_and_a_running_one_asked,
                canceling_lets_the_next_of_the_session_go,
                an_operator_repeats_what_failed,
                jobs_of_a_dead_worker_are_rescued_or_fail,
                a_worker_that_is_heard_of_keeps_its_jobs,
                a_queue_has_a_limit_and_a_pause,
                schedules_enqueue_each_run_once,
                bad_schedules_are_refused_by_field,
                jobs_are_polled_counted_listed_and_pruned,
                the_status_changes_by_hand_only_as_is_legal,
                jobs_go_with_their_session_and_stay_in_their_tenant;
            tenants:
                a_tenant_is_created_read_changed_and_deleted_with_everything,
                an_unknown_tenant_is_named_by_writes_and_empty_to_reads,
                two_tenants_with_the_same_names_never_see_each_other,
                an_open_transaction_of_one_tenant_does_not_block_another,
                an_append_that_waits_for_its_session_holds_up_no_other,
                a_transaction_sees_its_own_tenant_only;
            sessions:
                a_session_is_created_read_changed_finished_and_deleted,
                the_kind_of_a_session_follows_from_its_leader,
                racing_get_or_create_of_one_chat_makes_one_session,
                get_or_create_gives_the_session_of_a_chat_back_unchanged,
                a_taken_chat_or_id_is_told_and_nothing_changes,
                only_legal_status_changes_happen_and_the_others_change_nothing,
                of_racing_status_changes_one_wins,
                a_stale_revision_is_told_with_the_current_one,
                json_changes_by_merge_patch_as_rfc_7396_says,
                racing_patches_of_different_keys_lose_nothing,
                a_missing_or_foreign_user_agent_or_team_is_told,
                deleting_a_session_or_a_user_deletes_what_hangs_from_it,
                messages_hang_from_their_session_for_direct_sql_too,
                a_session_outlives_its_agent,
                sessions_are_filtered_and_ordered,
                json_filters_compare_every_character,
                paging_neither_skips_nor_repeats_while_rows_are_written,
                a_cursor_of_another_list_is_refused;
            messages:
                appends_get_1_2_3_and_move_their_session,
                append_many_keeps_the_order_without_gap,
                every_field_of_a_message_comes_back_exactly,
                what_was_not_given_stays_absent_and_the_type_follows,
                a_text_of_a_megabyte_and_of_16_comes_back_exactly,
                a_text_over_its_limit_is_refused_by_field_and_nothing_changes,
                a_repeated_platform_message_id_gives_the_first_message_back,
                racing_repeats_of_one_platform_message_id_make_one_message_and_no_gap,
                a_repeated_platform_message_id_in_a_batch_is_told_and_nothing_of_it_stays,
                recent_gives_the_newest_messages_oldest_first,
                messages_are_listed_by_session_with_limit_offset_and_total,
                messages_are_filtered_by_field,
                a_message_is_changed_and_the_rest_of_it_stays,
                racing_patches_of_one_message_lose_nothing,
                deleting_a_message_keeps_the_seq_of_the_others,
                of_racing_deletes_of_one_message_one_counts,
                an_append_to_an_unknown_session_is_not_found,
                a_taken_message_id_is_told_and_leaves_no_gap,
                a_missing_or_foreign_author_or_agent_is_told,
                sql_in_any_string_is_stored_as_text,
                appends_in_a_transaction_are_done_together_or_not_at_all,
                an_old_message_does_not_move_the_time_of_the_newest_back,
                message_ids_are_new_under_contention;
            session_events:
                events_get_1_2_3_and_are_read_behind_a_number,
                bad_events_are_refused,
                racing_events_and_messages_are_numbered_without_gaps,
                pruned_events_are_told_as_a_gap,
                stamps_change_exactly_when_something_changed,
                those_who_wait_for_a_session_are_woken;
            streams:
                a_message_is_started_grows_and_is_finished,
                the_content_is_what_was_given_or_what_it_began_with_and_its_deltas,
                ten_thousand_deltas_are_put_together_exactly,
                a_message_that_breaks_off_stays_incomplete_and_says_why,
                a_message_that_is_not_streaming_is_refused_and_nothing_is_stored,
                a_repeated_start_gives_the_first_message_back,
                sixteen_streams_on_one_session_are_numbered_without_gaps,
                no_delta_comes_behind_the_end,
                a_session_that_is_deleted_while_streaming_leaves_nothing,
                streams_in_a_transaction_are_done_with_it;
            runs:
                a_run_is_started_told_and_finished,
                a_run_that_waits_is_resumed_by_anybody_and_once,
                bad_runs_are_refused,
                runs_are_listed_by_session_agent_status_and_time,
                a_heartbeat_keeps_what_is_the_owners_and_says_what,
                a_run_that_was_taken_over_is_not_finished_by_its_old_owner,
                of_racing_owners_one_takes_a_run_over,
                what_a_run_left_streaming_is_found,
                runs_go_with_their_session_and_stay_in_their_tenant;
            prices:
                a_price_is_created_read_changed_and_deleted,
                overlapping_prices_are_refused_and_name_the_other,
                bad_prices_are_refused_by_field,
                of_racing_prices_of_one_time_one_wins;
            ledger:
                an_entry_is_logged_read_and_listed,
                a_repeated_request_gives_the_first_entry_back,
                a_cost_is_computed_from_the_prices_of_its_time,
                bad_entries_are_refused_and_of_a_batch_nothing_remains,
                statistics_are_the_sums_of_the_entries,
                a_rebuild_gives_the_same_and_mends_roll_ups,
                statistics_stay_exact_while_all_is_moved_at_once,
                sums_of_money_do_not_overflow,
                token_stats_are_those_of_the_last_days,
                entries_of_one_user_or_session_are_listed_by_time,
                a_tenant_that_is_deleted_while_it_logs_leaves_nothing,
                a_ledger_goes_with_its_tenant;
            budgets:
                a_budget_is_created_read_changed_and_deleted,
                bad_budgets_and_reservations_are_refused_by_field,
                a_reservation_is_settled_or_released,
                a_key_reserves_once,
                an_expired_reservation_holds_nothing,
                every_budget_that_applies_is_asked,
                entries_of_the_ledger_are_spent,
                tokens_are_reserved_by_their_price,
                a_reservation_is_part_of_the_callers_transaction;
            deployments:
                a_deployment_is_created_moved_on_and_remembers_every_step,
                only_legal_changes_of_a_deployment_happen,
                of_racing_changes_of_a_deployment_one_wins;
            api_keys:
                an_api_key_is_created_read_changed_revoked_and_deleted,
                bad_api_keys_are_refused_by_field,
                a_key_opens_its_tenant_and_a_wrong_one_nothing,
                a_prefix_that_two_tenants_have_opens_to_each_its_own,
                an_expired_or_revoked_key_opens_nothing_and_says_why,
                many_keys_at_once_are_answered_as_each_by_itself,
                racing_revocations_of_one_key_leave_one_time,
                the_use_of_a_key_is_noted_and_is_no_change,
                racing_uses_of_the_same_keys_all_end,
                only_keys_that_open_something_count_as_any,
                the_secret_of_a_key_is_shown_once_and_not_kept,
                api_keys_of_two_tenants_do_not_meet;
            idempotency:
                a_request_is_claimed_answered_and_repeated,
                what_is_wrong_with_a_claim_is_told,
                a_claim_that_is_rolled_back_leaves_nothing,
                racing_claims_of_one_key_do_the_request_once,
                who_waits_for_a_claim_goes_on_when_it_is_rolled_back,
                a_claim_without_an_answer_is_taken_over_by_one,
                old_idempotency_keys_are_pruned;
            lock:
                a_row_under_lock_says_when_it_was_changed,
                what_cannot_be_locked_is_told,
                of_racing_conditional_changes_of_a_locked_row_one_wins,
                tenants_are_changed_within_the_transaction_of_a_lock;
            raw:
                statements_of_the_callers_run_with_the_same_text_on_every_engine,
                parameters_are_bound_by_number_whatever_their_order,
                values_come_back_as_they_went_in,
                a_batch_is_done_whole_or_not_at_all,
                failing_statements_in_a_crowd_fail_alone,
                a_transaction_is_done_when_committed_and_undone_otherwise,
                a_transaction_that_is_over_says_so,
                statements_of_transaction_control_are_refused,
                a_second_statement_in_one_text_is_refused,
                a_fault_is_an_error_with_a_code_and_never_an_empty_list,
                violated_rules_have_the_same_code_on_every_engine;
        }
    };
}
