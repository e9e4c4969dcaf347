//! Named rewrite rules. Each is exact for NaN and ∞ (up to the sign of zero), or says what makes it sound.
//!
//! Refused on purpose: `select(c, a, a) -> a` (a NaN in what `c` is computed from counts), `x*0 -> 0` and `x-x -> 0`
//! (NaN and ∞), `x/x -> 1` (0 and ∞), and reassociation, which rounds differently.

use crate::expr::condition::may_be_nan;
use crate::expr::op::{Kind, Op};
use crate::expr::{Expr, Graph, Node, NodeId};
use crate::shape::Scope;
use std::collections::HashMap;

/// Rewrites the expressions below `roots` until no rule applies; returns the new roots in order.
pub fn simplify(graph: &Graph, roots: &[NodeId]) -> Vec<NodeId> {
    let mut done: HashMap<NodeId, NodeId> = HashMap::new();
    for id in graph.reachable(roots) {
        let node = match graph.node(id) {
            // A sum counts the values of its operand: it stays as it is if the operand would have fewer.
            node @ (Node::Reduce(_, x) | Node::FoldOver(_, _, x)) if graph.scope(done[&x]) != graph.scope(x) => node,
            node => node.map(|operand| done[&operand]),
        };
        done.insert(id, rewrite(graph, graph.add(node).id));
    }
    roots.iter().map(|root| done[root]).collect()
}

/// Applies rules at this node until none does. Operands are simplified already.
fn rewrite(graph: &Graph, id: NodeId) -> NodeId {
    let mut id = id;
    // Each rule makes the expression smaller or moves a negation outward, so this ends; the bound is a seat belt.
    for _ in 0..16 {
        let Some(next) = RULES.iter().find_map(|rule| (rule.apply)(&At { graph, id })) else { break };
        if next.id == id {
            break;
        }
        id = next.id;
    }
    id
}

/// A rewrite rule.
pub struct Rule {
    /// Name, for tests and messages.
    pub name: &'static str,
    /// `before -> after`.
    pub does: &'static str,
    apply: for<'g> fn(&At<'g>) -> Option<Expr<'g>>,
}

const fn rule(name: &'static str, does: &'static str, apply: for<'g> fn(&At<'g>) -> Option<Expr<'g>>) -> Rule {
    Rule { name, does, apply }
}

