//! Wrapping a root key.

use tokenkeep_store::{Transit, TransitOptions};

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
