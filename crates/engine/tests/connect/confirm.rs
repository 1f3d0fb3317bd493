//! Two users, one connect link: the second person's account never lands on the first one's subject.

use std::{sync::atomic::Ordering::SeqCst, time::Duration};

use tokenkeep_core::{ConnectId, ConnectionId, Role, Status, Subject};
use tokenkeep_engine::{Caller, ConnectStatus, ConnectionView, Error, StartConnect};
use tokenkeep_oauth::Secret;

use crate::{
    common::{alice, store_seeded},
    support::{Browser, Stage, for_alice, params},
};

/// An application and its connect for alice, which somebody has consented to.
struct Consented {
    stage: Stage,
    app: Caller,
    id: ConnectId,
    code: Secret,
}

impl Consented {
    async fn new() -> Self {
        let stage = Stage::new().await;
        let app = stage.key(Role::Application, None).await;
        Self::again(stage, app).await
    }

    async fn again(stage: Stage, app: Caller) -> Self {
        let started = stage.start(&app, for_alice()).await.unwrap();
        let returned = Browser::default().consent(&stage, &started.authorize_url.unwrap()).await.unwrap();
        assert_eq!(returned.status, ConnectStatus::AwaitingConfirmation);
        let told = params(&returned.return_to.unwrap());
        assert_eq!(told["status"], "awaiting_confirmation");
        Self { stage, app, id: started.connect_id, code: told["code"].as_str().into() }
    }

    async fn confirm(&self, subject: &str, code: &Secret) -> Result<ConnectionView, Error> {
        let subject = Subject::new(subject).unwrap();
        self.stage.engine.connect().confirm(&self.app, &self.id, &subject, code).await
    }
}

#[tokio::test]
async fn an_application_confirms_its_user() {
    let t = Consented::new().await;
    let view = t.stage.engine.connections().status(&t.app, &alice()).await.unwrap();
    assert_eq!(view.status, Status::Pending);
    assert!(t.stage.is_absent(&alice()).await);

    let view = t.confirm("alice", &t.code).await.unwrap();
    assert_eq!((view.id, view.status), (alice(), Status::Active));
    assert!(t.stage.access_token(&alice()).await.is_ok());
    assert_eq!(t.stage.status_of(&t.id).await.0, ConnectStatus::Connected);
    assert_eq!(t.confirm("alice", &t.code).await.unwrap_err().code(), "conflict");
}

/// Mallory starts a connect as alice's account at the application, which is hers, and has Bob open the link: Bob's
/// browser comes back to the application in Bob's session.
#[tokio::test]
async fn a_link_sent_to_somebody_else_attaches_nothing() {
    let t = Consented::new().await;
    assert_eq!(t.confirm("bob", &t.code).await.unwrap_err().code(), "forbidden");
    assert!(t.stage.is_absent(&alice()).await);
    let bob: ConnectionId = "fake/_default/bob".parse().unwrap();
    assert!(t.stage.is_absent(&bob).await);
    // Mallory, in her own session, does not have the code.
    assert_eq!(t.confirm("alice", &"A".repeat(43).into()).await.unwrap_err().code(), "forbidden");
    assert!(t.stage.is_absent(&alice()).await);
    // The code of another connect of hers is no help.
    let other = Consented::again(t.stage, t.app).await;
    let first = Consented { id: t.id, code: t.code, ..other };
    let (stage, app, code) = (&first.stage, &first.app, &first.code);
    let mut browser = Browser::default();
    let started = stage.start(app, for_alice()).await.unwrap();
    browser.consent(stage, &started.authorize_url.unwrap()).await.unwrap();
    let wrong = stage.engine.connect().confirm(app, &started.connect_id, &alice().subject, code).await;
    assert_eq!(wrong.unwrap_err().code(), "forbidden");
    assert!(stage.is_absent(&alice()).await);
}

