#![no_main]
//! A Delta log of somebody else: objects are apart by lines of `--`, the first line of each is its name
//! in `_delta_log`. It is read to an end; a table that is taken can be appended to, and what is written
//! can be read again, beside everything that was there.
use libfuzzer_sys::fuzz_target;
use object_store::memory::InMemory;
use object_store::path::Path;
use object_store::{ObjectStore, ObjectStoreExt as _, PutPayload};
use std::collections::BTreeMap;
use std::sync::{Arc, LazyLock};
use tokio::runtime::{Builder, Runtime};
use trace_destination_core::{BatchId, Error, SpanGroup, TraceBatch, TraceLocation as _};
use trace_destination_otlp::decode_json;
use trace_destination_unity_catalog::UnityCatalogLocation;
use trace_destination_unity_catalog::test_support::wrapped;

mod error_text;

static RUNTIME: LazyLock<Runtime> = LazyLock::new(|| {
    let mut builder = Builder::new_multi_thread();
    builder.worker_threads(1).enable_time();
    builder.build().expect("a runtime")
});

/// A lakehouse in which there is a log. What is in it comes from the input.
static ROOT: LazyLock<tempfile::TempDir> = LazyLock::new(|| {
    let root = tempfile::tempdir().expect("a folder");
    let log = root.path().join("a/b/c_otel_spans/_delta_log");
    std::fs::create_dir_all(&log).expect("a folder");
    std::fs::write(log.join("00000000000000000000.json"), "").expect("a file");
    root
});

static GROUPS: LazyLock<Vec<SpanGroup>> = LazyLock::new(|| {
    let spans = r#"{"resourceSpans":[{"scopeSpans":[{"spans":[
        {"traceId":"0000000000000000000000000000000a","spanId":"000000000000000a","name":"n",
         "startTimeUnixNano":"1","endTimeUnixNano":"2"}]}]}]}"#;
    let decoded = decode_json(spans.as_bytes()).expect("it is OTLP");
    decoded
        .into_iter()
        .map(|group| group.into_group())
        .collect()
});

/// The columns of version 2, as `schemaString` writes them.
const COLUMNS: &str = include_str!("columns.txt");

fn objects(input: &[u8]) -> BTreeMap<Path, Vec<u8>> {
    let mut found = BTreeMap::new();
    let mut rest = Some(input);
    while let Some(bytes) = rest {
        let end = bytes.windows(4).position(|window| window == b"\n--\n");
        let object = &bytes[..end.unwrap_or(bytes.len())];
        rest = end.map(|end| &bytes[end + 4..]);
        let cut = object
            .iter()
            .position(|b| *b == b'\n')
            .unwrap_or(object.len());
        let Ok(name) = std::str::from_utf8(&object[..cut]) else {
            continue;
        };
        // Short names of versions stand for the long ones.
        let digits = name.bytes().take_while(u8::is_ascii_digit).count();
        let name = match digits {
            1..10 => format!("{:0>20}{}", &name[..digits], &name[digits..]),
            _ => name.to_owned(),
        };
        if let Ok(path) = Path::parse(format!("_delta_log/{name}")) {
            let content = object[(cut + 1).min(object.len())..].to_vec();
            // Columns are too long a text to be changed by chance.
            let content = match String::from_utf8(content) {
                Ok(text) => text
                    .replace("\"@\"", &format!("\"{COLUMNS}\""))
                    .into_bytes(),
                Err(bytes) => bytes.into_bytes(),
            };
            found.insert(path, content);
        }
    }
    found
}

fuzz_target!(|bytes: &[u8]| {
    let before = objects(bytes);
    let store: Arc<dyn ObjectStore> = Arc::new(InMemory::new());
    let found: Result<(), Error> = RUNTIME.block_on(async {
        for (path, content) in &before {
            let put = store.put(path, PutPayload::from(content.clone())).await;
            put.expect("it is stored");
        }
        let location = UnityCatalogLocation::builder()
            .with_name("a.b.c")
            .with_root(ROOT.path().display().to_string())
            .build()?;
        let behind = store.clone();
        let location = wrapped(location, Arc::new(move |_| behind.clone()));
        let sink = location.open().await?;
        let id = BatchId {
            writer: uuid::Uuid::from_u128(1),
            sequence: 1,
        };
        let batch = TraceBatch::new(id, GROUPS.clone(), Vec::new());
        let written = sink.write(&batch).await?;
        assert!(written.refused.is_empty(), "{:?}", written.refused);
        sink.close().await?;
        for (path, content) in &before {
            let there = store.get(path).await.expect("it is still there");
            let there = there.bytes().await.expect("it is read");
            // A checkpoint may be made anew, and the pointer to it.
            let is_commit = path.filename().is_some_and(|name| {
                name.len() == 25 && name.bytes().take(20).all(|b| b.is_ascii_digit())
            });
            assert!(!is_commit || there == *content, "{path} was changed");
        }
        let sink = location
            .open()
            .await
            .expect("what was written is read again");
        let again = sink.write(&batch).await.expect("it is there already");
        assert!(again.refused.is_empty());
        sink.close().await
    });
    if let Err(error) = found {
        error_text::check(&error, &[]);
    }
});
