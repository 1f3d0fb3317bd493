//! Believing a client's signed assertion, `private_key_jwt` (RFC 7521 5.2, RFC 7523 3).

/// What clients may sign with.
pub const ALGORITHMS: [&str; 6] = ["ES256", "ES384", "EdDSA", "Ed25519", "RS256", "PS256"];
