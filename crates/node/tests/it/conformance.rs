//! What holds of whatever runs, written once and tried on each runtime: the same program, as a process and as a
//! container of a real engine.

use std::{path::Path, sync::Arc};

use model::{
    Millis,
    assignment::Assigned,
    container::Container,
    event::Kind,
    image::ImagePin,
    observation::{ExitStatus, InstanceReport, State},
    route::EndpointHealth,
    spec::{Check, Health, Port, Probe, Process, RestartPolicy, Template, Workload},
};
use node::Workloads;
use testkit::docker::{Engine, Image, app};

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

/// A node that was assigned one instance.
async fn assigned_one(runtime: &Runtime, one: &Assigned) -> (World, Running) {
    let mut world = runtime.world();
    let run = world.start().await;
    assign(&run, &mut world, std::slice::from_ref(one)).await;
    (world, run)
}

/// The program, up and well.
async fn up(runtime: &Runtime) -> (World, Running, Assigned, Arc<InstanceReport>) {
    let web = runtime.program(&[]);
    let (world, run) = assigned_one(runtime, &web).await;
    let report = run.until_ready(&web.id).await;
    (world, run, web, report)
}

async fn assign(run: &Running, world: &mut World, instances: &[Assigned]) {
    run.node.assign(world.assignment(instances)).await.unwrap();
}

/// Leaves nothing behind, in no runtime.
async fn clear(run: Running, world: &mut World) {
    assign(&run, world, &[]).await;
    run.until("nothing is left", |observation| observation.instances.is_empty()).await;
    run.drop().await;
}

async fn comes_up_and_goes_when_it_is_no_longer_assigned(runtime: Runtime) {
    let (mut world, run, web, report) = up(&runtime).await;
    assert_eq!((&report.state, report.attempts.total), (&State::Running, 0));
    assert!(std::net::TcpStream::connect(report.address.clone().unwrap()).is_ok());
    let pid = report.pid.unwrap();
    assert!(lives(pid));
    assign(&run, &mut world, &[]).await;
    run.until_gone(&web.id).await;
    assert!(!lives(pid), "gone is said when it is gone");
    assert!(!world.folder(&web).exists());
    assert_eq!(run.endpoints.lock().unwrap().last().unwrap().health, EndpointHealth::Down);
    run.drop().await;
}

async fn is_back_when_it_was_killed_and_left_the_routes_first(runtime: Runtime) {
    let (mut world, run, web, before) = up(&runtime).await;
    run.endpoints.lock().unwrap().clear();
    kill(before.pid.unwrap());
    let after = run.until_report(&web.id, "it is back", |r| r.ready && r.pid != before.pid).await;
    assert_eq!((after.attempts.total, after.attempts.at.len()), (1, 1));
    assert_eq!(after.last_exit.as_ref().unwrap().status, ExitStatus::Signal(9));
    let said: Vec<_> = run.endpoints.lock().unwrap().iter().map(|event| event.health).collect();
    assert_eq!((said.first(), said.last()), (Some(&EndpointHealth::Down), Some(&EndpointHealth::Ready)));
    clear(run, &mut world).await;
}

async fn outlives_the_node_and_is_adopted_as_it_is(runtime: Runtime) {
    let (mut world, run, web, before) = up(&runtime).await;
    run.drop().await;
    assert!(lives(before.pid.unwrap()));
    let run = world.start().await;
    let after = run.until_report(&web.id, "it is adopted", |report| report.ready).await;
    assert_eq!((after.pid, &after.address), (before.pid, &before.address));
    assert_eq!(after.attempts.total, 0);
    clear(run, &mut world).await;
    assert!(!lives(before.pid.unwrap()));
}

async fn that_died_without_the_node_is_restarted_from_the_ledger_and_counted(runtime: Runtime) {
    let (mut world, run, web, before) = up(&runtime).await;
    run.drop().await;
    kill(before.pid.unwrap());
    eventually("it is dead", || !lives(before.pid.unwrap())).await;
    let run = world.start().await;
    let after = run.until_report(&web.id, "it is back", |r| r.ready && r.pid != before.pid).await;
    assert_eq!(after.attempts.total, 1);
    assert_ne!(after.last_exit.as_ref().unwrap().status, ExitStatus::Code(0), "never guessed to be well");
    clear(run, &mut world).await;
}

async fn that_keeps_dying_fails_with_its_status_and_its_last_lines(runtime: Runtime) {
    let mut dies = runtime.program(&[("MODE", "exit:4")]);
    dies.restart = RestartPolicy { attempts: 2, backoff: Millis(5), ..RestartPolicy::default() };
    let (mut world, run) = assigned_one(&runtime, &dies).await;
    let report = run.until_report(&dies.id, "it has failed", |report| report.state.is_failed()).await;
    assert_eq!(report.attempts.at.len(), 2, "started once, and twice again");
    assert!(report.message.contains("exit status 4"), "{}", report.message);
    assert_eq!(report.last_exit.as_ref().unwrap().status, ExitStatus::Code(4));
    let told =
        run.until_report(&dies.id, "its last words are told", |report| !report.last_lines.is_empty()).await;
    assert!(told.last_lines.iter().any(|line| line.contains("ends at once with 4")), "{:?}", told.last_lines);
    clear(run, &mut world).await;
}

