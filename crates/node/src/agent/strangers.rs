//! What bears our marks and is in no ledger: reported, told to people once, and left alone.

use std::collections::BTreeSet;

use model::{
    event::{self, Kind},
    observation::Stranger,
};

use super::{Agent, Event};
use crate::container::{
    ask::Listed,
    collect::{self, Marked},
    names, notes,
};

/// Those of the engine, and what people know.
#[derive(Debug, Default)]
pub(crate) struct Strangers {
    containers: Vec<Stranger>,
    /// Networks and volumes.
    things: Vec<Stranger>,
    told: BTreeSet<String>,
    /// Since the start of the node, the engine has said which containers and which things there are.
    listed: bool,
    looked: bool,
    looking: bool,
    /// An assignment has come since the start of the node: before, what no record names may be a lost ledger's.
    assigned: bool,
}

impl Agent {
    /// What was told before a restart of the node is not told again.
    pub(super) fn remember_told_strangers(&mut self) {
        match notes::told_strangers(&self.cx.config.data) {
            Ok(told) => self.strangers.told = told,
            Err(error) => tracing::warn!(%error, "strangers are told again"),
        }
    }

    pub(super) fn tell_strangers(&mut self) {
        let orphans = self.orphans.iter().map(|(id, orphan)| Stranger {
            what: format!("process {}", orphan.identity.pid),
            message: format!(
                "it runs as instance {id}, which no assignment names; end it if it is not wanted"
            ),
            service: Some(id.service.clone()),
        });
        let strangers: Vec<_> = self
            .strange
            .iter()
            .chain(self.unclaimed.values())
            .chain(&self.strangers.containers)
            .chain(&self.strangers.things)
            .cloned()
            .chain(orphans)
            .collect();
        let mut known = BTreeSet::new();
        for stranger in &strangers {
            let sentence = format!("{}: {}", stranger.what, stranger.message);
            if !self.strangers.told.contains(&sentence) {
                self.cx.outside.event(event::Event {
                    kind: Kind::StrangerFound,
                    service: stranger.service.clone(),
                    instance: None,
                    deployment: None,
                    message: format!("{sentence}; it is left alone"),
                });
            }
            known.insert(sentence);
        }
        self.note_told(known);
        self.publisher.strangers(strangers);
    }

    /// One that is gone and comes again is told again. Before the engine has said what is there, none is known to be gone.
    fn note_told(&mut self, mut known: BTreeSet<String>) {
        let Strangers { told, listed, looked, .. } = &mut self.strangers;
        if !(*listed && *looked) {
            known.extend(told.iter().cloned());
        }
        if *told == known {
            return;
        }
        *told = known;
        if let Err(error) = notes::note_told_strangers(&self.cx.config.data, told) {
            tracing::warn!(%error, "after a restart strangers are told again");
        }
    }

    /// From the first assignment on it is known whose a lost ledger's containers are.
    pub(super) fn strangers_are_known(&mut self) {
        if !std::mem::replace(&mut self.strangers.assigned, true) {
            self.list_containers();
        }
    }

    /// Whoever bears our marks and is in no ledger is reported, and left alone.
    pub(super) fn note_strangers(&mut self, listed: &[Listed]) {
        if !self.strangers.assigned {
            return;
        }
        let what = |found: &Listed| format!("container {}", found.name);
        let stranger = |found: &&Listed| {
            let claimed = found.instance.as_ref().and_then(|id| self.instances.get(id));
            let is_known = || self.strangers.containers.iter().any(|known| known.what == what(found));
            let ours = claimed.is_some_and(|instance| {
                // One that is being made is not in the ledger yet.
                (instance.busy.is_some() && !is_known())
                    || instance.record().is_none_or(|record| {
                        record.id.as_deref() == Some(&found.id)
                            || (record.id.is_none() && record.nonce == found.nonce)
                    })
            });
            !ours
        };
        let strangers = listed.iter().filter(stranger).map(|found| Stranger {
            what: what(found),
            message: match &found.instance {
                Some(id) => format!("it bears the labels of instance {id} and is not its container"),
                None => "it bears our labels and names no instance".into(),
            },
            service: found.instance.as_ref().map(|id| id.service.clone()),
        });
        self.strangers.containers = strangers.collect();
        self.strangers.listed = true;
        self.tell_strangers();
    }

    /// Networks and volumes: their own events tell of none that bears our marks.
    pub(super) fn look_for_strange_things(&mut self) {
        if !self.strangers.assigned || std::mem::replace(&mut self.strangers.looking, true) {
            return;
        }
        let cx = self.cx.clone();
        tokio::spawn(async move {
            let found = collect::unnoted(&cx.engine, &cx.config.cluster, &cx.config.data).await;
            let found = found.map_err(|failure| failure.to_string());
            let _ = cx.events.send(Event::StrangeThings(found)).await;
        });
    }

    pub(super) fn strange_things(&mut self, found: Result<Vec<Marked>, String>) {
        self.strangers.looking = false;
        let found = match found {
            Ok(found) => found,
            // What is not known is not gone.
            Err(error) => return tracing::debug!(%error, "strange networks and volumes are not looked for"),
        };
        let strangers = found.iter().filter(|thing| !self.is_needed(thing)).map(|thing| Stranger {
            what: format!("{} {}", thing.kind.word(), thing.name),
            message: "it bears our labels and is in no ledger".into(),
            service: None,
        });
        self.strangers.things = strangers.collect();
        self.strangers.looked = true;
        self.tell_strangers();
    }

    /// An instance needs it: the note of it was lost, or is yet to be made.
    fn is_needed(&self, thing: &Marked) -> bool {
        let cluster = &self.cx.config.cluster;
        self.instances.values().filter(|instance| instance.held.is_some()).any(|instance| {
            let project = &instance.id.service.project;
            names::network(cluster, project) == thing.name
                || names::owner_of_volume(&thing.name).as_ref() == Some(&instance.id)
                || instance.container().is_some_and(|container| container.mounts(project, &thing.name))
        })
    }
}
