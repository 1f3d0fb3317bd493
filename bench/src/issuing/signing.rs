//! Signing and nothing else: what a core could issue at the very most.

use std::{
    hint::black_box,
    process::Stdio,
    time::{Duration, Instant},
};

use anyhow::{Context as _, ensure};
use aws_lc_rs::{
    error::Unspecified,
    rand::SystemRandom,
    rsa::KeySize,
    signature::{ECDSA_P256_SHA256_FIXED_SIGNING, EcdsaKeyPair, Ed25519KeyPair, RSA_PKCS1_SHA256, RsaKeyPair},
};

use crate::service::pinned;

#[derive(clap::Args)]
pub struct Arguments {
    #[arg(long, value_enum)]
    algorithm: Algorithm,
    /// For how long.
    #[arg(long)]
    seconds: f64,
}

/// What signs an access token.
#[derive(Clone, Copy, clap::ValueEnum)]
pub enum Algorithm {
    #[value(name = "ES256")]
    Es256,
    #[value(name = "EdDSA")]
    EdDsa,
    #[value(name = "RS256")]
    Rs256,
}

impl Algorithm {
    pub const ALL: [Self; 3] = [Self::Es256, Self::EdDsa, Self::Rs256];

    /// As JOSE calls it.
    pub fn name(self) -> &'static str {
        match self {
            Self::Es256 => "ES256",
            Self::EdDsa => "EdDSA",
            Self::Rs256 => "RS256",
        }
    }
}

/// As many bytes as a header and claims of ours have, about.
const SIGNED: [u8; 360] = [b'e'; 360];

/// Signatures a second, by a process of its own on `core`.
pub fn measure(algorithm: Algorithm, seconds: f64, core: usize) -> anyhow::Result<f64> {
    let mut command = pinned(&std::env::current_exe()?, Some(core));
    command.args(["sign", "--algorithm", algorithm.name(), "--seconds", &seconds.to_string()]);
    let output = command.stderr(Stdio::inherit()).output().context("cannot start signing")?;
    ensure!(output.status.success(), "signing failed");
    Ok(String::from_utf8(output.stdout)?.trim().parse()?)
}

/// The process: prints signatures a second.
pub fn run(arguments: &Arguments) -> anyhow::Result<()> {
    let wanted = Duration::from_secs_f64(arguments.seconds);
    let random = SystemRandom::new();
    let per_second = match arguments.algorithm {
        Algorithm::Es256 => {
            let key = EcdsaKeyPair::generate(&ECDSA_P256_SHA256_FIXED_SIGNING)?;
            rate(wanted, || key.sign(&random, black_box(&SIGNED)))
        }
        Algorithm::EdDsa => {
            let key = Ed25519KeyPair::generate()?;
            rate(wanted, || key.try_sign(black_box(&SIGNED)))
        }
        Algorithm::Rs256 => {
            let key = RsaKeyPair::generate(KeySize::Rsa2048)?;
            let mut signature = vec![0; key.public_modulus_len()];
            rate(wanted, || key.sign(&RSA_PKCS1_SHA256, &random, black_box(&SIGNED), &mut signature))
        }
    }?;
    println!("{per_second}");
    Ok(())
}

fn rate<T>(wanted: Duration, mut sign: impl FnMut() -> Result<T, Unspecified>) -> anyhow::Result<f64> {
    let mut signatures = 0u64;
    let began = Instant::now();
    loop {
        for _ in 0..100 {
            black_box(sign()?);
        }
        signatures += 100;
        let elapsed = began.elapsed();
        if elapsed >= wanted {
            return Ok(signatures as f64 / elapsed.as_secs_f64());
        }
    }
}
