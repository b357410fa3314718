//! One request to an upstream: attempts until somebody answers, then the answer passed on, or the connection
//! handed over to both sides when they agree to upgrade.
//!
//! A retry routes again, by the table served at that moment: nobody has answered yet, so the client sees one
//! version all the same, and an instance that was retired meanwhile is not given work.

use std::{
    sync::{Arc, atomic::Ordering::Relaxed},
    time::Duration,
};

use http::{HeaderMap, Method, Request, Response, StatusCode, Uri, request::Parts};
use hyper::{
    body::{Body, Incoming},
    upgrade::OnUpgrade,
};

use crate::{
    balance,
    body::{Lease, Relayed, RequestBody, ResponseBody, Upload},
    compiled::{Serve, Service},
    config::Limits,
    failure::Failure,
    flight::Ticket,
    headers,
    pool::{Connection, Target},
    serve::Client,
    state::{Admission, State},
    tunnel::tunnel,
};

/// A client's request as it will be sent, possibly more than once.
#[derive(Debug)]
pub struct Outgoing {
    method: Method,
    path: Uri,
    headers: HeaderMap,
    body: Option<Incoming>,
    /// Set when client and upstream may agree on another protocol.
    upgrade: Option<OnUpgrade>,
}

impl Outgoing {
    pub fn new(mut request: Request<Incoming>, client: &headers::Client) -> Self {
        let protocol = headers::upgrade(request.headers());
        let upgrade = protocol.as_ref().map(|_| hyper::upgrade::on(&mut request));
        let (Parts { method, uri, mut headers, .. }, body) = request.into_parts();
        headers::for_upstream(&mut headers, client, protocol);
        let path = uri.into_parts().path_and_query.map(Uri::from).unwrap_or_default();
        Self { method, path, headers, body: Some(body).filter(|b| !b.is_end_stream()), upgrade }
    }

    /// Whether sending it twice does no more than sending it once.
    fn is_idempotent(&self) -> bool {
        self.method.is_idempotent() && self.upgrade.is_none()
    }

    fn to_request(&self, body: RequestBody) -> Request<RequestBody> {
        let mut request = Request::new(body);
        *request.method_mut() = self.method.clone();
        *request.uri_mut() = self.path.clone();
        *request.headers_mut() = self.headers.clone();
        request
    }
}

/// What one attempt came to.
enum Attempt {
    Answered(Response<ResponseBody>),
    /// Nothing of the request was sent.
    NotSent(Failure),
    /// It was sent, perhaps not whole, and the connection ended before an answer.
    NotAnswered(Failure),
    /// There is no use in another attempt.
    Final(Failure),
}

/// Forwards until somebody answers. `first` is the admission that brought the request here.
pub async fn forward(
    client: &Arc<Client>,
    host: &str,
    path: &str,
    mut outgoing: Outgoing,
    first: (Arc<Service>, Arc<Target>, Ticket),
) -> (Arc<Service>, Response<ResponseBody>) {
    let state = &client.state;
    let (mut service, mut target, mut ticket) = first;
    let mut tried: Vec<Arc<Target>> = Vec::new();
    let mut pooled = true;
    let mut retries = client.limits.retries;
    loop {
        let connection = if pooled { take_pooled(&target, &outgoing, &client.limits) } else { None };
        let reused = connection.is_some();
        let attempt = attempt(client, &service, &target, ticket, connection, &mut outgoing).await;
        let (failure, again) = match attempt {
            Attempt::Answered(response) => return (service, response),
            Attempt::Final(failure) => return (service.clone(), failure.answer(&service)),
            Attempt::NotSent(failure) => (failure, true),
            Attempt::NotAnswered(failure) => (failure, outgoing.is_idempotent()),
        };
        if reused {
            // Others of the same age are likely gone too; what comes next is a connection of its own.
            pooled = false;
        } else {
            note_failure(state, &service, &target, failure);
            tried.push(target);
        }
        if !again || retries == 0 {
            return (service.clone(), failure.answer(&service));
        }
        retries -= 1;
        match state.admit(host, path, &tried) {
            Admission::Proxy(next_service, next_target, next_ticket) => {
                next_service.stats.retries.fetch_add(1, Relaxed);
                (service, target, ticket) = (next_service, next_target, next_ticket);
            }
            // No other endpoint: the failure is the answer. (A site in its place serves the next request.)
            Admission::Unrouted | Admission::Unavailable(_) | Admission::Files(..) => {
                return (service.clone(), failure.answer(&service));
            }
        }
    }
}

