//! How the rows lie in the files of one table: the documented columns, or those of a table that
//! people changed.

use super::TableSchema;
use super::columns::{Column, Kind};
use arrow_array::cast::AsArray as _;
use arrow_array::{Array as _, ArrayRef, ListArray, RecordBatch, StructArray, new_null_array};
use arrow_schema::{ArrowError, DataType as ArrowType, Field, FieldRef, Fields, Schema, SchemaRef};
use deltalake::kernel::{DataType, StructType};
use parquet::arrow::PARQUET_FIELD_ID_META_KEY;
use std::sync::{Arc, LazyLock};

/// The columns of a table's files, and which of them have statistics.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Layout {
    rows: TableSchema,
    schema: SchemaRef,
    /// Where each column comes from; nothing where files have the documented columns.
    places: Option<Vec<Place>>,
    measured: Vec<Measured>,
    unique: Vec<Vec<String>>,
}

/// A column of the files, or a field of one.
#[derive(Debug, PartialEq, Eq)]
struct Place {
    field: FieldRef,
    source: Source,
}

#[derive(Debug, PartialEq, Eq)]
enum Source {
    /// One of ours, by its position.
    Ours(usize),
    /// A struct of ours, or a list of them, whose fields have other names or are more.
    Within(usize, Vec<Place>),
    /// Somebody else's: NULL.
    Null,
}

/// A column with statistics in the log.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Measured {
    /// Its name in the files, after those of the structs it is within.
    pub(crate) path: Vec<String>,
    pub(crate) measure: Measure,
}

/// How bounds of a column are written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Measure {
    /// As text.
    Text,
    /// As a number.
    Number,
    /// As a time, of microseconds.
    Time,
    /// As a date, of days.
    Date,
    /// There are none: every row holds a NULL.
    Null,
}

impl Layout {
    /// The documented columns, by their own names.
    pub(crate) fn documented(rows: TableSchema) -> Arc<Self> {
        static LAYOUTS: LazyLock<[Arc<Layout>; 3]> = LazyLock::new(|| {
            TableSchema::ALL.map(|rows| {
                let top = |name: &&str| {
                    let column = rows.columns().iter().find(|c| c.name == *name);
                    column
                        .and_then(|c| c.kind.measure())
                        .map(|measure| Measured {
                            path: vec![(*name).to_owned()],
                            measure,
                        })
                };
                let unique = rows.unique().iter();
                Arc::new(Layout {
                    rows,
                    schema: rows.arrow(),
                    places: None,
                    measured: rows.found_by().iter().filter_map(top).collect(),
                    unique: unique.map(|n| vec![(*n).to_owned()]).collect(),
                })
            })
        });
        Arc::clone(&LAYOUTS[rows.index()])
    }

    /// The layout of a table with the columns of `rows`, and perhaps others.
    ///
    /// `physical` are the table's columns as its files name them, in the order of `table`; they have
    /// field ids if `mapped`. `clustering` are paths of columns in the files.
    ///
    /// # Errors
    /// The name of a clustering column that the table does not have.
    pub(crate) fn of(
        rows: TableSchema,
        table: &StructType,
        physical: &Fields,
        mapped: bool,
        clustering: &[Vec<String>],
    ) -> Result<Arc<Self>, String> {
        let documented = Self::documented(rows);
        let places = places(
            rows.columns(),
            documented.schema.fields(),
            table,
            physical,
            mapped,
        );
        let is_documented = !mapped
            && places
                .iter()
                .all(|place| matches!(place.source, Source::Ours(_)));
        if is_documented && clustering.is_empty() {
            return Ok(documented);
        }
        let named = |name: &str| {
            let mut fields = table.fields().zip(physical.iter());
            let found = fields.find(|(logical, _)| logical.name == name);
            found.map(|(_, physical)| vec![physical.name().clone()])
        };
        let found_by = rows.found_by().iter().copied().filter_map(&named);
        let mut measured: Vec<Measured> = Vec::new();
        for path in found_by.chain(clustering.iter().cloned()) {
            if measured.iter().any(|m| m.path == path) {
                continue;
            }
            let measure =
                measure(rows.columns(), table, physical, &path).ok_or_else(|| path.join("."))?;
            measured.push(Measured { path, measure });
        }
        Ok(Arc::new(Self {
            rows,
            schema: match is_documented {
                true => documented.schema.clone(),
                false => {
                    let fields: Fields = places.iter().map(|p| p.field.clone()).collect();
                    Arc::new(Schema::new(fields))
                }
            },
            places: (!is_documented).then_some(places),
            measured,
            unique: rows.unique().iter().copied().filter_map(named).collect(),
        }))
    }

