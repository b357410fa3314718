//! The edge's counters for the API's `/metrics`.

use edge::{Edge, ServiceCounters};
use server::api::Family;

const CLASSES: [&str; 5] = ["1xx", "2xx", "3xx", "4xx", "5xx"];

pub fn of(edge: &Edge) -> Vec<Family> {
    let stats = edge.stats();
    let each = |family: Family, value: fn(&ServiceCounters) -> u64| {
        stats.services.iter().fold(family, |family, (service, counters)| {
            family.with(vec![("service", service.to_string())], value(counters) as f64)
        })
    };
    let requests =
        Family::counter("setpoint_edge_requests_total", "Requests answered by the edge, by status class.");
    let requests = stats.services.iter().fold(requests, |family, (service, counters)| {
        CLASSES.iter().zip(counters.by_class).fold(family, |family, (class, count)| {
            family.with(vec![("service", service.to_string()), ("class", (*class).into())], count as f64)
        })
    });
    vec![
        requests,
        each(Family::gauge("setpoint_edge_requests_in_flight", "Requests being answered."), |c| c.in_flight),
        each(
            Family::counter(
                "setpoint_edge_retries_total",
                "Attempts that failed before any answer and were made again.",
            ),
            |c| c.retries,
        ),
        each(
            Family::counter(
                "setpoint_edge_ejections_total",
                "Endpoints passed over because they refused a connection.",
            ),
            |c| c.ejections,
        ),
        each(Family::counter("setpoint_edge_sent_bytes_total", "Body bytes to clients."), |c| c.bytes_out),
        each(Family::counter("setpoint_edge_received_bytes_total", "Body bytes from clients."), |c| {
            c.bytes_in
        }),
        Family::counter("setpoint_edge_unrouted_requests_total", "Requests that reached no service.")
            .with(Vec::new(), stats.unrouted as f64),
        Family::gauge("setpoint_edge_connections", "Client connections open now.")
            .with(Vec::new(), stats.connections as f64),
    ]
}
