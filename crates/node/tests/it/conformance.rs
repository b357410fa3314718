//! What holds of whatever runs, tried on each runtime: the same program, as a process and as a container of a real
//! engine. What the simulator's model of them keeps too is written in `decide::conformance`; here is what it does not
//! model.

use std::{path::Path, sync::Arc};

use decide::conformance::{Ground, Program, Told};
use model::{
    Generation, InstanceId, Millis,
    assignment::{Assigned, Assignment},
    container::Container,
    event::{Event, Kind},
    image::ImagePin,
    observation::InstanceReport,
    route::EndpointHealth,
    spec::{Check, Health, Port, Probe, Process, RestartPolicy, Template, Workload},
};
use node::Workloads;
use testkit::docker::{Engine, Image, app};
use tokio::sync::mpsc;

use crate::world::*;

const ID: &str = "default.web.0.1";
const IMAGE: &str = "setpoint-test/conformance:v1";

/// What the suite needs of a runtime.
enum Runtime {
    Process,
    Container { engine: Engine, pin: ImagePin },
}

impl Runtime {
    fn process() -> Option<Self> {
        Some(Self::Process)
    }

    /// `None`: this machine can have no engine, which is said.
    fn container() -> Option<Self> {
        let engine = Engine::shared()?;
        let pin = ImagePin::Local(Image::new(IMAGE, "v1").build(&engine).parse().unwrap());
        Some(Self::Container { engine, pin })
    }

    fn world(&self) -> World {
        let mut world = World::new();
        if let Self::Container { engine, .. } = self {
            world.config.engine = engine.host().into();
            // Other tests have containers in the same engine; the begin is in the names of networks.
            world.config.cluster = format!("{}conformance", std::process::id()).parse().unwrap();
        }
        world
    }

    /// The program, told by its environment how to behave.
    fn program(&self, env: &[(&str, &str)]) -> Assigned {
        let word = |text: &str| Template(text.into());
        let workload = match self {
            Self::Process => Workload::Process(Process {
                command: vec![word(app().to_str().unwrap()), word("v1")],
                workdir: None,
                user: None,
            }),
            Self::Container { pin, .. } => Workload::Container(Container {
                pin: Some(*pin),
                port: Some(8080),
                ..Container::new(IMAGE.parse().unwrap())
            }),
        };
        let is_process = matches!(self, Self::Process);
        with(assigned(ID, workload), |release| {
            release.port = is_process.then_some(Port::Dynamic);
            let probe = Some(Probe::new(Check::Http("/healthz".into())));
            release.health =
                Health { startup: probe.clone(), readiness: probe.clone(), liveness: probe, assumed: false };
            for (name, value) in env {
                release.env.insert(name.parse().unwrap(), word(value));
            }
        })
    }
}

/// The node of a statement, while it is up.
struct Tried {
    runtime: Runtime,
    world: World,
    up: Option<(Running, mpsc::Receiver<Event>)>,
}

impl Tried {
    fn run(&self) -> &Running {
        &self.up.as_ref().expect("the node is up").0
    }
}

impl Ground for Tried {
    fn program(&self, is: Program) -> Assigned {
        let mode = match is {
            Program::Good => "",
            Program::Dies => "exit:4",
            Program::Deaf => "deaf",
            Program::Ill => "ill",
            Program::Late => "late:60000",
        };
        let env = [("MODE", mode)];
        self.runtime.program(if mode.is_empty() { &[] } else { &env })
    }

    async fn begin(&mut self) {
        let run = self.world.start().await;
        let events = run.node.events();
        self.up = Some((run, events));
    }

    async fn leave(&mut self) {
        let (run, _) = self.up.take().expect("the node is up");
        run.drop().await;
    }

    async fn assign(&mut self, generation: Generation, instances: &[Assigned]) -> bool {
        self.world.generation = generation.0 - 1;
        let assignment: Arc<Assignment> = self.world.assignment(instances);
        self.run().node.assign(assignment).await.is_ok()
    }

    async fn look(&mut self) {
        self.run().node.look().await;
    }

    async fn until(
        &mut self,
        id: &InstanceId,
        what: &str,
        holds: impl Fn(Option<&InstanceReport>) -> bool,
    ) -> Told {
        let seen = self.run().until(what, |seen| {
            let report = seen.instances.get(id);
            (report.is_some() || seen.complete) && holds(report.map(|report| &**report))
        });
        let seen = seen.await;
        Told { at: seen.at, report: seen.instances.get(id).cloned() }
    }

    fn said(&mut self) -> Vec<EndpointHealth> {
        self.run().endpoints.lock().unwrap().drain(..).map(|event| event.health).collect()
    }

