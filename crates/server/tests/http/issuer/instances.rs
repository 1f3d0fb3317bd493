//! Several servers, one store: what one of them takes back, the others take for taken back.

use std::{collections::BTreeSet, time::Duration};

use serde_json::json;
use tokenkeep_testkit::MemoryBus;

use super::{IssuerApp, SECRET, bearing, pages, upstreams};
use crate::app::Ground;

/// Two servers that hear each other.
async fn two() -> (IssuerApp, IssuerApp) {
    let bus = MemoryBus::default();
    let ground = Ground { bus: Some(bus.clone()), ..Ground::default() };
    let both = (IssuerApp::on(&ground, |_| {}).await, IssuerApp::on(&ground, |_| {}).await);
    while bus.listeners() < 2 {
        tokio::task::yield_now().await;
    }
    both
}

/// Waits until `app` answers `status` to a request with `token`. No time passes: only the bus can tell it.
async fn hears(app: &IssuerApp, token: &str, status: u16) {
    let heard = async {
        while app.verified("", token).await.status != status {
            tokio::task::yield_now().await;
        }
    };
    tokio::time::timeout(Duration::from_secs(20), heard).await.expect("the other server never heard of it");
}

#[tokio::test]
async fn a_revocation_is_heard_by_the_other_servers() {
    let (here, there) = two().await;
    for which in ["refresh_token", "access_token", "machine"] {
        let (token, revoked, client) = if which == "machine" {
            let token = here.machine_token("backend").await;
            (token.clone(), token, Some(("backend", SECRET)))
        } else {
            let tokens = here.redeem(&here.allow("native", "read").await).await.json();
            let text = |name: &str| tokens[name].as_str().unwrap().to_owned();
            (text("access_token"), text(which), None)
        };
        assert_eq!(there.verified("", &token).await.status, 200);
        assert_eq!(there.introspected(&token).await["active"], true);
        let mut form = vec![("token", &*revoked)];
        if client.is_none() {
            form.push(("client_id", "native"));
        }
        assert_eq!(here.post("/revoke", client, &form).await.status, 200);
        hears(&there, &token, 401).await;
        assert_eq!(there.introspected(&token).await["active"], false);
    }
}

/// A token of client credentials has no grant that could end.
#[tokio::test]
async fn what_a_client_has_for_itself_ends_with_its_grants_and_does_not_come_back() {
    const CHOSEN: &str = "chosen-by-the-operator";
    let (here, there) = two().await;
    let said = json!({
        "client_id": "job", "client_secret": CHOSEN, "client_name": "Job", "grant_types": ["client_credentials"],
    });
    assert_eq!(here.app.post("/v1/clients", said.clone()).await.status, 201);
    let token_of = async |client: &str| {
        let secret = if client == "job" { CHOSEN } else { SECRET };
        let answer = here.post("/token", Some((client, secret)), &[("grant_type", "client_credentials")]).await;
        answer.json()["access_token"].as_str().unwrap().to_owned()
    };
    for client in ["backend", "job"] {
        let token = token_of(client).await;
        assert_eq!(there.verified("", &token).await.status, 200);
        let ended = here.app.delete(&format!("/v1/grants?client={client}")).await;
        assert_eq!(ended.json(), json!({"revoked": 0}), "{ended:?}");
        assert_eq!(here.verified("", &token).await.status, 401);
        hears(&there, &token, 401).await;
        assert_eq!(there.introspected(&token).await["active"], false);

        here.app.clock.advance(Duration::from_secs(1));
        let later = token_of(client).await;
        assert_eq!(there.verified("", &later).await.status, 200, "the client stays");
        assert_eq!(there.verified("", &token).await.status, 401);
    }

    let token = token_of("job").await;
    assert_eq!(there.verified("", &token).await.status, 200);
    assert_eq!(here.app.delete("/v1/clients/job").await.status, 200);
    hears(&there, &token, 401).await;
    assert_eq!(here.app.post("/v1/clients", said).await.status, 201);
    here.app.clock.advance(Duration::from_secs(1));
    let later = token_of("job").await;
    for app in [&here, &there] {
        assert_eq!(app.verified("", &token).await.status, 401, "another client of the same name");
        assert_eq!(app.verified("", &later).await.status, 200);
    }
}

/// What it has heard of nothing, it asks the store for after five seconds.
#[tokio::test]
async fn a_server_that_hears_nothing_believes_itself_for_five_seconds() {
    let ground = Ground::default();
    let (here, there) = (IssuerApp::on(&ground, |_| {}).await, IssuerApp::on(&ground, |_| {}).await);
    let token = here.machine_token("backend").await;
    assert_eq!(there.verified("", &token).await.status, 200);
    here.post("/revoke", Some(("backend", SECRET)), &[("token", &token)]).await;
    ground.clock.advance(Duration::from_millis(4999));
    assert_eq!(there.verified("", &token).await.status, 200);
    ground.clock.advance(Duration::from_millis(1));
    assert_eq!(there.verified("", &token).await.status, 401);
}

/// Another server, started with another list.
#[tokio::test]
async fn who_is_taken_off_the_list_refreshes_no_more() {
    for (users, stays) in [(&["fake|fake-user"][..], true), (&["fake|another"], false), (&[], false)] {
        let ground = Ground::default();
        let before = pages::app_on(&ground, |_| {}, Vec::new()).await;
        before.integrate().await;
        let tokens = upstreams::tokens(&before).await;
        let list: BTreeSet<String> = users.iter().map(|&user| user.to_owned()).collect();
        let after = pages::app_on(&ground, |told| told.admitted.users = Some(list), Vec::new()).await;
        let refreshed = upstreams::refresh(&after, &tokens).await;
        if stays {
            assert_eq!(refreshed.status, 200, "{refreshed:?}");
            continue;
        }
        refreshed.refused(400, "invalid_grant");
        let token = tokens["access_token"].as_str().unwrap();
        after.send(bearing("/verify", token)).await.refused(401, "invalid_token");
    }
}
