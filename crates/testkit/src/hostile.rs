//! A server that means harm: it answers with too much, too late, or with what is not so.

use std::fmt;
use std::io::{Read as _, Write as _};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

/// What is done to whoever asks.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Malice {
    /// A body in chunks that never ends.
    EndlessChunks,
    /// A body without a length that never ends.
    EndlessUntilClosed,
    /// `content-length: 99999999999`, and bytes without end.
    Huge,
    /// A header line that never ends.
    EndlessHeader,
    /// Headers that never end.
    EndlessHeaders,
    /// A status line that never ends.
    EndlessStatus,
    /// `100 Continue`, again and again, at a pace: at full speed hyper 1.12 spends seconds in one poll
    /// on them in a debug build, and there is no setting that would bound it.
    EndlessContinue,
    /// An extension of a chunk that never ends.
    EndlessExtension,
    /// Trailers that never end.
    EndlessTrailers,
    /// A byte now and then.
    Slow,
    /// Headers, and then nothing.
    SilentBody,
    /// Nothing at all.
    Silent,
    /// JSON that is nested a million levels deep.
    Deep,
    /// JSON of many tiny values: of little text, a lot of memory.
    Wide,
    /// More bytes announced than sent.
    TooShort,
    /// Fewer bytes announced than sent: what follows looks like the next answer.
    TooLong,
    /// Two lengths.
    TwoLengths,
    /// A length below zero.
    NegativeLength,
    /// A body that claims to be gzip, of which a few bytes unpack to many.
    Packed,
    /// No HTTP.
    Noise,
}

impl Malice {
    /// Every kind.
    pub const ALL: [Self; 20] = [
        Self::EndlessChunks,
        Self::EndlessUntilClosed,
        Self::Huge,
        Self::EndlessHeader,
        Self::EndlessHeaders,
        Self::EndlessStatus,
        Self::EndlessContinue,
        Self::EndlessExtension,
        Self::EndlessTrailers,
        Self::Slow,
        Self::SilentBody,
        Self::Silent,
        Self::Deep,
        Self::Wide,
        Self::TooShort,
        Self::TooLong,
        Self::TwoLengths,
        Self::NegativeLength,
        Self::Packed,
        Self::Noise,
    ];
}

/// What a request is answered with.
#[derive(Clone, Debug)]
pub enum Reply {
    /// An answer that is well formed, whatever it says.
    Answer {
        /// Its status.
        status: u16,
        /// Its headers but the length.
        headers: Vec<(String, String)>,
        /// Its body.
        body: Vec<u8>,
    },
    /// Harm, with a status.
    Harm(u16, Malice),
}

impl Reply {
    /// An answer of a media type.
    pub fn new(status: u16, media_type: &str, body: impl Into<Vec<u8>>) -> Self {
        Self::Answer {
            status,
            headers: vec![("content-type".into(), media_type.into())],
            body: body.into(),
        }
    }

    /// JSON.
    pub fn json(status: u16, body: &str) -> Self {
        Self::new(status, "application/json", body)
    }

    /// A redirect.
    pub fn redirect(status: u16, to: &str) -> Self {
        Self::new(status, "text/plain", "").with_header("location", to)
    }

    /// The same with another header.
    #[must_use]
    pub fn with_header(mut self, name: &str, value: &str) -> Self {
        if let Self::Answer { headers, .. } = &mut self {
            headers.push((name.into(), value.into()));
        }
        self
    }
}

/// A request as it came in.
#[derive(Clone, Debug)]
pub struct Seen {
    /// Its method.
    pub method: String,
    /// Its path and query.
    pub target: String,
    /// Everything before the body.
    pub head: String,
    /// The body.
    pub body: Vec<u8>,
}

impl Seen {
    /// The path.
    pub fn path(&self) -> &str {
        self.target.split('?').next().unwrap_or_default()
    }

