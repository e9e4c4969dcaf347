//! Reverse mode on the expression graph, one arm for each operation, and the diagonal of the Hessian.
//!
//! Where a function has a kink, the subgradient is stated at its arm. What a selection or a mask does not take gives
//! gradient 0 by selection, never by multiplication: below it each adjoint knows where it counts (`Taken`), and
//! where contributions meet that count in different places, each is set to 0 elsewhere.

use crate::expr::condition::{may_be_nan, not};
use crate::expr::op::{Kind, Op};
use crate::expr::{Expr, Extent, Graph, Node, NodeId, Reduce};
use crate::shape::Scope;
use std::collections::HashMap;

/// Gradients of `root`, weighted by `upstream` (as many values as `root` has), with respect to each of `inputs`.
///
/// `None` where `root` does not depend on the input. The gradient of a row or scalar input is summed to its scope;
/// that of a column input still has one value an element, to be summed over the rows.
pub fn gradients<'g>(root: Expr<'g>, upstream: Expr<'g>, inputs: &[NodeId]) -> Vec<Option<Expr<'g>>> {
    let reverse = Reverse { graph: root.graph(), active: dependents(root, inputs) };
    let found = reverse.run(root, upstream);
    inputs.iter().map(|id| found.get(id).copied()).collect()
}

/// ∂g/∂x, element by element, of a gradient `g` with respect to the element input `x` that it belongs to: the
/// diagonal of the Hessian, with what flows through row reductions and totals.
pub fn diagonal<'g>(g: Expr<'g>, input: NodeId) -> Option<Expr<'g>> {
    let graph = g.graph();
    let active = dependents(g, &[input]);
    let mut tangent: HashMap<NodeId, Expr<'g>> = HashMap::new();
    for id in graph.reachable(&[g.id]) {
        if !active[id.index()] {
            continue;
        }
        let out = graph.expr(id);
        let found = if id == input {
            Some(graph.constant(1.0))
        } else if !matches!(out.scope(), Scope::Element | Scope::Column) {
            gradients(out, graph.constant(1.0), &[input])[0]
        } else {
            element_tangent(out, &tangent, input)
        };
        if let Some(found) = found {
            tangent.insert(id, found);
        }
    }
    tangent.get(&g.id).copied()
}

/// The derivative of an element value along its own element of the input.
fn element_tangent<'g>(out: Expr<'g>, tangent: &HashMap<NodeId, Expr<'g>>, input: NodeId) -> Option<Expr<'g>> {
    let graph = out.graph();
    let sum = |a: Option<Expr<'g>>, b: Option<Expr<'g>>| match (a, b) {
        (Some(a), Some(b)) => Some(a + b),
        (a, b) => a.or(b),
    };
    match graph.node(out.id) {
        Node::Op(Op::Select, [condition, yes, no]) => {
            let of = |operand: NodeId| tangent.get(&operand).copied();
            let zero = graph.constant(0.0);
            if let (true, Node::Op(Op::Eq, [adjoint, ..])) = (graph.is_multiple(out.id), graph.node(condition)) {
                // An adjoint that passes through 0 is a multiple there too; one that stays 0 was not taken.
                let stays = of(adjoint).map_or(graph.truth(true), |slope| slope.equals(0.0));
                return of(no).map(|slope| graph.expr(condition).and(stays).select(zero, slope));
            }
            let (yes, no) = (of(yes), of(no));
            (yes.or(no).is_some()).then(|| graph.expr(condition).select(yes.unwrap_or(zero), no.unwrap_or(zero)))
        }
        // A scalar operation's tangent is its adjoint's arm applied to the operand's tangent: both multiply by ∂.
        Node::Op(op, operands) => {
            let mut total = None;
            for (place, operand) in operands.iter().enumerate().take(op.arity()) {
                if let Some(&t) = tangent.get(operand) {
                    total = sum(total, vjp(op, place, &operands, out, t));
                }
            }
            total
        }
        Node::Softmax(x) | Node::SoftmaxMinusOne(x) => {
            let t = *tangent.get(&x)?;
            let p = graph.expr(x).softmax();
            if through_rows(graph.expr(x), input) {
                let lse = gradients(graph.expr(x).logsumexp(), graph.constant(1.0), &[input])[0];
                Some(p * (t - lse?))
            } else {
                Some(-(t * p * graph.add(Node::SoftmaxMinusOne(x))))
            }
        }
        Node::Masked(condition, x) => {
            let t = *tangent.get(&x)?;
            Some(graph.expr(condition).select(t, 0.0))
        }
        Node::StraightThrough(_, gradient_of) => tangent.get(&gradient_of).copied(),
        Node::WithGradient(value, wrt, gradient) => {
            let outer = tangent.get(&wrt).map(|t| *t * graph.expr(gradient));
            let is_nested = matches!(graph.node(value), Node::WithGradient(..));
            sum(outer, tangent.get(&value).copied().filter(|_| is_nested))
        }
        _ => None,
    }
}

