//! A small HTTP/1.1 server on a loopback port: real sockets, whatever answers a test wants.

use serde_json::Value;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex};
use std::time::Duration;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};
use tokio::runtime::Runtime;

/// A request as it came in.
#[derive(Clone, Debug)]
pub struct Request {
    pub method: String,
    /// Path and query.
    pub target: String,
    pub headers: Vec<(String, String)>,
    pub body: Vec<u8>,
}

impl Request {
    pub fn header(&self, name: &str) -> Option<&str> {
        let found = self.headers.iter().find(|(n, _)| n == name);
        found.map(|(_, value)| value.as_str())
    }

    /// The path, decoded.
    pub fn path(&self) -> String {
        decoded(self.target.split('?').next().unwrap_or_default())
    }

    /// A parameter of the query, decoded.
    pub fn query(&self, key: &str) -> Option<String> {
        let query = self.target.split_once('?')?.1;
        let pairs = query
            .split('&')
            .map(|p| p.split_once('=').unwrap_or((p, "")));
        let (_, value) = pairs.into_iter().find(|(k, _)| decoded(k) == key)?;
        Some(decoded(value))
    }

    pub fn json(&self) -> Value {
        serde_json::from_slice(&self.body).unwrap_or_default()
    }
}

fn decoded(text: &str) -> String {
    let decoded = percent_encoding::percent_decode_str(text);
    decoded.decode_utf8_lossy().into_owned()
}

/// What to do with a request.
#[derive(Clone, Debug)]
pub enum Reply {
    Answer {
        status: u16,
        headers: Vec<(String, String)>,
        body: Vec<u8>,
    },
    /// A body in pieces of which none is waited for, with these headers and no others; chunked if
    /// they say so. The connection is closed after it.
    Pieces {
        status: u16,
        headers: Vec<(String, String)>,
        piece: Vec<u8>,
        times: u64,
        pause: Duration,
    },
    /// Close the connection without an answer.
    Reset,
    /// Wait, then the other reply.
    After(Duration, Box<Reply>),
}

impl Reply {
    pub fn new(status: u16, content_type: &str, body: impl Into<Vec<u8>>) -> Self {
        Self::Answer {
            status,
            headers: vec![("content-type".into(), content_type.into())],
            body: body.into(),
        }
    }

    pub fn json(status: u16, body: &Value) -> Self {
        Self::new(status, "application/json", body.to_string())
    }

    #[must_use]
    pub fn with_header(mut self, name: &str, value: impl Into<String>) -> Self {
        match &mut self {
            Self::Answer { headers, .. } | Self::Pieces { headers, .. } => {
                headers.push((name.into(), value.into()));
            }
            Self::After(delay, then) => {
                return Self::After(*delay, Box::new(then.clone().with_header(name, value)));
            }
            Self::Reset => {}
        }
        self
    }
}

type Handler = dyn Fn(&Request) -> Reply + Send + Sync;

struct Shared {
    handler: Box<Handler>,
    requests: Mutex<Vec<Request>>,
}

/// A running server. Ends with this value.
pub struct Server {
    pub address: SocketAddr,
    shared: Arc<Shared>,
    runtime: Option<Runtime>,
}

impl std::fmt::Debug for Server {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Server({})", self.address)
    }
}

impl Server {
    /// Starts a server that answers with `handler` and keeps every request.
    pub fn start(handler: impl Fn(&Request) -> Reply + Send + Sync + 'static) -> Self {
        let runtime = tokio::runtime::Builder::new_multi_thread()
            .worker_threads(1)
            .enable_all()
            .build()
            .unwrap();
        let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        listener.set_nonblocking(true).unwrap();
        let address = listener.local_addr().unwrap();
        let entered = runtime.enter();
        let listener = TcpListener::from_std(listener).unwrap();
        drop(entered);
        let shared = Arc::new(Shared {
            handler: Box::new(handler),
            requests: Mutex::default(),
        });
        let serving = shared.clone();
        runtime.spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                let shared = serving.clone();
                tokio::spawn(async move { serve(stream, &shared).await });
            }
        });
        Self {
            address,
            shared,
            runtime: Some(runtime),
        }
    }

    /// `http://127.0.0.1:port`
    pub fn url(&self) -> String {
        format!("http://{}", self.address)
    }

    pub fn requests(&self) -> Vec<Request> {
        self.shared.requests.lock().unwrap().clone()
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        if let Some(runtime) = self.runtime.take() {
            runtime.shutdown_background();
        }
    }
}

