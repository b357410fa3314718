//! Plays a story: one queue of events in virtual time, faults until they heal, then the demand that all ends well.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
};

use decide::status;
use model::{
    InstanceId, Millis, ServiceKey, Timestamp,
    assignment::Assignment,
    observation::{ExitStatus, Observation},
    route::{EdgeReport, EndpointEvent, RouteTable},
};
use rand::{Rng, SeedableRng, rngs::StdRng};

use crate::{
    edge::{Edge, Request},
    machine::{EndReason, Machine},
    net::Net,
    node::{Agent, Around},
    server::{Memory, PERIOD, Passed, Server},
    store::Store,
    story::{Ask, Damage, Fault, HEALS, Link, Story, What},
    truth::{Seen, Truth, Violation},
};

pub const BEGINNING: Timestamp = Timestamp(1_000_000_000);
/// After the faults have healed, everything has ended and converged within this time: a window of restart
/// attempts, or the deadlines of a failing deployment, its restoration and their drains.
const CONVERGES_WITHIN: Millis = Millis(110_000);
/// By then the node knows what is assigned to it, and an operator removes what no ledger knows.
const CLEARED_AFTER: Millis = Millis(15_000);
/// Then nothing happens for this long.
const RESTS_FOR: Millis = Millis(10_000);
/// Whether all has ended well is looked at this often; most stories need not all of the time.
const LOOKED_AT_EACH: Millis = Millis(10_000);
const AUDIT: Millis = Millis(500);
const TRAFFIC: Millis = Millis(170);

#[derive(Debug, Clone)]
pub struct Options {
    /// Refuse what the linter objects to, as the server does. Without it the truth alone must find a bug.
    pub linted: bool,
}

impl Default for Options {
    fn default() -> Self {
        Self { linted: true }
    }
}

#[derive(Debug, Clone)]
pub struct Outcome {
    pub trace: Vec<String>,
    /// Of the trace: equal for equal seeds.
    pub hash: u64,
    pub violation: Option<Violation>,
}

#[derive(Debug, Clone)]
pub enum Event {
    Input(usize),
    Heal,
    Clear,
    Converged,
    Rested,
    Audit,
    Traffic,
    ServerUp,
    ServerTick { epoch: u64 },
    ServerPass { epoch: u64 },
    NodeUp,
    NodeLook { epoch: u64 },
    NodeDone { epoch: u64, id: InstanceId, serial: u64 },
    Dies { pid: u32 },
    EdgeUp,
    EdgeTick { boot: u64 },
    RequestEnds { boot: u64, request: u64 },
    Readable { service: usize },
    ToNode(Arc<Assignment>),
    NodeSays(Arc<Observation>),
    ToEdge(Arc<RouteTable>),
    EdgeSays(EdgeReport),
    Endpoint { boot: u64, event: EndpointEvent },
}

/// What a part wants done outside of itself.
pub enum Out {
    At(Timestamp, Event),
    NodeSays(Arc<Observation>),
    Endpoint(EndpointEvent),
    Told { pid: u32, reason: EndReason },
    Trace(String),
}

struct Play<'a> {
    story: &'a Story,
    options: &'a Options,
    now: Timestamp,
    queue: BTreeMap<(Timestamp, u64), Event>,
    queued: u64,
    rng: StdRng,
    net: Net,
    store: Store,
    server: Server,
    agent: Agent,
    machine: Machine,
    edge: Edge,
    truth: Truth,
    trace: Vec<String>,
    unreadable: BTreeSet<ServiceKey>,
    by_hand: BTreeSet<ServiceKey>,
    crash_at_commit: Option<(bool, Millis)>,
    healed: bool,
    strangers: BTreeSet<u32>,
    /// What it knew stays behind until an operator removes it.
    ledger_was_lost: bool,
    /// Commits and operations per service when it was found converged.
    at_rest: BTreeMap<ServiceKey, (u64, u64)>,
    over: bool,
}

