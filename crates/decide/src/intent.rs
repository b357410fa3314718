//! What somebody asks for, turned into a changed record: apply, deploy, rollback, cancel, scale, stop, start, restart,
//! delete. Only these (and a restoration by the planner) move a target.
//!
//! Pure: the caller stores the result onto the intent sequence that it was made from.

use std::collections::BTreeMap;

use model::{
    ArtifactDigest, DeploymentId, Generation, IntentSeq, ReleaseDigest, ServiceKey, Timestamp,
    deployment::{Cause, Deployment, Event as Step, Phase},
    event::{Event, Kind as EventKind},
    image::{ImagePin, ImageRef},
    release::Release,
    service::{Owner, Service},
    source::Origin,
    spec::{Kind, MAX_REPLICAS, Port, ServiceSpec, Workload},
};

use crate::{plan::begin, world::World};

/// What an intent changes; every value is whole.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Intent {
    pub service: Service,
    pub releases: Vec<Release>,
    /// Begun, cancelled.
    pub deployments: Vec<Deployment>,
    pub events: Vec<Event>,
    /// For the person who asked.
    pub message: String,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Outcome {
    Changed(Box<Intent>),
    /// Nothing to change, and why.
    Unchanged {
        message: String,
    },
}

#[derive(Debug, Clone, thiserror::Error, PartialEq, Eq)]
pub enum Refused {
    #[error("service {0} is not declared")]
    NotDeclared(ServiceKey),
    #[error("the declaration of {0} cannot be read: {1}")]
    Unreadable(ServiceKey, String),
    #[error("{service} belongs to {owner}")]
    OwnedByAnother { service: ServiceKey, owner: Owner },
    #[error("{0} has no earlier release to go back to")]
    NoEarlierRelease(ServiceKey),
    #[error("deployment {0} never became active, so there is nothing to go back to")]
    NeverActive(DeploymentId),
    #[error("the release of deployment {0} is no longer kept")]
    NotKept(DeploymentId),
    #[error("{service} has no deployment {id}")]
    NoSuchDeployment { service: ServiceKey, id: String },
    #[error("deployment {id} is {phase} and can no longer be cancelled")]
    AlreadyEnded { id: DeploymentId, phase: Phase },
    #[error("{0} is a static site: it is one folder and has no replicas")]
    SiteHasNoReplicas(ServiceKey),
    #[error("{service} is a {kind} service and takes no {content}")]
    TakesNoContent { service: ServiceKey, kind: Kind, content: &'static str },
    #[error("the image {image} of {service} has not been resolved")]
    ImageNotResolved { service: ServiceKey, image: ImageRef },
    #[error("{0} has no content yet")]
    NoContent(ServiceKey),
    #[error("replicas must be between 0 and {MAX_REPLICAS}, not {0}")]
    Replicas(u64),
    #[error("`port: {port}` is one port of the machine, which {replicas} replicas of {service} cannot share")]
    PortForOne { service: ServiceKey, port: u16, replicas: u32 },
    #[error("{0} is being deleted")]
    BeingDeleted(ServiceKey),
}

impl Refused {
    /// What to do next.
    pub fn help(&self) -> String {
        match self {
            Self::NotDeclared(_) => "`setpoint status` lists what is declared".into(),
            Self::Unreadable(key, _) => {
                format!("nothing of {key} is changed until it can be read: put a backup back, or ask again")
            }
            Self::OwnedByAnother { owner, .. } => format!("change it there: {owner}"),
            Self::NoEarlierRelease(key) => format!("`setpoint deployments {key}` lists what there was"),
            Self::NeverActive(_) => "choose a deployment that was active".into(),
            Self::NotKept(_) => "choose a newer one; `retain` says how many releases are kept".into(),
            Self::NoSuchDeployment { service, .. } => format!("`setpoint deployments {service}` lists them"),
            Self::AlreadyEnded { .. } => "`setpoint rollback SERVICE` goes back to the release before".into(),
            Self::SiteHasNoReplicas(_) => "leave it as it is: the edge serves it from one folder".into(),
            Self::TakesNoContent { .. } => "apply its manifest, or deploy it as it is declared".into(),
            Self::ImageNotResolved { .. } => "send it again".into(),
            Self::NoContent(key) => format!("name a folder or an archive: setpoint deploy {key} PATH"),
            Self::Replicas(_) => format!("choose a number from 0 to {MAX_REPLICAS}"),
            Self::PortForOne { service, .. } => {
                format!("leave `port` out and a free one is given to each, or `setpoint scale {service} 1`")
            }
            Self::BeingDeleted(key) => format!("wait until `setpoint status {key}` no longer knows it"),
        }
    }

