//! What happens in a story, written down before it is played: who asks for what, what breaks, and when.

use std::fmt;

use model::{Millis, spec::Kind};
use rand::{Rng, SeedableRng, rngs::StdRng};

use crate::{
    engine::Manner,
    shape::{Character, Shape, name},
};

/// When the faults heal; nothing is asked for after that.
pub const HEALS: Millis = Millis(75_000);

#[derive(Debug, Clone)]
pub struct Story {
    pub seed: u64,
    pub shapes: Vec<Shape>,
    pub inputs: Vec<Input>,
    /// The first processes of containers are in the agent's kernel.
    pub sees_processes: bool,
    pub size: Size,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Size {
    pub nodes: usize,
    pub edges: usize,
}

#[derive(Debug, Clone, PartialEq)]
pub struct Input {
    /// After the beginning.
    pub at: Millis,
    pub what: What,
}

#[derive(Debug, Clone, PartialEq)]
pub enum What {
    User { service: usize, asks: Ask },
    Fault(Fault),
}

#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Ask {
    Apply { version: u32, character: Character, policy: u32 },
    Deploy,
    Rollback,
    Cancel,
    Scale(u32),
    Stop,
    Start,
    Restart,
    Delete,
}

/// Where a message goes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Link {
    ServerToNode(usize),
    NodeToServer(usize),
    ServerToEdge(usize),
    EdgeToServer(usize),
}

#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Fault {
    ServerCrash {
        down: Millis,
    },
    /// At the server's next commit, before or after it is durable.
    CrashAtCommit {
        after: bool,
        down: Millis,
    },
    /// The store does not answer the next commit, which it has made or not.
    UnknownOutcome {
        made: bool,
    },
    /// The agent alone: processes live on.
    NodeCrash {
        node: usize,
        down: Millis,
    },
    /// The machine: processes and what was not synced are gone.
    Reboot {
        node: usize,
        down: Millis,
    },
    LedgerLost {
        node: usize,
    },
    EdgeRestart {
        edge: usize,
        down: Millis,
    },
    /// The `nth` live process, by hand.
    Kill {
        nth: usize,
    },
    Sick {
        nth: usize,
        lasts: Millis,
    },
    Damage {
        nth: usize,
        kind: Damage,
    },
    Stranger,
    /// An operator drains a node, and takes it back.
    Drained {
        node: usize,
        lasts: Millis,
    },
    Unreadable {
        service: usize,
        lasts: Millis,
    },
    Lossy {
        link: Link,
        drop: f64,
        lasts: Millis,
    },
    Delayed {
        link: Link,
        up_to: Millis,
        lasts: Millis,
    },
    Repeating {
        link: Link,
        lasts: Millis,
    },
    Cut {
        link: Link,
        lasts: Millis,
    },
    /// The engine answers nobody; its containers live on.
    EngineHangs {
        node: usize,
        lasts: Millis,
    },
    EngineEnds {
        node: usize,
        down: Millis,
        ending: Ending,
    },
    EngineManner {
        node: usize,
        manner: Manner,
        lasts: Millis,
    },
    /// A hand acts on the `nth` container.
    Hand {
        nth: usize,
        deed: Deed,
    },
}

/// What becomes of an engine's containers when it ends.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Ending {
    /// It is stopped, and ends each of them first.
    InOrder,
    /// It is killed, and they with it.
    TakesThem,
    /// It is killed, and they live on.
    LeavesThem,
    /// It is killed, and ends them first of all when it is back.
    EndsThemLater,
}

impl Ending {
    const ALL: [Self; 4] = [Self::InOrder, Self::TakesThem, Self::LeavesThem, Self::EndsThemLater];
}

/// What a hand does to a container.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Deed {
    Stop,
    Start,
    Pause,
    Remove,
    Rename,
    /// Another one with the same labels.
    Copy,
}

impl Deed {
    const ALL: [Self; 6] = [Self::Stop, Self::Start, Self::Pause, Self::Remove, Self::Rename, Self::Copy];
}

/// What a hand does to a site.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Damage {
    File,
    Folder,
    Link,
}

