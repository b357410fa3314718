//! Who goes first: the old ones or the new ones. Read off a declaration and the release that it shall run.

use model::{
    release::Release,
    service::Service,
    spec::{Kind, Order, Port, Strategy},
};

pub fn kind(service: &Service, target: Option<&Release>) -> Kind {
    target.map_or_else(|| service.spec.kind(), |release| release.workload.kind())
}

/// Instances that the record wants: a site is one folder, however many are declared.
pub fn wanted(service: &Service, target: Option<&Release>) -> u32 {
    match kind(service, target) {
        Kind::Site => service.wanted_replicas().min(1),
        Kind::Process | Kind::Container => service.wanted_replicas(),
    }
}

pub fn fixed_port(target: Option<&Release>) -> Option<u16> {
    match target?.port? {
        Port::Fixed(port) => Some(port),
        Port::Dynamic => None,
    }
}

/// A fixed host port lets no two instances run side by side, so new ones come after old ones.
pub fn order(service: &Service, target: Option<&Release>) -> Order {
    if fixed_port(target).is_some() { Order::StopFirst } else { service.spec.deploy.order }
}

/// Whether old ones go before new ones are ready. A site's folders lie side by side, however it is declared.
pub fn takes_down_first(service: &Service, target: Option<&Release>) -> bool {
    let declared = service.spec.deploy.strategy == Strategy::Recreate;
    kind(service, target) != Kind::Site && (declared || order(service, target) == Order::StopFirst)
}
