//! One connection: opened, created, checked, and opened again when its file was replaced.

use crate::builder::{Access, Synchronous};
use crate::config::{BUSY_SLICE, UPGRADE_GRACE};
use crate::error::Fault;
use crate::process::{Process, Slot};
use crate::schema::{self, Shape};
use crate::sql::Statements;
use rusqlite::config::DbConfig;
use rusqlite::{Connection, ErrorCode, OpenFlags, TransactionBehavior};
use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::time::SystemTime;

/// An open database, with its shape as of the last look.
pub(crate) struct Database {
    pub(crate) conn: Connection,
    path: PathBuf,
    identity: Option<(u64, u64)>,
    /// The log is a write-ahead log; otherwise `synchronous=NORMAL` would not be safe.
    wal: bool,
    synchronous: Option<Synchronous>,
    /// Memory for pages, in KiB.
    cache: i64,
    known: Option<Known>,
    _slot: Slot,
}

/// A shape, and what it was read from.
pub(crate) struct Known {
    cookie: i64,
    revision: String,
    pub(crate) shape: Shape,
    pub(crate) statements: Statements,
    used: bool,
}

impl Database {
    /// Opens a file that holds an MLflow database this crate can write. With `create`, a file that
    /// is absent or empty becomes one first, in one transaction; folders are made as needed.
    pub(crate) fn open(path: &Path, create: Option<Access>) -> Result<Self, Fault> {
        let process = Process::current();
        process.may_open(path)?;
        match (fs::metadata(path), create) {
            (Ok(meta), _) if meta.is_dir() => return Err(Fault::Folder(path.into())),
            (Ok(_), _) => {}
            (Err(e), None) if e.kind() == io::ErrorKind::NotFound => return Err(no_file(path)),
            (Err(e), Some(access)) if e.kind() == io::ErrorKind::NotFound => make(path, access)?,
            (Err(e), _) => return Err(Fault::Io(path.into(), e)),
        }
        let slot = process.connections.slot();
        let flags = OpenFlags::SQLITE_OPEN_READ_WRITE | OpenFlags::SQLITE_OPEN_NO_MUTEX;
        let conn = Connection::open_with_flags(path, flags).map_err(|e| why_not_opened(path, e))?;
        conn.busy_timeout(BUSY_SLICE)?;
        conn.set_prepared_statement_cache_capacity(64);
        conn.pragma_update(None, "foreign_keys", true)?;
        let mut database = Self {
            conn,
            path: path.into(),
            identity: None,
            wal: false,
            synchronous: None,
            cache: 0,
            known: None,
            _slot: slot,
        };
        database.fit_cache(process.connections.cache_kib())?;
        if schema::is_empty(&database.conn).map_err(|f| database.translated(f))? {
            if create.is_none() {
                return Err(no_file(path));
            }
            database.prefer_wal()?;
            database.create()?;
        } else {
            database.look()?;
            database.prefer_wal()?;
        }
        database.identity = identity(path);
        Ok(database)
    }

    /// Whether the path still leads to the file that is open. A file that was deleted or replaced
    /// would take writes that nobody ever sees.
    pub(crate) fn is_current(&self) -> bool {
        identity(&self.path) == self.identity
    }

    /// The file.
    pub(crate) fn path(&self) -> &Path {
        &self.path
    }

    /// Whether no transaction is open.
    pub(crate) fn is_idle(&self) -> bool {
        self.conn.is_autocommit()
    }

    /// Closes an idle connection that the parent of this process opened, without writing to the
    /// file or its log: that is for those who hold locks on them.
    pub(crate) fn close_inherited(self) {
        let quiet = DbConfig::SQLITE_DBCONFIG_NO_CKPT_ON_CLOSE;
        if self.conn.set_db_config(quiet, true).is_err() {
            std::mem::forget(self);
        }
    }

    /// Sets the memory for pages, in KiB.
    pub(crate) fn fit_cache(&mut self, kib: i64) -> Result<(), Fault> {
        if kib != self.cache {
            self.conn.pragma_update(None, "cache_size", -kib)?;
            self.cache = kib;
        }
        Ok(())
    }

