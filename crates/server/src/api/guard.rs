//! What every request passes before a handler sees it: the Host that it names, the site that it comes from, its
//! token. And what every answer carries.
//!
//! Refuses to know: what is asked for, beyond which paths need no token.

use std::{
    net::{IpAddr, Ipv4Addr},
    sync::{Mutex, MutexGuard, PoisonError},
};

use axum::{
    extract::{Request, State},
    http::{HeaderMap, HeaderValue, Method, StatusCode, Uri, header, uri::Authority},
    middleware::Next,
    response::{IntoResponse, Response},
};
use data_encoding::{BASE64, HEXLOWER};
use decide::access::{self, Bearer};
use model::{Digest, TokenName};
use subtle::ConstantTimeEq;

use super::{Api, problem::Problem, serve::Peer};

/// The API's token: only digests of it are held, one of them compared in constant time.
#[derive(Clone)]
pub struct Token {
    known: Digest,
    /// What other tokens are derived with.
    secret: Digest,
}

/// So that a token is known as ours wherever it turns up.
const PREFIX: &str = "sp_";

impl std::fmt::Debug for Token {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Token(…)")
    }
}

impl Token {
    pub fn new(token: &str) -> Self {
        let secret = Digest::of_bytes(format!("tokens are derived with {token}").as_bytes());
        Self { known: Digest::of_bytes(token.as_bytes()), secret }
    }

    /// The token that belongs to a random seed. The seed alone tells nothing about it, so that the answer that gave a
    /// token out can be kept without it. Both parts have a fixed length: nothing can be appended.
    pub fn derive(&self, seed: &str) -> String {
        let seed = Digest::of_bytes(seed.as_bytes());
        let both = [self.secret.as_bytes().as_slice(), seed.as_bytes().as_slice()].concat();
        format!("{PREFIX}{}", HEXLOWER.encode(Digest::of_bytes(&both).as_bytes()))
    }

    fn is(&self, given: &[u8]) -> bool {
        !given.is_empty() && self.known.as_bytes().ct_eq(Digest::of_bytes(given).as_bytes()).into()
    }
}

/// Host names under which the API answers: loopback's, and those that the configuration names. Another page's
/// name that was made to resolve to this machine is none of them.
#[derive(Debug, Clone)]
pub struct Hosts(Vec<String>);

impl Hosts {
    pub fn new(allowed: Vec<String>) -> Self {
        Self(allowed.into_iter().map(|host| canonical(&host)).collect())
    }

    fn allow(&self, host: &str) -> bool {
        let host = canonical(host);
        let address = host.trim_start_matches('[').trim_end_matches(']').parse::<IpAddr>();
        host == "localhost" || address.is_ok_and(|ip| ip.is_loopback()) || self.0.contains(&host)
    }
}

fn canonical(host: &str) -> String {
    host.strip_suffix('.').unwrap_or(host).to_ascii_lowercase()
}

const OPEN: [&str; 2] = ["/health", "/ready"];

/// The order matters: a forged name learns nothing, and nothing is read from a body before the token is known.
pub async fn guard(State(api): State<Api>, request: Request, next: Next) -> Response {
    let mut request = request;
    let refused = recognise(&api, &mut request);
    let (method, route) = (request.method().clone(), super::metrics::route_of(&request));
    let response = match refused {
        Some(problem) => problem,
        None => next.run(request).await,
    };
    api.answers.count(&method, route, response.status());
    with_headers(response)
}

/// Notes who asks; or gives the answer instead, when it may not pass.
fn recognise(api: &Api, request: &mut Request) -> Option<Response> {
    let host = match host_of(request.uri(), request.headers()) {
        Ok(host) => host,
        Err(problem) => return Some(problem.into_response()),
    };
    if !api.hosts.allow(host.host()) {
        return Some(misdirected().into_response());
    }
    if is_cross_site(request.method(), request.headers(), &host) {
        return Some(cross_site().into_response());
    }
    let path = request.uri().path();
    if OPEN.contains(&path) {
        return None;
    }
    let known = shown(path, request.headers()).map(|token| bearer(api, &token));
    match known.unwrap_or(Err(Unknown::Token)) {
        Ok(bearer) => match too_often(api, &bearer) {
            Some(refused) => Some(refused.into_response()),
            None => {
                request.extensions_mut().insert(bearer);
                None
            }
        },
        Err(unknown) => Some(unrecognised(api, path, peer(request), &unknown)),
    }
}

