//! As much of HTTP/1.1 as the harness needs to set a Vault up.

use std::{
    io::{Error, ErrorKind, Read, Result, Write},
    net::{Ipv4Addr, SocketAddr, TcpStream},
    time::Duration,
};

use serde_json::Value;

/// A status and the body, `Null` if there is none.
pub(crate) type Answer = (u16, Value);

/// One request on a connection of its own.
pub(crate) fn ask(port: u16, token: Option<&str>, method: &str, path: &str, body: &Value) -> Result<Answer> {
    let deadline = Some(Duration::from_secs(5));
    let mut stream =
        TcpStream::connect_timeout(&SocketAddr::from((Ipv4Addr::LOCALHOST, port)), Duration::from_secs(2))?;
    stream.set_read_timeout(deadline)?;
    stream.set_write_timeout(deadline)?;
    let body = if body.is_null() { String::new() } else { body.to_string() };
    let token = token.map(|token| format!("X-Vault-Token: {token}\r\n")).unwrap_or_default();
    let host = format!("Host: 127.0.0.1:{port}\r\nConnection: close\r\n");
    let length = body.len();
    write!(stream, "{method} {path} HTTP/1.1\r\n{host}{token}Content-Length: {length}\r\n\r\n{body}")?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer)?;
    parse(&answer).ok_or_else(|| Error::new(ErrorKind::InvalidData, format!("not HTTP/1.1 with JSON: {answer}")))
}

fn parse(answer: &str) -> Option<Answer> {
    let status = answer.strip_prefix("HTTP/1.1 ")?.get(..3)?.parse().ok()?;
    let (_, body) = answer.split_once("\r\n\r\n")?;
    let body = if body.is_empty() { Value::Null } else { serde_json::from_str(body).ok()? };
    Some((status, body))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn answers_with_and_without_a_body_are_read() {
        assert_eq!(parse("HTTP/1.1 204 No Content\r\ndate: x\r\n\r\n"), Some((204, Value::Null)));
        assert_eq!(parse("HTTP/1.1 200 OK\r\n\r\n{\"sealed\":true}"), Some((200, serde_json::json!({"sealed": true}))));
        assert_eq!(parse("HTTP/1.1 200 OK\r\n\r\n{\"sealed\":"), None);
    }
}
