//! Random histories of intents, plans and restarts: the store says yes and no as a small model does, and loads
//! what the model holds.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
};

use model::{
    Generation, Incarnation, IntentSeq, PlanSeq, ReleaseDigest, Term,
    deployment::{Deployment, Phase},
    plan::{Decision, Parent, Plan, ServicePlan},
    release::Release,
    service::Service,
};
use proptest::prelude::*;

use super::Disk;
use crate::{CommitError, Expected, IntentOutcome, Loaded, ServiceIntent, ServiceRow, Store, conformance::*};

const NAMES: [&str; 3] = ["a", "b", "c"];

/// Offsets from what would be right, so that most steps are legal and some are not.
#[derive(Debug, Clone)]
enum Step {
    Apply {
        name: usize,
        expected: i8,
        rise: u64,
        version: u32,
        deploy: Option<(i8, usize)>,
        cancel: bool,
    },
    Plan {
        name: usize,
        stale: bool,
        generation: i8,
        parent: (i8, i8),
        advance: Option<usize>,
        place: bool,
        purge: bool,
    },
    NewLeader,
    Reopen,
}

/// Mostly zero.
fn offset() -> impl Strategy<Value = i8> {
    prop_oneof![12 => Just(0_i8), 1 => Just(-1), 1 => Just(1)]
}

fn step() -> impl Strategy<Value = Step> {
    let phase = 0..Phase::ALL.len();
    let deploy = prop::option::of((offset(), prop_oneof![6 => Just(0), 1 => phase.clone()]));
    let apply = (
        0..NAMES.len(),
        offset(),
        prop_oneof![8 => Just(1_u64), 1 => Just(0), 1 => Just(3)],
        1..4_u32,
        deploy,
        any::<bool>(),
    )
        .prop_map(|(name, expected, rise, version, deploy, cancel)| Step::Apply {
            name,
            expected,
            rise,
            version,
            deploy,
            cancel,
        });
    let flags = (prop::bool::weighted(0.05), any::<bool>(), prop::bool::weighted(0.15));
    let advance = prop::option::of(prop_oneof![2 => phase, 3 => Just(8_usize)]);
    let plan = (0..NAMES.len(), offset(), (offset(), offset()), advance, flags).prop_map(
        |(name, generation, parent, advance, (stale, place, purge))| Step::Plan {
            name,
            stale,
            generation,
            parent,
            advance,
            place,
            purge,
        },
    );
    prop_oneof![10 => apply, 12 => plan, 1 => Just(Step::NewLeader), 1 => Just(Step::Reopen)]
}

/// One name, with what outlives its service.
#[derive(Debug, Clone, Default)]
struct Name {
    live: Option<Live>,
    intent: u64,
    plan: u64,
    incarnation: u64,
    number: u64,
}

#[derive(Debug, Clone)]
struct Live {
    service: Service,
    plan: ServicePlan,
    deployments: BTreeMap<u64, Deployment>,
    releases: BTreeMap<ReleaseDigest, Release>,
}

#[derive(Debug, Default)]
struct World {
    names: BTreeMap<&'static str, Name>,
    generation: u64,
    term: u64,
}

/// The kinds of no.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum No {
    StaleTerm,
    StaleGeneration,
    Conflict,
    Refused,
}

fn no(error: &CommitError) -> No {
    match error {
        CommitError::StaleTerm { .. } => No::StaleTerm,
        CommitError::StaleGeneration { .. } => No::StaleGeneration,
        CommitError::Conflict { .. } => No::Conflict,
        CommitError::Refused { .. } => No::Refused,
        CommitError::StaleRoutes { .. } | CommitError::Store(_) => panic!("{error}"),
    }
}

fn shifted(value: u64, by: i8) -> u64 {
    value.saturating_add_signed(by.into())
}

/// The lifecycle, said once more and differently: what may follow each phase.
fn legal(from: Phase, to: Phase) -> bool {
    let outcome = matches!(to, Phase::Active | Phase::Failed | Phase::Cancelled);
    match from {
        Phase::Active => matches!(to, Phase::Active | Phase::Superseded | Phase::RolledBack),
        open if open < Phase::Active => outcome || (to >= open && to < Phase::Active),
        _ => to == from,
    }
}

impl Live {
    /// Takes deployments over; false when something may not be.
    fn take(&mut self, number: &mut u64, deployments: &[Deployment]) -> bool {
        for new in deployments {
            let ok = match self.deployments.get(&new.number) {
                Some(old) => legal(old.phase, new.phase),
                None => {
                    new.number > *number
                        && (new.phase >= Phase::Active || self.releases.contains_key(&new.release))
                }
            };
            if !ok {
                return false;
            }
            *number = (*number).max(new.number);
            self.deployments.insert(new.number, new.clone());
        }
        let count = |is: fn(Phase) -> bool| self.deployments.values().filter(|d| is(d.phase)).count();
        count(|p| p < Phase::Active) <= 1 && count(|p| p == Phase::Active) <= 1
    }

