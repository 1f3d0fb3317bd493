//! `protect`: flags are made into the configuration that says the same, and then it is `serve`.

use std::collections::BTreeMap;

use anyhow::{Context as _, Result, anyhow, bail};
use tokenkeep_core::{IntegrationId, ProviderId};

use super::Context;
use crate::{
    args,
    config::{Config, Integration, Protect, nearest, read_secret_file},
    environment::Environment,
    serve::{self, Demand, protect::check_flags},
};

/// Where people sign in who have no provider.
const LOCAL: &str = "local";
/// The id of an integration at an issuer that is in no catalogue.
const OIDC: &str = "oidc";

pub(super) async fn run(context: &Context, arguments: args::Protect) -> Result<()> {
    let mut config = Config::load(context.global.config.as_deref(), &context.environment)?;
    if let Some(dir) = &context.global.data_dir {
        config.server.data_dir = Some(dir.clone());
    }
    check_flags(&arguments, &config)?;
    let demand = configure(&mut config, arguments, &context.environment)?;
    serve::start(config, &context.environment, demand).await
}

/// Adds what the flags say. Answers what must be there already where neither they nor the environment say it.
fn configure(config: &mut Config, arguments: args::Protect, environment: &Environment) -> Result<Option<Demand>> {
    if let Some(listen) = arguments.listen {
        config.server.listen = listen;
    }
    if let Some(level) = &arguments.log {
        config.log.level.clone_from(level);
    }
    if arguments.public_url.is_some() {
        config.server.public_url.clone_from(&arguments.public_url);
    }
    let (provider, demand) = provider(config, &arguments, environment)?;
    let allowed = [&arguments.allow_users, &arguments.allow_email_domains, &arguments.allow_organizations];
    if allowed.iter().any(|list| !list.is_empty()) {
        let issuer = config.issuer.get_or_insert_default();
        let given = |list: Vec<String>| Some(list).filter(|list| !list.is_empty());
        issuer.allowed_users = given(arguments.allow_users);
        issuer.allowed_email_domains = given(arguments.allow_email_domains);
        issuer.allowed_organizations = given(arguments.allow_organizations);
    }
    config.protect.push(Protect {
        path: Some(arguments.path),
        upstream: Some(arguments.upstream),
        provider: Some(provider),
        name: arguments.name,
        scopes: arguments.scopes,
        forward_token: arguments.forward_token.unwrap_or_else(|| "none".to_owned()),
    });
    Ok(demand)
}

/// Where people sign in; with our client there, where flags or environment say what it is.
fn provider(
    config: &mut Config,
    arguments: &args::Protect,
    environment: &Environment,
) -> Result<(String, Option<Demand>)> {
    let Some(name) = &arguments.provider else { return Ok((LOCAL.to_owned(), None)) };
    let issuer = name.starts_with("https://") || name.starts_with("http://");
    let id = if issuer { OIDC } else { name.as_str() };
    if name == LOCAL {
        return Ok((LOCAL.to_owned(), None));
    }
    let is_it = |one: &Integration| one.id.as_deref().or(one.provider.as_deref()) == Some(id);
    if config.integrations.iter().any(is_it) {
        if arguments.client_id.is_some() || arguments.provider_scope.is_some() || !arguments.params.is_empty() {
            bail!("the configuration file has an [[integration]] {id} already: leave these flags out, or name another");
        }
        return Ok((id.to_owned(), None));
    }
    let variable = |what: &str| format!("{}_{what}", id.to_ascii_uppercase().replace(['-', '.'], "_"));
    let client_id = match &arguments.client_id {
        Some(client_id) => Some(client_id.clone()),
        None => environment.text(&variable("CLIENT_ID"))?.map(str::to_owned),
    };
    let known = ProviderId::new(id).ok().and_then(|id| config.catalogue.get(&id));
    let Some(client_id) = client_id else {
        let there = known.as_ref().map_or(name.as_str(), |provider| provider.display_name.as_str());
        return Ok((id.to_owned(), Some(demand(config, id, there, &variable)?)));
    };
    let secret = match (&arguments.client_secret_file, environment.os(&variable("CLIENT_SECRET_FILE"))) {
        (Some(file), _) => Some(read_secret_file(file).context("--client-secret-file")?),
        // Whoever names the client by a flag does not get the secret of another.
        (None, _) if arguments.client_id.is_some() => None,
        (None, Some(file)) => Some(read_secret_file(file.as_ref()).with_context(|| variable("CLIENT_SECRET_FILE"))?),
        (None, None) => environment.text(&variable("CLIENT_SECRET"))?.map(tokenkeep_oauth::Secret::from),
    };
    if !issuer {
        let known = known.ok_or_else(|| unknown(config, id))?;
        if known.identity.is_none() && known.issuer.is_none() {
            bail!("{} does not say who signed in there: choose another provider to sign in at", known.display_name);
        }
    }
    config.integrations.push(Integration {
        id: Some(id.to_owned()),
        provider: (!issuer).then(|| id.to_owned()),
        issuer: issuer.then(|| name.clone()),
        client_id: Some(client_id),
        client_secret: secret,
        scope: arguments.provider_scope.clone(),
        params: params(&arguments.params)?,
        ..Integration::default()
    });
    Ok((id.to_owned(), None))
}

