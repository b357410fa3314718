// What runs in the containers of the tests: one file, the standard library alone, linked statically, so that an image
// FROM scratch holds it and nothing else. Compiled by `testkit::docker::images`.
//
//   app [VERSION]     serves on $HOST:$PORT: / says VERSION, /healthz says whether it is well, and the like (see `answer`)
//   app check         asks the own /healthz: an image's HEALTHCHECK
//
// $MODE: `exit:CODE` ends at once, `hang` never listens, `late:MS` listens later, `ill` is never well, `deaf` hears no
// SIGTERM, `noisy` writes long lines and escape codes. $DRAIN_MS: how long it goes on after SIGTERM.

use std::{
    io::{Read, Write},
    net::{TcpListener, TcpStream, UdpSocket},
    sync::atomic::{AtomicBool, Ordering},
    thread,
    time::Duration,
};

static TERMINATED: AtomicBool = AtomicBool::new(false);
static ILL: AtomicBool = AtomicBool::new(false);

extern "C" {
    fn signal(number: i32, handler: usize) -> usize;
}

extern "C" fn on_term(_: i32) {
    TERMINATED.store(true, Ordering::SeqCst);
}

fn var(name: &str, otherwise: &str) -> String {
    std::env::var(name).unwrap_or_else(|_| otherwise.to_owned())
}

fn main() {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    if arguments.first().is_some_and(|first| first == "check") {
        let well = ask(&format!("127.0.0.1:{}", var("PORT", "8080")), "/healthz").is_some_and(|a| a.starts_with("HTTP/1.1 200"));
        std::process::exit(if well { 0 } else { 1 });
    }
    let version = arguments.first().cloned().unwrap_or_default();
    let mode = var("MODE", "");
    if let Some(code) = mode.strip_prefix("exit:") {
        println!("ends at once with {code}");
        std::process::exit(code.parse().unwrap());
    }
    if mode != "deaf" {
        unsafe { signal(15, on_term as usize) };
    }
    if mode == "noisy" {
        println!("\u{1b}[2J\u{1b}]0;owned\u{7}{}", "x".repeat(1 << 20));
    }
    if mode == "hang" {
        loop {
            thread::sleep(Duration::from_secs(3600));
        }
    }
    if let Some(late) = mode.strip_prefix("late:") {
        thread::sleep(Duration::from_millis(late.parse().unwrap()));
    }
    ILL.store(mode == "ill", Ordering::SeqCst);
    let address = format!("{}:{}", var("HOST", "0.0.0.0"), var("PORT", "8080"));
    let listener = TcpListener::bind(&address).unwrap();
    println!("{version} listens on {address}");
    thread::spawn(move || {
        for stream in listener.incoming().flatten() {
            let version = version.clone();
            thread::spawn(move || serve(stream, &version));
        }
    });
    while !TERMINATED.load(Ordering::SeqCst) {
        thread::sleep(Duration::from_millis(5));
    }
    thread::sleep(Duration::from_millis(var("DRAIN_MS", "0").parse().unwrap()));
    println!("ends");
}

fn serve(mut stream: TcpStream, version: &str) {
    let _ = stream.set_nodelay(true);
    let mut kept: Vec<u8> = Vec::new();
    loop {
        while !kept.windows(4).any(|w| w == b"\r\n\r\n") {
            let mut buffer = [0; 4096];
            match stream.read(&mut buffer) {
                Ok(0) | Err(_) => return,
                Ok(n) => kept.extend_from_slice(&buffer[..n]),
            }
        }
        let end = kept.windows(4).position(|w| w == b"\r\n\r\n").unwrap() + 4;
        let head = String::from_utf8_lossy(&kept[..end]).into_owned();
        kept.drain(..end);
        let path = head.split(' ').nth(1).unwrap_or("/").to_owned();
        let (status, body) = answer(&path, version);
        let response = format!("HTTP/1.1 {status}\r\nContent-Length: {}\r\n\r\n{body}", body.len());
        if stream.write_all(response.as_bytes()).is_err() {
            return;
        }
    }
}

fn answer(path: &str, version: &str) -> (&'static str, String) {
    let (path, argument) = path.split_once('?').unwrap_or((path, ""));
    let ok = |body: String| ("200 OK", body);
    match path {
        "/" => ok(version.to_owned()),
        "/healthz" if ILL.load(Ordering::SeqCst) => ("503 Service Unavailable", "ill".into()),
        "/healthz" => ok("well".into()),
        "/ill" | "/well" => {
            ILL.store(path == "/ill", Ordering::SeqCst);
            ok(path.to_owned())
        }
        "/env" => ok(var(argument, "")),
        "/instance" => ok(var("SETPOINT_INSTANCE", "")),
        "/status" => ok(std::fs::read_to_string("/proc/self/status").unwrap_or_default()),
        "/cwd" => ok(std::env::current_dir().map(|dir| dir.display().to_string()).unwrap_or_default()),
        "/read" => match std::fs::read_to_string(argument) {
            Ok(text) => ok(text),
            Err(error) => ("404 Not Found", error.to_string()),
        },
        "/write" => match std::fs::write(argument, "written") {
            Ok(()) => ok("written".into()),
            Err(error) => ("403 Forbidden", error.to_string()),
        },
        // `name:port`: what a service of that name answers, found by the engine's own name server.
        "/ask" => match argument.split_once(':').and_then(|(name, port)| Some((resolve(name)?, port))) {
            Some((address, port)) => match ask(&format!("{address}:{port}"), "/") {
                Some(answer) => ok(answer.rsplit("\r\n\r\n").next().unwrap_or_default().to_owned()),
                None => ("502 Bad Gateway", "no answer".into()),
            },
            None => ("404 Not Found", "no such name".into()),
        },
        "/end" => std::process::exit(argument.parse().unwrap_or(1)),
        _ => ("404 Not Found", String::new()),
    }
}

fn ask(address: &str, path: &str) -> Option<String> {
    let mut stream = TcpStream::connect(address).ok()?;
    stream.set_read_timeout(Some(Duration::from_secs(5))).ok()?;
    write!(stream, "GET {path} HTTP/1.1\r\nHost: x\r\n\r\n").ok()?;
    let mut answer = [0; 4096];
    let n = stream.read(&mut answer).ok()?;
    Some(String::from_utf8_lossy(&answer[..n]).into_owned())
}

/// A statically linked program has no resolver of its own.
fn resolve(name: &str) -> Option<String> {
    let mut question = vec![0x12, 0x34, 1, 0, 0, 1, 0, 0, 0, 0, 0, 0];
    for label in name.split('.') {
        question.push(label.len() as u8);
        question.extend_from_slice(label.as_bytes());
    }
    question.extend_from_slice(&[0, 0, 1, 0, 1]);
    let socket = UdpSocket::bind("0.0.0.0:0").ok()?;
    socket.set_read_timeout(Some(Duration::from_secs(2))).ok()?;
    socket.send_to(&question, "127.0.0.11:53").ok()?;
    let mut answer = [0; 512];
    let n = socket.recv(&mut answer).ok()?;
    let answers = u16::from_be_bytes([answer[6], answer[7]]);
    let rest = &answer[question.len()..n];
    // A name (a pointer of two bytes), type, class, time to live, length, address.
    (answers > 0 && rest.len() >= 16).then(|| rest[12..16].iter().map(u8::to_string).collect::<Vec<_>>().join("."))
}