    /// The shape of the rows that [`fill`](Self::fill) takes.
    pub(crate) fn rows(&self) -> TableSchema {
        self.rows
    }

    /// The columns of the files.
    pub(crate) fn schema(&self) -> SchemaRef {
        Arc::clone(&self.schema)
    }

    /// The columns with statistics.
    pub(crate) fn measured(&self) -> &[Measured] {
        &self.measured
    }

    /// The columns without a dictionary.
    pub(crate) fn unique(&self) -> &[Vec<String>] {
        &self.unique
    }

    /// Whether files have the documented columns with the documented statistics.
    pub(crate) fn is_documented(&self) -> bool {
        std::ptr::eq(self, &*Self::documented(self.rows))
    }

    /// The rows with the columns of the table.
    ///
    /// # Errors
    /// None, as long as the rows are those of the layout.
    pub(crate) fn fill(&self, rows: RecordBatch) -> Result<RecordBatch, ArrowError> {
        let Some(places) = &self.places else {
            return Ok(rows);
        };
        let columns = fill(places, rows.columns(), rows.num_rows())?;
        RecordBatch::try_new(self.schema(), columns)
    }
}

impl Kind {
    /// How bounds of such a column are written; `None` where it has none.
    fn measure(&self) -> Option<Measure> {
        match self {
            Self::Text | Self::Term => Some(Measure::Text),
            Self::Int | Self::Long => Some(Measure::Number),
            Self::Timestamp => Some(Measure::Time),
            Self::Date => Some(Measure::Date),
            Self::Bag | Self::SharedBag | Self::Struct(_) | Self::List(_) => None,
        }
    }
}

/// The columns of the table in its own order.
fn places(
    columns: &[Column],
    ours: &Fields,
    table: &StructType,
    physical: &Fields,
    mapped: bool,
) -> Vec<Place> {
    let mut places = Vec::with_capacity(physical.len());
    for (logical, physical) in table.fields().zip(physical) {
        let field = |data_type: ArrowType| {
            let field = Field::new(physical.name(), data_type, true);
            let id = physical.metadata().get(PARQUET_FIELD_ID_META_KEY);
            Arc::new(match id.filter(|_| mapped) {
                Some(id) => {
                    field.with_metadata([(PARQUET_FIELD_ID_META_KEY.to_owned(), id.clone())].into())
                }
                None => field,
            })
        };
        let Some(at) = columns.iter().position(|c| c.name == logical.name) else {
            // VOID is in no file (Delta protocol, "Void Type").
            if *physical.data_type() != ArrowType::Null {
                let data_type = physical.data_type().clone();
                places.push(Place {
                    field: field(data_type),
                    source: Source::Null,
                });
            }
            continue;
        };
        let (ours, column) = (&ours[at], &columns[at]);
        let inner = match (
            &column.kind,
            &logical.data_type,
            ours.data_type(),
            physical.data_type(),
        ) {
            (
                Kind::Struct(columns),
                DataType::Struct(table),
                ArrowType::Struct(ours),
                ArrowType::Struct(physical),
            ) => Some(self::places(columns, ours, table, physical, mapped)),
            (
                Kind::List(columns),
                DataType::Array(array),
                ArrowType::List(ours),
                ArrowType::List(physical),
            ) => match (&array.element_type, ours.data_type(), physical.data_type()) {
                (DataType::Struct(table), ArrowType::Struct(ours), ArrowType::Struct(physical)) => {
                    Some(self::places(columns, ours, table, physical, mapped))
                }
                _ => None,
            },
            _ => None,
        };
        let inner = inner.filter(|inner| {
            // In our order and by our names they are what the rows have already.
            let fields = fields_of(ours.data_type());
            !inner.iter().map(|p| &p.field).eq(fields)
        });
        let (data_type, source) = match inner {
            None => (ours.data_type().clone(), Source::Ours(at)),
            Some(inner) => (rebuilt(ours.data_type(), &inner), Source::Within(at, inner)),
        };
        places.push(Place {
            field: field(data_type),
            source,
        });
    }
    places
}

