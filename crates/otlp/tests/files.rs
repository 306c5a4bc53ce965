//! Files as they are found: whole, cut off, empty, and something else altogether.

#![expect(clippy::unwrap_used, reason = "helpers of tests may fail as tests do")]

use std::path::{Path, PathBuf};
use trace_destination_core::{Error, ErrorKind};
use trace_destination_otlp::{Format, OtlpFile, decode_protobuf, sample};

struct Folder(tempfile::TempDir);

impl Folder {
    fn new() -> Self {
        Self(tempfile::tempdir().unwrap())
    }

    fn file(&self, name: &str, bytes: impl AsRef<[u8]>) -> PathBuf {
        let path = self.0.path().join(name);
        std::fs::write(&path, bytes).unwrap();
        path
    }
}

/// Format, number of steps, number of spans.
fn read(path: &Path) -> Result<(Format, usize, usize), Error> {
    let file = OtlpFile::open(path)?;
    let format = file.format();
    let (mut steps, mut spans) = (0, 0);
    for groups in file {
        steps += 1;
        spans += groups?.iter().map(|g| g.spans.len()).sum::<usize>();
    }
    Ok((format, steps, spans))
}

fn captured_line() -> String {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/data/agents.otlp.jsonl");
    std::fs::read_to_string(path).unwrap().trim().to_owned()
}

fn framed(requests: &[Vec<u8>]) -> Vec<u8> {
    let mut bytes = Vec::new();
    for request in requests {
        bytes.extend(u32::try_from(request.len()).unwrap().to_be_bytes());
        bytes.extend(request);
    }
    bytes
}

#[test]
fn the_content_tells_the_format() {
    let folder = Folder::new();
    let line = captured_line();
    let requests = sample::generated();
    let spans: usize = requests
        .iter()
        .flat_map(|r| decode_protobuf(r).unwrap())
        .map(|g| g.spans.len())
        .sum();
    for (name, bytes, expected) in [
        (
            "a.binpb",
            sample::captured().to_vec(),
            (Format::Protobuf, 1, 252),
        ),
        (
            "no-extension",
            sample::captured().to_vec(),
            (Format::Protobuf, 1, 252),
        ),
        // Requests one after the other are one request.
        (
            "many.binpb",
            sample::captured().repeat(3),
            (Format::Protobuf, 3, 756),
        ),
        (
            "a.jsonl",
            format!("{line}\n").into_bytes(),
            (Format::JsonLines, 1, 252),
        ),
        (
            "a.txt",
            line.clone().into_bytes(),
            (Format::JsonLines, 1, 252),
        ),
        (
            "windows.jsonl",
            format!("\u{feff}\r\n{line}\r\n\r\n{{}}\r\n{line}\r\n").into_bytes(),
            (Format::JsonLines, 3, 504),
        ),
        (
            "collector.bin",
            framed(&requests),
            (Format::FramedProtobuf, requests.len(), spans),
        ),
    ] {
        let path = folder.file(name, bytes);
        assert_eq!(read(&path).unwrap(), expected, "{name}");
    }
}

/// A protobuf request whose first message has 123 bytes begins with the bytes of `\n{`.
#[test]
fn the_extension_decides_where_the_content_fits_two() {
    let folder = Folder::new();
    let mut resource_spans = vec![0x1a, 121];
    resource_spans.extend([b'u'; 121]);
    let mut bytes = vec![0x0a, 0x7b];
    bytes.extend(&resource_spans);
    assert_eq!(&bytes[..2], b"\n{");
    let path = folder.file("tricky.binpb", &bytes);
    assert_eq!(read(&path).unwrap(), (Format::Protobuf, 1, 0));
    let path = folder.file("odd.jsonl", "\n{\"resourceSpans\":[]}\n");
    assert_eq!(read(&path).unwrap(), (Format::JsonLines, 1, 0));
}

