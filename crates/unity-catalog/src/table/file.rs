//! One batch as one Parquet file, and what the log says about it.

use super::stats::stats;
use crate::error::{Fault, WRITE, fault};
use crate::rows::{Annotations, Rows, Slice};
use crate::schema::{Layout, SchemaVersion, TableKind, TableSchema};
use arrow_array::RecordBatch;
use bytes::Bytes;
use deltalake::kernel::Add;
use foldhash::HashSet;
use parquet::arrow::ArrowWriter;
use parquet::arrow::arrow_writer::ArrowWriterOptions;
use parquet::basic::{Compression, ZstdLevel};
use parquet::file::properties::{EnabledStatistics, WriterProperties};
use parquet::schema::types::ColumnPath;
use std::any::Any;
use std::collections::HashMap;
use std::sync::atomic::{AtomicI64, Ordering};
use std::sync::{Arc, LazyLock, Mutex, PoisonError};
use std::time::{SystemTime, UNIX_EPOCH};
use tokio::sync::Semaphore;
use trace_destination_core::{
    BatchEncoder, BatchId, ErrorKind, Refusal, TraceBatch, waiting_for_turn,
};

/// Builders that are kept for the next batch, whatever table it is for.
const KEPT: usize = 4;
/// Builders larger than this are not kept.
const KEPT_BYTES: usize = 1 << 20;

/// Batches that are encoded at a time in this process: as many as there are processors, within
/// reason. Each has a thread to itself, and builds rows of several times the batch's size.
static ENCODING: LazyLock<Semaphore> = LazyLock::new(|| {
    let processors = std::thread::available_parallelism().map_or(2, usize::from);
    Semaphore::new(processors.clamp(2, 8))
});

/// A batch, ready to be stored.
#[derive(Clone, Debug)]
pub(super) struct File {
    /// Name beneath the table.
    pub(super) name: String,
    /// The Parquet file.
    pub(super) content: Bytes,
    rows: i64,
    stats: String,
}

impl File {
    /// What the log says about the file, where rows have no numbers of their own.
    pub(super) fn add(&self, now_millis: i64) -> Add {
        Add {
            path: self.name.clone(),
            partition_values: HashMap::new(),
            size: i64::try_from(self.content.len()).unwrap_or(i64::MAX),
            modification_time: now_millis,
            data_change: true,
            stats: Some(self.stats.clone()),
            ..Add::default()
        }
    }

    /// Rows in the file.
    pub(super) fn rows(&self) -> i64 {
        self.rows
    }
}

/// What a batch is to a table.
#[derive(Clone, Debug)]
pub(super) struct Encoded {
    /// The columns it was made for.
    pub(super) layout: Arc<Layout>,
    /// Nothing, if no row is left.
    pub(super) file: Option<File>,
    /// Spans, or updates in a table of annotations, that cannot be rows.
    pub(super) refused: Vec<Refusal>,
}

impl Encoded {
    /// Bytes that are kept, besides the batch itself, until it is stored.
    pub(super) fn bytes(&self) -> usize {
        let file = self.file.as_ref();
        let file = file.map_or(0, |f| f.content.len() + f.name.len() + f.stats.len());
        size_of::<Self>() + file + self.refused.capacity() * size_of::<Refusal>()
    }
}

/// Encodes the batches of a table, ahead of their turn for the columns it had last.
#[derive(Debug)]
pub(crate) struct Encoder {
    /// What the rows are.
    pub(super) kind: TableKind,
    /// Tells the batches of this place from those of another name for the same table.
    pub(super) lane: u64,
    layout: Mutex<Arc<Layout>>,
    /// When the annotations of the last batch were made: the same whenever it is encoded again.
    made: Mutex<Option<(BatchId, i64)>>,
}

impl Encoder {
    pub(super) fn new(kind: TableKind, lane: u64, layout: Arc<Layout>) -> Self {
        Self {
            kind,
            lane,
            layout: Mutex::new(layout),
            made: Mutex::default(),
        }
    }

    /// What the batch is to a table with these columns, which from now on are those to encode for.
    /// Unless that is known, it is found out when it is this batch's turn.
    pub(super) async fn encoded(
        &self,
        batch: &TraceBatch,
        layout: &Arc<Layout>,
    ) -> Result<Encoded, Fault> {
        *self.layout.lock().unwrap_or_else(PoisonError::into_inner) = Arc::clone(layout);
        match batch.encoded::<Encoded>() {
            Some(encoded) if encoded.layout == *layout => Ok(encoded.clone()),
            // A few bytes for each trace: they wait for no turn.
            _ if self.kind == TableKind::Annotations => self.encode_for(layout, batch, |_| true),
            _ => {
                // Never closed: an error would only mean that there is no limit.
                let _turn = waiting_for_turn(ENCODING.acquire()).await;
                self.encode_for(layout, batch, |_| true)
            }
        }
    }

