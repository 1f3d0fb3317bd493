//! `tokenkeep serve`: everything is put together here, and ends here.

pub(crate) mod backends;
mod banner;
pub(crate) mod data_dir;
mod hardening;
pub(crate) mod installation;
mod issuer;
pub(crate) mod listen;
mod logging;
pub(crate) mod protect;
mod said;
pub(crate) mod sealing_key;
mod secret_files;
pub(crate) mod server_url;
mod sessions;
mod signals;
pub(crate) mod store;

use std::{num::NonZeroU32, sync::Arc, time::Duration};

use anyhow::{Context, Result, bail};
use tokenkeep_core::{
    IntegrationId,
    ports::{Clock, Entropy},
};
use tokenkeep_engine::{
    Caller, CircuitSettings, Engine, Error, Parts, Process, ProxySettings, Settings,
    barrier::Barrier,
    system::{SystemClock, SystemEntropy},
    transport::{HyperTransport, Outbound, Pace, Pacer, Pacing, TransportOptions},
};
use tokenkeep_server::{AppState, Limits, Listener};
use tokio::sync::watch;
use url::Url;

use self::{
    backends::{Backends, Opening},
    banner::Banner,
    data_dir::DataDir,
    installation::Installation,
    sealing_key::StoreFacts,
    signals::Signals,
    store::Choice,
};
use crate::{args, config::Config, environment::Environment};

/// Runs the server until it is told to end.
pub(crate) async fn run(arguments: args::Serve, global: &args::Global, environment: &Environment) -> Result<()> {
    let mut config = Config::load(global.config.as_deref(), environment)?;
    if let Some(level) = arguments.log {
        config.log.level = level;
    }
    if let Some(listen) = arguments.listen {
        config.server.listen = listen;
    }
    if let Some(dir) = &global.data_dir {
        config.server.data_dir = Some(dir.clone());
    }
    start(config, environment, None).await
}

/// An integration without which there is no point in going on.
#[derive(Debug)]
pub(crate) struct Demand {
    pub(crate) integration: IntegrationId,
    /// What is said where it is not there.
    pub(crate) otherwise: String,
}

impl Demand {
    async fn check(self, engine: &Engine) -> Result<()> {
        match engine.integrations().get(&Caller::Local, &self.integration).await {
            Err(Error::NotFound { .. }) => bail!(self.otherwise),
            Err(error) => Err(error).context("the integrations cannot be read"),
            Ok(_) => Ok(()),
        }
    }
}

