//! Expressions to a [`Program`]: what is computed in which trip over memory, without saying how.
//!
//! 1. `split_label`: an element output that compares the column with a row's label becomes the expression for all
//!    other columns, and a row value stored at the label afterwards;
//! 2. `expand`: softmax and its relatives become row reductions and scalar operations (the online softmax state is
//!    [`Reduce::ExpSumRest`], which also knows the row's maximum), and outer factors are multiplied first;
//! 3. `assign`: sums over everything split the program into dependent passes, each as late as its readers allow;
//!    row reductions become stages by dependence.

use crate::autodiff;
use crate::error::{Error, Result};
use crate::expr::{Expr, Graph, InputDecl, Node, NodeId, Reduce, Scope};
use crate::loss::{Loss, RowAxis};
use crate::op::{Kind, Op};
use crate::simplify::simplify;
use std::collections::{HashMap, HashSet};

/// Name of the upstream gradient as an input.
pub const UPSTREAM: &str = "upstream";

/// What multiplies every gradient.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Default)]
pub enum Upstream {
    /// 1.
    #[default]
    One,
    /// A scalar on the GPU, the input `upstream`.
    Scalar,
    /// One value for each loss (with `Reduction::None`), the input `upstream`.
    PerLoss,
}

/// What a program is to compute.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub struct Wanted {
    /// The loss itself.
    pub loss: bool,
    /// What the mean divides by, as an output.
    pub denominator: bool,
    /// Gradients with respect to these inputs.
    pub grads: Vec<String>,
    /// Diagonals of the Hessian with respect to these inputs.
    pub hessian_diagonals: Vec<String>,
    /// What multiplies the gradients.
    pub upstream: Upstream,
}

/// What an output is.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Target {
    /// The loss, in the shape of its reduction.
    Loss,
    /// What the mean divides by.
    Denominator,
    /// Gradient with respect to the input of that place.
    Grad(usize),
    /// Diagonal of the Hessian with respect to the input of that place.
    HessianDiagonal(usize),
}

/// One output of a program.
#[derive(Clone, Debug, PartialEq)]
pub struct Output {
    /// What it is.
    pub target: Target,
    /// Its value: for elements, at every column but the label's.
    pub node: NodeId,
    /// Where the value at the label differs: the label, and the value there (both row values).
    pub at_label: Option<(NodeId, NodeId)>,
    /// How many values it has: `Element`, `Row` or `Total`.
    pub scope: Scope,
}

/// Row reductions that can run in one trip over the row.
#[derive(Clone, Debug, PartialEq)]
pub struct Stage {
    /// The reductions. A maximum that `ExpSumRest` of the same operand knows is not listed.
    pub reduces: Vec<NodeId>,
}

/// One trip over the tensor (or over the rows alone), with the row stages in it.
#[derive(Clone, Debug, PartialEq, Default)]
pub struct Pass {
    /// Row stages in order.
    pub stages: Vec<Stage>,
    /// `SumOver` nodes summed here.
    pub totals: Vec<NodeId>,
    /// Element and row outputs, by place in [`Program::outputs`].
    pub outputs: Vec<usize>,
    /// Whether columns are visited at all.
    pub columns: bool,
}

/// A lowered loss: plain data that `schedule`, `codegen` and `cpu` read.
#[derive(Clone, Debug, PartialEq)]
pub struct Program {
    /// Name of the loss.
    pub name: String,
    /// Which axis makes a row; without one there are only elements.
    pub row_axis: RowAxis,
    /// Nodes, operands first. Only constants, inputs, counts, `ColIndex`, `Op`, `Reduce` (of `Sum`, `Max`, `Min`,
    /// `ArgMax`, `ExpSumRest`), `SumOver` and `At` are left.
    pub nodes: Vec<Node>,
    /// Scope of each node.
    pub scopes: Vec<Scope>,
    /// Kind of each node.
    pub kinds: Vec<Kind>,
    /// Inputs in the order of their places.
    pub inputs: Vec<InputDecl>,
    /// Numeric parameters, and their values when the plan was made.
    pub params: Vec<(String, f64)>,
    /// Passes, in order.
    pub passes: Vec<Pass>,
    /// Outputs; those of scope `Total` are computed when the last pass has been summed.
    pub outputs: Vec<Output>,
    /// Where this (of row or element scope) does not hold, NaN and labels out of range are not looked at.
    pub valid: Option<NodeId>,
}

