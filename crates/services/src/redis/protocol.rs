//! As much of Redis' protocol (RESP2) as the harness needs to ask its servers how they are.

use std::{
    fmt,
    io::{BufRead, BufReader, Error, ErrorKind, Result, Write},
    net::{Ipv4Addr, SocketAddr, TcpStream},
    time::Duration,
};

/// What a server answered.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Reply {
    Text(String),
    Nil,
    Many(Vec<Reply>),
}

impl Reply {
    pub(crate) fn text(&self) -> &str {
        match self {
            Reply::Text(text) => text,
            Reply::Nil | Reply::Many(_) => "",
        }
    }

    /// The value after `name`, as `INFO` and `CLUSTER INFO` write it (`name:value`) or as a flat list of pairs has it.
    pub(crate) fn field(&self, name: &str) -> &str {
        match self {
            Reply::Text(text) => {
                let lines = text.lines().filter_map(|line| line.split_once(':'));
                lines.filter(|(key, _)| *key == name).map(|(_, value)| value).next().unwrap_or_default()
            }
            Reply::Many(all) => all.chunks(2).find(|pair| pair[0].text() == name).map_or("", |pair| pair[1].text()),
            Reply::Nil => "",
        }
    }
}

impl fmt::Display for Reply {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Reply::Text(text) => f.write_str(text),
            Reply::Nil => f.write_str("(nil)"),
            Reply::Many(all) => all.iter().try_for_each(|reply| write!(f, "{reply} ")),
        }
    }
}

/// One command on a connection of its own. A refusal is an error with the server's words.
pub(crate) fn ask(port: u16, password: Option<&str>, command: &[&str]) -> Result<Reply> {
    let address = SocketAddr::from((Ipv4Addr::LOCALHOST, port));
    let deadline = Duration::from_secs(2);
    let mut stream = TcpStream::connect_timeout(&address, deadline)?;
    stream.set_read_timeout(Some(deadline))?;
    stream.set_write_timeout(Some(deadline))?;
    let mut replies = BufReader::new(stream.try_clone()?);
    if let Some(password) = password {
        stream.write_all(&request(&["AUTH", password]))?;
        read(&mut replies)?;
    }
    stream.write_all(&request(command))?;
    read(&mut replies)
}

fn request(words: &[&str]) -> Vec<u8> {
    let count = format!("*{}\r\n", words.len());
    let words = words.iter().map(|word| format!("${}\r\n{word}\r\n", word.len()));
    [count].into_iter().chain(words).collect::<Vec<_>>().concat().into_bytes()
}

fn read(from: &mut impl BufRead) -> Result<Reply> {
    let mut line = String::new();
    from.read_line(&mut line)?;
    let line = line.trim_end();
    let (kind, rest) = line.split_at_checked(1).ok_or(ErrorKind::UnexpectedEof)?;
    match (kind, rest.parse::<i64>()) {
        ("+", _) | (":", Ok(_)) => Ok(Reply::Text(rest.to_owned())),
        ("-", _) => Err(Error::other(rest.to_owned())),
        ("$" | "*", Ok(-1)) => Ok(Reply::Nil),
        ("$", Ok(length)) => {
            let length = usize::try_from(length).map_err(Error::other)?;
            let mut text = vec![0; length + 2];
            from.read_exact(&mut text)?;
            Ok(Reply::Text(String::from_utf8_lossy(&text[..length]).into_owned()))
        }
        ("*", Ok(length)) => (0..length).map(|_| read(from)).collect::<Result<_>>().map(Reply::Many),
        _ => Err(Error::other(format!("not RESP: {line}"))),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn text(text: &str) -> Reply {
        Reply::Text(text.to_owned())
    }

    #[test]
    fn replies_of_all_kinds_are_read() {
        let mut bytes: &[u8] = b"*4\r\n+OK\r\n:7\r\n$4\r\na\r\nb\r\n$-1\r\n-ERR no\r\n";
        assert_eq!(read(&mut bytes).unwrap(), Reply::Many(vec![text("OK"), text("7"), text("a\r\nb"), Reply::Nil]));
        assert_eq!(read(&mut bytes).unwrap_err().to_string(), "ERR no");
        assert!(read(&mut bytes).is_err());
    }

    #[test]
    fn fields_are_found_in_both_shapes() {
        assert_eq!(text("# Replication\r\nrole:slave\r\nlink:up\r\n").field("link"), "up");
        assert_eq!(Reply::Many(vec![text("name"), text("x"), text("slaves"), text("2")]).field("slaves"), "2");
    }
}