fn params(pairs: &[String]) -> Result<BTreeMap<String, String>> {
    let pair = |pair: &String| {
        let (name, value) = pair.split_once('=').ok_or_else(|| args::wrong("--param takes NAME=VALUE"))?;
        Ok((name.to_owned(), value.to_owned()))
    };
    pairs.iter().map(pair).collect()
}

fn unknown(config: &Config, id: &str) -> anyhow::Error {
    let ids = config.catalogue.ids();
    let meant = nearest(id, ids.iter().copied()).map(|meant| format!("; did you mean `{meant}`?"));
    anyhow!(
        "there is no provider `{id}`{} `tokenkeep providers list` shows those there are; the URL of any OpenID Connect \
         issuer will do, too",
        meant.unwrap_or_else(|| ".".to_owned())
    )
}

/// That the store has our client there; and what is said where it has not.
fn demand(config: &Config, id: &str, there: &str, variable: &impl Fn(&str) -> String) -> Result<Demand> {
    let known = ProviderId::new(id).ok().and_then(|id| config.catalogue.get(&id));
    let Ok(integration) = IntegrationId::new(id) else { return Err(unknown(config, id)) };
    let callback = config.public_url(config.server.listen)?.join("oauth/callback")?;
    let (client_id, secret) = (variable("CLIENT_ID"), variable("CLIENT_SECRET"));
    // It may be one that was named by `integrations set`, whatever its id.
    let otherwise = if known.is_none() && id != OIDC {
        unknown(config, id).to_string()
    } else {
        format!(
            "tokenkeep has no client at {there} yet.\n\n\
             Register one there, with this redirect URI (callback URL):\n  {callback}\n\n\
             and say what it is, by flags or in the environment:\n  \
             --client-id ID --client-secret-file FILE\n  \
             {client_id}=ID {secret}=SECRET (or {secret}_FILE=FILE)\n\n\
             Without --provider, an admin key signs in: for development."
        )
    };
    Ok(Demand { integration, otherwise })
}

#[cfg(test)]
mod tests {
    use clap::Parser as _;

    use super::*;
    use crate::args::{Arguments, Command};

    fn configured<const N: usize>(
        flags: &str,
        file: &str,
        pairs: [(&str, &str); N],
    ) -> Result<(Config, Option<Demand>)> {
        let words = ["tokenkeep", "protect", "--upstream", "http://localhost:3000/mcp"];
        let arguments = Arguments::try_parse_from(words.into_iter().chain(flags.split_whitespace()))?;
        let Command::Protect(arguments) = arguments.command else { panic!("it is another command") };
        let dir = tempfile::tempdir()?;
        let path = dir.path().join("t.toml");
        std::fs::write(&path, file)?;
        let environment = Environment::from(pairs);
        let mut config = Config::load(Some(&path), &environment)?;
        let demand = configure(&mut config, arguments, &environment)?;
        Ok((config, demand))
    }

    fn flag_error(flags: &str) -> String {
        let words = ["tokenkeep", "protect"].into_iter().chain(flags.split_whitespace());
        let arguments = Arguments::try_parse_from(words).unwrap();
        let Command::Protect(arguments) = arguments.command else { panic!("it is another command") };
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("t.toml");
        std::fs::write(&path, "").unwrap();
        let config = Config::load(Some(&path), &Environment::from([])).unwrap();
        let error = check_flags(&arguments, &config).expect_err(flags);
        assert!(error.is::<clap::Error>(), "{flags} is wrong usage: {error:#}");
        error.to_string()
    }

    #[test]
    fn what_is_wrong_with_a_flag_is_said_of_the_flag() {
        let here = "--upstream http://localhost:3000/mcp";
        for (flags, said) in [
            ("--upstream localhost:3000/mcp", "--upstream must begin with http:// or https://"),
            ("--upstream nonsense", "--upstream is no URL"),
            (&format!("{here} --path mcp"), "--path must begin with a slash"),
            (&format!("{here} --path /healthz"), "--path /healthz is a path of tokenkeep's own"),
            (&format!("{here} --scope a --scope="), "--scope takes one scope"),
            (&format!("{here} --forward-token cookie"), "--forward-token must be"),
        ] {
            assert!(flag_error(flags).contains(said), "{flags}: {}", flag_error(flags));
        }
    }