fn take_pooled(target: &Target, outgoing: &Outgoing, limits: &Limits) -> Option<Connection> {
    if outgoing.upgrade.is_some() {
        return None;
    }
    target.take(if outgoing.is_idempotent() { limits.pool_idle_for } else { limits.pool_fresh })
}

async fn attempt(
    client: &Arc<Client>,
    service: &Arc<Service>,
    target: &Arc<Target>,
    ticket: Ticket,
    connection: Option<Connection>,
    outgoing: &mut Outgoing,
) -> Attempt {
    let limits = &client.limits;
    let connection = match connection {
        Some(connection) => connection,
        None => match target.connect(limits).await {
            Ok(connection) => {
                target.restore();
                connection
            }
            Err(error) => return Attempt::NotSent(Failure::of_connect(&error)),
        },
    };
    let lease = Lease { connection, target: target.clone(), limits: limits.clone(), ticket };
    exchange(client, service, lease, outgoing).await
}

/// Passes over an endpoint that takes no connections, for a while and not if it is the last one.
fn note_failure(state: &State, service: &Service, target: &Arc<Target>, failure: Failure) {
    if !matches!(failure, Failure::Refused | Failure::ConnectTimedOut | Failure::Unreachable) {
        return;
    }
    let Serve::Proxy(endpoints) = &service.serve else { return };
    let now = state.now();
    if !target.is_ejected(now) && balance::has_other(endpoints, target, now) {
        target.eject(now + u64::try_from(state.config.limits.eject.as_millis()).unwrap_or(1000));
        service.stats.ejections.fetch_add(1, Relaxed);
        tracing::debug!(instance = %target.flight.instance, ?failure, "endpoint passed over");
    }
}

/// Sends the request on a connection and waits for the head of the answer.
async fn exchange(
    client: &Arc<Client>,
    service: &Arc<Service>,
    mut lease: Lease,
    outgoing: &mut Outgoing,
) -> Attempt {
    let limits = &client.limits;
    let upload =
        outgoing.body.take().map(|body| Arc::new(Upload::new(body, limits.max_body, service.stats.clone())));
    let body = upload.clone().map_or(RequestBody::Empty, RequestBody::Stream);
    let sending = lease.connection.try_send_request(outgoing.to_request(body));
    let Some(sent) = within(limits.response_head, upload.as_deref(), sending).await else {
        return Attempt::Final(Failure::AnswerTimedOut);
    };
    let mut refused = match sent {
        Ok(response) => return answered(client, service, lease, outgoing, response),
        Err(refused) => refused,
    };
    let unsent = refused.take_message().is_some();
    if let Some(upload) = &upload {
        if let Some(fault) = upload.fault() {
            return Attempt::Final(Failure::Upload(fault));
        }
        outgoing.body = upload.take_back();
        if outgoing.body.is_none() {
            return Attempt::Final(Failure::Broken);
        }
    }
    tracing::debug!(error = %refused.error(), instance = %lease.target.flight.instance, "no answer");
    match refused.error() {
        error if error.is_parse() => Attempt::Final(Failure::Malformed),
        _ if unsent => Attempt::NotSent(Failure::Broken),
        _ => Attempt::NotAnswered(Failure::Broken),
    }
}

/// Waits for an answer as long as the request still moves, and then for `limit`.
async fn within<F: Future>(limit: Duration, upload: Option<&Upload>, answer: F) -> Option<F::Output> {
    let mut answer = std::pin::pin!(answer);
    loop {
        let before = upload.map(Upload::passed);
        if let Ok(answer) = tokio::time::timeout(limit, &mut answer).await {
            return Some(answer);
        }
        if upload.map(Upload::passed) == before {
            return None;
        }
    }
}

fn answered(
    client: &Arc<Client>,
    service: &Arc<Service>,
    lease: Lease,
    outgoing: &mut Outgoing,
    mut response: Response<Incoming>,
) -> Attempt {
    let upgraded = response.status() == StatusCode::SWITCHING_PROTOCOLS;
    if upgraded {
        let Some(client_side) = outgoing.upgrade.take() else {
            return Attempt::Final(Failure::Malformed);
        };
        let upstream_side = hyper::upgrade::on(&mut response);
        tokio::spawn(tunnel(client.clone(), client_side, upstream_side, lease));
        headers::for_client(response.headers_mut(), true);
        return Attempt::Answered(response.map(|_| ResponseBody::Empty));
    }
    headers::for_client(response.headers_mut(), false);
    let relay = |body| {
        ResponseBody::Upstream(Box::new(Relayed { body, lease: Some(lease), stats: service.stats.clone() }))
    };
    Attempt::Answered(response.map(relay))
}
