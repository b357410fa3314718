//! A pass that finds nothing changed: by pointers (what the loop does every time), by comparing every world with what
//! the nodes say (what the periodic pass does), and by planning every service anew. The floor is a merge of two sorted
//! lists of 32-byte records, which is the least that any comparison of everything can cost.

use std::{collections::BTreeMap, hint::black_box, sync::Arc, time::Instant};

use decide::{plan, plan::Scope, world::World};
use model::{
    BootId, DeploymentId, Generation, Holder, Incarnation, InstanceId, IntentSeq, Knowledge, NodeId,
    ReleaseDigest, RouteRevision, ServiceKey, Slot, Term, Timestamp,
    instance::{Attempts, Placement, Stage},
    observation::{InstanceReport, Observation, State},
    plan::ServicePlan,
    release::Release,
    service::{Owner, Service},
    spec,
};
use server::Brain;
use store::Counters;

use crate::report::{Report, percentile};

const REPLICAS: u32 = 10;
const ROUNDS: usize = 7;
const NOW: Timestamp = Timestamp(1_800_000_000_000);

pub fn run(instances: u32, report: &mut Report) {
    let floor = merge_floor(instances as usize);
    let mut brain = brain(instances / REPLICAS);
    settle(&mut brain);

    let mut by_pointer = time(|| assert!(brain.due().is_empty(), "nothing has changed"));
    let line = |what: &str| format!("no-change pass, {instances} instances: {what}");
    report.add_beside(line("by pointer"), by_pointer.median(), "ms", ("sorted merge", floor));
    let mut everything = time(|| {
        brain.look_at_everything();
        assert!(brain.due().is_empty(), "nothing has changed");
    });
    report.add_beside(line("every world compared"), everything.median(), "ms", ("sorted merge", floor));
    let mut planned = time(|| {
        let (plan, _) = plan::plan(&brain.snapshot, Scope::All);
        assert!(plan.decisions.is_empty(), "at rest");
    });
    report.add_beside(line("every service planned"), planned.median(), "ms", ("sorted merge", floor));
}

struct Samples(Vec<f64>);

impl Samples {
    fn median(&mut self) -> f64 {
        percentile(&mut self.0, 0.5)
    }
}

fn time(mut work: impl FnMut()) -> Samples {
    let sample = |_| {
        let began = Instant::now();
        work();
        began.elapsed().as_secs_f64() * 1000.0
    };
    Samples((0..ROUNDS).map(sample).collect())
}

fn merge_floor(n: usize) -> f64 {
    let declared: Vec<[u64; 4]> = (0..n as u64).map(|i| [i, i ^ 7, i, 1]).collect();
    let observed = declared.clone();
    let mut samples = time(|| {
        let differing = declared.iter().zip(&observed).filter(|(a, b)| a != b).count();
        black_box(differing);
    });
    samples.median()
}

/// Plans until nothing more is decided, as the loop would.
fn settle(brain: &mut Brain) {
    loop {
        let due = brain.due();
        if due.is_empty() {
            return;
        }
        let (plan, reports) = plan::plan(&brain.snapshot, Scope::Only(&due));
        for (key, report) in reports {
            let decided = plan.decisions.iter().any(|decision| decision.key == key);
            brain.note(&key, report, decided);
        }
        if plan.decisions.is_empty() {
            return;
        }
        brain.committed(&plan);
    }
}

fn brain(services: u32) -> Brain {
    let node: NodeId = "local".parse().expect("a valid id");
    let holder: Holder = "bench".parse().expect("a valid id");
    let counters = Counters { generation: Generation(1), route_revision: RouteRevision(0), term: Term(1) };
    let mut brain = Brain::new(Term(1), holder, counters, vec![node.clone()], NOW);
    let release = Arc::new(release());
    let digest = release.digest();
    let worlds: Vec<World> = (0..services).map(|n| world(n, &release, digest, &node)).collect();
    let instances = worlds.iter().flat_map(|world| world.plan.placements.values()).map(told).collect();
    brain.observe(Arc::new(Observation {
        node,
        boot: "boot".parse::<BootId>().expect("a valid id"),
        sequence: 1,
        at: NOW,
        accepted: None,
        instances,
        lost_volumes: Vec::new(),
        strangers: Vec::new(),
        engine: None,
        complete: true,
    }));
    for world in worlds {
        brain.put(world);
    }
    brain.count();
    brain
}

fn spec() -> spec::ServiceSpec {
    let text = "services: {s: {command: [/bin/app], replicas: 10}}";
    let manifest = model::manifest::parse(text, "bench.yaml", "/").expect("a valid manifest");
    manifest.services.into_iter().next().expect("one service").spec
}

fn release() -> Release {
    Release::of(&spec())
}

fn world(n: u32, release: &Arc<Release>, digest: ReleaseDigest, node: &NodeId) -> World {
    let key: ServiceKey = format!("bench/s{n:06}").parse().expect("a valid name");
    let service = Service {
        key: key.clone(),
        generation: Generation(1),
        intent_seq: IntentSeq(1),
        owner: Owner::Api,
        spec: spec(),
        target: Some(digest),
        scale: None,
        stopped: false,
        restart_epoch: 0,
        deleted: None,
        created_at: NOW,
        updated_at: NOW,
    };
    let placements: BTreeMap<InstanceId, Placement> =
        (0..REPLICAS).map(|slot| placement(&key, slot, digest, node)).map(|p| (p.id.clone(), p)).collect();
    let plan = ServicePlan {
        generation: Generation(1),
        placements,
        next_incarnation: Incarnation(u64::from(REPLICAS)),
        ..ServicePlan::default()
    };
    World {
        key,
        service: Knowledge::Known(service),
        plan,
        releases: BTreeMap::from([(digest, Arc::clone(release))]),
        deployments: Vec::new(),
        next_deployment: 1,
        seen: BTreeMap::new(),
        edges: BTreeMap::new(),
        refused: BTreeMap::new(),
        lost_volumes: BTreeMap::new(),
        engines_away: BTreeMap::new(),
    }
}

fn placement(key: &ServiceKey, slot: u32, release: ReleaseDigest, node: &NodeId) -> Placement {
    Placement {
        id: InstanceId { service: key.clone(), slot: Slot(slot), incarnation: Incarnation(u64::from(slot)) },
        node: node.clone(),
        release,
        deployment: DeploymentId::derive(key, 1, NOW),
        restart_epoch: 0,
        created_at: NOW,
        stage: Stage::Run,
        attempts: Attempts::default(),
    }
}

fn told(placement: &Placement) -> (InstanceId, Arc<InstanceReport>) {
    let report = InstanceReport {
        id: placement.id.clone(),
        release: placement.release,
        state: State::Running,
        ready: true,
        ready_since: NOW,
        pid: Some(1),
        container: None,
        address: None,
        folder: None,
        current: false,
        started_at: Some(NOW),
        attempts: Attempts::default(),
        last_exit: None,
        message: String::new(),
        without: None,
        last_lines: Vec::new(),
        copied: None,
        drift: Vec::new(),
    };
    (placement.id.clone(), Arc::new(report))
}