    fn row(&self, number: u64) -> ServiceRow {
        let newest =
            |is: fn(&Deployment) -> bool| self.deployments.values().rev().find(|d| is(d)).map(|d| d.number);
        let shown = BTreeSet::from([
            newest(|d| d.phase < Phase::Active),
            newest(|d| d.phase == Phase::Active),
            newest(|d| matches!(d.phase, Phase::Active | Phase::Superseded | Phase::RolledBack)),
            newest(|_| true),
        ]);
        ServiceRow {
            service: self.service.clone(),
            plan: self.plan.clone(),
            deployments: self
                .deployments
                .values()
                .filter(|d| shown.contains(&Some(d.number)))
                .cloned()
                .collect(),
            releases: self
                .releases
                .iter()
                .map(|(digest, release)| (*digest, Arc::new(release.clone())))
                .collect(),
            next_deployment_number: number + 1,
        }
    }
}

impl Name {
    fn apply(&mut self, intent: &ServiceIntent) -> Result<(), No> {
        let expected = match intent.expected {
            Expected::Absent => None,
            Expected::Intent(seq) => Some(seq.0),
        };
        if expected != self.live.as_ref().map(|_| self.intent) {
            return Err(No::Conflict);
        }
        if intent.service.intent_seq.0 <= self.intent {
            return Err(No::Refused);
        }
        let plan = ServicePlan {
            seq: PlanSeq(self.plan),
            next_incarnation: Incarnation(self.incarnation),
            ..ServicePlan::default()
        };
        let mut live = self.live.clone().unwrap_or(Live {
            service: intent.service.clone(),
            plan,
            deployments: BTreeMap::new(),
            releases: BTreeMap::new(),
        });
        live.service = intent.service.clone();
        live.releases.extend(intent.releases.iter().map(|release| (release.digest(), release.clone())));
        if !live.take(&mut self.number, &intent.deployments) {
            return Err(No::Refused);
        }
        self.intent = intent.service.intent_seq.0;
        self.live = Some(live);
        Ok(())
    }

    fn plan(&mut self, decision: &Decision) -> Result<(), No> {
        let parent = Parent { intent: IntentSeq(self.intent), plan: PlanSeq(self.plan) };
        let Some(live) = self.live.as_mut().filter(|_| parent == decision.parent) else {
            return Err(No::Conflict);
        };
        live.plan = decision.plan.clone();
        if !live.take(&mut self.number, &decision.deployments) {
            return Err(No::Refused);
        }
        self.plan = decision.plan.seq.0;
        self.incarnation = decision.plan.next_incarnation.0;
        if decision.purge {
            if live.deployments.values().any(|d| d.phase < Phase::Active) {
                return Err(No::Refused);
            }
            self.live = None;
        }
        Ok(())
    }
}

impl World {
    fn name(&mut self, name: &'static str) -> &mut Name {
        self.names.entry(name).or_default()
    }

    /// Runs on a copy: a no leaves everything as it was.
    fn try_on(
        &mut self,
        name: &'static str,
        act: impl FnOnce(&mut Name) -> Result<(), No>,
    ) -> Result<(), No> {
        let mut copy = self.name(name).clone();
        act(&mut copy)?;
        *self.name(name) = copy;
        Ok(())
    }

    fn rows(&self) -> Vec<ServiceRow> {
        self.names.values().filter_map(|name| Some(name.live.as_ref()?.row(name.number))).collect()
    }
}

/// The world that should be, and the store that is.
struct Pair {
    disk: Disk,
    store: Store,
    leader: Leader,
    world: World,
}

impl Pair {
    async fn new() -> Self {
        let disk = Disk::new();
        let store = disk.open().await;
        let leader = Leader::of(&store, "leader").await;
        Self { disk, store, leader, world: World { term: 1, ..World::default() } }
    }

    async fn step(&mut self, step: &Step) {
        match step {
            Step::Apply { name, expected, rise, version, deploy, cancel } => {
                let request = self.request(NAMES[*name], *expected, *rise, *version, *deploy, *cancel);
                let said = self.store.commit_intents(None, commit(vec![request.clone()])).await;
                let said = said.map(|outcome| assert!(matches!(outcome, IntentOutcome::Committed { .. })));
                let should = self.world.try_on(NAMES[*name], |name| name.apply(&request));
                assert_eq!(said.map_err(|error| no(&error)), should);
            }
            Step::Plan { .. } => self.plan(step).await,
            Step::NewLeader => {
                self.leader = Leader::of(&self.store, "leader").await;
                self.world.term += 1;
            }
            Step::Reopen => {
                self.store.close().await;
                self.store = self.disk.open().await;
            }
        }
    }

