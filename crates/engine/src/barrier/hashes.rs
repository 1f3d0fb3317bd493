use std::fmt;

use aws_lc_rs::{hkdf, hmac};
use secrecy::ExposeSecret;
use tokenkeep_core::Fingerprint;
use tokenkeep_oauth::Secret;
use zeroize::Zeroizing;

use super::root_key::{KEY_LEN, RootKey, expand, hex};

/// Keyed hashes (HMAC-SHA256), one key per purpose: what they hash can be recognised, not read, and a hash made for
/// one purpose says nothing about another.
///
/// Unlike what is sealed, a hash cannot be made again when the root key changes. So these keys come from the root key
/// of the first start, and travel in the key check record from then on.
pub struct Hashes {
    seed: Zeroizing<[u8; KEY_LEN]>,
    fingerprint: hmac::Key,
    api_key: hmac::Key,
    label: hmac::Key,
    ticket: hmac::Key,
    state: hmac::Key,
    state_of_ticket: hmac::Key,
    browser: hmac::Key,
    confirmation: hmac::Key,
    client_secret: hmac::Key,
    management: hmac::Key,
    csrf: hmac::Key,
    assertion: hmac::Key,
    public_client: hmac::Key,
    mcp_session: hmac::Key,
}

impl Hashes {
    pub(super) fn of_root(root: &RootKey) -> Self {
        Self::of_seed(root.derive(&[b"tokenkeep hashes"]))
    }

    pub(super) fn of_seed(seed: Zeroizing<[u8; KEY_LEN]>) -> Self {
        let prk = hkdf::Prk::new_less_safe(hkdf::HKDF_SHA256, &*seed);
        let key = |purpose: &[u8]| hmac::Key::new(hmac::HMAC_SHA256, &*expand(&prk, &[b"tokenkeep hash: ", purpose]));
        Self {
            fingerprint: key(b"fingerprint"),
            api_key: key(b"api key"),
            label: key(b"label"),
            ticket: key(b"ticket"),
            state: key(b"state"),
            state_of_ticket: key(b"state of ticket"),
            browser: key(b"browser"),
            confirmation: key(b"confirmation"),
            client_secret: key(b"client secret"),
            management: key(b"client management"),
            csrf: key(b"csrf"),
            assertion: key(b"assertion"),
            public_client: key(b"public client"),
            mcp_session: key(b"mcp session"),
            seed,
        }
    }

    pub(super) fn seed(&self) -> &[u8; KEY_LEN] {
        &self.seed
    }

    /// Of a refresh token, or of what stands in for one.
    pub fn fingerprint(&self, secret: &Secret) -> Fingerprint {
        let mut short = [0; 16];
        short.copy_from_slice(&mac(&self.fingerprint, secret.expose_secret())[..16]);
        Fingerprint(short)
    }

    /// Of an API key as it was presented. On the path of every request: one HMAC from a prepared state, no allocation.
    pub fn api_key(&self, presented: &str) -> [u8; 32] {
        mac(&self.api_key, presented)
    }

    /// Of a label's value that must not stand in the clear, as 32 hex digits.
    pub fn label(&self, value: &str) -> String {
        hex(&mac(&self.label, value)[..16])
    }

    /// Of what opens a connect link.
    pub fn ticket(&self, ticket: &Secret) -> [u8; 32] {
        mac(&self.ticket, ticket.expose_secret())
    }

    /// The secret half of the `state` that goes with a connect link: whoever opens the link again is sent off with the
    /// same one, and it need not be stored for that.
    pub fn state_of_ticket(&self, ticket: &Secret) -> [u8; 32] {
        mac(&self.state_of_ticket, ticket.expose_secret())
    }

    /// Of a `state` parameter (RFC 6749 10.12).
    pub fn state(&self, state: &Secret) -> [u8; 32] {
        mac(&self.state, state.expose_secret())
    }

