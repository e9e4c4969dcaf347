//! Expressions as plain trees: they print as the Rust that builds them, and shrink node by node.

use std::fmt;
use wgloss::internals::expr::Scan;
use wgloss::internals::expr::op::{Kind, Op};
use wgloss::loss::Build;
use wgloss::{Direction, Domain, Expr, Extent, Loss, Order, RowAxis, Scope};

/// Inputs that expressions may read, and the scope of each. The first is always read.
pub const INPUTS: [(&str, Scope); 8] = [
    ("input", Scope::Element),
    ("other", Scope::Element),
    ("r", Scope::Row),
    ("s", Scope::Row),
    ("c", Scope::Column),
    ("g", Scope::Group),
    ("h", Scope::GroupColumn),
    ("k", Scope::Scalar),
];
/// The label that expressions may read.
pub const LABEL: &str = "target";
/// The labels of elements that expressions may read, and the number of their classes.
pub const CLASSES: &str = "classes";
pub const CLASS_COUNT: u32 = 3;
/// The parameters of expressions.
pub const PARAMS: [&str; 2] = ["p", "q"];

/// A reduction of a row to one number.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Fold {
    Sum,
    Mean,
    Max,
    Min,
    ArgMax,
    LogSumExp,
    LogSumExpShifted,
    /// The thresholds of these distributions.
    Sparsemax,
    Entmax15,
    /// The element of that rank.
    TopK(u32),
}

impl Fold {
    /// Whether it finds an element of the row.
    fn picks(self) -> bool {
        matches!(self, Fold::Max | Fold::Min | Fold::ArgMax | Fold::TopK(_))
    }
}