/// The fields of a struct, or of the structs in a list.
fn fields_of(data_type: &ArrowType) -> &Fields {
    static NONE: LazyLock<Fields> = LazyLock::new(Fields::empty);
    match data_type {
        ArrowType::Struct(fields) => fields,
        ArrowType::List(element) => fields_of(element.data_type()),
        _ => &NONE,
    }
}

/// The type of a struct, or of a list of them, with other fields.
fn rebuilt(data_type: &ArrowType, inner: &[Place]) -> ArrowType {
    let fields = || ArrowType::Struct(inner.iter().map(|p| p.field.clone()).collect());
    match data_type {
        ArrowType::List(element) => {
            let element = Field::new(element.name(), fields(), element.is_nullable());
            ArrowType::List(Arc::new(element))
        }
        _ => fields(),
    }
}

/// How bounds of the column with this path in the files are written; `None` if there is no such
/// column, or none that can have bounds.
fn measure(
    columns: &[Column],
    table: &StructType,
    physical: &Fields,
    path: &[String],
) -> Option<Measure> {
    let (name, rest) = path.split_first()?;
    let mut fields = table.fields().zip(physical);
    let (logical, physical) = fields.find(|(_, physical)| physical.name() == name)?;
    let Some(column) = columns.iter().find(|c| c.name == logical.name) else {
        return Some(Measure::Null);
    };
    match (&column.kind, &logical.data_type, physical.data_type()) {
        (Kind::Struct(columns), DataType::Struct(table), ArrowType::Struct(physical)) => {
            measure(columns, table, physical, rest)
        }
        (kind, _, _) if rest.is_empty() => kind.measure(),
        _ => None,
    }
}

fn fill(places: &[Place], columns: &[ArrayRef], rows: usize) -> Result<Vec<ArrayRef>, ArrowError> {
    let filled = places.iter().map(|place| match &place.source {
        Source::Null => Ok(new_null_array(place.field.data_type(), rows)),
        Source::Ours(at) => Ok(Arc::clone(&columns[*at])),
        Source::Within(at, inner) => within(&columns[*at], place.field.data_type(), inner),
    });
    filled.collect()
}

fn within(column: &ArrayRef, to: &ArrowType, inner: &[Place]) -> Result<ArrayRef, ArrowError> {
    let structure = |of: &StructArray, fields: &Fields| {
        let columns = fill(inner, of.columns(), of.len())?;
        StructArray::try_new(fields.clone(), columns, of.nulls().cloned())
    };
    Ok(match to {
        ArrowType::List(element) => {
            let list = column.as_list::<i32>();
            let elements = structure(list.values().as_struct(), fields_of(to))?;
            Arc::new(ListArray::try_new(
                Arc::clone(element),
                list.offsets().clone(),
                Arc::new(elements),
                list.nulls().cloned(),
            )?)
        }
        _ => Arc::new(structure(column.as_struct(), fields_of(to))?),
    })
}
