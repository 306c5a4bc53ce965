//! Sending spans: compressed where the server takes it, and taken apart where it objects to one.

use crate::client::{Answer, Call, PROTOBUF};
use crate::config::{HOPELESS, PATIENCE_WITH_500, SURE};
use crate::error::{Blame, Fault, FaultExt as _, WRITE};
use crate::host::Host;
use crate::status::{Dialect, PERHAPS_GZIP};
use crate::transport::Compression;
use bytes::Bytes;
use flate2::write::GzEncoder;
use reqwest::Method;
use reqwest::header::{HeaderName, HeaderValue};
use std::collections::HashSet;
use std::future::Future;
use std::io::Write as _;
use std::sync::{Mutex, PoisonError};
use trace_destination_core::{BatchId, ErrorKind};
use trace_destination_http::{Outcome, Transport};

/// An OTLP request without a span: `resource_spans { scope_spans {} }`. Servers take it, unless
/// something other than the spans is wrong.
const NO_SPANS: [u8; 4] = [0x0a, 0x02, 0x12, 0x00];

/// Bytes below which setting up compression costs more than it saves: such a request is one packet
/// anyway.
const WORTH_GZIP: usize = 1200;

/// Bytes of a request that may be more than a server or a proxy allows; the least of the usual limits
/// is 1 MB (nginx, `client_max_body_size`), and a socket's buffers take less than this.
const LARGE: usize = 64 << 10;

/// Sends one encoded request to the traces endpoint at `path`. A request of one span that was refused
/// before is `plain`: no span is condemned for its compression.
pub(crate) async fn post(
    host: &Host,
    path: &str,
    headers: &[(HeaderName, HeaderValue)],
    body: Vec<u8>,
    plain: bool,
) -> Result<Answer, Fault> {
    let call = |body: Bytes, gzip| Call {
        method: Method::POST,
        path: path.to_owned(),
        headers: headers.to_vec(),
        body: Some((PROTOBUF, body)),
        gzip,
    };
    let size = body.len();
    let sent = async {
        let wanted = host.client.transport().compression == Compression::Gzip;
        if !wanted || plain || size < WORTH_GZIP || host.refuses_gzip() {
            return host.client.call(call(body.into(), false)).await;
        }
        let answer = host.client.call(call(gzip(&body)?.into(), true)).await;
        match &answer {
            Ok(_) => host.note_gzip(true),
            // Perhaps it reads no gzip, or a proxy on the way does not. Where it took some before,
            // only what is about encodings makes that likely.
            Err(fault) if is_about_gzip(fault, host.took_gzip()) => {
                if may_be_stored(host, fault) && !reads_no_gzip(&call, host).await? {
                    return answer;
                }
                let plain = host.client.call(call(body.into(), false)).await;
                if plain.is_ok() {
                    host.note_gzip(false);
                }
                return plain;
            }
            Err(_) => {}
        }
        answer
    };
    sent.await.map_err(|fault| cut_short(fault, size))
}

fn is_about_gzip(fault: &Fault, taken_before: bool) -> bool {
    fault.status().is_some_and(|status| match taken_before {
        true => matches!(status, 406 | 415),
        false => PERHAPS_GZIP.contains(&status),
    })
}

/// Whether a part of the request may be stored after all, where a span would be there twice.
fn may_be_stored(host: &Host, fault: &Fault) -> bool {
    host.client.dialect() == Dialect::Otlp && fault.outcome() == Outcome::Doubt
}

/// Whether the server takes an empty request as it is, and stumbles over the same with gzip.
async fn reads_no_gzip(call: impl Fn(Bytes, bool) -> Call, host: &Host) -> Result<bool, Fault> {
    let plain = Bytes::from_static(&NO_SPANS);
    if host.client.call(call(plain, false)).await.is_err() {
        return Ok(false);
    }
    let packed = gzip(&NO_SPANS)?.into();
    Ok(match host.client.call(call(packed, true)).await {
        Ok(_) => {
            host.note_gzip(true);
            false
        }
        Err(fault) => is_about_gzip(&fault, false),
    })
}

/// A server that refuses a large request before it has read it may close the connection so that its
/// answer is lost. If this stays, the request is tried apart like one that it answers with 413.
fn cut_short(fault: Fault, size: usize) -> Fault {
    match fault {
        Fault::Transport {
            class: Transport::Broken,
            ref source,
            ..
        } if size >= LARGE => Fault::with_outcome(
            ErrorKind::Unavailable,
            format!("the connection broke while {size} bytes were sent: {source}"),
            "it is sent again, and in parts if this stays: the server or a proxy may have a limit for a request",
            Outcome::ResendThenApart,
        ),
        other => other,
    }
}

