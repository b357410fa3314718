//! What was accepted, and what is refused.

use std::{path::PathBuf, sync::Arc};

use decide::ledger::{Accepted, Refused};
use node::AssignError;
use testkit::strace::{self, Step};

use crate::world::*;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_stale_assignment_is_refused_without_effects() {
    let mut world = World::new();
    let run = world.start().await;
    let job = shell("default.job.0.1", "exec sleep 1000");
    let newest = world.assignment(std::slice::from_ref(&job));
    run.node.assign(newest.clone()).await.unwrap();
    run.until_ready(&job.id).await;
    let offer = |term, holder: &str, generation, cluster: &str| {
        let mut empty = (*newest).clone();
        empty.instances.clear();
        empty.stamp = stamp(term, holder, generation);
        empty.cluster = cluster.parse().unwrap();
        Arc::new(empty)
    };
    let node = run.node.clone();
    let refused = async |offered| match node.assign(offered).await {
        Err(AssignError::Refused(refused)) => refused,
        other => panic!("{other:?}"),
    };
    assert!(matches!(refused(offer(0, "a", 9, "cluster01")).await, Refused::StaleTerm { .. }));
    assert!(matches!(refused(offer(1, "b", 9, "cluster01")).await, Refused::OtherHolder { .. }));
    assert!(matches!(refused(offer(2, "b", 0, "cluster01")).await, Refused::StaleGeneration { .. }));
    assert!(matches!(refused(offer(1, "a", 1, "cluster01")).await, Refused::ContentMismatch { .. }));
    assert!(matches!(refused(offer(9, "a", 9, "cluster99")).await, Refused::OtherOwner { .. }));
    assert_eq!(node.assign(newest.clone()).await.unwrap(), Accepted::Again);
    assert!(run.until_ready(&job.id).await.ready);
    drop(node);
    run.drop().await;

    let run = world.start().await;
    let stale = run.node.assign(offer(0, "a", 9, "cluster01")).await;
    assert!(matches!(stale, Err(AssignError::Refused(Refused::StaleTerm { .. }))), "after a restart too");
    run.until_ready(&job.id).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_assignment_that_cannot_be_written_down_has_no_effect() {
    let mut world = World::new();
    let run = world.start().await;
    let job = shell("default.job.0.1", "exec sleep 1000");
    // A folder where the file must go.
    std::fs::create_dir_all(world.config.data.join("accepted.json/x")).unwrap();
    let offered = world.assignment(std::slice::from_ref(&job));
    assert!(matches!(run.node.assign(offered.clone()).await, Err(AssignError::Ledger(_))));
    assert!(run.node.observations().borrow().instances.is_empty());
    std::fs::remove_dir_all(world.config.data.join("accepted.json")).unwrap();
    run.node.assign(offered).await.unwrap();
    run.until_ready(&job.id).await;
}

/// Two assignments, the second with one instance more; run by the test below.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_accepted_runs() {
    let mut world = World::new();
    let run = world.start().await;
    let jobs = ["default.job.0.1", "default.job.1.2"].map(|id| shell(id, "exec sleep 1000"));
    for count in 1..=2 {
        run.node.assign(world.assignment(&jobs[..count])).await.unwrap();
        run.until_ready(&jobs[count - 1].id).await;
    }
}

