//! Sending spans: compressed where the server takes it, and taken apart where it objects to one.

use crate::classify::Blame;
use crate::client::{Answer, Call, PROTOBUF};
use crate::config::HOPELESS;
use crate::error::{Fault, WRITE};
use crate::host::Host;
use crate::transport::Compression;
use bytes::Bytes;
use flate2::write::GzEncoder;
use reqwest::Method;
use reqwest::header::{HeaderName, HeaderValue};
use std::future::Future;
use std::io::Write as _;
use trace_destination_core::ErrorKind;

/// An OTLP request without a span: `resource_spans { scope_spans {} }`. Servers take it, unless
/// something other than the spans is wrong.
const NO_SPANS: [u8; 4] = [0x0a, 0x02, 0x12, 0x00];

/// Bytes below which setting up compression costs more than it saves: such a request is one packet
/// anyway.
const WORTH_GZIP: usize = 1200;

/// Sends one encoded request to the traces endpoint at `path`.
pub(crate) async fn post(
    host: &Host,
    path: &str,
    headers: &[(HeaderName, HeaderValue)],
    body: Vec<u8>,
) -> Result<Answer, Fault> {
    let call = |body: Bytes, gzip| Call {
        method: Method::POST,
        path: path.to_owned(),
        headers: headers.to_vec(),
        body: Some((PROTOBUF, body)),
        gzip,
    };
    let wanted = host.client.transport().compression == Compression::Gzip;
    if !wanted || body.len() < WORTH_GZIP || host.takes_gzip() == Some(false) {
        return host.client.call(call(body.into(), false)).await;
    }
    let answer = host.client.call(call(gzip(&body)?.into(), true)).await;
    match &answer {
        Ok(_) => host.note_gzip(true),
        // Perhaps a server that knows no gzip; once it took some, it is about the spans.
        Err(fault) if host.takes_gzip().is_none() && matches!(fault.status(), Some(400 | 415)) => {
            let plain = host.client.call(call(body.into(), false)).await;
            if plain.is_ok() {
                host.note_gzip(false);
            }
            return plain;
        }
        Err(_) => {}
    }
    answer
}

/// Whether the server takes a request with no span in it, so that a span must be at fault where
/// another was rejected. An error if something else is wrong.
pub(crate) async fn is_healthy(
    host: &Host,
    path: &str,
    headers: &[(HeaderName, HeaderValue)],
) -> Result<bool, Fault> {
    match post(host, path, headers, NO_SPANS.to_vec()).await {
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

/// Finds the spans for which a server rejects a request, by halving. Everything else gets sent on
/// the way.
///
/// `first` is why all of `spans` together were rejected. A failure that is nobody's fault but the
/// place's ends the search. `healthy` says that the place was found in order otherwise; if not, spans
/// are to blame only where others are taken. Too many failures that the place might have by itself,
/// without any success, are the place's all the same.
pub(crate) async fn isolate<F, Fut>(
    spans: Vec<usize>,
    first: Fault,
    healthy: bool,
    mut send: F,
) -> Result<Vec<Culprit>, Fault>
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
    match (healthy || taken || !culprits.is_empty(), unclear.pop()) {
        // Not one span was taken: this says nothing about the spans.
        (false, Some((_, fault))) => Err(takes_nothing(fault)),
        (_, last) => {
            culprits.extend(unclear);
            culprits.extend(last);
            Ok(culprits)
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
    use crate::classify::Class;
    use crate::error::Refused;
    use trace_destination_core::Retry;

    fn fault(blame: Blame) -> Fault {
        Fault::Answer(Refused {
            status: 422,
            class: Class {
                kind: ErrorKind::InvalidSpan,
                retry: Retry::Never,
                blame,
            },
            code: None,
            says: "".into(),
            asked: "".into(),
            credentials: "",
            withheld: None,
        })
    }

    /// Runs the search against a server that rejects requests with a bad span.
    fn search(
        count: usize,
        bad: &[usize],
        blame: Blame,
        healthy: bool,
    ) -> (Result<Vec<usize>, ()>, Vec<usize>, usize) {
        let (mut stored, mut requests) = (Vec::new(), 0);
        let found = tokio::runtime::Builder::new_current_thread()
            .build()
            .unwrap()
            .block_on(isolate(
                (0..count).collect(),
                fault(blame),
                healthy,
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
        let found = found.map_err(drop).map(|culprits| {
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
                let (found, stored, requests) = search(count, &bad, blame, true);
                assert_eq!(found, Ok(bad.clone()), "{count} {bad:?} {blame:?}");
                let good: Vec<usize> = (0..count).filter(|i| !bad.contains(i)).collect();
                assert_eq!(stored, good, "each good span is sent exactly once");
                let bound = 2 * bad.len() * (count.ilog2() as usize + 1);
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
        let (found, _, requests) = search(512, &all, Blame::Unclear, true);
        assert_eq!(found, Err(()));
        assert!(requests < 64, "{requests} requests");
        for blame in [Blame::Unclear, Blame::Data] {
            assert_eq!(search(1, &[0], blame, false).0, Err(()));
            let (found, _, requests) = search(512, &all, blame, false);
            assert_eq!(found, Err(()));
            assert!(requests < 64, "{requests} requests");
            assert_eq!(search(512, &[7], blame, false).0, Ok(vec![7]));
        }
        assert_eq!(search(64, &[3], Blame::Place, true).0, Err(()));
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
