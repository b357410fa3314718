//! Killed at random moments, the store has everything that it acknowledged and nothing half.

use std::{
    collections::BTreeSet,
    io::{BufRead, BufReader},
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    time::{Duration, SystemTime},
};

use model::deployment::Phase;

use super::Disk;
use crate::{DataLock, IntentCommit, Loaded, Store, conformance::*};

const ROUNDS: u32 = 8;
const DIR: &str = "SETPOINT_STORE_CRASH_DIR";
const SEED: &str = "SETPOINT_STORE_CRASH_SEED";

/// Commits for ever and says each time what it may now rely on. Run by the test below in a process of its own.
#[tokio::test]
#[ignore = "the child process of what_was_acknowledged_survives_a_kill"]
async fn child_that_commits() {
    let Some(dir) = std::env::var_os(DIR).map(PathBuf::from) else { return };
    let _lock = DataLock::acquire(&dir).unwrap();
    let store = Store::open(&dir.join("store.db")).await.unwrap();
    let leader = Leader::of(&store, "child").await;
    println!("term {}", leader.term);
    for number in store.load_all().await.unwrap().len().. {
        let name = format!("s{number}");
        let _ = store.commit_intents(None, whole(&name)).await.unwrap();
        println!("intent {name}");
        let row = load(&store, &name).await;
        let plan = leader.plan(&store, vec![reaching(&row, Phase::Active)]).await;
        store.commit_plan(plan, vec![journalled(&name, &name, AT)]).await.unwrap();
        println!("plan {name}");
    }
}

/// Everything that one commit can carry.
fn whole(name: &str) -> IntentCommit {
    let answer = crate::Idempotency {
        scope: "child".into(),
        key: name.into(),
        body_digest: release(1).digest(),
        status: 201,
        response: name.into(),
    };
    IntentCommit {
        events: vec![event(name, "applied")],
        audit: vec![audited(name)],
        idempotency: Some(answer),
        ..commit(vec![first(name)])
    }
}

fn spawn(dir: &Path) -> Child {
    Command::new(std::env::current_exe().unwrap())
        .args(["--exact", "tests::crash::child_that_commits", "--ignored", "--nocapture", "--test-threads=1"])
        .env(DIR, dir)
        .stdout(Stdio::piped())
        .stderr(Stdio::inherit())
        .spawn()
        .unwrap()
}

/// Kills the child some time after its `acks`-th acknowledgement, and gives all that it has acknowledged.
fn run_and_kill(dir: &Path, acks: usize, then: Duration) -> BTreeSet<String> {
    let mut child = spawn(dir);
    let mut lines = BufReader::new(child.stdout.take().unwrap()).lines().map(Result::unwrap);
    let is_ack = |line: &String| ["term ", "intent ", "plan "].iter().any(|word| line.starts_with(word));
    let mut acked: BTreeSet<String> = lines.by_ref().filter(is_ack).take(acks).collect();
    assert_eq!(acked.len(), acks, "the child ended by itself");
    // Not to wait for anything: this is the random moment.
    std::thread::sleep(then);
    child.kill().unwrap();
    child.wait().unwrap();
    acked.extend(lines.filter(is_ack));
    acked
}

async fn check(dir: &Path, acked: &BTreeSet<String>) {
    let _lock = DataLock::acquire(dir).expect("the lock went with its holder");
    let store = Store::open(&dir.join("store.db")).await.unwrap();
    let (mut services, mut plans) = (0, 0);
    let mut found = BTreeSet::new();
    for loaded in store.load_all().await.unwrap() {
        let Loaded::Read(row) = loaded else { panic!("{loaded:?}") };
        let name = row.service.key.name.to_string();
        services += 1;
        assert_eq!((row.deployments.len(), row.releases.len()), (1, 1), "{name} is half");
        assert!(store.idempotent("child", &name).await.unwrap().is_some(), "{name} is half");
        found.insert(format!("intent {name}"));
        let planned = row.plan.seq.0 == 1;
        assert_eq!(row.deployments[0].phase == Phase::Active, planned, "{name} is half planned");
        assert_eq!(
            store.journal_latest(&row.service.key).await.unwrap().is_some(),
            planned,
            "{name} is half planned"
        );
        if planned {
            plans += 1;
            found.insert(format!("plan {name}"));
        }
    }
    let counters = store.counters().await.unwrap();
    found.extend((1..=counters.term.0).map(|term| format!("term {term}")));
    let lost: Vec<_> = acked.difference(&found).collect();
    assert!(lost.is_empty(), "acknowledged and lost: {lost:?}");
    assert_eq!(counters.generation.0, plans);
    assert_eq!(store.latest_event_seq().await.unwrap(), services);
    assert_eq!(store.verify_audit().await.unwrap(), services);
    store.close().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_was_acknowledged_survives_a_kill() {
    let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap().as_nanos() as u64;
    let seed = std::env::var(SEED).map_or(now, |seed| seed.parse().unwrap());
    println!("{SEED}={seed}");
    let disk = Disk::new();
    let dir = disk.path().parent().unwrap().to_owned();
    let mut random = seed;
    let mut next = |below: u64| {
        random = random.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (random >> 33) % below
    };
    let mut acked = BTreeSet::new();
    for _ in 0..ROUNDS {
        let (acks, then) = (1 + next(30) as usize, Duration::from_micros(next(8000)));
        acked.extend(tokio::task::block_in_place(|| run_and_kill(&dir, acks, then)));
        check(&dir, &acked).await;
    }
}
