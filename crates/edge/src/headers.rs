//! Headers on their way through: what belongs to one hop stays there, and what an upstream is told about the
//! client comes from the edge alone.

use std::net::IpAddr;

use http::{
    HeaderMap, HeaderName, HeaderValue,
    header::{
        CONNECTION, EXPECT, FORWARDED, HOST, PROXY_AUTHENTICATE, PROXY_AUTHORIZATION, TE, TRANSFER_ENCODING,
        UPGRADE,
    },
};

const KEEP_ALIVE: HeaderName = HeaderName::from_static("keep-alive");
const PROXY_CONNECTION: HeaderName = HeaderName::from_static("proxy-connection");
const X_FORWARDED_FOR: HeaderName = HeaderName::from_static("x-forwarded-for");
const X_FORWARDED_PROTO: HeaderName = HeaderName::from_static("x-forwarded-proto");
const X_FORWARDED_HOST: HeaderName = HeaderName::from_static("x-forwarded-host");

const HOP_BY_HOP: [HeaderName; 8] = [
    CONNECTION,
    KEEP_ALIVE,
    PROXY_CONNECTION,
    PROXY_AUTHENTICATE,
    PROXY_AUTHORIZATION,
    TE,
    TRANSFER_ENCODING,
    UPGRADE,
];

/// What upstreams are told about one client; made once for each connection.
#[derive(Debug, Clone)]
pub struct Client {
    ip: IpAddr,
    forwarded_for: HeaderValue,
}

impl Client {
    pub fn new(ip: IpAddr) -> Self {
        let ip = ip.to_canonical();
        // An address is visible ASCII, always.
        let forwarded_for =
            HeaderValue::from_str(&ip.to_string()).unwrap_or(HeaderValue::from_static("unknown"));
        Self { ip, forwarded_for }
    }

    fn forwarded(&self, host: &HeaderValue) -> Option<HeaderValue> {
        let host = host.to_str().ok()?;
        let text = match self.ip {
            IpAddr::V4(ip) => format!("for={ip};host=\"{host}\";proto=http"),
            IpAddr::V6(ip) => format!("for=\"[{ip}]\";host=\"{host}\";proto=http"),
        };
        HeaderValue::from_str(&text).ok()
    }
}

/// The protocol that a message asks to change to: `Connection` must name `Upgrade` for it to count. Not HTTP/2:
/// in such a tunnel requests would pass that were never routed.
pub fn upgrade(headers: &HeaderMap) -> Option<HeaderValue> {
    let named = connection_tokens(headers).any(|token| token.eq_ignore_ascii_case("upgrade"));
    let http2 = |value: &HeaderValue| value.to_str().map_or(true, |v| v.to_ascii_lowercase().contains("h2c"));
    headers.get(UPGRADE).filter(|value| named && !http2(value)).cloned()
}

fn connection_tokens(headers: &HeaderMap) -> impl Iterator<Item = &str> {
    let lines = headers.get_all(CONNECTION).iter().filter_map(|value| value.to_str().ok());
    lines.flat_map(|line| line.split(',')).map(str::trim).filter(|token| !token.is_empty())
}

/// A client's headers, made ready for an upstream.
pub fn for_upstream(headers: &mut HeaderMap, client: &Client, upgrade: Option<HeaderValue>) {
    let host = headers.get(HOST).cloned();
    let chunked = headers.contains_key(TRANSFER_ENCODING);
    let trailers = headers.get_all(TE).iter().any(|te| te.as_bytes().eq_ignore_ascii_case(b"trailers"));
    strip_hop_by_hop(headers);
    strip_forwarding(headers);
    // The edge itself answers 100 Continue, as soon as the upstream's connection asks for the body.
    headers.remove(EXPECT);
    if chunked {
        headers.insert(TRANSFER_ENCODING, HeaderValue::from_static("chunked"));
    }
    if trailers {
        headers.insert(TE, HeaderValue::from_static("trailers"));
        headers.insert(CONNECTION, HeaderValue::from_static("te"));
    }
    if let Some(protocol) = upgrade {
        headers.insert(UPGRADE, protocol);
        headers.insert(CONNECTION, HeaderValue::from_static("upgrade"));
    }
    if let Some(host) = host {
        // Set again: `Connection: host` may have named it.
        headers.insert(HOST, host.clone());
        if let Some(forwarded) = client.forwarded(&host) {
            headers.insert(FORWARDED, forwarded);
        }
        headers.insert(X_FORWARDED_HOST, host);
    }
    headers.insert(X_FORWARDED_FOR, client.forwarded_for.clone());
    headers.insert(X_FORWARDED_PROTO, HeaderValue::from_static("http"));
}

/// An upstream's headers, made ready for the client. An upgrade that was agreed on stays.
pub fn for_client(headers: &mut HeaderMap, upgraded: bool) {
    let protocol = headers.get(UPGRADE).filter(|_| upgraded).cloned();
    strip_hop_by_hop(headers);
    if let Some(protocol) = protocol {
        headers.insert(UPGRADE, protocol);
        headers.insert(CONNECTION, HeaderValue::from_static("upgrade"));
    }
}

