//! The program that the tests run: this test binary itself, told by its environment what to be.

use std::{
    io::{Read, Write},
    net::{TcpListener, TcpStream},
    path::Path,
};

/// A server on HOST and PORT. While a file `sick` lies in its folder it answers 500; `slow` delays its start.
#[test]
fn app() {
    if std::env::var_os("NODE_TEST_APP").is_none() {
        return;
    }
    let (host, port) = (std::env::var("HOST").unwrap(), std::env::var("PORT").unwrap());
    println!("listening on {host}:{port}");
    let listener = TcpListener::bind(format!("{host}:{port}")).unwrap_or_else(|error| {
        println!("cannot bind: {error}");
        std::process::exit(9);
    });
    for stream in listener.incoming().flatten() {
        answer(stream);
    }
}

fn answer(mut stream: TcpStream) {
    let mut request = [0; 4096];
    let read = stream.read(&mut request).unwrap_or(0);
    if request[..read].starts_with(b"GET /exit") {
        std::process::exit(3);
    }
    let status = if Path::new("sick").exists() { "500 Sick" } else { "200 OK" };
    let _ = write!(stream, "HTTP/1.1 {status}\r\nContent-Length: 0\r\nConnection: close\r\n\r\n");
}
