//! The `Copy` handle of an expression, with the functions that build one; operators are in `operand.rs`.

use super::graph::Graph;
use super::node::{Classes, Extent, Fold, Node, NodeId, Reduce};
use super::operand::IntoExpr;
use crate::expr::op::{Kind, Op};
use crate::shape::Scope;
use std::fmt;

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
    /// A number.
    pub fn constant(&self, value: impl Into<f64>) -> Expr<'_> {
        self.add(Node::Const(value.into().to_bits()))
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
        self.add(Node::Input(self.declare_input(name, scope, kind)))
    }

    /// The numeric parameter of that name, declared on first use: a uniform.
    pub fn param(&self, name: &str, value: f64) -> Expr<'_> {
        self.add(Node::Param(self.declare_param(name, Kind::Float, value)))
    }

    /// The class index of that name, declared on first use: a uniform, where [`Graph::index`] is a literal.
    pub fn index_param(&self, name: &str, value: i64) -> Expr<'_> {
        self.add(Node::Param(self.declare_param(name, Kind::Int, value as f64)))
    }

    /// A size as a number, known when the plan is bound.
    pub fn count(&self, extent: Extent) -> Expr<'_> {
        let is_own = extent == Extent::GroupRows && self.has_ragged_groups();
        self.add(if is_own { Node::GroupRows } else { Node::Count(extent) })
    }

    /// The element's column, an index.
    pub fn col_index(&self) -> Expr<'_> {
        self.add(Node::ColIndex)
    }

    /// The number of the row, an index: rows are counted in the order of their axes, over the whole batch.
    ///
    /// ```
    /// use wgloss::{HostTensor, Loss, RowAxis, Scope, cpu};
    /// // Scores of each query with every key, of which that of the same number is its own.
    /// let loss = Loss::define("own_key").input("scores", Scope::Element).row_axis(RowAxis::Last).expr(|b| {
    ///     let scores = b.input("scores");
    ///     let own = b.graph().col_index().equals(b.graph().row_index());
    ///     scores.logsumexp() - own.select(scores, 0.0).sum()
    /// });
    /// let scores = HostTensor::f32(&[9.0, 0.0, 0.0, 9.0], &[2, 2]);
    /// assert!(cpu::forward_backward(&loss, &[("scores", scores)], &[])?.loss()? < 1e-3);
    /// # Ok::<(), wgloss::Error>(())
    /// ```
    pub fn row_index(&self) -> Expr<'_> {
        self.add(Node::RowIndex)
    }

    pub(crate) fn expr(&self, id: NodeId) -> Expr<'_> {
        Expr { graph: self, id }
    }

    pub(crate) fn add(&self, node: Node) -> Expr<'_> {
        self.expr(self.insert(node))
    }

    pub(crate) fn op(&self, op: Op, operands: &[NodeId]) -> Expr<'_> {
        let mut all = [NodeId::NONE; 3];
        all[..operands.len()].copy_from_slice(operands);
        self.add(Node::Op(op, all))
    }
}

