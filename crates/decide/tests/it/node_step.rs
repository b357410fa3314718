//! What a node does with one instance, asked as the node asks it.

use std::{collections::BTreeMap, sync::Arc};

use model::{
    InstanceId, Millis, Timestamp,
    assignment::Assigned,
    instance::Attempts,
    release::Release,
    spec::{self, DriftPolicy, RestartPolicy, Site, StopPolicy, Workload},
};

use decide::node::{Busy, Install, Local, Operation, Run, rest_after, step};

fn site() -> (Assigned, Local) {
    let content = Release {
        workload: Workload::Site(Site { artifact: None, origin: None, webroot: None, spa: false }),
        domains: vec![],
        env: BTreeMap::new(),
        files: BTreeMap::new(),
        port: None,
        health: spec::Health::default(),
        stop: StopPolicy::default(),
        resources: spec::Resources::default(),
    };
    let id: InstanceId = "default.docs.0.1".parse().unwrap();
    let assigned = Assigned {
        id: id.clone(),
        release: content.digest(),
        content: Arc::new(content),
        deployment: "dep1".parse().unwrap(),
        current: true,
        restart: RestartPolicy::default(),
        drift: DriftPolicy::default(),
        attempts: Attempts::default(),
    };
    let local = Local {
        id,
        install: Install::Whole,
        run: Run::NotStarted,
        granted: false,
        attempts: Attempts::default(),
        drifted: false,
        current: true,
        busy: None,
        away: None,
        outage: None,
        off_network: false,
        unstarted: None,
        rests_until: None,
    };
    (assigned, local)
}

#[test]
fn a_site_stays_ready_while_it_is_put_right_or_switched() {
    let (assigned, at_rest) = site();
    let drifted = Local { drifted: true, ..at_rest.clone() };
    let updating = Local { busy: Some(Busy::Updating), ..drifted.clone() };
    for (local, operation) in
        [(at_rest, Operation::Nothing), (drifted, Operation::Update), (updating, Operation::Nothing)]
    {
        let step = step(Some(&assigned), &local, Timestamp(1));
        assert_eq!((step.ready, step.operation), (true, operation), "{local:?}");
    }
}

/// A kept folder from which somebody took a file, and which is gone back to, under any policy.
#[test]
fn a_site_that_is_not_shown_yet_is_ready_only_once_it_is_whole() {
    let (mut assigned, at_rest) = site();
    assigned.current = false;
    assigned.drift.mode = spec::DriftMode::Warn;
    let damaged = Local { drifted: true, current: false, ..at_rest.clone() };
    let updating = Local { busy: Some(Busy::Updating), ..damaged.clone() };
    let whole = Local { current: false, ..at_rest };
    for (local, ready, operation) in [
        (damaged, false, Operation::Update),
        (updating, false, Operation::Nothing),
        (whole, true, Operation::Nothing),
    ] {
        let step = step(Some(&assigned), &local, Timestamp(1));
        assert_eq!((step.ready, step.operation), (ready, operation), "{local:?}");
    }
}

/// A content that is nowhere any more, say. It is asked again when its rest is over, and serves meanwhile.
#[test]
fn an_update_that_failed_rests_and_the_site_is_served() {
    let (assigned, at_rest) = site();
    let rests = Local { rests_until: Some(Timestamp(500)), ..at_rest };
    let drifted = Local { drifted: true, ..rests.clone() };
    let unswitched = Local { current: false, ..rests.clone() };
    for local in [drifted, unswitched] {
        let before = step(Some(&assigned), &local, Timestamp(499));
        let told = (before.ready, before.operation, before.wake_at);
        assert_eq!(told, (true, Operation::Nothing, Some(Timestamp(500))), "{local:?}");
        let over = step(Some(&assigned), &local, Timestamp(500));
        assert_eq!((over.operation, over.wake_at), (Operation::Update, None), "{local:?}");
    }
    let whole = step(Some(&assigned), &rests, Timestamp(1));
    assert_eq!(whole.wake_at, None, "nothing is waited for");
    assert_eq!([0, 1, 4, 5, 40].map(rest_after), [500, 1000, 8000, 10_000, 10_000].map(Millis));
}

