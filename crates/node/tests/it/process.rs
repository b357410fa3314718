//! Processes: brought up, held, restarted, ended.

use model::{
    Millis,
    drift::Drift,
    event::Kind,
    observation::{ExitStatus, State},
    route::EndpointHealth,
    spec::{Check, DriftMode, Port, Probe, RestartPolicy, Template},
};
use node::Workloads;

use crate::world::*;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_assignment_comes_up_and_goes_again() {
    let mut world = World::new();
    let run = world.start().await;
    let api = server("default.api.0.1");
    run.node.assign(world.assignment(std::slice::from_ref(&api))).await.unwrap();
    let report = run.until_ready(&api.id).await;
    assert_eq!(report.state, State::Running);
    let address = report.address.clone().unwrap();
    assert!(std::net::TcpStream::connect(&address).is_ok());
    assert_eq!(report.attempts.total, 0, "a first start is no restart");
    let last = run.endpoints.lock().unwrap().last().cloned().unwrap();
    assert_eq!((last.address, last.health), (address.clone(), EndpointHealth::Ready));
    let pid = report.pid.unwrap();

    run.node.assign(world.assignment(&[])).await.unwrap();
    run.until_gone(&api.id).await;
    assert!(!lives(pid));
    assert!(!world.folder(&api).exists());
    let last = run.endpoints.lock().unwrap().last().cloned().unwrap();
    assert_eq!(last.health, EndpointHealth::Down);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_killed_process_is_back_at_the_same_address_and_was_out_of_the_routes_at_once() {
    let mut world = World::new();
    let run = world.start().await;
    let api = server("default.api.0.1");
    run.node.assign(world.assignment(std::slice::from_ref(&api))).await.unwrap();
    let before = run.until_ready(&api.id).await;
    run.endpoints.lock().unwrap().clear();
    kill(before.pid.unwrap());
    let after = run.until_report(&api.id, "it is back", |r| r.ready && r.pid != before.pid).await;
    assert_eq!(after.address, before.address);
    assert_eq!((after.attempts.total, after.attempts.at.len()), (1, 1));
    assert_eq!(after.last_exit.as_ref().unwrap().status, ExitStatus::Signal(9));
    let said: Vec<_> = run.endpoints.lock().unwrap().iter().map(|event| event.health).collect();
    assert_eq!(said.first(), Some(&EndpointHealth::Down));
    assert_eq!(said.last(), Some(&EndpointHealth::Ready));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_keeps_dying_fails_with_its_last_lines_kept_even_when_it_is_gone() {
    let mut world = World::new();
    let run = world.start().await;
    let mut events = run.node.events();
    let mut dies = shell("default.job.0.1", "echo $(seq -s ' ' 300); echo oh no >&2; exit 4");
    dies.restart = RestartPolicy { attempts: 2, backoff: Millis(5), ..RestartPolicy::default() };
    run.node.assign(world.assignment(std::slice::from_ref(&dies))).await.unwrap();
    let report = run.until_report(&dies.id, "it has failed", |r| r.state.is_failed()).await;
    assert_eq!(report.attempts.at.len(), 2);
    assert!(report.message.contains("exit status 4"), "{}", report.message);
    let said = loop {
        let event = events.recv().await.unwrap();
        if event.kind == Kind::InstanceFailed {
            break event.message;
        }
    };
    assert!(said.contains("setpoint logs default/job --instance default.job.0.1"), "{said}");
    let lines = String::from_utf8(run.node.logs(&dies.id, 1).await.unwrap()).unwrap();
    assert_eq!(lines, "oh no\n");

    run.node.assign(world.assignment(&[])).await.unwrap();
    run.until_gone(&dies.id).await;
    let lines = String::from_utf8(run.node.logs(&dies.id, 100).await.unwrap()).unwrap();
    assert_eq!(lines.lines().filter(|line| *line == "oh no").count(), 3, "{lines}");
    let unknown = run.node.logs(&"default.job.9.9".parse().unwrap(), 1).await.unwrap_err().to_string();
    assert!(unknown.contains("default.job.9.9"));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_missing_program_is_a_failure_that_names_it_and_says_what_to_do() {
    let mut world = World::new();
    let run = world.start().await;
    let mut missing = process("default.job.0.1", &["no-such-program-at-all"]);
    missing.restart = RestartPolicy { attempts: 1, ..RestartPolicy::default() };
    let mut unknown = process("default.who.0.2", &["true"]);
    unknown = with(unknown, |release| {
        if let model::spec::Workload::Process(process) = &mut release.workload {
            process.user = Some("no-such-user".into());
        }
    });
    unknown.restart = missing.restart.clone();
    run.node.assign(world.assignment(&[missing.clone(), unknown.clone()])).await.unwrap();
    let report = run.until_report(&missing.id, "it has failed", |r| r.state.is_failed()).await;
    for part in ["no-such-program-at-all", "PATH", "install"] {
        assert!(report.message.contains(part), "{}", report.message);
    }
    let report = run.until_report(&unknown.id, "it has failed", |r| r.state.is_failed()).await;
    assert!(report.message.contains("useradd"), "{}", report.message);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_stubborn_process_is_killed_after_its_grace_with_what_it_started() {
    let mut world = World::new();
    let run = world.start().await;
    let script = "trap '' TERM; sleep 1000 & echo $! > child; echo up; while :; do sleep 1000; done";
    let stubborn = shell("default.mule.0.1", script);
    run.node.assign(world.assignment(std::slice::from_ref(&stubborn))).await.unwrap();
    run.until_ready(&stubborn.id).await;
    let work = world.folder(&stubborn).join("work");
    eventually("its child runs", || read(work.join("child")).ends_with('\n')).await;
    let child: u32 = read(work.join("child")).trim().parse().unwrap();
    run.node.assign(world.assignment(&[])).await.unwrap();
    run.until_report(&stubborn.id, "it is stopping", |r| matches!(r.state, State::Stopping { .. })).await;
    run.until_gone(&stubborn.id).await;
    eventually("its child is gone", || !lives(child)).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_shutdown_ends_everything_at_once_and_the_next_start_counts_no_attempt() {
    let mut world = World::new();
    let run = world.start().await;
    let stubborn = |n: u32| {
        shell(&format!("default.mule.{n}.{n}"), "trap '' TERM; touch up; while :; do sleep 1000; done")
    };
    let mules: Vec<_> = (0..5).map(stubborn).collect();
    run.node.assign(world.assignment(&mules)).await.unwrap();
    for mule in &mules {
        let up = world.folder(mule).join("work/up");
        eventually("it ignores SIGTERM", || up.exists()).await;
    }
    let began = std::time::Instant::now();
    run.node.shutdown(Workloads::Stop).await;
    assert!(began.elapsed() < std::time::Duration::from_millis(2400), "five graces, side by side");
    assert_eq!(processes_in(world.dir.path()), Vec::<u32>::new());
    assert!(run.node.assign(world.assignment(&[])).await.is_err());

    let run = world.start().await;
    let report = run.until_ready(&mules[0].id).await;
    assert_eq!(report.attempts.total, 0);
    run.node.shutdown(Workloads::Stop).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn children_get_what_is_declared_and_nothing_else() {
    let mut world = World::new();
    let run = world.start().await;
    let seen = with(
        shell("default.env.0.1", "env | sort > env; pwd > pwd; cat etc/app.yaml > copy; sleep 1000"),
        |r| {
            r.port = Some(Port::Dynamic);
            r.env.insert("URL".parse().unwrap(), Template("http://${HOST}:${PORT}/$$".into()));
            r.files.insert("etc/app.yaml".parse().unwrap(), Template("id: ${SETPOINT_INSTANCE}\n".into()));
        },
    );
    run.node.assign(world.assignment(std::slice::from_ref(&seen))).await.unwrap();
    let work = world.folder(&seen).join("work");
    eventually("it has written", || read(work.join("copy")).ends_with('\n')).await;
    let report = run.until_ready(&seen.id).await;
    let port = report.address.as_ref().unwrap().rsplit(':').next().unwrap().to_owned();
    let env = read(work.join("env"));
    let names: Vec<_> = env.lines().filter_map(|line| line.split('=').next()).collect();
    let allowed =
        ["HOME", "HOST", "LANG", "OLDPWD", "PATH", "PORT", "PWD", "SETPOINT_INSTANCE", "TZ", "URL", "_"];
    assert!(names.iter().all(|name| allowed.contains(name) || *name == "SHLVL"), "{env}");
    assert!(env.contains(&format!("URL=http://127.0.0.1:{port}/$\n")), "{env}");
    assert_eq!(read(work.join("pwd")).trim(), work.to_str().unwrap());
    assert_eq!(read(work.join("copy")), "id: default.env.0.1\n");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_changed_rendered_file_is_put_back_without_disturbing_the_process() {
    let mut world = World::new();
    let run = world.start().await;
    let file = |assigned| {
        with(assigned, |r| {
            r.files.insert("app.yaml".parse().unwrap(), Template("a: 1\n".into()));
        })
    };
    let correct = file(shell("default.a.0.1", "sleep 1000"));
    let mut warn = file(shell("default.b.0.2", "sleep 1000"));
    warn.drift.mode = DriftMode::Warn;
    let mut ignored = file(shell("default.c.0.3", "sleep 1000"));
    ignored.drift.ignore = vec!["files/*.yaml".into()];
    let all = [correct.clone(), warn.clone(), ignored.clone()];
    run.node.assign(world.assignment(&all)).await.unwrap();
    let pid = run.until_ready(&correct.id).await.pid;
    for assigned in &all {
        run.until_ready(&assigned.id).await;
        std::fs::write(world.folder(assigned).join("work/app.yaml"), "a: 2\n").unwrap();
    }
    eventually("it is put back", || read(world.folder(&correct).join("work/app.yaml")) == "a: 1\n").await;
    let report = run.until_report(&correct.id, "no drift is left", |r| r.drift.is_empty()).await;
    assert_eq!(report.pid, pid, "not restarted");
    let report = run.until_report(&warn.id, "the drift is reported", |r| !r.drift.is_empty()).await;
    let Drift { path, declared, observed, since, .. } = report.drift[0].clone();
    assert_eq!(path, "files/app.yaml");
    assert!(declared.unwrap() != observed.unwrap() && since > LONG_AGO);
    run.node.look().await;
    let report = run.until_report(&ignored.id, "it runs", |r| r.ready).await;
    assert_eq!(report.drift, []);
    assert_eq!(read(world.folder(&warn).join("work/app.yaml")), "a: 2\n");
    assert_eq!(read(world.folder(&ignored).join("work/app.yaml")), "a: 2\n");

    std::fs::write(world.folder(&warn).join("work/app.yaml"), "a: 1\n").unwrap();
    run.until_report(&warn.id, "the drift is over", |r| r.drift.is_empty()).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_dynamic_port_that_somebody_takes_is_changed_without_an_attempt() {
    let mut world = World::new();
    let run = world.start().await;
    // It is given a port, and somebody else listens there before it does.
    let late = with(server("default.api.0.1"), |release| {
        let exe = std::env::current_exe().unwrap();
        let script = format!(
            "echo $PORT >> ports; while [ ! -e go ]; do sleep 0.02; done; exec {} app::app --exact --nocapture",
            exe.display()
        );
        if let model::spec::Workload::Process(process) = &mut release.workload {
            process.command = ["sh", "-c", &script].map(|w| Template(w.replace('$', "$$"))).into();
        }
    });
    run.node.assign(world.assignment(std::slice::from_ref(&late))).await.unwrap();
    let work = world.folder(&late).join("work");
    eventually("it knows its port", || read(work.join("ports")).ends_with('\n')).await;
    let port: u16 = read(work.join("ports")).trim().parse().unwrap();
    let thief = std::net::TcpListener::bind(("127.0.0.1", port)).unwrap();
    thief.set_nonblocking(true).unwrap();
    std::fs::write(work.join("go"), "").unwrap();
    let report = run
        .until_report(&late.id, "it listens elsewhere", |r| {
            r.ready && r.address.as_deref() != Some(&format!("127.0.0.1:{port}"))
        })
        .await;
    assert_eq!(report.attempts.total, 0);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_fixed_port_that_is_taken_is_named_and_taken_when_it_is_free_at_no_attempt() {
    let mut world = World::new();
    let run = world.start().await;
    let holder = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let port = holder.local_addr().unwrap().port();
    let mut api = with(server("default.api.0.1"), |release| release.port = Some(Port::Fixed(port)));
    api.restart.attempts = 0;
    run.node.assign(world.assignment(std::slice::from_ref(&api))).await.unwrap();
    let named = format!("port {port} at 127.0.0.1 is taken by another program");
    let report = run.until_report(&api.id, "it names its port", |r| r.message.contains(&named)).await;
    assert!(!report.state.is_failed() && report.pid.is_none(), "{report:?}");
    drop(holder);
    let ready = run.until_ready(&api.id).await;
    assert_eq!((ready.attempts.total, ready.address.clone()), (0, Some(format!("127.0.0.1:{port}"))));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_sick_process_leaves_the_routes_and_is_restarted() {
    let mut world = World::new();
    let run = world.start().await;
    let api = with(server("default.api.0.1"), |release| {
        for probe in
            [&mut release.health.startup, &mut release.health.readiness, &mut release.health.liveness]
        {
            let fast = Probe { interval: Millis(50), fall: 2, ..Probe::new(Check::Http("/".into())) };
            *probe = Some(fast);
        }
    });
    run.node.assign(world.assignment(std::slice::from_ref(&api))).await.unwrap();
    let before = run.until_ready(&api.id).await;
    run.endpoints.lock().unwrap().clear();
    std::fs::write(world.folder(&api).join("work/sick"), "").unwrap();
    run.until_report(&api.id, "it is restarted", |r| r.attempts.total > 0).await;
    assert_eq!(run.endpoints.lock().unwrap()[0].health, EndpointHealth::Down);
    std::fs::remove_file(world.folder(&api).join("work/sick")).unwrap();
    let after = run.until_ready(&api.id).await;
    assert_eq!(after.address, before.address);
    assert_ne!(after.pid, before.pid);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn another_user_gets_the_folder_and_its_files() {
    if !rustix::process::geteuid().is_root() {
        return; // Another user needs root.
    }
    let mut world = World::new();
    let run = world.start().await;
    let script = "id -un > who; cat app.yaml >> who; echo $HOME >> who; exec sleep 1000";
    let theirs = with(shell("default.user.0.1", script), |release| {
        release.files.insert("app.yaml".parse().unwrap(), Template("a: 1\n".into()));
        if let model::spec::Workload::Process(process) = &mut release.workload {
            process.user = Some("nobody".into());
        }
    });
    run.node.assign(world.assignment(std::slice::from_ref(&theirs))).await.unwrap();
    let who = world.folder(&theirs).join("work/who");
    eventually("it has written", || read(&who).lines().count() == 3).await;
    assert_eq!(read(&who), "nobody\na: 1\n/nonexistent\n");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_shutdown_in_the_middle_of_everything_leaves_no_process() {
    for round in 0..8 {
        let mut world = World::new();
        let run = world.start().await;
        let many: Vec<_> = (0..20)
            .map(|n| {
                let job = shell(&format!("default.job.{n}.{n}"), "exec sleep 1000");
                with(job, |r| {
                    r.files.insert("app.yaml".parse().unwrap(), Template("a: 1\n".into()));
                })
            })
            .collect();
        run.node.assign(world.assignment(&many)).await.unwrap();
        run.until("some run", |o| o.instances.values().filter(|r| r.ready).count() >= round * 2).await;
        let fewer = world.assignment(&many[..10]);
        run.node.assign(fewer).await.unwrap();
        run.node.shutdown(Workloads::Stop).await;
        assert_eq!(processes_in(world.dir.path()), Vec::<u32>::new(), "round {round}");
    }
}
