//! Small values to store. Panics tell which one could not be made.

use std::{collections::BTreeMap, sync::Arc};

use model::{
    ArtifactDigest, DeploymentId, Generation, Holder, Incarnation, InstanceId, IntentSeq, Millis,
    ReleaseDigest, ServiceKey, Slot, Term, Timestamp,
    artifact::{Artifact, File},
    deployment::{Cause, Deployment, Phase},
    event::{Event, Kind},
    instance::{Attempts, Placement, Stage},
    plan::{Decision, Parent, Plan, Report, Rollout, ServicePlan},
    release::Release,
    service::{Owner, Service},
    spec::{
        DeployPolicy, DriftPolicy, Health, Process, Resources, RestartPolicy, ServiceSpec, Site, StopPolicy,
        Template, Workload,
    },
};

use crate::{
    AuditEntry, Expected, IntentCommit, IntentOutcome, JournalEntry, ServiceIntent, ServiceRow, Store,
};

pub(crate) const AT: Timestamp = Timestamp(1_000_000);

pub(crate) fn key(name: &str) -> ServiceKey {
    name.parse().expect("a service key")
}

pub(crate) fn holder(name: &str) -> Holder {
    name.parse().expect("a holder")
}

pub(crate) fn spec(version: u32) -> ServiceSpec {
    let process = Process { command: vec![Template(format!("./app-{version}"))], workdir: None, user: None };
    ServiceSpec {
        workload: Workload::Process(process),
        replicas: 1,
        domains: vec![],
        env: BTreeMap::new(),
        files: BTreeMap::new(),
        port: None,
        health: Health::default(),
        restart: RestartPolicy::default(),
        stop: StopPolicy::default(),
        deploy: DeployPolicy::default(),
        drift: DriftPolicy::default(),
        resources: Resources::default(),
        retain: 2,
    }
}

pub(crate) fn release(version: u32) -> Release {
    Release::of(&spec(version))
}

pub(crate) fn site(artifact: ArtifactDigest) -> Release {
    let site = Site { artifact: Some(artifact), origin: None, webroot: None, spa: false };
    Release { workload: Workload::Site(site), ..release(1) }
}

pub(crate) fn artifact(text: &str) -> Artifact {
    let digest = model::Digest::of_bytes(text.as_bytes());
    let file = File { digest, size: text.len() as u64, executable: false };
    Artifact { files: [("index.html".parse().expect("a path"), file)].into() }
}

pub(crate) fn service(name: &str, intent: u64, version: u32) -> Service {
    Service {
        key: key(name),
        generation: Generation(intent),
        intent_seq: IntentSeq(intent),
        owner: Owner::Api,
        spec: spec(version),
        target: Some(release(version).digest()),
        scale: None,
        stopped: false,
        restart_epoch: 0,
        deleted: None,
        created_at: AT,
        updated_at: AT,
    }
}

pub(crate) fn deployment(name: &str, number: u64, release: ReleaseDigest, phase: Phase) -> Deployment {
    Deployment {
        id: DeploymentId::derive(&key(name), number, AT),
        service: key(name),
        number,
        release,
        previous: None,
        cause: Cause::Apply,
        phase,
        started_at: AT,
        phase_updated_at: AT,
        ended_at: phase.is_ended().then_some(AT),
        message: String::new(),
        metadata: BTreeMap::new(),
    }
}

pub(crate) fn event(name: &str, message: &str) -> Event {
    Event {
        kind: Kind::ServiceApplied,
        service: Some(key(name)),
        instance: None,
        deployment: None,
        message: message.into(),
    }
}

pub(crate) fn audited(action: &str) -> AuditEntry {
    AuditEntry {
        actor: "admin".into(),
        action: action.into(),
        subject: "default/api".into(),
        detail: serde_json::json!({ "b": 1, "a": [true, null] }),
    }
}

pub(crate) fn intent(expected: Expected, service: Service, deployments: Vec<Deployment>) -> ServiceIntent {
    let releases = vec![Release::of(&service.spec)];
    ServiceIntent { expected, service, releases, deployments }
}

