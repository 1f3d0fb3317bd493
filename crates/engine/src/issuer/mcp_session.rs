//! Sessions at MCP servers that know nothing of users (MCP, security best practices: session hijacking).
//!
//! Whoever knows the id of a session at such a server is in it. So clients are not told the id but a name for it, which
//! is worth something together with the access token of the same user only. Nothing is remembered for that: the name is
//! the id and a keyed hash, and every instance can check it.

use aws_lc_rs::constant_time::verify_slices_are_equal;
use base64::{Engine as _, prelude::BASE64_URL_SAFE_NO_PAD};
use tokenkeep_oauth::issuer::access_token::AccessTokenClaims;

use super::{Issuer, VerifiedToken};

/// Between the two. A server may use it in its ids as well.
const SEPARATOR: char = '.';

impl Issuer {
    /// What the client of `token` is told of the session `id`.
    pub fn name_session(&self, token: &VerifiedToken, id: &str) -> String {
        format!("{id}{SEPARATOR}{}", self.session_proof(&token.claims, id))
    }

    /// The id of the session that a client calls `name`; `None` if it was not told so with a token of the same user for
    /// the same resource.
    pub fn session_named<'a>(&self, token: &VerifiedToken, name: &'a str) -> Option<&'a str> {
        let (id, proof) = name.rsplit_once(SEPARATOR)?;
        let genuine = self.session_proof(&token.claims, id);
        verify_slices_are_equal(genuine.as_bytes(), proof.as_bytes()).is_ok().then_some(id)
    }

    fn session_proof(&self, claims: &AccessTokenClaims, id: &str) -> String {
        let hashes = self.shared.records.barrier().hashes();
        let hash = hashes.mcp_session(claims.audience.as_str(), &claims.subject, id);
        BASE64_URL_SAFE_NO_PAD.encode(&hash[..16])
    }
}
