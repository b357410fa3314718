//! Journal, events, audit, artifacts, and what of them may be forgotten.

use model::{
    Millis, Timestamp,
    deployment::{Deployment, Phase},
    event::{Event, Kind},
    plan::Decision,
};

use super::fixture::*;
use crate::{Changed, EventFilter, Expected, Retention, ServiceIntent, Store};

pub(super) async fn the_journal_gives_back_worlds_and_reports(store: &Store) {
    let entry = journalled("api", &"world ".repeat(100), AT);
    for expected in 1..=3 {
        assert_eq!(store.append_journal(entry.clone()).await.expect("written"), expected);
    }
    let read = store.journal(2).await.expect("readable").expect("there");
    assert_eq!((read.line.seq, &read.line.key, read.line.at), (2, &entry.key, entry.at));
    assert_eq!((read.world, read.line.world_digest), (entry.world, entry.world_digest));
    assert_eq!((read.line.decision, read.line.report), (entry.decision, entry.report));
    let seqs = |lines: Vec<crate::JournalLine>| lines.iter().map(|l| l.seq).collect::<Vec<_>>();
    assert_eq!(seqs(store.journal_of(&key("api"), 2, None).await.expect("readable")), [3, 2]);
    assert_eq!(seqs(store.journal_of(&key("api"), 9, Some(2)).await.expect("readable")), [1]);
    assert_eq!(store.journal_latest(&key("api")).await.expect("readable").map(|l| l.seq), Some(3));
    assert_eq!(store.journal(4).await.expect("readable"), None);
}

pub(super) async fn events_come_in_one_sequence(store: &Store) {
    let events = vec![event("api", "one"), event("web", "two"), event("api", "three")];
    assert_eq!(store.append_events(events, AT).await.expect("written"), 3);
    assert_eq!(store.append_events(vec![], AT).await.expect("written"), 3);
    let read = async |after, service: Option<&str>, limit| {
        let filter = EventFilter { service: service.map(key) };
        let events = store.events_after(after, &filter, limit).await.expect("readable");
        events.into_iter().map(|e| (e.seq, e.event.message)).collect::<Vec<_>>()
    };
    assert_eq!(read(0, None, 2).await, [(1, "one".into()), (2, "two".into())]);
    assert_eq!(read(2, None, 10).await, [(3, "three".into())]);
    assert_eq!(read(1, Some("api"), 10).await, [(3, "three".into())]);
}

pub(super) async fn the_newest_event_of_some_kinds_is_found_for_each_service(store: &Store) {
    let _ = store.commit_intents(None, commit(vec![first("api"), first("web")])).await.expect("new");
    let of = |name: &str, kind, message: &str| Event { kind, ..event(name, message) };
    let told = |kinds: &'static [Kind]| async move {
        let found = store.newest_events(kinds).await.expect("readable");
        found.into_iter().map(|found| found.event.message).collect::<Vec<_>>()
    };
    let issues = &[Kind::DriftFound, Kind::InstanceExited];
    assert!(told(issues).await.is_empty());
    let events = vec![
        of("api", Kind::DriftFound, "one"),
        of("api", Kind::InstanceExited, "two"),
        of("api", Kind::InstanceReady, "three"),
        of("web", Kind::DriftFound, "four"),
        of("nobody", Kind::DriftFound, "five"),
    ];
    store.append_events(events, AT).await.expect("written");
    assert_eq!(told(issues).await, ["two", "four"]);
    assert_eq!(told(&issues[..1]).await, ["one", "four"]);
    store.append_events(vec![of("web", Kind::ServicePurged, "six")], AT).await.expect("written");
    assert_eq!(told(issues).await, ["two"], "what was told of an earlier one of its name");
    store.append_events(vec![of("web", Kind::DriftFound, "seven")], AT).await.expect("written");
    assert_eq!(told(issues).await, ["two", "seven"]);
}

pub(super) async fn the_feed_tells_of_commits(store: &Store) {
    let (mut latest, mut changes) = (store.subscribe(), store.changes());
    let mut request = commit(vec![first("api")]);
    request.events.push(event("api", "applied"));
    let _ = store.commit_intents(None, request).await.expect("new");
    assert_eq!(*latest.borrow_and_update(), 1);
    let Ok(Changed::Intents(keys)) = changes.try_recv() else { panic!("an intent was committed") };
    assert_eq!(*keys, [key("api")]);
    let leader = Leader::of(store, "a").await;
    leader.commit(store, decision(&load(store, "api").await)).await;
    assert!(matches!(changes.try_recv(), Ok(Changed::Plans(keys)) if *keys == [key("api")]));
    assert!(!latest.has_changed().expect("the store lives"), "no event, no news");
    store.commit_intents(None, commit(vec![first("api")])).await.expect_err("it exists");
    assert!(changes.try_recv().is_err(), "nothing was written");
}

