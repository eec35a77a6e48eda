//! `drumlin serve`: the broker as a process.

use std::io::{IsTerminal, Write};
use std::process::ExitCode;
use std::sync::Arc;

use anyhow::{Context, anyhow};
use drumlin_broker::config::{BrokerConfig, LogFormat};
use drumlin_broker::{Broker, ExitReason, startup};
use drumlin_console::Console;
use drumlin_objects::{Env, Failure, TaskKind, log_panics};
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::watch;
use tracing::{info, warn};
use tracing_subscriber::EnvFilter;

use crate::allocator;
use crate::args::Configuration;

/// Runs the broker until it is told to stop, or cannot go on.
pub fn run(configuration: &Configuration) -> anyhow::Result<ExitCode> {
    let (config, warnings) = configuration.load()?;
    start_logging(config.log_format);
    log_panics();
    allocator::give_memory_back_soon();
    for warning in warnings {
        warn!("{warning}");
    }
    let runtime = runtime()?;
    let code = runtime.block_on(serve(config));
    // Tasks that still run have nothing to say any more: what had to be durable is.
    runtime.shutdown_background();
    code
}

/// The runtime of everything that this program does.
pub fn runtime() -> anyhow::Result<tokio::runtime::Runtime> {
    tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .thread_name("drumlin")
        .thread_stack_size(1 << 20)
        .build()
        .context("the threads cannot be started")
}

/// Log lines go to stderr; `RUST_LOG` narrows or widens them.
pub fn start_logging(format: LogFormat) {
    let filter = EnvFilter::try_from_default_env().unwrap_or_else(|_| EnvFilter::new("info,foyer=warn"));
    let lines = tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_writer(std::io::stderr)
        .with_ansi(std::io::stderr().is_terminal());
    match format {
        LogFormat::Text => lines.with_target(false).init(),
        LogFormat::Json => lines.json().init(),
    }
}

async fn serve(config: BrokerConfig) -> anyhow::Result<ExitCode> {
    // From the first moment on, so that a stop during the start is one too.
    let mut terminate = signal(SignalKind::terminate()).context("SIGTERM cannot be caught")?;
    let mut interrupt = signal(SignalKind::interrupt()).context("SIGINT cannot be caught")?;
    let env = Env::real();
    let (view, viewed) = watch::channel(None);
    let admin = console(&config, &env, viewed).await?;
    let starting = start(&env, &config);
    let mut failed = env.failed();
    let broker = tokio::select! {
        biased;
        _ = terminate.recv() => return Ok(ExitCode::SUCCESS),
        _ = interrupt.recv() => return Ok(ExitCode::SUCCESS),
        failure = failure_of(&mut failed) => return Err(failure.into()),
        broker = starting => Arc::new(broker?),
    };
    view.send_replace(Some(Arc::clone(&broker)));
    greet(&broker, &config, admin)?;
    let reason = tokio::select! {
        biased;
        _ = terminate.recv() => None,
        _ = interrupt.recv() => None,
        reason = broker.ended() => Some(reason),
    };
    match reason {
        None => {
            info!("stopping");
            // A second signal does not wait for anybody.
            let clean = tokio::select! {
                biased;
                clean = broker.shutdown() => clean,
                _ = terminate.recv() => false,
                _ = interrupt.recv() => false,
            };
            info!(clean, "stopped");
            match env.failed().borrow().clone() {
                Some(failure) => Err(failure.into()),
                None => Ok(ExitCode::SUCCESS),
            }
        }
        Some(ExitReason::Fenced(why)) => Err(anyhow!("fenced: {why}")),
        Some(ExitReason::Failed(why)) => Err(anyhow!("{why}")),
    }
}

/// Waits until the broker cannot go on.
async fn failure_of(failed: &mut watch::Receiver<Option<Failure>>) -> Failure {
    match failed.wait_for(Option::is_some).await {
        Ok(failure) => match failure.clone() {
            Some(failure) => failure,
            None => std::future::pending().await,
        },
        // The sender is gone: there is nobody left who could fail.
        Err(_) => std::future::pending().await,
    }
}

async fn start(env: &Env, config: &BrokerConfig) -> anyhow::Result<Broker> {
    let bucket = startup::open_bucket(config, env)?;
    Ok(Broker::start(env, config.clone(), bucket).await?)
}

async fn console(
    config: &BrokerConfig,
    env: &Env,
    broker: watch::Receiver<Option<Arc<Broker>>>,
) -> anyhow::Result<Option<std::net::SocketAddr>> {
    let Some(admin) = &config.admin else {
        return Ok(None);
    };
    let console = Console::bind(&admin.host, admin.port).await.with_context(|| {
        format!("cannot listen on {admin}: change `admin.listener`, or stop what is there")
    })?;
    let address = console.address();
    env.spawn(TaskKind::Console, console.serve(broker, env.failed()));
    Ok(Some(address))
}

/// A few lines for a person; tests and scripts read the addresses from them.
fn greet(broker: &Broker, config: &BrokerConfig, admin: Option<std::net::SocketAddr>) -> anyhow::Result<()> {
    let mut lines = Vec::new();
    let mut first = None;
    for listener in broker.listeners() {
        if let Some(bound) = listener.bound {
            lines.push(format!("listening on {}://{bound}", listener.name));
            first.get_or_insert_with(|| listener.advertised.to_string());
        }
    }
    if let Some(admin) = admin {
        lines.push(format!("admin on http://{admin}"));
    }
    let state = if broker.created() {
        "new"
    } else {
        "as the last start left it"
    };
    lines.push(format!("data in {} ({state})", config.store.url));
    if let Some(address) = first {
        lines.push(format!("try: echo hello | kcat -b {address} -P -t greetings"));
        lines.push(format!("     kcat -b {address} -C -e -t greetings"));
    }
    let mut out = std::io::stdout().lock();
    // Nobody may be reading; that is no reason to stop.
    let _ = writeln!(out, "{}", lines.join("\n")).and_then(|()| out.flush());
    Ok(())
}
