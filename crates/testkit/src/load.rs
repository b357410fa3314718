//! Constant load: requests leave at their time whether or not earlier ones were answered, and every one that fails is
//! recorded with its time.

use std::{
    collections::BTreeMap,
    fmt,
    net::SocketAddr,
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    thread::JoinHandle,
    time::{Duration, Instant},
};

use crate::http::{Connection, Request, Response};

/// A request that takes longer has failed.
const TIMEOUT: Duration = Duration::from_secs(5);

/// What is sent, how often, and what counts as an answer.
pub struct Options {
    pub edge: SocketAddr,
    pub request: Request,
    /// Requests a second.
    pub rate: u32,
    /// Connections are used again; otherwise each request has its own.
    pub keep_alive: bool,
    /// At most so many requests at once.
    pub workers: usize,
    /// A word for the answer (such as its version), or why it is no good.
    pub check: Arc<Check>,
}

pub type Check = dyn Fn(&Response) -> Result<String, String> + Send + Sync;

impl fmt::Debug for Options {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Options")
            .field("rate", &self.rate)
            .field("request", &self.request)
            .finish_non_exhaustive()
    }
}

impl Options {
    /// GETs at 200 a second on connections that are kept; the answer's word is its body.
    pub fn get(edge: SocketAddr, host: &str, path: &str) -> Self {
        Self {
            edge,
            request: Request::new("GET", host, path),
            rate: 200,
            keep_alive: true,
            workers: 8,
            check: Arc::new(body_of_200),
        }
    }

    #[must_use]
    pub fn rate(mut self, rate: u32) -> Self {
        self.rate = rate;
        self
    }

    #[must_use]
    pub fn closing(mut self) -> Self {
        self.keep_alive = false;
        self
    }

    #[must_use]
    pub fn check(
        mut self,
        check: impl Fn(&Response) -> Result<String, String> + Send + Sync + 'static,
    ) -> Self {
        self.check = Arc::new(check);
        self
    }

    pub fn start(self) -> Load {
        Load::start(self)
    }
}

fn body_of_200(response: &Response) -> Result<String, String> {
    match response.status {
        200 => Ok(response.text().trim().to_owned()),
        status => Err(format!("{status}: {}", response.text().trim())),
    }
}

/// Load that goes on until it is stopped.
#[derive(Debug)]
pub struct Load {
    shared: Arc<Shared>,
    workers: Vec<JoinHandle<()>>,
}

#[derive(Debug)]
struct Shared {
    options: Options,
    began: Instant,
    next: AtomicU64,
    stop: AtomicBool,
    answers: Mutex<Vec<Answer>>,
}

/// One request's outcome.
#[derive(Debug, Clone)]
pub struct Answer {
    /// When it should have been sent, since the load's start.
    pub due: Duration,
    /// From then to the end of the answer.
    pub took: Duration,
    pub result: Result<String, String>,
}

#[derive(Debug)]
pub struct Report {
    pub answers: Vec<Answer>,
}

impl Load {
    pub fn start(options: Options) -> Self {
        let workers = options.workers;
        let shared = Arc::new(Shared {
            options,
            began: Instant::now(),
            next: AtomicU64::new(0),
            stop: AtomicBool::new(false),
            answers: Mutex::default(),
        });
        let worker = |_| {
            let shared = Arc::clone(&shared);
            std::thread::spawn(move || shared.work())
        };
        let workers = (0..workers).map(worker).collect();
        Self { shared, workers }
    }

    /// So far.
    pub fn report(&self) -> Report {
        Report { answers: self.shared.answers.lock().unwrap().clone() }
    }

    /// Waits until so many more answers have come.
    #[track_caller]
    pub fn go_on_for(&self, more: usize) {
        let before = self.report().answers.len();
        crate::until("the load goes on", Duration::from_secs(30), || {
            (self.report().answers.len() >= before + more).then_some(())
        });
    }

    pub fn stop(mut self) -> Report {
        self.end();
        self.report()
    }

    fn end(&mut self) {
        self.shared.stop.store(true, Ordering::Relaxed);
        for worker in self.workers.drain(..) {
            let _ = worker.join();
        }
    }
}

impl Drop for Load {
    fn drop(&mut self) {
        self.end();
    }
}

impl Shared {
    fn work(&self) {
        let mut kept: Option<Connection> = None;
        loop {
            let number = self.next.fetch_add(1, Ordering::Relaxed);
            let due = Duration::from_secs(1) * u32::try_from(number).unwrap_or(u32::MAX) / self.options.rate;
            std::thread::sleep(due.saturating_sub(self.began.elapsed()));
            if self.stop.load(Ordering::Relaxed) {
                return;
            }
            let result = self.one(&mut kept);
            let took = self.began.elapsed().saturating_sub(due);
            self.answers.lock().unwrap().push(Answer { due, took, result });
        }
    }

    fn one(&self, kept: &mut Option<Connection>) -> Result<String, String> {
        let reused = kept.is_some();
        let connection = match kept.take() {
            Some(connection) => Ok(connection),
            None => Connection::open_within(self.options.edge, TIMEOUT),
        };
        let mut connection = connection.map_err(|error| format!("connect: {error}"))?;
        let request = match self.options.keep_alive {
            true => self.options.request.clone(),
            false => self.options.request.clone().header("Connection", "close"),
        };
        let on = if reused { "a kept connection" } else { "a new connection" };
        let response = connection.send(&request).map_err(|error| format!("{error} on {on}"))?;
        if self.options.keep_alive && connection.is_open() {
            *kept = Some(connection);
        }
        (self.options.check)(&response)
    }
}

impl Report {
    pub fn failures(&self) -> Vec<&Answer> {
        self.answers.iter().filter(|answer| answer.result.is_err()).collect()
    }

    /// How often each word was answered.
    pub fn words(&self) -> BTreeMap<&str, usize> {
        let mut words = BTreeMap::new();
        for word in self.answers.iter().filter_map(|answer| answer.result.as_deref().ok()) {
            *words.entry(word).or_default() += 1;
        }
        words
    }

    /// The words in the order in which requests were due, repeated ones once.
    pub fn sequence(&self) -> Vec<&str> {
        let mut answers: Vec<&Answer> = self.answers.iter().collect();
        answers.sort_by_key(|answer| answer.due);
        let mut words: Vec<&str> =
            answers.iter().filter_map(|answer| answer.result.as_deref().ok()).collect();
        words.dedup();
        words
    }

    /// The latency that this share of the answers, in percent, does not exceed.
    pub fn percentile(&self, percent: usize) -> Duration {
        let mut took: Vec<Duration> = self.answers.iter().map(|answer| answer.took).collect();
        took.sort();
        let at = (took.len() * percent / 100).min(took.len().saturating_sub(1));
        took.get(at).copied().unwrap_or_default()
    }

    /// Every request was answered well, and there were at least so many.
    #[track_caller]
    pub fn assert_clean(&self, at_least: usize) {
        println!("{self}");
        assert!(self.failures().is_empty(), "requests failed:\n{self}");
        assert!(self.answers.len() >= at_least, "too few requests to say anything:\n{self}");
    }
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let failures = self.failures();
        writeln!(
            f,
            "{} requests, {} failed; p50 {:?}, p99 {:?}; {:?}",
            self.answers.len(),
            failures.len(),
            self.percentile(50),
            self.percentile(99),
            self.words()
        )?;
        for failure in failures.iter().take(20) {
            let why = failure.result.as_ref().err().map_or("", String::as_str);
            writeln!(f, "  at {:?} after {:?}: {why}", failure.due, failure.took)?;
        }
        Ok(())
    }
}
