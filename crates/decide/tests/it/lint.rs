//! What the linter says about plans that no planner should make, and that it says nothing about those that one makes.

use std::sync::Arc;

use crate::bench::{Bench, spec};
use decide::{
    intent,
    lint::{self, Objection},
    world::Snapshot,
};
use model::{
    Incarnation, InstanceId, Knowledge, Millis, ServiceKey,
    deployment::{Deployment, Phase},
    instance::{RetireReason, Stage},
    node::NodeState,
    plan::{Decision, Plan},
    route::Backend,
    service::Owner,
};

const PASSES: usize = 200;

fn key() -> ServiceKey {
    "web".parse().unwrap()
}

/// One service as declared, converged.
fn converged(declared: &str) -> Bench {
    let mut bench = Bench::new();
    bench.add_node("n1");
    apply(&mut bench, declared);
    settle(&mut bench);
    bench
}

fn apply(bench: &mut Bench, declared: &str) {
    let words: Vec<&str> = declared.split_whitespace().collect();
    let world = bench.world(&key()).clone();
    let applied = intent::apply(&world, &spec::parse(&words), &Owner::Api, &bench.images, bench.now);
    bench.intend(&key(), applied);
}

/// Passes until nothing changes; none of them may draw an objection.
fn settle(bench: &mut Bench) {
    for _ in 0..PASSES {
        let pass = bench.pass();
        assert_eq!(pass.objections, []);
        if pass.plan.decisions.is_empty() {
            match bench.wake_at() {
                Some(at) => bench.tick(at.since(bench.now)),
                None => return,
            }
        }
    }
    panic!("it does not come to rest");
}

/// A plan that changes nothing, to be spoilt.
fn same(bench: &Bench) -> (Snapshot, Plan) {
    let snapshot = bench.snapshot();
    let world = &snapshot.worlds[&key()];
    let decision = Decision {
        key: key(),
        parent: world.parent(),
        plan: world.plan.clone(),
        service: None,
        deployments: Vec::new(),
        events: Vec::new(),
        purge: false,
    };
    let plan = Plan {
        term: snapshot.term,
        holder: snapshot.holder.clone(),
        at: snapshot.now,
        generation: snapshot.cluster.generation.next(),
        route_revision: snapshot.cluster.route_revision.next(),
        decisions: vec![decision],
    };
    (snapshot, plan)
}

fn objections(bench: &Bench, spoil: impl FnOnce(&Snapshot, &mut Decision)) -> Vec<Objection> {
    let (snapshot, mut plan) = same(bench);
    spoil(&snapshot, &mut plan.decisions[0]);
    lint::lint(&snapshot, &plan)
}

fn retire(snapshot: &Snapshot, decision: &mut Decision, count: usize, why: RetireReason) {
    let stage =
        Stage::Retiring { revision: snapshot.cluster.route_revision.next(), since: snapshot.now, why };
    decision.plan.placements.values_mut().take(count).for_each(|placement| placement.stage = stage.clone());
}

fn first(decision: &Decision) -> InstanceId {
    decision.plan.placements.keys().next().unwrap().clone()
}

const REASONS: [RetireReason; 7] = [
    RetireReason::Replaced,
    RetireReason::ScaledDown,
    RetireReason::Stopped,
    RetireReason::Deleted,
    RetireReason::Abandoned,
    RetireReason::NodeLost,
    RetireReason::NodeDrained,
];

#[test]
fn whatever_reason_is_given_more_than_a_few_do_not_go_by_themselves() {
    for declared in [
        "process v1 replicas=10",
        "process v1 replicas=10 strategy=recreate",
        "process v1 replicas=10 domains=",
    ] {
        let bench = converged(declared);
        for why in REASONS {
            let going =
                |count| objections(&bench, |snapshot, decision| retire(snapshot, decision, count, why));
            assert_eq!(going(3), [], "{declared} {why:?}");
            assert_eq!(going(4), [Objection::Blast { removals: 4, running: 10 }], "{declared} {why:?}");
        }
    }
    let bench = converged("process v1 replicas=30");
    let going = |count| {
        objections(&bench, |snapshot, decision| retire(snapshot, decision, count, RetireReason::Replaced))
    };
    assert_eq!((going(6), going(7).len()), (vec![], 1), "a fifth of many");
}

/// An operator has named the node: what is declared to go before its successor comes goes from there unasked.
#[test]
fn what_is_on_a_drained_node_goes_without_a_question() {
    for how in ["order=stop-first parallelism=6", "strategy=recreate"] {
        let mut bench = Bench::new();
        ["n1", "n2"].iter().for_each(|node| bench.add_node(node));
        apply(&mut bench, &format!("process v1 replicas=12 {how}"));
        settle(&mut bench);
        bench.set_node("n2", NodeState::Draining);
        settle(&mut bench);
        let placements = &bench.world(&key()).plan.placements;
        assert!(placements.values().all(|placed| placed.node.as_str() == "n1"), "{how}");
    }
}

#[test]
fn what_nothing_is_known_of_may_serve_and_what_is_known_to_be_ill_does_not() {
    let mut bench = converged("process v1 replicas=10");
    bench.nodes.values_mut().for_each(|node| node.heard = None);
    let gone = |bench: &Bench| {
        objections(bench, |snapshot, decision| retire(snapshot, decision, 10, RetireReason::Replaced))
    };
    assert_eq!(gone(&bench), [Objection::Blast { removals: 10, running: 10 }]);
    let ill = converged("process v1 replicas=10 is=manual");
    assert_eq!(gone(&ill), [], "none of them was ever ready");
}

