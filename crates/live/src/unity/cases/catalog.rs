//! The open-source Unity Catalog server: names, registration, what it shows, what it refuses.

use super::super::super::{CaseResult, Stop};
use super::super::servers::Server;
use super::super::writer::Writer;
use super::super::{Unity, expected};
use super::equality;
use serde_json::{Value, json};
use trace_destination_otlp::sample;

const API: &str = "/api/2.1/unity-catalog";
const TABLE: &str = "live.traces.shop_otel_spans";

/// A catalog and a schema on a server.
pub(super) fn schema(unity: &mut Unity, server: &Server) -> Result<(), Stop> {
    for (path, body) in [
        ("catalogs", json!({"name": "live"})),
        ("schemas", json!({"name": "traces", "catalog_name": "live"})),
    ] {
        let (status, answer) = http(unity, server, "POST", path, Some(body))?;
        if status != 200 {
            return Err(format!("creating one of {path}: {status} {answer}").into());
        }
    }
    Ok(())
}

fn http(
    unity: &mut Unity,
    server: &Server,
    method: &str,
    path: &str,
    body: Option<Value>,
) -> Result<(u64, Value), Stop> {
    let url = format!("{}{API}/{path}", server.url());
    let mut answer = unity
        .duck()?
        .ask("http", json!({"method": method, "url": url, "body": body}))?;
    Ok((answer[0].as_u64().unwrap_or_default(), answer[1].take()))
}

/// A table through the server, with its files in a folder: created, registered, seen by the
/// server's API, written again by another process, and equal in Spark.
pub(super) fn files(unity: &mut Unity) -> CaseResult {
    let work = unity.work("catalog_server_files")?;
    let server = unity.server(work.join("server"), "")?;
    schema(unity, &server)?;
    let root = work.join("tables");
    let uri = "uc://live.traces.shop";
    let writer = Writer::new(unity, uri)
        .with_env("UNITY_CATALOG_URI", server.url())
        .with_env(
            "UNITY_CATALOG_STORAGE_ROOT",
            format!("file://{}", root.display()),
        );
    let requests = vec![sample::captured().to_vec()];
    writer.files("catalog", &requests)?;
    let (status, table) = http(unity, &server, "GET", &format!("tables/{TABLE}"), None)?;
    if status != 200 || table["table_type"] != "EXTERNAL" || table["data_source_format"] != "DELTA"
    {
        return Err(format!("the server shows {status} {table}").into());
    }
    let kinds: Vec<_> = table["columns"]
        .as_array()
        .into_iter()
        .flatten()
        .map(|c| c["type_name"].as_str().unwrap_or_default())
        .collect();
    if kinds.len() != 24 || kinds[13] != "VARIANT" || kinds[15] != "ARRAY" {
        return Err(format!("the server shows the columns {kinds:?}").into());
    }
    let location = table["storage_location"]
        .as_str()
        .unwrap_or_default()
        .to_owned();
    let path = location.trim_start_matches("file://").to_owned();
    // A second process finds the table by its name.
    writer.files("catalog-again", &sample::generated())?;
    let (_, again) = http(unity, &server, "GET", &format!("tables/{TABLE}"), None)?;
    if again["table_id"] != table["table_id"] {
        return Err("the second writer registered the table anew"
            .to_owned()
            .into());
    }
    let all: Vec<Vec<u8>> = requests.into_iter().chain(sample::generated()).collect();
    let rows = expected::rows(&all)?;
    let spark = equality::of_spark(unity, &path, &rows)?;
    Ok(format!(
        "{TABLE} is EXTERNAL at {}, {} spans of two processes equal in {spark}",
        if location.starts_with("file:") {
            "a file: location"
        } else {
            "a path"
        },
        rows.len()
    ))
}

/// What the server does not have is an error that names it, and nothing is left behind.
pub(super) fn refuses(unity: &mut Unity) -> CaseResult {
    let work = unity.work("catalog_server_refuses")?;
    let server = unity.server(work.join("server"), "")?;
    schema(unity, &server)?;
    let root = work.join("tables");
    let mut told = Vec::new();
    for (name, named) in [
        ("live.nowhere.shop", "nowhere"),
        ("other.traces.shop", "other"),
    ] {
        let uri = format!("uc://{name}");
        let writer = Writer::new(unity, &uri)
            .with_env("UNITY_CATALOG_URI", server.url())
            .with_env(
                "UNITY_CATALOG_STORAGE_ROOT",
                format!("file://{}", root.display()),
            );
        match writer.files(&format!("refused-{named}"), &[sample::captured().to_vec()]) {
            Ok(()) => return Err(format!("{name} was written although it does not exist").into()),
            Err(text) if text.contains(named) => told.push(named),
            Err(text) => return Err(format!("the error does not name {named}: {text}").into()),
        }
    }
    if root.exists() {
        return Err(format!("{} was made for nothing", root.display()).into());
    }
    Ok(format!(
        "a missing schema and a missing catalog are named: {}",
        told.join(", ")
    ))
}
