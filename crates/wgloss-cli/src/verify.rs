//! `wgloss verify`

use crate::device::DeviceArgs;
use crate::options::loss_names;
use crate::schedules::{CHOSEN, Named, schedules};
use crate::text::{self, Align};
use crate::{Fallible, Verdict};
use measure::contract::{Off, Reference, shown};
use measure::problem::{Problem, Storage};
use measure::record::Work;
use rayon::prelude::*;
use serde_json::{Value, json};
use wgloss::{Context, Error, Loss, Reduction, losses};

/// 255 to 257: around a workgroup; 1, 3, 4, 5: around a vector. Then streams, of vectors and not; rows beyond one grid. Of
/// shapes that are equally wrong the first is told.
const SHAPES: [[usize; 2]; 11] =
    [[5, 257], [5, 256], [5, 255], [5, 5], [5, 4], [5, 3], [5, 1], [1, 1], [3, 1004], [2, 50_257], [70_000, 3]];
/// An odd row of several vectors; whole vectors; one element a row.
const QUICK: [[usize; 2]; 3] = [[3, 257], [5, 8], [3, 1]];

#[derive(clap::Args)]
pub struct Args {
    /// Losses to verify [default: the whole catalogue]
    #[arg(value_name = "LOSS", value_parser = loss_names())]
    losses: Vec<String>,
    /// Fewer shapes and schedules
    #[arg(long)]
    quick: bool,
    /// Element types to verify
    #[arg(long, value_enum, value_delimiter = ',', value_name = "TYPE", default_values_t = Storage::ALL)]
    dtype: Vec<Storage>,
    /// Print JSON
    #[arg(long)]
    json: bool,
    /// Leave the last row out under schedules with this in their name, to see that it is found
    #[arg(long, hide = true, value_name = "SCHEDULE")]
    break_schedule: Option<String>,
}

/// The result for one loss, schedule and element type, over all shapes.
struct Line {
    loss: String,
    schedule: &'static str,
    storage: Storage,
    /// Shapes that the schedule could take.
    shapes: usize,
    /// The worst value, and the shape it was found in.
    worst: Option<(Off, [usize; 2])>,
    /// The error, if there are no values.
    error: Option<String>,
}

impl Line {
    fn is_right(&self) -> bool {
        self.error.is_none() && self.worst.as_ref().is_none_or(|(off, _)| off.units <= 1.0)
    }

    /// The failure, in one line.
    fn complaint(&self) -> String {
        let what = format!("{}, {}, {}", self.loss, self.schedule, self.storage.name());
        match (&self.error, &self.worst) {
            (Some(error), _) => format!("{what}: {error}"),
            (None, Some((off, [rows, cols]))) => format!("{what}, shape [{rows}, {cols}]: {off}"),
            (None, None) => what,
        }
    }

    fn json(&self) -> Value {
        let worst = self.worst.as_ref().map(|(off, shape)| {
            json!({
                "shape": shape, "output": off.output, "index": off.index,
                "got": number(off.got), "want": number(off.want),
            })
        });
        json!({
            "loss": self.loss,
            "schedule": self.schedule,
            "dtype": self.storage.name(),
            "shapes": self.shapes,
            "units": self.worst.as_ref().map(|(off, _)| number(off.units)),
            "worst": worst,
            "error": self.error,
            "passed": self.is_right(),
        })
    }
}

/// JSON has no NaN and no infinity: they are told as text.
fn number(x: f64) -> Value {
    if x.is_finite() { json!(x) } else { json!(x.to_string()) }
}

/// A mean, and in 16 bits a sum: the gradients of a mean are small, and f16 has few digits for small numbers.
fn reduced(loss: Loss, storage: Storage) -> Loss {
    loss.reduction(if storage == Storage::F32 { Reduction::Mean } else { Reduction::Sum })
}

/// A loss in one element type: a line for each schedule.
fn verify(ctx: &Context, loss: &Loss, storage: Storage, args: &Args, step: &dyn Fn(&str)) -> Fallible<Vec<Line>> {
    let name = loss.name();
    let named = named(loss, ctx, args.quick);
    let is_broken = |named: &Named| args.break_schedule.as_ref().is_some_and(|part| named.name.contains(part));
    let line =
        |named: &Named| Line { loss: name.clone(), schedule: named.name, storage, shapes: 0, worst: None, error: None };
    let mut lines: Vec<Line> = named.iter().map(line).collect();
    for &[rows, cols] in shapes(args.quick) {
        let problem = Problem::new(&reduced(loss.clone(), storage), rows, cols, storage)?;
        let reference = Reference::new(&problem, Work::ForwardBackward)?;
        for (line, named) in lines.iter_mut().zip(&named) {
            step(&format!("{name} {} {}", storage.name(), named.name));
            match try_schedule(ctx, &problem, &reference, named, is_broken(named)) {
                Ok(Some(off)) => {
                    line.shapes += 1;
                    if line.worst.as_ref().is_none_or(|(worst, _)| off.units > worst.units) {
                        line.worst = Some((off, [rows, cols]));
                    }
                }
                Ok(None) => {}
                Err(error) => {
                    line.error.get_or_insert_with(|| format!("shape [{rows}, {cols}]: {error}"));
                }
            }
        }
    }
    Ok(lines)
}

fn shapes(quick: bool) -> &'static [[usize; 2]] {
    if quick { &QUICK } else { &SHAPES }
}

