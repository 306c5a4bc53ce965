//! A proxy between us and a real server that does to requests what networks, load balancers and
//! dying servers do.

use std::collections::{HashMap, VecDeque};
use std::io;
use std::net::Ipv4Addr;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpSocket, TcpStream};
use tokio::runtime::Runtime;
use tokio::sync::watch;

/// What happens to one request.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Fault {
    /// Nothing.
    Pass,
    /// The connection is reset while the body is under way; the server sees nothing of it.
    ResetRequest,
    /// The server stores it and answers; the connection is reset in the middle of the answer.
    ResetReply,
    /// It is taken and never answered; the server sees nothing of it.
    Stall,
    /// The server stores it and answers; the answer is kept.
    StallReply,
    /// Somebody on the way answers with this status, and `Retry-After` in seconds.
    Status(u16, Option<u64>),
    /// An answer that is no HTTP.
    Garbage,
    /// The server stores it; in place of its answer comes a success that is a web page.
    Page,
    /// The answer comes byte by byte.
    Trickle,
    /// It is kept, for [`Proxy::take_recorded`], and answered with success; the server sees nothing
    /// of it.
    Record,
}

/// A request with spans as it came.
#[derive(Clone, Debug)]
pub(super) struct Recorded {
    pub(super) headers: Vec<(String, String)>,
    pub(super) body: Vec<u8>,
}

/// Between two bytes of a slow answer.
const DROP_BY_DROP: Duration = Duration::from_millis(4);
/// How long a connection without an answer is kept open.
const FOREVER: Duration = Duration::from_secs(3600);
/// Requests that faults are meant for, unless all are.
const TRACES: &str = "/v1/traces";
const EXPERIMENT: &str = "x-mlflow-experiment-id";

/// A running proxy; ends on drop.
pub(super) struct Proxy {
    port: u16,
    shared: Arc<Shared>,
    runtime: Option<Runtime>,
}

struct Shared {
    upstream: u16,
    plan: Mutex<Plan>,
    /// Requests that something was done to.
    hit: AtomicU64,
    /// Nobody listens, and open connections end.
    refusing: watch::Sender<bool>,
    everything: AtomicBool,
    recorded: Mutex<Vec<Recorded>>,
}

#[derive(Default)]
struct Plan {
    script: VecDeque<Fault>,
    then: Option<Fault>,
    /// For spans of one experiment alone, by its id.
    experiments: HashMap<String, Fault>,
}

impl std::fmt::Debug for Proxy {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Proxy({})", self.port)
    }
}

impl Proxy {
    /// Starts a proxy to a loopback port.
    pub(super) fn start(upstream: u16) -> Result<Self, String> {
        let failed = |e: io::Error| format!("start the proxy: {e}");
        let runtime = tokio::runtime::Builder::new_multi_thread()
            .worker_threads(1)
            .thread_name("proxy")
            .enable_all()
            .build()
            .map_err(failed)?;
        let shared = Arc::new(Shared {
            upstream,
            plan: Mutex::default(),
            hit: AtomicU64::new(0),
            refusing: watch::Sender::new(false),
            everything: AtomicBool::new(false),
            recorded: Mutex::default(),
        });
        let listener = runtime.block_on(async { listen(0) }).map_err(failed)?;
        let port = listener.local_addr().map_err(failed)?.port();
        runtime.spawn(accept(listener, port, shared.clone()));
        Ok(Self {
            port,
            shared,
            runtime: Some(runtime),
        })
    }

    pub(super) fn url(&self) -> String {
        format!("http://127.0.0.1:{}", self.port)
    }

    fn plan(&self) -> MutexGuard<'_, Plan> {
        self.shared
            .plan
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
    }

    /// What happens to the next requests with spans, one after the other.
    pub(super) fn script(&self, faults: impl IntoIterator<Item = Fault>) {
        self.plan().script.extend(faults);
    }

    /// What happens to requests with spans beyond the script.
    pub(super) fn set(&self, fault: Fault) {
        self.plan().then = Some(fault);
    }

    /// What happens to requests with spans of one experiment.
    pub(super) fn set_for(&self, experiment: &str, fault: Fault) {
        let experiment = experiment.to_owned();
        match fault {
            Fault::Pass => self.plan().experiments.remove(&experiment),
            fault => self.plan().experiments.insert(experiment, fault),
        };
    }

    /// Whether faults are for every request, or for those with spans.
    pub(super) fn everything(&self, everything: bool) {
        self.shared.everything.store(everything, Ordering::SeqCst);
    }

    /// Closes the port and every connection, or opens the port again.
    pub(super) fn refuse(&self, refuse: bool) {
        self.shared.refusing.send_replace(refuse);
    }

    /// Everything passes again.
    pub(super) fn heal(&self) {
        *self.plan() = Plan::default();
        self.everything(false);
        self.refuse(false);
    }

    /// What was recorded since this was last called.
    pub(super) fn take_recorded(&self) -> Vec<Recorded> {
        std::mem::take(&mut *self.shared.recorded())
    }

    /// The port of the server behind it.
    pub(super) fn upstream(&self) -> u16 {
        self.shared.upstream
    }

    /// Requests that something was done to.
    pub(super) fn hit(&self) -> u64 {
        self.shared.hit.load(Ordering::SeqCst)
    }
}

