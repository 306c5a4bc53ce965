//! Import circles between the files of a crate: where one file needs another that needs it in turn.
//!
//! What a file imports is read from its paths that begin with `crate`, `self`, `super` or a child
//! module. A name that a module passes on (`pub use`) leads to the file that has it, so that a folder's
//! `mod.rs` is no circle merely because its children are reached through it.

mod allowed;
mod paths;

use allowed::ALLOWED;
use paths::{Import, read_file};
use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};

/// Files that a circle may have without a reason in [`ALLOWED`].
const FREE: usize = 2;

/// A module, by the names that lead to it; the crate's root is empty.
type Module = Vec<String>;

/// The circles of a package that are not allowed, and the allowances that are not needed.
pub(crate) fn faults(package: &str, src: &Path) -> Result<Vec<String>, String> {
    let modules = modules(src)?;
    let mut sources = BTreeMap::new();
    for (module, file) in &modules {
        let text = std::fs::read_to_string(file).map_err(|e| format!("{}: {e}", file.display()))?;
        sources.insert(module.clone(), read_file(&text));
    }
    let found = circles(&edges(&sources));
    let allowed: Vec<BTreeSet<&str>> = ALLOWED
        .iter()
        .filter(|allowed| allowed.package == package)
        .map(|allowed| allowed.modules.iter().copied().collect())
        .collect();
    let mut faults = Vec::new();
    let mut used = vec![0; allowed.len()];
    for circle in found {
        let names: Vec<String> = circle.iter().map(name).collect();
        let is_allowed = |set: &BTreeSet<&str>| names.iter().all(|n| set.contains(n.as_str()));
        match allowed.iter().position(is_allowed) {
            Some(at) => used[at] = names.len().max(used[at]),
            None if names.len() <= FREE => {}
            None => faults.push(format!(
                "{package}: {} files import each other: {}; move what they share into a leaf, or give the reason in xtask/src/circles/allowed.rs",
                names.len(),
                names.join(", ")
            )),
        }
    }
    for (set, used) in allowed.iter().zip(used) {
        if used < set.len() {
            faults.push(format!(
                "{package}: the circle of {} files in xtask/src/circles/allowed.rs has {used} left: {set:?}",
                set.len()
            ));
        }
    }
    Ok(faults)
}

fn name(module: &Module) -> String {
    match module.is_empty() {
        true => "lib".to_owned(),
        false => module.join("::"),
    }
}

/// The modules of a crate that are files, tests left out.
fn modules(src: &Path) -> Result<BTreeMap<Module, PathBuf>, String> {
    let mut found = BTreeMap::new();
    let mut open = vec![(src.to_owned(), Module::new())];
    while let Some((dir, at)) = open.pop() {
        let entries = std::fs::read_dir(&dir).map_err(|e| format!("{}: {e}", dir.display()))?;
        for entry in entries {
            let path = entry.map_err(|e| format!("{}: {e}", dir.display()))?.path();
            let stem = path.file_stem().unwrap_or_default().to_string_lossy();
            let mut module = at.clone();
            if stem.ends_with("tests") {
                continue;
            }
            if path.is_dir() {
                module.push(stem.into_owned());
                open.push((path, module));
            } else if path.extension().is_some_and(|e| e == "rs") {
                match (&*stem, at.is_empty()) {
                    ("mod", _) | ("lib", true) => {}
                    // A program beside a library is not part of it.
                    ("main", true) if dir.join("lib.rs").exists() => continue,
                    ("main", true) => {}
                    _ => module.push(stem.into_owned()),
                }
                found.insert(module, path);
            }
        }
    }
    Ok(found)
}

/// Which module needs which others.
fn edges(sources: &BTreeMap<Module, Vec<Import>>) -> BTreeMap<Module, BTreeSet<Module>> {
    sources
        .iter()
        .map(|(module, imports)| {
            let needed = imports
                .iter()
                // Passed on, and not used here.
                .filter(|import| !import.public || import.used)
                .filter_map(|import| resolve(sources, module, &import.path, 0))
                .filter(|target| target != module)
                .collect();
            (module.clone(), needed)
        })
        .collect()
}

/// The module that has what a path in `from` leads to; `None` for other crates.
fn resolve(
    sources: &BTreeMap<Module, Vec<Import>>,
    from: &Module,
    path: &[String],
    depth: usize,
) -> Option<Module> {
    let (first, mut rest) = path.split_first()?;
    let mut at = match first.as_str() {
        "crate" => Module::new(),
        "self" => from.clone(),
        "super" => from.split_last()?.1.to_vec(),
        child => {
            let mut module = from.clone();
            module.push(child.to_owned());
            sources.contains_key(&module).then_some(module)?
        }
    };
    while let Some((next, further)) = rest.split_first() {
        let mut child = at.clone();
        if next == "super" {
            child.pop()?;
        } else {
            child.push(next.clone());
            if !sources.contains_key(&child) {
                break;
            }
        }
        (at, rest) = (child, further);
    }
    let passed_on = rest.first().and_then(|name| {
        let imports = sources.get(&at)?.iter();
        imports.filter(|i| i.public).find(|i| i.name == *name)
    });
    // Circles of names that are passed on do not compile; the depth is only for texts that are no Rust.
    match passed_on {
        Some(import) if depth < 8 => {
            let path = [&import.path[..], &rest[1..]].concat();
            resolve(sources, &at, &path, depth + 1).or(Some(at))
        }
        _ => sources.contains_key(&at).then_some(at),
    }
}