/// Runs the server as `config` says until it is told to end.
pub(crate) async fn start(config: Config, environment: &Environment, demand: Option<Demand>) -> Result<()> {
    let config = Arc::new(config);
    logging::start(&config.log)?;
    hardening::no_core_dumps();
    // From here on a signal is heard: what has begun is ended in order.
    let signals = Signals::listen()?;

    let dir = DataDir::at(config.data_dir(environment)?);
    let choice = Choice::make(&config, environment, &dir)?;
    tracing::info!(store = %choice.place, chosen_by = choice.chosen_by, "starting");
    for note in store::unused(&choice, environment) {
        tracing::warn!("{note}");
    }
    let installation = Installation::read(&config, environment)?;
    let compat = config.compat.settings()?;
    let dir = DataDir::prepare(dir.path().to_owned())?;

    let tcp = listen::tcp(config.server.listen).await?;
    let listening = tcp.local_addr().context("a bound listener has an address")?;
    let public_url = config.public_url(listening)?;
    let issuer = issuer::settings(&config, &public_url)?.map(Arc::new);
    let sessions = sessions::settings(&config, issuer.as_deref(), &public_url)?.map(Arc::new);
    let protected: Vec<_> = protect::read(&config, &public_url)?.into_iter().map(|told| told.server).collect();

    let clock: Arc<dyn Clock> = Arc::new(SystemClock);
    let entropy: Arc<dyn Entropy> = Arc::new(SystemEntropy);
    let opening = Opening { config: &config, environment, clock: &clock, entropy: &entropy };
    let Backends { store, bus, shared_cache, counter, redis_metrics } = opening.open(&choice).await?;
    let facts = StoreFacts {
        is_ours: choice.is_ours(&dir),
        is_empty: store::is_empty(&*store).await.context("the store cannot be read")?,
    };
    let transit = opening.transit().await?;
    let keys = sealing_key::find(&config.sealing, &dir, facts, &*entropy, transit.as_ref()).await?;
    let sealing = keys.from.to_string();

    let pacer = Arc::new(Pacer::new(clock.clone(), pacing(&config)));
    let options = TransportOptions {
        extra_ca_file: config.transport.extra_ca_file.clone(),
        allow_plain_http: config.transport.allow_plain_http,
        ..TransportOptions::default()
    };
    let transport = HyperTransport::new(clock.clone(), pacer.clone(), &options)
        .context("`transport.extra_ca_file` cannot be used")?;
    let outbound = Outbound::new(clock.clone(), &options).context("`transport.extra_ca_file` cannot be used")?;
    let host = host_name();
    // Nobody can reach "every address of this machine" by that name.
    let address =
        if listening.ip().is_unspecified() { format!("{host}:{}", listening.port()) } else { listening.to_string() };
    let process = Process { address: Some(address), ..Process::on(host) };
    let settings = Settings {
        process,
        issuer: issuer.clone(),
        sessions: sessions.clone(),
        ..settings(&config, public_url.clone())
    };
    let parts = Parts {
        store,
        bus,
        shared_cache,
        counter,
        barrier: Barrier::new(&keys.active, &keys.retired, entropy.clone()),
        transport: Arc::new(transport),
        outbound: Some(outbound),
        pacer: Some(pacer),
        catalogue: config.catalogue.clone(),
        journal_dir: Some(dir.journal()),
        clock: clock.clone(),
        entropy,
    };
    drop(keys);
    let engine = Engine::start(parts, settings).await?;
    if let Some(counted) = redis_metrics {
        engine.metrics().register(|registry| counted.register(registry));
    }
    let patience = Duration::from_secs(config.server.shutdown_patience);
    let applied = async {
        // Before anything is made that is shown once.
        if let Some(demand) = demand {
            demand.check(&engine).await?;
        }
        let admin_key = installation.apply(&engine).await?;
        match &sessions {
            Some(sessions) => sessions::look_around(sessions, &engine).await.map(|()| admin_key),
            None => Ok(admin_key),
        }
    };
    let admin_key = match applied.await {
        Ok(admin_key) => admin_key,
        Err(error) => {
            // It refreshes already: what has been spent must not be lost to a start that failed.
            engine.shutdown(patience).await;
            return Err(error);
        }
    };
    if let Some(issuer) = &issuer {
        issuer::look_around(issuer, &public_url, &engine).await;
    }
    tokio::spawn(secret_files::follow(config.clone(), environment.clone(), public_url.clone(), engine.clone()));

    let open_metrics = config.server.open_metrics.unwrap_or(listening.ip().is_loopback());
    let state = AppState::new(
        engine.clone(),
        tokenkeep_server::Settings { open_metrics, compat, protected: protected.clone() },
    );
    let socket = match listen::unix(&dir.socket()).await {
        Ok(Some(socket)) => Some(socket),
        Ok(None) => {
            tracing::warn!("another tokenkeep serves this data directory; the local socket stays with it");
            None
        }
        Err(error) => {
            tracing::warn!("there is no local socket: {error:#}");
            None
        }
    };
    let limits = Limits { connections: config.server.max_connections, drain: patience, ..Limits::default() };
    let (end, ending) = watch::channel(false);
    let mut servers = tokio::task::JoinSet::new();
    let has_socket = socket.is_some();
    let listeners = [Some(Listener::Tcp(tcp)), socket.map(Listener::Unix)];
    for listener in listeners.into_iter().flatten() {
        let mut ending = ending.clone();
        // An error means that the sender is gone: that is the end, too.
        let told = async move { drop(ending.wait_for(|ending| *ending).await) };
        servers.spawn(tokenkeep_server::serve(listener, state.clone(), limits.clone(), told));
    }
    let silent = protect::silent(&protected, &engine).await;
    let banner = Banner {
        store: &choice,
        listening,
        socket: has_socket.then(|| dir.socket()),
        public_url: &public_url,
        issuer: issuer.as_deref(),
        protected: &protected,
        silent: &silent,
        data_dir: dir.path(),
        sealing: &sealing,
        admin_key: admin_key.as_ref(),
    };
    banner.show()?;
    drop(admin_key);

    let broken = tokio::select! {
        signal = signals.first() => {
            tracing::info!(signal, "ending: answers and refreshes under way may finish");
            None
        }
        Some(ended) = servers.join_next() => Some(ended),
    };
    let ended = async {
        engine.announce_shutdown();
        clock.sleep(Duration::from_secs(config.server.shutdown_delay)).await;
        end.send_replace(true);
        while servers.join_next().await.is_some() {}
        engine.shutdown(patience).await;
        if has_socket {
            // Nobody answers there any more; a next start would remove it as well.
            let _ = std::fs::remove_file(dir.socket());
        }
        tracing::info!("ended");
    };
    tokio::select! {
        () = ended => {}
        () = signals.second() => {
            tracing::warn!("told again to end: ending at once; replies not committed lie in the journal");
            std::process::exit(1);
        }
    }
    match broken {
        None | Some(Ok(Ok(()))) => Ok(()),
        Some(Ok(Err(error))) => Err(error).context("the listener broke"),
        Some(Err(panic)) => Err(panic).context("the server broke"),
    }
}

fn settings(config: &Config, public_url: Url) -> Settings {
    let seconds = Duration::from_secs;
    Settings {
        return_to_origins: config.connect.return_to_origins.clone(),
        hash_labels: config.store.hash_labels,
        cache_bytes: config.cache.max_mib.saturating_mul(1024 * 1024),
        cache_soft_life: seconds(config.cache.soft_life),
        refresh_margin: seconds(config.refresh.margin),
        proxy: ProxySettings {
            max_wait: seconds(config.proxy.max_wait),
            circuit: CircuitSettings {
                failures: config.proxy.circuit_failures,
                cool_down: seconds(config.proxy.circuit_cool_down),
            },
        },
        connect_timeout: seconds(config.transport.connect_timeout),
        preload_concurrency: config.refresh.concurrency.max(1),
        preload_interval: seconds(config.refresh.interval.max(1)),
        cleanup_interval: seconds(config.store.cleanup_interval.max(1)),
        ..Settings::new(public_url)
    }
}

/// The name of this machine, or of its container.
fn host_name() -> String {
    rustix::system::uname().nodename().to_string_lossy().into_owned()
}

fn pacing(config: &Config) -> Pacing {
    let default = Pace {
        concurrency: config.transport.concurrency.max(1),
        per_second: NonZeroU32::new(config.transport.per_second),
    };
    Pacing { default, ..Pacing::default() }
}
