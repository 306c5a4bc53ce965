//! An object store in this process that speaks as much of S3's, Google's and Azure's protocols as
//! tables need, and looks at the credentials of every request.

use super::http::{Reply, Request, Server};
use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex, MutexGuard};

/// Which protocol is spoken.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Cloud {
    S3,
    Gcs,
    Azure,
}

/// What a store that lies answers.
#[derive(Default)]
pub struct Script(pub Option<Answers>);

/// Answers some requests.
pub type Answers = Box<dyn Fn(&Request) -> Option<Reply> + Send>;

impl std::fmt::Debug for Script {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_tuple("Script").finish()
    }
}

#[derive(Debug)]
pub struct Store {
    pub server: Server,
    state: Arc<Mutex<Contents>>,
}

#[derive(Debug, Default)]
pub struct Contents {
    /// Bytes and version, by bucket and key.
    pub objects: BTreeMap<String, (Vec<u8>, u64)>,
    /// Credentials that are taken: `key id/session token`, bearer token, or signature.
    pub takes: BTreeSet<String>,
    /// What was sent by those that were not taken.
    pub refused: Vec<String>,
    /// Answers every request so instead.
    pub fault: Option<Reply>,
    /// Answers those requests so that it has something to say to.
    pub script: Script,
    /// Replaces objects that it was told to create only where there is none.
    pub ignores_conditions: bool,
    version: u64,
}

impl Store {
    pub fn start(cloud: Cloud) -> Self {
        let state = Arc::<Mutex<Contents>>::default();
        let answers = state.clone();
        Self {
            server: Server::start(move |r| answers.lock().unwrap().answer(cloud, r)),
            state,
        }
    }

    pub fn contents(&self) -> MutexGuard<'_, Contents> {
        self.state.lock().unwrap()
    }

    pub fn url(&self) -> String {
        self.server.url()
    }
}

/// What a request proves itself with.
fn credentials(cloud: Cloud, request: &Request) -> String {
    let authorization = request.header("authorization").unwrap_or_default();
    match cloud {
        Cloud::S3 => {
            let after = authorization
                .split_once("Credential=")
                .map_or("", |(_, a)| a);
            let id = after.split('/').next().unwrap_or_default();
            let token = request.header("x-amz-security-token").unwrap_or("-");
            format!("{id}/{token}")
        }
        Cloud::Gcs => authorization.trim_start_matches("Bearer ").to_owned(),
        Cloud::Azure => request.query("sig").unwrap_or_default(),
    }
}

/// As each cloud says that credentials are over; S3 repeats them.
fn over(cloud: Cloud, sent: &str) -> Reply {
    let (status, text) = match cloud {
        Cloud::S3 => (
            400,
            format!(
                "<Error><Code>ExpiredToken</Code><Message>The provided token has expired.</Message><Token-0>{}</Token-0></Error>",
                sent.split('/').next_back().unwrap()
            ),
        ),
        Cloud::Gcs => (
            401,
            "<Error><Code>AuthenticationRequired</Code></Error>".to_owned(),
        ),
        Cloud::Azure => (
            403,
            "<Error><Code>AuthenticationFailed</Code></Error>".to_owned(),
        ),
    };
    Reply::new(status, "application/xml", text)
}

impl Contents {
    fn answer(&mut self, cloud: Cloud, request: &Request) -> Reply {
        if let Some(fault) = &self.fault {
            return fault.clone();
        }
        if let Some(reply) = self.script.0.as_ref().and_then(|script| script(request)) {
            return reply;
        }
        let sent = credentials(cloud, request);
        if !self.takes.contains(&sent) {
            self.refused.push(sent.clone());
            return over(cloud, &sent);
        }
        let key = request.path().trim_start_matches('/').to_owned();
        match request.method.as_str() {
            "PUT" => {
                let creates = request.header("if-none-match") == Some("*")
                    || request.header("x-goog-if-generation-match") == Some("0");
                if creates && !self.ignores_conditions && self.objects.contains_key(&key) {
                    let status = if cloud == Cloud::Azure { 409 } else { 412 };
                    return Reply::new(status, "application/xml", "<Error/>");
                }
                self.version += 1;
                self.objects
                    .insert(key, (request.body.clone(), self.version));
                let status = if cloud == Cloud::Azure { 201 } else { 200 };
                Reply::new(status, "text/plain", "")
                    .with_header("etag", format!("\"{}\"", self.version))
                    .with_header("x-goog-generation", self.version.to_string())
            }
            "GET" if request.query("list-type").is_some() || request.query("comp").is_some() => {
                self.list(cloud, request, &key)
            }
            "GET" | "HEAD" => self.get(request, &key),
            "DELETE" => {
                self.objects.remove(&key);
                let status = if cloud == Cloud::Azure { 202 } else { 204 };
                Reply::new(status, "text/plain", "")
            }
            other => Reply::new(405, "text/plain", other),
        }
    }

