//! What a server stores of traces that we sent, against what it stores when the original OTLP
//! bytes are posted to it.

use crate::cases::equality::{CAPTURED, GENERATED, reference, sound};
use crate::compare::{self, Expected, differences};
use crate::sample::{self, Writing};
use crate::{CaseResult, Live, Stop, stored};
use serde_json::Value;

/// The captured traces.
pub(super) fn captured(live: &mut Live) -> CaseResult {
    equals(live, "server_equals_captured", CAPTURED)
}

/// The made traces, which hold what the capture lacks.
pub(super) fn generated(live: &mut Live) -> CaseResult {
    equals(live, "server_equals_generated", GENERATED)
}

fn equals(live: &mut Live, case: &str, name: &str) -> CaseResult {
    reference(live)?;
    let ours = compare::experiment_view(sent(live)?, name)?;
    let server = reference(live)?.view(name).clone();
    let (traces, spans) = compare::counts(&server)?;
    let expected = Expected::load(&live.scripts.join("expected_differences.json"))?;
    let summary = expected.check(&live.name(case), &differences(&ours, &server))?;
    Ok(format!("{traces} traces, {spans} spans; {summary}"))
}

/// The oldest server that takes spans over OTLP stores what we send, and lists every trace.
pub(super) fn older(live: &mut Live) -> CaseResult {
    let db = live.work("older_server")?.join("mlflow.db");
    let mlflow = live.oldest_server.as_ref();
    let mlflow = mlflow.map_err(|m| Stop::Missing(m.clone()))?;
    let server = mlflow.serve(&db)?;
    let requests = sample::captured();
    let writing = Writing::open(&format!("{}?experiment_name={CAPTURED}", server.url()))?;
    for request in &requests {
        writing.request(request)?;
    }
    writing.close()?;
    let listed = mlflow.dump_server_infos(&server)?;
    server.stop()?;
    let written = stored::of_requests(&requests)?;
    if stored::spans(&db)? != written {
        return Err("the rows are not what was sent".to_owned().into());
    }
    let order = listed["api"]["order"][CAPTURED]
        .as_array()
        .map_or(0, Vec::len);
    if order != written.len() {
        return Err(format!("it lists {order} of {} traces", written.len()).into());
    }
    Ok(format!(
        "{} stored {} spans and lists their {order} traces",
        mlflow.version()?,
        stored::count(&written)
    ))
}

/// What a server has after we sent it both samples, as the reference got them; asked for once.
fn sent(live: &mut Live) -> Result<&Value, Stop> {
    if live.sent.is_none() {
        let db = live.work("server_equality")?.join("mlflow.db");
        let mlflow = live.mlflow()?;
        let server = mlflow.serve(&db)?;
        for (name, requests) in [
            (CAPTURED, sample::captured()),
            (GENERATED, sample::generated_for_server()?),
        ] {
            let writing = Writing::open(&format!("{}?experiment_name={name}", server.url()))?;
            for request in &requests {
                writing.request(request)?;
            }
            writing.close()?;
        }
        server.stop()?;
        let dump = mlflow.dump(&db)?;
        sound(&dump)?;
        live.sent = Some(dump);
    }
    live.sent
        .as_ref()
        .ok_or_else(|| "the dump is gone".to_owned().into())
}
