//! One damaged row hides nothing else, and is never taken for absent.

use model::{Millis, deployment::Phase};

use super::Disk;
use crate::{AuditError, Loaded, OpenError, StoreError, conformance::*};

/// Damages one thing of `api`, with `web` beside it, and gives what loading says.
async fn after(damage: &'static str) -> Vec<Loaded> {
    let disk = Disk::new();
    let store = disk.open().await;
    create(&store, "api").await;
    let web = create(&store, "web").await;
    store.close().await;
    disk.run(damage).await;
    let store = disk.open().await;
    let loaded = store.load_all().await.unwrap();
    assert_eq!(store.load(&key("web")).await.unwrap(), Some(web.clone()), "{damage}");
    let whole = loaded.iter().any(|one| matches!(one, Loaded::Read(row) if **row == web));
    assert!(whole, "web still loads after {damage}: {loaded:?}");
    loaded
}

#[tokio::test]
async fn junk_in_one_row_quarantines_that_service_alone() {
    for damage in [
        "UPDATE services SET service = '{\"junk\":' WHERE key = 'default/api'",
        "UPDATE services SET service = x'ff00fe' WHERE key = 'default/api'",
        "UPDATE services SET service = CAST(x'7bff7d' AS TEXT) WHERE key = 'default/api'",
        "UPDATE services SET service = '' WHERE key = 'default/api'",
        "UPDATE services SET service = 7 WHERE key = 'default/api'",
        "UPDATE services SET service = (SELECT service FROM services WHERE key = 'default/web') WHERE key = 'default/api'",
        "UPDATE services SET plan = NULL WHERE key = 'default/api'",
        "UPDATE services SET plan = '[]' WHERE key = 'default/api'",
        "UPDATE services SET plan_seq = 77 WHERE key = 'default/api'",
        "UPDATE services SET intent_seq = -1 WHERE key = 'default/api'",
        "UPDATE services SET next_deployment = 'two' WHERE key = 'default/api'",
        "UPDATE deployments SET content = 'junk' WHERE service = 'default/api'",
        "UPDATE releases SET content = 'junk' WHERE service = 'default/api'",
        "UPDATE releases SET content = replace(content, './app-1', './app-2') WHERE service = 'default/api'",
        "UPDATE releases SET digest = 'junk' WHERE service = 'default/api'",
    ] {
        let loaded = after(damage).await;
        let quarantined =
            loaded.iter().any(|one| matches!(one, Loaded::Unreadable { key: k, .. } if *k == key("api")));
        assert!(quarantined && loaded.len() == 2, "{damage}: {loaded:?}");
    }
}

#[tokio::test]
async fn rows_that_lost_their_name_are_told_of() {
    for damage in [
        "UPDATE services SET key = '../etc' WHERE key = 'default/api'",
        "UPDATE services SET key = x'00ff' WHERE key = 'default/api'",
        "UPDATE deployments SET service = 'default/apj' WHERE service = 'default/api'",
    ] {
        let loaded = after(damage).await;
        assert!(loaded.iter().any(|one| matches!(one, Loaded::Nameless { .. })), "{damage}: {loaded:?}");
    }
}

#[tokio::test]
async fn an_unreadable_service_is_an_error_and_not_absent() {
    let disk = Disk::new();
    let store = disk.open().await;
    create(&store, "api").await;
    disk.run("UPDATE services SET service = 'junk' WHERE key = 'default/api'").await;
    let error = store.load(&key("api")).await.unwrap_err();
    assert!(
        matches!(&error, StoreError::Unreadable { subject, .. } if subject.contains("default/api")),
        "{error}"
    );
    assert!(!error.is_retryable());
}

#[tokio::test]
async fn what_stands_in_a_damaged_row_is_not_repeated() {
    let loaded = after("UPDATE services SET service = '\"hunter2\"' WHERE key = 'default/api'").await;
    let told = format!("{loaded:?}");
    assert!(told.contains("Unreadable") && !told.contains("hunter2"), "{told}");
}

