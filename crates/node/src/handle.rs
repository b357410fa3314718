//! The node as others hold it: a handle to the agent's task.

use std::{sync::Arc, time::Duration};

use model::{
    InstanceId,
    assignment::Assignment,
    collect::{Collected, Held, Inventory, Sizes},
    event::Event,
    image::{ImagePin, ImageRef},
    observation::Observation,
    session::{Exec, Input, Output, Usage},
};
use tokio::sync::{Mutex, mpsc, oneshot, watch};

use crate::{
    agent::{Agent, Command, Context, EndpointSink, LogSource, Workloads},
    clock::Clock,
    config::Config,
    container::{
        collect, notes,
        output::{self, Place},
        registry::{self, Unresolved},
    },
    content_source::ContentSource,
    ledger::{self, Acceptor, AssignError},
    logs::{self, Follow},
    session,
};

/// Commands waiting for the agent.
const COMMANDS: usize = 64;
/// Between looks for new output, for those who follow it.
const FOLLOW: Duration = Duration::from_millis(100);
/// Chunks of output waiting for a slow follower.
const CHUNKS: usize = 16;

#[derive(Debug, thiserror::Error)]
pub enum StartError {
    #[error("the node's ledger cannot be read, so nothing is touched: {0}")]
    Ledger(#[from] ledger::Error),
    #[error("the stored contents: {0}")]
    Blobs(#[from] content::blobs::Error),
    #[error("the kernel does not tell its boot id: {0}; is /proc mounted?")]
    Kernel(std::io::Error),
    #[error("the kernel gives no descriptor to be woken by: {0}; raise the limit of open files (ulimit -n)")]
    Descriptor(std::io::Error),
}

/// A running node. When the last clone goes, the agent ends and its workloads live on.
#[derive(Clone)]
pub struct Node {
    commands: mpsc::Sender<Command>,
    acceptor: Arc<Mutex<Option<Acceptor>>>,
    observations: watch::Receiver<Arc<Observation>>,
    found_living: bool,
    cx: Arc<Context>,
}

impl std::fmt::Debug for Node {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Node").field("node", &self.cx.config.node).finish_non_exhaustive()
    }
}

impl Node {
    /// Reads the ledger and adopts what lives; then observes, and holds what was accepted last.
    pub async fn start(
        config: Config,
        content: Arc<dyn ContentSource>,
        clock: Arc<dyn Clock>,
    ) -> Result<Self, StartError> {
        let (commands, receiver) = mpsc::channel(COMMANDS);
        let (agent, acceptor, cx) = Agent::open(config, content, clock, receiver)?;
        let observations = agent.publisher().receiver();
        let found_living = agent.holds_living();
        tokio::spawn(agent.run());
        Ok(Self { commands, acceptor: Arc::new(Mutex::new(Some(acceptor))), observations, found_living, cx })
    }

    /// Whether workloads had lived on when it started, or may have.
    pub fn found_living(&self) -> bool {
        self.found_living
    }

    /// Takes an assignment, or refuses it without effects. On return its stamp is durable and its instances are in
    /// the node's hands; what becomes of them is observed.
    pub async fn assign(&self, assignment: Arc<Assignment>) -> Result<decide::ledger::Accepted, AssignError> {
        let mut place = self.acceptor.lock().await;
        let mut acceptor = place.take().ok_or(AssignError::Ended)?;
        let (cx, offered) = (self.cx.clone(), assignment.clone());
        let accepted = tokio::task::spawn_blocking(move || {
            let decision = acceptor.accept(&cx.config.cluster, &cx.config.node, &offered);
            (acceptor, decision)
        });
        let (acceptor, decision) = accepted.await.map_err(|_| AssignError::Ended)?;
        *place = Some(acceptor);
        let decision = decision?;
        if decision.act {
            // Still under the lock: assignments reach the agent in the order in which they were accepted.
            self.ask(|done| Command::Apply(assignment, done)).await.ok_or(AssignError::Ended)?;
        }
        Ok(decision.accepted)
    }