    /// A header's value.
    pub fn header(&self, name: &str) -> Option<&str> {
        self.head.lines().skip(1).find_map(|line| {
            let (key, value) = line.split_once(':')?;
            key.eq_ignore_ascii_case(name).then_some(value.trim())
        })
    }

    /// Whether a text is anywhere in it.
    pub fn contains(&self, text: &str) -> bool {
        self.head.contains(text) || String::from_utf8_lossy(&self.body).contains(text)
    }
}

type Handler = dyn Fn(&Seen) -> Reply + Send + Sync;

struct Shared {
    handler: Box<Handler>,
    seen: Mutex<Vec<Seen>>,
    sent: AtomicU64,
    open: AtomicUsize,
    most_open: AtomicUsize,
    stop: AtomicBool,
}

/// A server on a loopback port, until it is dropped. Whatever it does ends after a while by itself.
pub struct Hostile {
    /// Where it listens.
    pub address: SocketAddr,
    shared: Arc<Shared>,
}

impl fmt::Debug for Hostile {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Hostile({})", self.address)
    }
}

/// Longest time and most bytes for which an answer goes on that has no end.
const PATIENCE: Duration = Duration::from_secs(20);
const MOST: u64 = 1 << 30;

impl Hostile {
    /// Starts a server that answers as `handler` says.
    ///
    /// # Panics
    /// Where no port is to be had.
    pub fn start(handler: impl Fn(&Seen) -> Reply + Send + Sync + 'static) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        let shared = Arc::new(Shared {
            handler: Box::new(handler),
            seen: Mutex::default(),
            sent: AtomicU64::new(0),
            open: AtomicUsize::new(0),
            most_open: AtomicUsize::new(0),
            stop: AtomicBool::new(false),
        });
        let all = shared.clone();
        std::thread::spawn(move || {
            for stream in listener.incoming() {
                if all.stop.load(Ordering::SeqCst) {
                    return;
                }
                let (Ok(stream), shared) = (stream, all.clone()) else {
                    continue;
                };
                std::thread::spawn(move || {
                    let open = shared.open.fetch_add(1, Ordering::SeqCst) + 1;
                    shared.most_open.fetch_max(open, Ordering::SeqCst);
                    let _ = serve(stream, &shared);
                    shared.open.fetch_sub(1, Ordering::SeqCst);
                });
            }
        });
        Self { address, shared }
    }

    /// A server that does the same to everybody.
    pub fn always(status: u16, malice: Malice) -> Self {
        Self::start(move |_| Reply::Harm(status, malice.clone()))
    }

    /// `http://127.0.0.1:port`
    pub fn url(&self) -> String {
        format!("http://{}", self.address)
    }

    /// Bytes that were sent.
    pub fn sent(&self) -> u64 {
        self.shared.sent.load(Ordering::SeqCst)
    }

    /// Connections that were open at once, at the most.
    pub fn most_open(&self) -> usize {
        self.shared.most_open.load(Ordering::SeqCst)
    }

    /// The requests so far.
    ///
    /// # Panics
    /// If a handler panicked.
    pub fn seen(&self) -> Vec<Seen> {
        self.shared.seen.lock().unwrap().clone()
    }
}

impl Drop for Hostile {
    fn drop(&mut self) {
        self.shared.stop.store(true, Ordering::SeqCst);
        // Whoever waits for a connection looks.
        let _ = TcpStream::connect(self.address);
    }
}

/// One connection; sends until the other side had enough.
struct Line<'a> {
    stream: TcpStream,
    shared: &'a Shared,
    since: Instant,
    sent: u64,
}

