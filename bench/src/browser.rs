//! As much of a browser as a login and a consent page need: cookies, redirects, forms.

use std::collections::BTreeMap;

use anyhow::{Context as _, bail};
use hyper::Method;
use url::Url;

use crate::http::{self, Answer};

#[derive(Default)]
pub struct Browser {
    /// By host and port, then by name. Paths and expiry are beyond it.
    cookies: BTreeMap<String, BTreeMap<String, String>>,
}

/// A page, where redirects ended.
pub struct Page {
    pub url: Url,
    pub answer: Answer,
}

/// A form of a page.
pub struct Form {
    pub action: Url,
    pub method: Method,
    pub fields: Vec<(String, String)>,
}

impl Browser {
    pub async fn open(&mut self, url: Url) -> anyhow::Result<Page> {
        self.go(Method::GET, url, Vec::new()).await
    }

    /// Submits `form` with `values` filled in.
    pub async fn submit(&mut self, mut form: Form, values: &[(&str, &str)]) -> anyhow::Result<Page> {
        for (name, value) in values {
            form.fields.retain(|(n, _)| n != name);
            form.fields.push(((*name).to_owned(), (*value).to_owned()));
        }
        let body = form_urlencoded::Serializer::new(String::new()).extend_pairs(&form.fields).finish();
        self.go(form.method, form.action, body.into_bytes()).await
    }

    async fn go(&mut self, mut method: Method, mut url: Url, mut body: Vec<u8>) -> anyhow::Result<Page> {
        for _ in 0..20 {
            let site = format!("{}:{}", url.host_str().unwrap_or_default(), url.port_or_known_default().unwrap_or(0));
            let cookies = self.cookies.entry(site.clone()).or_default();
            let jar = cookies.iter().map(|(n, v)| format!("{n}={v}")).collect::<Vec<_>>().join("; ");
            let origin = url.origin().ascii_serialization();
            let mut headers = vec![("accept", "text/html"), ("origin", origin.as_str())];
            if !jar.is_empty() {
                headers.push(("cookie", jar.as_str()));
            }
            if method == Method::POST {
                headers.push(("content-type", "application/x-www-form-urlencoded"));
            }
            let answer = http::send(method.clone(), &url, &headers, std::mem::take(&mut body)).await?;
            let cookies = self.cookies.entry(site).or_default();
            for set in answer.headers.get_all("set-cookie") {
                let text = set.to_str()?;
                let pair = text.split(';').next().unwrap_or_default();
                let Some((name, value)) = pair.split_once('=') else { continue };
                if value.is_empty() {
                    cookies.remove(name.trim());
                } else {
                    cookies.insert(name.trim().to_owned(), value.trim().to_owned());
                }
            }
            if !answer.status.is_redirection() {
                return Ok(Page { url, answer });
            }
            let location = answer.headers.get("location").context("a redirect to nowhere")?.to_str()?;
            url = url.join(location)?;
            method = Method::GET;
        }
        bail!("too many redirects, the last to {url}")
    }
}

impl Page {
    /// The page's first form.
    pub fn form(&self) -> anyhow::Result<Form> {
        let html = self.answer.text();
        let form = html.split("<form").nth(1).with_context(|| format!("no form on {}:\n{html}", self.url))?;
        let form = form.split("</form>").next().unwrap_or(form);
        let (head, inner) = form.split_once('>').context("an unfinished form")?;
        let action = attribute(head, "action").unwrap_or_default();
        let action = if action.is_empty() { self.url.clone() } else { self.url.join(&action)? };
        let method = match attribute(head, "method") {
            Some(m) if m.eq_ignore_ascii_case("post") => Method::POST,
            _ => Method::GET,
        };
        let fields = inner
            .split("<input")
            .skip(1)
            .filter_map(|input| {
                let tag = input.split('>').next()?;
                Some((attribute(tag, "name")?, attribute(tag, "value").unwrap_or_default()))
            })
            .collect();
        Ok(Form { action, method, fields })
    }
}

fn attribute(tag: &str, name: &str) -> Option<String> {
    let start = tag.find(&format!("{name}=\""))? + name.len() + 2;
    let value = tag[start..].split('"').next()?;
    Some(value.replace("&amp;", "&").replace("&#x3D;", "=").replace("&quot;", "\"").replace("&#38;", "&"))
}
