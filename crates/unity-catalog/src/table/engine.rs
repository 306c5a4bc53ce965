//! Delta's reader, confined to the table. A checkpoint names its side files by any address, and the
//! reader would fetch those that look signed from wherever they are, with a client of its own.

use bytes::Bytes;
use delta_kernel::engine_data::FilteredEngineData;
use delta_kernel::expressions::PredicateRef;
use delta_kernel::schema::SchemaRef;
use delta_kernel::{
    DeltaResult, DeltaResultIterator, DeltaResultIteratorStatic, Engine, EngineData, Error,
    EvaluationHandler, FileDataReadResultIterator, FileMeta, FileSize, FileSlice, JsonHandler,
    ParquetFooter, ParquetHandler, StorageHandler,
};
use std::sync::Arc;
use url::Url;

/// Commits that are read at the same time: each may hold a connection.
const AT_ONCE: usize = 16;

/// An engine that reads nothing outside the table.
pub(super) struct Confined {
    engine: Arc<dyn Engine>,
    root: Url,
}

impl Confined {
    pub(super) fn new(engine: Arc<dyn Engine>, root: Url) -> Self {
        Self { engine, root }
    }
}

impl Engine for Confined {
    fn evaluation_handler(&self) -> Arc<dyn EvaluationHandler> {
        self.engine.evaluation_handler()
    }

    fn storage_handler(&self) -> Arc<dyn StorageHandler> {
        Arc::new(Within {
            handler: self.engine.storage_handler(),
            root: self.root.clone(),
        })
    }

    fn json_handler(&self) -> Arc<dyn JsonHandler> {
        Arc::new(Within {
            handler: self.engine.json_handler(),
            root: self.root.clone(),
        })
    }

    fn parquet_handler(&self) -> Arc<dyn ParquetHandler> {
        Arc::new(Within {
            handler: self.engine.parquet_handler(),
            root: self.root.clone(),
        })
    }
}

/// A handler that is asked only for what is within the table.
struct Within<H: ?Sized> {
    handler: Arc<H>,
    root: Url,
}

impl<H: ?Sized> Within<H> {
    fn check(&self, url: &Url) -> DeltaResult<()> {
        let within = url.scheme() == self.root.scheme()
            && url.host_str().unwrap_or_default().is_empty()
            && url.query().is_none()
            && url.fragment().is_none();
        match within {
            true => Ok(()),
            false => Err(Error::InvalidLogPath(
                "the table's log names a file outside the table".into(),
            )),
        }
    }

    fn check_files(&self, files: &[FileMeta]) -> DeltaResult<()> {
        files.iter().try_for_each(|file| self.check(&file.location))
    }
}

impl StorageHandler for Within<dyn StorageHandler> {
    fn list_from(
        &self,
        path: &Url,
    ) -> DeltaResult<Box<dyn Iterator<Item = DeltaResult<FileMeta>>>> {
        self.check(path)?;
        self.handler.list_from(path)
    }

    fn read_files(
        &self,
        files: Vec<FileSlice>,
    ) -> DeltaResult<Box<dyn Iterator<Item = DeltaResult<Bytes>>>> {
        files.iter().try_for_each(|(url, _)| self.check(url))?;
        self.handler.read_files(files)
    }

    fn copy_atomic(&self, src: &Url, dest: &Url) -> DeltaResult<()> {
        self.check(src)?;
        self.check(dest)?;
        self.handler.copy_atomic(src, dest)
    }

    fn put(&self, path: &Url, data: Bytes, overwrite: bool) -> DeltaResult<()> {
        self.check(path)?;
        self.handler.put(path, data, overwrite)
    }

    fn head(&self, path: &Url) -> DeltaResult<FileMeta> {
        self.check(path)?;
        self.handler.head(path)
    }

    fn delete(&self, path: &Url) -> DeltaResult<()> {
        self.check(path)?;
        self.handler.delete(path)
    }
}

impl JsonHandler for Within<dyn JsonHandler> {
    fn parse_json(
        &self,
        json_strings: Box<dyn EngineData>,
        output_schema: SchemaRef,
    ) -> DeltaResult<Box<dyn EngineData>> {
        self.handler.parse_json(json_strings, output_schema)
    }

    fn read_json_files(
        &self,
        files: &[FileMeta],
        physical_schema: SchemaRef,
        predicate: Option<PredicateRef>,
    ) -> DeltaResult<FileDataReadResultIterator> {
        self.check_files(files)?;
        let groups: Vec<Vec<FileMeta>> = files.chunks(AT_ONCE).map(<[_]>::to_vec).collect();
        let handler = self.handler.clone();
        let read = groups.into_iter().flat_map(move |group| {
            let read = handler.read_json_files(&group, physical_schema.clone(), predicate.clone());
            let read: FileDataReadResultIterator = match read {
                Ok(read) => read,
                Err(error) => Box::new(std::iter::once(Err(error))),
            };
            read
        });
        Ok(Box::new(read))
    }

    fn write_json_file(
        &self,
        path: &Url,
        data: DeltaResultIterator<'_, FilteredEngineData>,
        overwrite: bool,
    ) -> DeltaResult<FileSize> {
        self.check(path)?;
        self.handler.write_json_file(path, data, overwrite)
    }
}

impl ParquetHandler for Within<dyn ParquetHandler> {
    fn read_parquet_files(
        &self,
        files: &[FileMeta],
        physical_schema: SchemaRef,
        predicate: Option<PredicateRef>,
    ) -> DeltaResult<FileDataReadResultIterator> {
        self.check_files(files)?;
        self.handler
            .read_parquet_files(files, physical_schema, predicate)
    }

    fn write_parquet_file(
        &self,
        location: Url,
        data: DeltaResultIteratorStatic<Box<dyn EngineData>>,
    ) -> DeltaResult<()> {
        self.check(&location)?;
        self.handler.write_parquet_file(location, data)
    }

    fn read_parquet_footer(&self, file: &FileMeta) -> DeltaResult<ParquetFooter> {
        self.check(&file.location)?;
        self.handler.read_parquet_footer(file)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nothing_outside_the_table_is_read() {
        let within = Within::<()> {
            handler: Arc::new(()),
            root: Url::parse("table:///").unwrap(),
        };
        let log = Url::parse("table:///_delta_log/_sidecars/").unwrap();
        assert!(within.check(&log.join("a.parquet").unwrap()).is_ok());
        for path in [
            "http://127.0.0.1/x?X-Amz-Signature=1",
            "https://elsewhere/x?sp=r",
            "//elsewhere/x",
            "file:///etc/passwd",
            "a.parquet?sp=r",
        ] {
            let error = within.check(&log.join(path).unwrap()).unwrap_err();
            assert!(error.to_string().contains("outside"), "{path}: {error}");
        }
    }
}
