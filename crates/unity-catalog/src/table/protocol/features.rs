//! Table features: which of them an append of rows keeps, and why (Delta protocol, "Table
//! Features"). `docs/unity-catalog.md` has this list as a table.

use crate::schema::{TableSchema, recognised};
use delta_kernel::schema::{DataType, MetadataValue, StructField, StructType};
use std::collections::HashMap;

/// What a feature asks of whoever appends rows.
struct Feature {
    name: &'static str,
    rule: Rule,
    /// What we do, and why that is enough; or why it is not.
    #[cfg_attr(
        not(test),
        expect(dead_code, reason = "the documentation is checked by it")
    )]
    why: &'static str,
}

#[derive(Clone, Copy)]
enum Rule {
    /// It is written.
    Kept,
    /// It is written, unless the table makes use of it in a way that appended rows would break.
    Unless(fn(&Use<'_>) -> Option<Obstacle>),
    /// It is refused.
    Refused,
}

/// What a table says of itself.
pub(super) struct Use<'a> {
    pub(super) schema: &'a StructType,
    pub(super) properties: &'a HashMap<String, String>,
    pub(super) rows: TableSchema,
}

/// What keeps rows out of a table.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Obstacle {
    /// The use that is made of a feature.
    pub(super) what: Option<String>,
    /// What ends it; nothing where that takes another table.
    pub(super) mend: Option<String>,
}

/// The features that writer versions before 7 stand for, with the version since which they do.
pub(super) const IMPLIED: [(i32, &str); 7] = [
    (2, "appendOnly"),
    (2, "invariants"),
    (3, "checkConstraints"),
    (4, "changeDataFeed"),
    (4, "generatedColumns"),
    (5, "columnMapping"),
    (6, "identityColumns"),
];

const fn kept(name: &'static str, why: &'static str) -> Feature {
    Feature {
        name,
        rule: Rule::Kept,
        why,
    }
}

