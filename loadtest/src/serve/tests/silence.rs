//! Callers that fall silent, in virtual time: none of them keeps its connection.

use http_body_util::StreamBody;
use hyper::body::Frame;
use tokio::io::{AsyncReadExt, DuplexStream, duplex};
use tokio::time::Instant;

use super::*;

const HEAD: &str = "POST / HTTP/1.1\r\nhost: x\r\n";

fn tester(options: Options) -> Arc<LoadTester> {
    // Another test may have been first.
    let _ = rustls::crypto::ring::default_provider().install_default();
    Arc::new(LoadTester::new(options).unwrap())
}

/// A caller that has sent this, and what comes when its connection ends.
fn call(tester: &Arc<LoadTester>, sent: &str, buffer: usize) -> (DuplexStream, tokio::task::JoinHandle<()>) {
    let (mut client, server) = duplex(buffer);
    let served = tokio::spawn(Arc::clone(tester).serve_connection(server));
    let sent = sent.to_owned();
    // The buffer holds it.
    assert!(futures::FutureExt::now_or_never(client.write_all(sent.as_bytes())).is_some());
    (client, served)
}

#[tokio::test(start_paused = true)]
async fn a_payload_that_does_not_come_is_not_waited_for() {
    let begun = Instant::now();
    for sent in ["content-length: 1\r\n\r\n", "content-length: 9\r\n\r\n{", "transfer-encoding: chunked\r\n\r\n5\r\n{"]
    {
        let begun = Instant::now();
        let (mut client, served) = call(&tester(options()), &format!("{HEAD}{sent}"), 4096);
        served.await.unwrap();
        assert_eq!(begun.elapsed(), SILENCE_LIMIT, "{sent:?}");
        let mut answer = String::new();
        client.read_to_string(&mut answer).await.unwrap();
        assert!(answer.starts_with("HTTP/1.1 408 "), "{answer}");
    }
    assert!(begun.elapsed() < SILENCE_LIMIT * 4);
}

#[tokio::test(start_paused = true)]
async fn a_payload_that_trickles_is_not_waited_for() {
    let begun = Instant::now();
    let drops = futures::stream::unfold((), async |()| {
        tokio::time::sleep(SILENCE_LIMIT / 2).await;
        Some((Ok::<_, std::io::Error>(Frame::data(Bytes::from_static(b" "))), ()))
    });
    let request = Request::post("/").body(Box::pin(StreamBody::new(drops))).unwrap();
    let answer = tester(options()).answer(request).await.unwrap();
    assert_eq!((answer.status().as_u16(), begun.elapsed()), (408, SILENCE_LIMIT));
}

#[tokio::test(start_paused = true)]
async fn who_has_no_token_is_not_waited_for() {
    let access = Access { token: Some(Token::new("a-token-that-is-long-enough").unwrap()), ..Access::default() };
    let begun = Instant::now();
    let (mut client, served) =
        call(&tester(Options { access, ..options() }), &format!("{HEAD}content-length: 1\r\n\r\n"), 4096);
    served.await.unwrap();
    let mut answer = String::new();
    client.read_to_string(&mut answer).await.unwrap();
    assert!(answer.starts_with("HTTP/1.1 401 "), "{answer}");
    assert!(begun.elapsed() <= SILENCE_LIMIT, "{:?}", begun.elapsed());
}

#[tokio::test(start_paused = true)]
async fn an_answer_that_nobody_reads_is_not_kept() {
    let begun = Instant::now();
    // Less than an answer, so that it is never written to its end.
    let (_client, served) = call(&tester(options()), "GET /healthz HTTP/1.1\r\nhost: x\r\n\r\n", 48);
    served.await.unwrap();
    let took = begun.elapsed();
    assert!(took >= CONNECTION_LIMIT && took <= CONNECTION_LIMIT + ANSWER_LIMIT, "{took:?}");
}

#[tokio::test(start_paused = true)]
async fn a_task_may_take_longer_than_its_connection() {
    // Refused at once, and tried again once in a while.
    let nobody = TcpListener::bind("127.0.0.1:0").await.unwrap().local_addr().unwrap();
    let cmd = format!("curl -s --retry 3 --retry-delay 500 --retry-connrefused http://{nobody}/");
    let body = payload(json!({"type": "bash", "cmd": cmd}));
    let begun = Instant::now();
    let text = format!("{HEAD}content-length: {}\r\n\r\n{body}", body.len());
    let (mut client, served) = call(&tester(options()), &text, 4096);
    served.await.unwrap();
    let mut answer = String::new();
    client.read_to_string(&mut answer).await.unwrap();
    assert!(answer.contains("exit code 7: "), "{answer}");
    assert!(begun.elapsed() >= Duration::from_secs(1500));
}
