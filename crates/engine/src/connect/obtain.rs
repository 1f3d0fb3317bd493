//! Talking to the token endpoint on behalf of a connect: what was sent, and what came of it, in stable words.

use secrecy::ExposeSecret;
use tokenkeep_core::{
    AccessToken, AuthorizationRequest, ConnectId, ConnectionId, RenewBy, TokenSet,
    authorization_request::Obtained,
    ports::{Reply, Request},
    refresh::Fault,
};
use tokenkeep_oauth::{
    ErrorCode, Secret,
    device::{DeviceAuthorization, build_device_request, parse_device_response},
    dialect::RefreshRequest,
    id_token::{Expected, IdTokenError, Identity, parse_direct_id_token},
    token::{
        Grant, RequestContext, TokenFailure, TokenReply, TokenRequest, build_long_lived_swap, parse_code_response,
        parse_token_response,
    },
};

use super::Connect;
use crate::{
    Error,
    connections::{PROVIDER_RETRY, exchange},
    integrations::Party,
    metrics::UpstreamCall,
};

/// Why nothing was obtained. Holds no text of the provider's: a word of the error registry's, or one of ours.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Failure {
    /// The user said no.
    Denied,
    /// The provider refuses our client.
    Client(String),
    /// The provider refuses this.
    Refused(String),
    /// The provider was not reached, or gave no outcome.
    Unavailable,
    /// The integration lacks something.
    Misconfigured(String),
    /// The device's user has not decided yet; slower polling was asked for, or seems wise.
    NotYet { slow_down: bool },
}

impl Failure {
    /// The stable word for it.
    pub(crate) fn code(&self) -> String {
        match self {
            Self::Denied => "access_denied".to_owned(),
            Self::Client(_) => "integration_rejected".to_owned(),
            Self::Refused(code) => code.clone(),
            Self::Unavailable | Self::NotYet { .. } => "provider_unavailable".to_owned(),
            Self::Misconfigured(_) => "misconfigured".to_owned(),
        }
    }

    pub(super) fn blame(self, id: &ConnectionId) -> Error {
        let integration = id.integration.clone();
        match self {
            Self::Client(code) => Error::IntegrationRejected { integration, code },
            Self::Denied | Self::Refused(_) => Error::ProviderRejected { integration, code: self.code() },
            Self::Misconfigured(detail) => Error::invalid(detail),
            Self::Unavailable | Self::NotYet { .. } => Error::ProviderUnavailable {
                integration,
                detail: "the provider does not answer, or not sensibly".to_owned(),
                retry_after: PROVIDER_RETRY,
            },
        }
    }
}

impl From<Fault> for Failure {
    fn from(fault: Fault) -> Self {
        Self::Misconfigured(fault.detail())
    }
}

/// What a code brought.
pub(crate) struct Redeemed {
    /// `None` where only the companion's were granted.
    pub(crate) tokens: Option<TokenSet>,
    pub(crate) companion: Option<TokenSet>,
    pub(crate) id_token: Option<Secret>,
}

/// A word that is safe to hand on: one of the registry's.
pub(super) fn known_word(code: &ErrorCode) -> String {
    let known = ErrorCode::REGISTRY.contains(code);
    if known { code.as_str().to_owned() } else { "provider_rejected".to_owned() }
}

/// `{id}.{secret}`.
pub(super) fn named(id: ConnectId, secret: &Secret) -> Secret {
    format!("{id}.{}", secret.expose_secret()).into()
}

/// What is handed out on purpose.
pub(super) fn shown(secret: &Secret) -> &str {
    secret.expose_secret()
}

impl Connect {
    /// Exchanges a code for tokens, and for who consented. Whoever calls this has made sure that nobody else does.
    pub(super) async fn by_code(
        &self,
        party: &Party,
        request: &AuthorizationRequest,
        code: Secret,
        verifier: Option<Secret>,
        nonce: Option<&Secret>,
    ) -> Result<Obtained, Failure> {
        let redirect_uri = request.redirect_uri.as_str().to_owned();
        let grant = Grant::AuthorizationCode { code, redirect_uri, verifier };
        let Redeemed { tokens, companion, id_token } = self.redeem(party, &grant, request.scope.as_deref()).await?;
        let display_name = self.identity(party, id_token.as_ref(), nonce)?;
        let obtained = Obtained { tokens, companion, display_name };
        if request.same_account {
            self.check_account(party, request, &obtained, id_token.as_ref(), nonce).await?;
        }
        Ok(obtained)
    }