/// Plays a story to its end, or to the first violation.
pub fn play(story: &Story, options: &Options) -> Outcome {
    let mut play = Play::new(story, options);
    while let Some(((at, _), event)) = play.queue.pop_first() {
        play.now = at;
        play.happen(event);
        play.examine();
        if play.over || play.truth.violation.is_some() {
            break;
        }
    }
    let violation = play.truth.violation;
    Outcome { hash: hash(&play.trace), trace: play.trace, violation }
}

/// FNV-1a over all lines.
fn hash(trace: &[String]) -> u64 {
    trace
        .iter()
        .flat_map(|line| line.bytes())
        .fold(0xcbf2_9ce4_8422_2325, |hash, byte| (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3))
}

impl<'a> Play<'a> {
    fn new(story: &'a Story, options: &'a Options) -> Self {
        let mut play = Self {
            story,
            options,
            now: BEGINNING,
            queue: BTreeMap::new(),
            queued: 0,
            rng: StdRng::seed_from_u64(story.seed ^ 0x5e7_901),
            net: Net::default(),
            store: Store::default(),
            server: Server::default(),
            agent: Agent::new(),
            machine: Machine::default(),
            edge: Edge::default(),
            truth: Truth::default(),
            trace: Vec::new(),
            unreadable: BTreeSet::new(),
            by_hand: BTreeSet::new(),
            crash_at_commit: None,
            healed: false,
            strangers: BTreeSet::new(),
            ledger_was_lost: false,
            at_rest: BTreeMap::new(),
            over: false,
        };
        for event in [Event::ServerUp, Event::NodeUp, Event::EdgeUp, Event::Audit, Event::Traffic] {
            play.at(BEGINNING, event);
        }
        for (index, input) in story.inputs.iter().enumerate() {
            play.at(BEGINNING + input.at, Event::Input(index));
        }
        let heals = BEGINNING + HEALS;
        play.at(heals, Event::Heal);
        play.at(heals + CLEARED_AFTER, Event::Clear);
        play.at(heals + CLEARED_AFTER + LOOKED_AT_EACH, Event::Converged);
        play
    }

    fn at(&mut self, at: Timestamp, event: Event) {
        self.queued += 1;
        self.queue.insert((at.max(self.now), self.queued), event);
    }

    fn after(&mut self, delay: Millis, event: Event) {
        self.at(self.now + delay, event);
    }

    fn told(&mut self, line: String) {
        self.trace.push(format!("{:>7} {line}", self.now.since(BEGINNING).0));
    }

    fn send(&mut self, link: Link, event: &Event) {
        for delay in self.net.send(link, self.now, &mut self.rng) {
            self.after(delay, event.clone());
        }
    }

    fn happen(&mut self, event: Event) {
        match event {
            Event::Input(index) => self.input(index),
            Event::Heal => self.heal(),
            Event::Clear => self.clear(),
            Event::Converged => self.demand_convergence(),
            Event::Rested => self.demand_rest(),
            Event::Audit => self.audit(),
            Event::Traffic => self.traffic(),
            Event::ServerUp => self.server_up(),
            Event::ServerTick { epoch } => self.server_tick(epoch),
            Event::ServerPass { epoch } => self.server_pass(epoch),
            Event::NodeUp => self.node(|agent, around| {
                if !agent.is_up() {
                    agent.start(around);
                }
            }),
            Event::NodeLook { epoch } => self.node(|agent, around| agent.look(epoch, around)),
            Event::NodeDone { epoch, id, serial } => {
                self.node(|agent, around| agent.done(epoch, &id, serial, around));
            }
            Event::Dies { pid } => self.dies(pid, false),
            Event::EdgeUp => self.edge_up(),
            Event::EdgeTick { boot } => {
                if self.edge.up && self.edge.boot == boot {
                    self.edge_reports();
                    self.after(PERIOD, Event::EdgeTick { boot });
                }
            }
            Event::RequestEnds { boot, request } => self.request_ends(boot, request),
            Event::Readable { service } => {
                self.unreadable.remove(&self.story.shapes[service].key());
                self.look();
            }
            Event::ToNode(assignment) => self.node(|agent, around| agent.offered(assignment, around)),
            Event::NodeSays(observation) => {
                if self.server.memory.as_mut().is_some_and(|memory| memory.observe(observation)) {
                    self.look();
                }
            }
            Event::ToEdge(table) => self.table_arrives(&table),
            Event::EdgeSays(report) => {
                if self.server.memory.as_mut().is_some_and(|memory| memory.hear(report)) {
                    self.look();
                }
            }
            Event::Endpoint { boot, event } => {
                if self.edge.up && self.edge.boot == boot {
                    self.edge.told(event);
                }
            }
        }
    }