    /// Sets how sure the following commits are.
    pub(crate) fn set_synchronous(&mut self, wanted: Synchronous) -> Result<(), Fault> {
        let wanted = if self.wal { wanted } else { Synchronous::Full };
        if self.synchronous != Some(wanted) {
            let value = match wanted {
                Synchronous::Normal => "NORMAL",
                Synchronous::Full => "FULL",
            };
            self.conn.pragma_update(None, "synchronous", value)?;
            self.synchronous = Some(wanted);
        }
        Ok(())
    }

    /// The connection, and the shape of the database as the current transaction sees it. Cheap
    /// where nothing changed.
    pub(crate) fn look(&mut self) -> Result<(&Connection, &Known), Fault> {
        let mut known = match look(&self.conn, self.known.take()) {
            Ok(known) => known,
            Err(fault) => return Err(self.translated(fault)),
        };
        let looked_up = !std::mem::replace(&mut known.used, true);
        if looked_up
            && !schema::is_known(&known.revision)
            && Process::current()
                .shapes
                .is_news(&self.path, &known.revision)
        {
            tracing::warn!(
                file = %self.path.display(),
                revision = %known.revision.escape_debug(),
                "the MLflow schema revision of the database is not known to this program; its tables \
                 take what is written, and are written"
            );
        }
        Ok((&self.conn, self.known.insert(known)))
    }

    /// Makes the tables, unless another process has done so meanwhile. A process that dies in
    /// between leaves an empty file, which the next one fills.
    fn create(&mut self) -> Result<(), Fault> {
        self.set_synchronous(Synchronous::Full)?;
        let transaction = self
            .conn
            .transaction_with_behavior(TransactionBehavior::Immediate)?;
        if schema::is_empty(&transaction)? {
            schema::create(&transaction)?;
        }
        transaction.commit()?;
        self.look()?;
        Ok(())
    }

    /// Switches to write-ahead logging, which lets readers and a writer go on side by side. A
    /// file that is in use at this moment, or whose file system cannot do it, stays as it is.
    fn prefer_wal(&mut self) -> Result<(), Fault> {
        let mode = |sql| self.conn.query_row(sql, [], |row| row.get::<_, String>(0));
        let mut found = mode("PRAGMA journal_mode")?;
        if found != "wal" {
            match mode("PRAGMA journal_mode = WAL") {
                Ok(now) => found = now,
                Err(e) if e.sqlite_error_code() == Some(ErrorCode::DatabaseBusy) => {}
                Err(e) => return Err(e.into()),
            }
        }
        self.wal = found == "wal";
        Ok(())
    }

    /// A refusal that may be of the moment: MLflow makes and upgrades a file in many steps, which
    /// others can see.
    fn translated(&self, fault: Fault) -> Fault {
        let found = match &fault {
            Fault::NoRevision { found } => found.clone(),
            Fault::TooOld { revision } => format!("it is at revision {revision}"),
            Fault::Incomplete { missing, .. } => missing.clone(),
            _ => return fault,
        };
        if changed_lately(&self.path) {
            Fault::InTransition { found }
        } else {
            fault
        }
    }
}

fn look(conn: &Connection, known: Option<Known>) -> Result<Known, Fault> {
    let revision = schema::revision(conn)?;
    let cookie = schema::cookie(conn)?;
    if let Some(known) = known
        && known.cookie == cookie
        && known.revision == revision
    {
        return Ok(known);
    }
    conn.flush_prepared_statement_cache();
    let shape = Process::current().shapes.of(conn, &revision)?;
    let statements = Statements::of(&shape);
    Ok(Known {
        cookie,
        revision,
        shape,
        statements,
        used: false,
    })
}

