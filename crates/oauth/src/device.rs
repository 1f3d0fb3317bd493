//! The device authorization grant (RFC 8628): a code is shown here and typed in elsewhere.

use std::time::Duration;

use http::{HeaderMap, StatusCode};
use jiff::Timestamp;
use serde_json::Value;
use url::Url;

use crate::{
    BuildError, Secret,
    client::Client,
    dialect::Dialect,
    endpoint,
    params::Params,
    reply::{number, text},
    text::sanitise,
    token::{RequestContext, TokenFailure, TokenRequest, client_request, judge, set_scope},
};

/// How long to wait between polls where the reply does not say (RFC 8628 3.2).
pub const DEFAULT_INTERVAL: Duration = Duration::from_secs(5);

/// How much slower to poll after each [`TokenFailure::SlowDown`] (RFC 8628 3.5).
pub const SLOW_DOWN: Duration = Duration::from_secs(5);

/// The slowest interval believed: beyond it every code would be dead before the second poll.
const MAX_INTERVAL: Duration = Duration::from_mins(5);

/// The longest life of a device code believed, and the one assumed where the reply does not say.
const MAX_LIFETIME: Duration = Duration::from_hours(1);
const DEFAULT_LIFETIME: Duration = Duration::from_mins(10);

/// Builds the device authorization request (RFC 8628 3.1).
pub fn build_device_request(
    dialect: &Dialect,
    url: &Url,
    client: &Client,
    scope: Option<&str>,
    context: &RequestContext<'_>,
) -> Result<TokenRequest, BuildError> {
    let mut params = Params::new();
    set_scope(dialect, "scope", scope, &mut params);
    client_request(dialect, url, client, context, params)
}

/// What to show, and what to poll with (RFC 8628 3.2). Poll with [`crate::token::Grant::DeviceCode`].
#[derive(Clone, Debug)]
pub struct DeviceAuthorization {
    /// What is polled with.
    pub device_code: Secret,
    /// What the user types in.
    pub user_code: String,
    /// Where the user types it in.
    pub verification_uri: Url,
    /// The same with the code in it, for a link or QR code.
    pub verification_uri_complete: Option<Url>,
    /// When all of this is dead.
    pub expires_at: Timestamp,
    /// How long to wait between polls.
    pub interval: Duration,
}

/// Reads the device authorization response, received at `now`. Both `verification_uri` and the older
/// `verification_url` (Google) are understood.
pub fn parse_device_response(
    dialect: &Dialect,
    status: StatusCode,
    headers: &HeaderMap,
    body: &[u8],
    now: Timestamp,
) -> Result<DeviceAuthorization, TokenFailure> {
    judge(dialect, status, headers, body, now, |top| read(top, now))
}

fn read(top: &Value, now: Timestamp) -> Option<DeviceAuthorization> {
    let url = |name| text(top, name).and_then(|s| endpoint::parse(s).ok());
    let seconds = |name| number(top.get(name)?).and_then(|n| u64::try_from(n).ok()).map(Duration::from_secs);
    let life = seconds("expires_in").unwrap_or(DEFAULT_LIFETIME).min(MAX_LIFETIME);
    Some(DeviceAuthorization {
        device_code: text(top, "device_code")?.into(),
        user_code: sanitise(text(top, "user_code")?),
        verification_uri: url("verification_uri").or_else(|| url("verification_url"))?,
        verification_uri_complete: url("verification_uri_complete").or_else(|| url("verification_url_complete")),
        expires_at: now.checked_add(life).unwrap_or(Timestamp::MAX),
        interval: seconds("interval").unwrap_or(DEFAULT_INTERVAL).clamp(Duration::from_secs(1), MAX_INTERVAL),
    })
}
