//! What a leader may write.

use std::sync::Arc;

use model::{
    Generation, IntentSeq, PlanSeq, RouteRevision, Term,
    deployment::{Cause, Deployment, Phase},
    plan::{Decision, Parent, Plan},
};

use super::fixture::*;
use crate::{CommitError, Expected, Refusal, Store, Version};

pub(super) async fn a_plan_is_committed_whole(store: &Store) {
    let leader = Leader::of(store, "a").await;
    let (api, web) = (create(store, "api").await, create(store, "web").await);
    let mut placing = placing(&api, release(1).digest());
    placing.events.push(event("api", "placed"));
    let plan = leader.plan(store, vec![placing.clone(), reaching(&web, Phase::Starting)]).await;
    let plan = Arc::new(Plan { route_revision: RouteRevision(1), ..Plan::clone(&plan) });
    let committed = store.commit_plan(plan, vec![journalled("api", "w", AT)]).await.expect("it is due");
    assert_eq!((committed.latest_event, committed.journal), (1, Some(1)));
    assert_eq!(load(store, "api").await.plan, placing.plan);
    assert_eq!(load(store, "web").await.deployments[0].phase, Phase::Starting);
    let counters = store.counters().await.expect("readable");
    assert_eq!((counters.generation, counters.route_revision), (Generation(1), RouteRevision(1)));
}

pub(super) async fn a_stale_term_is_refused_without_effects(store: &Store) {
    let old = Leader::of(store, "a").await;
    let row = create(store, "api").await;
    let plan = old.plan(store, vec![placing(&row, release(1).digest())]).await;
    let new = Leader::of(store, "b").await;
    let before = store.counters().await.expect("readable");
    let error =
        store.commit_plan(plan, vec![journalled("api", "w", AT)]).await.expect_err("its term is over");
    let CommitError::StaleTerm { asked, held } = &error else { panic!("{error}") };
    assert_eq!((asked.0, held.clone()), (old.term, Some((new.term, new.holder.clone()))));
    assert_eq!(load(store, "api").await, row);
    assert_eq!(store.counters().await.expect("readable"), before);
    assert_eq!(store.journal_latest(&key("api")).await.expect("readable"), None);
}

pub(super) async fn the_right_term_with_another_holder_is_refused(store: &Store) {
    let leader = Leader::of(store, "a").await;
    let other = Leader { holder: holder("b"), ..leader };
    let plan = other.plan(store, vec![]).await;
    let error = store.commit_plan(plan, vec![]).await.expect_err("b holds nothing");
    assert!(matches!(error, CommitError::StaleTerm { .. }), "{error}");
}

pub(super) async fn a_decision_whose_parent_moved_writes_nothing_of_the_plan(store: &Store) {
    let leader = Leader::of(store, "a").await;
    let (api, web) = (create(store, "api").await, create(store, "web").await);
    let plan = leader.plan(store, vec![decision(&web), decision(&api)]).await;
    let moved = intent(Expected::Intent(IntentSeq(1)), service("api", 2, 1), vec![]);
    let _ = store.commit_intents(None, commit(vec![moved])).await.expect("nobody else writes");
    let error = store.commit_plan(plan, vec![]).await.expect_err("api has moved");
    let CommitError::Conflict { key: named, expected, found } = &error else { panic!("{error}") };
    let version = |intent| Version::Parent(Parent { intent: IntentSeq(intent), plan: PlanSeq(0) });
    assert_eq!((named, *expected, *found), (&key("api"), version(1), version(2)));
    assert_eq!(load(store, "web").await, web);
    assert_eq!(store.counters().await.expect("readable").generation, Generation(0));
}

pub(super) async fn a_generation_is_taken_once(store: &Store) {
    let leader = Leader::of(store, "a").await;
    let plan = leader.plan(store, vec![]).await;
    store.commit_plan(Arc::clone(&plan), vec![]).await.expect("it is due");
    let error = store.commit_plan(plan, vec![]).await.expect_err("1 is taken");
    let next = matches!(error, CommitError::StaleGeneration { asked: Generation(1), next: Generation(2) });
    assert!(next, "{error}");
}

pub(super) async fn an_outcome_comes_once(store: &Store) {
    let leader = Leader::of(store, "a").await;
    let row = create(store, "api").await;
    leader.commit(store, reaching(&row, Phase::Failed)).await;
    let row = load(store, "api").await;
    for phase in [Phase::Queued, Phase::Active, Phase::Cancelled, Phase::Superseded] {
        let plan = leader.plan(store, vec![reaching(&row, phase)]).await;
        let error = store.commit_plan(plan, vec![]).await.expect_err("it has failed");
        let illegal = matches!(
            &error,
            CommitError::Refused { why: Refusal::IllegalPhase { from: Phase::Failed, to, .. }, .. } if *to == phase
        );
        assert!(illegal, "{error}");
    }
}

/// The service after deployment 1 has become active and 2 is queued.
async fn with_a_second_deployment(store: &Store, leader: &Leader) -> Vec<Deployment> {
    let row = create(store, "api").await;
    leader.commit(store, reaching(&row, Phase::Active)).await;
    let second = deployment("api", 2, release(2).digest(), Phase::Queued);
    let request = intent(Expected::Intent(IntentSeq(1)), service("api", 2, 2), vec![second]);
    let _ = store.commit_intents(None, commit(vec![request])).await.expect("1 is no longer open");
    load(store, "api").await.deployments
}

