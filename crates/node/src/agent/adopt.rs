//! The start: what the ledger names is looked for, and what lives is taken over as it is.

use std::sync::Arc;

use decide::{health::Health, node::Install};
use model::{
    BootId, InstanceId, Knowledge, Timestamp,
    assignment::Assigned,
    event::Kind,
    observation::{Exit, ExitStatus, Stranger},
};
use sys::PidFd;

use super::{Agent, Command, Context, Event, Outside};
use crate::{
    StartError,
    clock::Clock,
    config::Config,
    container::Engine,
    content_source::ContentSource,
    instance::{Instance, Run},
    ledger::{self, Acceptor, Claim, Folder, Identity, State, files},
    life::Life,
    logs::Kept,
    process::{
        cgroup,
        live::Origin,
        orphans::{self, Orphan},
        ports::Ports,
        render,
        start::Surroundings,
    },
    publish::Publisher,
    timers::Timers,
    watching::Watching,
};

impl Agent {
    /// Reads the ledger and adopts what lives. Blocks; must run within the async runtime, which watches the pidfds.
    pub fn open(
        config: Config,
        content: Arc<dyn ContentSource>,
        clock: Arc<dyn Clock>,
        commands: tokio::sync::mpsc::Receiver<Command>,
    ) -> Result<(Self, Acceptor, Arc<Context>), StartError> {
        let instances = config.data.join("instances");
        ledger::make_passable(&instances)?;
        let acceptor = Acceptor::open(&config.data)?;
        let boot: BootId = sys::clock::boot_id()
            .map_err(StartError::Kernel)?
            .parse()
            .map_err(|_| StartError::Kernel(std::io::ErrorKind::InvalidData.into()))?;
        let publisher = Publisher::open(&config.data, config.node.clone(), boot.clone(), clock.now())?;
        let (tell, events) = tokio::sync::mpsc::channel::<Event>(super::QUEUE);
        let cx = Arc::new(Context {
            surroundings: Surroundings {
                cluster: config.cluster.clone(),
                boot,
                host: config.host.clone(),
                setpoint: config.setpoint_exe.clone(),
                inherited: render::inherited(),
            },
            outside: Outside::default(),
            kept: Kept::new(&config.data, config.logs),
            files: tokio::sync::Semaphore::new(super::FILE_OPERATIONS),
            blobs: content::Blobs::open(&config.blobs)?,
            engine: Arc::new(Engine::new(&config.engine)),
            doubt: Arc::default(),
            events: tell.clone(),
            content,
            clock,
            config,
        });
        let mut agent = Self {
            ports: Ports::new(&cx.config.host, cx.config.port_range.clone()),
            accepted: acceptor.held().map(|held| held.stamp.clone()),
            watching: Watching::start(tell).map_err(StartError::Descriptor)?,
            places: Default::default(),
            instances: Default::default(),
            unclaimed: Default::default(),
            containers: Default::default(),
            strangers: super::strangers::Strangers::default(),
            engine: super::engine::View::default(),
            strange: Vec::new(),
            orphans: Default::default(),
            timers: Timers::default(),
            publisher,
            log_cuts: Default::default(),
            looking_at_files: false,
            rendered: true,
            file_looks: Arc::default(),
            looking_at_logs: false,
            writes_fast: false,
            unsynced: Default::default(),
            syncing: Arc::default(),
            events,
            commands,
            ending: None,
            cx: cx.clone(),
        };
        agent.read_ledger(&boot_before(&cx))?;
        Ok((agent, acceptor, cx))
    }

    fn read_ledger(&mut self, boot_before: &BootBefore) -> Result<(), StartError> {
        if let Some(stamp) = self.accepted.clone() {
            self.publisher.accepted(stamp);
        }
        let ledger::Listing { instances: folders, strange } = ledger::list(&self.cx.instances())?;
        self.strange = strange
            .into_iter()
            .map(|path| Stranger {
                what: path.display().to_string(),
                message: "it lies among the instances' folders and has no instance's name".into(),
                service: None,
            })
            .collect();
        for (id, folder) in folders {
            self.read_folder(id, folder, boot_before);
        }
        self.find_orphans();
        self.remember_told_strangers();
        self.tell_strangers();
        self.remember_lost_volumes();
        let ids: Vec<_> = self.instances.keys().cloned().collect();
        for id in &ids {
            self.watch_site(id);
            self.compare(id, &[], true);
            self.touch(id);
        }
        Ok(())
    }

    fn read_folder(&mut self, id: InstanceId, folder: Folder, boot_before: &BootBefore) {
        match folder.claim() {
            Claim::Assigned(assigned) if assigned.id == id => {
                self.adopt(Arc::new(*assigned), folder, true, boot_before);
            }
            Claim::Withdrawn(assigned) if assigned.id == id => {
                self.adopt(Arc::new(*assigned), folder, false, boot_before);
            }
            Claim::Assigned(_) | Claim::Withdrawn(_) => {
                self.report_unclaimed(id, "its ledger names another instance".into());
            }
            Claim::Unclaimed => {
                self.report_unclaimed(id, "no accepted assignment covers its folder".into());
            }
            Claim::Unreadable(error) => self.report_unclaimed(id, error.to_string()),
        }
    }