    /// A word for scripts.
    pub fn code(&self) -> &'static str {
        match self {
            Self::NotDeclared(_) => "not_declared",
            Self::Unreadable(..) => "unreadable",
            Self::OwnedByAnother { .. } => "owned_by_another",
            Self::NoEarlierRelease(_) => "no_earlier_release",
            Self::NeverActive(_) => "never_active",
            Self::NotKept(_) => "not_kept",
            Self::NoSuchDeployment { .. } => "no_such_deployment",
            Self::AlreadyEnded { .. } => "already_ended",
            Self::SiteHasNoReplicas(_) => "site_has_no_replicas",
            Self::TakesNoContent { .. } => "takes_no_content",
            Self::ImageNotResolved { .. } => "image_not_resolved",
            Self::NoContent(_) => "no_content",
            Self::Replicas(_) => "replicas_out_of_range",
            Self::PortForOne { .. } => "port_for_one",
            Self::BeingDeleted(_) => "being_deleted",
        }
    }
}

/// What names of images stand for, as far as somebody has asked.
pub type Images = BTreeMap<ImageRef, ImagePin>;

/// What a deployment is given.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Content {
    /// What is declared; a tag is resolved anew.
    Declared,
    /// A site's folder, and where it was fetched from.
    Artifact(ArtifactDigest, Option<Origin>),
    /// Instead of the declared one.
    Image(ImageRef),
}

type Result = std::result::Result<Outcome, Refused>;

/// An intent in the making.
struct Draft<'a> {
    world: &'a World,
    /// The service is declared anew while an earlier one of its name is on its way out.
    revives: bool,
    service: Service,
    releases: Vec<Release>,
    deployments: Vec<Deployment>,
    events: Vec<Event>,
    now: Timestamp,
}

impl<'a> Draft<'a> {
    fn new(world: &'a World, service: Service, now: Timestamp) -> Self {
        let revives = world.service.known().is_some_and(|s| s.deleted.is_some());
        Self {
            world,
            revives,
            service,
            releases: Vec::new(),
            deployments: Vec::new(),
            events: Vec::new(),
            now,
        }
    }

    fn event(&mut self, kind: EventKind, deployment: Option<DeploymentId>, message: String) {
        let service = Some(self.world.key.clone());
        self.events.push(Event { kind, service, instance: None, deployment, message });
    }

    /// The open deployment gets its outcome, because something else is wanted now.
    fn cancel_open(&mut self, why: &str) {
        let Some(mut open) = self.world.open_deployment().cloned() else { return };
        if open.advance(Step::Cancelled, self.now).is_ok() {
            open.message = why.into();
            let message = format!("deployment {} is cancelled: {why}", open.id);
            self.event(EventKind::DeploymentCancelled, Some(open.id.clone()), message);
            self.deployments.push(open);
        }
    }

    /// A fixed port is for one replica, whoever set their number: `scale` may have, after it was declared.
    fn fits(&self, release: &Release) -> std::result::Result<(), Refused> {
        let replicas = self.service.declared_replicas();
        match release.port {
            Some(Port::Fixed(port)) if replicas > 1 => {
                Err(Refused::PortForOne { service: self.world.key.clone(), port, replicas })
            }
            Some(Port::Fixed(_) | Port::Dynamic) | None => Ok(()),
        }
    }

