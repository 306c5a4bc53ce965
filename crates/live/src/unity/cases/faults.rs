//! What goes wrong between writers and their store: nothing is lost, nothing is there twice.

use super::super::super::CaseResult;
use super::super::proxy::{Fault, Plan, Proxy};
use super::super::writer::{self, Batches, Writer};
use super::super::{Unity, servers};
use super::writers::{BUCKET, copied, exactly_once};
use serde_json::json;

/// Three processes at once through pipelines, a commit for every three traces; and three more
/// afterwards, which find a table that they may be shown as it was.
const BATCHES: Batches = Batches {
    writers: 6,
    last: 30,
    spans: 4,
};
const AT_ONCE: u64 = 3;
/// How long a writer waits for an answer of the store.
const PATIENCE: &str = "2s";

pub(super) fn of_the_store(unity: &mut Unity) -> CaseResult {
    let (s3, port) = {
        let store = unity.store()?;
        (servers::s3(store), store.port)
    };
    let _ = unity
        .duck()?
        .ask("bucket", json!({"s3": s3, "name": BUCKET}));
    let plan = Plan {
        seed: 4,
        one_in: 6,
        faults: vec![
            Fault::Lost,
            Fault::AnswerLost,
            Fault::AnswerLost,
            Fault::LandedThenError,
            Fault::LandedThenError,
            Fault::LandedThenLate,
            Fault::Error,
            Fault::Throttled,
            Fault::OldListing,
            Fault::OldListing,
        ],
    };
    let proxy = Proxy::start(port, plan)?;
    let uri = writer::uri(&format!("s3://{BUCKET}/faults"), "faults");
    let writer = Writer::new(unity, &uri)
        .with_store(&proxy.url())
        .with_env("LIVE_STORE_TIMEOUT", PATIENCE);
    let retries = flows(&writer, "faults", 0)?;
    if retries == 0 {
        return Err("no pipeline ever tried a batch again".to_owned().into());
    }
    let done = proxy.done();
    if let Some(never) = [
        Fault::AnswerLost,
        Fault::LandedThenError,
        Fault::LandedThenLate,
        Fault::Throttled,
        Fault::OldListing,
    ]
    .iter()
    .find(|f| !done.contains_key(f))
    {
        return Err(format!("{never:?} never happened in {} requests", proxy.requests()).into());
    }
    let path = copied(
        unity,
        &s3,
        "faults/main/traces/faults_otel_spans",
        "faults_of_the_store",
    )?;
    let seen = unity.spark()?.ask("ids", json!({"path": path}))?;
    exactly_once(&seen, &BATCHES.ids())?;
    let log = unity.duck()?.ask("log", json!({"path": path}))?;
    Ok(format!(
        "{} spans once each after {} requests with {:?}; batches were tried again {retries} times; {} versions, {} orphans",
        BATCHES.ids().len(),
        proxy.requests(),
        done,
        log["versions"],
        log["orphans"]
    ))
}

/// The writers' flows, some at the same time, so many of them before all others; gives how often their pipelines tried again.
fn flows(writer: &Writer, name: &str, alone: usize) -> Result<u64, String> {
    let mut retries = 0;
    let numbers: Vec<u64> = (1..=BATCHES.writers).collect();
    let (before, others) = numbers.split_at(alone);
    for round in before.chunks(1).chain(others.chunks(AT_ONCE as usize)) {
        std::thread::scope(|scope| {
            let threads: Vec<_> = round
                .iter()
                .map(|number| {
                    scope.spawn(move || {
                        let numbers = [*number, BATCHES.last, BATCHES.spans];
                        let mut arguments = vec!["flow".to_owned()];
                        arguments.extend(numbers.map(|n| n.to_string()));
                        writer.run(&format!("{name}-{number}"), &arguments)
                    })
                })
                .collect();
            for thread in threads {
                let printed = thread
                    .join()
                    .map_err(|_| "a thread panicked".to_owned())??;
                let last = printed.lines().last().unwrap_or_default();
                let (_, count) = last
                    .split_once("retries ")
                    .ok_or_else(|| format!("a writer ends with `{last}`"))?;
                retries += count.trim().parse::<u64>().map_err(|e| e.to_string())?;
            }
            Ok::<_, String>(())
        })?;
    }
    Ok(retries)
}

/// The catalog gives out credentials that the store's own token service made; while writers write,
/// the store says they have expired, and they go on with new ones.
pub(super) fn credentials_expire(unity: &mut Unity) -> CaseResult {
    let (s3, port) = {
        let store = unity.store()?;
        (servers::s3(store), store.port)
    };
    let _ = unity
        .duck()?
        .ask("bucket", json!({"s3": s3, "name": BUCKET}));
    let session = unity
        .duck()?
        .ask("session", json!({"s3": s3, "seconds": 3600}))?;
    let value = |name: &str| session[name].as_str().unwrap_or_default().to_owned();
    let properties = format!(
        "s3.bucketPath.0=s3://{BUCKET}\ns3.region.0=us-east-1\ns3.accessKey.0={}\n\
         s3.secretKey.0={}\ns3.sessionToken.0={}\n",
        value("AccessKeyId"),
        value("SecretAccessKey"),
        value("SessionToken")
    );
    let work = unity.work("credentials_expire")?;
    let server = unity.server(work, &properties)?;
    super::catalog::schema(unity, &server)?;
    let proxy = Proxy::start(
        port,
        Plan {
            seed: 9,
            one_in: 10,
            faults: vec![Fault::Expired],
        },
    )?;
    let uri = "uc://live.traces.expiring";
    let writer = Writer::new(unity, uri)
        .with_endpoint(&proxy.url())
        .with_env("UNITY_CATALOG_URI", server.url())
        .with_env(
            "UNITY_CATALOG_STORAGE_ROOT",
            format!("s3://{BUCKET}/governed"),
        )
        .with_env("UNITY_CATALOG_S3_SESSION_TOKEN", "keep");
    // The open-source server registers a name twice if two ask at the same moment, and then answers
    // every question about it with 500: one writer creates the table.
    flows(&writer, "expiring", 1)?;
    let expired = proxy
        .done()
        .get(&Fault::Expired)
        .copied()
        .unwrap_or_default();
    if expired == 0 {
        return Err("no request was told that its credentials expired"
            .to_owned()
            .into());
    }
    let prefix = "governed/live/traces/expiring_otel_spans";
    let path = copied(unity, &s3, prefix, "credentials_expire_table")?;
    let seen = unity.duck()?.ask("ids", json!({"path": path}))?;
    exactly_once(&seen, &BATCHES.ids())?;
    Ok(format!(
        "{} spans once each with credentials from the catalog that expired {expired} times in {} requests",
        BATCHES.ids().len(),
        proxy.requests()
    ))
}
