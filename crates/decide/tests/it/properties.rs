//! What holds for every history: events are drawn at random, told to a small world, and judged by the numbers of the
//! list of what must hold.

use std::collections::BTreeSet;

use crate::bench::{Bench, spec};
use decide::{
    intent, lint,
    plan::{self, Scope},
    world::{Snapshot, World},
};
use model::{
    InstanceId, Knowledge, Millis, ServiceKey,
    deployment::Phase,
    instance::{RetireReason, Stage},
    observation::ExitStatus,
    service::Owner,
};
use proptest::prelude::*;

/// Passes within which a world with no input comes to rest.
const RESTS_WITHIN: usize = 400;

#[derive(Debug, Clone)]
enum Told {
    Apply { service: usize, version: u8, is: usize },
    Ask { service: usize, what: usize },
    Scale { service: usize, replicas: u8 },
    Disturb { service: usize, slot: u8, how: usize },
    InFlight { service: usize, slot: u8, requests: u64 },
    Node { reachable: bool },
    Edge { lags: bool, silent: bool },
    Pass,
    Tick { millis: u64 },
}

const SERVICES: [&str; 5] = ["web", "api", "port", "docs", "both"];
const BEHAVIOURS: [&str; 5] = ["good", "good", "manual", "crashing", "broken"];
const ASKS: [&str; 8] = ["deploy", "rollback", "cancel", "stop", "start", "restart", "delete", "rollback"];

fn told() -> impl Strategy<Value = Told> {
    let service = 0..SERVICES.len();
    prop_oneof![
        3 => (service.clone(), 1u8..4, 0..BEHAVIOURS.len())
            .prop_map(|(service, version, is)| Told::Apply { service, version, is }),
        3 => (service.clone(), 0..ASKS.len()).prop_map(|(service, what)| Told::Ask { service, what }),
        1 => (service.clone(), 0u8..5).prop_map(|(service, replicas)| Told::Scale { service, replicas }),
        3 => (service.clone(), 0u8..3, 0usize..4)
            .prop_map(|(service, slot, how)| Told::Disturb { service, slot, how }),
        1 => (service, 0u8..3, 0u64..3)
            .prop_map(|(service, slot, requests)| Told::InFlight { service, slot, requests }),
        1 => any::<bool>().prop_map(|reachable| Told::Node { reachable }),
        1 => any::<(bool, bool)>().prop_map(|(lags, silent)| Told::Edge { lags, silent }),
        6 => Just(Told::Pass),
        3 => (1u64..20_000).prop_map(|millis| Told::Tick { millis }),
    ]
}

fn history() -> impl Strategy<Value = Vec<Told>> {
    proptest::collection::vec(told(), 1..60)
}

fn key(service: usize) -> ServiceKey {
    SERVICES[service].parse().unwrap()
}

fn declared(service: usize, version: u8, is: usize) -> model::spec::ServiceSpec {
    let is_odd = version % 2 == 1;
    let (version, is) = (format!("v{version}"), format!("is={}", BEHAVIOURS[is]));
    let domain = format!("domains={}.localhost", SERVICES[service]);
    let mut words: Vec<&str> = match SERVICES[service] {
        "web" => vec!["process", &version, &is, &domain, "replicas=3"],
        "api" => {
            vec!["process", &version, &is, &domain, "replicas=2", "order=stop-first", "on_failure=pause"]
        }
        "port" => vec!["process", &version, &is, &domain, "port=8080", "strategy=recreate"],
        "both" if is_odd => vec!["process", &version, &is, &domain, "replicas=2"],
        _ => vec!["site", &version, &is, &domain, "retain=1"],
    };
    words.push("deadline=60s");
    spec::parse(&words)
}

fn tell(bench: &mut Bench, told: &Told) -> Result<(), TestCaseError> {
    let now = bench.now;
    match *told {
        Told::Apply { service, version, is } => {
            let (key, spec) = (key(service), declared(service, version, is));
            let world = bench.world(&key).clone();
            bench.intend(&key, intent::apply(&world, &spec, &Owner::Api, &Default::default(), now));
        }
        Told::Ask { service, what } => ask(bench, &key(service), ASKS[what]),
        Told::Scale { service, replicas } => {
            let key = key(service);
            // A machine has each port once.
            let replicas = if SERVICES[service] == "port" { replicas.min(1) } else { replicas };
            let world = bench.world(&key).clone();
            bench.intend(&key, intent::scale(&world, replicas.into(), now));
        }
        Told::Disturb { service, slot, how } => disturb(bench, service, slot, how),
        Told::InFlight { service, slot, requests } => {
            if let Some(id) = bench.instance(&format!("{}.{slot}", SERVICES[service])) {
                bench.edges.values_mut().next().unwrap().in_flight.insert(id, requests);
            }
        }
        Told::Node { reachable } => {
            let node = bench.nodes.values_mut().next().unwrap();
            node.reachable = reachable;
            if !reachable {
                node.heard = None;
            }
        }
        Told::Edge { lags, silent } => {
            let edge = bench.edges.values_mut().next().unwrap();
            (edge.lags, edge.silent) = (lags, silent);
        }
        Told::Pass => pass(bench)?,
        Told::Tick { millis } => bench.tick(Millis(millis)),
    }
    Ok(())
}

