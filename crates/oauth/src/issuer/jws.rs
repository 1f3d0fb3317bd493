//! Signing and checking with our own keys (RFC 7515, RFC 7518, RFC 8037).
//!
//! Keys are parsed once and kept: reading one anew costs more than signing with it.

use std::fmt;

use aws_lc_rs::{
    digest, hmac,
    rand::SystemRandom,
    rsa::KeySize,
    signature::{
        self, ECDSA_P256_SHA256_FIXED, ECDSA_P256_SHA256_FIXED_SIGNING, EcdsaKeyPair, Ed25519KeyPair, KeyPair as _,
        ParsedPublicKey, RSA_PKCS1_2048_8192_SHA256, RSA_PKCS1_SHA256, RsaKeyPair,
    },
};
use base64::{Engine as _, prelude::BASE64_URL_SAFE_NO_PAD};
use serde::{Deserialize, de::IgnoredAny};
use serde_json::{Value, json};
use zeroize::Zeroizing;

use crate::Secret;

/// What a key signs with.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Algorithm {
    /// ECDSA on P-256.
    Es256,
    /// Ed25519.
    EdDsa,
    /// RSA PKCS#1 v1.5, 2048 bits.
    Rs256,
    /// HMAC: whoever can check can sign, so such a key is one resource's alone.
    Hs256,
}

impl Algorithm {
    /// Every algorithm.
    pub const ALL: [Self; 4] = [Self::Es256, Self::EdDsa, Self::Rs256, Self::Hs256];

    /// The word in JWS headers.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Es256 => "ES256",
            Self::EdDsa => "EdDSA",
            Self::Rs256 => "RS256",
            Self::Hs256 => "HS256",
        }
    }

    /// The algorithm of that word.
    pub fn parse(word: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|algorithm| algorithm.as_str() == word)
    }
}

/// One of our own keys, ready to sign. It cannot be printed or serialized.
pub struct TokenKey {
    kid: String,
    pair: Pair,
    /// `base64url(header).`, the same for everything that it signs.
    header: String,
}

enum Pair {
    Es256(EcdsaKeyPair, ParsedPublicKey),
    EdDsa(Ed25519KeyPair, ParsedPublicKey),
    Rs256(RsaKeyPair, ParsedPublicKey),
    Hs256(Box<hmac::Key>),
}

/// Why bytes are no key.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the key cannot be used")]
pub struct BadKey;

/// The `typ` of access tokens (RFC 9068 2.1).
pub const ACCESS_TOKEN_TYPE: &str = "at+jwt";

impl TokenKey {
    /// Makes a new key, in the form in which it is stored: PKCS#8, or the bare bytes of HS256, which are `entropy`. The
    /// others are drawn by the cryptography library, which takes no randomness of ours.
    pub fn generate(algorithm: Algorithm, entropy: &[u8; 32]) -> Result<Zeroizing<Vec<u8>>, BadKey> {
        let bytes = match algorithm {
            Algorithm::Es256 => {
                let pair = EcdsaKeyPair::generate(&ECDSA_P256_SHA256_FIXED_SIGNING).map_err(|_| BadKey)?;
                pair.to_pkcs8v1().map_err(|_| BadKey)?.as_ref().to_vec()
            }
            Algorithm::EdDsa => {
                let pair = Ed25519KeyPair::generate().map_err(|_| BadKey)?;
                pair.to_pkcs8().map_err(|_| BadKey)?.as_ref().to_vec()
            }
            Algorithm::Rs256 => {
                use aws_lc_rs::encoding::{AsDer, Pkcs8V1Der};
                let pair = RsaKeyPair::generate(KeySize::Rsa2048).map_err(|_| BadKey)?;
                AsDer::<Pkcs8V1Der<'_>>::as_der(&pair).map_err(|_| BadKey)?.as_ref().to_vec()
            }
            Algorithm::Hs256 => entropy.to_vec(),
        };
        Ok(Zeroizing::new(bytes))
    }

