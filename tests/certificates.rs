//! `disableTLS` of webhooks and `insecureSkipVerify` of metric providers, against a server whose certificate nobody has signed.

use std::io::{Read, Write};
use std::net::TcpListener;
use std::sync::Arc;

use aviary_actors::transport::{Network, Transport};
use aviary_providers::HttpRequest;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, PrivatePkcs8KeyDer};
use rustls::{ServerConfig, ServerConnection, StreamOwned};
use serde_json::json;

/// Answers every call with 202; returns its address.
fn serve() -> String {
    let _ = rustls::crypto::ring::default_provider().install_default();
    let certificate = CertificateDer::from(include_bytes!("fixtures/tls/certificate.der").as_slice());
    let key = PrivateKeyDer::Pkcs8(PrivatePkcs8KeyDer::from(include_bytes!("fixtures/tls/key.der").as_slice()));
    let config = ServerConfig::builder().with_no_client_auth().with_single_cert(vec![certificate], key).unwrap();
    let config = Arc::new(config);
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    std::thread::spawn(move || {
        for stream in listener.incoming() {
            let mut stream = StreamOwned::new(ServerConnection::new(config.clone()).unwrap(), stream.unwrap());
            let mut head = [0; 4096];
            // A client that looks at the certificate ends here.
            if stream.read(&mut head).is_ok_and(|read| read > 0) {
                let answer = b"HTTP/1.1 202 Accepted\r\nContent-Length: 0\r\nConnection: close\r\n\r\n";
                let _ = stream.write_all(answer).and_then(|()| stream.flush());
            }
        }
    });
    format!("https://{address}/gate/check")
}

#[tokio::test]
async fn certificates_are_looked_at_unless_the_canary_says_otherwise() {
    let url = serve();
    let mut request = HttpRequest::post_json(url, &json!({"name": "podinfo"}));
    let network = Network::default();
    let refused = network.send(request.clone()).await.expect_err("nobody has signed it").to_string();
    assert!(refused.contains("certificate"), "{refused}");
    request.insecure_skip_verify = true;
    assert_eq!(network.send(request.clone()).await.unwrap().status, 202);
    // The two ways of connecting share nothing.
    request.insecure_skip_verify = false;
    assert!(network.send(request).await.is_err());
}
