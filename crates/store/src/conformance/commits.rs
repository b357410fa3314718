//! What deciders stand on, whatever keeps it: terms, and commits onto what they were decided from. Also run on the
//! simulator's model of a store, which claims this much and no more; so nothing here knows a backend, nor how a refusal
//! is worded.

use model::{
    Generation, Holder, IntentSeq, RouteRevision, ServiceKey, Term,
    deployment::Phase,
    plan::{Decision, Plan},
};

use super::fixture::{
    AT, decision, deployment, first, holder, intent, key, placing, reaching, release, service,
};
use crate::{Expected, IntentCommit, ServiceIntent, ServiceRow, Store};

/// The part of a store that the checks need. A refusal says why.
#[expect(async_fn_in_trait, reason = "only tests call it, and none from another thread")]
pub trait Commits {
    async fn lead(&mut self, holder: &Holder) -> Term;
    async fn commit_intent(&mut self, intent: ServiceIntent) -> Result<(), String>;
    async fn commit_plan(&mut self, plan: Plan) -> Result<(), String>;
    async fn load(&mut self, key: &ServiceKey) -> Option<ServiceRow>;
    /// Of the latest committed plan.
    async fn latest(&mut self) -> (Generation, RouteRevision);
}

impl Commits for Store {
    async fn lead(&mut self, holder: &Holder) -> Term {
        self.acquire_term(holder, Term(0)).await.expect("a term can begin")
    }

    async fn commit_intent(&mut self, intent: ServiceIntent) -> Result<(), String> {
        let services = vec![intent];
        let commit = IntentCommit { at: AT, services, events: vec![], audit: vec![], idempotency: None };
        self.commit_intents(None, commit).await.map(drop).map_err(|error| error.to_string())
    }

    async fn commit_plan(&mut self, plan: Plan) -> Result<(), String> {
        let committed = Self::commit_plan(self, plan.into(), vec![]).await;
        committed.map(drop).map_err(|error| error.to_string())
    }

    async fn load(&mut self, key: &ServiceKey) -> Option<ServiceRow> {
        Self::load(self, key).await.expect("it can be read")
    }

    async fn latest(&mut self) -> (Generation, RouteRevision) {
        let counters = self.counters().await.expect("counters can be read");
        (counters.generation, counters.route_revision)
    }
}

async fn create(store: &mut impl Commits, name: &str) -> ServiceRow {
    store.commit_intent(first(name)).await.expect("it is new");
    load(store, name).await
}

async fn load(store: &mut impl Commits, name: &str) -> ServiceRow {
    store.load(&key(name)).await.expect("it is there")
}

/// A plan of a leader that is due next.
async fn due(store: &mut impl Commits, leader: &(Term, Holder), decisions: Vec<Decision>) -> Plan {
    let (generation, route_revision) = store.latest().await;
    let (term, holder) = leader.clone();
    Plan { term, holder, at: AT, generation: generation.next(), route_revision, decisions }
}

async fn leader(store: &mut impl Commits, name: &str) -> (Term, Holder) {
    let holder = holder(name);
    (store.lead(&holder).await, holder)
}

async fn what_is_committed_is_loaded(store: &mut impl Commits) {
    let row = create(store, "api").await;
    assert_eq!(row.service, service("api", 1, 1));
    assert_eq!(row.deployments, [deployment("api", 1, release(1).digest(), Phase::Queued)]);
    assert_eq!(*row.releases[&release(1).digest()], release(1));
    assert_eq!(row.next_deployment_number, 2);
    assert_eq!(store.load(&key("other")).await, None);
}

async fn an_intent_onto_what_has_moved_writes_nothing(store: &mut impl Commits) {
    let row = create(store, "api").await;
    for expected in [Expected::Intent(IntentSeq(7)), Expected::Absent] {
        let stale = intent(expected, service("api", 8, 2), vec![]);
        store.commit_intent(stale).await.expect_err("it is at 1");
    }
    assert_eq!(load(store, "api").await, row);
}

async fn a_plan_is_committed_whole(store: &mut impl Commits) {
    let leader = leader(store, "a").await;
    let (api, web) = (create(store, "api").await, create(store, "web").await);
    let placing = placing(&api, release(1).digest());
    let plan = due(store, &leader, vec![placing.clone(), reaching(&web, Phase::Starting)]).await;
    let plan = Plan { route_revision: RouteRevision(1), ..plan };
    store.commit_plan(plan).await.expect("it is due");
    assert_eq!(load(store, "api").await.plan, placing.plan);
    assert_eq!(load(store, "web").await.deployments[0].phase, Phase::Starting);
    assert_eq!(store.latest().await, (Generation(1), RouteRevision(1)));
}

