//! A server on a loopback port that takes traces as an MLflow tracking server does and forgets
//! them; a run may have it refuse, hang or close every connection.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU8, Ordering};
use std::time::Duration;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::runtime::Runtime;

/// A request larger than this is not read.
const MAX_REQUEST: usize = 64 << 20;
const POLL: Duration = Duration::from_millis(50);

/// How the server answers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub(crate) enum Answer {
    /// As it should.
    Take,
    /// With 503.
    Refuse,
    /// Not until it is told otherwise.
    Hang,
    /// By closing the connection, new ones too.
    Close,
}

impl Answer {
    pub(crate) const ALL: [Self; 4] = [Self::Take, Self::Refuse, Self::Hang, Self::Close];
}

/// A running server. Ends with this value.
#[derive(Debug)]
pub(crate) struct Server {
    address: SocketAddr,
    answer: Arc<AtomicU8>,
    _runtime: Runtime,
}

impl Server {
    /// Starts one on a thread of its own.
    ///
    /// # Errors
    /// If no thread or port is free.
    pub(crate) fn start() -> Result<Self, String> {
        let failed = |e: std::io::Error| format!("the loopback server cannot start: {e}");
        let runtime = tokio::runtime::Builder::new_multi_thread()
            .worker_threads(1)
            .thread_name("loopback-server")
            .enable_all()
            .build()
            .map_err(failed)?;
        let listener = runtime
            .block_on(TcpListener::bind("127.0.0.1:0"))
            .map_err(failed)?;
        let address = listener.local_addr().map_err(failed)?;
        let answer = Arc::new(AtomicU8::new(Answer::Take as u8));
        let how = answer.clone();
        runtime.spawn(async move {
            loop {
                match listener.accept().await {
                    Ok((stream, _)) => {
                        let _ = stream.set_nodelay(true);
                        tokio::spawn(serve(stream, how.clone()));
                    }
                    // Out of file descriptors, for instance.
                    Err(_) => tokio::time::sleep(POLL).await,
                }
            }
        });
        Ok(Self {
            address,
            answer,
            _runtime: runtime,
        })
    }

    pub(crate) fn address(&self) -> SocketAddr {
        self.address
    }

    pub(crate) fn set(&self, answer: Answer) {
        self.answer.store(answer as u8, Ordering::Relaxed);
    }
}

async fn serve(mut stream: TcpStream, how: Arc<AtomicU8>) -> std::io::Result<()> {
    let is = |answer: Answer| how.load(Ordering::Relaxed) == answer as u8;
    let mut buffer: Vec<u8> = Vec::new();
    loop {
        let head = loop {
            if let Some(end) = buffer.windows(4).position(|w| w == b"\r\n\r\n") {
                break end + 4;
            }
            if buffer.len() > MAX_REQUEST || stream.read_buf(&mut buffer).await? == 0 {
                return Ok(());
            }
        };
        let text = String::from_utf8_lossy(&buffer[..head]).to_ascii_lowercase();
        let length: usize = text
            .split("content-length:")
            .nth(1)
            .and_then(|rest| rest.split("\r\n").next()?.trim().parse().ok())
            .unwrap_or(0);
        if length > MAX_REQUEST {
            return Ok(());
        }
        while buffer.len() < head + length {
            if stream.read_buf(&mut buffer).await? == 0 {
                return Ok(());
            }
        }
        buffer.drain(..head + length);
        // Ten thousand connections would keep as many buffers.
        buffer.shrink_to(4096);
        while is(Answer::Hang) {
            tokio::time::sleep(POLL).await;
        }
        if is(Answer::Close) {
            return Ok(());
        }
        let path = text.split(' ').nth(1).unwrap_or_default();
        let experiment = path.strip_prefix("/api/2.0/mlflow/experiments/get?experiment_id=");
        let (status, body) = match experiment {
            _ if is(Answer::Refuse) => ("503 Service Unavailable", String::new()),
            Some(id) => (
                "200 OK",
                format!(
                    r#"{{"experiment":{{"experiment_id":"{id}","name":"e{id}","lifecycle_stage":"active"}}}}"#
                ),
            ),
            None if path == "/version" => ("200 OK", "3.17.2".to_owned()),
            None if path.ends_with("/batchgetinfos") => ("200 OK", "{}".to_owned()),
            None => ("200 OK", String::new()),
        };
        let answer = format!(
            "HTTP/1.1 {status}\r\ncontent-length: {}\r\n\r\n{body}",
            body.len()
        );
        stream.write_all(answer.as_bytes()).await?;
    }
}
