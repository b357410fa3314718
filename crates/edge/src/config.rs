//! What an edge is told at its start: where it listens, who it is, and every bound in one place.

use std::{net::SocketAddr, time::Duration};

use model::{BootId, EdgeId};

#[derive(Debug, Clone)]
pub struct Config {
    pub listen: SocketAddr,
    pub id: EdgeId,
    /// Random for each start: tells a restarted edge, whose counts began anew, from the one before it.
    pub boot: BootId,
    pub limits: Limits,
}

/// Bounds on what clients and upstreams may take. Each number is written here and nowhere else.
#[derive(Debug, Clone)]
pub struct Limits {
    /// Request line and headers together; more is answered with 431.
    pub header_bytes: usize,
    /// Number of headers; more is answered with 431.
    pub headers: usize,
    /// From a request's first byte to the end of its headers.
    pub header_read: Duration,
    /// A client's connection without a request.
    pub idle: Duration,
    /// A client that neither sends the body it announced nor reads its answer.
    pub body_idle: Duration,
    /// Bytes of a request's body; more is answered with 413.
    pub max_body: Option<u64>,
    /// Client connections at once; more wait to be accepted.
    pub connections: usize,
    pub connect: Duration,
    /// From the last of the request to the head of the answer; then 504.
    pub response_head: Duration,
    /// Further attempts at a request that nobody has answered.
    pub retries: u32,
    /// How long an endpoint that refused a connection is passed over while others are there.
    pub eject: Duration,
    /// Idle upstream connections kept for each endpoint, and for how long.
    pub pool_idle: usize,
    pub pool_idle_for: Duration,
    /// A request that must not be sent twice takes no pooled connection that was idle longer than this:
    /// its upstream may be closing it right now.
    pub pool_fresh: Duration,
    /// At shutdown: how long requests in flight may go on.
    pub shutdown_grace: Duration,
}

/// Descriptors that the rest of the process needs, whoever else is in it.
const RESERVED_FILES: u64 = 128;

impl Limits {
    /// As many connections as there are descriptors for, one to the client and one to the upstream each: more of them
    /// wait to be accepted, instead of taking the descriptors from everything else.
    #[must_use]
    pub fn within(self, files: u64) -> Self {
        let each = usize::try_from(files.saturating_sub(RESERVED_FILES) / 3).unwrap_or(usize::MAX).max(8);
        let connections = self.connections.min(each);
        // Kept for a while after their request; a third of the descriptors is for them.
        Self { connections, pool_idle: self.pool_idle.min(connections.div_ceil(8)), ..self }
    }
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            header_bytes: 32 * 1024,
            headers: 100,
            header_read: Duration::from_secs(15),
            idle: Duration::from_secs(75),
            body_idle: Duration::from_secs(60),
            max_body: None,
            connections: 20_000,
            connect: Duration::from_secs(3),
            response_head: Duration::from_secs(120),
            retries: 2,
            eject: Duration::from_secs(1),
            pool_idle: 128,
            pool_idle_for: Duration::from_secs(60),
            pool_fresh: Duration::from_secs(1),
            shutdown_grace: Duration::from_secs(10),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn few_descriptors_are_shared_out_and_many_change_nothing() {
        let usual = Limits::default();
        let few = Limits::default().within(1024);
        assert_eq!((few.connections, few.pool_idle), (298, 38));
        assert_eq!(Limits::default().within(10).connections, 8);
        let many = Limits::default().within(1 << 20);
        assert_eq!((many.connections, many.pool_idle), (usual.connections, usual.pool_idle));
    }
}