#[test]
fn what_could_not_be_installed_says_so_in_its_own_words() {
    let (assigned, local) = site();
    let failed = Install::Failed { at: Timestamp(1), message: "the program `x` does not exist".into() };
    let spent = Attempts { at: vec![Timestamp(1); 5], fast_crashes: 5, total: 5, free: vec![] };
    let local = Local { install: failed, attempts: spent, ..local };
    let step = step(Some(&assigned), &local, Timestamp(2));
    assert!(step.state.is_failed());
    assert_eq!(step.message, "the program `x` does not exist");
}

/// Its image could not be had, say, until the very last attempt.
#[test]
fn the_install_that_succeeds_at_the_last_attempt_is_started() {
    let (mut assigned, local) = site();
    let mut content = (*assigned.content).clone();
    content.workload =
        Workload::Container(model::container::Container::new("registry.local/boxed:1".parse().unwrap()));
    assigned.content = Arc::new(content);
    let four = Attempts { at: vec![Timestamp(1); 4], fast_crashes: 4, total: 4, free: vec![] };
    let failed = Install::Failed { at: Timestamp(1), message: "the image cannot be had".into() };
    let before = Local { install: failed, attempts: four, ..local };
    let now = Timestamp(60_000);
    let Operation::Install { attempts, granted: true } = step(Some(&assigned), &before, now).operation else {
        panic!("it is tried once more")
    };
    let whole = Local { install: Install::Whole, attempts, granted: true, ..before };
    let started = step(Some(&assigned), &whole, now);
    assert!(matches!(started.operation, Operation::Restart { .. }), "{started:?}");
    let of_another = step(Some(&assigned), &Local { granted: false, ..whole }, now);
    assert!(of_another.state.is_failed(), "what was counted for one before it binds it: {of_another:?}");
}

/// Its files were put in place again, so that nothing but the start itself is left to have failed.
#[test]
fn what_could_not_be_started_says_so_between_its_attempts_and_after_them() {
    let (mut assigned, local) = site();
    let mut content = (*assigned.content).clone();
    content.workload =
        Workload::Container(model::container::Container::new("registry.local/boxed:1".parse().unwrap()));
    assigned.content = Arc::new(content);
    let why = "`x` cannot be run: its working directory /nope";
    let local = Local { unstarted: Some(why.into()), ..local };
    let spent = Attempts { at: vec![Timestamp(1); 5], fast_crashes: 5, total: 5, free: vec![] };
    let (between, at_it) = (local.clone(), Local { busy: Some(Busy::Starting), ..local.clone() });
    let after = Local { attempts: spent, ..local };
    for (local, failed) in [(between, false), (at_it, false), (after, true)] {
        let step = step(Some(&assigned), &local, Timestamp(2));
        assert_eq!((step.message.as_str(), step.state.is_failed()), (why, failed), "{local:?}");
    }
}

/// An engine refuses to stop a container that is to be started anew: it lives on and answers again.
#[test]
fn what_lives_is_not_failed_whatever_became_of_an_operation_on_it() {
    let (mut assigned, local) = site();
    let mut content = (*assigned.content).clone();
    content.workload =
        Workload::Container(model::container::Container::new("registry.local/boxed:1".parse().unwrap()));
    assigned.content = Arc::new(content);
    let health = decide::health::Health::new(&assigned.content.health, Timestamp(1));
    let local = Local {
        install: Install::Failed { at: Timestamp(2), message: "the engine refuses".into() },
        run: Run::Alive { health },
        current: false,
        ..local
    };
    let step = step(Some(&assigned), &local, Timestamp(3));
    assert_eq!((step.ready, step.operation), (true, Operation::Nothing), "{:?}", step.state);
}

#[test]
fn what_has_lost_its_data_has_failed_and_rests_whatever_was_counted() {
    let (assigned, local) = site();
    let message = "the volume `data` was removed".to_owned();
    let local = Local { install: Install::DataGone { message: message.clone() }, ..local };
    let step = step(Some(&assigned), &local, Timestamp(60_000));
    assert_eq!(
        (step.operation, step.state, step.wake_at),
        (Operation::Nothing, model::observation::State::Failed { until: None }, None)
    );
    assert_eq!(step.message, message);
}

