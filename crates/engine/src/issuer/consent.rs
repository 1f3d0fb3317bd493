//! The consent page: who asks for what, the user's yes, the user's no.
//!
//! It is shown for every request, before anybody is sent to sign in. What the page's form brings back is bound to the
//! browser that it was shown to: by a cookie, and by a token that goes with it.

use std::collections::BTreeSet;

use aws_lc_rs::constant_time::verify_slices_are_equal;
use base64::{Engine as _, prelude::BASE64_URL_SAFE_NO_PAD};
use secrecy::ExposeSecret as _;
use tokenkeep_core::{ClientId, ClientOrigin, Interaction, InteractionId};
use tokenkeep_oauth::{
    Secret,
    issuer::{
        authorize::redirect_origin,
        error::OAuthError,
        redirect_uri::{RedirectKind, RedirectUri, shown_host},
        resource::Resource,
    },
};
use url::Url;

use super::{Issuer, Upstream};
use crate::{Error, connect::is_drawn};

/// What a form calls signing in with an admin key. No integration's id begins with `_`.
pub const ADMINISTRATOR: &str = "_administrator";

/// What the consent page says: everything that a person needs to judge by.
#[derive(Clone, Debug)]
pub struct ConsentPage {
    /// Which request.
    pub interaction: InteractionId,
    /// Who asks.
    pub client_id: ClientId,
    /// What it calls itself. Anybody may claim any name.
    pub client_name: Option<String>,
    /// Whose document describes it, where one does: that much is proven.
    pub client_host: Option<String>,
    /// Its home page, as it says.
    pub client_uri: Option<Url>,
    /// Where the answer goes.
    pub redirect_host: String,
    /// Whether that is a program on the user's own machine: any could be listening.
    pub loopback: bool,
    /// Whether that is whatever program claimed a scheme.
    pub private_scheme: bool,
    /// Where the access may be used.
    pub resource: Resource,
    /// What that is called.
    pub resource_name: Option<String>,
    /// What is asked for.
    pub scopes: Vec<String>,
    /// The clients that will then be able to use the user's account where they sign in, for people (RFC 8693).
    pub exchangers: Vec<String>,
    /// Whether the resource itself works with that account.
    pub resource_uses_account: bool,
    /// Where the user can sign in.
    pub upstreams: Vec<UpstreamChoice>,
    /// What the form must bring back.
    pub csrf: Secret,
    /// The cookie to set with the page.
    pub browser: Secret,
    /// The origins that the form may lead to, for the page's content security policy.
    pub form_action: Vec<String>,
}

/// One place to sign in.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct UpstreamChoice {
    /// What the form sends: an integration's id, or [`ADMINISTRATOR`].
    pub id: String,
    /// For people.
    pub name: String,
}

/// What comes after a yes.
#[derive(Debug)]
pub enum Next {
    /// The browser goes there to sign in.
    Upstream(Url),
    /// An admin key is asked for, on our page.
    Administrator,
    /// The browser goes back to the client, with an error.
    Answer(Secret),
}

impl Issuer {
    /// What the page says. `browser` is the cookie that the browser has from an earlier page, if any.
    pub async fn consent(&self, id: &InteractionId, browser: Option<Secret>) -> Result<ConsentPage, Error> {
        let interaction = self.open_here(id).await?;
        let client = self.client(interaction.client.as_str()).await?;
        let client = client.ok_or_else(|| Error::not_found("client", &interaction.client))?;
        let browser = browser.filter(is_drawn).unwrap_or_else(|| self.connect.draw());
        let (upstreams, origins) = self.choices(&interaction.resource).await?;
        let exchangers = self.names_of(&interaction.exchangers).await?;
        let known = self.settings.resource(&interaction.resource);
        let kind = RedirectUri::register(&interaction.redirect_uri).ok().map(|uri| uri.kind());
        let document = (client.origin == ClientOrigin::Document).then(|| Url::parse(client.id.as_str()).ok()).flatten();
        Ok(ConsentPage {
            interaction: *id,
            client_id: client.id.clone(),
            client_name: client.metadata.client_name.clone(),
            client_host: document.and_then(|url| url.host_str().map(str::to_owned)),
            client_uri: client.metadata.client_uri.clone(),
            redirect_host: shown_host(&interaction.redirect_uri),
            loopback: kind == Some(RedirectKind::Loopback),
            private_scheme: kind == Some(RedirectKind::PrivateUse),
            resource_name: known.and_then(|known| known.name.clone()),
            resource_uses_account: known.is_some_and(|known| known.needs_upstream),
            scopes: interaction.scope.iter().map(str::to_owned).collect(),
            exchangers,
            upstreams,
            csrf: self.csrf(&browser, id),
            browser,
            form_action: redirect_origin(&interaction.redirect_uri).into_iter().chain(origins).collect(),
            resource: interaction.resource,
        })
    }

