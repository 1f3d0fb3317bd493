//! Introspection and revocation: who is told what, and who may take what back.

use serde_json::json;

use super::{FILES, ISSUER, IssuerApp, SECRET, client, resource};

#[tokio::test]
async fn a_token_is_described_to_its_client_and_its_resource_alone() {
    use tokenkeep_oauth::issuer::client::{AuthMethod, GrantType};
    let app = IssuerApp::with(|told| {
        told.resources.push(resource("https://other.example", ""));
        told.resources[1].introspectors = ["other-gate".parse().unwrap()].into();
        told.clients.push(client("other-gate", AuthMethod::ClientSecretBasic, &[GrantType::ClientCredentials]));
    })
    .await;
    let form = [("grant_type", "client_credentials"), ("resource", FILES)];
    let reply = app.post("/token", Some(("backend", SECRET)), &form).await.json();
    let token = reply["access_token"].as_str().unwrap();
    let ask = async |id: &str| {
        let answer = app.post("/introspect", Some((id, SECRET)), &[("token", token)]).await;
        assert_eq!(answer.status, 200, "{answer:?}");
        answer.is_for_nobody_else();
        answer.json()
    };
    for knowing in ["backend", "gate"] {
        let told = ask(knowing).await;
        assert_eq!(told["active"], true, "{knowing}");
        assert_eq!((&told["aud"], &told["iss"], &told["sub"]), (&json!(FILES), &json!(ISSUER), &json!("backend")));
        assert_eq!((&told["token_type"], &told["scope"]), (&json!("Bearer"), &json!("read write")));
    }
    for stranger in ["web", "other-gate"] {
        assert_eq!(ask(stranger).await, json!({"active": false}), "{stranger}");
    }
}

#[tokio::test]
async fn introspection_needs_a_client_that_proves_itself() {
    let app = IssuerApp::start().await;
    let token = app.machine_token("backend").await;
    app.post("/introspect", None, &[("token", &token)]).await.refused(401, "invalid_client");
    app.post("/introspect", None, &[("token", &token), ("client_id", "native")]).await.refused(401, "invalid_client");
    app.post("/introspect", Some(("gate", SECRET)), &[]).await.refused(400, "invalid_request");
}

#[tokio::test]
async fn what_is_no_token_of_ours_is_inactive_and_no_error() {
    let app = IssuerApp::start().await;
    for unknown in ["x", "a.b.c", "eyJhbGciOiJub25lIn0.e30.", "00000000000000000000000001.1.AAAA", &"y".repeat(20_000)]
    {
        assert_eq!(app.introspected(unknown).await, json!({"active": false}), "{unknown}");
        let answer = app.post("/revoke", Some(("gate", SECRET)), &[("token", unknown)]).await;
        assert_eq!(answer.status, 200, "{unknown}");
    }
}

#[tokio::test]
async fn a_refresh_token_is_described_to_its_client_alone() {
    let app = IssuerApp::start().await;
    let (code, verifier) = app.allow("web", "read").await;
    let form = [("grant_type", "authorization_code"), ("code", &*code), ("code_verifier", &*verifier)];
    let reply = app.post("/token", Some(("web", SECRET)), &form).await.json();
    let token = reply["refresh_token"].as_str().unwrap();
    let told = app.post("/introspect", Some(("web", SECRET)), &[("token", token)]).await.json();
    assert_eq!((&told["active"], &told["sub"]), (&json!(true), &json!("github|42")));
    assert_eq!(app.introspected(token).await, json!({"active": false}), "it is none of the resource's business");
}

#[tokio::test]
async fn revoking_anothers_token_changes_nothing() {
    let app = IssuerApp::start().await;
    let reply = app.redeem(&app.allow("native", "read").await).await.json();
    let (access, refresh) = (reply["access_token"].as_str().unwrap(), reply["refresh_token"].as_str().unwrap());
    let machine = app.machine_token("backend").await;
    for token in [access, refresh, &machine] {
        assert_eq!(app.post("/revoke", Some(("web", SECRET)), &[("token", token)]).await.status, 200);
    }
    assert_eq!(app.introspected(access).await["active"], true);
    assert_eq!(app.introspected(&machine).await["active"], true);
    assert_eq!(app.refresh(refresh).await.status, 200);
}

#[tokio::test]
async fn a_revoked_access_token_counts_no_more_and_its_grant_goes_on() {
    let app = IssuerApp::start().await;
    let reply = app.redeem(&app.allow("native", "read").await).await.json();
    let (access, refresh) = (reply["access_token"].as_str().unwrap(), reply["refresh_token"].as_str().unwrap());
    assert_eq!(app.verified("", access).await.status, 200);
    let answer = app.post("/revoke", None, &[("client_id", "native"), ("token", access)]).await;
    assert_eq!((answer.status.as_u16(), answer.text()), (200, ""));
    app.verified("", access).await.refused(401, "invalid_token");
    assert_eq!(app.introspected(access).await, json!({"active": false}));
    assert_eq!(app.refresh(refresh).await.status, 200);
    let machine = app.machine_token("backend").await;
    assert_eq!(app.introspected(&machine).await["active"], true);
    app.post("/revoke", Some(("backend", SECRET)), &[("token", &machine)]).await;
    assert_eq!(app.introspected(&machine).await, json!({"active": false}));
}

#[tokio::test]
async fn a_revoked_refresh_token_takes_the_whole_grant_with_it() {
    let app = IssuerApp::start().await;
    let reply = app.redeem(&app.allow("native", "read").await).await.json();
    let (access, refresh) = (reply["access_token"].as_str().unwrap(), reply["refresh_token"].as_str().unwrap());
    assert_eq!(app.verified("", access).await.status, 200);
    let form = [("client_id", "native"), ("token", refresh), ("token_type_hint", "access_token")];
    assert_eq!(app.post("/revoke", None, &form).await.status, 200);
    app.refresh(refresh).await.refused(400, "invalid_grant");
    app.verified("", access).await.refused(401, "invalid_token");
}

#[tokio::test]
async fn an_outage_is_never_read_as_inactive() {
    let app = IssuerApp::start().await;
    let reply = app.redeem(&app.allow("native", "read").await).await.json();
    app.app.break_store(true);
    for token in [reply["access_token"].as_str().unwrap(), reply["refresh_token"].as_str().unwrap()] {
        for path in ["/introspect", "/revoke"] {
            let answer = app.post(path, Some(("gate", SECRET)), &[("token", token)]).await;
            answer.refused(503, "temporarily_unavailable");
            assert!(answer.header("retry-after").is_some());
        }
    }
}