impl Drop for Proxy {
    fn drop(&mut self) {
        if let Some(runtime) = self.runtime.take() {
            runtime.shutdown_background();
        }
    }
}

fn listen(port: u16) -> io::Result<TcpListener> {
    let socket = TcpSocket::new_v4()?;
    // The port is opened again while old connections still linger.
    socket.set_reuseaddr(true)?;
    socket.bind((Ipv4Addr::LOCALHOST, port).into())?;
    socket.listen(1024)
}

async fn accept(first: TcpListener, port: u16, shared: Arc<Shared>) {
    let mut refusing = shared.refusing.subscribe();
    let mut listener = Some(first);
    loop {
        if *refusing.borrow_and_update() {
            listener = None;
        } else if listener.is_none() {
            listener = listen(port).ok();
        }
        let Some(open) = &listener else {
            let again = Duration::from_millis(20);
            let _ = tokio::time::timeout(again, refusing.changed()).await;
            continue;
        };
        tokio::select! {
            _ = refusing.changed() => {}
            accepted = open.accept() => {
                if let Ok((stream, _)) = accepted {
                    let _ = stream.set_nodelay(true);
                    tokio::spawn(connection(stream, shared.clone()));
                }
            }
        }
    }
}

/// Serves a connection until it ends, by itself or because the port is closed.
async fn connection(stream: TcpStream, shared: Arc<Shared>) {
    let mut refusing = shared.refusing.subscribe();
    tokio::select! {
        // However it ends: what became of the request is for the other side to find out.
        _ = requests(stream, &shared) => {}
        _ = refusing.wait_for(|refuse| *refuse) => {}
    }
}

async fn requests(mut stream: TcpStream, shared: &Shared) -> io::Result<()> {
    let mut buffer = Vec::new();
    loop {
        let head = match read_head(&mut stream, &mut buffer).await? {
            Some(head) => head,
            None => return Ok(()),
        };
        let fault = shared.choose(&head);
        if fault != Fault::Pass {
            shared.hit.fetch_add(1, Ordering::SeqCst);
        }
        if fault == Fault::ResetRequest {
            fill(&mut stream, &mut buffer, head.end + head.length / 2).await?;
            return stream.set_zero_linger();
        }
        fill(&mut stream, &mut buffer, head.end + head.length).await?;
        let rest = buffer.split_off(head.end + head.length);
        let request = std::mem::replace(&mut buffer, rest);
        match fault {
            Fault::Stall => return stall(stream).await,
            Fault::Record => {
                shared.recorded().push(Recorded {
                    headers: head.headers,
                    body: request[head.end..].to_vec(),
                });
                stream.write_all(STORED).await?;
            }
            Fault::Status(status, after) => stream.write_all(&answer(status, after)).await?,
            Fault::Garbage => {
                stream
                    .write_all(&[0xff, 0x00, 0x13, b'\r', b'\n', 0x80].repeat(40))
                    .await?;
                return Ok(());
            }
            _ => {
                let reply = forward(shared.upstream, &request, head.end).await?;
                match fault {
                    Fault::StallReply => return stall(stream).await,
                    Fault::ResetReply => {
                        stream.write_all(&reply[..reply.len() / 2]).await?;
                        stream.flush().await?;
                        return stream.set_zero_linger();
                    }
                    Fault::Page => stream.write_all(PAGE).await?,
                    Fault::Trickle => {
                        for byte in reply {
                            stream.write_all(&[byte]).await?;
                            tokio::time::sleep(DROP_BY_DROP).await;
                        }
                    }
                    _ => stream.write_all(&reply).await?,
                }
            }
        }
    }
}

