//! The ceiling: a bare axum handler that answers a token-sized body and does nothing else.

use axum::{Router, http::header, routing::get};

#[derive(clap::Args)]
pub struct Arguments {
    /// Where to listen.
    #[arg(long, default_value = "127.0.0.1:0")]
    listen: String,
}

/// As long as a token of a large provider makes it.
pub const BODY: &str = concat!(
    r#"{"access_token":"ya29.a0Ae4lvC"#,
    "0123456789012345678901234567890123456789012345678901234567890123456789012345678901234567890123456789",
    r#"","token_type":"Bearer","expires_at":"2026-11-20T12:00:00Z","scope":"https://www.googleapis.com/auth/gmail.send","generation":7}"#
);

pub fn run(arguments: &Arguments) -> anyhow::Result<()> {
    // As many workers as the cores it is pinned to.
    let workers = std::thread::available_parallelism()?.get();
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(workers).enable_all().build()?;
    runtime.block_on(async {
        let app =
            Router::new().route("/static", get(|| async { ([(header::CONTENT_TYPE, "application/json")], BODY) }));
        let listener = tokio::net::TcpListener::bind(&arguments.listen).await?;
        println!("listening on {}", listener.local_addr()?);
        axum::serve(listener, app).await?;
        Ok(())
    })
}