/// Largest |n| for which [`Expr::powi`] multiplies: each power beyond costs a multiplication or two, and its derivative.
const MULTIPLIED_POWERS: u32 = 16;

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
        /// arctan x, within ±π/2.
        atan Atan;
        /// The largest integer ≤ x; gradient 0 everywhere, at the steps too.
        floor Floor;
        /// ln Γ(x) for x ≥ 0, +∞ at 0; NaN below 0.
        lgamma Lgamma;
        /// The derivative of ln Γ(x), for x ≥ 0, −∞ at 0; NaN below 0.
        digamma Digamma;
        /// max(x, 0); subgradient 0 at 0.
        relu Relu;
        /// A truth value as 0 or 1, or an index as a number.
        to_float ToFloat;
    }

    binary! {
        /// xʸ; 0⁰ = 1. A negative x takes integers y only, and gives |x|ʸ, negated for odd y; NaN for other y.
        /// The derivative with respect to y, xʸ·ln x, is NaN there.
        pow Pow;
        /// The larger; subgradient one half each at a tie.
        maximum Maximum;
        /// The smaller; subgradient one half each at a tie.
        minimum Minimum;
        /// x · ln y, and 0 where x = 0.
        xlogy Xlogy;
        /// x · y, and 0 where x = 0, however large y is: a share of 0 leaves out what is infinite. NaN gives NaN. Its
        /// derivatives multiply the adjoint likewise, the adjoint first: where that is 0, they are.
        times Times;
        /// x < y, of numbers or of indices.
        lt Lt;
        /// x ≤ y, of numbers or of indices.
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

    /// The value within `low..=high`; `high` where they are in the wrong order.
    ///
    /// Derivative, as that of `torch.clamp`: with respect to the value 1 between the bounds and at both of them, 0
    /// outside (where [`Expr::maximum`] and [`Expr::minimum`] share it at a tie); with respect to a bound 1 where the
    /// value is beyond it. NaN stays NaN.
    ///
    /// ```
    /// use wgloss::{HostTensor, Loss, Reduction, Scope, cpu};
    /// let loss = Loss::define("clamped").input("x", Scope::Element).expr(|b| b.input("x").clamp(0.0, 1.0));
    /// let x = HostTensor::f32(&[-1.0, 0.0, 0.5, 1.0, 2.0], &[5]);
    /// let out = cpu::forward_backward(&loss.reduction(Reduction::Sum), &[("x", x)], &["x"])?;
    /// assert_eq!((out.loss()?, out.grad("x")?), (2.5, &[0.0, 1.0, 1.0, 1.0, 0.0][..]));
    /// # Ok::<(), wgloss::Error>(())
    /// ```
    pub fn clamp(self, low: impl IntoExpr<'g>, high: impl IntoExpr<'g>) -> Expr<'g> {
        let (low, high) = (low.into_expr(self.graph), high.into_expr(self.graph));
        let raised = self.lt(low).select(low, self);
        high.lt(raised).select(high, raised)
    }

    /// `xⁿ`, for |n| up to 16 by multiplication: `x²`, `x⁴`, … are squares, and their product is taken from the lowest
    /// up; of a negative n, the reciprocal of `x^|n|`. Beyond 16 as [`Expr::pow`]. x⁰ is 1, 0⁰ too.
    ///
    /// Derivative: `n·xⁿ⁻¹`, for negative x and at 0 as well.
    ///
    /// ```
    /// use wgloss::{HostTensor, Loss, Reduction, Scope, cpu};
    /// let loss = Loss::define("cubed").input("x", Scope::Element).expr(|b| b.input("x").powi(3));
    /// let x = HostTensor::f32(&[-2.0, 0.0, 3.0], &[3]);
    /// let out = cpu::forward_backward(&loss.reduction(Reduction::Sum), &[("x", x)], &["x"])?;
    /// assert_eq!((out.loss()?, out.grad("x")?), (19.0, &[12.0, 0.0, 27.0][..]));
    /// # Ok::<(), wgloss::Error>(())
    /// ```
    pub fn powi(self, n: i32) -> Expr<'g> {
        match n {
            1 => self,
            2 => self * self,
            // A NaN to the power 0 is NaN here, as in `pow`.
            0 => self.pow(0.0),
            _ if n.unsigned_abs() > MULTIPLIED_POWERS => self.pow(n),
            3.. => self.multiplied(n.unsigned_abs()).with_gradient(self, n * self.powi(n - 1)),
            _ => {
                // The derivative is made of 1/x, not of 1/x^|n|: its own derivative at 0 is then infinite, not NaN.
                let (power, inverse) = (self.multiplied(n.unsigned_abs()), 1.0 / self);
                (1.0 / power).with_gradient(self, n * inverse.powi(1 - n))
            }
        }
    }

    /// `xⁿ` for n > 0, by squaring.
    fn multiplied(self, n: u32) -> Expr<'g> {
        let (mut square, mut rest, mut product) = (self, n, None);
        while rest > 0 {
            if rest % 2 == 1 {
                product = Some(product.map_or(square, |product: Expr<'g>| product * square));
            }
            rest /= 2;
            if rest > 0 {
                square = square * square;
            }
        }
        product.unwrap_or(self)
    }

    /// Truth negated. (`!condition` does the same.)
    pub(super) fn negated(self) -> Expr<'g> {
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

    /// `yes` where this condition holds, else `no`. The branch not taken has no gradient, and a NaN in it has no
    /// effect (x.gt(0.0).select(x.sqrt(), 0.0) is 0 with gradient 0 below 0). A NaN that the condition
    /// itself compares comes out as NaN.
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

    /// The element of the row at a class index. An index outside the row poisons the row with NaN; one that is fixed
    /// ([`Graph::index`]) is a mistake of the plan instead, as of [`Expr::column`].
    ///
    /// There is one index per row: lanes hold a row in registers, where no other lane reaches an element. For an index per
    /// element, of few classes, choose among fixed columns; the gradient adds up what chose each of them:
    ///
    /// ```
    /// use wgloss::{Expr, HostTensor, Loss, Reduction, RowAxis, Scope, cpu};
    /// // Per element the score of the class that it names, of three.
    /// let named = Loss::define("named").input("x", Scope::Element).labels("y", Scope::Element).cols(3);
    /// let named = named.row_axis(RowAxis::Last).expr(|b| {
    ///     let (x, y) = (b.input("x"), b.input("y").in_range(3));
    ///     let none = b.graph().constant(0.0);
    ///     (0..3).fold(none, |rest, k| y.equals(b.graph().index(k as i64)).select(x.column(k), rest))
    /// });
    /// let (x, y) = ([0.5f32, 1.5, 2.5], [2, 0, 2]);
    /// let inputs = [("x", HostTensor::f32(&x, &[1, 3])), ("y", HostTensor::i32(&y, &[1, 3]))];
    /// let out = cpu::forward_backward(&named.reduction(Reduction::None), &inputs, &["x"])?;
    /// assert_eq!(out.loss_values()?, [2.5, 0.5, 2.5]);
    /// assert_eq!(out.grad("x")?, [1.0, 0.0, 2.0]);
    /// # Ok::<(), wgloss::Error>(())
    /// ```
    pub fn at(self, label: Expr<'g>) -> Expr<'g> {
        self.graph.add(Node::At(self.id, label.into_expr(self.graph).id))
    }

    /// The element of the row at a fixed column, from 0: a corner of a box, a coordinate.
    ///
    /// It is known when the plan is made, so that nothing is checked on the GPU: fewer columns are an
    /// [`Error::Shape`](crate::Error::Shape) of the plan. See [`cols`](crate::loss::DefinitionBuilder::cols) for an example.
    pub fn column(self, column: usize) -> Expr<'g> {
        self.at(self.graph.index(i64::try_from(column).unwrap_or(i64::MAX)))
    }

    /// The class index itself, checked: it must be one of `0..classes`. Another is reported as
    /// [`Error::LabelOutOfRange`](crate::Error::LabelOutOfRange), and poisons its value with NaN where it is read: of a
    /// loss with rows the row, as every label does; of one without the element.
    ///
    /// ```
    /// use wgloss::{Error, HostTensor, Loss, Reduction, Scope, cpu};
    /// // Hinge of integer labels 0 and 1 per pixel.
    /// let loss = Loss::define("pixel_hinge").input("input", Scope::Element).labels("target", Scope::Element).expr(|b| {
    ///     let (x, y) = (b.input("input"), b.input("target").in_range(2));
    ///     (1.0 - y.equals(b.graph().index(1)).select(x, -x)).relu()
    /// });
    /// let inputs = |labels: &'static [i32]| {
    ///     [("input", HostTensor::f32(&[2.0, 0.5], &[1, 2])), ("target", HostTensor::i32(labels, &[1, 2]))]
    /// };
    /// assert_eq!(cpu::forward_backward(&loss, &inputs(&[1, 0]), &[])?.loss()?, 0.75);
    /// let error = cpu::forward_backward(&loss, &inputs(&[1, 2]), &[])?.loss().unwrap_err();
    /// assert_eq!(error, Error::LabelOutOfRange { row: 1, label: 2, classes: 2 });
    /// # Ok::<(), Error>(())
    /// ```
    pub fn in_range(self, classes: u32) -> Expr<'g> {
        self.graph.add(Node::InRange(self.id, Classes::Exactly(classes)))
    }

    /// As [`Expr::in_range`], of the columns of the row: indices of its classes, several per row.
    pub fn in_columns(self) -> Expr<'g> {
        self.graph.add(Node::InRange(self.id, Classes::Columns))
    }

    /// As [`Expr::in_range`], of one class more than there are columns: of ordered classes that the columns are thresholds
    /// between.
    ///
    /// ```
    /// use wgloss::{Error, HostTensor, Loss, RowAxis, Scope, cpu};
    /// // How many thresholds are on the wrong side of 0.
    /// let wrong = Loss::define("wrong").input("input", Scope::Element).label("target").row_axis(RowAxis::Last).expr(|b| {
    ///     let is_above = b.graph().col_index().lt(b.input("target").in_thresholds());
    ///     let x = b.input("input");
    ///     is_above.select(x.lt(0.0).to_float(), x.ge(0.0).to_float()).sum()
    /// });
    /// let x = HostTensor::f32(&[1.0, 1.0, 0.5], &[1, 3]);
    /// let of = |label: &'static [i32]| {
    ///     let inputs = [("input", x.clone()), ("target", HostTensor::i32(label, &[1]))];
    ///     cpu::forward_backward(&wrong, &inputs, &[])?.loss()
    /// };
    /// assert_eq!((of(&[3])?, of(&[0])?), (0.0, 3.0));
    /// assert_eq!(of(&[4]).unwrap_err(), Error::LabelOutOfRange { row: 0, label: 4, classes: 4 });
    /// # Ok::<(), Error>(())
    /// ```
    pub fn in_thresholds(self) -> Expr<'g> {
        self.graph.add(Node::InRange(self.id, Classes::Between))
    }

    /// Σ over the rows of a group (of a row or element value), over all rows for each column, over the rows of each group for
    /// each column ([`Scope::GroupColumn`], of an element value), or over the whole tensor: values of rows, groups and columns
    /// count once each. Values per group and column are summed to their group, their column, or over the whole tensor.
    ///
    /// ```
    /// use wgloss::{HostTensor, Loss, Reduction, RowAxis, Scope, cpu};
    /// // Mean square per class, over the rows.
    /// let loss = Loss::define("per_class").input("x", Scope::Element).row_axis(RowAxis::Last).expr(|b| {
    ///     let rows = b.graph().count(wgloss::Extent::Rows);
    ///     (b.input("x") * b.input("x")).sum_over(Scope::Column) / rows
    /// });
    /// let x = [1.0f32, 2.0, 3.0, 4.0];
    /// let inputs = [("x", HostTensor::f32(&x, &[2, 2]))];
    /// let out = cpu::forward_backward(&loss.reduction(Reduction::None), &inputs, &["x"])?;
    /// assert_eq!(out.loss_values()?, [5.0, 10.0]);
    /// assert_eq!(out.grad("x")?, [1.0, 2.0, 3.0, 4.0]);
    /// # Ok::<(), wgloss::Error>(())
    /// ```
    ///
    /// Per sample and class: groups are the indices of the first axis, unless
    /// [`PlanSpec::group_rows`](crate::PlanSpec::group_rows) says otherwise.
    ///
    /// ```
    /// use wgloss::{HostTensor, Loss, Reduction, RowAxis, Scope, cpu};
    /// // Dice of each sample's classes, from logits [N, C, d…] and a label per voxel.
    /// let dice = Loss::define("dice").input("x", Scope::Element).label("y").row_axis(RowAxis::Class).expr(|b| {
    ///     let p = b.input("x").softmax();
    ///     let t = b.graph().col_index().equals(b.input("y")).to_float();
    ///     1.0 - 2.0 * (p * t).sum_over(Scope::GroupColumn) / (p + t).sum_over(Scope::GroupColumn)
    /// });
    /// let (x, y) = ([0.0f32; 12], [0, 1, 1, 1, 0, 0]);
    /// let inputs = [("x", HostTensor::f32(&x, &[2, 2, 3])), ("y", HostTensor::i32(&y, &[2, 3]))];
    /// let out = cpu::forward_backward(&dice.reduction(Reduction::None), &inputs, &["x"])?;
    /// let want = [0.6, 3.0 / 7.0, 3.0 / 7.0, 0.6];
    /// assert!(out.loss_values()?.iter().zip(want).all(|(loss, want)| (loss - want).abs() < 1e-12));
    /// # Ok::<(), wgloss::Error>(())
    /// ```
    pub fn sum_over(self, to: Scope) -> Expr<'g> {
        self.graph.add(Node::FoldOver(Fold::Sum, to, self.id))
    }

    /// The largest over the rows of a group, over all rows for each column, or over the whole tensor; −∞ of nothing. It has
    /// no gradient, and does not show NaN by itself: it is for shifts.
    fn max_over(self, to: Scope) -> Expr<'g> {
        self.graph.add(Node::FoldOver(Fold::Max, to, self.id))
    }

    /// ln Σ exp(x) over the columns of a row ([`Expr::logsumexp`]), over the rows of a group (of a row or element value), over
    /// all rows for each column (of an element value), or over the whole tensor; of nothing −∞. Exponentials are of
    /// differences from the largest value, so that none overflows. The gradient is the softmax over the same values.
    ///
    /// Cost: two dependent sums, so its operand is computed twice, and once more for a gradient. Of elements, take the row
    /// first where that is the same: `x.logsumexp().logsumexp_over(Scope::Total)` reads `x` once.
    ///
    /// ```
    /// use wgloss::{HostTensor, Loss, Reduction, RowAxis, Scope, cpu};
    /// // Cross-entropy in both directions of a square of similarities, labels on the diagonal, per row.
    /// let clip = Loss::define("clip").input("scores", Scope::Element).label("row").row_axis(RowAxis::Last).expr(|b| {
    ///     let (x, own) = (b.input("scores"), b.input("row"));
    ///     0.5 * (x.logsumexp() + x.logsumexp_over(Scope::Column).at(own)) - x.at(own)
    /// });
    /// let (scores, row) = ([2.0f32, 0.0, 0.0, 2.0], [0, 1]);
    /// let inputs = [("scores", HostTensor::f32(&scores, &[2, 2])), ("row", HostTensor::i32(&row, &[2]))];
    /// let out = cpu::forward_backward(&clip, &inputs, &["scores"])?;
    /// assert!((out.loss()? - (-2.0f64).exp().ln_1p()).abs() < 1e-12);
    /// # Ok::<(), wgloss::Error>(())
    /// ```
    pub fn logsumexp_over(self, to: Scope) -> Expr<'g> {
        if to == Scope::Row {
            return self.logsumexp();
        }
        if to == Scope::Group && self.scope() == Scope::Element {
            return self.logsumexp().logsumexp_over(to);
        }
        let most = self.max_over(to);
        // Of ±∞ alone differences are NaN: exponentials of the values themselves are 0 or ∞.
        let shift = most.abs().le(f64::from(f32::MAX)).select(most, 0.0).detach();
        (self - shift).exp().sum_over(to).log() + shift
    }

    /// The value, through which no gradient goes.
    pub fn detach(self) -> Expr<'g> {
        self.graph.add(Node::Detach(self.id))
    }

    /// This value; the gradient is the other expression's.
    pub fn straight_through(self, gradient_of: Expr<'g>) -> Expr<'g> {
        self.graph.add(Node::StraightThrough(self.id, gradient_of.into_expr(self.graph).id))
    }

    /// This value; its derivative with respect to `wrt` is `gradient`, with respect to all else zero. For derivatives
    /// with respect to several inputs, nest the calls.
    pub fn with_gradient(self, wrt: Expr<'g>, gradient: Expr<'g>) -> Expr<'g> {
        let (wrt, gradient) = (wrt.into_expr(self.graph), gradient.into_expr(self.graph));
        self.graph.add(Node::WithGradient(self.id, wrt.id, gradient.id))
    }

    /// This value where `condition` holds; elsewhere exactly 0 with gradient 0, even where this is NaN. A NaN that the
    /// condition compares comes out as NaN, as in [`Expr::select`].
    pub fn masked(self, condition: Expr<'g>) -> Expr<'g> {
        self.graph.add(Node::Masked(condition.into_expr(self.graph).id, self.id))
    }

    /// The axes along which its values vary.
    pub fn scope(self) -> Scope {
        self.graph.scope(self.id)
    }

    /// Number, index or truth value.
    pub fn kind(self) -> Kind {
        self.graph.kind(self.id)
    }

    /// The graph it belongs to.
    pub fn graph(self) -> &'g Graph {
        self.graph
    }
}
