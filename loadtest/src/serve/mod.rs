//! The load tester that webhooks of canaries call, in the place of Flagger's.
//!
//! Paths, payload, statuses, gates and flags are Flagger's. What its shell runs is understood here as a closed grammar
//! (`aviary_load_commands`) and done in this process; other commands are refused unless they are switched on.

mod access;
mod api;
mod client;
mod curl;
mod gates;
mod grpc;
mod http_load;
mod metrics;
mod outcome;
mod pace;
mod places;
mod process;
mod redirects;
mod targets;
mod tasks;
#[cfg(test)]
mod tests;

use std::convert::Infallible;
use std::num::NonZeroUsize;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpListener;
use tokio::sync::{Mutex, Semaphore};

pub use access::{Access, NoToken, Token};
pub use gates::GatesError;
pub use targets::{Network, NoNetwork, Targets};

use gates::Gates;
use metrics::Metrics;
use places::Places;

/// How the load tester serves.
#[derive(Clone)]
pub struct Options {
    /// A task that runs this long is ended.
    pub timeout: Duration,
    /// Who may ask.
    pub access: Access,
    /// Where requests may go.
    pub targets: Targets,
    /// Commands that are not understood are run in a shell.
    pub allows_commands: bool,
    /// Where open gates are kept over a restart.
    pub gates_file: Option<PathBuf>,
    /// Tasks that run at once at most.
    pub max_tasks: NonZeroUsize,
    /// Of these, tasks of one namespace.
    pub max_tasks_per_namespace: NonZeroUsize,
}

/// A load tester that cannot be.
#[derive(Debug, thiserror::Error)]
pub enum ServeError {
    /// The file of the gates cannot be used.
    #[error(transparent)]
    Gates(#[from] GatesError),
    /// Metrics cannot be set up.
    #[error("failed to set up metrics")]
    Metrics(#[from] prometheus::Error),
}

/// What every task needs.
struct Context {
    targets: Arc<Targets>,
    metrics: Metrics,
    timeout: Duration,
}

/// The load tester.
pub struct LoadTester {
    context: Context,
    access: Access,
    allows_commands: bool,
    gates: Gates,
    places: Places,
}

/// A client may be silent this long, between requests or within the head of one; and a payload, which is small, takes no
/// longer.
const SILENCE_LIMIT: Duration = Duration::from_secs(15);
/// An answer is written within this time at most: it is as small, and a slow network has it through by then.
const ANSWER_LIMIT: Duration = Duration::from_secs(60);
/// A connection ends after this long, when no request is under way: one whose client never reads must not keep its place.
/// Long enough that connecting costs a client nothing.
const CONNECTION_LIMIT: Duration = Duration::from_secs(300);
/// Connections at once: as many as tasks that callers wait for, and as many again for gates and probes, at the default of
/// `--max-tasks` twice over. More wait.
const MAX_CONNECTIONS: usize = 1024;
/// `accept` fails when the process is out of file descriptors; trying again at once would only burn the CPU.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

impl LoadTester {
    /// A load tester without tasks.
    ///
    /// # Errors
    /// If the file of the gates cannot be read.
    pub fn new(options: Options) -> Result<LoadTester, ServeError> {
        Ok(LoadTester {
            gates: Gates::new(options.gates_file)?,
            places: Places::new(options.max_tasks.get(), options.max_tasks_per_namespace.get()),
            context: Context { targets: Arc::new(options.targets), metrics: Metrics::new()?, timeout: options.timeout },
            access: options.access,
            allows_commands: options.allows_commands,
        })
    }

    /// Serves until it is dropped.
    pub async fn serve(self: Arc<Self>, listener: TcpListener) -> Infallible {
        let connections = Arc::new(Semaphore::new(MAX_CONNECTIONS));
        loop {
            let permit = Arc::clone(&connections).acquire_owned().await;
            match listener.accept().await {
                Ok((stream, _)) => {
                    let tester = Arc::clone(&self);
                    tokio::spawn(async move {
                        tester.serve_connection(stream).await;
                        drop(permit);
                    });
                }
                Err(error) => {
                    tracing::warn!(%error, "HTTP connection was not accepted");
                    tokio::time::sleep(ACCEPT_PAUSE).await;
                }
            }
        }
    }

    async fn serve_connection(self: Arc<Self>, stream: impl AsyncRead + AsyncWrite + Unpin + 'static) {
        // Taken while a request is answered, which may take as long as a task.
        let answering = Mutex::new(());
        let answer = async |request| {
            let _answering = answering.lock().await;
            Arc::clone(&self).answer(request).await
        };
        // A caller that goes away closes its connection: the answer's future is dropped, and with it the task.
        let connection = http1::Builder::new()
            .timer(TokioTimer::new())
            .header_read_timeout(SILENCE_LIMIT)
            .serve_connection(TokioIo::new(stream), service_fn(answer));
        let mut connection = std::pin::pin!(connection);
        // A client that goes away or falls silent is nobody's error.
        if tokio::time::timeout(CONNECTION_LIMIT, connection.as_mut()).await.is_ok() {
            return;
        }
        connection.as_mut().graceful_shutdown();
        let is_late = async {
            drop(answering.lock().await);
            tokio::time::sleep(ANSWER_LIMIT).await;
        };
        tokio::select! {
            _ = connection => {}
            () = is_late => {}
        }
    }
}
