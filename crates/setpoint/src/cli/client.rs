//! HTTP to Setpoint's API: one connection per request, answers as text, refusals as problem documents.
//!
//! Refuses to know: what is asked and what the answers mean. No TLS: the API is on loopback, or behind a tunnel.

use std::{fmt, time::Duration};

use bytes::Bytes;
use http::{Method, Request, Response, StatusCode, Uri, header};
use http_body_util::{BodyExt, Either, Full, Limited};
use hyper::body::Incoming;
use hyper_util::rt::TokioIo;
use serde::{Serialize, de::DeserializeOwned};
use server::views::Problem;
use tokio::{net::TcpStream, time::timeout};
use tokio_tungstenite::{
    WebSocketStream,
    tungstenite::{handshake::client::generate_key, protocol::Role},
};

use super::{
    json::Json,
    text,
    upload::{Archive, BrokenArchive},
};

const CONNECT_WITHIN: Duration = Duration::from_secs(5);
const ANSWER_WITHIN: Duration = Duration::from_secs(60);
/// An upload is taken in whole, on whatever disk, before it is answered.
const UPLOAD_WITHIN: Duration = Duration::from_secs(3600);
/// Larger answers are refused: 10,000 services with their instances are well below.
const MAX_ANSWER: usize = 256 << 20;

#[derive(Debug, thiserror::Error)]
pub enum Error {
    #[error(
        "no Setpoint answers at {url}: start one with `setpoint up` or `setpoint server`, or name it with --api"
    )]
    NotThere { url: String },
    #[error("`{url}` is no address of an API: {why}; write it as http://127.0.0.1:7400")]
    Address { url: String, why: &'static str },
    #[error("the token for {url} cannot be sent: it holds characters that no token has")]
    Token { url: String },
    #[error("{}", refusal(.0))]
    Refused(Box<Problem>),
    #[error("{url} did not answer within {} s; look at its log", .after.as_secs())]
    Late { url: String, after: Duration },
    #[error("the connection to {url} was lost: {why}")]
    Lost { url: String, why: String },
    #[error("{url} answers with what is no answer of Setpoint's API ({why}); is another program there?")]
    Foreign { url: String, why: String },
    #[error(transparent)]
    Archive(BrokenArchive),
}

impl Error {
    pub fn status(&self) -> Option<u16> {
        match self {
            Self::Refused(problem) => Some(problem.status),
            _ => None,
        }
    }

    /// The stable word of a refusal.
    pub fn code(&self) -> Option<&str> {
        match self {
            Self::Refused(problem) => Some(&problem.code),
            _ => None,
        }
    }

    /// Whether to ask again can help while one waits: the server may be restarting.
    pub fn is_absence(&self) -> bool {
        match self {
            Self::NotThere { .. } | Self::Lost { .. } | Self::Late { .. } => true,
            Self::Refused(problem) => problem.status >= 500,
            Self::Address { .. } | Self::Token { .. } | Self::Foreign { .. } | Self::Archive(_) => false,
        }
    }
}

/// `code: message (field) — what to do`, and each further fault in a line of its own.
fn refusal(problem: &Problem) -> String {
    let one = |code: &str, message: &str, field: Option<&str>, help: Option<&str>| {
        let field = field.map(|field| format!(" ({field})")).unwrap_or_default();
        let help = help.map(|help| format!(" — {help}")).unwrap_or_default();
        format!("{code}: {message}{field}{help}")
    };
    let help = Some(problem.help.as_str()).filter(|help| !help.is_empty());
    let whole = one(&problem.code, &problem.message, problem.field.as_deref(), help);
    if problem.errors.len() < 2 {
        return whole;
    }
    let faults = problem
        .errors
        .iter()
        .map(|fault| one(&fault.code, &fault.message, fault.field.as_deref(), fault.help.as_deref()));
    std::iter::once(whole).chain(faults.map(|fault| format!("\n  {fault}"))).collect()
}

/// A whole answer, as the server wrote it.
#[derive(Debug, Clone)]
pub struct Answer {
    text: String,
    url: String,
}

impl Answer {
    pub fn view<T: DeserializeOwned>(&self) -> Result<T, Error> {
        serde_json::from_str(&self.text).map_err(|error| self.foreign(&error))
    }

    pub fn json(&self) -> Result<Json, Error> {
        self.view()
    }

    fn foreign(&self, error: &dyn fmt::Display) -> Error {
        Error::Foreign { url: self.url.clone(), why: error.to_string() }
    }
}

#[derive(Debug, Clone)]
pub struct Client {
    url: String,
    authority: http::uri::Authority,
    token: Option<header::HeaderValue>,
}

