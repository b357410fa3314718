//! The model of a node and its runtimes keeps what every runtime keeps, in its own time.

use std::{
    pin::pin,
    sync::Arc,
    task::{Context, Poll, Waker},
};

use decide::conformance::{self, Ground, Program, Told};
use model::{
    Generation, Holder, InstanceId, Millis, Term,
    assignment::{Assigned, Assignment, Stamp},
    instance::Attempts,
    observation::{InstanceReport, Observation},
    release::Release,
    route::EndpointHealth,
    spec::{Kind, Workload},
};

use super::{Event, Options, Play};
use crate::{
    node::{Happens, cluster_id, folder},
    shape::{Character, Shape, name},
    story::{Size, Story},
};

/// Any wait, in the model's time.
const BOUND: Millis = Millis(20_000);

/// A play without a server: what its node is assigned comes from the statements.
struct Model<'a> {
    play: Play<'a>,
    shape: Shape,
    heard: Option<Arc<Observation>>,
    said: Vec<EndpointHealth>,
    /// Processes that were started before the node came up.
    before: u32,
}

impl<'a> Model<'a> {
    fn new(story: &'a Story, options: &'a Options) -> Self {
        let mut play = Play::new(story, options);
        play.queue.clear();
        for what in [Happens::EngineUp, Happens::EngineGoesOn] {
            play.after(Millis(0), Event::AtNode { node: 0, what });
        }
        Self { play, shape: story.shapes[0].clone(), heard: None, said: Vec::new(), before: 0 }
    }

    /// The next thing happens; nothing is left that could.
    fn go_on(&mut self) -> Option<()> {
        let ((at, _), event) = self.play.queue.pop_first()?;
        self.play.now = at;
        match event {
            // Told late, it is older than what is known.
            Event::NodeSays(told) if self.heard.as_ref().is_none_or(|h| h.sequence < told.sequence) => {
                self.heard = Some(told);
            }
            Event::NodeSays(_) => {}
            Event::Endpoint { event, .. } => self.said.push(event.health),
            event => self.play.happen(event),
        }
        Some(())
    }

    fn go_on_for(&mut self, time: Millis) {
        let until = self.play.now + time;
        while self.play.queue.first_key_value().is_some_and(|((at, _), _)| *at <= until) {
            self.go_on();
        }
    }

    fn started(&self) -> u32 {
        self.play.hosts[0].machine.spawned()
    }
}

impl Ground for Model<'_> {
    fn program(&self, is: Program) -> Assigned {
        let character = match is {
            Program::Good => Character::Good,
            Program::Dies => Character::Crash,
            Program::Deaf => Character::Stubborn,
            Program::Ill | Program::Late => Character::Never,
        };
        let spec = self.shape.spec(1, character, 0);
        let mut release = Release::of(&spec);
        if let Workload::Container(container) = &mut release.workload {
            container.pin = self.shape.images().into_values().next();
        }
        Assigned {
            id: name(&format!("{}.0.1", self.shape.key.to_string().replace('/', "."))),
            release: release.digest(),
            content: Arc::new(release),
            deployment: name("dep1"),
            current: false,
            restart: spec.restart,
            drift: spec.drift,
            attempts: Attempts::default(),
        }
    }

    async fn begin(&mut self) {
        (self.heard, self.before) = (None, self.started());
        self.play.after(Millis(0), Event::AtNode { node: 0, what: Happens::Up });
        self.go_on_for(Millis(0));
    }

    async fn leave(&mut self) {
        self.play.hosts[0].agent.crash();
    }

    async fn assign(&mut self, generation: Generation, instances: &[Assigned]) -> bool {
        let agent = &self.play.hosts[0].agent;
        let holder: Holder = name("a");
        let assignment = Arc::new(Assignment {
            cluster: cluster_id(),
            node: agent.id.clone(),
            stamp: Stamp { term: Term(1), holder, generation },
            instances: instances.iter().map(|one| (one.id.clone(), Arc::new(one.clone()))).collect(),
            held: Default::default(),
        });
        self.play.node(0, |agent, around| agent.offered(Arc::clone(&assignment), around));
        self.play.hosts[0].agent.ledger.accepted.as_ref() == Some(&assignment)
    }

    async fn look(&mut self) {
        self.play.node(0, |agent, around| agent.nudge(around));
        self.go_on_for(Millis(3_000));
    }

    async fn until(
        &mut self,
        id: &InstanceId,
        what: &str,
        holds: impl Fn(Option<&InstanceReport>) -> bool,
    ) -> Told {
        let ends = self.play.now + BOUND;
        loop {
            if let Some(heard) = &self.heard {
                let report = heard.instances.get(id);
                if (report.is_some() || heard.complete) && holds(report.map(|report| &**report)) {
                    return Told { at: heard.at, report: report.cloned() };
                }
            }
            let went_on = self.go_on().is_some() && self.play.now < ends;
            let told = || self.play.trace.join("\n");
            assert!(went_on, "not within {BOUND}: {what}; {:#?}\n{}", self.heard, told());
        }
    }

    fn said(&mut self) -> Vec<EndpointHealth> {
        self.go_on_for(Millis(1));
        std::mem::take(&mut self.said)
    }

    fn starts(&mut self) -> usize {
        (self.started() - self.before) as usize
    }

    fn lives(&self, pid: u32) -> bool {
        self.play.hosts[0].machine.is_alive(pid)
    }

    fn answers(&self, address: &str) -> bool {
        let port = address.rsplit_once(':').and_then(|(_, port)| port.parse().ok());
        let found = port.and_then(|port| self.play.hosts[0].machine.listener(port));
        found.is_some_and(|(_, process)| process.answers(self.play.now))
    }

    fn has_files(&self, of: &Assigned) -> bool {
        self.play.hosts[0].machine.folders.contains_key(&folder(of))
    }

    async fn kill(&mut self, pid: u32) {
        self.play.dies(0, pid, true);
    }

    async fn removed(&mut self, left: &InstanceReport) -> bool {
        let Some(container) = &left.container else { return false };
        let id = container.parse().expect("an id of this engine");
        let removed = self.play.hosts[0].engine.containers.remove(&id).is_some();
        self.play.engine_tells(0, id);
        removed
    }
}

/// Over different chances, because the model draws how long things take.
fn holds(kind: Kind, sees_processes: bool, statement: impl AsyncFn(&mut Model<'_>)) {
    for seed in 0..20 {
        let Story { shapes, .. } = Story::of(seed);
        let shape = Shape { kind, turns: Vec::new(), fixed_port: None, ..shapes[0].clone() };
        let size = Size { nodes: 1, edges: 1 };
        let story = Story { seed, shapes: vec![shape], inputs: Vec::new(), sees_processes, size };
        let options = Options::default();
        let mut model = Model::new(&story, &options);
        let tried = pin!(statement(&mut model));
        // It never waits.
        assert_eq!(tried.poll(&mut Context::from_waker(Waker::noop())), Poll::Ready(()), "seed {seed}");
    }
}

macro_rules! on_the_model {
    ($($statement:ident)*) => {
        on_the_model!(@ process Kind::Process, true; $($statement)*);
        on_the_model!(@ container Kind::Container, true; $($statement)*);
        on_the_model!(@ container_of_another_kernel Kind::Container, false; $($statement)*);
    };
    (@ $runtime:ident $kind:expr, $sees_processes:expr; $($statement:ident)*) => {
        mod $runtime {
            use super::*;

            $(
                #[test]
                fn $statement() {
                    holds($kind, $sees_processes, async |model| conformance::$statement(model).await);
                }
            )*
        }
    };
}

decide::each_statement_of_runtimes!(on_the_model);
