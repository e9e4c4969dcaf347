//! What stands in an expression: other expressions and numbers, and the operators between them.

use super::graph::Graph;
use super::handle::Expr;
use crate::expr::op::Op;

/// An expression, or a number (f64, f32 or i32) that becomes one.
///
/// f64 and i32 may also stand on the left of an operator: `1.0 - x`, `2 * x`. An f32 may not, since `1.0` would then no
/// longer be known to be an f64, nor `(1.0 - x)` to be an expression that has methods: write `graph.constant(a) - x`.
///
/// ```
/// use wgloss::{Loss, Scope};
/// let slope = 0.5f32;
/// let loss = Loss::define("asymmetric").input("input", Scope::Element).input("target", Scope::Element).expr(move |b| {
///     let r = b.input("input") - b.input("target");
///     (1.0 - r.sigmoid()).powi(2) * r.maximum(-slope * 2.0) + 2 * r * slope
/// });
/// # loss.check().unwrap();
/// ```
pub trait IntoExpr<'g> {
    /// As an expression of that graph.
    fn into_expr(self, graph: &'g Graph) -> Expr<'g>;
}

impl<'g> IntoExpr<'g> for Expr<'g> {
    /// An expression of another graph is a mistake of the loss, which comes back as an error.
    fn into_expr(self, graph: &'g Graph) -> Expr<'g> {
        if std::ptr::eq(self.graph, graph) {
            return self;
        }
        graph.fault("an expression of another graph is used in this one");
        graph.constant(f64::NAN)
    }
}

macro_rules! numbers_into_expressions {
    ($($number:ty)*) => {$(
        impl<'g> IntoExpr<'g> for $number {
            fn into_expr(self, graph: &'g Graph) -> Expr<'g> {
                graph.constant(self)
            }
        }
    )*};
}

numbers_into_expressions! { f64 f32 i32 }

macro_rules! operators {
    ($trait:ident $method:ident for $number:ty) => {
        impl<'g> std::ops::$trait<Expr<'g>> for $number {
            type Output = Expr<'g>;
            fn $method(self, other: Expr<'g>) -> Expr<'g> {
                let this = other.graph.constant(self);
                other.graph.op(Op::$trait, &[this.id, other.id])
            }
        }
    };
    ($($trait:ident $method:ident;)*) => {$(
        impl<'g, R: IntoExpr<'g>> std::ops::$trait<R> for Expr<'g> {
            type Output = Expr<'g>;
            fn $method(self, other: R) -> Expr<'g> {
                let other = other.into_expr(self.graph);
                self.graph.op(Op::$trait, &[self.id, other.id])
            }
        }
        operators! { $trait $method for f64 }
        operators! { $trait $method for i32 }
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
