//! What a process shares over all files: its stores, threads and open connections.
//!
//! A child that is forked inherits a copy of it that it must not use: a lock may be held by a thread
//! that the child does not have, and SQLite's connections and file locks belong to the parent. So
//! the copy is told by its process id, left as it is, and made anew.

mod connections;
mod forked;

pub(crate) use connections::Slot;

use crate::connection::Database;
use crate::error::Fault;
use crate::lock::lock;
use crate::pool::Pool;
use crate::schema::Shapes;
use crate::store::Store;
use crate::writer::Writer;
use arc_swap::ArcSwapOption;
use connections::Connections;
use forked::Inherited;
use std::collections::HashMap;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, OnceLock, Weak};

/// Replaced, never locked: a lock that is held during a fork is held in the child for ever.
static CURRENT: ArcSwapOption<Process> = ArcSwapOption::const_empty();

/// Everything that is shared within one process.
pub(crate) struct Process {
    id: u32,
    pub(crate) pool: Pool,
    pub(crate) connections: Connections,
    /// What is known of the tables in files.
    pub(crate) shapes: Shapes,
    /// The open files, by canonical path.
    files: Mutex<HashMap<PathBuf, OpenFile>>,
    /// Connections of the parent whose stores were dropped here.
    orphans: Mutex<Vec<Database>>,
    /// What the parent shared, as of the fork.
    parent: Option<Arc<Process>>,
    /// What became of the parent's connections.
    inherited: OnceLock<Inherited>,
}

/// Who uses a file. The writer stays for as long as it takes to close the connection, also where the
/// store is gone by then: POSIX takes away all locks that a process has on a file when any descriptor
/// of it is closed, so a file must never be opened here beside a connection that is being closed.
struct OpenFile {
    store: Weak<Store>,
    writer: Weak<Mutex<Writer>>,
}

impl Process {
    /// What this process shares; made at the first call, and anew in a child.
    pub(crate) fn current() -> Arc<Self> {
        let id = std::process::id();
        loop {
            let found = CURRENT.load_full();
            match found {
                Some(process) if process.id == id => return process,
                parent => {
                    let made = Arc::new(Self::new(id, parent.clone()));
                    // Whoever was first wins; the next look finds it.
                    CURRENT.compare_and_swap(&parent, Some(made));
                }
            }
        }
    }

    fn new(id: u32, parent: Option<Arc<Self>>) -> Self {
        Self {
            id,
            pool: Pool::new(),
            connections: Connections::new(),
            shapes: Shapes::default(),
            files: Mutex::default(),
            orphans: Mutex::default(),
            parent,
            inherited: OnceLock::new(),
        }
    }

    /// Whether this is the process that runs, and not the copy of one that forked it.
    pub(crate) fn is_current(&self) -> bool {
        self.id == std::process::id()
    }

    /// The store of a file; the same one for all who ask while anybody holds it. One that follows
    /// another whose connection is still being closed waits for that, or goes on with it.
    pub(crate) fn store(self: &Arc<Self>, path: &Path) -> Arc<Store> {
        let mut files = lock(&self.files);
        let open = files.get(path);
        if let Some(store) = open.and_then(|open| open.store.upgrade()) {
            return store;
        }
        let left = open.and_then(|open| open.writer.upgrade());
        let store = Arc::new(Store::new(self.clone(), path.into(), left.clone()));
        let open = OpenFile {
            store: Arc::downgrade(&store),
            writer: store.writer(),
        };
        files.insert(path.into(), open);
        drop(files);
        if left.is_some() {
            self.connections.opened(&store);
        }
        store
    }

    /// Memory that all stores hold beside the batches themselves, in bytes.
    pub(crate) fn held_bytes(&self) -> usize {
        let files = lock(&self.files);
        let open = files.values().filter_map(|open| open.store.upgrade());
        // Dropped outside of the lock, which the last owner of a store takes.
        let open: Vec<_> = open.collect();
        drop(files);
        open.iter().map(|store| store.held_bytes()).sum()
    }

    /// Whether a store of the file is alive. Asked behind the lock of the file's writer: a store that
    /// comes later waits for that.
    pub(crate) fn has_store(&self, path: &Path) -> bool {
        let files = lock(&self.files);
        files
            .get(path)
            .is_some_and(|open| open.store.strong_count() > 0)
    }

    /// Forgets a file whose store is gone, unless somebody but the caller has its writer.
    pub(crate) fn forget(&self, path: &Path) {
        let mut files = lock(&self.files);
        let unused =
            |open: &OpenFile| open.store.strong_count() == 0 && open.writer.strong_count() <= 1;
        // Another store may have taken the place meanwhile.
        if files.get(path).is_some_and(unused) {
            files.remove(path);
        }
    }

    /// Takes a connection that was opened before the fork. It is closed before this process uses
    /// SQLite, and not here, where that might wait for a thread of the parent.
    pub(crate) fn adopt(&self, database: Database) {
        lock(&self.orphans).push(database);
    }

    /// Whether a file may be opened. Blocks, the first time after a fork.
    ///
    /// # Errors
    /// `Forked` where the parent was using the file during the fork.
    pub(crate) fn may_open(&self, path: &Path) -> Result<(), Fault> {
        let Some(parent) = &self.parent else {
            return Ok(());
        };
        let inherited = self.inherited.get_or_init(|| Inherited::settle(parent));
        let orphans = std::mem::take(&mut *lock(&self.orphans));
        let settled = orphans.is_empty() || forked::close(orphans);
        match inherited.may_open(path) && settled {
            true => Ok(()),
            false => Err(Fault::Forked),
        }
    }

    /// Closes the connection that was not used for longest, where there are many. Blocks.
    pub(crate) fn make_room(&self) {
        if let Some(idle) = self.connections.one_too_many() {
            // Somebody may have begun to use it meanwhile.
            if !idle.disconnect_if_idle() && idle.is_connected() {
                self.connections.opened(&idle);
            }
        }
    }

    /// Closes a connection that nobody is using, because no further file can be opened; false where
    /// there is none. From now on fewer stay open. Blocks.
    pub(crate) fn free_files(&self) -> bool {
        self.connections
            .to_be_freed()
            .iter()
            .any(|store| store.disconnect_if_idle())
    }
}

impl std::fmt::Debug for Process {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_tuple("Process").field(&self.id).finish()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_store_per_file_while_it_is_held() {
        let process = Process::current();
        assert!(Arc::ptr_eq(&process, &Process::current()));
        let path = Path::new("/nowhere/shared.db");
        let one = process.store(path);
        assert!(Arc::ptr_eq(&one, &process.store(path)));
        drop(one);
        assert!(!lock(&process.files).contains_key(path));
    }

    #[test]
    fn a_store_that_follows_another_goes_on_with_its_writer() {
        let process = Process::current();
        let path = Path::new("/nowhere/followed.db");
        let before = process.store(path);
        // As the task has it that closes the connection.
        let closing = lock(&process.files)[path].writer.upgrade().unwrap();
        drop(before);
        let next = process.store(path);
        assert!(next.writer().ptr_eq(&Arc::downgrade(&closing)));
        process.forget(path);
        assert!(lock(&process.files).contains_key(path), "it is in use");
        drop(next);
        process.forget(path);
        assert!(!lock(&process.files).contains_key(path));
    }
}
