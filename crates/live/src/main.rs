//! `cargo xtask conformance` runs this program; see the library.

fn main() -> std::process::ExitCode {
    trace_destination_live::main()
}