    // The server.

    fn server_up(&mut self) {
        if self.server.memory.is_some() {
            return;
        }
        self.server.start(&mut self.store, self.now);
        self.told(format!("server up, term {}", self.store.term));
        let epoch = self.server.epoch;
        self.after(Millis(0), Event::ServerTick { epoch });
    }

    fn server_crash(&mut self, down: Millis) {
        self.told("server crashes".into());
        self.server.crash();
        self.after(down, Event::ServerUp);
    }

    fn server_tick(&mut self, epoch: u64) {
        if self.server.memory.is_some() && self.server.epoch == epoch {
            self.look();
            self.publish();
            self.after(PERIOD, Event::ServerTick { epoch });
        }
    }

    /// A pass soon; a burst of changes is one.
    fn look(&mut self) {
        self.look_at(self.now + Millis(1));
    }

    fn look_at(&mut self, at: Timestamp) {
        let Some(memory) = &mut self.server.memory else { return };
        if memory.next_pass.is_none_or(|next| at < next) {
            memory.next_pass = Some(at);
            let epoch = self.server.epoch;
            self.at(at, Event::ServerPass { epoch });
        }
    }

    fn server_pass(&mut self, epoch: u64) {
        let Some(memory) = &mut self.server.memory else { return };
        if self.server.epoch != epoch || memory.next_pass.is_none_or(|at| at > self.now) {
            return;
        }
        memory.next_pass = None;
        if let Some((false, _)) = self.crash_at_commit {
            self.store.next_unknown = Some(false);
        }
        let passed = memory.pass(&mut self.store, &self.unreadable, self.now, self.options.linted);
        let holds_until = memory.holds_until;
        match passed {
            Passed::Nothing => {
                if let Some(at) = holds_until {
                    self.look_at(at);
                }
                if matches!(self.crash_at_commit, Some((false, _))) {
                    self.store.next_unknown = None;
                }
                return;
            }
            Passed::Objected(objections) => {
                for objection in objections {
                    self.truth.fail("LINT", self.now, objection.to_string());
                }
                return;
            }
            Passed::Refused(refused) => self.told(format!("commit {refused:?}")),
            Passed::Committed(plan) => {
                for decision in &plan.decisions {
                    self.told(format!("plan {} {} {:?}", plan.generation, decision.key, events(decision)));
                }
            }
        }
        self.truth.recorded(self.now, &self.store);
        if let Some((_, down)) = self.crash_at_commit.take() {
            self.server_crash(down);
            return;
        }
        self.publish();
        self.look();
    }

    fn publish(&mut self) {
        let Some(memory) = &self.server.memory else { return };
        let (assignment, table) = memory.messages(&self.unreadable, self.now);
        self.send(Link::ServerToNode, &Event::ToNode(Arc::new(assignment)));
        self.send(Link::ServerToEdge, &Event::ToEdge(Arc::new(table)));
    }

    // The node.

