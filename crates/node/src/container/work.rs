//! What is done to an engine for one instance. Each step finds out first what is there, so that it may be repeated after
//! any interruption, and after an answer that never came.

use std::{
    collections::{BTreeMap, HashMap},
    path::Path,
    time::{Duration, Instant},
};

use bollard::{
    models::{ContainerUpdateBody, VolumeCreateRequest},
    query_parameters::{CreateContainerOptionsBuilder, RenameContainerOptionsBuilder},
};
use decide::policy::{self, Policy};
use model::{
    container::{Container, MountSource, Network},
    image::ImagePin,
    manifest::FieldError,
};

use tokio::sync::Notify;

use super::{
    ask::{Listed, inspect, list, listed, remove},
    engine::{Engine, Error, QUESTION, WORK},
    failure::Failure,
    image::Image,
    look::{self, Machine, Seen, State},
    names,
    networks::{NETWORKS, ProjectNetwork},
    notes,
    order::Order,
    record::Record,
    registry::{self, Progress},
};
use crate::ledger::Folder;

/// Between looks at what is under way in the engine, of which it tells nothing.
const UNDER_WAY: Duration = Duration::from_millis(100);
const MOST_UNDER_WAY: Duration = Duration::from_secs(1);

/// Who has a name.
enum Holder {
    /// A creation of ours that was given up has been carried out late.
    Ours(Box<Seen>),
    Another,
    /// The engine is making or removing it. It may be ours: under another name there would be two.
    Nobody,
}

/// One instance's dealings with the engine.
#[derive(Debug)]
pub struct Work<'a> {
    pub engine: &'a Engine,
    pub policy: &'a Policy,
    pub order: Order<'a>,
    pub folder: &'a Folder,
    /// The node's own folder.
    pub data: &'a Path,
    /// Told when nobody wants it any more: a pull that may never end is not waited for.
    pub unwanted: &'a Notify,
}

