//! What two services may not both have: a domain, a webroot, a fixed port.

use std::collections::BTreeMap;

use model::{
    ServiceKey,
    spec::{Domain, Port, ServiceSpec, Workload},
};

use crate::world::World;

#[derive(Debug, Clone, thiserror::Error, PartialEq, Eq)]
pub enum Conflict {
    #[error("domain {domain} is declared by {by} already; a domain leads to one service")]
    Domain { service: ServiceKey, domain: Domain, by: ServiceKey },
    #[error("webroot {webroot} is declared by {by} already; give each site a folder of its own")]
    Webroot { service: ServiceKey, webroot: String, by: ServiceKey },
    #[error("port {port} is declared by {by} already; leave `port` out and a free one is given")]
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

    pub fn field(&self) -> &'static str {
        match self {
            Self::Domain { .. } => "domains",
            Self::Webroot { .. } => "static.webroot",
            Self::Port { .. } => "port",
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

/// Conflicts of what is to be declared, among itself and with what is declared and stays.
pub fn check<'a>(
    proposed: &BTreeMap<ServiceKey, ServiceSpec>,
    worlds: impl IntoIterator<Item = &'a World>,
) -> Vec<Conflict> {
    let standing = worlds
        .into_iter()
        .filter(|world| !proposed.contains_key(&world.key))
        .filter_map(|world| Some((&world.key, world.service.known()?)))
        .filter(|(_, service)| service.deleted.is_none())
        .map(|(key, service)| (key, &service.spec));
    let mut taken = Taken::default();
    for (key, spec) in standing {
        taken.take(key, spec);
    }
    proposed.iter().flat_map(|(key, spec)| taken.take(key, spec)).collect()
}

#[derive(Default)]
struct Taken<'a> {
    domains: BTreeMap<&'a Domain, &'a ServiceKey>,
    webroots: BTreeMap<&'a str, &'a ServiceKey>,
    ports: BTreeMap<u16, &'a ServiceKey>,
}

impl<'a> Taken<'a> {
    fn take(&mut self, key: &'a ServiceKey, spec: &'a ServiceSpec) -> Vec<Conflict> {
        let mut conflicts = Vec::new();
        for domain in &spec.domains {
            if let Some(by) = self.domains.insert(domain, key).filter(|by| *by != key) {
                conflicts.push(Conflict::Domain {
                    service: key.clone(),
                    domain: domain.clone(),
                    by: by.clone(),
                });
            }
        }
        if let Workload::Site(site) = &spec.workload
            && let Some(webroot) = &site.webroot
            && let Some(by) = self.webroots.insert(webroot, key).filter(|by| *by != key)
        {
            conflicts.push(Conflict::Webroot {
                service: key.clone(),
                webroot: webroot.clone(),
                by: by.clone(),
            });
        }
        if let Some(Port::Fixed(port)) = spec.port
            && let Some(by) = self.ports.insert(port, key).filter(|by| *by != key)
        {
            conflicts.push(Conflict::Port { service: key.clone(), port, by: by.clone() });
        }
        conflicts
    }
}
