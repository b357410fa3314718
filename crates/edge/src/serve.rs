//! One request from its head to its answer. Reads as the summary: who is it for, is it well formed, where does
//! it go.

use std::{
    convert::Infallible,
    net::IpAddr,
    sync::{Arc, atomic::Ordering::Relaxed},
};

use http::{Method, Request, Response, StatusCode, header::UPGRADE};
use hyper::body::{Body as _, Incoming};
use tokio::sync::OwnedSemaphorePermit;

use crate::{
    body::ResponseBody,
    closing::Closing,
    config::Limits,
    files::{self, Ask},
    headers, host, problem,
    proxy::{self, Outgoing},
    state::{Admission, State},
    wire::{Decision, Outcome},
};

/// One client connection, as its requests need it.
#[derive(Debug)]
pub struct Client {
    pub state: Arc<State>,
    pub limits: Arc<Limits>,
    pub about: headers::Client,
    pub closing: Closing,
    pub decision: Arc<Decision>,
    /// Its place among the connections; free again when the last holder is gone, a tunnel perhaps.
    _place: OwnedSemaphorePermit,
}

impl Client {
    pub fn new(
        state: Arc<State>,
        limits: Arc<Limits>,
        ip: IpAddr,
        closing: Closing,
        place: OwnedSemaphorePermit,
    ) -> Self {
        Self {
            state,
            limits,
            about: headers::Client::new(ip),
            closing,
            decision: Arc::default(),
            _place: place,
        }
    }
}

pub async fn serve(
    client: Arc<Client>,
    request: Request<Incoming>,
) -> Result<Response<ResponseBody>, Infallible> {
    if !request.headers().contains_key(UPGRADE) {
        return Ok(route(&client, request).await);
    }
    let response = if client.decision.has_surplus() {
        let what = "bytes follow a request to upgrade that was not answered yet";
        unrouted(&client.state, problem::closing(StatusCode::BAD_REQUEST, what))
    } else {
        route(&client, request).await
    };
    let upgraded = response.status() == StatusCode::SWITCHING_PROTOCOLS;
    client.decision.decide(if upgraded { Outcome::Upgraded } else { Outcome::NotUpgraded });
    Ok(response)
}

async fn route(client: &Arc<Client>, request: Request<Incoming>) -> Response<ResponseBody> {
    let state = &client.state;
    if request.method() == Method::CONNECT {
        return unrouted(
            state,
            problem::closing(StatusCode::METHOD_NOT_ALLOWED, "this is not a forward proxy"),
        );
    }
    let uri = request.uri().clone();
    let path = uri.path();
    let host = match host::canonical(&uri, request.headers()) {
        Ok(host) => host.into_owned(),
        Err(error) => {
            return unrouted(state, problem::closing(StatusCode::BAD_REQUEST, &error.to_string()));
        }
    };
    if let (Some(max), Some(length)) = (client.limits.max_body, request.body().size_hint().exact())
        && length > max
    {
        let what = format!("the request's body is larger than the {max} bytes that are allowed");
        return unrouted(state, problem::closing(StatusCode::PAYLOAD_TOO_LARGE, &what));
    }
    let (service, response) = match state.admit(&host, path, &[]) {
        Admission::Unrouted => {
            let what = "no service has this host and path; `setpoint status` lists the urls";
            return unrouted(state, problem::problem(StatusCode::NOT_FOUND, what));
        }
        Admission::Unavailable(service) => {
            let response = problem::unavailable(&service.key);
            (service, response)
        }
        Admission::Proxy(service, target, ticket) => {
            let outgoing = Outgoing::new(request, &client.about);
            proxy::forward(client, &host, path, outgoing, (service, target, ticket)).await
        }
        Admission::Files(service, site, prefix, ticket) => {
            let ask = Ask { method: request.method(), uri: &uri, headers: request.headers(), prefix };
            let response = files::answer(ask, &service, &site, ticket).await;
            (service, response)
        }
    };
    service.stats.answered(response.status());
    response
}

fn unrouted(state: &State, response: Response<ResponseBody>) -> Response<ResponseBody> {
    state.unrouted.fetch_add(1, Relaxed);
    response
}
