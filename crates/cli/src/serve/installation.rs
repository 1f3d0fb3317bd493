//! What the configuration file says about keys, integrations and first refresh tokens, brought to the engine.

use std::collections::BTreeSet;

use anyhow::{Context, Result, anyhow, bail};
use tokenkeep_core::{ClientSigningKey, ConnectionId, IntegrationId, ProviderId, Role, Tenant};
use tokenkeep_engine::{
    Caller, ConfigIntegration, ConfigKey, Engine, NewKey, PutIntegration, Seeded, issuer::IssuerSettings,
    sessions::SessionSettings,
};
use tokenkeep_oauth::Secret;
use url::Url;

use super::{issuer, said::required, sessions};
use crate::{
    config::{ApiKey, Config, Integration, SeededConnection, read_secret_file, secret},
    environment::Environment,
};

/// Everything read and checked, before anything is changed.
#[derive(Debug)]
pub(crate) struct Installation {
    keys: Vec<ConfigKey>,
    admin_key: Option<Secret>,
    integrations: Vec<ConfigIntegration>,
    seeds: Vec<Seed>,
    issuer: Option<IssuerSettings>,
    sessions: Option<SessionSettings>,
}

#[derive(Debug)]
struct Seed {
    connection: ConnectionId,
    variable: String,
    refresh_token: Option<Secret>,
}

impl Installation {
    /// Reads it all, the files and variables it names included.
    pub(crate) fn read(config: &Config, environment: &Environment) -> Result<Self> {
        Self::read_at(config, environment, &config.public_url(config.server.listen)?)
    }

    /// The same, where browsers reach us at `public_url`.
    pub(super) fn read_at(config: &Config, environment: &Environment, public_url: &Url) -> Result<Self> {
        let place =
            config.file.as_ref().map_or_else(|| "the configuration".to_owned(), |file| file.display().to_string());
        let numbered = |what: &str, index: usize| format!("{place}: [[{what}]] number {}", index + 1);
        let keys = config.keys.iter().enumerate();
        let integrations = config.integrations.iter().enumerate();
        let seeds = config.connections.iter().enumerate();
        // At the start they go into engine and server by another way; what is wrong with them is found here.
        let issuer = issuer::settings(config, public_url)?;
        let sessions = sessions::settings(config, issuer.as_ref(), public_url)?;
        config.compat.settings()?;
        Ok(Self {
            keys: keys.map(|(i, k)| api_key(k).with_context(|| numbered("key", i))).collect::<Result<_>>()?,
            admin_key: admin_key(environment)?,
            integrations: integrations
                .map(|(i, x)| integration(x).with_context(|| numbered("integration", i)))
                .collect::<Result<_>>()?,
            seeds: seeds
                .map(|(i, s)| seed(s, environment).with_context(|| numbered("connection", i)))
                .collect::<Result<_>>()?,
            issuer,
            sessions,
        })
    }

    /// Brings it to the engine. Answers the first admin key where one was made, to be shown once.
    pub(crate) async fn apply(self, engine: &Engine) -> Result<Option<Secret>> {
        sync(self.integrations, self.keys, engine).await?;
        for seed in self.seeds {
            plant(engine, seed).await?;
        }
        engine.keys().ensure_first_admin(self.admin_key).await.context("the first admin key cannot be made")
    }

    /// Brings what may change while the server runs to the engine: the secrets of keys, integrations, clients and
    /// resources.
    pub(super) async fn renew(self, engine: &Engine) -> Result<()> {
        if let Some(sessions) = &self.sessions {
            sessions::look_around(sessions, engine).await?;
        }
        sync(self.integrations, self.keys, engine).await?;
        engine.renew_secrets(self.issuer.as_ref(), self.sessions.as_ref()).await;
        Ok(())
    }
}

async fn sync(integrations: Vec<ConfigIntegration>, keys: Vec<ConfigKey>, engine: &Engine) -> Result<()> {
    engine.integrations().sync_config(integrations).await.context("[[integration]] cannot be taken over")?;
    engine.keys().sync_config(keys).await.context("[[key]] cannot be taken over")
}