/// Messages both ways.
pub type Socket = WebSocketStream<TokioIo<hyper::upgrade::Upgraded>>;

type SendBody = Either<Full<Bytes>, Archive>;

impl Client {
    pub fn new(url: &str, token: Option<&str>) -> Result<Self, Error> {
        let url = url.trim().trim_end_matches('/');
        let bad = |why| Error::Address { url: text::line(url), why };
        let uri: Uri = url.parse().map_err(|_| bad("it cannot be read"))?;
        match uri.scheme_str() {
            Some("http") => {}
            Some("https") => return Err(bad("there is no TLS here yet, use a tunnel")),
            Some(_) | None => return Err(bad("it does not begin with http://")),
        }
        if uri.path_and_query().is_some_and(|path| path != "/") {
            return Err(bad("it has a path"));
        }
        let authority = uri.authority().cloned().ok_or_else(|| bad("it names no host"))?;
        let token = token.map(|token| header::HeaderValue::try_from(format!("Bearer {}", token.trim())));
        let mut token = token.transpose().map_err(|_| Error::Token { url: url.into() })?;
        if let Some(token) = &mut token {
            token.set_sensitive(true);
        }
        Ok(Self { url: url.into(), authority, token })
    }

    pub fn url(&self) -> &str {
        &self.url
    }

    pub async fn get(&self, path: &str) -> Result<Answer, Error> {
        self.ask(self.request(Method::GET, path, "application/json"), Either::Left(Full::default())).await
    }

    pub async fn view<T: DeserializeOwned>(&self, path: &str) -> Result<T, Error> {
        self.get(path).await?.view()
    }

    /// For what may answer with nothing.
    pub async fn view_if_any<T: DeserializeOwned>(&self, path: &str) -> Result<Option<T>, Error> {
        let answer = self.get(path).await?;
        if answer.text.is_empty() { Ok(None) } else { answer.view().map(Some) }
    }

    pub async fn post<T: Serialize + ?Sized>(&self, path: &str, body: &T) -> Result<Answer, Error> {
        let foreign =
            |error: serde_json::Error| Error::Foreign { url: self.url.clone(), why: error.to_string() };
        let body = serde_json::to_vec(body).map_err(foreign)?;
        let request = self.request(Method::POST, path, "application/json");
        let request = request.header(header::CONTENT_TYPE, "application/json");
        self.ask(request, Either::Left(Full::new(body.into()))).await
    }

    pub async fn delete(&self, path: &str) -> Result<Answer, Error> {
        self.ask(self.request(Method::DELETE, path, "application/json"), Either::Left(Full::default())).await
    }

    /// Sends an archive while it is being made. The server's refusal is told even when it comes before the end.
    pub async fn upload(&self, path: &str, archive: Archive) -> Result<Answer, Error> {
        let broken = archive.broken();
        let request = self.request(Method::POST, path, "application/json");
        let request = request.header(header::CONTENT_TYPE, "application/octet-stream");
        let answer = async {
            let response = self.send(request, Either::Right(archive)).await?;
            self.whole(response).await
        };
        let answer = self.within(UPLOAD_WITHIN, answer).await;
        match (answer, broken.take()) {
            // Why it broke off here says more than that the server lost it.
            (Err(error), Some(why)) if error.status().is_none() => Err(Error::Archive(why)),
            (answer, _) => answer,
        }
    }

    /// A large answer, piece by piece. The server may have much to prepare before the first.
    pub async fn download(&self, path: &str) -> Result<Pieces, Error> {
        let request = self.request(Method::POST, path, "*/*");
        let answer = self.within(UPLOAD_WITHIN, self.send(request, Either::Left(Full::default()))).await?;
        Ok(Pieces { body: self.accepted(answer).await?.into_body(), url: self.url.clone() })
    }

    /// An answer that goes on: its body comes line by line.
    pub async fn follow(&self, path: &str, accept: &'static str) -> Result<Lines, Error> {
        let request = self.request(Method::GET, path, accept);
        let answer = self.within(ANSWER_WITHIN, self.send(request, Either::Left(Full::default()))).await?;
        let body = self.accepted(answer).await?.into_body();
        Ok(Lines { body, url: self.url.clone(), buffer: Vec::new(), searched: 0, ended: false })
    }

