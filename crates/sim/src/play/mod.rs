//! Plays a story: one queue of events in virtual time, faults until they heal, then the demand that all ends well.

mod demand;
mod edge;
mod engine;
mod fault;
#[cfg(test)]
mod ground;
mod hand;
mod node;
mod server;
mod user;

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
};

use model::{
    InstanceId, Millis, ServiceKey, Timestamp,
    observation::Observation,
    route::{EdgeReport, EndpointEvent, RouteTable},
};
use rand::{SeedableRng, rngs::StdRng};

use crate::{
    edge::Edge,
    engine::{Call, ContainerId, Engine},
    machine::{EndReason, Machine},
    net::Net,
    node::{Agent, Happens},
    server::{PERIOD, Server},
    store::Store,
    story::{HEALS, Link, Story},
    truth::{Truth, Violation},
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
    AtNode { node: usize, what: Happens },
    EdgeUp { edge: usize },
    EdgeTick { edge: usize, boot: u64 },
    RequestEnds { edge: usize, boot: u64, request: u64 },
    Readable { service: usize },
    Undrained { node: usize },
    NodeSays(Arc<Observation>),
    ToEdge { edge: usize, table: Arc<RouteTable> },
    EdgeSays(EdgeReport),
    Endpoint { edge: usize, boot: u64, event: EndpointEvent },
}

impl Event {
    /// Whether it may change what the invariants of each step are read from: the others are messages and requests, which
    /// are judged where they arrive.
    fn acts(&self) -> bool {
        match self {
            Self::Traffic
            | Self::RequestEnds { .. }
            | Self::EdgeTick { .. }
            | Self::NodeSays(_)
            | Self::EdgeSays(_)
            | Self::ServerTick { .. }
            | Self::Audit
            | Self::AtNode { what: Happens::Offered(_), .. } => false,
            Self::Input(_)
            | Self::Heal
            | Self::Clear
            | Self::Converged
            | Self::Rested
            | Self::ServerUp
            | Self::ServerPass { .. }
            | Self::AtNode { .. }
            | Self::EdgeUp { .. }
            | Self::Readable { .. }
            | Self::Undrained { .. }
            | Self::ToEdge { .. }
            | Self::Endpoint { .. } => true,
        }
    }
}

/// What a part wants done outside of itself.
pub enum Out {
    At(Timestamp, Happens),
    /// Asks the engine.
    Ask {
        epoch: u64,
        ticket: u64,
        call: Call,
    },
    /// It begins to remove an instance.
    Removes(InstanceId),
    /// Something happened to a container.
    News(ContainerId),
    NodeSays(Arc<Observation>),
    Endpoint(EndpointEvent),
    Told {
        pid: u32,
        reason: EndReason,
    },
    Trace(String),
}

/// A node: its agent, what is true on its machine, and its container engine.
pub struct Host {
    pub agent: Agent,
    pub machine: Machine,
    pub engine: Engine,
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
    hosts: Vec<Host>,
    edges: Vec<Edge>,
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
        let acts = event.acts();
        play.happen(event);
        if acts {
            play.examine();
        }
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
            hosts: (0..story.size.nodes).map(|node| Host::new(node, story)).collect(),
            edges: (0..story.size.edges).map(Edge::new).collect(),
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
        play.all_up();
        for event in [Event::Audit, Event::Traffic] {
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

    /// Whatever is down comes up.
    fn all_up(&mut self) {
        self.after(Millis(0), Event::ServerUp);
        for node in 0..self.hosts.len() {
            self.after(Millis(0), Event::AtNode { node, what: Happens::EngineUp });
            self.after(Millis(0), Event::AtNode { node, what: Happens::EngineGoesOn });
            self.after(Millis(0), Event::AtNode { node, what: Happens::Up });
        }
        for edge in 0..self.edges.len() {
            self.after(Millis(0), Event::EdgeUp { edge });
        }
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
            Event::AtNode { node, what } => self.at_node(node, what),
            Event::EdgeUp { edge } => self.edge_up(edge),
            Event::EdgeTick { edge, boot } => {
                if self.edges[edge].up && self.edges[edge].boot == boot {
                    self.edge_reports(edge);
                    self.after(PERIOD, Event::EdgeTick { edge, boot });
                }
            }
            Event::RequestEnds { edge, boot, request } => self.request_ends(edge, boot, request),
            Event::Readable { service } => {
                self.unreadable.remove(&self.story.shapes[service].key);
                self.server_reads();
            }
            Event::Undrained { node } => self.drain(node, false),
            Event::NodeSays(observation) => {
                self.server_told(|view| view.observe(observation));
            }
            Event::ToEdge { edge, table } => self.table_arrives(edge, &table),
            Event::EdgeSays(report) => {
                self.server_told(|view| view.hear(report));
            }
            Event::Endpoint { edge, boot, event } => {
                if self.edges[edge].up && self.edges[edge].boot == boot {
                    self.edges[edge].told(event);
                }
            }
        }
    }
}

impl Host {
    fn new(node: usize, story: &Story) -> Self {
        let id = crate::shape::name(&format!("n{}", node + 1));
        Self {
            agent: Agent::new(id, story.sees_processes),
            machine: Machine::of_node(node),
            engine: Engine::default(),
        }
    }
}
