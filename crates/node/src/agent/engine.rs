//! The container engine as a whole: whether it answers, what it says by itself, and the list that finds what it did not say.

use std::{collections::BTreeMap, ops::Range};

use decide::outage::{self, Outage};
use model::{
    InstanceId, Millis, Timestamp,
    event::{self, Kind},
    observation::{self, EngineAway, Exit},
};

use super::{Agent, Event, volumes::Volumes};
use crate::{
    container::{
        ask::{self, Listed},
        deeds::Deed,
        engine::Error as EngineError,
        late,
        look::{Machine, Seen},
        networks::ProjectNetwork,
        notes,
        watch::{self, News, What},
    },
    instance::{Instance, Run},
    life::Life,
};

/// One that fails at one question and answers all others is not asked all of them again and again.
const DOUBTED_EVERY: Millis = Millis::secs(5);
/// News of the engine waiting for the agent.
const NEWS: usize = 1024;

/// What is known of the engine as a whole.
#[derive(Debug, Default)]
pub(crate) struct View {
    /// Somebody listens to it.
    listening: bool,
    /// Since when it has not answered, and why; before its first answer, since the node's start.
    away: Option<(Timestamp, String)>,
    /// The last time that it answered nothing at all.
    outage: Option<Outage>,
    /// Since the node's start it has not been asked when it began.
    unwatched: bool,
    /// When it began, as it said then.
    began: Option<Timestamp>,
    /// When one answer did not come, and whether it answers at all was asked.
    doubted: Option<Timestamp>,
    pub machine: Machine,
    listing: bool,
    /// Asked for meanwhile: what the list under way says may be from before.
    list_again: bool,
    /// People know that it is away.
    told_away: bool,
    /// Up to here, in the order of their names, containers were looked at closely.
    looked_to: usize,
    /// Somebody asked for a look at all of them.
    all_close: bool,
    pub volumes: Volumes,
}

/// So many lists look at everything closely: a list does not show limits, and an event about them may be lost.
const ROUND: usize = 10;

impl View {
    /// The places, among so many, of those whose turn it is.
    fn close_looks(&mut self, held: usize) -> Range<usize> {
        let all = std::mem::take(&mut self.all_close);
        let begin = if all || self.looked_to >= held { 0 } else { self.looked_to };
        let end = if all { held } else { (begin + held.div_ceil(ROUND)).min(held) };
        self.looked_to = end;
        begin..end
    }

    pub fn is_away(&self) -> bool {
        self.away.is_some()
    }

    /// Tells an instance whether its engine answers.
    pub fn tell(&self, instance: &mut Instance) {
        if instance.held.is_some() {
            instance.away.clone_from(&self.away);
            instance.outage = self.outage;
        }
    }
}

impl Agent {
    /// From the start, where somebody named the engine or it has held something for this node.
    pub(super) fn listen_to_known_engine(&mut self) {
        if self.cx.config.names_engine() || notes::has_held(&self.cx.config.data) {
            self.begin_to_listen();
        }
    }

    /// Any other is listened to from the first container on.
    pub(super) fn listen_to_engine(&mut self) {
        if self.instances.values().any(|instance| instance.held.is_some()) {
            self.begin_to_listen();
        }
    }

    fn begin_to_listen(&mut self) {
        if self.engine.listening {
            return;
        }
        self.engine.listening = true;
        let now = self.cx.now();
        self.engine.unwatched = true;
        // Nobody is told before it was asked.
        let cause = format!("the engine at {} has not answered yet", self.cx.engine.host());
        self.engine.away = Some((now, cause));
        for instance in self.instances.values_mut() {
            self.engine.tell(instance);
        }
        let (tell, mut news) = tokio::sync::mpsc::channel(NEWS);
        let (engine, data, doubt) = (&self.cx.engine, &self.cx.config.data, &self.cx.doubt);
        tokio::spawn(watch::run(engine.clone(), data.clone(), doubt.clone(), tell));
        let events = self.cx.events.clone();
        tokio::spawn(async move {
            while let Some(news) = news.recv().await {
                if events.send(Event::Engine(news)).await.is_err() {
                    return;
                }
            }
        });
    }

    pub(super) fn engine_news(&mut self, news: News) {
        match news {
            News::Away { cause } => self.engine_gone(cause),
            News::Back => self.engine_back(),
            News::Container { id, what, deed } => self.container_news(&id, what, deed),
            News::Images { deed } => {
                for id in self.held_ids() {
                    self.note_deed(&id, deed.clone());
                    self.look_at_container(&id, true);
                }
            }
            News::Volume { name, removed } => self.volume_news(&name, removed),
        }
    }

