//! What the story says: a user asks, or something breaks.

use model::Millis;

use super::{Event, Play};
use crate::story::{Ask, What};

impl Play<'_> {
    pub(super) fn input(&mut self, index: usize) {
        let input = &self.story.inputs[index];
        match &input.what {
            What::User { service, asks } => self.ask(index, *service, *asks),
            What::Fault(fault) => {
                self.told(format!("fault {fault:?}"));
                self.fault(*fault);
            }
        }
    }

    /// A user asks again while the server is away.
    fn ask(&mut self, index: usize, service: usize, asks: Ask) {
        let shape = &self.story.shapes[service];
        let Some(memory) = &mut self.server.memory else {
            if !self.healed {
                self.after(Millis(300), Event::Input(index));
            }
            return;
        };
        self.truth.ends.asked(&shape.key);
        let answer = memory.ask(&mut self.store, &self.unreadable, shape, asks, self.now);
        self.told(format!("{} {asks:?}: {answer}", shape.key.name));
        self.truth.recorded(self.now, &self.store);
        self.look();
    }
}
