use super::*;

fn shown(text: &str) -> String {
    let (node, end) = parse(text.as_bytes()).unwrap();
    assert_eq!(text[end..].trim(), "", "{text}");
    format!("{node:?}")
}

#[test]
fn every_kind_of_value() {
    for (text, expected) in [
        ("null", "Null"),
        (" true ", "Bool(true)"),
        ("-0.5e+7", r#"Number("-0.5e+7")"#),
        (
            "99999999999999999999999",
            r#"Number("99999999999999999999999")"#,
        ),
        ("NaN", r#"Number("NaN")"#),
        ("-Infinity", r#"Number("-Infinity")"#),
        (
            r#""a\"\\\/\b\f\n\r\t\u00e9\ud83d\ude9a""#,
            "Text(\"a\\\"\\\\/\\u{8}\\u{c}\\n\\r\\té🚚\")",
        ),
        (
            r#""\ud83d\ud83d\ude9a\udc00x\ud800""#,
            "Text(\"\u{fffd}🚚\u{fffd}x\u{fffd}\")",
        ),
        (r#""\ud800\u0041""#, "Text(\"\u{fffd}A\")"),
        ("[ ]", "List([])"),
        ("[1,[null]]", r#"List([Number("1"), List([Null])])"#),
        (
            r#"{"a":1,"a":{},"":[]}"#,
            r#"Object([("a", Number("1")), ("a", Object([])), ("", List([]))])"#,
        ),
    ] {
        assert_eq!(shown(text), expected);
    }
}

#[test]
fn what_is_no_json_is_an_error_at_its_place() {
    for (text, at, eof) in [
        ("", 0, true),
        ("  ", 2, true),
        ("[1", 2, true),
        ("[1,", 3, true),
        ("{\"a\"", 4, true),
        ("{\"a\":", 5, true),
        ("\"a", 2, true),
        ("\"a\\", 3, true),
        ("\"\\u12", 5, true),
        ("tru", 3, true),
        ("[-", 2, true),
        ("[1 2]", 3, false),
        ("[1,]", 3, false),
        ("{,}", 1, false),
        ("{a:1}", 1, false),
        ("{\"a\" 1}", 5, false),
        ("truth", 0, false),
        ("1.x", 0, false),
        ("[+1]", 1, false),
        ("\"a\nb\"", 2, false),
        ("\"\\x\"", 1, false),
        ("\"\\u12x4\"", 1, false),
    ] {
        let error = parse(text.as_bytes()).unwrap_err();
        assert_eq!((error.at, error.eof), (at, eof), "{text}");
    }
}

#[test]
fn what_is_too_deep_is_cut_out_alone() {
    let deep = format!("{}\"]\"{}", "[".repeat(100_000), "]".repeat(100_000));
    let text = format!("[{deep},1]");
    let (node, end) = parse(text.as_bytes()).unwrap();
    assert_eq!(end, text.len());
    let Node::List(items) = node else { panic!() };
    assert!(matches!(items[1], Node::Number("1")));
    assert!(format!("{:?}", items[0]).contains("TooDeep"));
    assert!(parse(&text.as_bytes()[..50_000]).unwrap_err().eof);
}
