//! The suite that every backend passes: what the store promises, as functions over a fresh store each. Knows no
//! backend.

pub mod commits;
mod fixture;
mod intents;
mod plans;
mod records;

#[cfg(test)]
pub(crate) use fixture::*;

use crate::Store;

macro_rules! suite {
    ($($story:ident::$check:ident),* $(,)?) => {
        /// Runs every check, each on a store made for it.
        ///
        /// # Panics
        /// When the backend breaks a promise.
        pub async fn run_all(make_store: impl AsyncFn() -> Store) {
            $($story::$check(&make_store().await).await;)*
        }

        #[cfg(test)]
        mod sqlite {
            $(
                #[tokio::test]
                async fn $check() {
                    let dir = tempfile::tempdir().unwrap();
                    let store = crate::Store::open(&dir.path().join("store.db")).await.unwrap();
                    super::$story::$check(&store).await;
                }
            )*
        }
    };
}

suite! {
    intents::what_is_committed_is_loaded,
    intents::a_conflict_names_the_service_and_writes_nothing,
    intents::a_repeated_key_gets_the_first_answer_and_has_no_effect,
    intents::a_service_has_one_open_deployment_at_most,
    intents::an_open_deployment_may_give_way_to_another_in_one_commit,
    intents::deployment_numbers_are_never_reused,
    intents::a_release_whose_artifact_is_missing_is_refused,
    intents::a_target_that_is_not_stored_is_refused,
    intents::an_intent_of_a_stale_term_is_refused,
    intents::an_intent_sequence_never_falls,
    plans::a_plan_is_committed_whole,
    plans::a_stale_term_is_refused_without_effects,
    plans::the_right_term_with_another_holder_is_refused,
    plans::a_decision_whose_parent_moved_writes_nothing_of_the_plan,
    plans::a_generation_is_taken_once,
    plans::an_outcome_comes_once,
    plans::the_active_deployment_is_superseded_in_the_commit_that_replaces_it,
    plans::a_restoration_leaves_the_failed_attempt_in_sight,
    plans::a_purged_service_leaves_its_counters,
    plans::an_open_deployment_keeps_its_service_from_being_purged,
    plans::terms_only_rise,
    records::the_journal_gives_back_worlds_and_reports,
    records::events_come_in_one_sequence,
    records::the_newest_event_of_some_kinds_is_found_for_each_service,
    records::the_feed_tells_of_commits,
    records::the_audit_trail_verifies,
    records::time_never_goes_back,
    records::a_drain_begins_and_ends_once,
    records::a_token_is_known_by_its_digest_until_it_is_revoked,
    records::a_restored_store_is_ahead_of_its_backup,
    records::an_artifact_in_use_stays,
    records::old_logs_are_pruned_and_the_latest_report_stays,
    records::a_release_that_a_rollback_may_need_stays,
}
