//! `isa amd`: a process per family and way to find NaN, one after the other or side by side; a table, budgets, a record.

use crate::cases::{Choice, FAMILIES, Family, cases};
use crate::compile::compile;
use crate::record::{Compiled, Counts, Kernel, Nan, Planned, Record, Told, Trip};
use crate::{Fallible, budgets, radv};
use std::io::{BufRead, BufReader, Write};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

#[derive(clap::Args)]
pub struct Args {
    #[command(flatten)]
    choice: Choice,
    /// Only these families: vega10 (GCN, CDNA), navi21 (RDNA 2), gfx1100 (RDNA 3)
    #[arg(long, value_name = "NAME", value_parser = clap::builder::PossibleValuesParser::new(FAMILIES.map(|family| family.name)))]
    family: Vec<String>,
    /// Only kernels that find NaN so: by bits, as where no adapter was probed, or by sums
    #[arg(long, value_enum)]
    nan: Option<Nan>,
    /// Print every kernel, not only those that spill or have a budget
    #[arg(long)]
    all: bool,
    /// Print machine code as well, to stderr
    #[arg(long)]
    text: bool,
    /// Leave a record here
    #[arg(long, value_name = "PATH")]
    json: Option<PathBuf>,
    /// Compile for this many families at a time
    #[arg(long, value_name = "N", default_value_t = 1, value_parser = clap::value_parser!(u32).range(1..))]
    jobs: u32,
}

#[derive(clap::Args)]
pub struct FamilyArgs {
    #[command(flatten)]
    choice: Choice,
    #[arg(long)]
    family: String,
    #[arg(long, value_enum)]
    nan: Nan,
    /// Kernels that are not compiled again: the first ones
    #[arg(long)]
    known: usize,
    #[arg(long)]
    text: bool,
}

/// Whether nothing spills and no budget is passed.
pub fn run(args: &Args) -> Fallible<bool> {
    let Some(driver) = radv::installed() else {
        println!("RADV is not installed (Debian's mesa-vulkan-drivers has it): AMD's kernels are not compiled");
        return Ok(true);
    };
    let is_chosen = |family: &&Family| args.family.is_empty() || args.family.iter().any(|name| name == family.name);
    let nans = args.nan.map_or(Nan::ALL.to_vec(), |nan| vec![nan]);
    let runs = FAMILIES.iter().filter(is_chosen).flat_map(|family| nans.iter().map(move |nan| (family, *nan)));
    let runs: Vec<(&Family, Nan)> = runs.collect();
    let mut families = Vec::new();
    for together in runs.chunks(args.jobs as usize) {
        let compiled: Vec<Result<Compiled, String>> = std::thread::scope(|scope| {
            let one = |&(family, nan): &(&'static Family, Nan)| {
                let driver = &driver;
                scope.spawn(move || compiled(family, nan, driver).map_err(|error| error.to_string()))
            };
            let threads: Vec<_> = together.iter().map(one).collect();
            threads.into_iter().map(|thread| thread.join().expect("a thread that does not panic")).collect()
        });
        for compiled in compiled {
            let compiled = compiled?;
            print(&compiled, args.all);
            families.push(compiled);
        }
    }
    if let Some(path) = &args.json {
        // A line per kernel, so that a change shows in a diff.
        let text =
            serde_json::to_string(&Record::new(&families))?.replace("],[\"", "],\n[\"").replace("[[\"", "[\n[\"");
        std::fs::write(path, text + "\n")?;
    }
    let faults = families.iter().map(budgets::faults).collect::<Fallible<Vec<_>>>()?.concat();
    for fault in &faults {
        println!("FAULT {fault}");
    }
    Ok(faults.is_empty())
}

