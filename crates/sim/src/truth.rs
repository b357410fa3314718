//! What must never happen, read from the world's truth: processes, requests, folders and the committed records;
//! never from what the planner reports of itself.

use std::{
    collections::{BTreeMap, BTreeSet},
    fmt,
};

use decide::status;
use model::{
    DeploymentId, Generation, InstanceId, Knowledge, Millis, NodeId, ReleaseDigest, ServiceKey, Term,
    Timestamp,
    assignment::Stamp,
    deployment::{Cause, Deployment, Event as Step, Phase, next},
    instance::{Placement, Stage},
    route::{Backend, RouteTable},
    spec::Workload,
    status::ServiceState,
};

use crate::{
    edge::Edge,
    ends::Ends,
    engine::{Daemon, Maker},
    machine::Process,
    play::Host,
    shape::{Character, DRAIN, Shape},
    store::Store,
};

/// After a disturbance a service is held to nothing for this long: what was told of it may still be under way.
const HOLD_OFF: Millis = Millis(20_000);
/// An agent that is up has what it accepted alive within this time: its crashes, the pauses between attempts.
const KEPT_WITHIN: Millis = Millis(30_000);
/// A state that says `converged` may be this old: the age of an observation, a probe's verdict, a message.
const STATUS_SLACK: Millis = Millis(20_000);

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Violation {
    /// `I6` and so on, by the list of what must hold.
    pub invariant: &'static str,
    pub at: Timestamp,
    pub message: String,
}

impl fmt::Display for Violation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} at {}ms: {}", self.invariant, self.at.since(crate::play::BEGINNING).0, self.message)
    }
}

#[derive(Default)]
pub struct Truth {
    pub violation: Option<Violation>,
    accepted: BTreeMap<NodeId, (Term, Generation)>,
    ledger_lost_at: Option<Timestamp>,
    phases: BTreeMap<DeploymentId, Phase>,
    /// Ready instances that a service never has fewer of, while only Setpoint acts on it.
    guards: BTreeMap<ServiceKey, u32>,
    disturbed: BTreeMap<ServiceKey, Timestamp>,
    /// Of each service what runs, and its folders.
    running: BTreeMap<(ServiceKey, bool), usize>,
    retired: BTreeMap<InstanceId, Timestamp>,
    pub ends: Ends,
    /// Processes that no ledger knows since one was lost.
    pub unowned: BTreeSet<u32>,
    untrue_since: BTreeMap<ServiceKey, Timestamp>,
    operations: BTreeMap<ServiceKey, u64>,
    missing_since: BTreeMap<InstanceId, Timestamp>,
    /// What has answered a request at some time.
    answered: BTreeSet<InstanceId>,
}

impl Truth {
    pub fn fail(&mut self, invariant: &'static str, at: Timestamp, message: String) {
        if self.violation.is_none() {
            self.violation = Some(Violation { invariant, at, message });
        }
    }

    /// I2: what a node has accepted never goes back.
    pub fn accepted(&mut self, now: Timestamp, node: &NodeId, stamp: &Stamp) {
        let offered = (stamp.term, stamp.generation);
        if let Some(held) = self.accepted.get(node).copied()
            && (offered.0 < held.0 || offered.1 < held.1)
        {
            self.fail("I2", now, format!("accepted {offered:?} after {held:?}"));
        }
        self.accepted.insert(node.clone(), offered);
    }

    /// With the ledger goes what was accepted, and whose processes are whose.
    pub fn ledger_lost(&mut self, now: Timestamp, node: &NodeId, machine: &crate::machine::Machine) {
        self.accepted.remove(node);
        self.ledger_lost_at = Some(now);
        self.ends.forget();
        self.unowned.extend(machine.live().map(|(pid, _)| pid));
        let services: BTreeSet<ServiceKey> =
            machine.live().map(|(_, process)| process.id.service.clone()).collect();
        for service in services {
            self.disturbed(now, &service);
        }
    }

    /// Something else than Setpoint acted on a service.
    pub fn disturbed(&mut self, now: Timestamp, service: &ServiceKey) {
        self.guards.remove(service);
        self.disturbed.insert(service.clone(), now);
    }

    pub fn operated(&mut self, service: &ServiceKey) {
        *self.operations.entry(service.clone()).or_default() += 1;
    }

    pub fn operations_of(&self, service: &ServiceKey) -> u64 {
        self.operations.get(service).copied().unwrap_or_default()
    }

