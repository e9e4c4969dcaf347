//! The expression language: a hash-consed graph with `Copy` handles, scopes inferred and verified.
//!
//! A mistake in an expression (a reduction of a row value, an index added to a number) is kept in the graph and
//! comes back as [`Error::Expr`] when the loss is planned; building never panics.

use crate::error::Error;
use crate::op::{Kind, Op};
use std::cell::RefCell;
use std::collections::HashMap;
use std::fmt;

/// How many values a node has, from outermost to innermost. Broadcasting goes inward by itself.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Scope {
    /// Known when the plan is made, changeable by `set_param`: a uniform.
    Param,
    /// One value on the GPU, changeable every step.
    Scalar,
    /// One value for the whole tensor, computed from it.
    Total,
    /// One value for rows that belong together.
    Group,
    /// One value a row (a sample).
    Row,
    /// One value a column (a class).
    Column,
    /// One value an element.
    Element,
}

impl Scope {
    /// The scope of a value computed from both.
    pub fn join(self, other: Scope) -> Scope {
        let (outer, inner) = if self <= other { (self, other) } else { (other, self) };
        match (outer, inner) {
            (Scope::Group | Scope::Row, Scope::Column) => Scope::Element,
            (_, inner) => inner,
        }
    }
}

/// A size that is known when a plan is bound, as a number.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Extent {
    /// Columns (classes) of a row.
    Cols,
    /// Rows.
    Rows,
    /// Rows of a group.
    GroupRows,
    /// Elements: rows × columns.
    Elements,
    /// Size of the first axis.
    Batch,
}

/// A reduction of the elements of a row.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Reduce {
    /// Σⱼ xⱼ
    Sum,
    /// maxⱼ xⱼ; ties share the gradient.
    Max,
    /// minⱼ xⱼ; ties share the gradient.
    Min,
    /// Lowest index of a maximum.
    ArgMax,
    /// Σ over j ≠ argmax of exp(xⱼ − max): what `logsumexp_shifted` takes log1p of.
    ExpSumRest,
    /// logsumexp − max. Its gradient is the softmax. Lowered to `log1p(ExpSumRest)`.
    LogSumExpShifted,
}

/// Handle of a node in its graph.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct NodeId(pub(crate) u32);

impl NodeId {
    pub(crate) const NONE: NodeId = NodeId(u32::MAX);

    pub(crate) fn index(self) -> usize {
        self.0 as usize
    }
}

impl fmt::Debug for NodeId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "n{}", self.0)
    }
}

/// One node. Operands come before their users.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Node {
    /// A number, by its f64 bits.
    Const(u64),
    /// A class index.
    Int(i64),
    /// A truth value.
    Bool(bool),
    /// A numeric parameter, by its place in the declarations.
    Param(u32),
    /// An input, by its place in the declarations.
    Input(u32),
    /// The element's column.
    ColIndex,
    /// A size, as a number.
    Count(Extent),
    /// A scalar operation; unused operands are `NONE`.
    Op(Op, [NodeId; 3]),
    /// An element to its row.
    Reduce(Reduce, NodeId),
    /// A sum over the rows of a group, or over everything.
    SumOver(Scope, NodeId),
    /// The element of the row at a class index.
    At(NodeId, NodeId),
    /// exp(xⱼ − logsumexp x)
    Softmax(NodeId),
    /// softmax − 1, which keeps its digits in a confident row.
    SoftmaxMinusOne(NodeId),
    /// The value; no gradient.
    Detach(NodeId),
    /// The value of the first, the gradient of the second.
    StraightThrough(NodeId, NodeId),
    /// The value of the first; its derivative with respect to the second is the third, all others are zero.
    WithGradient(NodeId, NodeId, NodeId),
    /// The second where the first holds; elsewhere exactly zero in value and gradient, whatever the second is.
    Masked(NodeId, NodeId),
}