/// Why a token opens nothing.
enum Unknown {
    Token,
    Expired(TokenName),
}

/// Compared with every token there is, each in constant time.
fn bearer(api: &Api, token: &[u8]) -> Result<Bearer, Unknown> {
    if api.token.is(token) {
        return Ok(Bearer::Local);
    }
    let digest = Digest::of_bytes(token);
    let given = api.control.issued(|issued| {
        issued.iter().fold(None, |found, one| {
            let same: bool = one.digest.as_bytes().ct_eq(digest.as_bytes()).into();
            if same { Some(one.grant.clone()) } else { found }
        })
    });
    match given {
        Some(grant) if access::is_valid(&grant, api.control.now()) => Ok(Bearer::Given(grant)),
        Some(grant) => Err(Unknown::Expired(grant.name)),
        None => Err(Unknown::Token),
    }
}

/// A token that was given out may ask only so often. The local one is the operator's own.
fn too_often(api: &Api, bearer: &Bearer) -> Option<Problem> {
    let Bearer::Given(grant) = bearer else { return None };
    let wait = lock(&api.requests).take(&grant.name, api.control.now()).err()?;
    let message = format!("token {} asks too often", grant.name);
    Some(Problem::too_many("too_many_requests", message, wait))
}

/// What shows a wrong token too often is answered without a look at it for a while. A right one passes: otherwise
/// whoever shares the address could lock its owner out, and 256 random bits are not guessed at any rate.
fn unrecognised(api: &Api, path: &str, peer: Option<IpAddr>, unknown: &Unknown) -> Response {
    let peer = peer.unwrap_or(IpAddr::V4(Ipv4Addr::UNSPECIFIED));
    match lock(&api.failures).take(&peer, api.control.now()) {
        Ok(()) => unauthorized(path, unknown),
        Err(wait) => {
            let message = "too many requests from this address had no valid token";
            Problem::too_many("too_many_failures", message, wait).field("Authorization").into_response()
        }
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

fn peer(request: &Request) -> Option<IpAddr> {
    request.extensions().get::<Peer>().map(|Peer(ip)| *ip)
}

fn host_of(uri: &Uri, headers: &HeaderMap) -> Result<Authority, Problem> {
    let bad = |message: &str| {
        Problem::bad_request("bad_host", message, "send one Host header with the name of the API")
            .field("Host")
    };
    let mut named = headers.get_all(header::HOST).iter();
    let named = match (named.next(), named.next()) {
        (Some(one), None) => one.to_str().ok().and_then(|text| text.parse::<Authority>().ok()),
        (None, None) => return Err(bad("the Host header is missing")),
        _ => return Err(bad("there are several Host headers")),
    };
    let named =
        named.filter(|a| !a.as_str().contains('@')).ok_or_else(|| bad("the Host header is not a host"))?;
    match uri.authority() {
        Some(asked) if *asked != named => Err(bad("the request line and the Host header name two hosts")),
        Some(_) | None => Ok(named),
    }
}

fn misdirected() -> Problem {
    Problem::new(
        StatusCode::MISDIRECTED_REQUEST,
        "unknown_host",
        "the API does not answer under this host name",
        "use localhost or 127.0.0.1, or name the host in the settings (api.allowed_hosts)",
    )
    .field("Host")
}

/// A browser says where a request comes from. A page of another site may send writes, but not have them carried out.
fn is_cross_site(method: &Method, headers: &HeaderMap, host: &Authority) -> bool {
    if method.is_safe() {
        return false;
    }
    let fetched = headers.get("sec-fetch-site").map(HeaderValue::as_bytes);
    let foreign_fetch = fetched.is_some_and(|site| site != b"same-origin" && site != b"none");
    let foreign_origin = headers.get_all(header::ORIGIN).iter().any(|origin| {
        let from = origin.to_str().ok().and_then(|text| text.parse::<Uri>().ok());
        from.as_ref().and_then(Uri::authority) != Some(host)
    });
    foreign_fetch || foreign_origin
}

fn cross_site() -> Problem {
    Problem::new(
        StatusCode::FORBIDDEN,
        "cross_site",
        "a page of another site may not change anything here",
        "send the request from a program, or from a page of this address",
    )
    .field("Origin")
}

/// A bearer token everywhere. The pages of the documentation also take it as a password, because a browser can only
/// ask for that; they change nothing.
fn shown(path: &str, headers: &HeaderMap) -> Option<Vec<u8>> {
    let mut given = headers.get_all(header::AUTHORIZATION).iter();
    let (Some(given), None) = (given.next(), given.next()) else { return None };
    let (scheme, value) = split_scheme(given.as_bytes())?;
    if scheme.eq_ignore_ascii_case(b"bearer") {
        return Some(value.to_vec()).filter(|token| !token.is_empty());
    }
    (scheme.eq_ignore_ascii_case(b"basic") && is_page(path))
        .then(|| password(value))
        .flatten()
        .filter(|token| !token.is_empty())
}

fn split_scheme(value: &[u8]) -> Option<(&[u8], &[u8])> {
    let at = value.iter().position(|b| *b == b' ')?;
    Some((&value[..at], value[at..].trim_ascii()))
}

fn password(basic: &[u8]) -> Option<Vec<u8>> {
    let mut decoded = BASE64.decode(basic).ok()?;
    let at = decoded.iter().position(|b| *b == b':')?;
    Some(decoded.split_off(at + 1))
}

fn is_page(path: &str) -> bool {
    path == "/api/v1/openapi.json" || path == "/api/v1/docs" || path.starts_with("/api/v1/docs/")
}

/// What is said to whom nobody knows.
pub fn no_token() -> Problem {
    Problem::new(
        StatusCode::UNAUTHORIZED,
        "unauthorized",
        "the token is missing or wrong",
        "send `Authorization: Bearer <token>`; the token is in the file `token` of the data folder",
    )
    .field("Authorization")
}

fn unauthorized(path: &str, unknown: &Unknown) -> Response {
    let problem = match unknown {
        Unknown::Token => no_token(),
        Unknown::Expired(name) => Problem::new(
            StatusCode::UNAUTHORIZED,
            "token_expired",
            format!("token {name} has expired"),
            "ask for a new one: setpoint token create NAME",
        )
        .field("Authorization"),
    };
    let mut response = problem.into_response();
    let challenge = response.headers_mut();
    challenge.append(header::WWW_AUTHENTICATE, HeaderValue::from_static("Bearer realm=\"setpoint\""));
    if is_page(path) {
        challenge.append(
            header::WWW_AUTHENTICATE,
            HeaderValue::from_static("Basic realm=\"setpoint: token as password\""),
        );
    }
    response
}

const HEADERS: [(&str, &str); 6] = [
    (
        "content-security-policy",
        "default-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'",
    ),
    ("x-content-type-options", "nosniff"),
    ("x-frame-options", "DENY"),
    ("referrer-policy", "no-referrer"),
    ("cross-origin-resource-policy", "same-origin"),
    ("cross-origin-opener-policy", "same-origin"),
];

fn with_headers(mut response: Response) -> Response {
    let headers = response.headers_mut();
    for (name, value) in HEADERS {
        headers.insert(name, HeaderValue::from_static(value));
    }
    headers.entry(header::CACHE_CONTROL).or_insert(HeaderValue::from_static("no-store"));
    response
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_known_host_names_are_answered() {
        let hosts = Hosts::new(vec!["Setpoint.Example.".into()]);
        for good in ["localhost", "LOCALHOST.", "127.0.0.1", "127.8.9.1", "[::1]", "setpoint.example"] {
            assert!(hosts.allow(good), "{good}");
        }
        for bad in ["evil.example", "localhost.evil.example", "10.0.0.1", "[::2]", "", "127.0.0.1.nip.io"] {
            assert!(!hosts.allow(bad), "{bad}");
        }
    }

    #[test]
    fn a_token_is_whole_or_wrong() {
        let token = Token::new("sp_secret");
        assert!(token.is(b"sp_secret"));
        for bad in ["", "sp_secre", "sp_secret ", "SP_SECRET"] {
            assert!(!token.is(bad.as_bytes()), "{bad:?}");
        }
        assert!(!Token::new("").is(b""), "an empty token opens nothing");
    }
}