#[test]
fn what_cannot_be_read_says_where_and_what_to_do() {
    let folder = Folder::new();
    let line = captured_line();
    let captured = sample::captured();
    let mut gzip = vec![0x1f, 0x8b];
    gzip.extend([8; 20]);
    let cut_frames = framed(&[captured.to_vec(), captured.to_vec()]);
    for (name, bytes, says) in [
        ("empty.jsonl", Vec::new(), "it is empty"),
        (
            "text.jsonl",
            b"hello world\n".to_vec(),
            "it is not a file of OTLP traces",
        ),
        (
            "noise.binpb",
            vec![0xff; 100],
            "it is not a file of OTLP traces",
        ),
        ("a.jsonl.gz", gzip, "it is compressed (decompress it first)"),
        (
            "cut.binpb",
            captured[..captured.len() - 1].to_vec(),
            "ends in the middle of the message at byte 0",
        ),
        ("cut-tag.binpb", captured[..2].to_vec(), "it is truncated"),
        (
            "cut2.binpb",
            [captured, &captured[..1000]].concat(),
            "the message at byte 690443",
        ),
        (
            "cut-length.bin",
            cut_frames[..cut_frames.len() - captured.len() - 2].to_vec(),
            "the message at byte 690447",
        ),
        (
            "cut-frame.bin",
            cut_frames[..cut_frames.len() - 1].to_vec(),
            "the message at byte 690447",
        ),
        (
            "wrong-frame.bin",
            framed(&[b"\x0a\x02\xff\xff".to_vec()]),
            "the message at byte 0 is not an OTLP trace request",
        ),
        (
            "cut.jsonl",
            format!("{line}\n{}", &line[..5000]).into_bytes(),
            "line 2: the JSON text ends in the middle",
        ),
        (
            "utf16.jsonl",
            "\u{feff}{}"
                .encode_utf16()
                .flat_map(u16::to_le_bytes)
                .collect(),
            "it is UTF-16 text (convert it to UTF-8",
        ),
        (
            "zeros.jsonl",
            b"{\"resourceSpans\": []}\n\0\0\0".to_vec(),
            "line 2: 3 zero bytes stand where data was lost",
        ),
        (
            "garbage.jsonl",
            format!("{line}\n\ngarbage\n").into_bytes(),
            "line 3: the text is not JSON",
        ),
        (
            "shape.jsonl",
            b"{\"resourceSpans\": 5}\n".to_vec(),
            "line 1: the JSON is not an OTLP trace request",
        ),
        (
            "other.jsonl",
            b"{\"a\": \"b\"}\n".to_vec(),
            "no `resourceSpans` but `a`",
        ),
        (
            "not-otlp.binpb",
            b"\x0a\x05hello".to_vec(),
            "the message at byte 0 is not OTLP ResourceSpans",
        ),
        (
            "not-protobuf.binpb",
            b"\x0a\x00\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff".to_vec(),
            "at byte 2 it is not protobuf",
        ),
        (
            "varint.binpb",
            b"\x0a\x00\x08\x01".to_vec(),
            "at byte 2 it is not an OTLP trace request",
        ),
    ] {
        let path = folder.file(name, bytes);
        let error = read(&path).unwrap_err();
        let text = error.to_string();
        assert_eq!(error.kind(), ErrorKind::Corrupt, "{text}");
        assert!(text.contains(says), "{name}: {text}");
        assert!(text.contains(name), "{name}: {text}");
        assert!(error.mend_hint().is_some(), "{name}: {text}");
    }

    let error = read(&folder.0.path().join("absent.jsonl")).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::NotFound);
    assert!(
        error
            .to_string()
            .contains("absent.jsonl: there is no such file")
    );
    let error = read(folder.0.path()).unwrap_err();
    assert!(error.to_string().contains("it is a folder"), "{error}");
}

/// A request with one span of this number, written without line breaks.
fn one(number: u32) -> String {
    format!(
        r#"{{"resourceSpans":[{{"scopeSpans":[{{"spans":[{{"traceId":"{number:032x}","spanId":"{number:016x}","name":"n\u00e9 {number} \"{{\\"}}]}}]}}]}}"#
    )
}

