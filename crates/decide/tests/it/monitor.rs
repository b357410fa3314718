//! What an operator is told, in stories: the same worlds that the planner decides on.

use crate::bench::{Bench, spec};
use decide::{
    intent::{self, Images},
    monitor::{self, Checkup, Instances, Outcome},
};
use model::{
    Millis, ServiceKey,
    node::NodeState,
    observation::ExitStatus,
    service::Owner,
    status::{ServiceHealth, ServiceState},
};

fn key() -> ServiceKey {
    "web".parse().unwrap()
}

fn apply(bench: &mut Bench, declared: &str) {
    let words: Vec<&str> = declared.split_whitespace().collect();
    let world = bench.world(&key()).clone();
    let intended = intent::apply(&world, &spec::parse(&words), &Owner::Api, &Images::new(), bench.now);
    bench.intend(&key(), intended);
}

fn run(bench: &mut Bench, by: Millis) {
    let until = bench.now + by;
    for _ in 0..500 {
        if !bench.pass().plan.decisions.is_empty() {
            continue;
        }
        match bench.wake_at().filter(|at| *at <= until) {
            Some(at) => bench.tick(at.since(bench.now)),
            None => return bench.tick(until.since(bench.now)),
        }
    }
    panic!("it finds no rest");
}

fn check(bench: &Bench) -> Checkup {
    monitor::check(&bench.snapshot().worlds[&key()], bench.now)
}

fn kill(bench: &mut Bench) {
    let (id, now) = (bench.instance("web.0").unwrap(), bench.now);
    bench.local(&id).unwrap().die(ExitStatus::Signal(9), now);
    run(bench, Millis::secs(20));
}

fn declared(declared: &str) -> Bench {
    let mut bench = Bench::new();
    bench.add_node("n1");
    apply(&mut bench, declared);
    bench
}

fn running(spec: &str) -> Bench {
    let mut bench = declared(spec);
    run(&mut bench, Millis::secs(10));
    assert_eq!(check(&bench).health, ServiceHealth::Healthy);
    bench
}

/// It is ready each time it is looked at, and dies in between.
#[test]
fn what_is_restarted_too_often_is_degraded_until_the_window_is_over() {
    let mut bench = running("process v1 attempts=20");
    for _ in 0..3 {
        kill(&mut bench);
    }
    assert_eq!((check(&bench).health, check(&bench).restarts.ten_minutes), (ServiceHealth::Healthy, 3));
    kill(&mut bench);
    let told = check(&bench);
    assert_eq!((told.health, told.summary.state), (ServiceHealth::Degraded, ServiceState::Converged));
    assert_eq!((told.alerts.len(), told.alerts[0].restarts, told.restarts.ten_minutes), (1, 4, 4));
    assert!(told.reason.contains("restarted 4 times within 10m: it ended with signal 9"), "{}", told.reason);
    assert!(told.reason.contains("setpoint logs default/web --instance"), "{}", told.reason);
    bench.tick(Millis::mins(11));
    let told = check(&bench);
    assert_eq!((told.health, told.reason.as_str()), (ServiceHealth::Healthy, ""));
    assert_eq!((told.restarts.ten_minutes, told.restarts.hour, told.restarts.total), (0, 4, 4));
}

/// The counts are the service's: instances come and go with each release.
#[test]
fn a_new_release_does_not_make_its_service_forget_restarts() {
    let mut bench = running("process v1 attempts=20");
    kill(&mut bench);
    kill(&mut bench);
    apply(&mut bench, "process v2 attempts=20");
    run(&mut bench, Millis::secs(60));
    kill(&mut bench);
    let told = check(&bench);
    assert_eq!((told.restarts.ten_minutes, told.restarts.total), (3, 3));
    assert!(told.alerts.is_empty(), "each of its instances has been restarted less often");
}

