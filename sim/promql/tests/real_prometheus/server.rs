//! A Prometheus of its own for a test: started in a private directory, filled by remote write, asked over HTTP.

use std::fs;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};

use aviary_promql::Series;

use super::remote_write;

/// A running server; it ends, and its directory goes, when this is dropped.
pub(crate) struct Server {
    child: Child,
    directory: PathBuf,
    port: u16,
    /// What the server calls itself, for example `2.42.0+ds`.
    pub(crate) version: String,
}

pub(crate) struct Response {
    pub(crate) status: u16,
    pub(crate) body: serde_json::Value,
}

impl Server {
    /// Starts `binary`; `None` if there is no such program.
    pub(crate) fn start(binary: &str) -> Option<Self> {
        let port = free_port();
        let directory = std::env::temp_dir().join(format!("aviary-prometheus-{}-{port}", std::process::id()));
        fs::create_dir_all(&directory).unwrap();
        let config = directory.join("prometheus.yml");
        // Nothing is scraped: the data are those of the test and no others.
        fs::write(&config, "global: {evaluation_interval: 1m}\n").unwrap();
        let child = Command::new(binary)
            .arg(format!("--config.file={}", config.display()))
            .arg(format!("--storage.tsdb.path={}", directory.join("data").display()))
            .arg(format!("--web.listen-address=127.0.0.1:{port}"))
            .arg("--web.enable-remote-write-receiver")
            // The data have fixed times, which would else be too old one day.
            .arg("--storage.tsdb.retention.time=100y")
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::piped())
            .spawn();
        let mut child = match child {
            Ok(child) => child,
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => return None,
            Err(error) => panic!("{binary}: {error}"),
        };
        let mut log = BufReader::new(child.stderr.take().unwrap()).lines().map(Result::unwrap);
        let ready = log.any(|line| line.contains("Server is ready to receive web requests"));
        assert!(ready, "{binary} ended before it was ready");
        // A full pipe would stop the server.
        std::thread::spawn(move || log.for_each(drop));
        let mut server = Self { child, directory, port, version: String::new() };
        let info = server.get("/api/v1/status/buildinfo");
        server.version = info.body["data"]["version"].as_str().unwrap().to_owned();
        Some(server)
    }

    pub(crate) fn write(&self, series: &[Series]) {
        let body = remote_write::request(series);
        let headers = "Content-Type: application/x-protobuf\r\nContent-Encoding: snappy\r\n\
                       X-Prometheus-Remote-Write-Version: 0.1.0\r\n";
        let (status, text) = self.exchange("POST", "/api/v1/write", headers, &body);
        assert!((200..300).contains(&status), "remote write: {status} {text}");
    }

    pub(crate) fn get(&self, target: &str) -> Response {
        let (status, text) = self.exchange("GET", target, "", b"");
        Response { status, body: serde_json::from_str(&text).unwrap_or(serde_json::Value::String(text)) }
    }

    fn exchange(&self, method: &str, target: &str, headers: &str, body: &[u8]) -> (u16, String) {
        let mut stream = TcpStream::connect(("127.0.0.1", self.port)).unwrap();
        // HTTP/1.0, so that the answer is neither in chunks nor kept waiting on an open connection.
        let head = format!("{method} {target} HTTP/1.0\r\n{headers}Content-Length: {}\r\n\r\n", body.len());
        stream.write_all(head.as_bytes()).unwrap();
        stream.write_all(body).unwrap();
        let mut answer = String::new();
        stream.read_to_string(&mut answer).unwrap();
        let (head, body) = answer.split_once("\r\n\r\n").unwrap();
        let status = head.split_whitespace().nth(1).unwrap().parse().unwrap();
        (status, body.to_owned())
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
        let _ = fs::remove_dir_all(&self.directory);
    }
}

fn free_port() -> u16 {
    TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port()
}

/// Percent-encodes everything that is not a letter or digit.
pub(crate) fn encode(text: &str) -> String {
    let encoded = text.bytes().map(|byte| match byte {
        b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' => char::from(byte).to_string(),
        _ => format!("%{byte:02X}"),
    });
    encoded.collect()
}