/// The spans that were read, the lines of the damaged places, and the count of other requests.
fn survey(text: impl AsRef<[u8]>) -> (Vec<u32>, Vec<u64>, u64) {
    let text = std::io::Cursor::new(text.as_ref().to_vec());
    let mut file = OtlpFile::from_reader(text, "survey.jsonl").unwrap();
    let (mut spans, mut damaged) = (Vec::new(), Vec::new());
    while let Some(item) = file.next() {
        let line = file.line().unwrap();
        match item {
            Ok(groups) => {
                for span in groups.iter().flat_map(|g| &g.spans) {
                    spans.push(u32::from_str_radix(&span.span_id.to_string(), 16).unwrap());
                }
            }
            Err(error) => {
                assert_eq!(error.kind(), ErrorKind::Corrupt);
                let text = error.to_string();
                assert!(
                    text.contains(&format!("survey.jsonl: line {line}: ")),
                    "{text}"
                );
                damaged.push(line);
            }
        }
    }
    (spans, damaged, file.other_signals())
}

fn pretty(text: &str) -> String {
    let value: serde_json::Value = serde_json::from_str(text).unwrap();
    serde_json::to_string_pretty(&value).unwrap()
}

#[test]
fn requests_are_read_however_they_are_laid_out() {
    let (a, b, c) = (one(1), one(2), one(3));
    let (pa, pb, pc) = (pretty(&a), pretty(&b), pretty(&c));
    for text in [
        format!("{a}\n{b}\n{c}\n"),
        format!("{a}{b}{c}"),
        format!("{a} {b}\t{c}\n"),
        format!("{a}{b}\n{c}"),
        format!("{pa}\n{pb}\n{pc}\n"),
        format!("{pa}{pb}{pc}"),
        format!("{pa}\r\n\r\n{b}\r\n{pc}").replace('\n', "\r\n"),
        format!("{a}\n{pb}\n{c}\n"),
        format!("[{a},{b},{c}]"),
        format!("[\n{a},\n{b},\n{c}\n]\n"),
        format!("  [ {pa},\n {pb} , {pc} ]"),
        format!("\u{feff}{a}\n{b}\n{c}"),
        format!("\u{1e}{a}\n\u{1e}{b}\n\u{1e}{c}\n"),
        format!("\n\n{{}}\n{a}\n{b}\n{c}{{}}"),
    ] {
        assert_eq!(survey(&text), (vec![1, 2, 3], vec![], 0), "{text}");
    }
}

#[test]
fn requests_of_other_signals_are_passed_over_and_counted() {
    let metrics =
        r#"{"resourceMetrics":[{"scopeMetrics":[{"metrics":[{"name":"m","gauge":{}}]}]}]}"#;
    let logs = r#"{"resourceLogs":[]}"#;
    let profiles = r#"{"resourceProfiles":[],"dictionary":{}}"#;
    let (a, b) = (one(1), one(2));
    let text = format!("{metrics}\n{a}\n{logs}{profiles}\n{}\n{b}", pretty(metrics));
    assert_eq!(survey(&text), (vec![1, 2], vec![], 4));
    assert_eq!(survey(format!("{metrics}\n{logs}\n")), (vec![], vec![], 2));
}