#[test]
fn what_a_record_names_goes_without_a_question() {
    let ask = |what: &str| {
        let mut bench = converged("process v1 replicas=12 parallelism=12");
        let (world, now) = (bench.world(&key()).clone(), bench.now);
        let asked = match what {
            "scale" => intent::scale(&world, 1, now),
            "stop" => intent::stop(&world, now),
            "delete" => intent::delete(&world, &Owner::Api, now),
            "restart" => intent::restart(&world, now),
            other => panic!("{other}"),
        };
        bench.intend(&key(), asked);
        settle(&mut bench);
        bench.world(&key()).plan.placements.values().filter(|p| p.stage.is_run()).count()
    };
    assert_eq!(["scale", "stop", "delete", "restart"].map(ask), [1, 0, 0, 12]);
    for how in ["", "strategy=recreate", "order=stop-first parallelism=12"] {
        let mut bench = converged(&format!("process v1 replicas=12 {how}"));
        apply(&mut bench, &format!("process v2 replicas=12 {how}"));
        settle(&mut bench);
        assert_eq!(bench.world(&key()).plan.placements.len(), 12, "{how}");
    }
}

#[test]
fn each_objection_is_drawn_by_what_it_is_about() {
    let bench = converged("process v1 replicas=2");
    let say = |spoil: &dyn Fn(&Snapshot, &mut Decision)| objections(&bench, spoil);
    let removing = |snapshot: &Snapshot| Stage::Removing {
        generation: snapshot.cluster.generation.next(),
        since: snapshot.now,
        why: RetireReason::Replaced,
    };

    let id = |snapshot: &Snapshot| snapshot.worlds[&key()].plan.placements.keys().next().unwrap().clone();
    let web = id(&bench.snapshot());
    assert_eq!(
        say(&|snapshot, decision| {
            let first = first(decision);
            decision.plan.placements.get_mut(&first).unwrap().stage = removing(snapshot);
        }),
        [Objection::StillRouted(web.clone())]
    );
    assert_eq!(
        say(&|_, decision| {
            let first = first(decision);
            decision.plan.placements.remove(&first);
        }),
        [Objection::Forgotten(web.clone())]
    );
    assert_eq!(
        say(&|_, decision| {
            let first = first(decision);
            decision.plan.placements.get_mut(&first).unwrap().node = "n2".parse().unwrap();
        }),
        [Objection::Mutated(web.clone())]
    );
    assert_eq!(
        say(&|_, decision| {
            let mut again = decision.plan.placements[&first(decision)].clone();
            again.id.incarnation = Incarnation(0);
            again.id.slot = model::Slot(7);
            decision.plan.placements.insert(again.id.clone(), again);
        })
        .len(),
        1,
        "an incarnation is used again"
    );
    assert_eq!(
        say(&|_, decision| {
            let route = Arc::make_mut(decision.plan.route.as_mut().unwrap());
            let Backend::Proxy { endpoints } = &mut route.backend else { panic!("it is a process") };
            endpoints[0].instance.slot = model::Slot(9);
        }),
        [Objection::UnreadyRouted({
            let mut other = web.clone();
            other.slot = model::Slot(9);
            other
        })]
    );
    let many = say(&|_, decision| {
        for slot in 10..14 {
            let mut more = decision.plan.placements[&first(decision)].clone();
            more.id.slot = model::Slot(slot);
            more.id.incarnation = Incarnation(u64::from(slot));
            decision.plan.placements.insert(more.id.clone(), more);
        }
    });
    assert_eq!(many, [Objection::TooMany { service: key(), live: 6, limit: 3 }]);
    let change = |deployment: &Deployment, number: u64, phase: Phase| {
        let id = format!("aaaaaaaaaaa{number}").parse().unwrap();
        Deployment { id, number, phase, ..deployment.clone() }
    };
    assert_eq!(
        say(&|snapshot, decision| {
            let active = snapshot.worlds[&key()].active_deployment().unwrap();
            decision.deployments = vec![Deployment { phase: Phase::Starting, ..active.clone() }];
        }),
        [Objection::IllegalDeployment { service: key(), number: 1 }]
    );
    assert_eq!(
        say(&|snapshot, decision| {
            let active = snapshot.worlds[&key()].active_deployment().unwrap();
            decision.deployments = vec![change(active, 2, Phase::Starting), change(active, 3, Phase::Queued)];
        }),
        [Objection::TwoOpen(key())]
    );
    let mut unreadable = converged("process v1 replicas=2");
    unreadable.unreadable.insert(key());
    assert_eq!(objections(&unreadable, |_, _| {}), [Objection::UnknownService(key())]);
    assert!(matches!(unreadable.snapshot().worlds[&key()].service, Knowledge::Unknown { .. }));
}

#[test]
fn what_has_left_the_routes_waits_for_the_edges_and_does_not_come_back() {
    let mut bench = converged("process v1 replicas=2 drain=60s");
    bench.edges.values_mut().for_each(|edge| edge.lags = true);
    let (world, now) = (bench.world(&key()).clone(), bench.now);
    bench.intend(&key(), intent::stop(&world, now));
    bench.pass();
    bench.tick(Millis(100));
    let retiring = first(&same(&bench).1.decisions[0]);
    assert!(matches!(bench.world(&key()).plan.placements[&retiring].stage, Stage::Retiring { .. }));
    let early = objections(&bench, |snapshot, decision| {
        decision.plan.placements.get_mut(&retiring).unwrap().stage = Stage::Removing {
            generation: snapshot.cluster.generation.next(),
            since: snapshot.now,
            why: RetireReason::Stopped,
        };
    });
    assert_eq!(early, [Objection::NotDrained(retiring.clone())]);
    let back = objections(&bench, |_, decision| {
        decision.plan.placements.get_mut(&retiring).unwrap().stage = Stage::Run;
    });
    assert!(back.contains(&Objection::StageWentBack(retiring)), "{back:?}");
}