    fn error<const N: usize>(flags: &str, file: &str, pairs: [(&str, &str); N]) -> String {
        match configured(flags, file, pairs) {
            Ok(_) => panic!("{flags} {file}"),
            Err(error) => format!("{error:#}"),
        }
    }

    #[test]
    fn without_a_provider_an_admin_key_signs_in() {
        let (config, demand) = configured("", "", []).unwrap();
        let protect = &config.protect[0];
        assert_eq!((protect.path.as_deref(), protect.provider.as_deref()), (Some("/mcp"), Some("local")));
        assert_eq!((protect.upstream.as_deref(), &*protect.forward_token), (Some("http://localhost:3000/mcp"), "none"));
        assert!(demand.is_none() && config.integrations.is_empty());
    }

    #[test]
    fn our_client_is_named_by_flags_or_by_the_environment() {
        use secrecy::ExposeSecret as _;
        let both = [("GITHUB_CLIENT_ID", "c"), ("GITHUB_CLIENT_SECRET", "s")];
        let (config, demand) = configured("--provider github", "", both).unwrap();
        assert!(demand.is_none());
        let integration = &config.integrations[0];
        assert_eq!((integration.id.as_deref(), integration.client_id.as_deref()), (Some("github"), Some("c")));
        assert_eq!(integration.client_secret.as_ref().unwrap().expose_secret(), "s");

        let (config, _) = configured("--provider github --client-id d", "", both).unwrap();
        let integration = &config.integrations[0];
        assert_eq!(integration.client_id.as_deref(), Some("d"));
        assert!(integration.client_secret.is_none(), "it is another client's");

        let (config, _) = configured("--provider https://id.example.com --client-id d", "", []).unwrap();
        let integration = &config.integrations[0];
        assert_eq!((integration.id.as_deref(), integration.provider.as_deref()), (Some("oidc"), None));
        assert_eq!(integration.issuer.as_deref(), Some("https://id.example.com"));

        let file = "[[integration]]\nprovider = \"github\"\nclient_id = \"f\"";
        let (config, demand) = configured("--provider github", file, both).unwrap();
        assert!(demand.is_none());
        assert_eq!((config.integrations.len(), config.integrations[0].client_id.as_deref()), (1, Some("f")));
        assert!(error("--provider github --client-id d", file, []).contains("already"));
    }

    #[test]
    fn what_is_missing_is_said_with_everything_that_is_needed() {
        let (_, demand) = configured("--provider github --public-url https://mcp.example.com", "", []).unwrap();
        let Demand { integration, otherwise } = demand.unwrap();
        assert_eq!(integration.as_str(), "github");
        for needed in [
            "GitHub",
            "https://mcp.example.com/oauth/callback",
            "--client-id",
            "--client-secret-file",
            "GITHUB_CLIENT_ID",
            "GITHUB_CLIENT_SECRET",
        ] {
            assert!(otherwise.contains(needed), "{otherwise}");
        }
        let (_, demand) = configured("--provider githb", "", []).unwrap();
        assert!(demand.unwrap().otherwise.contains("`github`"));
        assert!(error("--provider githb --client-id x", "", []).contains("`github`"));
        assert!(error("--client-id x", "", []).contains("--provider"));
    }

    #[test]
    fn who_may_sign_in_and_what_is_handed_on() {
        let flags = "--provider github --client-id c --allow-user octocat --allow-user hubot --forward-token \
                     --provider-scope repo --scope mcp --path /tools/github";
        let (config, _) = configured(flags, "", []).unwrap();
        let issuer = config.issuer.as_ref().unwrap();
        assert_eq!(issuer.allowed_users.as_deref(), Some(&["octocat".to_owned(), "hubot".to_owned()][..]));
        assert_eq!(issuer.allowed_email_domains, None);
        assert_eq!(config.protect[0].forward_token, "authorization");
        assert_eq!(config.protect[0].scopes, ["mcp"]);
        assert_eq!(config.integrations[0].scope.as_deref(), Some("repo"));
        let (config, _) = configured("--provider github --client-id c --forward-token x-token", "", []).unwrap();
        assert_eq!(config.protect[0].forward_token, "x-token");
        let kept = "[issuer]\nallowed_users = [\"octocat\"]";
        assert!(configured("", kept, []).unwrap().0.issuer.unwrap().allowed_users.is_some());
    }
}
