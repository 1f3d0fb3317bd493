//! Distinctive tokens and secrets go in; a real process works with them at trace level and is killed; then nothing it
//! left behind or said, but for the replies that were asked for, may hold any of them.

#![expect(clippy::unwrap_used, reason = "a test may end by panicking, in its helpers, too")]

use std::{
    fs,
    io::{BufRead as _, BufReader, Read as _, Write as _},
    net::{SocketAddr, TcpStream},
    path::Path,
    process::{Child, Command, Stdio},
    sync::Arc,
    thread::JoinHandle,
};

use serde_json::{Value, json};
use tokenkeep_core::Rotation;
use tokenkeep_engine::system::SystemClock;
use tokenkeep_testkit::{Config, FakeProvider, Fault};

const ADMIN_KEY: &str = "tk_canaryadmin000000000000000000000000000000000";
const WRONG_KEY: &str = "tk_canarywrong000000000000000000000000000000000";
const CLIENT_SECRET: &str = "canary-client-secret-3f9a";
const PUT_ACCESS: &str = "canary-put-access-77c1";
const PUT_REFRESH: &str = "canary-put-refresh-5d20";
const IN_GARBAGE: &str = "Canary4In7A9Providers2Error91be";
const IN_BAD_BODY: &str = "canary-in-a-bad-body-c0de";

struct Service {
    process: Child,
    addr: SocketAddr,
    stderr: Option<JoinHandle<String>>,
    /// What it answered where no token was asked for.
    said: String,
}

impl Service {
    fn start(dir: &Path, config: &str) -> Self {
        let file = dir.join("tokenkeep.toml");
        fs::write(&file, config).unwrap();
        let mut process = Command::new(env!("CARGO_BIN_EXE_tokenkeep"))
            .args(["serve", "--listen", "127.0.0.1:0", "--config"])
            .arg(&file)
            .arg("--data-dir")
            .arg(dir.join("data"))
            .env("TOKENKEEP_ADMIN_KEY", ADMIN_KEY)
            .env("TOKENKEEP__LOG__LEVEL", "trace")
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        let mut stderr = process.stderr.take().unwrap();
        let stderr = std::thread::spawn(move || {
            let mut text = Vec::new();
            stderr.read_to_end(&mut text).unwrap();
            String::from_utf8_lossy(&text).into_owned()
        });
        let mut said = String::new();
        let mut lines = BufReader::new(process.stdout.take().unwrap()).lines();
        let addr = loop {
            let line = lines.next().expect("it ended before it listened").unwrap();
            said.push_str(&line);
            let word = line
                .split_whitespace()
                .find_map(|w| w.trim_start_matches("http://").trim_end_matches('/').parse().ok());
            if let Some(addr) = word {
                break addr;
            }
        };
        std::thread::spawn(move || lines.for_each(drop));
        Self { process, addr, stderr: Some(stderr), said }
    }

    fn call(&mut self, method: &str, path: &str, key: &str, body: &str) -> (u16, String) {
        let mut stream = TcpStream::connect(self.addr).unwrap();
        let length = body.len();
        write!(
            stream,
            "{method} {path} HTTP/1.1\r\nHost: localhost\r\nAuthorization: Bearer {key}\r\nContent-Type: application/json\r\n\
             Content-Length: {length}\r\nConnection: close\r\n\r\n{body}"
        )
        .unwrap();
        let mut answer = String::new();
        stream.read_to_string(&mut answer).unwrap();
        let status = answer[9..12].parse().unwrap();
        let body = answer.split_once("\r\n\r\n").unwrap().1.to_owned();
        let asked_for_token = path.contains("/token") && status == 200;
        if !asked_for_token {
            self.said.push_str(&answer);
        }
        (status, body)
    }

    fn kill(mut self) -> String {
        self.process.kill().unwrap();
        self.process.wait().unwrap();
        let logs = self.stderr.take().unwrap().join().unwrap();
        assert!(logs.len() > 1000, "nothing was logged: {logs}");
        format!("{}\n{logs}", self.said)
    }
}

