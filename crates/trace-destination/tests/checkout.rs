//! The `checkout` example, unchanged, with nothing but the environment to tell it where its traces
//! go: every place gets what it says of a trace as a whole, and it ends without an error.
#![expect(clippy::unwrap_used, reason = "helpers of tests may fail as tests do")]

#[allow(
    dead_code,
    clippy::duplicate_mod,
    reason = "the tests run its main function only"
)]
#[path = "../examples/checkout.rs"]
mod example;

use std::process::{Command, Output};

/// Set in the process that is the example.
const IS_EXAMPLE: &str = "TRACE_DESTINATION_TEST_CHECKOUT";

/// Variables that say where traces go; what the tests are run with must not get in.
const VARIABLES: [&str; 8] = [
    "MLFLOW_TRACKING_URI",
    "MLFLOW_TRACING_DESTINATION",
    "MLFLOW_EXPERIMENT_NAME",
    "MLFLOW_EXPERIMENT_ID",
    "MLFLOW_RUN_ID",
    "MLFLOW_WORKSPACE",
    "MLFLOW_TRACE_ENABLE_OTLP_DUAL_EXPORT",
    "MLFLOW_TRACE_SAMPLING_RATIO",
];

#[test]
fn the_example() {
    // The process of a test below; by itself there is nothing to run.
    if std::env::var_os(IS_EXAMPLE).is_some() {
        example::main().unwrap();
    }
}

/// Runs the example with these variables, in a folder of its own; returns what it printed.
fn check_out(variables: &[(&str, &str)]) -> String {
    let mut command = Command::new(std::env::current_exe().unwrap());
    command
        .args(["--exact", "the_example", "--nocapture"])
        .env(IS_EXAMPLE, "1");
    for name in VARIABLES {
        command.env_remove(name);
    }
    let Output {
        status,
        stdout,
        stderr,
    } = command.envs(variables.iter().copied()).output().unwrap();
    let said = String::from_utf8_lossy(&stdout).into_owned();
    let errors = String::from_utf8_lossy(&stderr);
    assert!(status.success(), "{said}\n{errors}");
    assert!(said.contains("9 stored, 0 pending, 0 dropped"), "{said}");
    assert!(!said.contains("lost"), "{said}");
    said
}

const RUN: (&str, &str) = ("MLFLOW_RUN_ID", "run-1");

#[test]
fn sqlite() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("checkout.db");
    let uri = format!("sqlite:///{}", file.display());
    let experiment = ("MLFLOW_EXPERIMENT_NAME", "checkout");
    check_out(&[("MLFLOW_TRACKING_URI", &uri), experiment, RUN]);
    let db = rusqlite::Connection::open(&file).unwrap();
    let one = |sql: &str| {
        db.query_row(sql, [], |row| row.get::<_, String>(0))
            .unwrap()
    };
    for (table, key, expected) in [
        (
            "trace_request_metadata",
            "mlflow.trace.session",
            "session-1 3",
        ),
        ("trace_request_metadata", "mlflow.trace.user", "user-7 3"),
        ("trace_request_metadata", "mlflow.sourceRun", "run-1 3"),
        ("trace_tags", "mlflow.traceName", "check out 3"),
    ] {
        let sql = format!(
            "SELECT value || ' ' || count(*) FROM {table} WHERE \"key\" = '{key}' GROUP BY value"
        );
        assert_eq!(one(&sql), expected, "{key}");
    }
    let lists = "SELECT group_concat(client_request_id) FROM \
                 (SELECT client_request_id FROM trace_info ORDER BY 1)";
    assert_eq!(one(lists), "request-books,request-lamp,request-shoes");
    let carts = "SELECT group_concat(value) FROM \
                 (SELECT value FROM trace_tags WHERE \"key\" = 'cart' ORDER BY 1)";
    assert_eq!(one(carts), "books,lamp,shoes");
}

#[test]
fn otlp_endpoint() {
    use std::sync::{Arc, Mutex};
    use trace_destination_conformance::values_on_root;
    use trace_destination_testkit::{Hostile, Reply};

    let bodies: Arc<Mutex<Vec<Vec<u8>>>> = Arc::default();
    let received = bodies.clone();
    let server = Hostile::start(move |request| {
        assert_eq!(request.path(), "/v1/traces");
        assert_eq!(request.header("content-encoding"), None);
        received.lock().unwrap().push(request.body.clone());
        Reply::new(200, "application/x-protobuf", "")
    });
    let uri = format!("otlp+{}", server.url());
    check_out(&[("MLFLOW_TRACING_DESTINATION", &uri), RUN]);
    let bodies = bodies.lock().unwrap();
    let groups = bodies
        .iter()
        .map(|body| trace_destination_otlp::decode_protobuf(body).unwrap());
    let spans = groups.flatten().flat_map(|group| group.into_group().spans);
    let records = spans.map(trace_destination::Span::into_record);
    let roots = records.filter(|span| span.parent_span_id.is_none());
    let mut carts: Vec<String> = roots
        .map(|root| {
            let values = values_on_root(&root);
            assert_eq!(values.session_id.as_deref(), Some("session-1"));
            assert_eq!(values.user_id.as_deref(), Some("user-7"));
            assert_eq!(values.run_id.as_deref(), Some("run-1"));
            let cart = values.tags["cart"].clone();
            assert_eq!(values.client_request_id, Some(format!("request-{cart}")));
            cart
        })
        .collect();
    carts.sort();
    assert_eq!(carts, ["books", "lamp", "shoes"]);
}

#[test]
fn table() {
    let folder = tempfile::tempdir().unwrap();
    let uri = format!("uc://main.shop.checkout?root={}", folder.path().display());
    check_out(&[("MLFLOW_TRACING_DESTINATION", &uri), RUN]);
    // What is in the rows, the conformance suite of the backend reads.
    assert!(
        folder
            .path()
            .join("main/shop/checkout_otel_spans/_delta_log")
            .exists()
    );
}
