//! Connections for writes: their bytes leave only while the fence is open.
//!
//! The fence looks at a request when it is sent, yet a process can be stopped between that look and the socket. Here the
//! look is taken right before each piece is handed to the system.

use std::io::{self, IoSlice};
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;

use futures::FutureExt;
use futures::future::BoxFuture;
use http::Uri;
use hyper::rt::{Read, ReadBufCursor, Write};
use hyper_util::client::legacy::Client;
use hyper_util::client::legacy::connect::{Connected, Connection, HttpConnector};
use hyper_util::rt::TokioExecutor;
use kube::client::{Body, ConfigExt};
use tower::{BoxError, Service, ServiceBuilder};

use super::Fence;

/// How long a connection may take to be opened; kube's default.
const CONNECT: Duration = Duration::from_secs(30);

/// A client for writes, over connections of its own that only the leader can use. Each call is one try: a retry within the
/// client would pass the fence by.
///
/// # Errors
/// As for any client: certificates or credentials that cannot be used.
pub fn client(config: &kube::Config, fence: &Fence) -> kube::Result<kube::Client> {
    let mut tcp = HttpConnector::new();
    tcp.enforce_http(false);
    tcp.set_nodelay(true);
    tcp.set_connect_timeout(Some(config.connect_timeout.unwrap_or(CONNECT)));
    // What the other side has not received by then is not sent again.
    #[cfg(target_os = "linux")]
    tcp.set_tcp_user_timeout(Some(fence.way()));
    let tls = config.rustls_https_connector_with_connector(FencedConnector { inner: tcp, fence: fence.clone() })?;
    let http: Client<_, Body> = Client::builder(TokioExecutor::new()).build(tls);
    let service = ServiceBuilder::new()
        .layer(config.base_uri_layer())
        .option_layer(config.auth_layer()?)
        .layer(config.extra_headers_layer()?)
        .map_err(BoxError::from)
        .service(http);
    Ok(kube::Client::new(service, config.default_namespace.clone()))
}

#[derive(Clone)]
struct FencedConnector<C> {
    inner: C,
    fence: Fence,
}

impl<C> Service<Uri> for FencedConnector<C>
where
    C: Service<Uri>,
    C::Error: Into<BoxError>,
    C::Future: Send + 'static,
{
    type Response = FencedIo<C::Response>;
    type Error = BoxError;
    type Future = BoxFuture<'static, Result<Self::Response, BoxError>>;

    fn poll_ready(&mut self, context: &mut Context<'_>) -> Poll<Result<(), BoxError>> {
        self.inner.poll_ready(context).map_err(Into::into)
    }

    fn call(&mut self, address: Uri) -> Self::Future {
        let (connecting, fence) = (self.inner.call(address), self.fence.clone());
        async move { Ok(FencedIo { inner: connecting.await.map_err(Into::into)?, fence }) }.boxed()
    }
}

/// A connection that takes no byte while the fence is closed.
struct FencedIo<T> {
    inner: T,
    fence: Fence,
}

impl<T> FencedIo<T> {
    fn check(&self) -> io::Result<()> {
        self.fence.permit().map(drop).map_err(io::Error::other)
    }
}

impl<T: Connection> Connection for FencedIo<T> {
    fn connected(&self) -> Connected {
        self.inner.connected()
    }
}

impl<T: Read + Unpin> Read for FencedIo<T> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: ReadBufCursor<'_>,
    ) -> Poll<io::Result<()>> {
        Pin::new(&mut self.inner).poll_read(context, buffer)
    }
}

impl<T: Write + Unpin> Write for FencedIo<T> {
    fn poll_write(mut self: Pin<&mut Self>, context: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        self.check()?;
        Pin::new(&mut self.inner).poll_write(context, bytes)
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.inner).poll_flush(context)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.inner).poll_shutdown(context)
    }

    fn is_write_vectored(&self) -> bool {
        self.inner.is_write_vectored()
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        pieces: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        self.check()?;
        Pin::new(&mut self.inner).poll_write_vectored(context, pieces)
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

    use aviary_actors::Clock;
    use http::Request;
    use jiff::Timestamp;
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    use tokio::net::TcpListener;
    use tokio::time::Instant;

    use super::*;
    use crate::leader::Timing;

    /// The fence is closed between two writes on one connection; nothing of the second arrives.
    #[tokio::test]
    async fn no_byte_leaves_through_a_closed_fence() {
        let _ = rustls::crypto::ring::default_provider().install_default();
        let server = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let config = kube::Config::new(format!("http://{}", server.local_addr().unwrap()).parse().unwrap());
        let fence = Fence::new(Timing::default(), Clock::from_fn(|| Timestamp::UNIX_EPOCH));
        let client = client(&config, &fence).unwrap();
        let put = || {
            let request = Request::put("/api/v1/namespaces/a/services/b").body(Body::from(b"{}".to_vec())).unwrap();
            client.send(request)
        };
        let arrived = async {
            let (mut connection, _) = server.accept().await.unwrap();
            let mut first = vec![0; 4096];
            let length = connection.read(&mut first).await.unwrap();
            connection.write_all(b"HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n").await.unwrap();
            let mut rest = Vec::new();
            connection.read_to_end(&mut rest).await.unwrap();
            (String::from_utf8_lossy(&first[..length]).into_owned(), rest)
        };
        fence.renewed(Instant::now(), Timestamp::UNIX_EPOCH);
        let writes = async {
            put().await.unwrap();
            fence.revoke();
            put().await.expect_err("refused")
        };
        let ((first, rest), error) = tokio::join!(arrived, writes);
        assert!(first.starts_with("PUT /api/v1/namespaces/a/services/b HTTP/1.1"), "{first}");
        assert_eq!(rest, b"");
        let error = crate::one_line(&anyhow::Error::from(error));
        assert!(error.contains("does not lead"), "{error}");
    }
}