impl Program {
    /// The node.
    pub fn node(&self, id: NodeId) -> &Node {
        &self.nodes[id.index()]
    }

    /// Its scope.
    pub fn scope(&self, id: NodeId) -> Scope {
        self.scopes[id.index()]
    }

    /// Its kind.
    pub fn kind(&self, id: NodeId) -> Kind {
        self.kinds[id.index()]
    }

    /// Whether there are rows, or only elements.
    pub fn has_rows(&self) -> bool {
        self.row_axis != RowAxis::None
    }

    /// Nodes below the roots, operands first. `stop` keeps a node's operands out.
    pub fn below(&self, roots: &[NodeId], stop: impl Fn(NodeId) -> bool) -> Vec<NodeId> {
        let mut wanted = vec![false; self.nodes.len()];
        for root in roots {
            wanted[root.index()] = true;
        }
        for place in (0..self.nodes.len()).rev() {
            let id = NodeId(place as u32);
            if wanted[place] && !stop(id) {
                for operand in self.nodes[place].operands() {
                    wanted[operand.index()] = true;
                }
            }
        }
        (0..self.nodes.len()).filter(|&place| wanted[place]).map(|place| NodeId(place as u32)).collect()
    }

    /// Place of an input by name.
    pub fn input(&self, name: &str) -> Option<usize> {
        self.inputs.iter().position(|i| i.name == name)
    }

    /// The stage's state that holds a maximum, where `ExpSumRest` of the same operand knows it.
    pub fn online_partner(&self, max: NodeId) -> Option<NodeId> {
        let Node::Reduce(Reduce::Max, x) = *self.node(max) else { return None };
        let partner = Node::Reduce(Reduce::ExpSumRest, x);
        self.nodes.iter().position(|n| *n == partner).map(|place| NodeId(place as u32))
    }
}

/// Lowers a loss for one problem. `present` says which inputs are there and, for labels, whether they are unsigned.
pub fn lower(loss: &Loss, wanted: &Wanted, present: &dyn Fn(&str) -> Option<bool>) -> Result<Program> {
    let graph = Graph::new();
    let built = loss.build(&graph, present)?;
    let name = loss.name();
    let row_axis = loss.row_axis();
    let inputs = graph.inputs();
    let place_of = |input: &String| {
        let known = inputs.iter().map(|i| i.name.as_str()).collect::<Vec<_>>().join(", ");
        let place = inputs.iter().position(|i| i.name == *input && i.kind == Kind::Float);
        place.ok_or_else(|| Error::Name { what: format!("{name} has no gradient for"), name: input.clone(), known })
    };
    let root = built.loss;
    let upstream = match wanted.upstream {
        Upstream::One => graph.constant(1.0),
        Upstream::Scalar => graph.input(UPSTREAM, Scope::Scalar, Kind::Float),
        Upstream::PerLoss if root.scope() > Scope::Total => graph.input(UPSTREAM, root.scope(), Kind::Float),
        Upstream::PerLoss => {
            let message = "a reduced loss takes a scalar upstream; use Upstream::Scalar or Reduction::None".to_owned();
            return Err(Error::Expr { loss: name, message });
        }
    };
    let node_of = |place: usize| graph.input(&inputs[place].name, inputs[place].scope, inputs[place].kind).id;
    let mut outputs: Vec<(Target, NodeId)> = Vec::new();
    if wanted.loss {
        outputs.push((Target::Loss, root.id));
    }
    if wanted.denominator {
        let Some(denominator) = built.denominator else {
            let message = "its reduction has no denominator".to_owned();
            return Err(Error::Expr { loss: name, message });
        };
        outputs.push((Target::Denominator, denominator.id));
    }
    let places = wanted.grads.iter().map(place_of).collect::<Result<Vec<_>>>()?;
    let nodes: Vec<NodeId> = places.iter().map(|p| node_of(*p)).collect();
    for (place, grad) in places.iter().zip(autodiff::gradients(root, upstream, &nodes)) {
        outputs.push((Target::Grad(*place), grad.unwrap_or_else(|| graph.constant(0.0)).id));
    }
    for input in &wanted.hessian_diagonals {
        let place = place_of(input)?;
        if inputs[place].scope != Scope::Element {
            let message =
                format!("the Hessian diagonal is for element inputs; `{input}` has scope {:?}", inputs[place].scope);
            return Err(Error::Expr { loss: name, message });
        }
        let grad = autodiff::gradients(root, upstream, &[node_of(place)])[0];
        let diagonal = grad.and_then(|grad| autodiff::diagonal(grad, node_of(place)));
        outputs.push((Target::HessianDiagonal(place), diagonal.unwrap_or_else(|| graph.constant(0.0)).id));
    }
    if outputs.is_empty() {
        return Err(Error::Expr { loss: name, message: "no output was asked for".to_owned() });
    }
    let valid = valid_where(&graph, root.id);
    graph.verify(&name)?;
    check_rows(&graph, &name, row_axis, &outputs)?;
    let lowered = Lowered { graph: &graph, has_rows: row_axis != RowAxis::None };
    let outputs = lowered.outputs(&outputs, &inputs);
    Ok(assign(&graph, name, row_axis, outputs, valid.map(|v| lowered.expand(v))))
}