    fn get(&self, request: &Request, key: &str) -> Reply {
        let Some((body, version)) = self.objects.get(key) else {
            return Reply::new(
                404,
                "application/xml",
                "<Error><Code>NoSuchKey</Code></Error>",
            );
        };
        let all = body.len();
        let (status, range) = match request.header("range") {
            Some(range) => {
                let range = range.trim_start_matches("bytes=");
                let (from, to) = range.split_once('-').unwrap();
                let range = match (from.parse::<usize>(), to.parse::<usize>()) {
                    (Ok(from), Ok(to)) => from..(to + 1).min(all),
                    (Ok(from), Err(_)) => from..all,
                    (Err(_), Ok(last)) => all.saturating_sub(last)..all,
                    _ => 0..all,
                };
                (206, range)
            }
            None => (200, 0..all),
        };
        let shown = format!(
            "bytes {}-{}/{all}",
            range.start,
            range.end.saturating_sub(1)
        );
        let part = body[range].to_vec();
        let reply = Reply::new(status, "application/octet-stream", part.clone())
            .with_header("content-length", part.len().to_string())
            .with_header("etag", format!("\"{version}\""))
            .with_header("x-goog-generation", version.to_string())
            .with_header("last-modified", "Sun, 22 Nov 2026 08:00:00 GMT");
        match status {
            206 => reply.with_header("content-range", shown),
            _ => reply,
        }
    }

    fn list(&self, cloud: Cloud, request: &Request, bucket: &str) -> Reply {
        let prefix = request.query("prefix").unwrap_or_default();
        let after = request.query("start-after").unwrap_or_default();
        let delimiter = request.query("delimiter");
        let bucket = format!("{}/", bucket.trim_end_matches('/'));
        let mut files = String::new();
        let mut folders = BTreeSet::new();
        for (key, (body, version)) in &self.objects {
            let Some(key) = key.strip_prefix(&bucket) else {
                continue;
            };
            let Some(rest) = key.strip_prefix(&prefix).filter(|_| *key > *after) else {
                continue;
            };
            if let (Some(_), Some((folder, _))) = (&delimiter, rest.split_once('/')) {
                folders.insert(format!("{prefix}{folder}/"));
                continue;
            }
            let size = body.len();
            files.push_str(&match cloud {
                Cloud::Azure => format!("<Blob><Name>{key}</Name><Properties><Last-Modified>Sun, 22 Nov 2026 08:00:00 GMT</Last-Modified><Content-Length>{size}</Content-Length><Content-Type>x</Content-Type><Etag>{version}</Etag></Properties></Blob>"),
                _ => format!("<Contents><Key>{key}</Key><LastModified>2026-11-22T08:00:00.000Z</LastModified><ETag>\"{version}\"</ETag><Size>{size}</Size></Contents>"),
            });
        }
        let text = match cloud {
            Cloud::Azure => {
                let folders: String = folders
                    .iter()
                    .map(|f| format!("<BlobPrefix><Name>{f}</Name></BlobPrefix>"))
                    .collect();
                format!(
                    "<?xml version=\"1.0\" encoding=\"utf-8\"?><EnumerationResults><Blobs>{files}{folders}</Blobs><NextMarker/></EnumerationResults>"
                )
            }
            _ => {
                let folders: String = folders
                    .iter()
                    .map(|f| format!("<CommonPrefixes><Prefix>{f}</Prefix></CommonPrefixes>"))
                    .collect();
                format!(
                    "<?xml version=\"1.0\" encoding=\"UTF-8\"?><ListBucketResult><IsTruncated>false</IsTruncated>{files}{folders}</ListBucketResult>"
                )
            }
        };
        Reply::new(200, "application/xml", text)
    }
}
