use tokenkeep_core::{
    Action, AuthorizationRequest, ConnectGrant, ConnectId, ConnectionId, RenewBy, Role, Subject, Tenant,
    authorization_request::{DevicePoll, Obtained, Outbound, ProofHash, REQUEST_LIFE, Stage},
    ports::{Filter, LabelName, Scope},
    time::{after, between},
};
use tokenkeep_oauth::{Secret, token::Grant};
use url::Url;

use super::{Connect, ConnectStatus, Device, StartConnect, Started, audit, obtain, provider_page::wanted_scope};
use crate::{
    Caller, Error,
    connections::exchange,
    integrations::Party,
    records::{Item, Loaded},
};

/// So many connects of one connection may wait for their user at once.
const MAX_OPEN: usize = 100;
const MAX_SCOPE: usize = 4096;

/// What must hold of whoever consents, before anything is attached.
#[derive(Clone, Copy, Debug)]
pub(super) struct Proof {
    pub(super) confirm: bool,
    pub(super) same_account: bool,
}

impl Connect {
    /// Starts a connect, in the way of the connection's integration: with a link, with a code for another device, or,
    /// where nobody consents, by obtaining the first token at once.
    pub async fn start(&self, caller: &Caller, start: StartConnect) -> Result<Started, Error> {
        let id = &start.connection;
        caller.may_at(Action::Connect, &id.integration, &id.tenant)?;
        let party = self.party(id).await?;
        if let Some(scope) = &start.scope
            && (scope.len() > MAX_SCOPE || !scope.bytes().all(|b| b.is_ascii_graphic() || b == b' '))
        {
            return Err(Error::invalid("`scope` must be printable ASCII, separated by spaces"));
        }
        if let Some(return_to) = &start.return_to {
            self.check_return(return_to)?;
        }
        if let Some(companion) = &party.provider.dialect.companion {
            Subject::new(&format!("{}{}", id.subject, companion.subject_suffix))?;
        }
        match party.integration.grant {
            ConnectGrant::AuthorizationCode => self.start_in_browser(caller, start, &party).await,
            ConnectGrant::DeviceCode => self.start_on_device(caller, start, &party).await,
            ConnectGrant::ClientCredentials | ConnectGrant::JwtBearer => self.start_alone(caller, start, &party).await,
        }
    }

    async fn start_in_browser(&self, caller: &Caller, start: StartConnect, party: &Party) -> Result<Started, Error> {
        if party.provider.authorize_url.is_none() {
            let name = &party.provider_name;
            return Err(Error::invalid(format!("{name} has no page to consent on: store its tokens with PUT")));
        }
        let by_application = matches!(caller, Caller::Key(key) if key.role == Role::Application);
        let confirm = start.confirm.unwrap_or(by_application);
        if confirm && start.return_to.is_none() {
            return Err(Error::invalid("`return_to` is missing: the code to confirm with is sent there"));
        }
        let scope = wanted_scope(party, start.scope.as_deref());
        let proof = Proof { confirm, same_account: false };
        let (id, url) = self.invite(&caller.name(), StartConnect { scope, ..start }, party, proof).await?;
        Ok(Started {
            connect_id: id,
            authorize_url: Some(url),
            device: None,
            expires_in: REQUEST_LIFE,
            status: ConnectStatus::Pending,
        })
    }

    /// Makes the link that begins it.
    pub(super) async fn invite(
        &self,
        by: &str,
        start: StartConnect,
        party: &Party,
        Proof { confirm, same_account }: Proof,
    ) -> Result<(ConnectId, Url), Error> {
        self.check_room(&start.connection).await?;
        let id = ConnectId(self.shared.ulid());
        let hashes = self.shared.records.barrier().hashes();
        let ticket = obtain::named(id, &self.draw());
        let state = self.state_of(id, &ticket);
        let (pkce_verifier, nonce) = self.draw_proofs(party, start.scope.as_deref());
        let outbound = Outbound {
            ticket: ProofHash(hashes.ticket(&ticket)),
            state: ProofHash(hashes.state(&state)),
            pkce_verifier,
            nonce,
        };
        let request =
            AuthorizationRequest { confirm, same_account, ..self.request(id, start, party, Stage::Pending(outbound)) };
        self.make(&request).await?;
        audit("connect_started", by, &request);
        let mut url = self.shared.settings.public_url.clone();
        url.set_path(&format!("/connect/{}", obtain::shown(&ticket)));
        Ok((id, url))
    }