/// Whether an element value depends on other elements of the input too, through a reduction.
fn through_rows(x: Expr<'_>, input: NodeId) -> bool {
    let graph = x.graph();
    let active = dependents(x, &[input]);
    graph.reachable(&[x.id]).into_iter().any(|id| active[id.index()] && graph.scope(id) != Scope::Element)
}

/// Which nodes below `root` depend on one of the inputs through something that carries a gradient.
fn dependents(root: Expr<'_>, inputs: &[NodeId]) -> Vec<bool> {
    let graph = root.graph();
    let mut active = vec![false; graph.len()];
    for id in graph.reachable(&[root.id]) {
        let on = |x: NodeId| active[x.index()];
        active[id.index()] = inputs.contains(&id)
            || match graph.node(id) {
                Node::Detach(_) => false,
                Node::StraightThrough(_, gradient_of) => on(gradient_of),
                Node::WithGradient(value, wrt, _) => {
                    on(wrt) || matches!(graph.node(value), Node::WithGradient(..)) && on(value)
                }
                Node::Masked(_, x) => on(x),
                _ if graph.kind(id) != Kind::Float => false,
                node => node.operands().any(on),
            };
    }
    active
}

/// Where an adjoint counts.
#[derive(Clone, Debug, Default, PartialEq)]
struct Taken {
    /// Where these conditions hold, each asked where those before it hold. Elsewhere the adjoint has no meaning, and
    /// may be NaN.
    conditions: Vec<NodeId>,
    /// Whether it counts only where it is not 0: it is exactly 0 where nothing was taken.
    not_zero: bool,
}

impl Taken {
    /// Only where that holds, too. Where nothing was taken further out, a condition that may be NaN is not asked.
    fn under(&self, condition: NodeId, adjoint: Expr<'_>) -> Taken {
        let mut taken = self.clone();
        if self.not_zero && self.conditions.is_empty() && may_be_nan(adjoint.graph(), condition) {
            taken.conditions.push(not(adjoint.graph(), adjoint.equals(0.0).id));
        }
        if !taken.conditions.contains(&condition) {
            taken.conditions.push(condition);
        }
        taken
    }

    /// With an adjoint that was set to 0 where its conditions do not hold.
    fn zeroed() -> Taken {
        Taken { conditions: Vec::new(), not_zero: true }
    }
}

struct Reverse<'g> {
    graph: &'g Graph,
    active: Vec<bool>,
}

/// Parts of an adjoint, and where each counts.
type Contributions<'g> = Vec<(Expr<'g>, Taken)>;