/// Unknown is not empty: without it, an edge that has just started would lead nobody there.
#[tokio::test]
async fn a_plan_that_cannot_be_read_is_told_as_it_was_last_decided() {
    let disk = Disk::new();
    let store = disk.open().await;
    let leader = Leader::of(&store, "a").await;
    let mut row = create(&store, "api").await;
    for (at, decided) in [(1, true), (2, true), (3, false)] {
        let placed = placing(&row, release(1).digest());
        let line = crate::JournalEntry {
            decision: decided.then(|| placed.clone()),
            ..journalled("api", &at.to_string(), AT + Millis(at))
        };
        if decided {
            let plan = leader.plan(&store, vec![placed]).await;
            store.commit_plan(plan, vec![line]).await.unwrap();
            row = load(&store, "api").await;
        } else {
            store.append_journal(line).await.unwrap();
        }
    }
    let retention = crate::Retention { journal_per_service: 1, ..Default::default() };
    store.prune(AT, &retention).await.unwrap();
    disk.run("UPDATE services SET plan = 'junk' WHERE key = 'default/api'").await;
    let all = store.load_all().await.unwrap();
    let one = store.look(&key("api")).await.unwrap();
    for loaded in all.into_iter().chain(one) {
        let Loaded::Unreadable { plan: Some(plan), .. } = loaded else { panic!("{loaded:?}") };
        assert_eq!(*plan, row.plan);
    }
}

#[tokio::test]
async fn nothing_of_an_unreadable_service_is_pruned() {
    let disk = Disk::new();
    let store = disk.open().await;
    let leader = Leader::of(&store, "a").await;
    let row = create(&store, "api").await;
    leader.commit(&store, reaching(&row, Phase::Failed)).await;
    let mut unneeded = commit(vec![intent(
        crate::Expected::Intent(row.service.intent_seq),
        service("api", 2, 1),
        vec![deployment("api", 2, release(2).digest(), Phase::Failed)],
    )]);
    unneeded.services[0].releases.push(release(3));
    let _ = store.commit_intents(None, unneeded).await.unwrap();
    disk.run("INSERT INTO meta (name, value) SELECT 'whole plan', plan FROM services").await;
    disk.run("UPDATE services SET plan = 'junk' WHERE key = 'default/api'").await;
    let pruned = store.prune(AT, &crate::Retention::default()).await.unwrap();
    assert_eq!(pruned, crate::Pruned::default());
    disk.run("UPDATE services SET plan = (SELECT value FROM meta WHERE name = 'whole plan')").await;
    assert_eq!(
        store.prune(AT, &crate::Retention::default()).await.unwrap().releases,
        1,
        "once it can be read"
    );
}

#[tokio::test]
async fn an_unreadable_event_does_not_stop_the_stream() {
    let disk = Disk::new();
    let store = disk.open().await;
    store.append_events(vec![event("api", "one"), event("api", "two")], AT).await.unwrap();
    disk.run("UPDATE events SET content = 'junk' WHERE seq = 1").await;
    let events = store.events_after(0, &crate::EventFilter::default(), 10).await.unwrap();
    assert_eq!(events.iter().map(|e| e.seq).collect::<Vec<_>>(), [2]);
}

#[tokio::test]
async fn an_unreadable_line_of_the_journal_leaves_the_others_readable() {
    let disk = Disk::new();
    let store = disk.open().await;
    for world in ["one", "two"] {
        store.append_journal(journalled("api", world, AT)).await.unwrap();
    }
    let lines = store.journal_of(&key("api"), 10, None).await.unwrap();
    assert!(lines.len() > 1, "{lines:?}");
    disk.run("UPDATE journal SET report = 'junk' WHERE seq = (SELECT MAX(seq) FROM journal)").await;
    assert_eq!(store.journal_of(&key("api"), 10, None).await.unwrap(), lines[1..]);
    store.journal(lines[0].seq).await.expect_err("asked for by its number, it is not taken for another");
}

