//! The files of single commits: reading and creating them, and telling those of one table from those
//! of another at the same place.

use super::{Loaded, Log};
use crate::error::{OPEN, WRITE, fault};
use crate::storage::Settled;
use crate::table::file::fingerprint;
use bytes::Bytes;
use deltalake::logstore::commit_uri_from_version;
use object_store::path::Path;
use object_store::{Extensions, GetOptions, ObjectMeta, ObjectStoreExt as _, PutMode};
use trace_destination_core::{Error, ErrorKind};

/// What tells a file of a log from another at the same place, where a table was removed and made
/// anew: versions are only numbers, and every table has the first ones.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Mark {
    path: Path,
    /// The store's own word for its content: the e-tag, or where it has none time and size.
    stamp: Option<String>,
    /// A fingerprint of the content. A file that was copied has another stamp and the same content.
    content: Option<u64>,
}

impl Mark {
    /// `path` is where it is in the table; stores that are rooted at one answer with another.
    pub(super) fn of(path: &Path, meta: &ObjectMeta, content: Option<&Bytes>) -> Self {
        Self {
            path: path.clone(),
            stamp: Some(stamp(meta)),
            content: content.map(|content| fingerprint(content)),
        }
    }
}

fn stamp(meta: &ObjectMeta) -> String {
    let e_tag = meta.e_tag.clone();
    e_tag.unwrap_or_else(|| format!("{} {}", meta.last_modified.to_rfc3339(), meta.size))
}

impl Log {
    /// The content of a commit; `None` if there is none.
    pub(crate) async fn read(
        &self,
        version: u64,
    ) -> Result<Option<(Bytes, Mark)>, object_store::Error> {
        let path = commit_uri_from_version(Some(version));
        match self.store.get(&path).await {
            Ok(found) => {
                let meta = found.meta.clone();
                let bytes = found.bytes().await?;
                let mark = Mark::of(&path, &meta, Some(&bytes));
                Ok(Some((bytes, mark)))
            }
            Err(object_store::Error::NotFound { .. }) => Ok(None),
            Err(e) => Err(e),
        }
    }

    /// Writes a commit unless there is one; `None` if there is. Sent once: what an error means is
    /// found out by reading.
    pub(crate) async fn put(
        &self,
        version: u64,
        commit: Bytes,
    ) -> Result<Option<Mark>, object_store::Error> {
        let path = commit_uri_from_version(Some(version));
        let content = Some(fingerprint(&commit));
        match self
            .store
            .put_opts(&path, commit.into(), PutMode::Create.into())
            .await
        {
            Ok(put) => Ok(Some(Mark {
                path,
                stamp: put.e_tag,
                content,
            })),
            Err(
                object_store::Error::AlreadyExists { .. }
                | object_store::Error::Precondition { .. },
            ) => Ok(None),
            Err(e) => Err(e),
        }
    }

    /// Whether a file of the log is there, and is the one that was seen before.
    pub(crate) async fn has(&self, mark: &mut Mark) -> Result<bool, object_store::Error> {
        if let Some(seen) = &mark.stamp {
            match self.store.head(&mark.path).await {
                Ok(meta) if stamp(&meta) == *seen => return Ok(true),
                Ok(_) => {}
                Err(object_store::Error::NotFound { .. }) => return Ok(false),
                Err(e) => return Err(e),
            }
        }
        // It may have been copied, or was written here by a store that gives no e-tag in return.
        let Some(content) = mark.content else {
            return Ok(false);
        };
        match self.store.get(&mark.path).await {
            Ok(found) => {
                let now = stamp(&found.meta);
                let same = fingerprint(&found.bytes().await?) == content;
                if same {
                    mark.stamp = Some(now);
                }
                Ok(same)
            }
            Err(object_store::Error::NotFound { .. }) => Ok(false),
            Err(e) => Err(e),
        }
    }

    /// Makes sure that the commits up to a version stay, where a request failed or was given up that
    /// wrote one: in local files its name may not be on the disk yet.
    pub(crate) async fn settle(&self, version: u64) -> Result<(), Error> {
        let mut extensions = Extensions::new();
        extensions.insert(Settled);
        let options = GetOptions::new()
            .with_head(true)
            .with_extensions(extensions);
        let path = commit_uri_from_version(Some(version));
        match self.store.get_opts(&path, options).await {
            // It was cleaned up, and is in a checkpoint.
            Ok(_) | Err(object_store::Error::NotFound { .. }) => Ok(()),
            Err(e) => Err(fault(WRITE, "flushing the table's log", e).retryable()),
        }
    }

    /// Makes sure that the store creates a file only where there is none, by one request: a commit
    /// that is there is created again, with its own content, and has to be refused. What a store that
    /// ignores the condition would cost is every commit that another writer replaces.
    ///
    /// # Errors
    /// `Unsupported` if the store ignores the condition, and whatever a request says.
    pub(crate) async fn check_store(
        &self,
        version: u64,
        loaded: Option<&Loaded>,
    ) -> Result<(), Error> {
        if self.local {
            return Ok(());
        }
        let doing = "trying whether the store creates a file only where there is none";
        let known = loaded.and_then(|loaded| loaded.fetched.smallest_commit());
        let (version, commit) = match known {
            Some(known) => known,
            None => match self.read(version).await {
                Ok(Some((commit, _))) => (version, commit),
                // It was cleaned up meanwhile: there is nothing to try it with.
                Ok(None) => return Ok(()),
                Err(e) => return Err(fault(OPEN, doing, e)),
            },
        };
        // A first success may mean that the commit was cleaned up a moment ago.
        for _ in 0..2 {
            let created = self.put(version, commit.clone()).await;
            if created.map_err(|e| fault(OPEN, doing, e))?.is_none() {
                return Ok(());
            }
        }
        Err(Error::new(
            ErrorKind::Unsupported,
            OPEN,
            "the store replaces a file that it was told to create only if there is none (`If-None-Match: *`): commits would be lost",
        )
        .mend("use a store that keeps to it: S3, Azure, Google Cloud Storage, R2, a MinIO of 2024 or later, or a local folder"))
    }

    /// Takes a commit back that was written into another table than it was made for, unless that
    /// goes on from it already; true if it is gone.
    ///
    /// It is the newest version, so that without it the log is what it was. The way the protocol
    /// knows, a commit that removes the file, would have to satisfy a table that was not read.
    pub(crate) async fn take_back(
        &self,
        version: u64,
        mark: &mut Mark,
    ) -> Result<bool, object_store::Error> {
        if !self.has(mark).await? {
            return Ok(true);
        }
        let next = commit_uri_from_version(Some(version + 1));
        match self.store.head(&next).await {
            Err(object_store::Error::NotFound { .. }) => {}
            Ok(_) => return Ok(false),
            Err(e) => return Err(e),
        }
        let content = self.store.get(&mark.path).await?.bytes().await?;
        self.store.delete(&mark.path).await?;
        // Somebody may have gone on from it meanwhile: a log with a gap can be read by nobody.
        match self.store.head(&next).await {
            Err(object_store::Error::NotFound { .. }) => Ok(true),
            _ => {
                let mode = PutMode::Create.into();
                match self.store.put_opts(&mark.path, content.into(), mode).await {
                    Ok(_) | Err(object_store::Error::AlreadyExists { .. }) => Ok(false),
                    Err(e) => Err(e),
                }
            }
        }
    }
}