    /// Of the cookie that binds an authorization request to one browser.
    pub fn browser(&self, cookie: &Secret) -> [u8; 32] {
        mac(&self.browser, cookie.expose_secret())
    }

    /// Of the one-time code with which an application confirms a connect.
    pub fn confirmation(&self, code: &Secret) -> [u8; 32] {
        mac(&self.confirmation, code.expose_secret())
    }

    /// Of a client's secret as it was presented. On the path of every token request.
    pub fn client_secret(&self, presented: &Secret) -> [u8; 32] {
        mac(&self.client_secret, presented.expose_secret())
    }

    /// Of a registration access token (RFC 7592).
    pub fn management(&self, token: &Secret) -> [u8; 32] {
        mac(&self.management, token.expose_secret())
    }

    /// What a form of ours must bring back: it goes with one browser's cookie and one page.
    pub fn csrf(&self, browser: &Secret, page: &str) -> [u8; 32] {
        let mut context = hmac::Context::with_key(&self.csrf);
        context.update(browser.expose_secret().as_bytes());
        context.update(b"\0");
        context.update(page.as_bytes());
        let mut bytes = [0; 32];
        bytes.copy_from_slice(context.sign().as_ref());
        bytes
    }

    /// What names a public client that says this of itself: whoever says the same gets the same.
    pub fn public_client(&self, metadata: &str) -> [u8; 32] {
        mac(&self.public_client, metadata)
    }

    /// What goes with the id of a session at an MCP server, for one user of one resource. Neither of these holds a zero
    /// byte.
    pub fn mcp_session(&self, resource: &str, subject: &str, session: &str) -> [u8; 32] {
        let mut context = hmac::Context::with_key(&self.mcp_session);
        for part in [resource, subject, session] {
            context.update(part.as_bytes());
            context.update(b"\0");
        }
        let mut bytes = [0; 32];
        bytes.copy_from_slice(context.sign().as_ref());
        bytes
    }

    /// Of an assertion's `jti`, which is its client's word, as 32 hex digits.
    pub fn assertion(&self, jti: &str) -> String {
        hex(&mac(&self.assertion, jti)[..16])
    }
}

impl fmt::Debug for Hashes {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Hashes")
    }
}

fn mac(key: &hmac::Key, text: &str) -> [u8; 32] {
    let tag = hmac::sign(key, text.as_bytes());
    let mut bytes = [0; 32];
    bytes.copy_from_slice(tag.as_ref());
    bytes
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use super::*;

    #[test]
    fn each_purpose_and_each_root_has_its_own() {
        let of = |root: u8| {
            let hashes = Hashes::of_root(&RootKey::from_bytes([root; 32]));
            let secret = Secret::from("x");
            [
                hex(&hashes.fingerprint(&secret).0),
                hex(&hashes.api_key("x")[..16]),
                hashes.label("x"),
                hex(&hashes.ticket(&secret)[..16]),
                hex(&hashes.state(&secret)[..16]),
                hex(&hashes.state_of_ticket(&secret)[..16]),
                hex(&hashes.browser(&secret)[..16]),
                hex(&hashes.confirmation(&secret)[..16]),
                hex(&hashes.client_secret(&secret)[..16]),
                hex(&hashes.management(&secret)[..16]),
                hex(&hashes.csrf(&secret, "")[..16]),
                hashes.assertion("x"),
                hex(&hashes.public_client("x")[..16]),
                hex(&hashes.mcp_session("", "", "x")[..16]),
            ]
        };
        let all: HashSet<_> = of(1).into_iter().chain(of(2)).collect();
        assert_eq!(all.len(), 28);
        assert_eq!(of(1), of(1));
    }

    /// Computed with another HKDF and HMAC implementation.
    #[test]
    fn api_keys_hash_to_what_they_always_did() {
        let hashes = Hashes::of_root(&RootKey::from_bytes([7; 32]));
        assert_eq!(hex(&hashes.api_key("tk_abc")[..8]), "8c69dee41b7d74d8");
    }
}
