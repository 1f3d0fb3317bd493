//! Wrapping a root key.

use tokenkeep_store::{Transit, TransitOptions, vault::TransitError};

use crate::support::{Fake, server};

#[tokio::test]
async fn what_was_wrapped_is_unwrapped_by_its_own_key_only() {
    let fake = Fake::start().await;
    let options =
        |key: &str| TransitOptions::new(server(fake.vault.address(), fake.vault.root_token(), &fake.clock), key);
    let transit = Transit::connect(options("tokenkeep")).await.unwrap();
    let wrapped = transit.wrap(&[7; 32]).await.unwrap();
    assert!(wrapped.starts_with("vault:v1:"), "{wrapped}");
    assert_eq!(**transit.unwrap(&wrapped).await.unwrap(), [7; 32]);

    let other = Transit::connect(options("other")).await.unwrap();
    other.wrap(&[1; 32]).await.unwrap();
    println!("{}", other.unwrap(&wrapped).await.unwrap_err());
    println!("{}", transit.unwrap("vault:v1:bm90IHdyYXBwZWQ=").await.unwrap_err());
    fake.vault.seal();
    assert!(transit.unwrap(&wrapped).await.unwrap_err().to_string().contains("unavailable"));
}

/// A rotated Transit key still unwraps what its earlier versions wrapped.
#[tokio::test]
async fn rotation_in_vault_needs_nothing_of_us() {
    let fake = Fake::start().await;
    let server = server(fake.vault.address(), fake.vault.root_token(), &fake.clock);
    let transit = Transit::connect(TransitOptions::new(server, "tokenkeep")).await.unwrap();
    let wrapped = transit.wrap(&[7; 32]).await.unwrap();
    fake.vault.operate("POST", "transit/keys/tokenkeep/rotate", &serde_json::Value::Null);
    assert!(transit.wrap(&[7; 32]).await.unwrap().starts_with("vault:v2:"));
    assert_eq!(**transit.unwrap(&wrapped).await.unwrap(), [7; 32]);
}

/// Trying again helps against one, not against the other.
#[tokio::test]
async fn what_cannot_be_unwrapped_is_not_an_outage() {
    let fake = Fake::start().await;
    let server = server(fake.vault.address(), fake.vault.root_token(), &fake.clock);
    let transit = Transit::connect(TransitOptions::new(server, "tokenkeep")).await.unwrap();
    let wrapped = transit.wrap(&[7; 32]).await.unwrap();
    assert!(matches!(transit.unwrap("vault:v1:bm90IHdyYXBwZWQ=").await, Err(TransitError::Refused(_))));
    fake.vault.seal();
    assert!(matches!(transit.unwrap(&wrapped).await, Err(TransitError::Unavailable(_))));
}