/// A number.
#[derive(Clone, Debug, PartialEq)]
pub enum Tree {
    Const(f64),
    Param(&'static str),
    Input(&'static str),
    /// The element's column as a number.
    Col,
    /// The row's number.
    Row,
    Count(Extent),
    /// Number of rows of the group, of groups of unequal length.
    GroupRows,
    Op(Op, Vec<Tree>),
    /// The first within the bounds that the others are.
    Clamp(Box<Tree>, Box<Tree>, Box<Tree>),
    Powi(Box<Tree>, i32),
    Select(Box<Test>, Box<Tree>, Box<Tree>),
    Masked(Box<Test>, Box<Tree>),
    /// 0 or 1.
    Truth(Box<Test>),
    Fold(Fold, Box<Tree>),
    Softmax(Box<Tree>),
    LogSoftmax(Box<Tree>),
    /// A scan along the row; of a linear one, the decay comes second.
    Scan(Scan, Direction, Vec<Tree>),
    /// A fold over partners, of values of the element, of its partner, and of both, which are exact.
    Pairs(Pairs, Vec<Tree>),
    /// The first in the order of the second, which is exact; or back from it.
    Sorted(Order, bool, Box<Tree>, Box<Tree>),
    At(Index, Box<Tree>),
    SumOver(Scope, Box<Tree>),
    LogSumExpOver(Scope, Box<Tree>),
    Detach(Box<Tree>),
    /// The value of the first, the gradient of the second.
    StraightThrough(Box<Tree>, Box<Tree>),
    /// The first; its derivative with respect to the input of that name is the second.
    WithGradient(Box<Tree>, &'static str, Box<Tree>),
}

/// Values per pair of an element and its partner, folded over the partners.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Pairs {
    /// Σ aⱼ·bₖ
    Product,
    /// Σ tanh(aⱼ − bₖ) where mⱼ > mₖ
    Above,
    /// ln Σ exp(aⱼ − bₖ), at least of the element itself
    LogSumExp,
}

/// A truth value.
#[derive(Clone, Debug, PartialEq)]
pub enum Test {
    /// Two numbers compared: `Lt`, `Le` or `Eq`.
    Compare(Op, Tree, Tree),
    Not(Box<Test>),
    And(Box<Test>, Box<Test>),
    Or(Box<Test>, Box<Test>),
    /// The element's column is that index.
    ColIs(Index),
    /// The element's column is below that index.
    ColBelow(Index),
    /// The row's label is that index.
    LabelIs(i64),
    /// The row's label is below that index.
    LabelBelow(i64),
    /// The element's label is that class; whether its range is checked.
    ClassIs(i64, bool),
}

/// A class index, one a row.
#[derive(Clone, Debug, PartialEq)]
pub enum Index {
    Label,
    /// The row's number.
    Row,
    Fixed(i64),
    ArgMax(Box<Tree>),
}

/// A visited part of an expression.
#[derive(Clone, Copy)]
pub enum Part<'t> {
    Tree(&'t Tree),
    Test(&'t Test),
    Index(&'t Index),
}

impl Tree {
    pub fn input(name: &'static str) -> Tree {
        Tree::Input(name)
    }

    pub fn op(op: Op, operands: impl Into<Vec<Tree>>) -> Tree {
        Tree::Op(op, operands.into())
    }

    /// Every part, this one first.
    pub fn visit<'t>(&'t self, see: &mut dyn FnMut(Part<'t>)) {
        see(Part::Tree(self));
        match self {
            Tree::Const(_) | Tree::Param(_) | Tree::Input(_) | Tree::Count(_) => {}
            Tree::Col | Tree::Row | Tree::GroupRows => {}
            Tree::Op(_, operands) | Tree::Scan(_, _, operands) | Tree::Pairs(_, operands) => {
                operands.iter().for_each(|x| x.visit(see))
            }
            Tree::Powi(x, _) => x.visit(see),
            Tree::Clamp(x, low, high) => [x, low, high].into_iter().for_each(|x| x.visit(see)),
            Tree::Select(test, a, b) => {
                test.visit(see);
                a.visit(see);
                b.visit(see);
            }
            Tree::Masked(test, x) => {
                test.visit(see);
                x.visit(see);
            }
            Tree::Truth(test) => test.visit(see),
            Tree::Fold(_, x) | Tree::Softmax(x) | Tree::LogSoftmax(x) | Tree::Detach(x) => x.visit(see),
            Tree::SumOver(_, x) | Tree::LogSumExpOver(_, x) => {
                x.visit(see);
            }
            Tree::At(index, x) => {
                index.visit(see);
                x.visit(see);
            }
            Tree::Sorted(_, _, a, b) | Tree::StraightThrough(a, b) | Tree::WithGradient(a, _, b) => {
                a.visit(see);
                b.visit(see);
            }
        }
    }

    /// Whether it is computed without rounding.
    pub fn is_exact(&self) -> bool {
        !self.has(|tree| match tree {
            Tree::Op(op, _) => {
                !matches!(op, Op::Neg | Op::Abs | Op::Sign | Op::Relu | Op::Maximum | Op::Minimum | Op::ToFloat)
            }
            Tree::Fold(fold, _) => !fold.picks(),
            Tree::Powi(_, n) => !(0..=1).contains(n),
            Tree::Scan(scan, ..) => *scan != Scan::Shift,
            Tree::Softmax(_) | Tree::LogSoftmax(_) | Tree::SumOver(..) | Tree::LogSumExpOver(..) => true,
            Tree::Pairs(..) => true,
            _ => false,
        })
    }

    pub fn size(&self) -> usize {
        let mut size = 0;
        self.visit(&mut |_| size += 1);
        size
    }

    pub fn reads(&self, name: &str) -> bool {
        let mut found = false;
        self.visit(&mut |part| {
            found |= match part {
                Part::Tree(Tree::Input(input)) => *input == name,
                Part::Tree(Tree::WithGradient(_, input, _)) => *input == name,
                Part::Test(Test::ClassIs(..)) => name == CLASSES,
                Part::Test(Test::LabelIs(_) | Test::LabelBelow(_)) | Part::Index(Index::Label) => name == LABEL,
                _ => false,
            }
        });
        found
    }

    pub fn has(&self, is: impl Fn(&Tree) -> bool) -> bool {
        let mut found = false;
        self.visit(&mut |part| found |= matches!(part, Part::Tree(tree) if is(tree)));
        found
    }

    /// How many values it has.
    pub fn scope(&self) -> Scope {
        let join = |trees: &[&Tree]| trees.iter().fold(Scope::Param, |scope, tree| scope.join(tree.scope()));
        match self {
            Tree::Const(_) | Tree::Param(_) | Tree::Count(_) => Scope::Param,
            Tree::Input(name) => INPUTS.iter().find(|i| i.0 == *name).map_or(Scope::Element, |i| i.1),
            Tree::Col => Scope::Column,
            Tree::GroupRows => Scope::Group,
            Tree::Row => Scope::Row,
            Tree::Op(_, operands) => operands.iter().fold(Scope::Param, |scope, x| scope.join(x.scope())),
            Tree::Clamp(x, low, high) => join(&[x, low, high]),
            Tree::Powi(x, _) => x.scope(),
            Tree::Select(test, a, b) => test.scope().join(join(&[a, b])),
            Tree::Masked(test, x) => test.scope().join(x.scope()),
            Tree::Truth(test) => test.scope(),
            Tree::Fold(..) | Tree::At(..) => Scope::Row,
            Tree::Softmax(_) | Tree::LogSoftmax(_) | Tree::Scan(..) | Tree::Pairs(..) | Tree::Sorted(..) => {
                Scope::Element
            }
            Tree::SumOver(scope, _) | Tree::LogSumExpOver(scope, _) => *scope,
            Tree::Detach(x) => x.scope(),
            Tree::StraightThrough(a, _) | Tree::WithGradient(a, ..) => a.scope(),
        }
    }

    /// The expression that this says.
    pub fn build<'g>(&self, b: &Build<'g>) -> Expr<'g> {
        let graph = b.graph();
        match self {
            Tree::Const(value) => graph.constant(*value),
            Tree::Param(name) => b.param(name),
            Tree::Input(name) => b.input(name),
            Tree::Col => graph.col_index().to_float(),
            Tree::Row => graph.row_index().to_float(),
            Tree::Count(extent) => graph.count(*extent),
            Tree::GroupRows => graph.count(Extent::GroupRows),
            Tree::Op(op, operands) => apply(*op, &operands.iter().map(|x| x.build(b)).collect::<Vec<_>>()),
            Tree::Clamp(x, low, high) => x.build(b).clamp(low.build(b), high.build(b)),
            Tree::Powi(x, n) => x.build(b).powi(*n),
            Tree::Select(test, yes, no) => test.build(b).select(yes.build(b), no.build(b)),
            Tree::Masked(test, x) => x.build(b).masked(test.build(b)),
            Tree::Truth(test) => test.build(b).to_float(),
            Tree::Fold(fold, x) => {
                let x = x.build(b);
                match fold {
                    Fold::Sum => x.sum(),
                    Fold::Mean => x.mean(),
                    Fold::Max => x.max(),
                    Fold::Min => x.min(),
                    Fold::ArgMax => x.argmax().to_float(),
                    Fold::LogSumExp => x.logsumexp(),
                    Fold::LogSumExpShifted => x.logsumexp_shifted(),
                    Fold::Sparsemax => x.sparsemax_threshold(),
                    Fold::Entmax15 => x.entmax15_threshold(),
                    Fold::TopK(k) => x.top_k_threshold(*k),
                }
            }
            Tree::Softmax(x) => x.build(b).softmax(),
            Tree::LogSoftmax(x) => x.build(b).log_softmax(),
            Tree::Scan(scan, along, x) => match scan {
                Scan::Sum => x[0].build(b).scan_sum(*along),
                Scan::LogSumExp => x[0].build(b).scan_logsumexp(*along),
                Scan::Linear => x[0].build(b).scan_linear(x[1].build(b), *along),
                Scan::Shift => x[0].build(b).shift(*along),
                Scan::Decay => unreachable!("gradients alone hold it"),
            },
            Tree::Pairs(pairs, x) => {
                let [a, other, m] = [0, 1, 2].map(|k| x[k].build(b));
                match pairs {
                    Pairs::Product => (a * other.partner()).sum_partners(),
                    Pairs::Above => m.gt(m.partner()).select((a - other.partner()).tanh(), 0.0).sum_partners(),
                    Pairs::LogSumExp => (a - other.partner()).logsumexp_partners(),
                }
            }
            Tree::Sorted(order, back, x, key) => {
                let (x, ranking) = (x.build(b), key.build(b).argsort(*order));
                if *back { x.back_from_order_of(ranking) } else { x.in_order_of(ranking) }
            }
            Tree::At(index, x) => x.build(b).at(index.build(b)),
            Tree::SumOver(scope, x) => x.build(b).sum_over(*scope),
            Tree::LogSumExpOver(scope, x) => x.build(b).logsumexp_over(*scope),
            Tree::Detach(x) => x.build(b).detach(),
            Tree::StraightThrough(value, gradient) => value.build(b).straight_through(gradient.build(b)),
            Tree::WithGradient(value, input, gradient) => {
                value.build(b).with_gradient(b.input(input), gradient.build(b))
            }
        }
    }

    /// Whether it has values of groups.
    pub fn has_groups(&self) -> bool {
        self.reads("g") || self.has(|tree| matches!(tree.scope(), Scope::Group | Scope::GroupColumn))
    }

    /// The loss of this value.
    pub fn loss(&self, name: &str, row_axis: RowAxis, cols: Option<usize>, params: [f64; 2]) -> Loss {
        let mut definition = Loss::define(name).row_axis(row_axis);
        if let Some(cols) = cols {
            definition = definition.cols(cols);
        }
        for (input, scope) in INPUTS {
            if self.reads(input) {
                definition = definition.input(input, scope);
            }
        }
        if self.reads(LABEL) {
            definition = definition.label(LABEL);
        }
        if self.reads(CLASSES) {
            definition = definition.labels(CLASSES, Scope::Element);
        }
        for (param, value) in PARAMS.iter().zip(params) {
            if self.has(|tree| matches!(tree, Tree::Param(name) if name == param)) {
                definition = definition.param(param, value, Domain::Finite);
            }
        }
        let tree = self.clone();
        definition.expr(move |b| tree.build(b))
    }
}

fn apply<'g>(op: Op, x: &[Expr<'g>]) -> Expr<'g> {
    match op {
        Op::Neg => -x[0],
        Op::Abs => x[0].abs(),
        Op::Sign => x[0].sign(),
        Op::Exp => x[0].exp(),
        Op::Expm1 => x[0].expm1(),
        Op::Log => x[0].log(),
        Op::Log1p => x[0].log1p(),
        Op::Sqrt => x[0].sqrt(),
        Op::Tanh => x[0].tanh(),
        Op::Sigmoid => x[0].sigmoid(),
        Op::LogSigmoid => x[0].log_sigmoid(),
        Op::Softplus => x[0].softplus(),
        Op::LogCosh => x[0].log_cosh(),
        Op::Erf => x[0].erf(),
        Op::Atan => x[0].atan(),
        Op::Floor => x[0].floor(),
        Op::Lgamma => x[0].lgamma(),
        Op::Digamma => x[0].digamma(),
        Op::Relu => x[0].relu(),
        Op::Add => x[0] + x[1],
        Op::Sub => x[0] - x[1],
        Op::Mul => x[0] * x[1],
        Op::Div => x[0] / x[1],
        Op::Pow => x[0].pow(x[1]),
        Op::Maximum => x[0].maximum(x[1]),
        Op::Minimum => x[0].minimum(x[1]),
        Op::Xlogy => x[0].xlogy(x[1]),
        Op::Times => x[0].times(x[1]),
        other => panic!("no tree holds {other:?} as an operation of numbers"),
    }
}

