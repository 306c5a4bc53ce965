//! What a server stores of traces that we sent, against what it stores when the original OTLP
//! bytes are posted to it.

use crate::live::cases::equality::{CAPTURED, GENERATED, reference, sound};
use crate::live::compare::{self, Expected, differences};
use crate::live::sample::{self, Writing};
use crate::live::{CaseResult, Live, Stop};
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
