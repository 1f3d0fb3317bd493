//! The other side of the wire: what an authorization server is asked, and what it answers.
//!
//! | room | RFC |
//! |---|---|
//! | [`client`], [`redirect_uri`] | 7591, 8252, 9700 4.1: what clients say of themselves, where answers may go |
//! | [`authorize`], [`scope`], [`resource`] | 6749 4.1, 7636, 8707, 9207: what is asked for, and the answer by redirect |
//! | [`token`], [`form`] | 6749 2.3, 3.2: which client asks, and what it brings |
//! | [`assertion`], [`jwks`] | 7517, 7523: a client that signs, and its keys |
//! | [`jws`] | 7515, 7638: our own keys |
//! | [`access_token`] | 9068: what they sign |
//! | [`introspection`] | 7662 2.2: what a token is worth |
//! | [`metadata`] | 8414, 9728: what we say of ourselves and of what we protect |
//! | [`error`], [`challenge`] | 6749 5.2, 6750 3.1, 7591 3.2.2, 9728 5.1: how it is refused |

pub mod access_token;
pub mod assertion;
pub mod authorize;
pub mod challenge;
pub mod client;
pub mod error;
pub mod form;
pub mod introspection;
pub mod jwks;
pub mod jws;
pub mod metadata;
pub mod redirect_uri;
pub mod resource;
pub mod scope;
pub mod token;
pub mod token_exchange;