fn ask(bench: &mut Bench, key: &ServiceKey, what: &str) {
    let now = bench.now;
    let world = bench.world(key).clone();
    let result = match what {
        "deploy" => intent::deploy(&world, &intent::Content::Declared, &Default::default(), now),
        "rollback" => intent::rollback(&world, None, now),
        "cancel" => match world.open_deployment() {
            Some(open) => intent::cancel(&world, &open.id, now),
            None => return,
        },
        "stop" => intent::stop(&world, now),
        "start" => intent::start(&world, now),
        "restart" => intent::restart(&world, now),
        _ => intent::delete(&world, &Owner::Api, now),
    };
    bench.intend(key, result);
}

fn disturb(bench: &mut Bench, service: usize, slot: u8, how: usize) {
    let now = bench.now;
    let Some(id) = bench.instance(&format!("{}.{slot}", SERVICES[service])) else { return };
    let Some(local) = bench.local(&id) else { return };
    match how {
        0 => local.die(ExitStatus::Signal(9), now),
        1 => local.probe(Err("503".into()), now),
        2 => local.probe(Ok(()), now),
        _ => local.local.drifted = true,
    }
}

/// A pass, judged: the linter has no objection, and what the records say stays true.
fn pass(bench: &mut Bench) -> Result<(), TestCaseError> {
    bench.observe();
    let snapshot = bench.snapshot();
    judge(&snapshot)?;
    let pass = bench.pass();
    prop_assert_eq!(&pass.objections, &[]);
    for world in bench.worlds.values() {
        let count = |wanted: fn(Phase) -> bool| world.deployments.iter().filter(|d| wanted(d.phase)).count();
        prop_assert!(count(Phase::is_open) <= 1, "I7: {} has several open deployments", world.key);
        prop_assert!(count(|p| p == Phase::Active) <= 1, "I7: {} has several active deployments", world.key);
    }
    Ok(())
}

/// What holds for one plan, whatever led to its world.
fn judge(snapshot: &Snapshot) -> Result<(), TestCaseError> {
    let (whole, reports) = plan::plan(snapshot, Scope::All);
    // The same input gives the same bytes, also after the worlds were stored and read again.
    let bytes = serde_json::to_vec(&(&whole, &reports)).unwrap();
    let again = plan::plan(&reread(snapshot), Scope::All);
    prop_assert_eq!(&bytes, &serde_json::to_vec(&(&again.0, &again.1)).unwrap());
    // Scoped planning equals full planning.
    for key in snapshot.worlds.keys() {
        let (scoped, _) = plan::plan(snapshot, Scope::Only(&BTreeSet::from([key.clone()])));
        let of_whole: Vec<_> = whole.decisions.iter().filter(|d| d.key == *key).collect();
        prop_assert_eq!(scoped.decisions.iter().collect::<Vec<_>>(), of_whole);
    }
    for decision in &whole.decisions {
        let world = &snapshot.worlds[&decision.key];
        fewer_are_not_ready(world, &decision.plan)?;
        ports_have_one_owner(world, &decision.plan)?;
    }
    nothing_goes_for_want_of_knowledge(snapshot)
}

fn reread(snapshot: &Snapshot) -> Snapshot {
    let worlds = snapshot.worlds.iter().map(|(key, world)| {
        let bytes = serde_json::to_vec(&**world).unwrap();
        (key.clone(), std::sync::Arc::new(serde_json::from_slice::<World>(&bytes).unwrap()))
    });
    let cluster = serde_json::to_vec(&snapshot.cluster).unwrap();
    Snapshot {
        worlds: worlds.collect(),
        cluster: serde_json::from_slice(&cluster).unwrap(),
        ..snapshot.clone()
    }
}

/// I6: start-first takes nothing ready out of the routes before as many others are ready and routed.
fn fewer_are_not_ready(world: &World, after: &model::plan::ServicePlan) -> Result<(), TestCaseError> {
    let Knowledge::Known(service) = &world.service else { return Ok(()) };
    let wanted = match world.key.name.as_str() {
        "web" => service.wanted_replicas() as usize,
        // A site or a process, by turns: something of it.
        "both" => service.wanted_replicas().min(1) as usize,
        _ => return Ok(()),
    };
    if wanted == 0 {
        return Ok(());
    }
    let routed = |plan: &model::plan::ServicePlan| -> BTreeSet<InstanceId> {
        plan.route.iter().flat_map(|route| route.backend.instances()).cloned().collect()
    };
    let ready = |id: &InstanceId| world.report(id).is_some_and(|seen| seen.ready) || world.is_unknown(id);
    let (before, after) = (routed(&world.plan), routed(after));
    let served = before.iter().filter(|id| ready(id)).count().min(wanted);
    prop_assert!(
        after.iter().filter(|id| ready(id)).count() >= served,
        "I6: {} of {} ready ones stay in the routes",
        after.len(),
        served
    );
    Ok(())
}