    fn report_unclaimed(&mut self, id: InstanceId, message: String) {
        let stranger =
            Stranger { what: format!("instance {id}"), message, service: Some(id.service.clone()) };
        self.unclaimed.insert(id, stranger);
    }

    /// Processes of ours that the ledger does not name (any more). An instance whose ledger cannot be read stays
    /// unknown: its process is among these, and that is why nothing is started beside it.
    fn find_orphans(&mut self) {
        let known = self.instances.values().filter_map(|i| Some(i.live()?.identity.pid)).collect();
        match orphans::find(&self.cx.instances(), &known) {
            Ok(found) => {
                self.orphans = found;
                self.orphans
                    .retain(|id, _| !self.instances.contains_key(id) && !self.unclaimed.contains_key(id));
            }
            Err(error) => tracing::warn!(%error, "processes without a ledger are not looked for"),
        }
    }

    /// Its ledger was lost and the assignment counts as one. It runs on: no second one is started beside it.
    pub(super) fn adopt_orphan(&mut self, assigned: Arc<Assigned>, folder: Folder, orphan: Orphan) {
        let state = State {
            installed: true,
            port: orphan.port,
            runs: 1,
            started_at: Some(self.cx.now()),
            ..State::default()
        };
        let boot = self.cx.surroundings.boot.clone();
        let sys::Identity { pid, start } = orphan.identity;
        let identity = Identity { boot, pid, start, run: 1 };
        let written = folder
            .create(&assigned)
            .and_then(|()| folder.write_state(&state))
            .and_then(|()| folder.write_identity(&identity));
        if let Err(error) = written {
            tracing::warn!(instance = %assigned.id, %error, "its ledger is held in memory alone");
        }
        self.adopt(assigned, folder, true, &BootBefore::Same);
    }

    /// A folder whose claim was lost and whose instance an assignment names.
    pub(super) fn adopt_again(&mut self, assigned: Arc<Assigned>) {
        let folder = Folder::new(&self.cx.instances(), &assigned.id);
        if let Err(error) = folder.write_assigned(&assigned) {
            tracing::warn!(instance = %assigned.id, %error, "the assignment is held in memory alone");
        }
        let id = assigned.id.clone();
        self.adopt(assigned, folder, true, &BootBefore::Same);
        self.watch_site(&id);
        self.compare(&id, &[], true);
    }

    fn adopt(&mut self, assigned: Arc<Assigned>, folder: Folder, wanted: bool, boot_before: &BootBefore) {
        let now = self.cx.now();
        let mut instance = Instance::new(assigned, folder, &self.cx.config.sites);
        instance.wanted = wanted;
        let state = instance.folder.state(now);
        let identity = instance.folder.identity(now);
        take_over(&self.cx, &mut instance, state, identity, boot_before, now);
        if let Some(port) = instance.state.port {
            self.ports.note(port, &instance.id);
        }
        self.note_container(&instance);
        self.instances.insert(instance.id.clone(), instance);
        self.listen_to_engine();
    }

    /// What could not be read is read again: once its file is readable (or moved away), it is known.
    pub(super) fn read_unknown_again(&mut self) {
        let unknown: Vec<_> = self
            .instances
            .values()
            .filter(|instance| matches!(instance.run, Run::Unknown { .. }) && instance.busy.is_none())
            // A container's engine is asked instead.
            .filter(|instance| instance.held.is_none())
            .map(|instance| instance.id.clone())
            .collect();
        let now = self.cx.now();
        for id in unknown {
            let Some(instance) = self.instances.get_mut(&id) else { continue };
            let state = instance.folder.state(now);
            let identity = instance.folder.identity(now);
            if !state.is_unknown() && !identity.is_unknown() {
                take_over(&self.cx, instance, state, identity, &BootBefore::Same, now);
            }
        }
        let unclaimed: Vec<_> = self.unclaimed.keys().cloned().collect();
        for id in unclaimed {
            let folder = Folder::new(&self.cx.instances(), &id);
            if !folder.path().is_dir() {
                self.unclaimed.remove(&id);
            } else if matches!(folder.claim(), Claim::Assigned(_) | Claim::Withdrawn(_)) {
                self.unclaimed.remove(&id);
                self.read_folder(id, folder, &BootBefore::Same);
            }
        }
        self.tell_strangers();
    }
}

/// Whether this is the boot in which the ledger was last written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum BootBefore {
    Same,
    /// Nothing that it names lives, and files that were not synced may be torn.
    Other,
    /// Not known: what is torn stays unknown.
    Unknown,
}

fn boot_before(cx: &Context) -> BootBefore {
    let path = cx.config.data.join("boot.json");
    let before = match files::read::<BootId>(&path) {
        Ok(Some(boot)) if boot == cx.surroundings.boot => return BootBefore::Same,
        Ok(Some(_)) => BootBefore::Other,
        Ok(None) | Err(_) => BootBefore::Unknown,
    };
    if let Err(error) = files::write(&path, &cx.surroundings.boot, files::Durable::Yes) {
        tracing::warn!(%error, "the boot is not written down; after a power loss torn files count as unknown");
    }
    before
}