/// What it was is gone, or still there: its next start is no first one.
async fn that_had_failed_is_counted_on_when_the_node_comes_back_without_it(runtime: Runtime) {
    let mut dies = runtime.program(&[("MODE", "exit:4")]);
    dies.restart = RestartPolicy {
        attempts: 1,
        backoff: Millis(5),
        window: Millis::secs(4),
        ..RestartPolicy::default()
    };
    let (mut world, run) = assigned_one(&runtime, &dies).await;
    let failed = run.until_report(&dies.id, "it has failed", |report| report.state.is_failed()).await;
    assert_eq!(failed.attempts.total, 1);
    if let (Runtime::Container { engine, .. }, Some(container)) = (&runtime, &failed.container) {
        engine.api().remove(container);
        run.until_report(&dies.id, "its end is seen", |report| report.container.is_none()).await;
    }
    run.drop().await;
    let run = world.start().await;
    let mut events = run.node.events();
    run.until_report(&dies.id, "it has failed again", |r| r.state.is_failed() && r.attempts.total == 2).await;
    let mut starts = 0;
    while let Ok(event) = events.try_recv() {
        starts += usize::from(event.kind == Kind::InstanceStarted);
    }
    assert_eq!(starts, 1, "one attempt, one start");
    clear(run, &mut world).await;
}

async fn that_is_deaf_is_killed_after_its_grace(runtime: Runtime) {
    let deaf = runtime.program(&[("MODE", "deaf")]);
    let (mut world, run) = assigned_one(&runtime, &deaf).await;
    let report = run.until_ready(&deaf.id).await;
    assign(&run, &mut world, &[]).await;
    run.until_report(&deaf.id, "it is stopping", |r| matches!(r.state, State::Stopping { .. })).await;
    run.until_gone(&deaf.id).await;
    assert!(!lives(report.pid.unwrap()));
    run.drop().await;
}

async fn that_is_ill_lives_and_is_not_ready(runtime: Runtime) {
    let mut ill = runtime.program(&[("MODE", "ill")]);
    ill = with(ill, |release| {
        // Nothing ends it; it is only not ready.
        (release.health.startup, release.health.liveness) = (None, None);
    });
    let (mut world, run) = assigned_one(&runtime, &ill).await;
    let report =
        run.until_report(&ill.id, "its probes say why", |report| report.message.contains("503")).await;
    assert!(!report.ready && lives(report.pid.unwrap()), "{report:#?}");
    clear(run, &mut world).await;
}

async fn that_is_no_longer_assigned_while_it_starts_leaves_nothing(runtime: Runtime) {
    let late = runtime.program(&[("MODE", "late:60000")]);
    let (mut world, run) = assigned_one(&runtime, &late).await;
    let report = run.until_report(&late.id, "it has a process", |report| report.pid.is_some()).await;
    assign(&run, &mut world, &[]).await;
    run.until_gone(&late.id).await;
    assert!(!lives(report.pid.unwrap()) && !world.folder(&late).exists());
    run.drop().await;
}

async fn is_kept_when_an_older_assignment_comes_late(runtime: Runtime) {
    let mut world = runtime.world();
    let run = world.start().await;
    let (empty, web) = (world.assignment(&[]), runtime.program(&[]));
    assign(&run, &mut world, std::slice::from_ref(&web)).await;
    let before = run.until_ready(&web.id).await;
    assert!(run.node.assign(empty).await.is_err(), "it is refused");
    run.node.look().await;
    let after = run.until_ready(&web.id).await;
    assert_eq!(after.pid, before.pid);
    clear(run, &mut world).await;
}

async fn ends_with_the_node_where_that_is_asked_for_and_comes_back_uncounted(runtime: Runtime) {
    let (mut world, run, web, before) = up(&runtime).await;
    run.node.shutdown(Workloads::Stop).await;
    assert!(!lives(before.pid.unwrap()));
    let run = world.start().await;
    let after = run.until_report(&web.id, "it is back", |r| r.ready && r.pid != before.pid).await;
    assert_eq!(after.attempts.total, 0, "an orderly end is no crash");
    clear(run, &mut world).await;
}

async fn has_its_rendered_files_put_back(runtime: Runtime) {
    let web = with(runtime.program(&[]), |release| {
        let file = Template("instance ${SETPOINT_INSTANCE}".into());
        release.files.insert("conf/app.yaml".parse().unwrap(), file);
    });
    let (mut world, run) = assigned_one(&runtime, &web).await;
    let before = run.until_ready(&web.id).await;
    let file: &Path = &world.folder(&web).join("work/conf/app.yaml");
    assert_eq!(read(file), format!("instance {ID}"));
    std::fs::write(file, "changed").unwrap();
    eventually("it is as it was", || read(file) == format!("instance {ID}")).await;
    assert_eq!(run.until_ready(&web.id).await.pid, before.pid, "nothing was restarted for it");
    clear(run, &mut world).await;
}

macro_rules! on_each_runtime {
    ($($check:ident)*) => { on_each_runtime!(@ process $($check)*); on_each_runtime!(@ container $($check)*); };
    (@ $runtime:ident $($check:ident)*) => {
        mod $runtime {
            $(
                #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
                async fn $check() {
                    if let Some(runtime) = super::Runtime::$runtime() {
                        super::$check(runtime).await;
                    }
                }
            )*
        }
    };
}

on_each_runtime! {
    comes_up_and_goes_when_it_is_no_longer_assigned
    is_back_when_it_was_killed_and_left_the_routes_first
    outlives_the_node_and_is_adopted_as_it_is
    that_died_without_the_node_is_restarted_from_the_ledger_and_counted
    that_keeps_dying_fails_with_its_status_and_its_last_lines
    that_had_failed_is_counted_on_when_the_node_comes_back_without_it
    that_is_deaf_is_killed_after_its_grace
    that_is_ill_lives_and_is_not_ready
    that_is_no_longer_assigned_while_it_starts_leaves_nothing
    is_kept_when_an_older_assignment_comes_late
    ends_with_the_node_where_that_is_asked_for_and_comes_back_uncounted
    has_its_rendered_files_put_back
}