impl Work<'_> {
    fn container(&self) -> &Container {
        self.order.container
    }

    /// Everything but the start. Returns what the ledger holds from now on.
    pub async fn make(
        &mut self,
        before: Option<Record>,
        progress: &mut (dyn FnMut(Progress) + Send),
    ) -> Result<Record, Failure> {
        let image = self.image(progress).await?;
        image.check_paths(self.container())?;
        let mut record = match before {
            Some(record) => self.found(record).await?,
            None => self.of_lost_ledger().await?.unwrap_or_default(),
        };
        (record.image_check, record.workdir) = (image.check, image.workdir);
        record.stop_signal = image.stop_signal;
        self.order.binds = self.check_policy()?;
        self.volumes().await?;
        // Until the container is in it, nobody finds the network unused and removes it.
        let _in_use = match self.container().network {
            Network::Project => Some(NETWORKS.read().await),
            Network::Host | Network::None => None,
        };
        record.direct = match self.container().network {
            Network::Project => self.network().ensure().await?,
            Network::Host | Network::None => false,
        };
        if record.id.is_none() {
            self.order.own_volumes = self.own_volumes(&image.volumes).await?;
            match self.create(&mut record).await {
                // It was collected just now, before anybody knew that it is needed.
                Err(Failure::Engine(Error::NotFound(message))) if message.contains("o such image") => {
                    self.image(progress).await?;
                    self.create(&mut record).await?;
                }
                created => created?,
            }
        }
        record.write(self.folder)?;
        Ok(record)
    }

    /// What is there of a record's container. Half a container is none.
    async fn found(&self, record: Record) -> Result<Record, Failure> {
        match self.find(&record).await? {
            Some(seen) if seen.state == State::Dead => {
                remove(self.engine, &seen.id).await?;
                Ok(Record { id: Some(seen.id), ..record }.without_container())
            }
            Some(seen) => Ok(Record { id: Some(seen.id), name: seen.name, ..record }),
            None if record.id.is_some() => Ok(record.without_container()),
            // Its creation was never answered, and may be carried out yet.
            None => Ok(record),
        }
    }

    /// With its ledger lost the assignment counts as one: the container that says to be this instance is. Before one was made
    /// for it, whatever says so is a stranger.
    async fn of_lost_ledger(&self) -> Result<Option<Record>, Failure> {
        let marks = [
            format!("{}={}", names::CLUSTER, self.order.cluster),
            format!("{}={}", names::INSTANCE, self.order.id),
        ];
        let found = list(self.engine, HashMap::from([("label".to_owned(), marks.into())])).await?;
        let mut found: Vec<Listed> = found.iter().filter_map(listed).collect();
        if !notes::may_have_made(self.data, self.order.id) {
            let mut late = Vec::new();
            for one in found {
                if notes::is_late(self.data, &one.nonce)? {
                    late.push(one);
                }
            }
            found = late;
        }
        match found.as_slice() {
            [] => Ok(None),
            [one] => {
                // It was on its way out, and is wanted again.
                notes::forget_late(self.data, &one.nonce)?;
                Ok(Some(Record {
                    id: Some(one.id.clone()),
                    nonce: one.nonce.clone(),
                    name: one.name.clone(),
                    ..Record::default()
                }))
            }
            several => Err(Failure::Several { id: self.order.id.clone(), count: several.len() }),
        }
    }

    /// The container of the record, also one whose creation was never answered. `None`: it is certainly not there.
    pub async fn find(&self, record: &Record) -> Result<Option<Seen>, Failure> {
        if let Some(id) = &record.id {
            return Ok(inspect(self.engine, id).await?);
        }
        if record.nonce.is_empty() {
            return Ok(None);
        }
        let mark = format!("{}={}", names::NONCE, record.nonce);
        let found = list(self.engine, HashMap::from([("label".to_owned(), vec![mark])])).await?;
        match found.as_slice() {
            [] => Ok(None),
            [one] => Ok(inspect(self.engine, one.id.as_deref().unwrap_or_default()).await?),
            // A copy of all our labels beside it: which one is ours cannot be told, and that is not "none".
            several => Err(Failure::Copies { id: self.order.id.clone(), count: several.len() }),
        }
    }

    async fn image(&self, progress: &mut (dyn FnMut(Progress) + Send)) -> Result<Image, Failure> {
        let container = self.container();
        let name = container.pinned_name().unwrap_or_else(|| container.image.to_string());
        if let Some(image) = registry::inspect(self.engine, &name).await? {
            return Ok(Image::of(&image));
        }
        let failed = |cause: String| Failure::Image { image: container.image.to_string(), cause };
        match container.pin {
            Some(ImagePin::Registry(digest)) => {
                // Before, so that one that is fetched while we die is known to be ours; and after, since who collects forgets
                // what is noted and not there.
                notes::note_pulled(self.data, &name, None)?;
                let pulled = tokio::select! {
                    pulled = registry::pull(self.engine, &container.image, digest, progress) => pulled,
                    () = self.unwanted.notified() => return Err(failed("nobody wants it any more".into())),
                };
                match pulled {
                    Ok(()) => {}
                    Err(error) if error.is_away() || error.is_no_room() => return Err(error.into()),
                    Err(error) => {
                        notes::forget_pulled(self.data, &name)?;
                        return Err(failed(error.to_string()));
                    }
                }
            }
            Some(ImagePin::Local(_)) => return Err(Failure::LocalImageGone(container.image.to_string())),
            None => return Err(failed("it has not been resolved".into())),
        }
        let image = registry::inspect(self.engine, &name).await?;
        notes::note_pulled(self.data, &name, image.as_ref().and_then(|image| image.id.as_deref()))?;
        image.map(|image| Image::of(&image)).ok_or_else(|| failed("it was pulled and is not there".into()))
    }

    /// Asked at each start: what was allowed once may have been taken back. Links are followed before: what is allowed by its
    /// name may lead elsewhere. Returns where each bind leads, for the engine to be told of nothing else.
    pub fn check_policy(&self) -> Result<BTreeMap<String, String>, Failure> {
        if let Some(FieldError { message, help, .. }) =
            policy::forbidden_to(self.policy, self.container()).into_iter().next()
        {
            return Err(Failure::Forbidden { message, help: help.unwrap_or_default() });
        }
        let mut binds = BTreeMap::new();
        for mount in &self.container().volumes {
            let MountSource::Bind(path) = &mount.source else { continue };
            let real =
                std::fs::canonicalize(path).map_err(|error| Failure::NoBind { path: path.clone(), error })?;
            let leads = real.display().to_string();
            if !self.policy.allows_bind(&leads) {
                return Err(Failure::Bind { path: path.clone(), leads });
            }
            binds.insert(path.clone(), leads);
        }
        Ok(binds)
    }

    async fn volumes(&self) -> Result<(), Failure> {
        for mount in &self.container().volumes {
            let MountSource::Volume(name) = &mount.source else { continue };
            let project = &self.order.id.service.project;
            let name = names::volume(self.order.cluster, project, name);
            self.volume(name, names::of_project(self.order.cluster, project)).await?;
        }
        Ok(())
    }

    /// What an image declares as a volume holds data, also where its service says nothing of it. One without a name
    /// would be the engine's own, and be gone or nobody's once its container is gone: it gets a name, and stays until
    /// somebody asks.
    async fn own_volumes(&self, declared: &[String]) -> Result<BTreeMap<String, String>, Failure> {
        const MOST: usize = 64;
        if declared.len() > MOST {
            let cause =
                format!("it declares {} volumes, and at most {MOST} are made for one", declared.len());
            return Err(Failure::Image { image: self.container().image.to_string(), cause });
        }
        let (cluster, id) = (self.order.cluster, self.order.id);
        let same = |path: &str, other: &str| path.trim_end_matches('/') == other.trim_end_matches('/');
        let container = self.container();
        let mounted = |path: &str| {
            container.volumes.iter().any(|mount| same(&mount.target, path))
                || container.tmpfs.keys().any(|other| same(other, path))
        };
        let mut own = BTreeMap::new();
        for (nth, path) in declared.iter().enumerate() {
            // Of what is no place in a file system the engine says so.
            if !path.starts_with('/') || mounted(path) {
                continue;
            }
            let name = names::own_volume(cluster, id, nth);
            let mut labels = names::of_project(cluster, &id.service.project);
            labels.insert(names::INSTANCE.into(), id.to_string());
            labels.insert(names::PATH.into(), path.clone());
            self.volume(name.clone(), labels).await?;
            own.insert(path.clone(), name);
        }
        Ok(own)
    }

    async fn volume(&self, name: String, labels: HashMap<String, String>) -> Result<(), Failure> {
        let client = self.engine.client().await?;
        let is_known = notes::known_volumes(self.data)?.contains_key(&name);
        match self.engine.within(QUESTION, client.inspect_volume(&name)).await {
            // What was put in the place of one that was lost has no mark.
            Ok(volume) if is_known || volume.labels.get(names::CLUSTER) == labels.get(names::CLUSTER) => {
                return Ok(notes::note_volume(self.data, &name, &self.order.id.service)?);
            }
            Ok(_) => return Err(Failure::ForeignVolume { name, cluster: self.order.cluster.clone() }),
            Err(error) if error.is_not_found() => {}
            Err(error) => return Err(error.into()),
        }
        if is_known {
            return Err(Failure::VolumeGone { name });
        }
        let request = VolumeCreateRequest {
            name: Some(name.clone()),
            labels: Some(labels),
            ..VolumeCreateRequest::default()
        };
        self.engine.within(QUESTION, client.create_volume(request)).await?;
        Ok(notes::note_volume(self.data, &name, &self.order.id.service)?)
    }

    /// The nonce is on the disk before the engine is asked, so that a container that was made and not answered for is
    /// found again.
    async fn create(&mut self, record: &mut Record) -> Result<(), Failure> {
        const NAMES: u32 = 20;
        let given_up = Instant::now() + WORK;
        let mut pause = UNDER_WAY;
        let name = |taken| names::container(self.order.cluster, self.order.id, taken);
        // One that was never answered for comes, if it does, under the name that was asked for.
        let mut taken = 0;
        if record.unanswered().is_some() {
            // It was on its way out, and is wanted again.
            notes::forget_late(self.data, &record.nonce)?;
            taken = (0..NAMES).find(|taken| name(*taken) == record.name).unwrap_or_default();
        } else {
            record.nonce = nonce();
        }
        let client = self.engine.client().await?;
        let (workdir, stop_signal) = (record.workdir.clone(), record.stop_signal.clone());
        let order = Order {
            nonce: &record.nonce,
            image_workdir: workdir.as_deref(),
            image_stop: stop_signal.as_deref(),
            publish: !record.direct,
            ..self.order.clone()
        };
        let body = order.body()?;
        while taken < NAMES {
            let name = name(taken);
            record.name.clone_from(&name);
            record.write(self.folder)?;
            notes::note_made(self.data, self.order.id)?;
            let options = CreateContainerOptionsBuilder::default().name(&name).build();
            match self.engine.in_turn(WORK, client.create_container(Some(options), body.clone())).await {
                Ok(made) => {
                    record.id = Some(made.id);
                    record.name = name;
                    return Ok(());
                }
                Err(Error::Conflict(message)) if message.contains("name") => {
                    match self.holder(record, &name).await? {
                        Holder::Ours(seen) => {
                            (record.id, record.name) = (Some(seen.id), seen.name);
                            return Ok(());
                        }
                        // Ours is found by its id, whatever it is called.
                        Holder::Another => taken += 1,
                        Holder::Nobody if Instant::now() >= given_up => {
                            return Err(Failure::NameHeld { name, seconds: WORK.as_secs() });
                        }
                        Holder::Nobody => tokio::select! {
                            () = tokio::time::sleep(pause) => pause = (pause * 2).min(MOST_UNDER_WAY),
                            () = self.unwanted.notified() => return Err(Error::Conflict(message).into()),
                        },
                    }
                }
                Err(error) => return Err(error.into()),
            }
        }
        // Each was refused for certain, so that nothing is on its way: the next try begins anew.
        *record = Record { name: String::new(), nonce: String::new(), ..record.clone() };
        record.write(self.folder)?;
        Err(Failure::NamesTaken { name: name(0), count: NAMES })
    }

    /// Whose container has the name that the engine does not give.
    async fn holder(&self, record: &Record, name: &str) -> Result<Holder, Failure> {
        let is_there = inspect(self.engine, name).await?.is_some();
        // Asked after that: if it is ours, it shows by now.
        Ok(match self.find(record).await? {
            Some(seen) => Holder::Ours(Box::new(seen)),
            None if is_there => Holder::Another,
            None => Holder::Nobody,
        })
    }

    /// Starts it and looks at it. What it limits is noted as the engine took it.
    pub async fn start(&self, record: &mut Record) -> Result<Seen, Failure> {
        let id = record.id.clone().unwrap_or_default();
        let client = self.engine.client().await?;
        let start = || self.engine.in_turn(WORK, client.start_container(&id, None));
        let mut started = start().await;
        if started.as_ref().is_err_and(Error::is_ambiguous) {
            // A network that was asked for, and given up, came after the one that was made instead.
            self.network().ensure().await?;
            started = start().await;
        }
        match started {
            Ok(()) => {}
            // Somebody is removing it: as good as gone.
            Err(Error::Conflict(message) | Error::Refused { message, .. })
                if message.contains("marked for removal") =>
            {
                return Err(Error::NotFound(message).into());
            }
            Err(error) => return Err(self.start_failure(error)),
        }
        let seen = inspect(self.engine, &id).await?;
        let seen = seen.ok_or_else(|| Error::NotFound(format!("container {id} went as it started")))?;
        record.started.clone_from(&seen.started);
        record.addressed(&seen, self.network_name().as_deref());
        // Once: what somebody changed of it since is no word of ours.
        record.limits.get_or_insert_with(|| seen.limits.clone());
        record.write(self.folder)?;
        Ok(seen)
    }

    pub fn network_name(&self) -> Option<String> {
        look::network_of(self.container(), || {
            names::network(self.order.cluster, &self.order.id.service.project)
        })
    }

    fn start_failure(&self, error: Error) -> Failure {
        let text = error.to_string();
        let taken = ["port is already allocated", "address already in use", "failed to listen"];
        match self.order.port {
            Some(port) if taken.iter().any(|words| text.contains(words)) => Failure::PortTaken(port),
            Some(_) | None => error.into(),
        }
    }

    /// Puts back what can be put back while it runs; returns what could not be. Each thing for itself, and the image, which
    /// may have to be fetched, last.
    pub async fn repair(
        &self,
        record: &Record,
        paths: &[String],
        machine: &Machine,
    ) -> BTreeMap<String, String> {
        let Some(id) = &record.id else { return BTreeMap::new() };
        let mut failed = BTreeMap::new();
        let (limits, mut others): (Vec<&String>, Vec<&String>) =
            paths.iter().partition(|path| is_limit(path));
        if !limits.is_empty()
            && let Err(failure) = self.restore_limits(id, record, machine, &limits).await
        {
            let message = failure.to_string();
            failed.extend(limits.into_iter().map(|path| (path.clone(), message.clone())));
        }
        others.sort_by_key(|path| path.as_str() == "image");
        for path in others {
            if let Err(failure) = self.put_back(id, record, path).await {
                failed.insert(path.clone(), failure.to_string());
            }
        }
        failed
    }

    async fn put_back(&self, id: &str, record: &Record, path: &str) -> Result<(), Failure> {
        let client = self.engine.client().await?;
        match path {
            "container/paused" => {
                ignore_conflict(self.engine.within(QUESTION, client.unpause_container(id)).await)
            }
            "container/name" => {
                let options = RenameContainerOptionsBuilder::default().name(&record.name).build();
                Ok(self.engine.within(QUESTION, client.rename_container(id, options)).await?)
            }
            "container/network" => self.network().connect(id, self.order.endpoint()).await,
            "container/aliases" => {
                // An engine changes no end of a network: it makes another.
                self.network().disconnect(id).await?;
                self.network().connect(id, self.order.endpoint()).await
            }
            "image" => self.image(&mut |_| {}).await.map(drop),
            _ => Ok(()),
        }
    }

    fn network(&self) -> ProjectNetwork<'_> {
        ProjectNetwork {
            engine: self.engine,
            data: self.data,
            cluster: self.order.cluster,
            project: &self.order.id.service.project,
        }
    }

    /// Those of these paths: the others may be ignored.
    async fn restore_limits(
        &self,
        id: &str,
        record: &Record,
        machine: &Machine,
        paths: &[&String],
    ) -> Result<(), Failure> {
        let Some(told) = &record.limits else { return Ok(()) };
        let Some(seen) = inspect(self.engine, id).await? else { return Ok(()) };
        let client = self.engine.client().await?;
        let wanted = |field: &str| paths.iter().any(|path| path.strip_prefix("container/") == Some(field));
        let all = told.restore(&seen.limits, machine, wanted);
        // What a kernel refuses of memory is in no way of the others.
        let memory = ContainerUpdateBody {
            memory: all.memory,
            memory_swap: all.memory_swap,
            memory_reservation: all.memory_reservation,
            ..ContainerUpdateBody::default()
        };
        let others = ContainerUpdateBody { memory: None, memory_swap: None, memory_reservation: None, ..all };
        let mut result = Ok(());
        for body in [memory, others] {
            if body != ContainerUpdateBody::default() {
                let updated = self.engine.within(QUESTION, client.update_container(id, body)).await;
                result = result.and(updated.map(drop));
            }
        }
        Ok(result?)
    }
}

fn is_limit(path: &str) -> bool {
    path.strip_prefix("container/")
        .is_some_and(|field| !["paused", "network", "aliases", "name"].contains(&field))
}

pub(super) fn ignore_conflict(result: Result<(), Error>) -> Result<(), Failure> {
    match result {
        Ok(()) | Err(Error::Conflict(_)) => Ok(()),
        // Engines of other versions say the same with another status.
        Err(Error::Refused { message, .. })
            if message.contains("already exists") || message.contains("not paused") =>
        {
            Ok(())
        }
        Err(error) => Err(error.into()),
    }
}

/// Random, and only ever compared.
pub(super) fn nonce() -> String {
    use std::hash::{BuildHasher, Hasher};
    let random = || std::collections::hash_map::RandomState::new().build_hasher().finish();
    format!("{:016x}{:016x}", random(), random())
}