    /// The target moves, by a new deployment.
    fn deploy(&mut self, release: ReleaseDigest, cause: Cause, message: &str) {
        let number = self.world.next_deployment;
        self.cancel_open(&match cause {
            Cause::Rollback => format!("#{number} rolled it back"),
            Cause::Apply | Cause::Deploy | Cause::Restore | Cause::Git => format!("#{number} took its place"),
        });
        // What was deleted does not come back, however the new declaration fares.
        let previous = self.world.active_deployment().filter(|_| !self.revives).map(|active| active.release);
        let mut deployment =
            begin(&self.world.key, number, release, previous, cause, message.into(), self.now);
        let begun = self.releases.iter().find(|begun| begun.digest() == release);
        if let Some(release) = begun.or(self.world.releases.get(&release).map(|kept| &**kept)) {
            deployment.note_source(release);
        }
        let told =
            format!("deployment {} (#{number}, {cause}) of release {}", deployment.id, release.short());
        self.event(EventKind::DeploymentQueued, Some(deployment.id.clone()), told);
        self.service.target = Some(release);
        self.deployments.push(deployment);
        // Somebody asks for what failed before: its instances begin anew, with all their attempts.
        if self.world.deployment_of(&release).is_some_and(|newest| newest.phase == Phase::Failed) {
            self.service.restart_epoch += 1;
        }
    }

    fn done(mut self, message: impl Into<String>) -> Result {
        self.service.intent_seq = self.service.intent_seq.next();
        self.service.updated_at = self.now;
        let Self { service, releases, deployments, events, .. } = self;
        Ok(Outcome::Changed(Box::new(Intent {
            service,
            releases,
            deployments,
            events,
            message: message.into(),
        })))
    }
}

fn declared(world: &World) -> std::result::Result<&Service, Refused> {
    match &world.service {
        model::Knowledge::Known(service) => Ok(service),
        model::Knowledge::Absent => Err(Refused::NotDeclared(world.key.clone())),
        model::Knowledge::Unknown { cause, .. } => Err(Refused::Unreadable(world.key.clone(), cause.clone())),
    }
}

/// Declared and not on its way out.
fn standing(world: &World) -> std::result::Result<&Service, Refused> {
    let service = declared(world)?;
    if service.deleted.is_some() { Err(Refused::BeingDeleted(world.key.clone())) } else { Ok(service) }
}

/// Declares a service. An unchanged declaration changes nothing, whatever runs by a rollback or a deploy.
pub fn apply(world: &World, spec: &ServiceSpec, owner: &Owner, images: &Images, now: Timestamp) -> Result {
    let existing = match declared(world) {
        Ok(service) => Some(service),
        Err(Refused::NotDeclared(_)) => None,
        Err(refused) => return Err(refused),
    };
    match existing.filter(|service| service.deleted.is_none()) {
        None => create(world, existing, spec, owner, images, now),
        Some(service) if service.owner != *owner => {
            Err(Refused::OwnedByAnother { service: world.key.clone(), owner: service.owner.clone() })
        }
        Some(service) => {
            let spec = &with_declared_commit(&service.spec, spec);
            if service.spec == *spec {
                return Ok(Outcome::Unchanged { message: pinned(world, service) });
            }
            change(world, service, spec, images, now)
        }
    }
}

/// A commit of the declared repository is moved by `deploy` alone: whoever applies another field may not have heard of
/// the newest.
fn with_declared_commit(declared: &ServiceSpec, spec: &ServiceSpec) -> ServiceSpec {
    let mut spec = spec.clone();
    if let (Workload::Site(declared), Workload::Site(site)) = (&declared.workload, &mut spec.workload)
        && let (Some(kept), Some(sent)) = (&declared.origin, &site.origin)
        && sent.is_of(&kept.repository, &kept.build, kept.output.as_ref())
    {
        (site.artifact, site.origin) = (declared.artifact, declared.origin.clone());
    }
    spec
}

