//! Requests become recorded intents: decided from the world as it is stored, committed onto what they were decided
//! from, and decided again when somebody else was faster.

use std::collections::{BTreeMap, BTreeSet};

use decide::{
    access::{Denied, Permit, Rules},
    conflict::{self, Claims},
    intent::{self, Content, Images, Intent, Outcome, Refused},
    plan::plan_service,
    policy::{self, Policy},
    world::World,
};
use model::{
    DeploymentId, Digest, IntentSeq, ProjectName, ServiceKey,
    access::Role,
    deployment::{Deployment, Phase},
    event::Event,
    manifest::{self, FieldError},
    reason::{Change, Waiting},
    service::Owner,
    spec::{Kind, ServiceSpec, Workload},
};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use store::{
    AuditEntry, CommitError, Expected, Floor, Idempotency, IntentCommit, IntentOutcome, Refusal,
    ServiceIntent, StoreError, Stored,
};

use crate::{Control, ImageError, failpoints};

/// Losing this often against others' writes in a row says that something is wrong.
const TRIES: usize = 16;
/// Deployments looked through for a rollback.
const HISTORY: u32 = 200;

/// A service as somebody wants it declared.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Declared {
    /// `project/name`.
    #[schemars(with = "String")]
    pub key: ServiceKey,
    #[schemars(with = "serde_json::Value")]
    pub spec: ServiceSpec,
}

/// The top-level names of contents.
pub type Entries = BTreeMap<model::ArtifactDigest, BTreeSet<String>>;

#[derive(Debug, Clone)]
pub enum Request {
    /// Declares services; with `prune`, what these projects have beside them is deleted.
    Apply {
        services: Vec<Declared>,
        prune: BTreeSet<ProjectName>,
    },
    Deploy {
        key: ServiceKey,
        content: Content,
    },
    Rollback {
        key: ServiceKey,
        to: Option<DeploymentId>,
    },
    Cancel {
        deployment: DeploymentId,
    },
    Scale {
        key: ServiceKey,
        replicas: u64,
    },
    Stop {
        key: ServiceKey,
    },
    Start {
        key: ServiceKey,
    },
    Restart {
        key: ServiceKey,
    },
    Delete {
        key: ServiceKey,
    },
}

/// What goes with a request.
#[derive(Debug, Clone, Default)]
pub struct Terms {
    /// Refused unless nothing was written since this.
    pub if_match: Option<IntentSeq>,
    /// The caller's key and the digest of the whole request: the same again gets the same answer.
    pub idempotency: Option<(String, Digest)>,
}

/// What became of a request, service by service.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Applied {
    pub services: Vec<AppliedService>,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct AppliedService {
    pub project: ProjectName,
    pub name: model::ServiceName,
    pub changed: bool,
    pub generation: u64,
    /// The number in the `ETag`.
    #[serde(default)]
    pub revision: u64,
    /// The deployment that was begun, or that was cancelled where nothing was begun.
    pub deployment: Option<DeploymentId>,
    pub message: String,
}

/// What would become of a service, and why.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Planned {
    pub project: ProjectName,
    pub name: model::ServiceName,
    /// `create`, `change`, `delete` or `none`.
    pub action: String,
    pub message: String,
    pub changes: Vec<String>,
    pub waiting: Vec<String>,
    /// What is assumed, and what will cost downtime.
    pub notes: Vec<String>,
}

