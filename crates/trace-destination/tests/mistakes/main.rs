//! What people get wrong, each really done, with the message that it gives. `docs/mistakes.md` is
//! this list, printed.

#![allow(clippy::unwrap_used, reason = "helpers of tests fail as tests do")]

mod list;
mod world;

use list::{Mistake, Mistakes, SECTIONS};
use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::path::Path;
use std::time::Duration;
use trace_destination::{Environment, Error};
use trace_destination_testkit::check_page;
use world::World;

/// Far more than any of them takes.
const PATIENCE: Duration = Duration::from_secs(20);
/// Set in the child that has proxies in its environment.
const CHILD: &str = "MISTAKES_CHILD";

/// The message of a mistake: when the location is made, else when it is checked, else as a warning.
fn message(vars: &BTreeMap<String, String>, timeout: Duration) -> String {
    let environment = Environment::from_source(vars.clone());
    let checked = || -> Result<(), Error> {
        drop(environment.builder()?.build()?);
        match environment.destination()? {
            Some(to) => to.check().with_timeout(timeout).wait().into_result(),
            None => Ok(()),
        }
    };
    match checked() {
        Err(error) => error.to_string(),
        Ok(()) => match environment.notices().first() {
            Some(notice) => notice.clone(),
            None => panic!("{vars:?} is no mistake"),
        },
    }
}

fn of(mistake: &Mistake, world: &World) -> String {
    let vars: BTreeMap<String, String> = mistake
        .vars
        .iter()
        .map(|(name, value)| ((*name).to_owned(), world.fill(value)))
        .collect();
    let timeout = match mistake.is_slow {
        true => Duration::from_millis(200),
        false => PATIENCE,
    };
    let text = match mistake.of_process.is_empty() {
        true => message(&vars, timeout),
        false => in_child(mistake, world),
    };
    world.shown(&text)
}

/// Proxies are of the whole process: another one makes the mistake.
fn in_child(mistake: &Mistake, world: &World) -> String {
    let mut child = std::process::Command::new(std::env::current_exe().unwrap());
    for name in ["HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY", "NO_PROXY"] {
        child.env_remove(name).env_remove(name.to_lowercase());
    }
    let vars = mistake.of_process.iter().chain(mistake.vars);
    let output = child
        .args(["--exact", "in_the_child", "--nocapture"])
        .envs(vars.map(|(name, value)| (*name, world.fill(value))))
        .env(CHILD, "1")
        .output()
        .unwrap();
    let output = String::from_utf8(output.stdout).unwrap();
    let said = output.lines().find_map(|line| line.split_once("MESSAGE: "));
    said.unwrap_or_else(|| panic!("{output}")).1.to_owned()
}

#[test]
fn in_the_child() {
    if std::env::var_os(CHILD).is_some() {
        let own = std::env::vars().filter(|(name, _)| name.starts_with("MLFLOW_TR"));
        println!("MESSAGE: {}", message(&own.collect(), PATIENCE));
    }
}

#[test]
fn each_mistake_has_its_message_in_the_documentation() {
    let world = World::new();
    let (mut out, mut count, mut wrong) = (String::new(), 0, Vec::new());
    for (title, mistakes) in SECTIONS {
        let _ = writeln!(out, "### {title}\n\n| mistake | message |\n|---|---|");
        for mistake in mistakes() {
            let said = of(&mistake, &world);
            count += 1;
            for secret in ["hunter2", "Bearer"] {
                if said.contains(secret) {
                    wrong.push(format!("a secret is shown: {said}"));
                }
            }
            if !said.contains(mistake.mend) {
                wrong.push(format!(
                    "{} does not say `{}`: {said}",
                    mistake.what, mistake.mend
                ));
            }
            let vars = mistake.vars.iter().chain(mistake.of_process);
            let set: Vec<String> = vars
                .map(|(name, value)| match *name {
                    "MLFLOW_TRACING_DESTINATION" => cell(value),
                    name => cell(&format!("{name}={value}")),
                })
                .collect();
            let _ = writeln!(
                out,
                "| {}: {} | {} |",
                mistake.what,
                set.join(" "),
                escaped(&said)
            );
        }
        out.push('\n');
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
    assert!(count >= 60, "{count} mistakes");
    let page = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../docs/mistakes.md");
    if let Err(differs) = check_page(&page, "mistakes", &out) {
        panic!("{differs}");
    }
}

/// A value as code in a cell of a table.
fn cell(text: &str) -> String {
    let text = text.replace('\n', "⏎").replace('|', "\\|");
    match text.contains('`') {
        true => format!("`` {text} ``"),
        false => format!("`{text}`"),
    }
}

fn escaped(text: &str) -> String {
    text.replace('\n', " ")
        .replace('|', "\\|")
        .replace('<', "&lt;")
}

/// Named, so that the list reads as one.
type Section = (&'static str, Mistakes);
const _: &[Section] = SECTIONS;
