//! Pages for people: small, without scripts, without anything from elsewhere.

use std::borrow::Cow;

use askama::Template;
use axum::response::{IntoResponse, Response};
use base64::{Engine as _, engine::general_purpose::URL_SAFE_NO_PAD};
use http::{HeaderValue, StatusCode, header};
use tokenkeep_core::ports::Entropy;

/// Names the one style sheet of a page, so that no other counts.
#[derive(Debug)]
pub(crate) struct Nonce(String);

impl Nonce {
    pub(crate) fn fresh(entropy: &dyn Entropy) -> Self {
        Self(random(entropy))
    }
}

impl std::fmt::Display for Nonce {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&self.0)
    }
}

/// 256 random bits as text that fits in cookies, forms and attributes.
pub(crate) fn random(entropy: &dyn Entropy) -> String {
    URL_SAFE_NO_PAD.encode(entropy.bytes32())
}

/// Who asks for what, before a browser is sent to a provider.
#[derive(Debug, Template)]
#[template(path = "connect.html")]
pub(crate) struct ConnectTemplate<'a> {
    pub(crate) nonce: &'a Nonce,
    pub(crate) provider: &'a str,
    pub(crate) tenant: Option<&'a str>,
    pub(crate) subject: &'a str,
    pub(crate) scopes: Vec<&'a str>,
    pub(crate) return_to_host: Option<&'a str>,
    pub(crate) csrf: &'a str,
}

/// What came of it, where no application wants to say so itself.
#[derive(Debug, Template)]
#[template(path = "outcome.html")]
pub(crate) struct OutcomeTemplate<'a> {
    pub(crate) nonce: &'a Nonce,
    pub(crate) mark: &'a str,
    pub(crate) title: &'a str,
    pub(crate) text: &'a str,
    pub(crate) detail: Option<&'a str>,
}

/// Where the forms of a page may lead.
#[derive(Clone, Copy, Debug)]
pub(crate) enum FormAction<'a> {
    /// The page has none.
    None,
    /// Like [`Away`](Self::Away), and to these sources besides, such as the scheme or the port of a program that waits
    /// for an answer.
    AwayTo(&'a [String]),
    /// To us, and from there by redirects to a provider. Browsers apply `form-action` to every redirect that follows,
    /// and providers redirect among hosts of their own, so that a list of hosts would strand users. `plain_http`: also to
    /// a provider on this machine.
    Away {
        /// Whether we ourselves are reached over plain http.
        plain_http: bool,
    },
}

impl FormAction<'_> {
    fn sources(self) -> Cow<'static, str> {
        match self {
            FormAction::None => "'none'".into(),
            FormAction::Away { plain_http: false } => "'self' https:".into(),
            FormAction::Away { plain_http: true } => "'self' https: http://localhost:* http://127.0.0.1:*".into(),
            FormAction::AwayTo(sources) => {
                let mut all = "'self' https:".to_owned();
                for source in sources.iter().filter(|source| !source.starts_with("https:")) {
                    // The grammar of sources has no IPv6 addresses (CSP3 2.3.1).
                    let source = if source.contains('[') { "http:" } else { source };
                    if source
                        .bytes()
                        .all(|b| b.is_ascii_alphanumeric() || matches!(b, b':' | b'/' | b'.' | b'-' | b'+'))
                    {
                        all.push(' ');
                        all.push_str(source);
                    }
                }
                all.into()
            }
        }
    }
}

/// The answer that shows a page.
pub(crate) fn page(status: StatusCode, template: &impl Template, nonce: &Nonce, forms: FormAction<'_>) -> Response {
    let html = template.render().expect("templates render into memory and call nothing that fails");
    let policy = format!(
        "default-src 'none'; style-src 'nonce-{nonce}'; form-action {}; frame-ancestors 'none'; base-uri 'none'",
        forms.sources()
    );
    let policy = HeaderValue::from_str(&policy).expect("a nonce is base64url, and sources are plain ASCII");
    let mut response = (status, html).into_response();
    let headers = response.headers_mut();
    headers.insert(header::CONTENT_TYPE, HeaderValue::from_static("text/html; charset=utf-8"));
    headers.insert(header::CONTENT_SECURITY_POLICY, policy);
    headers.insert(header::REFERRER_POLICY, HeaderValue::from_static("no-referrer"));
    headers.insert(header::X_FRAME_OPTIONS, HeaderValue::from_static("DENY"));
    headers.insert(header::CACHE_CONTROL, HeaderValue::from_static("no-store"));
    response
}

/// A redirect that a browser follows with GET, and that tells the next host nothing about where it came from.
pub(crate) fn see_other(to: &str) -> Option<Response> {
    let location = HeaderValue::from_str(to).ok()?;
    let mut response = StatusCode::SEE_OTHER.into_response();
    let headers = response.headers_mut();
    headers.insert(header::LOCATION, location);
    headers.insert(header::REFERRER_POLICY, HeaderValue::from_static("no-referrer"));
    Some(response)
}

#[cfg(test)]
mod tests {
    use super::*;

    const HOSTILE: &str = "<script>alert(1)</script>\"'&";

    fn check(html: &str) {
        assert!(!html.contains("<script"), "{html}");
        assert!(!html.contains("\"'&"), "{html}");
        assert!(html.contains("&#60;script&#62;"), "{html}");
    }

    #[test]
    fn pages_never_show_input_unescaped() {
        let nonce = Nonce("n".to_owned());
        let connect = ConnectTemplate {
            nonce: &nonce,
            provider: HOSTILE,
            tenant: Some(HOSTILE),
            subject: HOSTILE,
            scopes: vec![HOSTILE],
            return_to_host: Some(HOSTILE),
            csrf: HOSTILE,
        };
        check(&connect.render().unwrap());
        let outcome =
            OutcomeTemplate { nonce: &nonce, mark: HOSTILE, title: HOSTILE, text: HOSTILE, detail: Some(HOSTILE) };
        check(&outcome.render().unwrap());
    }

    #[test]
    fn forms_lead_where_they_must_and_nothing_else_gets_into_the_policy() {
        let sources = [
            "https://app.example",
            "http://localhost:8000",
            "http://[::1]:8000",
            "com.example.app:",
            "x; script-src *",
        ];
        let sources = sources.map(str::to_owned);
        let policy = FormAction::AwayTo(&sources).sources();
        assert_eq!(policy, "'self' https: http://localhost:8000 http: com.example.app:");
    }
}