fn check_rows(graph: &Graph, name: &str, row_axis: RowAxis, outputs: &[(Target, NodeId)]) -> Result<()> {
    let roots: Vec<NodeId> = outputs.iter().map(|o| o.1).collect();
    let fault = |message: &str| Err(Error::Expr { loss: name.to_owned(), message: message.to_owned() });
    for id in graph.reachable(&roots) {
        if row_axis == RowAxis::None && matches!(graph.scope(id), Scope::Row | Scope::Column | Scope::Group) {
            return fault("row, column and group values need a row axis: say which with `row_axis`");
        }
        if let Node::Masked(_, x) = graph.node(id) {
            if holds_sum_over(graph, x) {
                return fault("a masked value may not contain sum_over: the mask would not reach the other rows");
            }
        }
    }
    Ok(())
}

/// Whether a value holds a sum over other rows that carries a gradient.
fn holds_sum_over(graph: &Graph, root: NodeId) -> bool {
    let (mut seen, mut open) = (HashSet::new(), vec![root]);
    while let Some(id) = open.pop() {
        match graph.node(id) {
            Node::SumOver(..) => return true,
            Node::Detach(_) => {}
            node if seen.insert(id) => open.extend(node.operands()),
            _ => {}
        }
    }
    false
}

/// Where the loss depends on what it reads: the union of the masks, or `None` where something is not masked.
fn valid_where(graph: &Graph, root: NodeId) -> Option<NodeId> {
    enum Need<'g> {
        Nothing,
        Where(Expr<'g>),
        Always,
    }
    fn need<'g>(graph: &'g Graph, id: NodeId) -> Need<'g> {
        match graph.node(id) {
            Node::Const(_) | Node::Int(_) | Node::Bool(_) | Node::Param(_) | Node::Count(_) => Need::Nothing,
            Node::Input(_) if graph.scope(id) <= Scope::Scalar || graph.kind(id) == Kind::Int => Need::Nothing,
            Node::ColIndex => Need::Nothing,
            // A comparison chooses; it does not carry a value on.
            _ if graph.kind(id) == Kind::Bool => Need::Nothing,
            Node::Masked(condition, x) => match need(graph, x) {
                Need::Nothing => Need::Nothing,
                Need::Where(inner) => Need::Where(graph.expr(condition).and(inner)),
                Need::Always => Need::Where(graph.expr(condition)),
            },
            Node::Op(..) | Node::SumOver(..) | Node::Reduce(..) | Node::Detach(_) => {
                let mut all = Need::Nothing;
                for operand in graph.node(id).operands() {
                    all = match (all, need(graph, operand)) {
                        (Need::Nothing, other) | (other, Need::Nothing) => other,
                        (Need::Where(a), Need::Where(b)) => Need::Where(a.or(b)),
                        _ => Need::Always,
                    };
                }
                all
            }
            _ => Need::Always,
        }
    }
    match need(graph, root) {
        Need::Where(condition) => Some(simplify(graph, &[condition.id])[0]),
        Need::Nothing | Need::Always => None,
    }
}

