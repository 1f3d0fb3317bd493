//! What a request says in its path and its query: decoded exactly once, checked before anything else happens.
//!
//! Paths are taken apart as they came: an encoded slash is part of a name, not a separator.

use std::{borrow::Cow, str::FromStr};

use axum::extract::FromRequestParts;
use http::request::Parts;
use tokenkeep_core::{ConnectionId, IntegrationId, InvalidIdentifier, Subject, Tenant};

use crate::problem::{INVALID_IDENTIFIER, Problem};

/// `/v1/connections/{provider}/{tenant}/{subject}` and whatever follows.
#[derive(Debug)]
pub(crate) struct ConnectionPath(pub(crate) ConnectionId);

/// `/v1/subjects/{tenant}/{subject}`.
#[derive(Debug)]
pub(crate) struct SubjectPath(pub(crate) Tenant, pub(crate) Subject);

/// `/v1/{resource}/{id}` and whatever follows.
#[derive(Debug)]
pub(crate) struct IdPath<T>(pub(crate) T);

/// `/v1/grants/by-token/{jti}`.
#[derive(Debug)]
pub(crate) struct TokenPath(pub(crate) String);

impl<S: Sync> FromRequestParts<S> for TokenPath {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, _: &S) -> Result<Self, Problem> {
        let [_, jti] = names(parts)?;
        Ok(Self(jti.into_owned()))
    }
}

impl<S: Sync> FromRequestParts<S> for ConnectionPath {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, _: &S) -> Result<Self, Problem> {
        let [integration, tenant, subject] = names(parts)?;
        Ok(Self(ConnectionId {
            integration: IntegrationId::new(&integration)?,
            tenant: Tenant::new(&tenant)?,
            subject: Subject::new(&subject)?,
        }))
    }
}

impl<S: Sync> FromRequestParts<S> for SubjectPath {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, _: &S) -> Result<Self, Problem> {
        let [tenant, subject] = names(parts)?;
        Ok(Self(Tenant::new(&tenant)?, Subject::new(&subject)?))
    }
}

impl<S: Sync, T: FromStr<Err = InvalidIdentifier>> FromRequestParts<S> for IdPath<T> {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, _: &S) -> Result<Self, Problem> {
        let [id] = names(parts)?;
        Ok(Self(id.parse()?))
    }
}

/// The `N` names after `/v1/{resource}/`. One that the route has and the path has not is empty.
fn names<const N: usize>(parts: &Parts) -> Result<[Cow<'_, str>; N], Problem> {
    let mut segments = parts.uri.path().split('/').skip(3);
    let mut names = [const { Cow::Borrowed("") }; N];
    for name in &mut names {
        *name = decode(segments.next().unwrap_or_default())?;
    }
    Ok(names)
}

/// One path segment, percent-decoded once.
pub(crate) fn decode(raw: &str) -> Result<Cow<'_, str>, Problem> {
    let invalid = |problem| Problem::new(INVALID_IDENTIFIER, problem);
    if !raw.contains('%') {
        return Ok(Cow::Borrowed(raw));
    }
    let mut decoded = vec![0; raw.len()];
    let length = decode_into(raw, &mut decoded).ok_or_else(|| invalid("a `%` must be followed by two hex digits"))?;
    decoded.truncate(length);
    String::from_utf8(decoded).map(Cow::Owned).map_err(|_| invalid("a name holds something else than printable ASCII"))
}

/// Percent-decodes `raw` into `buffer`; answers the length. `None` if an escape is broken or the buffer too small.
pub(crate) fn decode_into(raw: &str, buffer: &mut [u8]) -> Option<usize> {
    let mut bytes = raw.bytes();
    let mut length = 0;
    while let Some(byte) = bytes.next() {
        let decoded = if byte == b'%' { hex(bytes.next()?)? << 4 | hex(bytes.next()?)? } else { byte };
        *buffer.get_mut(length)? = decoded;
        length += 1;
    }
    Some(length)
}

fn hex(digit: u8) -> Option<u8> {
    char::from(digit).to_digit(16).and_then(|value| u8::try_from(value).ok())
}