impl Story {
    pub fn of(seed: u64) -> Self {
        let mut rng = StdRng::seed_from_u64(seed);
        let size =
            Size { nodes: [1, 1, 2, 3][rng.random_range(0..4)], edges: [1, 1, 2][rng.random_range(0..3)] };
        let shapes = shapes(&mut rng);
        let mut inputs: Vec<Input> = (0..shapes.len())
            .map(|service| Input {
                at: Millis(10 + 200 * service as u64),
                what: What::User {
                    service,
                    asks: Ask::Apply { version: 1, character: Character::Good, policy: 0 },
                },
            })
            .collect();
        let end = HEALS.0 - 3_000;
        for _ in 0..rng.random_range(4..14) {
            let at = Millis(rng.random_range(2_000..end));
            let service = rng.random_range(0..shapes.len());
            let asks = ask(&mut rng, &shapes[service]);
            inputs.push(Input { at, what: What::User { service, asks } });
        }
        for _ in 0..rng.random_range(0..12) {
            let at = Millis(rng.random_range(1_000..end));
            let fault = fault(&mut rng, size, shapes.len());
            inputs.push(Input { at, what: What::Fault(fault) });
        }
        for _ in 0..rng.random_range(0..8) {
            let at = Millis(rng.random_range(1_000..end));
            inputs.push(Input { at, what: What::Fault(engine_fault(&mut rng, size)) });
        }
        if rng.random_bool(0.35) {
            inputs.extend(crashes_within_a_crash_loop(&mut rng, size, end));
        }
        if rng.random_bool(0.1) {
            inputs.extend(engine_ends_again_and_again(&mut rng, size, end));
        }
        inputs.sort_by_key(|input| input.at);
        let sees_processes = rng.random_bool(0.6);
        Self { seed, shapes, inputs, sees_processes, size }
    }
}

/// A bad release, and an agent that dies again and again while it does.
fn crashes_within_a_crash_loop(rng: &mut StdRng, size: Size, end: u64) -> Vec<Input> {
    let mut at = rng.random_range(2_000..end - 20_000);
    let character = if rng.random_bool(0.7) { Character::DiesReady } else { Character::Crash };
    let asks = Ask::Apply { version: 9, character, policy: 0 };
    let mut inputs =
        vec![Input { at: Millis(at), what: What::User { service: rng.random_range(0..2), asks } }];
    for _ in 0..rng.random_range(2..8) {
        at += rng.random_range(200..2_500);
        let down = Millis(rng.random_range(20..1_500));
        let node = rng.random_range(0..size.nodes);
        inputs.push(Input { at: Millis(at), what: What::Fault(Fault::NodeCrash { node, down }) });
    }
    inputs
}

/// An engine that ends more often than anybody takes for its own doing, and a release that dies by itself as well or not.
fn engine_ends_again_and_again(rng: &mut StdRng, size: Size, end: u64) -> Vec<Input> {
    let mut inputs = Vec::new();
    let mut at = rng.random_range(5_000..15_000);
    if rng.random_bool(0.5) {
        let character = if rng.random_bool(0.5) { Character::DiesReady } else { Character::Crash };
        let asks = Ask::Apply { version: 9, character, policy: 0 };
        inputs.push(Input { at: Millis(at), what: What::User { service: BOXED, asks } });
    }
    let node = rng.random_range(0..size.nodes);
    for _ in 0..rng.random_range(3..22) {
        at += rng.random_range(800..4_000);
        if at >= end {
            break;
        }
        let down = Millis(rng.random_range(20..900));
        let ending = Ending::ALL[rng.random_range(0..Ending::ALL.len())];
        let ends = Fault::EngineEnds { node, down, ending };
        inputs.push(Input { at: Millis(at), what: What::Fault(ends) });
    }
    inputs
}

/// The place among the services of the one that is always of containers, unless its versions turn.
const BOXED: usize = 3;

fn shapes(rng: &mut StdRng) -> Vec<Shape> {
    let web = Shape {
        key: name("web"),
        kind: Kind::Process,
        turns: Vec::new(),
        replicas: rng.random_range(1..4),
        recreate: false,
        stop_first: false,
        parallelism: rng.random_range(1..3),
        fixed_port: None,
        pause: rng.random_bool(0.2),
        retain: 5,
    };
    let kind = rng.random_range(0..4);
    let api = Shape {
        key: name("api"),
        recreate: kind == 0,
        stop_first: kind == 1,
        fixed_port: (kind == 2).then_some(8080),
        replicas: if kind == 2 { 1 } else { rng.random_range(1..4) },
        parallelism: rng.random_range(1..3),
        pause: rng.random_bool(0.2),
        ..web.clone()
    };
    let docs = Shape {
        key: name("docs"),
        kind: Kind::Site,
        replicas: 1,
        parallelism: 1,
        pause: false,
        retain: rng.random_range(0..3),
        ..web.clone()
    };
    let boxed = Shape {
        key: name("boxed"),
        kind: Kind::Container,
        replicas: rng.random_range(1..3),
        stop_first: rng.random_bool(0.3),
        pause: rng.random_bool(0.2),
        ..web.clone()
    };
    let mut all = vec![web, api, docs, boxed];
    if rng.random_bool(0.3) {
        let service = rng.random_range(0..all.len());
        all[service].turns = turns(rng);
        // A port of a machine is no matter of containers here.
        all[service].fixed_port = None;
    }
    all
}

