//! A small HTTP/1.1 client that hides nothing: no retry, no redirect, one error for each thing that goes wrong.

use std::{
    io::{self, BufRead, BufReader, Read, Write},
    net::{SocketAddr, TcpStream},
    os::unix::net::UnixStream,
    path::Path,
    time::Duration,
};

/// One read or write; a test server on this machine is never that slow.
const TIMEOUT: Duration = Duration::from_secs(30);

#[derive(Debug, Clone, Default)]
pub struct Request {
    pub method: String,
    pub path: String,
    pub headers: Vec<(String, String)>,
    pub body: Vec<u8>,
}

impl Request {
    pub fn new(method: &str, host: &str, path: &str) -> Self {
        let host = vec![("Host".into(), host.into())];
        Self { method: method.into(), path: path.into(), headers: host, body: Vec::new() }
    }

    #[must_use]
    pub fn header(mut self, name: &str, value: &str) -> Self {
        self.headers.push((name.into(), value.into()));
        self
    }

    #[must_use]
    pub fn body(mut self, body: impl Into<Vec<u8>>) -> Self {
        self.body = body.into();
        self
    }

    fn bytes(&self) -> Vec<u8> {
        let mut out = format!("{} {} HTTP/1.1\r\n", self.method, self.path);
        for (name, value) in &self.headers {
            out.push_str(&format!("{name}: {value}\r\n"));
        }
        if !self.body.is_empty() || matches!(self.method.as_str(), "POST" | "PUT" | "PATCH") {
            out.push_str(&format!("Content-Length: {}\r\n", self.body.len()));
        }
        out.push_str("\r\n");
        let mut out = out.into_bytes();
        out.extend(&self.body);
        out
    }
}

#[derive(Debug, Clone, Default)]
pub struct Response {
    pub status: u16,
    pub headers: Vec<(String, String)>,
    pub body: Vec<u8>,
}

impl Response {
    pub fn header(&self, name: &str) -> Option<&str> {
        let found = self.headers.iter().find(|(known, _)| known.eq_ignore_ascii_case(name));
        found.map(|(_, value)| value.as_str())
    }

    pub fn text(&self) -> String {
        String::from_utf8_lossy(&self.body).into_owned()
    }

    #[track_caller]
    pub fn json(&self) -> serde_json::Value {
        match serde_json::from_slice(&self.body) {
            Ok(value) => value,
            Err(error) => panic!("{error} in {}: {}", self.status, self.text()),
        }
    }

    fn is_last(&self) -> bool {
        self.header("connection").is_some_and(|value| value.eq_ignore_ascii_case("close"))
    }
}

/// What a connection runs over.
#[derive(Debug)]
enum Wire {
    Tcp(TcpStream),
    Unix(UnixStream),
}

impl Read for Wire {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        match self {
            Self::Tcp(stream) => stream.read(buffer),
            Self::Unix(stream) => stream.read(buffer),
        }
    }
}

impl Write for Wire {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        match self {
            Self::Tcp(stream) => stream.write(bytes),
            Self::Unix(stream) => stream.write(bytes),
        }
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// One connection, for one request after the other.
#[derive(Debug)]
pub struct Connection {
    stream: BufReader<Wire>,
    ended: bool,
}

/// The body of an answer as it comes, without an end of its own.
#[derive(Debug)]
pub struct Stream {
    connection: Connection,
    pending: Vec<u8>,
}

impl Stream {
    /// The next line, or nothing when the other side has ended. A silence longer than the connection's bound is an
    /// error.
    pub fn line(&mut self) -> io::Result<Option<String>> {
        loop {
            if let Some(end) = self.pending.iter().position(|byte| *byte == b'\n') {
                let line: Vec<u8> = self.pending.drain(..=end).collect();
                return Ok(Some(String::from_utf8_lossy(&line).trim_end().into()));
            }
            match self.connection.chunk()? {
                chunk if chunk.is_empty() => return Ok(None),
                chunk => self.pending.extend(chunk),
            }
        }
    }
}

impl Connection {
    pub fn open(address: SocketAddr) -> io::Result<Self> {
        Self::open_within(address, TIMEOUT)
    }

    pub fn open_within(address: SocketAddr, timeout: Duration) -> io::Result<Self> {
        let stream = TcpStream::connect_timeout(&address, timeout)?;
        stream.set_nodelay(true)?;
        stream.set_read_timeout(Some(timeout))?;
        stream.set_write_timeout(Some(timeout))?;
        Ok(Self { stream: BufReader::new(Wire::Tcp(stream)), ended: false })
    }

