//! The in-memory backend: for tests, and the executable specification of a sink.

use crate::error::{Error, ErrorKind};
use crate::location::{Capabilities, Guarantee, TraceLocation, TraceSink, TraceValues, Written};
use crate::process::PerProcess;
use crate::record::{Resource, Scope, Span, TraceBatch, TraceUpdate};
use crate::template::{Hole, NameRule};
use crate::uri::LocationUri;
use async_trait::async_trait;
use opentelemetry::trace::{SpanId, TraceId};
use std::collections::{BTreeMap, HashMap};
use std::fmt;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

/// A location in the memory of this process, `memory:name`. All locations with one name share one
/// store, until [`MemoryStore::forget`]. After a `fork`, the child begins with empty stores.
#[derive(Clone)]
pub struct MemoryLocation {
    uri: LocationUri,
}

impl MemoryLocation {
    /// The location with this name.
    ///
    /// # Panics
    /// If the name cannot be part of a URI: it is empty, contains a NUL byte, starts with `//`, or
    /// is longer than 8 KiB. Names from outside go through [`MemoryLocation::from_uri`].
    pub fn new(name: &str) -> Self {
        match LocationUri::from_parts("memory", None, name, []).and_then(|uri| Self::from_uri(&uri))
        {
            Ok(location) => location,
            Err(error) => panic!("{error}"),
        }
    }

    /// The location that a URI names.
    ///
    /// # Errors
    /// `InvalidConfig` if the URI is not `memory:name`.
    pub fn from_uri(uri: &LocationUri) -> Result<Self, Error> {
        let plain = uri.scheme() == "memory"
            && uri.authority().is_none()
            && !uri.path().is_empty()
            && uri.query_pairs().next().is_none();
        if !plain {
            return Err(Error::new(
                ErrorKind::InvalidConfig,
                "parse location",
                "a memory location is a name and nothing else",
            )
            .at(uri)
            .mend("write it as memory:name"));
        }
        Ok(Self { uri: uri.clone() })
    }

    /// Where a template may have holes: anywhere in the name.
    pub fn holes() -> Vec<Hole> {
        vec![Hole::name(NameRule::Exact)]
    }

    /// The store of this location, to read what was written.
    pub fn store(&self) -> MemoryStore {
        MemoryStore::named(self.uri.path())
    }
}

impl fmt::Display for MemoryLocation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.uri.fmt(f)
    }
}

impl fmt::Debug for MemoryLocation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "MemoryLocation({})", self.uri)
    }
}

#[async_trait]
impl TraceLocation for MemoryLocation {
    fn uri(&self) -> &LocationUri {
        &self.uri
    }

    fn capabilities(&self) -> Capabilities {
        Capabilities::new(Guarantee::Idempotent).with_trace_values(TraceValues::Stored)
    }

    async fn open(&self) -> Result<Box<dyn TraceSink>, Error> {
        Ok(Box::new(MemorySink(self.store())))
    }
}

struct MemorySink(MemoryStore);

#[async_trait]
impl TraceSink for MemorySink {
    async fn write(&self, batch: &TraceBatch) -> Result<Written, Error> {
        let mut stored = self.0.lock();
        for group in batch.groups() {
            for span in &group.spans {
                stored.writes += 1;
                let spans = stored.spans.len();
                let key = (span.trace_id(), span.span_id());
                let index = *stored.index.entry(key).or_insert(spans);
                let span = StoredSpan {
                    span: span.clone(),
                    resource: group.resource.clone(),
                    scope: group.scope.clone(),
                };
                match stored.spans.get_mut(index) {
                    Some(there) => *there = span,
                    None => stored.spans.push(span),
                }
            }
        }
        for update in batch.updates() {
            match stored.updates.get_mut(&update.trace_id.to_bytes()) {
                Some(there) => there.merge(update.clone()),
                None => {
                    stored
                        .updates
                        .insert(update.trace_id.to_bytes(), update.clone());
                }
            }
        }
        Ok(Written::default())
    }

    async fn close(self: Box<Self>) -> Result<(), Error> {
        Ok(())
    }
}

/// A stored span, with its resource and instrumentation scope.
#[derive(Clone, Debug, PartialEq)]
pub struct StoredSpan {
    /// The span.
    pub span: Span,
    /// The resource that produced it.
    pub resource: Arc<Resource>,
    /// The instrumentation scope that produced it.
    pub scope: Arc<Scope>,
}

/// The spans and trace-level values stored under one name.
#[derive(Clone, Debug)]
pub struct MemoryStore {
    name: String,
    stored: Arc<Mutex<Stored>>,
}

#[derive(Debug, Default)]
struct Stored {
    spans: Vec<StoredSpan>,
    index: HashMap<(TraceId, SpanId), usize>,
    updates: BTreeMap<[u8; 16], TraceUpdate>,
    writes: u64,
}

type Stores = HashMap<String, Arc<Mutex<Stored>>>;

static STORES: PerProcess<Mutex<Stores>> = PerProcess::new();

fn with_stores<T>(f: impl FnOnce(&mut Stores) -> T) -> T {
    let stores = STORES.get();
    f(&mut stores.1.lock().unwrap_or_else(PoisonError::into_inner))
}

impl MemoryStore {
    /// The store with this name, created if it does not exist.
    pub fn named(name: &str) -> Self {
        Self {
            name: name.to_owned(),
            stored: with_stores(|all| all.entry(name.to_owned()).or_default().clone()),
        }
    }

    fn lock(&self) -> MutexGuard<'_, Stored> {
        self.stored.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Every span, in the order in which each was first stored.
    pub fn spans(&self) -> Vec<StoredSpan> {
        self.lock().spans.clone()
    }

    /// Number of spans.
    pub fn len(&self) -> usize {
        self.lock().spans.len()
    }

    /// Whether nothing is stored.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Number of spans written, including repeated ones.
    pub fn writes(&self) -> u64 {
        self.lock().writes
    }

    /// The trace-level values of a trace.
    pub fn update(&self, trace: TraceId) -> Option<TraceUpdate> {
        self.lock().updates.get(&trace.to_bytes()).cloned()
    }

    /// Frees what is stored under this name. A location with the name starts empty when it is
    /// opened again.
    pub fn forget(self) {
        with_stores(|all| all.remove(&self.name));
    }
}