/// A program of somebody else's listens where the release wants to.
#[test]
fn what_waits_for_its_port_or_for_room_looks_again_at_no_cost_and_reports_the_same_throughout() {
    let (assigned, local) = site();
    let why = "port 8080 is taken by another program";
    let spent = Attempts { at: vec![Timestamp(1); 4], fast_crashes: 4, total: 4, free: vec![] };
    let (at, message) = (Timestamp(2), why.to_owned());
    for (install, again) in [
        (Install::PortTaken { at, message: message.clone() }, Timestamp(1002)),
        (Install::Prevented { at, message: message.clone() }, Timestamp(5002)),
    ] {
        let local = Local { install, attempts: spent.clone(), current: false, ..local.clone() };
        let waits = step(Some(&assigned), &local, Timestamp(3));
        assert_eq!((waits.operation, waits.wake_at), (Operation::Nothing, Some(again)));
        let looks = step(Some(&assigned), &local, again);
        assert_eq!(looks.operation, Operation::Install { attempts: spent.clone(), granted: false });
        for told in [(waits.state, waits.message), (looks.state, looks.message)] {
            assert_eq!(told, (model::observation::State::Starting, why.to_owned()));
        }
    }
}

fn container() -> (Assigned, Local) {
    let (mut assigned, local) = site();
    let mut content = (*assigned.content).clone();
    content.workload =
        Workload::Container(model::container::Container::new("registry.local/boxed:1".parse().unwrap()));
    assigned.content = Arc::new(content);
    (assigned, Local { current: false, ..local })
}

/// Its probes may have been well a moment ago, and are not made any more.
#[test]
fn what_is_off_its_network_is_not_ready_whatever_its_probes_said() {
    let (assigned, local) = container();
    let health = decide::health::Health::new(&assigned.content.health, Timestamp(1));
    let well = Local { run: Run::Alive { health }, ..local };
    assert!(step(Some(&assigned), &well, Timestamp(2)).ready);
    let off = Local { off_network: true, ..well };
    let repaired = Local { busy: Some(Busy::Updating), ..off.clone() };
    let unasked = Local { away: Some(Timestamp(1)), ..off.clone() };
    for local in [off, repaired, unasked] {
        let step = step(Some(&assigned), &local, Timestamp(2));
        assert_eq!((step.ready, &step.state), (false, &model::observation::State::Running), "{local:?}");
        assert!(step.message.contains("off its network"), "{step:?}");
    }
}

/// An engine without live-restore ends its containers with itself, again and again.
#[test]
fn what_ended_with_its_engine_is_started_whatever_was_spent_and_spends_nothing() {
    let (assigned, local) = container();
    let spent = Attempts { at: vec![Timestamp(50_000); 5], fast_crashes: 0, total: 5, free: vec![] };
    let exit = model::observation::Exit {
        at: Timestamp(100_000),
        status: model::observation::ExitStatus::Code(0),
        why: Some("engine: stop".into()),
    };
    let ended = Local {
        attempts: spent.clone(),
        run: Run::Ended { started: Some(Timestamp(60_000)), exit },
        ..local
    };
    let now = Timestamp(120_000);
    let outage = |since: u64, until: u64| {
        Some(decide::outage::Outage { since: Timestamp(since), until: Some(Timestamp(until)) })
    };
    for outage in [None, outage(140_000, 150_000), outage(80_000, 99_999)] {
        let step = step(Some(&assigned), &Local { outage, ..ended.clone() }, now);
        assert!(step.state.is_failed(), "{outage:?}: {step:?}");
    }
    let explained = Local { outage: outage(101_000, 110_000), ..ended };
    let Operation::Restart { attempts } = step(Some(&assigned), &explained, now).operation else { panic!() };
    assert_eq!((attempts.total, attempts.free, &attempts.at), (6, vec![now], &spent.at));
    // One that was counted before anybody knew, and came to nothing.
    let granted = step(Some(&assigned), &Local { granted: true, ..explained }, now);
    assert_eq!(granted.operation, Operation::Restart { attempts: spent });
}

#[test]
fn a_failure_is_told_once_until_it_is_over() {
    use model::observation::State;
    let failed = || State::Failed { until: Some(Timestamp(9)) };
    let unknown = || State::Unknown { since: Timestamp(3) };
    let mut told = false;
    let story = [
        (State::Starting, false),
        (failed(), true),
        (failed(), false),
        (unknown(), false),
        (failed(), false),
        (State::Starting, false),
        (unknown(), false),
        (failed(), true),
    ];
    for (state, expected) in story {
        let (tells, now) = decide::node::tells_failure(told, &state);
        assert_eq!(tells, expected, "{state:?}");
        told = now;
    }
}
