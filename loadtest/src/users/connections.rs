//! Connections that are kept for the next request.

use std::error::Error as _;
use std::io;
use std::time::Duration;

use bytes::Bytes;
use http::{Request, StatusCode, Uri};
use http_body_util::{BodyExt, Empty};
use hyper::client::conn::http1::{SendRequest, handshake};
use hyper_util::rt::TokioIo;
use parking_lot::Mutex;
use tokio::net::TcpStream;

use crate::cluster_network::VERSION_HEADER;

type Sender = SendRequest<Empty<Bytes>>;

/// Why a request was not answered.
#[derive(Debug, thiserror::Error)]
pub(super) enum Failure {
    #[error("failed to connect")]
    Connect(#[source] io::Error),
    #[error("failed to send the request or to read the answer")]
    Http(#[from] hyper::Error),
    #[error("no answer within {0:?}")]
    TimedOut(Duration),
    #[error("not sent: {0} requests are under way")]
    TooMany(usize),
}

impl Failure {
    /// With its causes.
    pub(super) fn to_text(&self) -> String {
        let mut text = self.to_string();
        let mut cause = self.source();
        while let Some(error) = cause {
            text = format!("{text}: {error}");
            cause = error.source();
        }
        text
    }
}

/// The connections to a server that rest at present. Requests under way have theirs to themselves.
pub(super) struct Connections {
    host: String,
    port: u16,
    /// The one that was used last is used next, so that those that are not needed any more grow old.
    resting: Mutex<Vec<Sender>>,
}

impl Connections {
    pub(super) fn new(url: &Uri) -> Self {
        let host = url.host().unwrap_or_default().trim_start_matches('[').trim_end_matches(']').to_owned();
        Connections { host, port: url.port_u16().unwrap_or(80), resting: Mutex::default() }
    }

    /// The status of the answer, once it has arrived to its end, and the version that gave it.
    pub(super) async fn ask(&self, request: Request<Empty<Bytes>>) -> Result<(StatusCode, Option<String>), Failure> {
        let mut request = request;
        loop {
            let resting = self.resting();
            let is_reused = resting.is_some();
            let mut connection = match resting {
                Some(connection) => connection,
                None => self.connect().await?,
            };
            let response = match connection.try_send_request(request).await {
                Ok(response) => response,
                Err(mut error) => match error.take_message() {
                    // Closed while it rested, and nothing was sent: that is no failure.
                    Some(unsent) if is_reused => {
                        request = unsent;
                        continue;
                    }
                    _ => return Err(error.into_error().into()),
                },
            };
            let (head, mut body) = response.into_parts();
            while let Some(frame) = body.frame().await {
                frame?;
            }
            // The server may have said that it closes.
            if connection.ready().await.is_ok() {
                self.resting.lock().push(connection);
            }
            let version = head.headers.get(VERSION_HEADER).and_then(|version| version.to_str().ok());
            return Ok((head.status, version.map(str::to_owned)));
        }
    }

    fn resting(&self) -> Option<Sender> {
        let mut resting = self.resting.lock();
        while let Some(connection) = resting.pop() {
            if connection.is_ready() {
                return Some(connection);
            }
        }
        None
    }

    async fn connect(&self) -> Result<Sender, Failure> {
        let stream = TcpStream::connect((self.host.as_str(), self.port)).await.map_err(Failure::Connect)?;
        stream.set_nodelay(true).map_err(Failure::Connect)?;
        let (sender, connection) = handshake(TokioIo::new(stream)).await?;
        // Its errors are those of the request under way.
        tokio::spawn(async move { drop(connection.await) });
        Ok(sender)
    }
}
