//! Service rows: the record, its plan and what hangs on them, loaded as one value. A row that cannot be read is
//! told as such and never left out: absent would mean that everything of it may go.

use std::{collections::BTreeMap, sync::Arc};

use model::{
    Generation, Incarnation, IntentSeq, PlanSeq, ReleaseDigest, ServiceKey,
    deployment::Deployment,
    plan::{Parent, ServicePlan},
    release::Release,
    service::Service,
};

use crate::{
    Store,
    backend::{Row, Tx, args},
    error::StoreError,
    journal, release,
};

/// All that is stored of one service and that a pass needs.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ServiceRow {
    pub service: Service,
    pub plan: ServicePlan,
    /// The open one, the active or latest that was, the latest, and the latest that somebody asked for; by number.
    pub deployments: Vec<Deployment>,
    /// Every release that the service still keeps.
    pub releases: BTreeMap<ReleaseDigest, Arc<Release>>,
    pub next_deployment_number: u64,
}

impl ServiceRow {
    /// What a decision from this row stands on.
    pub fn parent(&self) -> Parent {
        Parent { intent: self.service.intent_seq, plan: self.plan.seq }
    }
}

/// One service found while loading all of them.
#[derive(Debug)]
pub enum Loaded {
    Read(Box<ServiceRow>),
    /// It is there and cannot be read: nothing of it may be changed.
    Unreadable {
        key: ServiceKey,
        cause: String,
        /// What was last decided about it, as it is stored or as the journal has it.
        plan: Option<Box<ServicePlan>>,
    },
    /// Rows that are there and do not even say whose they are: any service may miss something.
    Nameless {
        text: String,
        cause: String,
    },
}

/// What a service of this name must begin above, whether it exists, was purged or never was.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Floor {
    pub exists: bool,
    pub intent: IntentSeq,
    pub generation: Generation,
    pub plan: PlanSeq,
    pub next_incarnation: Incarnation,
    pub next_deployment_number: u64,
}

impl Default for Floor {
    fn default() -> Self {
        Self {
            exists: false,
            intent: IntentSeq(0),
            generation: Generation(0),
            plan: PlanSeq(0),
            next_incarnation: Incarnation(0),
            next_deployment_number: 1,
        }
    }
}

macro_rules! select_services {
    ($only:literal) => {
        concat!(
            "SELECT key, intent_seq, plan_seq, next_deployment, service, plan FROM services ",
            "WHERE service IS NOT NULL ",
            $only
        )
    };
}
macro_rules! select_deployments {
    ($only:literal) => {
        concat!(
            "SELECT d.service, d.content FROM deployments d WHERE (d.standing IN ('open', 'active') ",
            "OR d.number = (SELECT MAX(n.number) FROM deployments n WHERE n.service = d.service) ",
            "OR d.number = (SELECT MAX(a.number) FROM deployments a WHERE a.service = d.service AND a.was_active = 1) ",
            "OR d.number = (SELECT MAX(i.number) FROM deployments i WHERE i.service = d.service AND i.intended = 1)) ",
            $only,
            " ORDER BY d.service, d.number"
        )
    };
}
macro_rules! select_releases {
    ($only:literal) => {
        concat!("SELECT service, digest, content FROM releases ", $only)
    };
}

/// The three queries of a load, for all services or for one.
struct Queries {
    services: &'static str,
    deployments: &'static str,
    releases: &'static str,
}

const ALL: Queries = Queries {
    services: select_services!(""),
    deployments: select_deployments!(""),
    releases: select_releases!(""),
};
const ONE: Queries = Queries {
    services: select_services!("AND key = $1"),
    deployments: select_deployments!("AND d.service = $1"),
    releases: select_releases!("WHERE service = $1"),
};
const FLOOR: &str = "SELECT CASE WHEN service IS NULL THEN 0 ELSE 1 END, intent_seq, generation, plan_seq, \
     next_incarnation, next_deployment FROM services WHERE key = $1";

const DISAGREES: &str = "it disagrees with its own columns";

/// Why a service cannot be read, and what of it can.
struct Damaged {
    error: StoreError,
    plan: Option<Box<ServicePlan>>,
}

impl Damaged {
    fn whole(error: StoreError) -> Self {
        Self { error, plan: None }
    }
}

/// Rows gathered by the text of their key; an error stays with its service.
#[derive(Default)]
struct Gathered {
    services: BTreeMap<String, Result<ServiceRow, Damaged>>,
    strays: BTreeMap<String, String>,
}

impl Gathered {
    fn service(&mut self, mut row: Row) {
        match row.text() {
            Ok(key) => {
                let read = read_service(&key, &mut row);
                self.services.insert(key, read);
            }
            Err(error) => self.stray("services", &error),
        }
    }

    /// Adds what belongs to a service; what is damaged makes the whole service unreadable.
    fn child(
        &mut self,
        table: &str,
        mut row: Row,
        add: impl FnOnce(&mut ServiceRow, Row) -> Result<(), StoreError>,
    ) {
        let owner = match row.text() {
            Ok(owner) => owner,
            Err(error) => return self.stray(table, &error),
        };
        match self.services.get_mut(&owner) {
            None => self.stray(&format!("{table} of {}", model::id::printable(&owner)), &"no such service"),
            Some(entry) => {
                let Ok(service) = entry else { return };
                if let Err(error) = add(service, row) {
                    let plan = Some(Box::new(std::mem::take(&mut service.plan)));
                    *entry = Err(Damaged { error, plan });
                }
            }
        }
    }