pub(super) async fn the_audit_trail_verifies(store: &Store) {
    for actions in [vec!["apply"], vec!["scale", "stop"]] {
        let mut request = commit(vec![]);
        request.audit = actions.into_iter().map(audited).collect();
        let _ = store.commit_intents(None, request).await.expect("written");
    }
    assert_eq!(store.verify_audit().await.expect("whole"), 3);
    let rows = store.audit_after(1, 10).await.expect("readable");
    assert_eq!(rows.iter().map(|r| r.entry.clone()).collect::<Vec<_>>(), [audited("scale"), audited("stop")]);
    assert_eq!(rows[1].prev, rows[0].hash);
}

pub(super) async fn time_never_goes_back(store: &Store) {
    assert_eq!(store.max_time().await.expect("readable"), Timestamp::ZERO);
    for (noted, latest) in [(5, 5), (3, 5), (9, 9)] {
        store.note_time(Timestamp(noted)).await.expect("written");
        assert_eq!(store.max_time().await.expect("readable"), Timestamp(latest));
    }
    create(store, "api").await;
    assert_eq!(store.max_time().await.expect("readable"), AT);
}

pub(super) async fn an_artifact_in_use_stays(store: &Store) {
    let (used, unused) = (artifact("used"), artifact("unused"));
    for artifact in [&used, &unused] {
        let digest = store.put_artifact(artifact, AT).await.expect("written");
        assert_eq!(store.artifact(&digest).await.expect("readable").as_ref(), Some(artifact));
    }
    let release = site(used.digest());
    let mut service = service("docs", 1, 1);
    service.target = Some(release.digest());
    let request =
        ServiceIntent { expected: Expected::Absent, service, releases: vec![release], deployments: vec![] };
    let _ = store.commit_intents(None, commit(vec![request])).await.expect("new");
    assert_eq!(store.artifacts_in_use().await.expect("readable"), [used.digest()].into());
    assert_eq!(store.artifacts_unused(AT).await.expect("readable"), [].into());
    assert_eq!(store.artifacts_unused(AT + Millis(1)).await.expect("readable"), [unused.digest()].into());
    assert!(!store.delete_artifact(&used.digest()).await.expect("no error"));
    assert!(store.delete_artifact(&unused.digest()).await.expect("no error"));
    assert_eq!(store.artifact(&unused.digest()).await.expect("readable"), None);
    assert!(store.artifact(&used.digest()).await.expect("readable").is_some());
}

pub(super) async fn old_logs_are_pruned_and_the_latest_report_stays(store: &Store) {
    create(store, "api").await;
    for (at, world) in [(10, "a"), (20, "b"), (30, "b"), (40, "c")] {
        store.append_journal(journalled("api", world, Timestamp(at))).await.expect("written");
        store.append_events(vec![event("api", world)], Timestamp(at)).await.expect("written");
    }
    store.append_journal(journalled("gone", "d", Timestamp(10))).await.expect("written");
    let retention = Retention {
        journal_per_service: 2,
        journal_age: Millis(1000),
        events: 1,
        events_age: Millis(1000),
        idempotency_age: Millis(1000),
        deployments_per_service: 10,
    };
    let pruned = store.prune(Timestamp(100), &retention).await.expect("written");
    assert_eq!((pruned.journal, pruned.worlds, pruned.events), (2, 1, 3));
    let later = store.prune(Timestamp(5000), &retention).await.expect("written");
    assert_eq!((later.journal, later.worlds, later.events), (2, 2, 1));
    let latest = store.journal_latest(&key("api")).await.expect("readable").expect("the latest stays");
    assert_eq!(store.journal(latest.seq).await.expect("readable").expect("whole").world, b"c");
    assert_eq!(store.journal_latest(&key("gone")).await.expect("readable"), None);
}

/// Five versions, one after the other, with failed attempts in between; the service retains two.
pub(super) async fn a_release_that_a_rollback_may_need_stays(store: &Store) {
    let leader = Leader::of(store, "a").await;
    create(store, "api").await;
    end_newest(store, &leader, Phase::Active).await;
    for (intent_seq, version, phase) in [
        (2, 2, Phase::Active),
        (3, 3, Phase::Active),
        (4, 4, Phase::Active),
        (5, 11, Phase::Failed),
        (6, 12, Phase::Failed),
        (7, 13, Phase::Failed),
        (8, 14, Phase::Failed),
    ] {
        deploy(store, intent_seq, version).await;
        end_newest(store, &leader, phase).await;
    }
    let retention = Retention { deployments_per_service: 0, ..Retention::default() };
    let pruned = store.prune(AT, &retention).await.expect("written");
    assert_eq!((pruned.releases, pruned.deployments), (2, 2));
    let kept = load(store, "api").await.releases;
    for (version, stays) in [(1, false), (2, true), (3, true), (4, true), (11, false), (12, true), (14, true)]
    {
        assert_eq!(kept.contains_key(&release(version).digest()), stays, "version {version}");
    }
    assert_eq!(store.prune(AT, &retention).await.expect("written"), crate::Pruned::default(), "at rest");
}

