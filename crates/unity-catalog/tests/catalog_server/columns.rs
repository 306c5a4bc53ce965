//! What the real server checks of a new table's columns (0.6, `ColumnUtils.validateTypeJson` and
//! what the database wants).

use super::Refusal;
use serde_json::Value;
use std::collections::BTreeSet;

const TYPE_NAMES: &[&str] = &[
    "BOOLEAN",
    "BYTE",
    "SHORT",
    "INT",
    "LONG",
    "FLOAT",
    "DOUBLE",
    "DATE",
    "TIMESTAMP",
    "TIMESTAMP_NTZ",
    "STRING",
    "BINARY",
    "DECIMAL",
    "INTERVAL",
    "ARRAY",
    "STRUCT",
    "MAP",
    "CHAR",
    "NULL",
    "USER_DEFINED_TYPE",
    "TABLE_TYPE",
    "VARIANT",
];

const PRIMITIVES: &[&str] = &[
    "string",
    "long",
    "integer",
    "short",
    "byte",
    "float",
    "double",
    "boolean",
    "date",
    "timestamp",
    "timestamp_ntz",
    "binary",
    "variant",
];

/// The column as it is stored.
pub(super) fn check(column: &Value) -> Result<Value, Refusal> {
    let name = column["name"].as_str().unwrap_or("<unknown>");
    let wrong =
        |what: String| Refusal::invalid(format!("Invalid type_json for column {name}: {what}"));
    // An enumeration that is not known does not get past the parser of the request.
    if column["type_name"]
        .as_str()
        .is_none_or(|n| !TYPE_NAMES.contains(&n))
    {
        return Err(Refusal::invalid(format!(
            "no such type: {}",
            column["type_name"]
        )));
    }
    let text = column["type_json"].as_str().unwrap_or_default();
    let field: Value =
        serde_json::from_str(text).map_err(|e| wrong(format!("Failed to parse typeJson: {e}")))?;
    check_field(&field, "type_json").map_err(wrong)?;
    if field["name"] != column["name"] {
        return Err(wrong(format!(
            "field name {} does not match column name {name}",
            field["name"]
        )));
    }
    if !column["nullable"].is_null() && field["nullable"] != column["nullable"] {
        return Err(wrong(
            "field nullable does not match column nullable".into(),
        ));
    }
    // Null here is a NullPointerException there.
    let Some(type_text) = column["type_text"].as_str() else {
        return Err(Refusal::internal("Cannot invoke \"String.toLowerCase()\""));
    };
    if !column["position"].is_u64() {
        return Err(Refusal::internal("Cannot invoke \"Integer.intValue()\""));
    }
    let mut stored = column.clone();
    stored["type_text"] = type_text.to_lowercase().into();
    Ok(stored)
}

fn check_field(field: &Value, path: &str) -> Result<(), String> {
    if field["name"].as_str().is_none_or(|n| n.trim().is_empty()) {
        return Err(format!("{path}.name is required."));
    }
    if field["type"].is_null() {
        return Err(format!("{path}.type is required."));
    }
    if !field["nullable"].is_boolean() {
        return Err(format!("{path}.nullable is required."));
    }
    if !field["metadata"].is_object() {
        return Err(format!("{path}.metadata is required."));
    }
    check_type(&field["type"], &format!("{path}.type"))
}

fn check_type(data_type: &Value, path: &str) -> Result<(), String> {
    if let Some(primitive) = data_type.as_str() {
        return match PRIMITIVES.contains(&primitive) || primitive.starts_with("decimal(") {
            true => Ok(()),
            false => Err(format!(
                "{path}: Unsupported Delta primitive type: {primitive}"
            )),
        };
    }
    let part = |key: &str| match &data_type[key] {
        Value::Null => Err(format!("{path}.{key} is required.")),
        value => Ok(value),
    };
    match data_type["type"].as_str() {
        Some("array") => {
            part("containsNull")?;
            check_type(part("elementType")?, path)
        }
        Some("map") => {
            part("valueContainsNull")?;
            check_type(part("keyType")?, path)?;
            check_type(part("valueType")?, path)
        }
        Some("struct") => {
            let fields = part("fields")?.as_array().cloned().unwrap_or_default();
            if fields.is_empty() {
                return Err(format!("{path}.fields must contain at least one field."));
            }
            let mut seen = BTreeSet::new();
            for field in &fields {
                check_field(field, path)?;
                let name = field["name"].as_str().unwrap_or_default().to_lowercase();
                if !seen.insert(name) {
                    return Err(format!("Duplicate field name (case-insensitive) in {path}"));
                }
            }
            Ok(())
        }
        _ => Err(format!("{path}: no such type: {data_type}")),
    }
}
