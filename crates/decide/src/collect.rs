//! What is collected: what cannot be reached. Kept iff a retained release, a running instance or a declaration needs it;
//! never because it is young, and never removed because something could not be read.

use std::collections::BTreeSet;

use model::{
    ClusterId, InstanceId, Millis,
    collect::{Asked, Held, Inventory, Kind},
    container::{self, MountSource, Network},
    release::Release,
    spec::Workload,
};

use crate::world::World;

/// All that is needed somewhere, by the names that engines know it by.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Reachable {
    held: BTreeSet<(Kind, String)>,
    /// Instances that are placed: what their images keep is theirs, also while no container has it.
    placed: BTreeSet<InstanceId>,
    /// Why it is not known as a whole: then nothing is collected.
    pub unknown: Option<String>,
}

impl Reachable {
    pub fn of<'a>(cluster: &ClusterId, worlds: impl IntoIterator<Item = &'a World>) -> Self {
        let mut reachable = Self::default();
        for world in worlds {
            match &world.service {
                model::Knowledge::Known(service) => {
                    // A declaration that waits for its image needs its volumes already.
                    reachable.add(cluster, world, &Release::of(&service.spec));
                }
                model::Knowledge::Absent => {}
                model::Knowledge::Unknown { cause, .. } => {
                    reachable.unknown = Some(format!("{} cannot be read: {cause}", world.key));
                }
            }
            reachable.placed.extend(world.plan.placements.keys().cloned());
            for release in world.releases.values() {
                reachable.add(cluster, world, release);
            }
            // What goes is still there until its node says that it is gone.
            let missing = world.plan.placements.values().find(|p| !world.releases.contains_key(&p.release));
            if let Some(placement) = missing {
                reachable.unknown = Some(format!("the release of {} is not known", placement.id));
            }
        }
        reachable
    }

    fn add(&mut self, cluster: &ClusterId, world: &World, release: &Release) {
        let Workload::Container(container) = &release.workload else { return };
        let project = &world.key.project;
        self.held.extend(container.pinned_name().map(|name| (Kind::Image, name)));
        if container.network == Network::Project {
            self.held.insert((Kind::Network, container::network_name(cluster, project)));
        }
        for mount in &container.volumes {
            if let MountSource::Volume(name) = &mount.source {
                self.held.insert((Kind::Volume, container::volume_name(cluster, project, name)));
            }
        }
    }

    fn reaches(&self, held: &Held) -> bool {
        let of_placed = || container::owner_of_volume(&held.name).is_some_and(|id| self.placed.contains(&id));
        self.held.contains(&(held.kind, held.name.clone())) || (held.kind == Kind::Volume && of_placed())
    }
}

/// What of a node's things goes, in a fixed order.
pub fn surplus(inventory: &Inventory, reachable: &Reachable, asked: Asked) -> Vec<Held> {
    if reachable.unknown.is_some() {
        return Vec::new();
    }
    let goes = |held: &&Held| {
        let kind = match held.kind {
            Kind::Image | Kind::Network => true,
            Kind::Volume => asked.volumes,
        };
        kind && !held.used && !reachable.reaches(held)
    };
    let mut surplus: Vec<Held> = inventory.held.iter().filter(goes).cloned().collect();
    surplus.sort();
    surplus
}

/// When a node is cleaned up without being asked.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Schedule {
    pub every: Millis,
    /// Beyond this part of its disk it is cleaned up at once, instead of at the next time.
    pub full_percent: u8,
}

impl Schedule {
    /// Whether a disk is so full that it is not waited any longer.
    pub fn is_full(&self, used: u64, total: u64) -> bool {
        total > 0 && used.saturating_mul(100) / total >= u64::from(self.full_percent)
    }

    /// At each time, and when the disk has become full: one that stays full is not cleaned without pause.
    pub fn is_due(&self, since: Millis, was_full: bool, is_full: bool) -> bool {
        since >= self.every || (is_full && !was_full)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn held(kind: Kind, name: &str, used: bool) -> Held {
        Held { kind, name: name.into(), bytes: 1, used }
    }

    fn names(reachable: &Reachable, asked: Asked) -> Vec<String> {
        let inventory = Inventory {
            held: vec![
                held(Kind::Volume, "old-data", false),
                held(Kind::Image, "needed", false),
                held(Kind::Image, "old", false),
                held(Kind::Image, "in-use", true),
                held(Kind::Network, "old-net", false),
            ],
        };
        surplus(&inventory, reachable, asked).into_iter().map(|held| held.name).collect()
    }

    #[test]
    fn what_cannot_be_reached_goes_and_volumes_only_when_asked_for() {
        let reachable = Reachable { held: [(Kind::Image, "needed".into())].into(), ..Reachable::default() };
        assert_eq!(names(&reachable, Asked::default()), ["old", "old-net"]);
        assert_eq!(
            names(&reachable, Asked { volumes: true, dry_run: false }),
            ["old", "old-net", "old-data"]
        );
    }

    /// No container may have them just now.
    #[test]
    fn what_an_image_keeps_for_a_placed_instance_stays() {
        let placed = Reachable { placed: ["demo.web.0.3".parse().unwrap()].into(), ..Reachable::default() };
        let inventory = Inventory {
            held: ["demo.web.0.3.v0.5f1c2a", "demo.web.0.2.v0.5f1c2a"]
                .map(|name| held(Kind::Volume, name, false))
                .into(),
        };
        let goes = surplus(&inventory, &placed, Asked { volumes: true, dry_run: false });
        assert_eq!(
            goes.iter().map(|held| held.name.as_str()).collect::<Vec<_>>(),
            ["demo.web.0.2.v0.5f1c2a"]
        );
    }

    #[test]
    fn while_something_cannot_be_read_nothing_goes() {
        let reachable = Reachable { unknown: Some("web cannot be read".into()), ..Reachable::default() };
        assert!(names(&reachable, Asked { volumes: true, dry_run: false }).is_empty());
    }

    #[test]
    fn a_disk_is_full_from_its_threshold_on() {
        let schedule = Schedule { every: Millis::secs(10), full_percent: 85 };
        assert!(!schedule.is_full(84, 100) && schedule.is_full(85, 100) && !schedule.is_full(0, 0));
    }

    #[test]
    fn it_is_cleaned_up_at_each_time_and_once_when_the_disk_becomes_full() {
        let schedule = Schedule { every: Millis::secs(10), full_percent: 85 };
        let due = |secs, was, is| schedule.is_due(Millis::secs(secs), was, is);
        assert!(!due(9, false, false) && due(10, false, false));
        assert!(due(1, false, true) && !due(1, true, true) && due(10, true, true));
    }
}