/// Why what runs is not what is declared; empty when it is.
fn pinned(world: &World, service: &Service) -> String {
    let declared = Release::of(&service.spec);
    let Some(target) = service.target else { return never_came(world) };
    // A declaration names its image, and what runs has it pinned.
    let running = world.releases.get(&target).map(|running| (**running).clone().pinned(None));
    let runs_otherwise = match declared.image() {
        Some(_) => running.is_some_and(|running| running != declared),
        None => target != declared.digest() && declared.is_complete(),
    };
    if !runs_otherwise {
        return String::new();
    }
    let by = world.deployment_of(&target).map(|d| format!(" by deployment #{} ({})", d.number, d.cause));
    format!(
        "release {} is pinned{}; `setpoint deploy` returns to the declared one",
        target.short(),
        by.unwrap_or_default()
    )
}

/// Why nothing runs of what is declared, where its only deployment was given up.
fn never_came(world: &World) -> String {
    match world.deployments.iter().max_by_key(|deployment| deployment.number) {
        Some(newest) if newest.phase == Phase::Cancelled => format!(
            "nothing of it runs: deployment #{} was cancelled; `setpoint deploy` runs what is declared",
            newest.number
        ),
        Some(_) | None => String::new(),
    }
}

fn create(
    world: &World,
    dying: Option<&Service>,
    spec: &ServiceSpec,
    owner: &Owner,
    images: &Images,
    now: Timestamp,
) -> Result {
    let service = Service {
        key: world.key.clone(),
        generation: dying.map_or(Generation(1), |s| s.generation.next()),
        intent_seq: dying.map_or(IntentSeq(0), |s| s.intent_seq),
        owner: owner.clone(),
        spec: spec.clone(),
        target: None,
        scale: None,
        stopped: false,
        restart_epoch: dying.map_or(0, |s| s.restart_epoch),
        deleted: None,
        created_at: now,
        updated_at: now,
    };
    let mut draft = Draft::new(world, service, now);
    draft.event(EventKind::ServiceApplied, None, format!("{} was declared", world.key));
    let release = resolved(world, Release::of(spec), None, images)?;
    if release.is_complete() {
        let digest = release.digest();
        draft.releases.push(release);
        draft.deploy(digest, Cause::Apply, "");
    }
    draft.done("declared")
}

fn change(world: &World, service: &Service, spec: &ServiceSpec, images: &Images, now: Timestamp) -> Result {
    let (before, mut release) = (Release::of(&service.spec), Release::of(spec));
    let changed = release != before;
    let mut next = service.clone();
    next.spec = spec.clone();
    next.generation = next.generation.next();
    let mut draft = Draft::new(world, next, now);
    draft.event(EventKind::ServiceApplied, None, format!("{} has a new declaration", world.key));
    if changed {
        release = resolved(world, release, running_pin(world, service, spec), images)?;
    }
    if !release.is_complete() && spec.kind() == Kind::Site {
        // Declared without content: the content of before stays.
        let running = service.target.and_then(|target| world.releases.get(&target));
        take_content(&mut release, running.map(|running| &**running));
    }
    let changed = changed && release != before;
    let digest = release.digest();
    // What is not part of a release (replicas, policies) moves no target, so that it ends no rollback.
    let moves = release.is_complete() && changed && Some(digest) != service.target;
    if !moves || is_turned_away(world, service, &before, &release) {
        let pinned = pinned(world, &draft_service(service, spec));
        return draft.done(if pinned.is_empty() { "declared".into() } else { pinned });
    }
    draft.fits(&release)?;
    draft.releases.push(release);
    if service.stopped {
        draft.service.target = Some(digest);
        return draft.done("declared; it is stopped, and `setpoint start` runs it");
    }
    draft.deploy(digest, Cause::Apply, "");
    draft.done("declared")
}

