//! The controller's way to the API server, which can be cut.

use std::net::SocketAddr;

use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;

const API_SERVER: &str = "10.99.0.1:6443";

pub struct Proxy {
    address: SocketAddr,
    cuts: watch::Sender<u64>,
}

impl Proxy {
    pub async fn start() -> Proxy {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let cuts = watch::Sender::new(0);
        let of_connections = cuts.clone();
        tokio::spawn(async move {
            while let Ok((mut from, _)) = listener.accept().await {
                let mut cut = of_connections.subscribe();
                tokio::spawn(async move {
                    // An API server that is away refuses the connection; its client then sees one that ends at once.
                    let Ok(mut to) = TcpStream::connect(API_SERVER).await else { return };
                    tokio::select! {
                        _ = tokio::io::copy_bidirectional(&mut from, &mut to) => {}
                        _ = cut.changed() => {}
                    }
                });
            }
        });
        Proxy { address, cuts }
    }

    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// How many are open.
    pub fn connections(&self) -> usize {
        self.cuts.receiver_count()
    }

    /// Ends all connections without a word of TLS or HTTP. Returns how many there were.
    pub fn cut(&self) -> usize {
        let connections = self.connections();
        self.cuts.send_modify(|cuts| *cuts += 1);
        connections
    }
}
