//! A store that does not answer has said nothing; one whose answer was lost may have done what it was asked.

use std::{sync::atomic::Ordering::SeqCst, time::Duration};

use secrecy::ExposeSecret as _;
use serde_json::json;
use tokenkeep_core::ports::Kind;
use tokenkeep_engine::{Error, issuer::AuthorizeRefused};

use crate::{
    common::browser::at_provider,
    support::{Answer, Browser, Stage, page},
};

const CONNECTION: &str = "fake/_default/fake|fake-user";

fn is_outage(error: &Error) -> bool {
    matches!(error, Error::StoreUnavailable { .. }) && error.retry_after().is_some()
}

impl Stage {
    fn lose(&self, kind: Option<Kind>) {
        *self.world.store.lost.lock().unwrap() = kind;
    }

    fn leave_unanswered(&self, kind: Kind) {
        *self.world.store.unanswered.lock().unwrap() = Some(kind);
    }

    fn is_answered(&self) -> bool {
        self.world.store.unanswered.lock().unwrap().is_none()
    }
}

#[tokio::test]
async fn an_outage_is_never_read_as_absence() {
    let stage = Stage::new().await;
    let issuer = stage.issuer();
    for kind in [Kind::Client, Kind::Interaction] {
        stage.lose(Some(kind));
        match issuer.authorize(stage.query(&[]).as_bytes()).await {
            Err(AuthorizeRefused::Failed(error)) => assert!(is_outage(&error)),
            other => panic!("{other:?}"),
        }
    }
    stage.lose(None);
    let (id, mut browser) = (stage.asked().await, Browser::default());
    let csrf = browser.look(&stage, &id).await.unwrap().csrf;
    let (csrf, cookie) = (csrf.expose_secret(), browser.cookie.clone());
    stage.lose(Some(Kind::Interaction));
    assert!(is_outage(&browser.look(&stage, &id).await.unwrap_err()));
    assert!(is_outage(&issuer.approve(&id, cookie.clone(), csrf, None).await.unwrap_err()));
    assert!(is_outage(&issuer.deny(&id, cookie.clone(), csrf).await.unwrap_err()));
    stage.lose(None);
    let url = browser.sent_upstream(&stage, &id, "fake").await;
    stage.id_token(&url, &json!({}));
    let query = at_provider(&url).await;
    stage.lose(Some(Kind::Interaction));
    assert!(is_outage(&page(browser.come_back(&stage, &query).await.unwrap_err())));
    assert_eq!(stage.world.provider.calls(), 0, "the code is not sent before its use is noted");
    stage.lose(None);
    browser.come_back(&stage, &query).await.unwrap().code();
}

/// What the provider issued is in our hands only: storing it is tried again.
#[tokio::test]
async fn a_short_outage_after_the_exchange_loses_nothing() {
    for kind in [Kind::Connection, Kind::Grant, Kind::Interaction] {
        let stage = Stage::new().await;
        let (id, mut browser) = (stage.asked().await, Browser::default());
        let url = browser.sent_upstream(&stage, &id, "fake").await;
        stage.id_token(&url, &json!({}));
        let query = at_provider(&url).await;
        let gate = stage.world.provider.hold_next();
        let (issuer, cookie) = (stage.issuer().clone(), browser.cookie.clone());
        let waiting = tokio::spawn(async move { issuer.came_back(query.as_bytes(), cookie).await });
        gate.arrived().await;
        stage.lose(Some(kind));
        gate.release();
        while stage.world.store.missed.load(SeqCst) == 0 {
            tokio::task::yield_now().await;
        }
        stage.lose(None);
        while !waiting.is_finished() {
            stage.world.clock.advance(Duration::from_secs(2));
            tokio::task::yield_now().await;
        }
        let answer = Answer::read(&waiting.await.unwrap().unwrap());
        stage.token(&answer.code()).await;
        assert!(stage.has_connection(CONNECTION).await, "{kind:?}");
    }
}

#[tokio::test]
async fn a_long_outage_is_told_as_one() {
    let stage = Stage::new().await;
    let (id, mut browser) = (stage.asked().await, Browser::default());
    let url = browser.sent_upstream(&stage, &id, "fake").await;
    stage.id_token(&url, &json!({}));
    let query = at_provider(&url).await;
    let gate = stage.world.provider.hold_next();
    let (issuer, cookie) = (stage.issuer().clone(), browser.cookie.clone());
    let waiting = tokio::spawn(async move { issuer.came_back(query.as_bytes(), cookie).await });
    gate.arrived().await;
    stage.world.store.down.store(true, SeqCst);
    gate.release();
    while !waiting.is_finished() {
        stage.world.clock.advance(Duration::from_secs(2));
        tokio::task::yield_now().await;
    }
    let answer = Answer::read(&waiting.await.unwrap().unwrap());
    assert_eq!(answer.error(), "temporarily_unavailable");
}

#[tokio::test]
async fn a_lost_answer_is_looked_up() {
    let stage = Stage::new().await;
    stage.leave_unanswered(Kind::Interaction);
    let (id, mut browser) = (stage.asked().await, Browser::default());
    assert!(stage.is_answered());

    stage.leave_unanswered(Kind::Interaction);
    let url = browser.sent_upstream(&stage, &id, "fake").await;
    assert!(stage.is_answered());
    stage.id_token(&url, &json!({}));
    let query = at_provider(&url).await;
    for kind in [Kind::Connection, Kind::Grant] {
        stage.leave_unanswered(kind);
        let (id, mut browser) = (stage.asked().await, Browser::default());
        let url = browser.sent_upstream(&stage, &id, "fake").await;
        stage.id_token(&url, &json!({}));
        let answer = browser.come_back(&stage, &at_provider(&url).await).await.unwrap();
        assert!(stage.is_answered());
        stage.token(&answer.code()).await;
    }

    // It may be a second callback's: the code is not sent.
    stage.leave_unanswered(Kind::Interaction);
    let calls = stage.world.provider.calls();
    assert!(is_outage(&page(browser.come_back(&stage, &query).await.unwrap_err())));
    assert_eq!(stage.world.provider.calls(), calls);

    let (id, mut browser) = (stage.asked().await, Browser::default());
    let csrf = browser.look(&stage, &id).await.unwrap().csrf;
    stage.leave_unanswered(Kind::Interaction);
    let answer = stage.issuer().deny(&id, browser.cookie, csrf.expose_secret()).await.unwrap();
    assert_eq!(Answer::read(&answer).error(), "access_denied");
}

/// The last step of all: the code is handed out although nobody said that the interaction was ended with it.
#[tokio::test]
async fn the_end_may_go_unanswered() {
    let stage = Stage::new().await;
    let (id, mut browser) = (stage.asked().await, Browser::default());
    let url = browser.sent_upstream(&stage, &id, "fake").await;
    stage.id_token(&url, &json!({}));
    let query = at_provider(&url).await;
    let gate = stage.world.provider.hold_next();
    let (issuer, cookie) = (stage.issuer().clone(), browser.cookie.clone());
    let waiting = tokio::spawn(async move { issuer.came_back(query.as_bytes(), cookie).await });
    gate.arrived().await;
    stage.leave_unanswered(Kind::Interaction);
    gate.release();
    let answer = Answer::read(&waiting.await.unwrap().unwrap());
    assert!(stage.is_answered());
    stage.token(&answer.code()).await;
    assert_eq!(stage.grants().await, 1);
}