/// Content that was rolled back, found again in a folder whose declaration is the same: it comes back by `deploy` alone.
fn is_turned_away(world: &World, service: &Service, before: &Release, release: &Release) -> bool {
    let mut as_before = release.clone();
    take_content(&mut as_before, Some(before));
    let by = service.target.and_then(|target| world.deployment_of(&target));
    let Some(by) = by.filter(|by| matches!(by.cause, Cause::Rollback | Cause::Restore)) else { return false };
    let turned_away = world.deployments.iter().filter(|d| d.number < by.number).max_by_key(|d| d.number);
    as_before == *before && turned_away.is_some_and(|d| d.release == release.digest())
}

/// The image that must be resolved before this declaration can be applied; `None` when nothing need be asked.
pub fn unresolved(world: &World, spec: &ServiceSpec) -> Option<ImageRef> {
    let release = Release::of(spec);
    let (image, _) = release.image()?;
    let standing = world.service.known().filter(|service| service.deleted.is_none());
    let known = standing.is_some_and(|service| {
        Release::of(&service.spec) == release || running_pin(world, service, spec).is_some()
    });
    (!known).then(|| image.clone())
}

/// A tag that has not been changed is not looked at again: what runs stays pinned until somebody deploys.
fn running_pin(world: &World, service: &Service, spec: &ServiceSpec) -> Option<ImagePin> {
    let wanted = Release::of(spec);
    let (image, _) = wanted.image()?;
    let running = world.releases.get(&service.target?)?;
    running.image().filter(|(running, _)| *running == image)?.1
}

/// The release with its image pinned: as it runs, else as somebody has resolved it.
fn resolved(
    world: &World,
    release: Release,
    running: Option<ImagePin>,
    images: &Images,
) -> std::result::Result<Release, Refused> {
    let Some((image, _)) = release.image() else { return Ok(release) };
    let pin = running.or_else(|| images.get(image).copied());
    let missing = || Refused::ImageNotResolved { service: world.key.clone(), image: image.clone() };
    let pin = pin.ok_or_else(missing)?;
    Ok(release.pinned(Some(pin)))
}

fn draft_service(service: &Service, spec: &ServiceSpec) -> Service {
    Service { spec: spec.clone(), ..service.clone() }
}

/// A site's content becomes that of the other release.
fn take_content(release: &mut Release, from: Option<&Release>) {
    if let Workload::Site(site) = &mut release.workload {
        site.artifact = from.and_then(Release::artifact);
        site.origin = from.and_then(Release::origin).cloned();
    }
}

/// The image that a deployment needs to be resolved.
pub fn image_of_deploy(world: &World, content: &Content) -> Option<ImageRef> {
    let service = standing(world).ok()?;
    match content {
        Content::Image(image) => (service.spec.kind() == Kind::Container).then(|| image.clone()),
        Content::Artifact(..) => None,
        Content::Declared => Release::of(&service.spec).image().map(|(image, _)| image.clone()),
    }
}

/// A new deployment of the declared service: for a site with this content, for a container with this image, otherwise
/// as declared.
pub fn deploy(world: &World, content: &Content, images: &Images, now: Timestamp) -> Result {
    let service = standing(world)?;
    let mut release = Release::of(&service.spec);
    let kind = service.spec.kind();
    let refused = |content| Err(Refused::TakesNoContent { service: world.key.clone(), kind, content });
    match (&mut release.workload, content) {
        (Workload::Process(_) | Workload::Container(_), Content::Artifact(..)) => return refused("folder"),
        (Workload::Site(_) | Workload::Process(_), Content::Image(_)) => return refused("image"),
        (Workload::Site(site), Content::Artifact(artifact, origin)) => {
            (site.artifact, site.origin) = (Some(*artifact), origin.clone());
        }
        (Workload::Container(container), Content::Image(image)) => container.image = image.clone(),
        (Workload::Site(_) | Workload::Process(_) | Workload::Container(_), Content::Declared) => {}
    }
    let release = resolved(world, release, None, images)?;
    if !release.is_complete() {
        return Err(Refused::NoContent(world.key.clone()));
    }
    let mut next = service.clone();
    next.stopped = false;
    if is_newer_commit(&service.spec, &release) {
        next.spec.workload = release.workload.clone();
        next.generation = next.generation.next();
    }
    let mut draft = Draft::new(world, next, now);
    draft.fits(&release)?;
    let digest = release.digest();
    draft.releases.push(release);
    draft.deploy(digest, Cause::Deploy, "");
    draft.done("deploying")
}