/// The rules, in the order in which they are tried.
pub const RULES: &[Rule] = &[
    rule("fold", "op(constants) -> constant, where the result is finite", fold),
    rule("neg-neg", "-(-x) -> x", |at| {
        let [a] = at.op1(Op::Neg)?;
        let [x] = at.sub(a).op1(Op::Neg)?;
        Some(x)
    }),
    rule("add-zero", "x + 0, 0 + x, x - 0 -> x", |at| match at.node() {
        Node::Op(Op::Add, [a, b, _]) if at.is(a, 0.0) => Some(at.expr(b)),
        Node::Op(Op::Add | Op::Sub, [a, b, _]) if at.is(b, 0.0) => Some(at.expr(a)),
        _ => None,
    }),
    rule("zero-sub", "0 - x -> -x", |at| {
        let [a, b] = at.op2(Op::Sub)?;
        at.is(a.id, 0.0).then(|| -b)
    }),
    rule("mul-one", "x*1, 1*x, x/1 -> x", |at| match at.node() {
        Node::Op(Op::Mul, [a, b, _]) if at.is(a, 1.0) => Some(at.expr(b)),
        Node::Op(Op::Mul | Op::Div, [a, b, _]) if at.is(b, 1.0) => Some(at.expr(a)),
        _ => None,
    }),
    rule("mul-minus-one", "x*-1, -1*x, x/-1 -> -x", |at| match at.node() {
        Node::Op(Op::Mul, [a, b, _]) if at.is(a, -1.0) => Some(-at.expr(b)),
        Node::Op(Op::Mul | Op::Div, [a, b, _]) if at.is(b, -1.0) => Some(-at.expr(a)),
        _ => None,
    }),
    rule("pow-small", "x^1 -> x; x^2 -> x*x", |at| {
        let [x, y] = at.op2(Op::Pow)?;
        if at.is(y.id, 1.0) { Some(x) } else { at.is(y.id, 2.0).then(|| x * x) }
    }),
    rule("times-number", "times(c, x) -> c*x where c is not 0; times(x, c) -> x*c where c is finite", |at| {
        let [a, b] = at.op2(Op::Times)?;
        let number = |x: Expr<'_>| match at.graph.node(x.id) {
            Node::Const(bits) => Some(f64::from_bits(bits)),
            _ => None,
        };
        let is_product = number(a).is_some_and(|a| a != 0.0) || number(b).is_some_and(f64::is_finite);
        is_product.then(|| a * b)
    }),
    rule("neg-out", "(-a)*b, a*(-b) -> -(a*b); likewise a/b and times(a, b)", |at| match at.node() {
        Node::Op(op @ (Op::Mul | Op::Div | Op::Times), [a, b, _]) => {
            let product = |a: Expr<'_>, b: Expr<'_>| at.graph.op(op, &[a.id, b.id]).id;
            if let Some([x]) = at.sub(at.expr(a)).op1(Op::Neg) {
                return Some(-at.expr(product(x, at.expr(b))));
            }
            let [x] = at.sub(at.expr(b)).op1(Op::Neg)?;
            Some(-at.expr(product(at.expr(a), x)))
        }
        _ => None,
    }),
    rule("add-neg", "a + -b -> a - b; -a + b -> b - a; a - -b -> a + b", |at| match at.node() {
        Node::Op(Op::Add, [a, b, _]) => {
            if let Some([x]) = at.sub(at.expr(b)).op1(Op::Neg) {
                return Some(at.expr(a) - x);
            }
            let [x] = at.sub(at.expr(a)).op1(Op::Neg)?;
            Some(at.expr(b) - x)
        }
        Node::Op(Op::Sub, [a, b, _]) => {
            let [x] = at.sub(at.expr(b)).op1(Op::Neg)?;
            Some(at.expr(a) + x)
        }
        _ => None,
    }),
    rule("add-self", "x + x -> 2*x", |at| {
        let [a, b] = at.op2(Op::Add)?;
        (a.id == b.id).then(|| 2.0 * a)
    }),
    rule("select-known", "select(true, a, b) -> a; select(false, a, b) -> b", |at| {
        let Node::Op(Op::Select, [c, a, b]) = at.node() else { return None };
        match at.graph.node(c) {
            Node::Bool(true) => Some(at.expr(a)),
            Node::Bool(false) => Some(at.expr(b)),
            _ => None,
        }
    }),
    rule("select-same", "select(c, select(c, a, b), d) -> select(c, a, d); likewise the other branch", |at| {
        let Node::Op(Op::Select, [c, a, b]) = at.node() else { return None };
        let condition = at.expr(c);
        match (at.graph.node(a), at.graph.node(b)) {
            (Node::Op(Op::Select, [inner, yes, _]), _) if inner == c => {
                Some(condition.select(at.expr(yes), at.expr(b)))
            }
            (_, Node::Op(Op::Select, [inner, _, no])) if inner == c => Some(condition.select(at.expr(a), at.expr(no))),
            _ => None,
        }
    }),
    rule(
        "select-sum",
        "select(c, a, b) + select(c, d, 0) -> select(c, a + d, b), where b is not 0; likewise -",
        |at| {
            let Node::Op(op @ (Op::Add | Op::Sub), [left, right, _]) = at.node() else { return None };
            let branches = |id: NodeId| match at.graph.node(id) {
                Node::Op(Op::Select, [c, yes, no]) => Some((c, yes, no)),
                _ => None,
            };
            let ((c, a, b), (other, d, e)) = (branches(left)?, branches(right)?);
            let sum = |x: NodeId, y: NodeId| at.expr(at.graph.op(op, &[x, y]).id);
            // Where both are 0 elsewhere, they may be what is taken from a softmax at its label.
            match (c == other, at.is(b, 0.0), at.is(e, 0.0)) {
                (true, false, true) => Some(at.expr(c).select(sum(a, d), at.expr(b))),
                (true, true, false) if op == Op::Add => Some(at.expr(c).select(sum(a, d), at.expr(e))),
                _ => None,
            }
        },
    ),
    rule(
        "logic",
        "not(not(x)) -> x; true and x, false or x -> x; false and x -> false, true or x -> true, if x cannot be NaN",
        |at| {
            let known = |id: NodeId| match at.graph.node(id) {
                Node::Bool(value) => Some(value),
                _ => None,
            };
            match at.node() {
                Node::Op(Op::Not, [a, ..]) => match at.graph.node(a) {
                    Node::Op(Op::Not, [x, ..]) => Some(at.expr(x)),
                    Node::Bool(value) => Some(at.graph.truth(!value)),
                    _ => None,
                },
                Node::Op(op @ (Op::And | Op::Or), [a, b, _]) => {
                    let neutral = op == Op::And;
                    match (known(a), known(b)) {
                        (Some(value), _) if value == neutral => Some(at.expr(b)),
                        (_, Some(value)) if value == neutral => Some(at.expr(a)),
                        (Some(_), _) | (_, Some(_)) => {
                            (!may_be_nan(at.graph, a) && !may_be_nan(at.graph, b)).then(|| at.graph.truth(!neutral))
                        }
                        _ => (a == b).then(|| at.expr(a)),
                    }
                }
                _ => None,
            }
        },
    ),
    rule("mask-known", "masked(true, x) -> x", |at| {
        let Node::Masked(c, x) = at.node() else { return None };
        (at.graph.node(c) == Node::Bool(true)).then(|| at.expr(x))
    }),
    rule("softmax-minus-one", "… + a*softmax(x) … - a … -> … + a*softmax_minus_one(x) …", softmax_minus_one),
];