    fn without_plan(&mut self) -> impl Iterator<Item = (&str, &mut Damaged)> {
        let damaged =
            self.services.iter_mut().filter_map(|(key, read)| Some((key.as_str(), read.as_mut().err()?)));
        damaged.filter(|(_, damaged)| damaged.plan.is_none())
    }

    fn stray(&mut self, text: &str, cause: &dyn std::fmt::Display) {
        self.strays.insert(text.into(), cause.to_string());
    }

    fn loaded(self) -> Vec<Loaded> {
        let services = self.services.into_iter().map(|(text, read)| match (read, text.parse()) {
            (Ok(row), Ok(_)) => Loaded::Read(Box::new(row)),
            (Err(Damaged { error, plan }), Ok(key)) => {
                Loaded::Unreadable { key, cause: error.to_string(), plan }
            }
            (_, Err(error)) => {
                Loaded::Nameless { text: model::id::printable(&text), cause: error.to_string() }
            }
        });
        let strays = self.strays.into_iter().map(|(text, cause)| Loaded::Nameless { text, cause });
        services.chain(strays).collect()
    }
}

fn read_service(key: &str, row: &mut Row) -> Result<ServiceRow, Damaged> {
    let mut head = || Ok((IntentSeq(row.int()?), PlanSeq(row.int()?), row.int()?));
    let (intent, plan_seq, next_deployment_number) = head().map_err(Damaged::whole)?;
    let service = read_record(key, intent, row);
    let plan = read_plan(plan_seq, row);
    let (service, plan) = match (service, plan) {
        (Ok(service), Ok(plan)) => (service, plan),
        (Err(error), plan) => return Err(Damaged { error, plan: plan.ok().map(Box::new) }),
        (Ok(_), Err(error)) => return Err(Damaged::whole(error)),
    };
    let (deployments, releases) = (Vec::new(), BTreeMap::new());
    Ok(ServiceRow { service, plan, deployments, releases, next_deployment_number })
}

fn read_record(key: &str, intent: IntentSeq, row: &mut Row) -> Result<Service, StoreError> {
    let service: Service = row.json("the record of the service")?;
    if service.key.to_string() != key || service.intent_seq != intent {
        return Err(StoreError::unreadable("the record of the service", DISAGREES));
    }
    Ok(service)
}

fn read_plan(seq: PlanSeq, row: &mut Row) -> Result<ServicePlan, StoreError> {
    let plan: ServicePlan = row.json("the plan of the service")?;
    if plan.seq != seq {
        return Err(StoreError::unreadable("the plan of the service", DISAGREES));
    }
    Ok(plan)
}

async fn gather(
    tx: &mut Tx,
    queries: &Queries,
    only: Option<&ServiceKey>,
) -> Result<Vec<Loaded>, StoreError> {
    let args = || only.map_or_else(Vec::new, |key| args![key]);
    let mut found = Gathered::default();
    tx.each(queries.services, args(), |row| {
        found.service(row);
        Ok(())
    })
    .await?;
    tx.each(queries.deployments, args(), |row| {
        found.child("deployments", row, |service, mut row| {
            service.deployments.push(row.json("a deployment")?);
            Ok(())
        });
        Ok(())
    })
    .await?;
    tx.each(queries.releases, args(), |row| {
        found.child("releases", row, |service, mut row| {
            let (digest, release) = release::read(&mut row)?;
            service.releases.insert(digest, Arc::new(release));
            Ok(())
        });
        Ok(())
    })
    .await?;
    for (key, damaged) in found.without_plan() {
        damaged.plan = journal::last_plan(tx, key).await?.map(Box::new);
    }
    Ok(found.loaded())
}

/// Where a name stands, read in the caller's transaction.
pub(crate) async fn floor(tx: &mut Tx, key: &ServiceKey) -> Result<Floor, StoreError> {
    let Some(mut row) = tx.one(FLOOR, args![key]).await? else { return Ok(Floor::default()) };
    Ok(Floor {
        exists: row.int()? == 1,
        intent: IntentSeq(row.int()?),
        generation: Generation(row.int()?),
        plan: PlanSeq(row.int()?),
        next_incarnation: Incarnation(row.int()?),
        next_deployment_number: row.int()?,
    })
}

impl Store {
    /// One service, also one that cannot be read; `None` when there certainly is none of that name.
    pub async fn look(&self, key: &ServiceKey) -> Result<Option<Loaded>, StoreError> {
        let mut tx = self.0.backend.read().await?;
        Ok(gather(&mut tx, &ONE, Some(key)).await?.pop())
    }

    /// One service, or `None` when there certainly is none of that name.
    pub async fn load(&self, key: &ServiceKey) -> Result<Option<ServiceRow>, StoreError> {
        match self.look(key).await? {
            Some(Loaded::Read(row)) => Ok(Some(*row)),
            Some(Loaded::Unreadable { cause, .. } | Loaded::Nameless { cause, .. }) => {
                Err(StoreError::unreadable(format!("service {key}"), cause))
            }
            None => Ok(None),
        }
    }

    /// Every service, as of one moment.
    pub async fn load_all(&self) -> Result<Vec<Loaded>, StoreError> {
        let mut tx = self.0.backend.read().await?;
        gather(&mut tx, &ALL, None).await
    }

    /// What a new service of this name must begin above, so that no id comes twice.
    pub async fn floor(&self, key: &ServiceKey) -> Result<Floor, StoreError> {
        floor(&mut self.0.backend.read().await?, key).await
    }
}