    fn node(&mut self, act: impl FnOnce(&mut Agent, &mut Around<'_>)) {
        let mut out = Vec::new();
        let mut around = Around {
            machine: &mut self.machine,
            truth: &mut self.truth,
            now: self.now,
            rng: &mut self.rng,
            out: &mut out,
        };
        act(&mut self.agent, &mut around);
        for out in out {
            self.carry_out(out);
        }
    }

    fn carry_out(&mut self, out: Out) {
        match out {
            Out::At(at, event) => self.at(at, event),
            Out::NodeSays(observation) => self.send(Link::NodeToServer, &Event::NodeSays(observation)),
            Out::Endpoint(event) => {
                let boot = self.edge.boot;
                self.after(Millis(1), Event::Endpoint { boot, event });
            }
            Out::Told { pid, reason } => self.told_to_end(pid, reason),
            Out::Trace(line) => self.told(line),
        }
    }

    fn told_to_end(&mut self, pid: u32, reason: EndReason) {
        let Some(process) = self.machine.processes.get(&pid) else { return };
        let id = process.id.clone();
        if self.strangers.contains(&pid) {
            self.truth.fail("I13", self.now, format!("a stranger with the marks of {id} was told to end"));
        }
        // One that was misrouted is told of as such.
        let of_this = |request: &&Request| request.pid == pid && request.instance == id;
        let requests = self.edge.requests.values().filter(of_this).count();
        if reason == EndReason::Removed && requests > 0 {
            self.truth.ended_with_requests(self.now, &id, requests);
        }
    }

    fn dies(&mut self, pid: u32, by_hand: bool) {
        let now = self.now;
        let Some(process) = self.machine.processes.get_mut(&pid).filter(|process| process.alive) else {
            return;
        };
        process.alive = false;
        let (id, told) = (process.id.clone(), process.told_to_end);
        let worked = process.answers_at.is_some_and(|at| at <= now);
        self.told(format!("{id} pid {pid} ends"));
        if by_hand || (told.is_none() && worked) || told == Some(EndReason::Unhealthy) {
            self.truth.disturbed(now, &id.service);
        }
        self.edge.requests.retain(|_, request| request.pid != pid);
        let status = if by_hand { ExitStatus::Signal(9) } else { ExitStatus::Code(1) };
        self.node(|agent, around| agent.exited(pid, status, around));
        self.machine.processes.remove(&pid);
    }

    // The edge.

    fn edge_up(&mut self) {
        if self.edge.up {
            return;
        }
        self.edge.up = true;
        let boot = self.edge.boot;
        self.after(Millis(0), Event::EdgeTick { boot });
    }

    fn table_arrives(&mut self, table: &Arc<RouteTable>) {
        if self.edge.offered(table) {
            let routed: BTreeSet<InstanceId> = self
                .edge
                .table
                .services
                .values()
                .flat_map(|route| route.backend.instances())
                .cloned()
                .collect();
            for process in self.machine.processes.values_mut().filter(|process| routed.contains(&process.id))
            {
                process.routed = true;
            }
            self.told(format!("edge serves {}", table.revision));
            self.edge_reports();
        }
    }

    fn edge_reports(&mut self) {
        let report = self.edge.report(self.now);
        self.send(Link::EdgeToServer, &Event::EdgeSays(report));
    }

    fn traffic(&mut self) {
        self.after(TRAFFIC, Event::Traffic);
        if !self.edge.up {
            return;
        }
        for service in 0..self.story.shapes.len() {
            let key = self.story.shapes[service].key();
            if self.story.shapes[service].is_site {
                self.visit(&key);
            } else {
                self.request(&key);
            }
        }
    }

    /// I9: the folder that the edge serves is whole.
    fn visit(&mut self, key: &ServiceKey) {
        let Some(folder) = self.edge.folder(key) else { return };
        let whole = self.machine.folders.get(folder).is_some_and(|folder| folder.complete);
        if !whole && !self.by_hand.contains(key) {
            let message = format!("{key} is served from {folder}, which is not whole");
            self.truth.fail("I9", self.now, message);
        }
    }

    fn request(&mut self, key: &ServiceKey) {
        let mut endpoints = self.edge.endpoints(key);
        while !endpoints.is_empty() {
            let picked = endpoints.swap_remove(self.rng.random_range(0..endpoints.len()));
            let port = picked.address.rsplit(':').next().and_then(|port| port.parse().ok());
            // Refused at once: another one is tried.
            let Some((pid, process)) = port.and_then(|port| self.machine.listener(port)) else { continue };
            if process.id != picked.instance {
                let found = process.id.clone();
                self.truth.misrouted(self.now, &picked.instance, pid, &found);
                continue;
            }
            if process.told_to_end == Some(EndReason::Removed) {
                self.truth.ended_with_requests(self.now, &picked.instance, 1);
            }
            let request = Request { instance: picked.instance, pid };
            let long = self.rng.random_bool(0.05);
            let takes = Millis(if long {
                self.rng.random_range(2_000..8_000)
            } else {
                self.rng.random_range(5..900)
            });
            let request = self.edge.begin(request);
            let boot = self.edge.boot;
            self.after(takes, Event::RequestEnds { boot, request });
            return;
        }
    }

    fn request_ends(&mut self, boot: u64, request: u64) {
        if self.edge.boot != boot {
            return;
        }
        let Some(ended) = self.edge.requests.remove(&request) else { return };
        let last = !self.edge.requests.values().any(|other| other.instance == ended.instance);
        let retired =
            self.edge.table.services.values().all(|r| !r.backend.instances().contains(&ended.instance));
        if last && retired {
            self.edge_reports();
        }
    }

    // What the story says.

    fn input(&mut self, index: usize) {
        let input = &self.story.inputs[index];
        match &input.what {
            What::User { service, asks } => self.ask(index, *service, *asks),
            What::Fault(fault) => {
                self.told(format!("fault {fault:?}"));
                self.fault(*fault);
            }
        }
    }

    /// A user asks again while the server is away.
    fn ask(&mut self, index: usize, service: usize, asks: Ask) {
        let shape = &self.story.shapes[service];
        let Some(memory) = &mut self.server.memory else {
            if !self.healed {
                self.after(Millis(300), Event::Input(index));
            }
            return;
        };
        self.truth.asked(&shape.key());
        let answer = memory.ask(&mut self.store, &self.unreadable, shape, asks, self.now);
        self.told(format!("{} {asks:?}: {answer}", shape.name));
        self.truth.recorded(self.now, &self.store);
        self.look();
    }

    fn fault(&mut self, fault: Fault) {
        let until = |lasts: Millis| self.now + lasts;
        match fault {
            Fault::ServerCrash { down } => self.server_crash(down),
            Fault::CrashAtCommit { after, down } => self.crash_at_commit = Some((after, down)),
            Fault::UnknownOutcome { made } => self.store.next_unknown = Some(made),
            Fault::NodeCrash { down } => {
                self.agent.crash();
                self.after(down, Event::NodeUp);
            }
            Fault::Reboot { down } => self.reboot(down),
            Fault::LedgerLost => self.lose_ledger(),
            Fault::EdgeRestart { down } => {
                self.edge.stop();
                self.after(down, Event::EdgeUp);
            }
            Fault::Kill { nth } => {
                if let Some(pid) = self.nth_process(nth) {
                    self.dies(pid, true);
                }
            }
            Fault::Sick { nth, lasts } => {
                let until = until(lasts);
                let Some(pid) = self.nth_process(nth) else { return };
                if let Some(process) = self.machine.processes.get_mut(&pid) {
                    process.sick_until = until;
                    let service = process.id.service.clone();
                    self.truth.disturbed(self.now, &service);
                }
            }
            Fault::Damage { nth, kind } => self.damage(nth, kind),
            Fault::Stranger => self.stranger(),
            Fault::Unreadable { service, lasts } => {
                self.unreadable.insert(self.story.shapes[service].key());
                self.after(lasts, Event::Readable { service });
                self.look();
            }
            Fault::Lossy { lasts, .. }
            | Fault::Delayed { lasts, .. }
            | Fault::Repeating { lasts, .. }
            | Fault::Cut { lasts, .. } => {
                let until = until(lasts);
                self.net.trouble(fault, until);
            }
        }
    }

    fn nth_process(&self, nth: usize) -> Option<u32> {
        let live: Vec<u32> =
            self.machine.live().map(|(pid, _)| pid).filter(|pid| !self.strangers.contains(pid)).collect();
        live.get(nth % live.len().max(1)).copied()
    }

    fn reboot(&mut self, down: Millis) {
        self.agent.reboot();
        for pid in self.machine.live().map(|(pid, _)| pid).collect::<Vec<_>>() {
            self.strangers.remove(&pid);
            self.dies(pid, true);
        }
        self.edge.stop();
        self.after(down, Event::NodeUp);
        self.after(down, Event::EdgeUp);
    }

    fn lose_ledger(&mut self) {
        self.ledger_was_lost = true;
        self.agent.lose_ledger();
        self.truth.ledger_lost(self.now, &self.machine);
        // The agent is new: nothing that was under way to the old one reaches it.
        self.queue.retain(|_, event| !matches!(event, Event::ToNode(_)));
        self.after(Millis(50), Event::NodeUp);
    }

    fn damage(&mut self, nth: usize, kind: Damage) {
        let sites: Vec<(ServiceKey, String)> = self.machine.links.clone().into_iter().collect();
        let Some((service, shown)) = sites.get(nth % sites.len().max(1)).cloned() else { return };
        self.by_hand.insert(service.clone());
        match kind {
            Damage::File => {
                if let Some(folder) = self.machine.folders.get_mut(&shown) {
                    folder.damaged = true;
                }
            }
            Damage::Folder => drop(self.machine.folders.remove(&shown)),
            Damage::Link => drop(self.machine.links.insert(service, "/somewhere".into())),
        }
        self.node(|agent, around| agent.nudge(around));
    }

    /// A process with our marks that nobody of us has started.
    fn stranger(&mut self) {
        let Some((_, like)) = self.machine.live().next() else { return };
        let mut id = like.id.clone();
        id.incarnation.0 += 1_000_000;
        let (release, character) = (like.release, crate::shape::Character::Good);
        let pid = self.machine.spawn(id, release, character, None, self.now, &mut self.rng);
        self.strangers.insert(pid);
        self.truth.unowned.insert(pid);
    }

    /// All faults end.
    fn heal(&mut self) {
        self.told("faults heal".into());
        self.healed = true;
        self.net.heal();
        self.unreadable.clear();
        self.crash_at_commit = None;
        self.store.next_unknown = None;
        for process in self.machine.processes.values_mut() {
            process.sick_until = process.sick_until.min(self.now);
        }
        for event in [Event::ServerUp, Event::NodeUp, Event::EdgeUp] {
            self.after(Millis(0), event);
        }
    }

    /// An operator removes what no ledger knows since one was lost.
    fn clear(&mut self) {
        let known: BTreeSet<u32> = self.agent.ledger.entries.values().filter_map(|entry| entry.pid).collect();
        let orphans = self.machine.live().map(|(pid, _)| pid).filter(|pid| self.truth.unowned.contains(pid));
        let orphans: Vec<u32> =
            orphans.filter(|pid| !known.contains(pid) && !self.strangers.contains(pid)).collect();
        for pid in orphans {
            self.dies(pid, true);
        }
        if self.ledger_was_lost {
            let owned: BTreeSet<String> = self
                .agent
                .ledger
                .entries
                .values()
                .map(|entry| crate::node::folder(&entry.assigned))
                .collect();
            self.machine.folders.retain(|path, _| owned.contains(path));
            self.machine.links.retain(|_, path| owned.contains(path));
        }
    }

    // What must hold.

    fn examine(&mut self) {
        let mut truth = std::mem::take(&mut self.truth);
        self.mended();
        truth.examine(self.now, &self.seen());
        self.truth = truth;
    }

    /// What a hand has damaged is put back once the link leads to a whole folder again.
    fn mended(&mut self) {
        let machine = &self.machine;
        self.by_hand.retain(|service| {
            let link = machine.links.get(service);
            link.is_some_and(|link| machine.folders.get(link).is_none_or(|f| !f.complete || f.damaged))
        });
    }

    fn seen(&self) -> Seen<'_> {
        Seen {
            store: &self.store,
            machine: &self.machine,
            edge: &self.edge,
            shapes: &self.story.shapes,
            by_hand: &self.by_hand,
        }
    }