struct At<'g> {
    graph: &'g Graph,
    id: NodeId,
}

impl<'g> At<'g> {
    fn node(&self) -> Node {
        self.graph.node(self.id)
    }

    fn expr(&self, id: NodeId) -> Expr<'g> {
        self.graph.expr(id)
    }

    fn sub(&self, x: Expr<'g>) -> At<'g> {
        At { graph: self.graph, id: x.id }
    }

    fn is(&self, id: NodeId, value: f64) -> bool {
        self.graph.node(id) == Node::Const(value.to_bits())
    }

    fn op1(&self, op: Op) -> Option<[Expr<'g>; 1]> {
        match self.node() {
            Node::Op(found, [a, ..]) if found == op => Some([self.expr(a)]),
            _ => None,
        }
    }

    fn op2(&self, op: Op) -> Option<[Expr<'g>; 2]> {
        match self.node() {
            Node::Op(found, [a, b, _]) if found == op => Some([self.expr(a), self.expr(b)]),
            _ => None,
        }
    }
}

/// An operation of constants as its result in f64, if that is finite. ∞ and NaN are left to the kernel.
fn fold<'g>(at: &At<'g>) -> Option<Expr<'g>> {
    let Node::Op(op, operands) = at.node() else { return None };
    let mut values = [0.0; 3];
    for (value, operand) in values.iter_mut().zip(&operands[..op.arity()]) {
        match at.graph.node(*operand) {
            Node::Const(bits) => *value = f64::from_bits(bits),
            _ => return None,
        }
    }
    match op {
        Op::Lt => Some(at.graph.truth(values[0] < values[1])),
        Op::Le => Some(at.graph.truth(values[0] <= values[1])),
        Op::Eq => Some(at.graph.truth(values[0] == values[1])),
        Op::ToFloat | Op::Select | Op::Not | Op::And | Op::Or => None,
        _ => {
            let result = op.eval(values[0], values[1]);
            result.is_finite().then(|| at.graph.constant(result))
        }
    }
}

