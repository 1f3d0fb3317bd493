//! Consent on another device (RFC 8628).

use std::time::Duration;

use secrecy::ExposeSecret as _;
use tokenkeep_core::ConnectGrant;
use tokenkeep_engine::{Caller, ConnectStatus, PutIntegration, StartConnect};
use tokenkeep_testkit::Fault;

use crate::{
    common::{alice, put_fake},
    support::{Stage, for_alice},
};

async fn stage() -> Stage {
    Stage::with(PutIntegration { grant: ConnectGrant::DeviceCode, ..put_fake() }).await
}

#[tokio::test]
async fn the_user_types_the_code_in_elsewhere() {
    let t = stage().await;
    let started = t.started().await;
    assert_eq!((started.authorize_url, started.status), (None, ConnectStatus::Pending));
    let device = started.device.unwrap();
    let user_code = device.user_code.expose_secret();
    assert!(device.verification_uri.ends_with("/device"));
    assert!(device.verification_uri_complete.unwrap().contains(user_code));

    t.advance(Duration::from_secs(5));
    t.world.provider.finished(1).await;
    assert_eq!(t.status_of(&started.connect_id).await.0, ConnectStatus::Pending);
    t.world.provider.decide_device(user_code, true);
    // The look that noticed nothing must have been noted before the next one can be due.
    let polled = async {
        while t.world.provider.calls() < 2 {
            t.advance(Duration::from_secs(5));
            for _ in 0..50 {
                tokio::task::yield_now().await;
            }
        }
    };
    tokio::time::timeout(Duration::from_secs(20), polled).await.unwrap();
    t.comes_to(&started.connect_id, ConnectStatus::Connected).await;
    assert!(t.world.provider.is_access_live(&t.access_token(&alice()).await.unwrap()));
}

#[tokio::test]
async fn another_instance_goes_on_with_it() {
    let t = stage().await;
    let started = t.started().await;
    t.engine.shutdown(Duration::ZERO).await;
    let other = t.world.engine(2, None).await;
    t.world.provider.decide_device(started.device.unwrap().user_code.expose_secret(), true);
    t.advance(Duration::from_secs(5));
    other.poll_devices().await.unwrap();
    t.comes_to(&started.connect_id, ConnectStatus::Connected).await;
    assert_eq!(t.world.provider.calls(), 1);
}

#[tokio::test]
async fn it_polls_as_slowly_as_it_is_told() {
    let t = stage().await;
    let started = t.started().await;
    t.engine.shutdown(Duration::ZERO).await;
    t.world.provider.fault(Fault::error(400, "slow_down"));
    // Due after 5 s; told to slow down, after another 10, and so on from then.
    for (wait, calls) in [(4, 0), (1, 1), (4, 1), (5, 1), (1, 2), (9, 2), (1, 3)] {
        t.advance(Duration::from_secs(wait));
        t.engine.poll_devices().await.unwrap();
        assert_eq!(t.world.provider.calls(), calls);
    }
    assert_eq!(t.status_of(&started.connect_id).await.0, ConnectStatus::Pending);
}

#[tokio::test]
async fn a_no_and_a_silence_end_it() {
    let t = stage().await;
    let (denied, forgotten) = (t.started().await, t.started().await);
    t.engine.shutdown(Duration::ZERO).await;
    t.world.provider.decide_device(denied.device.unwrap().user_code.expose_secret(), false);
    t.advance(Duration::from_secs(5));
    t.engine.poll_devices().await.unwrap();
    assert_eq!(t.status_of(&denied.connect_id).await.0, ConnectStatus::Denied);
    assert_eq!(t.status_of(&forgotten.connect_id).await.0, ConnectStatus::Pending);
    t.advance(Duration::from_mins(10));
    let calls = t.world.provider.calls();
    t.engine.poll_devices().await.unwrap();
    assert_eq!(t.status_of(&forgotten.connect_id).await.0, ConnectStatus::Expired);
    assert_eq!(t.world.provider.calls(), calls, "what is over is not polled");
    assert!(t.is_absent(&alice()).await);
}

#[tokio::test]
async fn there_is_nothing_to_confirm_with() {
    let t = stage().await;
    let start = StartConnect { confirm: Some(true), ..for_alice() };
    assert_eq!(t.start(&Caller::Local, start).await.unwrap_err().code(), "invalid_request");
    t.world.provider.configure(|config| config.client_id = "another".to_owned());
    assert_eq!(t.start(&Caller::Local, for_alice()).await.unwrap_err().code(), "integration_rejected");
}
