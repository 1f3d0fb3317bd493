//! How it is known who signed in at a provider. Data only.
//!
//! What is read is JSON: the claims of an ID token, or what an endpoint says of the holder of an access token. Members
//! are named by JSON pointers (RFC 6901).

/// How it is known who signed in.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Identity<U = String> {
    /// Where it is said.
    pub source: IdentitySource,
    /// The issuer of the ID tokens, where it is not [`super::Provider::issuer`]. `{claim}` stands for a claim of the
    /// token itself: Microsoft's names the directory that the user is in.
    pub issuer: Option<String>,
    /// What, taken together, never changes and is never given to somebody else.
    pub subject: Vec<String>,
    /// What to call them; the first that is there counts.
    pub name: Vec<String>,
    /// Whether no two accounts have the same name at one time, so that rules may go by it.
    pub unique_name: bool,
    /// Their e-mail address.
    pub email: Option<EmailSource<U>>,
    /// The organisations they belong to.
    pub organizations: Option<OrganizationSource<U>>,
    /// Scopes without which it is not said; added to whatever is asked for.
    pub scope: Option<String>,
}

/// Where it is said who signed in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum IdentitySource {
    /// In the ID token (OIDC Core 2). What it lacks of name and address is asked of the userinfo endpoint, if there is
    /// one.
    IdToken,
    /// At [`super::Provider::userinfo_url`].
    Userinfo,
}

/// Where an e-mail address is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct EmailSource<U = String> {
    /// A list of addresses; `None` = it stands beside the subject.
    pub url: Option<U>,
    /// The address.
    pub address: String,
    /// What says that the provider vouches for it.
    pub verified: String,
    /// In a list: what says that it is the account's own.
    pub primary: Option<String>,
}

/// Where organisations are.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct OrganizationSource<U = String> {
    /// A list of them; `None` = they stand beside the subject, as a text or as a list of texts.
    pub url: Option<U>,
    /// What an organisation is called, or where the texts are.
    pub name: String,
    /// A scope without which they are not said; asked for where a rule needs it.
    pub scope: Option<String>,
}

impl<U> Identity<U> {
    /// As OIDC Core 5.1 has it.
    pub fn oidc() -> Self {
        Self {
            source: IdentitySource::IdToken,
            issuer: None,
            subject: vec!["/sub".to_owned()],
            name: ["/preferred_username", "/name", "/email"].map(str::to_owned).into(),
            unique_name: false,
            email: Some(EmailSource {
                url: None,
                address: "/email".to_owned(),
                verified: "/email_verified".to_owned(),
                primary: None,
            }),
            organizations: None,
            scope: Some("openid email profile".to_owned()),
        }
    }
}

impl Identity {
    /// The same with its URLs filled in.
    pub(super) fn resolve<V, E>(&self, fill: impl Fn(&str) -> Result<V, E>) -> Result<Identity<V>, E> {
        let Self { source, issuer, subject, name, unique_name, email, organizations, scope } = self.clone();
        let url = |template: Option<String>| template.as_deref().map(&fill).transpose();
        let email = match email {
            None => None,
            Some(EmailSource { url: template, address, verified, primary }) => {
                Some(EmailSource { url: url(template)?, address, verified, primary })
            }
        };
        let organizations = match organizations {
            None => None,
            Some(OrganizationSource { url: template, name, scope }) => {
                Some(OrganizationSource { url: url(template)?, name, scope })
            }
        };
        Ok(Identity { source, issuer, subject, name, unique_name, email, organizations, scope })
    }
}
