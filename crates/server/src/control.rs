//! The handle on a running server: what the binary wires to node and edge, and what the HTTP interface calls.

use std::{
    collections::{BTreeMap, BTreeSet},
    net::SocketAddr,
    path::PathBuf,
    sync::{Arc, Mutex, MutexGuard, PoisonError, RwLock, Weak},
    time::Duration,
};

use content::Blobs;
use decide::{access::Rules, monitor::Tally, policy::Policy, world::World};
use model::{
    Digest, Holder, NodeId, RouteRevision, ServiceKey, Timestamp,
    access::Issued,
    assignment::Assignment,
    event::Event,
    observation::Observation,
    route::{EdgeReport, RouteTable},
};
use store::{Store, StoreError};
use tokio::sync::{Notify, watch};

use crate::{
    Brain, Clock, PassStats, brain,
    issues::{Issue, Issues},
    janitor, reconcile,
    summary::Untold,
};

/// Reasons that change without a decision are written down at most this often per service.
const JOURNAL_PAUSE: model::Millis = model::Millis::secs(1);

#[derive(Debug, Clone)]
pub struct Config {
    /// The data folder.
    pub data: PathBuf,
    /// The nodes that run instances.
    pub nodes: Vec<NodeId>,
    /// A fresh random id.
    pub holder: Holder,
    /// The periodic full pass.
    pub pass_every: Duration,
    /// What containers may have of the machine.
    pub policy: Policy,
    /// What tokens may beyond their role.
    pub rules: Rules,
}

#[derive(Debug, thiserror::Error)]
pub enum StartError {
    #[error(transparent)]
    Store(#[from] StoreError),
    #[error("cannot open the artifacts in {}: {source}", .path.display())]
    Blobs { path: PathBuf, source: content::blobs::Error },
}

/// What the server hands out, whole values each.
#[derive(Debug, Clone)]
pub struct Feeds {
    pub assignments: watch::Receiver<BTreeMap<NodeId, Arc<Assignment>>>,
    pub routes: watch::Receiver<Arc<RouteTable>>,
    /// Counts the full passes that somebody asked for: nodes look at everything too.
    pub looks: watch::Receiver<u64>,
}

/// A handle on the running server; clones share it.
#[derive(Clone)]
pub struct Control(pub(crate) Arc<Shared>);

impl std::fmt::Debug for Control {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Control").field("data", &self.0.data).finish_non_exhaustive()
    }
}

pub(crate) struct Shared {
    pub data: PathBuf,
    pub store: Store,
    pub blobs: Blobs,
    pub clock: Clock,
    pub wake: Notify,
    pub stopping: Notify,
    pub assignments: watch::Sender<BTreeMap<NodeId, Arc<Assignment>>>,
    pub routes: watch::Sender<Arc<RouteTable>>,
    pub looks: watch::Sender<u64>,
    /// Where people reach the edge, for the URLs of services.
    pub edge_address: watch::Sender<Option<SocketAddr>>,
    /// Uploads read, collection writes: nothing is collected that is just being taken in.
    pub intake: tokio::sync::RwLock<()>,
    /// Held by a request that may take a domain, a port or an entry of a webroot, from its check to its record.
    pub taking: tokio::sync::Mutex<()>,
    /// Contents of backups that are being written.
    pins: Mutex<Vec<Weak<BTreeSet<Digest>>>>,
    pub policy: Policy,
    pub rules: Rules,
    /// Tokens that were given out; as stored.
    pub issued: RwLock<Vec<Issued>>,
    pub resolver: std::sync::OnceLock<Box<dyn crate::images::Resolve>>,
    pub collector: std::sync::OnceLock<Arc<dyn crate::Collect>>,
    pub leftovers: tokio::sync::Mutex<crate::collect::Leftovers>,
    pub issues: tokio::sync::Mutex<Issues>,
    /// The last round of passes that was asked for and has gone through.
    pub rounds: watch::Sender<Round>,
    brain: Mutex<Brain>,
    pending: Mutex<Pending>,
    stats: Mutex<PassStats>,
    untold: Mutex<Untold>,
}

/// A round of passes, until nothing more followed.
#[derive(Debug, Clone, Default)]
pub struct Round {
    /// Counts the requests for one.
    asked: u64,
    pub tally: Tally,
    /// Why it was not carried out.
    pub trouble: Option<String>,
}

/// What the next pass must know beside the snapshot.
#[derive(Debug, Default)]
pub(crate) struct Pending {
    pub keys: BTreeSet<ServiceKey>,
    pub all: bool,
    /// What was handed out as held.
    pub held: BTreeSet<ServiceKey>,
    full: bool,
    /// Requests for a full pass so far.
    asked: u64,
    confirmed: bool,
    routes_published: bool,
    journalled: BTreeMap<ServiceKey, Timestamp>,
    stopped: bool,
}

/// What somebody asked for since the last round.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Asked {
    pub full: bool,
    pub confirmed: bool,
    /// Requests for a full pass so far.
    pub count: u64,
}

