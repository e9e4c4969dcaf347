//! Loss and gradient of losses with trips along rows (scans, sorts, pairs) beside mse, in GB/s of the bytes that `explain`
//! counts as moved: a scan's values and a sort's passes over keys and columns in the workspace included. Each is compared
//! with the f64 path before it is timed, and takes turns with mse.
//!
//! `cargo bench --bench along_rows -- [--rows N] [--cols N] [--lanes N] [losses]` prints a table in Markdown. `scan_sum`,
//! `scan_logsumexp` and `sort` are a weighted sum of what these alone make of a row.

#[path = "common/beside.rs"]
mod beside;
#[path = "common/step.rs"]
mod step;

use beside::{Step, fastest};
use wgloss::{Context, Direction, Expr, Loss, Order, Pinned, RowAxis, Scope, losses};

const LOSSES: [&str; 8] = [
    "scan_sum",
    "scan_logsumexp",
    "sort",
    "emd_squared",
    "list_mle",
    "cox_partial_likelihood",
    "lovasz_hinge",
    "ranknet",
];

/// The sum of what `along` makes of a row's elements, each with a weight.
fn weighted(name: &'static str, along: fn(Expr<'_>) -> Expr<'_>) -> Loss {
    let definition = Loss::define(name).input("input", Scope::Element).input("weights", Scope::Element);
    definition.row_axis(RowAxis::Last).expr(move |b| (along(b.input("input")) * b.input("weights")).sum())
}

fn named(name: &str) -> Loss {
    match name {
        "scan_sum" => weighted("scan_sum", |x| x.scan_sum(Direction::Forward)),
        "scan_logsumexp" => weighted("scan_logsumexp", |x| x.scan_logsumexp(Direction::Forward)),
        "sort" => weighted("sort", |x| x.in_order_of(x.argsort(Order::Descending))),
        name => losses::by_name(name).unwrap_or_else(|| panic!("no loss {name}")),
    }
}

/// Bytes that `explain` says a run moves.
fn bytes_moved(explained: &str) -> u64 {
    let lines = explained.lines().filter_map(|line| line.split("does move").nth(1));
    let digits = lines.map(|line| line.split('B').next().unwrap_or("").replace([',', ' '], ""));
    digits.map(|digits| digits.parse::<u64>().expect("a count of bytes")).sum()
}

fn main() {
    let ctx = match Context::new() {
        Ok(ctx) => ctx,
        Err(error) => return eprintln!("skipped: {error}"),
    };
    let (mut shape, mut pinned, mut chosen) = ([1024, 4096], Pinned::default(), Vec::new());
    let mut args = std::env::args().skip(1).filter(|arg| arg != "--bench");
    while let Some(arg) = args.next() {
        let mut number = || args.next().and_then(|text| text.parse().ok()).expect("a number after it");
        match arg.as_str() {
            "--rows" => shape[0] = number(),
            "--cols" => shape[1] = number(),
            "--lanes" => pinned.lanes = Some(number() as u32),
            _ => chosen.push(arg),
        }
    }
    if chosen.is_empty() {
        chosen = LOSSES.map(str::to_owned).to_vec();
    }
    let mse = Step::new(&ctx, &losses::mse(), shape, Pinned::default());
    println!("{}, f32 [{}, {}], loss and gradient, fastest of 7 runs\n", ctx.adapter_name(), shape[0], shape[1]);
    println!("| loss | ms | bytes per element | GB/s | of mse | by processor time |");
    println!("|---|---:|---:|---:|---:|---:|");
    for name in chosen {
        let mut of_loss = Step::new(&ctx, &named(&name), shape, pinned);
        of_loss.bytes = bytes_moved(&of_loss.bound.explain());
        let [of_mse, speeds] = fastest(&ctx, [&mse, &of_loss], 7);
        let [share, share_of_processors] = [0, 1].map(|k| 100.0 * speeds[k] / of_mse[k]);
        let (bytes, elements) = (of_loss.bytes as f64, (shape[0] * shape[1]) as f64);
        println!(
            "| `{name}` | {:.1} | {:.0} | {:.2} | {share:.0} % | {share_of_processors:.0} % |",
            bytes * 1e-6 / speeds[0],
            bytes / elements,
            speeds[0]
        );
    }
}