fn files_below(dir: &Path, found: &mut Vec<(String, Vec<u8>)>) {
    for entry in fs::read_dir(dir).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            files_below(&path, found);
        } else if let Ok(bytes) = fs::read(&path) {
            found.push((path.display().to_string(), bytes));
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn no_secret_is_left_anywhere() {
    let config = Config { client_secret: CLIENT_SECRET.to_owned(), ..Config::rotating(Rotation::Strict) };
    let provider = FakeProvider::start(Arc::new(SystemClock), config).await;
    let base = provider.url("/");
    let base = base.as_str().trim_end_matches('/');
    let dir = tempfile::tempdir().unwrap();
    let mut service = Service::start(
        dir.path(),
        &format!(
            "[[provider]]\nid = \"fake\"\ndisplay_name = \"Fake\"\nauthorize_url = \"{base}/authorize\"\n\
             token_url = \"{base}/token\"\nrotation = \"strict\"\nrevoke = {{ method = \"rfc7009\", url = \"{base}/revoke\" }}\n"
        ),
    );
    let alice = "/v1/connections/fake/_default/alice";

    let integration =
        json!({ "provider": "fake", "client_id": "fake-client", "client_secret": CLIENT_SECRET }).to_string();
    let (status, body) = service.call("PUT", "/v1/integrations/fake", ADMIN_KEY, &integration);
    assert_eq!(status, 201, "{body}");

    // Tokens that the provider knows, refreshed twice.
    let issued = provider.seed("alice");
    let mut canaries = vec![issued.access_token.clone(), issued.refresh_token.clone().unwrap()];
    let tokens =
        json!({ "access_token": issued.access_token, "refresh_token": issued.refresh_token, "expires_in": 3600 });
    assert_eq!(service.call("PUT", alice, ADMIN_KEY, &tokens.to_string()).0, 201);
    for generation in 1..=2 {
        let report = json!({ "if_generation": generation }).to_string();
        let (status, body) = service.call("POST", &format!("{alice}/token/refresh"), ADMIN_KEY, &report);
        assert_eq!(status, 200, "{body}");
        let reply: Value = serde_json::from_str(&body).unwrap();
        canaries.push(reply["access_token"].as_str().unwrap().to_owned());
    }
    assert_eq!(service.call("GET", &format!("{alice}/token"), ADMIN_KEY, "").0, 200);
    // What was spent, and what the provider holds for it now.
    assert_eq!(service.call("PUT", alice, ADMIN_KEY, &tokens.to_string()).0, 409);
    for family in provider.families() {
        canaries.extend(family.refresh_tokens.into_iter().map(|token| token.token));
    }

    // Tokens that nobody knows, and a provider that repeats them in its errors.
    let tokens = json!({ "access_token": PUT_ACCESS, "refresh_token": PUT_REFRESH, "expires_in": 1 }).to_string();
    let bob = "/v1/connections/fake/_default/bob";
    assert_eq!(service.call("PUT", bob, ADMIN_KEY, &tokens).0, 201);
    let garbage = format!("{{\"error\":\"{IN_GARBAGE}\",\"error_description\":\"{IN_GARBAGE} {PUT_REFRESH}\"}}");
    provider.faults(3, Fault::answer(400, &garbage));
    service.call("POST", &format!("{bob}/token/refresh"), ADMIN_KEY, "{}");
    provider.clear_faults();
    assert_eq!(service.call("POST", &format!("{bob}/token/refresh"), ADMIN_KEY, "{}").0, 424);

    // Requests that are wrong in every way a secret may stand in.
    let long = format!("{{\"access_token\":\"{IN_BAD_BODY}{}\"}}", "x".repeat(100_000));
    for (method, path, key, body, expected) in [
        ("GET", format!("{alice}/token"), WRONG_KEY, String::new(), 401),
        ("PUT", bob.to_owned(), ADMIN_KEY, format!("{{\"access_token\":\"{IN_BAD_BODY}\""), 400),
        ("PUT", bob.to_owned(), ADMIN_KEY, format!("{{\"access_token\":\"{IN_BAD_BODY}\",\"unknown\":1}}"), 400),
        ("PUT", bob.to_owned(), ADMIN_KEY, format!("{{\"access_token\":[\"{IN_BAD_BODY}\"]}}"), 400),
        ("PUT", bob.to_owned(), ADMIN_KEY, long, 413),
    ] {
        let (status, body) = service.call(method, &path, key, &body);
        assert_eq!(status, expected, "{method} {path}: {body}");
    }

    // Everything else that speaks.
    let connect = json!({ "provider": "fake", "subject": "carol" }).to_string();
    let (status, _) = service.call("POST", "/v1/connect", ADMIN_KEY, &connect);
    assert!((200..300).contains(&status));
    for path in [
        alice,
        bob,
        "/v1/connections",
        "/v1/integrations/fake",
        "/v1/keys",
        "/v1/stats",
        "/metrics",
        "/readyz",
        "/openapi.json",
    ] {
        assert_eq!(service.call("GET", path, ADMIN_KEY, "").0, 200, "{path}");
    }
    let said = service.kill();

    canaries.extend(
        [ADMIN_KEY, WRONG_KEY, CLIENT_SECRET, PUT_ACCESS, PUT_REFRESH, IN_GARBAGE, IN_BAD_BODY].map(str::to_owned),
    );
    canaries.sort();
    canaries.dedup();
    assert!(canaries.len() >= 12, "{canaries:?}");
    let mut left = Vec::new();
    files_below(&dir.path().join("data"), &mut left);
    let names: Vec<_> =
        left.iter().map(|(name, bytes)| (name.rsplit('/').next().unwrap().to_owned(), bytes.len())).collect();
    assert!(names.iter().any(|(name, _)| name == "tokenkeep.db"), "{names:?}");
    assert!(names.iter().any(|(name, length)| name == "tokenkeep.db-wal" && *length > 0), "{names:?}");
    assert!(left.iter().any(|(path, bytes)| path.contains("journal") && !bytes.is_empty()), "{names:?}");
    left.push(("what it logged and answered".to_owned(), said.into_bytes()));
    for (name, bytes) in &left {
        for canary in &canaries {
            let found = bytes.windows(canary.len()).any(|window| window == canary.as_bytes());
            assert!(!found, "{name} holds {canary}");
        }
    }
}
