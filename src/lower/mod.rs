//! Expressions to a [`Program`]: the values that each trip over memory computes, before any schedule.
//!
//! `lower_seen` lists the passes in order. The larger ones:
//!
//! 1. `split_label`: an element output that compares the column with a row's label becomes the expression for all
//!    other columns, and a row value stored at the label afterwards;
//! 2. `expand`: softmax and its relatives become row reductions and scalar operations (the online softmax state is
//!    [`Reduce::ExpSumRest`](crate::expr::Reduce::ExpSumRest), which leaves the row's maximum too), and outer factors
//!    are multiplied first;
//! 3. `assign`: sums over everything split the program into dependent passes, each as late as its readers allow;
//!    row reductions become stages by dependence.
//!
//! Each step is a file of its own (`check` before, `rewrite` for 1 and 2, `assign`); all use `program`, none another.
//! For a range of the columns (a shard of the classes, a range that fits a binding), `columns` turns gathers into sums
//! between 2 and 3. `looks` finds the values that are checked for NaN and bad labels, `poison` the results that these
//! poison. `text` prints expressions and passes.

mod assign;
mod check;
mod columns;
mod looks;
mod outputs;
mod poison;
mod program;
mod rewrite;
mod stage;
mod text;

pub(crate) use assign::finish_pass;
pub use looks::{Consumer, Look, LookKind, LookPlace, Looks, Placed, Poison};

pub use crate::loss::UPSTREAM;
pub use stage::{Along, AlongTrip, Stage};

pub use program::{
    GroupInput, Known, Output, OutputKind, Over, Pass, Program, RaggedInput, Saves, Upstream, Wanted, reported_label,
};
pub use text::{Expressions, expressions};

use crate::error::{Error, Result};
use crate::expr::op::Kind;
use crate::expr::simplify::simplify;
use crate::expr::{Graph, NodeId};
use crate::loss::Loss;
use crate::shape::{Ragged, RowAxis, Scope};

use assign::assign;
use check::{check_along_rows, check_gathers, check_rows, column_count};
use columns::spread_gathers;
use rewrite::Lowered;

/// Lowers a loss for one problem. `present(input)` is `None` for an absent input, else whether it is an unsigned label.
pub fn lower(loss: &Loss, wanted: &Wanted, present: &dyn Fn(&str) -> Option<bool>) -> Result<Program> {
    lower_columns(loss, wanted, present, Columns::Whole)
}

/// The columns of a row that one dispatch reads.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Columns {
    /// All of them.
    Whole,
    /// A range: it may not hold the label's column, so elements are not gathered but summed into states.
    Range,
}

/// As [`lower`], for all columns or for a range of them.
pub(crate) fn lower_columns(
    loss: &Loss,
    wanted: &Wanted,
    present: &dyn Fn(&str) -> Option<bool>,
    columns: Columns,
) -> Result<Program> {
    lower_seen(loss, wanted, present, columns, &mut |_, _| ())
}

/// The passes of lowering in order: the name of each, and its result as text.
pub fn lowered_step_by_step(
    loss: &Loss,
    wanted: &Wanted,
    present: &dyn Fn(&str) -> Option<bool>,
) -> Result<Vec<(&'static str, String)>> {
    let mut all = Vec::new();
    let program = lower_seen(loss, wanted, present, Columns::Whole, &mut |pass, text| all.push((pass, text())))?;
    all.push(("assign", program.print_passes()));
    Ok(all)
}

