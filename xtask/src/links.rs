//! Links of the Markdown pages to files and headings of this repository. What is on the web is not
//! asked for.

use crate::cargo::{Outcome, root};
use crate::files;
use std::collections::HashMap;
use std::path::{Path, PathBuf};

pub(crate) fn check() -> Outcome {
    let mut pages = HashMap::new();
    for name in files::below("")? {
        // A page that is a link to another is read there.
        let file = root().join(&name);
        if name.extension().is_none_or(|ending| ending != "md") || file.is_symlink() {
            continue;
        }
        let text = std::fs::read_to_string(&file);
        let text = text.map_err(|e| format!("{}: {e}", name.display()))?;
        pages.insert(name, text);
    }
    let mut faults = Vec::new();
    let mut count = 0;
    for (page, text) in &pages {
        for (line, target) in links(text) {
            count += 1;
            if let Some(cause) = dead(&pages, page, &target) {
                faults.push(format!("{}:{line}: {target}: {cause}", page.display()));
            }
        }
    }
    faults.sort();
    match faults.is_empty() {
        true => {
            println!("links: {count} in {} pages lead somewhere", pages.len());
            Ok(())
        }
        false => Err(format!("links:\n  {}", faults.join("\n  "))),
    }
}

/// Why a link leads nowhere; `None` where it does, or where it leads to the web.
fn dead(pages: &HashMap<PathBuf, String>, page: &Path, target: &str) -> Option<String> {
    if target.contains("://") || target.starts_with("mailto:") {
        return None;
    }
    let (file, anchor) = match target.split_once('#') {
        Some((file, anchor)) => (file, Some(anchor)),
        None => (target, None),
    };
    let file = match file.is_empty() {
        true => page.to_owned(),
        false => plain(&page.parent().unwrap_or(Path::new("")).join(file)),
    };
    if !root().join(&file).exists() {
        return Some("there is no such file".to_owned());
    }
    let anchor = anchor?;
    let text = pages.get(&file)?;
    let found = anchors(text).iter().any(|a| a == anchor)
        || text.contains(&format!("id=\"{anchor}\""))
        || text.contains(&format!("name=\"{anchor}\""));
    (!found).then(|| format!("{} has no such heading", file.display()))
}

/// A path without `.` and `..`.
fn plain(path: &Path) -> PathBuf {
    let mut plain = PathBuf::new();
    for part in path.components() {
        match part {
            std::path::Component::CurDir => {}
            std::path::Component::ParentDir => {
                plain.pop();
            }
            other => plain.push(other),
        }
    }
    plain
}

/// The lines of a page that are no code.
fn prose(text: &str) -> impl Iterator<Item = (usize, &str)> {
    let mut fence: Option<&str> = None;
    text.lines().enumerate().filter_map(move |(i, line)| {
        let start = line.trim_start();
        let mark = ["```", "~~~"].into_iter().find(|m| start.starts_with(m));
        match (fence, mark) {
            (None, Some(mark)) => fence = Some(mark),
            (Some(open), Some(mark)) if open == mark => fence = None,
            (None, None) => return Some((i + 1, line)),
            _ => {}
        }
        None
    })
}

/// The targets of `[text](target)` and `[name]: target`, with their lines.
fn links(text: &str) -> Vec<(usize, String)> {
    let mut found = Vec::new();
    for (number, line) in prose(text) {
        // What is between backticks is code.
        let line: String = line.split('`').step_by(2).collect::<Vec<_>>().join("``");
        if let Some((_, target)) = line
            .strip_prefix('[')
            .and_then(|rest| rest.split_once("]: "))
        {
            found.extend(
                target
                    .split_whitespace()
                    .next()
                    .map(|t| (number, t.to_owned())),
            );
        }
        for (at, _) in line.match_indices("](") {
            let target = line[at + 2..].split([')', ' ']).next().unwrap_or_default();
            // Paths of Rust are rustdoc's to check.
            if !target.is_empty() && !target.contains("::") {
                found.push((number, target.trim_matches(['<', '>']).to_owned()));
            }
        }
    }
    found
}

/// The names by which the headings of a page are reached, as GitHub makes them.
fn anchors(text: &str) -> Vec<String> {
    let mut found: Vec<String> = Vec::new();
    for (_, line) in prose(text) {
        let level = line.chars().take_while(|c| *c == '#').count();
        if !(1..=6).contains(&level) || !line[level..].starts_with(' ') {
            continue;
        }
        let anchor: String = line[level..]
            .trim()
            .to_lowercase()
            .chars()
            .filter(|c| c.is_alphanumeric() || matches!(c, ' ' | '-' | '_'))
            .map(|c| if c == ' ' { '-' } else { c })
            .collect();
        let same = found.iter().filter(|a| **a == anchor).count();
        found.push(match same {
            0 => anchor,
            more => format!("{anchor}-{more}"),
        });
    }
    found
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn links_are_found_outside_of_code() {
        let text = "[a](b.md#c) and `[x](y)`\n```\n[d](e)\n```\n[f]: g.md \"title\"\n[R](crate::R)";
        let targets: Vec<String> = links(text).into_iter().map(|(_, target)| target).collect();
        assert_eq!(targets, ["b.md#c", "g.md"]);
    }

    #[test]
    fn headings_become_anchors() {
        let text = "# What it's for, `really`?\n## Same\n## Same\n```\n# no heading\n```\n#tag";
        assert_eq!(anchors(text), ["what-its-for-really", "same", "same-1"]);
    }

    #[test]
    fn dead_links_are_found() {
        let readme = "# Title\n";
        let pages = HashMap::from([(PathBuf::from("README.md"), readme.to_owned())]);
        let page = Path::new("docs/page.md");
        for (target, is_dead) in [
            ("../README.md", false),
            ("../README.md#title", false),
            ("../README.md#other", true),
            ("nowhere.md", true),
            ("https://example.com/nothing", false),
            ("../xtask", false),
        ] {
            assert_eq!(dead(&pages, page, target).is_some(), is_dead, "{target}");
        }
    }
}