impl Test {
    fn visit<'t>(&'t self, see: &mut dyn FnMut(Part<'t>)) {
        see(Part::Test(self));
        match self {
            Test::Compare(_, a, b) => {
                a.visit(see);
                b.visit(see);
            }
            Test::Not(a) => a.visit(see),
            Test::And(a, b) | Test::Or(a, b) => {
                a.visit(see);
                b.visit(see);
            }
            Test::ColIs(index) | Test::ColBelow(index) => index.visit(see),
            Test::LabelIs(_) | Test::LabelBelow(_) | Test::ClassIs(..) => {}
        }
    }

    pub fn scope(&self) -> Scope {
        match self {
            Test::Compare(_, a, b) => a.scope().join(b.scope()),
            Test::Not(a) => a.scope(),
            Test::And(a, b) | Test::Or(a, b) => a.scope().join(b.scope()),
            Test::ColIs(Index::Fixed(_)) | Test::ColBelow(Index::Fixed(_)) => Scope::Column,
            Test::ColIs(_) | Test::ColBelow(_) | Test::ClassIs(..) => Scope::Element,
            Test::LabelIs(_) | Test::LabelBelow(_) => Scope::Row,
        }
    }

    fn build<'g>(&self, b: &Build<'g>) -> Expr<'g> {
        match self {
            Test::Compare(op, x, y) => {
                let (x, y) = (x.build(b), y.build(b));
                match op {
                    Op::Lt => x.lt(y),
                    Op::Le => x.le(y),
                    _ => x.equals(y),
                }
            }
            Test::Not(a) => !a.build(b),
            Test::And(x, y) => x.build(b).and(y.build(b)),
            Test::Or(x, y) => x.build(b).or(y.build(b)),
            Test::ColIs(index) => b.graph().col_index().equals(index.build(b)),
            Test::ColBelow(index) => b.graph().col_index().lt(index.build(b)),
            Test::LabelIs(index) => b.label_is(LABEL, *index),
            Test::LabelBelow(index) => Index::Label.build(b).lt(b.graph().index(*index)),
            Test::ClassIs(index, is_checked) => {
                let label = b.input(CLASSES);
                let label = if *is_checked { label.in_range(CLASS_COUNT) } else { label };
                label.equals(b.graph().index(*index))
            }
        }
    }
}

