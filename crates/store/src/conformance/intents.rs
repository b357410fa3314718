//! What the API may write.

use model::{Digest, IntentSeq, Term, deployment::Phase};

use super::fixture::*;
use crate::{
    CommitError, EventFilter, Expected, Idempotency, IntentOutcome, Refusal, ServiceIntent, Store, Version,
};

pub(super) async fn what_is_committed_is_loaded(store: &Store) {
    let row = create(store, "api").await;
    assert_eq!(row.service, service("api", 1, 1));
    assert_eq!(row.deployments, [deployment("api", 1, release(1).digest(), Phase::Queued)]);
    assert_eq!(*row.releases[&release(1).digest()], release(1));
    assert_eq!(row.next_deployment_number, 2);
    assert_eq!(store.load(&key("other")).await.expect("absent is no error"), None);
    let all = store.load_all().await.expect("all can be read");
    assert!(matches!(&all[..], [crate::Loaded::Read(one)] if **one == row), "{all:?}");
}

pub(super) async fn a_conflict_names_the_service_and_writes_nothing(store: &Store) {
    create(store, "api").await;
    let stale = intent(Expected::Intent(IntentSeq(7)), service("api", 8, 2), vec![]);
    let mut both = commit(vec![first("fine"), stale]);
    both.events.push(event("fine", "applied"));
    both.audit.push(audited("apply"));
    let error = store.commit_intents(None, both).await.expect_err("it is not at 7");
    let CommitError::Conflict { key: named, expected, found } = &error else { panic!("{error}") };
    assert_eq!(
        (named, *expected, *found),
        (&key("api"), Version::Intent(IntentSeq(7)), Version::Intent(IntentSeq(1)))
    );
    assert!(!error.is_retryable());
    assert_eq!(store.load(&key("fine")).await.expect("readable"), None);
    assert_eq!(store.latest_event_seq().await.expect("readable"), 0);
    assert_eq!(store.verify_audit().await.expect("whole"), 0);

    let error = store.commit_intents(None, commit(vec![first("api")])).await.expect_err("it exists");
    assert!(matches!(error, CommitError::Conflict { expected: Version::Absent, .. }), "{error}");
}

pub(super) async fn a_repeated_key_gets_the_first_answer_and_has_no_effect(store: &Store) {
    let answer = Idempotency {
        scope: "admin".into(),
        key: "k1".into(),
        body_digest: Digest::of_bytes(b"body"),
        status: 201,
        response: "{}".into(),
    };
    let mut request = commit(vec![first("api")]);
    request.idempotency = Some(answer.clone());
    request.events.push(event("api", "applied"));
    let first = store.commit_intents(None, request.clone()).await.expect("new");
    assert_eq!(first, IntentOutcome::Committed { latest_event: 1 });
    let again = store.commit_intents(None, request).await.expect("a repeat is no error");
    let IntentOutcome::Replayed(stored) = again else { panic!("{again:?}") };
    assert_eq!(
        (stored.body_digest, stored.status, stored.response.as_str()),
        (answer.body_digest, 201, "{}")
    );
    assert_eq!(store.latest_event_seq().await.expect("readable"), 1);
    assert_eq!(store.idempotent("admin", "k1").await.expect("readable"), Some(stored));
    assert_eq!(store.idempotent("other", "k1").await.expect("readable"), None);
}

pub(super) async fn a_service_has_one_open_deployment_at_most(store: &Store) {
    create(store, "api").await;
    let second = deployment("api", 2, release(2).digest(), Phase::Queued);
    let request = intent(Expected::Intent(IntentSeq(1)), service("api", 2, 2), vec![second]);
    let error = store.commit_intents(None, commit(vec![request])).await.expect_err("the first is open");
    let refused =
        matches!(&error, CommitError::Refused { why: Refusal::SecondDeployment { phase: "open", .. }, .. });
    assert!(refused, "{error}");
    assert_eq!(load(store, "api").await.service.intent_seq, IntentSeq(1));
}