struct Lowered<'g> {
    graph: &'g Graph,
    has_rows: bool,
}

impl<'g> Lowered<'g> {
    fn outputs(&self, outputs: &[(Target, NodeId)], inputs: &[InputDecl]) -> Vec<Output> {
        let roots: Vec<NodeId> = outputs.iter().map(|o| o.1).collect();
        let simple = simplify(self.graph, &roots);
        let mut all = Vec::new();
        for ((target, _), root) in outputs.iter().zip(simple) {
            let scope = match target {
                Target::Grad(place) | Target::HessianDiagonal(place) => inputs[*place].scope,
                Target::Loss => self.graph.scope(root),
                Target::Denominator => Scope::Total,
            };
            // A column's gradient is summed over the rows afterwards, from one value an element.
            let scope = match scope {
                Scope::Column => Scope::Element,
                Scope::Param | Scope::Scalar | Scope::Total => Scope::Total,
                other => other,
            };
            let split = if scope == Scope::Element { self.split_label(root) } else { None };
            let (node, at_label) = match split {
                Some((rest, label, there)) => (self.expand(rest), Some((label, self.expand(there)))),
                None => (self.expand(root), None),
            };
            all.push(Output { target: target.clone(), node, at_label, scope });
        }
        all
    }

    /// `f(col == label)` as the value at all other columns, the label, and the value there as a row value.
    fn split_label(&self, root: NodeId) -> Option<(NodeId, NodeId, NodeId)> {
        let graph = self.graph;
        let mut labels = Vec::new();
        let mut tests = Vec::new();
        for id in graph.reachable(&[root]) {
            if let Node::Op(Op::Eq, [a, b, _]) = graph.node(id) {
                let label = match (graph.node(a), graph.node(b)) {
                    (Node::ColIndex, _) if graph.scope(b) <= Scope::Row => b,
                    (_, Node::ColIndex) if graph.scope(a) <= Scope::Row => a,
                    _ => continue,
                };
                tests.push(id);
                if !labels.contains(&label) {
                    labels.push(label);
                }
            }
        }
        let [label] = labels[..] else { return None };
        let set = |truth: bool| {
            let by = graph.truth(truth).id;
            self.replace(root, &|id| tests.contains(&id).then_some(by))
        };
        let (rest, there) = (set(false), set(true));
        Some((rest, label, self.at_label(self.expand(there), label)))
    }

    /// Element values replaced, then simplified. Row values hold no column of their own and stay.
    fn replace(&self, root: NodeId, by: &dyn Fn(NodeId) -> Option<NodeId>) -> NodeId {
        let graph = self.graph;
        let mut done: HashMap<NodeId, NodeId> = HashMap::new();
        for id in graph.reachable(&[root]) {
            let new = match by(id) {
                Some(new) => new,
                None if !matches!(graph.scope(id), Scope::Element | Scope::Column) => id,
                None => graph.add(graph.node(id).map(|operand| done[&operand])).id,
            };
            done.insert(id, new);
        }
        simplify(graph, &[done[&root]])[0]
    }

    /// An element expression at the label's column: a row value.
    fn at_label(&self, root: NodeId, label: NodeId) -> NodeId {
        let graph = self.graph;
        self.replace(root, &|id| match graph.node(id) {
            Node::ColIndex => Some(label),
            Node::Input(_) if matches!(graph.scope(id), Scope::Element | Scope::Column) => {
                Some(graph.expr(id).at(graph.expr(label)).id)
            }
            _ => None,
        })
    }

