use super::*;
use std::os::unix::fs::PermissionsExt as _;
use std::time::Duration;
use tempfile::TempDir;

fn mode(path: impl AsRef<FilePath>) -> u32 {
    path.as_ref().metadata().unwrap().permissions().mode() & 0o777
}

fn at(folder: &FilePath, name: &str) -> Path {
    Path::from_absolute_path(folder.join(name)).unwrap()
}

async fn put(local: &Local, location: &Path, mode: PutMode) -> Result<PutResult> {
    local.put_opts(location, "x".into(), mode.into()).await
}

#[tokio::test]
async fn new_folders_are_their_owners() {
    let dir = TempDir::new().unwrap();
    let root = dir.path().join("root");
    let local = Local::new(&root.join("a/b/c"), FolderAccess::Owner, Arc::new(Disk));
    let file = at(&root, "a/b/c/_delta_log/0.json");
    put(&local, &file, PutMode::Create).await.unwrap();
    for folder in ["", "a", "a/b", "a/b/c", "a/b/c/_delta_log"] {
        assert_eq!(mode(root.join(folder)), 0o700, "{folder}");
    }
    assert_eq!(mode(root.join("a/b/c/_delta_log/0.json")), 0o600);
    // In parts, and copied.
    let large = at(&root, "a/b/c/large");
    let mut upload = local
        .put_multipart_opts(&large, PutMultipartOptions::default())
        .await
        .unwrap();
    upload.put_part("part".into()).await.unwrap();
    upload.complete().await.unwrap();
    assert_eq!(mode(root.join("a/b/c/large")), 0o600);
    local
        .copy(&large, &at(&root, "new/folder/copy"))
        .await
        .unwrap();
    assert_eq!(mode(root.join("new/folder")), 0o700);
}

#[tokio::test]
async fn folders_that_exist_keep_their_mode_and_options_widen_new_ones() {
    let dir = TempDir::new().unwrap();
    let shared = dir.path().join("shared");
    std::fs::create_dir(&shared).unwrap();
    std::fs::set_permissions(&shared, std::fs::Permissions::from_mode(0o755)).unwrap();
    let local = Local::new(&shared, FolderAccess::Owner, Arc::new(Disk));
    put(&local, &at(&shared, "file"), PutMode::Overwrite)
        .await
        .unwrap();
    assert_eq!(mode(&shared), 0o755);
    assert_ne!(
        mode(shared.join("file")) & 0o044,
        0,
        "its readers go on reading"
    );
    let local = Local::new(&shared, FolderAccess::Umask, Arc::new(Disk));
    put(&local, &at(&shared, "wide/file"), PutMode::Create)
        .await
        .unwrap();
    assert_ne!(mode(shared.join("wide")) & 0o055, 0);
}

#[tokio::test]
async fn files_appear_whole_and_once() {
    let dir = TempDir::new().unwrap();
    let local = Local::new(dir.path(), FolderAccess::Owner, Arc::new(Disk));
    let file = at(dir.path(), "t/file");
    put(&local, &file, PutMode::Create).await.unwrap();
    let error = put(&local, &file, PutMode::Create).await.unwrap_err();
    assert!(matches!(error, Error::AlreadyExists { .. }), "{error}");
    put(&local, &file, PutMode::Overwrite).await.unwrap();
    // What a process that died left behind is in nobody's way.
    std::fs::write(dir.path().join("t/other#1"), "").unwrap();
    put(&local, &at(dir.path(), "t/other"), PutMode::Create)
        .await
        .unwrap();
    let folder = at(dir.path(), "t");
    let listed: Vec<_> = local.list(Some(&folder)).try_collect().await.unwrap();
    let mut names: Vec<_> = listed
        .iter()
        .filter_map(|m| m.location.filename())
        .collect();
    names.sort_unstable();
    assert_eq!(names, ["file", "other"]);
    assert_eq!(local.get(&file).await.unwrap().bytes().await.unwrap(), "x");
    local.delete(&file).await.unwrap();
    let error = local.get(&file).await.unwrap_err();
    assert!(matches!(error, Error::NotFound { .. }), "{error}");
}

#[tokio::test]
async fn long_listings_are_complete() {
    let dir = TempDir::new().unwrap();
    let local = Local::new(dir.path(), FolderAccess::Owner, Arc::new(Disk));
    for n in 0..=2 * LISTED {
        std::fs::write(dir.path().join(format!("{n:05}")), "").unwrap();
    }
    let folder = Path::from_absolute_path(dir.path()).unwrap();
    let listed: Vec<_> = local.list(Some(&folder)).try_collect().await.unwrap();
    assert_eq!(listed.len(), 2 * LISTED + 1);
}