fn named(loss: &Loss, ctx: &Context, quick: bool) -> Vec<Named> {
    schedules(loss.rows_along() != wgloss::RowAxis::None, ctx.limits(), quick)
}

/// The worst value; none where the schedule cannot take the shape, or should not.
fn try_schedule(
    ctx: &Context,
    problem: &Problem,
    reference: &Reference,
    named: &Named,
    is_broken: bool,
) -> wgloss::Result<Option<Off>> {
    if !named.is_worth([problem.rows, problem.cols], ctx.limits()) {
        return Ok(None);
    }
    let work = Work::ForwardBackward;
    let plan = match ctx.plan(&problem.loss, &problem.spec(work).pin(named.pinned)) {
        // A row that registers cannot hold, or one that has nothing to share.
        Err(Error::Unsupported { .. } | Error::Limit { .. }) if named.name != CHOSEN => return Ok(None),
        other => other?,
    };
    let tensors = problem.upload(ctx)?;
    // A dispatch that falls short; of a single row, nothing would be left.
    let rows = problem.rows - usize::from(is_broken && problem.rows > 1);
    let bound = tensors.bind_rows(&plan, work, rows)?;
    let (loss, grad) = tensors.run(ctx, &bound, work)?;
    Ok(Some(reference.worst(loss, grad.as_deref())))
}

/// A line for each loss and schedule, a column for each element type.
fn table(lines: &[Line], dtypes: &[Storage]) -> String {
    let mut rows = vec![vec!["loss".to_owned(), "schedule".to_owned()]];
    rows[0].extend(dtypes.iter().map(|storage| storage.name()));
    rows[0].push("shapes".to_owned());
    let firsts = lines.iter().filter(|line| line.storage == dtypes[0]);
    for first in firsts {
        let mut row = vec![first.loss.clone(), first.schedule.to_owned()];
        for storage in dtypes {
            let is_here =
                |line: &&Line| (&line.loss, line.schedule, line.storage) == (&first.loss, first.schedule, *storage);
            let cell = lines.iter().find(is_here).map_or_else(String::new, |line| match (&line.error, &line.worst) {
                (Some(_), _) => "error".to_owned(),
                (None, Some((off, _))) => shown(off.units) + if line.is_right() { "" } else { " WRONG" },
                (None, None) => "-".to_owned(),
            });
            row.push(cell);
        }
        row.push(first.shapes.to_string());
        rows.push(row);
    }
    let mut aligns = vec![Align::Left, Align::Left];
    aligns.resize(rows[0].len(), Align::Right);
    text::columns(&aligns, &rows)
}

/// Every loss in every element type on a device of its own: side by side, as drivers compile the kernels of a device one
/// by one; and when the device goes, so do its kernels, thousands in all.
fn verify_all(ctx: &Context, open: impl Fn() -> wgloss::Result<Context> + Sync, args: &Args) -> Fallible<Vec<Line>> {
    let chosen: Vec<Loss> = losses::CATALOGUE
        .iter()
        .filter(|entry| args.losses.is_empty() || args.losses.iter().any(|asked| asked == entry.name))
        .map(|entry| (entry.make)())
        .collect();
    let works: Vec<(&Loss, Storage)> =
        chosen.iter().flat_map(|loss| args.dtype.iter().map(move |storage| (loss, *storage))).collect();
    let steps = works.iter().map(|(loss, _)| named(loss, ctx, args.quick).len() * shapes(args.quick).len()).sum();
    let bar = text::progress(steps);
    let step = |what: &str| {
        bar.set_message(what.to_owned());
        bar.inc(1);
    };
    let of = |(loss, storage): &(&Loss, Storage)| -> Result<Vec<Line>, String> {
        let ctx = open().map_err(|error| error.to_string())?;
        let lines = verify(&ctx, loss, *storage, args, &step).map_err(|error| error.to_string())?;
        // As soon as they are known.
        for line in lines.iter().filter(|line| !line.is_right()) {
            bar.suspend(|| eprintln!("WRONG {}", line.complaint()));
        }
        Ok(lines)
    };
    let lines: Vec<Vec<Line>> = works.par_iter().map(of).collect::<Result<_, String>>()?;
    bar.finish_and_clear();
    Ok(lines.into_iter().flatten().collect())
}

pub fn run(device: &DeviceArgs, args: &Args) -> Fallible<Verdict> {
    let ctx = device.open()?;
    let lines = verify_all(&ctx, || device.open(), args)?;
    let wrong = lines.iter().filter(|line| !line.is_right()).count();
    if args.json {
        let all: Vec<Value> = lines.iter().map(Line::json).collect();
        let record = json!({ "adapter": ctx.adapter_name(), "passed": wrong == 0, "results": all });
        text::print(&(serde_json::to_string_pretty(&record)? + "\n"))?;
    } else {
        let known: usize = lines.iter().map(|line| line.shapes).sum();
        let verdict = match wrong {
            0 => format!("all right: {known} results are within the contract"),
            _ => format!("WRONG: {wrong} of {} combinations of loss, schedule and element type", lines.len()),
        };
        let text = format!(
            "adapter: {}\nworst error, in units of what the contract allows (1 is as much as may be; - cannot run so)\n\
             \n{}\n{verdict}\n",
            ctx.adapter_name(),
            table(&lines, &args.dtype)
        );
        text::print(&text)?;
    }
    Ok(if wrong == 0 { Verdict::Right } else { Verdict::Wrong })
}