impl<'g> Reverse<'g> {
    /// Gradients of the inputs below `root`, whose adjoint is `upstream`.
    fn run(&self, root: Expr<'g>, upstream: Expr<'g>) -> HashMap<NodeId, Expr<'g>> {
        let graph = self.graph;
        let mut open: HashMap<NodeId, Contributions<'g>> =
            HashMap::from([(root.id, vec![(upstream, Taken::default())])]);
        let mut found = HashMap::new();
        for id in graph.reachable(&[root.id]).into_iter().rev() {
            if !self.active[id.index()] {
                continue;
            }
            let Some(contributions) = open.remove(&id) else { continue };
            let (adjoint, taken) = self.meet(contributions);
            if let Node::Input(_) = graph.node(id) {
                found.insert(id, self.zero_unless(adjoint, &taken.conditions));
                continue;
            }
            self.propagate(graph.expr(id), adjoint, taken, &mut |operand, part, taken| {
                if self.active[operand.index()] {
                    open.entry(operand).or_default().push((part, taken));
                }
            });
        }
        found
    }

    /// The sum of contributions, and where it counts: what their conditions have in common is left to be asked later.
    fn meet(&self, mut parts: Contributions<'g>) -> (Expr<'g>, Taken) {
        // Both branches of a selection meet again: one selection between them.
        while let Some((a, b)) = self.branches(&parts) {
            let (no, of_no) = parts.remove(b);
            let (yes, taken) = &mut parts[a];
            let condition = taken.conditions.pop().expect("branches have conditions");
            *yes = self.graph.expr(condition).select(*yes, no);
            taken.not_zero |= of_no.not_zero;
        }
        let mut shared = parts[0].1.conditions.clone();
        for (_, taken) in &parts[1..] {
            let common = shared.iter().zip(&taken.conditions).take_while(|(a, b)| a == b).count();
            shared.truncate(common);
        }
        let rest = |(part, taken): &(Expr<'g>, Taken)| self.zero_unless(*part, &taken.conditions[shared.len()..]);
        let sum = parts.iter().map(rest).reduce(|a, b| a + b).expect("a value with an adjoint has a contribution");
        let counts = |(_, taken): &(Expr<'g>, Taken)| !taken.not_zero && taken.conditions.len() == shared.len();
        let not_zero = !parts.iter().any(counts);
        (sum, Taken { conditions: shared, not_zero })
    }

    /// Two contributions that count where the same conditions hold, but for the last one, which one needs to hold and
    /// the other not to.
    fn branches(&self, parts: &Contributions<'g>) -> Option<(usize, usize)> {
        let is_other =
            |a: usize, b: usize| match (parts[a].1.conditions.split_last(), parts[b].1.conditions.split_last()) {
                (Some((yes, before)), Some((no, other))) => before == other && *no == not(self.graph, *yes),
                _ => false,
            };
        (0..parts.len()).find_map(|a| (a + 1..parts.len()).find(|b| is_other(a, *b)).map(|b| (a, b)))
    }

    /// A value that is exactly 0 unless all of these hold.
    fn zero_unless(&self, value: Expr<'g>, conditions: &[NodeId]) -> Expr<'g> {
        conditions.iter().rev().fold(value, |value, condition| self.graph.expr(*condition).select(value, 0.0))
    }

    /// Calls `add(operand, contribution, taken)` for each operand; contributions are summed to its scope.
    fn propagate(&self, out: Expr<'g>, adjoint: Expr<'g>, taken: Taken, add: &mut dyn FnMut(NodeId, Expr<'g>, Taken)) {
        let graph = self.graph;
        // A contribution with one value for each value of scope `from`.
        let mut give = |operand: NodeId, part: Expr<'g>, from: Scope, taken: Taken| {
            let to = graph.scope(operand);
            // Summed with others, it is 0 where it does not count.
            let (part, taken) = if self.reach(&taken, to) {
                (part, taken)
            } else {
                (self.zero_unless(part, &taken.conditions), Taken::zeroed())
            };
            add(operand, self.sum_to(to, part, from), taken);
        };
        // What chooses by itself leaves 0 where it does not.
        let chosen =
            |part: Expr<'g>| (nothing_of_zero(part, adjoint, &taken), Taken { not_zero: true, ..taken.clone() });
        match graph.node(out.id) {
            Node::Op(Op::Select, [condition, yes, no]) => {
                for (operand, condition) in [(yes, condition), (no, not(graph, condition))] {
                    give(operand, adjoint, out.scope(), taken.under(condition, adjoint));
                }
            }
            Node::Masked(condition, x) => {
                give(x, adjoint, out.scope(), taken.under(condition, adjoint));
            }
            Node::Op(op, operands) => {
                for (place, operand) in operands.iter().enumerate().take(op.arity()) {
                    if !self.active[operand.index()] {
                        continue;
                    }
                    let Some(part) = vjp(op, place, &operands, out, adjoint) else { continue };
                    let (part, taken) = match op {
                        Op::Relu | Op::Maximum | Op::Minimum => chosen(part),
                        _ => (self.exact(op, place, &operands, part, adjoint, &taken), taken.clone()),
                    };
                    give(*operand, part, out.scope(), taken);
                }
            }
            Node::Reduce(reduce, x) => {
                let value = graph.expr(x);
                match reduce {
                    Reduce::Sum => give(x, adjoint, Scope::Element, taken),
                    // Ties share the gradient equally.
                    Reduce::Max | Reduce::Min => {
                        let mut tie = value.equals(out);
                        if !matches!(graph.node(x), Node::Input(_)) {
                            // Computed again in another loop, no value may be equal to the extreme to the last bit.
                            let first = if reduce == Reduce::Max { value.argmax() } else { (-value).argmax() };
                            tie = tie.or(graph.col_index().equals(first));
                        }
                        let count = tie.select(1.0, 0.0).sum();
                        let (part, taken) = chosen(tie.select(adjoint / count, 0.0));
                        give(x, part, Scope::Element, taken);
                    }
                    Reduce::ArgMax => {}
                    // The shift is taken to carry no gradient, so the maximum's own term counts as well.
                    Reduce::ExpSumRest => {
                        let part = adjoint * (value - value.max().detach()).exp();
                        give(x, nothing_of_zero(part, adjoint, &taken), Scope::Element, taken);
                    }
                    Reduce::LogSumExpShifted => {
                        give(x, nothing_of_zero(adjoint * value.softmax(), adjoint, &taken), Scope::Element, taken);
                    }
                }
            }
            Node::SumOver(_, x) => give(x, adjoint, graph.scope(x), taken),
            Node::At(x, label) => {
                let here = graph.col_index().equals(graph.expr(label));
                give(x, adjoint, Scope::Element, taken.under(here.id, adjoint));
            }
            Node::Softmax(x) | Node::SoftmaxMinusOne(x) => {
                let p = graph.expr(x).softmax();
                // The sum over the row reaches where single elements count: what does not count is 0 in it.
                let (adjoint, taken) = if self.reach(&taken, Scope::Row) {
                    (adjoint, taken)
                } else {
                    (self.zero_unless(adjoint, &taken.conditions), Taken::zeroed())
                };
                let weighed = nothing_of_zero(adjoint * p, adjoint, &taken);
                let along = self.sum_to(Scope::Row, weighed, Scope::Element);
                let part = nothing_of_zero(p * (adjoint - along), adjoint - along, &taken);
                give(x, part, Scope::Element, taken);
            }
            Node::StraightThrough(_, gradient_of) => give(gradient_of, adjoint, graph.scope(gradient_of), taken),
            Node::WithGradient(value, wrt, gradient) => {
                let part = nothing_of_zero(adjoint * graph.expr(gradient), adjoint, &taken);
                give(wrt, part, out.scope(), taken.clone());
                if let Node::WithGradient(..) = graph.node(value) {
                    give(value, adjoint, out.scope(), taken);
                }
            }
            Node::Const(_) | Node::Int(_) | Node::Bool(_) | Node::Param(_) | Node::Input(_) => {}
            Node::ColIndex | Node::Count(_) | Node::Detach(_) => {}
        }
    }

    /// Whether the conditions choose among values of that scope.
    fn reach(&self, taken: &Taken, scope: Scope) -> bool {
        taken.conditions.iter().all(|id| reaches(self.graph.expr(*id), scope))
    }

    /// An operation's contribution, exactly 0 where the adjoint is, if its derivative depends on a value: that may be
    /// infinite there, or NaN.
    fn exact(
        &self,
        op: Op,
        place: usize,
        operands: &[NodeId; 3],
        part: Expr<'g>,
        adjoint: Expr<'g>,
        taken: &Taken,
    ) -> Expr<'g> {
        let depends = match op {
            Op::Neg | Op::Add | Op::Sub => false,
            Op::Mul => self.graph.scope(operands[1 - place]) > Scope::Param,
            Op::Div => self.graph.scope(operands[1]) > Scope::Param,
            _ => true,
        };
        if depends { nothing_of_zero(part, adjoint, taken) } else { part }
    }

    /// Sums a contribution with one value for each value of `from` to the scope `to` of its operand.
    fn sum_to(&self, to: Scope, contribution: Expr<'g>, from: Scope) -> Expr<'g> {
        let graph = self.graph;
        let multiplicity = |scope: Scope| if scope == Scope::Column { Scope::Element } else { scope };
        let (to, from) = (multiplicity(to), multiplicity(from));
        if to >= from || to == Scope::Param {
            return contribution;
        }
        let inner = multiplicity(contribution.scope());
        let count = |extent: Extent| graph.count(extent);
        // Elements to their row first, unless everything goes into one total.
        match (to, from) {
            (Scope::Row, _) => match inner {
                Scope::Element => contribution.sum(),
                _ => contribution * count(Extent::Cols),
            },
            (Scope::Group, Scope::Element) => {
                let rows = self.sum_to(Scope::Row, contribution, Scope::Element);
                self.sum_to(Scope::Group, rows, Scope::Row)
            }
            (Scope::Group, _) => match inner {
                Scope::Row => contribution.sum_over(Scope::Group),
                _ => contribution * count(Extent::GroupRows),
            },
            (_, Scope::Element) => match inner {
                Scope::Element => contribution.sum_over(Scope::Total),
                Scope::Row | Scope::Group => {
                    let rows = contribution * count(Extent::Cols);
                    self.sum_to(to, rows, Scope::Row)
                }
                _ => contribution * count(Extent::Elements),
            },
            (_, Scope::Row) => match inner {
                Scope::Row => contribution.sum_over(Scope::Total),
                Scope::Group => (contribution * count(Extent::GroupRows)).sum_over(Scope::Total),
                _ => contribution * count(Extent::Rows),
            },
            (_, Scope::Group) => match inner {
                Scope::Group => contribution.sum_over(Scope::Total),
                _ => contribution * (count(Extent::Rows) / count(Extent::GroupRows)),
            },
            _ => contribution,
        }
    }
}

/// A multiple of an adjoint, exactly 0 where that is: what it is multiplied by may be infinite there.
fn nothing_of_zero<'g>(part: Expr<'g>, adjoint: Expr<'g>, taken: &Taken) -> Expr<'g> {
    if !taken.not_zero {
        return part;
    }
    let multiple = adjoint.equals(0.0).select(0.0, part);
    part.graph().mark_multiple(multiple.id);
    multiple
}

/// Whether a condition chooses among values of that scope. Values further out are sums that it is applied to, term by
/// term.
fn reaches(mask: Expr<'_>, scope: Scope) -> bool {
    // Of scalars and totals there is one each.
    let scope = if scope == Scope::Column { Scope::Element } else { scope.max(Scope::Total) };
    mask.scope().join(scope) == scope
}

/// The adjoint of operand `place`: `adjoint` times the partial derivative.
fn vjp<'g>(op: Op, place: usize, operands: &[NodeId; 3], out: Expr<'g>, adjoint: Expr<'g>) -> Option<Expr<'g>> {
    let graph = out.graph();
    let operand = |k: usize| graph.expr(operands[k]);
    let a = operand(0);
    Some(match op {
        Op::Neg => -adjoint,
        // sign(0) = 0: the subgradient of |a| at 0 is 0.
        Op::Abs => adjoint * a.sign(),
        Op::Exp => adjoint * out,
        Op::Expm1 => adjoint * a.exp(),
        Op::Log => adjoint / a,
        Op::Log1p => adjoint / (1.0 + a),
        Op::Sqrt => adjoint * 0.5 / out,
        // 1 − tanh² cancels where tanh is near ±1: 4e/(1 + e)² with e = exp(−2|a|) does not.
        Op::Tanh => {
            let e = (-2.0 * a.abs()).exp();
            adjoint * (4.0 * e / ((1.0 + e) * (1.0 + e)))
        }
        Op::Sigmoid => adjoint * (out * (-a).sigmoid()),
        Op::LogSigmoid => adjoint * (-a).sigmoid(),
        Op::Softplus => adjoint * a.sigmoid(),
        Op::LogCosh => adjoint * a.tanh(),
        Op::Erf => adjoint * (std::f64::consts::FRAC_2_SQRT_PI * (-(a * a)).exp()),
        // 0 at the kink.
        Op::Relu => a.gt(0.0).select(adjoint, 0.0),
        Op::Add => adjoint,
        Op::Sub if place == 0 => adjoint,
        Op::Sub => -adjoint,
        Op::Mul => adjoint * operand(1 - place),
        Op::Div if place == 0 => adjoint / operand(1),
        Op::Div => -(adjoint * out / operand(1)),
        // Of x⁰ it is 0, at 0 as well, where x⁻¹ is infinite.
        Op::Pow if place == 0 => {
            let y = operand(1);
            adjoint * (y * a.pow(y.equals(0.0).select(0.0, y - 1.0)))
        }
        Op::Pow => adjoint * out.xlogy(a),
        // One half each at a tie.
        Op::Maximum | Op::Minimum => {
            let (this, that) = (operand(place), operand(1 - place));
            let (below, above) = if op == Op::Maximum { (this, that) } else { (that, this) };
            let tie_or_win = this.equals(that).select(adjoint * 0.5, adjoint);
            below.lt(above).select(0.0, tie_or_win)
        }
        Op::Xlogy if place == 0 => adjoint * operand(1).log(),
        Op::Xlogy => adjoint * (a / operand(1)),
        Op::Sign | Op::Not | Op::ToFloat | Op::Lt | Op::Le | Op::Eq | Op::And | Op::Or | Op::Select => return None,
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{HostTensor, Loss, Reduction, Wanted, cpu};

    fn element(g: &Graph) -> Expr<'_> {
        g.input("x", Scope::Element, Kind::Float)
    }

    #[test]
    fn cross_entropy_gradient_is_softmax_minus_one_hot() {
        let g = Graph::new();
        let x = element(&g);
        let y = g.input("y", Scope::Row, Kind::Int);
        let loss = x.logsumexp_shifted() - (x.at(y) - x.max().detach());
        let grad = gradients(loss, g.constant(1.0), &[x.id])[0].unwrap();
        assert_eq!(g.print(grad.id), "(select(eq(col, y), -1, 0) + 1 * softmax(x))");
    }

    #[test]
    fn row_value_used_by_elements_is_summed_back() {
        let g = Graph::new();
        let x = element(&g);
        let s = g.input("s", Scope::Row, Kind::Float);
        let grads = gradients((x * s).sum(), g.constant(1.0), &[x.id, s.id]);
        assert_eq!(g.print(grads[0].unwrap().id), "1 * s");
        assert_eq!(g.print(grads[1].unwrap().id), "row_sum(1 * x)");
    }

    #[test]
    fn adjoint_of_a_broadcast_counts_the_columns() {
        let g = Graph::new();
        let x = element(&g);
        let s = g.input("s", Scope::Row, Kind::Float);
        let grads = gradients((x + s).sum(), g.constant(1.0), &[s.id]);
        assert_eq!(g.print(grads[0].unwrap().id), "1 * cols");
    }

    #[test]
    fn detached_and_masked_paths() {
        let g = Graph::new();
        let x = element(&g);
        let y = g.input("y", Scope::Row, Kind::Int);
        assert!(gradients(x.detach() * 2.0, g.constant(1.0), &[x.id])[0].is_none());
        let valid = !y.equals(g.index(-100));
        let masked = x.sum().masked(valid);
        let grad = gradients(masked, g.constant(1.0), &[x.id])[0].unwrap();
        assert_eq!(g.print(grad.id), "select(not(eq(y, -100)), 1, 0)");
    }

    #[test]
    fn derivative_of_tanh_keeps_its_digits_far_out() {
        let loss = crate::Loss::define("tanh").input("x", Scope::Element).expr(|b| b.input("x").tanh());
        let x = [0.0f32, 1.5, -18.0, 40.0];
        let inputs = [("x", crate::HostTensor::f32(&x, &[4]))];
        let out = crate::cpu::forward_backward(&loss.reduction(crate::Reduction::Sum), &inputs, &["x"]).unwrap();
        for (got, x) in out.grad("x").unwrap().iter().zip(x) {
            let want = f64::from(x).cosh().powi(-2);
            assert!((got / want - 1.0).abs() < 1e-14, "{x}: {got}, want {want}");
        }
    }

    #[test]
    fn hessian_diagonal_of_cross_entropy_is_p_times_one_minus_p() {
        let g = Graph::new();
        let x = element(&g);
        let y = g.input("y", Scope::Row, Kind::Int);
        let loss = x.logsumexp_shifted() - (x.at(y) - x.max().detach());
        let grad = gradients(loss, g.constant(1.0), &[x.id])[0].unwrap();
        let diag = diagonal(grad, x.id).unwrap();
        assert!(g.print(diag.id).contains("softmax_minus_one(x)"), "{diag:?}");
    }

    #[test]
    fn a_mask_further_in_is_summed_with_what_it_keeps() {
        let g = Graph::new();
        let x = g.input("x", Scope::Element, Kind::Float);
        let w = g.input("w", Scope::Row, Kind::Float);
        let s = g.input("s", Scope::Scalar, Kind::Float);
        let keep = x.lt(0.0);
        for value in [(w * s).masked(keep), (x - w * s).masked(keep)] {
            let grads = gradients(value, g.constant(1.0), &[w.id, s.id]);
            let scopes: Vec<Scope> = grads.iter().flatten().map(|grad| grad.scope()).collect();
            assert_eq!(scopes, [Scope::Row, Scope::Total], "{:?}", grads);
        }
    }

    #[test]
    fn a_curvature_does_not_vanish_where_its_gradient_does() {
        let numbers = HostTensor::f32(&[1.0, 2.0, -1.0, 0.5], &[4]);
        // (relu(relu(x)) - 1)²: curved where x > 0, at the minimum x = 1 too.
        let of = |loss: Loss| {
            let wanted = Wanted { loss: true, hessian_diagonals: vec!["x".to_owned()], ..Wanted::default() };
            let out = cpu::run::<f64>(&loss.reduction(Reduction::Sum), &[("x", numbers.clone())], &wanted).unwrap();
            out.hessian_diagonal("x").unwrap().to_vec()
        };
        let element = |build: for<'g> fn(Expr<'g>) -> Expr<'g>| {
            of(Loss::define("mine").input("x", Scope::Element).expr(move |b| build(b.input("x"))))
        };
        assert_eq!(element(|x| (x.relu().relu() - 1.0) * (x.relu().relu() - 1.0)), [2.0, 2.0, 0.0, 2.0]);
        assert_eq!(element(|x| (x.maximum(-5.0).minimum(5.0) - 2.0).pow(2.0)), [2.0; 4]);
        // Not taken, it has none, whatever the derivative would be there.
        assert_eq!(element(|x| x.relu().maximum(1.0).log().relu())[2..], [0.0, 0.0]);
    }
}
