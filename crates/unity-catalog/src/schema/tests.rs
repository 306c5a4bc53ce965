use super::*;
use SchemaVersion::{V1, V2};
use deltalake::kernel::StructField;

fn properties(version: &str) -> HashMap<String, String> {
    HashMap::from([(VERSION_PROPERTY.to_owned(), version.to_owned())])
}

/// The shape of a table of spans.
fn spans(
    table: &StructType,
    properties: &HashMap<String, String>,
) -> Result<TableSchema, Mismatch> {
    recognise(TableKind::Spans, table, properties)
}

/// The schema with one top-level column changed, or left out.
fn edited(
    version: SchemaVersion,
    column: &str,
    edit: impl Fn(StructField) -> Option<StructField>,
) -> StructType {
    let fields = TableSchema::Spans(version)
        .delta()
        .into_iter()
        .filter_map(|f| if f.name == column { edit(f) } else { Some(f) });
    StructType::try_new(fields).unwrap()
}

#[test]
fn the_documented_columns_in_the_documented_order() {
    let names: Vec<String> = TableSchema::Spans(V2)
        .delta()
        .fields()
        .map(|f| f.name.clone())
        .collect();
    assert_eq!(
        names.join(" "),
        "record_id time date service_name trace_id span_id trace_state parent_span_id flags name \
         kind start_time_unix_nano end_time_unix_nano attributes dropped_attributes_count events \
         dropped_events_count links dropped_links_count status resource resource_schema_url \
         instrumentation_scope span_schema_url"
    );
    let older: Vec<String> = TableSchema::Spans(V1)
        .delta()
        .fields()
        .map(|f| f.name.clone())
        .collect();
    assert_eq!(older, names[4..]);
}

#[test]
fn delta_spells_the_schema_as_documented() {
    let json = serde_json::to_value(TableSchema::Spans(V2).delta()).unwrap();
    let of = |name: &str| {
        let fields = json["fields"].as_array().unwrap();
        fields.iter().find(|f| f["name"] == name).unwrap()["type"].clone()
    };
    let field = |name: &str, data_type: serde_json::Value| serde_json::json!({"name": name, "type": data_type, "nullable": true, "metadata": {}});
    assert_eq!(of("flags"), "integer");
    assert_eq!(of("time"), "timestamp");
    assert_eq!(of("date"), "date");
    assert_eq!(of("attributes"), "variant");
    assert_eq!(
        of("status"),
        serde_json::json!({"type": "struct", "fields": [
            field("message", "string".into()), field("code", "string".into())]})
    );
    assert_eq!(
        of("links"),
        serde_json::json!({"type": "array", "containsNull": true, "elementType": {
            "type": "struct", "fields": [
                field("trace_id", "string".into()),
                field("span_id", "string".into()),
                field("trace_state", "string".into()),
                field("attributes", "variant".into()),
                field("dropped_attributes_count", "integer".into()),
                field("flags", "integer".into())]}})
    );
}

#[test]
fn tables_of_both_shapes_are_recognised_with_and_without_the_property() {
    for version in [V1, V2] {
        let table = TableSchema::Spans(version).delta();
        for properties in [HashMap::new(), properties(version.property())] {
            assert_eq!(spans(&table, &properties), Ok(TableSchema::Spans(version)));
        }
        // As read back from a log.
        let json = serde_json::to_string(&table).unwrap();
        let read: StructType = serde_json::from_str(&json).unwrap();
        assert_eq!(
            spans(&read, &HashMap::new()),
            Ok(TableSchema::Spans(version))
        );
        let reversed = StructType::try_new(table.into_iter().collect::<Vec<_>>().into_iter().rev());
        assert_eq!(
            spans(&reversed.unwrap(), &HashMap::new()),
            Ok(TableSchema::Spans(version))
        );
    }
}

#[test]
fn comments_and_not_null_are_no_difference_where_rows_are_never_null() {
    let table = edited(V2, "trace_id", |f| {
        Some(StructField::not_null(f.name, f.data_type).with_metadata([("comment", "the trace")]))
    });
    assert_eq!(spans(&table, &HashMap::new()), Ok(TableSchema::Spans(V2)));
}