fn advanced(deployment: &Deployment, phase: Phase) -> Deployment {
    Deployment { phase, ..deployment.clone() }
}

pub(super) async fn the_active_deployment_is_superseded_in_the_commit_that_replaces_it(store: &Store) {
    let leader = Leader::of(store, "a").await;
    let both = with_a_second_deployment(store, &leader).await;
    let [one, two] = &both[..] else { panic!("{both:?}") };
    let row = load(store, "api").await;
    let alone = Decision { deployments: vec![advanced(two, Phase::Active)], ..decision(&row) };
    let error =
        store.commit_plan(leader.plan(store, vec![alone]).await, vec![]).await.expect_err("1 is active");
    let second =
        matches!(&error, CommitError::Refused { why: Refusal::SecondDeployment { phase: "active", .. }, .. });
    assert!(second, "{error}");
    let deployments = vec![advanced(two, Phase::Active), advanced(one, Phase::Superseded)];
    leader.commit(store, Decision { deployments, ..decision(&row) }).await;
    let row = load(store, "api").await;
    assert_eq!(row.deployments.iter().map(|d| (d.number, d.phase)).collect::<Vec<_>>(), [(2, Phase::Active)]);
}

pub(super) async fn a_restoration_leaves_the_failed_attempt_in_sight(store: &Store) {
    let leader = Leader::of(store, "a").await;
    let both = with_a_second_deployment(store, &leader).await;
    let row = load(store, "api").await;
    let mut restore = deployment("api", 3, release(1).digest(), Phase::Queued);
    restore.cause = Cause::Restore;
    let mut moved = row.service.clone();
    moved.target = Some(release(1).digest());
    moved.intent_seq = moved.intent_seq.next();
    let deployments = vec![restore, advanced(&both[1], Phase::Failed)];
    leader.commit(store, Decision { service: Some(moved), deployments, ..decision(&row) }).await;
    let row = load(store, "api").await;
    let shown: Vec<_> = row.deployments.iter().map(|d| (d.number, d.phase)).collect();
    assert_eq!(shown, [(1, Phase::Active), (2, Phase::Failed), (3, Phase::Queued)]);
    assert_eq!(row.parent(), Parent { intent: IntentSeq(3), plan: PlanSeq(2) });
}

pub(super) async fn a_purged_service_leaves_its_counters(store: &Store) {
    let leader = Leader::of(store, "a").await;
    let row = create(store, "api").await;
    let mut placed = placing(&row, release(1).digest());
    placed.deployments = reaching(&row, Phase::Cancelled).deployments;
    leader.commit(store, placed).await;
    let row = load(store, "api").await;
    leader.commit(store, Decision { purge: true, ..decision(&row) }).await;
    assert_eq!(store.load(&key("api")).await.expect("readable"), None);
    assert!(store.load_all().await.expect("readable").is_empty());
    assert_eq!(store.deployments(&key("api"), 10).await.expect("readable"), []);
    let floor = store.floor(&key("api")).await.expect("readable");
    assert!(!floor.exists);
    assert_eq!((floor.next_deployment_number, floor.next_incarnation.0, floor.intent.0), (2, 1, 1));

    // A leader that still has the old row in mind must not hit the new service.
    let late = decision(&row);
    let again = deployment("api", 2, release(1).digest(), Phase::Queued);
    let request = intent(Expected::Absent, service("api", 2, 1), vec![again]);
    let _ = store.commit_intents(None, commit(vec![request])).await.expect("the name is free");
    let revived = load(store, "api").await;
    assert_eq!((revived.plan.next_incarnation, revived.plan.seq), (floor.next_incarnation, floor.plan));
    assert!(revived.plan.placements.is_empty());
    let error =
        store.commit_plan(leader.plan(store, vec![late]).await, vec![]).await.expect_err("it is another");
    assert!(matches!(error, CommitError::Conflict { .. }), "{error}");
}

pub(super) async fn an_open_deployment_keeps_its_service_from_being_purged(store: &Store) {
    let leader = Leader::of(store, "a").await;
    let row = create(store, "api").await;
    let plan = leader.plan(store, vec![Decision { purge: true, ..decision(&row) }]).await;
    let error = store.commit_plan(plan, vec![]).await.expect_err("1 has no outcome");
    assert!(matches!(&error, CommitError::Refused { why: Refusal::PurgedWhileOpen { .. }, .. }), "{error}");
    assert_eq!(load(store, "api").await, row);
}

pub(super) async fn terms_only_rise(store: &Store) {
    let begin = async |seen| store.acquire_term(&holder("a"), Term(seen)).await.expect("written");
    assert_eq!(begin(0).await, Term(1));
    assert_eq!(begin(0).await, Term(2));
    assert_eq!(begin(40).await, Term(41));
    assert_eq!(begin(7).await, Term(42));
    assert_eq!(store.counters().await.expect("readable").term, Term(42));
}