impl Node {
    /// The operands, in order.
    pub fn operands(&self) -> impl Iterator<Item = NodeId> + use<> {
        let none = NodeId::NONE;
        let all = match *self {
            Node::Const(_) | Node::Int(_) | Node::Bool(_) | Node::Param(_) | Node::Input(_) => [none; 3],
            Node::ColIndex | Node::Count(_) => [none; 3],
            Node::Op(_, operands) => operands,
            Node::Reduce(_, x) | Node::SumOver(_, x) | Node::Softmax(x) => [x, none, none],
            Node::SoftmaxMinusOne(x) | Node::Detach(x) => [x, none, none],
            Node::At(a, b) | Node::StraightThrough(a, b) | Node::Masked(a, b) => [a, b, none],
            Node::WithGradient(a, b, c) => [a, b, c],
        };
        all.into_iter().filter(|id| *id != NodeId::NONE)
    }

    /// The same node over other operands.
    pub(crate) fn map(&self, mut f: impl FnMut(NodeId) -> NodeId) -> Node {
        let mut opt = |id: NodeId| if id == NodeId::NONE { id } else { f(id) };
        match *self {
            Node::Op(op, [a, b, c]) => Node::Op(op, [opt(a), opt(b), opt(c)]),
            Node::Reduce(r, x) => Node::Reduce(r, opt(x)),
            Node::SumOver(s, x) => Node::SumOver(s, opt(x)),
            Node::At(x, label) => Node::At(opt(x), opt(label)),
            Node::Softmax(x) => Node::Softmax(opt(x)),
            Node::SoftmaxMinusOne(x) => Node::SoftmaxMinusOne(opt(x)),
            Node::Detach(x) => Node::Detach(opt(x)),
            Node::StraightThrough(v, g) => Node::StraightThrough(opt(v), opt(g)),
            Node::WithGradient(v, x, g) => Node::WithGradient(opt(v), opt(x), opt(g)),
            Node::Masked(c, x) => Node::Masked(opt(c), opt(x)),
            leaf => leaf,
        }
    }
}

/// An input that expressions may name.
#[derive(Clone, Debug, PartialEq)]
pub struct InputDecl {
    /// Its name.
    pub name: String,
    /// How many values it has.
    pub scope: Scope,
    /// Number or class index.
    pub kind: Kind,
}

#[derive(Default)]
struct Inner {
    nodes: Vec<Node>,
    scopes: Vec<Scope>,
    kinds: Vec<Kind>,
    known: HashMap<Node, NodeId>,
    inputs: Vec<InputDecl>,
    params: Vec<(String, f64)>,
    fault: Option<String>,
}

/// A graph of expressions over named inputs and parameters.
#[derive(Default)]
pub struct Graph {
    inner: RefCell<Inner>,
}

/// Handle of an expression: `Copy`, with the usual operators.
#[derive(Clone, Copy)]
pub struct Expr<'g> {
    pub(crate) graph: &'g Graph,
    pub(crate) id: NodeId,
}

impl fmt::Debug for Expr<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.graph.print(self.id))
    }
}

impl Graph {
    /// An empty graph.
    pub fn new() -> Graph {
        Graph::default()
    }

