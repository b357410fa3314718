//! The last issue of each service, read off the stored events: what happened before a restart of Setpoint is told
//! after it. Read when somebody asks, and then only what is new; when that is much, only the newest of each service.

use std::collections::BTreeMap;

use decide::monitor;
use model::{
    ServiceKey, Timestamp,
    event::{Kind, Recorded},
};
use store::{EventFilter, Store, StoreError};

/// Events read at once.
const PAGE: u32 = 1000;

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Issue {
    pub at: Timestamp,
    /// The event's own.
    pub message: String,
}

#[derive(Debug, Default)]
pub(crate) struct Issues {
    /// Events up to this one are taken in.
    after: u64,
    last: BTreeMap<ServiceKey, Issue>,
}

impl Issues {
    pub async fn catch_up(&mut self, store: &Store) -> Result<(), StoreError> {
        let latest = *store.subscribe().borrow();
        if self.after == 0 || latest.saturating_sub(self.after) > u64::from(PAGE) {
            let kinds: Vec<Kind> =
                Kind::ALL.iter().copied().filter(|kind| monitor::is_issue(*kind)).collect();
            self.last.clear();
            store.newest_events(&kinds).await?.into_iter().for_each(|recorded| self.take(recorded));
            self.after = latest;
        }
        while self.after < latest {
            let page = store.events_after(self.after, &EventFilter::default(), PAGE).await?;
            // What cannot be read is left out; the rest of an empty page is not there.
            self.after = page.last().map_or(latest, |last| last.seq);
            page.into_iter().for_each(|recorded| self.take(recorded));
        }
        Ok(())
    }

    fn take(&mut self, recorded: Recorded) {
        let Some(service) = recorded.event.service else { return };
        if recorded.event.kind == Kind::ServicePurged {
            self.last.remove(&service);
        } else if monitor::is_issue(recorded.event.kind) {
            self.last.insert(service, Issue { at: recorded.at, message: recorded.event.message });
        }
    }

    pub fn last(&self) -> &BTreeMap<ServiceKey, Issue> {
        &self.last
    }
}