/// Sends a request without a span.
pub(crate) async fn post_nothing(
    host: &Host,
    path: &str,
    headers: &[(HeaderName, HeaderValue)],
) -> Result<Answer, Fault> {
    post(host, path, headers, NO_SPANS.to_vec(), true).await
}

/// Whether the server takes a request with no span in it, so that a span must be at fault where
/// another was rejected. An error if something else is wrong.
pub(crate) async fn is_healthy(
    host: &Host,
    path: &str,
    headers: &[(HeaderName, HeaderValue)],
) -> Result<bool, Fault> {
    match post_nothing(host, path, headers).await {
        Ok(_) => Ok(true),
        // Not every server likes an empty request.
        Err(fault) if fault.blame() == Blame::Data => Ok(false),
        Err(fault) => Err(fault),
    }
}

fn gzip(body: &[u8]) -> Result<Vec<u8>, Fault> {
    let out = Vec::with_capacity(body.len() / 4 + 64);
    let mut encoder = GzEncoder::new(out, flate2::Compression::fast());
    encoder
        .write_all(body)
        .and_then(|()| encoder.finish())
        .map_err(|e| Fault::new(ErrorKind::Internal, format!("compression failed: {e}"), ""))
}

/// A span the server does not take, by its position, and why.
pub(crate) type Culprit = (usize, Fault);

/// What became of earlier attempts at a location. Kept by the location: its sink is opened anew after
/// an answer that seems to be for good.
#[derive(Default)]
pub(crate) struct Tries(Mutex<Tried>);

#[derive(Clone, Default)]
struct Tried {
    /// The batch that the place objected to last.
    batch: Option<BatchId>,
    /// How often it did.
    times: u32,
    /// A part of the batch may be stored, and the same request must not be sent again.
    in_doubt: bool,
    /// The place has taken spans.
    proven: bool,
    /// Positions of spans that were taken when the batch was tried apart.
    taken: HashSet<usize>,
    /// How many of them the answers said were rejected after all.
    rejected: u64,
}

impl Tries {
    fn with<T>(&self, f: impl FnOnce(&mut Tried) -> T) -> T {
        f(&mut self.0.lock().unwrap_or_else(PoisonError::into_inner))
    }

    fn of(&self, batch: BatchId) -> Tried {
        self.with(|tried| match tried.batch == Some(batch) {
            true => tried.clone(),
            false => Tried {
                proven: tried.proven,
                ..Tried::default()
            },
        })
    }

    /// Whether the place objected to a batch before.
    pub(crate) fn is_again(&self, batch: BatchId) -> bool {
        self.with(|tried| tried.batch == Some(batch) && tried.times > 0)
    }

    /// Notes what a request took of a batch that is tried apart, and how many of its spans were
    /// rejected after all: an answer that ends the attempt must not have them sent again.
    pub(crate) fn note_taken(&self, batch: BatchId, positions: &[usize], rejected: u64) {
        self.with(|tried| {
            if tried.batch == Some(batch) {
                tried.proven = true;
                tried.taken.extend(positions);
                tried.rejected += rejected;
            }
        });
    }

    /// The positions of a batch of `count` spans that earlier attempts left, and how many of the
    /// others were rejected.
    pub(crate) fn left_of(&self, batch: BatchId, count: usize) -> (Vec<usize>, u64) {
        self.with(|tried| match tried.batch == Some(batch) {
            true => {
                let left = (0..count).filter(|i| !tried.taken.contains(i));
                (left.collect(), tried.rejected)
            }
            false => ((0..count).collect(), 0),
        })
    }

    /// Notes that the place objected to a batch once more.
    fn objected(&self, batch: BatchId, in_doubt: bool) -> Tried {
        let before = self.of(batch);
        self.with(|tried| {
            *tried = Tried {
                batch: Some(batch),
                times: before.times.saturating_add(1),
                in_doubt,
                ..before
            };
            tried.clone()
        })
    }

    fn taken(&self) {
        self.with(|tried| {
            *tried = Tried {
                proven: true,
                ..Tried::default()
            }
        });
    }
}

