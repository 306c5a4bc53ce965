//! The name of a table, as Unity Catalog writes it and MLflow chooses it.

use crate::error::{BUILD, Fault};
use std::fmt;
use trace_destination_core::{ErrorKind, Hole, NameRule};

/// The table of a schema that holds one experiment's traces: MLflow's older way.
const BY_SCHEMA: &str = "mlflow_experiment_trace_otel_spans";
/// What MLflow puts behind a prefix.
const SUFFIX: &str = "_otel_spans";
/// And for annotations. Schemas in the older way have none in MLflow; here they have one of the same
/// name.
const ANNOTATIONS_SUFFIX: &str = "_otel_annotations";
/// Longest part of a name (`ValidationUtils.java` of unitycatalog 0.6).
const MAX_PART: usize = 255;

/// What Unity Catalog and MLflow put behind a prefix, at most (`_otel_annotations`).
const LONGEST_SUFFIX: usize = ANNOTATIONS_SUFFIX.len();
/// The prefix whose table is [`BY_SCHEMA`].
const PREFIX_OF_SCHEMA: &str = "mlflow_experiment_trace";
/// Schemas that every catalog has.
const OWN_SCHEMAS: [&str; 2] = ["default", "information_schema"];

/// Where names may stand in `uc:` URIs.
pub(crate) fn holes() -> Vec<Hole> {
    vec![
        Hole::name(NameRule::Identifier)
            .in_parts('.', 1..=1)
            .with_check(schema),
        Hole::name(NameRule::Identifier)
            .in_parts('.', 2..=2)
            .with_max_len(MAX_PART - LONGEST_SUFFIX)
            .with_check(prefix),
    ]
}

fn schema(name: &str) -> Result<(), &'static str> {
    match OWN_SCHEMAS.contains(&name) {
        true => Err("every catalog has a schema of this name"),
        false => visible(name),
    }
}

fn prefix(name: &str) -> Result<(), &'static str> {
    match name == PREFIX_OF_SCHEMA {
        true => Err("its table is the one of the whole schema"),
        false => visible(name),
    }
}

/// Hadoop and Spark pass over folders that begin with `_`.
fn visible(name: &str) -> Result<(), &'static str> {
    match name.starts_with(|c: char| c.is_ascii_alphanumeric()) {
        true => Ok(()),
        false => Err("it does not begin with a letter or digit"),
    }
}

/// `catalog.schema.table`, each part checked.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(crate) struct TableName {
    pub(crate) catalog: String,
    pub(crate) schema: String,
    pub(crate) table: String,
}

impl TableName {
    /// The table for `catalog.schema`, or for `catalog.schema.prefix`.
    pub(crate) fn of(catalog: &str, schema: &str, prefix: Option<&str>) -> Result<Self, Fault> {
        let table = prefix.map_or_else(|| BY_SCHEMA.to_owned(), |p| format!("{p}{SUFFIX}"));
        for (what, text) in [
            ("catalog", catalog),
            ("schema", schema),
            ("prefix", prefix.unwrap_or("-")),
            ("table", &table),
        ] {
            let valid = !text.is_empty()
                && text.len() <= MAX_PART
                && text
                    .bytes()
                    .all(|b| b.is_ascii_alphanumeric() || b"_-@".contains(&b));
            if !valid {
                // Letters that look like those of ASCII are shown by their number.
                let beyond = text.chars().find(|c| !c.is_ascii());
                let beyond = beyond.map(|c| format!(": U+{:04X} is beyond ASCII", u32::from(c)));
                return Err(Fault::new(
                    ErrorKind::InvalidConfig,
                    BUILD,
                    format!(
                        "the {what} `{}` is not a name{}",
                        text.escape_debug(),
                        beyond.unwrap_or_default()
                    ),
                )
                .mend("use 1 to 255 of the letters A to Z and a to z, digits, `_`, `-` and `@` for each part of uc://catalog.schema.prefix"));
            }
        }
        Ok(Self {
            catalog: catalog.to_owned(),
            schema: schema.to_owned(),
            table,
        })
    }
}

impl TableName {
    /// The table of annotations beside this one of spans; none if its name would be too long.
    pub(crate) fn annotations(&self) -> Option<Self> {
        let prefix = self.table.strip_suffix(SUFFIX)?;
        let table = format!("{prefix}{ANNOTATIONS_SUFFIX}");
        (table.len() <= MAX_PART).then(|| Self {
            table,
            ..self.clone()
        })
    }
}

impl fmt::Display for TableName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{}.{}", self.catalog, self.schema, self.table)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn named_as_mlflow_does() {
        let by_schema = TableName::of("main", "traces", None).unwrap();
        assert_eq!(
            by_schema.to_string(),
            "main.traces.mlflow_experiment_trace_otel_spans"
        );
        let by_prefix = TableName::of("main", "traces", Some("shop")).unwrap();
        assert_eq!(by_prefix.to_string(), "main.traces.shop_otel_spans");
        let annotations = |name: &TableName| name.annotations().unwrap().to_string();
        assert_eq!(annotations(&by_prefix), "main.traces.shop_otel_annotations");
        assert_eq!(
            annotations(&by_schema),
            "main.traces.mlflow_experiment_trace_otel_annotations"
        );
    }

    #[test]
    fn what_no_catalog_takes_is_refused() {
        let long = "x".repeat(250);
        for (catalog, schema, prefix) in [
            ("", "s", None),
            ("c", "a b", None),
            ("c", "..", None),
            ("c", "s", Some("")),
            ("c", "s", Some("ü")),
            // Letters that fold to ASCII elsewhere.
            ("c", "s", Some("\u{212a}raft")),
            ("c", "\u{130}", None),
            ("\u{131}", "s", None),
            ("c", "s", Some("\u{ff41}cme")),
            ("c", "s", Some("stra\u{df}e")),
            ("c", "s", Some("a/b")),
            ("c", "s", Some(long.as_str())),
        ] {
            let error = TableName::of(catalog, schema, prefix).unwrap_err();
            assert_eq!(error.kind(), ErrorKind::InvalidConfig);
            assert!(error.to_string().contains("is not a name"), "{error}");
        }
        let kelvin = TableName::of("c", "s", Some("\u{212a}raft")).unwrap_err();
        assert!(kelvin.to_string().contains("U+212A"), "{kelvin}");
        assert!(kelvin.mend_hint().is_some_and(|m| m.contains("A to Z")));
    }

    #[test]
    fn names_of_tenants_that_stand_for_something_else_are_refused() {
        for name in ["default", "information_schema", "_delta_log", "-", ""] {
            assert!(schema(name).is_err(), "{name}");
        }
        assert!(prefix("mlflow_experiment_trace").is_err());
        assert!(prefix("default").is_ok() && schema("mlflow_experiment_trace").is_ok());
    }

    /// The longest name of a tenant leaves room for everything that is put behind it.
    #[test]
    fn every_table_of_a_prefix_has_a_name_that_fits() {
        let longest = "x".repeat(MAX_PART - LONGEST_SUFFIX);
        let spans = TableName::of("c", "s", Some(&longest)).unwrap();
        assert_eq!(spans.annotations().unwrap().table.len(), MAX_PART);
        let longer = TableName::of("c", "s", Some(&format!("{longest}x"))).unwrap();
        assert_eq!(longer.annotations(), None);
        assert_eq!(LONGEST_SUFFIX, 17);
    }
}