    fn audit(&mut self) {
        self.after(AUDIT, Event::Audit);
        let mut truth = std::mem::take(&mut self.truth);
        if let Some(memory) = &self.server.memory
            && self.edge.up
        {
            let snapshot = Memory::snapshot(memory, &self.unreadable, self.now);
            for (key, world) in &snapshot.worlds {
                truth.said(self.now, &status::summary(world, self.now), key, &self.seen());
            }
        }
        self.truth = truth;
    }

    /// I5, I7, I12: a bounded time after the faults have healed, everything has ended well.
    fn demand_convergence(&mut self) {
        let mut wrong = Vec::new();
        for shape in &self.story.shapes {
            let key = shape.key();
            wrong.extend(self.unended(&key));
            if self.seen().can_converge(&key) && !self.seen().is_converged(&key, self.now) {
                wrong.push(("I16", format!("{key} has not converged: {}", self.state_of(&key))));
            }
            wrong.extend(self.left_behind(&key));
        }
        for pid in &self.strangers {
            if !self.machine.is_alive(*pid) {
                wrong.push(("I13", format!("the stranger {pid} is gone")));
            }
        }
        if let Some((invariant, message)) = wrong.into_iter().next() {
            if self.now < BEGINNING + HEALS + CONVERGES_WITHIN {
                return self.after(LOOKED_AT_EACH, Event::Converged);
            }
            self.truth.fail(invariant, self.now, message);
        }
        self.after(RESTS_FOR, Event::Rested);
        for key in self.restful() {
            let counted = self.counted(&key);
            self.at_rest.insert(key, counted);
        }
    }