#[tokio::test]
async fn five_wrong_confirmations_end_it() {
    let t = Consented::new().await;
    for attempt in 0..5 {
        let (subject, code) = if attempt % 2 == 0 { ("bob", t.code.clone()) } else { ("alice", "x".into()) };
        assert_eq!(t.confirm(subject, &code).await.unwrap_err().code(), "forbidden");
    }
    assert_eq!(t.confirm("alice", &t.code).await.unwrap_err().code(), "conflict");
    let over = t.stage.status_of(&t.id).await;
    assert_eq!(over, (ConnectStatus::Failed, Some("too_many_wrong_confirmations".to_owned())));
    assert!(t.stage.is_absent(&alice()).await);
    assert_eq!(t.stage.world.provider.revocations().len(), 1, "the tokens were given back");
}

#[tokio::test]
async fn what_nobody_confirms_is_given_back() {
    let t = Consented::new().await;
    t.stage.advance(Duration::from_mins(10));
    assert_eq!(t.confirm("alice", &t.code).await.unwrap_err().code(), "connect_not_found");
    assert_eq!(t.stage.status_of(&t.id).await.0, ConnectStatus::Expired);
    t.stage.advance(Duration::from_mins(1));
    t.stage.engine.cleanup(&Caller::Local).await.unwrap();
    assert_eq!(t.stage.world.provider.revocations().len(), 1);
    assert_eq!(t.stage.status_of(&t.id).await.0, ConnectStatus::Expired);
    assert!(t.stage.is_absent(&alice()).await);
}

/// Many providers end everything a user ever granted with one revoked token.
#[tokio::test]
async fn giving_back_does_not_end_the_connection_that_is_there() {
    let t = Consented::new().await;
    store_seeded(&t.stage.engine, &t.stage.world, &alice()).await;
    t.stage.advance(Duration::from_mins(11));
    t.stage.engine.cleanup(&Caller::Local).await.unwrap();
    assert!(t.stage.world.provider.revocations().is_empty());
}

#[tokio::test]
async fn applications_confirm_unless_they_say_otherwise() {
    let stage = Stage::new().await;
    let app = stage.key(Role::Application, None).await;
    let nowhere = StartConnect { return_to: None, ..for_alice() };
    assert_eq!(stage.start(&app, nowhere.clone()).await.unwrap_err().code(), "invalid_request");
    let operator = stage.key(Role::Operator, None).await;
    assert!(stage.start(&operator, nowhere.clone()).await.is_ok());
    let plain = StartConnect { confirm: Some(false), ..nowhere };
    let started = stage.start(&app, plain).await.unwrap();
    let returned = Browser::default().consent(&stage, &started.authorize_url.unwrap()).await.unwrap();
    assert_eq!(returned.status, ConnectStatus::Connected);
    let asked = StartConnect { confirm: Some(true), ..for_alice() };
    let started = stage.start(&operator, asked).await.unwrap();
    let returned = Browser::default().consent(&stage, &started.authorize_url.unwrap()).await.unwrap();
    assert_eq!(returned.status, ConnectStatus::AwaitingConfirmation);
}

/// The tokens were stored, and have been refreshed since, but that they were confirmed could not be noted: storing them
/// again would bring back a spent refresh token.
#[tokio::test]
async fn confirming_again_does_not_turn_back_what_was_refreshed() {
    let t = Consented::new().await;
    t.stage.world.store.refuses_connects.store(true, SeqCst);
    t.confirm("alice", &t.code).await.unwrap();
    t.stage.world.store.refuses_connects.store(false, SeqCst);
    let connections = t.stage.engine.connections();
    let refreshed = connections.refresh(&Caller::Local, &alice(), None).await.unwrap();
    let view = t.confirm("alice", &t.code).await.unwrap();
    assert_eq!(view.generation, refreshed.generation);
    assert_eq!(t.stage.status_of(&t.id).await.0, ConnectStatus::Connected);
    t.stage.advance(Duration::from_hours(2));
    t.stage.access_token(&alice()).await.unwrap();
    assert!(t.stage.world.provider.spent_twice().is_empty());
}

#[tokio::test]
async fn others_cannot_confirm() {
    let t = Consented::new().await;
    for (role, tenants) in [(Role::Reader, None), (Role::Application, Some(["acme"].as_slice()))] {
        let caller = t.stage.key(role, tenants).await;
        let tried = t.stage.engine.connect().confirm(&caller, &t.id, &alice().subject, &t.code).await;
        assert_eq!(tried.unwrap_err().code(), "forbidden");
    }
    assert!(t.confirm("alice", &t.code).await.is_ok());
}