/// Brings what the files say into the instance.
fn take_over(
    cx: &Arc<Context>,
    instance: &mut Instance,
    state: Knowledge<State>,
    identity: Knowledge<Identity>,
    boot_before: &BootBefore,
    now: Timestamp,
) {
    let other_boot = *boot_before == BootBefore::Other;
    match state {
        Knowledge::Known(state) => instance.state = state,
        Knowledge::Absent => {
            if let Some(identity) = identity.known() {
                instance.state = state_of(identity);
            }
        }
        // Torn by a power loss: the assignment's floor of attempts stands in for it.
        Knowledge::Unknown { .. } if other_boot || instance.site.is_some() => {}
        Knowledge::Unknown { since, cause } => return unknown(instance, since, cause),
    }
    instance.install = if instance.state.installed { Install::Whole } else { Install::Absent };
    if instance.site.is_some() {
        return;
    }
    if instance.held.is_some() {
        return super::containers::take_over(instance, now);
    }
    match identity {
        Knowledge::Absent => {}
        Knowledge::Unknown { .. } if other_boot => ended(cx, instance, None, now),
        Knowledge::Unknown { since, cause } => unknown(instance, since, cause),
        Knowledge::Known(identity) if identity.boot != cx.surroundings.boot => {
            ended(cx, instance, Some(identity.run), now);
        }
        Knowledge::Known(identity) => match find(&identity) {
            Ok(Some(pidfd)) => adopted(cx, instance, pidfd, &identity, now),
            Ok(None) => {
                // Its group may have outlived it, and would hold its port.
                let _ = sys::pidfd::kill_group(&identity.of_kernel());
                ended(cx, instance, Some(identity.run), now);
            }
            Err(error) => unknown(instance, now, error.to_string()),
        },
    }
}

/// Of a process whose state file is gone: what the process itself tells.
fn state_of(identity: &Identity) -> State {
    State { installed: true, runs: identity.run, port: orphans::port_of(identity.pid), ..State::default() }
}

fn unknown(instance: &mut Instance, since: Timestamp, cause: String) {
    instance.install = Install::Whole;
    instance.run = Run::Unknown { since, cause };
}

/// The process, if it is certainly the one meant and has not ended. Opened first, compared after: then no other can
/// have taken its pid in between.
fn find(identity: &Identity) -> std::io::Result<Option<PidFd>> {
    let pidfd = match PidFd::open(identity.pid) {
        Ok(pidfd) => pidfd,
        Err(error) if error.raw_os_error() == Some(libc::ESRCH) => return Ok(None),
        Err(error) => return Err(error),
    };
    let there = sys::proc::stat(identity.pid)?.filter(|stat| stat.start == identity.start);
    match there {
        Some(stat) if !stat.zombie => Ok(Some(pidfd)),
        Some(_) => {
            // Ours from within this very process, and nobody else will.
            let _ = pidfd.reap();
            Ok(None)
        }
        None => Ok(None),
    }
}

fn adopted(cx: &Arc<Context>, instance: &mut Instance, pidfd: PidFd, identity: &Identity, now: Timestamp) {
    let began = instance.state.started_at.unwrap_or(now);
    let health = Health::adopted(instance.health(), began, instance.state.ready, now);
    instance.state.runs = instance.state.runs.max(identity.run);
    // An orderly end was begun and did not come to its end: it lives, so it is simply running.
    instance.state.ended_by_us = false;
    match super::job::watch(cx, instance, pidfd, identity.of_kernel(), identity.run, Origin::Adopted) {
        Ok(live) => {
            let resources = &instance.assigned.content.resources;
            instance.without = cgroup::without(&cx.config.cluster, &instance.id, resources, identity.pid);
            instance.run = Run::Alive { life: Life::Process(live), health };
            let message = format!("{} runs on with pid {}", instance.id, identity.pid);
            cx.say(instance, Kind::InstanceAdopted, message);
        }
        Err(error) => unknown(instance, now, format!("it cannot be watched: {error}")),
    }
}

/// It ended: as it was seen to end, or, if nobody saw it, as nobody knows.
fn ended(cx: &Context, instance: &mut Instance, run: Option<u64>, now: Timestamp) {
    let seen: Option<Exit> =
        instance.state.last_exit.clone().filter(|_| run.is_some() && instance.state.ended_run == run);
    if instance.state.ended_by_us {
        instance.run = Run::NotStarted;
        return;
    }
    let exit = seen.unwrap_or_else(|| {
        cx.say(instance, Kind::InstanceExited, format!("{} ended while nobody watched", instance.id));
        Exit { at: now, status: ExitStatus::Unknown, why: None }
    });
    instance.state.ends(run, exit.clone());
    instance.run = Run::Ended { started: instance.state.started_at, exit };
}
