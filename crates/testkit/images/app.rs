//! The program inside of the images that tests run: one file of std alone, linked statically, so that an image needs
//! nothing but it. It says over HTTP what it sees of its surroundings, and misbehaves as its environment asks.
//! Compiled by `testkit::docker::image`.
//!
//! `app [VERSION]` serves on $HOST:$PORT (0.0.0.0:8080). `app check [PATH]` asks the server in the same container, as
//! an image's health check. `app call HOST:PORT/PATH` prints what another service answers. `app exit CODE` ends at once.
//! `app upper` repeats its input in capitals, counts the lines on stderr and ends with 5; `app terminal` says whether it
//! has one; `app stay` never ends.
//!
//! $MODE at the start: `exit:CODE` ends with last words, `hang` never listens, `late:MS` listens later, `ill` is never
//! well, `deaf` hears no SIGTERM, `noisy` writes a megabyte in one line and control codes. Besides: $ALLOCATE_MB touches
//! memory, $WRITE writes a file, $EXIT_AFTER_MS and $ILL_AFTER_MS count from the start. After SIGTERM it goes on
//! answering for $DRAIN_MS, finishes what it has begun, and ends with 0.
//!
//! GET / says VERSION; /healthz; /about all it knows, as JSON; /env?NAME, /instance, /cwd, /uid, /hostname, /argv, /pid,
//! /status (of its process); /slow?MS, /read?PATH, /write?PATH, /ask?HOST:PORT what another service says, /call?HOST:PORT/PATH,
//! /resolve?NAME; /well and /ill turn /healthz; /end?CODE, /log?TEXT, /log-bytes?N, /log-escapes, /allocate?MB, /hang.

use std::{
    env, fs,
    io::{self, BufRead, BufReader, IsTerminal, Read, Write},
    net::{TcpListener, TcpStream, ToSocketAddrs},
    os::unix::fs::MetadataExt,
    process::exit,
    sync::{
        Mutex,
        atomic::{AtomicBool, AtomicUsize, Ordering::SeqCst},
    },
    thread,
    time::{Duration, Instant},
};

/// The few calls that std has no words for.
mod c {
    pub type Set = [u64; 16];
    pub const SIG_BLOCK: i32 = 0;
    pub const SIGINT: i32 = 2;
    pub const SIGTERM: i32 = 15;

    unsafe extern "C" {
        pub fn sigemptyset(set: *mut Set) -> i32;
        pub fn sigaddset(set: *mut Set, signal: i32) -> i32;
        pub fn pthread_sigmask(how: i32, set: *const Set, old: *mut Set) -> i32;
        pub fn sigwait(set: *const Set, signal: *mut i32) -> i32;
    }
}

static WELL: AtomicBool = AtomicBool::new(true);
static ENDING: AtomicBool = AtomicBool::new(false);
static HUNG: AtomicBool = AtomicBool::new(false);
/// Requests that were begun and are not answered yet.
static OPEN: AtomicUsize = AtomicUsize::new(0);
static MEMORY: Mutex<Vec<Vec<u8>>> = Mutex::new(Vec::new());

fn main() {
    let args: Vec<String> = env::args().collect();
    let words: Vec<&str> = args.iter().skip(1).map(String::as_str).collect();
    match words.as_slice() {
        ["check", rest @ ..] => check(rest.first().unwrap_or(&"/healthz")),
        ["call", url] => match call(url) {
            Ok((status, body)) => {
                println!("{body}");
                exit(i32::from(status != 200));
            }
            Err(error) => {
                eprintln!("{url}: {error}");
                exit(1);
            }
        },
        ["exit", code] => exit(code.parse().unwrap_or(1)),
        ["upper"] => upper(),
        ["terminal"] => println!("terminal: {}", io::stdin().is_terminal() && io::stdout().is_terminal()),
        ["stay"] => loop {
            thread::park();
        },
        _ => serve(),
    }
}

fn upper() {
    let mut lines = 0;
    for line in io::stdin().lines().map_while(Result::ok) {
        println!("{}", line.to_uppercase());
        lines += 1;
    }
    eprintln!("{lines} lines");
    exit(5);
}