/// What the versions of a service are that changes its kind.
fn turns(rng: &mut StdRng) -> Vec<Kind> {
    match rng.random_range(0..4) {
        0..=1 => vec![Kind::Process, Kind::Container],
        2 => vec![Kind::Site, Kind::Process],
        _ => vec![Kind::Container, Kind::Site, Kind::Process],
    }
}

fn ask(rng: &mut StdRng, shape: &Shape) -> Ask {
    // A machine has each port once.
    let most = if shape.fixed_port.is_some() { 1 } else { 4 };
    match rng.random_range(0..20) {
        0..=7 => {
            let version = rng.random_range(1..6);
            Ask::Apply {
                version,
                character: character(rng, shape.kind_of(version) == Kind::Site),
                policy: rng.random_range(0..2),
            }
        }
        8 => Ask::Deploy,
        9..=10 => Ask::Rollback,
        11..=12 => Ask::Cancel,
        13..=14 => Ask::Scale(rng.random_range(0..=most)),
        15 => Ask::Stop,
        16..=17 => Ask::Start,
        18 => Ask::Restart,
        _ => Ask::Delete,
    }
}

fn character(rng: &mut StdRng, is_site: bool) -> Character {
    match rng.random_range(0..10) {
        _ if is_site => Character::Good,
        0..=3 => Character::Good,
        4 => Character::Slow,
        5 => Character::Stubborn,
        6 => Character::Never,
        7 => Character::DiesReady,
        _ => Character::Crash,
    }
}

fn fault(rng: &mut StdRng, size: Size, services: usize) -> Fault {
    let (node, edge) = (rng.random_range(0..size.nodes), rng.random_range(0..size.edges));
    let down = Millis(rng.random_range(20..5_000));
    let lasts = Millis(rng.random_range(500..14_000));
    let nth = rng.random_range(0..8);
    let link = match rng.random_range(0..4) {
        0 => Link::ServerToNode(node),
        1 => Link::NodeToServer(node),
        2 => Link::ServerToEdge(edge),
        _ => Link::EdgeToServer(edge),
    };
    match rng.random_range(0..26) {
        0..=1 => Fault::ServerCrash { down },
        2..=3 => Fault::CrashAtCommit { after: rng.random_bool(0.5), down },
        4 => Fault::UnknownOutcome { made: rng.random_bool(0.5) },
        5..=8 => Fault::NodeCrash { node, down },
        9 => Fault::Reboot { node, down },
        10 => Fault::LedgerLost { node },
        11 => Fault::EdgeRestart { edge, down },
        12..=13 => Fault::Kill { nth },
        14 => Fault::Sick { nth, lasts },
        15..=16 => {
            let kinds = [Damage::File, Damage::Folder, Damage::Link];
            Fault::Damage { nth, kind: kinds[rng.random_range(0..3)] }
        }
        17 => Fault::Stranger,
        18 => Fault::Unreadable { service: rng.random_range(0..services), lasts },
        19 => Fault::Lossy { link, drop: rng.random_range(0.1..0.9), lasts },
        20..=21 => Fault::Delayed { link, up_to: Millis(rng.random_range(100..5_000)), lasts },
        22 => Fault::Repeating { link, lasts },
        23..=24 => Fault::Drained { node, lasts },
        _ => Fault::Cut { link, lasts },
    }
}

fn engine_fault(rng: &mut StdRng, size: Size) -> Fault {
    let node = rng.random_range(0..size.nodes);
    let lasts = Millis(rng.random_range(500..12_000));
    match rng.random_range(0..10) {
        0 => Fault::EngineHangs { node, lasts },
        1..=2 => {
            let down = Millis(rng.random_range(20..6_000));
            Fault::EngineEnds { node, down, ending: Ending::ALL[rng.random_range(0..Ending::ALL.len())] }
        }
        3..=6 => {
            let manner = Manner::ALL[rng.random_range(0..Manner::ALL.len())];
            Fault::EngineManner { node, manner, lasts }
        }
        _ => {
            let deed = Deed::ALL[rng.random_range(0..Deed::ALL.len())];
            Fault::Hand { nth: rng.random_range(0..8), deed }
        }
    }
}

impl fmt::Display for Story {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for shape in &self.shapes {
            writeln!(f, "  {shape:?}")?;
        }
        for Input { at, what } in &self.inputs {
            match what {
                What::User { service, asks } => {
                    let name = self.shapes.get(*service).map(|shape| shape.key.name.as_str());
                    writeln!(f, "  {:>6}ms {}: {asks:?}", at.0, name.unwrap_or("?"))?;
                }
                What::Fault(fault) => writeln!(f, "  {:>6}ms fault: {fault:?}", at.0)?,
            }
        }
        Ok(())
    }
}
