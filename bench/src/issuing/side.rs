//! One of those that are measured: what it is asked, and what a right answer is.

use std::net::SocketAddr;

use anyhow::{Context as _, ensure};
use base64::{Engine as _, engine::general_purpose::URL_SAFE_NO_PAD};
use serde_json::Value;

use super::signing::{self, Algorithm};
use crate::load::{self, Shape};

pub enum Side {
    /// A server that is asked over HTTP.
    Server { addr: SocketAddr, request: Vec<u8>, answer: Right },
    /// A loop that signs.
    Signing(Algorithm),
}

/// When an answer is right. 200 it is in any case.
#[derive(Clone, Copy)]
pub enum Right {
    /// It has an access token that is signed so.
    Signed(Algorithm),
    /// It says that the token is active.
    Active,
    /// 200 is all that is asked for.
    LetThrough,
}

impl Side {
    /// How much it does in a second. Every time it is looked at first whether it does it right.
    pub fn measure(&self, shape: Shape, core: usize) -> anyhow::Result<f64> {
        match self {
            Self::Signing(algorithm) => signing::measure(*algorithm, shape.seconds, core),
            Self::Server { addr, request, answer } => {
                answer.check(load::ask(*addr, request)?.body())?;
                Ok(load::measure(*addr, request, shape)?.per_second)
            }
        }
    }
}

impl Right {
    fn check(self, body: &[u8]) -> anyhow::Result<()> {
        match self {
            Self::Signed(algorithm) => {
                let token = issued(body)?;
                let parts: Vec<&str> = token.split('.').collect();
                ensure!(parts.len() == 3, "the access token is no JWT");
                let header: Value = serde_json::from_slice(&URL_SAFE_NO_PAD.decode(parts[0])?)?;
                // RFC 9864 has a name of its own for the only EdDSA that there is here.
                let named = header["alg"].as_str().map(|name| if name == "Ed25519" { "EdDSA" } else { name });
                ensure!(named == Some(algorithm.name()), "the access token is signed otherwise: {header}");
            }
            Self::Active => {
                let said: Value = serde_json::from_slice(body)?;
                ensure!(said["active"] == true, "the token is not active: {said}");
            }
            Self::LetThrough => {}
        }
        Ok(())
    }
}

/// The access token in a token endpoint's answer.
pub fn issued(body: &[u8]) -> anyhow::Result<String> {
    let said: Value = serde_json::from_slice(body)?;
    Ok(said["access_token"].as_str().context("the answer has no access token")?.to_owned())
}