/// The sets of more than one module of which each reaches each other.
fn circles(edges: &BTreeMap<Module, BTreeSet<Module>>) -> Vec<BTreeSet<Module>> {
    let reached: BTreeMap<&Module, BTreeSet<&Module>> = edges
        .keys()
        .map(|module| {
            let mut seen = BTreeSet::new();
            let mut open = vec![module];
            while let Some(at) = open.pop() {
                for next in edges.get(at).into_iter().flatten() {
                    if seen.insert(next) {
                        open.push(next);
                    }
                }
            }
            (module, seen)
        })
        .collect();
    let mut found = BTreeSet::new();
    for (module, seen) in &reached {
        let there_and_back =
            |other: &&&Module| reached.get(**other).is_some_and(|r| r.contains(module));
        let circle: BTreeSet<Module> = seen
            .iter()
            .filter(there_and_back)
            .map(|m| (*m).clone())
            .collect();
        if circle.len() > 1 {
            found.insert(circle);
        }
    }
    found.into_iter().collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn found(files: &[(&str, &str)]) -> Vec<Vec<String>> {
        let sources = files
            .iter()
            .map(|(path, text)| {
                let module = path
                    .split("::")
                    .filter(|s| !s.is_empty())
                    .map(str::to_owned);
                (module.collect(), read_file(text))
            })
            .collect();
        let circles = circles(&edges(&sources));
        circles
            .iter()
            .map(|c| c.iter().map(name).collect())
            .collect()
    }

    #[test]
    fn a_circle_is_found_however_it_is_written() {
        for (a, b) in [
            ("use crate::b::B;", "use crate::a::A;"),
            ("use super::b::{self, B};", "use crate::{a, c::D};"),
            ("fn f() { crate::b::f() }", "use super::a::A as Other;"),
            (
                "use crate::{\n    b::{B, C},\n    c,\n};",
                "type X = super::a::A;",
            ),
            (
                "use super::{b::*};",
                "pub(crate) use super::a::A; fn f(_: A) {}",
            ),
        ] {
            let files = [("a", a), ("b", b), ("c", ""), ("", "mod a; mod b; mod c;")];
            assert_eq!(found(&files), [["a", "b"]], "{a} {b}");
        }
    }

    #[test]
    fn what_is_none_is_not_found() {
        for (a, b) in [
            ("use crate::b::B;", "use crate::c::C;"),
            ("use crate::b::B;", "// use crate::a::A;"),
            (
                "use crate::b::B;",
                "const TEXT: &str = \"use crate::a::A;\";",
            ),
            (
                "use crate::b::B;",
                "#[cfg(test)]\nmod tests {\n    use crate::a::A;\n}",
            ),
            ("use crate::b::B;", "#[cfg(test)]\nuse crate::a::A;"),
            ("use crate::b::B;", "use other::a::A;"),
            ("use crate::b::B;", "pub(in super::super) fn f() {}"),
        ] {
            let files = [("a", a), ("b", b), ("c", ""), ("", "mod a; mod b; mod c;")];
            assert!(found(&files).is_empty(), "{a} {b}");
        }
    }

    #[test]
    fn names_that_are_passed_on_lead_to_their_file() {
        let files = [
            (
                "lane",
                "mod write; mod task; pub(crate) use write::Write; pub use task::{Task as Job};",
            ),
            ("lane::write", "use super::Job;"),
            ("lane::task", ""),
            ("", "mod lane;"),
        ];
        assert!(found(&files).is_empty());
        let files = [
            (
                "lane",
                "mod write; mod task; pub(crate) use write::Write; pub use task::{Task as Job};",
            ),
            ("lane::write", "use super::Job;"),
            ("lane::task", "use crate::lane::Write;"),
            ("", "mod lane;"),
        ];
        assert_eq!(found(&files), [["lane::task", "lane::write"]]);
    }

    #[test]
    fn three_files_are_one_circle() {
        let files = [
            ("a", "use crate::b::B;"),
            ("b", "use crate::c::C;"),
            ("c", "use crate::a::A;"),
            ("d", "use crate::a::A;"),
        ];
        assert_eq!(found(&files), [["a", "b", "c"]]);
    }
}
