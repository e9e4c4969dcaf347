//! Compiles the catalogue's kernels for GPUs that are not here, and says what their compilers made of them: registers,
//! spills, subgroups per SIMD, instructions per element, loads in flight.
//!
//! AMD's by RADV, Mesa's driver (`amd`, the default); for NVIDIA's, `hlsl` writes the kernels that `sass.py` compiles.

mod budgets;
mod cases;
mod code;
mod compile;
mod export;
mod radv;
mod record;
mod run;
mod shaders;

use clap::{Parser, Subcommand};
use std::process::ExitCode;

/// Result of a subcommand: an error is printed, and the exit code is 1.
type Fallible<T> = Result<T, Box<dyn std::error::Error>>;

/// What the compilers of GPUs that are not here make of the kernels of wgloss.
///
/// Exit codes: 0, 1 where a kernel spills or passes a budget or something failed, 2 for arguments that make no sense.
#[derive(Parser)]
#[command(name = "isa", max_term_width = 120)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Compile for AMD's GPUs, print a line per kernel, check budgets
    Amd(run::Args),
    /// Compile for the family of this process, and print the counts as JSON
    #[command(hide = true)]
    Family(run::FamilyArgs),
    /// Write kernels as HLSL, with a list of them, for sass.py
    Hlsl(export::Args),
}

fn main() -> ExitCode {
    let done = match Cli::parse().command {
        Command::Amd(args) => run::run(&args),
        Command::Family(args) => run::run_family(&args),
        Command::Hlsl(args) => export::run(&args),
    };
    match done {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(error) => {
            eprintln!("error: {error}");
            ExitCode::FAILURE
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn arguments_are_declared_consistently() {
        <Cli as clap::CommandFactory>::command().debug_assert();
    }
}