async fn plant(engine: &Engine, seed: Seed) -> Result<()> {
    let Seed { connection, variable, refresh_token } = seed;
    let Some(refresh_token) = refresh_token else {
        match engine.connections().status(&Caller::Local, &connection).await {
            Ok(_) => tracing::info!(%connection, "{variable} is not set; the stored tokens are used"),
            Err(tokenkeep_engine::Error::NotFound { .. }) => {
                tracing::warn!(%connection, "{variable} is not set and nothing is stored: there are no tokens to serve");
            }
            Err(error) => return Err(error).with_context(|| format!("{connection} cannot be looked at")),
        }
        return Ok(());
    };
    let seeded = engine.connections().seed(&connection, refresh_token).await;
    match seeded.with_context(|| format!("{connection} cannot be seeded from {variable}"))? {
        Seeded::Stored => tracing::info!(%connection, "seeded from {variable}"),
        Seeded::Kept => tracing::info!(%connection, "the stored tokens are used; {variable} was only the seed"),
        Seeded::Ignored => tracing::warn!(
            %connection,
            "{variable} differs from what {connection} was seeded with and is ignored: the stored tokens are used. \
             Delete the connection to begin with the variable again"
        ),
    }
    Ok(())
}

fn admin_key(environment: &Environment) -> Result<Option<Secret>> {
    match (environment.text("TOKENKEEP_ADMIN_KEY")?, environment.os("TOKENKEEP_ADMIN_KEY_FILE")) {
        (Some(_), Some(_)) => bail!("TOKENKEEP_ADMIN_KEY and TOKENKEEP_ADMIN_KEY_FILE are both set; keep one"),
        (Some(key), None) => Ok(Some(Secret::from(key))),
        (None, Some(file)) => {
            read_secret_file(file.as_ref()).map(Some).context("TOKENKEEP_ADMIN_KEY_FILE cannot be used")
        }
        (None, None) => Ok(None),
    }
}

fn api_key(key: &ApiKey) -> Result<ConfigKey> {
    let name = required("name", key.name.as_ref())?.to_owned();
    let word = required("role", key.role.as_ref())?;
    let Some(role) = Role::ALL.into_iter().find(|role| role.as_str() == word) else {
        bail!("`role` must be one of `admin`, `operator`, `application`, `reader`");
    };
    let secret = secret("secret", key.secret.as_ref(), key.secret_file.as_deref())?;
    let tenants = set(key.tenants.as_deref(), Tenant::new).context("`tenants`")?;
    let providers = set(key.providers.as_deref(), IntegrationId::new).context("`providers`")?;
    Ok(ConfigKey {
        key: NewKey { name, role, tenants, providers },
        secret: secret.ok_or_else(|| anyhow!("`secret` (or `secret_file`) is missing"))?,
    })
}

fn set<T: Ord, E>(names: Option<&[String]>, new: impl Fn(&str) -> Result<T, E>) -> Result<Option<BTreeSet<T>>, E> {
    names.map(|names| names.iter().map(|name| new(name)).collect()).transpose()
}

