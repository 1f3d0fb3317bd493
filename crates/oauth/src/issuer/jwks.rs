//! The public keys of clients (RFC 7517), as far as assertions can be checked with them.

use jsonwebtoken::jwk::{AlgorithmParameters, EllipticCurve, Jwk, JwkSet, KeyAlgorithm, KeyOperations, PublicKeyUse};
use serde_json::Value;

/// The algorithms that clients may sign with. All are asymmetric: a secret that two sides know proves nothing.
/// `Ed25519` is the newer name of `EdDSA` (RFC 9864).
pub const ALGORITHMS: [&str; 6] = ["ES256", "ES384", "EdDSA", "Ed25519", "RS256", "PS256"];

/// The largest document that is read, in bytes.
pub const MAX_LEN: usize = 32 * 1024;

/// The most keys of one client.
pub const MAX_KEYS: usize = 8;

/// Why a document holds no keys of a client.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum InvalidJwks {
    /// No JWK set, or too large a one.
    #[error("the jwks is no JWK set of up to 8 keys")]
    Malformed,
    /// None of them can check a signature here.
    #[error("the jwks holds no public key that is known here: P-256, P-384, Ed25519, or RSA with 2048 to 8192 bits")]
    NoneUsable,
}

/// Reads what stands at a client's `jwks_uri`.
pub fn parse_jwks(body: &[u8]) -> Result<JwkSet, InvalidJwks> {
    if body.len() > MAX_LEN {
        return Err(InvalidJwks::Malformed);
    }
    read_jwks(&serde_json::from_slice(body).map_err(|_| InvalidJwks::Malformed)?)
}

/// Reads a client's `jwks`. Keys that are of no use here are left out (RFC 7517 5), and so is what nobody here reads.
pub fn read_jwks(set: &Value) -> Result<JwkSet, InvalidJwks> {
    let keys = set.get("keys").and_then(Value::as_array).filter(|keys| keys.len() <= MAX_KEYS);
    let keys: Vec<Jwk> = keys.ok_or(InvalidJwks::Malformed)?.iter().filter_map(read_key).collect();
    if keys.is_empty() { Err(InvalidJwks::NoneUsable) } else { Ok(JwkSet { keys }) }
}

fn read_key(value: &Value) -> Option<Jwk> {
    // A private key that everybody can read proves nothing.
    if value.get("d").is_some() {
        return None;
    }
    let mut key: Jwk = serde_json::from_value(value.clone()).ok()?;
    let common = &mut key.common;
    (common.x509_url, common.x509_chain) = (None, None);
    (common.x509_sha1_fingerprint, common.x509_sha256_fingerprint) = (None, None);
    let checks_signatures = common.public_key_use.as_ref().is_none_or(|to| *to == PublicKeyUse::Signature)
        && common.key_operations.as_ref().is_none_or(|all| all.contains(&KeyOperations::Verify));
    (checks_signatures && ALGORITHMS.iter().any(|algorithm| fits(&key, algorithm))).then_some(key)
}

