use super::*;
use crate::schema::SchemaVersion;

const BEGIN: &str = "<!-- table features: begin -->";
const END: &str = "<!-- table features: end -->";

fn documented() -> String {
    let mut text = "\n| feature | rows are | how, or why not |\n|---|---|---|\n".to_owned();
    for feature in FEATURES {
        let does = match feature.rule {
            Rule::Kept => "written",
            Rule::Unless(_) => "written unless used",
            Rule::Refused => "refused",
        };
        text.push_str(&format!(
            "| `{}` | {does} | {} |\n",
            feature.name, feature.why
        ));
    }
    text
}

#[test]
fn the_documentation_lists_the_features_as_they_are() {
    let page = include_str!("../../../../../../docs/unity-catalog.md");
    let list = page
        .split_once(BEGIN)
        .and_then(|(_, rest)| rest.split_once(END));
    let (list, _) = list.expect("the page has the list between its marks");
    assert_eq!(
        list,
        documented(),
        "write this between the marks:\n{}",
        documented()
    );
}

#[test]
fn no_feature_is_there_twice_and_those_without_a_list_are_known() {
    let mut names: Vec<_> = FEATURES.iter().map(|f| f.name).collect();
    names.sort_unstable();
    let count = names.len();
    names.dedup();
    assert_eq!(names.len(), count);
    for (_, name) in IMPLIED {
        assert!(names.contains(&name), "{name}");
    }
}

fn used(name: &str, fields: Vec<StructField>, properties: &[(&str, &str)]) -> Option<Obstacle> {
    let schema = StructType::try_new(fields).unwrap();
    let properties = properties
        .iter()
        .map(|(k, v)| ((*k).to_owned(), (*v).to_owned()));
    let table = Use {
        schema: &schema,
        properties: &properties.collect(),
        rows: TableSchema::Spans(SchemaVersion::V2),
    };
    obstacle(name, &table)
}

fn column(name: &str, key: &str, value: &str) -> Vec<StructField> {
    let field = StructField::nullable(name, DataType::STRING);
    let inner = field.with_metadata([(key, MetadataValue::String(value.to_owned()))]);
    vec![inner]
}

#[test]
fn only_a_use_is_in_the_way() {
    for feature in FEATURES {
        let obstacle = used(feature.name, column("name", "comment", "x"), &[]);
        let expected = matches!(feature.rule, Rule::Refused);
        assert_eq!(obstacle.is_some(), expected, "{}", feature.name);
    }
    for unknown in ["somethingNew", "collations-preview", "protocol 4/8"] {
        assert!(used(unknown, Vec::new(), &[]).is_some(), "{unknown}");
    }
}

#[test]
fn a_use_is_named_with_what_ends_it() {
    let check = used(
        "checkConstraints",
        Vec::new(),
        &[("delta.constraints.positive", "a > 0")],
    );
    let check = check.unwrap();
    assert_eq!(check.what.as_deref(), Some("positive"));
    assert_eq!(
        check.mend.as_deref(),
        Some("ALTER TABLE … DROP CONSTRAINT positive")
    );
    let iceberg = used(
        "icebergCompatV2",
        Vec::new(),
        &[("delta.enableIcebergCompatV2", "TRUE")],
    );
    assert!(iceberg.unwrap().mend.unwrap().contains("= 'false'"));
    let off = [("delta.enableIcebergCompatV2", "false")];
    assert_eq!(used("icebergCompatV2", Vec::new(), &off), None);
    for (feature, key) in [
        ("invariants", "delta.invariants"),
        ("generatedColumns", "delta.generationExpression"),
        ("identityColumns", "delta.identity.start"),
    ] {
        // Also within a struct in a list.
        let inner = StructType::try_new(column("deep", key, "1")).unwrap();
        let list = delta_kernel::schema::ArrayType::new(inner, true);
        let outer = vec![StructField::nullable("list", list)];
        for fields in [column("deep", key, "1"), outer] {
            let obstacle = used(feature, fields, &[]).unwrap();
            assert_eq!(obstacle.what.as_deref(), Some("column deep"), "{feature}");
            assert_eq!(obstacle.mend, None);
        }
    }
}

#[test]
fn a_default_matters_where_rows_have_no_value() {
    let default = |name, value| {
        used(
            "allowColumnDefaults",
            column(name, "CURRENT_DEFAULT", value),
            &[],
        )
    };
    // Every row has a value for the documented columns.
    assert_eq!(default("name", "'work'"), None);
    assert_eq!(default("tenant", " null "), None);
    let obstacle = default("tenant", "'a'").unwrap();
    assert_eq!(
        obstacle.mend.as_deref(),
        Some("ALTER TABLE … ALTER COLUMN tenant DROP DEFAULT")
    );
}