#[test]
fn damage_costs_what_is_damaged() {
    let (a, b) = (one(1), one(2));
    let pb = pretty(&b);
    for (text, spans, damaged) in [
        (format!("{a}\ngarbage\n{b}\n"), vec![1, 2], vec![2]),
        // JSON, but no object; one damaged place for each line.
        (
            format!("200 OK\nnull\n{a}\n\"text\" more\n[INFO] x\n{b}"),
            vec![1, 2],
            vec![1, 2, 4, 5],
        ),
        (format!("{a}\n{}\n{b}\n", &b[..30]), vec![1, 2], vec![2]),
        (
            format!("{a}\nGET / 200\n\n{{\"level\":\"info\"}}\n{b}"),
            vec![1, 2],
            vec![2, 4],
        ),
        // Cut off where another request goes on, with and without a line break.
        (format!("{a}\n{}{b}\n", &b[..30]), vec![1, 2], vec![2]),
        (format!("{}{b}\n", &a[..a.len() - 1]), vec![2], vec![1]),
        (format!("{}\n{b}\n", &a[..a.len() - 1]), vec![2], vec![1]),
        // In the middle of a text, a list, a number.
        (format!("{}\n{b}\n", &a[..a.len() - 12]), vec![2], vec![1]),
        (
            format!("{}\n{b}\n{b}\n", "{\"resourceSpans\":["),
            vec![2, 2],
            vec![1],
        ),
        (
            format!("{}\n{b}\n", "{\"resourceSpans\":[{\"schemaUrl\":12"),
            vec![2],
            vec![1],
        ),
        // A log line before a request.
        (
            format!("2026-11-27T08:00:00Z stdout F {a}\n{b}\n"),
            vec![1, 2],
            vec![1],
        ),
        // Zero bytes: a block that was never written.
        (format!("{a}\n\0\0\0\0{b}\n"), vec![1, 2], vec![2]),
        (format!("{a}{}", "\0".repeat(100_000)), vec![1], vec![1]),
        (format!("\0\n\0\0{a}\n{b}"), vec![1, 2], vec![1]),
        (
            format!("{}{a}\n{b}", "\0".repeat(100_000)),
            vec![1, 2],
            vec![1],
        ),
        (
            format!("{}{a}", "GET / 200\n".repeat(500)),
            vec![1],
            (1..=500).collect(),
        ),
        (format!("{}\0\0\0\n{b}", &a[..40]), vec![2], vec![1]),
        (format!("{}\0\0\0{b}", &a[..40]), vec![2], vec![1]),
        // Spread over lines and cut off.
        (format!("{}\n{b}\n", &pb[..pb.len() - 3]), vec![2], vec![1]),
        (format!("{a}\n{}", &pb[..pb.len() - 3]), vec![1], vec![2]),
        (format!("{}\n{pb}\n", &pb[..40]), vec![2], vec![1]),
        // Spread over lines and wrong in the middle: one place, not one for each line.
        (
            format!("{}\n{a}\n", pb.replacen(':', ";", 1)),
            vec![1],
            vec![1],
        ),
        (
            format!("{a}\n{}\n{a}\n", pb.replacen("\"name\"", "name", 1)),
            vec![1, 1],
            vec![2],
        ),
    ] {
        assert_eq!(survey(&text), (spans, damaged, 0), "{text}");
    }
}

/// Whatever happens to one line, the lines beside it are read.
#[test]
fn a_line_cut_at_any_byte_costs_itself() {
    let (a, b) = (one(1), one(2));
    for len in (0..a.len()).filter(|len| a.is_char_boundary(*len)) {
        for text in [
            format!("{b}\n{}\n{b}\n", &a[..len]),
            format!("{b}\n{}{b}\n", &a[..len]),
        ] {
            let (spans, damaged, _) = survey(&text);
            assert_eq!(spans, [2, 2], "{text}");
            assert_eq!(damaged, if len == 0 { vec![] } else { vec![2] }, "{text}");
        }
    }
}

#[test]
fn bad_messages_of_protobuf_are_passed_over_where_the_next_can_be_found() {
    let captured = sample::captured();
    let bad = b"\x0a\x05hello".to_vec();
    let folder = Folder::new();
    let plain = [captured, &bad, captured].concat();
    let frames = framed(&[captured.to_vec(), bad, captured.to_vec()]);
    for (name, bytes, at) in [
        ("plain.binpb", plain, captured.len()),
        ("framed.bin", frames, captured.len() + 4),
    ] {
        let items: Vec<_> = OtlpFile::open(folder.file(name, bytes)).unwrap().collect();
        assert_eq!(items.len(), 3);
        assert!(items[0].is_ok() && items[2].is_ok());
        let error = items[1].as_ref().unwrap_err().to_string();
        assert!(
            error.contains(&format!("the message at byte {at} is not")),
            "{error}"
        );
    }
}