    /// What the node sees: always the newest, whole.
    pub fn observations(&self) -> watch::Receiver<Arc<Observation>> {
        self.observations.clone()
    }

    /// Calls `sink` the moment an address stops or begins to take requests.
    pub fn endpoint_events(&self, sink: EndpointSink) {
        self.cx.outside.add_sink(sink);
    }

    /// What happened, for people. One reader at a time; what happened before the first is kept for it.
    pub fn events(&self) -> mpsc::Receiver<Event> {
        self.cx.outside.read_events()
    }

    /// The last lines of an instance's output, raw; also of one that failed and is gone.
    pub async fn logs(&self, instance: &InstanceId, lines: usize) -> Result<Vec<u8>, logs::Error> {
        let source = self.log_source(instance).await?;
        if let Some(container) = &source.container {
            return Ok(output::last(
                &self.cx.engine,
                container,
                lines,
                usize::try_from(logs::MAX_TAIL).unwrap_or(usize::MAX),
            )
            .await?);
        }
        let read = tokio::task::spawn_blocking(move || logs::tail(&source.files, lines, u64::MAX));
        read.await.map_err(|_| logs::Error::Ended)?
    }

    /// The last lines, and then what is written from now on, in chunks; ends when the instance is gone.
    pub async fn follow_logs(
        &self,
        instance: &InstanceId,
        lines: usize,
    ) -> Result<mpsc::Receiver<Vec<u8>>, logs::Error> {
        let source = self.log_source(instance).await?;
        if source.container.is_some() || (source.files.is_empty() && source.open) {
            return Ok(self.follow_container(instance.clone(), lines));
        }
        let Some(path) = source.files.last().cloned() else {
            return Err(logs::Error::Unknown(instance.clone()));
        };
        // One end for both: what is before it is told now, what is after it later.
        let (mut follow, end) = Follow::from_end(path, source.discarded);
        let (tell, chunks) = mpsc::channel(CHUNKS);
        let read = tokio::task::spawn_blocking(move || logs::tail(&source.files, lines, end));
        let _ = tell.send(read.await.map_err(|_| logs::Error::Ended)??).await;
        let (node, id) = (self.clone(), instance.clone());
        tokio::spawn(async move {
            while let Ok(source) = node.log_source(&id).await {
                if node.pass_on(&mut follow, &source, &tell).await.is_none() || !source.open {
                    return;
                }
                tokio::time::sleep(FOLLOW).await;
            }
        });
        Ok(chunks)
    }

    /// What the node holds beside its instances; nothing where there is no engine.
    pub async fn inventory(&self, sizes: Sizes) -> Result<Inventory, String> {
        let cx = &self.cx;
        let inventory = collect::inventory(&cx.engine, &cx.config.cluster, &cx.config.data, sizes).await;
        inventory.map_err(|error| error.to_string())
    }

    /// Removes what was decided to be surplus.
    pub async fn collect(&self, surplus: &[Held]) -> Vec<Collected> {
        // A task of its own: a removal that was begun is brought to its end, whoever still waits for it.
        let (cx, surplus) = (self.cx.clone(), surplus.to_vec());
        let removing = tokio::spawn(async move {
            let mut collected = Vec::new();
            for held in &surplus {
                collected.push(collect::remove(&cx.engine, &cx.config.data, held).await);
            }
            collected
        });
        removing.await.unwrap_or_default()
    }

    /// Whether anything of this node is, or was, held by an engine.
    pub fn uses_engine(&self) -> bool {
        notes::has_held(&self.cx.config.data)
            || self.observations.borrow().instances.values().any(|report| report.container.is_some())
    }

    /// Bytes used and in all where the engine keeps its things.
    pub async fn engine_disk(&self) -> Option<(u64, u64)> {
        collect::disk(&self.cx.engine).await
    }