    /// A WebSocket that speaks `protocol`.
    pub async fn socket(&self, path: &str, protocol: &'static str) -> Result<Socket, Error> {
        let request = self
            .request(Method::GET, path, "*/*")
            .header(header::CONNECTION, "Upgrade")
            .header(header::UPGRADE, "websocket")
            .header(header::SEC_WEBSOCKET_VERSION, "13")
            .header(header::SEC_WEBSOCKET_KEY, generate_key())
            .header(header::SEC_WEBSOCKET_PROTOCOL, protocol);
        let answer = async {
            let response = self.send(request, Either::Left(Full::default())).await?;
            if response.status() != StatusCode::SWITCHING_PROTOCOLS {
                let status = self.accepted(response).await?.status();
                return Err(self.foreign(&format!("status {}", status.as_u16())));
            }
            let agreed = response.headers().get(header::SEC_WEBSOCKET_PROTOCOL);
            if agreed.is_none_or(|agreed| agreed != protocol) {
                return Err(self.foreign(&"it speaks another protocol"));
            }
            let raw = hyper::upgrade::on(response).await.map_err(|error| self.lost(&error))?;
            Ok(WebSocketStream::from_raw_socket(TokioIo::new(raw), Role::Client, None).await)
        };
        self.within(ANSWER_WITHIN, answer).await
    }

    fn request(&self, method: Method, path: &str, accept: &'static str) -> http::request::Builder {
        let request = Request::builder()
            .method(method)
            .uri(format!("/api/v1{path}"))
            .header(header::HOST, self.authority.as_str())
            .header(header::ACCEPT, accept)
            .header(header::USER_AGENT, concat!("setpoint/", env!("CARGO_PKG_VERSION")));
        match &self.token {
            Some(token) => request.header(header::AUTHORIZATION, token.clone()),
            None => request,
        }
    }

    async fn ask(&self, request: http::request::Builder, body: SendBody) -> Result<Answer, Error> {
        let answer = async { self.whole(self.send(request, body).await?).await };
        self.within(ANSWER_WITHIN, answer).await
    }

    async fn send(
        &self,
        request: http::request::Builder,
        body: SendBody,
    ) -> Result<Response<Incoming>, Error> {
        let stream = self.connect().await?;
        let (mut sender, connection) = hyper::client::conn::http1::handshake(TokioIo::new(stream))
            .await
            .map_err(|error| self.lost(&error))?;
        // Ends by itself when the body of the answer has been read or dropped.
        tokio::spawn(connection.with_upgrades());
        let request = request.body(body).map_err(|error| self.foreign(&error))?;
        sender.send_request(request).await.map_err(|error| self.lost(&error))
    }

    async fn connect(&self) -> Result<TcpStream, Error> {
        let host = self.authority.host().trim_matches(['[', ']']);
        let port = self.authority.port_u16().unwrap_or(80);
        let absent = || Error::NotThere { url: self.url.clone() };
        let stream = timeout(CONNECT_WITHIN, TcpStream::connect((host, port)));
        let stream = stream.await.map_err(|_| absent())?.map_err(|_| absent())?;
        // Without it a small request waits for the acknowledgement of its first segment.
        let _ = stream.set_nodelay(true);
        Ok(stream)
    }

    async fn whole(&self, response: Response<Incoming>) -> Result<Answer, Error> {
        let body = self.accepted(response).await?.into_body();
        let text = self.text(body).await?;
        Ok(Answer { text, url: self.url.clone() })
    }

    /// The response, unless it is a refusal.
    async fn accepted(&self, response: Response<Incoming>) -> Result<Response<Incoming>, Error> {
        let status = response.status();
        if status.is_success() {
            return Ok(response);
        }
        let text = self.text(response.into_body()).await?;
        let mut problem = serde_json::from_str::<Problem>(&text)
            .map_err(|_| self.foreign(&format!("status {}", status.as_u16())))?;
        problem.status = status.as_u16();
        if status == StatusCode::UNAUTHORIZED && problem.code == "unauthorized" {
            problem.help = self.token_help();
        }
        Err(Error::Refused(Box::new(problem)))
    }

    fn token_help(&self) -> String {
        let at = match self.token {
            Some(_) => "the token is not the one of this Setpoint",
            None => "no token was found",
        };
        format!("{at}: name its data folder with --data, or give the token with --token")
    }

    async fn text(&self, body: Incoming) -> Result<String, Error> {
        let body = Limited::new(body, MAX_ANSWER).collect().await;
        let bytes = body.map_err(|error| self.lost(&*error))?.to_bytes();
        String::from_utf8(bytes.into()).map_err(|error| self.foreign(&error))
    }

    async fn within<T>(
        &self,
        limit: Duration,
        work: impl Future<Output = Result<T, Error>>,
    ) -> Result<T, Error> {
        let late = || Error::Late { url: self.url.clone(), after: limit };
        timeout(limit, work).await.unwrap_or_else(|_| Err(late()))
    }