impl Line<'_> {
    fn send(&mut self, bytes: &[u8]) -> std::io::Result<()> {
        let over = self.since.elapsed() > PATIENCE
            || self.sent > MOST
            || self.shared.stop.load(Ordering::SeqCst);
        if over {
            return Err(std::io::ErrorKind::TimedOut.into());
        }
        self.stream.write_all(bytes)?;
        self.sent += bytes.len() as u64;
        self.shared
            .sent
            .fetch_add(bytes.len() as u64, Ordering::SeqCst);
        Ok(())
    }

    fn endlessly(&mut self, head: &str, bytes: &[u8]) -> std::io::Result<()> {
        self.send(head.as_bytes())?;
        loop {
            self.send(bytes)?;
        }
    }

    /// Waits until the other side has gone.
    fn wait(&mut self) -> std::io::Result<()> {
        while self.since.elapsed() < PATIENCE && !self.shared.stop.load(Ordering::SeqCst) {
            let mut byte = [0];
            match self.stream.read(&mut byte) {
                Ok(0) => break,
                Ok(_) => {}
                Err(e) if is_pause(&e) => {}
                Err(e) => return Err(e),
            }
        }
        Err(std::io::ErrorKind::TimedOut.into())
    }
}

fn is_pause(e: &std::io::Error) -> bool {
    matches!(
        e.kind(),
        std::io::ErrorKind::WouldBlock | std::io::ErrorKind::TimedOut
    )
}

fn serve(stream: TcpStream, shared: &Shared) -> std::io::Result<()> {
    stream.set_nodelay(true)?;
    stream.set_read_timeout(Some(Duration::from_millis(100)))?;
    stream.set_write_timeout(Some(PATIENCE))?;
    let mut line = Line {
        stream,
        shared,
        since: Instant::now(),
        sent: 0,
    };
    let mut buffer = Vec::new();
    while let Some(seen) = request(&mut line, &mut buffer)? {
        let reply = (shared.handler)(&seen);
        shared.seen.lock().unwrap().push(seen);
        line.since = Instant::now();
        match reply {
            Reply::Answer {
                status,
                headers,
                body,
            } => {
                let mut head = format!("HTTP/1.1 {status} X\r\ncontent-length: {}\r\n", body.len());
                for (name, value) in headers {
                    head.push_str(&format!("{name}: {value}\r\n"));
                }
                head.push_str("\r\n");
                line.send(head.as_bytes())?;
                line.send(&body)?;
            }
            Reply::Harm(status, malice) => return harm(&mut line, status, &malice),
        }
    }
    Ok(())
}

