//! What lives outlives the node, and is taken over as it is.

use model::observation::{ExitStatus, State};
use node::Workloads;

use crate::world::*;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_process_runs_on_without_the_node_and_is_adopted() {
    let mut world = World::new();
    let run = world.start().await;
    let api = server("default.api.0.1");
    let assignment = world.assignment(std::slice::from_ref(&api));
    run.node.assign(assignment.clone()).await.unwrap();
    let before = run.until_ready(&api.id).await;
    let sequence = run.node.observations().borrow().sequence;
    run.drop().await;
    assert!(lives(before.pid.unwrap()));

    let run = world.start().await;
    let observation = run.until("it is adopted", |o| o.complete && o.instances.contains_key(&api.id)).await;
    let after = &observation.instances[&api.id];
    assert_eq!((after.pid, &after.address, after.ready), (before.pid, &before.address, true));
    assert!(observation.sequence > sequence, "the sequence rises across restarts");
    assert_eq!(observation.accepted.as_ref(), Some(&assignment.stamp));
    run.node.assign(assignment).await.unwrap();

    kill(before.pid.unwrap());
    let healed = run.until_report(&api.id, "it is back", |r| r.ready && r.pid != before.pid).await;
    assert_eq!(healed.last_exit.as_ref().unwrap().status, ExitStatus::Unknown, "never 0, never guessed");
    assert_eq!(healed.address, before.address);
    run.node.shutdown(Workloads::Stop).await;
    assert_eq!(processes_in(world.dir.path()), Vec::<u32>::new());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_process_that_died_meanwhile_is_restarted_from_the_ledger_alone() {
    let mut world = World::new();
    let run = world.start().await;
    let api = server("default.api.0.1");
    run.node.assign(world.assignment(std::slice::from_ref(&api))).await.unwrap();
    let before = run.until_ready(&api.id).await;
    run.drop().await;
    kill(before.pid.unwrap());
    eventually("it is dead", || !lives(before.pid.unwrap())).await;

    let run = world.start().await;
    let after = run.until_ready(&api.id).await;
    assert_ne!(after.pid, before.pid);
    assert_eq!(after.address, before.address);
    assert_eq!((after.attempts.total, after.last_exit.as_ref().unwrap().status), (1, ExitStatus::Unknown));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_pid_that_is_now_somebody_elses_is_left_alone() {
    let mut world = World::new();
    let run = world.start().await;
    let job = shell("default.job.0.1", "exec sleep 1000");
    run.node.assign(world.assignment(std::slice::from_ref(&job))).await.unwrap();
    run.until_ready(&job.id).await;
    run.node.shutdown(Workloads::Stop).await;
    let mut stranger = std::process::Command::new("sleep").arg("1000").spawn().unwrap();
    let boot = sys::clock::boot_id().unwrap();
    let start = sys::proc::stat(stranger.id()).unwrap().unwrap().start;
    for (boot, start) in [(boot.as_str(), start + 1), ("another-boot", start)] {
        let identity = format!(r#"{{"boot":"{boot}","pid":{},"start":{start},"run":9}}"#, stranger.id());
        std::fs::write(world.folder(&job).join("identity.json"), identity).unwrap();
        let run = world.start().await;
        let report = run.until_ready(&job.id).await;
        assert_ne!(report.pid, Some(stranger.id()));
        run.node.shutdown(Workloads::Stop).await;
        assert!(lives(stranger.id()));
    }
    stranger.kill().unwrap();
    stranger.wait().unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_torn_identity_is_unknown_and_nothing_is_started_or_removed() {
    let mut world = World::new();
    let run = world.start().await;
    let job = shell("default.job.0.1", "exec sleep 1000");
    run.node.assign(world.assignment(std::slice::from_ref(&job))).await.unwrap();
    let pid = run.until_ready(&job.id).await.pid.unwrap();
    run.drop().await;
    let identity = world.folder(&job).join("identity.json");
    let whole = read(&identity);
    std::fs::write(&identity, &whole[..10]).unwrap();

    let run = world.start().await;
    let report =
        run.until_report(&job.id, "it is unknown", |r| matches!(r.state, State::Unknown { .. })).await;
    assert!(report.message.contains("identity.json"), "{}", report.message);
    run.node.assign(world.assignment(&[])).await.unwrap();
    run.node.look().await;
    let report = run.until_report(&job.id, "it is still unknown", |_| true).await;
    assert!(matches!(report.state, State::Unknown { .. }), "not removed on the strength of not knowing");
    assert!(lives(pid));
    assert_eq!(processes_in(&world.folder(&job)), [pid]);

    std::fs::write(&identity, whole).unwrap();
    run.node.look().await;
    run.until_gone(&job.id).await;
    assert!(!lives(pid));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_child_that_writes_while_nobody_is_there_loses_nothing() {
    let mut world = World::new();
    let run = world.start().await;
    let script =
        "n=0; while :; do n=$((n+1)); echo line $n; [ -e stop ] && exec sleep 1000; sleep 0.001; done";
    let job = shell("default.job.0.1", script);
    run.node.assign(world.assignment(std::slice::from_ref(&job))).await.unwrap();
    run.until_ready(&job.id).await;
    run.drop().await;
    let log = world.folder(&job).join("log/output.log");
    let there = read(&log).lines().count();
    eventually("it goes on", || read(&log).lines().count() > there + 20).await;
    let run = world.start().await;
    std::fs::write(world.folder(&job).join("work/stop"), "").unwrap();
    let report = run.until_ready(&job.id).await;
    assert_eq!(report.attempts.total, 0);
    let lines = read(&log);
    assert!(lines.lines().enumerate().all(|(n, line)| line == format!("line {}", n + 1)));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_removal_that_was_begun_goes_on_after_a_restart() {
    let mut world = World::new();
    let run = world.start().await;
    let mut job = shell("default.job.0.1", "trap '' TERM; touch up; while :; do sleep 1000; done");
    job = with(job, |release| release.stop.grace = model::Millis::secs(600));
    run.node.assign(world.assignment(std::slice::from_ref(&job))).await.unwrap();
    let pid = run.until_ready(&job.id).await.pid.unwrap();
    let up = world.folder(&job).join("work/up");
    eventually("it ignores SIGTERM", || up.exists()).await;
    run.node.assign(world.assignment(&[])).await.unwrap();
    run.until_report(&job.id, "it is stopping", |r| matches!(r.state, State::Stopping { .. })).await;
    run.drop().await;
    let run = world.start().await;
    run.until_report(&job.id, "it is stopping again", |r| matches!(r.state, State::Stopping { .. })).await;
    kill(pid);
    run.until_gone(&job.id).await;
    assert!(!world.folder(&job).exists());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_process_whose_state_is_gone_keeps_its_address() {
    let mut world = World::new();
    let run = world.start().await;
    let api = server("default.api.0.1");
    run.node.assign(world.assignment(std::slice::from_ref(&api))).await.unwrap();
    let before = run.until_ready(&api.id).await;
    run.drop().await;
    std::fs::remove_file(world.folder(&api).join("state.json")).unwrap();
    let run = world.start().await;
    let after = run.until_ready(&api.id).await;
    assert_eq!((after.pid, &after.address), (before.pid, &before.address));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn after_another_boot_everything_is_gone_and_torn_files_are_no_obstacle() {
    let mut world = World::new();
    let run = world.start().await;
    let (api, job) = (server("default.api.0.1"), shell("default.job.0.1", "exec sleep 1000"));
    run.node.assign(world.assignment(&[api.clone(), job.clone()])).await.unwrap();
    for assigned in [&api, &job] {
        kill(run.until_ready(&assigned.id).await.pid.unwrap());
    }
    run.until("both were restarted", |o| o.instances.values().all(|r| r.ready && r.attempts.total == 1))
        .await;
    let pids: Vec<_> = run.node.observations().borrow().instances.values().filter_map(|r| r.pid).collect();
    run.drop().await;
    pids.into_iter().for_each(kill);
    std::fs::write(world.config.data.join("boot.json"), "\"another-boot\"").unwrap();
    std::fs::write(world.folder(&api).join("identity.json"), "").unwrap();
    std::fs::write(world.folder(&job).join("state.json"), "{").unwrap();
    let run = world.start().await;
    assert!(run.until_ready(&api.id).await.attempts.total >= 2, "what can be read still counts");
    run.until_ready(&job.id).await;
}
