//! A line between a client and an engine that a test may cut, block, or rob of answers: what was asked is done, and
//! who asked never hears of it.

use std::{
    fs,
    io::{Read, Write},
    net::Shutdown,
    os::unix::net::{UnixListener, UnixStream},
    path::PathBuf,
    sync::{Arc, Condvar, Mutex, MutexGuard},
    thread,
};

use tempfile::TempDir;

use super::api::Api;

/// A socket like the engine's own. It ends with this value; connections then end too.
#[derive(Debug)]
pub struct Wire {
    api: Api,
    shared: Arc<Shared>,
    folder: TempDir,
}

#[derive(Debug)]
struct Shared {
    engine: PathBuf,
    state: Mutex<State>,
    changed: Condvar,
}

/// Requests whose line holds `what`.
#[derive(Debug, Clone)]
struct Refused {
    what: String,
    answer: String,
    once: bool,
}

#[derive(Debug, Default)]
struct State {
    blocked: bool,
    /// Begins of request lines whose answers are kept back.
    swallowed: Vec<String>,
    kept_back: usize,
    /// Requests that never reach the engine.
    refused: Vec<Refused>,
    refusals: usize,
    /// Parts of request lines that wait on their way to the engine.
    delayed: Vec<String>,
    delays: usize,
    /// Of each connection the client's end and the engine's.
    open: Vec<UnixStream>,
}

impl Wire {
    pub fn to(engine: &Api) -> Self {
        let folder = tempfile::Builder::new().prefix("setpoint-wire-").tempdir().unwrap();
        let socket = folder.path().join("engine.sock");
        let listener = UnixListener::bind(&socket).unwrap();
        let (state, changed) = Default::default();
        let shared = Arc::new(Shared { engine: engine.socket().into(), state, changed });
        let taking = Arc::clone(&shared);
        thread::spawn(move || {
            for client in listener.incoming().flatten() {
                taking.connect(client);
            }
        });
        Self { api: Api::at(&socket), shared, folder }
    }

    /// The engine as seen over this wire.
    pub fn api(&self) -> &Api {
        &self.api
    }

    /// The value for DOCKER_HOST.
    pub fn host(&self) -> &str {
        self.api.host()
    }

    /// Ends every connection once; new ones are possible.
    pub fn drop_connections(&self) {
        for stream in self.shared.lock().open.drain(..) {
            let _ = stream.shutdown(Shutdown::Both);
        }
    }

    /// Ends the client's end of every connection once: what it has asked for goes on.
    pub fn drop_clients(&self) {
        for client in self.shared.lock().open.iter().step_by(2) {
            let _ = client.shutdown(Shutdown::Both);
        }
    }

    /// Ends every connection, and nobody gets a new one.
    pub fn cut(&self) {
        fs::rename(self.api.socket(), self.folder.path().join("hidden")).unwrap();
        self.drop_connections();
    }

    pub fn mend(&self) {
        fs::rename(self.folder.path().join("hidden"), self.api.socket()).unwrap();
    }

    /// Connections stay and are made, and nothing passes either way.
    pub fn block(&self) {
        self.shared.lock().blocked = true;
    }

    /// What waited passes.
    pub fn unblock(&self) {
        self.shared.lock().blocked = false;
        self.shared.changed.notify_all();
    }

    /// Requests whose line holds `what` (as `/containers/create`) reach the engine from now on, and their answers
    /// reach nobody: the connection stays open and is silent.
    pub fn swallow(&self, what: &str) {
        self.shared.lock().swallowed.push(what.into());
    }

    /// Answers pass again; connections that were silenced stay so.
    pub fn swallow_no_more(&self) {
        self.shared.lock().swallowed.clear();
    }

    /// Requests whose line holds `what` do not reach the engine from now on: they are answered with an error of its own
    /// kind, which says `refused by the test`.
    pub fn refuse(&self, what: &str) {
        self.refuse_with(what, 500, "refused by the test");
    }

    /// The same in an engine's words of another kind.
    pub fn refuse_with(&self, what: &str, status: u16, message: &str) {
        self.refuse_as(what, status, message, false);
    }

    /// The next of them alone; those that are refused always come after.
    pub fn refuse_once(&self, what: &str) {
        self.refuse_as(what, 500, "refused by the test", true);
    }

