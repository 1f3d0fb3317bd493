//! The real binary, started and asked like a person would.

#![expect(clippy::unwrap_used, reason = "what fails here fails the test that asked for it")]

use std::{
    ffi::OsStr,
    fs::File,
    io::{BufRead as _, BufReader, Read as _, Write as _},
    net::{SocketAddr, TcpStream},
    path::{Path, PathBuf},
    process::{Child, ChildStdout, Command, ExitStatus, Output, Stdio},
    sync::Arc,
};

use tempfile::TempDir;
use tokenkeep_core::ports::Clock;
use tokenkeep_testkit::{Config, FakeProvider};

/// A home with nothing in it but what a test puts there.
pub(crate) struct Home {
    dir: TempDir,
    /// What the configuration file says.
    pub(crate) config: String,
    /// Variables of every command.
    pub(crate) env: Vec<(String, String)>,
}

impl Home {
    pub(crate) fn new() -> Self {
        Self { dir: TempDir::new().unwrap(), config: String::new(), env: Vec::new() }
    }

    /// With `provider` as the integration `fake`.
    pub(crate) fn with(provider: &FakeProvider) -> Self {
        let mut home = Self::new();
        let at = |path: &str| provider.url(path);
        home.config = format!(
            r#"
            [[provider]]
            id = "fake"
            authorize_url = "{}"
            token_url = "{}"
            revoke = {{ method = "rfc7009", url = "{}" }}
            [[integration]]
            id = "fake"
            client_id = "fake-client"
            client_secret = "fake-client-secret"
            scope = "read"
            [[integration]]
            id = "machine"
            provider = "fake"
            client_id = "fake-client"
            client_secret = "fake-client-secret"
            grant = "client_credentials"
            "#,
            at("/authorize"),
            at("/token"),
            at("/revoke")
        );
        home
    }

    pub(crate) fn path(&self) -> &Path {
        self.dir.path()
    }

    pub(crate) fn data(&self) -> PathBuf {
        self.path().join("data")
    }

    pub(crate) fn log(&self) -> String {
        std::fs::read_to_string(self.path().join("log")).unwrap()
    }

    fn command<S: AsRef<OsStr>>(&self, arguments: impl IntoIterator<Item = S>) -> Command {
        std::fs::write(self.path().join("tokenkeep.toml"), &self.config).unwrap();
        let mut command = Command::new(env!("CARGO_BIN_EXE_tokenkeep"));
        command.args(arguments).current_dir(self.path()).env_clear();
        command.env("PATH", "/usr/bin:/bin").env("HOME", self.path());
        command.env("TOKENKEEP__SERVER__DATA_DIR", self.data());
        command.envs(self.env.iter().map(|(name, value)| (name, value)));
        command
    }

    /// Runs a command to its end, with nothing on standard input.
    pub(crate) fn run(&self, arguments: &[&str]) -> Done {
        self.feed(arguments, "")
    }

    /// The same, with `input`.
    pub(crate) fn feed(&self, arguments: &[&str], input: &str) -> Done {
        let mut command = self.command(arguments);
        let mut child = command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
        // A command that does not read its input may have closed it.
        let _ = child.stdin.take().unwrap().write_all(input.as_bytes());
        Done::from(child.wait_with_output().unwrap())
    }

    /// Starts a command whose output is read line by line.
    pub(crate) fn start(&self, arguments: &[&str]) -> Running {
        let mut child = self.command(arguments).stdin(Stdio::null()).stdout(Stdio::piped()).spawn().unwrap();
        let stdout = BufReader::new(child.stdout.take().unwrap());
        Running { child, stdout }
    }

    /// Starts the server, and waits until it says that it is ready.
    pub(crate) fn serve(&self) -> Server {
        let log = File::options().create(true).append(true).open(self.path().join("log")).unwrap();
        let mut child = self
            .command(["serve", "--listen", "127.0.0.1:0", "--log", "trace"])
            .stdout(Stdio::piped())
            .stderr(log)
            .spawn()
            .unwrap();
        let mut stdout = BufReader::new(child.stdout.take().unwrap());
        let mut banner = String::new();
        while !banner.contains("Ready.") {
            let read = stdout.read_line(&mut banner).unwrap();
            assert!(read > 0, "the server ended before it was ready:\n{banner}\n{}", self.log());
        }
        let address = banner.split("http://").nth(1).unwrap().split_whitespace().next().unwrap().parse().unwrap();
        Server { child, banner, address }
    }
}

/// What came of a command.
pub(crate) struct Done {
    pub(crate) code: i32,
    pub(crate) out: String,
    pub(crate) err: String,
}

impl From<Output> for Done {
    fn from(output: Output) -> Self {
        Self {
            code: output.status.code().expect("it was not killed"),
            out: String::from_utf8(output.stdout).unwrap(),
            err: String::from_utf8(output.stderr).unwrap(),
        }
    }
}

impl Done {
    /// What it printed, given that it went well.
    #[track_caller]
    pub(crate) fn ok(self) -> String {
        assert_eq!(self.code, 0, "{}{}", self.out, self.err);
        self.out
    }