fn port() -> u16 {
    number("PORT").and_then(|port| u16::try_from(port).ok()).unwrap_or(8080)
}

/// The value of $MODE after `name:`, or an empty text when it is `name` alone.
fn mode(name: &str) -> Option<String> {
    let mode = env::var("MODE").ok()?;
    let rest = mode.strip_prefix(name)?;
    if rest.is_empty() { Some(String::new()) } else { rest.strip_prefix(':').map(str::to_owned) }
}

fn number(name: &str) -> Option<u64> {
    env::var(name).ok()?.parse().ok()
}

fn check(path: &str) {
    match call(&format!("127.0.0.1:{}{path}", port())) {
        Ok((200, body)) => println!("well: {}", body.trim()),
        Ok((status, body)) => {
            println!("{status}: {}", body.trim());
            exit(1);
        }
        Err(error) => {
            println!("{error}");
            exit(1);
        }
    }
}

/// A GET of `HOST:PORT/PATH`.
fn call(url: &str) -> io::Result<(u16, String)> {
    let url = url.trim_start_matches("http://");
    let (host, path) = match url.split_once('/') {
        Some((host, path)) => (host, format!("/{path}")),
        None => (url, "/".to_owned()),
    };
    let address = host.to_socket_addrs()?.next().ok_or_else(|| io::Error::other("no such name"))?;
    let mut stream = TcpStream::connect_timeout(&address, Duration::from_secs(2))?;
    stream.set_read_timeout(Some(Duration::from_secs(5)))?;
    write!(stream, "GET {path} HTTP/1.1\r\nHost: {host}\r\nConnection: close\r\n\r\n")?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer)?;
    let (head, body) = answer.split_once("\r\n\r\n").ok_or_else(|| io::Error::other("no answer"))?;
    let status = head.split(' ').nth(1).and_then(|status| status.parse().ok()).unwrap_or(0);
    Ok((status, body.to_owned()))
}

fn serve() {
    let signals = signals();
    thread::spawn(move || end_at(signals));
    if let Some(code) = mode("exit") {
        eprintln!("ends at once with {code}");
        exit(code.parse().unwrap_or(1));
    }
    if let Some(mb) = number("ALLOCATE_MB") {
        allocate(mb);
    }
    if let Ok(path) = env::var("WRITE") {
        match fs::write(&path, version()) {
            Ok(()) => println!("wrote {path}"),
            Err(error) => eprintln!("cannot write {path}: {error}"),
        }
    }
    if mode("noisy").is_some() {
        log_escapes();
        log_bytes(1 << 20);
    }
    while mode("hang").is_some() {
        thread::park();
    }
    if let Some(ms) = mode("late") {
        thread::sleep(Duration::from_millis(ms.parse().unwrap_or(0)));
    }
    WELL.store(mode("ill").is_none(), SeqCst);
    later("ILL_AFTER_MS", || WELL.store(false, SeqCst));
    later("EXIT_AFTER_MS", || {
        eprintln!("last words: had my time");
        exit(3);
    });
    let host = env::var("HOST").unwrap_or_else(|_| "0.0.0.0".into());
    let listener = match TcpListener::bind((host.as_str(), port())) {
        Ok(listener) => listener,
        Err(error) => {
            eprintln!("port {}: {error}", port());
            exit(2);
        }
    };
    println!("{} listens on {host}:{}", version(), port());
    for stream in listener.incoming().flatten() {
        // Small, so that hundreds of connections cost little.
        let _ = thread::Builder::new().stack_size(128 << 10).spawn(move || converse(stream));
    }
}

fn version() -> String {
    env::args().nth(1).unwrap_or_default()
}

fn later(name: &str, what: impl FnOnce() + Send + 'static) {
    if let Some(ms) = number(name) {
        thread::spawn(move || {
            thread::sleep(Duration::from_millis(ms));
            what();
        });
    }
}