/// Whether `algorithm` is one of [`ALGORITHMS`] and one that this key is for.
pub(super) fn fits(key: &Jwk, algorithm: &str) -> bool {
    let is_kind = match (&key.algorithm, algorithm) {
        (AlgorithmParameters::EllipticCurve(key), "ES256") => key.curve == EllipticCurve::P256,
        (AlgorithmParameters::EllipticCurve(key), "ES384") => key.curve == EllipticCurve::P384,
        (AlgorithmParameters::OctetKeyPair(key), "EdDSA" | "Ed25519") => key.curve == EllipticCurve::Ed25519,
        // 2048 to 8192 bits in base64url.
        (AlgorithmParameters::RSA(key), "RS256" | "PS256") => (342..=1366).contains(&key.n.len()),
        _ => false,
    };
    let is_meant = match key.common.key_algorithm {
        None => true,
        // The library does not know the newer name; a key of that kind has no other algorithm.
        Some(KeyAlgorithm::EdDSA | KeyAlgorithm::UNKNOWN_ALGORITHM) => matches!(algorithm, "EdDSA" | "Ed25519"),
        Some(meant) => meant.to_string() == algorithm,
    };
    is_kind && is_meant
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::issuer::jws::{Algorithm, TokenKey};

    fn jwk(algorithm: Algorithm, change: &Value) -> Value {
        let stored = TokenKey::generate(algorithm, &[1; 32]).unwrap();
        let mut jwk = TokenKey::from_stored(algorithm, &stored).unwrap().public_jwk().unwrap();
        for (name, value) in change.as_object().unwrap() {
            jwk[name] = value.clone();
        }
        jwk
    }

    fn usable(jwk: &Value) -> Vec<&'static str> {
        match read_jwks(&json!({"keys": [jwk]})) {
            Ok(set) => ALGORITHMS.into_iter().filter(|algorithm| fits(&set.keys[0], algorithm)).collect(),
            Err(_) => vec![],
        }
    }

    #[test]
    fn a_key_is_for_its_own_algorithms() {
        use Algorithm::{EdDsa, Es256, Rs256};
        let none: [&str; 0] = [];
        let ed = ["EdDSA", "Ed25519"];
        assert_eq!(usable(&jwk(Es256, &json!({}))), ["ES256"]);
        assert_eq!(usable(&jwk(Es256, &json!({"alg": null, "use": null}))), ["ES256"]);
        assert_eq!(usable(&jwk(EdDsa, &json!({}))), ed);
        assert_eq!(usable(&jwk(EdDsa, &json!({"alg": "Ed25519"}))), ed);
        assert_eq!(usable(&jwk(Rs256, &json!({}))), ["RS256"]);
        assert_eq!(usable(&jwk(Rs256, &json!({"alg": null}))), ["RS256", "PS256"]);
        assert_eq!(usable(&jwk(Es256, &json!({"key_ops": ["verify"]}))), ["ES256"]);
        for (algorithm, change) in [
            (Es256, json!({"alg": "RS256"})),
            (Es256, json!({"alg": "HS256"})),
            (Es256, json!({"alg": "none"})),
            (Es256, json!({"use": "enc"})),
            (Es256, json!({"key_ops": ["sign"]})),
            (Es256, json!({"crv": "P-521"})),
            (Es256, json!({"crv": "secp256k1"})),
            (Es256, json!({"d": "private"})),
            (Es256, json!({"kty": "RSA"})),
            (Es256, json!({"kty": "oct", "k": "c2VjcmV0"})),
            (Es256, json!({"x": 1})),
            (Rs256, json!({"n": "AQAB"})),
            (Rs256, json!({"n": "A".repeat(1367)})),
        ] {
            assert_eq!(usable(&jwk(algorithm, &change)), none, "{change}");
        }
    }

    #[test]
    fn what_is_of_no_use_is_not_kept() {
        let good = jwk(Algorithm::Es256, &json!({"x5c": ["bulk"], "x5u": "https://h.example/", "more": "bulk"}));
        let set = json!({"keys": [1, {"kty": "oct", "k": "c2VjcmV0"}, good, {"kty": "new", "x": "bulk"}]});
        let kept = serde_json::to_string(&read_jwks(&set).unwrap()).unwrap();
        assert_eq!(read_jwks(&set).unwrap().keys.len(), 1);
        for gone in ["bulk", "c2VjcmV0", "h.example"] {
            assert!(!kept.contains(gone), "{kept}");
        }
        assert_eq!(parse_jwks(kept.as_bytes()), read_jwks(&set));
    }

    #[test]
    fn what_is_no_set_is_refused() {
        let good = jwk(Algorithm::Es256, &json!({}));
        for bad in [json!(null), json!([]), json!({}), json!({"keys": {}}), json!({"keys": vec![good.clone(); 9]})] {
            assert_eq!(read_jwks(&bad), Err(InvalidJwks::Malformed), "{bad}");
        }
        assert_eq!(read_jwks(&json!({"keys": []})), Err(InvalidJwks::NoneUsable));
        let body = json!({"keys": [good]}).to_string();
        assert!(parse_jwks(body.as_bytes()).is_ok());
        assert_eq!(parse_jwks(format!("{body}{}", " ".repeat(MAX_LEN)).as_bytes()), Err(InvalidJwks::Malformed));
        assert_eq!(parse_jwks(b"{"), Err(InvalidJwks::Malformed));
    }
}