pub(crate) fn commit(services: Vec<ServiceIntent>) -> IntentCommit {
    IntentCommit { at: AT, services, events: vec![], audit: vec![], idempotency: None }
}

/// A service of version 1 with its first deployment queued.
pub(crate) fn first(name: &str) -> ServiceIntent {
    let queued = deployment(name, 1, release(1).digest(), Phase::Queued);
    intent(Expected::Absent, service(name, 1, 1), vec![queued])
}

pub(crate) async fn create(store: &Store, name: &str) -> ServiceRow {
    let outcome = store.commit_intents(None, commit(vec![first(name)])).await.expect("it is new");
    assert!(matches!(outcome, IntentOutcome::Committed { .. }));
    load(store, name).await
}

pub(crate) async fn load(store: &Store, name: &str) -> ServiceRow {
    store.load(&key(name)).await.expect("it can be read").expect("it is there")
}

/// The decision that changes nothing but the plan's sequence.
pub(crate) fn decision(row: &ServiceRow) -> Decision {
    Decision {
        key: row.service.key.clone(),
        parent: row.parent(),
        plan: ServicePlan { seq: row.plan.seq.next(), ..row.plan.clone() },
        service: None,
        deployments: vec![],
        events: vec![],
        purge: false,
    }
}

/// A decision that also advances the newest deployment.
pub(crate) fn reaching(row: &ServiceRow, phase: Phase) -> Decision {
    let newest = row.deployments.last().expect("it has one").clone();
    let deployments = vec![Deployment { phase, ..newest }];
    Decision { deployments, ..decision(row) }
}

pub(crate) fn placing(row: &ServiceRow, release: ReleaseDigest) -> Decision {
    let incarnation = row.plan.next_incarnation;
    let id = InstanceId { service: row.service.key.clone(), slot: Slot(0), incarnation };
    let placement = Placement {
        id: id.clone(),
        node: "local".parse().expect("a node"),
        release,
        deployment: row.deployments.last().expect("it has one").id.clone(),
        restart_epoch: 0,
        created_at: AT,
        stage: Stage::Run,
        attempts: Attempts::default(),
    };
    let mut decision = decision(row);
    decision.plan.placements.insert(id, placement);
    decision.plan.next_incarnation = Incarnation(incarnation.0 + 1);
    decision.plan.rollout = Rollout { progress: 1, progressed_at: AT, held_since: None };
    decision
}

/// A leader and the plans that it makes.
#[derive(Debug, Clone)]
pub(crate) struct Leader {
    pub(crate) term: Term,
    pub(crate) holder: Holder,
}

impl Leader {
    pub(crate) async fn of(store: &Store, name: &str) -> Self {
        let holder = holder(name);
        let term = store.acquire_term(&holder, Term(0)).await.expect("a term can begin");
        Self { term, holder }
    }

    /// A plan that is due next.
    pub(crate) async fn plan(&self, store: &Store, decisions: Vec<Decision>) -> Arc<Plan> {
        let counters = store.counters().await.expect("counters can be read");
        Arc::new(Plan {
            term: self.term,
            holder: self.holder.clone(),
            at: AT + Millis(1),
            generation: counters.generation.next(),
            route_revision: counters.route_revision,
            decisions,
        })
    }

    pub(crate) async fn commit(&self, store: &Store, decision: Decision) {
        let plan = self.plan(store, vec![decision]).await;
        store.commit_plan(plan, vec![]).await.expect("it stands on what is stored");
    }
}

pub(crate) fn journalled(name: &str, world: &str, at: Timestamp) -> JournalEntry {
    JournalEntry {
        key: key(name),
        at,
        world_digest: model::Digest::of_bytes(world.as_bytes()),
        world: world.as_bytes().to_vec(),
        decision: Some(Decision {
            key: key(name),
            parent: Parent::default(),
            plan: ServicePlan::default(),
            service: None,
            deployments: vec![],
            events: vec![event(name, "planned")],
            purge: false,
        }),
        report: Report { holds_until: Some(at), ..Report::default() },
    }
}
