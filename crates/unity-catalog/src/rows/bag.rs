//! Columns of attributes: VARIANT or MAP, by the version of the table.

use super::column::{Blobs, ByteStrings, Lengths, NONE, Numbers, Texts, structure};
use super::fault::Fault;
use super::group::Terms;
use super::text;
use super::variant::VariantWriter;
use crate::schema::SchemaVersion;
use arrow_array::{ArrayRef, MapArray, StructArray};
use arrow_schema::DataType;
use std::sync::Arc;
use trace_destination_core::Attributes;

/// What the bags of a batch have in common.
#[derive(Debug, Default)]
pub(super) struct Shared {
    pub(super) variants: VariantWriter,
    pub(super) blobs: Blobs,
    pub(super) terms: Terms,
    scratch: Vec<u8>,
}

impl Shared {
    pub(super) fn bytes(&self) -> usize {
        self.variants.bytes() + self.blobs.bytes() + self.terms.bytes() + self.scratch.capacity()
    }
}

/// Dictionaries of a finished batch.
pub(super) struct Dictionaries {
    pub(super) blobs: ArrayRef,
    pub(super) terms: ArrayRef,
}

/// Attributes that are different in every row.
#[derive(Debug)]
pub(super) enum Bags {
    Variants {
        metadata: Numbers<i32>,
        values: ByteStrings,
        /// Which keys the last bag had.
        last: usize,
    },
    Maps {
        keys: Texts,
        values: Texts,
        lengths: Lengths,
    },
}

impl Bags {
    pub(super) fn new(version: SchemaVersion) -> Self {
        match version {
            SchemaVersion::V1 => Self::Maps {
                keys: Texts::default(),
                values: Texts::default(),
                lengths: Lengths::default(),
            },
            SchemaVersion::V2 => Self::Variants {
                metadata: Numbers::default(),
                values: ByteStrings::default(),
                last: 0,
            },
        }
    }

    /// Appends a bag.
    ///
    /// # Errors
    /// If a VARIANT cannot hold it; nothing is appended then. A MAP holds everything that is not
    /// nested too deep, which is checked beforehand.
    pub(super) fn push(&mut self, bag: Attributes<'_>, shared: &mut Shared) -> Result<(), Fault> {
        match self {
            Self::Variants {
                metadata,
                values,
                last,
            } => {
                let out = values.open();
                let place = shared.variants.write(bag, last, &mut shared.blobs, out)?;
                metadata.push(place);
                values.end();
            }
            Self::Maps {
                keys,
                values,
                lengths,
            } => {
                let mut length = 0;
                text::each(bag, &mut shared.scratch, |key, value| {
                    keys.push(key);
                    match value {
                        Some(value) => values.push(value),
                        None => values.push_null(),
                    }
                    length += 1;
                });
                lengths.push(length);
            }
        }
        Ok(())
    }

    /// The number of bags, for [`undo`](Self::undo).
    pub(super) fn mark(&self) -> usize {
        match self {
            Self::Variants { metadata, .. } => metadata.len(),
            Self::Maps { .. } => 0,
        }
    }

    /// Takes back everything since `mark`. Maps, which cannot fail, have nothing to take back.
    pub(super) fn undo(&mut self, mark: usize) {
        if let Self::Variants {
            metadata, values, ..
        } = self
        {
            metadata.truncate(mark);
            values.truncate(mark);
        }
    }

    /// Bytes of what the bags say.
    pub(super) fn value_bytes(&self) -> usize {
        match self {
            Self::Variants { values, .. } => values.len_bytes(),
            Self::Maps { values, .. } => values.len_bytes(),
        }
    }

    pub(super) fn bytes(&self) -> usize {
        match self {
            Self::Variants {
                metadata, values, ..
            } => metadata.bytes() + values.bytes(),
            Self::Maps {
                keys,
                values,
                lengths,
            } => keys.bytes() + values.bytes() + lengths.bytes(),
        }
    }

