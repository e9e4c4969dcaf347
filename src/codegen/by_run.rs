//! Looks by runs: where the adapter carries NaN through sums, a pass over elements looks for NaN once a run of items, in
//! the sums of the run. A run that may have one is taken again, with a look at each item.

use super::access::Frame;
use super::elementwise::{outer_looks, totals};
use super::poison::{bits, bits_of_value, labels, largest};
use super::{Mode, Slot};
use crate::expr::op::{Kind, Op};
use crate::expr::{Fold, Node, NodeId};
use crate::limits::Exp2;
use crate::lower::{Look, LookKind, LookPlace, Program};
use crate::shape::Scope;
use crate::text::put;

/// What a value at an operand makes of the result.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Carried {
    /// NaN makes it NaN, by sums, products and selections.
    Nan,
    /// NaN makes it NaN, also by the functions that the probe of NaN calls.
    NanByFunctions,
    /// What is not finite makes it other than finite.
    NotFinite,
}

impl Carried {
    /// How values of a pass carry NaN.
    pub fn nan(frame: &Frame<'_>) -> Carried {
        if frame.exp2 == Exp2::Functions { Carried::NanByFunctions } else { Carried::Nan }
    }
}

/// Whether `id` carries what `from` is.
pub(super) fn carries(program: &Program, carried: Carried, id: NodeId, from: NodeId) -> bool {
    let of = |operand: NodeId| carries(program, carried, operand, from);
    let (is_nan, by_functions) = (carried != Carried::NotFinite, carried == Carried::NanByFunctions);
    match *program.node(id) {
        _ if id == from => true,
        Node::Op(Op::Neg | Op::Add | Op::Sub | Op::Mul, _) => program.node(id).operands().any(of),
        Node::Op(Op::Abs, [x, ..]) => of(x),
        Node::Op(Op::Select, [_, a, b]) if is_nan => of(a) && of(b),
        Node::Op(
            Op::Sign
            | Op::Relu
            | Op::Exp
            | Op::Log
            | Op::Log1p
            | Op::Sigmoid
            | Op::Softplus
            | Op::LogSigmoid
            | Op::Times,
            _,
        ) if by_functions => program.node(id).operands().any(of),
        Node::Op(Op::Maximum | Op::Minimum, [a, b, _]) if by_functions => {
            let is_number =
                |id: NodeId| matches!(*program.node(id), Node::Const(bits) if !f64::from_bits(bits).is_nan());
            is_number(a) && of(b) || is_number(b) && of(a)
        }
        _ => false,
    }
}

/// What is added up in a run, so that its sums tell whether an item needs a look.
#[derive(Default)]
pub(super) struct Watch {
    /// Values of items that are added up besides the sums of the pass.
    pub values: Vec<NodeId>,
    /// Whether ∞ in a sum needs a look too: times a factor of the dispatch it may be a NaN that is rounded.
    looks_at_infinities: bool,
    /// Those factors, which must be finite.
    factors: Vec<NodeId>,
}

impl Watch {
    /// `None` where each item is looked at: NaN is looked for by bits, an item is no vector, it cannot be taken again, or
    /// poisons look at other values than inputs.
    pub fn of(frame: &Frame<'_>) -> Option<Watch> {
        let (program, pass) = (frame.program, frame.pass);
        let is_written = |output: &usize| frame.mode(*output) == Mode::Write;
        let is_plain = !program.has_rows() && frame.width == 4 && !frame.alone && pass.lenient.is_empty();
        let has_terms = totals(frame).len() < pass.totals.len();
        let again = is_plain && !has_terms && pass.outputs.iter().all(is_written) && labels(program, pass).is_empty();
        if !(frame.carries_nan && again && pass.known.is_none()) {
            return None;
        }
        let looked = looked(frame)?;
        let is_sum = |sum: &&NodeId| program.fold(**sum) == Fold::Sum;
        let summed = totals(frame).iter().filter(is_sum).flat_map(|sum| program.node(*sum).operands()).collect();
        let mut watch = Watch::default();
        let mut added: Vec<NodeId> = summed;
        let values = pass.outputs.iter().map(|output| (*output, program.outputs[*output].node));
        // Rounding to 16 bits makes numbers of some NaN.
        let rounded = values.clone().filter(|(output, _)| frame.access(Slot::Output(*output)).dtype.is_packed());
        for (_, value) in rounded {
            match factor(program, value, &added) {
                Some(factor) => {
                    watch.looks_at_infinities |= factor.is_some();
                    watch.factors.extend(factor);
                }
                None => {
                    watch.values.push(value);
                    added.push(value);
                }
            }
        }
        for input in looked {
            let is_carried_by = |value: &NodeId| carries(program, Carried::nan(frame), *value, input);
            if !added.iter().any(is_carried_by) {
                let value = values.clone().map(|(_, value)| value).find(|value| is_carried_by(value)).unwrap_or(input);
                watch.values.push(value);
                added.push(value);
            }
        }
        Some(watch)
    }

