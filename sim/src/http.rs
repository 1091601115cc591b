//! Services over plain HTTP/1.1 and HTTP/2 with prior knowledge, for `kubectl` and for other processes.

use std::convert::Infallible;
use std::time::Duration;

use bytes::Bytes;
use http::{Request, Response};
use http_body::Body;
use hyper::body::Incoming;
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use hyper_util::server::conn::auto;
use hyper_util::service::TowerToHyperService;
use tokio::net::TcpListener;
use tower::Service;

/// A client may take this long for the head of a request, and rest this long between two requests. Go's clients keep idle
/// connections for 90 s; a server that hangs up first makes some request meet a closed connection.
const SILENCE_LIMIT: Duration = Duration::from_secs(120);
/// `accept` fails when the process is out of file descriptors; trying again at once would only burn the CPU.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);
/// Watches and other streams on one HTTP/2 connection: the API server's own limit.
const MAX_STREAMS: u32 = 250;

/// Serves connections for ever. Each runs in a task of its own; a broken one ends alone, and so does one that could not
/// be accepted.
pub async fn serve<S, B>(service: S, listener: TcpListener) -> Infallible
where
    S: Service<Request<Incoming>, Response = Response<B>> + Clone + Send + 'static,
    S::Future: Send,
    S::Error: Into<Box<dyn std::error::Error + Send + Sync>>,
    B: Body<Data = Bytes> + Send + 'static,
    B::Error: Into<Box<dyn std::error::Error + Send + Sync>>,
{
    loop {
        let (stream, peer) = match listener.accept().await {
            Ok(accepted) => accepted,
            Err(error) => {
                tracing::warn!(%error, "a connection was not accepted");
                tokio::time::sleep(ACCEPT_PAUSE).await;
                continue;
            }
        };
        // Answers are small and awaited one by one: Nagle's algorithm would only delay them. It fails on a connection that
        // is gone already, which its task finds out.
        let _ = stream.set_nodelay(true);
        let service = TowerToHyperService::new(service.clone());
        tokio::spawn(async move {
            let mut connection = auto::Builder::new(TokioExecutor::new());
            connection.http1().timer(TokioTimer::new()).header_read_timeout(SILENCE_LIMIT);
            connection.http2().timer(TokioTimer::new()).max_concurrent_streams(MAX_STREAMS);
            if let Err(error) = connection.serve_connection(TokioIo::new(stream), service).await {
                tracing::debug!(%peer, %error, "connection ended");
            }
        });
    }
}
