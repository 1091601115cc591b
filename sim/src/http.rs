//! The API server over plain HTTP/1.1 and HTTP/2 with prior knowledge, for `kubectl` and for other processes.

use std::io;

use hyper_util::rt::{TokioExecutor, TokioIo};
use hyper_util::server::conn::auto;
use hyper_util::service::TowerToHyperService;
use tokio::net::TcpListener;

use crate::apiserver::ApiServer;

/// Serves connections until the listener fails. Each runs in a task of its own; a broken one ends alone.
///
/// # Errors
/// When the listener can accept no more connections.
pub async fn serve(server: ApiServer, listener: TcpListener) -> io::Result<()> {
    loop {
        let (stream, peer) = listener.accept().await?;
        // Answers are small and awaited one by one: Nagle's algorithm would only delay them.
        stream.set_nodelay(true)?;
        let service = TowerToHyperService::new(server.clone());
        tokio::spawn(async move {
            let connection = auto::Builder::new(TokioExecutor::new());
            if let Err(error) = connection.serve_connection(TokioIo::new(stream), service).await {
                tracing::debug!(%peer, %error, "connection ended");
            }
        });
    }
}