    /// A number.
    pub fn constant(&self, value: f64) -> Expr<'_> {
        self.add(Node::Const(value.to_bits()))
    }

    /// A class index.
    pub fn index(&self, value: i64) -> Expr<'_> {
        self.add(Node::Int(value))
    }

    /// A truth value.
    pub fn truth(&self, value: bool) -> Expr<'_> {
        self.add(Node::Bool(value))
    }

    /// The input of that name, declared on first use.
    pub fn input(&self, name: &str, scope: Scope, kind: Kind) -> Expr<'_> {
        let place = {
            let mut inner = self.inner.borrow_mut();
            match inner.inputs.iter().position(|i| i.name == name) {
                Some(place) => {
                    let known = (inner.inputs[place].scope, inner.inputs[place].kind);
                    if known != (scope, kind) {
                        let message =
                            format!("input `{name}` is {known:?} in one place and {:?} in another", (scope, kind));
                        inner.fault.get_or_insert(message);
                    }
                    place
                }
                None => {
                    inner.inputs.push(InputDecl { name: name.to_owned(), scope, kind });
                    inner.inputs.len() - 1
                }
            }
        };
        self.add(Node::Input(place as u32))
    }

    /// The numeric parameter of that name, declared on first use: a uniform.
    pub fn param(&self, name: &str, value: f64) -> Expr<'_> {
        let place = {
            let mut inner = self.inner.borrow_mut();
            match inner.params.iter().position(|p| p.0 == name) {
                Some(place) => place,
                None => {
                    inner.params.push((name.to_owned(), value));
                    inner.params.len() - 1
                }
            }
        };
        self.add(Node::Param(place as u32))
    }

    /// A size as a number, known when the plan is bound.
    pub fn count(&self, extent: Extent) -> Expr<'_> {
        self.add(Node::Count(extent))
    }

    /// The element's column, an index.
    pub fn col_index(&self) -> Expr<'_> {
        self.add(Node::ColIndex)
    }

    /// The inputs declared so far.
    pub fn inputs(&self) -> Vec<InputDecl> {
        self.inner.borrow().inputs.clone()
    }

    /// The numeric parameters declared so far, with their values.
    pub fn params(&self) -> Vec<(String, f64)> {
        self.inner.borrow().params.clone()
    }

    /// The node behind a handle.
    pub fn node(&self, id: NodeId) -> Node {
        self.inner.borrow().nodes[id.index()]
    }

    /// The scope of a node.
    pub fn scope(&self, id: NodeId) -> Scope {
        self.inner.borrow().scopes[id.index()]
    }

    /// The kind of a node.
    pub fn kind(&self, id: NodeId) -> Kind {
        self.inner.borrow().kinds[id.index()]
    }

    /// The first mistake made in building, as an error of that loss.
    pub fn verify(&self, loss: &str) -> Result<(), Error> {
        match &self.inner.borrow().fault {
            None => Ok(()),
            Some(message) => Err(Error::Expr { loss: loss.to_owned(), message: message.clone() }),
        }
    }

    /// Number of nodes.
    pub fn len(&self) -> usize {
        self.inner.borrow().nodes.len()
    }

    /// Whether there is no node yet.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    pub(crate) fn expr(&self, id: NodeId) -> Expr<'_> {
        Expr { graph: self, id }
    }

    /// Adds a node, or finds it. Every node passes here, so scope and kind are inferred and checked here.
    pub(crate) fn add(&self, node: Node) -> Expr<'_> {
        if let Some(&id) = self.inner.borrow().known.get(&node) {
            return self.expr(id);
        }
        let (scope, kind, fault) = self.infer(&node);
        let mut inner = self.inner.borrow_mut();
        if let Some(message) = fault {
            inner.fault.get_or_insert(message);
        }
        let id = NodeId(inner.nodes.len() as u32);
        inner.nodes.push(node);
        inner.scopes.push(scope);
        inner.kinds.push(kind);
        inner.known.insert(node, id);
        drop(inner);
        self.expr(id)
    }

    pub(crate) fn op(&self, op: Op, operands: &[NodeId]) -> Expr<'_> {
        let mut all = [NodeId::NONE; 3];
        all[..operands.len()].copy_from_slice(operands);
        self.add(Node::Op(op, all))
    }

    fn infer(&self, node: &Node) -> (Scope, Kind, Option<String>) {
        let inner = self.inner.borrow();
        let scope = |id: NodeId| inner.scopes[id.index()];
        let kind = |id: NodeId| inner.kinds[id.index()];
        let joined = node.operands().map(scope).fold(Scope::Param, Scope::join);
        let no_int = |id: NodeId, what: &str| {
            (kind(id) != Kind::Float).then(|| format!("{what} takes numbers, found {:?}", kind(id)))
        };
        match *node {
            Node::Const(_) | Node::Param(_) | Node::Count(_) => (Scope::Param, Kind::Float, None),
            Node::Int(_) => (Scope::Param, Kind::Int, None),
            Node::Bool(_) => (Scope::Param, Kind::Bool, None),
            Node::Input(place) => {
                let decl = &inner.inputs[place as usize];
                (decl.scope, decl.kind, None)
            }
            Node::ColIndex => (Scope::Column, Kind::Int, None),
            Node::Op(op, _) => {
                let kinds: Vec<Kind> = node.operands().map(kind).collect();
                match op.kind(&kinds) {
                    Ok(kind) => (joined, kind, None),
                    Err(why) => (joined, Kind::Float, Some(format!("{op:?} {why}, found {kinds:?}"))),
                }
            }
            Node::Reduce(reduce, x) => {
                let mut fault = no_int(x, "a reduction");
                if !matches!(scope(x), Scope::Element | Scope::Column) {
                    let found = scope(x);
                    fault = Some(format!("{reduce:?} takes elements to their row, found a value of scope {found:?}"));
                }
                let kind = if reduce == Reduce::ArgMax { Kind::Int } else { Kind::Float };
                (Scope::Row, kind, fault)
            }
            Node::SumOver(to, x) => {
                let mut fault = no_int(x, "sum_over");
                if !matches!(to, Scope::Group | Scope::Total) || scope(x) <= to {
                    let found = scope(x);
                    fault = Some(format!(
                        "sum_over({to:?}) of a value of scope {found:?}; it goes to Group or Total, from further in"
                    ));
                }
                (to, Kind::Float, fault)
            }
            Node::At(x, label) => {
                let fault = if kind(label) != Kind::Int || scope(label) > Scope::Row {
                    Some("`at` takes one class index a row".to_owned())
                } else {
                    no_int(x, "`at`")
                };
                (Scope::Row, kind(x), fault)
            }
            Node::Softmax(x) | Node::SoftmaxMinusOne(x) => (Scope::Element, Kind::Float, no_int(x, "softmax")),
            Node::Detach(x) => (scope(x), kind(x), None),
            Node::StraightThrough(value, gradient) => {
                let fault = (scope(value) != scope(gradient))
                    .then(|| "straight_through takes two values of one scope".to_owned());
                (scope(value), Kind::Float, fault)
            }
            Node::WithGradient(value, wrt, gradient) => {
                let fits = scope(value) == joined && scope(wrt) <= scope(value) && scope(gradient) <= scope(value);
                let fault = (!fits)
                    .then(|| "with_gradient: the value must be as far in as its input and its derivative".to_owned());
                (scope(value), Kind::Float, fault)
            }
            Node::Masked(condition, x) => {
                let fault = (kind(condition) != Kind::Bool).then(|| "masked takes a truth value".to_owned());
                (joined, kind(x), fault)
            }
        }
    }

    /// The expression as text, each shared node once.
    pub fn print(&self, root: NodeId) -> String {
        let mut uses: HashMap<NodeId, usize> = HashMap::new();
        let order = self.reachable(&[root]);
        for id in &order {
            for operand in self.node(*id).operands() {
                *uses.entry(operand).or_default() += 1;
            }
        }
        let mut text: HashMap<NodeId, String> = HashMap::new();
        let mut lines = String::new();
        for &id in &order {
            let node = self.node(id);
            let mut line = self.print_node(&node, &text);
            let leaf = node.operands().next().is_none();
            if !leaf && uses.get(&id).copied().unwrap_or(0) > 1 {
                lines.push_str(&format!("{id:?} = {line}\n"));
                line = format!("{id:?}");
            }
            text.insert(id, line);
        }
        format!("{lines}{}", text[&root])
    }

    fn print_node(&self, node: &Node, text: &HashMap<NodeId, String>) -> String {
        let operands: Vec<&str> = node.operands().map(|id| text[&id].as_str()).collect();
        let list = operands.join(", ");
        match *node {
            Node::Const(bits) => format!("{}", f64::from_bits(bits)),
            Node::Int(value) => format!("{value}"),
            Node::Bool(value) => format!("{value}"),
            Node::Param(place) => self.inner.borrow().params[place as usize].0.clone(),
            Node::Input(place) => self.inner.borrow().inputs[place as usize].name.clone(),
            Node::ColIndex => "col".to_owned(),
            Node::Count(extent) => format!("{extent:?}").to_lowercase(),
            Node::Op(Op::Add, _) => format!("({} + {})", operands[0], operands[1]),
            Node::Op(Op::Sub, _) => format!("({} - {})", operands[0], operands[1]),
            Node::Op(Op::Mul, _) => format!("{} * {}", operands[0], operands[1]),
            Node::Op(Op::Div, _) => format!("({} / {})", operands[0], operands[1]),
            Node::Op(Op::Neg, _) => format!("-{}", operands[0]),
            Node::Op(op, _) => format!("{}({list})", format!("{op:?}").to_lowercase()),
            Node::Reduce(reduce, _) => format!("row_{}({list})", format!("{reduce:?}").to_lowercase()),
            Node::SumOver(to, _) => format!("sum_{}({list})", format!("{to:?}").to_lowercase()),
            Node::At(..) => format!("at({list})"),
            Node::Softmax(_) => format!("softmax({list})"),
            Node::SoftmaxMinusOne(_) => format!("softmax_minus_one({list})"),
            Node::Detach(_) => format!("detach({list})"),
            Node::StraightThrough(..) => format!("straight_through({list})"),
            Node::WithGradient(..) => format!("with_gradient({list})"),
            Node::Masked(..) => format!("masked({list})"),
        }
    }

    /// The nodes below the roots, operands first, roots in order.
    pub(crate) fn reachable(&self, roots: &[NodeId]) -> Vec<NodeId> {
        let mut seen = vec![false; self.len()];
        let mut order = Vec::new();
        let mut stack: Vec<(NodeId, bool)> = roots.iter().rev().map(|r| (*r, false)).collect();
        while let Some((id, ready)) = stack.pop() {
            if ready {
                order.push(id);
                continue;
            }
            if seen[id.index()] {
                continue;
            }
            seen[id.index()] = true;
            stack.push((id, true));
            let operands: Vec<NodeId> = self.node(id).operands().collect();
            stack.extend(operands.into_iter().rev().map(|o| (o, false)));
        }
        order
    }
}

