//! `connect`: a user consents, and the command waits for it.

use std::time::Duration;

use anyhow::{Result, bail};
use http::Method;
use indicatif::{ProgressBar, ProgressStyle};
use serde::Deserialize;
use serde_json::{Map, Value};
use tokenkeep_core::{ConnectionId, ports::Clock as _};
use tokenkeep_engine::system::SystemClock;

use super::Context;
use crate::{
    args,
    client::{Call, Client, segment},
    out,
};

/// How often the server is asked how far it got.
const POLL: Duration = Duration::from_secs(1);

/// What stands for the status where Ctrl-C ended the waiting; no server says so.
const INTERRUPTED: &str = "interrupted";

#[derive(Deserialize)]
struct Started {
    connect_id: String,
    authorize_url: Option<String>,
    device: Option<Device>,
    expires_in: u64,
    status: String,
}

#[derive(Deserialize)]
struct Device {
    user_code: String,
    verification_uri: String,
    verification_uri_complete: Option<String>,
}

#[derive(Deserialize)]
struct View {
    status: String,
    error: Option<String>,
}

pub(super) async fn run(context: &Context, connect: args::Connect) -> Result<()> {
    let id = connect.which.id()?;
    let client = context.client()?;
    let body: Map<String, Value> = [
        ("provider", Some(id.integration.as_str())),
        ("tenant", Some(id.tenant.as_str())),
        ("subject", Some(id.subject.as_str())),
        ("scope", connect.scope.as_deref()),
    ]
    .into_iter()
    .filter_map(|(name, value)| Some((name.to_owned(), value?.into())))
    // Whoever runs this command is who the link is for: nobody else is there to confirm.
    .chain([("confirm".to_owned(), false.into())])
    .collect();
    let answer = client.call(Call::new(Method::POST, "/v1/connect").json(&body)?).await?;
    let started: Started = answer.read()?;
    let patience = connect.wait.unwrap_or(started.expires_in);

    // With --json the only thing on standard output is the outcome; what people need goes beside it.
    if connect.output.json && patience == 0 {
        return out::json(&answer.read::<Value>()?);
    }
    if started.status != "connected" {
        invite(context, &connect, &id, &started)?;
    }
    let view = if started.status == "connected" || patience == 0 {
        View { status: started.status, error: None }
    } else {
        wait(&client, &started.connect_id, Duration::from_secs(patience)).await?
    };
    if connect.output.json {
        let path = format!("/v1/connect/{}", segment(&started.connect_id));
        out::json(&client.fetch::<Value>(Call::get(path)).await?)?;
    }
    let why = view.error.map(|error| format!(" ({})", error.escape_debug())).unwrap_or_default();
    match view.status.as_str() {
        "connected" if connect.output.json => Ok(()),
        "connected" => out::line(format_args!("{id}: connected")),
        "pending" if patience > 0 => {
            bail!("{id}: nobody consented within {patience} s; the link goes on being valid until it is used")
        }
        "pending" | INTERRUPTED => {
            out::note("Not waiting; the link goes on being valid until it is used.");
            Ok(())
        }
        "awaiting_confirmation" => {
            out::note("The user consented; the application still has to confirm it.");
            Ok(())
        }
        "denied" => bail!("{id}: the user, or their organisation, did not allow it{why}"),
        "expired" => bail!("{id}: nobody consented in time; run it again for a new link"),
        _ => bail!("{id}: that did not work{why}; the server's log says more"),
    }
}

/// Says where to consent, and opens it where there is a desktop.
fn invite(context: &Context, connect: &args::Connect, id: &ConnectionId, started: &Started) -> Result<()> {
    let say = |text: String| if connect.output.json { out::note(text) } else { drop(out::line(text)) };
    if let Some(device) = &started.device {
        say(format!(
            "To connect {id}, open\n\n    {}\n\nand enter the code\n\n    {}\n",
            device.verification_uri, device.user_code
        ));
        if let Some(url) = &device.verification_uri_complete {
            open(context, connect, url);
        }
        return Ok(());
    }
    let Some(url) = &started.authorize_url else { bail!("the server named no place to consent") };
    say(format!("To connect {id}, open\n\n    {url}\n"));
    open(context, connect, url);
    Ok(())
}

/// Only where somebody sits before a screen of this machine.
fn open(context: &Context, connect: &args::Connect, url: &str) {
    let is_set = |name| context.environment.os(name).is_some();
    let remote = is_set("SSH_CONNECTION");
    let desktop = cfg!(target_os = "macos") || is_set("DISPLAY") || is_set("WAYLAND_DISPLAY");
    if connect.no_browser || remote || !desktop || !out::is_terminal() {
        return;
    }
    if webbrowser::open(url).is_ok() {
        out::note("It was opened in your browser.");
    }
}

/// Waits until it is decided. Ctrl-C leaves the connect as it is: the link stays valid.
async fn wait(client: &Client, connect_id: &str, patience: Duration) -> Result<View> {
    let path = format!("/v1/connect/{}", segment(connect_id));
    let spinner = ProgressBar::new_spinner().with_message("waiting for the user's consent (Ctrl-C stops waiting)");
    // Hidden by itself where standard error is no terminal.
    spinner.set_style(ProgressStyle::default_spinner().tick_chars("⠋⠙⠹⠸⠼⠴⠦⠧⠇⠏ "));
    spinner.enable_steady_tick(Duration::from_millis(100));
    let clock = SystemClock;
    let until = clock.now().boot + patience;
    let view = loop {
        let view: View = client.fetch(Call::get(path.as_str())).await?;
        if view.status != "pending" || clock.now().boot >= until {
            break view;
        }
        tokio::select! {
            () = clock.sleep(POLL) => {}
            _ = tokio::signal::ctrl_c() => break View { status: INTERRUPTED.to_owned(), error: None },
        }
    };
    spinner.finish_and_clear();
    Ok(view)
}
