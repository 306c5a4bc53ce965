use super::*;
use crate::schema::{SchemaVersion, TableSchema};
use proptest::prelude::*;

/// What was seen: a text that goes on behind the greatest character.
#[test]
fn a_text_that_is_cut_at_the_greatest_character_is_within_its_bounds() {
    let a = "a".repeat(PREFIX);
    for (text, expected) in [
        (format!("{a}\u{10ffff}x"), Some(format!("{}b", &a[1..]))),
        (
            format!("{a}\u{10ffff}\u{10ffff}\u{10ffff}"),
            Some(format!("{}b", &a[1..])),
        ),
        // Cut there.
        (
            format!("{}\u{10ffff}x", &a[1..]),
            Some(format!("{}b", &a[2..])),
        ),
        (
            format!("z{}x", "\u{10ffff}".repeat(PREFIX)),
            Some("{".into()),
        ),
        // The gap of the surrogates, and the end of each length in UTF-8.
        (
            format!("{}\u{d7ff}x", &a[1..]),
            Some(format!("{}\u{e000}", &a[1..])),
        ),
        (
            format!("{}\u{7f}x", &a[1..]),
            Some(format!("{}\u{80}", &a[1..])),
        ),
        (
            format!("{}\u{ffff}x", &a[1..]),
            Some(format!("{}\u{10000}", &a[1..])),
        ),
        // Not cut.
        (a.clone(), Some(a.clone())),
        (
            "\u{10ffff}".repeat(PREFIX),
            Some("\u{10ffff}".repeat(PREFIX)),
        ),
        (String::new(), Some(String::new())),
        // Nothing is greater that is not as long.
        ("\u{10ffff}".repeat(PREFIX + 1), None),
    ] {
        assert_eq!(upper(&text), expected, "{text:?}");
    }
}

/// Characters around which orders and lengths change.
fn character() -> impl Strategy<Value = char> + Clone {
    prop_oneof![
        prop::char::any(),
        prop::sample::select(vec![
            '\0',
            '\u{1f}',
            'a',
            '\u{7f}',
            '\u{80}',
            '\u{7ff}',
            '\u{800}',
            '\u{d7ff}',
            '\u{e000}',
            '\u{fffd}',
            '\u{ffff}',
            '\u{10000}',
            '\u{1f600}',
            '\u{10fffe}',
            '\u{10ffff}',
        ]),
    ]
}

fn text() -> impl Strategy<Value = String> {
    let any = prop::collection::vec(character(), 0..2 * PREFIX);
    let same = (character(), 0..2 * PREFIX, any.clone()).prop_map(|(c, n, rest)| {
        let mut all = vec![c; n];
        all.extend(rest);
        all
    });
    prop_oneof![any, same].prop_map(|chars| chars.into_iter().collect())
}

proptest! {
    #[test]
    fn bounds_of_a_text_are_bounds(text in text()) {
        let low = lower(&text);
        prop_assert!(low <= text && low.chars().count() <= PREFIX);
        match upper(&text) {
            Some(high) => prop_assert!(high >= text && high.chars().count() <= PREFIX),
            None => {
                let greatest = text.chars().take(PREFIX).all(|c| c == char::MAX);
                prop_assert!(greatest && text.chars().count() > PREFIX);
            }
        }
    }

    /// Of all texts of a file, through Parquet's own statistics.
    #[test]
    fn bounds_of_a_file_are_bounds(texts in prop::collection::vec(prop::option::of(text()), 1..20)) {
        let stats = stats_of(&[&texts]);
        check(&stats, &texts);
    }

    /// Of several row groups, of which any may have no bound.
    #[test]
    fn bounds_of_row_groups_are_bounds(
        a in prop::collection::vec(prop::option::of(text()), 1..5),
        b in prop::collection::vec(prop::option::of(text()), 1..5),
    ) {
        let stats = stats_of(&[&a, &b]);
        check(&stats, &a);
        check(&stats, &b);
    }
}

fn check(stats: &Value, texts: &[Option<String>]) {
    for text in texts.iter().flatten() {
        if let Some(low) = stats["minValues"]["service_name"].as_str() {
            assert!(low <= text.as_str(), "{low:?} {text:?}");
        }
        if let Some(high) = stats["maxValues"]["service_name"].as_str() {
            assert!(high >= text.as_str(), "{high:?} {text:?}");
        }
    }
}

/// Statistics of a file whose services are these, a row group each.
fn stats_of(groups: &[&Vec<Option<String>>]) -> Value {
    use arrow_array::{ArrayRef, RecordBatch, StringArray};
    use arrow_schema::{DataType, Field, Schema};
    use std::sync::Arc;
    let service = Field::new("service_name", DataType::Utf8, true);
    let schema = Arc::new(Schema::new(vec![service]));
    let mut content = Vec::new();
    let mut writer = parquet::arrow::ArrowWriter::try_new_with_options(
        &mut content,
        schema.clone(),
        crate::table::writer_options(),
    )
    .unwrap();
    let mut rows = 0;
    for group in groups {
        let services: ArrayRef = Arc::new(StringArray::from((*group).clone()));
        let batch = RecordBatch::try_new(schema.clone(), vec![services]).unwrap();
        rows += group.len() as i64;
        writer.write(&batch).unwrap();
        writer.flush().unwrap();
    }
    let metadata = writer.close().unwrap();
    assert_eq!(metadata.row_groups().len(), groups.len());
    let layout = Layout::documented(TableSchema::Spans(SchemaVersion::V2));
    stats(&layout, &metadata, rows)
}

#[test]
fn a_bound_that_cannot_be_given_is_left_out_alone() {
    let greatest = Some("\u{10ffff}".repeat(PREFIX + 1));
    let stats_of_both = stats_of(&[&vec![Some("a".into())], &vec![greatest, None]]);
    assert_eq!(stats_of_both["minValues"]["service_name"], "a");
    assert!(stats_of_both["maxValues"].get("service_name").is_none());
    assert_eq!(stats_of_both["nullCount"]["service_name"], 1);
    let nulls_beside = stats_of(&[&vec![None], &vec![Some("b".into())]]);
    assert_eq!(nulls_beside["minValues"]["service_name"], "b");
    assert_eq!(nulls_beside["maxValues"]["service_name"], "b");
}
