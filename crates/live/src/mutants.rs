//! `cargo xtask mutants`: shows that the suite can fail. One deliberate fault per promise is built
//! into the pipeline, one after the other, and the promise's own cases must notice.

use clap::Args;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::mpsc;
use trace_destination_conformance::{MemoryHarness, Mutant, Report, Suite};

#[derive(Args)]
pub(crate) struct Mutants {
    /// Runs every case against each mutant, to see which others notice it too; takes longer.
    #[arg(long)]
    all: bool,
    /// Only mutants whose name contains this text.
    #[arg(long, value_name = "TEXT")]
    mutant: Option<String>,
}

/// Mutants tried at the same time; most of their cases wait for something that never comes.
const JOBS: usize = 5;

fn suite() -> Suite {
    Suite::new().with_harness(Arc::new(MemoryHarness::new()))
}

impl Mutants {
    pub(crate) fn run(&self) -> Result<(), String> {
        if !cfg!(debug_assertions) {
            return Err("mutants exist in debug builds only: run without --release".into());
        }
        let chosen: Vec<Mutant> = Mutant::ALL
            .into_iter()
            .filter(|m| {
                self.mutant
                    .as_ref()
                    .is_none_or(|t| m.to_string().contains(t))
            })
            .collect();
        if chosen.is_empty() {
            return Err("no mutant has such a name".into());
        }
        // What panics and fails on purpose is not worth a backtrace each.
        std::panic::set_hook(Box::new(|_| {}));
        let sound = suite().run();
        sound
            .verdict()
            .map_err(|f| format!("{sound}\nwithout a mutant, {f}"))?;
        println!("without a mutant: {} cases pass", sound.counts().0);

        let next = AtomicUsize::new(0);
        let mut survivors = Vec::new();
        std::thread::scope(|scope| {
            let (send, receive) = mpsc::channel();
            for _ in 0..JOBS {
                let (send, next, chosen) = (send.clone(), &next, &chosen);
                scope.spawn(move || {
                    while let Some(mutant) = chosen.get(next.fetch_add(1, Ordering::Relaxed)) {
                        if send.send((*mutant, self.try_out(*mutant))).is_err() {
                            return;
                        }
                    }
                });
            }
            drop(send);
            for (mutant, report) in receive {
                if !print_killers(mutant, &report) {
                    survivors.push(mutant.to_string());
                }
            }
        });
        match survivors.is_empty() {
            true => {
                println!(
                    "all {} mutants are killed by their own promise's cases",
                    chosen.len()
                );
                Ok(())
            }
            false => Err(format!(
                "not noticed by the cases of their own promise: {}",
                survivors.join(", ")
            )),
        }
    }

    fn try_out(&self, mutant: Mutant) -> Report {
        let suite = suite().with_mutant(mutant);
        match self.all {
            true => suite.without_heavy().run(),
            false => suite.with_promise(mutant.promise()).run(),
        }
    }
}

/// Prints which cases noticed; whether one of the mutant's own promise is among them.
fn print_killers(mutant: Mutant, report: &Report) -> bool {
    let own: Vec<&str> = report
        .failures()
        .filter(|row| row.promise == mutant.promise())
        .map(|row| row.case.as_str())
        .collect();
    let others = report.failures().count() - own.len();
    println!(
        "{:>3}  {:<24} {:<8} {}",
        mutant.promise(),
        mutant.to_string(),
        if own.is_empty() { "SURVIVES" } else { "killed" },
        mutant.breaks(),
    );
    for case in &own {
        println!("       by {case}");
    }
    if others > 0 {
        println!("       and {others} cases of other promises");
    }
    !own.is_empty()
}
