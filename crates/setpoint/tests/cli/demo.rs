//! The demo app as a program of its own.

use std::{
    io::{Read, Write},
    net::{SocketAddr, TcpListener, TcpStream},
    process::{Child, Command, Stdio},
    time::{Duration, Instant},
};

const BOUND: Duration = Duration::from_secs(20);

struct App {
    child: Child,
    address: SocketAddr,
}

impl App {
    fn start(variables: &[(&str, &str)]) -> Self {
        let address = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
        let mut command = Command::new(env!("CARGO_BIN_EXE_setpoint"));
        command.arg("demo-app").env("HOST", "127.0.0.1").env("PORT", address.port().to_string());
        command.env("SETPOINT_INSTANCE", "default.api.0.7").envs(variables.iter().copied());
        Self { child: command.stderr(Stdio::null()).spawn().unwrap(), address }
    }

    fn listening(self) -> Self {
        let until = Instant::now() + BOUND;
        while TcpStream::connect(self.address).is_err() {
            assert!(Instant::now() < until, "it does not listen");
            std::thread::yield_now();
        }
        self
    }

    fn send(&self, request: &str) -> TcpStream {
        let mut stream = TcpStream::connect(self.address).unwrap();
        stream.set_read_timeout(Some(BOUND)).unwrap();
        stream.write_all(request.as_bytes()).unwrap();
        stream
    }

    fn get(&self, path: &str) -> String {
        rest(
            &mut self.send(&format!("GET {path} HTTP/1.1\r\nhost: x\r\nx-y: z\r\nconnection: close\r\n\r\n")),
        )
    }

    fn terminate(&self) {
        let pid = rustix::process::Pid::from_child(&self.child);
        rustix::process::kill_process(pid, rustix::process::Signal::TERM).unwrap();
    }

    fn code(mut self) -> Option<i32> {
        self.child.wait().unwrap().code()
    }
}

impl Drop for App {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn rest(stream: &mut TcpStream) -> String {
    let mut answer = String::new();
    stream.read_to_string(&mut answer).unwrap();
    answer
}

#[test]
fn it_answers_what_the_quickstart_and_the_tests_ask() {
    let app = App::start(&[("VERSION", "two")]).listening();
    let hello = app.get("/");
    assert!(
        hello.starts_with("HTTP/1.1 200")
            && hello.contains("default.api.0.7")
            && hello.contains("version two")
    );
    assert!(app.get("/healthz").starts_with("HTTP/1.1 200"));
    assert!(app.get("/env?name=VERSION").ends_with("\r\n\r\ntwo\n"));
    assert!(app.get("/env?name=NOT_SET").starts_with("HTTP/1.1 404"));
    assert!(app.get("/headers").contains("x-y: z\n"));
    assert!(app.get("/slow?ms=1").ends_with("1 ms\n"));
    assert!(app.get("/slow?ms=x").starts_with("HTTP/1.1 400"));
    assert!(app.get("/nowhere").starts_with("HTTP/1.1 404"));
    let echo = "POST /echo HTTP/1.1\r\nhost: x\r\ncontent-length: 5\r\nconnection: close\r\n\r\nhello";
    assert!(rest(&mut app.send(echo)).ends_with("hello"));
    assert!(app.get("/upgrade").starts_with("HTTP/1.1 426"));
    let mut upgraded =
        app.send("GET /upgrade HTTP/1.1\r\nhost: x\r\nconnection: upgrade\r\nupgrade: any\r\n\r\nhello");
    upgraded.shutdown(std::net::Shutdown::Write).unwrap();
    let all = rest(&mut upgraded);
    assert!(all.starts_with("HTTP/1.1 101") && all.contains("pid ") && all.ends_with("hello"), "{all}");
}

#[test]
fn asked_to_end_it_answers_what_is_in_flight_first() {
    let app = App::start(&[]).listening();
    let mut idle = app.send("GET / HTTP/1.1\r\nhost: x\r\n\r\n");
    let mut first = [0; 1];
    idle.read_exact(&mut first).unwrap();
    let mut slow = app.send("GET /slow?ms=300 HTTP/1.1\r\nhost: x\r\n\r\n");
    // Read by the app before the signal comes: it answers connections in their order.
    app.get("/");
    app.terminate();
    assert!(rest(&mut slow).ends_with("300 ms\n"));
    rest(&mut idle);
    assert_eq!(app.code(), Some(0));
}

#[test]
fn it_misbehaves_as_asked() {
    assert_eq!(App::start(&[("FAIL_START", "7")]).code(), Some(7));
    assert_eq!(App::start(&[("CRASH_AFTER_MS", "1")]).code(), Some(101));
    assert!(App::start(&[("FAIL_HEALTH", "1")]).listening().get("/healthz").starts_with("HTTP/1.1 503"));
    let app = App::start(&[("UNHEALTHY_AFTER_MS", "200")]).listening();
    let until = Instant::now() + BOUND;
    while !app.get("/healthz").starts_with("HTTP/1.1 503") {
        assert!(Instant::now() < until, "it stays healthy");
    }
    let booting = App::start(&[("BOOT_DELAY_MS", "60000")]);
    assert!(TcpStream::connect(booting.address).is_err());
}

#[test]
fn without_a_port_it_says_what_to_do() {
    let output =
        Command::new(env!("CARGO_BIN_EXE_setpoint")).arg("demo-app").env_remove("PORT").output().unwrap();
    assert_eq!(output.status.code(), Some(1));
    assert!(String::from_utf8(output.stderr).unwrap().contains("PORT=8081 setpoint demo-app"));
}
