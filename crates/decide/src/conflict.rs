//! What two services may not both have: a domain, an entry in a webroot, a fixed port.

use std::collections::{BTreeMap, BTreeSet};

use model::{
    ArtifactDigest, Knowledge, ReleaseDigest, ServiceKey,
    release::Release,
    spec::{Domain, Port, ServiceSpec, Workload},
};

use crate::{intent::Intent, world::World};

#[derive(Debug, Clone, thiserror::Error, PartialEq, Eq)]
pub enum Conflict {
    #[error("domain {domain} is declared by {by} already; a domain leads to one service")]
    Domain { service: ServiceKey, at: usize, domain: Domain, by: ServiceKey },
    #[error("`{entry}` in the webroot {webroot} is linked by {by} already")]
    Webroot { service: ServiceKey, webroot: String, entry: String, by: ServiceKey },
    #[error("port {port} is declared by {by} already")]
    Port { service: ServiceKey, port: u16, by: ServiceKey },
}

impl Conflict {
    pub fn service(&self) -> &ServiceKey {
        match self {
            Self::Domain { service, .. } | Self::Webroot { service, .. } | Self::Port { service, .. } => {
                service
            }
        }
    }

    pub fn field(&self) -> String {
        match self {
            Self::Domain { at, .. } => format!("domains[{at}]"),
            Self::Webroot { .. } => "static.webroot".into(),
            Self::Port { .. } => "port".into(),
        }
    }

    /// What to do next.
    pub fn help(&self) -> &'static str {
        match self {
            Self::Domain { .. } => "choose another domain, or take it from the other service first",
            Self::Webroot { .. } => "rename the entry, or give the site a folder of its own",
            Self::Port { .. } => "leave `port` out and a free one is given, or choose another",
        }
    }

    pub fn code(&self) -> &'static str {
        match self {
            Self::Domain { .. } => "domain_taken",
            Self::Webroot { .. } => "webroot_taken",
            Self::Port { .. } => "port_taken",
        }
    }
}

/// What a service takes for itself, by its declaration or by the release that it runs.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Claim {
    domains: Vec<Domain>,
    port: Option<Port>,
    webroot: Option<(String, Option<ArtifactDigest>)>,
}

impl From<&ServiceSpec> for Claim {
    fn from(spec: &ServiceSpec) -> Self {
        Self { domains: spec.domains.clone(), port: spec.port, webroot: webroot(&spec.workload) }
    }
}

impl From<&Release> for Claim {
    fn from(release: &Release) -> Self {
        Self { domains: release.domains.clone(), port: release.port, webroot: webroot(&release.workload) }
    }
}

fn webroot(workload: &Workload) -> Option<(String, Option<ArtifactDigest>)> {
    match workload {
        Workload::Site(site) => site.webroot.clone().map(|folder| (folder, site.artifact)),
        Workload::Process(_) | Workload::Container(_) => None,
    }
}

/// Everything that is claimed: what is to be, and what stands and stays.
#[derive(Debug)]
pub struct Claims {
    standing: Vec<(ServiceKey, Claim)>,
    proposed: Vec<(ServiceKey, Claim)>,
}

impl Claims {
    /// Of intents that are recorded together. One that deletes a service, or turns it to another release, gives up in
    /// favour of the others what that service had.
    pub fn new<'i, 'w>(
        intents: impl IntoIterator<Item = (&'i World, &'i Intent)>,
        worlds: impl IntoIterator<Item = &'w World>,
    ) -> Self {
        let (mut given_up, mut proposed) = (BTreeSet::new(), Vec::new());
        for (world, intent) in intents {
            let before = world.service.known();
            let is_deleted = intent.service.deleted.is_some();
            if is_deleted || before.is_some_and(|before| before.target != intent.service.target) {
                given_up.insert(&world.key);
            }
            let taken = if is_deleted { Vec::new() } else { taken(world, intent) };
            proposed.extend(taken.into_iter().map(|claim| (world.key.clone(), claim)));
        }
        let standing = worlds
            .into_iter()
            .filter(|world| !given_up.contains(&world.key))
            .flat_map(|world| held(world).into_iter().map(|claim| (world.key.clone(), claim)))
            .collect();
        Self { standing, proposed }
    }

    /// The artifacts whose top-level entries decide: none where nothing that is proposed is linked into a webroot.
    pub fn artifacts(&self) -> BTreeSet<ArtifactDigest> {
        if self.proposed.iter().all(|(_, claim)| claim.webroot.is_none()) {
            return BTreeSet::new();
        }
        let claims = self.standing.iter().chain(&self.proposed);
        claims.filter_map(|(_, claim)| claim.webroot.as_ref()?.1).collect()
    }

