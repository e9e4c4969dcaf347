//! Loss and gradient of each pointwise loss beside those of mse, in GB/s of the bytes that must move: inputs once, outputs
//! once. Each is compared with the f64 reference before it is timed, and takes turns with mse.
//!
//! `cargo bench --bench pointwise -- [--quick] [losses]` prints a table in Markdown: records are in `benches/record/`.
//! A loss within 10 % of mse is bound by memory as mse is; of the others the table says how many functions an element
//! takes that no processor has an instruction for at the speed of memory.

#[path = "common/beside.rs"]
mod beside;
#[path = "common/step.rs"]
mod step;

use beside::{Step, WORK, fastest};
use measure::problem::{Problem, Storage};
use std::collections::{BTreeMap, HashSet};
use wgloss::internals::expr::{Node, NodeId, op::Op};
use wgloss::internals::lower::{Program, lower};
use wgloss::losses::{CATALOGUE, Entry};
use wgloss::{Context, Loss, Pinned, RowAxis, Scope, losses};

/// Rows and columns: of f32, 16 MiB per tensor.
const SHAPE: [usize; 2] = [4096, 1024];
const QUICK: [usize; 2] = [512, 1024];

/// Functions of an element that are computed by a polynomial, a series or an approximation.
const TRANSCENDENTAL: [Op; 16] = [
    Op::Exp,
    Op::Expm1,
    Op::Log,
    Op::Log1p,
    Op::Sqrt,
    Op::Tanh,
    Op::Sigmoid,
    Op::LogSigmoid,
    Op::Softplus,
    Op::LogCosh,
    Op::Erf,
    Op::Atan,
    Op::Lgamma,
    Op::Digamma,
    Op::Pow,
    Op::Xlogy,
];

/// Operations per element, by kind: those that outputs and sums are computed from.
fn operations(loss: &Loss) -> BTreeMap<Op, usize> {
    let problem = Problem::shaped(loss, 1, 1, Storage::F32);
    let program: Program = lower(loss, &problem.wanted(WORK), &|name| problem.present(name)).expect("a program");
    let (mut counts, mut seen) = (BTreeMap::new(), HashSet::new());
    let totals = program.passes.iter().flat_map(|pass| pass.totals.iter().copied());
    let mut left: Vec<NodeId> = program.outputs.iter().flat_map(|output| output.roots()).chain(totals).collect();
    while let Some(id) = left.pop() {
        if !seen.insert(id) {
            continue;
        }
        left.extend(program.node(id).operands());
        if let (Scope::Element, Node::Op(op, _)) = (program.scope(id), *program.node(id)) {
            *counts.entry(op).or_default() += 1;
        }
    }
    counts
}

/// Such as `2 log, 1 exp`; nothing where there are none.
fn listed(ops: &BTreeMap<Op, usize>) -> String {
    let functions = ops.iter().filter(|(op, _)| TRANSCENDENTAL.contains(op));
    let each: Vec<String> = functions.map(|(op, count)| format!("{count} {op:?}").to_lowercase()).collect();
    each.join(", ")
}

/// The losses of one value per element whose elements know nothing of each other.
fn pointwise() -> impl Iterator<Item = (&'static Entry, Loss)> {
    let all = CATALOGUE.iter().map(|entry| (entry, (entry.make)()));
    all.filter(|(_, loss)| loss.scope() == Ok(Scope::Element) && loss.rows_along() == RowAxis::None)
}

fn main() {
    let ctx = match Context::new() {
        Ok(ctx) => ctx,
        Err(error) => return eprintln!("skipped: {error}"),
    };
    let args: Vec<String> = std::env::args().skip(1).filter(|arg| arg != "--bench").collect();
    let is_quick = args.iter().any(|arg| arg == "--quick");
    let (shape, rounds) = if is_quick { (QUICK, 9) } else { (SHAPE, 15) };
    let named: Vec<&String> = args.iter().filter(|arg| !arg.starts_with('-')).collect();
    let mse = Step::new(&ctx, &losses::mse(), shape, Pinned::default());
    println!("{}, f32 [{}, {}], loss and gradient, fastest of {rounds} runs\n", ctx.adapter_name(), shape[0], shape[1]);
    println!("| loss | GB/s | of mse | by processor time | functions per element | other operations |");
    println!("|---|---:|---:|---:|---|---:|");
    for (entry, loss) in pointwise() {
        if !named.is_empty() && !named.iter().any(|name| *name == entry.name) {
            continue;
        }
        let of_loss = Step::new(&ctx, &loss, shape, Pinned::default());
        let [of_mse, speeds] = fastest(&ctx, [&mse, &of_loss], rounds);
        let [share, share_of_processors] = [0, 1].map(|k| 100.0 * speeds[k] / of_mse[k]);
        let ops = operations(&loss);
        let functions = listed(&ops);
        let others: usize = ops.iter().filter(|(op, _)| !TRANSCENDENTAL.contains(op)).map(|(_, n)| n).sum();
        let name = entry.name;
        println!(
            "| `{name}` | {:.1} | {share:.0} % | {share_of_processors:.0} % | {functions} | {others} |",
            speeds[0]
        );
    }
}