    /// The same without the spans at these positions, made now.
    pub(super) async fn encoded_without(
        &self,
        batch: &TraceBatch,
        layout: &Arc<Layout>,
        left_out: &HashSet<usize>,
    ) -> Result<Encoded, Fault> {
        let _turn = waiting_for_turn(ENCODING.acquire()).await;
        let wanted = |index| !left_out.contains(&index);
        self.encode_for(layout, batch, wanted)
    }

    fn encode_for(
        &self,
        layout: &Arc<Layout>,
        batch: &TraceBatch,
        wanted: impl Fn(usize) -> bool,
    ) -> Result<Encoded, Fault> {
        let id = batch.id();
        let stem = format!(
            "{}-{}-{:016x}-{:010}",
            self.kind.rows(),
            id.writer.simple(),
            self.lane,
            id.sequence
        );
        let rows = match layout.rows() {
            TableSchema::Spans(version) => RowsOf::Spans(version, wanted),
            TableSchema::Annotations => RowsOf::Annotations(self.made_at(batch)),
        };
        encode(layout, batch, &stem, rows)
    }

    /// The time of the first annotation of a batch, in microseconds since 1970.
    fn made_at(&self, batch: &TraceBatch) -> i64 {
        let mut made = self.made.lock().unwrap_or_else(PoisonError::into_inner);
        match *made {
            Some((id, at)) if id == batch.id() => at,
            _ => {
                let at = annotation_time(batch.updates().len());
                *made = Some((batch.id(), at));
                at
            }
        }
    }
}

impl BatchEncoder for Encoder {
    fn encode(&self, batch: &TraceBatch) -> Option<Arc<dyn Any + Send + Sync>> {
        // Where all turns are taken, waiting for one is left to the write, which blocks no thread.
        let _turn = ENCODING.try_acquire().ok()?;
        let layout = self.layout.lock().unwrap_or_else(PoisonError::into_inner);
        let layout = Arc::clone(&layout);
        let encoded = self.encode_for(&layout, batch, |_| true).ok()?;
        Some(Arc::new(encoded))
    }

    fn encoded_bytes(&self, encoded: &(dyn Any + Send + Sync)) -> usize {
        encoded.downcast_ref().map_or(0, Encoded::bytes)
    }
}

/// Times of annotations, one for each of `count` updates: later than all that were given out in this
/// process, whatever its clock does, since of two rows of one annotation the later one counts.
fn annotation_time(count: usize) -> i64 {
    static NEXT: AtomicI64 = AtomicI64::new(0);
    let now = SystemTime::now().duration_since(UNIX_EPOCH);
    let now = now.map_or(0, |d| i64::try_from(d.as_micros()).unwrap_or(0));
    let count = i64::try_from(count).unwrap_or(i64::MAX);
    let mut next = NEXT.load(Ordering::Relaxed);
    loop {
        let at = now.max(next);
        let after = at.saturating_add(count);
        match NEXT.compare_exchange_weak(next, after, Ordering::Relaxed, Ordering::Relaxed) {
            Ok(_) => return at,
            Err(current) => next = current,
        }
    }
}

/// What rows there are to be of a batch.
enum RowsOf<W> {
    /// Its spans, for whose position the function is true.
    Spans(SchemaVersion, W),
    /// Its updates, the first of which was made at this time.
    Annotations(i64),
}