impl Index {
    fn visit<'t>(&'t self, see: &mut dyn FnMut(Part<'t>)) {
        see(Part::Index(self));
        if let Index::ArgMax(x) = self {
            x.visit(see);
        }
    }

    fn build<'g>(&self, b: &Build<'g>) -> Expr<'g> {
        match self {
            Index::Label => b.graph().input(LABEL, Scope::Row, Kind::Int),
            Index::Row => b.graph().row_index(),
            Index::Fixed(index) => b.graph().index(*index),
            Index::ArgMax(x) => x.build(b).argmax(),
        }
    }
}

/// The Rust that builds it.
impl fmt::Display for Tree {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Tree::Const(value) => write!(f, "{value:?}"),
            Tree::Param(name) => write!(f, "{name}"),
            Tree::Input(name) => write!(f, "{name}"),
            Tree::GroupRows => f.write_str("count(GroupRows)"),
            Tree::Col => f.write_str("col_index().to_float()"),
            Tree::Row => f.write_str("row_index().to_float()"),
            Tree::Count(extent) => write!(f, "count({extent:?})"),
            Tree::Op(op @ (Op::Add | Op::Sub | Op::Mul | Op::Div), x) => {
                let sign = match op {
                    Op::Add => '+',
                    Op::Sub => '-',
                    Op::Mul => '*',
                    _ => '/',
                };
                write!(f, "({} {sign} {})", x[0], x[1])
            }
            Tree::Op(Op::Neg, x) => write!(f, "(-{})", x[0]),
            Tree::Op(op, x) => {
                let name =
                    format!("{op:?}").to_lowercase().replace("sigmoid", "_sigmoid").replace("logcosh", "log_cosh");
                write!(f, "{}.{}(", x[0], name.trim_start_matches('_'))?;
                x[1..].iter().try_for_each(|x| write!(f, "{x}"))?;
                f.write_str(")")
            }
            Tree::Clamp(x, low, high) => write!(f, "{x}.clamp({low}, {high})"),
            Tree::Powi(x, n) => write!(f, "{x}.powi({n})"),
            Tree::Select(test, a, b) => write!(f, "{test}.select({a}, {b})"),
            Tree::Masked(test, x) => write!(f, "{x}.masked({test})"),
            Tree::Truth(test) => write!(f, "{test}.to_float()"),
            Tree::Fold(fold, x) => {
                let name = match fold {
                    Fold::Sum => "sum()",
                    Fold::Mean => "mean()",
                    Fold::Max => "max()",
                    Fold::Min => "min()",
                    Fold::ArgMax => "argmax().to_float()",
                    Fold::LogSumExp => "logsumexp()",
                    Fold::LogSumExpShifted => "logsumexp_shifted()",
                    Fold::Sparsemax => "sparsemax_threshold()",
                    Fold::Entmax15 => "entmax15_threshold()",
                    Fold::TopK(k) => return write!(f, "{x}.top_k_threshold({k})"),
                };
                write!(f, "{x}.{name}")
            }
            Tree::Softmax(x) => write!(f, "{x}.softmax()"),
            Tree::LogSoftmax(x) => write!(f, "{x}.log_softmax()"),
            Tree::Scan(Scan::Linear, along, x) => write!(f, "{}.scan_linear({}, {along:?})", x[0], x[1]),
            Tree::Scan(Scan::Shift, along, x) => write!(f, "{}.shift({along:?})", x[0]),
            Tree::Scan(scan, along, x) => {
                write!(f, "{}.scan_{}({along:?})", x[0], format!("{scan:?}").to_lowercase())
            }
            Tree::Pairs(pairs, x) => write!(f, "pairs_{pairs:?}({}, {}, {})", x[0], x[1], x[2]),
            Tree::Sorted(order, back, x, key) => {
                let name = if *back { "back_from_order_of" } else { "in_order_of" };
                write!(f, "{x}.{name}({key}.argsort({order:?}))")
            }
            Tree::At(index, x) => write!(f, "{x}.at({index})"),
            Tree::SumOver(scope, x) => write!(f, "{x}.sum_over({scope:?})"),
            Tree::LogSumExpOver(scope, x) => write!(f, "{x}.logsumexp_over({scope:?})"),
            Tree::Detach(x) => write!(f, "{x}.detach()"),
            Tree::StraightThrough(a, b) => write!(f, "{a}.straight_through({b})"),
            Tree::WithGradient(a, input, b) => write!(f, "{a}.with_gradient({input}, {b})"),
        }
    }
}