    async fn start_on_device(&self, caller: &Caller, start: StartConnect, party: &Party) -> Result<Started, Error> {
        refuse_confirmation(&start)?;
        self.check_room(&start.connection).await?;
        let scope = wanted_scope(party, start.scope.as_deref());
        let device = self.ask_for_device(party, scope.as_deref()).await.map_err(|f| f.blame(&start.connection))?;
        let now = self.shared.now().wall;
        let id = ConnectId(self.shared.ulid());
        let user_code = Secret::from(device.user_code);
        let poll = DevicePoll {
            device_code: device.device_code,
            user_code: user_code.clone(),
            verification_uri: device.verification_uri.to_string(),
            interval: device.interval,
            next_poll_at: after(now, device.interval),
        };
        let request = AuthorizationRequest {
            scope,
            expires_at: device.expires_at,
            ..self.request(id, start, party, Stage::DevicePolling(poll))
        };
        self.make(&request).await?;
        audit("connect_started", &caller.name(), &request);
        Ok(Started {
            connect_id: id,
            authorize_url: None,
            device: Some(Device {
                user_code,
                verification_uri: device.verification_uri.into(),
                verification_uri_complete: device.verification_uri_complete.map(Into::into),
            }),
            expires_in: between(now, device.expires_at),
            status: ConnectStatus::Pending,
        })
    }

    /// Nobody consents: the integration's own credentials, or its signature, are enough.
    async fn start_alone(&self, caller: &Caller, start: StartConnect, party: &Party) -> Result<Started, Error> {
        refuse_confirmation(&start)?;
        if start.scope.is_some() {
            let text = "`scope` cannot be given here: every refresh asks for the integration's scope";
            return Err(Error::invalid(text));
        }
        let connection = start.connection.clone();
        let scope = party.integration.scope.clone().or_else(|| party.provider.default_scope.clone());
        let url = party.provider.token_url.as_ref().ok_or_else(|| Error::invalid("there is no token endpoint"))?;
        let (grant, by) = if party.integration.grant == ConnectGrant::JwtBearer {
            let assertion = exchange::assertion(&self.shared, party, &connection, scope.as_deref(), url)
                .map_err(|fault| Error::invalid(fault.detail()))?;
            (Grant::JwtBearer { assertion, scope: None }, RenewBy::JwtBearer)
        } else {
            (Grant::ClientCredentials { scope }, RenewBy::ClientCredentials)
        };
        let mut tokens = self.obtain(party, &grant).await.map_err(|failure| failure.blame(&connection))?;
        tokens.renewal = Some(exchange::lasting(&self.shared, by));
        let obtained = Obtained { tokens: Some(tokens), ..Obtained::default() };
        self.attach(&connection, &obtained, true).await?;
        let id = ConnectId(self.shared.ulid());
        let request = self.request(id, start, party, Stage::Connected);
        self.make(&request).await?;
        audit("connected", &caller.name(), &request);
        Ok(Started {
            connect_id: id,
            authorize_url: None,
            device: None,
            expires_in: REQUEST_LIFE,
            status: ConnectStatus::Connected,
        })
    }

    fn request(&self, id: ConnectId, start: StartConnect, party: &Party, stage: Stage) -> AuthorizationRequest {
        let now = self.shared.now().wall;
        AuthorizationRequest {
            id,
            connection: start.connection,
            scope: start.scope,
            return_to: start.return_to,
            confirm: false,
            same_account: false,
            redirect_uri: exchange::redirect_uri(&self.shared, party),
            created_at: now,
            expires_at: after(now, REQUEST_LIFE),
            stage,
        }
    }

    /// Nobody is sent where the installation did not say that its users may go.
    fn check_return(&self, return_to: &Url) -> Result<(), Error> {
        let settings = &self.shared.settings;
        let allowed = |origin: &String| Url::parse(origin).is_ok_and(|url| url.origin() == return_to.origin());
        let origin_fits =
            settings.public_url.origin() == return_to.origin() || settings.return_to_origins.iter().any(allowed);
        let plain = matches!(return_to.scheme(), "http" | "https")
            && return_to.username().is_empty()
            && return_to.password().is_none();
        if origin_fits && plain {
            Ok(())
        } else {
            Err(Error::invalid("the origin of `return_to` is not one of `[connect] return_to_origins`"))
        }
    }

    async fn check_room(&self, id: &ConnectionId) -> Result<(), Error> {
        let records = &self.shared.records;
        let filter = Filter::Label(LabelName::Connection, records.labels().connection(id));
        let scope = Scope::Tenant(Tenant::system());
        let now = self.shared.now().wall;
        let (mut open, mut cursor) = (0, None);
        loop {
            let page = records.list::<AuthorizationRequest>(scope.clone(), filter.clone(), 200, cursor).await?;
            let is_open = |item: &Item<AuthorizationRequest>| match &item.content {
                Ok(Loaded::Live(stored)) => stored.value.is_open(now),
                _ => false,
            };
            open += page.items.iter().filter(|item| is_open(item)).count();
            if open >= MAX_OPEN {
                let what = "too many connects of this connection wait for their user";
                return Err(Error::TooMany { what, retry_after: REQUEST_LIFE });
            }
            cursor = page.next;
            if cursor.is_none() {
                return Ok(());
            }
        }
    }
}

/// Where no browser comes back, there is nothing that a code to confirm with could be sent by.
fn refuse_confirmation(start: &StartConnect) -> Result<(), Error> {
    if start.confirm == Some(true) {
        return Err(Error::invalid("`confirm` needs a browser that comes back, and this integration's grant has none"));
    }
    Ok(())
}
