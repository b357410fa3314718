//! Forgetting what nobody needs, by count and age. What a rollback may need is never forgotten, and of a service
//! that cannot be read nothing is.

use std::collections::BTreeSet;

use model::{
    Millis, ReleaseDigest, ServiceKey, Timestamp,
    deployment::{Cause, Deployment, Phase},
    plan::ServicePlan,
    release::Release,
    service::Service,
};

use crate::{
    Store,
    backend::{Tx, args},
    deployment,
    error::StoreError,
    meta, release,
};

/// How much is kept.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Retention {
    /// Journal lines of each service; the latest and the latest that decided something always stay.
    pub journal_per_service: u32,
    pub journal_age: Millis,
    pub events: u32,
    pub events_age: Millis,
    pub idempotency_age: Millis,
    /// Ended deployments of each service, as history. Which releases stay is the service's own `retain`.
    pub deployments_per_service: u32,
}

impl Default for Retention {
    fn default() -> Self {
        Self {
            journal_per_service: 200,
            journal_age: Millis(7 * 86_400_000),
            events: 100_000,
            events_age: Millis(30 * 86_400_000),
            idempotency_age: Millis(86_400_000),
            deployments_per_service: 50,
        }
    }
}

/// How many rows went.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Pruned {
    pub journal: u64,
    pub worlds: u64,
    pub events: u64,
    pub idempotency: u64,
    pub deployments: u64,
    pub releases: u64,
    /// Whose deployments or releases these were.
    pub services: BTreeSet<ServiceKey>,
}

const JOURNAL: &str = "DELETE FROM journal WHERE seq IN (SELECT seq FROM \
     (SELECT seq, service, at, ROW_NUMBER() OVER (PARTITION BY service ORDER BY seq DESC) AS nth, \
     COALESCE(MAX(CASE WHEN decision IS NULL THEN NULL ELSE seq END) OVER (PARTITION BY service), 0) AS decided \
     FROM journal) ranked \
     WHERE (nth > $1 AND seq <> decided) OR (at < $2 AND ((nth > 1 AND seq <> decided) OR NOT EXISTS \
     (SELECT 1 FROM services WHERE services.key = ranked.service AND services.service IS NOT NULL))))";
const WORLDS: &str =
    "DELETE FROM worlds WHERE NOT EXISTS (SELECT 1 FROM journal WHERE journal.world = worlds.digest)";
const EVENTS: &str = "DELETE FROM events WHERE at < $1 OR seq <= $2";
const IDEMPOTENCY: &str = "DELETE FROM idempotency WHERE at < $1";
/// A service with one deployment and one release has nothing to forget.
const CANDIDATES: &str = "SELECT key FROM services WHERE service IS NOT NULL AND \
     (1 < (SELECT COUNT(*) FROM deployments d WHERE d.service = services.key) \
     OR 1 < (SELECT COUNT(*) FROM releases r WHERE r.service = services.key))";
const SERVICE: &str = "SELECT service, plan FROM services WHERE key = $1 AND service IS NOT NULL";
const DEPLOYMENTS: &str = "SELECT content FROM deployments WHERE service = $1 ORDER BY number DESC";
const RELEASES: &str = "SELECT digest FROM releases WHERE service = $1";

/// All of a service that decides what stays.
#[derive(Debug)]
pub(crate) struct Keeper {
    pub(crate) service: Service,
    pub(crate) plan: ServicePlan,
    /// Newest first.
    pub(crate) deployments: Vec<Deployment>,
}

impl Keeper {
    /// Numbers of the deployments that stay: the recent ones, those that hold a release that stays for rollback,
    /// and what a load gives.
    pub(crate) fn deployments(&self, history: usize) -> BTreeSet<u64> {
        let recent = self.deployments.iter().take(history.max(self.retain()));
        let standing = self.deployments.iter().filter(|d| d.phase.is_open() || d.phase == Phase::Active);
        let intended = self.deployments.iter().find(|d| d.cause != Cause::Restore);
        let numbers = recent.chain(standing).chain(self.rollback_targets()).chain(intended);
        numbers.map(|d| d.number).collect()
    }

    /// Digests of the releases that stay.
    pub(crate) fn releases(&self) -> BTreeSet<ReleaseDigest> {
        let declared = Release::of(&self.service.spec).digest();
        let placed = self.plan.placements.values().map(|placement| placement.release);
        let recent = self.deployments.iter().take(self.retain());
        let standing = self.deployments.iter().filter(|d| d.phase.is_open() || d.phase == Phase::Active);
        let deployed = recent.chain(standing).chain(self.rollback_targets());
        let deployed = deployed.flat_map(|d| [Some(d.release), d.previous.filter(|_| !d.phase.is_ended())]);
        placed.chain(self.service.target).chain([declared]).chain(deployed.flatten()).collect()
    }