    /// Leaves only what a program may hold.
    fn expand(&self, root: NodeId) -> NodeId {
        let graph = self.graph;
        let mut done: HashMap<NodeId, NodeId> = HashMap::new();
        for id in graph.reachable(&[root]) {
            let node = graph.node(id);
            let new = |x: NodeId| graph.expr(done[&x]);
            let expanded = match node {
                Node::Detach(x) | Node::StraightThrough(x, _) | Node::WithGradient(x, ..) => new(x),
                Node::Masked(condition, x) => new(condition).select(new(x), 0.0),
                Node::Reduce(Reduce::LogSumExpShifted, x) => exp_sum_rest(new(x)).log1p(),
                // Gathers reach down to the inputs.
                Node::At(x, label) if !matches!(graph.node(done[&x]), Node::Input(_)) => {
                    graph.expr(self.at_label(done[&x], done[&label]))
                }
                Node::Softmax(x) => exp_shifted(new(x)) * inverse_sum(new(x)),
                Node::SoftmaxMinusOne(x) => minus_sum(new(x)) * inverse_sum(new(x)),
                // Outer factors first: one multiplication an element.
                Node::Op(Op::Mul, [a, b, _]) => {
                    let (outer, inner) = if graph.scope(a) <= graph.scope(b) { (a, b) } else { (b, a) };
                    match graph.node(inner) {
                        _ if graph.scope(outer) == graph.scope(inner) => new(a) * new(b),
                        Node::Softmax(x) => exp_shifted(new(x)) * (new(outer) * inverse_sum(new(x))),
                        Node::SoftmaxMinusOne(x) => minus_sum(new(x)) * (new(outer) * inverse_sum(new(x))),
                        _ => self.hoist(new(outer), new(inner)),
                    }
                }
                // Elements go to their row first.
                Node::SumOver(to, x) if self.has_rows && matches!(graph.scope(x), Scope::Element | Scope::Column) => {
                    new(x).sum().sum_over(to)
                }
                other => graph.add(other.map(|operand| done[&operand])),
            };
            done.insert(id, expanded.id);
        }
        simplify(graph, &[done[&root]])[0]
    }

    /// outer·(middle·inner) as (outer·middle)·inner, where the middle is further out than the inner.
    fn hoist(&self, outer: Expr<'g>, inner: Expr<'g>) -> Expr<'g> {
        if let Node::Op(Op::Mul, [a, b, _]) = self.graph.node(inner.id) {
            let (middle, rest) = if self.graph.scope(a) <= self.graph.scope(b) { (a, b) } else { (b, a) };
            if self.graph.scope(middle) < inner.scope() {
                return self.hoist(outer * self.graph.expr(middle), self.graph.expr(rest));
            }
        }
        outer * inner
    }
}

