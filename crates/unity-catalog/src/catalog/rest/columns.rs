//! Columns as Unity Catalog describes them (REST API 2.1, `ColumnInfo`): every type three times, as
//! a name, as SQL text, and as the whole field in Spark's JSON.

use deltalake::kernel::{DataType, PrimitiveType, StructField, StructType};
use serde_json::{Value, json};

/// The columns of a table. Of each the server wants all of these fields: one that is missing is a
/// 500, or a 400 if it does not agree with the others.
pub(super) fn columns(schema: &StructType) -> Result<Vec<Value>, serde_json::Error> {
    schema
        .fields()
        .enumerate()
        .map(|(position, field)| column(position, field))
        .collect()
}

fn column(position: usize, field: &StructField) -> Result<Value, serde_json::Error> {
    let mut column = json!({
        "name": field.name,
        "type_name": type_name(&field.data_type),
        "type_text": type_text(&field.data_type),
        "type_json": serde_json::to_string(field)?,
        "position": position,
        "nullable": field.nullable,
    });
    if let DataType::Primitive(PrimitiveType::Decimal(decimal)) = &field.data_type {
        column["type_precision"] = decimal.precision().into();
        column["type_scale"] = decimal.scale().into();
    }
    if let Some(comment) = field.metadata.get("comment") {
        column["comment"] = comment.to_string().into();
    }
    Ok(column)
}

/// The API's enumeration of types.
fn type_name(data_type: &DataType) -> &'static str {
    match data_type {
        DataType::Array(_) => "ARRAY",
        DataType::Struct(_) => "STRUCT",
        DataType::Map(_) => "MAP",
        DataType::Variant(_) => "VARIANT",
        DataType::Primitive(primitive) => match primitive {
            PrimitiveType::String => "STRING",
            PrimitiveType::Long => "LONG",
            PrimitiveType::Integer => "INT",
            PrimitiveType::Short => "SHORT",
            PrimitiveType::Byte => "BYTE",
            PrimitiveType::Float => "FLOAT",
            PrimitiveType::Double => "DOUBLE",
            PrimitiveType::Boolean => "BOOLEAN",
            PrimitiveType::Binary => "BINARY",
            PrimitiveType::Date => "DATE",
            PrimitiveType::Timestamp => "TIMESTAMP",
            PrimitiveType::TimestampNtz => "TIMESTAMP_NTZ",
            PrimitiveType::Decimal(_) => "DECIMAL",
            // Spans have no others; the server refuses the column.
            _ => "UNKNOWN_COLUMN_TYPE_NAME",
        },
    }
}

/// A type as Spark's catalog writes it.
fn type_text(data_type: &DataType) -> String {
    match data_type {
        DataType::Primitive(primitive) => match primitive {
            PrimitiveType::Long => "bigint".to_owned(),
            PrimitiveType::Integer => "int".to_owned(),
            PrimitiveType::Short => "smallint".to_owned(),
            PrimitiveType::Byte => "tinyint".to_owned(),
            other => other.to_string(),
        },
        DataType::Array(array) => format!("array<{}>", type_text(array.element_type())),
        DataType::Map(map) => format!(
            "map<{},{}>",
            type_text(map.key_type()),
            type_text(map.value_type())
        ),
        DataType::Struct(fields) => {
            let fields = fields.fields();
            let fields: Vec<String> = fields
                .map(|f| format!("{}:{}", f.name, type_text(&f.data_type)))
                .collect();
            format!("struct<{}>", fields.join(","))
        }
        DataType::Variant(_) => "variant".to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use deltalake::kernel::{ArrayType, MapType};

    #[test]
    fn as_the_server_wants_them() {
        let event = StructType::try_new([
            StructField::nullable("time_unix_nano", DataType::LONG),
            StructField::nullable("attributes", DataType::unshredded_variant()),
        ])
        .unwrap();
        let schema = StructType::try_new([
            StructField::nullable("trace_id", DataType::STRING),
            StructField::not_null("flags", DataType::INTEGER),
            StructField::nullable("time", DataType::TIMESTAMP),
            StructField::nullable("date", DataType::DATE),
            StructField::nullable("attributes", DataType::unshredded_variant()),
            StructField::nullable("events", ArrayType::new(event, true)),
            StructField::nullable(
                "tags",
                MapType::new(DataType::STRING, DataType::STRING, true),
            ),
        ])
        .unwrap();
        let columns = columns(&schema).unwrap();
        let said: Vec<(&str, &str, Value)> = columns
            .iter()
            .map(|c| {
                let whole: Value = serde_json::from_str(c["type_json"].as_str().unwrap()).unwrap();
                assert_eq!(whole["name"], c["name"]);
                assert_eq!(whole["nullable"], c["nullable"]);
                assert_eq!(whole["metadata"], json!({}));
                (
                    c["type_name"].as_str().unwrap(),
                    c["type_text"].as_str().unwrap(),
                    whole["type"].clone(),
                )
            })
            .collect();
        let variant =
            json!({"name": "attributes", "type": "variant", "nullable": true, "metadata": {}});
        let nanos =
            json!({"name": "time_unix_nano", "type": "long", "nullable": true, "metadata": {}});
        assert_eq!(
            said,
            [
                ("STRING", "string", json!("string")),
                ("INT", "int", json!("integer")),
                ("TIMESTAMP", "timestamp", json!("timestamp")),
                ("DATE", "date", json!("date")),
                ("VARIANT", "variant", json!("variant")),
                (
                    "ARRAY",
                    "array<struct<time_unix_nano:bigint,attributes:variant>>",
                    json!({
                        "type": "array",
                        "elementType": {"type": "struct", "fields": [nanos, variant]},
                        "containsNull": true,
                    })
                ),
                (
                    "MAP",
                    "map<string,string>",
                    json!({
                        "type": "map",
                        "keyType": "string",
                        "valueType": "string",
                        "valueContainsNull": true,
                    })
                ),
            ]
        );
        let positions: Vec<_> = columns.iter().map(|c| c["position"].as_u64()).collect();
        assert_eq!(positions, (0..7).map(Some).collect::<Vec<_>>());
        assert_eq!(columns[1]["nullable"], false);
    }
}