#[derive(Debug, thiserror::Error)]
pub enum RequestError {
    #[error(transparent)]
    Refused(#[from] Refused),
    #[error(transparent)]
    Denied(#[from] Denied),
    #[error("{}", .0.iter().map(ToString::to_string).collect::<Vec<_>>().join("; "))]
    Conflict(Vec<conflict::Conflict>),
    #[error("{service}: {}", .errors.iter().map(|e| format!("{}: {}", e.field, e.message)).collect::<Vec<_>>().join("; "))]
    Invalid { service: ServiceKey, errors: Vec<FieldError> },
    #[error(transparent)]
    Image(#[from] ImageError),
    #[error("{service}: {error}")]
    DeclaredImage { service: ServiceKey, error: ImageError },
    #[error("nothing is declared: name at least one service")]
    Empty,
    #[error("{service} has revision {found}, not {expected}; read it again")]
    Mismatch { service: ServiceKey, expected: IntentSeq, found: IntentSeq },
    #[error("this idempotency key was used for another request")]
    KeyReused,
    #[error("no deployment {0} is known")]
    NoDeployment(DeploymentId),
    #[error("others changed it {TRIES} times in between; try again")]
    Contended,
    #[error(transparent)]
    Commit(CommitError),
    #[error(transparent)]
    Store(#[from] StoreError),
}

/// An answer: fresh, or the one that was given before under the same key.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Answer {
    Done(Applied),
    Repeated { status: u16, body: String },
}

/// A service's outcome with the ground that it was decided on.
pub(crate) struct Decided {
    pub(crate) world: World,
    pub(crate) outcome: Outcome,
}

impl Control {
    /// Carries a request out: when this returns `Ok`, it is durable.
    pub async fn request(
        &self,
        request: &Request,
        terms: &Terms,
        permit: &Permit,
    ) -> Result<Answer, RequestError> {
        check_permit(request, permit)?;
        if let Some((key, digest)) = &terms.idempotency
            && let Some(stored) = self.store().idempotent(permit.actor(), key).await?
        {
            return repeated(stored, digest);
        }
        // Asked for once, however often it is decided anew.
        let mut images = Images::new();
        for _ in 0..TRIES {
            let decided = self.decide(request, terms, permit, &mut images).await?;
            match self.check_and_commit(request, terms, permit, decided).await {
                Err(RequestError::Commit(error)) if has_moved(&error) => {}
                answer => return answer,
            }
        }
        Err(RequestError::Contended)
    }

    async fn decide(
        &self,
        request: &Request,
        terms: &Terms,
        permit: &Permit,
        images: &mut Images,
    ) -> Result<Vec<Decided>, RequestError> {
        let now = self.now();
        let one =
            |world: World, outcome: Result<Outcome, Refused>| Ok(vec![Decided { world, outcome: outcome? }]);
        match request {
            Request::Apply { services, prune } => {
                self.decide_apply(services, prune, terms, permit, images).await
            }
            Request::Deploy { key, content } => {
                let world = self.standing(key, terms).await?;
                self.resolve_for_deploy(&world, content, images).await?;
                let outcome = intent::deploy(&world, content, images, now);
                self.check_target(&world, permit, &outcome)?;
                one(world, outcome)
            }
            Request::Rollback { key, to } => {
                let mut world = self.standing(key, terms).await?;
                world.deployments = self.store().deployments(key, HISTORY).await?;
                let to = to.as_ref().map(|id| named(&world, id)).transpose()?;
                let outcome = intent::rollback(&world, to.as_ref(), now);
                self.check_target(&world, permit, &outcome)?;
                one(world, outcome)
            }
            Request::Cancel { deployment } => {
                let found = self.store().deployment(deployment).await?;
                let found = found.ok_or_else(|| RequestError::NoDeployment(deployment.clone()))?;
                let mut world = self.standing(&found.service, terms).await?;
                if !world.deployments.iter().any(|d| d.id == found.id) {
                    world.deployments.push(found);
                }
                let outcome = intent::cancel(&world, deployment, now);
                one(world, outcome)
            }
            Request::Scale { key, replicas } => {
                let world = self.standing(key, terms).await?;
                check_scaled(&world, *replicas)?;
                let outcome = intent::scale(&world, *replicas, now);
                one(world, outcome)
            }
            Request::Stop { key } => {
                let world = self.standing(key, terms).await?;
                let outcome = intent::stop(&world, now);
                one(world, outcome)
            }
            Request::Start { key } => {
                let world = self.standing(key, terms).await?;
                let outcome = intent::start(&world, now);
                one(world, outcome)
            }
            Request::Restart { key } => {
                let world = self.standing(key, terms).await?;
                let outcome = intent::restart(&world, now);
                one(world, outcome)
            }
            Request::Delete { key } => {
                let world = self.standing(key, terms).await?;
                let outcome = intent::delete(&world, &Owner::Api, now);
                one(world, outcome)
            }
        }
    }

    async fn standing(&self, key: &ServiceKey, terms: &Terms) -> Result<World, RequestError> {
        let (world, _) = self.0.fresh_world(key).await?;
        check_match(&world, terms)?;
        Ok(world)
    }

    async fn decide_apply(
        &self,
        services: &[Declared],
        prune: &BTreeSet<ProjectName>,
        terms: &Terms,
        permit: &Permit,
        images: &mut Images,
    ) -> Result<Vec<Decided>, RequestError> {
        check_declared(services)?;
        check_policy(&self.0.policy, services)?;
        let mut decided = Vec::new();
        for Declared { key, spec } in services {
            let (world, floor) = self.0.fresh_world(key).await?;
            check_match(&world, terms)?;
            self.resolve_for_apply(&world, spec, images).await?;
            let outcome = intent::apply(&world, spec, &Owner::Api, images, self.now())?;
            check_code(permit, self.0.rules, &world.key, spec.kind(), &outcome)?;
            decided.push(Decided { world, outcome: raised(outcome, floor) });
        }
        for key in self.left_over(services, prune) {
            let (world, floor) = self.0.fresh_world(&key).await?;
            let outcome = intent::delete(&world, &Owner::Api, self.now())?;
            decided.push(Decided { world, outcome: raised(outcome, floor) });
        }
        Ok(decided)
    }

    /// Whether this token may run the release that a deploy or a rollback turns to, and whether the policy still allows what
    /// it asks for.
    fn check_target(
        &self,
        world: &World,
        permit: &Permit,
        outcome: &Result<Outcome, Refused>,
    ) -> Result<(), RequestError> {
        let Ok(Outcome::Changed(intent)) = outcome else { return Ok(()) };
        let Some(target) = intent.service.target else { return Ok(()) };
        let begun = intent.releases.iter().find(|release| release.digest() == target);
        let kept = || world.releases.get(&target).map(|release| &**release);
        let Some(release) = begun.or_else(kept) else { return Ok(()) };
        match &release.workload {
            Workload::Process(_) => Ok(permit.may_run(&world.key, self.0.rules)?),
            Workload::Container(container) => {
                allowed(&world.key, policy::forbidden_to(&self.0.policy, container))
            }
            Workload::Site(_) => Ok(()),
        }
    }

    async fn check_conflicts(&self, decided: &[Decided], mut entries: Entries) -> Result<(), RequestError> {
        let intents = decided.iter().filter_map(|d| Some((&d.world, intent_of(d)?)));
        let claims = self.with_brain(|brain| Claims::new(intents, brain.worlds().map(|world| &**world)));
        for digest in claims.artifacts() {
            if let Some(artifact) = self.store().artifact(&digest).await? {
                entries.insert(digest, artifact.top_entries().map(str::to_owned).collect());
            }
        }
        let conflicts = claims.conflicts(&entries);
        if conflicts.is_empty() { Ok(()) } else { Err(RequestError::Conflict(conflicts)) }
    }

    /// What the pruned projects have and the declaration does not.
    fn left_over(&self, services: &[Declared], prune: &BTreeSet<ProjectName>) -> Vec<ServiceKey> {
        let named: BTreeSet<&ServiceKey> = services.iter().map(|declared| &declared.key).collect();
        self.with_brain(|brain| {
            brain
                .worlds()
                .filter(|world| prune.contains(&world.key.project) && !named.contains(&world.key))
                .filter(|world| {
                    world.service.known().is_some_and(|s| s.owner == Owner::Api && s.deleted.is_none())
                })
                .map(|world| world.key.clone())
                .collect()
        })
    }

    /// One at a time of those that take something for themselves: the next is checked against what this one has recorded.
    /// Carried through although whoever asked has gone, since the store goes on as well.
    async fn check_and_commit(
        &self,
        request: &Request,
        terms: &Terms,
        permit: &Permit,
        decided: Vec<Decided>,
    ) -> Result<Answer, RequestError> {
        if !takes(request) {
            return self.commit(request, terms, permit, decided).await;
        }
        let (control, request, terms, permit) =
            (self.clone(), request.clone(), terms.clone(), permit.clone());
        let committed = tokio::spawn(async move {
            let _alone = control.0.taking.lock().await;
            control.check_conflicts(&decided, Entries::new()).await?;
            control.commit(&request, &terms, &permit, decided).await
        });
        match committed.await {
            Ok(answer) => answer,
            Err(broken) => std::panic::resume_unwind(broken.into_panic()),
        }
    }

    async fn commit(
        &self,
        request: &Request,
        terms: &Terms,
        permit: &Permit,
        decided: Vec<Decided>,
    ) -> Result<Answer, RequestError> {
        let applied = Applied { services: decided.iter().map(applied).collect() };
        let keys: Vec<ServiceKey> = decided.iter().map(|d| d.world.key.clone()).collect();
        let commit = IntentCommit {
            at: self.now(),
            audit: decided.iter().filter_map(|d| audit(request, permit, d)).collect(),
            events: decided
                .iter()
                .flat_map(|d| intent_of(d).map(|i| i.events.clone()).unwrap_or_default())
                .collect(),
            services: decided.into_iter().filter_map(service_intent).collect(),
            idempotency: keep(terms, permit, &applied),
        };
        if commit.services.is_empty() && commit.idempotency.is_none() {
            return Ok(Answer::Done(applied));
        }
        let phases: Vec<Phase> =
            commit.services.iter().flat_map(|s| &s.deployments).map(|deployment| deployment.phase).collect();
        failpoints::intended(&phases, "before");
        match self.store().commit_intents(None, commit).await.map_err(RequestError::Commit)? {
            IntentOutcome::Committed { .. } => {}
            IntentOutcome::Replayed(stored) => {
                let digest = terms.idempotency.as_ref().map(|(_, digest)| *digest);
                return repeated(stored, &digest.unwrap_or(stored_digest(&applied)));
            }
        }
        failpoints::intended(&phases, "after_commit");
        for key in &keys {
            self.0.reload(key).await?;
        }
        self.0.wake.notify_one();
        failpoints::intended(&phases, "after_effect");
        Ok(Answer::Done(applied))
    }

    /// Records what was asked for and what happened beside any service.
    pub async fn record(&self, audit: Vec<AuditEntry>, events: Vec<Event>) -> Result<(), RequestError> {
        let commit = IntentCommit { at: self.now(), services: Vec::new(), events, audit, idempotency: None };
        self.store().commit_intents(None, commit).await.map(drop).map_err(RequestError::Commit)
    }

    /// What an apply would change and why, without changing it.
    pub async fn dry_run(
        &self,
        services: &[Declared],
        prune: &BTreeSet<ProjectName>,
        entries: Entries,
        permit: &Permit,
    ) -> Result<Vec<Planned>, RequestError> {
        check_projects(services, prune, permit)?;
        check_declared(services)?;
        let mut images = Images::new();
        let decided = self.decide_apply(services, prune, &Terms::default(), permit, &mut images).await?;
        self.check_conflicts(&decided, entries).await?;
        let cluster = self.with_brain(|brain| brain.snapshot.cluster.clone());
        Ok(decided.iter().map(|decided| planned(decided, &cluster, self.now())).collect())
    }
}

/// Whether what it was decided from is no longer so. A plan moves deployments without moving the intent: one that was
/// open when a request wanted to cancel it may have become active in between.
fn has_moved(error: &CommitError) -> bool {
    match error {
        CommitError::Conflict { .. } => true,
        CommitError::Refused { why, .. } => {
            matches!(
                why,
                Refusal::IllegalPhase { .. }
                    | Refusal::SecondDeployment { .. }
                    | Refusal::NumberReused { .. }
                    // Collected since it was read.
                    | Refusal::MissingRelease { .. }
            )
        }
        CommitError::StaleTerm { .. }
        | CommitError::StaleGeneration { .. }
        | CommitError::StaleRoutes { .. }
        | CommitError::Store(_) => false,
    }
}

fn stored_digest(applied: &Applied) -> Digest {
    Digest::of_value(applied)
}

fn repeated(stored: Stored, digest: &Digest) -> Result<Answer, RequestError> {
    if stored.body_digest != *digest {
        return Err(RequestError::KeyReused);
    }
    Ok(Answer::Repeated { status: stored.status, body: stored.response })
}

fn named(world: &World, id: &DeploymentId) -> Result<Deployment, Refused> {
    let no_such = || Refused::NoSuchDeployment { service: world.key.clone(), id: id.to_string() };
    world.deployments.iter().find(|d| d.id == *id).cloned().ok_or_else(no_such)
}

pub(crate) fn check_declared(services: &[Declared]) -> Result<(), RequestError> {
    if services.is_empty() {
        return Err(RequestError::Empty);
    }
    for Declared { key, spec } in services {
        manifest::validate(spec).map_err(|errors| RequestError::Invalid { service: key.clone(), errors })?;
    }
    Ok(())
}

/// What the route cannot tell: what the body names, and what is deleted on the way.
fn check_permit(request: &Request, permit: &Permit) -> Result<(), Denied> {
    match request {
        Request::Apply { services, prune } => {
            if !prune.is_empty() {
                permit.at_least(Role::Operator)?;
            }
            check_projects(services, prune, permit)
        }
        Request::Delete { key } => {
            permit.at_least(Role::Operator)?;
            permit.covers(&key.project)
        }
        Request::Deploy { key, .. }
        | Request::Rollback { key, .. }
        | Request::Scale { key, .. }
        | Request::Stop { key }
        | Request::Start { key }
        | Request::Restart { key } => permit.covers(&key.project),
        // Its route knows whose the deployment is.
        Request::Cancel { .. } => Ok(()),
    }
}

fn check_projects(
    services: &[Declared],
    prune: &BTreeSet<ProjectName>,
    permit: &Permit,
) -> Result<(), Denied> {
    let named = services.iter().map(|declared| &declared.key.project).chain(prune);
    named.into_iter().try_for_each(|project| permit.covers(project))
}

/// Deploying a process is running code on the machine itself. What changes nothing runs nothing new.
fn check_code(
    permit: &Permit,
    rules: Rules,
    key: &ServiceKey,
    kind: Kind,
    outcome: &Outcome,
) -> Result<(), Denied> {
    match (kind, outcome) {
        (Kind::Process, Outcome::Changed(_)) => permit.may_run(key, rules),
        (Kind::Process, Outcome::Unchanged { .. }) | (Kind::Site | Kind::Container, _) => Ok(()),
    }
}

fn check_policy(policy: &Policy, services: &[Declared]) -> Result<(), RequestError> {
    services.iter().try_for_each(|Declared { key, spec }| allowed(key, policy::forbidden(policy, spec)))
}

fn allowed(service: &ServiceKey, errors: Vec<FieldError>) -> Result<(), RequestError> {
    if errors.is_empty() { Ok(()) } else { Err(RequestError::Invalid { service: service.clone(), errors }) }
}

/// The checks of a declaration also bind what `scale` makes of it.
fn check_scaled(world: &World, replicas: u64) -> Result<(), RequestError> {
    let (Some(service), Ok(replicas)) = (world.service.known(), u32::try_from(replicas)) else {
        return Ok(());
    };
    let spec = ServiceSpec { replicas: replicas.min(model::spec::MAX_REPLICAS), ..service.spec.clone() };
    manifest::validate(&spec).map_err(|errors| RequestError::Invalid { service: world.key.clone(), errors })
}

fn check_match(world: &World, terms: &Terms) -> Result<(), RequestError> {
    let found = world.service.known().map_or(IntentSeq(0), |service| service.intent_seq);
    match terms.if_match {
        Some(expected) if expected != found => {
            Err(RequestError::Mismatch { service: world.key.clone(), expected, found })
        }
        Some(_) | None => Ok(()),
    }
}

/// Whether it may give a service what another has.
fn takes(request: &Request) -> bool {
    match request {
        Request::Apply { .. } | Request::Deploy { .. } | Request::Rollback { .. } => true,
        // What it brings back was held all the time.
        Request::Cancel { .. }
        | Request::Scale { .. }
        | Request::Stop { .. }
        | Request::Start { .. }
        | Request::Restart { .. }
        | Request::Delete { .. } => false,
    }
}

pub(crate) fn intent_of(decided: &Decided) -> Option<&Intent> {
    match &decided.outcome {
        Outcome::Changed(intent) => Some(intent),
        Outcome::Unchanged { .. } => None,
    }
}

fn applied(decided: &Decided) -> AppliedService {
    let key = &decided.world.key;
    let intent = intent_of(decided);
    let service = intent.map(|intent| &intent.service).or(decided.world.service.known());
    let (deployment, message) = match &decided.outcome {
        Outcome::Changed(intent) => {
            let begun = intent.deployments.iter().filter(|d| d.phase.is_open()).max_by_key(|d| d.number);
            (begun.or(intent.deployments.last()).map(|d| d.id.clone()), intent.message.clone())
        }
        Outcome::Unchanged { message } => (None, message.clone()),
    };
    AppliedService {
        project: key.project.clone(),
        name: key.name.clone(),
        changed: intent.is_some(),
        generation: service.map_or(0, |service| service.generation.0),
        revision: service.map_or(0, |service| service.intent_seq.0),
        deployment,
        message,
    }
}

/// A service that is declared anew goes on above the counters of an earlier one of its name.
fn raised(mut outcome: Outcome, floor: Option<Floor>) -> Outcome {
    if let (Outcome::Changed(intent), Some(floor)) = (&mut outcome, floor) {
        let service = &mut intent.service;
        service.intent_seq = service.intent_seq.max(floor.intent.next());
        service.generation = service.generation.max(floor.generation.next());
    }
    outcome
}

/// The record to write.
fn service_intent(decided: Decided) -> Option<ServiceIntent> {
    let Outcome::Changed(intent) = decided.outcome else { return None };
    let Intent { service, releases, deployments, .. } = *intent;
    let expected = match decided.world.service.known() {
        Some(before) => Expected::Intent(before.intent_seq),
        None => Expected::Absent,
    };
    Some(ServiceIntent { expected, service, releases, deployments })
}

fn audit(request: &Request, permit: &Permit, decided: &Decided) -> Option<AuditEntry> {
    let intent = intent_of(decided)?;
    let action = match request {
        Request::Apply { .. } if intent.service.deleted.is_some() => "prune",
        Request::Apply { .. } => "apply",
        Request::Deploy { .. } => "deploy",
        Request::Rollback { .. } => "rollback",
        Request::Cancel { .. } => "cancel",
        Request::Scale { .. } => "scale",
        Request::Stop { .. } => "stop",
        Request::Start { .. } => "start",
        Request::Restart { .. } => "restart",
        Request::Delete { .. } => "delete",
    };
    Some(AuditEntry {
        actor: permit.actor().into(),
        action: action.into(),
        subject: decided.world.key.to_string(),
        detail: serde_json::json!({
            "generation": intent.service.generation,
            "target": intent.service.target,
            "message": intent.message,
        }),
    })
}

fn keep(terms: &Terms, permit: &Permit, applied: &Applied) -> Option<Idempotency> {
    let (key, body_digest) = terms.idempotency.clone()?;
    let response = serde_json::to_string(applied).ok()?;
    Some(Idempotency { scope: permit.actor().into(), key, body_digest, status: 200, response })
}

pub(crate) fn planned(decided: &Decided, cluster: &decide::world::Cluster, now: model::Timestamp) -> Planned {
    let key = &decided.world.key;
    let base = |action: &str, message: &str| Planned {
        project: key.project.clone(),
        name: key.name.clone(),
        action: action.into(),
        message: message.into(),
        changes: Vec::new(),
        waiting: Vec::new(),
        notes: Vec::new(),
    };
    let intent = match &decided.outcome {
        Outcome::Unchanged { message } => {
            let standing = decided.world.service.known();
            let notes = standing.map(|service| manifest::notes(&service.spec)).unwrap_or_default();
            let notes = notes.iter().map(ToString::to_string).collect();
            return Planned { notes, ..base("none", message) };
        }
        Outcome::Changed(intent) => intent,
    };
    let action = match decided.world.service.known() {
        _ if intent.service.deleted.is_some() => "delete",
        None => "create",
        Some(_) => "change",
    };
    let (_, report) = plan_service(&intent::after(&decided.world, intent), cluster, now);
    let events = intent.events.iter().map(|event| event.message.clone());
    Planned {
        changes: events.chain(decide::plan::changes(&report).map(Change::to_string)).collect(),
        waiting: decide::plan::waits(&report).map(Waiting::to_string).collect(),
        notes: manifest::notes(&intent.service.spec).iter().map(ToString::to_string).collect(),
        ..base(action, &intent.message)
    }
}