impl Control {
    /// Reads everything and begins to plan. Nothing is decided about an instance before its node has reported.
    pub async fn start(store: Store, config: Config, clock: Clock) -> Result<Self, StartError> {
        let path = config.data.join("blobs");
        let blobs = Blobs::open(&path).map_err(|source| StartError::Blobs { path, source })?;
        let term = store.acquire_term(&config.holder, model::Term(0)).await?;
        let counters = store.counters().await?;
        let mut brain = Brain::new(term, config.holder, counters, config.nodes, clock());
        brain.set_drains(store.drains().await?.into_iter().collect());
        reconcile::take_all(&mut brain, store.load_all().await?);
        let issued = store.tokens().await?;
        let shared = Arc::new(Shared {
            data: config.data,
            store,
            blobs,
            clock,
            wake: Notify::new(),
            stopping: Notify::new(),
            assignments: watch::Sender::new(BTreeMap::new()),
            routes: watch::Sender::new(Arc::default()),
            looks: watch::Sender::default(),
            edge_address: watch::Sender::new(None),
            intake: tokio::sync::RwLock::new(()),
            taking: Default::default(),
            pins: Mutex::default(),
            policy: config.policy,
            rules: config.rules,
            issued: RwLock::new(issued),
            resolver: Default::default(),
            collector: Default::default(),
            leftovers: Default::default(),
            issues: Default::default(),
            rounds: watch::Sender::new(Round::default()),
            brain: Mutex::new(brain),
            pending: Mutex::new(Pending::default()),
            stats: Mutex::new(PassStats::default()),
            untold: Mutex::new(Untold::default()),
        });
        reconcile::publish(&shared, &BTreeSet::new());
        {
            let held = shared.brain().held();
            let mut pending = shared.pending();
            pending.held = held;
            pending.routes_published = true;
        }
        tokio::spawn(reconcile::run(Arc::clone(&shared), config.pass_every));
        tokio::spawn(janitor::run(Arc::clone(&shared)));
        shared.wake.notify_one();
        Ok(Self(shared))
    }

    pub fn feeds(&self) -> Feeds {
        let Shared { assignments, routes, looks, .. } = &*self.0;
        Feeds { assignments: assignments.subscribe(), routes: routes.subscribe(), looks: looks.subscribe() }
    }

    pub fn edge_is_at(&self, address: SocketAddr) {
        self.0.edge_address.send_replace(Some(address));
    }

    pub fn edge_address(&self) -> Option<SocketAddr> {
        *self.0.edge_address.borrow()
    }

    pub fn store(&self) -> &Store {
        &self.0.store
    }

    pub fn blobs(&self) -> &Blobs {
        &self.0.blobs
    }

    pub fn now(&self) -> Timestamp {
        (self.0.clock)()
    }

    /// A node's whole observation.
    pub fn observe(&self, observation: Arc<Observation>) {
        self.take_in(|brain| brain.observe(observation));
    }

    /// Whether a node took its assignment; `Some`: why not.
    pub fn assigned(&self, node: &NodeId, refused: Option<String>) {
        self.take_in(|brain| brain.set_refusal(node, refused));
    }

    /// An edge's whole report.
    pub fn hear(&self, report: EdgeReport) {
        self.take_in(|brain| brain.hear(report));
    }

    /// A sign of life that says nothing new costs no pass.
    fn take_in(&self, news: impl FnOnce(&mut Brain)) {
        let now = self.now();
        let is_news = {
            let mut brain = self.0.brain();
            brain.snapshot.now = brain.snapshot.now.max(now);
            news(&mut brain);
            brain.has_news()
        };
        if is_news {
            self.0.wake.notify_one();
        }
    }

    /// The route table once it is newer than `after`; `None` when it did not become so within `wait`.
    pub async fn routes_after(
        &self,
        after: Option<RouteRevision>,
        wait: Duration,
    ) -> Option<Arc<RouteTable>> {
        let mut routes = self.0.routes.subscribe();
        let is_newer = |table: &Arc<RouteTable>| after.is_none_or(|after| table.revision > after);
        let newer = tokio::time::timeout(wait, routes.wait_for(is_newer)).await;
        newer.ok()?.ok().map(|table| Arc::clone(&table))
    }

    /// The report of an edge in another process, on our own clock: its time is its own.
    pub fn hear_from_afar(&self, report: EdgeReport) {
        self.hear(EdgeReport { at: self.now(), ..report });
    }

    /// What happened at a node, for the record.
    pub async fn node_events(&self, events: Vec<Event>) {
        let now = self.now();
        let mut tally = Tally::default();
        events.iter().for_each(|event| tally.note(event.kind));
        if let Err(error) = self.0.store.append_events(events, now).await {
            tracing::error!(%error, "events of the node were not recorded");
        }
        if self.0.untold().add(tally) {
            self.0.wake.notify_one();
        }
    }

    /// A full pass as soon as possible. With `confirm`, one that removes much is carried out.
    pub fn trigger(&self, confirm: bool) {
        self.ask(confirm);
    }

