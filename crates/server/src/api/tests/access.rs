//! Who gets in, and how.

use data_encoding::BASE64;
use testkit::http::{self, Request};

use super::bench::{Bench, TOKEN};

/// Every operation of the served document, with a path that fits.
fn operations(bench: &Bench) -> Vec<(String, String, bool)> {
    let document = bench.read("/api/v1/openapi.json");
    let paths = document["paths"].as_object().unwrap();
    let operations = paths.iter().flat_map(|(path, methods)| {
        let path = path
            .replace("{project}", "default")
            .replace("{name}", "api")
            .replace("{seq}", "1")
            .replace("{digest}", &format!("sha256:{}", "0".repeat(64)));
        let id = if path.contains("/instances/") { "default.api.0.1" } else { "abc" };
        let path = path.replace("{id}", id);
        methods.as_object().unwrap().iter().map(move |(method, operation)| {
            let open = operation["security"].as_array().is_some_and(Vec::is_empty);
            (method.to_uppercase(), path.clone(), open)
        })
    });
    operations.collect()
}

#[test]
fn the_document_and_the_router_know_the_same_routes() {
    let bench = Bench::start();
    let operations = operations(&bench);
    assert!(operations.len() > 35, "{operations:?}");
    for (method, path, _) in &operations {
        let answer = bench.send(bench.request(method, path).header("Accept", "application/json"));
        let code = if answer.status == 404 {
            answer.json()["code"].as_str().unwrap().to_owned()
        } else {
            String::new()
        };
        assert!(answer.status != 405 && code != "no_such_route", "{method} {path}: {}", answer.text());
    }
    // What is not in the table is not in the router, which is made from it.
    assert_eq!(operations.len(), crate::api::table::routes().len());
}

#[test]
fn the_document_is_whole() {
    let bench = Bench::start();
    let document = bench.read("/api/v1/openapi.json");
    let text = document.to_string();
    let schemas = document["components"]["schemas"].as_object().unwrap();
    let named = text.split("#/components/schemas/").skip(1).map(|rest| rest.split('"').next().unwrap());
    for name in named {
        assert!(schemas.contains_key(name), "{name} is referred to and not there");
    }
    let methods =
        document["paths"].as_object().unwrap().values().flat_map(|path| path.as_object().unwrap().values());
    let mut ids: Vec<&str> = methods.map(|operation| operation["operationId"].as_str().unwrap()).collect();
    let count = ids.len();
    ids.sort_unstable();
    ids.dedup();
    assert_eq!(ids.len(), count, "operation ids are unique");
}

#[test]
fn every_route_but_two_wants_the_token() {
    let bench = Bench::start();
    let host = bench.address.to_string();
    let short = &TOKEN[..TOKEN.len() - 1];
    let basic = format!("Basic {}", BASE64.encode(format!("user:{TOKEN}").as_bytes()));
    for (method, path, open) in operations(&bench) {
        let is_page = path.contains("/docs") || path.ends_with("openapi.json");
        let wrong = [
            None,
            Some("Bearer".to_owned()),
            Some("Bearer ".to_owned()),
            Some(format!("Bearer {short}")),
            Some(format!("Bearer {TOKEN}x")),
            Some("Bearer eyJhbGciOiJub25lIn0.e30.".to_owned()),
            Some(TOKEN.to_owned()),
            Some(if is_page { "Basic dXNlcjp4".to_owned() } else { basic.clone() }),
        ];
        for given in wrong {
            for query in ["".to_owned(), format!("?token={TOKEN}&access_token={TOKEN}")] {
                let request = Request::new(&method, &host, &format!("{path}{query}"));
                let request = match &given {
                    Some(given) => request.header("Authorization", given),
                    None => request,
                };
                let answer = bench.send(request);
                if open {
                    assert_ne!(answer.status, 401, "{method} {path}");
                    continue;
                }
                assert_eq!(answer.status, 401, "{method} {path} {given:?}");
                assert!(answer.header("www-authenticate").unwrap().starts_with("Bearer"));
                assert_eq!(answer.json()["code"], "unauthorized");
            }
        }
        let right = bench.request(&method, &path).header("Accept", "application/json");
        assert_ne!(bench.send(right).status, 401, "{method} {path}");
    }
    let open = operations(&bench).into_iter().filter(|(_, _, open)| *open).map(|(_, path, _)| path);
    assert_eq!(open.collect::<Vec<_>>(), ["/health", "/ready"]);
    // What is no route is no secret, and still wants the token.
    assert_eq!(bench.send(Request::new("GET", &host, "/nothing")).status, 401);
}