    /// Exchanges a code. Whoever calls this has made sure that nobody else does.
    pub(crate) async fn redeem(&self, party: &Party, grant: &Grant, scope: Option<&str>) -> Result<Redeemed, Failure> {
        let reply = self.ask(party, grant).await?;
        let now = self.shared.now().wall;
        let provider = &party.provider;
        let (dialect, life) = (&provider.dialect, provider.default_lifetime);
        let parsed = parse_code_response(dialect, reply.status, &reply.headers, &reply.body, now, life);
        let parsed = parsed.map_err(|failure| self.judge(party, &failure))?;
        self.connections.integrations.accepted(party);
        let mut id_token = None;
        let mut tokens = None;
        if let Some(mut reply) = parsed.tokens {
            id_token = reply.id_token.take();
            if dialect.long_lived.is_some() {
                reply = self.swap(party, &reply.access_token).await?;
            }
            tokens = Some(self.token_set(party, reply, scope));
        }
        let companion = parsed.companion.map(|reply| self.token_set(party, reply, None));
        Ok(Redeemed { tokens, companion, id_token })
    }

    /// Exchanges a grant that needs no browser.
    pub(super) async fn obtain(&self, party: &Party, grant: &Grant) -> Result<TokenSet, Failure> {
        let reply = self.ask(party, grant).await?;
        Ok(self.token_set(party, self.read(party, &reply)?, None))
    }

    /// Polls once for a device's consent (RFC 8628 3.4).
    pub(super) async fn by_device(
        &self,
        party: &Party,
        request: &AuthorizationRequest,
        device_code: Secret,
    ) -> Result<Obtained, Failure> {
        let reply = self.ask(party, &Grant::DeviceCode { device_code }).await?;
        let reply = self.read(party, &reply)?;
        let display_name = self.identity(party, reply.id_token.as_ref(), None)?;
        let tokens = Some(self.token_set(party, reply, request.scope.as_deref()));
        Ok(Obtained { tokens, companion: None, display_name })
    }

    /// Asks for a code to show to a device's user (RFC 8628 3.1).
    pub(super) async fn ask_for_device(
        &self,
        party: &Party,
        scope: Option<&str>,
    ) -> Result<DeviceAuthorization, Failure> {
        let provider = &party.provider;
        let url = provider.device_authorization_url.as_ref();
        let url = url.ok_or_else(|| Failure::Misconfigured("there is no device authorization endpoint".to_owned()))?;
        let mut entropy = [0; 16];
        self.shared.entropy.fill(&mut entropy);
        let context = RequestContext::new(self.shared.now().wall, entropy, &provider.params);
        let built = build_device_request(&provider.dialect, url, &party.client, scope, &context)
            .map_err(|error| Failure::Misconfigured(error.to_string()))?;
        self.shared.metrics.called(&party.integration.id, UpstreamCall::device);
        let reply = self.send(built).await?;
        let now = self.shared.now().wall;
        let parsed = parse_device_response(&provider.dialect, reply.status, &reply.headers, &reply.body, now);
        let device = parsed.map_err(|failure| self.judge(party, &failure))?;
        self.connections.integrations.accepted(party);
        Ok(device)
    }

    /// Swaps a code's short-lived access token for one that lasts.
    async fn swap(&self, party: &Party, access_token: &Secret) -> Result<TokenReply, Failure> {
        let provider = &party.provider;
        let url = provider.dialect.long_lived.as_ref().and_then(|swap| swap.url.parse().ok());
        let url = url.ok_or_else(|| Failure::Misconfigured("there is nowhere to swap the token at".to_owned()))?;
        let mut entropy = [0; 16];
        self.shared.entropy.fill(&mut entropy);
        let context = RequestContext::new(self.shared.now().wall, entropy, &provider.params);
        let built = build_long_lived_swap(&provider.dialect, &url, &party.client, access_token, &context)
            .map_err(|error| Failure::Misconfigured(error.to_string()))?;
        self.shared.metrics.called(&party.integration.id, UpstreamCall::exchange);
        let reply = self.send(built).await?;
        self.read(party, &reply)
    }

