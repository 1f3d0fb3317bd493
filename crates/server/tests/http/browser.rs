//! A user at a browser, and the provider that the browser is sent to.

use std::collections::BTreeMap;

use axum::body::Body;
use http::{Request, header};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
};

use crate::app::{Answered, TestApp};

/// A browser: it keeps cookies, and sends them as `SameSite=Lax` allows.
#[derive(Default)]
pub(crate) struct Browser {
    pub(crate) cookies: BTreeMap<String, String>,
}

impl Browser {
    pub(crate) async fn get(&mut self, app: &TestApp, url: &str) -> Answered {
        let request = self.with_cookies(Request::get(path_of(url)));
        self.send(app, request.body(Body::empty()).unwrap()).await
    }

    /// Submits a form of our own page.
    pub(crate) async fn post(&mut self, app: &TestApp, url: &str, form: &str) -> Answered {
        let request = self.with_cookies(Request::post(path_of(url)));
        self.send(app, request.header("content-type", FORM).body(Body::from(form.to_owned())).unwrap()).await
    }

    /// Submits a form of somebody else's page: no cookies go along.
    pub(crate) async fn post_from_elsewhere(&mut self, app: &TestApp, url: &str, form: &str) -> Answered {
        let request = Request::post(path_of(url)).header("content-type", FORM).body(Body::from(form.to_owned()));
        self.send(app, request.unwrap()).await
    }

    fn with_cookies(&self, request: http::request::Builder) -> http::request::Builder {
        let cookies: Vec<_> = self.cookies.iter().map(|(name, value)| format!("{name}={value}")).collect();
        if cookies.is_empty() { request } else { request.header(header::COOKIE, cookies.join("; ")) }
    }

    pub(crate) async fn send(&mut self, app: &TestApp, request: Request<Body>) -> Answered {
        let answer = app.send(request).await;
        for cookie in answer.headers.get_all(header::SET_COOKIE) {
            let cookie = cookie.to_str().unwrap();
            for attribute in ["Path=/", "HttpOnly", "SameSite=Lax"] {
                assert!(cookie.contains(attribute), "{cookie}");
            }
            let (name, value) = cookie.split(';').next().unwrap().split_once('=').unwrap();
            if cookie.contains("Max-Age=0") {
                self.cookies.remove(name);
            } else {
                self.cookies.insert(name.to_owned(), value.to_owned());
            }
        }
        answer
    }

    /// Opens a link and clicks its button; answers where at the provider it is sent.
    pub(crate) async fn open(&mut self, app: &TestApp, link: &str) -> Answered {
        let page = self.get(app, link).await;
        assert_eq!(page.status, 200, "{page:?}");
        self.post(app, link, &format!("csrf={}", csrf_of(&page))).await
    }
}

const FORM: &str = "application/x-www-form-urlencoded";

fn path_of(url: &str) -> &str {
    url.strip_prefix("http://localhost:7420").or(url.strip_prefix("https://tokens.example.com")).unwrap_or(url)
}

pub(crate) fn csrf_of(page: &Answered) -> String {
    let (_, rest) = page.text().split_once("name=\"csrf\" value=\"").unwrap();
    rest.split('"').next().unwrap().to_owned()
}

/// What the fake provider redirects to, once its user has consented.
pub(crate) async fn consent(url: &str) -> String {
    let url: url::Url = url.parse().unwrap();
    let authority = format!("{}:{}", url.host_str().unwrap(), url.port().unwrap());
    #[expect(clippy::disallowed_methods, reason = "the browser's way to the fake provider")]
    let mut stream = TcpStream::connect(&authority).await.unwrap();
    let target = &url[url::Position::BeforePath..];
    let request = format!("GET {target} HTTP/1.1\r\nhost: {authority}\r\nconnection: close\r\n\r\n");
    stream.write_all(request.as_bytes()).await.unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).await.unwrap();
    let location = answer.lines().find_map(|line| line.strip_prefix("location: "));
    location.unwrap_or_else(|| panic!("{answer}")).to_owned()
}
