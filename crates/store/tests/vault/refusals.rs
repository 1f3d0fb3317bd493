//! What cannot be used is refused in a sentence, without the token in it.

use tokenkeep_store::{Vault, VaultAuth, VaultOptions};
use tokenkeep_testkit::vault::VaultFault;

use crate::support::Fake;

async fn refusal(options: VaultOptions) -> String {
    let said = Vault::connect(options).await.unwrap_err().to_string();
    assert!(!said.contains("hvs."), "{said}");
    said
}

#[tokio::test]
async fn a_vault_that_cannot_be_used_says_why() {
    let fake = Fake::start().await;
    let wrong = fake.with_auth(VaultAuth::Token("hvs.wrong".into()));
    assert!(refusal(wrong).await.contains("token"));
    let role = fake.with_auth(VaultAuth::app_role("nobody", "hvs.secret".into()));
    refusal(role).await;
    let unmounted = VaultOptions { mount: "elsewhere".to_owned(), ..fake.options() };
    assert!(refusal(unmounted).await.contains("elsewhere"));
    fake.vault.mount_other("cubby", "cubbyhole");
    assert!(refusal(VaultOptions { mount: "cubby".to_owned(), ..fake.options() }).await.contains("cubby"));
    fake.vault.seal();
    assert!(refusal(fake.options()).await.contains("sealed"));
    fake.vault.unseal();
    fake.vault.fail_always(Some(VaultFault::NotVault));
    refusal(fake.options()).await;
    let mut nowhere = fake.options();
    nowhere.server.address = "http://127.0.0.1:1".to_owned();
    assert!(refusal(nowhere).await.contains("127.0.0.1:1"));
}