    async fn ask(&self, party: &Party, grant: &Grant) -> Result<Reply, Failure> {
        let url = party.provider.token_url.as_ref();
        let url = url.ok_or_else(|| Failure::Misconfigured("there is no token endpoint".to_owned()))?;
        let request = exchange::request(&self.shared, party, grant, url)?;
        self.shared.metrics.called(&party.integration.id, UpstreamCall::exchange);
        self.fetch(request).await
    }

    async fn send(&self, built: TokenRequest) -> Result<Reply, Failure> {
        self.fetch(Request { method: built.method, url: built.url, headers: built.headers, body: built.body }).await
    }

    pub(crate) async fn fetch(&self, request: Request) -> Result<Reply, Failure> {
        let shown = format!("{request:?}");
        self.shared.fetch(request).await.map_err(|error| {
            tracing::warn!(request = shown, %error, "a provider was not reached");
            Failure::Unavailable
        })
    }

    fn read(&self, party: &Party, reply: &Reply) -> Result<TokenReply, Failure> {
        let (dialect, life) = (&party.provider.dialect, party.provider.default_lifetime);
        let now = self.shared.now().wall;
        let parsed = parse_token_response(dialect, reply.status, &reply.headers, &reply.body, now, life);
        let tokens = parsed.map_err(|failure| self.judge(party, &failure))?;
        self.connections.integrations.accepted(party);
        Ok(tokens)
    }

    fn judge(&self, party: &Party, failure: &TokenFailure) -> Failure {
        let integration = &party.integration.id;
        match failure {
            TokenFailure::DevicePending => return Failure::NotYet { slow_down: false },
            TokenFailure::SlowDown => return Failure::NotYet { slow_down: true },
            _ => tracing::warn!(%integration, %failure, "a connect was refused"),
        }
        match failure {
            TokenFailure::ClientRejected { code } => {
                self.connections.integrations.rejected(party, code.as_str());
                Failure::Client(code.to_string())
            }
            TokenFailure::Rejected { code } if *code == ErrorCode::ACCESS_DENIED => Failure::Denied,
            TokenFailure::InvalidGrant { .. } => Failure::Refused("invalid_grant".to_owned()),
            TokenFailure::Rejected { code } => Failure::Refused(known_word(code)),
            TokenFailure::DeviceExpired => Failure::Refused(super::EXPIRED.to_owned()),
            _ => Failure::Unavailable,
        }
    }

    fn token_set(&self, party: &Party, reply: TokenReply, asked: Option<&str>) -> TokenSet {
        let renewal = match (reply.refresh_token, &party.provider.dialect.refresh) {
            (Some(token), _) => Some(exchange::refresh_token(&self.shared, token)),
            (None, RefreshRequest::AccessTokenByGet { .. } | RefreshRequest::AccessTokenExchange { .. }) => {
                Some(exchange::lasting(&self.shared, RenewBy::AccessToken))
            }
            (None, _) => None,
        };
        let access = AccessToken {
            token: reply.access_token,
            token_type: reply.token_type,
            issued_at: self.shared.now().wall,
            expires_at: reply.expires_at,
        };
        // RFC 6749 5.1: what the reply does not say is what was asked for.
        let scope = reply.scope.or_else(|| asked.map(str::to_owned));
        TokenSet { access: Some(access), renewal, scope }
    }

    /// Who consented, if the provider says so. One that answers another request, or another client, is an attack; what
    /// else may be wrong with it (the catalogue's issuer, a clock) only costs the name, for nobody signs in by it here.
    fn identity(
        &self,
        party: &Party,
        id_token: Option<&Secret>,
        nonce: Option<&Secret>,
    ) -> Result<Option<String>, Failure> {
        let (Some(id_token), Some(issuer)) = (id_token, party.provider.issuer.as_deref()) else { return Ok(None) };
        let expected = Expected { issuer, client_id: &party.client.id, nonce };
        match parse_direct_id_token(id_token, expected, self.shared.now().wall) {
            Ok(Identity { email, name, .. }) => Ok(email.or(name)),
            Err(IdTokenError::Nonce | IdTokenError::Audience) => Err(Failure::Refused("id_token_invalid".to_owned())),
            Err(error) => {
                tracing::warn!(integration = %party.integration.id, %error, "an ID token is not believed");
                Ok(None)
            }
        }
    }
}