    /// It has ended, or answers nothing at all: what ended meanwhile has ended with it.
    fn engine_gone(&mut self, cause: String) {
        self.engine_away(cause);
        if self.engine.outage.is_some_and(|outage| outage.until.is_none()) {
            return;
        }
        let since = self.engine.away.as_ref().map_or_else(|| self.cx.now(), |(since, _)| *since);
        let outage = Outage { since, until: None };
        self.engine.outage = Some(outage);
        self.give_back_attempts(outage);
        self.tell_engine();
    }

    /// One answer that does not come may have its own reason: whether it is gone is asked at once.
    pub(super) fn engine_silent(&mut self, cause: String) {
        let now = self.cx.now();
        if self.engine.doubted.is_none_or(|at| now.since(at) >= DOUBTED_EVERY) {
            self.engine.doubted = Some(now);
            self.cx.doubt.notify_one();
        }
        // Each question has words of its own for the same silence.
        if !self.engine.told_away {
            self.engine_away(cause);
        }
    }

    fn engine_away(&mut self, cause: String) {
        if self.engine.away.as_ref().is_some_and(|(_, before)| *before == cause) {
            return;
        }
        let now = self.cx.now();
        let since = self.engine.away.as_ref().map_or(now, |(since, _)| *since);
        if !self.engine.told_away {
            self.engine.told_away = true;
            self.say_of_engine(
                Kind::EngineAway,
                format!("{cause}; what runs there runs on, and nothing is changed"),
            );
        }
        self.engine.away = Some((since, cause.clone()));
        self.publisher.engine(observation::Engine::Away(EngineAway { since, cause }));
        self.doubt_deeds();
        self.tell_engine();
    }

    fn give_back_attempts(&mut self, outage: Outage) {
        let now = self.cx.now();
        for instance in self.instances.values_mut().filter(|instance| instance.held.is_some()) {
            let (state, policy) = (&instance.state, &instance.assigned.restart);
            let ends = state.ends_before.iter().chain(&state.last_exit);
            let Some(attempts) = outage.gives_back(policy, &state.attempts, ends, now) else { continue };
            instance.state.attempts = attempts;
            if instance.busy.is_none() {
                Self::remember(instance);
            }
        }
    }

    /// It answers. What it says of each container is asked anew: nobody knows what happened meanwhile.
    fn engine_back(&mut self) {
        let cx = self.cx.clone();
        tokio::spawn(async move {
            if let Ok(machine) = ask::machine(&cx.engine).await {
                let _ = cx.events.send(Event::Machine(machine)).await;
            }
        });
        if self.engine.away.is_some() {
            for id in self.held_ids() {
                if let Some(held) = self.instances.get_mut(&id).and_then(|instance| instance.held.as_mut()) {
                    held.glance.clear();
                }
            }
        }
        self.list_containers();
    }

    fn say_of_engine(&self, kind: Kind, message: String) {
        let event = event::Event { kind, service: None, instance: None, deployment: None, message };
        self.cx.outside.event(event);
    }

    fn tell_engine(&mut self) {
        let ids = self.held_ids();
        for id in &ids {
            if let Some(instance) = self.instances.get_mut(id) {
                self.engine.tell(instance);
            }
            self.touch(id);
        }
    }

    pub(super) fn held_ids(&self) -> Vec<InstanceId> {
        self.instances.values().filter(|instance| instance.held.is_some()).map(|i| i.id.clone()).collect()
    }

    fn container_news(&mut self, container: &str, what: What, deed: Option<Deed>) {
        let Some(id) = self.containers.get(container).cloned() else {
            if let What::Made { cluster, instance } = &what
                && cluster == self.cx.config.cluster.as_str()
                && !self.is_being_made(instance)
            {
                self.list_containers();
            }
            return;
        };
        self.note_deed(&id, deed);
        match what {
            What::Asked => {}
            // Where the kernel tells its end, the engine's word for it comes with that.
            What::Ended if self.instances.get(&id).and_then(Instance::life).is_some_and(Life::is_seen) => {}
            What::Ended | What::Changed | What::Made { .. } => self.look_at_container(&id, false),
        }
    }

    /// A creation that is under way is told of by its own answer.
    fn is_being_made(&self, instance: &str) -> bool {
        let instance = instance.parse().ok().and_then(|id: InstanceId| self.instances.get(&id));
        instance.is_some_and(|instance| instance.busy.is_some())
    }

    /// At the next list.
    pub(super) fn look_closely(&mut self) {
        self.engine.all_close = true;
    }