    /// I15: restarts in a window are bounded, counted where they happen.
    pub fn started(&mut self, now: Timestamp, id: &InstanceId, release: ReleaseDigest) {
        if let Some(message) = self.ends.started(now, id, release) {
            self.fail("I15", now, message);
        }
    }

    /// I15: what an engine's own end has ended costs no attempt.
    pub fn budgets(&mut self, now: Timestamp, host: &Host) {
        // What was counted before is known to the server alone; and what an engine has ended is known once it has gone, or
        // has said when it began.
        if self.ledger_lost_at.is_some() || !host.agent.knows_engine() || host.engine.daemon != Daemon::Up {
            return;
        }
        if let Some(message) = self.ends.overspent(now, host) {
            self.fail("I15", now, message);
        }
    }

    /// I18: a port has one owner.
    pub fn port_taken(&mut self, now: Timestamp, id: &InstanceId, port: u16, by: &InstanceId) {
        if self.unowned.is_empty() {
            self.fail("I18", now, format!("{id} starts on port {port}, which {by} has"));
        }
    }

    /// I18: an address leads to the instance that the table means.
    pub fn misrouted(&mut self, now: Timestamp, meant: &InstanceId, pid: u32, found: &InstanceId) {
        let forgot_ports = self.ledger_lost_at.is_some_and(|at| now.since(at) < HOLD_OFF);
        if !forgot_ports && !self.unowned.contains(&pid) {
            self.fail("I18", now, format!("a request for {meant} reached {found}"));
        }
    }

    /// I18: no table leads to what has never answered.
    pub fn routed(&mut self, now: Timestamp, table: &RouteTable) {
        let routed = table.services.values().flat_map(|route| match &route.backend {
            Backend::Proxy { endpoints } => endpoints.as_slice(),
            Backend::Files { .. } | Backend::Nothing => &[],
        });
        if let Some(endpoint) = routed.into_iter().find(|to| !self.answered.contains(&to.instance)) {
            let message = format!("{} takes requests and has never been ready", endpoint.instance);
            self.fail("I18", now, message);
        }
    }

    /// I13: nothing of ours is done to what a hand has made.
    pub fn owned(&mut self, now: Timestamp, id: &InstanceId, maker: Maker, what: &str) {
        if maker == Maker::Hand {
            self.fail("I13", now, format!("a stranger with the labels of {id} was {what}"));
        }
    }

    /// I14: what is to be there by the records is removed by nobody, whoever could not read them.
    pub fn removes(&mut self, now: Timestamp, id: &InstanceId, store: &Store) {
        let placed = store.rows.get(&id.service).and_then(|row| row.world.plan.placements.get(id));
        if placed.is_some_and(|placement| placement.stage.is_assigned()) {
            self.fail("I14", now, format!("{id} is removed and still placed"));
        }
    }

    /// I19: what an agent has accepted and what could live does, whoever else is away.
    pub fn kept(&mut self, now: Timestamp, host: &Host) {
        let Some(accepted) = host.agent.ledger.accepted.as_ref().filter(|_| host.agent.is_up()) else {
            return;
        };
        for (id, assigned) in &accepted.instances {
            let entry = host.agent.ledger.entries.get(id);
            let spent = entry
                .is_some_and(|entry| decide::retry::spent(&assigned.restart, &entry.attempts, now).is_some());
            let may_live = match assigned.content.workload {
                Workload::Process(_) => true,
                Workload::Container(_) => host.engine.is_sound(now),
                Workload::Site(_) => false,
            };
            let may_rest = !may_live || spent || !Character::of(&assigned.content).is_sound();
            if may_rest || host.machine.live().any(|(_, process)| process.id == *id) {
                self.missing_since.remove(id);
                continue;
            }
            let since = *self.missing_since.entry(id.clone()).or_insert(now);
            if now.since(since) > KEPT_WITHIN {
                let node = &host.agent.id;
                self.fail("I19", now, format!("{id} is accepted by {node} and does not live"));
            }
        }
    }

    /// I6: what is told to end has no request, unless its drain time is over.
    pub fn ended_with_requests(&mut self, now: Timestamp, id: &InstanceId, requests: usize) {
        let drained_until = self.retired.get(id).map(|since| *since + DRAIN);
        if drained_until.is_none_or(|until| now < until) {
            self.fail("I6", now, format!("{id} was told to end with {requests} requests under way"));
        }
    }

