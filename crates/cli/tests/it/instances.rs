//! Two servers on one database.

#![expect(clippy::unwrap_used, reason = "what fails here fails the test that asked for it")]

use serde_json::Value;

use crate::home::Home;

fn list(home: &Home) -> Vec<Value> {
    let printed = home.run(&["instances", "list", "--json"]).ok();
    serde_json::from_str(&printed).unwrap()
}

#[test]
fn instances_are_listed_and_forgotten() {
    let home = Home::new();
    let first = home.serve();
    let second = home.serve();
    let items = list(&home);
    assert_eq!(items.len(), 2);
    assert_eq!(items.iter().filter(|item| item["is_this"] == true).count(), 1);
    assert_eq!(items[0]["journal"], items[1]["journal"], "they share a data directory");
    assert!(items.iter().any(|item| item["address"] == first.address.to_string()));
    let table = home.run(&["instances"]).ok();
    assert!(table.contains("serving, this one") && table.contains(&second.address.to_string()), "{table}");

    let other = items.iter().find(|item| item["is_this"] == false).unwrap()["id"].as_str().unwrap().to_owned();
    assert!(home.run(&["instances", "forget", &other]).fails(1).contains("--yes"));
    assert!(home.run(&["instances", "forget", &other, "--yes"]).fails(1).contains("instance_alive"));
    assert!(home.run(&["instances", "forget", "x", "--yes"]).fails(1).contains("invalid_identifier"));
    let said = home.run(&["instances", "forget", &other, "--yes", "--force", "--json"]).ok();
    assert_eq!(serde_json::from_str::<Value>(&said).unwrap()["forgotten"], true);
    assert_eq!(list(&home).len(), 1);
    drop(second);
    assert!(first.end().success());
}

#[test]
fn one_that_ended_in_order_is_gone_and_one_that_was_killed_is_adopted_and_gone() {
    let home = Home::new();
    let first = home.serve();
    assert!(home.serve().end().success());
    assert_eq!(list(&home).len(), 1);
    first.kill();
    let next = home.serve();
    assert_eq!(list(&home).len(), 1, "its journal was adopted and held nothing");
    assert!(next.end().success());
}