/// The query's parameters. A route reads those it knows; it knows none twice.
#[derive(Debug)]
pub(crate) struct Params(Vec<(String, String)>);

impl Params {
    /// The value of `name`, if it is there and not empty.
    pub(crate) fn get(&self, name: &str) -> Result<Option<&str>, Problem> {
        let mut values = self.0.iter().filter(|(n, _)| n == name).map(|(_, value)| value.as_str());
        match (values.next(), values.next()) {
            (_, Some(_)) => Err(Problem::invalid(format!("the query parameter `{name}` is there twice"))),
            (value, None) => Ok(value.filter(|v| !v.is_empty())),
        }
    }

    /// Like [`Params::get`], read as a `T`; `expected` says what it must be.
    pub(crate) fn parse<T: FromStr>(&self, name: &str, expected: &str) -> Result<Option<T>, Problem> {
        let read = |value: &str| value.parse().map_err(|_| not(name, expected));
        self.get(name)?.map(read).transpose()
    }

    /// An identifier.
    pub(crate) fn identifier<T: FromStr<Err = InvalidIdentifier>>(&self, name: &str) -> Result<Option<T>, Problem> {
        Ok(self.get(name)?.map(T::from_str).transpose()?)
    }

    /// `true` or `false`; absent is `false`.
    pub(crate) fn flag(&self, name: &str) -> Result<bool, Problem> {
        Ok(self.parse(name, "`true` or `false`")?.unwrap_or(false))
    }

    /// Refuses parameters other than `known`: a misspelt filter must not list everything.
    pub(crate) fn only(self, known: &[&str]) -> Result<Self, Problem> {
        if self.0.iter().all(|(name, _)| known.contains(&name.as_str())) {
            return Ok(self);
        }
        let known = known.iter().map(|name| format!("`{name}`")).collect::<Vec<_>>().join(", ");
        Err(Problem::invalid(format!("the query holds a parameter that is not known here; there are {known}")))
    }
}

/// That the query parameter `name` is not what it must be.
pub(crate) fn not(name: &str, expected: &str) -> Problem {
    Problem::invalid(format!("the query parameter `{name}` must be {expected}"))
}

impl<S: Sync> FromRequestParts<S> for Params {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, _: &S) -> Result<Self, Problem> {
        let query = parts.uri.query().unwrap_or_default();
        Ok(Self(form_urlencoded::parse(query.as_bytes()).into_owned().collect()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn connection(path: &str) -> Result<String, u16> {
        let (mut parts, ()) = http::Request::builder().uri(path).body(()).unwrap().into_parts();
        let read = ConnectionPath::from_request_parts(&mut parts, &());
        let read = futures_util::FutureExt::now_or_never(read).unwrap();
        read.map(|ConnectionPath(id)| format!("{id:?}")).map_err(|problem| problem.status().as_u16())
    }

    #[test]
    fn names_are_decoded_exactly_once() {
        assert_eq!(connection("/v1/connections/google/_default/alice").as_deref(), Ok("google/_default/alice"));
        assert_eq!(connection("/v1/connections/g/a%2Fb/c%7Cd%3D%40%3a%2B/token").as_deref(), Ok("g/a/b/c|d=@:+"));
        assert_eq!(connection("/v1/connections/g/t/100%2525").as_deref(), Ok("g/t/100%25"));
        assert_eq!(connection("/v1/connections/g/t/a+b").as_deref(), Ok("g/t/a+b"));
    }

    #[test]
    fn what_is_no_name_is_refused() {
        for bad in ["%", "%4", "%zz", "%c3%a9", "%ff", "%00", "%2e%2e", "..", "%+1", ""] {
            assert_eq!(connection(&format!("/v1/connections/g/t/{bad}")), Err(400), "{bad}");
        }
        assert_eq!(connection("/v1/connections/Google/t/s"), Err(400));
    }

    #[test]
    fn parameters_are_read_once_and_by_name() {
        let params = Params(vec![("a".into(), "1".into()), ("b".into(), String::new()), ("a".into(), "2".into())]);
        assert!(params.get("a").is_err());
        assert_eq!(params.get("b").unwrap(), None);
        assert!(params.only(&["a"]).is_err());
    }
}