async fn deploy(store: &Store, intent_seq: u64, version: u32) {
    let new = deployment("api", intent_seq, release(version).digest(), Phase::Queued);
    let expected = Expected::Intent(model::IntentSeq(intent_seq - 1));
    let request = intent(expected, service("api", intent_seq, version), vec![new]);
    let _ = store.commit_intents(None, commit(vec![request])).await.expect("nobody else writes");
}

/// Ends the open deployment; when it becomes active, the one before is superseded.
async fn end_newest(store: &Store, leader: &Leader, phase: Phase) {
    let row = load(store, "api").await;
    let ended = row.deployments.iter().filter_map(|d| match d.phase {
        open if open.is_open() => Some(Deployment { phase, ..d.clone() }),
        Phase::Active if phase == Phase::Active => Some(Deployment { phase: Phase::Superseded, ..d.clone() }),
        _ => None,
    });
    leader.commit(store, Decision { deployments: ended.collect(), ..decision(&row) }).await;
}

pub(super) async fn a_restored_store_is_ahead_of_its_backup(store: &Store) {
    let leader = Leader::of(store, "a").await;
    let _ = store.commit_intents(None, commit(vec![first("api")])).await.expect("new");
    leader.commit(store, decision(&load(store, "api").await)).await;
    let (before, row) = (store.counters().await.expect("readable"), load(store, "api").await);
    let by = crate::Raise { terms: 1000, incarnations: 50 };
    store.put_ahead(by, AT, audited("restore")).await.expect("written");
    let after = store.counters().await.expect("readable");
    assert_eq!(after.term.0, before.term.0 + 1000);
    assert_eq!(after.generation.0, before.generation.0 + 1000);
    assert_eq!(after.route_revision.0, before.route_revision.0 + 1000);
    let again = load(store, "api").await;
    assert_eq!(again.plan.next_incarnation.0, row.plan.next_incarnation.0 + 50);
    assert_eq!((again.service, again.plan.placements), (row.service, row.plan.placements));
    assert_eq!(store.verify_audit().await.expect("whole"), 1);
}

fn told(action: &str) -> crate::Told {
    crate::Told { at: AT, audit: audited(action), events: vec![event("api", action)], answer: None }
}

pub(super) async fn a_drain_begins_and_ends_once(store: &Store) {
    let node: model::NodeId = "n1".parse().expect("a node");
    let drain = model::node::Drain { since: AT, by: "admin".into() };
    for (is_new, audited) in [(true, 1), (false, 1)] {
        let begun = store.begin_drain(node.clone(), drain.clone(), told("drain")).await.expect("written");
        assert_eq!(begun, is_new);
        assert_eq!(store.verify_audit().await.expect("whole"), audited);
    }
    assert_eq!(store.drains().await.expect("readable"), [(node.clone(), drain)]);
    assert!(store.end_drain(node.clone(), told("undrain")).await.expect("written"));
    assert!(!store.end_drain(node, told("undrain")).await.expect("written"));
    assert!(store.drains().await.expect("readable").is_empty());
    assert_eq!(store.latest_event_seq().await.expect("readable"), 2);
}

pub(super) async fn a_token_is_known_by_its_digest_until_it_is_revoked(store: &Store) {
    let grant = model::access::Grant {
        name: "ci".parse().expect("a name"),
        role: model::access::Role::Deployer,
        project: Some("demo".parse().expect("a project")),
        created_at: AT,
        created_by: "local".into(),
        expires_at: Some(AT + Millis::secs(60)),
    };
    let digest = |text: &str| model::Digest::of_bytes(text.as_bytes());
    assert!(store.put_token(digest("a"), &grant, told("token.create")).await.expect("written"));
    assert!(!store.put_token(digest("b"), &grant, told("token.create")).await.expect("the name is taken"));
    let read = store.tokens().await.expect("readable");
    assert_eq!(read, [model::access::Issued { digest: digest("a"), grant: grant.clone() }]);
    assert!(store.revoke_token(&grant.name, told("token.revoke")).await.expect("written"));
    assert!(!store.revoke_token(&grant.name, told("token.revoke")).await.expect("there is none"));
    assert!(store.tokens().await.expect("readable").is_empty());
    assert_eq!(store.verify_audit().await.expect("whole"), 2);
}
