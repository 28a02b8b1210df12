//! The binary: everything is in the library's `cli`.

use std::process::ExitCode;

/// Jobs and requests are made of short-lived texts that one thread makes and another frees.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

fn main() -> ExitCode {
    orchestrator::cli::main()
}
