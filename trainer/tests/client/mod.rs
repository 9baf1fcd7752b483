//! A server process and clients of it, well-behaved and otherwise.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::{Shutdown, TcpStream};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use serde_json::Value;

/// `mtnlg serve` on a free port; killed when dropped.
pub struct Server {
    child: Child,
    address: String,
}

/// How long a test of many clients lasts: `MTNLG_SERVER_SECONDS`, or `default`.
pub fn seconds(default: u64) -> u64 {
    std::env::var("MTNLG_SERVER_SECONDS").ok().and_then(|text| text.parse().ok()).unwrap_or(default)
}

impl Server {
    pub fn start(run: &str, more: &[&str]) -> Self {
        let mut child = Command::new(env!("CARGO_BIN_EXE_mtnlg"))
            .args(["serve", "--checkpoint", run, "--backend", "cpu", "--port", "0"])
            .args(more)
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        let mut line = String::new();
        let mut errors = BufReader::new(child.stderr.take().unwrap());
        while !line.contains("on http://") {
            line.clear();
            assert!(errors.read_line(&mut line).unwrap() > 0, "the server said nothing");
        }
        // What it says later does not fill the pipe.
        std::thread::spawn(move || std::io::copy(&mut errors, &mut std::io::sink()));
        let address = line.split("http://").nth(1).unwrap().split('/').next().unwrap().to_owned();
        Self { child, address }
    }

    fn connect(&self) -> TcpStream {
        let stream = TcpStream::connect(&self.address).unwrap();
        stream.set_read_timeout(Some(Duration::from_secs(60))).unwrap();
        stream
    }

    fn send(&self, method: &str, path: &str, body: &str) -> TcpStream {
        let mut stream = self.connect();
        let head = format!(
            "{method} {path} HTTP/1.1\r\nHost: here\r\nConnection: close\r\nContent-Length: {}\r\n\r\n",
            body.len()
        );
        // A server that has refused a body may have closed the connection.
        let _ = stream.write_all(head.as_bytes()).and_then(|()| stream.write_all(body.as_bytes()));
        stream
    }

    /// Status and body of an answer.
    fn answer(mut stream: TcpStream) -> (u16, String) {
        let mut bytes = Vec::new();
        let _ = stream.read_to_end(&mut bytes);
        let text = String::from_utf8(bytes).unwrap();
        let (head, body) = text.split_once("\r\n\r\n").unwrap_or((&text, ""));
        let status = head.split(' ').nth(1).and_then(|code| code.parse().ok()).unwrap_or(0);
        (status, body.to_owned())
    }

    pub fn get(&self, path: &str) -> (u16, String) {
        Self::answer(self.send("GET", path, ""))
    }

    pub fn post(&self, path: &str, body: &str) -> (u16, String) {
        Self::answer(self.send("POST", path, body))
    }

    pub fn complete(&self, body: &Value) -> Value {
        let (status, answer) = self.post("/v1/completions", &body.to_string());
        assert_eq!(status, 200, "{body}: {answer}");
        serde_json::from_str(&answer).unwrap()
    }

    /// The texts of a streamed answer's pieces, and what ends it.
    pub fn stream(&self, body: &Value) -> (Vec<String>, String) {
        let (status, answer) = self.post("/v1/completions", &body.to_string());
        assert_eq!(status, 200, "{answer}");
        let mut data: Vec<&str> = answer.lines().filter_map(|line| line.strip_prefix("data: ")).collect();
        let end = data.pop().unwrap().to_owned();
        let text = |line: &&str| {
            let piece: Value = serde_json::from_str(line).unwrap();
            piece["choices"][0]["text"].as_str().unwrap().to_owned()
        };
        (data.iter().map(text).collect(), end)
    }

    /// Asks and goes away.
    pub fn abandon(&self, body: &Value) {
        let mut body = body.clone();
        body["stream"] = Value::Bool(true);
        let stream = self.send("POST", "/v1/completions", &body.to_string());
        std::thread::sleep(Duration::from_millis(5));
        let _ = stream.shutdown(Shutdown::Both);
    }

    /// Reads a streamed answer a few bytes at a time.
    pub fn read_slowly(&self, body: &Value) {
        let mut body = body.clone();
        body["stream"] = Value::Bool(true);
        let mut stream = self.send("POST", "/v1/completions", &body.to_string());
        let mut bytes = [0; 200];
        while matches!(stream.read(&mut bytes), Ok(n) if n > 0) {
            std::thread::sleep(Duration::from_millis(20));
        }
    }

    /// The status of what is no HTTP.
    pub fn garbage(&self) -> u16 {
        let mut stream = self.connect();
        let _ = stream.write_all(b"\x16\x03\x01 this is not a request\r\n\r\n");
        Self::answer(stream).0
    }

    /// Memory of the process, where that can be told.
    pub fn resident_kib(&self) -> u64 {
        let status = std::fs::read_to_string(format!("/proc/{}/status", self.child.id())).unwrap_or_default();
        let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"));
        line.and_then(|rest| rest.split_whitespace().next()?.parse().ok()).unwrap_or(0)
    }

    /// SIGTERM ends it well.
    pub fn stop(mut self) {
        let killed = Command::new("kill").arg(self.child.id().to_string()).status().unwrap();
        assert!(killed.success());
        let status = self.child.wait().unwrap();
        assert!(status.success(), "{status}");
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