#[test]
fn a_deployment_is_stuck_after_five_minutes_without_progress_and_not_before() {
    let mut bench = declared("process v1 is=manual deadline=20m");
    run(&mut bench, Millis::secs(1));
    let world = |bench: &Bench| bench.snapshot().worlds[&key()].clone();
    bench.tick(Millis::mins(4));
    assert_eq!(monitor::stuck(&world(&bench), bench.now), None);
    assert_eq!(check(&bench).health, ServiceHealth::Degraded, "it comes up for the first time");
    bench.tick(Millis::mins(1));
    let stuck = monitor::stuck(&world(&bench), bench.now).unwrap();
    assert_eq!((stuck.number, stuck.deadline), (1, None));
    assert!(check(&bench).reason.contains("deployment #1 stands still in starting since"), "{stuck}");
    let id = bench.instance("web.0").unwrap();
    let now = bench.now;
    bench.local(&id).unwrap().probe(Ok(()), now);
    run(&mut bench, Millis::secs(5));
    assert_eq!(monitor::stuck(&world(&bench), bench.now), None);
    assert_eq!(check(&bench).health, ServiceHealth::Healthy);
}

#[test]
fn a_deployment_past_its_deadline_is_stuck_however_short_that_is() {
    let mut bench = declared("process v1 is=manual deadline=30s");
    run(&mut bench, Millis::secs(1));
    // Nobody decides meanwhile: the planner would have ended it.
    bench.tick(Millis::secs(40));
    let stuck = monitor::stuck(&bench.snapshot().worlds[&key()], bench.now).unwrap();
    assert_eq!(stuck.deadline, Some(Millis::secs(30)));
    assert!(stuck.to_string().ends_with("past its deadline of 30s"), "{stuck}");
}

/// It is whole and serves; that it must go on doing so for an hour is no standstill.
#[test]
fn what_holds_is_not_stuck() {
    let mut bench = declared("process v1 min_healthy=1h");
    run(&mut bench, Millis::secs(10));
    bench.tick(Millis::mins(30));
    assert_eq!(monitor::stuck(&bench.snapshot().worlds[&key()], bench.now), None);
    assert_eq!(check(&bench).health, ServiceHealth::Healthy);
}

#[test]
fn what_serves_stays_healthy_while_it_is_replaced() {
    let mut bench = running("process v1 replicas=2");
    apply(&mut bench, "process v2 replicas=2 is=manual");
    run(&mut bench, Millis::secs(2));
    let told = check(&bench);
    assert_eq!((told.health, told.summary.state), (ServiceHealth::Healthy, ServiceState::Progressing));
}

#[test]
fn what_serves_no_more_is_unhealthy_and_what_nobody_tells_of_is_unknown() {
    let mut bench = running("process v1 attempts=1");
    let node = bench.nodes.get_mut(&"n1".parse().unwrap()).unwrap();
    (node.reachable, node.heard) = (false, None);
    assert_eq!(check(&bench).health, ServiceHealth::Unknown);
    bench.nodes.get_mut(&"n1".parse().unwrap()).unwrap().reachable = true;
    bench.set_node("n1", NodeState::Up);
    run(&mut bench, Millis::secs(1));
    kill(&mut bench);
    kill(&mut bench);
    let told = check(&bench);
    assert_eq!((told.health, told.summary.state), (ServiceHealth::Unhealthy, ServiceState::Failed));
    assert!(told.reason.contains("signal 9"), "{}", told.reason);
    let counted = Instances::of(&bench.snapshot().worlds[&key()]);
    assert_eq!((counted.unhealthy, counted.stopped, counted.total), (1, 0, 1), "somebody has to look");
}

#[test]
fn what_was_stopped_is_stopped_and_nothing_to_look_at() {
    let mut bench = running("process v1");
    let world = bench.world(&key()).clone();
    let stopped = intent::stop(&world, bench.now);
    bench.intend(&key(), stopped);
    run(&mut bench, Millis::secs(60));
    let told = check(&bench);
    assert_eq!((told.health, told.reason.as_str()), (ServiceHealth::Stopped, ""));
}

#[test]
fn each_deployment_is_counted_once_by_its_outcome() {
    let mut bench = declared("process v1");
    let mut ended = Vec::new();
    let mut follow = |bench: &mut Bench| {
        for _ in 0..400 {
            let before = bench.world(&key()).clone();
            bench.pass();
            ended.extend(monitor::ended(&before, bench.world(&key())));
            bench.tick(Millis(500));
        }
    };
    follow(&mut bench);
    apply(&mut bench, "process v2 is=crashing attempts=1");
    follow(&mut bench);
    let outcomes: Vec<Outcome> = ended.iter().map(|(outcome, _)| *outcome).collect();
    let restored = Outcome::Active;
    assert_eq!(outcomes, [Outcome::Active, Outcome::Failed, restored]);
    assert!(ended[0].1 >= Millis::secs(2), "it had to hold: {ended:?}");
}
