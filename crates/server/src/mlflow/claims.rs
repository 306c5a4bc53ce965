//! Which experiment a trace belongs to. On one server a trace id lives in one experiment: spans
//! sent for another are stored with the first, and the answer is 200 all the same. So it is
//! looked up before, wherever the id may exist already.

use super::api::{Api, trace_name};
use super::server::Owner;
use crate::encode::is_end;
use crate::error::{Fault, WRITE};
use foldhash::{HashMap, HashSet};
use opentelemetry::trace::TraceId;
use std::sync::Arc;
use trace_destination_core::{Error, ErrorKind, Span};

/// The spans of one trace in a batch.
#[derive(Clone, Debug, Default)]
pub(crate) struct Part {
    /// Their positions in the batch.
    pub(crate) positions: Vec<usize>,
    /// Whether the root of the trace is among them.
    pub(crate) root: bool,
    /// Whether a local root is, whose parent is in another process.
    pub(crate) entry: bool,
    /// Whether the id was made here for sure.
    native: bool,
    /// Whether a span names a session, or a user.
    pub(crate) session: bool,
    pub(crate) user: bool,
}

/// The batch by trace; spans that are refused already are left out.
pub(crate) fn parts(spans: &[&Span], is_refused: impl Fn(usize) -> bool) -> HashMap<TraceId, Part> {
    let mut parts: HashMap<TraceId, Part> = HashMap::default();
    for (i, span) in spans.iter().enumerate().filter(|(i, _)| !is_refused(*i)) {
        let part = parts.entry(span.trace_id()).or_default();
        part.positions.push(i);
        let root = span.parent_span_id().is_none();
        part.root |= root;
        part.entry |= !root && is_end(span);
        part.native |= root && !span.is_ingested();
        for (key, _) in span.attributes().iter() {
            part.session |= matches!(key, crate::keys::SESSION | crate::keys::CONVERSATION);
            part.user |= key == crate::keys::USER;
        }
    }
    parts
}

/// The traces a batch is about to write. What was claimed and not stored is given free when this
/// goes out of scope.
pub(crate) struct Claims<'a> {
    api: Api<'a>,
    /// Claimed by this batch.
    fresh: Vec<TraceId>,
}

impl<'a> Claims<'a> {
    /// Claims every trace for an experiment; those that are elsewhere come back.
    pub(crate) async fn take(
        api: Api<'a>,
        parts: &HashMap<TraceId, Part>,
        experiment: &Arc<str>,
    ) -> Result<(Self, HashSet<TraceId>), Fault> {
        let mut claims = Self {
            api,
            fresh: Vec::new(),
        };
        let mut elsewhere = HashSet::default();
        let mut unknown = Vec::new();
        {
            let mut owners = api.host.mlflow.owners();
            for (trace, part) in parts {
                match owners.get_mut(trace) {
                    Some(owner) if owner.experiment == *experiment => {}
                    Some(owner) if owner.stored => {
                        elsewhere.insert(*trace);
                    }
                    // Being written right now, and not stored yet: that may still fail.
                    Some(_) => {
                        return Err(Fault::passing(
                            ErrorKind::Locked,
                            format!(
                                "{} is being stored in another experiment",
                                trace_name(*trace)
                            ),
                            "it is tried again; start a new trace where the destination changes",
                        ));
                    }
                    None => {
                        let owner = Owner {
                            experiment: experiment.clone(),
                            stored: false,
                            finished: false,
                            root: false,
                        };
                        owners.insert(*trace, owner);
                        claims.fresh.push(*trace);
                        // A root made here comes with a new id; anything else may be known.
                        if !part.native {
                            unknown.push(*trace);
                        }
                    }
                }
            }
        }
        if unknown.is_empty() {
            return Ok((claims, elsewhere));
        }
        let ids: Vec<String> = unknown.iter().map(|id| trace_name(*id)).collect();
        let by_name: HashMap<String, TraceId> = ids.iter().cloned().zip(unknown).collect();
        for info in api.traces(&ids).await? {
            let (Some(found), Some(trace)) = (info.experiment(), by_name.get(&info.trace_id))
            else {
                continue;
            };
            if found == &**experiment {
                claims.stored(*trace, info.is_finished(), false);
                continue;
            }
            let owner = Owner {
                experiment: found.into(),
                stored: true,
                finished: info.is_finished(),
                root: false,
            };
            api.host.mlflow.owners().insert(*trace, owner);
            elsewhere.insert(*trace);
        }
        Ok((claims, elsewhere))
    }

    /// Notes that spans of a trace were stored.
    pub(crate) fn stored(&self, trace: TraceId, finished: bool, root: bool) {
        if let Some(owner) = self.api.host.mlflow.owners().get_mut(&trace) {
            owner.stored = true;
            owner.finished |= finished;
            owner.root |= root;
        }
    }
}

impl Drop for Claims<'_> {
    fn drop(&mut self) {
        let mut owners = self.api.host.mlflow.owners();
        for trace in &self.fresh {
            if owners.get_mut(trace).is_some_and(|o| !o.stored) {
                owners.remove(trace);
            }
        }
    }
}

/// A span of a trace that is in another experiment: whose, is not for this location to know.
pub(crate) fn conflict(span: &Span, here: &str) -> Error {
    Error::new(
        ErrorKind::Conflict,
        WRITE,
        format!(
            "span `{}` belongs to trace {}, which is in another experiment on this server and so cannot be in {here}",
            span.name().chars().take(80).collect::<String>().escape_debug(),
            trace_name(span.trace_id()),
        ),
    )
    .mend("start a new trace where the destination changes, or use a server of its own")
}
