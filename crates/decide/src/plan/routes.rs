//! Step 6: which instances take requests. Only ready ones of which the node has told an address; for a site the one
//! that `current` shows, until what follows it is there. What is unknown keeps the routes that it has.

use std::sync::Arc;

use model::{
    InstanceId, Timestamp,
    instance::Placement,
    plan::StepReport,
    reason::{Change, Waiting},
    release::Release,
    route::{Backend, Endpoint, ServiceRoute},
    spec::{Domain, Workload},
};

use super::{
    classify::{Class, Readiness},
    work::Work,
};

pub fn step(work: &mut Work<'_>) -> StepReport {
    let mut report = StepReport::default();
    let wanted = route(work);
    let same = match (&work.plan.route, &wanted) {
        (Some(now), Some((domains, backend))) => now.domains == *domains && now.backend == *backend,
        (None, None) => true,
        (Some(_), None) | (None, Some(_)) => false,
    };
    if !same {
        let revision = work.next_revision();
        let endpoints = wanted.as_ref().map_or(0, |(_, backend)| backend.instances().len());
        work.plan.route = wanted.map(|(domains, backend)| {
            let taken = taken(work, &domains, &backend);
            Arc::new(ServiceRoute { revision, domains, backend, taken })
        });
        report.changed.push(Change::RoutesChanged { revision, endpoints });
    }
    if let Some(route) = &work.plan.route
        && work.world.edges.values().any(|edge| !edge.silent && edge.served < route.revision)
    {
        report.waiting.push(Waiting::EdgesServe { revision: route.revision });
    }
    report
}

/// What only still serves, or comes back in a restoration, has not taken its domains anew.
fn taken(work: &Work<'_>, domains: &[Domain], backend: &Backend) -> Option<Timestamp> {
    let before = work.plan.route.as_ref().filter(|route| route.domains == domains);
    let declares = work.service.spec.domains == domains && *backend != Backend::Nothing;
    before.and_then(|route| route.taken).or(declares.then_some(work.now))
}

fn route(work: &Work<'_>) -> Option<(Vec<Domain>, Backend)> {
    let (shown, backend) = match shown_site(work) {
        Some(placement) => site(work, placement),
        None => proxy(work),
    };
    // Its domains are free: with an empty route it would stand before whoever has them next.
    if work.service.deleted.is_some() && backend == Backend::Nothing {
        return None;
    }
    let release = shown.or_else(|| work.target().and_then(|target| work.release(&target)))?;
    (!release.domains.is_empty()).then(|| (release.domains.clone(), backend))
}

/// The release whose domains count, and what they lead to. The domains are those of the release that serves, so
/// that a rollout that fails has never moved them; they move when the first instance of the target is ready.
fn proxy<'a>(work: &Work<'a>) -> (Option<&'a Release>, Backend) {
    let serving: Vec<&Placement> =
        work.placements().filter(|p| work.runs(p) && takes_requests(work, p)).collect();
    let newest = serving.iter().max_by_key(|p| (Some(p.release) == work.target(), p.id.incarnation));
    let shown = newest.and_then(|p| work.release(&p.release));
    let endpoints: Vec<Endpoint> = serving.iter().filter_map(|p| endpoint(work, p)).collect();
    let backend = if endpoints.is_empty() { Backend::Nothing } else { Backend::Proxy { endpoints } };
    (shown, backend)
}

fn takes_requests(work: &Work<'_>, placement: &Placement) -> bool {
    let readiness = match work.classes.get(&placement.id) {
        Some(Class::Current(readiness) | Class::Outdated(readiness)) => *readiness,
        Some(Class::Kept | Class::Leaving) | None => return false,
    };
    match readiness {
        Readiness::Ready => true,
        Readiness::Unknown => routed_before(work, &placement.id).is_some(),
        Readiness::Coming | Readiness::Failed => false,
    }
}

fn endpoint(work: &Work<'_>, placement: &Placement) -> Option<Endpoint> {
    match work.world.report(&placement.id).and_then(|seen| seen.address.clone()) {
        Some(address) => Some(Endpoint { instance: placement.id.clone(), address, weight: 1 }),
        None => routed_before(work, &placement.id),
    }
}

fn routed_before(work: &Work<'_>, id: &InstanceId) -> Option<Endpoint> {
    match &work.world.plan.route.as_ref()?.backend {
        Backend::Proxy { endpoints } => endpoints.iter().find(|e| e.instance == *id).cloned(),
        Backend::Files { .. } | Backend::Nothing => None,
    }
}

/// What `current` shows; where the service is no site any more, until its successors have sent it on its way.
fn shown_site<'w>(work: &'w Work<'_>) -> Option<&'w Placement> {
    work.plan.placements.get(work.plan.current.as_ref()?).filter(|p| p.stage.is_run())
}

/// Whatever its folder looks like just now: damage is healed in place.
fn site<'a>(work: &Work<'a>, placement: &Placement) -> (Option<&'a Release>, Backend) {
    let release = work.release(&placement.release);
    let spa = release.is_some_and(|r| matches!(&r.workload, Workload::Site(site) if site.spa));
    let folder = work.world.report(&placement.id).and_then(|seen| seen.folder.clone());
    let backend = match folder {
        Some(folder) => Backend::Files { instance: placement.id.clone(), folder, spa },
        None => match work.world.plan.route.as_ref().map(|route| &route.backend) {
            Some(before @ Backend::Files { instance, .. }) if *instance == placement.id => before.clone(),
            _ => Backend::Nothing,
        },
    };
    (release, backend)
}