/// Whether it differs from what is declared by nothing but the commit of the declared repository: then that commit is
/// what is declared from now on, as a tag that is resolved anew stays so.
fn is_newer_commit(declared: &ServiceSpec, release: &Release) -> bool {
    let before = Release::of(declared);
    let (Some(before), Some(now)) = (before.origin(), release.origin()) else { return false };
    before != now && now.is_of(&before.repository, &before.build, before.output.as_ref())
}

/// Back to the release of a deployment that was active: the named one, else the newest with another release than
/// the one that was wanted until now.
pub fn rollback(world: &World, to: Option<&Deployment>, now: Timestamp) -> Result {
    let service = standing(world)?;
    let to = match to {
        Some(named) if !was_active(named.phase) => return Err(Refused::NeverActive(named.id.clone())),
        Some(named) => named,
        None => world
            .deployments
            .iter()
            .filter(|d| was_active(d.phase) && Some(d.release) != service.target)
            .max_by_key(|d| d.number)
            .ok_or_else(|| Refused::NoEarlierRelease(world.key.clone()))?,
    };
    let Some(release) = world.releases.get(&to.release) else {
        return Err(Refused::NotKept(to.id.clone()));
    };
    if Some(to.release) == service.target && world.open_deployment().is_none() {
        if service.stopped {
            return start(world, now);
        }
        return Ok(Outcome::Unchanged { message: format!("release {} runs already", to.release.short()) });
    }
    let mut next = service.clone();
    next.stopped = false;
    let mut draft = Draft::new(world, next, now);
    draft.fits(release)?;
    draft.deploy(to.release, Cause::Rollback, &format!("to the release of #{}", to.number));
    draft.done(format!("going back to the release of #{}", to.number))
}

fn was_active(phase: Phase) -> bool {
    matches!(phase, Phase::Active | Phase::Superseded | Phase::RolledBack)
}

/// Ends the open deployment; what ran before it comes back.
pub fn cancel(world: &World, id: &DeploymentId, now: Timestamp) -> Result {
    let service = standing(world)?;
    let Some(deployment) = world.deployments.iter().find(|d| d.id == *id) else {
        return Err(Refused::NoSuchDeployment { service: world.key.clone(), id: id.to_string() });
    };
    if deployment.phase.is_ended() {
        return Err(Refused::AlreadyEnded { id: id.clone(), phase: deployment.phase });
    }
    let previous = match deployment.cause {
        // It goes back to what there was before: that stays wanted, or nothing would be left to serve.
        Cause::Restore => Some(deployment.release),
        Cause::Apply | Cause::Deploy | Cause::Rollback | Cause::Git => deployment.previous,
    };
    let previous = previous.filter(|previous| world.releases.contains_key(previous));
    let mut draft = Draft::new(world, service.clone(), now);
    draft.cancel_open("somebody cancelled it");
    match previous {
        None => {
            draft.service.target = None;
            draft.done("cancelled; there was nothing before it")
        }
        Some(release) if release == deployment.release => {
            draft.done("cancelled; its release ran before it too")
        }
        Some(release) => {
            let number = world.next_deployment;
            let why = format!("#{} was cancelled", deployment.number);
            let mut restore = begin(&world.key, number, release, None, Cause::Restore, why, now);
            if let Some(kept) = world.releases.get(&release) {
                restore.note_source(kept);
            }
            draft.service.target = Some(release);
            draft.deployments.push(restore);
            draft.done(format!("cancelled; release {} comes back", release.short()))
        }
    }
}

