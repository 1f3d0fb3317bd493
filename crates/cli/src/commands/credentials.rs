//! `credentials`: what is logged in with where there is no OAuth, tried without being stored.

use std::io::{IsTerminal as _, Read as _};

use anyhow::{Context as _, Result, anyhow, bail};
use http::Method;
use secrecy::ExposeSecret as _;
use serde::Deserialize;
use serde_json::{Map, Value, json};
use tokenkeep_oauth::Secret;
use zeroize::Zeroizing;

use super::{Context, password, show};
use crate::{
    args::{self, TryCredentials, TryOut},
    client::Call,
    out,
};

#[derive(Deserialize)]
struct LoggedInBody {
    access_token: Secret,
}

pub(super) async fn run(context: &Context, command: TryCredentials) -> Result<()> {
    match command {
        TryCredentials::Test(asked) => {
            let answer = context.client()?.call(call("test", &asked)?).await?;
            show(&answer, asked.output, |_| out::line(format_args!("{}: these credentials are taken", asked.provider)))
        }
        TryCredentials::Login(asked) => {
            let answer = context.client()?.call(call("login", &asked)?).await?;
            show(&answer, asked.output, |answer| out::line(answer.read::<LoggedInBody>()?.access_token.expose_secret()))
        }
    }
}

fn call(what: &str, asked: &TryOut) -> Result<Call> {
    let credentials = given(&asked.credentials)?;
    let credentials = credentials.ok_or_else(|| anyhow!("give --username, --api-key-stdin or --api-key-file"))?;
    let mut body = Map::from_iter([
        ("provider".to_owned(), json!(asked.provider.as_str())),
        ("credentials".to_owned(), credentials),
    ]);
    if let Some(tenant) = &asked.tenant {
        body.insert("tenant".to_owned(), json!(tenant.as_str()));
    }
    Call::new(Method::POST, format!("/v1/credentials/{what}")).json(&body)
}

/// The credentials that were given, as the API takes them; `None` = none were.
pub(super) fn given(given: &args::Credentials) -> Result<Option<Value>> {
    if let Some(username) = &given.username {
        let password = if given.password_stdin {
            standard_input()?
        } else if let Some(file) = &given.password_file {
            in_file(file)?
        } else if std::io::stdin().is_terminal() {
            password::ask(&format!("Password of {username}"))?.ok_or_else(|| anyhow!("a password is needed"))?
        } else {
            bail!("there is no terminal to ask for the password at: give --password-stdin or --password-file");
        };
        return Ok(Some(json!({"username": username, "password": password.expose_secret()})));
    }
    let key = match &given.api_key_file {
        Some(file) => in_file(file)?,
        None if given.api_key_stdin => standard_input()?,
        None => return Ok(None),
    };
    Ok(Some(json!({"api_key": key.expose_secret().trim()})))
}

fn standard_input() -> Result<Secret> {
    let mut text = Zeroizing::new(String::new());
    std::io::stdin().take(1 << 16).read_to_string(&mut text).context("standard input is not text")?;
    Ok(line(&text))
}

fn in_file(file: &std::path::Path) -> Result<Secret> {
    let text = std::fs::read_to_string(file).with_context(|| format!("{} cannot be read", file.display()))?;
    Ok(line(&Zeroizing::new(text)))
}

/// The text without the line's end that editors and `echo` leave: a password may begin or end with spaces.
fn line(text: &str) -> Secret {
    Secret::from(text.strip_suffix('\n').map_or(text, |text| text.strip_suffix('\r').unwrap_or(text)))
}