/// The kernels of a family, by processes of their own: a kernel that crashes the compiler ends one, and the next goes on
/// after it.
fn compiled(family: &Family, nan: Nan, driver: &Path) -> Fallible<Compiled> {
    let mut compiled = Compiled { family: family.name.to_owned(), nan, cases: Vec::new(), kernels: Vec::new() };
    loop {
        let known = compiled.kernels.len();
        let mut child = child(family, nan, driver, known)?;
        let out = BufReader::new(child.stdout.take().ok_or("the output of a process")?);
        let mut is_whole = false;
        for line in out.lines() {
            match serde_json::from_str(&line?)? {
                Told::Next(index, kernel) if index == compiled.kernels.len() => compiled.kernels.push(kernel),
                Told::Next(index, _) => return Err(format!("kernel {index} is told out of order").into()),
                Told::Done(index, counts) => compiled.kernels[index].counts = Some(counts),
                Told::Cases(cases) => (compiled.cases, is_whole) = (cases, true),
            }
        }
        let status = child.wait()?;
        if is_whole && status.success() {
            return Ok(compiled);
        }
        // A process that failed before it began another kernel would fail again.
        if status.code().is_some() || compiled.kernels.len() == known {
            return Err(format!("{} by {}: its process ended with {status}", family.name, nan.name()).into());
        }
    }
}

/// This program for one family: the arguments of this process that choose cases, and the driver's environment.
fn child(family: &Family, nan: Nan, driver: &Path, known: usize) -> Fallible<Child> {
    let mut command = Command::new(std::env::current_exe()?);
    command.args(["family", "--family", family.name, "--nan", nan.name(), "--known", &known.to_string()]);
    let mut args = std::env::args().skip(2);
    while let Some(arg) = args.next() {
        match arg.as_str() {
            "--loss" | "--dtype" | "--shape" => {
                command.arg(&arg).args(args.next());
            }
            "--few" | "--text" => {
                command.arg(&arg);
            }
            _ => {}
        }
    }
    command.env("RADV_FORCE_FAMILY", family.name).env("VK_DRIVER_FILES", driver).stdout(Stdio::piped());
    Ok(command.spawn()?)
}

pub fn run_family(args: &FamilyArgs) -> Fallible<bool> {
    let family = FAMILIES.iter().find(|family| family.name == args.family).ok_or("the name of a family")?;
    let mut text = |code: &str| {
        if args.text {
            eprintln!("{code}");
        }
    };
    let mut out = std::io::stdout().lock();
    let mut tell = |told: &Told| {
        serde_json::to_writer(&mut out, told)?;
        out.write_all(b"\n")?;
        Ok(out.flush()?)
    };
    compile((family, args.nan), &cases(&args.choice)?, args.known, &mut tell, &mut text)?;
    Ok(true)
}

fn print(compiled: &Compiled, all: bool) {
    let Compiled { family, nan, cases, kernels } = compiled;
    println!("# {family}, NaN by {}: {} kernels of {} cases", nan.name(), kernels.len(), cases.len());
    for (index, kernel) in kernels.iter().enumerate() {
        let is_clean = kernel.counts.as_ref().is_some_and(|counts| counts.spilled + counts.spilled_scalars == 0);
        let of: Vec<&Planned> = cases.iter().filter(|planned| planned.dispatches.contains(&index)).collect();
        let (Some(first), false) = (of.first(), is_clean && !all) else { continue };
        let more = if of.len() > 1 { format!(" and {} more", of.len() - 1) } else { String::new() };
        println!("{}{more}: {}", first.case.name(), kernel.title);
        println!("    {}", line(kernel, first.case.bytes()));
    }
}

/// The counts of a kernel whose elements have `bytes` bytes.
fn line(kernel: &Kernel, bytes: u32) -> String {
    let Some(counts) = &kernel.counts else { return "the compiler crashed".to_owned() };
    let Counts { instructions, registers, spilled, spilled_scalars, subgroups_per_simd, outside, .. } = counts;
    let trip = |trip: &Trip| {
        let Trip { vector, transcendental, elements, in_flight } = trip;
        format!(
            "{vector:.1} vector instructions an element ({transcendental:.1} transcendental), {elements} at a time, \
             {in_flight} loads in flight"
        )
    };
    let trips: Vec<String> = counts.trips(kernel.held, bytes).iter().map(trip).collect();
    format!(
        "{instructions} instructions ({} vector outside of loops), workgroup {}, {registers} registers, {spilled} \
         spilled ({spilled_scalars} scalars), {subgroups_per_simd} subgroups a SIMD; {}",
        outside.vector,
        kernel.workgroup,
        trips.join("; then ")
    )
}