fn harm(line: &mut Line<'_>, status: u16, malice: &Malice) -> std::io::Result<()> {
    const BLOCK: [u8; 16 << 10] = [b'x'; 16 << 10];
    let json = format!("HTTP/1.1 {status} X\r\ncontent-type: application/json\r\n");
    match malice {
        Malice::EndlessChunks => {
            line.send(format!("{json}transfer-encoding: chunked\r\n\r\n").as_bytes())?;
            loop {
                line.send(format!("{:x}\r\n", BLOCK.len()).as_bytes())?;
                line.send(&BLOCK)?;
                line.send(b"\r\n")?;
            }
        }
        Malice::EndlessUntilClosed => {
            line.endlessly(&format!("{json}connection: close\r\n\r\n"), &BLOCK)
        }
        Malice::Huge => line.endlessly(
            &format!("{json}content-length: 99999999999\r\n\r\n"),
            &BLOCK,
        ),
        Malice::EndlessHeader => line.endlessly(&format!("{json}x-long: "), &BLOCK),
        Malice::EndlessHeaders => line.endlessly(&json, b"x-more: and more and more\r\n"),
        Malice::EndlessStatus => line.endlessly("HTTP/1.1 200 ", &BLOCK),
        Malice::EndlessContinue => loop {
            line.send(b"HTTP/1.1 100 Continue\r\n\r\n")?;
            std::thread::sleep(Duration::from_millis(1));
        },
        Malice::EndlessExtension => line.endlessly(
            &format!("{json}transfer-encoding: chunked\r\n\r\n1;"),
            &BLOCK,
        ),
        Malice::EndlessTrailers => line.endlessly(
            &format!("{json}transfer-encoding: chunked\r\n\r\n2\r\n{{}}\r\n0\r\n"),
            b"x-more: and more and more\r\n",
        ),
        Malice::Slow => {
            line.send(format!("{json}content-length: 100000\r\n\r\n").as_bytes())?;
            loop {
                line.send(b" ")?;
                std::thread::sleep(Duration::from_millis(20));
            }
        }
        Malice::SilentBody => {
            line.send(format!("{json}content-length: 10\r\n\r\n").as_bytes())?;
            line.wait()
        }
        Malice::Silent => line.wait(),
        Malice::Deep => {
            let body = r#"{"a":"#.repeat(100_000) + &"[".repeat(400_000);
            line.send(format!("{json}content-length: {}\r\n\r\n", body.len()).as_bytes())?;
            line.send(body.as_bytes())?;
            line.wait()
        }
        Malice::Wide => {
            let body = format!(r#"{{"x":[{}0]}}"#, "[],".repeat(300_000));
            line.send(format!("{json}content-length: {}\r\n\r\n", body.len()).as_bytes())?;
            line.send(body.as_bytes())?;
            line.wait()
        }
        Malice::TooShort => line.send(format!("{json}content-length: 1000\r\n\r\n{{}}").as_bytes()),
        Malice::TooLong => {
            let next = "HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\n{}";
            line.endlessly(
                &format!("{json}content-length: 2\r\n\r\n{{}}"),
                next.as_bytes(),
            )
        }
        Malice::TwoLengths => line.send(
            format!("{json}content-length: 2\r\ncontent-length: 99999999999\r\n\r\n{{}}")
                .as_bytes(),
        ),
        Malice::NegativeLength => {
            line.send(format!("{json}content-length: -1\r\n\r\n{{}}").as_bytes())
        }
        Malice::Packed => {
            let head = format!("{json}content-encoding: gzip\r\ncontent-length: 2000\r\n\r\n");
            line.send(head.as_bytes())?;
            line.send(&[0x1f, 0x8b, 8, 0, 0, 0, 0, 0, 0, 3])?;
            line.send(&[0xed; 1990])?;
            line.wait()
        }
        Malice::Noise => line.send(b"\x16\x03\x01\x00\x00 220 smtp ready\r\n\0\0\0\0"),
    }
}

/// The next request; `None` when the other side has gone.
fn request(line: &mut Line<'_>, buffer: &mut Vec<u8>) -> std::io::Result<Option<Seen>> {
    let begun = Instant::now();
    loop {
        let mut slots = [httparse::EMPTY_HEADER; 64];
        let mut head = httparse::Request::new(&mut slots);
        if let Ok(httparse::Status::Complete(start)) = head.parse(buffer) {
            let (method, target) = (
                head.method.unwrap_or_default().to_owned(),
                head.path.unwrap_or_default().to_owned(),
            );
            let mut seen = Seen {
                method,
                target,
                head: String::from_utf8_lossy(&buffer[..start]).into_owned(),
                body: Vec::new(),
            };
            let length = seen.header("content-length").and_then(|v| v.parse().ok());
            let end = start + length.unwrap_or(0);
            while buffer.len() < end {
                if !fill(line, buffer, begun)? {
                    return Ok(None);
                }
            }
            seen.body = buffer[start..end].to_vec();
            buffer.drain(..end);
            return Ok(Some(seen));
        }
        if !fill(line, buffer, begun)? {
            return Ok(None);
        }
    }
}

fn fill(line: &mut Line<'_>, buffer: &mut Vec<u8>, begun: Instant) -> std::io::Result<bool> {
    let mut block = [0; 4096];
    loop {
        match line.stream.read(&mut block) {
            Ok(0) => return Ok(false),
            Ok(n) => {
                buffer.extend_from_slice(&block[..n]);
                return Ok(true);
            }
            Err(e) if is_pause(&e) => {
                if begun.elapsed() > PATIENCE || line.shared.stop.load(Ordering::SeqCst) {
                    return Ok(false);
                }
            }
            Err(e) => return Err(e),
        }
    }
}