/// Sends the spans at `positions` as one request, by `send`, and tries it apart where the server
/// objects to it: what is refused alone is refused. `probe` tells whether the place is in order but
/// for the spans, or fails; it is given whether the server failed without saying why.
///
/// A span is condemned by what is about spans, once the place is known to be in order or takes
/// others. A failure of the server itself condemns a span only where others are taken beside it, or
/// after [`SURE`] attempts: until then the batch is worth keeping, since nothing shows that the span
/// is what the server stumbles over.
///
/// # Errors
/// What is nobody's fault but the place's: nothing or an unknown part is stored.
pub(crate) async fn deliver<F, Fut, P, PFut>(
    tries: &Tries,
    batch: BatchId,
    positions: Vec<usize>,
    mut send: F,
    probe: P,
) -> Result<Vec<Culprit>, Fault>
where
    F: FnMut(Vec<usize>) -> Fut,
    Fut: Future<Output = Result<(), Fault>>,
    P: Fn(bool) -> PFut,
    PFut: Future<Output = Result<bool, Fault>>,
{
    if positions.is_empty() {
        tries.taken();
        return Ok(Vec::new());
    }
    let (mut fault, mut healthy) = if tries.of(batch).in_doubt {
        // Sent before: the empty request comes first, and then the spans in other requests.
        let healthy = probe(true).await?;
        let fault = Fault::with_outcome(ErrorKind::Unavailable, "", "", Outcome::Doubt);
        (fault, Some(healthy))
    } else {
        match send(positions.clone()).await {
            Ok(()) => {
                tries.taken();
                return Ok(Vec::new());
            }
            Err(fault) if fault.blame() == Blame::Place => return Err(fault),
            Err(fault) => (fault, None),
        }
    };
    let in_doubt = fault.outcome() == Outcome::Doubt;
    let unclear = fault.blame() == Blame::Unclear;
    let tried = tries.objected(batch, in_doubt);
    if fault.outcome() == Outcome::ResendThenApart && tried.times < patience(&fault) {
        return Err(fault);
    }
    if healthy.is_none() {
        healthy = Some(probe(unclear).await?);
    }
    let healthy = healthy == Some(true);
    let sure = tried.times >= SURE && (healthy || tried.proven);
    if positions.len() == 1 {
        // Once more: a moment ago the place itself may have been the trouble.
        match send(positions.clone()).await {
            Ok(()) => {
                tries.taken();
                return Ok(Vec::new());
            }
            Err(again) if again.blame() == Blame::Place => return Err(again),
            Err(again) => fault = again,
        }
    }
    let known = match unclear {
        true => sure,
        false => healthy || sure,
    };
    let found = isolate(positions, fault, known, sure, send).await?;
    if !found.taken && !sure {
        // Not one span was taken: is the place still what it was?
        probe(unclear).await?;
    }
    tries.taken();
    Ok(found.culprits)
}

/// Attempts that end with a failure of the server itself before the batch is tried apart.
fn patience(fault: &Fault) -> u32 {
    match fault.code() {
        // An error the server has a name for comes again; what passes has other statuses.
        Some("INVALID_STATE") => 1,
        Some(_) => 2,
        None => PATIENCE_WITH_500,
    }
}

/// What a search found.
#[derive(Debug)]
pub(crate) struct Found {
    pub(crate) culprits: Vec<Culprit>,
    /// Whether some spans were taken on the way.
    pub(crate) taken: bool,
}

/// Finds the spans for which a server rejects a request, by halving. Everything else gets sent on
/// the way.
///
/// `first` is why all of `spans` together were rejected. A failure that is nobody's fault but the
/// place's ends the search. `healthy` says that the place was found in order otherwise; if not, spans
/// are to blame only where others are taken. Too many failures that the place might have by itself,
/// without any success, are the place's all the same, unless it is `sure` that they are not.
async fn isolate<F, Fut>(
    spans: Vec<usize>,
    first: Fault,
    healthy: bool,
    sure: bool,
    mut send: F,
) -> Result<Found, Fault>
where
    F: FnMut(Vec<usize>) -> Fut,
    Fut: Future<Output = Result<(), Fault>>,
{
    let mut culprits = Vec::new();
    // Failures that a server's own trouble would explain as well.
    let mut unclear: Vec<Culprit> = Vec::new();
    let mut taken = false;
    let mut waiting = vec![(spans, first)];
    while let Some((mut spans, fault)) = waiting.pop() {
        if let [span] = spans[..] {
            match fault.blame() {
                Blame::Data if healthy => culprits.push((span, fault)),
                _ => unclear.push((span, fault)),
            }
            if !taken
                && !sure
                && unclear.len() as u32 >= HOPELESS
                && let Some((_, fault)) = unclear.pop()
            {
                return Err(takes_nothing(fault));
            }
            continue;
        }
        let right = spans.split_off(spans.len() / 2);
        let mut again = Vec::new();
        for half in [spans, right] {
            match send(half.clone()).await {
                Ok(()) => taken = true,
                Err(fault) if fault.blame() == Blame::Place => return Err(fault),
                Err(fault) => again.push((half, fault)),
            }
        }
        // The left half is taken apart first.
        again.reverse();
        waiting.extend(again);
    }
    if taken && !sure {
        // Others are taken now: perhaps a moment of the server's own is over.
        for (span, _) in std::mem::take(&mut unclear) {
            match send(vec![span]).await {
                Ok(()) => {}
                Err(fault) if fault.blame() == Blame::Place => return Err(fault),
                Err(fault) => unclear.push((span, fault)),
            }
        }
    }
    match (sure || taken || !culprits.is_empty(), unclear.pop()) {
        // Not one span was taken: this says nothing about the spans.
        (false, Some((_, fault))) => Err(takes_nothing(fault)),
        (_, last) => {
            culprits.extend(unclear);
            culprits.extend(last);
            Ok(Found { culprits, taken })
        }
    }
}

