//! Edges that run apart: they fetch the route table when it is newer than theirs, and report what they serve. The
//! messages are those of the model, unchanged.

use std::{net::SocketAddr, time::Duration};

use axum::{
    Json,
    extract::State,
    http::StatusCode,
    response::{IntoResponse, Response},
};
use model::{RouteRevision, route::EdgeReport};
use serde::Deserialize;

use super::{
    Api,
    problem::Problem,
    serve::Stopping,
    take::{Asked, Write},
};

const MAX_WAIT: Duration = Duration::from_secs(30);

#[derive(Debug, Deserialize)]
pub struct RoutesAsked {
    after: Option<u64>,
    /// Seconds.
    #[serde(default)]
    wait: u64,
}

/// The whole table, at once or when it becomes newer than `after`; 204 when it did not.
pub async fn routes(
    State(api): State<Api>,
    stopping: Stopping,
    Asked(RoutesAsked { after, wait }): Asked<RoutesAsked>,
) -> Result<Response, Problem> {
    let _place = (wait > 0).then(|| api.feed()).transpose()?;
    let wait = Duration::from_secs(wait).min(MAX_WAIT);
    let newer = tokio::select! {
        newer = api.control.routes_after(after.map(RouteRevision), wait) => newer,
        () = stopping.wait() => None,
    };
    Ok(match newer {
        Some(table) => Json(&*table).into_response(),
        None => StatusCode::NO_CONTENT.into_response(),
    })
}

#[derive(Debug, Deserialize)]
pub struct ReportAsked {
    address: Option<SocketAddr>,
}

/// What an edge serves now, and what is in flight there.
pub async fn report(
    State(api): State<Api>,
    Asked(ReportAsked { address }): Asked<ReportAsked>,
    Write(report, _): Write<EdgeReport>,
) -> StatusCode {
    api.control.hear_from_afar(report);
    if let Some(address) = address {
        api.control.edge_is_at(address);
    }
    StatusCode::NO_CONTENT
}
