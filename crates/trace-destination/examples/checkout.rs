//! An application that names no destination: the environment does, and the program stays the same. On a
//! laptop:
//!
//! ```text
//! MLFLOW_TRACKING_URI=sqlite:///checkout.db MLFLOW_EXPERIMENT_NAME=checkout \
//!     cargo run --example checkout --features server
//! ```
//!
//! In staging, where `mlflow server --port 5000` runs:
//!
//! ```text
//! MLFLOW_TRACKING_URI=http://127.0.0.1:5000 MLFLOW_EXPERIMENT_NAME=checkout \
//!     cargo run --example checkout --features server
//! ```
//!
//! A server with users is given `MLFLOW_TRACKING_USERNAME` and `MLFLOW_TRACKING_PASSWORD`, or
//! `MLFLOW_TRACKING_TOKEN`; an OpenTelemetry collector is
//! `MLFLOW_TRACING_DESTINATION=otlp+http://collector:4318`.
#![allow(clippy::print_stdout)]

use opentelemetry::trace::{Span, Status, TraceContextExt, Tracer, TracerProvider};
use opentelemetry::{Context, KeyValue};
use opentelemetry_sdk::Resource;
use opentelemetry_sdk::trace::{SdkTracer, SdkTracerProvider};
use std::time::Duration;
use trace_destination::{from_env, update_current_trace};

pub(crate) fn main() -> Result<(), Box<dyn std::error::Error>> {
    // A wrong variable is an error here, which names the variable and a fix.
    let pipeline = from_env()?;
    let provider = SdkTracerProvider::builder()
        .with_resource(Resource::builder().with_service_name("checkout").build())
        .with_span_processor(pipeline.processor())
        .build();
    let tracer = provider.tracer("checkout");
    for (cart, amount) in [("shoes", 80), ("books", 35), ("lamp", 20)] {
        check_out(&tracer, cart, amount);
    }
    let report = pipeline.shutdown(Duration::from_secs(30)).wait();
    println!("{report}");
    match report.all_stored() && !report.locations.is_empty() {
        true => Ok(()),
        false => Err("not everything was stored; set MLFLOW_TRACKING_URI".into()),
    }
}

fn check_out(tracer: &SdkTracer, cart: &'static str, amount: i64) {
    let root = tracer
        .span_builder("check out")
        .with_attributes([
            KeyValue::new("mlflow.spanType", "CHAIN"),
            KeyValue::new("mlflow.spanInputs", format!("{{\"cart\": \"{cart}\"}}")),
            KeyValue::new("mlflow.spanOutputs", format!("{{\"paid\": {amount}}}")),
        ])
        .start(tracer);
    let _running = Context::current_with_span(root).attach();
    update_current_trace(|trace| {
        trace.session_id = Some("session-1".into());
        trace.user_id = Some("user-7".into());
        trace.client_request_id = Some(format!("request-{cart}"));
        trace.tags.insert("cart".into(), cart.into());
    });
    let mut advice = tracer.start("ask for advice");
    advice.set_attribute(KeyValue::new("gen_ai.operation.name", "chat"));
    advice.set_attribute(KeyValue::new("gen_ai.request.model", "shop-advisor"));
    advice.set_attribute(KeyValue::new("gen_ai.usage.input_tokens", 12));
    advice.set_attribute(KeyValue::new("gen_ai.usage.output_tokens", amount));
    advice.end();
    let mut payment = tracer.start("pay");
    payment.set_attribute(KeyValue::new("amount", amount));
    match amount {
        20 => payment.set_status(Status::error("the card was refused")),
        _ => payment.set_status(Status::Ok),
    }
    payment.end();
    Context::current().span().set_status(Status::Ok);
}