#[test]
fn a_browser_reads_the_documentation_with_the_token_as_password() {
    let bench = Bench::start();
    let basic = format!("Basic {}", BASE64.encode(format!("anyone:{TOKEN}").as_bytes()));
    for (path, kind) in [
        ("/api/v1/docs", "text/html"),
        ("/api/v1/docs/page.js", "text/javascript"),
        ("/api/v1/docs/page.css", "text/css"),
        ("/api/v1/openapi.json", "application/json"),
    ] {
        let request = Request::new("GET", &bench.address.to_string(), path).header("Authorization", &basic);
        let answer = bench.send(request);
        assert_eq!(answer.status, 200, "{path}");
        assert!(answer.header("content-type").unwrap().starts_with(kind), "{path}");
        let policy = answer.header("content-security-policy").unwrap();
        assert!(policy.starts_with("default-src 'self'"), "{policy}");
        assert!(
            !answer.text().contains("http://") && !answer.text().contains("https://json"),
            "{path} works offline"
        );
    }
    let page = bench.get("/api/v1/docs").text();
    assert!(!page.contains("<script>") && !page.contains("<style"), "nothing is inline");
}

#[test]
fn other_host_names_are_not_answered() {
    let bench = Bench::start();
    let port = bench.address.port();
    let head = |host: &str| {
        format!(
            "GET /api/v1/services HTTP/1.1\r\n{host}Authorization: Bearer {TOKEN}\r\nConnection: close\r\n\r\n"
        )
    };
    let absolute = format!(
        "GET http://localhost/api/v1/services HTTP/1.1\r\nHost: 127.0.0.1\r\nAuthorization: Bearer {TOKEN}\r\nConnection: close\r\n\r\n"
    );
    for (request, status) in [
        (head("Host: localhost\r\n"), "200"),
        (head(&format!("Host: LOCALHOST.:{port}\r\n")), "200"),
        (head(&format!("Host: [::1]:{port}\r\n")), "200"),
        (head("Host: evil.example\r\n"), "421"),
        (head("Host: localhost.evil.example\r\n"), "421"),
        (head("Host: 127.0.0.1.nip.io\r\n"), "421"),
        (head(""), "400"),
        (head("Host: localhost\r\nHost: evil.example\r\n"), "400"),
        (head("Host: user@localhost\r\n"), "400"),
        (head("Host: \r\n"), "400"),
        (absolute, "400"),
    ] {
        let answer = http::raw(bench.address, request.as_bytes(), std::time::Duration::from_secs(5)).unwrap();
        let answer = String::from_utf8_lossy(&answer);
        assert_eq!(answer.get(9..12), Some(status), "{request}\n{answer}");
    }
}

#[test]
fn pages_of_other_sites_change_nothing() {
    let bench = Bench::start();
    let own = format!("http://{}", bench.address);
    for (name, value, status) in [
        ("Origin", "http://evil.example", 403),
        ("Origin", "null", 403),
        ("Origin", "http://127.0.0.1:1", 403),
        ("Sec-Fetch-Site", "cross-site", 403),
        ("Sec-Fetch-Site", "same-site", 403),
        ("Sec-Fetch-Site", "same-origin", 202),
        ("Sec-Fetch-Site", "none", 202),
        ("Origin", own.as_str(), 202),
    ] {
        let answer = bench.send(bench.request("POST", "/api/v1/reconcile").header(name, value));
        assert_eq!(answer.status, status, "{name}: {value}");
    }
}