/// `a·softmax(x)` as its factor and x; of a softmax alone the factor is 1.
fn times_softmax(graph: &Graph, id: NodeId) -> Option<(NodeId, NodeId)> {
    match graph.node(id) {
        Node::Softmax(x) => Some((graph.constant(1.0).id, x)),
        Node::Op(Op::Mul, [a, b, _]) => match (graph.node(a), graph.node(b)) {
            (_, Node::Softmax(x)) => Some((a, x)),
            (Node::Softmax(x), _) => Some((b, x)),
            _ => None,
        },
        _ => None,
    }
}

/// `a·p − a` cancels where p is near 1: the label of a confident row. Sound as the same sum in exact arithmetic;
/// for NaN and ∞ both forms give NaN.
fn softmax_minus_one<'g>(at: &At<'g>) -> Option<Expr<'g>> {
    let graph = at.graph;
    if !matches!(at.node(), Node::Op(Op::Add | Op::Sub, _)) || graph.scope(at.id) != Scope::Element {
        return None;
    }
    let terms = signed_terms(graph, at.id)?;
    for (index, &(term, sign)) in terms.iter().enumerate() {
        let Some((factor, x)) = times_softmax(graph, term) else { continue };
        // The factor itself, or a term of it: (a + b)·p − a -> a·(p − 1) + b·p
        let factors = signed_terms(graph, factor).unwrap_or_default();
        let own = [(factor, true)].into_iter().chain(factors.iter().copied());
        let cancels = |(one, plus): (NodeId, bool)| {
            let other = terms.iter().position(|t| *t == (one, sign != plus));
            other.map(|other| (one, plus, other))
        };
        let Some((one, plus, other)) = own.map(cancels).find_map(|found| found) else { continue };
        let minus_one = graph.add(Node::SoftmaxMinusOne(x));
        let product = if at.is(one, 1.0) { minus_one } else { graph.expr(one) * minus_one };
        let mut sum = if sign == plus { product } else { -product };
        let mut add = |term: Expr<'g>, sign: bool| sum = if sign { sum + term } else { sum - term };
        if one != factor {
            // The term may occur more than once; one occurrence is used up.
            let used = factors.iter().position(|t| *t == (one, plus)).expect("cancels() gives one of the factors");
            for (_, &(rest, plus)) in factors.iter().enumerate().filter(|(k, _)| *k != used) {
                add(graph.expr(rest) * graph.add(Node::Softmax(x)), sign == plus);
            }
        }
        for (k, &(rest, sign)) in terms.iter().enumerate() {
            if k != index && k != other {
                add(graph.expr(rest), sign);
            }
        }
        return Some(sum);
    }
    None
}

/// A gradient in which a label is compared with the column: `select(c, -a, 0) + a*softmax(x)` as
/// `a*select(c, softmax_minus_one(x), softmax(x))`, which keeps the digits of a confident label. Sound as
/// `softmax_minus_one` is.
pub fn softmax_minus_label(graph: &Graph, root: NodeId) -> NodeId {
    let Some(terms) = signed_terms(graph, root) else { return root };
    // What is taken away where a condition holds, else nothing: the condition, the number and its sign.
    let taken = |&(id, sign): &(NodeId, bool)| match graph.node(id) {
        Node::Op(Op::Select, [c, yes, no]) if graph.node(no) == Node::Const(0f64.to_bits()) => match graph.node(yes) {
            Node::Op(Op::Neg, [a, ..]) => Some((c, a, !sign)),
            Node::Const(bits) if f64::from_bits(bits) < 0.0 => {
                Some((c, graph.constant(-f64::from_bits(bits)).id, !sign))
            }
            _ => Some((c, yes, sign)),
        },
        _ => None,
    };
    for (index, (c, a, sign)) in terms.iter().enumerate().filter_map(|(k, term)| Some((k, taken(term)?))) {
        let product =
            |&(id, plus): &(NodeId, bool)| times_softmax(graph, id).filter(|(factor, _)| *factor == a && plus != sign);
        let Some((other, x)) = terms.iter().enumerate().find_map(|(k, term)| Some((k, product(term)?.1))) else {
            continue;
        };
        let apart = graph.expr(c).select(graph.add(Node::SoftmaxMinusOne(x)), graph.expr(x).softmax());
        let product = graph.expr(a) * apart;
        let rest = terms.iter().enumerate().filter(|(k, _)| *k != index && *k != other);
        let first = if sign { -product } else { product };
        let sum =
            rest.fold(first, |sum, (_, &(id, sign))| if sign { sum + graph.expr(id) } else { sum - graph.expr(id) });
        return softmax_minus_label(graph, simplify(graph, &[sum.id])[0]);
    }
    root
}