/// Makes an empty file, and the folders it is in, before SQLite would make one that everybody may
/// read. SQLite gives the log and its index the mode of the file.
fn make(path: &Path, access: Access) -> Result<(), Fault> {
    let folder = path.parent().unwrap_or(path);
    let mut folders = fs::DirBuilder::new();
    let mut file = fs::OpenOptions::new();
    folders.recursive(true);
    file.write(true).create_new(true);
    #[cfg(unix)]
    {
        use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
        let (of_folder, of_file) = match access {
            Access::Owner => (0o700, 0o600),
            Access::Umask => (0o777, 0o666),
        };
        folders.mode(of_folder);
        file.mode(of_file);
    }
    #[cfg(not(unix))]
    let _ = access;
    folders
        .create(folder)
        .map_err(|e| Fault::Io(folder.into(), e))?;
    match file.open(path) {
        Ok(_) => Ok(()),
        // Somebody else was quicker: the file is as they made it.
        Err(e) if e.kind() == io::ErrorKind::AlreadyExists => Ok(()),
        // The folder is at fault, not the file.
        Err(e) => Err(Fault::Io(folder.into(), e)),
    }
}

fn no_file(path: &Path) -> Fault {
    Fault::NoFile {
        path: path.into(),
        why: "give an `experiment_name` without `create=false` to have it made",
    }
}

/// SQLite only says that it could not open the file; the file system says why.
fn why_not_opened(path: &Path, e: rusqlite::Error) -> Fault {
    if e.sqlite_error_code() != Some(ErrorCode::CannotOpen) {
        return e.into();
    }
    match fs::OpenOptions::new().read(true).write(true).open(path) {
        Err(cause) => Fault::Io(path.into(), cause),
        Ok(_) => e.into(),
    }
}

fn changed_lately(path: &Path) -> bool {
    let log = |suffix: &str| {
        let mut name = path.as_os_str().to_owned();
        name.push(suffix);
        PathBuf::from(name)
    };
    [path.to_owned(), log("-wal"), log("-journal")]
        .iter()
        .filter_map(|p| fs::metadata(p).and_then(|m| m.modified()).ok())
        .any(|at| {
            SystemTime::now()
                .duration_since(at)
                .map_or(true, |age| age < UPGRADE_GRACE)
        })
}

#[cfg(unix)]
fn identity(path: &Path) -> Option<(u64, u64)> {
    use std::os::unix::fs::MetadataExt;
    fs::metadata(path).ok().map(|m| (m.dev(), m.ino()))
}

#[cfg(not(unix))]
fn identity(_path: &Path) -> Option<(u64, u64)> {
    // An open database cannot be deleted or renamed there.
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    fn synchronous(database: &Database) -> i64 {
        let sql = "PRAGMA synchronous";
        database.conn.query_row(sql, [], |row| row.get(0)).unwrap()
    }

    #[test]
    fn normal_is_for_write_ahead_logs_only() {
        let dir = tempfile::TempDir::new().unwrap();
        let mut database = Database::open(&dir.path().join("x.db"), Some(Access::Owner)).unwrap();
        assert!(database.wal);
        for (wanted, found) in [(Synchronous::Normal, 1), (Synchronous::Full, 2)] {
            database.set_synchronous(wanted).unwrap();
            assert_eq!(synchronous(&database), found);
        }
        database.wal = false;
        database.set_synchronous(Synchronous::Normal).unwrap();
        assert_eq!(synchronous(&database), 2);
    }

    #[test]
    fn a_file_in_another_mode_is_switched_once_nobody_uses_it() {
        let dir = tempfile::TempDir::new().unwrap();
        let path = dir.path().join("x.db");
        let other = Connection::open(&path).unwrap();
        other.execute_batch("BEGIN").unwrap();
        schema::create(&other).unwrap();
        other.execute_batch("COMMIT; BEGIN").unwrap();
        assert!(!schema::is_empty(&other).unwrap(), "a reader");
        let database = Database::open(&path, None).unwrap();
        assert!(!database.wal);
        drop(database);
        other.execute_batch("COMMIT").unwrap();
        assert!(Database::open(&path, None).unwrap().wal);
    }
}
