//! `wgloss explain`

use crate::device::DeviceArgs;
use crate::options::{loss_names, with_options};
use crate::{Fallible, Verdict, text};
use measure::problem::{Problem, Storage};
use measure::record::Work;
use std::fmt::Write;
use wgloss::Limits;
use wgloss::internals::lower::{expressions, lower, lowered_step_by_step};
use wgloss::internals::plan::preview;

#[derive(clap::Args)]
pub struct Args {
    /// The loss
    #[arg(value_name = "LOSS", value_parser = loss_names())]
    loss: String,
    /// Rows of the input
    #[arg(long, default_value_t = 1024, value_parser = clap::value_parser!(u32).range(1..))]
    rows: u32,
    /// Columns of the input: classes, where there are labels
    #[arg(long, default_value_t = 1000, value_parser = clap::value_parser!(u32).range(1..))]
    cols: u32,
    /// How numbers are stored
    #[arg(long, value_enum, value_name = "TYPE", default_value_t = Storage::F32)]
    dtype: Storage,
    /// An option of the loss, of which @NAME is a scalar input; may be repeated
    #[arg(short = 'O', long = "option", value_name = "NAME=VALUE")]
    options: Vec<String>,
    /// Plan as for this GPU; none needs to be here
    #[arg(long = "as", value_name = "GPU", value_parser = presets(), conflicts_with_all = ["adapter", "backend"])]
    preset: Option<String>,
    /// Print what each pass of lowering leaves
    #[arg(long)]
    passes: bool,
    /// Print the kernels as well
    #[arg(long)]
    wgsl: bool,
}

fn presets() -> clap::builder::PossibleValuesParser {
    clap::builder::PossibleValuesParser::new(Limits::PRESETS.iter().map(|(name, _)| *name))
}

/// A plan in words, and its kernels in WGSL.
struct Planned {
    explanation: String,
    kernels: Vec<String>,
}

/// The plan for a preset, or for the adapter that is here.
fn planned(device: &DeviceArgs, args: &Args, problem: &Problem) -> Fallible<Planned> {
    let spec = problem.spec(Work::ForwardBackward);
    let Some(name) = &args.preset else {
        let plan = device.open()?.plan(&problem.loss, &spec)?;
        return Ok(Planned { explanation: plan.explain(), kernels: plan.kernels()? });
    };
    let limits = Limits::preset(name).ok_or("the parser knows the presets")?;
    let found = preview(&problem.loss, &spec, &limits, &format!("the preset {name}"))?;
    Ok(Planned { explanation: found.explanation, kernels: found.planned.kernels() })
}

fn indented(text: &str) -> String {
    text.replace('\n', "\n        ")
}

pub fn run(device: &DeviceArgs, args: &Args) -> Fallible<Verdict> {
    let loss = with_options(&args.loss, &args.options)?;
    let work = Work::ForwardBackward;
    // Only what is there matters, not what is in it.
    let problem = Problem::shaped(&loss, args.rows as usize, args.cols as usize, args.dtype);
    let present = |name: &str| problem.present(name);
    let told = expressions(&loss, &[&problem.wrt], &present)?;
    let program = lower(&loss, &problem.wanted(work), &present)?;
    let mut out = format!("loss\n    {}\n", indented(&told.loss));
    for (input, grad) in &told.grads {
        let _ = writeln!(out, "gradient of {input}\n    {}", indented(grad));
    }
    let plan = planned(device, args, &problem)?;
    if args.passes {
        for (pass, text) in lowered_step_by_step(&loss, &problem.wanted(work), &present)? {
            let _ = writeln!(out, "\n{pass}\n    {}", text.trim_end().replace('\n', "\n    "));
        }
    }
    let stages = program.print_passes();
    let _ = write!(out, "\n{stages}");
    if stages.contains("row_expsumrest") {
        out.push_str(
            "(row_expsumrest: the sum of exp(x - max) over all but the maximum, and the maximum, in one trip)\n",
        );
    }
    let _ = write!(out, "\n{}", plan.explanation);
    if args.wgsl {
        for kernel in plan.kernels {
            let _ = write!(out, "\n{}\n", kernel.trim_end());
        }
    }
    text::print(&out)?;
    Ok(Verdict::Right)
}