    /// What it complained about, given that it failed with `code`.
    #[track_caller]
    pub(crate) fn fails(self, code: i32) -> String {
        assert_eq!(self.code, code, "{}{}", self.out, self.err);
        self.err
    }
}

/// A command under way.
pub(crate) struct Running {
    child: Child,
    stdout: BufReader<ChildStdout>,
}

impl Running {
    /// The next line that holds `what`.
    pub(crate) fn line_with(&mut self, what: &str) -> String {
        loop {
            let mut line = String::new();
            assert!(self.stdout.read_line(&mut line).unwrap() > 0, "it ended before it said {what}");
            if line.contains(what) {
                return line.trim().to_owned();
            }
        }
    }

    /// The rest of what it says, and how it ends.
    pub(crate) fn end(mut self) -> (String, ExitStatus) {
        let mut rest = String::new();
        self.stdout.read_to_string(&mut rest).unwrap();
        (rest, self.child.wait().unwrap())
    }
}

/// A server under way; ended with its test.
pub(crate) struct Server {
    child: Child,
    pub(crate) banner: String,
    pub(crate) address: SocketAddr,
}

impl Server {
    /// The admin key, where one was made.
    pub(crate) fn admin_key(&self) -> Option<String> {
        let line = self.banner.lines().find(|line| line.contains("admin key"))?;
        Some(line.split_whitespace().find(|word| word.starts_with("tk_"))?.to_owned())
    }

    /// Tells it to end.
    pub(crate) fn tell_to_end(&self) {
        let process = rustix::process::Pid::from_child(&self.child);
        rustix::process::kill_process(process, rustix::process::Signal::TERM).unwrap();
    }

    /// How it ends.
    pub(crate) fn wait(mut self) -> ExitStatus {
        self.child.wait().unwrap()
    }

    /// Whether it has not ended yet.
    pub(crate) fn is_there(&mut self) -> bool {
        self.child.try_wait().unwrap().is_none()
    }

    /// Tells it to end, and waits until it has.
    pub(crate) fn end(self) -> ExitStatus {
        self.tell_to_end();
        self.wait()
    }

    /// What the kernel says of it, in `/proc`.
    pub(crate) fn proc(&self, name: &str) -> String {
        std::fs::read_to_string(format!("/proc/{}/{name}", self.child.id())).unwrap()
    }

    /// As a power cut would.
    pub(crate) fn kill(mut self) {
        self.child.kill().unwrap();
        self.child.wait().unwrap();
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        // It has ended already, if all went well.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// The fake provider, by this machine's clock.
pub(crate) async fn provider(config: Config) -> FakeProvider {
    FakeProvider::start(system_clock(), config).await
}

pub(crate) fn system_clock() -> Arc<dyn Clock> {
    Arc::new(tokenkeep_engine::system::SystemClock)
}

/// A browser's answer: status, `Location`, cookies to keep, body.
pub(crate) struct Page {
    pub(crate) status: u16,
    pub(crate) location: Option<String>,
    pub(crate) cookies: Vec<String>,
    pub(crate) body: String,
}

/// One request, as a browser sends it. `url` is reached on the loopback interface, whatever its host says.
pub(crate) fn browse(method: &str, url: &str, cookies: &[String], form: &str) -> Page {
    browse_with(method, url, &[], cookies, form)
}

/// The same, with further headers.
pub(crate) fn browse_with(method: &str, url: &str, headers: &[(&str, &str)], cookies: &[String], form: &str) -> Page {
    let url = url::Url::parse(url).unwrap();
    let port = url.port().unwrap();
    let target = &url[url::Position::BeforePath..url::Position::AfterQuery];
    let mut stream = TcpStream::connect(("127.0.0.1", port)).unwrap();
    let host = format!("{}:{port}", url.host_str().unwrap());
    let more = headers.iter().fold(String::new(), |more, (name, value)| more + name + ": " + value + "\r\n");
    let has_type = headers.iter().any(|(name, _)| name.eq_ignore_ascii_case("content-type"));
    let form_type = if has_type { "" } else { "Content-Type: application/x-www-form-urlencoded\r\n" };
    let cookies: Vec<&str> = cookies.iter().filter_map(|cookie| cookie.split(';').next()).collect();
    write!(
        stream,
        "{method} {target} HTTP/1.1\r\nHost: {host}\r\nConnection: close\r\n{more}Cookie: {}\r\n{form_type}Content-Length: \
         {}\r\n\r\n{form}",
        cookies.join("; "),
        form.len()
    )
    .unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).unwrap();
    let (head, body) = answer.split_once("\r\n\r\n").unwrap();
    let headers = |name: &'static str| {
        head.lines().filter_map(|line| line.split_once(": ")).filter(move |(n, _)| n.eq_ignore_ascii_case(name))
    };
    let values = |name| headers(name).map(|(_, value)| value.to_owned()).collect::<Vec<_>>();
    Page {
        status: head.split_whitespace().nth(1).unwrap().parse().unwrap(),
        location: values("location").pop(),
        cookies: values("set-cookie"),
        body: body.to_owned(),
    }
}
