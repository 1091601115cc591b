//! How curl ends, and when it tries again. The exit codes were seen at curl 7.88.

use tokio::io::AsyncReadExt;

use super::*;

/// A server that answers every connection with this and closes it, and how many it has had.
async fn server(answer: &'static [u8]) -> (String, Arc<AtomicUsize>) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap().to_string();
    let asked = Arc::new(AtomicUsize::new(0));
    let counted = asked.clone();
    tokio::spawn(async move {
        loop {
            let (mut stream, _) = listener.accept().await.unwrap();
            counted.fetch_add(1, Ordering::SeqCst);
            let mut head = Vec::new();
            while !head.ends_with(b"\r\n\r\n") {
                head.push(stream.read_u8().await.unwrap());
            }
            stream.write_all(answer).await.unwrap();
            stream.shutdown().await.unwrap();
        }
    });
    (address, asked)
}

#[tokio::test]
async fn exit_codes_are_curls() {
    let tester = Tester::start(options()).await;
    let ends: [(&[u8], i32); 5] = [
        (b"", 52),
        (b"hello\r\n\r\n", 1),
        (b"HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\nabc", 18),
        (b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nab", 18),
        (b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\nab", 56),
    ];
    for (bytes, code) in ends {
        let (address, _) = server(bytes).await;
        let (status, text) = tester.run("bash", &format!("curl -s http://{address}/")).await;
        assert_eq!((status, text.contains(&format!("exit code {code}: curl: "))), (500, true), "{code}: {text}");
    }
    // No server of names knows it (RFC 6761).
    let (status, text) = tester.run("bash", "curl -s http://podinfo.invalid/").await;
    assert_eq!((status, text.contains("exit code 6: curl: ")), (500, true), "{text}");
}

#[tokio::test]
async fn a_name_that_is_not_found_yet_is_tried_again() {
    let tester = Tester::start(options()).await;
    let begun = Instant::now();
    let (_, text) = tester.run("bash", "curl -s --retry 2 --retry-delay 0.2 http://podinfo.invalid/").await;
    assert!(text.contains("exit code 6: curl: "), "{text}");
    assert!(begun.elapsed() >= Duration::from_millis(400), "two more tries, each after a wait");
}

#[tokio::test]
async fn tries_end_with_their_time() {
    let (server, address) = Server::start().await;
    let tester = Tester::start(options()).await;
    let flags = "-sf --retry 1000 --retry-delay 0.1 --retry-max-time 0.35";
    let (status, text) = tester.run("bash", &format!("curl {flags} http://{address}/status/500")).await;
    assert_eq!((status, text.contains("exit code 22: ")), (500, true), "{text}");
    // Begun at 0, 0.1, 0.2, 0.3 and 0.4 s; fewer on a slow machine.
    assert!((2..=5).contains(&server.seen().len()), "{}", server.seen().len());
}

#[tokio::test]
async fn a_server_may_ask_for_a_longer_wait() {
    let (address, asked) = server(b"HTTP/1.1 503 Busy\r\nRetry-After: 1\r\nContent-Length: 0\r\n\r\n").await;
    let tester = Tester::start(options()).await;
    let begun = Instant::now();
    tester.run("bash", &format!("curl -sf --retry 1 --retry-delay 0.01 http://{address}/")).await;
    assert_eq!(asked.load(Ordering::SeqCst), 2);
    assert!(begun.elapsed() >= Duration::from_secs(1), "{:?}", begun.elapsed());
    let (address, asked) = server(b"HTTP/1.1 503 Busy\r\nRetry-After: 60\r\nContent-Length: 0\r\n\r\n").await;
    tester.run("bash", &format!("curl -sf --retry 9 --retry-max-time 30 http://{address}/")).await;
    assert_eq!(asked.load(Ordering::SeqCst), 1, "it would be over by then");
}
