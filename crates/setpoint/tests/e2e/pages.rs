//! What the pages of the documentation promise: a reader goes through them and everything is as they say.

use testkit::page::Reader;

const EXE: &str = env!("CARGO_BIN_EXE_setpoint");

fn page(name: &str) -> String {
    let path = format!("{}/../../docs/{name}", env!("CARGO_MANIFEST_DIR"));
    std::fs::read_to_string(&path).unwrap_or_else(|error| panic!("{path}: {error}"))
}

#[track_caller]
fn follow(name: &str, commands: usize) {
    match Reader::new(EXE).follow(&page(name)) {
        Ok(run) => assert!(run >= commands, "{name} has {run} commands alone"),
        Err(stuck) => panic!("{name}: {stuck}"),
    }
}

#[test]
fn getting_started_does_what_it_says() {
    follow("getting-started.md", 20);
}

#[test]
fn the_page_about_health_does_what_it_says() {
    follow("health.md", 12);
}

#[test]
fn the_page_about_the_disk_does_what_it_says() {
    follow("disk.md", 8);
}

#[test]
fn a_wrong_command_or_output_in_a_page_is_found() {
    let page = page("getting-started.md");
    for (right, wrong) in [
        ("setpoint explain demo/api", "setpoint explain demo/apx"),
        ("setpoint plan -f app.yaml --offline", "setpoint plan -f app.yaml --ofline"),
        ("up -f app.yaml", "up -f app.yml"),
        ("demo/api   process  converged  2/2", "demo/api   process  converged  3/3"),
    ] {
        assert!(page.contains(right), "{right}");
        let stuck = Reader::new(EXE).follow(&page.replace(right, wrong)).unwrap_err();
        assert!(stuck.contains(wrong), "{stuck}");
    }
}