/// A fault that looked like a span's and is none.
fn takes_nothing(fault: Fault) -> Fault {
    if fault.blame() != Blame::Data {
        return fault;
    }
    Fault::new(
        ErrorKind::Unsupported,
        format!("it takes no spans at all: {}", fault.during(WRITE).cause()),
        "check the address, the proxies before it and what it says",
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    fn fault(blame: Blame) -> Fault {
        let outcome = match blame {
            Blame::Data => Outcome::Apart,
            Blame::Unclear => Outcome::Doubt,
            Blame::Place => Outcome::Keep,
        };
        Fault::with_outcome(ErrorKind::InvalidSpan, "", "", outcome)
    }

    /// Runs the search against a server that rejects requests with a bad span.
    fn search(
        count: usize,
        bad: &[usize],
        blame: Blame,
        healthy: bool,
        sure: bool,
    ) -> (Result<Vec<usize>, ()>, Vec<usize>, usize) {
        let (mut stored, mut requests) = (Vec::new(), 0);
        let found = tokio::runtime::Builder::new_current_thread()
            .build()
            .unwrap()
            .block_on(isolate(
                (0..count).collect(),
                fault(blame),
                healthy,
                sure,
                |spans| {
                    requests += 1;
                    let answer = match spans.iter().any(|s| bad.contains(s)) {
                        true => Err(fault(blame)),
                        false => {
                            stored.extend(&spans);
                            Ok(())
                        }
                    };
                    async move { answer }
                },
            ));
        let found = found.map_err(drop).map(|Found { culprits, .. }| {
            let mut spans: Vec<usize> = culprits.into_iter().map(|(span, _)| span).collect();
            spans.sort_unstable();
            spans
        });
        stored.sort_unstable();
        (found, stored, requests)
    }

    #[test]
    fn only_the_offender_is_left_out() {
        for (count, bad) in [
            (1, vec![0]),
            (2, vec![1]),
            (512, vec![0]),
            (512, vec![511]),
            (512, vec![17, 18, 300]),
            (7, vec![0, 1, 2, 3, 4, 5, 6]),
        ] {
            for blame in [Blame::Data, Blame::Unclear] {
                let (found, stored, requests) = search(count, &bad, blame, true, true);
                assert_eq!(found, Ok(bad.clone()), "{count} {bad:?} {blame:?}");
                let good: Vec<usize> = (0..count).filter(|i| !bad.contains(i)).collect();
                assert_eq!(stored, good, "each good span is sent exactly once");
                let bound = 2 * bad.len() * (count.ilog2() as usize + 1) + bad.len();
                assert!(
                    requests <= bound,
                    "{requests} requests for {bad:?} of {count}"
                );
            }
        }
    }

    #[test]
    fn a_server_in_trouble_is_not_blamed_on_spans() {
        let all: Vec<usize> = (0..512).collect();
        // However the place was found: a failure of its own condemns nothing by itself.
        assert_eq!(
            search(3, &[0, 1, 2], Blame::Unclear, true, false).0,
            Err(())
        );
        let (found, _, requests) = search(512, &all, Blame::Unclear, true, false);
        assert_eq!(found, Err(()));
        assert!(requests < 64, "{requests} requests");
        for blame in [Blame::Unclear, Blame::Data] {
            assert_eq!(search(1, &[0], blame, false, false).0, Err(()));
            let (found, _, requests) = search(512, &all, blame, false, false);
            assert_eq!(found, Err(()));
            assert!(requests < 64, "{requests} requests");
            assert_eq!(search(512, &[7], blame, false, false).0, Ok(vec![7]));
        }
        assert_eq!(search(64, &[3], Blame::Place, true, true).0, Err(()));
    }

    #[test]
    fn gzip_is_gzip() {
        let body: Vec<u8> = (0..10_000u32).flat_map(|i| (i / 7).to_le_bytes()).collect();
        let packed = gzip(&body).unwrap();
        assert!(packed.len() < body.len() / 2);
        let mut back = Vec::new();
        std::io::Read::read_to_end(&mut flate2::read::GzDecoder::new(&*packed), &mut back).unwrap();
        assert_eq!(back, body);
    }
}