/// From now on `scale` owns the number of replicas.
pub fn scale(world: &World, replicas: u64, now: Timestamp) -> Result {
    let service = standing(world)?;
    if service.spec.kind() == Kind::Site {
        return Err(Refused::SiteHasNoReplicas(world.key.clone()));
    }
    let wanted =
        u32::try_from(replicas).ok().filter(|n| *n <= MAX_REPLICAS).ok_or(Refused::Replicas(replicas))?;
    if service.scale == Some(wanted) {
        return Ok(Outcome::Unchanged { message: format!("it is scaled to {wanted} already") });
    }
    let before = service.declared_replicas();
    let mut draft = Draft::new(world, Service { scale: Some(wanted), ..service.clone() }, now);
    if let Some(target) = service.target.and_then(|target| world.releases.get(&target)) {
        draft.fits(target)?;
    }
    let message = match before == wanted {
        true => format!("{} stays at {wanted}, which `scale` owns from now on", world.key),
        false => format!("{} scaled from {before} to {wanted}", world.key),
    };
    draft.event(EventKind::ServiceScaled, None, message.clone());
    draft.done(message)
}

pub fn stop(world: &World, now: Timestamp) -> Result {
    let service = standing(world)?;
    if service.stopped {
        return Ok(Outcome::Unchanged { message: "it is stopped already".into() });
    }
    let mut draft = Draft::new(world, Service { stopped: true, ..service.clone() }, now);
    draft.cancel_open("the service was stopped");
    draft.event(EventKind::ServiceStopped, None, format!("{} was stopped", world.key));
    draft.done("stopping")
}

/// Runs the target again; by a new deployment when it has never become active.
pub fn start(world: &World, now: Timestamp) -> Result {
    let service = standing(world)?;
    if !service.stopped {
        return Ok(Outcome::Unchanged { message: "it is not stopped".into() });
    }
    let mut draft = Draft::new(world, Service { stopped: false, ..service.clone() }, now);
    draft.event(EventKind::ServiceStarted, None, format!("{} was started", world.key));
    let proven = world.active_deployment().map(|active| active.release);
    match service.target {
        Some(target) if proven != Some(target) => draft.deploy(target, Cause::Apply, "started again"),
        Some(_) | None => {}
    }
    draft.done("starting")
}

/// Replaces every instance by the strategy, the release unchanged. A release that failed is tried again, by a new
/// deployment.
pub fn restart(world: &World, now: Timestamp) -> Result {
    let service = standing(world)?;
    if service.stopped {
        return start(world, now);
    }
    let mut draft = Draft::new(world, service.clone(), now);
    draft.event(EventKind::ServiceRestarted, None, format!("{} is being restarted", world.key));
    let newest = service.target.and_then(|target| world.deployment_of(&target));
    match newest {
        Some(newest) if newest.phase == Phase::Failed => {
            draft.deploy(newest.release, Cause::Deploy, "tried again by a restart");
        }
        Some(_) | None => draft.service.restart_epoch += 1,
    }
    draft.done("restarting")
}

pub fn delete(world: &World, owner: &Owner, now: Timestamp) -> Result {
    let service = declared(world)?;
    if service.deleted.is_some() {
        return Ok(Outcome::Unchanged { message: "it is being deleted already".into() });
    }
    if service.owner != *owner {
        return Err(Refused::OwnedByAnother { service: world.key.clone(), owner: service.owner.clone() });
    }
    let mut draft = Draft::new(world, Service { deleted: Some(now), ..service.clone() }, now);
    draft.cancel_open("the service was deleted");
    draft.event(EventKind::ServiceDeleted, None, format!("{} is being deleted", world.key));
    draft.done("deleting")
}

/// The world once an intent is stored: what a dry run plans from.
#[must_use]
pub fn after(world: &World, intent: &Intent) -> World {
    let mut next = world.clone();
    next.service = model::Knowledge::Known(intent.service.clone());
    for release in &intent.releases {
        next.releases.insert(release.digest(), std::sync::Arc::new(release.clone()));
    }
    for deployment in &intent.deployments {
        next.deployments.retain(|d| d.id != deployment.id);
        next.next_deployment = next.next_deployment.max(deployment.number + 1);
        next.deployments.push(deployment.clone());
    }
    next
}