impl fmt::Display for Test {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Test::Compare(Op::Lt, a, b) => write!(f, "{a}.lt({b})"),
            Test::Compare(Op::Le, a, b) => write!(f, "{a}.le({b})"),
            Test::Compare(_, a, b) => write!(f, "{a}.equals({b})"),
            Test::Not(a) => write!(f, "(!{a})"),
            Test::And(a, b) => write!(f, "{a}.and({b})"),
            Test::Or(a, b) => write!(f, "{a}.or({b})"),
            Test::ColIs(index) => write!(f, "col_index().equals({index})"),
            Test::ColBelow(index) => write!(f, "col_index().lt({index})"),
            Test::LabelIs(index) => write!(f, "label_is({LABEL:?}, {index})"),
            Test::LabelBelow(index) => write!(f, "{LABEL}.lt(index({index}))"),
            Test::ClassIs(index, is_checked) => {
                let checked = if *is_checked { format!(".in_range({CLASS_COUNT})") } else { String::new() };
                write!(f, "{CLASSES}{checked}.equals(index({index}))")
            }
        }
    }
}

impl fmt::Display for Index {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Index::Label => f.write_str(LABEL),
            Index::Row => f.write_str("row_index()"),
            Index::Fixed(index) => write!(f, "index({index})"),
            Index::ArgMax(x) => write!(f, "{x}.argmax()"),
        }
    }
}