    /// Over the ends of its container, and over that container itself: for as long as the instance is there.
    fn follow_container(&self, id: InstanceId, lines: usize) -> mpsc::Receiver<Vec<u8>> {
        let (tell, chunks) = mpsc::channel(CHUNKS);
        let node = self.clone();
        tokio::spawn(async move {
            let (mut container, mut place, mut lines) = (None, Place::default(), lines);
            while let Ok(source) = node.log_source(&id).await
                && source.open
            {
                if source.container != container {
                    (container, place) = (source.container, Place::default());
                }
                if let Some(container) = &container {
                    let followed = tokio::select! {
                        followed = output::follow(&node.cx.engine, container, lines, &mut place, &tell) => followed,
                        () = tell.closed() => return,
                    };
                    if let Err(error) = followed {
                        tracing::debug!(instance = %id, %error, "the output of a container cannot be followed just now");
                    }
                }
                // Of what comes later, all.
                lines = output::ALL;
                tokio::select! {
                    () = tokio::time::sleep(output::AGAIN) => {}
                    () = tell.closed() => return,
                }
            }
        });
        chunks
    }

    /// What an image's name stands for now, as the engine and the registry behind it say.
    pub async fn resolve_image(&self, image: &ImageRef) -> Result<ImagePin, Unresolved> {
        registry::resolve(&self.cx.engine, image).await
    }

    /// Runs a command inside an instance; gives its exit status. When `input` is closed or `output` is no longer read,
    /// the command is killed.
    pub async fn exec(
        &self,
        instance: &InstanceId,
        exec: Exec,
        input: mpsc::Receiver<Input>,
        output: mpsc::Sender<Output>,
    ) -> Result<i32, session::Error> {
        let target = self.ask(|answer| Command::Inside(instance.clone(), answer)).await;
        let target = target.ok_or(session::Error::Ended)??;
        // A task of its own: a caller that is dropped closes both channels, and the command is killed all the same.
        let running = tokio::spawn(session::run(target, exec, input, output));
        running.await.map_err(|_| session::Error::Ended)?
    }

    /// What these instances use, measured over half a second. What does not run is left out.
    pub async fn usage(&self, instances: Vec<InstanceId>) -> Vec<Usage> {
        let running = self.ask(|answer| Command::Running(instances, answer)).await.unwrap_or_default();
        if running.is_empty() {
            return Vec::new();
        }
        session::measure(&self.cx.engine, running).await
    }

    async fn pass_on(
        &self,
        follow: &mut Follow,
        source: &LogSource,
        tell: &mpsc::Sender<Vec<u8>>,
    ) -> Option<()> {
        loop {
            if tell.is_closed() {
                return None;
            }
            let chunk = follow.read(source.discarded).ok()?;
            if chunk.is_empty() {
                return Some(());
            }
            tell.send(chunk).await.ok()?;
        }
    }

    async fn log_source(&self, instance: &InstanceId) -> Result<LogSource, logs::Error> {
        let found = self.ask(|answer| Command::Log(instance.clone(), answer)).await;
        found.ok_or(logs::Error::Ended)?.ok_or_else(|| logs::Error::Unknown(instance.clone()))
    }

    /// Looks at everything now. What is found is observed.
    pub async fn look(&self) {
        let _ = self.ask(Command::Look).await;
    }

    /// Ends the node. With `Stop`, returns when every workload has ended.
    pub async fn shutdown(&self, workloads: Workloads) {
        // No assignment is taken any more, and one under way is waited for.
        self.acceptor.lock().await.take();
        let _ = self.ask(|done| Command::Shutdown(workloads, done)).await;
    }

    async fn ask<T>(&self, command: impl FnOnce(oneshot::Sender<T>) -> Command) -> Option<T> {
        let (answer, answered) = oneshot::channel();
        self.commands.send(command(answer)).await.ok()?;
        answered.await.ok()
    }
}