    /// What the records say after a commit: I7, I8, I17.
    pub fn recorded(&mut self, now: Timestamp, store: &Store) {
        for (key, row) in &store.rows {
            self.deployments(now, key, row);
            self.stages(now, key, row);
        }
    }

    fn deployments(&mut self, now: Timestamp, key: &ServiceKey, row: &crate::store::Row) {
        let deployments = &row.world.deployments;
        for deployment in deployments {
            let before = self.phases.insert(deployment.id.clone(), deployment.phase);
            if before.is_none() {
                self.restores(now, deployment, deployments);
            }
            let legal = before
                .is_none_or(|before| before == deployment.phase || may_follow(before, deployment.phase));
            if !legal {
                let message =
                    format!("{key} #{} went from {before:?} to {}", deployment.number, deployment.phase);
                self.fail("I8", now, message);
            }
        }
        let count = |wanted: fn(Phase) -> bool| deployments.iter().filter(|d| wanted(d.phase)).count();
        let (open, active) = (count(Phase::is_open), count(|phase| phase == Phase::Active));
        if open > 1 || active > 1 {
            self.fail("I7", now, format!("{key} has {open} open and {active} active deployments"));
        }
    }

    /// I15: a going back that has failed is not gone back from.
    fn restores(&mut self, now: Timestamp, deployment: &Deployment, all: &[Deployment]) {
        let before =
            all.iter().filter(|other| other.number < deployment.number).max_by_key(|other| other.number);
        let failed = before.filter(|other| {
            other.phase == Phase::Failed && matches!(other.cause, Cause::Rollback | Cause::Restore)
        });
        if let Some(failed) = failed.filter(|_| deployment.cause == Cause::Restore) {
            let (service, number) = (&deployment.service, deployment.number);
            let message = format!("{service} #{number} goes back from what #{} went back to", failed.number);
            self.fail("I15", now, message);
        }
    }

    fn stages(&mut self, now: Timestamp, key: &ServiceKey, row: &crate::store::Row) {
        for placement in row.world.plan.placements.values() {
            if matches!(placement.stage, Stage::Retiring { .. } | Stage::Removing { .. }) {
                self.retired.entry(placement.id.clone()).or_insert(now);
            }
        }
        for runs in [true, false] {
            let of_these = |p: &&Placement| p.stage.is_run() && row.runs(p) == runs;
            let running = row.world.plan.placements.values().filter(of_these).count();
            let before = self.running.insert((key.clone(), runs), running).unwrap_or_default();
            let Knowledge::Known(service) = &row.world.service else { return };
            let limit = service.wanted_replicas() + service.spec.deploy.parallelism;
            if running > before && running > limit as usize {
                self.fail("I17", now, format!("{key} shall run {running} instances, {limit} are allowed"));
            }
        }
    }

    /// After every step.
    pub fn examine(&mut self, now: Timestamp, box_: &Seen<'_>) {
        self.processes(now, box_);
        self.containers(now, box_);
        self.links(now, box_);
        for shape in box_.shapes {
            // An edge that is down routes to nobody; that a service was stopped meanwhile counts all the same.
            if box_.edges.iter().any(|edge| edge.up)
                || box_.wanted(&shape.key).is_none_or(|wanted| wanted == 0)
            {
                self.routable(now, shape, box_);
            }
        }
    }

    /// I17: no instance twice, and none that is not placed.
    fn processes(&mut self, now: Timestamp, box_: &Seen<'_>) {
        let mut seen: BTreeSet<&InstanceId> = BTreeSet::new();
        for (pid, process) in box_.live().filter(|(_, process)| !process.stranger) {
            if process.answers(now) && !self.answered.contains(&process.id) {
                self.answered.insert(process.id.clone());
            }
            let twice = !seen.insert(&process.id);
            let row = box_.store.rows.get(&process.id.service);
            let placed = row.is_some_and(|row| row.world.plan.placements.contains_key(&process.id));
            if self.unowned.contains(&pid) {
                continue;
            }
            if twice {
                self.fail("I17", now, format!("{} lives twice", process.id));
            }
            if !placed {
                self.fail("I17", now, format!("{} lives and is not placed", process.id));
            }
        }
    }