    fn ask(&self, confirm: bool) -> u64 {
        let asked = {
            let mut pending = self.0.pending();
            pending.full = true;
            pending.confirmed |= confirm;
            pending.asked += 1;
            pending.asked
        };
        self.0.looks.send_modify(|count| *count += 1);
        self.0.wake.notify_one();
        asked
    }

    /// The same, and what it came to; `None` when it did not go through within `wait`.
    pub async fn pass_now(&self, confirm: bool, wait: Duration) -> Option<Round> {
        let mut rounds = self.0.rounds.subscribe();
        let asked = self.ask(confirm);
        let through = tokio::time::timeout(wait, rounds.wait_for(|round| round.asked >= asked)).await;
        through.ok()?.ok().map(|round| round.clone())
    }

    /// The last issue of each service. While the store cannot be read, those known before.
    pub async fn last_issues(&self) -> BTreeMap<ServiceKey, Issue> {
        let mut issues = self.0.issues.lock().await;
        if let Err(error) = issues.catch_up(&self.0.store).await {
            tracing::warn!(%error, "the newest issues are not known");
        }
        issues.last().clone()
    }

    /// Looks at the snapshot. Short and without waiting: the loop needs it too.
    pub fn with_brain<T>(&self, look: impl FnOnce(&Brain) -> T) -> T {
        look(&self.0.brain())
    }

    pub fn pass_stats(&self) -> PassStats {
        self.0.stats.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Whether this server decides.
    pub fn is_leader(&self) -> bool {
        !self.0.pending().stopped
    }

    /// Ends the loop; what was committed stays.
    pub fn stop(&self) {
        self.0.stop();
    }
}

impl Shared {
    pub fn brain(&self) -> MutexGuard<'_, Brain> {
        self.brain.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub fn pending(&self) -> MutexGuard<'_, Pending> {
        self.pending.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Keeps contents from being collected for as long as somebody holds them.
    pub fn pin(&self, contents: &Arc<BTreeSet<Digest>>) {
        self.pins.lock().unwrap_or_else(PoisonError::into_inner).push(Arc::downgrade(contents));
    }

    pub fn pinned(&self) -> BTreeSet<Digest> {
        let mut pins = self.pins.lock().unwrap_or_else(PoisonError::into_inner);
        pins.retain(|pin| pin.strong_count() > 0);
        pins.iter().filter_map(Weak::upgrade).flat_map(|contents| (*contents).clone()).collect()
    }

    pub fn stop(&self) {
        self.pending().stopped = true;
        self.stopping.notify_one();
    }

    /// Reads one service again and takes it in, so that what was just written is what is shown.
    pub async fn reload(&self, key: &ServiceKey) -> Result<(), StoreError> {
        let loaded = self.store.look(key).await?;
        self.brain().take_row(key, loaded);
        Ok(())
    }

    /// The world of a service as it is stored, also of one that is not declared.
    pub async fn fresh_world(&self, key: &ServiceKey) -> Result<(World, Option<store::Floor>), StoreError> {
        self.reload(key).await?;
        if let Some(world) = self.brain().world(key) {
            return Ok(((**world).clone(), None));
        }
        let floor = self.store.floor(key).await?;
        Ok((brain::absent(key, floor), Some(floor)))
    }

    pub fn take_changed(&self) -> (BTreeSet<ServiceKey>, bool) {
        let mut pending = self.pending();
        (std::mem::take(&mut pending.keys), std::mem::take(&mut pending.all))
    }

    pub fn take_asked(&self) -> Asked {
        let mut pending = self.pending();
        Asked {
            full: std::mem::take(&mut pending.full),
            confirmed: std::mem::take(&mut pending.confirmed),
            count: pending.asked,
        }
    }

    pub fn untold(&self) -> MutexGuard<'_, Untold> {
        self.untold.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A round is over. Whoever asked for it gets what it came to.
    pub fn end_round(&self, asked: u64) {
        let tally = self.untold().end_pass();
        let trouble = {
            let mut stats = self.stats.lock().unwrap_or_else(PoisonError::into_inner);
            stats.happened += tally;
            stats.trouble.clone()
        };
        self.rounds.send_replace(Round { asked, tally, trouble });
    }

    pub fn routes_published(&self) -> bool {
        self.pending().routes_published
    }

    pub fn may_journal(&self, key: &ServiceKey, now: Timestamp) -> bool {
        let mut pending = self.pending();
        match pending.journalled.get(key) {
            Some(last) if now.since(*last) < JOURNAL_PAUSE => false,
            Some(_) | None => {
                pending.journalled.insert(key.clone(), now);
                true
            }
        }
    }

    pub fn is_new_trouble(&self, message: &str) -> bool {
        let stats = self.stats.lock().unwrap_or_else(PoisonError::into_inner);
        stats.trouble.as_deref() != Some(message)
    }

    pub fn note_pass(&self, took: Duration, outcome: reconcile::Outcome) {
        let mut stats = self.stats.lock().unwrap_or_else(PoisonError::into_inner);
        stats.note((self.clock)(), took, outcome);
    }
}
