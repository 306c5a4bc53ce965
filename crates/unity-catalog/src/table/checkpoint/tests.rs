use super::*;
use arrow_array::{ArrayRef, Int64Array, RecordBatch, StringArray, StructArray};
use object_store::memory::InMemory;
use object_store::path::Path;
use parquet::arrow::ArrowWriter;
use parquet::basic::{Compression, Encoding};
use parquet::file::properties::WriterProperties;
use std::error::Error as _;

/// A checkpoint with these texts as what `root` has.
fn file(root: &str, texts: Vec<String>, properties: WriterProperties) -> Vec<u8> {
    let count = texts.len() as i64;
    let fields: Vec<(_, ArrayRef)> = vec![
        (
            Arc::new(arrow_schema::Field::new(
                "appId",
                arrow_schema::DataType::Utf8,
                true,
            )),
            Arc::new(StringArray::from(texts)),
        ),
        (
            Arc::new(arrow_schema::Field::new(
                "version",
                arrow_schema::DataType::Int64,
                true,
            )),
            Arc::new(Int64Array::from_iter_values(0..count)),
        ),
    ];
    let column: ArrayRef = Arc::new(StructArray::from(fields));
    let batch = RecordBatch::try_from_iter([(root, column)]).unwrap();
    let mut bytes = Vec::new();
    let mut writer = ArrowWriter::try_new(&mut bytes, batch.schema(), Some(properties)).unwrap();
    writer.write(&batch).unwrap();
    writer.close().unwrap();
    bytes
}

fn zstd() -> parquet::file::properties::WriterPropertiesBuilder {
    WriterProperties::builder().set_compression(Compression::ZSTD(Default::default()))
}

async fn fetched(bytes: Vec<u8>, columns: Columns) -> Result<Vec<Part>> {
    let (store, name) = (
        InMemory::new(),
        Path::from("_delta_log/1.checkpoint.parquet"),
    );
    store.put(&name, bytes.into()).await.unwrap();
    let meta = store.head(&name).await.unwrap();
    fetch_checkpoint(&store, &meta, columns).await
}

fn refused(fetched: Result<Vec<Part>>) -> String {
    let error = fetched.unwrap_err();
    let source = error.source().unwrap();
    assert!(source.is::<TooLarge>(), "{error:?}");
    source.to_string()
}

#[tokio::test]
async fn checkpoints_of_tables_pass() {
    // Nothing that compresses.
    let texts: Vec<_> = (1..20_000_u128)
        .map(|n| {
            format!(
                "trace-destination:{:032x}",
                n.wrapping_mul(0x9e37_79b9_7f4a_7c15_f39c_c060_5ced_c835)
                    .rotate_left(61)
                    .wrapping_mul(0x2545_f491_4f6c_dd1d_9e37_79b9_7f4a_7c15)
            )
        })
        .collect();
    for properties in [
        zstd().build(),
        zstd().set_dictionary_enabled(false).build(),
        WriterProperties::builder().build(),
        zstd()
            .set_writer_version(parquet::file::properties::WriterVersion::PARQUET_2_0)
            .build(),
    ] {
        let bytes = file("txn", texts.clone(), properties.clone());
        let size = bytes.len() as u64;
        assert!(size > SMALL);
        let state = fetched(bytes.clone(), Columns::State).await.unwrap();
        // The reader's own requests: the end of the file, the footer, the columns.
        assert!(
            state
                .iter()
                .any(|part| part.slice(&(size - 8..size)).is_some())
        );
        let all = fetched(bytes, Columns::All).await.unwrap();
        assert_eq!(all[0].bytes.len() as u64, size);
        // What is of files is left alone, unless all is wanted.
        let files = file("add", texts.clone(), properties);
        let state = fetched(files, Columns::State).await.unwrap();
        assert_eq!(state.len(), 1, "the end of the file only");
    }
}

#[tokio::test]
async fn what_becomes_many_times_its_size_is_refused() {
    // A page of 64 MiB in some kilobytes.
    let one = file(
        "txn",
        vec!["x".repeat(64 << 20)],
        zstd().set_dictionary_enabled(false).build(),
    );
    assert!(one.len() < 1 << 20, "{}", one.len());
    assert!(refused(fetched(one, Columns::State).await).contains("too large pages"));
    // One value of a megabyte, two thousand times over a dictionary, in some kilobytes.
    let bytes = file(
        "txn",
        vec!["x".repeat(1 << 20); 2_000],
        zstd().set_dictionary_page_size_limit(4 << 20).build(),
    );
    assert!(bytes.len() < 1 << 20, "{}", bytes.len());
    assert!(refused(fetched(bytes, Columns::State).await).contains("too large values"));
    // The same by shared prefixes.
    let bytes = file(
        "txn",
        vec!["x".repeat(1 << 20); 2_000],
        zstd()
            .set_dictionary_enabled(false)
            .set_column_encoding("txn.appId".into(), Encoding::DELTA_BYTE_ARRAY)
            .set_data_page_size_limit(64 << 20)
            .build(),
    );
    assert!(refused(fetched(bytes, Columns::State).await).contains("too large pages"));
    // Not where they are not read.
    let other = file(
        "add",
        vec!["x".repeat(64 << 20)],
        zstd().set_dictionary_enabled(false).build(),
    );
    assert!(fetched(other.clone(), Columns::State).await.is_ok());
    assert!(refused(fetched(other, Columns::All).await).contains("too large pages"));
}

#[tokio::test]
async fn what_is_no_checkpoint_is_refused() {
    let good = file("txn", vec!["a".into()], zstd().build());
    assert!(fetched(good.clone(), Columns::State).await.is_ok());
    let end = good.len();
    let footer = u32::from_le_bytes(good[end - 8..end - 4].try_into().unwrap()) as usize;
    let mut cases = vec![Vec::new(), b"PAR1".to_vec(), vec![0; 100], vec![0; 1 << 20]];
    // A footer of 4 GiB, and one that begins before the file.
    for length in [u32::MAX, end as u32] {
        let mut bytes = good.clone();
        bytes[end - 8..end - 4].copy_from_slice(&length.to_le_bytes());
        cases.push(bytes);
    }
    // A footer whose list of row groups has 2^31 of them: its reader makes room for all.
    let claims = [0x15, 4, 0x49, 0xfc, 0xff, 0xff, 0xff, 0xff, 0x07, 0];
    let mut bytes = b"PAR1".to_vec();
    bytes.extend(claims);
    bytes.extend((claims.len() as u32).to_le_bytes());
    bytes.extend(b"PAR1");
    cases.push(bytes);
    for bytes in cases {
        let shown = bytes.len();
        let refused = refused(fetched(bytes, Columns::State).await);
        assert!(refused.contains("what it claims"), "{shown}: {refused}");
    }
    // Any byte of the footer may be wrong: it is refused, or it is no harm.
    for at in end - 8 - footer..end {
        for wrong in [0, 0xff, good[at] ^ 1] {
            let mut bytes = good.clone();
            bytes[at] = wrong;
            let _ = fetched(bytes, Columns::State).await;
        }
    }
}