    /// I17: no instance has two containers, also where a creation was never answered.
    fn containers(&mut self, now: Timestamp, box_: &Seen<'_>) {
        let mut seen: BTreeSet<&InstanceId> = BTreeSet::new();
        for container in box_.hosts.iter().flat_map(|host| host.engine.containers.values()) {
            let ours = container.maker == Maker::Agent;
            if ours && !seen.insert(&container.labels.instance) {
                self.fail("I17", now, format!("{} has two containers", container.labels.instance));
            }
        }
    }

    /// I9: `current` resolves to a whole folder.
    fn links(&mut self, now: Timestamp, box_: &Seen<'_>) {
        for (host, service, folder) in box_.links() {
            let by_hand = box_.by_hand.contains(service);
            let whole = host.machine.folders.get(folder).is_some_and(|folder| folder.complete);
            if !whole && !by_hand {
                self.fail(
                    "I9",
                    now,
                    format!("`current` of {service} points to {folder}, which is not whole"),
                );
            }
        }
    }

    /// I6: while only Setpoint acts on a service, as many are ready and routed as are wanted. One that may be a site is
    /// served by something, whatever it is just now.
    fn routable(&mut self, now: Timestamp, shape: &Shape, box_: &Seen<'_>) {
        let key = shape.key.clone();
        let Some(wanted) = box_.wanted(&key).filter(|wanted| *wanted > 0 && shape.is_start_first()) else {
            self.disturbed(now, &key);
            return;
        };
        let (wanted, routable) = match shape.may_be_site() {
            true => (1, u32::from(box_.is_served(&key, now))),
            false => (wanted, box_.routable(&key, now)),
        };
        if let Some(guard) = self.guards.get_mut(&key) {
            if wanted < *guard {
                // What was to go may still serve, and does not count for what is wanted again in the next moment.
                *guard = wanted;
                self.disturbed.insert(key.clone(), now);
            }
            let floor = *guard;
            if routable < floor {
                self.fail("I6", now, format!("{key} has {routable} ready and routed, {floor} before"));
            }
        }
        let quiet = self.disturbed.get(&key).is_none_or(|at| now.since(*at) > HOLD_OFF);
        // An edge that is down comes back with the table that it had.
        if routable >= wanted && quiet && box_.edges.iter().all(|edge| edge.up) {
            self.guards.insert(key, wanted);
        }
    }

    /// I20: `converged` is not said for long of what is not.
    pub fn said(&mut self, now: Timestamp, summary: &status::Summary, key: &ServiceKey, box_: &Seen<'_>) {
        let untrue = summary.state == ServiceState::Converged
            && !box_.is_converged(key, now)
            && !box_.has_a_copy_for_its_own(key);
        if !untrue {
            self.untrue_since.remove(key);
            return;
        }
        let since = *self.untrue_since.entry(key.clone()).or_insert(now);
        if now.since(since) > STATUS_SLACK {
            self.fail("I20", now, format!("{key} is said to be converged since {}", since.0));
        }
    }
}

fn may_follow(before: Phase, after: Phase) -> bool {
    let events = [
        Step::Reached(after),
        Step::Succeeded,
        Step::Failed,
        Step::Cancelled,
        Step::Superseded,
        Step::RolledBack,
    ];
    events.into_iter().any(|event| next(before, event) == Ok(after))
}

/// The parts of the box that the truth is read from.
pub struct Seen<'a> {
    pub store: &'a Store,
    pub hosts: &'a [Host],
    pub edges: &'a [Edge],
    pub shapes: &'a [Shape],
    /// Sites that a hand has damaged and the node has not yet put back.
    pub by_hand: &'a BTreeSet<ServiceKey>,
}

