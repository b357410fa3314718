//! Which endpoint takes a request: the one with the least in flight for its weight, ties in turn.

use std::sync::{Arc, atomic::Ordering::Relaxed};

use crate::{
    compiled::{Endpoints, Weighted},
    pool::Target,
};

/// Looking at all of ten thousand endpoints for each request would cost more than the request; the least
/// loaded of this many, taken in turn, is nearly the least loaded of all.
const LOOK_AT: usize = 64;

/// `now` is in the edge's milliseconds; `tried` failed this request already.
pub fn pick<'a>(endpoints: &'a Endpoints, tried: &[Arc<Target>], now: u64) -> Option<&'a Arc<Target>> {
    let untried = |e: &&Weighted| {
        e.weight > 0 && !e.target.flight.is_down() && !tried.iter().any(|t| Arc::ptr_eq(t, &e.target))
    };
    // Ejection is a preference: when all that is left was ejected, the least loaded of it is tried again.
    least(endpoints, |e| untried(e) && !e.target.is_ejected(now)).or_else(|| least(endpoints, untried))
}

/// Whether another endpoint could take requests besides this one.
pub fn has_other(endpoints: &Endpoints, than: &Arc<Target>, now: u64) -> bool {
    let usable = |e: &Weighted| e.weight > 0 && !e.target.flight.is_down() && !e.target.is_ejected(now);
    endpoints.all.iter().any(|e| !Arc::ptr_eq(&e.target, than) && usable(e))
}

fn least(endpoints: &Endpoints, usable: impl Fn(&&Weighted) -> bool) -> Option<&Arc<Target>> {
    let all = &endpoints.all;
    if all.is_empty() {
        return None;
    }
    let start = endpoints.turn.fetch_add(1, Relaxed) % all.len();
    let (after, before) = (&all[start..], &all[..start]);
    let candidates = after.iter().chain(before).filter(usable).take(LOOK_AT);
    let loaded = candidates.map(|e| (load(e), e));
    // `min_by` keeps the first of equals, which is the one whose turn it is.
    loaded.min_by(|(a, _), (b, _)| a.total_cmp(b)).map(|(_, e)| &e.target)
}

/// Requests per weight if this one were added.
fn load(endpoint: &Weighted) -> f64 {
    (endpoint.target.flight.count() + 1) as f64 / f64::from(endpoint.weight)
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use tokio::sync::watch;

    use super::*;
    use crate::flight::{Flight, Ticket};

    fn endpoints(weights: &[u32]) -> Endpoints {
        let target = |n: usize| {
            let instance = format!("default.api.{n}.1").parse().unwrap();
            let flight = Arc::new(Flight::new(instance, watch::channel(0).0));
            Arc::new(Target::new(flight, &format!("127.0.0.1:{}", 1000 + n)))
        };
        let all = weights.iter().enumerate().map(|(n, &weight)| Weighted { weight, target: target(n) });
        Endpoints { all: all.collect(), turn: 0.into() }
    }

    /// Picks and holds `n` requests; tells how many each slot got.
    fn spread(endpoints: &Endpoints, n: usize) -> (BTreeMap<u32, usize>, Vec<Ticket>) {
        let mut got = BTreeMap::new();
        let mut held = Vec::new();
        for _ in 0..n {
            let target = pick(endpoints, &[], 0).unwrap();
            held.push(Ticket::take(&target.flight));
            *got.entry(target.flight.instance.slot.0).or_default() += 1;
        }
        (got, held)
    }

    #[test]
    fn the_least_loaded_takes_the_next_request_and_ties_rotate() {
        let endpoints = endpoints(&[1, 1, 1]);
        let (got, held) = spread(&endpoints, 9);
        assert_eq!(got, [(0, 3), (1, 3), (2, 3)].into());
        drop(held);
        let turns: Vec<_> =
            (0..3).map(|_| pick(&endpoints, &[], 0).unwrap().flight.instance.slot.0).collect();
        assert_eq!(turns.iter().collect::<std::collections::BTreeSet<_>>().len(), 3, "{turns:?}");
    }

    #[test]
    fn weights_share_the_load_and_weight_zero_takes_none() {
        let (got, _held) = spread(&endpoints(&[3, 1, 0]), 8);
        assert_eq!(got, [(0, 6), (1, 2)].into());
    }

    #[test]
    fn what_is_down_or_was_tried_is_not_picked_and_the_last_ejected_one_is() {
        let endpoints = endpoints(&[1, 1]);
        let (a, b) = (&endpoints.all[0].target, &endpoints.all[1].target);
        a.eject(100);
        for _ in 0..4 {
            assert!(Arc::ptr_eq(pick(&endpoints, &[], 50).unwrap(), b));
        }
        assert!(!has_other(&endpoints, b, 50));
        b.flight.set_down(true);
        assert!(Arc::ptr_eq(pick(&endpoints, &[], 50).unwrap(), a), "nothing else is left");
        assert!(pick(&endpoints, std::slice::from_ref(a), 50).is_none());
        a.flight.set_down(true);
        assert!(pick(&endpoints, &[], 50).is_none());
    }
}
