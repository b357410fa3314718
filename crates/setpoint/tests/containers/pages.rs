//! The pages about containers, gone through with a real engine.

use testkit::{docker::Engine, page::Reader};

use crate::{image, setpoint};

#[track_caller]
fn follow(name: &str, commands: usize) {
    let Some(engine) = Engine::own() else { return };
    let path = format!("{}/../../docs/{name}", env!("CARGO_MANIFEST_DIR"));
    let page = std::fs::read_to_string(&path).unwrap_or_else(|error| panic!("{path}: {error}"));
    // No image can be fetched here, and ours has no shell.
    let mut reader = Reader::with(setpoint(&engine), env!("CARGO_BIN_EXE_setpoint"))
        .instead("nginx:1.27", &image(&engine, "v1"))
        .instead("nginx:1.28", &image(&engine, "v2"))
        .instead("port: 80 ", "port: 8080 ")
        .instead("port: 80\n", "port: 8080\n")
        .instead("demo/web sh", "demo/web /app terminal");
    match reader.follow(&page) {
        Ok(run) => assert!(run >= commands, "{name} has {run} commands alone"),
        Err(stuck) => panic!("{name}: {stuck}"),
    }
}

#[test]
fn the_guide_for_containers_does_what_it_says() {
    follow("containers.md", 12);
}

#[test]
fn the_page_about_cleaning_up_does_what_it_says() {
    follow("clean-up.md", 7);
}