#[tokio::test]
async fn tampering_with_the_audit_trail_shows_where() {
    for (damage, at) in [
        ("UPDATE audit SET actor = 'nobody' WHERE seq = 2", 2),
        ("UPDATE audit SET detail = '{}' WHERE seq = 1", 1),
        ("DELETE FROM audit WHERE seq = 2", 2),
        ("DELETE FROM audit WHERE seq = 3", 3),
        ("UPDATE audit SET hash = 'junk' WHERE seq = 3", 3),
        ("DELETE FROM audit", 1),
    ] {
        let disk = Disk::new();
        let store = disk.open().await;
        let audit = vec![audited("a"), audited("b"), audited("c")];
        let _ = store.commit_intents(None, crate::IntentCommit { audit, ..commit(vec![]) }).await.unwrap();
        assert_eq!(store.verify_audit().await.unwrap(), 3);
        disk.run(damage).await;
        let error = store.verify_audit().await.unwrap_err();
        assert!(matches!(error, AuditError::ChainBroken { seq, .. } if seq == at), "{damage}: {error}");
    }
}

#[tokio::test]
async fn a_newer_schema_is_refused_and_left_alone() {
    let disk = Disk::new();
    disk.open().await.close().await;
    disk.run("INSERT INTO schema_version (version) VALUES (999)").await;
    let error = crate::Store::open(&disk.path()).await.unwrap_err();
    assert!(matches!(error, OpenError::TooNew { found: 999, .. }), "{error}");
    assert!(error.to_string().contains("newer Setpoint"), "{error}");
}

#[tokio::test]
async fn a_file_that_is_no_database_is_told_as_such() {
    let disk = Disk::new();
    std::fs::write(disk.path(), "this is not a database, but long enough to look at".repeat(50)).unwrap();
    let error = crate::Store::open(&disk.path()).await.unwrap_err();
    assert!(matches!(error, OpenError::Store { source: StoreError::Unreadable { .. }, .. }), "{error}");
    let error = crate::Store::open(std::path::Path::new("/nowhere/store.db")).await.unwrap_err();
    assert!(matches!(error, OpenError::Io { .. }), "{error}");
}

#[tokio::test]
async fn a_full_disk_is_told_as_such_and_loses_nothing() {
    let disk = Disk::new();
    let store = disk.open().await;
    let row = create(&store, "api").await;
    store.limit_pages_for_test().await;
    let big = "x".repeat(1 << 20);
    let error = loop {
        match store.append_events(vec![event("api", &big)], AT).await {
            Ok(seq) => assert!(seq < 100, "the disk never fills"),
            Err(error) => break error,
        }
    };
    assert!(error.is_full() && error.is_retryable(), "{error}");
    assert_eq!(load(&store, "api").await, row);
    // Space is back, and so is the store.
    create(&store, "web").await;

    store.limit_pages_for_test().await;
    let mut request = commit(vec![first("half")]);
    request.events = vec![event("half", &big); 10];
    let error = store.commit_intents(None, request).await.unwrap_err();
    assert!(error.is_full(), "{error}");
    assert_eq!(store.load(&key("half")).await.unwrap(), None);
}

#[tokio::test]
async fn the_store_is_readable_by_its_user_alone_and_keeps_its_identity() {
    use std::os::unix::fs::PermissionsExt;
    let disk = Disk::new();
    let store = disk.open().await;
    let cluster = store.cluster_id().clone();
    create(&store, "api").await;
    for file in ["store.db", "store.db-wal"] {
        let mode = std::fs::metadata(disk.path().with_file_name(file)).unwrap().permissions().mode();
        assert_eq!(mode & 0o777, 0o600, "{file}");
    }
    drop(store);
    assert_eq!(*disk.open().await.cluster_id(), cluster);
    assert_ne!(*Disk::new().open().await.cluster_id(), cluster);
}

#[tokio::test]
async fn a_backup_is_a_whole_store() {
    let (disk, copy) = (Disk::new(), Disk::new());
    let store = disk.open().await;
    let row = create(&store, "api").await;
    store.backup_to(&copy.path()).await.unwrap();
    let restored = copy.open().await;
    assert_eq!(load(&restored, "api").await, row);
    assert_eq!(restored.cluster_id(), store.cluster_id());
    store.backup_to(&copy.path()).await.expect_err("a backup overwrites nothing");
}
