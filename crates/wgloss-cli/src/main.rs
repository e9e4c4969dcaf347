//! `wgloss`: what adapters there are, whether the kernels are right on them, and how fast they are.
//!
//! Each subcommand is a file of its own with its arguments and a `run`; a new one is a variant of [`Command`] and an
//! arm of `run` below. Tables and records go to stdout, progress and complaints to stderr.

mod adapters;
mod bench;
mod device;
mod explain;
mod export;
mod options;
mod report;
mod schedules;
mod text;
mod verify;
mod works;

use clap::{Parser, Subcommand};
use std::process::ExitCode;

/// Result of a subcommand: an error is printed, and the exit code is 1.
type Fallible<T> = Result<T, Box<dyn std::error::Error>>;

/// Loss functions and their gradients on the GPU: look at adapters, verify kernels on them, measure, explain, export.
///
/// Exit codes: 0, 1 where something failed or was found wrong, 2 for arguments that make no sense.
#[derive(Parser)]
#[command(name = "wgloss", version, propagate_version = true, max_term_width = 120)]
struct Cli {
    #[command(flatten)]
    device: device::DeviceArgs,
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// List the adapters, with the limits and features that matter here, and the one that would be picked
    Adapters(adapters::Args),
    /// Compare every loss, schedule and element type with the f64 CPU reference on this adapter
    Verify(verify::Args),
    /// Measure throughput on GPU and CPU, side by side, beside a copy of as many bytes
    Bench(bench::Args),
    /// Show a loss's expression, gradient, stages, schedule and bytes
    Explain(explain::Args),
    /// Write a loss's kernels and a manifest, for any WebGPU host; needs no adapter
    Export(export::Args),
    /// Make one page of records: plots, ratios, errors, adapters
    Report(report::Args),
}

/// The finding of a subcommand.
enum Verdict {
    Right,
    Wrong,
}

fn main() -> ExitCode {
    let Cli { device, command } = Cli::parse();
    let verdict = match command {
        Command::Adapters(args) => adapters::run(&device, &args),
        Command::Verify(args) => verify::run(&device, &args),
        Command::Bench(args) => bench::run(&device, &args),
        Command::Explain(args) => explain::run(&device, &args),
        Command::Export(args) => export::run(&args),
        Command::Report(args) => report::run(&args),
    };
    match verdict {
        Ok(Verdict::Right) => ExitCode::SUCCESS,
        Ok(Verdict::Wrong) => ExitCode::FAILURE,
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
