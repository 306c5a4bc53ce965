//! Files as they are found: whole, cut off, empty, and something else altogether.

#![expect(clippy::unwrap_used, reason = "helpers of tests may fail as tests do")]

use std::io::Write;
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
            "pretty.json",
            b"{\n  \"resourceSpans\": []\n}\n".to_vec(),
            "line 1: the JSON text ends in the middle",
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
            "metrics.jsonl",
            b"{\"resourceMetrics\": []}\n".to_vec(),
            "line 1: the JSON has no `resourceSpans` but `resourceMetrics`",
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

#[test]
fn an_error_ends_the_iteration_after_what_was_good() {
    let folder = Folder::new();
    let line = captured_line();
    let path = folder.file("bad.jsonl", format!("{line}\ngarbage\n{line}\n"));
    let mut file = OtlpFile::open(path).unwrap();
    assert!(file.next().unwrap().is_ok());
    assert!(file.next().unwrap().is_err());
    assert!(file.next().is_none());
}

/// Lone surrogates cost their span, also in a file.
#[test]
fn a_bad_span_does_not_end_a_file() {
    let folder = Folder::new();
    let path = folder.file("surrogate.jsonl", "");
    let mut file = std::fs::File::create(&path).unwrap();
    let ids = r#""traceId":"5b8efff798038103d269b633813fc60c","spanId":"eee19b7ec3c1b174""#;
    for name in [r"\ud800", "good"] {
        writeln!(
            file,
            r#"{{"resourceSpans":[{{"scopeSpans":[{{"spans":[{{{ids},"name":"{name}"}}]}}]}}]}}"#
        )
        .unwrap();
    }
    drop(file);
    let groups: Vec<_> = OtlpFile::open(&path)
        .unwrap()
        .flat_map(Result::unwrap)
        .collect();
    assert_eq!((groups[0].spans.len(), groups[0].refused.len()), (0, 1));
    assert_eq!((groups[1].spans.len(), groups[1].refused.len()), (1, 0));
}
