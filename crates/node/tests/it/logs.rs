//! Output: kept, cut, followed.

use std::time::Duration;

use model::spec::{Check, Health, Probe, Template};

use crate::world::*;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn output_is_stored_raw_and_cut_while_it_is_written_and_followed_without_a_gap() {
    let mut world = World::new();
    world.config.logs.bytes = 20_000;
    world.config.logs.interval = Duration::from_millis(20);
    let run = world.start().await;
    let script = r"printf '\033[31mred\n'; until [ -e go ]; do :; done;
        n=0; while [ $n -lt 20000 ]; do n=$((n+1)); echo line $n; done; echo the end; exec sleep 1000";
    let talker = shell("default.talk.0.1", script);
    run.node.assign(world.assignment(std::slice::from_ref(&talker))).await.unwrap();
    let work = world.folder(&talker).join("work");
    eventually("it says its first word", || {
        read(world.folder(&talker).join("log/output.log")).contains("red")
    })
    .await;
    let mut follow = run.node.follow_logs(&talker.id, 10).await.unwrap();
    assert_eq!(follow.recv().await.unwrap(), b"\x1b[31mred\n");
    std::fs::write(work.join("go"), "").unwrap();
    let mut seen = String::new();
    while !seen.ends_with("the end\n") {
        let chunk = tokio::time::timeout(Duration::from_secs(20), follow.recv()).await.unwrap().unwrap();
        seen.push_str(&String::from_utf8(chunk).unwrap());
    }
    let numbers: Vec<u32> =
        seen.lines().filter_map(|line| line.strip_prefix("line ")?.parse().ok()).collect();
    assert!(numbers.windows(2).all(|w| w[0] < w[1]), "nothing is repeated");
    let log = world.folder(&talker).join("log");
    eventually("it is cut", || {
        std::fs::metadata(log.join("output.log")).is_ok_and(|meta| meta.len() <= 20_000)
    })
    .await;
    assert!(std::fs::read_dir(&log).unwrap().count() <= 3);
    let tail = String::from_utf8(run.node.logs(&talker.id, 2).await.unwrap()).unwrap();
    assert_eq!(tail, "line 20000\nthe end\n");
    run.node.assign(world.assignment(&[])).await.unwrap();
    while follow.recv().await.is_some() {}
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_health_command_runs_in_the_instances_folder_with_its_env() {
    let mut world = World::new();
    let run = world.start().await;
    let words = ["sh", "-c", "echo $$COLOUR $$SETPOINT_INSTANCE > seen; test -e healthy"];
    let checked = with(shell("default.exec.0.1", "exec sleep 1000"), |release| {
        release.env.insert("COLOUR".parse().unwrap(), Template("red".into()));
        let probe = Probe::new(Check::Exec(words.map(|word| Template(word.into())).into()));
        release.health = Health { readiness: Some(probe), ..Health::default() };
    });
    run.node.assign(world.assignment(std::slice::from_ref(&checked))).await.unwrap();
    let report =
        run.until_report(&checked.id, "it is probed", |r| r.message.contains("exit status: 1")).await;
    assert!(!report.ready);
    let work = world.folder(&checked).join("work");
    assert_eq!(read(work.join("seen")), "red default.exec.0.1\n");
    std::fs::write(work.join("healthy"), "").unwrap();
    run.until_ready(&checked.id).await;
}