    /// Conflicts of what is proposed, among itself and with what stands. `entries` gives the top-level names of
    /// artifacts; one that is missing there has none.
    pub fn conflicts(&self, entries: &BTreeMap<ArtifactDigest, BTreeSet<String>>) -> Vec<Conflict> {
        let mut taken = Taken::default();
        for (key, claim) in &self.standing {
            taken.take(key, claim, entries);
        }
        let mut conflicts: Vec<Conflict> =
            self.proposed.iter().flat_map(|(key, claim)| taken.take(key, claim, entries)).collect();
        conflicts.dedup();
        conflicts
    }
}

/// What is declared, and the release that is turned to: each only where it is another one than before.
fn taken(world: &World, intent: &Intent) -> Vec<Claim> {
    let before = world.service.known().filter(|service| service.deleted.is_none());
    let spec = Some(&intent.service.spec).filter(|spec| before.is_none_or(|before| before.spec != **spec));
    let target =
        intent.service.target.filter(|target| before.and_then(|before| before.target) != Some(*target));
    let release = target.and_then(|target| {
        let begun = intent.releases.iter().find(|release| release.digest() == target);
        begun.or_else(|| world.releases.get(&target).map(|release| &**release))
    });
    spec.map(Claim::from).into_iter().chain(release.map(Claim::from)).collect()
}

/// What a service goes on with, whatever is to come: what it declares, and the releases that serve or come back when
/// what was begun does not become active. One that cannot be read still has what it runs.
fn held(world: &World) -> Vec<Claim> {
    let declared = match &world.service {
        Knowledge::Known(service) if service.deleted.is_none() => Some(&service.spec),
        Knowledge::Unknown { .. } => None,
        Knowledge::Known(_) | Knowledge::Absent => return Vec::new(),
    };
    let releases = standing(world).into_iter().filter_map(|digest| world.releases.get(&digest));
    let led =
        world.plan.route.as_ref().map(|route| Claim { domains: route.domains.clone(), ..Claim::default() });
    let releases = releases.map(|release| Claim::from(&**release));
    declared.map(Claim::from).into_iter().chain(releases).chain(led).collect()
}

fn standing(world: &World) -> BTreeSet<ReleaseDigest> {
    let target = world.service.known().and_then(|service| service.target);
    let active = world.active_deployment().map(|active| active.release);
    let before = world.open_deployment().and_then(|open| open.previous);
    let running = world.plan.placements.values().filter(|p| p.stage.is_run()).map(|p| p.release);
    running.chain([target, active, before].into_iter().flatten()).collect()
}

#[derive(Default)]
struct Taken<'a> {
    domains: BTreeMap<&'a Domain, &'a ServiceKey>,
    /// Every link, by its whole path.
    links: BTreeMap<String, &'a ServiceKey>,
    webroots: BTreeMap<&'a str, BTreeSet<&'a ServiceKey>>,
    ports: BTreeMap<u16, &'a ServiceKey>,
}

impl<'a> Taken<'a> {
    fn take(
        &mut self,
        key: &'a ServiceKey,
        claim: &'a Claim,
        entries: &BTreeMap<ArtifactDigest, BTreeSet<String>>,
    ) -> Vec<Conflict> {
        let mut conflicts = Vec::new();
        for (at, domain) in claim.domains.iter().enumerate() {
            if let Some(by) = other(self.domains.insert(domain, key), key) {
                conflicts.push(Conflict::Domain { service: key.clone(), at, domain: domain.clone(), by });
            }
        }
        if let Some((folder, artifact)) = &claim.webroot {
            let names = artifact.and_then(|digest| entries.get(&digest)).into_iter().flatten();
            conflicts.extend(self.link(key, folder, names));
        }
        if let Some(Port::Fixed(port)) = claim.port
            && let Some(by) = other(self.ports.insert(port, key), key)
        {
            conflicts.push(Conflict::Port { service: key.clone(), port, by });
        }
        conflicts
    }