impl Seen<'_> {
    pub fn service(&self, key: &ServiceKey) -> Option<&model::service::Service> {
        self.store.rows.get(key)?.world.service.known()
    }

    pub fn wanted(&self, key: &ServiceKey) -> Option<u32> {
        Some(self.service(key)?.wanted_replicas())
    }

    pub fn routable(&self, key: &ServiceKey, now: Timestamp) -> u32 {
        let of_edge = |edge: &Edge| self.routable_by(edge, key, now);
        let least = self.edges.iter().filter(|edge| edge.up).map(of_edge).min().unwrap_or_default();
        u32::try_from(least).unwrap_or(u32::MAX)
    }

    fn routable_by(&self, edge: &Edge, key: &ServiceKey, now: Timestamp) -> usize {
        let answers = |id: &InstanceId| {
            self.live().any(|(_, process)| process.id == *id && !process.stranger && process.answers(now))
        };
        edge.endpoints(key).filter(|endpoint| answers(&endpoint.instance)).count()
    }

    /// By every edge, from a folder or by something that answers.
    fn is_served(&self, key: &ServiceKey, now: Timestamp) -> bool {
        let serves = |edge: &Edge| edge.folder(key).is_some() || self.routable_by(edge, key, now) > 0;
        self.edges.iter().filter(|edge| edge.up).all(serves)
    }

    pub fn live(&self) -> impl Iterator<Item = (u32, &Process)> {
        self.hosts.iter().flat_map(|host| host.machine.live())
    }

    pub fn links(&self) -> impl Iterator<Item = (&Host, &ServiceKey, &String)> {
        self.hosts.iter().flat_map(|host| host.machine.links.iter().map(move |(key, to)| (host, key, to)))
    }

    /// With its ledger lost a node cannot tell which of those that bear its labels it has made.
    fn has_a_copy_for_its_own(&self, key: &ServiceKey) -> bool {
        self.hosts.iter().any(|host| {
            let known = host.agent.containers();
            let is_copy = |process: &Process| {
                process.stranger && process.container.is_some_and(|container| known.contains(&container))
            };
            host.machine.live().any(|(_, process)| process.id.service == *key && is_copy(process))
        })
    }

    /// What the edges show of a site; none shows another than the others.
    fn shown(&self, key: &ServiceKey) -> Option<&str> {
        let mut shown = self.edges.iter().map(|edge| edge.folder(key));
        let first = shown.next().flatten();
        first.filter(|_| shown.all(|other| other == first))
    }

    /// Exactly the target lives, answers and takes the requests.
    pub fn is_converged(&self, key: &ServiceKey, now: Timestamp) -> bool {
        let Some(service) = self.service(key) else { return false };
        let Some(row) = self.store.rows.get(key) else { return false };
        // After a rollback the target may be of another kind than what is declared.
        let target = service.target.and_then(|target| row.world.releases.get(&target));
        let kind = target.map_or(service.spec.kind(), |release| release.workload.kind());
        if kind == model::spec::Kind::Site {
            return self.site_is_converged(key, service, row);
        }
        // Strangers have no placement.
        let placed = |id: &InstanceId| row.world.plan.placements.contains_key(id);
        let ours = |process: &&Process| placed(&process.id) && !process.stranger;
        let live: Vec<_> = self.live().map(|(_, process)| process).filter(ours).collect();
        let sound =
            live.iter().all(|process| Some(process.release) == service.target && process.answers(now));
        let wanted = service.wanted_replicas();
        sound && live.len() == wanted as usize && self.routable(key, now) == wanted
    }

    fn site_is_converged(
        &self,
        key: &ServiceKey,
        service: &model::service::Service,
        row: &crate::store::Row,
    ) -> bool {
        if service.wanted_replicas() == 0 {
            return self.edges.iter().all(|edge| edge.folder(key).is_none());
        }
        let shown = row.world.plan.current.as_ref().and_then(|id| row.world.plan.placements.get(id));
        let folder = shown.map(|p| format!("/sites/{}/deployment-{}", key.name, p.deployment));
        let host = shown.and_then(|p| self.hosts.iter().find(|host| host.agent.id == p.node));
        let Some(machine) = host.map(|host| &host.machine) else { return false };
        let whole = |path: &String| machine.folders.get(path).is_some_and(|f| f.complete && !f.damaged);
        shown.is_some_and(|p| Some(p.release) == service.target)
            && folder.as_ref().is_some_and(whole)
            && machine.links.get(key) == folder.as_ref()
            && self.shown(key) == folder.as_deref()
            && !self.live().any(|(_, p)| row.world.plan.placements.contains_key(&p.id) && !p.stranger)
    }

    /// Whether the target can be reached at all: its release is sound and nobody has to be asked first.
    pub fn can_converge(&self, key: &ServiceKey) -> bool {
        let Some(service) = self.service(key) else { return false };
        let Some(row) = self.store.rows.get(key) else { return false };
        let Some(target) = service.target.filter(|_| service.wanted_replicas() > 0) else { return true };
        let sound = row.world.releases.get(&target).is_some_and(|release| Character::of(release).is_sound());
        let newest = row.world.deployment_of(&target);
        sound && newest.is_none_or(|newest| newest.phase != Phase::Failed)
    }
}