#[test]
fn every_difference_is_named() {
    let none = HashMap::new();
    let refused = |table: &StructType| spans(table, &none).unwrap_err();
    let missing = refused(&edited(V2, "links", |_| None));
    assert_eq!(missing.missing.len(), 1);
    assert!(missing.missing[0].starts_with("`links` ARRAY<STRUCT<trace_id: STRING"));
    let narrow = edited(V2, "start_time_unix_nano", |f| {
        Some(StructField::nullable(f.name, DataType::INTEGER))
    });
    assert_eq!(
        refused(&narrow).different,
        ["`start_time_unix_nano` is INT instead of BIGINT"]
    );
    let root = edited(V1, "parent_span_id", |f| {
        Some(StructField::not_null(f.name, f.data_type))
    });
    let root = refused(&root);
    assert_eq!(root.expected, TableSchema::Spans(V1));
    assert_eq!(
        root.different,
        ["`parent_span_id` is NOT NULL, but spans may have none"]
    );
    let mut fields: Vec<StructField> = TableSchema::Spans(V2).delta().into_iter().collect();
    fields.push(StructField::not_null("tenant", DataType::STRING));
    let required = refused(&StructType::try_new(fields).unwrap());
    assert_eq!(required.required, ["`tenant` STRING"]);
    assert_eq!(
        required.to_string(),
        "the table is not an OpenTelemetry spans table of version v2: columns that are NOT NULL and \
         that spans do not have `tenant` STRING"
    );
}

#[test]
fn columns_that_somebody_added_are_no_difference() {
    for version in [V1, V2] {
        let mut fields: Vec<StructField> =
            TableSchema::Spans(version).delta().into_iter().collect();
        let void = DataType::Primitive(deltalake::kernel::PrimitiveType::Void);
        fields.insert(0, StructField::nullable("tenant", DataType::STRING));
        fields.insert(7, StructField::nullable("cost", DataType::DOUBLE));
        fields.push(StructField::nullable("nothing", void.clone()));
        let table = StructType::try_new(fields.clone()).unwrap();
        assert_eq!(
            spans(&table, &HashMap::new()),
            Ok(TableSchema::Spans(version))
        );
        // VOID alone is in no file; within other types no file can be without it.
        let list = deltalake::kernel::ArrayType::new(void, true);
        fields.push(StructField::nullable("nothings", list));
        let refused = spans(&StructType::try_new(fields).unwrap(), &HashMap::new());
        assert!(refused.unwrap_err().to_string().contains("`nothings`"));
    }
}

#[test]
fn differences_inside_of_nested_columns_are_named_by_their_path() {
    let status = edited(V2, "status", |f| {
        let fields = [
            StructField::nullable("code", DataType::INTEGER),
            StructField::nullable("reason", DataType::STRING),
        ];
        Some(StructField::nullable(
            f.name,
            StructType::try_new(fields).unwrap(),
        ))
    });
    let found = spans(&status, &HashMap::new()).unwrap_err();
    assert_eq!(found.missing, ["`status.message` STRING"]);
    assert_eq!(found.added, ["`status.reason` STRING"]);
    assert!(found.to_string().contains("`status.reason`"), "{found}");
    assert_eq!(found.different, ["`status.code` is INT instead of STRING"]);
}

#[test]
fn the_property_may_only_agree() {
    let table = TableSchema::Spans(V2).delta();
    let wrong = spans(&table, &properties("v1")).unwrap_err();
    assert_eq!(wrong.expected, TableSchema::Spans(V1));
    assert!(
        wrong.added.contains(&"`record_id` STRING".to_owned()),
        "{wrong}"
    );
    assert!(
        wrong
            .different
            .contains(&"`attributes` is VARIANT instead of MAP<STRING, STRING>".to_owned())
    );
    let newer = spans(&table, &properties("v3")).unwrap_err();
    assert_eq!(
        newer.different,
        ["the property otel.schemaVersion is `v3`, which is unknown"]
    );
    assert!(newer.missing.is_empty() && newer.required.is_empty());
}

#[test]
fn a_table_of_something_else_is_compared_to_the_newer_shape() {
    let other = StructType::try_new([StructField::nullable("id", DataType::LONG)]).unwrap();
    let found = spans(&other, &HashMap::new()).unwrap_err();
    assert_eq!(found.expected, TableSchema::Spans(V2));
    assert_eq!((found.missing.len(), found.added.len()), (24, 1));
}