    fn refuse_as(&self, what: &str, status: u16, message: &str, once: bool) {
        let body = serde_json::json!({ "message": message }).to_string();
        let length = body.len();
        let answer = format!(
            "HTTP/1.1 {status} Refused\r\nContent-Type: application/json\r\nContent-Length: {length}\r\n\r\n{body}"
        );
        let refused = Refused { what: what.into(), answer, once };
        let before = &mut self.shared.lock().refused;
        let place = if once { 0 } else { before.len() };
        before.insert(place, refused);
    }

    pub fn refuse_no_more(&self) {
        self.shared.lock().refused.clear();
    }

    /// Requests whose line holds `what` reach the engine only once they are let go, also when who asked has left.
    pub fn delay(&self, what: &str) {
        self.shared.lock().delayed.push(what.into());
    }

    pub fn delay_no_more(&self) {
        self.shared.lock().delayed.clear();
        self.shared.changed.notify_all();
    }

    /// How many requests have had to wait.
    pub fn delays(&self) -> usize {
        self.shared.lock().delays
    }

    /// How many requests have been refused.
    pub fn refusals(&self) -> usize {
        self.shared.lock().refusals
    }

    /// How many requests have lost their answer.
    pub fn kept_back(&self) -> usize {
        self.shared.lock().kept_back
    }
}

impl Drop for Wire {
    fn drop(&mut self) {
        self.unblock();
        self.delay_no_more();
        self.drop_connections();
    }
}

impl Shared {
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap()
    }

    fn connect(self: &Arc<Self>, client: UnixStream) {
        // The engine is not there: the client sees an end without an answer.
        let Ok(engine) = UnixStream::connect(&self.engine) else { return };
        let answering = Mutex::new(client.try_clone().unwrap());
        let silent = Arc::new(Mutex::new(false));
        let ends = [&client, &engine].map(|stream| stream.try_clone().unwrap());
        self.lock().open.extend(ends);
        let (to_engine, to_client) = (engine.try_clone().unwrap(), client.try_clone().unwrap());
        let (requests, answers) = (Arc::clone(self), Arc::clone(self));
        let is_silent = Arc::clone(&silent);
        thread::spawn(move || {
            requests.pass(client, to_engine, |bytes| {
                if let Some(refusal) = requests.refusal(bytes) {
                    let _ = answering.lock().unwrap().write_all(refusal.as_bytes());
                    return false;
                }
                requests.let_wait(bytes);
                *silent.lock().unwrap() |= requests.swallows(bytes);
                true
            });
        });
        thread::spawn(move || answers.pass(engine, to_client, |_| !*is_silent.lock().unwrap()));
    }

    /// Clients write the head of a request at once, so that what is read begins with its line.
    fn swallows(&self, bytes: &[u8]) -> bool {
        let line = line(bytes);
        let mut state = self.lock();
        let swallows = state.swallowed.iter().any(|what| line.contains(what.as_str()));
        state.kept_back += usize::from(swallows);
        swallows
    }

    /// Returns once it may go on.
    fn let_wait(&self, bytes: &[u8]) {
        let line = line(bytes);
        let waits = |state: &mut State| state.delayed.iter().any(|what| line.contains(what.as_str()));
        let mut state = self.lock();
        state.delays += usize::from(waits(&mut state));
        drop(self.changed.wait_while(state, waits).unwrap());
    }

    fn refusal(&self, bytes: &[u8]) -> Option<String> {
        let line = line(bytes);
        let mut state = self.lock();
        let place = state.refused.iter().position(|refused| line.contains(refused.what.as_str()))?;
        state.refusals += 1;
        let refused = state.refused[place].clone();
        if refused.once {
            state.refused.remove(place);
        }
        Some(refused.answer)
    }

    fn pass(&self, mut from: UnixStream, mut to: UnixStream, passes: impl Fn(&[u8]) -> bool) {
        let mut buffer = [0; 64 << 10];
        while let Ok(read) = from.read(&mut buffer) {
            let unblocked = self.changed.wait_while(self.lock(), |state| state.blocked).unwrap();
            drop(unblocked);
            if read == 0 || passes(&buffer[..read]) && to.write_all(&buffer[..read]).is_err() {
                break;
            }
        }
        let _ = to.shutdown(Shutdown::Write);
    }
}

fn line(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes.split(|byte| *byte == b'\r').next().unwrap_or_default()).into_owned()
}