    /// One name is enough to say: the first of them.
    fn link<'n>(
        &mut self,
        key: &'a ServiceKey,
        folder: &'a str,
        names: impl IntoIterator<Item = &'n String>,
    ) -> Option<Conflict> {
        let collision = |entry: &str, by: ServiceKey| Conflict::Webroot {
            service: key.clone(),
            webroot: folder.to_owned(),
            entry: entry.to_owned(),
            by,
        };
        let mut found = self.link_above(key, folder).map(|by| collision(".", by));
        self.webroots.entry(folder).or_default().insert(key);
        for name in names {
            let path = format!("{}/{name}", folder.trim_end_matches('/'));
            let by = other(self.links.insert(path.clone(), key), key).or_else(|| self.webroot_at(key, &path));
            found = found.or_else(|| by.map(|by| collision(name, by)));
        }
        found
    }

    /// Another's link that this folder lies in: links made there would land in that one's deployment.
    fn link_above(&self, key: &ServiceKey, folder: &str) -> Option<ServiceKey> {
        let ends = folder.match_indices('/').map(|(at, _)| at).chain([folder.len()]);
        ends.filter_map(|end| self.links.get(&folder[..end])).find(|by| **by != key).map(|by| (*by).clone())
    }

    /// Another's webroot at this path or below it.
    fn webroot_at(&self, key: &ServiceKey, path: &str) -> Option<ServiceKey> {
        let below = |folder: &str| {
            folder.strip_prefix(path).is_some_and(|rest| rest.is_empty() || rest.starts_with('/'))
        };
        let there = self.webroots.range(path..).take_while(|(folder, _)| folder.starts_with(path));
        there
            .filter(|(folder, _)| below(folder))
            .flat_map(|(_, keys)| keys)
            .find(|by| **by != key)
            .map(|by| (*by).clone())
    }
}

fn other(before: Option<&ServiceKey>, key: &ServiceKey) -> Option<ServiceKey> {
    before.filter(|by| *by != key).cloned()
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use model::{
        Digest, Knowledge, RouteRevision, Timestamp,
        plan::ServicePlan,
        route::{Backend, ServiceRoute},
    };

    use super::*;

    fn key(name: &str) -> ServiceKey {
        format!("default/{name}").parse().unwrap()
    }

    fn site(name: &str, webroot: &str, content: &str) -> (ServiceKey, Claim) {
        let digest = Digest::of_value(&content);
        (key(name), Claim { domains: Vec::new(), port: None, webroot: Some((webroot.into(), Some(digest))) })
    }

    /// The content is its own list of names.
    fn conflicts(proposed: Vec<(ServiceKey, Claim)>, contents: &[&str]) -> Vec<String> {
        let names = |content: &&str| content.split(' ').map(str::to_owned).collect();
        let entries = contents.iter().map(|content| (Digest::of_value(content), names(content))).collect();
        let claims = Claims { standing: Vec::new(), proposed };
        claims.conflicts(&entries).iter().map(ToString::to_string).collect()
    }

    /// Its declaration cannot be read, and it is served on: what leads to it is not to be had.
    #[test]
    fn a_domain_that_leads_to_what_cannot_be_read_is_taken() {
        let domain: Domain = "api.localhost".parse().unwrap();
        let route = ServiceRoute {
            revision: RouteRevision(1),
            domains: vec![domain.clone()],
            backend: Backend::Nothing,
            taken: None,
        };
        let unreadable = World {
            service: Knowledge::Unknown { since: Timestamp(1), cause: "junk".into() },
            plan: ServicePlan { route: Some(Arc::new(route)), ..ServicePlan::default() },
            ..World::absent(key("a"))
        };
        let proposed = Claim { domains: vec![domain], port: None, webroot: None };
        let standing = held(&unreadable).into_iter().map(|claim| (unreadable.key.clone(), claim)).collect();
        let claims = Claims { standing, proposed: vec![(key("b"), proposed)] };
        let found = claims.conflicts(&BTreeMap::new());
        assert!(matches!(&found[..], [Conflict::Domain { by, .. }] if *by == key("a")), "{found:?}");
    }

    #[test]
    fn sites_share_a_webroot_as_long_as_their_entries_differ() {
        let apart = vec![site("a", "/www", "index.html css"), site("b", "/www", "blog")];
        assert_eq!(conflicts(apart, &["index.html css", "blog"]), Vec::<String>::new());
        let colliding = vec![site("a", "/www", "css index.html"), site("b", "/www", "blog css")];
        let found = conflicts(colliding, &["css index.html", "blog css"]);
        assert_eq!(found.len(), 1);
        assert!(
            found[0].starts_with("`css` in the webroot /www is linked by default/a already"),
            "{found:?}"
        );
    }

    #[test]
    fn a_webroot_does_not_lie_in_what_another_site_links() {
        for order in [["a", "b"], ["b", "a"]] {
            let of = |name: &str| match name {
                "a" => site("a", "/www", "blog"),
                _ => site("b", "/www/blog/deep", "x"),
            };
            let found = conflicts(order.map(of).to_vec(), &["blog", "x"]);
            assert_eq!(found.len(), 1, "{order:?}");
        }
        let beside = vec![site("a", "/www", "blog"), site("b", "/www/blogger", "x")];
        assert_eq!(conflicts(beside, &["blog", "x"]), Vec::<String>::new());
    }

    #[test]
    fn content_that_is_not_there_yet_collides_with_nothing() {
        assert_eq!(
            conflicts(vec![site("a", "/www", "x"), site("b", "/www", "x")], &[]),
            Vec::<String>::new()
        );
    }
}