/// What may stand for an expression: an expression, or a number.
pub trait IntoExpr<'g> {
    /// As an expression of that graph.
    fn into_expr(self, graph: &'g Graph) -> Expr<'g>;
}

impl<'g> IntoExpr<'g> for Expr<'g> {
    fn into_expr(self, _: &'g Graph) -> Expr<'g> {
        self
    }
}

impl<'g> IntoExpr<'g> for f64 {
    fn into_expr(self, graph: &'g Graph) -> Expr<'g> {
        graph.constant(self)
    }
}

macro_rules! unary {
    ($($(#[$doc:meta])* $name:ident $op:ident;)*) => {$(
        $(#[$doc])*
        pub fn $name(self) -> Expr<'g> {
            self.graph.op(Op::$op, &[self.id])
        }
    )*};
}

macro_rules! binary {
    ($($(#[$doc:meta])* $name:ident $op:ident;)*) => {$(
        $(#[$doc])*
        pub fn $name(self, other: impl IntoExpr<'g>) -> Expr<'g> {
            let other = other.into_expr(self.graph);
            self.graph.op(Op::$op, &[self.id, other.id])
        }
    )*};
}

macro_rules! reductions {
    ($($(#[$doc:meta])* $name:ident $reduce:ident;)*) => {$(
        $(#[$doc])*
        pub fn $name(self) -> Expr<'g> {
            self.graph.add(Node::Reduce(Reduce::$reduce, self.id))
        }
    )*};
}

impl<'g> Expr<'g> {
    unary! {
        /// |x|; subgradient 0 at 0.
        abs Abs;
        /// Sign; 0 at 0.
        sign Sign;
        /// eˣ.
        exp Exp;
        /// eˣ − 1, accurate near 0.
        expm1 Expm1;
        /// ln x.
        log Log;
        /// ln(1 + x), accurate near 0.
        log1p Log1p;
        /// √x.
        sqrt Sqrt;
        /// tanh x.
        tanh Tanh;
        /// 1 / (1 + e⁻ˣ).
        sigmoid Sigmoid;
        /// ln sigmoid(x), accurate on both sides.
        log_sigmoid LogSigmoid;
        /// ln(1 + eˣ), accurate on both sides.
        softplus Softplus;
        /// ln cosh x, without overflow and accurate near 0.
        log_cosh LogCosh;
        /// The error function.
        erf Erf;
        /// max(x, 0); subgradient 0 at 0.
        relu Relu;
        /// A truth value as 0 or 1, or an index as a number.
        to_float ToFloat;
    }

    binary! {
        /// xʸ for x ≥ 0; 0⁰ = 1.
        pow Pow;
        /// The larger; subgradient one half each at a tie.
        maximum Maximum;
        /// The smaller; subgradient one half each at a tie.
        minimum Minimum;
        /// x · ln y, and 0 where x = 0.
        xlogy Xlogy;
        /// x < y.
        lt Lt;
        /// x ≤ y.
        le Le;
        /// x = y.
        equals Eq;
        /// Both truth values.
        and And;
        /// Either truth value.
        or Or;
    }

    reductions! {
        /// Σ over the row.
        sum Sum;
        /// Maximum of the row; ties share the gradient.
        max Max;
        /// Minimum of the row; ties share the gradient.
        min Min;
        /// Lowest column of a maximum of the row.
        argmax ArgMax;
        /// logsumexp − max, as log1p of the sum over the columns other than the maximum, so that confident rows
        /// keep their digits. Its gradient is the softmax: the shift is taken to carry none.
        logsumexp_shifted LogSumExpShifted;
    }

    /// Truth negated. (`!condition` does the same.)
    fn negated(self) -> Expr<'g> {
        self.graph.op(Op::Not, &[self.id])
    }

    /// x > y.
    pub fn gt(self, other: impl IntoExpr<'g>) -> Expr<'g> {
        other.into_expr(self.graph).lt(self)
    }

    /// x ≥ y.
    pub fn ge(self, other: impl IntoExpr<'g>) -> Expr<'g> {
        other.into_expr(self.graph).le(self)
    }

    /// `yes` where this condition holds, else `no`. The branch not taken contributes no gradient.
    pub fn select(self, yes: impl IntoExpr<'g>, no: impl IntoExpr<'g>) -> Expr<'g> {
        let (yes, no) = (yes.into_expr(self.graph), no.into_expr(self.graph));
        self.graph.op(Op::Select, &[self.id, yes.id, no.id])
    }

    /// Mean of the row.
    pub fn mean(self) -> Expr<'g> {
        self.sum() / self.graph.count(Extent::Cols)
    }

    /// ln Σⱼ exp(xⱼ) of the row. Its gradient is the softmax.
    pub fn logsumexp(self) -> Expr<'g> {
        self.logsumexp_shifted() + self.max().detach()
    }

    /// exp(xⱼ − logsumexp x).
    pub fn softmax(self) -> Expr<'g> {
        self.graph.add(Node::Softmax(self.id))
    }

    /// xⱼ − logsumexp x.
    pub fn log_softmax(self) -> Expr<'g> {
        (self - self.max().detach()) - self.logsumexp_shifted()
    }

    /// The element of the row at a class index. An index outside the row poisons the row with NaN.
    pub fn at(self, label: Expr<'g>) -> Expr<'g> {
        self.graph.add(Node::At(self.id, label.id))
    }

    /// Σ over the rows of a group, or over the whole tensor.
    pub fn sum_over(self, to: Scope) -> Expr<'g> {
        self.graph.add(Node::SumOver(to, self.id))
    }

    /// The value, through which no gradient goes.
    pub fn detach(self) -> Expr<'g> {
        self.graph.add(Node::Detach(self.id))
    }

    /// This value, with the gradient of another expression.
    pub fn straight_through(self, gradient_of: Expr<'g>) -> Expr<'g> {
        self.graph.add(Node::StraightThrough(self.id, gradient_of.id))
    }

    /// This value; its derivative with respect to `wrt` is `gradient`, and with respect to all else zero.
    /// Give several inputs a derivative by nesting: the outer call adds to the inner one's.
    pub fn with_gradient(self, wrt: Expr<'g>, gradient: Expr<'g>) -> Expr<'g> {
        self.graph.add(Node::WithGradient(self.id, wrt.id, gradient.id))
    }

    /// This value where `condition` holds; elsewhere exactly 0 with gradient 0, even where this is NaN.
    pub fn masked(self, condition: Expr<'g>) -> Expr<'g> {
        self.graph.add(Node::Masked(condition.id, self.id))
    }

    /// How many values this has.
    pub fn scope(self) -> Scope {
        self.graph.scope(self.id)
    }

    /// What this is.
    pub fn kind(self) -> Kind {
        self.graph.kind(self.id)
    }

    /// The graph it belongs to.
    pub fn graph(self) -> &'g Graph {
        self.graph
    }
}

macro_rules! operators {
    ($($trait:ident $method:ident;)*) => {$(
        impl<'g, R: IntoExpr<'g>> std::ops::$trait<R> for Expr<'g> {
            type Output = Expr<'g>;
            fn $method(self, other: R) -> Expr<'g> {
                let other = other.into_expr(self.graph);
                self.graph.op(Op::$trait, &[self.id, other.id])
            }
        }
        impl<'g> std::ops::$trait<Expr<'g>> for f64 {
            type Output = Expr<'g>;
            fn $method(self, other: Expr<'g>) -> Expr<'g> {
                let this = other.graph.constant(self);
                other.graph.op(Op::$trait, &[this.id, other.id])
            }
        }
    )*};
}