    /// Asks for all containers with our marks: what events have missed shows in it.
    pub(super) fn list_containers(&mut self) {
        if !self.engine.listening {
            return;
        }
        if std::mem::replace(&mut self.engine.listing, true) {
            self.engine.list_again = true;
            return;
        }
        let (cx, unwatched) = (self.cx.clone(), self.engine.unwatched);
        tokio::spawn(async move {
            let (engine, data) = (&cx.engine, &cx.config.data);
            if unwatched && let Ok(began) = ask::began(engine, cx.now()).await {
                let _ = cx.events.send(Event::EngineBegan(began)).await;
            }
            let mut listed = ask::ours(engine, &cx.config.cluster).await;
            let late = listed.as_mut().map(|listed| late::take(data, listed, cx.now())).unwrap_or_default();
            let _ = cx.events.send(Event::Listed(listed)).await;
            late::remove(engine, data, late, cx.now()).await;
        });
    }

    /// What ended while no node watched, and before it, ended with the engine before.
    pub(super) fn engine_began(&mut self, began: Option<Timestamp>) {
        if !std::mem::take(&mut self.engine.unwatched) {
            return;
        }
        self.engine.began = began;
        if let Some(outage) = began.map(Outage::until) {
            self.engine.outage.get_or_insert(outage);
            self.give_back_attempts(outage);
        }
    }

    pub(super) fn lay_unwatched(&self, id: &InstanceId, exit: Exit, seen: &Seen) -> Exit {
        let held = self.instances.get(id).and_then(|instance| instance.held.as_ref());
        let unwatched = held.is_some_and(|held| held.unasked.is_some());
        match seen.finished.zip(self.engine.began).filter(|_| unwatched) {
            Some((ended, engine_began)) => outage::lay_unwatched(exit, seen.began(), ended, engine_began),
            None => exit,
        }
    }

    pub(super) fn listed(&mut self, listed: Result<Vec<Listed>, EngineError>) {
        self.engine.listing = false;
        self.take_list(listed);
        if std::mem::take(&mut self.engine.list_again) {
            self.list_containers();
        }
    }

    fn take_list(&mut self, listed: Result<Vec<Listed>, EngineError>) {
        let listed = match listed {
            Ok(listed) => listed,
            Err(error) if error.is_away() => return self.engine_silent(error.to_string()),
            // It answers, and nothing is known of what it has.
            Err(error) if self.engine.away.is_some() => {
                let host = self.cx.engine.host();
                return self
                    .engine_silent(format!("the engine at {host} cannot list its containers: {error}"));
            }
            Err(error) => return tracing::warn!(%error, "the containers cannot be listed"),
        };
        if self.engine.away.take().is_some() {
            self.publisher.engine(observation::Engine::Answers);
            let until = self.cx.now();
            if let Some(outage) = self.engine.outage.as_mut().filter(|outage| outage.until.is_none()) {
                outage.until = Some(until);
            }
            if std::mem::take(&mut self.engine.told_away) {
                let message = format!("the engine at {} answers", self.cx.engine.host());
                self.say_of_engine(Kind::EngineBack, message);
            }
            // Whose end only the engine would have told, may have ended meanwhile, until it is looked at.
            let is_seen = |instance: &Instance| instance.life().is_none_or(Life::is_seen);
            for instance in self.instances.values_mut().filter(|instance| is_seen(instance)) {
                self.engine.tell(instance);
            }
        }
        let by_id: BTreeMap<&str, &Listed> = listed.iter().map(|found| (found.id.as_str(), found)).collect();
        let held = self.held_ids();
        let close = self.engine.close_looks(held.len());
        for (nth, id) in held.iter().enumerate() {
            self.glance(id, &by_id, close.contains(&nth));
        }
        self.note_strangers(&listed);
        self.look_for_strange_things();
        self.look_at_volumes();
    }

    /// What looks as it did needs no closer look, unless it is its turn.
    fn glance(&mut self, id: &InstanceId, listed: &BTreeMap<&str, &Listed>, close: bool) {
        let Some(instance) = self.instances.get_mut(id) else { return };
        let Some(held) = &mut instance.held else { return };
        let of_record =
            held.record.as_ref().and_then(|record| record.id.as_deref()).and_then(|id| listed.get(id));
        let glance = of_record.map(|found| found.glance.clone()).unwrap_or_default();
        let unknown = matches!(instance.run, Run::Unknown { .. });
        if close || unknown || glance != held.glance || glance.is_empty() {
            held.glance = glance;
            self.look_at_container(id, true);
        } else {
            self.touch(id);
        }
    }

    /// With the last container of a project here goes its network.
    pub(super) fn leave_network(&self, gone: &InstanceId) {
        let project = gone.service.project.clone();
        let others =
            self.instances.values().any(|other| other.held.is_some() && other.id.service.project == project);
        if others || !self.engine.listening {
            return;
        }
        let cx = self.cx.clone();
        tokio::spawn(async move {
            let (engine, data, cluster) = (&cx.engine, &cx.config.data, &cx.config.cluster);
            ProjectNetwork { engine, data, cluster, project: &project }.remove().await;
        });
    }
}
