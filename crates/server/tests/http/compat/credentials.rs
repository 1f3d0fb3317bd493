//! User names and passwords: taken from where they may stand, tried, kept.

use std::collections::BTreeMap;

use serde_json::{Value, json};
use tokenkeep_server::{Companies, Compat};

use super::{PASSWORD, STORE, TEST, USER, call, outcome, post_form, post_json, start, store};

const BOTH: &str = "Both username and password are required";

fn named(companies: Companies) -> Compat {
    let company_names = BTreeMap::from([("123".parse().unwrap(), "Rocky Mountain Excavating".to_owned())]);
    Compat { companies, company_names, ..Compat::default() }
}

#[tokio::test]
async fn credentials_that_the_provider_takes_are_stored_and_the_first_token_with_them() {
    let app = start(named(Companies::Open)).await;
    let tail = json!({
        "credentials_tested": true, "credentials_valid": true, "credentials_stored": true,
        "company_name": "Rocky Mountain Excavating",
    });
    let message = "BlueStakes credentials successfully tested and stored for Rocky Mountain Excavating";
    let stored = outcome(message, None, &tail);
    let answer = post_json(&app, STORE, super::ann()).await;
    assert_eq!((answer.status.as_u16(), answer.json()), (200, stored.clone()));
    assert_eq!(answer.header("content-type"), Some("application/json"));
    assert_eq!(
        answer.text(),
        "{\"success\":true,\"message\":\"BlueStakes credentials successfully tested and stored for Rocky Mountain \
         Excavating\",\"data\":{\"company_id\":123,\"username\":\"ann\",\"credentials_tested\":true,\
         \"credentials_valid\":true,\"credentials_stored\":true,\"test_error\":null,\"storage_error\":null,\
         \"company_name\":\"Rocky Mountain Excavating\"},\"error\":null}",
        "byte for byte"
    );
    let form = post_form(&app, "/tickets/store-credentials/123", &format!("username={USER}&password={PASSWORD}")).await;
    assert_eq!((form.status.as_u16(), form.json()), (200, stored));

    let connection = app.get("/v1/connections/bluestakes/123/_default").await.json();
    assert_eq!(connection["display_name"], "Rocky Mountain Excavating");
    let token = app.get("/v1/connections/bluestakes/123/_default/token").await.json();
    assert_eq!(token["access_token"], "stakes-ann-2");
    assert_eq!(app.stakes.logins(), [USER, USER], "one for each time they were stored, none for reading");
}

#[tokio::test]
async fn a_company_without_a_name_is_called_by_its_id() {
    let app = start(Compat::default()).await;
    let answer = post_json(&app, "/tokens/credentials/acme%2Fwest", super::ann()).await;
    let all = json!({
        "company_id": "acme/west", "credentials_tested": true, "credentials_valid": true, "credentials_stored": true,
    });
    let message = "BlueStakes credentials successfully tested and stored for company acme/west";
    assert_eq!((answer.status.as_u16(), answer.json()), (200, outcome(message, None, &all)));
}

#[tokio::test]
async fn credentials_can_be_tried_and_nothing_is_kept() {
    let app = start(Compat::default()).await;
    let tail = json!({"company_id": 0, "credentials_tested": true, "credentials_valid": true});
    let valid = outcome("BlueStakes credentials are valid", None, &tail);
    let answer = post_json(&app, TEST, super::ann()).await;
    assert_eq!((answer.status.as_u16(), answer.json()), (200, valid.clone()));
    let answer = post_form(&app, TEST, &format!("username={USER}&password={PASSWORD}")).await;
    assert_eq!((answer.status.as_u16(), answer.json()), (200, valid));
    assert_eq!(app.get("/v1/connections").await.json()["items"], json!([]));

    let refused = json!({"username": USER, "password": "wrong"});
    let tail = json!({
        "company_id": 0, "credentials_tested": true,
        "test_error": "the provider of `bluestakes` does not take these credentials",
    });
    let message = "BlueStakes credentials are invalid - please check username and password";
    let answer = post_json(&app, TEST, refused).await;
    assert_eq!((answer.status.as_u16(), answer.json()), (401, outcome(message, Some("INVALID_CREDENTIALS"), &tail)));
}

/// In the system that this one replaces, `test` was read as a company's number and refused.
#[tokio::test]
async fn trying_is_not_taken_for_a_company() {
    let app = start(Compat::default()).await;
    let answer = post_json(&app, TEST, super::ann()).await;
    assert_eq!(answer.json()["data"]["credentials_stored"], false);
    store(&app, "tested").await;
    // A company of that name is reached by the routes of this service.
    let body = json!({"access_token": "t", "display_name": "Test Ltd"});
    assert_eq!(app.put("/v1/connections/bluestakes/test/_default", body).await.status, 201);
    let status = call(&app, "GET", "/tokens/test/status").await;
    assert_eq!(status.json(), json!({"success": true, "company_id": "test", "has_valid_token": true}));
}

