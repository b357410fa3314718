//! Which ports the node has given to its instances.

use std::{collections::BTreeMap, net::TcpListener, ops::RangeInclusive};

use model::InstanceId;

#[derive(Debug)]
pub struct Ports {
    host: String,
    range: RangeInclusive<u16>,
    given: BTreeMap<u16, InstanceId>,
}

#[derive(Debug, Clone, thiserror::Error, PartialEq, Eq)]
pub enum Error {
    #[error(
        "no free port is left in {first}–{last}: end something that listens there, or run fewer instances"
    )]
    Exhausted { first: u16, last: u16 },
    #[error(
        "port {port} at {host} is taken by another program: end it (`ss -ltnp sport = :{port}` names it), or declare another port"
    )]
    Taken { port: u16, host: String },
    #[error("port {port} is {holder}'s")]
    Given { port: u16, holder: InstanceId },
}

impl Ports {
    pub fn new(host: &str, range: RangeInclusive<u16>) -> Self {
        Self { host: host.to_owned(), range, given: BTreeMap::new() }
    }

    /// Notes a port that the ledger says the instance has.
    pub fn note(&mut self, port: u16, id: &InstanceId) {
        self.given.insert(port, id.clone());
    }

    /// A free port for the instance, looked for from `start` on around the range. `start` is random, so that a port
    /// given up is not soon another's.
    pub fn give(&mut self, id: &InstanceId, start: u16) -> Result<u16, Error> {
        let (first, last) = (*self.range.start(), *self.range.end());
        let size = u32::from(last.saturating_sub(first)) + 1;
        let ports = (0..size).map(|n| first + u16::try_from((u32::from(start) + n) % size).unwrap_or(0));
        let free = ports
            .filter(|port| !self.given.contains_key(port))
            .find(|port| is_free(&self.host, *port))
            .ok_or(Error::Exhausted { first, last })?;
        self.note(free, id);
        Ok(free)
    }

    /// Takes a declared port. One that the instance has already is not tried again: it listens there.
    pub fn take(&mut self, id: &InstanceId, port: u16) -> Result<(), Error> {
        match self.given.get(&port) {
            Some(holder) if holder == id => Ok(()),
            Some(holder) => Err(Error::Given { port, holder: holder.clone() }),
            None if !is_free(&self.host, port) => Err(Error::Taken { port, host: self.host.clone() }),
            None => {
                self.note(port, id);
                Ok(())
            }
        }
    }

    /// As `take`, of one that is its own and that another program may still have.
    pub fn take_back(&mut self, id: &InstanceId, port: u16) -> Result<(), Error> {
        if !is_free(&self.host, port) {
            return Err(Error::Taken { port, host: self.host.clone() });
        }
        self.take(id, port)
    }

    pub fn release(&mut self, id: &InstanceId) {
        self.given.retain(|_, holder| holder != id);
    }
}

/// Whether nobody listens there now.
pub fn is_free(host: &str, port: u16) -> bool {
    TcpListener::bind((host, port)).is_ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_port_that_somebody_holds_is_not_given() {
        let taken = TcpListener::bind("127.0.0.1:0").unwrap();
        let port = taken.local_addr().unwrap().port();
        let id = "default.api.0.1".parse().unwrap();
        let mut ports = Ports::new("127.0.0.1", port..=port);
        assert_eq!(ports.give(&id, 0), Err(Error::Exhausted { first: port, last: port }));
        assert_eq!(ports.take(&id, port), Err(Error::Taken { port, host: "127.0.0.1".into() }));
        drop(taken);
        assert_eq!(ports.give(&id, 77), Ok(port));
        assert_eq!(ports.take(&id, port), Ok(()));
        let other = "default.api.1.2".parse().unwrap();
        assert_eq!(ports.take(&other, port), Err(Error::Given { port, holder: id.clone() }));
        ports.release(&id);
        assert_eq!(ports.take(&other, port), Ok(()));
    }
}