async fn serve(mut stream: TcpStream, shared: &Shared) -> Option<()> {
    let _ = stream.set_nodelay(true);
    let mut buffer = Vec::new();
    loop {
        let request = read(&mut stream, &mut buffer).await?;
        let mut reply = (shared.handler)(&request);
        let head_only = request.method == "HEAD";
        shared.requests.lock().unwrap().push(request);
        while let Reply::After(delay, then) = reply {
            tokio::time::sleep(delay).await;
            reply = *then;
        }
        let (status, headers, body) = match reply {
            Reply::Answer {
                status,
                headers,
                body,
            } => (status, headers, body),
            pieces @ Reply::Pieces { .. } => return in_pieces(&mut stream, pieces).await,
            Reply::Reset | Reply::After(..) => return None,
        };
        let mut head = format!("HTTP/1.1 {status} X\r\n");
        // For a HEAD the handler names the length.
        if !headers.iter().any(|(name, _)| name == "content-length") {
            head.push_str(&format!("content-length: {}\r\n", body.len()));
        }
        for (name, value) in headers {
            head.push_str(&format!("{name}: {value}\r\n"));
        }
        head.push_str("\r\n");
        stream.write_all(head.as_bytes()).await.ok()?;
        if !head_only {
            stream.write_all(&body).await.ok()?;
        }
        stream.flush().await.ok()?;
    }
}

async fn in_pieces(stream: &mut TcpStream, reply: Reply) -> Option<()> {
    let Reply::Pieces {
        status,
        headers,
        piece,
        times,
        pause,
    } = reply
    else {
        return None;
    };
    let chunked = headers.iter().any(|(_, value)| value == "chunked");
    let mut head = format!("HTTP/1.1 {status} X\r\n");
    for (name, value) in headers {
        head.push_str(&format!("{name}: {value}\r\n"));
    }
    head.push_str("\r\n");
    stream.write_all(head.as_bytes()).await.ok()?;
    let framed = match chunked {
        true => [format!("{:x}\r\n", piece.len()).as_bytes(), &piece, b"\r\n"].concat(),
        false => piece,
    };
    for _ in 0..times {
        stream.write_all(&framed).await.ok()?;
        if !pause.is_zero() {
            tokio::time::sleep(pause).await;
        }
    }
    stream.shutdown().await.ok()
}

async fn read(stream: &mut TcpStream, buffer: &mut Vec<u8>) -> Option<Request> {
    loop {
        let mut slots = [httparse::EMPTY_HEADER; 64];
        let mut head = httparse::Request::new(&mut slots);
        let Ok(parsed) = head.parse(buffer) else {
            let refused = b"HTTP/1.1 400 X\r\ncontent-length: 0\r\n\r\n";
            stream.write_all(refused).await.ok()?;
            return None;
        };
        if let httparse::Status::Complete(start) = parsed {
            let mut request = Request {
                method: head.method?.to_owned(),
                target: head.path?.to_owned(),
                headers: head
                    .headers
                    .iter()
                    .map(|h| {
                        let value = String::from_utf8_lossy(h.value).into_owned();
                        (h.name.to_ascii_lowercase(), value)
                    })
                    .collect(),
                body: Vec::new(),
            };
            let length = request.header("content-length");
            let length: usize = length.and_then(|v| v.parse().ok()).unwrap_or(0);
            while buffer.len() < start + length {
                fill(stream, buffer).await?;
            }
            request.body = buffer[start..start + length].to_vec();
            buffer.drain(..start + length);
            return Some(request);
        }
        fill(stream, buffer).await?;
    }
}

async fn fill(stream: &mut TcpStream, buffer: &mut Vec<u8>) -> Option<()> {
    match stream.read_buf(buffer).await {
        Ok(0) | Err(_) => None,
        Ok(_) => Some(()),
    }
}