#[tokio::test]
async fn in_the_query_they_are_refused_unless_that_was_allowed() {
    let query = format!("?username={USER}&password={PASSWORD}");
    for (path, company) in [(STORE, 123), (TEST, 0), ("/tickets/store-credentials/123", 123)] {
        let app = start(Compat::default()).await;
        for body in [None, Some(super::ann())] {
            let path = format!("{path}{query}");
            let answer = match body {
                None => call(&app, "POST", &path).await,
                Some(body) => post_json(&app, &path, body).await,
            };
            let said = answer.json();
            let message = said["message"].as_str().unwrap();
            assert!(message.starts_with(BOTH) && message.contains("credentials_in_query"), "{message}");
            let nothing = json!({"company_id": company, "username": ""});
            let expected = outcome(message, Some("USERNAME_PASSWORD_REQUIRED"), &nothing);
            assert_eq!((answer.status.as_u16(), &said), (400, &expected));
        }
        assert!(app.stakes.logins().is_empty());

        let app = start(Compat { credentials_in_query: true, ..Compat::default() }).await;
        let answer = call(&app, "POST", &format!("{path}{query}")).await;
        assert_eq!(answer.status, 200, "{answer:?}");
        assert_eq!(answer.json()["data"]["company_id"], company);
        assert_eq!(answer.json()["data"]["username"], USER);
        assert_eq!(answer.json()["data"]["credentials_valid"], true);
        // A body goes over the query, and may do without it.
        app.stakes.account("bob", "b");
        let answer = post_json(&app, &format!("{path}{query}"), json!({"username": "bob", "password": "b"})).await;
        assert_eq!((answer.status.as_u16(), &answer.json()["data"]["username"]), (200, &json!("bob")));
        assert_eq!(app.stakes.logins(), [USER, "bob"]);
    }
}

#[tokio::test]
async fn both_are_required_and_what_came_instead_is_not_repeated() {
    for credentials_in_query in [false, true] {
        let app = start(Compat { credentials_in_query, ..Compat::default() }).await;
        for (path, company) in [(STORE, 123), (TEST, 0)] {
            let missing = |username: &str, message: &str| {
                let said = json!({"company_id": company, "username": username});
                outcome(message, Some("USERNAME_PASSWORD_REQUIRED"), &said)
            };
            for (body, username) in [
                (json!({}), ""),
                (json!({"username": USER}), USER),
                (json!({"username": USER, "password": ""}), USER),
                (json!({"username": USER, "password": null}), USER),
                (json!({"username": "", "password": PASSWORD}), ""),
                (json!({"password": PASSWORD, "passwort": PASSWORD}), ""),
            ] {
                let answer = post_json(&app, path, body).await;
                assert_eq!((answer.status.as_u16(), answer.json()), (400, missing(username, BOTH)));
            }
            assert_eq!(call(&app, "POST", path).await.json(), missing("", BOTH));
            assert_eq!(post_form(&app, path, "username=ann").await.json(), missing(USER, BOTH));
            for body in [json!([PASSWORD]), json!({"username": 1, "password": PASSWORD}), json!(PASSWORD)] {
                let answer = post_json(&app, path, body).await;
                let said = answer.json();
                let message = said["message"].as_str().unwrap();
                assert!(message.starts_with(BOTH) && message.len() > BOTH.len(), "{message}");
                assert_eq!((answer.status.as_u16(), &said), (400, &missing("", message)));
                assert!(!answer.text().contains(PASSWORD));
            }
        }
        assert!(app.stakes.logins().is_empty());
    }
}

#[tokio::test]
async fn where_companies_are_closed_those_without_name_and_connection_are_not_found() {
    let app = start(named(Companies::Closed)).await;
    let unknown = post_json(&app, "/tokens/credentials/124", super::ann()).await;
    let expected: Value =
        outcome("Company with ID 124 not found", Some("COMPANY_NOT_FOUND"), &json!({"company_id": 124}));
    assert_eq!((unknown.status.as_u16(), unknown.json()), (404, expected));
    assert!(app.stakes.logins().is_empty(), "nothing is tried for nobody");
    store(&app, "123").await;

    let body = json!({"access_token": "t", "display_name": "Uinta Trenching"});
    assert_eq!(app.put("/v1/connections/bluestakes/124/_default", body).await.status, 201);
    let known = post_json(&app, "/tokens/credentials/124", super::ann()).await.json();
    assert_eq!(known["data"]["company_name"], "Uinta Trenching");
    assert_eq!(known["data"]["credentials_stored"], true);
}
