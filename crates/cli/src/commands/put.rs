//! `put`: tokens obtained elsewhere, or what is logged in with.

use std::io::{IsTerminal as _, Read as _};

use anyhow::{Context as _, Result, anyhow, bail};
use http::{Method, header};
use secrecy::ExposeSecret as _;
use serde_json::{Map, Value};
use tokenkeep_oauth::Secret;
use zeroize::Zeroizing;

use super::{Context, connections::ConnectionBody, credentials, route, show};
use crate::{args, client::Call, config::read_secret_file, out};

pub(super) async fn run(context: &Context, put: args::Put) -> Result<()> {
    let id = put.which.id()?;
    let access = given(context, put.access_token_file.as_deref(), put.access_token_env.as_deref())?;
    let refresh = given(context, put.refresh_token_file.as_deref(), put.refresh_token_env.as_deref())?;
    let credentials = credentials::given(&put.credentials)?;
    if credentials.is_none() && (put.login || put.ttl.is_some()) {
        bail!("--login and --ttl mean nothing without --username or an API key");
    }
    let comes_otherwise = access.is_some() || refresh.is_some() || credentials.is_some();
    let mut body = if comes_otherwise { Map::new() } else { standard_input()? };
    let text = |secret: Option<Secret>| secret.map(|secret| Value::from(secret.expose_secret().trim()));
    for (name, value) in [
        ("access_token", text(access)),
        ("refresh_token", text(refresh)),
        ("credentials", credentials),
        ("ttl", put.ttl.map(Value::from)),
        ("expires_in", put.expires_in.map(Value::from)),
        ("scope", put.scope.map(Value::from)),
        ("display_name", put.display_name.map(Value::from)),
    ] {
        if let Some(value) = value {
            body.insert(name.to_owned(), value);
        }
    }
    let query = match (put.force, put.login) {
        (false, false) => "",
        (true, false) => "?force=true",
        (false, true) => "?login=true",
        (true, true) => "?force=true&login=true",
    };
    let mut call = Call::new(Method::PUT, format!("{}{query}", route(&id))).json(&body)?;
    if put.if_absent {
        call = call.header(header::IF_NONE_MATCH, "*");
    }
    let answer = context.client()?.call(call).await?;
    show(&answer, put.output, |answer| {
        let body: ConnectionBody = answer.read()?;
        out::line(format_args!("{id}: stored, {} (generation {})", body.status, body.generation))
    })
}

fn given(context: &Context, file: Option<&std::path::Path>, variable: Option<&str>) -> Result<Option<Secret>> {
    match (file, variable) {
        (Some(file), _) => read_secret_file(file).map(Some),
        (None, Some(name)) => {
            let value = context.environment.text(name)?;
            Ok(Some(Secret::from(value.ok_or_else(|| anyhow!("the environment variable {name} is not set"))?)))
        }
        (None, None) => Ok(None),
    }
}

fn standard_input() -> Result<Map<String, Value>> {
    if std::io::stdin().is_terminal() {
        out::note("Reading JSON from the terminal, for example {\"access_token\": \"..\"}; Ctrl-D ends it.");
    }
    let mut text = Zeroizing::new(String::new());
    std::io::stdin().take(1 << 20).read_to_string(&mut text).context("standard input is not text")?;
    // The parser's own message could repeat what it read.
    serde_json::from_str(&text).map_err(|error| {
        anyhow!("standard input is not a JSON object of tokens (line {}, column {})", error.line(), error.column())
    })
}
