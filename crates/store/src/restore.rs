//! What a store must become after it was brought back from a backup: ahead of everything that was given out since the
//! backup was made. Refuses to know how far that is: see `decide::recovery`.

use model::{Incarnation, Timestamp, plan::ServicePlan};

use crate::{
    Store,
    audit::{self, AuditEntry},
    backend::{Tx, args},
    error::StoreError,
    event::encode,
    meta,
};

/// How far the counters go up, each by so much.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Raise {
    /// Terms, generations and revisions of routes: nodes and edges refuse what is older than what they have accepted.
    pub terms: u64,
    /// Of every service, so that no instance gets the id of one that was placed since the backup.
    pub incarnations: u64,
}

const RAISE_TERM: &str = "UPDATE leader_term SET term = term + $1";
const RAISE_COUNTERS: &str =
    "UPDATE counters SET value = value + $1 WHERE name IN ('generation', 'route_revision')";
const RAISE_INCARNATIONS: &str = "UPDATE services SET next_incarnation = next_incarnation + $1";
const PLANS: &str = "SELECT key, plan FROM services WHERE plan IS NOT NULL";
const WRITE_PLAN: &str = "UPDATE services SET plan = $2 WHERE key = $1";

async fn raise(tx: &mut Tx, by: Raise) -> Result<(), StoreError> {
    tx.execute(RAISE_TERM, args![by.terms]).await?;
    tx.execute(RAISE_COUNTERS, args![by.terms]).await?;
    tx.execute(RAISE_INCARNATIONS, args![by.incarnations]).await?;
    for mut row in tx.all(PLANS, vec![]).await? {
        let (Ok(key), Ok(text)) = (row.text(), row.text()) else { continue };
        // One that cannot be read stays as it is, and so does its service.
        let Ok(mut plan) = serde_json::from_str::<ServicePlan>(&text) else { continue };
        plan.next_incarnation = Incarnation(plan.next_incarnation.0 + by.incarnations);
        tx.execute(WRITE_PLAN, args![key, encode(&plan)?]).await?;
    }
    Ok(())
}

impl Store {
    /// Puts a restored store ahead of what was given out since its backup, and records that.
    pub async fn put_ahead(&self, by: Raise, at: Timestamp, audit: AuditEntry) -> Result<(), StoreError> {
        let store = self.clone();
        Self::finish(async move {
            let mut tx = store.0.backend.write().await?;
            raise(&mut tx, by).await?;
            audit::append(&mut tx, at, &[audit]).await?;
            meta::note_time(&mut tx, at).await?;
            tx.commit().await
        })
        .await
    }
}