/// I18: no two instances with one fixed port, those on their way out among them.
fn ports_have_one_owner(world: &World, after: &model::plan::ServicePlan) -> Result<(), TestCaseError> {
    if world.key.name.as_str() == "port" {
        let holders = after.placements.len();
        prop_assert!(holders <= 1, "I18: {holders} instances with port 8080");
    }
    Ok(())
}

/// I14: with all observations lost nothing goes but what a recorded intent names, and nothing is forgotten.
fn nothing_goes_for_want_of_knowledge(snapshot: &Snapshot) -> Result<(), TestCaseError> {
    let mut blind = snapshot.clone();
    for world in blind.worlds.values_mut() {
        let mut unseen = (**world).clone();
        unseen.seen.clear();
        unseen.edges.clear();
        *world = std::sync::Arc::new(unseen);
    }
    let (plan, _) = plan::plan(&blind, Scope::All);
    prop_assert_eq!(lint::lint(&blind, &plan), vec![]);
    for decision in &plan.decisions {
        let world = &blind.worlds[&decision.key];
        let Knowledge::Known(service) = &world.service else { continue };
        for before in world.plan.placements.values() {
            let Some(after) = decision.plan.placements.get(&before.id) else {
                return Err(TestCaseError::fail(format!("I14: {} is forgotten unseen", before.id)));
            };
            let goes = match after.stage {
                Stage::Retiring { why, .. } if before.stage.is_run() => Some(why),
                Stage::Run | Stage::Kept | Stage::Retiring { .. } | Stage::Removing { .. } => None,
            };
            // A folder is no process: whether it is shown is known from the plan, whatever the service is by now.
            let release = world.releases.get(&before.release);
            let is_folder = release.map(|release| release.workload.kind()) == Some(model::spec::Kind::Site);
            let all_go = service.wanted_replicas() == 0
                || service.spec.deploy.strategy == model::spec::Strategy::Recreate
                || is_folder;
            prop_assert!(goes.is_none() || all_go, "I14: {} goes unseen: {:?}", before.id, goes);
            prop_assert!(goes != Some(RetireReason::NodeLost));
        }
    }
    Ok(())
}

/// With no input and nothing in its way, the world comes to rest and stays there.
fn settle(bench: &mut Bench) -> Result<(), TestCaseError> {
    let node = bench.nodes.values_mut().next().unwrap();
    node.reachable = true;
    let edge = bench.edges.values_mut().next().unwrap();
    (edge.lags, edge.silent) = (false, false);
    edge.in_flight.clear();
    bench.publish();
    // A crash loop comes back when its window has passed, for ever: rest is asked for within a window.
    let until = bench.now + Millis::mins(9);
    for _ in 0..RESTS_WITHIN {
        let pass = bench.pass();
        prop_assert_eq!(&pass.objections, &[]);
        if !pass.plan.decisions.is_empty() {
            continue;
        }
        match bench.wake_at().filter(|at| *at < until) {
            Some(at) => bench.tick(at.since(bench.now)),
            None => return Ok(()),
        }
    }
    Err(TestCaseError::fail("I16: no rest"))
}

proptest! {
    #![proptest_config(ProptestConfig { max_shrink_iters: 4_000, failure_persistence: None, ..ProptestConfig::default() })]

    /// I6, I14, I16, I17, I18, and I7 at every pass; I12 and I15 at the end.
    #[test]
    fn every_history_keeps_what_must_hold_and_comes_to_rest(history in history()) {
        let mut bench = Bench::new();
        bench.add_node("n1");
        for told in &history {
            tell(&mut bench, told)?;
        }
        settle(&mut bench)?;
        // I16: the next passes change nothing.
        for _ in 0..3 {
            bench.tick(Millis(100));
            let pass = bench.pass();
            prop_assert_eq!(pass.plan.decisions, vec![], "I16");
        }
        for world in bench.worlds.values() {
            let gone = world.service.known().is_none_or(|service| service.deleted.is_some());
            prop_assert!(world.open_deployment().is_none(), "I7: {} has an open deployment", world.key);
            if gone {
                // I12
                prop_assert!(world.plan.placements.is_empty() && world.plan.route.is_none());
                let node = bench.nodes.values().next().unwrap();
                prop_assert!(node.instances.keys().all(|id| id.service != world.key), "I12: {}", world.key);
            }
        }
        // I15, where the starts happen: the first and its restarts within a window of ten minutes.
        for instance in bench.nodes.values().flat_map(|node| node.instances.values()) {
            for from in &instance.starts {
                let within = instance.starts.iter().filter(|at| *at >= from && at.since(*from) < Millis::mins(10));
                prop_assert!(within.count() <= 6, "I15: {}", instance.local.id);
            }
        }
    }
}
