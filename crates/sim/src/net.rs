//! Messages between the parts: complete values that may come late, twice, out of order or not at all.

use model::{Millis, Timestamp};
use rand::{Rng, rngs::StdRng};

use crate::story::{Fault, Link};

#[derive(Debug, Default)]
pub struct Net {
    troubles: Vec<(Fault, Timestamp)>,
}

impl Net {
    pub fn trouble(&mut self, fault: Fault, until: Timestamp) {
        self.troubles.push((fault, until));
    }

    pub fn heal(&mut self) {
        self.troubles.clear();
    }

    /// How long each copy of a message takes; none: it is lost.
    pub fn send(&mut self, on: Link, now: Timestamp, rng: &mut StdRng) -> Vec<Millis> {
        self.troubles.retain(|(_, until)| *until > now);
        let mut copies = vec![Millis(rng.random_range(1..15))];
        for (trouble, _) in &self.troubles {
            match trouble {
                Fault::Cut { link, .. } if *link == on => return Vec::new(),
                Fault::Lossy { link, drop, .. } if *link == on && rng.random_bool(*drop) => {
                    return Vec::new();
                }
                Fault::Repeating { link, .. } if *link == on => {
                    copies.push(Millis(rng.random_range(1..6_000)));
                }
                Fault::Delayed { link, up_to, .. } if *link == on => {
                    copies[0] = Millis(rng.random_range(1..=up_to.0));
                }
                _ => {}
            }
        }
        copies
    }
}