    fn request(
        &mut self,
        name: &'static str,
        expected: i8,
        rise: u64,
        version: u32,
        deploy: Option<(i8, usize)>,
        cancel: bool,
    ) -> ServiceIntent {
        let known = self.world.name(name);
        let expected = match (&known.live, expected) {
            (Some(_), 1) | (None, 0 | -1) => Expected::Absent,
            (Some(_), by) => Expected::Intent(IntentSeq(shifted(known.intent, by))),
            (None, _) => Expected::Intent(IntentSeq(known.intent)),
        };
        let mut service = service(name, known.intent + rise, version);
        service.generation = Generation(1);
        let mut deployments = Vec::new();
        if let Some((by, phase)) = deploy {
            let number = shifted(known.number + 1, by).max(1);
            deployments.push(deployment(name, number, release(version).digest(), Phase::ALL[phase]));
        }
        let open =
            known.live.iter().flat_map(|live| live.deployments.values()).find(|d| d.phase < Phase::Active);
        let open = open.filter(|open| cancel && deployments.iter().all(|d| d.number != open.number));
        deployments.extend(open.map(|open| Deployment { phase: Phase::Cancelled, ..open.clone() }));
        // A known number comes back with its own release, as the model does not look at that.
        for new in &mut deployments {
            if let Some(old) = known.live.as_ref().and_then(|live| live.deployments.get(&new.number)) {
                new.release = old.release;
            }
        }
        intent(expected, service, deployments)
    }

    async fn plan(&mut self, step: &Step) {
        let Step::Plan { name, stale, generation, .. } = step else { return };
        let (name, generation) = (NAMES[*name], shifted(self.world.generation + 1, *generation));
        let decision = self.decision(name, step);
        let plan = Plan {
            term: Term(self.world.term - u64::from(*stale)),
            generation: Generation(generation),
            ..Plan::clone(&*self.leader.plan(&self.store, vec![decision.clone()]).await)
        };
        let said = self.store.commit_plan(Arc::new(plan), vec![]).await.map(drop).map_err(|error| no(&error));
        let should = if *stale {
            Err(No::StaleTerm)
        } else if generation != self.world.generation + 1 {
            Err(No::StaleGeneration)
        } else {
            self.world.try_on(name, |name| name.plan(&decision))
        };
        assert_eq!(said, should);
        self.world.generation += u64::from(said.is_ok());
    }

    fn decision(&mut self, name: &'static str, step: &Step) -> Decision {
        let Step::Plan { parent, advance, place, purge, .. } = step else {
            unreachable!("only plans decide")
        };
        let known = self.world.name(name);
        let row = match &known.live {
            Some(live) => live.row(known.number),
            // Nothing of that name: whatever is decided cannot stand.
            None => ServiceRow {
                service: service(name, known.intent, 1),
                plan: ServicePlan { seq: PlanSeq(known.plan), ..ServicePlan::default() },
                deployments: vec![deployment(name, 1, release(1).digest(), Phase::Queued)],
                releases: BTreeMap::new(),
                next_deployment_number: 1,
            },
        };
        let mut decision = match (place, row.deployments.is_empty()) {
            (true, false) => placing(&row, row.deployments[0].release),
            _ => decision(&row),
        };
        decision.parent.intent = IntentSeq(shifted(known.intent, parent.0));
        decision.parent.plan = PlanSeq(shifted(known.plan, parent.1));
        let advanced = advance.and_then(|phase| {
            let newest = row.deployments.last()?.clone();
            Some(Deployment { phase: Phase::ALL[phase], ..newest })
        });
        // A success takes the place of the active one, as the planner does it.
        if let Some(new) = advanced.as_ref().filter(|new| new.phase == Phase::Active) {
            let active =
                row.deployments.iter().filter(|d| d.phase == Phase::Active && d.number != new.number);
            decision.deployments.extend(active.map(|d| Deployment { phase: Phase::Superseded, ..d.clone() }));
        }
        decision.deployments.extend(advanced);
        decision.purge = *purge;
        decision
    }

    async fn check(&self) {
        let should = self.world.rows();
        let loaded = self.store.load_all().await.unwrap();
        assert_eq!(loaded.len(), should.len());
        for (one, should) in loaded.into_iter().zip(should) {
            let Loaded::Read(row) = one else { panic!("{one:?}") };
            assert_eq!(*row, should);
        }
        for name in NAMES {
            let one = self.store.load(&key(name)).await.unwrap();
            let should =
                self.world.names.get(name).and_then(|known| Some(known.live.as_ref()?.row(known.number)));
            assert_eq!(one, should);
        }
        let counters = self.store.counters().await.unwrap();
        assert_eq!((counters.generation.0, counters.term.0), (self.world.generation, self.world.term));
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 48, ..ProptestConfig::default() })]
    #[test]
    fn the_store_answers_and_loads_as_the_model_does(steps in prop::collection::vec(step(), 1..40)) {
        let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().unwrap();
        runtime.block_on(async {
            let mut pair = Pair::new().await;
            for step in &steps {
                pair.step(step).await;
                pair.check().await;
            }
        });
    }
}