    fn unended(&self, key: &ServiceKey) -> Option<(&'static str, String)> {
        let open = self.store.rows.get(key)?.world.open_deployment()?;
        Some(("I7", format!("{key} #{} is still {}: {}", open.number, open.phase, self.state_of(key))))
    }

    /// I12: of a deleted service nothing is left.
    fn left_behind(&self, key: &ServiceKey) -> Option<(&'static str, String)> {
        let deleted = match self.store.rows.get(key)?.world.service.known() {
            Some(service) => service.deleted.is_some(),
            None => true,
        };
        let site = format!("/sites/{}/", key.name);
        let work = format!("/instances/{}.{}.", key.project, key.name);
        let folders =
            self.machine.folders.keys().any(|path| path.starts_with(&site) || path.starts_with(&work));
        let processes =
            self.machine.live().any(|(pid, p)| p.id.service == *key && !self.strangers.contains(&pid));
        let link = self.machine.links.contains_key(key);
        let route = self.edge.table.services.contains_key(key);
        let placed = !self.store.rows.get(key)?.world.plan.placements.is_empty();
        let left = folders || processes || link || route || placed;
        let what = format!(
            "{key} is deleted; left: folders {folders}, processes {processes}, link {link}, route {route}, placed {placed}"
        );
        (deleted && left).then_some(("I12", what))
    }