    pub(super) fn finish(&mut self, data_type: &DataType, from: &Dictionaries) -> ArrayRef {
        match self {
            Self::Variants {
                metadata, values, ..
            } => structure(
                data_type,
                vec![metadata.finish_places(&from.blobs), values.finish()],
            ),
            Self::Maps {
                keys,
                values,
                lengths,
            } => map(data_type, lengths, keys.finish(), values.finish()),
        }
    }
}

/// One bag that is written once and referred to by many rows.
#[derive(Clone, Debug)]
pub(super) enum SharedBag {
    /// Places of metadata and value.
    Variant(i32, i32),
    /// Places of keys and values.
    Map(Vec<(i32, i32)>),
}

impl SharedBag {
    pub(super) fn of(
        version: SchemaVersion,
        bag: Attributes<'_>,
        shared: &mut Shared,
    ) -> Result<Self, Fault> {
        match version {
            SchemaVersion::V1 => {
                super::keys::each_key(bag, &mut |_| {})?;
                let mut places = Ok(Vec::with_capacity(bag.len()));
                let terms = &mut shared.terms;
                text::each(bag, &mut shared.scratch, |key, value| {
                    if let Ok(all) = &mut places {
                        match (terms.place(key), value.map_or(Ok(NONE), |v| terms.place(v))) {
                            (Ok(key), Ok(value)) => all.push((key, value)),
                            (Err(fault), _) | (_, Err(fault)) => places = Err(fault),
                        }
                    }
                });
                places.map(Self::Map)
            }
            SchemaVersion::V2 => {
                shared.scratch.clear();
                let metadata =
                    shared
                        .variants
                        .write(bag, &mut 0, &mut shared.blobs, &mut shared.scratch)?;
                Ok(Self::Variant(metadata, shared.blobs.push(&shared.scratch)?))
            }
        }
    }
}

/// A column of [`SharedBag`]s.
#[derive(Debug, Default)]
pub(super) struct SharedBags {
    /// Metadata, or keys.
    first: Numbers<i32>,
    second: Numbers<i32>,
    /// Of maps.
    lengths: Lengths,
}

impl SharedBags {
    pub(super) fn repeat(&mut self, bag: &SharedBag, times: usize) {
        match bag {
            SharedBag::Variant(metadata, value) => {
                self.first.repeat(*metadata, times);
                self.second.repeat(*value, times);
            }
            SharedBag::Map(entries) => {
                for _ in 0..times {
                    self.first.extend(entries.iter().map(|e| e.0));
                    self.second.extend(entries.iter().map(|e| e.1));
                    self.lengths.push(entries.len());
                }
            }
        }
    }

    pub(super) fn bytes(&self) -> usize {
        self.first.bytes() + self.second.bytes() + self.lengths.bytes()
    }

    pub(super) fn finish(&mut self, data_type: &DataType, from: &Dictionaries) -> ArrayRef {
        if let DataType::Map(..) = data_type {
            let keys = self.first.finish_places(&from.terms);
            let values = self.second.finish_places(&from.terms);
            map(data_type, &mut self.lengths, keys, values)
        } else {
            let metadata = self.first.finish_places(&from.blobs);
            let values = self.second.finish_places(&from.blobs);
            structure(data_type, vec![metadata, values])
        }
    }
}

fn map(data_type: &DataType, lengths: &mut Lengths, keys: ArrayRef, values: ArrayRef) -> ArrayRef {
    let DataType::Map(entry, _) = data_type else {
        unreachable!("{data_type} is no map");
    };
    let DataType::Struct(fields) = entry.data_type() else {
        unreachable!("the entries of a map are structs");
    };
    let entries = StructArray::new(fields.clone(), vec![keys, values], None);
    Arc::new(MapArray::new(
        Arc::clone(entry),
        lengths.finish(),
        entries,
        None,
        false,
    ))
}