    fn starts(&mut self) -> usize {
        let (_, events) = self.up.as_mut().expect("the node is up");
        std::iter::from_fn(|| events.try_recv().ok())
            .filter(|event| event.kind == Kind::InstanceStarted)
            .count()
    }

    fn lives(&self, pid: u32) -> bool {
        lives(pid)
    }

    fn answers(&self, address: &str) -> bool {
        std::net::TcpStream::connect(address).is_ok()
    }

    fn has_files(&self, of: &Assigned) -> bool {
        self.world.folder(of).exists()
    }

    async fn kill(&mut self, pid: u32) {
        kill(pid);
        eventually("it is dead", || !lives(pid)).await;
    }

    async fn removed(&mut self, left: &InstanceReport) -> bool {
        let (Runtime::Container { engine, .. }, Some(container)) = (&self.runtime, &left.container) else {
            return false;
        };
        engine.api().remove(container);
        true
    }
}

mod statements {
    pub use super::own::*;
    pub use decide::conformance::*;
}

mod own {
    use super::*;

    async fn up(tried: &mut Tried, web: &Assigned) -> Arc<InstanceReport> {
        tried.begin().await;
        assert!(tried.assign(Generation(2), std::slice::from_ref(web)).await);
        tried.run().until_ready(&web.id).await
    }

    async fn clear(tried: &mut Tried) {
        assert!(tried.assign(Generation(3), &[]).await);
        tried.run().until("nothing is left", |observation| observation.instances.is_empty()).await;
    }

    pub async fn that_keeps_dying_leaves_its_last_lines(tried: &mut Tried) {
        let mut dies = tried.program(Program::Dies);
        dies.restart = RestartPolicy { attempts: 1, backoff: Millis(5), ..RestartPolicy::default() };
        tried.begin().await;
        assert!(tried.assign(Generation(2), std::slice::from_ref(&dies)).await);
        let are_told = |r: &InstanceReport| r.state.is_failed() && !r.last_lines.is_empty();
        let told = tried.run().until_report(&dies.id, "its last words are told", are_told).await;
        let is_last = |line: &String| line.contains("ends at once with 4");
        assert!(told.last_lines.iter().any(is_last), "{:?}", told.last_lines);
        clear(tried).await;
    }

    pub async fn ends_with_the_node_where_that_is_asked_for_and_comes_back_uncounted(tried: &mut Tried) {
        let web = tried.program(Program::Good);
        let before = up(tried, &web).await;
        tried.run().node.shutdown(Workloads::Stop).await;
        assert!(!lives(before.pid.unwrap()));
        tried.begin().await;
        let is_back = |report: &InstanceReport| report.ready && report.pid != before.pid;
        let after = tried.run().until_report(&web.id, "it is back", is_back).await;
        assert_eq!(after.attempts.total, 0, "an orderly end is no crash");
        clear(tried).await;
    }

    pub async fn has_its_rendered_files_put_back(tried: &mut Tried) {
        let web = with(tried.program(Program::Good), |release| {
            let file = Template("instance ${SETPOINT_INSTANCE}".into());
            release.files.insert("conf/app.yaml".parse().unwrap(), file);
        });
        let before = up(tried, &web).await;
        let file: &Path = &tried.world.folder(&web).join("work/conf/app.yaml");
        assert_eq!(read(file), format!("instance {ID}"));
        std::fs::write(file, "changed").unwrap();
        eventually("it is as it was", || read(file) == format!("instance {ID}")).await;
        let after = tried.run().until_ready(&web.id).await;
        assert_eq!(after.pid, before.pid, "nothing was restarted for it");
        clear(tried).await;
    }
}

async fn holds(runtime: Runtime, statement: impl AsyncFn(&mut Tried)) {
    let world = runtime.world();
    let mut tried = Tried { runtime, world, up: None };
    statement(&mut tried).await;
    tried.leave().await;
}

macro_rules! on_each_runtime {
    ($($statement:ident)*) => {
        on_each_runtime!(@ process $($statement)*);
        on_each_runtime!(@ container $($statement)*);
    };
    (@ $runtime:ident $($statement:ident)*) => {
        mod $runtime {
            use super::*;

            $(
                #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
                async fn $statement() {
                    if let Some(runtime) = Runtime::$runtime() {
                        holds(runtime, async |tried| statements::$statement(tried).await).await;
                    }
                }
            )*
        }
    };
}

decide::each_statement_of_runtimes! {
    on_each_runtime
    that_keeps_dying_leaves_its_last_lines
    ends_with_the_node_where_that_is_asked_for_and_comes_back_uncounted
    has_its_rendered_files_put_back
}