/// Encodes a batch: the file, unless no row is left, and what was refused.
///
/// The same batch gives the same bytes and so the same name: a repetition overwrites the file with
/// itself and leaves nothing behind. `stem` is what is unique of the batch.
fn encode(
    layout: &Arc<Layout>,
    batch: &TraceBatch,
    stem: &str,
    of: RowsOf<impl Fn(usize) -> bool>,
) -> Result<Encoded, Fault> {
    let failed = |e| fault(WRITE, "encoding a Parquet file", e);
    // Roughly what the file will have at most; grows if need be.
    let mut content = Vec::with_capacity(64 << 10);
    let mut writer =
        ArrowWriter::try_new_with_options(&mut content, layout.schema(), options(layout))
            .map_err(failed)?;
    let mut count = 0;
    let mut take = |slice: RecordBatch| {
        count += slice.num_rows();
        writer.write(&layout.fill(slice)?)
    };
    let refused = match of {
        RowsOf::Spans(version, wanted) => {
            let mut rows = take_rows(version);
            let refused = rows.convert_some(batch, Slice::CACHED, wanted, &mut take);
            // Others would get the rows that are left in it after an error.
            if refused.is_ok() {
                give_rows(version, rows);
            }
            refused
        }
        RowsOf::Annotations(at) => Annotations::default().convert(batch.updates(), at, &mut take),
    };
    let refused = refused.map_err(failed)?;
    if count == 0 {
        return Ok(Encoded {
            layout: Arc::clone(layout),
            file: None,
            refused,
        });
    }
    let metadata = writer.close().map_err(failed)?;
    let count = i64::try_from(count).unwrap_or(i64::MAX);
    let file = File {
        name: format!("{stem}-{:016x}.zstd.parquet", fingerprint(&content)),
        rows: count,
        stats: stats(layout, &metadata, count).to_string(),
        content: content.into(),
    };
    Ok(Encoded {
        layout: Arc::clone(layout),
        file: Some(file),
        refused,
    })
}

/// How files with the documented columns are written.
pub(crate) fn writer_options() -> ArrowWriterOptions {
    options(&Layout::documented(TableKind::Spans.newest()))
}

fn options(layout: &Layout) -> ArrowWriterOptions {
    ArrowWriterOptions::new()
        .with_properties(
            match layout.is_documented() && layout.rows().kind() == TableKind::Spans {
                true => writer_properties(),
                false => properties(layout),
            },
        )
        .with_skip_arrow_metadata(true)
}

/// Compression, dictionaries and statistics of files with the documented columns.
pub(crate) fn writer_properties() -> WriterProperties {
    PROPERTIES.clone()
}

static PROPERTIES: LazyLock<WriterProperties> =
    LazyLock::new(|| properties(&Layout::documented(TableKind::Spans.newest())));

fn properties(layout: &Layout) -> WriterProperties {
    let mut properties = WriterProperties::builder()
        .set_compression(Compression::ZSTD(ZstdLevel::default()))
        .set_created_by(concat!("trace-destination ", env!("CARGO_PKG_VERSION")).to_owned())
        .set_statistics_enabled(EnabledStatistics::None)
        // Texts are shortened where they are written into the log.
        .set_statistics_truncate_length(None);
    for column in layout.measured() {
        let path = ColumnPath::new(column.path.clone());
        properties = properties.set_column_statistics_enabled(path, EnabledStatistics::Chunk);
    }
    for path in layout.unique() {
        let path = ColumnPath::new(path.clone());
        properties = properties.set_column_dictionary_enabled(path, false);
    }
    properties.build()
}

/// Builders of rows, shared by all tables: what a table needs while it is written must not be kept
/// by each that is open.
static BUILDERS: Mutex<Vec<(SchemaVersion, Rows)>> = Mutex::new(Vec::new());

fn take_rows(columns: SchemaVersion) -> Rows {
    let mut kept = BUILDERS.lock().unwrap_or_else(PoisonError::into_inner);
    match kept.iter().position(|(version, _)| *version == columns) {
        Some(at) => kept.swap_remove(at).1,
        None => Rows::new(columns),
    }
}

fn give_rows(columns: SchemaVersion, rows: Rows) {
    let mut kept = BUILDERS.lock().unwrap_or_else(PoisonError::into_inner);
    if kept.len() < KEPT && rows.bytes() <= KEPT_BYTES {
        kept.push((columns, rows));
    }
}

/// XXH3, 64 bits: tells contents apart, and stays what it is from version to version.
pub(super) fn fingerprint(content: &[u8]) -> u64 {
    twox_hash::XxHash3_64::oneshot(content)
}

/// The error of a file that would be too large for one request of any store.
pub(super) fn check_size(file: &File) -> Result<(), Fault> {
    // A lane holds 16 MiB of spans, so that this is a limit for batches made by hand.
    const MAX: usize = 1 << 30;
    match file.content.len() <= MAX {
        true => Ok(()),
        false => Err(Fault::new(
            ErrorKind::InvalidSpan,
            WRITE,
            format!(
                "a batch of {} bytes is too large for one file",
                file.content.len()
            ),
        )
        .mend("write smaller batches")),
    }
}
