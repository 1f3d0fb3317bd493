//! The Transit engine, after <https://developer.hashicorp.com/vault/api-docs/secret/transit>.

use std::collections::BTreeMap;

use aws_lc_rs::aead::{AES_256_GCM, Aad, NONCE_LEN, RandomizedNonceKey};
use base64::{Engine as _, prelude::BASE64_STANDARD};
use serde_json::{Value, json};

use super::reply::Reply;

/// Named keys, each in several versions.
#[derive(Debug, Default)]
pub(super) struct Transit {
    keys: BTreeMap<String, Vec<[u8; 32]>>,
}

impl Transit {
    pub(super) fn answer(&mut self, method: &str, path: &str, body: &Value, fresh: [u8; 32]) -> Reply {
        match (method, path.split_once('/')) {
            ("POST" | "PUT", Some(("encrypt", name))) => self.encrypt(name, body, fresh),
            ("POST" | "PUT", Some(("decrypt", name))) => self.decrypt(name, body),
            ("POST" | "PUT", Some(("keys", name))) => match name.strip_suffix("/rotate") {
                Some(name) => {
                    self.keys.entry(name.to_owned()).or_default().push(fresh);
                    Reply::nothing()
                }
                None => {
                    self.keys.entry(name.to_owned()).or_insert_with(|| vec![fresh]);
                    Reply::nothing()
                }
            },
            _ => Reply::unsupported(),
        }
    }

    /// "Encrypt Data": with the latest version; a key that is not there is made.
    fn encrypt(&mut self, name: &str, body: &Value, fresh: [u8; 32]) -> Reply {
        let plain = body["plaintext"].as_str().and_then(|text| BASE64_STANDARD.decode(text).ok());
        let Some(mut sealed) = plain else { return Reply::error(400, "failed to base64-decode plaintext") };
        let versions = self.keys.entry(name.to_owned()).or_insert_with(|| vec![fresh]);
        let key = key(versions[versions.len() - 1]);
        let nonce = key.seal_in_place_append_tag(Aad::empty(), &mut sealed).expect("a short text can be sealed");
        let whole = [&nonce.as_ref()[..], &sealed].concat();
        let ciphertext = format!("vault:v{}:{}", versions.len(), BASE64_STANDARD.encode(whole));
        Reply::data(&json!({"ciphertext": ciphertext, "key_version": versions.len()}))
    }

    /// "Decrypt Data": by the version that the ciphertext names.
    fn decrypt(&self, name: &str, body: &Value) -> Reply {
        let Some(versions) = self.keys.get(name) else { return Reply::error(400, "encryption key not found") };
        let opened = body["ciphertext"].as_str().and_then(|text| {
            let (number, sealed) = text.strip_prefix("vault:v")?.split_once(':')?;
            let version = versions.get(number.parse::<usize>().ok()?.checked_sub(1)?)?;
            let mut sealed = BASE64_STANDARD.decode(sealed).ok()?;
            let (nonce, sealed) = sealed.split_at_mut_checked(NONCE_LEN)?;
            let nonce = aws_lc_rs::aead::Nonce::try_assume_unique_for_key(nonce).ok()?;
            let opened = key(*version).open_in_place(nonce, Aad::empty(), sealed).ok()?;
            Some(BASE64_STANDARD.encode(opened))
        });
        match opened {
            Some(plaintext) => Reply::data(&json!({"plaintext": plaintext})),
            None => Reply::error(400, "invalid ciphertext: unable to decrypt"),
        }
    }
}

fn key(bytes: [u8; 32]) -> RandomizedNonceKey {
    RandomizedNonceKey::new(&AES_256_GCM, &bytes).expect("32 bytes are a key")
}
