//! The same over TLS.

use std::io::{ErrorKind, Read, Write};
use std::net::{TcpListener, TcpStream};

use rustls::pki_types::{CertificateDer, PrivateKeyDer, PrivatePkcs8KeyDer};
use rustls::{ServerConfig, ServerConnection};

use super::*;

/// For `localhost` and 127.0.0.1, signed by nobody that anybody trusts.
const CERTIFICATE: &[u8] = include_bytes!("../../../../tests/fixtures/tls/certificate.der");
const KEY: &[u8] = include_bytes!("../../../../tests/fixtures/tls/key.der");
/// How long one side is listened to before the other one is.
const TURN: Duration = Duration::from_millis(1);

/// TLS in front of a server, on an address of its own. HTTP/2 is offered.
pub(super) fn in_front_of(server: String) -> String {
    let _ = rustls::crypto::ring::default_provider().install_default();
    let key = PrivateKeyDer::Pkcs8(PrivatePkcs8KeyDer::from(KEY));
    let config = ServerConfig::builder().with_no_client_auth();
    let mut config = config.with_single_cert(vec![CertificateDer::from(CERTIFICATE)], key).unwrap();
    config.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec()];
    let config = Arc::new(config);
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    std::thread::spawn(move || {
        for client in listener.incoming() {
            let (config, server) = (config.clone(), server.clone());
            std::thread::spawn(move || {
                let plain = TcpStream::connect(server).unwrap();
                // Whichever side goes first: the other one is told by its socket.
                let _ = pass_on(ServerConnection::new(config).unwrap(), client.unwrap(), plain);
            });
        }
    });
    address.to_string()
}

fn pass_on(mut tls: ServerConnection, mut client: TcpStream, mut plain: TcpStream) -> std::io::Result<()> {
    client.set_read_timeout(Some(TURN))?;
    plain.set_read_timeout(Some(TURN))?;
    let mut buffer = vec![0; 16 * 1024];
    loop {
        if matches!(unless_silent(tls.read_tls(&mut client))?, Some(0)) {
            return Ok(());
        }
        if let Err(error) = tls.process_new_packets() {
            // The alert says why.
            let _ = tls.write_tls(&mut client);
            return Err(std::io::Error::other(error));
        }
        if let Some(read) = unless_silent(tls.reader().read(&mut buffer))? {
            plain.write_all(&buffer[..read])?;
        }
        match unless_silent(plain.read(&mut buffer))? {
            Some(0) => tls.send_close_notify(),
            Some(read) => tls.writer().write_all(&buffer[..read])?,
            None => {}
        }
        while tls.wants_write() {
            tls.write_tls(&mut client)?;
        }
    }
}

/// `None` where nothing has come yet.
fn unless_silent(read: std::io::Result<usize>) -> std::io::Result<Option<usize>> {
    match read {
        Err(error) if matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut) => Ok(None),
        read => read.map(Some),
    }
}

#[tokio::test]
async fn curl_looks_at_certificates_unless_it_is_told_not_to() {
    let (server, address) = Server::start().await;
    let address = in_front_of(address);
    let tester = Tester::start(options()).await;
    let (status, text) = tester.run("bash", &format!("curl -s https://{address}/token")).await;
    assert_eq!(
        (status, text.contains("exit code 60: curl: connection failed: invalid peer certificate")),
        (500, true),
        "{text}"
    );
    assert!(server.seen().is_empty(), "nothing is said to whom nobody knows");
    assert_eq!(
        tester.run("bash", &format!("curl -sk https://{address}/token")).await,
        answer(200, "{\"token\": \"abc\"}")
    );
    assert_eq!(tester.run("bash", &format!("curl -sk --http1.1 https://{address}/")).await, answer(200, "welcome"));
    let versions: Vec<_> = server.seen().iter().map(|seen| seen.version).collect();
    assert_eq!(versions, [http::Version::HTTP_2, http::Version::HTTP_11]);
}

#[tokio::test]
async fn hey_uses_http_2_where_it_is_told_to() {
    let (server, address) = Server::start().await;
    let address = in_front_of(address);
    let tester = Tester::start(options()).await;
    for (flag, version) in [("", http::Version::HTTP_11), ("-h2 ", http::Version::HTTP_2)] {
        let (status, report) = tester.run("bash", &format!("hey -n 4 -c 2 {flag}https://{address}/")).await;
        assert_eq!((status, report.contains("[200] 4")), (200, true), "{report}");
        let seen = std::mem::take(&mut *server.seen.lock());
        assert_eq!(seen.len(), 4);
        assert!(seen.iter().all(|seen| seen.version == version), "{flag}: {seen:?}");
    }
}

#[tokio::test]
async fn grpc_health_is_asked_for_over_tls() {
    let (server, address) = Server::start().await;
    let address = in_front_of(address);
    let tester = Tester::start(options()).await;
    let (status, text) = tester.run("bash", &format!("grpc_health_probe -tls -addr={address}")).await;
    assert_eq!((status, text.contains("exit code 2: ")), (500, true), "{text}");
    assert!(server.seen().is_empty());
    let probe = format!("grpc_health_probe -tls -tls-no-verify -addr={address}");
    assert_eq!(tester.run("bash", &probe).await, answer(200, "status: SERVING"));
    let (status, report) = tester.run("bash", &format!("ghz --skipTLS -n 5 -c 1 {address}")).await;
    assert_eq!((status, report.contains("[OK] 5 responses")), (200, true), "{report}");
    assert!(server.seen().iter().all(|seen| seen.version == http::Version::HTTP_2));
}

/// What a client takes for an address would be connected to, past the check of the address that was given.
#[tokio::test]
async fn a_name_that_is_an_address_is_told_and_not_connected_to() {
    let (server, address) = Server::start().await;
    let address = in_front_of(address);
    // All that may be reached.
    let names = Some(regex::Regex::new(&format!("^{}$", regex::escape(&address))).unwrap());
    let tester = Tester::start(Options { targets: Targets { forbidden: Vec::new(), names }, ..options() }).await;
    let names = ["2130706433", "0x7f.1", "127.1", "127.0.0.1", "[::1]", "%31", "podinf%6F.test", "podinfo.test"];
    for name in names {
        let cmd = format!("curl -sk --http1.1 -H 'Host: {name}' https://{address}/token");
        assert_eq!(tester.run("bash", &cmd).await, answer(200, "{\"token\": \"abc\"}"), "{name}");
    }
    let told: Vec<_> = server.seen().iter().map(|seen| seen.headers["host"].to_str().unwrap().to_owned()).collect();
    assert_eq!(told, names);
}
