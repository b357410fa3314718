//! The view that is planned from: what is due after which news, and what comes too late to be news.

use std::{collections::BTreeMap, sync::Arc};

use crate::bench::{Bench, spec};
use decide::{
    intent,
    plan::{self, Scope},
    view::View,
    world::Snapshot,
};
use model::{Millis, ServiceKey, plan::Plan, service::Owner};

fn key() -> ServiceKey {
    "web".parse().unwrap()
}

/// One service that was declared, and nothing done.
fn declared() -> Bench {
    let mut bench = Bench::new();
    bench.add_node("n1");
    let world = bench.world(&key()).clone();
    let spec = spec::parse(&["process", "v1", "domains=web.localhost"]);
    let applied = intent::apply(&world, &spec, &Owner::Api, &bench.images, bench.now);
    bench.intend(&key(), applied);
    bench
}

/// A view of what a bench is.
fn view(bench: &Bench) -> View {
    let snapshot = bench.snapshot();
    let mut view = View::new(Snapshot { worlds: BTreeMap::new(), ..snapshot.clone() }, Millis::secs(20));
    for world in snapshot.worlds.values() {
        view.put((**world).clone());
    }
    view
}

/// What a pass decides of what is due.
fn pass(view: &mut View) -> Plan {
    let due = view.due();
    let (plan, reports) = plan::plan(&view.snapshot, Scope::Only(&due));
    for (key, report) in reports {
        let decided = plan.decisions.iter().any(|decision| decision.key == key);
        view.note(&key, report, decided);
    }
    plan
}

#[test]
fn what_was_decided_and_not_committed_is_due_again() {
    let bench = declared();
    let mut view = view(&bench);
    let first = pass(&mut view);
    assert_eq!(first.decisions.len(), 1);
    // The store refuses, and what it holds comes out as it was.
    view.put((**view.world(&key()).unwrap()).clone());
    assert_eq!(pass(&mut view), first);
    view.committed(&first);
    assert_ne!(pass(&mut view), first, "once committed, that is over");
}

#[test]
fn an_observation_that_comes_late_takes_nothing_back() {
    let mut bench = declared();
    bench.observe();
    let early = Arc::new(bench.nodes[&"n1".parse().unwrap()].heard.clone().unwrap());
    for _ in 0..20 {
        bench.tick(Millis(500));
        bench.pass();
    }
    let late = Arc::new(bench.nodes[&"n1".parse().unwrap()].heard.clone().unwrap());
    assert_ne!(early.instances, late.instances);
    let mut view = view(&bench);
    view.observe(late);
    let before = view.world(&key()).unwrap().clone();
    view.observe(early);
    assert_eq!(view.world(&key()).unwrap().seen, before.seen);
}

#[test]
fn an_edge_report_that_comes_late_takes_nothing_back() {
    let mut bench = declared();
    for _ in 0..20 {
        bench.tick(Millis(500));
        bench.pass();
    }
    let mut view = view(&bench);
    let report = bench.edges.values().next().unwrap().heard.clone().unwrap();
    assert!(report.served.0 > 0, "its routes are out");
    let early = model::route::EdgeReport {
        at: report.at - Millis(100),
        served: model::RouteRevision(0),
        ..report.clone()
    };
    view.hear(report);
    let before = view.world(&key()).unwrap().clone();
    view.hear(early);
    assert_eq!(view.world(&key()).unwrap().edges, before.edges);
}

#[test]
fn a_sign_of_life_that_says_nothing_new_makes_nothing_due() {
    let mut bench = declared();
    for _ in 0..20 {
        bench.tick(Millis(500));
        bench.pass();
    }
    let mut view = view(&bench);
    let node = |bench: &Bench| Arc::new(bench.nodes[&"n1".parse().unwrap()].heard.clone().unwrap());
    view.observe(node(&bench));
    pass(&mut view);
    bench.observe();
    view.observe(node(&bench));
    assert!(!view.has_news());
}