    fn state_of(&self, key: &ServiceKey) -> String {
        let Some(memory) = &self.server.memory else { return "the server is down".into() };
        let snapshot = memory.snapshot(&self.unreadable, self.now);
        let Some(world) = snapshot.worlds.get(key) else { return "no such service".into() };
        let summary = status::summary(world, self.now);
        let (_, report) = decide::plan::plan_service(world, &snapshot.cluster, self.now);
        let waits: Vec<String> = decide::plan::waits(&report).map(ToString::to_string).collect();
        format!("{} {} {waits:?}", summary.state, summary.message)
    }

    fn restful(&self) -> Vec<ServiceKey> {
        let keys = self.story.shapes.iter().map(crate::shape::Shape::key);
        keys.filter(|key| self.seen().can_converge(key)).collect()
    }

    fn counted(&self, key: &ServiceKey) -> (u64, u64) {
        let commits = self.store.rows.get(key).map_or(0, |row| row.world.plan.seq.0);
        (commits, self.truth.operations_of(key))
    }

    /// I16: at rest means at rest.
    fn demand_rest(&mut self) {
        for (key, before) in self.at_rest.clone() {
            let now = self.counted(&key);
            if now != before {
                let message = format!("{key} was at rest and went from {before:?} to {now:?}");
                self.truth.fail("I16", self.now, message);
            }
        }
        self.over = true;
    }
}

fn events(decision: &model::plan::Decision) -> Vec<String> {
    decision.events.iter().map(|event| event.message.clone()).collect()
}