    /// Takes a stored key back.
    pub fn from_stored(algorithm: Algorithm, stored: &[u8]) -> Result<Self, BadKey> {
        let parse = |public: &[u8], of: &'static dyn signature::VerificationAlgorithm| {
            ParsedPublicKey::new(of, public).map_err(|_| BadKey)
        };
        let pair = match algorithm {
            Algorithm::Es256 => {
                let pair = EcdsaKeyPair::from_pkcs8(&ECDSA_P256_SHA256_FIXED_SIGNING, stored).map_err(|_| BadKey)?;
                let public = parse(pair.public_key().as_ref(), &ECDSA_P256_SHA256_FIXED)?;
                Pair::Es256(pair, public)
            }
            Algorithm::EdDsa => {
                let pair = Ed25519KeyPair::from_pkcs8(stored).map_err(|_| BadKey)?;
                let public = parse(pair.public_key().as_ref(), &signature::ED25519)?;
                Pair::EdDsa(pair, public)
            }
            Algorithm::Rs256 => {
                let pair = RsaKeyPair::from_pkcs8(stored).map_err(|_| BadKey)?;
                let public = parse(pair.public_key().as_ref(), &RSA_PKCS1_2048_8192_SHA256)?;
                Pair::Rs256(pair, public)
            }
            Algorithm::Hs256 if stored.len() >= 32 => Pair::Hs256(Box::new(hmac::Key::new(hmac::HMAC_SHA256, stored))),
            Algorithm::Hs256 => return Err(BadKey),
        };
        let kid = pair.thumbprint();
        let header = json!({"alg": algorithm.as_str(), "kid": kid, "typ": ACCESS_TOKEN_TYPE}).to_string();
        let header = format!("{}.", BASE64_URL_SAFE_NO_PAD.encode(header));
        Ok(Self { kid, pair, header })
    }

    /// Its name: the thumbprint of its public half (RFC 7638), or a hash of it where there is none.
    pub fn kid(&self) -> &str {
        &self.kid
    }

    /// What it signs with.
    pub fn algorithm(&self) -> Algorithm {
        match self.pair {
            Pair::Es256(..) => Algorithm::Es256,
            Pair::EdDsa(..) => Algorithm::EdDsa,
            Pair::Rs256(..) => Algorithm::Rs256,
            Pair::Hs256(_) => Algorithm::Hs256,
        }
    }

    /// Its public half as a JWK (RFC 7517); `None` where there is none.
    pub fn public_jwk(&self) -> Option<Value> {
        let mut jwk = self.pair.public_members()?;
        jwk["kid"] = json!(self.kid);
        jwk["alg"] = json!(self.algorithm().as_str());
        jwk["use"] = json!("sig");
        Some(jwk)
    }

    /// Signs `claims`, as JSON, as an access token.
    pub fn sign(&self, claims: &[u8]) -> Result<Secret, BadKey> {
        let mut text = String::with_capacity(self.header.len() + claims.len() * 4 / 3 + 360);
        text.push_str(&self.header);
        BASE64_URL_SAFE_NO_PAD.encode_string(claims, &mut text);
        let mut signature = [0; 512];
        let length = self.pair.sign(text.as_bytes(), &mut signature)?;
        text.push('.');
        BASE64_URL_SAFE_NO_PAD.encode_string(&signature[..length], &mut text);
        Ok(text.into())
    }

    /// Signs anything, for tests of what must not be believed although we signed it.
    #[cfg(test)]
    pub(super) fn sign_bytes(&self, message: &[u8]) -> Result<Vec<u8>, BadKey> {
        let mut signature = [0; 512];
        let length = self.pair.sign(message, &mut signature)?;
        Ok(signature[..length].to_vec())
    }

    /// `base64url(header).`, with which every token of this key begins.
    pub(super) fn header(&self) -> &str {
        &self.header
    }

    /// Whether `signature` is this key's, under `signed`.
    pub fn verify(&self, signed: &[u8], signature: &[u8]) -> bool {
        match &self.pair {
            Pair::Es256(_, public) | Pair::EdDsa(_, public) | Pair::Rs256(_, public) => {
                public.verify_sig(signed, signature).is_ok()
            }
            Pair::Hs256(key) => hmac::verify(key, signed, signature).is_ok(),
        }
    }
}

impl Pair {
    fn sign(&self, message: &[u8], signature: &mut [u8; 512]) -> Result<usize, BadKey> {
        let random = SystemRandom::new();
        let mut put = |bytes: &[u8]| {
            signature[..bytes.len()].copy_from_slice(bytes);
            bytes.len()
        };
        match self {
            Self::Es256(pair, _) => Ok(put(pair.sign(&random, message).map_err(|_| BadKey)?.as_ref())),
            Self::EdDsa(pair, _) => Ok(put(pair.try_sign(message).map_err(|_| BadKey)?.as_ref())),
            Self::Hs256(key) => Ok(put(hmac::sign(key, message).as_ref())),
            Self::Rs256(pair, _) => {
                let length = pair.public_modulus_len();
                let room = signature.get_mut(..length).ok_or(BadKey)?;
                pair.sign(&RSA_PKCS1_SHA256, &random, message, room).map_err(|_| BadKey)?;
                Ok(length)
            }
        }
    }

    fn public_members(&self) -> Option<Value> {
        let b64 = |bytes: &[u8]| BASE64_URL_SAFE_NO_PAD.encode(bytes);
        Some(match self {
            Self::Es256(pair, _) => {
                // SEC 1: 0x04, x, y.
                let point = pair.public_key().as_ref();
                json!({"crv": "P-256", "kty": "EC", "x": b64(&point[1..33]), "y": b64(&point[33..65])})
            }
            Self::EdDsa(pair, _) => json!({"crv": "Ed25519", "kty": "OKP", "x": b64(pair.public_key().as_ref())}),
            Self::Rs256(pair, _) => {
                let public = pair.public_key();
                let (e, n) = (public.exponent(), public.modulus());
                json!({"e": b64(e.big_endian_without_leading_zero()), "kty": "RSA",
                    "n": b64(n.big_endian_without_leading_zero())})
            }
            Self::Hs256(_) => return None,
        })
    }