async fn a_stale_term_is_refused_without_effects(store: &mut impl Commits) {
    let old = leader(store, "a").await;
    let row = create(store, "api").await;
    let plan = due(store, &old, vec![placing(&row, release(1).digest())]).await;
    let new = leader(store, "b").await;
    assert!(new.0 > old.0);
    store.commit_plan(plan).await.expect_err("its term is over");
    assert_eq!(load(store, "api").await, row);
    assert_eq!(store.latest().await.0, Generation(0));
}

async fn the_right_term_with_another_holder_is_refused(store: &mut impl Commits) {
    let (term, _) = leader(store, "a").await;
    let plan = due(store, &(term, holder("b")), vec![]).await;
    store.commit_plan(plan).await.expect_err("b holds nothing");
}

async fn a_decision_whose_parent_moved_writes_nothing_of_the_plan(store: &mut impl Commits) {
    let leader = leader(store, "a").await;
    let (api, web) = (create(store, "api").await, create(store, "web").await);
    let plan = due(store, &leader, vec![decision(&web), decision(&api)]).await;
    let moved = intent(Expected::Intent(IntentSeq(1)), service("api", 2, 1), vec![]);
    store.commit_intent(moved).await.expect("nobody else writes");
    store.commit_plan(plan).await.expect_err("api has moved");
    assert_eq!(load(store, "web").await, web);
    assert_eq!(store.latest().await.0, Generation(0));
}

async fn a_generation_is_taken_once(store: &mut impl Commits) {
    let leader = leader(store, "a").await;
    let plan = due(store, &leader, vec![]).await;
    store.commit_plan(plan.clone()).await.expect("it is due");
    store.commit_plan(plan.clone()).await.expect_err("1 is taken");
    let skips = Plan { generation: Generation(3), ..plan };
    store.commit_plan(skips).await.expect_err("2 is next");
}

async fn a_purged_service_leaves_its_counters(store: &mut impl Commits) {
    let leader = leader(store, "a").await;
    let row = create(store, "api").await;
    let mut placed = placing(&row, release(1).digest());
    placed.deployments = reaching(&row, Phase::Cancelled).deployments;
    let plan = due(store, &leader, vec![placed]).await;
    store.commit_plan(plan).await.expect("it is due");
    let row = load(store, "api").await;
    let mut gone = Decision { purge: true, ..decision(&row) };
    gone.plan.placements.clear();
    let plan = due(store, &leader, vec![gone]).await;
    store.commit_plan(plan).await.expect("it is due");
    assert_eq!(store.load(&key("api")).await, None);

    // A leader that still has the old row in mind must not hit the new service.
    let again = deployment("api", 2, release(1).digest(), Phase::Queued);
    let request = intent(Expected::Absent, service("api", 2, 1), vec![again]);
    store.commit_intent(request).await.expect("the name is free");
    let revived = load(store, "api").await;
    assert_eq!(revived.plan.next_incarnation.0, 1);
    assert!(revived.plan.seq > row.plan.seq && revived.plan.placements.is_empty());
    assert_eq!(revived.next_deployment_number, 3);
    let late = due(store, &leader, vec![decision(&row)]).await;
    store.commit_plan(late).await.expect_err("it is another");
}

macro_rules! each {
    ($($check:ident),* $(,)?) => {
        /// Runs every check, each on a store made for it.
        ///
        /// # Panics
        /// When the store breaks a promise.
        pub async fn run_all<S: Commits>(make_store: impl AsyncFn() -> S) {
            $($check(&mut make_store().await).await;)*
        }
    };
}

each! {
    what_is_committed_is_loaded,
    an_intent_onto_what_has_moved_writes_nothing,
    a_plan_is_committed_whole,
    a_stale_term_is_refused_without_effects,
    the_right_term_with_another_holder_is_refused,
    a_decision_whose_parent_moved_writes_nothing_of_the_plan,
    a_generation_is_taken_once,
    a_purged_service_leaves_its_counters,
}

#[cfg(test)]
#[tokio::test]
async fn sqlite_keeps_what_deciders_stand_on() {
    let dir = tempfile::tempdir().expect("a folder");
    let number = std::cell::Cell::new(0);
    run_all(async || {
        number.set(number.get() + 1);
        Store::open(&dir.path().join(format!("{}.db", number.get()))).await.expect("it opens")
    })
    .await;
}