/// The Collector's file exporter writes all signals into one file if it is told so.
#[test]
fn metrics_and_logs_in_protobuf_are_passed_over_and_counted() {
    use prost::encoding::{bytes, fixed64, string};
    let field = |number, content: &[u8]| {
        let mut out = Vec::new();
        bytes::encode(number, &content.to_vec(), &mut out);
        out
    };
    let request = |entry: &[u8]| field(1, &field(2, &field(2, entry)));
    // A metric whose name and description could be ids, with each kind of data; and a log record.
    let metric = |data| {
        let mut out = Vec::new();
        string::encode(1, &"requests".to_owned(), &mut out);
        string::encode(2, &"how many".to_owned(), &mut out);
        [out, field(data, &field(1, b"\x19\0\0\0\0\0\0\0\0"))].concat()
    };
    let mut log = Vec::new();
    fixed64::encode(1, &1, &mut log);
    string::encode(3, &"INFO".to_owned(), &mut log);
    let captured = sample::captured().to_vec();
    let mut requests: Vec<Vec<u8>> = [5, 7, 9, 10, 11].map(|n| request(&metric(n))).to_vec();
    requests.push(request(&log));
    requests.insert(0, captured.clone());
    requests.push(captured);
    let folder = Folder::new();
    for (name, bytes) in [("a.bin", framed(&requests)), ("a.binpb", requests.concat())] {
        let mut file = OtlpFile::open(folder.file(name, bytes)).unwrap();
        let groups: Vec<_> = file.by_ref().flat_map(Result::unwrap).collect();
        assert_eq!(groups.iter().map(|g| g.spans.len()).sum::<usize>(), 504);
        assert!(
            groups
                .iter()
                .all(|g| g.refused.is_empty() && g.faults.is_empty())
        );
        assert_eq!(file.other_signals(), 6, "{name}");
        assert_eq!(file.line(), None);
    }
    let error = decode_protobuf(&requests[1]).unwrap_err().to_string();
    assert!(error.contains("metrics or logs"), "{error}");
}

#[test]
fn refusals_in_a_file_have_the_place_of_their_request() {
    let bad = r#"{"resourceSpans":[{"resource":7,"scopeSpans":[{"spans":[{}]}]}]}"#;
    let text = format!("{}\n\n{bad}\n", one(1));
    let file = OtlpFile::from_reader(std::io::Cursor::new(text), "a.jsonl").unwrap();
    let groups: Vec<_> = file.flat_map(Result::unwrap).collect();
    assert_eq!(
        groups[1].refused[0].position,
        "line 3: resourceSpans[0].scopeSpans[0].spans[0]"
    );
    assert_eq!(
        groups[1].faults[0].position,
        "line 3: resourceSpans[0].resource"
    );

    let mut bytes = sample::captured().to_vec();
    bytes.extend(b"\x0a\x04\x12\x02\x12\x00");
    let file = OtlpFile::from_reader(std::io::Cursor::new(bytes), "a.binpb").unwrap();
    let groups: Vec<_> = file.flat_map(Result::unwrap).collect();
    let position = format!(
        "byte {}: resourceSpans[1].scopeSpans[0].spans[0]",
        sample::captured().len()
    );
    assert_eq!(groups[1].refused[0].position, position);
}

/// Each of many beginnings may be that of a request, and none of them ends.
#[test]
fn nothing_but_damage_takes_time_in_proportion() {
    let a = one(1);
    for start in [
        r#"{"resourceSpans":["#,
        r#"{"resourceSpans":"\""#,
        r#"{"resourceSpans":"x"#,
        r#"{"resourceSpans":[{"scopeSpans":"#,
        "{",
        "[{",
        "{\n\"",
        "{\"a\":\n",
    ] {
        let text = format!("{a}\n{}\n{a}\n", start.repeat(20_000));
        let (spans, damaged, _) = survey(&text);
        assert_eq!(spans, [1, 1], "{start}");
        assert!(!damaged.is_empty());
    }
}

/// Longer than what is read at once, so that requests are put together from parts.
#[test]
fn a_file_without_line_breaks_is_read_in_parts() {
    let big = one(7).replace("n\\u00e9", &"x".repeat(9 << 20));
    assert!(big.len() > 9 << 20);
    let (spans, damaged, _) = survey(format!("{big}{big}{}{big}{}", &big[..1000], one(8)));
    assert_eq!((spans, damaged), (vec![7, 7, 7, 8], vec![1]));
}