    /// `needs_looks`: whether an item of a run may hold a NaN.
    pub fn text(&self, frame: &Frame<'_>) -> String {
        let is_sum = |sum: &NodeId| frame.program.fold(*sum) == Fold::Sum;
        let sums = totals(frame).iter().enumerate().filter(|(_, sum)| is_sum(sum)).map(|(k, _)| format!("s.sum{k}"));
        let sums: Vec<String> = sums.chain((!self.values.is_empty()).then(|| "s.watched".to_owned())).collect();
        let seen = (0..frame.pass.poison.len()).map(|k| format!("o.{}", bits(k)));
        let mut text = "fn needs_looks(o: Outer, s: LaneSums) -> bool {\n".to_owned();
        let mut seen: Vec<String> = seen.collect();
        if !sums.is_empty() {
            put!(text, "    let sums = {};\n", sums.join(" + "));
            seen.push(bits_of_value("((sums.x + sums.y) + (sums.z + sums.w))"));
        }
        let factors = self.factors.iter().map(|id| bits_of_value(&format!("o.n{}", id.0)));
        let infinite = match self.looks_at_infinities {
            true => format!(" || {} >= INF_BITS", largest(seen.last().cloned().into_iter().chain(factors), "0u")),
            false => String::new(),
        };
        put!(text, "    return {} > INF_BITS{infinite};\n}}\n", largest(seen, "0u"));
        text
    }
}

/// The inputs that poisons look at, item by item; `None` where they look at anything else.
fn looked(frame: &Frame<'_>) -> Option<Vec<NodeId>> {
    let (program, pass) = (frame.program, frame.pass);
    let mut inputs = Vec::new();
    for poison in &pass.poison {
        let outer: Vec<&Look> = outer_looks(frame, poison).collect();
        for look in poison.at(LookPlace::Row).filter(|look| !outer.contains(look)) {
            let is_float = program.kind(look.node) == Kind::Float && program.scope(look.node) > Scope::Total;
            let is_input = matches!(program.node(look.node), Node::Input(_));
            if !(look.kind == LookKind::Value && is_input && is_float) {
                return None;
            }
            if !inputs.contains(&look.node) {
                inputs.push(look.node);
            }
        }
    }
    Some(inputs)
}

/// The value of the dispatch by which a value that is added up is multiplied to give this one: where it and the sums are
/// finite, so is this value. The inner `None` where the value itself is added up.
fn factor(program: &Program, value: NodeId, added: &[NodeId]) -> Option<Option<NodeId>> {
    let is_added = |carried: Carried, id: NodeId| added.iter().any(|sum| carries(program, carried, *sum, id));
    if is_added(Carried::Nan, value) {
        return Some(None);
    }
    let [a, b] = match *program.node(value) {
        Node::Op(Op::Neg, [x, ..]) => return factor(program, x, added),
        Node::Op(Op::Mul, [a, b, _]) => [a, b],
        _ => return None,
    };
    let is_outer = |id: NodeId| program.scope(id) <= Scope::Total;
    let (outer, item) = if is_outer(a) { (a, b) } else { (b, a) };
    (is_outer(outer) && !is_outer(item) && is_added(Carried::NotFinite, item)).then_some(Some(outer))
}