pub(super) async fn an_open_deployment_may_give_way_to_another_in_one_commit(store: &Store) {
    create(store, "api").await;
    let cancelled = deployment("api", 1, release(1).digest(), Phase::Cancelled);
    let second = deployment("api", 2, release(2).digest(), Phase::Queued);
    let request =
        intent(Expected::Intent(IntentSeq(1)), service("api", 2, 2), vec![second.clone(), cancelled]);
    store.commit_intents(None, commit(vec![request])).await.expect("one is open after it").assert_committed();
    let row = load(store, "api").await;
    assert_eq!(row.deployments, [second]);
    assert_eq!(row.next_deployment_number, 3);
    let history = store.deployments(&key("api"), 10).await.expect("readable");
    assert_eq!(
        history.iter().map(|d| (d.number, d.phase)).collect::<Vec<_>>(),
        [(2, Phase::Queued), (1, Phase::Cancelled)]
    );
}

pub(super) async fn deployment_numbers_are_never_reused(store: &Store) {
    create(store, "api").await;
    let mut again = deployment("api", 1, release(1).digest(), Phase::Failed);
    again.id = "another".parse().expect("an id");
    let request = intent(Expected::Intent(IntentSeq(1)), service("api", 2, 1), vec![again]);
    let error = store.commit_intents(None, commit(vec![request])).await.expect_err("number 1 is taken");
    assert!(
        matches!(&error, CommitError::Refused { why: Refusal::NumberReused { given: 1, next: 2, .. }, .. }),
        "{error}"
    );
}

pub(super) async fn a_release_whose_artifact_is_missing_is_refused(store: &Store) {
    let content = artifact("hello");
    let request = |digest| {
        let release = site(digest);
        let mut service = service("docs", 1, 1);
        service.target = Some(release.digest());
        ServiceIntent { expected: Expected::Absent, service, releases: vec![release], deployments: vec![] }
    };
    let request = commit(vec![request(content.digest())]);
    let error = store.commit_intents(None, request.clone()).await.expect_err("nobody uploaded it");
    assert!(matches!(&error, CommitError::Refused { why: Refusal::MissingArtifact { .. }, .. }), "{error}");
    store.put_artifact(&content, AT).await.expect("written");
    store.commit_intents(None, request).await.expect("it is there now").assert_committed();
}

pub(super) async fn a_target_that_is_not_stored_is_refused(store: &Store) {
    let mut request = first("api");
    request.service.target = Some(release(9).digest());
    let error = store.commit_intents(None, commit(vec![request])).await.expect_err("release 9 is nowhere");
    assert!(matches!(&error, CommitError::Refused { why: Refusal::MissingRelease { .. }, .. }), "{error}");
}

pub(super) async fn an_intent_of_a_stale_term_is_refused(store: &Store) {
    let old = Leader::of(store, "old").await;
    let new = Leader::of(store, "new").await;
    let fence = |leader: &Leader| Some((leader.term, leader.holder.clone()));
    let error =
        store.commit_intents(fence(&old), commit(vec![first("api")])).await.expect_err("its term is over");
    assert!(matches!(&error, CommitError::StaleTerm { held: Some((Term(2), _)), .. }), "{error}");
    store.commit_intents(fence(&new), commit(vec![first("api")])).await.expect("it leads").assert_committed();
}

pub(super) async fn an_intent_sequence_never_falls(store: &Store) {
    create(store, "api").await;
    let request = intent(Expected::Intent(IntentSeq(1)), service("api", 1, 2), vec![]);
    let error = store.commit_intents(None, commit(vec![request])).await.expect_err("1 does not follow 1");
    assert!(
        matches!(&error, CommitError::Refused { why: Refusal::NotRising { what: "intent", .. }, .. }),
        "{error}"
    );
    let none = store.events_after(0, &EventFilter::default(), 10).await.expect("readable");
    assert_eq!(none, []);
}

impl IntentOutcome {
    /// # Panics
    /// When it was a replay.
    fn assert_committed(&self) {
        assert!(matches!(self, Self::Committed { .. }), "{self:?}");
    }
}
