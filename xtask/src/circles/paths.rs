//! The paths in a source file, found by text: enough of Rust for `use` and for paths in code.

/// A path that a file names.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Import {
    pub(super) path: Vec<String>,
    /// What it is called in the file.
    pub(super) name: String,
    /// Whether others may import it from here.
    pub(super) public: bool,
    /// Whether the file itself names it.
    pub(super) used: bool,
}

/// Every path of a file, without those of its tests.
pub(super) fn read_file(text: &str) -> Vec<Import> {
    let code = without_tests(&without_texts(text));
    let mut imports = Vec::new();
    let mut body = String::with_capacity(code.len());
    let mut rest = code.as_str();
    while let Some((before, tree, after)) = next_use(rest) {
        let line = before.rsplit(['\n', ';', '}']).next().unwrap_or_default();
        let public = line.trim_start().starts_with("pub");
        // The attribute may stand on the line above.
        let head = before.trim_end_matches(line).trim_end();
        if !head.ends_with("#[cfg(test)]") && !line.contains("#[cfg(test)]") {
            flatten(tree, &[], public, &mut imports);
        }
        body.push_str(before);
        rest = after;
    }
    body.push_str(rest);
    for import in &mut imports {
        import.used = !import.public || words(&body).any(|word| word == import.name);
    }
    for path in paths(&body) {
        imports.push(Import {
            name: String::new(),
            path,
            public: false,
            used: true,
        });
    }
    imports
}

/// The text before the next `use`, what is imported, and the text after it.
fn next_use(text: &str) -> Option<(&str, &str, &str)> {
    let mut from = 0;
    while let Some(at) = text[from..].find("use ").map(|at| at + from) {
        let before = text[..at].chars().next_back();
        if before.is_none_or(|c| c.is_whitespace() || c == ';' || c == '}') {
            let end = at + text[at..].find(';')?;
            return Some((&text[..at], &text[at + 4..end], &text[end + 1..]));
        }
        from = at + 4;
    }
    None
}

fn flatten(tree: &str, head: &[String], public: bool, imports: &mut Vec<Import>) {
    let tree = tree.trim();
    if let Some(open) = tree.find('{') {
        let close = tree.rfind('}').unwrap_or(tree.len());
        let head = [head, &segments(&tree[..open])].concat();
        let (mut depth, mut start) = (0_i32, open + 1);
        for (at, c) in tree[..close]
            .char_indices()
            .skip_while(|(at, _)| *at <= open)
        {
            match c {
                '{' => depth += 1,
                '}' => depth -= 1,
                ',' if depth == 0 => {
                    flatten(&tree[start..at], &head, public, imports);
                    start = at + 1;
                }
                _ => {}
            }
        }
        return flatten(&tree[start..close], &head, public, imports);
    }
    if tree.is_empty() {
        return;
    }
    let (tree, alias) = match tree.split_once(" as ") {
        Some((tree, alias)) => (tree, Some(alias.trim().to_owned())),
        None => (tree, None),
    };
    let mut path = [head, &segments(tree)].concat();
    path.pop_if(|last| last == "self");
    if let Some(last) = path.last().cloned() {
        imports.push(Import {
            path,
            name: alias.unwrap_or(last),
            public,
            used: true,
        });
    }
}

fn segments(path: &str) -> Vec<String> {
    let segments = path.split("::").map(str::trim);
    segments
        .filter(|s| !s.is_empty())
        .map(str::to_owned)
        .collect()
}

fn is_word(c: char) -> bool {
    c.is_alphanumeric() || c == '_'
}

fn words(text: &str) -> impl Iterator<Item = &str> {
    text.split(|c| !is_word(c)).filter(|word| !word.is_empty())
}

/// Paths of at least two segments in code.
fn paths(text: &str) -> Vec<Vec<String>> {
    // Where a name is visible is nothing that it needs.
    text.replace("(in super::super)", "")
        .split(|c| !is_word(c) && c != ':')
        .filter(|path| path.contains("::") && !path.starts_with(':'))
        .map(segments)
        .filter(|path| path.len() > 1)
        .collect()
}

/// The text without comments, and with nothing in its literals.
fn without_texts(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    let mut rest = text;
    while let Some(c) = rest.chars().next() {
        let end = if rest.starts_with("//") {
            rest.find('\n').unwrap_or(rest.len())
        } else if rest.starts_with("/*") {
            rest.find("*/").map_or(rest.len(), |at| at + 2)
        } else if rest.starts_with("r\"") || rest.starts_with("r#") {
            let marks = rest[1..].chars().take_while(|c| *c == '#').count();
            let close = format!("\"{}", "#".repeat(marks));
            match rest[1 + marks..].starts_with('"') && !out.ends_with(is_word) {
                true => rest[marks + 2..]
                    .find(&close)
                    .map_or(rest.len(), |at| marks + 2 + at + close.len()),
                false => 0,
            }
        } else if c == '"' {
            let mut escaped = false;
            let close = |c: char| {
                let closes = c == '"' && !escaped;
                escaped = c == '\\' && !escaped;
                closes
            };
            rest[1..].find(close).map_or(rest.len(), |at| at + 2)
        } else if rest.starts_with("'\"'") {
            3
        } else if rest.starts_with("'\\\"'") {
            4
        } else {
            0
        };
        match end {
            0 => {
                out.push(c);
                rest = &rest[c.len_utf8()..];
            }
            end => {
                out.push(' ');
                rest = &rest[end..];
            }
        }
    }
    out
}

/// The text up to its tests, which stand last in a file.
fn without_tests(code: &str) -> String {
    let at = code.match_indices("#[cfg(test)]").find(|(at, mark)| {
        let next = code[at + mark.len()..].trim_start();
        next.starts_with("mod ")
            && next
                .find(['{', ';'])
                .is_some_and(|at| next[at..].starts_with('{'))
    });
    at.map_or(code, |(at, _)| &code[..at]).to_owned()
}