#[test]
fn what_was_accepted_is_on_the_disk_before_anything_of_it_is_made() {
    if !strace::is_there() {
        return;
    }
    let tmp = tempfile::tempdir().unwrap();
    let args = ["ledger::what_is_accepted_runs", "--exact"].map(AsRef::as_ref);
    let env = [("TMPDIR", tmp.path().to_str().unwrap())];
    let steps = strace::steps_below(tmp.path(), &std::env::current_exe().unwrap(), &args, &env);
    let marks: Vec<(usize, &PathBuf)> = (0..)
        .zip(&steps)
        .filter_map(|(at, step)| match step {
            Step::Renamed { to, .. } if to.ends_with("accepted.json") => Some((at, to)),
            Step::Renamed { .. } | Step::Made(_) | Step::Synced(_) => None,
        })
        .collect();
    assert_eq!(marks.len(), 2, "one for each assignment: {steps:#?}");
    let folder = marks[0].1.parent().unwrap();
    let mut of_mark = steps.clone();
    of_mark.retain(|step| match step {
        Step::Renamed { to, .. } => to == marks[0].1,
        Step::Made(path) | Step::Synced(path) => path == folder || path.ends_with(".accepted.json.tmp"),
    });
    strace::assert_durable_renames(&of_mark);
    for ((at, _), instance) in marks.iter().zip(["default.job.0.1", "default.job.1.2"]) {
        let synced = Step::Synced(folder.into());
        let durable = at + steps[*at..].iter().position(|step| *step == synced).unwrap();
        let of_instance = |step: &Step| match step {
            Step::Made(path) => path.components().any(|part| part.as_os_str() == instance),
            Step::Synced(_) | Step::Renamed { .. } => false,
        };
        let effect = steps.iter().position(of_instance).expect("its folder is made");
        assert!(durable < effect, "{instance} is made before it is known to be accepted: {steps:#?}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn instances_of_a_held_service_stay_as_they_are() {
    let mut world = World::new();
    let run = world.start().await;
    let (held, gone) =
        (shell("default.held.0.1", "exec sleep 1000"), shell("default.gone.0.1", "exec sleep 1000"));
    run.node.assign(world.assignment(&[held.clone(), gone.clone()])).await.unwrap();
    let before = run.until_ready(&held.id).await;
    run.until_ready(&gone.id).await;
    let mut next = (*world.assignment(&[])).clone();
    next.held.insert(held.id.service.clone());
    run.node.assign(Arc::new(next)).await.unwrap();
    run.until_gone(&gone.id).await;
    kill(before.pid.unwrap());
    let after = run.until_report(&held.id, "it is healed", |r| r.ready && r.pid != before.pid).await;
    assert_eq!(after.attempts.total, 1);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_folder_that_nothing_covers_is_reported_and_left_and_taken_when_it_is_assigned() {
    let mut world = World::new();
    let run = world.start().await;
    let job = shell("default.job.0.1", "exec sleep 1000");
    run.node.assign(world.assignment(std::slice::from_ref(&job))).await.unwrap();
    let pid = run.until_ready(&job.id).await.pid;
    run.drop().await;
    // The ledger is lost but for what the process itself left.
    std::fs::remove_file(world.folder(&job).join("assigned.json")).unwrap();
    std::fs::remove_file(world.config.data.join("accepted.json")).unwrap();
    let run = world.start().await;
    let seen = run.until("it is reported", |o| !o.strangers.is_empty()).await;
    assert!(seen.strangers[0].what.contains("default.job.0.1") && seen.instances.is_empty());
    assert!(lives(pid.unwrap()));
    run.node.assign(world.assignment(std::slice::from_ref(&job))).await.unwrap();
    let report = run.until_ready(&job.id).await;
    assert_eq!((report.pid, report.attempts.total), (pid, 0), "not started twice");
    run.until("it is no stranger", |o| o.strangers.is_empty()).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_process_whose_whole_ledger_is_lost_is_reported_and_taken_over_when_it_is_assigned() {
    let mut world = World::new();
    let run = world.start().await;
    let api = server("default.api.0.1");
    run.node.assign(world.assignment(std::slice::from_ref(&api))).await.unwrap();
    let before = run.until_ready(&api.id).await;
    run.drop().await;
    std::fs::remove_dir_all(&world.config.data).unwrap();
    let run = world.start().await;
    let seen = run.until("it is reported", |o| !o.strangers.is_empty()).await;
    assert!(seen.strangers[0].message.contains("default.api.0.1"));
    assert!(lives(before.pid.unwrap()));
    run.node.assign(world.assignment(std::slice::from_ref(&api))).await.unwrap();
    let after = run.until_ready(&api.id).await;
    assert_eq!((after.pid, &after.address, after.attempts.total), (before.pid, &before.address, 0));
    run.until("it is no stranger", |o| o.strangers.is_empty()).await;
    kill(before.pid.unwrap());
    run.until_report(&api.id, "it is held like any other", |r| r.ready && r.pid != before.pid).await;
}
