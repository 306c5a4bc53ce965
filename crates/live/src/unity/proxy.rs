//! What goes wrong between a writer and its object store, made to happen: a proxy for HTTP/1.1 that
//! passes requests on, and now and then does not, or loses the answer.

use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};
use std::collections::{BTreeMap, HashMap};
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{Ipv4Addr, TcpListener, TcpStream};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

/// Longer than the writers of the cases wait for an answer.
const STALL: Duration = Duration::from_secs(6);
/// Credentials that were just replaced are good for at least this long.
const LIFE: Duration = Duration::from_millis(1500);
const LARGEST_HEAD: usize = 64 << 10;

/// What can happen to a request.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(super) enum Fault {
    /// The connection breaks before the store hears of it.
    Lost,
    /// The store is told and does it; the connection breaks before the answer.
    AnswerLost,
    /// The store does it; the answer is 500 all the same.
    LandedThenError,
    /// The store does it; the answer comes after the writer gave up waiting.
    LandedThenLate,
    /// 500, and nothing happened.
    Error,
    /// 503 `SlowDown`, and nothing happened.
    Throttled,
    /// 400 `ExpiredToken`, and nothing happened.
    Expired,
    /// A listing as it was the last time it was asked for.
    OldListing,
}

/// Which faults, and how often: each is chosen for one request in so many.
#[derive(Clone, Debug)]
pub(super) struct Plan {
    pub(super) seed: u64,
    pub(super) one_in: u32,
    pub(super) faults: Vec<Fault>,
}

/// A running proxy; ends on drop.
#[derive(Debug)]
pub(super) struct Proxy {
    pub(super) port: u16,
    shared: Arc<Shared>,
}

#[derive(Debug)]
struct Shared {
    upstream: u16,
    ended: AtomicBool,
    plan: Mutex<(Plan, StdRng)>,
    done: Mutex<BTreeMap<Fault, u32>>,
    requests: Mutex<u32>,
    listings: Mutex<HashMap<String, Vec<u8>>>,
    expired: Mutex<Option<Instant>>,
}

impl Proxy {
    /// A proxy in front of a port of the loopback interface.
    pub(super) fn start(upstream: u16, plan: Plan) -> Result<Self, String> {
        let text = |e| format!("start the proxy: {e}");
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).map_err(text)?;
        let port = listener.local_addr().map_err(text)?.port();
        let random = StdRng::seed_from_u64(plan.seed);
        let shared = Arc::new(Shared {
            upstream,
            ended: AtomicBool::new(false),
            plan: Mutex::new((plan, random)),
            done: Mutex::default(),
            requests: Mutex::default(),
            listings: Mutex::default(),
            expired: Mutex::default(),
        });
        let own = Arc::clone(&shared);
        std::thread::spawn(move || {
            for client in listener.incoming().map_while(Result::ok) {
                if own.ended.load(Ordering::Relaxed) {
                    return;
                }
                let own = Arc::clone(&own);
                // What breaks here is what a network breaks: both sides see it.
                std::thread::spawn(move || own.pass(client));
            }
        });
        Ok(Self { port, shared })
    }

    pub(super) fn url(&self) -> String {
        format!("http://127.0.0.1:{}", self.port)
    }

    /// How often each fault happened.
    pub(super) fn done(&self) -> BTreeMap<Fault, u32> {
        lock(&self.shared.done).clone()
    }

    /// How many requests came.
    pub(super) fn requests(&self) -> u32 {
        *lock(&self.shared.requests)
    }
}

impl Drop for Proxy {
    fn drop(&mut self) {
        self.shared.ended.store(true, Ordering::Relaxed);
        // Wakes the thread that waits for connections.
        let _ = TcpStream::connect((Ipv4Addr::LOCALHOST, self.port));
    }
}