const STORED: &[u8] = b"HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n";
const PAGE: &[u8] = b"HTTP/1.1 200 OK\r\ncontent-type: text/html\r\ncontent-length: 33\r\n\r\n\
    <!doctype html><h1>Welcome!</h1>\n";

fn answer(status: u16, after: Option<u64>) -> Vec<u8> {
    let after = after.map_or(String::new(), |s| format!("retry-after: {s}\r\n"));
    let body = "as the case wants it";
    let length = body.len();
    format!("HTTP/1.1 {status} X\r\n{after}content-type: text/plain\r\ncontent-length: {length}\r\n\r\n{body}")
        .into_bytes()
}

async fn stall(stream: TcpStream) -> io::Result<()> {
    tokio::time::sleep(FOREVER).await;
    drop(stream);
    Ok(())
}

/// The head of a request.
struct Head {
    /// Where the body begins, and how long it is.
    end: usize,
    length: usize,
    path: String,
    experiment: Option<String>,
    /// Those that say what the body is and where it belongs.
    headers: Vec<(String, String)>,
}

async fn read_head(stream: &mut TcpStream, buffer: &mut Vec<u8>) -> io::Result<Option<Head>> {
    loop {
        let mut slots = [httparse::EMPTY_HEADER; 64];
        let mut request = httparse::Request::new(&mut slots);
        let parsed = request.parse(buffer).map_err(io::Error::other)?;
        if let httparse::Status::Complete(end) = parsed {
            let header = |name: &str| {
                let found = request
                    .headers
                    .iter()
                    .find(|h| h.name.eq_ignore_ascii_case(name));
                found.map(|h| String::from_utf8_lossy(h.value).into_owned())
            };
            return Ok(Some(Head {
                end,
                length: header("content-length")
                    .and_then(|v| v.parse().ok())
                    .unwrap_or(0),
                path: request.path.unwrap_or_default().to_owned(),
                experiment: header(EXPERIMENT),
                headers: ["content-type", "content-encoding", EXPERIMENT]
                    .into_iter()
                    .filter_map(|name| Some((name.to_owned(), header(name)?)))
                    .collect(),
            }));
        }
        if stream.read_buf(buffer).await? == 0 {
            return Ok(None);
        }
    }
}

/// Reads until the buffer holds so much.
async fn fill(stream: &mut TcpStream, buffer: &mut Vec<u8>, length: usize) -> io::Result<()> {
    while buffer.len() < length {
        if stream.read_buf(buffer).await? == 0 {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
    }
    Ok(())
}

/// The server's whole answer, without its wish to close the connection: that is between it and us.
async fn forward(upstream: u16, request: &[u8], head: usize) -> io::Result<Vec<u8>> {
    let mut server = TcpStream::connect((Ipv4Addr::LOCALHOST, upstream)).await?;
    server.set_nodelay(true)?;
    let mut asked = request[..head - 2].to_vec();
    asked.extend_from_slice(b"connection: close\r\n\r\n");
    asked.extend_from_slice(&request[head..]);
    server.write_all(&asked).await?;
    let mut reply = Vec::new();
    server.read_to_end(&mut reply).await?;
    let end = reply.windows(4).position(|w| w == b"\r\n\r\n");
    let end = end.ok_or(io::ErrorKind::UnexpectedEof)?;
    let text = String::from_utf8_lossy(&reply[..end]).into_owned();
    let lines = text
        .split("\r\n")
        .filter(|l| !l.to_ascii_lowercase().starts_with("connection:"));
    let mut answer = lines.collect::<Vec<_>>().join("\r\n").into_bytes();
    answer.extend_from_slice(&reply[end..]);
    Ok(answer)
}

impl Shared {
    fn recorded(&self) -> MutexGuard<'_, Vec<Recorded>> {
        self.recorded.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn choose(&self, head: &Head) -> Fault {
        let mut plan = self.plan.lock().unwrap_or_else(PoisonError::into_inner);
        let spans = head.path == TRACES;
        if let Some(fault) = head
            .experiment
            .as_ref()
            .filter(|_| spans)
            .and_then(|e| plan.experiments.get(e))
        {
            return fault.clone();
        }
        if !spans && !self.everything.load(Ordering::SeqCst) {
            return Fault::Pass;
        }
        let next = plan.script.pop_front();
        next.or_else(|| plan.then.clone()).unwrap_or(Fault::Pass)
    }
}