    fn lost(&self, error: &(dyn std::error::Error + 'static)) -> Error {
        let cause = error.source().map(|source| format!(": {source}")).unwrap_or_default();
        Error::Lost { url: self.url.clone(), why: format!("{error}{cause}") }
    }

    fn foreign(&self, why: &dyn fmt::Display) -> Error {
        Error::Foreign { url: self.url.clone(), why: why.to_string() }
    }
}

/// A large answer on its way.
#[derive(Debug)]
pub struct Pieces {
    body: Incoming,
    url: String,
}

impl Pieces {
    /// `None` at the end.
    pub async fn next(&mut self) -> Result<Option<Bytes>, Error> {
        loop {
            let frame = timeout(ANSWER_WITHIN, self.body.frame()).await;
            let late = |_| Error::Late { url: self.url.clone(), after: ANSWER_WITHIN };
            match frame.map_err(late)? {
                None => return Ok(None),
                Some(Err(error)) => {
                    return Err(Error::Lost { url: self.url.clone(), why: error.to_string() });
                }
                // Trailers say nothing here.
                Some(Ok(frame)) => {
                    if let Ok(data) = frame.into_data() {
                        return Ok(Some(data));
                    }
                }
            }
        }
    }
}

/// The lines of an answer that goes on, without their ends.
#[derive(Debug)]
pub struct Lines {
    body: Incoming,
    url: String,
    buffer: Vec<u8>,
    /// So much of the buffer is known to hold no line end.
    searched: usize,
    ended: bool,
}

/// A longer line is given in pieces, so that a log without line ends fills no memory.
const MAX_LINE: usize = 1 << 20;

impl Lines {
    /// `None` at the end.
    pub async fn next(&mut self) -> Result<Option<Vec<u8>>, Error> {
        loop {
            if let Some(line) = self.take_line() {
                return Ok(Some(line));
            }
            if self.ended {
                let rest = std::mem::take(&mut self.buffer);
                return Ok((!rest.is_empty()).then_some(rest));
            }
            self.fill().await?;
        }
    }

    fn take_line(&mut self) -> Option<Vec<u8>> {
        let end = match self.buffer[self.searched..].iter().position(|byte| *byte == b'\n') {
            Some(at) => self.searched + at,
            None if self.buffer.len() >= MAX_LINE => return Some(std::mem::take(&mut self.buffer)),
            None => {
                self.searched = self.buffer.len();
                return None;
            }
        };
        let rest = self.buffer.split_off(end + 1);
        let mut line = std::mem::replace(&mut self.buffer, rest);
        self.searched = 0;
        line.pop();
        line.pop_if(|byte| *byte == b'\r');
        Some(line)
    }

    async fn fill(&mut self) -> Result<(), Error> {
        match self.body.frame().await {
            Some(Ok(frame)) => {
                if let Ok(data) = frame.into_data() {
                    self.buffer.extend_from_slice(&data);
                }
            }
            Some(Err(error)) => return Err(Error::Lost { url: self.url.clone(), why: error.to_string() }),
            None => self.ended = true,
        }
        Ok(())
    }
}

/// `application/x-www-form-urlencoded`'s idea of a value, strict enough for every name that we have.
pub fn encode(value: &str) -> String {
    let plain = |byte: u8| byte.is_ascii_alphanumeric() || b"-._~".contains(&byte);
    value
        .bytes()
        .map(|byte| if plain(byte) { char::from(byte).to_string() } else { format!("%{byte:02X}") })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_address_is_plain_http_without_a_path() {
        assert!(Client::new("http://127.0.0.1:7400/", None).is_ok());
        assert!(Client::new("http://[::1]:7400", None).is_ok());
        for bad in ["127.0.0.1:7400", "https://x:1", "http://", "http://x/api", "ftp://x", ""] {
            assert!(Client::new(bad, None).is_err(), "{bad}");
        }
    }

    #[test]
    fn a_token_shows_up_nowhere() {
        let client = Client::new("http://127.0.0.1:1", Some("sp_secret")).unwrap();
        assert!(!format!("{client:?}").contains("sp_secret"));
    }

    #[test]
    fn a_refusal_reads_code_message_field_and_what_to_do() {
        let problem: Problem = serde_json::from_value(serde_json::json!({
            "type": "/problems/out_of_range", "title": "Out of range", "status": 422, "detail": "too many",
            "code": "out_of_range", "field": "replicas", "message": "too many", "help": "use at most 10000",
        }))
        .unwrap();
        assert_eq!(
            Error::Refused(Box::new(problem)).to_string(),
            "out_of_range: too many (replicas) — use at most 10000"
        );
    }

    #[test]
    fn values_in_a_query_are_encoded() {
        assert_eq!(encode("demo/api"), "demo%2Fapi");
        assert_eq!(encode("default.api.0.7"), "default.api.0.7");
    }
}
