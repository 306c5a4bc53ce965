//! What the spans of a group have in common: resource and instrumentation scope, converted once per
//! batch and referred to by every row.

use super::bag::{Dictionaries, Shared, SharedBag, SharedBags};
use super::column::{NONE, Numbers, field_type, structure};
use super::fault::Fault;
use super::{SERVICE_NAME, saturated};
use crate::schema::SchemaVersion;
use arrow_array::ArrayRef;
use arrow_array::builder::StringBuilder;
use arrow_array::types::Int32Type;
use arrow_schema::DataType;
use foldhash::fast::RandomState;
use std::collections::HashMap;
use std::sync::Arc;
use trace_destination_core::{AnyValueRef, Attributes, Resource, Scope, SpanGroup};

/// Terms that every dictionary begins with: the names of protobuf's `Span.SpanKind` in the order of
/// their numbers, then those of `Status.StatusCode` (`opentelemetry/proto/trace/v1/trace.proto`).
const FIXED: [&str; 9] = [
    "SPAN_KIND_UNSPECIFIED",
    "SPAN_KIND_INTERNAL",
    "SPAN_KIND_SERVER",
    "SPAN_KIND_CLIENT",
    "SPAN_KIND_PRODUCER",
    "SPAN_KIND_CONSUMER",
    "STATUS_CODE_UNSET",
    "STATUS_CODE_OK",
    "STATUS_CODE_ERROR",
];
/// The place of `STATUS_CODE_UNSET`.
pub(super) const FIRST_STATUS: i32 = 6;

/// Text that rows refer to by its place: one dictionary for all columns of a batch.
#[derive(Debug)]
pub(super) struct Terms {
    builder: StringBuilder,
    places: HashMap<Box<str>, i32, RandomState>,
}

impl Default for Terms {
    fn default() -> Self {
        let mut builder = StringBuilder::with_capacity(2 * FIXED.len(), 512);
        FIXED.iter().for_each(|term| builder.append_value(term));
        Self {
            builder,
            places: HashMap::default(),
        }
    }
}

impl Terms {
    /// The place of a text, which is added if it is new.
    ///
    /// # Errors
    /// If it does not fit any more.
    pub(super) fn place(&mut self, term: &str) -> Result<i32, Fault> {
        if let Some(place) = self.places.get(term) {
            return Ok(*place);
        }
        let count = self.builder.offsets_slice().len() - 1;
        let place = i32::try_from(count).map_err(|_| Fault::batch())?;
        let end = self.builder.values_slice().len() + term.len();
        i32::try_from(end).map_err(|_| Fault::batch())?;
        self.builder.append_value(term);
        self.places.insert(term.into(), place);
        Ok(place)
    }

    /// The place of a text, or of none where there is nothing to say.
    fn optional(&mut self, term: Option<&str>) -> Result<i32, Fault> {
        match term {
            None | Some("") => Ok(NONE),
            Some(term) => self.place(term),
        }
    }

    pub(super) fn bytes(&self) -> usize {
        self.builder.values_slice().len() * 2 + self.places.capacity() * 32
    }

    pub(super) fn finish(&mut self) -> ArrayRef {
        Arc::new(std::mem::take(self).builder.finish())
    }
}

#[derive(Clone, Debug)]
struct ResourceRow {
    bag: SharedBag,
    dropped: i32,
    schema_url: i32,
    service: i32,
}

#[derive(Clone, Debug)]
struct ScopeRow {
    name: i32,
    version: i32,
    bag: SharedBag,
    dropped: i32,
    schema_url: i32,
}

/// The columns that hold what a group's spans have in common.
#[derive(Debug)]
pub(super) struct GroupColumns {
    version: SchemaVersion,
    /// What was converted in this batch, by address; the address stays taken as long as the batch
    /// holds on to what is there.
    resources: HashMap<usize, (Arc<Resource>, Result<ResourceRow, Fault>), RandomState>,
    scopes: HashMap<usize, (Arc<Scope>, Result<ScopeRow, Fault>), RandomState>,

    service_name: Numbers<i32>,
    resource: SharedBags,
    resource_dropped: Numbers<i32>,
    resource_schema_url: Numbers<i32>,
    scope_name: Numbers<i32>,
    scope_version: Numbers<i32>,
    scope: SharedBags,
    scope_dropped: Numbers<i32>,
    span_schema_url: Numbers<i32>,
}

impl GroupColumns {
    pub(super) fn new(version: SchemaVersion) -> Self {
        Self {
            version,
            resources: HashMap::default(),
            scopes: HashMap::default(),
            service_name: Numbers::default(),
            resource: SharedBags::default(),
            resource_dropped: Numbers::default(),
            resource_schema_url: Numbers::default(),
            scope_name: Numbers::default(),
            scope_version: Numbers::default(),
            scope: SharedBags::default(),
            scope_dropped: Numbers::default(),
            span_schema_url: Numbers::default(),
        }
    }

