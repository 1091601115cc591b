//! An embedded cluster with its controllers on a port, for `kubectl --server`:
//! `cargo run -p aviary-sim --example serve -- 127.0.0.1:8001`.

#![allow(clippy::unwrap_used, clippy::print_stdout)]

use aviary_sim::{Cluster, ClusterOptions};

#[tokio::main(flavor = "current_thread")]
async fn main() {
    let address = std::env::args().nth(1).unwrap_or_else(|| "127.0.0.1:8001".to_owned());
    let cluster = Cluster::new(ClusterOptions::default());
    let listener = tokio::net::TcpListener::bind(&address).await.unwrap();
    println!("serving on http://{}", listener.local_addr().unwrap());
    match cluster.serve(listener).await {}
}