    /// The user says yes, and where to sign in; `None` = at the first there is.
    pub async fn approve(
        &self,
        id: &InteractionId,
        browser: Option<Secret>,
        csrf: &str,
        upstream: Option<&str>,
    ) -> Result<Next, Error> {
        let browser = self.check_form(id, browser, csrf)?;
        let interaction = self.open_here(id).await?;
        let upstreams = self.settings.upstreams_of(&interaction.resource);
        let chosen = match (upstream, upstreams.first()) {
            (_, None) => {
                let error = OAuthError::server_error("there is nowhere to sign in");
                return Ok(Next::Answer(self.refuse(&interaction, &error, "no upstream").await?));
            }
            (None, Some(first)) => first,
            (Some(id), Some(_)) => upstream_of(upstreams, id)?,
        };
        tracing::info!(
            target: "audit", action = "consent_given", interaction = %id, client = %interaction.client,
            scope = %interaction.scope, resource = %interaction.resource, exchangers = ?interaction.exchangers,
        );
        match chosen {
            Upstream::LocalAdministrator => Ok(Next::Administrator),
            Upstream::Integration(integration) => {
                self.send_upstream(&interaction, integration, &browser).await.map(Next::Upstream)
            }
        }
    }

    /// The user says no. Answers where the browser goes.
    pub async fn deny(&self, id: &InteractionId, browser: Option<Secret>, csrf: &str) -> Result<Secret, Error> {
        self.check_form(id, browser, csrf)?;
        let interaction = self.open_here(id).await?;
        self.refuse(&interaction, &OAuthError::access_denied("the user said no"), "user").await
    }

    /// A form of ours came back from the browser that it was shown to. Answers that browser's cookie.
    pub(super) fn check_form(&self, id: &InteractionId, browser: Option<Secret>, csrf: &str) -> Result<Secret, Error> {
        let browser = browser.filter(is_drawn);
        let is_ours = |browser: &Secret| {
            verify_slices_are_equal(self.csrf(browser, id).expose_secret().as_bytes(), csrf.as_bytes()).is_ok()
        };
        browser.filter(is_ours).ok_or_else(|| {
            tracing::warn!(target: "audit", action = "consent_refused", interaction = %id, reason = "another browser");
            Error::Forbidden("this form was not shown to this browser, or it keeps no cookies: start again".into())
        })
    }

    fn csrf(&self, browser: &Secret, id: &InteractionId) -> Secret {
        let hash = self.shared.records.barrier().hashes().csrf(browser, &id.to_string());
        BASE64_URL_SAFE_NO_PAD.encode(hash).into()
    }

    /// What to call those clients. The operator named them, and may make them later.
    async fn names_of(&self, clients: &BTreeSet<ClientId>) -> Result<Vec<String>, Error> {
        let mut names = Vec::with_capacity(clients.len());
        for id in clients {
            let client = self.client(id.as_str()).await?;
            let name = client.and_then(|client| client.metadata.client_name.clone());
            names.push(name.unwrap_or_else(|| id.to_string()));
        }
        Ok(names)
    }

    /// Where people can sign in for `resource`, and the origins that they are sent to.
    async fn choices(&self, resource: &Resource) -> Result<(Vec<UpstreamChoice>, BTreeSet<String>), Error> {
        let (mut choices, mut origins) = (Vec::new(), BTreeSet::new());
        for upstream in self.settings.upstreams_of(resource) {
            let Upstream::Integration(id) = upstream else {
                choices.push(UpstreamChoice { id: ADMINISTRATOR.to_owned(), name: "Administrator".to_owned() });
                continue;
            };
            match self.connections.party(id).await {
                Ok(Some(party)) => {
                    origins.extend(party.provider.authorize_url.as_ref().map(|url| url.origin().ascii_serialization()));
                    choices.push(UpstreamChoice { id: id.to_string(), name: party.provider_name.clone() });
                }
                Ok(None) => {
                    tracing::error!(integration = %id, "`[[issuer.upstream]]` names an integration that is not there");
                }
                Err(error @ Error::StoreUnavailable { .. }) => return Err(error),
                // Another may do; whoever chooses this one is told.
                Err(error) => {
                    tracing::warn!(integration = %id, %error, "nobody can sign in there at present");
                    choices.push(UpstreamChoice { id: id.to_string(), name: id.to_string() });
                }
            }
        }
        Ok((choices, origins))
    }

    /// The interaction, if its user is asked by us, and can still be.
    pub(super) async fn open_here(&self, id: &InteractionId) -> Result<Interaction, Error> {
        if self.settings.interaction_url.is_some() {
            return Err(Error::not_found("interaction", id));
        }
        self.open_interaction(id).await
    }
}

/// The place that the form named.
fn upstream_of<'a>(upstreams: &'a [Upstream], id: &str) -> Result<&'a Upstream, Error> {
    let is_meant = |upstream: &&Upstream| match upstream {
        Upstream::Integration(integration) => integration.as_str() == id,
        Upstream::LocalAdministrator => id == ADMINISTRATOR,
    };
    upstreams.iter().find(is_meant).ok_or_else(|| Error::invalid("nobody signs in there: choose one of the list"))
}