/// The passes of lowering. `see` gets the name of each, and a function that prints its result.
fn lower_seen(
    loss: &Loss,
    wanted: &Wanted,
    present: &dyn Fn(&str) -> Option<bool>,
    columns: Columns,
    see: &mut dyn FnMut(&'static str, &dyn Fn() -> String),
) -> Result<Program> {
    wanted.check_once()?;
    let graph = Graph::new();
    if let Some(GroupInput { input, by }) = &wanted.groups {
        declare_groups(&graph, loss, input, *by)?;
    }
    let built = loss.build(&graph, present)?;
    see("build", &|| graph.print(built.loss.id));
    let inputs = graph.inputs();
    let mut found = outputs::differentiated(&graph, loss, wanted, &built, &inputs)?;
    for extra in &wanted.extras {
        found.push((OutputKind::Extra(extra.clone()), loss.extra(&graph, present, extra)?.id));
    }
    see("differentiate", &|| text::of_outputs(&graph, found.iter().map(|(kind, id)| (kind, *id, None))));
    let (name, row_axis) = (loss.name(), loss.rows_along());
    if found.is_empty() {
        return Err(Error::Expr { loss: name, message: "no output was asked for".to_owned() });
    }
    if wanted.found_inf && wanted.grads.is_empty() {
        let message = "found_inf looks at stored gradients, and none is asked for".to_owned();
        return Err(Error::Expr { loss: name, message });
    }
    graph.verify(&name)?;
    check_rows(&graph, &name, row_axis, &found)?;
    let written = [Some(built.loss), built.denominator].into_iter().flatten().map(|expr| expr.id);
    let extras = found.iter().filter(|(kind, _)| matches!(kind, OutputKind::Extra(_))).map(|(_, id)| *id);
    let cols = column_count(&graph, &name, loss.cols()?, &written.chain(extras).collect::<Vec<NodeId>>())?;
    let all = found.iter().map(|(_, id)| *id).chain([built.loss.id]).collect::<Vec<NodeId>>();
    check_along_rows(&graph, &name, &all, columns == Columns::Range)?;
    let sums_columns = graph.sums_columns(&[built.loss.id]);
    let lowered = Lowered { graph: &graph, has_rows: row_axis != RowAxis::None, sums_columns };
    let mut outputs = lowered.outputs(&found, &inputs);
    // Gradients are poisoned by the looks of the loss, whether or not it is an output.
    let mut whole = lowered.expand(simplify(&graph, &[built.loss.id])[0]);
    let print = |outputs: &[Output]| text::of_outputs(&graph, outputs.iter().map(|o| (&o.kind, o.node, o.at_label)));
    see("simplify, split_label, expand", &|| print(&outputs));
    if columns == Columns::Range {
        let roots = outputs.iter().flat_map(Output::roots).chain([whole]).collect::<Vec<NodeId>>();
        check_gathers(&graph, &name, &roots)?;
        let spread = |id: &mut NodeId| *id = spread_gathers(&graph, *id);
        outputs.iter_mut().for_each(|output| {
            spread(&mut output.node);
            output.at_label.iter_mut().for_each(|(_, there)| spread(there));
        });
        spread(&mut whole);
        see("spread_gathers", &|| print(&outputs));
    }
    let looks = Looks::new(&graph, lowered.has_rows, whole, &outputs);
    see("looks", &|| text::of_looks(&graph, &looks));
    let mut program = assign(&graph, [name, loss.title()], row_axis, outputs, looks);
    program.ragged = wanted.groups.as_ref().map(|groups| ragged_input(&program, groups)).transpose()?;
    program.state_classes();
    program.cols = cols;
    program.found_inf = wanted.found_inf;
    set_shape_rules(&mut program, loss);
    Ok(program)
}

/// The shapes that inputs may have, as the loss declares them.
fn set_shape_rules(program: &mut Program, loss: &Loss) {
    let specs = loss.inputs();
    for input in &mut program.inputs {
        let spec = specs.iter().find(|spec| spec.name == input.name);
        input.shape_rule = spec.map(|spec| spec.shape_rule).unwrap_or_default();
    }
    if let Some(RaggedInput { index, by }) = program.ragged {
        program.inputs[index].shape_rule = RaggedInput::declared(by).1;
    }
}

/// Declares groups of unequal length, and their input.
fn declare_groups(graph: &Graph, loss: &Loss, input: &str, by: Ragged) -> Result<()> {
    let inputs = loss.inputs().into_iter().map(|input| input.name).chain(loss.weights_and_masks());
    let known: Vec<String> = inputs.chain([UPSTREAM.to_owned()]).collect();
    if known.iter().any(|known| known == input) {
        let what = format!("groups of {} are given by an input of a name of their own, not by the input", loss.name());
        return Err(Error::Name { what, name: input.to_owned(), known: known.join(", ") });
    }
    graph.declare_ragged_groups();
    graph.input(input, RaggedInput::declared(by).0, Kind::Int);
    Ok(())
}

/// The input of groups of unequal length; an error if no value of the program is one of a group.
fn ragged_input(program: &Program, groups: &GroupInput) -> Result<RaggedInput> {
    let GroupInput { input, by } = groups;
    if program.has_group_columns() {
        let message = format!(
            "values per group and column of {}, in groups of unequal length; take equal groups (group_rows), or sum each \
             column over its group as a row value (`column(k)`)",
            program.name
        );
        return Err(Error::Unsupported { message });
    }
    if !program.scopes.contains(&Scope::Group) {
        let message = format!("it has no value of a group, so that nothing would read `{input}`; leave it out");
        return Err(Error::Expr { loss: program.name.clone(), message });
    }
    let index = program.input(input).expect("the input is declared before all others");
    Ok(RaggedInput { index, by: *by })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::expr::{Extent, Node};
    use crate::losses;
    use crate::shape::Scope;

    fn lowered(loss: &Loss, grads: &[&str]) -> Program {
        let wanted = Wanted { loss: true, grads: grads.iter().map(|g| g.to_string()).collect(), ..Wanted::default() };
        lower(loss, &wanted, &|name| ["input", "target", "x", "y"].contains(&name).then_some(false)).unwrap()
    }

    fn softmax_loss() -> Loss {
        Loss::define("ce").input("x", Scope::Element).label("y").row_axis(RowAxis::Class).unreduced(|b| {
            let (x, y) = (b.input("x"), b.input("y"));
            let valid = !b.label_is("y", -100);
            let nll = x.logsumexp_shifted() - (x.at(y) - x.max().detach());
            crate::loss::Unreduced {
                value: nll.masked(valid),
                denominator: crate::loss::Denominator::Sum(valid.to_float()),
            }
        })
    }

    #[test]
    fn mean_squared_error_takes_one_pass() {
        let program = lowered(&losses::mse(), &["input", "target"]);
        assert_eq!(program.passes.len(), 1);
        assert_eq!(program.passes[0].totals.len(), 1);
        assert_eq!(program.passes[0].outputs.len(), 2);
    }

    #[test]
    fn cross_entropy_counts_labels_first_and_reads_logits_in_one_pass() {
        let program = lowered(&softmax_loss(), &["x"]);
        assert_eq!(program.passes.len(), 2);
        assert!(!program.passes[0].columns, "the denominator needs labels only");
        assert_eq!(program.passes[0].totals.len(), 1);
        assert_eq!(program.passes[1].stages.len(), 1, "one online stage");
        assert_eq!(program.passes[1].stages[0].reduces.len(), 1, "which knows the maximum as well");
        let grad = program.outputs.iter().find(|o| o.kind == OutputKind::Grad(0)).unwrap();
        let (_, there) = grad.at_label.expect("the label's gradient is a row value");
        assert_eq!(program.scope(there), Scope::Row);
        let valid = program.passes[1].poison.iter().all(|poison| poison.row.is_some());
        assert!(valid, "rows that are ignored are not looked at");
    }

    #[test]
    fn a_part_of_the_columns_gathers_nothing() {
        let wanted = Wanted { loss: true, grads: vec!["x".into()], ..Wanted::default() };
        let program = lower_columns(&softmax_loss(), &wanted, &|_| Some(false), Columns::Range).unwrap();
        let gathered = |node: &Node| matches!(node, Node::At(x, _) if *program.node(*x) != Node::ColIndex);
        assert!(!program.nodes.iter().any(gathered));
        assert!(program.nodes.iter().any(|node| matches!(node, Node::At(..))), "the label is checked");
        assert_eq!(program.passes[1].stages.len(), 1);
        assert_eq!(program.passes[1].stages[0].reduces.len(), 2, "softmax and the label's logit");
    }

    #[test]
    fn forward_alone_takes_one_pass() {
        let program = lowered(&softmax_loss(), &[]);
        assert_eq!(program.passes.len(), 1);
        assert_eq!(program.passes[0].totals.len(), 2);
    }

    #[test]
    fn a_loss_of_a_total_splits_the_program() {
        let rmse = Loss::define("rmse").input("input", Scope::Element).input("target", Scope::Element).expr(|b| {
            let r = b.input("input") - b.input("target");
            ((r * r).sum_over(Scope::Total) / b.graph().count(Extent::Elements)).sqrt()
        });
        assert_eq!(lowered(&rmse, &["input"]).passes.len(), 2);
    }

    #[test]
    fn two_reductions_in_a_row_are_two_stages() {
        let variance = Loss::define("variance").input("x", Scope::Element).row_axis(RowAxis::Last).expr(|b| {
            let r = b.input("x") - b.input("x").mean();
            (r * r).mean()
        });
        assert_eq!(lowered(&variance, &[]).passes[0].stages.len(), 2);
    }

    #[test]
    fn unmasked_terms_keep_nan_in_sight() {
        let both = softmax_loss().reduction(crate::Reduction::Sum)
            + Loss::define("sum").input("x", Scope::Element).row_axis(RowAxis::Class).expr(|b| b.input("x").sum());
        let program = lowered(&both, &["x"]);
        let is_x = |look: &Look| *program.node(look.node) == Node::Input(0);
        let seen = program.passes.last().unwrap().poison.iter().filter(|p| p.row.is_none());
        assert!(seen.flat_map(|p| p.at(LookPlace::Stage(0))).any(is_x), "the sum is looked at in every row");
        let labels = program.passes.last().unwrap().poison.iter().filter(|p| p.row.is_some());
        assert!(labels.flat_map(|p| &p.looks).any(|p| p.look.kind == LookKind::Label), "labels where they count");
    }

    #[test]
    fn shared_values_are_looked_at_once() {
        // One multiplication per step; 2⁶⁰ paths.
        let power = Loss::define("power").input("x", Scope::Element).expr(|b| {
            let first = b.input("x").masked(b.input("x").lt(0.0)) + b.input("x");
            (0..60).fold(first, |x, _| x * x)
        });
        assert_eq!(lowered(&power, &["x"]).passes[0].poison.iter().map(|p| p.looks.len()).sum::<usize>(), 1);
    }

    #[test]
    fn a_softmax_needs_a_row_axis() {
        let flat = Loss::define("flat").input("x", Scope::Element).expr(|b| b.input("x").softmax());
        let wanted = Wanted { loss: true, ..Wanted::default() };
        assert!(matches!(lower(&flat, &wanted, &|_| Some(false)), Err(Error::Expr { .. })));
    }
}