operators! {
    Add add;
    Sub sub;
    Mul mul;
    Div div;
}

impl<'g> std::ops::Neg for Expr<'g> {
    type Output = Expr<'g>;
    fn neg(self) -> Expr<'g> {
        self.graph.op(Op::Neg, &[self.id])
    }
}

impl<'g> std::ops::Not for Expr<'g> {
    type Output = Expr<'g>;
    fn not(self) -> Expr<'g> {
        self.negated()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn equal_expressions_are_one_node() {
        let g = Graph::new();
        let x = g.input("x", Scope::Element, Kind::Float);
        assert_eq!((x * 2.0 + 1.0).id, (x * 2.0 + 1.0).id);
        assert_eq!(g.print((x - x.max()).exp().id), "exp((x - row_max(x)))");
    }

    #[test]
    fn scopes_join_inward() {
        use Scope::*;
        assert_eq!(Row.join(Column), Element);
        assert_eq!(Column.join(Group), Element);
        assert_eq!(Total.join(Column), Column);
        assert_eq!(Scalar.join(Row), Row);
        assert_eq!(Element.join(Row), Element);
    }

    #[test]
    fn mistakes_come_back_as_errors() {
        let cases: [for<'g> fn(&'g Graph, Expr<'g>) -> Expr<'g>; 5] = [
            |_, x| x.sum().sum(),
            |g, x| x + g.col_index(),
            |_, x| x.sum_over(Scope::Row),
            |_, x| x.at(x),
            |_, x| x.sum().sum_over(Scope::Total).sum_over(Scope::Total),
        ];
        for (case, build) in cases.iter().enumerate() {
            let g = Graph::new();
            let x = g.input("x", Scope::Element, Kind::Float);
            assert_eq!(g.verify("ok"), Ok(()));
            build(&g, x);
            assert!(matches!(g.verify("bad"), Err(Error::Expr { .. })), "case {case}");
        }
    }
}
