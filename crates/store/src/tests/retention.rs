//! Whatever a service has been through, what it may need again is kept.

use std::collections::{BTreeMap, BTreeSet};

use model::{
    Digest, Incarnation, InstanceId, Slot,
    deployment::{Deployment, Phase},
    instance::{Attempts, Placement, Stage},
    plan::ServicePlan,
    release::Release,
};
use proptest::prelude::*;

use crate::{conformance::*, prune::Keeper};

fn digest(version: u32) -> Digest {
    release(version).digest()
}

prop_compose! {
    /// Histories need not be sensible: what must stay, stays in any.
    fn any_keeper()(
        retain in 0_u32..4,
        declared in 0_u32..8,
        target in prop::option::of(0_u32..8),
        placed in prop::collection::vec(0_u32..8, 0..4),
        history in prop::collection::vec((0_u32..8, prop::option::of(0_u32..8), 0..Phase::ALL.len()), 0..20),
    ) -> Keeper {
        let mut service = service("api", 1, declared);
        service.spec.retain = retain;
        service.target = target.map(digest);
        let deployments = (1_u64..).zip(history).map(|(number, (version, previous, phase))| {
            let previous = previous.map(digest);
            Deployment { previous, ..deployment("api", number, digest(version), Phase::ALL[phase]) }
        });
        let mut deployments: Vec<_> = deployments.collect();
        deployments.reverse();
        Keeper { service, plan: plan(&placed), deployments }
    }
}

fn plan(placed: &[u32]) -> ServicePlan {
    let placements = (0_u32..).zip(placed).map(|(slot, version)| {
        let id = InstanceId { service: key("api"), slot: Slot(slot), incarnation: Incarnation(0) };
        let placement = Placement {
            id: id.clone(),
            node: "local".parse().unwrap(),
            release: digest(*version),
            deployment: "x".parse().unwrap(),
            restart_epoch: 0,
            created_at: AT,
            stage: Stage::Kept,
            attempts: Attempts::default(),
        };
        (id, placement)
    });
    ServicePlan { placements: placements.collect::<BTreeMap<_, _>>(), ..ServicePlan::default() }
}

/// Said from the user's side, not as the code does it.
fn needed(keeper: &Keeper) -> BTreeSet<Digest> {
    let Keeper { service, plan, deployments } = keeper;
    let mut needed = BTreeSet::from([Release::of(&service.spec).digest()]);
    needed.extend(service.target);
    needed.extend(plan.placements.values().map(|p| p.release));
    for (age, deployment) in deployments.iter().enumerate() {
        let standing = deployment.phase.is_open() || deployment.phase == Phase::Active;
        if standing || age < service.spec.retain as usize {
            needed.insert(deployment.release);
        }
        if deployment.phase.is_open() {
            needed.extend(deployment.previous);
        }
    }
    needed.extend(good(keeper).into_iter().take(service.spec.retain as usize + 1));
    needed
}

/// Releases that have served, newest first, each once.
fn good(keeper: &Keeper) -> Vec<Digest> {
    let mut good = Vec::new();
    for deployment in &keeper.deployments {
        if deployment.phase.progress() == 100 && !good.contains(&deployment.release) {
            good.push(deployment.release);
        }
    }
    good
}

proptest! {
    #[test]
    fn no_release_that_may_be_needed_is_forgotten(keeper in any_keeper()) {
        let (kept, needed) = (keeper.releases(), needed(&keeper));
        prop_assert!(needed.is_subset(&kept), "lost {:?}", needed.difference(&kept).collect::<Vec<_>>());
    }

    #[test]
    fn kept_releases_are_bounded_by_retain(keeper in any_keeper()) {
        let retain = keeper.service.spec.retain as usize + 1;
        let standing = keeper.deployments.iter().filter(|d| d.phase.is_open() || d.phase == Phase::Active).count();
        let bound = 2 + keeper.plan.placements.len() + 2 * standing + 3 * retain;
        prop_assert!(keeper.releases().len() <= bound);
    }

    #[test]
    fn deployments_that_a_pass_looks_at_stay(keeper in any_keeper(), history in 0_usize..5) {
        let kept = keeper.deployments(history);
        let newest = keeper.deployments.first();
        let open = keeper.deployments.iter().filter(|d| d.phase.is_open() || d.phase == Phase::Active);
        let was_active = keeper.deployments.iter().find(|d| d.phase.progress() == 100);
        for deployment in open.chain(newest).chain(was_active) {
            prop_assert!(kept.contains(&deployment.number), "{deployment:?}");
        }
    }
}