fn strip_hop_by_hop(headers: &mut HeaderMap) {
    if headers.contains_key(CONNECTION) {
        let named: Vec<HeaderName> = connection_tokens(headers).filter_map(|t| t.parse().ok()).collect();
        for name in named {
            // These say where the message ends; a client must not be able to take them out.
            if name != http::header::CONTENT_LENGTH && name != HOST {
                headers.remove(name);
            }
        }
    }
    for name in &HOP_BY_HOP {
        headers.remove(name);
    }
}

/// Takes out what only the edge may say, also in the spellings that CGI-like servers cannot tell apart.
fn strip_forwarding(headers: &mut HeaderMap) {
    let speaks_for_us = |name: &HeaderName| {
        let name = name.as_str();
        let plain = name.replace('_', "-");
        name.starts_with(['x', 'f'])
            && (plain.starts_with("x-forwarded") || plain == "x-real-ip" || plain == "forwarded")
    };
    let claimed: Vec<HeaderName> = headers.keys().filter(|name| speaks_for_us(name)).cloned().collect();
    for name in claimed {
        headers.remove(name);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn headers(lines: &[(&str, &str)]) -> HeaderMap {
        lines.iter().map(|(n, v)| (n.parse::<HeaderName>().unwrap(), v.parse::<HeaderValue>().unwrap())).fold(
            HeaderMap::new(),
            |mut map, (name, value)| {
                map.append(name, value);
                map
            },
        )
    }

    fn sent(lines: &[(&str, &str)]) -> HeaderMap {
        let mut map = headers(lines);
        let protocol = upgrade(&map);
        for_upstream(&mut map, &Client::new("192.0.2.7".parse().unwrap()), protocol);
        map
    }

    #[test]
    fn what_belongs_to_one_hop_is_stripped_with_all_that_connection_names() {
        let map = sent(&[
            ("host", "a.localhost"),
            ("connection", "close, X-Secret-Hop"),
            ("connection", "keep-alive"),
            ("x-secret-hop", "1"),
            ("keep-alive", "timeout=5"),
            ("proxy-authorization", "Basic x"),
            ("te", "gzip"),
            ("upgrade", "h2c"),
            ("expect", "100-continue"),
            ("accept", "*/*"),
        ]);
        let mut names: Vec<_> = map.keys().map(HeaderName::as_str).collect();
        names.sort_unstable();
        assert_eq!(
            names,
            ["accept", "forwarded", "host", "x-forwarded-for", "x-forwarded-host", "x-forwarded-proto"]
        );
    }

    #[test]
    fn a_client_cannot_speak_for_the_edge_nor_silence_it() {
        let map = sent(&[
            ("host", "a.localhost:8080"),
            ("connection", "X-Forwarded-For, Forwarded, Host, X-Forwarded-Proto"),
            ("x-forwarded-for", "10.0.0.1"),
            ("x-forwarded-for", "10.0.0.2"),
            ("x-forwarded-proto", "https"),
            ("x-forwarded-port", "443"),
            ("x_forwarded_for", "10.0.0.3"),
            ("x-real-ip", "10.0.0.4"),
            ("forwarded", "for=10.0.0.5"),
        ]);
        assert_eq!(map.get_all("x-forwarded-for").iter().collect::<Vec<_>>(), ["192.0.2.7"]);
        assert_eq!(map["x-forwarded-proto"], "http");
        assert_eq!(map["x-forwarded-host"], "a.localhost:8080");
        assert_eq!(map["forwarded"], "for=192.0.2.7;host=\"a.localhost:8080\";proto=http");
        assert_eq!(map["host"], "a.localhost:8080");
        for gone in ["x-forwarded-port", "x_forwarded_for", "x-real-ip"] {
            assert!(!map.contains_key(gone), "{gone}");
        }
    }

    #[test]
    fn an_upgrade_counts_only_when_connection_names_it() {
        let asked = sent(&[("host", "a"), ("connection", "keep-alive, Upgrade"), ("upgrade", "websocket")]);
        assert_eq!(
            (&asked["connection"], &asked["upgrade"]),
            (&"upgrade".parse().unwrap(), &"websocket".parse().unwrap())
        );
        let http2 = sent(&[("host", "a"), ("connection", "Upgrade"), ("upgrade", "H2C")]);
        assert!(!http2.contains_key("upgrade"));
        let not_asked = sent(&[("host", "a"), ("upgrade", "websocket")]);
        assert!(!not_asked.contains_key("upgrade"));
    }

    #[test]
    fn a_chunked_body_stays_chunked() {
        assert_eq!(sent(&[("host", "a"), ("transfer-encoding", "Chunked")])["transfer-encoding"], "chunked");
    }

    #[test]
    fn an_ipv6_client_is_quoted() {
        let mut map = headers(&[("host", "a")]);
        for_upstream(&mut map, &Client::new("2001:db8::1".parse().unwrap()), None);
        assert_eq!(map["forwarded"], "for=\"[2001:db8::1]\";host=\"a\";proto=http");
        assert_eq!(map["x-forwarded-for"], "2001:db8::1");
    }
}