/// A disk that hangs: its requests are given up by those who made them, and hold no more threads
/// than one root may.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_root_that_hangs_holds_up_no_other() {
    let (slow, fine) = (TempDir::new().unwrap(), TempDir::new().unwrap());
    let hangs = Local::new(
        &slow.path().join("a/b/c"),
        FolderAccess::Owner,
        Arc::new(Disk),
    );
    let (release, wait) = std::sync::mpsc::channel::<()>();
    let wait = Arc::new(Mutex::new(wait));
    let running = Arc::new(std::sync::atomic::AtomicUsize::new(0));
    let mut given_up = Vec::new();
    for _ in 0..100 {
        let (wait, running) = (wait.clone(), running.clone());
        let request = hangs.blocking(move || {
            running.fetch_add(1, std::sync::atomic::Ordering::SeqCst);
            let _ = wait.lock().unwrap().recv();
            Ok(())
        });
        let given = tokio::time::timeout(Duration::from_millis(5), request).await;
        given_up.push(given.is_err());
    }
    assert!(given_up.iter().all(|given_up| *given_up));
    assert_eq!(running.load(std::sync::atomic::Ordering::SeqCst), PER_ROOT);
    let others = Local::new(
        &fine.path().join("a/b/c"),
        FolderAccess::Owner,
        Arc::new(Disk),
    );
    let file = at(fine.path(), "a/b/c/file");
    let written = put(&others, &file, PutMode::Create);
    tokio::time::timeout(Duration::from_secs(5), written)
        .await
        .unwrap()
        .unwrap();
    drop(release);
}

/// A disk whose power may fail at any moment: it knows what was flushed, and keeps what has a name.
#[derive(Debug, Default)]
struct Recorder {
    /// Contents that were flushed, by the name the file had then.
    files: Mutex<HashMap<PathBuf, Vec<u8>>>,
    /// Names that were flushed.
    names: Mutex<HashMap<PathBuf, Vec<u8>>>,
    events: Mutex<Vec<String>>,
    /// Fails the next flushes of folders.
    failures: Mutex<usize>,
}

impl Recorder {
    fn events(&self) -> Vec<String> {
        std::mem::take(&mut self.events.lock().unwrap())
    }

    /// Whether a flushed file has this content: a file keeps it when it gets another name.
    fn has_content(&self, content: &[u8]) -> bool {
        let files = self.files.lock().unwrap();
        files.values().any(|flushed| flushed == content)
    }
}

fn short(path: &FilePath) -> String {
    let name = path.file_name().unwrap().to_string_lossy().into_owned();
    match name.strip_prefix("spans-") {
        Some(_) => format!("spans{}", name.split("parquet").nth(1).unwrap()),
        None => name,
    }
}

impl Flush for Recorder {
    fn file(&self, file: &std::fs::File, path: &FilePath) -> io::Result<()> {
        file.sync_all()?;
        let content = std::fs::read(path)?;
        self.files.lock().unwrap().insert(path.to_owned(), content);
        self.events
            .lock()
            .unwrap()
            .push(format!("file {}", short(path)));
        Ok(())
    }

    fn folder(&self, path: &FilePath) -> io::Result<()> {
        {
            let mut failures = self.failures.lock().unwrap();
            if *failures > 0 {
                *failures -= 1;
                return Err(io::Error::other("the disk has failed"));
            }
        }
        for entry in std::fs::read_dir(path)? {
            let path = entry?.path();
            if path.is_file() && !path.to_string_lossy().contains('#') {
                let content = std::fs::read(&path)?;
                // Whatever has a name was flushed before it got it.
                assert!(
                    self.has_content(&content),
                    "{} is not flushed",
                    path.display()
                );
                self.names.lock().unwrap().insert(path, content);
            }
        }
        self.events
            .lock()
            .unwrap()
            .push(format!("folder {}", short(path)));
        Ok(())
    }
}

fn lake(dir: &FilePath) -> PathBuf {
    dir.canonicalize().unwrap().join("lake")
}