/// The first process of a container is not ended by a signal that it does not handle. Blocked in every thread, the
/// signals wait for the one that asks for them.
fn signals() -> c::Set {
    let mut set: c::Set = [0; 16];
    // SAFETY: the set is larger than libc's and lives through the calls.
    unsafe {
        c::sigemptyset(&mut set);
        c::sigaddset(&mut set, c::SIGTERM);
        c::sigaddset(&mut set, c::SIGINT);
        c::pthread_sigmask(c::SIG_BLOCK, &set, std::ptr::null_mut());
    }
    set
}

fn end_at(set: c::Set) {
    let mut signal = 0;
    loop {
        // SAFETY: both live through the call.
        unsafe { c::sigwait(&set, &mut signal) };
        if mode("deaf").is_some() {
            println!("deaf to signal {signal}");
            continue;
        }
                ENDING.store(true, SeqCst);
        thread::sleep(Duration::from_millis(number("DRAIN_MS").unwrap_or(0)));
        let began = Instant::now();
        while OPEN.load(SeqCst) > 0 && began.elapsed() < Duration::from_secs(30) {
            thread::sleep(Duration::from_millis(5));
        }
        println!("ends at signal {signal}");
        exit(0);
    }
}

fn converse(stream: TcpStream) {
    let _ = stream.set_nodelay(true);
    let Ok(reader) = stream.try_clone() else { return };
    let (mut reader, mut writer) = (BufReader::new(reader), stream);
    while let Some((target, close)) = request(&mut reader) {
        OPEN.fetch_add(1, SeqCst);
        while HUNG.load(SeqCst) {
            thread::park();
        }
        let (status, body) = answer(&target);
        let close = close || ENDING.load(SeqCst);
        let head = format!(
            "HTTP/1.1 {status}\r\nContent-Length: {}\r\nContent-Type: text/plain\r\nX-Version: {}\r\n{}\r\n",
            body.len(),
            version().escape_default(),
            if close { "Connection: close\r\n" } else { "" },
        );
        let sent = writer.write_all(format!("{head}{body}").as_bytes());
        OPEN.fetch_sub(1, SeqCst);
        if sent.is_err() || close {
            return;
        }
    }
}

/// The target of the next request, and whether it is the connection's last.
fn request(reader: &mut BufReader<TcpStream>) -> Option<(String, bool)> {
    let mut first = String::new();
    reader.read_line(&mut first).ok().filter(|read| *read > 0)?;
    let target = first.split(' ').nth(1)?.to_owned();
    let (mut close, mut length) = (false, 0);
    loop {
        let mut line = String::new();
        reader.read_line(&mut line).ok().filter(|read| *read > 0)?;
        let line = line.trim().to_ascii_lowercase();
        if line.is_empty() {
            break;
        }
        close |= line == "connection: close";
        if let Some(text) = line.strip_prefix("content-length:") {
            length = text.trim().parse().ok()?;
        }
    }
    io::copy(&mut reader.take(length), &mut io::sink()).ok()?;
    Some((target, close))
}

