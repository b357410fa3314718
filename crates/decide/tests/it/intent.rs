//! What an intent is refused for, whatever runs.

use crate::bench::{Bench, spec};
use decide::intent::{self, Images, Refused};
use model::{ServiceKey, service::Owner};

fn key() -> ServiceKey {
    "web".parse().unwrap()
}

#[test]
fn who_does_not_own_a_service_neither_changes_nor_deletes_it() {
    let git = Owner::Git { url: "https://git.example/web".into() };
    let (v1, v2) = (spec::parse(&["process", "v1"]), spec::parse(&["process", "v2"]));
    for (owner, other) in [(Owner::Api, git.clone()), (git, Owner::Api)] {
        let mut bench = Bench::new();
        let apply = |bench: &mut Bench, spec, by: &Owner| {
            let world = bench.world(&key()).clone();
            intent::apply(&world, spec, by, &Images::new(), bench.now)
        };
        let declared = apply(&mut bench, &v1, &owner);
        assert_eq!(bench.intend(&key(), declared), "declared");
        let why = Refused::OwnedByAnother { service: key(), owner: owner.clone() };
        let refused = Err(why.clone());
        assert_eq!(apply(&mut bench, &v2, &other), refused);
        assert_eq!(apply(&mut bench, &v1, &other), refused, "also what would change nothing");
        assert_eq!(intent::delete(&bench.world(&key()).clone(), &other, bench.now), refused);
        let said = why.to_string();
        assert!(said.contains(&format!("belongs to {owner}")), "it says where to change it: {said}");
        assert!(apply(&mut bench, &v2, &owner).is_ok());
    }
}

#[test]
fn going_back_to_what_is_wanted_already_starts_what_is_stopped() {
    let mut bench = Bench::new();
    let spec = spec::parse(&["process", "v1"]);
    let world = bench.world(&key()).clone();
    bench.intend(&key(), intent::apply(&world, &spec, &Owner::Api, &Images::new(), bench.now));
    bench.world(&key()).deployments[0].phase = model::deployment::Phase::Active;
    let world = bench.world(&key()).clone();
    let first = world.deployments[0].clone();
    let again = intent::rollback(&world, Some(&first), bench.now).unwrap();
    assert!(matches!(again, intent::Outcome::Unchanged { .. }), "{again:?}");
    bench.intend(&key(), intent::stop(&world, bench.now));
    let world = bench.world(&key()).clone();
    bench.intend(&key(), intent::rollback(&world, Some(&first), bench.now));
    assert!(!bench.world(&key()).service.known().unwrap().stopped);
}

/// Nothing has come of it, so that what is declared and unchanged is not what runs.
#[test]
fn an_unchanged_declaration_whose_first_deployment_was_cancelled_says_what_runs_it() {
    let mut bench = Bench::new();
    let spec = spec::parse(&["process", "v1"]);
    let apply = |bench: &mut Bench| {
        let world = bench.world(&key()).clone();
        intent::apply(&world, &spec, &Owner::Api, &Images::new(), bench.now).unwrap()
    };
    let declared = apply(&mut bench);
    bench.intend(&key(), Ok(declared));
    let world = bench.world(&key()).clone();
    bench.intend(&key(), intent::cancel(&world, &world.deployments[0].id, bench.now));
    let intent::Outcome::Unchanged { message } = apply(&mut bench) else { panic!("it is declared already") };
    let said = "nothing of it runs: deployment #1 was cancelled; `setpoint deploy` runs what is declared";
    assert_eq!(message, said);
}