impl Shared {
    /// One request and its answer; the connection is then closed.
    fn pass(&self, mut client: TcpStream) -> Option<()> {
        let request = Request::read(&mut BufReader::new(client.try_clone().ok()?))?;
        *lock(&self.requests) += 1;
        let fault = self.choose(&request);
        if let Some(fault) = fault {
            *lock(&self.done).entry(fault).or_default() += 1;
        }
        let answer = match fault {
            Some(Fault::Lost) => return None,
            Some(Fault::Error) => error(500, "InternalError"),
            Some(Fault::Throttled) => error(503, "SlowDown"),
            Some(Fault::Expired) => error(400, "ExpiredToken"),
            Some(Fault::OldListing) => lock(&self.listings).get(&request.target)?.clone(),
            Some(Fault::AnswerLost) => {
                self.ask(&request)?;
                return None;
            }
            Some(Fault::LandedThenError) => {
                self.ask(&request)?;
                error(500, "InternalError")
            }
            Some(Fault::LandedThenLate) => {
                let answer = self.ask(&request)?;
                std::thread::sleep(STALL);
                answer
            }
            None => self.ask(&request)?,
        };
        client.write_all(&answer).ok()
    }

    fn choose(&self, request: &Request) -> Option<Fault> {
        let mut plan = lock(&self.plan);
        let (plan, random) = &mut *plan;
        // Writers list hardly ever: of what they do list every second is old.
        if plan.faults.contains(&Fault::OldListing)
            && request.lists()
            && lock(&self.listings).contains_key(&request.target)
            && random.random_range(0..2) == 0
        {
            return Some(Fault::OldListing);
        }
        if random.random_range(0..plan.one_in) != 0 {
            return None;
        }
        let fault = plan.faults[random.random_range(0..plan.faults.len())];
        let possible = match fault {
            Fault::OldListing => false,
            Fault::Expired => {
                let mut last = lock(&self.expired);
                let is_time = last.is_none_or(|at| at.elapsed() > LIFE);
                if is_time {
                    *last = Some(Instant::now());
                }
                is_time
            }
            _ => true,
        };
        possible.then_some(fault)
    }

    /// What the store answers, to the end of its connection.
    fn ask(&self, request: &Request) -> Option<Vec<u8>> {
        let mut store = TcpStream::connect((Ipv4Addr::LOCALHOST, self.upstream)).ok()?;
        store.write_all(&request.head).ok()?;
        store.write_all(&request.body).ok()?;
        let mut answer = Vec::new();
        store.read_to_end(&mut answer).ok()?;
        if request.lists() {
            lock(&self.listings).insert(request.target.clone(), answer.clone());
        }
        Some(answer)
    }
}

/// A request as it came, but for the header that keeps connections open.
struct Request {
    method: String,
    target: String,
    head: Vec<u8>,
    body: Vec<u8>,
}

impl Request {
    fn read(client: &mut impl BufRead) -> Option<Self> {
        let mut first = String::new();
        client.read_line(&mut first).ok()?;
        let mut words = first.split(' ');
        let (method, target) = (words.next()?.to_owned(), words.next()?.to_owned());
        let (mut head, mut length) = (first.into_bytes(), 0);
        loop {
            let mut line = String::new();
            client.read_line(&mut line).ok()?;
            if line.trim().is_empty() {
                break;
            }
            let (name, value) = line.split_once(':')?;
            match name.to_ascii_lowercase().as_str() {
                "content-length" => length = value.trim().parse().ok()?,
                "connection" => continue,
                // Bodies of unknown length: no client here sends them.
                "transfer-encoding" => return None,
                _ => {}
            }
            head.extend_from_slice(line.as_bytes());
            if head.len() > LARGEST_HEAD {
                return None;
            }
        }
        head.extend_from_slice(b"Connection: close\r\n\r\n");
        let mut body = vec![0; length];
        client.read_exact(&mut body).ok()?;
        Some(Self {
            method,
            target,
            head,
            body,
        })
    }

    fn lists(&self) -> bool {
        self.method == "GET" && self.target.contains("list-type=2")
    }
}

/// An error as S3 tells it.
fn error(status: u16, code: &str) -> Vec<u8> {
    let body = format!(
        "<?xml version=\"1.0\" encoding=\"UTF-8\"?><Error><Code>{code}</Code>\
         <Message>made by the test</Message></Error>"
    );
    format!(
        "HTTP/1.1 {status} {code}\r\nContent-Type: application/xml\r\nContent-Length: {}\r\n\
         Connection: close\r\n\r\n{body}",
        body.len()
    )
    .into_bytes()
}

fn lock<T>(mutex: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    // A thread that panicked left nothing half-done in what is kept here.
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