/// A location in local files whose disk is recorded.
fn recorded(dir: &FilePath) -> (crate::UnityCatalogLocation, Arc<Recorder>) {
    use object_store::prefix::PrefixStore;
    let root = lake(dir);
    let location = crate::UnityCatalogLocation::builder()
        .with_name("main.traces.shop")
        .with_root(root.display().to_string())
        .build()
        .unwrap();
    let recorder = Arc::<Recorder>::default();
    let flush: Arc<dyn Flush> = recorder.clone();
    let table = root.join("main/traces/shop_otel_spans");
    let wrap = move |_: Arc<dyn ObjectStore>| -> Arc<dyn ObjectStore> {
        let files = Local::new(&table, FolderAccess::Owner, flush.clone());
        let prefix = Path::from_absolute_path(&table)
            .or_else(|_| Path::from_url_path(table.display().to_string()));
        Arc::new(PrefixStore::new(files, prefix.unwrap()))
    };
    (
        crate::test_support::wrapped(location, Arc::new(wrap)),
        recorder,
    )
}

fn one_span(sequence: u64) -> trace_destination_core::TraceBatch {
    use opentelemetry::trace::{SpanId, TraceId};
    use trace_destination_core::{BatchId, Resource, Scope, SpanGroup, SpanRecord, TraceBatch};
    let (trace, id) = (TraceId::from(7), SpanId::from(sequence + 1));
    let span = SpanRecord::new(trace, id, "s", 1_000, 2_000);
    let group = SpanGroup {
        resource: Arc::new(Resource::default()),
        scope: Arc::new(Scope::default()),
        spans: vec![span.into()],
    };
    let writer = uuid::Uuid::from_u128(1);
    TraceBatch::new(BatchId { writer, sequence }, vec![group], Vec::new())
}

#[tokio::test]
async fn data_then_commit_are_on_the_disk_before_a_batch_counts_as_stored() {
    use trace_destination_core::TraceLocation as _;
    let dir = TempDir::new().unwrap();
    let (location, recorder) = recorded(dir.path());
    let sink = location.open().await.unwrap();
    let made = recorder.events();
    // Every folder's name is flushed in the one above it, up to the root's own.
    let root = lake(dir.path());
    for folder in [
        root.as_path(),
        &root.join("main"),
        &root.join("main/traces"),
    ] {
        let event = format!("folder {}", short(folder));
        assert!(made.contains(&event), "{event}: {made:?}");
    }
    assert_eq!(made.first().unwrap(), "folder shop_otel_spans");
    assert_eq!(
        made[made.len() - 2..],
        ["file 00000000000000000000.json#1", "folder _delta_log"]
    );
    for sequence in 0..3 {
        sink.write(&one_span(sequence)).await.unwrap();
        let mut events = recorder.events();
        if sequence == 0 {
            // The table's folder is written into for the first time.
            events.retain(|event| !["folder traces", "folder main"].contains(&event.as_str()));
            events.retain(|event| *event != format!("folder {}", short(&root)));
            let top = format!("folder {}", short(root.parent().unwrap()));
            events.retain(|event| *event != top);
        }
        assert_eq!(
            events,
            [
                "file spans#1".to_owned(),
                "folder shop_otel_spans".to_owned(),
                format!("file {:020}.json#1", sequence + 1),
                "folder _delta_log".to_owned(),
            ]
        );
    }
    // What is left when the power fails now is the whole table.
    let after = TempDir::new().unwrap();
    for (path, content) in recorder.names.lock().unwrap().iter() {
        let copy = after.path().join(path.strip_prefix(&root).unwrap());
        std::fs::create_dir_all(copy.parent().unwrap()).unwrap();
        std::fs::write(copy, content).unwrap();
    }
    let table = |root: &FilePath| root.join("main/traces/shop_otel_spans");
    let url = url::Url::from_directory_path(table(after.path())).unwrap();
    let left = deltalake::open_table(url).await.unwrap();
    assert_eq!(left.version(), Some(3));
    for file in left.get_file_uris().unwrap() {
        let name = file.rsplit('/').next().unwrap();
        let (a, b) = (table(after.path()).join(name), table(&root).join(name));
        assert_eq!(std::fs::read(a).unwrap(), std::fs::read(b).unwrap());
    }
}

