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
    let hangs = Local::new(&slow.path().join("a/b/c"), FolderAccess::Owner, Arc::new(Disk));
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
    let others = Local::new(&fine.path().join("a/b/c"), FolderAccess::Owner, Arc::new(Disk));
    let file = at(fine.path(), "a/b/c/file");
    let written = put(&others, &file, PutMode::Create);
    tokio::time::timeout(Duration::from_secs(5), written)
        .await
        .unwrap()
        .unwrap();
    drop(release);
}