fn integration(from: &Integration) -> Result<ConfigIntegration> {
    let id = match (&from.id, &from.provider) {
        (Some(id), _) | (None, Some(id)) => IntegrationId::new(id)?,
        (None, None) => bail!("`id` is missing (it may be left out where `provider` is named)"),
    };
    let grant = match from.grant.as_deref() {
        None => tokenkeep_core::ConnectGrant::default(),
        Some(word) => serde_json::from_value(word.into()).map_err(|_| {
            anyhow!("`grant` must be one of `authorization_code`, `client_credentials`, `jwt_bearer`, `device_code`")
        })?,
    };
    let signing_key = secret("signing_key", from.signing_key.as_ref(), from.signing_key_file.as_deref())?;
    let integration = PutIntegration {
        provider: from.provider.as_deref().map(ProviderId::new).transpose()?,
        issuer: from.issuer.clone(),
        tenant: from.tenant.as_deref().map(Tenant::new).transpose()?,
        client_id: required("client_id", from.client_id.as_ref())?.to_owned(),
        client_secret: secret("client_secret", from.client_secret.as_ref(), from.client_secret_file.as_deref())?,
        grant,
        signing_key: signing_key.map(|key| ClientSigningKey {
            key,
            key_id: from.signing_key_id.clone(),
            issuer: from.signing_key_issuer.clone(),
        }),
        scope: from.scope.clone(),
        params: from.params.clone(),
        api_hosts: from.api_hosts.clone(),
        redirect_uri: from
            .redirect_uri
            .as_deref()
            .map(Url::parse)
            .transpose()
            .context("`redirect_uri` must be an absolute URL")?,
    };
    Ok(ConfigIntegration { id, integration })
}

fn seed(from: &SeededConnection, environment: &Environment) -> Result<Seed> {
    let connection = ConnectionId {
        integration: IntegrationId::new(required("provider", from.provider.as_ref())?)?,
        tenant: Tenant::new(&from.tenant)?,
        subject: from.subject.parse()?,
    };
    let variable = required("refresh_token_env", from.refresh_token_env.as_ref())?.to_owned();
    let refresh_token = environment.text(&variable)?.map(Secret::from);
    Ok(Seed { connection, variable, refresh_token })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read<const N: usize>(text: &str, pairs: [(&str, &str); N]) -> Result<Installation> {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("t.toml");
        std::fs::write(&path, text).unwrap();
        let environment = Environment::from(pairs);
        Installation::read(&Config::load(Some(&path), &environment)?, &environment)
    }

    #[test]
    fn everything_that_can_be_said_of_an_integration_arrives() {
        let text = r#"
            [[integration]]
            provider = "microsoft"
            client_id = "c"
            client_secret = "s"
            grant = "device_code"
            params = { tenant = "contoso" }
            [[connection]]
            provider = "qontak"
            refresh_token_env = "QONTAK"
            [[key]]
            name = "mailer"
            role = "reader"
            tenants = ["acme"]
            secret = "tk_x"
        "#;
        let installation = read(text, [("QONTAK", "r1")]).unwrap();
        let ConfigIntegration { id, integration: put } = &installation.integrations[0];
        assert_eq!(id.as_str(), "microsoft");
        assert_eq!(put.params["tenant"], "contoso");
        assert!(put.client_secret.is_some());
        assert_eq!(installation.seeds[0].connection.to_string(), "qontak/_default/_default");
        assert!(installation.seeds[0].refresh_token.is_some());
        assert!(installation.keys[0].key.tenants.as_ref().unwrap().len() == 1);
    }

    #[test]
    fn what_is_missing_or_wrong_is_named() {
        for (text, says) in [
            ("[[integration]]\nprovider = \"google\"", "`client_id`"),
            ("[[integration]]\nclient_id = \"x\"", "`id`"),
            ("[[integration]]\nid = \"Google\"\nclient_id = \"x\"", "lower-case"),
            ("[[integration]]\nid = \"google\"\nclient_id = \"x\"\ngrant = \"password\"", "`grant`"),
            (
                "[[integration]]\nid = \"a\"\nclient_id = \"x\"\nclient_secret = \"x\"\nclient_secret_file = \"y\"",
                "both set",
            ),
            ("[[key]]\nname = \"x\"\nrole = \"root\"\nsecret = \"x\"", "`role`"),
            ("[[key]]\nname = \"x\"\nrole = \"admin\"", "`secret`"),
            ("[[connection]]\nprovider = \"x\"", "`refresh_token_env`"),
        ] {
            let said = format!("{:#}", read(text, []).expect_err(text));
            assert!(said.contains(says) && said.contains("number 1") && said.contains("t.toml"), "{said}");
        }
    }
}