fn answer(target: &str) -> (&'static str, String) {
    let (path, query) = target.split_once('?').unwrap_or((target, ""));
    let of = |result: io::Result<String>| match result {
        Ok(text) => ("200 OK", text),
        Err(error) if error.kind() == io::ErrorKind::NotFound => ("404 Not Found", error.to_string()),
        Err(error) => ("403 Forbidden", error.to_string()),
    };
    let number = query.parse::<u64>().unwrap_or(0);
    match path {
        "/" => ("200 OK", version()),
        "/healthz" if WELL.load(SeqCst) => ("200 OK", "well".into()),
        "/healthz" => ("503 Service Unavailable", "ill".into()),
        "/well" | "/ill" => {
            WELL.store(path == "/well", SeqCst);
            ("200 OK", path.into())
        }
        "/about" => ("200 OK", about()),
        "/env" => ("200 OK", env::var(query).unwrap_or_default()),
        "/instance" => ("200 OK", env::var("SETPOINT_INSTANCE").unwrap_or_default()),
        "/cwd" => of(env::current_dir().map(|path| path.display().to_string())),
        "/uid" => of(own_ids().map(|(uid, gid)| format!("{uid}:{gid}"))),
        "/hostname" => of(fs::read_to_string("/proc/sys/kernel/hostname").map(|name| name.trim().into())),
        "/argv" => ("200 OK", format!("{:?}", env::args().collect::<Vec<_>>())),
        "/pid" => ("200 OK", std::process::id().to_string()),
        "/status" => of(fs::read_to_string("/proc/self/status")),
        "/slow" => {
            thread::sleep(Duration::from_millis(number));
            ("200 OK", version())
        }
        "/read" => of(fs::read_to_string(query)),
        "/write" => of(fs::write(query, "written").map(|()| "written".into())),
        "/ask" | "/call" => match call(query) {
            Ok((200, body)) => ("200 OK", body),
            Ok((_, body)) => ("502 Bad Gateway", body),
            // libc's word for a name that nobody has.
            Err(error) if error.to_string().contains("lookup") => ("404 Not Found", error.to_string()),
            Err(error) => ("502 Bad Gateway", error.to_string()),
        },
        "/resolve" => of((query, 80).to_socket_addrs().map(|found| {
            let mut found: Vec<String> = found.map(|address| address.ip().to_string()).collect();
            found.sort();
            found.dedup();
            found.join(" ")
        })),
        "/end" => {
            eprintln!("last words: told to end with {number}");
            exit(i32::try_from(number).unwrap_or(1));
        }
        "/hang" => {
            HUNG.store(true, SeqCst);
            ("200 OK", "from now on".into())
        }
        "/log" => {
            println!("{query}");
            ("200 OK", "said".into())
        }
        "/log-bytes" => {
            log_bytes(number);
            ("200 OK", "said".into())
        }
        "/log-escapes" => {
            log_escapes();
            ("200 OK", "said".into())
        }
        "/allocate" => {
            allocate(number);
            ("200 OK", "held".into())
        }
        _ => ("404 Not Found", "no such path".into()),
    }
}

fn own_ids() -> io::Result<(u32, u32)> {
    fs::metadata("/proc/self").map(|own| (own.uid(), own.gid()))
}

fn about() -> String {
    let text = |text: &str| format!("\"{}\"", json_escaped(text));
    let env: Vec<String> =
        env::vars().map(|(name, value)| format!("{}:{}", text(&name), text(&value))).collect();
    let argv: Vec<String> = env::args().map(|arg| text(&arg)).collect();
    let (uid, gid) = own_ids().unwrap_or_default();
    let cwd = env::current_dir().map(|path| path.display().to_string()).unwrap_or_default();
    let hostname = fs::read_to_string("/proc/sys/kernel/hostname").unwrap_or_default();
    format!(
        "{{\"version\":{},\"pid\":{},\"uid\":{uid},\"gid\":{gid},\"cwd\":{},\"hostname\":{},\"argv\":[{}],\"env\":{{{}}}}}\n",
        text(&version()),
        std::process::id(),
        text(&cwd),
        text(hostname.trim()),
        argv.join(","),
        env.join(","),
    )
}

fn json_escaped(text: &str) -> String {
    let mut out = String::new();
    for c in text.chars() {
        match c {
            '"' | '\\' => out.extend(['\\', c]),
            c if c < ' ' => out.push_str(&format!("\\u{:04x}", u32::from(c))),
            c => out.push(c),
        }
    }
    out
}

fn log_bytes(bytes: u64) {
    println!("{}", "x".repeat(usize::try_from(bytes).unwrap_or(0)));
}

/// Colours, a window title, a cleared screen, a carriage return that hides, and bytes that are no text.
fn log_escapes() {
    let mut out = io::stdout().lock();
    let _ = out.write_all(b"\x1b[31mred\x1b[0m \x1b]0;title\x07 \x1b[2J seen\rhidden \xff\xfe \x00 end\n");
    let _ = out.flush();
}

fn allocate(mb: u64) {
    let block = vec![1_u8; usize::try_from(mb << 20).unwrap_or(0)];
    if let Ok(mut held) = MEMORY.lock() {
        held.push(block);
    }
}
