//! What every implementation of [`Store`] must do, as tests that know only the trait.
//!
//! An implementation calls [`suite!`] with a function that makes a new, empty place and returns an
//! [`Opener`] of it; calling the opener again after a close is a restart on the same place.
//!
//! **Invariant:** names no implementation and no database.

pub(crate) mod behind;
pub(crate) mod executions;
pub(crate) mod functions;
pub(crate) mod guards;
pub(crate) mod keys;
pub(crate) mod late_runs;
pub(crate) mod lists;
pub(crate) mod restart;
pub(crate) mod retention;
pub(crate) mod runtime_config;
pub(crate) mod secrets;
pub(crate) mod world;

use std::sync::Arc;

use super::Store;

/// Opens the store of one place.
pub(crate) type Opener = Box<dyn Fn() -> Arc<dyn Store> + Send + Sync>;

/// All cases by subject, run against one implementation.
macro_rules! suite {
    ($new_place:ident) => {
        $crate::store::conformance::cases!($new_place;
            functions:
                keeps_functions_with_versions_and_settings,
                keeps_every_field_of_a_version,
                refuses_a_taken_name,
                refuses_changes_of_what_is_not_there,
                refuses_a_version_number_twice,
                makes_another_function_of_a_name_used_again;
            executions:
                keeps_what_was_accepted,
                keeps_a_whole_life,
                keeps_each_terminal_state_with_its_failure,
                keeps_a_retry_queued_until_it_is_due,
                keeps_logs_as_they_were_written,
                knows_every_word_for_an_outcome,
                refuses_work_for_no_function,
                refuses_an_id_twice_and_nothing_else,
                answers_many_transitions_in_order;
            guards:
                lets_the_holder_of_the_latest_claim_finish,
                turns_an_older_claim_away,
                never_logs_an_older_claim_or_one_of_an_ended_execution,
                changes_nothing_that_has_ended,
                redrives_errors_and_timeouts_only,
                forgets_the_first_life_when_redriven,
                keeps_claims_in_order_with_transitions;
            keys:
                gives_a_key_to_the_first,
                gives_a_key_to_one_of_many_at_once,
                gives_an_expired_key_away,
                keeps_keys_of_functions_apart,
                leaves_no_key_behind_a_refusal,
                forgets_keys_with_their_function;
            lists:
                lists_newest_first_by_function_and_status,
                reads_several_at_once,
                lists_from_a_time_on,
                lists_until_a_time,
                pages_without_gaps_or_repeats,
                pages_through_what_has_not_ended;
            behind:
                sees_an_ended_execution_at_once,
                keeps_an_ended_execution,
                keeps_a_summary_without_bodies,
                keeps_sizes_of_an_exchange_and_runs_that_say_something,
                lists_what_was_recorded_before,
                redrives_what_was_only_just_recorded;
            late_runs:
                adds_the_run_of_what_has_ended_and_changes_nothing_else,
                adds_an_older_run_to_what_goes_on,
                adds_a_run_to_what_was_only_just_recorded,
                adds_a_run_to_an_exchange,
                adds_no_run_to_a_summary_or_to_nobody;
            secrets:
                keeps_secrets_by_name,
                forgets_a_secret_that_is_deleted;
            retention:
                removes_what_is_old_with_all_that_belongs_to_it,
                removes_no_more_than_a_step_at_once,
                removes_expired_keys;
            runtime_config:
                has_no_revision_at_first,
                keeps_the_latest_revision_over_a_restart,
                turns_away_a_change_of_another_revision,
                lets_one_of_many_changes_through;
            restart:
                grows_the_boot_number,
                finds_running_work_after_a_restart,
                refuses_everything_once_closed;
        );
    };
}

/// One test per case.
macro_rules! cases {
    ($new_place:ident; $($subject:ident: $($case:ident),+;)+) => {
        $(mod $subject {
            $(#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
            async fn $case() {
                let opener = super::$new_place();
                let world = $crate::store::conformance::World::new(opener);
                $crate::store::conformance::$subject::$case(world).await;
            })+
        })+
    };
}

pub(crate) use world::World;
pub(crate) use {cases, suite};