    pub fn open_unix(path: &Path, timeout: Duration) -> io::Result<Self> {
        let stream = UnixStream::connect(path)?;
        stream.set_read_timeout(Some(timeout))?;
        stream.set_write_timeout(Some(timeout))?;
        Ok(Self { stream: BufReader::new(Wire::Unix(stream)), ended: false })
    }

    /// A request whose answer goes on as long as it likes, in chunks.
    pub fn stream(mut self, request: &Request) -> io::Result<Stream> {
        self.stream.get_mut().write_all(&request.bytes())?;
        let mut response = self.head()?;
        if response.status != 200 {
            response.body = self.read_body(&request.method, &response)?;
            return Err(broken(format!("{}: {}", response.status, response.text())));
        }
        Ok(Stream { connection: self, pending: Vec::new() })
    }

    /// Whether another request may be sent.
    pub fn is_open(&self) -> bool {
        !self.ended
    }

    pub fn send(&mut self, request: &Request) -> io::Result<Response> {
        let answered = self.exchange(request);
        if answered.as_ref().map_or(true, Response::is_last) {
            self.ended = true;
        }
        answered
    }

    fn exchange(&mut self, request: &Request) -> io::Result<Response> {
        self.stream.get_mut().write_all(&request.bytes())?;
        let mut response = self.head()?;
        while response.status == 100 {
            response = self.head()?;
        }
        response.body = self.read_body(&request.method, &response)?;
        Ok(response)
    }

    fn head(&mut self) -> io::Result<Response> {
        let line = self.line()?;
        let status = line.split(' ').nth(1).and_then(|status| status.parse().ok());
        let status = status.ok_or_else(|| broken(format!("`{line}` is no status line")))?;
        let mut headers = Vec::new();
        loop {
            let line = self.line()?;
            if line.is_empty() {
                return Ok(Response { status, headers, body: Vec::new() });
            }
            let (name, value) =
                line.split_once(':').ok_or_else(|| broken(format!("`{line}` is no header")))?;
            headers.push((name.into(), value.trim().into()));
        }
    }

    fn line(&mut self) -> io::Result<String> {
        let mut line = String::new();
        if self.stream.read_line(&mut line)? == 0 {
            return Err(io::Error::new(io::ErrorKind::UnexpectedEof, "closed before an answer"));
        }
        Ok(line.trim_end_matches(['\r', '\n']).into())
    }

    fn read_body(&mut self, method: &str, response: &Response) -> io::Result<Vec<u8>> {
        if method == "HEAD" || matches!(response.status, 204 | 304) {
            return Ok(Vec::new());
        }
        if response.header("transfer-encoding").is_some_and(|value| value.eq_ignore_ascii_case("chunked")) {
            return self.chunks();
        }
        let mut body = Vec::new();
        match response.header("content-length").map(str::parse::<usize>) {
            Some(Ok(length)) => {
                body.resize(length, 0);
                self.stream.read_exact(&mut body)?;
            }
            Some(Err(error)) => return Err(broken(error.to_string())),
            None => {
                self.stream.read_to_end(&mut body)?;
                self.ended = true;
            }
        }
        Ok(body)
    }

    fn chunks(&mut self) -> io::Result<Vec<u8>> {
        let mut body = Vec::new();
        loop {
            match self.chunk()? {
                chunk if chunk.is_empty() => return Ok(body),
                chunk => body.extend(chunk),
            }
        }
    }

    /// The next one; the last is empty.
    fn chunk(&mut self) -> io::Result<Vec<u8>> {
        let line = self.line()?;
        let size = usize::from_str_radix(line.split(';').next().unwrap_or("").trim(), 16);
        let size = size.map_err(|error| broken(format!("chunk size `{line}`: {error}")))?;
        let mut chunk = vec![0; size];
        self.stream.read_exact(&mut chunk)?;
        self.line()?;
        Ok(chunk)
    }
}

fn broken(what: String) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, what)
}

/// One request on a connection of its own.
pub fn send(address: SocketAddr, request: Request) -> io::Result<Response> {
    Connection::open(address)?.send(&request.header("Connection", "close"))
}

/// Bytes as they are, and all that comes back until the other side closes or is silent for `quiet`.
pub fn raw(address: SocketAddr, bytes: &[u8], quiet: Duration) -> io::Result<Vec<u8>> {
    let mut stream = TcpStream::connect_timeout(&address, TIMEOUT)?;
    stream.set_read_timeout(Some(quiet))?;
    stream.write_all(bytes)?;
    let mut out = Vec::new();
    match stream.read_to_end(&mut out) {
        Err(error) if !matches!(error.kind(), io::ErrorKind::WouldBlock | io::ErrorKind::TimedOut) => {
            Err(error)
        }
        _ => Ok(out),
    }
}