    /// RFC 7638 3: the required members in order, without spaces; serde_json keeps them sorted.
    fn thumbprint(&self) -> String {
        let hashed = match (self, self.public_members()) {
            (_, Some(members)) => digest::digest(&digest::SHA256, members.to_string().as_bytes()).as_ref().to_vec(),
            (Self::Hs256(key), None) => hmac::sign(key, b"tokenkeep kid").as_ref()[..16].to_vec(),
            (_, None) => Vec::new(),
        };
        BASE64_URL_SAFE_NO_PAD.encode(hashed)
    }
}

/// What a JWT says of itself (RFC 7515 4.1), to be believed only as far as the key bears it out.
#[derive(Debug, Deserialize)]
pub(super) struct JoseHeader {
    pub(super) alg: String,
    pub(super) kid: Option<String>,
    typ: Option<String>,
    crit: Option<IgnoredAny>,
}

impl JoseHeader {
    /// Reads the first part of a JWT. One with critical extensions is refused (RFC 7515 4.1.11): we understand none.
    pub(super) fn parse(encoded: &str) -> Option<Self> {
        let text = BASE64_URL_SAFE_NO_PAD.decode(encoded).ok()?;
        serde_json::from_slice(&text).ok().filter(|header: &Self| header.crit.is_none())
    }

    /// Whether it says what type it is of.
    pub(super) fn is_typed(&self) -> bool {
        self.typ.is_some()
    }

    /// Whether it says to be of this type. Media types compare without case, and `application/` may be left out
    /// (RFC 7515 4.1.9).
    pub(super) fn has_type(&self, wanted: &str) -> bool {
        self.typ.as_deref().is_some_and(|typ| {
            let short = typ.split_once('/').filter(|(kind, _)| kind.eq_ignore_ascii_case("application"));
            short.map_or(typ, |(_, short)| short).eq_ignore_ascii_case(wanted)
        })
    }
}

impl fmt::Debug for TokenKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("TokenKey").field("kid", &self.kid).field("alg", &self.algorithm()).finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use jsonwebtoken::{DecodingKey, Validation, jwk::Jwk};
    use secrecy::ExposeSecret as _;

    use super::*;

    fn key(algorithm: Algorithm, entropy: u8) -> TokenKey {
        TokenKey::from_stored(algorithm, &TokenKey::generate(algorithm, &[entropy; 32]).unwrap()).unwrap()
    }

    /// Somebody else's implementation reads the JWK and checks the signature.
    #[test]
    fn others_can_check_what_we_sign() {
        for algorithm in [Algorithm::Es256, Algorithm::EdDsa, Algorithm::Rs256] {
            let key = key(algorithm, 1);
            let token = key.sign(br#"{"sub":"alice"}"#).unwrap();
            let jwk: Jwk = serde_json::from_value(key.public_jwk().unwrap()).unwrap();
            let mut validation = Validation::new(algorithm.as_str().parse().unwrap());
            validation.required_spec_claims.clear();
            validation.validate_exp = false;
            let decoding = DecodingKey::from_jwk(&jwk).unwrap();
            let read = jsonwebtoken::decode::<Value>(token.expose_secret(), &decoding, &validation).unwrap();
            assert_eq!(read.claims["sub"], "alice");
            assert_eq!(read.header.kid.as_deref(), Some(key.kid()));
            let thumbprint = jwk.thumbprint(jsonwebtoken::jwk::ThumbprintHash::SHA256).unwrap();
            assert_eq!(thumbprint, key.kid());
        }
    }

    #[test]
    fn a_signature_is_its_keys_own() {
        for algorithm in Algorithm::ALL {
            let (one, two) = (key(algorithm, 1), key(algorithm, 2));
            assert_ne!(one.kid(), two.kid());
            let token = one.sign(b"{}").unwrap();
            let (signed, signature) = token.expose_secret().rsplit_once('.').unwrap();
            let signature = BASE64_URL_SAFE_NO_PAD.decode(signature).unwrap();
            assert!(one.verify(signed.as_bytes(), &signature));
            assert!(!two.verify(signed.as_bytes(), &signature));
            assert!(!one.verify(format!("{signed}x").as_bytes(), &signature));
            assert!(!one.verify(signed.as_bytes(), b""));
        }
        assert!(key(Algorithm::Hs256, 1).public_jwk().is_none());
        assert!(TokenKey::from_stored(Algorithm::Hs256, &[0; 31]).is_err());
    }
}