    /// Converts what is new of a group.
    ///
    /// # Errors
    /// If its spans cannot be stored, whatever they are.
    pub(super) fn prepare(&mut self, group: &SpanGroup, shared: &mut Shared) -> Result<(), Fault> {
        let version = self.version;
        let resource = self
            .resources
            .entry(address(&group.resource))
            .or_insert_with(|| {
                let row = ResourceRow::of(version, &group.resource, shared);
                (Arc::clone(&group.resource), row)
            });
        let scope = self.scopes.entry(address(&group.scope)).or_insert_with(|| {
            let row = ScopeRow::of(version, &group.scope, shared);
            (Arc::clone(&group.scope), row)
        });
        match (&resource.1, &scope.1) {
            (Ok(_), Ok(_)) => Ok(()),
            (Err(fault), _) | (_, Err(fault)) => Err(fault.clone()),
        }
    }

    /// Fills the columns for `rows` rows of a group that was prepared.
    pub(super) fn repeat(&mut self, group: &SpanGroup, rows: usize) {
        let resource = &self.resources[&address(&group.resource)].1;
        let scope = &self.scopes[&address(&group.scope)].1;
        let (Ok(resource), Ok(scope)) = (resource, scope) else {
            return;
        };
        self.service_name.repeat(resource.service, rows);
        self.resource.repeat(&resource.bag, rows);
        self.resource_dropped.repeat(resource.dropped, rows);
        self.resource_schema_url.repeat(resource.schema_url, rows);
        self.scope_name.repeat(scope.name, rows);
        self.scope_version.repeat(scope.version, rows);
        self.scope.repeat(&scope.bag, rows);
        self.scope_dropped.repeat(scope.dropped, rows);
        self.span_schema_url.repeat(scope.schema_url, rows);
    }

    pub(super) fn bytes(&self) -> usize {
        self.service_name.bytes()
            + self.resource.bytes()
            + self.resource_dropped.bytes()
            + self.resource_schema_url.bytes()
            + self.scope_name.bytes()
            + self.scope_version.bytes()
            + self.scope.bytes()
            + self.scope_dropped.bytes()
            + self.span_schema_url.bytes()
    }

    pub(super) fn finish_service_name(&mut self, from: &Dictionaries) -> ArrayRef {
        self.service_name.finish_places(&from.terms)
    }

    /// The last four columns; `types` are those of the two structs.
    pub(super) fn finish(
        &mut self,
        [resource, scope]: [&DataType; 2],
        from: &Dictionaries,
    ) -> [ArrayRef; 4] {
        self.resources.clear();
        self.scopes.clear();
        [
            structure(
                resource,
                vec![
                    self.resource.finish(field_type(resource, 0), from),
                    self.resource_dropped.finish::<Int32Type>(),
                ],
            ),
            self.resource_schema_url.finish_places(&from.terms),
            structure(
                scope,
                vec![
                    self.scope_name.finish_places(&from.terms),
                    self.scope_version.finish_places(&from.terms),
                    self.scope.finish(field_type(scope, 2), from),
                    self.scope_dropped.finish::<Int32Type>(),
                ],
            ),
            self.span_schema_url.finish_places(&from.terms),
        ]
    }
}

fn address<T>(shared: &Arc<T>) -> usize {
    Arc::as_ptr(shared).addr()
}

impl ResourceRow {
    fn of(version: SchemaVersion, resource: &Resource, shared: &mut Shared) -> Result<Self, Fault> {
        let service = resource
            .attributes()
            .get(SERVICE_NAME)
            .and_then(AnyValueRef::as_str);
        Ok(Self {
            bag: SharedBag::of(version, resource.attributes(), shared)?,
            dropped: saturated(resource.dropped_attributes_count),
            schema_url: shared.terms.optional(resource.schema_url.as_deref())?,
            service: shared.terms.optional(service)?,
        })
    }
}

impl ScopeRow {
    fn of(version: SchemaVersion, scope: &Scope, shared: &mut Shared) -> Result<Self, Fault> {
        Ok(Self {
            name: shared.terms.optional(Some(&scope.name))?,
            version: shared.terms.optional(scope.version.as_deref())?,
            bag: SharedBag::of(version, Attributes::record(&scope.attributes), shared)?,
            dropped: saturated(scope.dropped_attributes_count),
            schema_url: shared.terms.optional(scope.schema_url.as_deref())?,
        })
    }
}