    /// The current release is not an earlier one, so one more than `retain`.
    fn retain(&self) -> usize {
        self.service.spec.retain as usize + 1
    }

    /// The latest deployment of each of the last releases that have been active. Failed attempts in between do not
    /// push a good release out.
    fn rollback_targets(&self) -> impl Iterator<Item = &Deployment> {
        let mut seen = BTreeSet::new();
        self.deployments
            .iter()
            .filter(|d| matches!(d.phase, Phase::Active | Phase::Superseded | Phase::RolledBack))
            .filter(move |d| seen.insert(d.release))
            .take(self.retain())
    }
}

/// `None` when it was purged meanwhile.
async fn keeper(tx: &mut Tx, key: &ServiceKey) -> Result<Option<Keeper>, StoreError> {
    let Some(mut row) = tx.one(SERVICE, args![key]).await? else { return Ok(None) };
    let (service, plan) = (row.json("the record of the service")?, row.json("the plan of the service")?);
    let rows = tx.all(DEPLOYMENTS, args![key]).await?;
    let deployments = rows.into_iter().map(|mut row| row.json("a deployment")).collect::<Result<_, _>>()?;
    Ok(Some(Keeper { service, plan, deployments }))
}

async fn prune_service(tx: &mut Tx, key: &ServiceKey, history: usize) -> Result<(u64, u64), StoreError> {
    let Some(keeper) = keeper(tx, key).await? else { return Ok((0, 0)) };
    let (mut deployments, mut releases) = (0, 0);
    let kept = keeper.deployments(history);
    for gone in keeper.deployments.iter().filter(|d| !kept.contains(&d.number)) {
        deployments += deployment::forget(tx, key, gone.number).await?;
    }
    let kept = keeper.releases();
    for mut row in tx.all(RELEASES, args![key]).await? {
        let digest = row.parse("the digest of a release")?;
        if !kept.contains(&digest) {
            releases += release::forget(tx, key, digest).await?;
        }
    }
    Ok((deployments, releases))
}

impl Store {
    /// Forgets what `retention` and the services' own `retain` let go. In several short transactions, so that
    /// commits are not held up.
    pub async fn prune(&self, now: Timestamp, retention: &Retention) -> Result<Pruned, StoreError> {
        let mut pruned = Pruned::default();
        self.prune_services(retention, &mut pruned).await?;
        self.prune_logs(now, retention, &mut pruned).await?;
        Ok(pruned)
    }

    async fn prune_services(&self, retention: &Retention, pruned: &mut Pruned) -> Result<(), StoreError> {
        let candidates = self.0.backend.read().await?.all(CANDIDATES, vec![]).await?;
        for mut row in candidates {
            let Ok(key) = row.parse::<ServiceKey>("a service") else { continue };
            let mut tx = self.0.backend.write().await?;
            match prune_service(&mut tx, &key, retention.deployments_per_service as usize).await {
                Ok((deployments, releases)) => {
                    tx.commit().await?;
                    pruned.deployments += deployments;
                    pruned.releases += releases;
                    if deployments + releases > 0 {
                        pruned.services.insert(key);
                    }
                }
                Err(error @ StoreError::Unreadable { .. }) => {
                    tracing::warn!(service = %key, %error, "not pruned: it cannot be read");
                }
                Err(error) => return Err(error),
            }
        }
        Ok(())
    }

    async fn prune_logs(
        &self,
        now: Timestamp,
        retention: &Retention,
        pruned: &mut Pruned,
    ) -> Result<(), StoreError> {
        let lines = u64::from(retention.journal_per_service.max(1));
        pruned.journal = self.forget(JOURNAL, args![lines, now - retention.journal_age]).await?;
        pruned.worlds = self.forget(WORLDS, vec![]).await?;
        let latest = meta::counter(&mut self.0.backend.read().await?, "event_seq").await?;
        let oldest = latest.saturating_sub(u64::from(retention.events));
        pruned.events = self.forget(EVENTS, args![now - retention.events_age, oldest]).await?;
        pruned.idempotency = self.forget(IDEMPOTENCY, args![now - retention.idempotency_age]).await?;
        Ok(())
    }

    async fn forget(&self, sql: &'static str, args: Vec<crate::backend::Arg>) -> Result<u64, StoreError> {
        let mut tx = self.0.backend.write().await?;
        let gone = tx.execute(sql, args).await?;
        tx.commit().await?;
        Ok(gone)
    }
}