const fn unless(
    name: &'static str,
    used: fn(&Use<'_>) -> Option<Obstacle>,
    why: &'static str,
) -> Feature {
    Feature {
        name,
        rule: Rule::Unless(used),
        why,
    }
}

const fn refused(name: &'static str, why: &'static str) -> Feature {
    Feature {
        name,
        rule: Rule::Refused,
        why,
    }
}

const FEATURES: &[Feature] = &[
    kept("appendOnly", "rows are only added"),
    kept(
        "changeDataFeed",
        "rows that are only added need no change files",
    ),
    kept(
        "checkpointProtection",
        "commits and checkpoints of the newest version only; `clean_log` is refused",
    ),
    kept(
        "clustering",
        "files have statistics of the clustering columns; `OPTIMIZE` by an engine clusters them",
    ),
    kept(
        "columnMapping",
        "by name and by id: files have the physical names and field ids",
    ),
    kept(
        "deletionVectors",
        "new files have none, and those of others are left alone",
    ),
    kept("domainMetadata", "domains are left as they are"),
    kept(
        "inCommitTimestamp",
        "each commit has a timestamp above that of the one before",
    ),
    kept(
        "materializePartitionColumns",
        "partitioned tables are refused for themselves",
    ),
    kept(
        "rowTracking",
        "each file has its first row's number and its version, each commit the highest number",
    ),
    kept(
        "timestampNtz",
        "no column of spans has this type; others are NULL",
    ),
    kept(
        "typeWidening",
        "the types of the columns are compared as they are now",
    ),
    kept("typeWidening-preview", "as `typeWidening`"),
    kept(
        "v2Checkpoint",
        "checkpoints are written as the table has them",
    ),
    kept(
        "vacuumProtocolCheck",
        "`remove_orphans` checks the protocol first",
    ),
    kept(
        "variantShredding",
        "writers may always write VARIANT unshredded",
    ),
    kept("variantShredding-preview", "as `variantShredding`"),
    kept("variantType", "VARIANT is written unshredded"),
    kept("variantType-preview", "as `variantType`"),
    unless(
        "allowColumnDefaults",
        defaults,
        "refused where a column that spans do not have has a default other than NULL; `ALTER TABLE … ALTER COLUMN … DROP DEFAULT` mends it",
    ),
    unless(
        "checkConstraints",
        constraints,
        "refused where there is a constraint: it is SQL, and no engine is here to evaluate it; `ALTER TABLE … DROP CONSTRAINT …` mends it",
    ),
    unless(
        "generatedColumns",
        generated,
        "refused where a column is generated: its expression is SQL",
    ),
    unless(
        "icebergCompatV1",
        |t| enabled(t, "delta.enableIcebergCompatV1"),
        "refused where it is enabled: it forbids lists and maps",
    ),
    unless(
        "icebergCompatV2",
        |t| enabled(t, "delta.enableIcebergCompatV2"),
        "refused where it is enabled: it forbids VARIANT, and its nested field ids are not written; setting the property `delta.enableIcebergCompatV2` to `false` mends it",
    ),
    unless(
        "icebergCompatV3",
        |t| enabled(t, "delta.enableIcebergCompatV3"),
        "refused where it is enabled: its nested field ids are not written; setting the property `delta.enableIcebergCompatV3` to `false` mends it",
    ),
    unless(
        "icebergWriterCompatV1",
        |t| enabled(t, "delta.enableIcebergWriterCompatV1"),
        "as `icebergCompatV2`",
    ),
    unless(
        "identityColumns",
        identities,
        "refused where a column is one: its numbers are given out in the table's metadata",
    ),
    unless(
        "invariants",
        invariants,
        "refused where a column has one: it is SQL. NOT NULL is fine where spans always have a value",
    ),
    refused("catalogManaged", "commits go through the catalog"),
    refused("catalogOwned-preview", "as `catalogManaged`"),
    refused(
        "coordinatedCommits-preview",
        "commits go through a coordinator",
    ),
];

/// What keeps rows out of a table with this feature; `None` if nothing does. Features that are not
/// known keep them out.
pub(super) fn obstacle(name: &str, table: &Use<'_>) -> Option<Obstacle> {
    match FEATURES.iter().find(|f| f.name == name).map(|f| f.rule) {
        Some(Rule::Kept) => None,
        Some(Rule::Unless(used)) => used(table),
        Some(Rule::Refused) | None => Some(Obstacle {
            what: None,
            mend: None,
        }),
    }
}

fn constraints(table: &Use<'_>) -> Option<Obstacle> {
    let names = table.properties.keys();
    let mut names: Vec<_> = names
        .filter_map(|k| k.strip_prefix("delta.constraints."))
        .collect();
    names.sort_unstable();
    let drops = names
        .iter()
        .map(|n| format!("ALTER TABLE … DROP CONSTRAINT {n}"));
    let mend = drops.collect::<Vec<_>>().join("; ");
    (!names.is_empty()).then(|| Obstacle {
        what: Some(names.join(", ")),
        mend: Some(mend),
    })
}

fn invariants(table: &Use<'_>) -> Option<Obstacle> {
    marked(table, "delta.invariants")
}

fn generated(table: &Use<'_>) -> Option<Obstacle> {
    marked(table, "delta.generationExpression")
}

fn identities(table: &Use<'_>) -> Option<Obstacle> {
    marked(table, "delta.identity.start")
}

/// The columns whose metadata has a key.
fn marked(table: &Use<'_>, key: &str) -> Option<Obstacle> {
    let mut found = Vec::new();
    each_field(table.schema, &mut |field| {
        if field.metadata().contains_key(key) {
            found.push(format!("column {}", field.name()));
        }
    });
    (!found.is_empty()).then(|| Obstacle {
        what: Some(found.join(", ")),
        mend: None,
    })
}

/// Columns that rows have no value for, and that have a default. All others get a value, which may
/// be NULL.
fn defaults(table: &Use<'_>) -> Option<Obstacle> {
    let mut found = Vec::new();
    for field in table.schema.fields() {
        let default = match field.metadata().get("CURRENT_DEFAULT") {
            None => continue,
            Some(MetadataValue::String(text)) => text.trim(),
            Some(_) => "",
        };
        let ours = recognised(table.rows, field.name());
        if !ours && !default.eq_ignore_ascii_case("null") {
            found.push(field.name().as_str());
        }
    }
    let drops = found
        .iter()
        .map(|name| format!("ALTER TABLE … ALTER COLUMN {name} DROP DEFAULT"));
    let mend = drops.collect::<Vec<_>>().join("; ");
    (!found.is_empty()).then(|| Obstacle {
        what: Some(format!("default of {}", found.join(", "))),
        mend: Some(mend),
    })
}

/// A property that is set, and that nothing but the property turns on.
fn enabled(table: &Use<'_>, property: &str) -> Option<Obstacle> {
    let value = table.properties.get(property)?;
    is_true(value).then(|| Obstacle {
        what: Some("enabled".to_owned()),
        mend: Some(format!(
            "ALTER TABLE … SET TBLPROPERTIES ('{property}' = 'false')"
        )),
    })
}

/// Whether a property's value is true, as Delta reads it.
pub(super) fn is_true(value: &str) -> bool {
    value.trim().eq_ignore_ascii_case("true")
}

fn each_field(schema: &StructType, found: &mut dyn FnMut(&StructField)) {
    for field in schema.fields() {
        found(field);
        each_within(field.data_type(), found);
    }
}

fn each_within(data_type: &DataType, found: &mut dyn FnMut(&StructField)) {
    match data_type {
        DataType::Struct(inner) => each_field(inner, found),
        DataType::Array(array) => each_within(array.element_type(), found),
        DataType::Map(map) => {
            each_within(map.key_type(), found);
            each_within(map.value_type(), found);
        }
        _ => {}
    }
}

#[cfg(test)]
mod tests;