/// The commit is there for all to see when flushing its folder fails: it counts as stored once that
/// was made up for, and not before.
#[tokio::test]
async fn a_commit_whose_folder_was_not_flushed_is_not_stored_yet() {
    use trace_destination_core::{Retry, TraceLocation as _};
    let dir = TempDir::new().unwrap();
    let (location, recorder) = recorded(dir.path());
    let sink = location.open().await.unwrap();
    sink.write(&one_span(0)).await.unwrap();
    let commit =
        lake(dir.path()).join("main/traces/shop_otel_spans/_delta_log/00000000000000000002.json");
    let is_kept = || recorder.names.lock().unwrap().contains_key(&commit);
    // The data's folder, the commit's folder, and the look after it.
    for failures in 1..=3 {
        *recorder.failures.lock().unwrap() = failures;
        match sink.write(&one_span(1)).await {
            Ok(_) => assert!(is_kept(), "after {failures} failures"),
            Err(error) => assert_eq!(error.retry(), Retry::Backoff, "{error:?}"),
        }
    }
    *recorder.failures.lock().unwrap() = 0;
    sink.write(&one_span(1)).await.unwrap();
    assert!(is_kept());
    let names = recorder.names.lock().unwrap();
    assert!(
        !names
            .keys()
            .any(|name| short(name).starts_with("00000000000000000003"))
    );
}

#[tokio::test]
async fn every_way_to_make_a_file_flushes_it() {
    let dir = TempDir::new().unwrap();
    let recorder = Arc::<Recorder>::default();
    let folder = dir.path().join("a/b/c/t");
    let local = Local::new(&folder, FolderAccess::Owner, recorder.clone());
    let large = at(&folder, "large");
    let mut upload = local
        .put_multipart_opts(&large, PutMultipartOptions::default())
        .await
        .unwrap();
    upload.put_part("part".into()).await.unwrap();
    upload.complete().await.unwrap();
    let events = recorder.events();
    assert_eq!(events[events.len() - 2..], ["file large", "folder t"]);
    local.copy(&large, &at(&folder, "copy")).await.unwrap();
    assert_eq!(recorder.events(), ["file copy", "folder t"]);
    local.rename(&large, &at(&folder, "new")).await.unwrap();
    assert_eq!(recorder.events(), ["file new", "folder t"]);
    put(&local, &at(&folder, "new"), PutMode::Overwrite)
        .await
        .unwrap();
    assert_eq!(recorder.events(), ["file new#1", "folder t"]);
}

#[test]
fn names_of_unfinished_files() {
    for name in [
        "a.parquet#1",
        "0.json#12",
        "_last_checkpoint#1",
        "a#1.parquet#2",
    ] {
        assert!(disk::is_partial(name), "{name}");
    }
    for name in [
        "a.parquet",
        "a.parquet#",
        "a.parquet#x",
        "a#1",
        "#1",
        "a.parquet#1#",
    ] {
        assert!(!disk::is_partial(name), "{name}");
    }
}

/// Delta's reader begins several requests and looks at one after the other.
#[tokio::test]
async fn requests_that_nobody_looks_at_keep_no_turn() {
    let dir = TempDir::new().unwrap();
    let local = Local::new(
        &dir.path().join("a/b/c"),
        FolderAccess::Owner,
        Arc::new(Disk),
    );
    let file = at(dir.path(), "file");
    put(&local, &file, PutMode::Create).await.unwrap();
    let mut begun: Vec<_> = (0..3 * PER_ROOT)
        .map(|_| Box::pin(local.get_opts(&file, GetOptions::new())))
        .collect();
    for request in &mut begun {
        assert!(futures_util::poll!(request.as_mut()).is_pending());
    }
    let another = local.get_opts(&file, GetOptions::new().with_head(true));
    let another = tokio::time::timeout(Duration::from_secs(30), another).await;
    another.expect("it gets a turn").unwrap();
    drop(begun);
}

#[tokio::test]
async fn requests_that_were_given_up_take_no_turn() {
    let dir = TempDir::new().unwrap();
    let local = Local::new(
        &dir.path().join("a/b/c"),
        FolderAccess::Owner,
        Arc::new(Disk),
    );
    let turns = local.root.turns.clone();
    let all = turns.acquire_many(PER_ROOT as u32).await.unwrap();
    let file = at(dir.path(), "never");
    let mut given_up = Box::pin(put(&local, &file, PutMode::Create));
    assert!(futures_util::poll!(given_up.as_mut()).is_pending());
    tokio::task::yield_now().await;
    drop(given_up);
    tokio::task::yield_now().await;
    drop(all);
    put(&local, &at(dir.path(), "other"), PutMode::Create)
        .await
        .unwrap();
    assert!(!dir.path().join("never").exists());
}