/// The terms of a sum, in order, with their signs; `None` for more than `MOST` terms. (A sum of shared sums has one
/// term per path, exponentially many.)
fn signed_terms(graph: &Graph, root: NodeId) -> Option<Vec<(NodeId, bool)>> {
    const MOST: usize = 64;
    let mut terms = Vec::new();
    let mut open = vec![(root, true)];
    while let Some((id, sign)) = open.pop() {
        match graph.node(id) {
            Node::Op(Op::Add, [a, b, _]) => open.extend([(b, sign), (a, sign)]),
            Node::Op(Op::Sub, [a, b, _]) => open.extend([(b, !sign), (a, sign)]),
            Node::Op(Op::Neg, [a, ..]) => open.push((a, !sign)),
            // The one-hot of a loss that is not averaged is the constant −1.
            Node::Const(bits) if f64::from_bits(bits) < 0.0 => {
                terms.push((graph.constant(-f64::from_bits(bits)).id, !sign));
            }
            _ if graph.kind(id) == Kind::Float => terms.push((id, sign)),
            _ => {}
        }
        if terms.len() + open.len() > MOST {
            return None;
        }
    }
    Some(terms)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::expr::op::Kind;

    fn simplified(build: for<'g> fn(&'g Graph, Expr<'g>) -> Expr<'g>) -> String {
        let g = Graph::new();
        let x = g.input("x", Scope::Element, Kind::Float);
        let root = simplify(&g, &[build(&g, x).id])[0];
        g.print(root)
    }

    #[test]
    fn rules_do_what_they_say() {
        assert_eq!(simplified(|_, x| -(-x)), "x");
        assert_eq!(simplified(|_, x| 0.0 + x * 1.0), "x");
        assert_eq!(simplified(|_, x| 0.0 - x), "-x");
        assert_eq!(simplified(|_, x| x * -1.0), "-x");
        assert_eq!(simplified(|_, x| x.pow(1.0) + x.pow(2.0) + x.pow(3.0)), "((x + x * x) + pow(x, 3))");
        assert_eq!(simplified(|_, x| (-x) * 2.0), "-x * 2");
        assert_eq!(simplified(|_, x| 3.0 + -x), "(3 - x)");
        assert_eq!(simplified(|_, x| x * x + x * x), "2 * x * x");
        assert_eq!(simplified(|g, x| g.truth(true).select(x, 0.0)), "x");
        assert_eq!(simplified(|g, x| (!g.truth(false)).and(x.lt(0.0)).select(x, 0.0)), "select(lt(x, 0), x, 0)");
        assert_eq!(simplified(|g, _| g.constant(2.0) * 3.0), "6");
    }

    #[test]
    fn selections_by_one_condition_are_added_once() {
        let of = |build| simplified(build);
        assert_eq!(of(|_, x| x.lt(0.0).select(x, 1.0) + x.lt(0.0).select(3.0, 0.0)), "select(lt(x, 0), (x + 3), 1)");
        assert_eq!(of(|_, x| x.lt(0.0).select(x, 0.0) + x.lt(0.0).select(3.0, 1.0)), "select(lt(x, 0), (x + 3), 1)");
        assert_eq!(of(|_, x| x.lt(0.0).select(x, 1.0) - x.lt(0.0).select(3.0, 0.0)), "select(lt(x, 0), (x - 3), 1)");
        let apart = "n2 = lt(x, 0)\n(select(n2, x, 0) + select(n2, 3, 0))";
        assert_eq!(of(|_, x| x.lt(0.0).select(x, 0.0) + x.lt(0.0).select(3.0, 0.0)), apart);
    }

    #[test]
    fn unsound_rewrites_are_refused() {
        assert_eq!(simplified(|_, x| x * 0.0), "x * 0");
        assert_eq!(simplified(|_, x| x - x), "(x - x)");
        assert_eq!(simplified(|_, x| x / x), "(x / x)");
        assert_eq!(simplified(|g, _| g.constant(1.0) / 0.0), "(1 / 0)");
    }

    #[test]
    fn confident_label_keeps_its_digits() {
        assert_eq!(simplified(|g, x| g.param("a", 1.0) * x.softmax() + -g.param("a", 1.0)), "a * softmax_minus_one(x)");
        assert_eq!(simplified(|_, x| x.softmax() - 1.0), "softmax_minus_one(x)");
        assert_eq!(simplified(|_, x| -1.0 + x.softmax()), "softmax_minus_one(x)");
        assert_eq!(
            simplified(|g, x| (g.param("b", 1.0) + g.param("a", 1.0)) * x.softmax() - g.param("a", 1.0)),
            "(a * softmax_minus_one(x) + b * softmax(x))"
        );
        assert_eq!(simplified(|_, x| (-0.5 + x) + 0.5 * x.softmax()), "(0.5 * softmax_minus_one(x) + x)");
        assert_eq!(
            simplified(|g, x| (g.param("a", 1.0) * x.softmax() + x) - g.param("a", 1.0)),
            "(a * softmax_minus_one(x) + x)"
        );
    }

    #[test]
    fn confident_label_among_others_keeps_its_digits() {
        let g = Graph::new();
        let x = g.input("x", Scope::Element, Kind::Float);
        let (y, a) = (g.input("y", Scope::Row, Kind::Int), g.param("a", 1.0));
        let is_label = g.col_index().equals(y);
        let of = |root: Expr<'_>| g.print(softmax_minus_label(&g, root.id));
        let want = "a * select(eq(col, y), softmax_minus_one(x), softmax(x))";
        assert_eq!(of(is_label.select(-a, 0.0) + a * x.softmax()), want);
        assert_eq!(of((is_label.select(-a, 0.0) + x) + a * x.softmax()), format!("({want} + x)"));
        assert_eq!(of(-(a * x.softmax()) + is_label.select(a, 0.0)), format!("-{want}"));
        let other = is_label.select(a, 0.0) + a * x.softmax();
        assert_eq!(softmax_minus_label(&g, other.id), other.id, "nothing cancels");
    }

    #[test]
    fn shared_sums_are_not_unfolded() {
        // The number of terms is the sixtieth Fibonacci number.
        let g = Graph::new();
        let x = g.input("x", Scope::Element, Kind::Float);
        let (_, sum) = (0..60).fold((x, x.exp()), |(a, b), _| (b, a + b));
        assert_eq!(simplify(&g, &[sum.id]), [sum.id]);
    }

    #[test]
    fn a_sum_keeps_the_number_of_its_values() {
        let g = Graph::new();
        let x = g.input("x", Scope::Element, Kind::Float);
        let ones = x.lt(0.0).select(1.0, 1.0);
        for sum in [ones.sum(), ones.sum_over(Scope::Total)] {
            assert_eq!(simplify(&g, &[sum.id]), [sum.id]);
        }
    }
}