fn exp_sum_rest(x: Expr<'_>) -> Expr<'_> {
    x.graph().add(Node::Reduce(Reduce::ExpSumRest, x.id))
}

fn exp_shifted(x: Expr<'_>) -> Expr<'_> {
    (x - x.max()).exp()
}

fn inverse_sum(x: Expr<'_>) -> Expr<'_> {
    1.0 / (1.0 + exp_sum_rest(x))
}

/// e − S = (e − 1) − rest: exact where e = 1, that is at the maximum.
fn minus_sum(x: Expr<'_>) -> Expr<'_> {
    (exp_shifted(x) - 1.0) - exp_sum_rest(x)
}

/// Passes and stages.
fn assign(graph: &Graph, name: String, row_axis: RowAxis, outputs: Vec<Output>, valid: Option<NodeId>) -> Program {
    // Compact, operands first.
    let mut roots: Vec<NodeId> = Vec::new();
    for output in &outputs {
        roots.push(output.node);
        roots.extend(output.at_label.iter().flat_map(|(label, value)| [*label, *value]));
    }
    roots.extend(valid);
    let order = graph.reachable(&roots);
    let mut new: HashMap<NodeId, NodeId> = HashMap::new();
    let mut program = Program {
        name,
        row_axis,
        nodes: Vec::new(),
        scopes: Vec::new(),
        kinds: Vec::new(),
        inputs: graph.inputs(),
        params: graph.params(),
        passes: Vec::new(),
        outputs,
        valid: None,
    };
    for id in order {
        program.nodes.push(graph.node(id).map(|operand| new[&operand]));
        program.scopes.push(graph.scope(id));
        program.kinds.push(graph.kind(id));
        new.insert(id, NodeId(program.nodes.len() as u32 - 1));
    }
    for output in &mut program.outputs {
        output.node = new[&output.node];
        output.at_label = output.at_label.map(|(label, value)| (new[&label], new[&value]));
    }
    program.valid = valid.map(|v| new[&v]);
    program.passes = passes(&program);
    program
}

fn output_roots(output: &Output) -> Vec<NodeId> {
    let mut roots = vec![output.node];
    roots.extend(output.at_label.iter().flat_map(|(label, value)| [*label, *value]));
    roots
}

fn passes(program: &Program) -> Vec<Pass> {
    let count = program.nodes.len();
    // The first pass in which a node can be had.
    let mut level = vec![0usize; count];
    for place in 0..count {
        let operands = program.nodes[place].operands().map(|o| level[o.index()]).max().unwrap_or(0);
        level[place] = operands + usize::from(matches!(program.nodes[place], Node::SumOver(..)));
    }
    let inner: Vec<usize> = (0..program.outputs.len()).filter(|&k| program.outputs[k].scope > Scope::Total).collect();
    let sums: Vec<usize> = (0..count).filter(|&p| matches!(program.nodes[p], Node::SumOver(..))).collect();
    let last = inner
        .iter()
        .flat_map(|&k| output_roots(&program.outputs[k]))
        .map(|root| level[root.index()])
        .chain(sums.iter().map(|&p| level[p] - 1))
        .max()
        .unwrap_or(0);
    // Each sum as late as its readers allow, so that it shares their trip over memory.
    let mut pass_of = vec![last; count];
    let needs = |roots: &[NodeId], pass: usize, pass_of: &mut Vec<usize>| {
        for id in program.below(roots, |id| matches!(program.node(id), Node::SumOver(..))) {
            if matches!(program.node(id), Node::SumOver(..)) {
                pass_of[id.index()] = pass_of[id.index()].min(pass.saturating_sub(1));
            }
        }
    };
    for &k in &inner {
        needs(&output_roots(&program.outputs[k]), last, &mut pass_of);
    }
    for &sum in sums.iter().rev() {
        let operands: Vec<NodeId> = program.nodes[sum].operands().collect();
        let pass = pass_of[sum];
        needs(&operands, pass, &mut pass_of);
    }
    (0..=last)
        .map(|p| {
            let totals: Vec<NodeId> = sums.iter().filter(|&&s| pass_of[s] == p).map(|&s| NodeId(s as u32)).collect();
            let outputs = if p == last { inner.clone() } else { Vec::new() };
            finish_pass(program, totals, outputs)
        })
        .collect()
}

/// The stages that the totals and outputs of a pass need.
pub(crate) fn finish_pass(program: &Program, mut totals: Vec<NodeId>, outputs: Vec<usize>) -> Pass {
    // Sums over everything first, then those over groups: their places in memory.
    totals.sort_by_key(|id| program.scope(*id));
    let mut roots: Vec<NodeId> = totals.iter().flat_map(|t| program.node(*t).operands()).collect();
    for &k in &outputs {
        roots.extend(output_roots(&program.outputs[k]));
    }
    let needed = program.below(&roots, |id| matches!(program.node(id), Node::SumOver(..)));
    // Stage of a reduction: one later than the reductions below it.
    let mut depth: HashMap<NodeId, usize> = HashMap::new();
    let mut stages: Vec<Stage> = Vec::new();
    for &id in &needed {
        let node = program.node(id);
        if matches!(node, Node::SumOver(..)) {
            depth.insert(id, 0);
            continue;
        }
        let below = node.operands().filter_map(|o| depth.get(&o).copied()).max().unwrap_or(0);
        let Node::Reduce(..) = node else {
            depth.insert(id, below);
            continue;
        };
        depth.insert(id, below + 1);
        if stages.len() <= below {
            stages.resize(below + 1, Stage { reduces: Vec::new() });
        }
        let known = program.online_partner(id).is_some_and(|partner| needed.contains(&partner));
        if !known {
            stages[below].reduces.push(id);
        }
    }
    stages.retain(|stage| !stage.reduces.is_empty());
    let columns = !program.has_rows()
        || !stages.is_empty()
        || outputs.iter().any(|&k| program.outputs[k].scope == Scope::Element);
    Pass { stages, totals, outputs, columns }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::expr::Extent;
    use crate::losses;

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
        let grad = program.outputs.iter().find(|o| o.target == Target::Grad(0)).unwrap();
        let (_, there) = grad.at_label.expect("the label's gradient is a row value");
        assert_eq!(program.scope(there), Scope::Row);
        assert!(program.valid.is_some());
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
        assert!(lowered(&both, &["x"]).valid.is_none());
    }
}
