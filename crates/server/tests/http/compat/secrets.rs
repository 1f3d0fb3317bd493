//! A password that came in is in no line of the log, no answer and no metric, wherever it stood.

use serde_json::json;
use tokenkeep_server::Compat;
use tokenkeep_testkit::LoginManner;

use super::{PASSWORD, STORE, TEST, USER, ann, call, post_form, post_json, start};
use crate::operations::Log;

#[tokio::test]
async fn a_password_is_never_seen_again() {
    for credentials_in_query in [false, true] {
        let app = start(Compat { credentials_in_query, ..Compat::default() }).await;
        let log = Log::default();
        let subscriber = tracing_subscriber::fmt()
            .with_ansi(false)
            .with_max_level(tracing::Level::TRACE)
            .with_writer(log.clone())
            .finish();
        let _guard = tracing::subscriber::set_default(subscriber);
        let query = format!("username={USER}&password={PASSWORD}");
        let mut said = String::new();
        for manner in [LoginManner::Honest, LoginManner::Status(500), LoginManner::Garbage, LoginManner::Cut] {
            app.stakes.answer(manner);
            for path in [STORE, TEST, "/tickets/store-credentials/123"] {
                for answer in [
                    post_json(&app, path, ann()).await,
                    post_form(&app, path, &query).await,
                    call(&app, "POST", &format!("{path}?{query}")).await,
                    call(&app, "POST", &format!("{path}?{query}&password=twice")).await,
                    post_json(&app, path, json!([PASSWORD])).await,
                    post_json(&app, path, json!({"username": [PASSWORD], PASSWORD: 1})).await,
                    post_form(&app, path, &format!("username={USER}&password={PASSWORD}&password={PASSWORD}")).await,
                ] {
                    said.push_str(answer.text());
                }
            }
        }
        app.break_store(true);
        for answer in [post_json(&app, STORE, ann()).await, call(&app, "POST", &format!("{STORE}?{query}")).await] {
            said.push_str(answer.text());
        }
        app.break_store(false);
        for path in ["/no-such-route", "/tokens/stats", "/tokens/%00/status", "/tokens/123/status"] {
            said.push_str(call(&app, "GET", &format!("{path}?{query}")).await.text());
        }
        said.push_str(app.get("/metrics").await.text());
        said.push_str(app.get("/v1/connections/bluestakes/123/_default").await.text());
        let log = log.text();
        assert!(log.lines().filter(|line| line.contains("answered")).count() > 80, "{log}");
        assert!(!log.contains(PASSWORD), "{log}");
        assert!(!log.contains("password="), "{log}");
        assert!(!said.contains(PASSWORD), "{said}");
    }
}
