//! The expression language: a hash-consed graph with `Copy` handles, scopes inferred and verified.
//!
//! A mistake in an expression (a reduction of a row value, an index added to a number) is kept in the graph and
//! comes back as [`Error::Expr`](crate::Error::Expr) when the loss is planned; building never panics.
//!
//! Each file uses those before it: `node`, `infer`, `graph`, `print`, `operand`, `handle`, `scan`, `pairs`, `sort` and `threshold`.

pub mod autodiff;
pub(crate) mod condition;
mod derivative;
mod graph;
mod handle;
pub(crate) mod hessian;
mod infer;
mod node;
pub mod op;
mod operand;
mod pairs;
mod print;
mod scan;
pub mod simplify;
mod sort;
mod special;
mod threshold;

pub use graph::Graph;
pub use handle::Expr;
pub(crate) use node::index_bits;
pub use node::{Classes, Extent, Fold, InputDecl, Node, NodeId, ParamDecl, Reduce};
pub use operand::IntoExpr;
pub(crate) use print::print_nodes;
pub use scan::{Direction, Scan};
pub use sort::{Move, Order, Ranking};
pub use threshold::Threshold;

#[cfg(test)]
mod tests {
    use super::*;
    use crate::error::Error;
    use crate::expr::op::Kind;
    use crate::shape::Scope;

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
        assert_eq!(Column.join(Group), GroupColumn);
        assert_eq!(GroupColumn.join(Row), Element);
        assert_eq!((GroupColumn.join(Group), Column.join(GroupColumn)), (GroupColumn, GroupColumn));
        assert_eq!(Total.join(Column), Column);
        assert_eq!(Scalar.join(Row), Row);
        assert_eq!(Element.join(Row), Element);
    }

    #[test]
    fn mistakes_come_back_as_errors() {
        let cases: [for<'g> fn(&'g Graph, Expr<'g>) -> Expr<'g>; 10] = [
            |_, x| x.sum().sum(),
            |g, x| x + g.col_index(),
            |_, x| x.sum_over(Scope::Row),
            |_, x| x.at(x),
            |_, x| x.sum().sum_over(Scope::Total).sum_over(Scope::Total),
            // Kinds that no operation would have looked at.
            |_, x| x.lt(0.0).straight_through(x),
            |_, x| x.straight_through(x.lt(0.0)),
            |_, x| x.with_gradient(x, x.lt(0.0)),
            |_, x| x.argmax().masked(x.max().lt(0.0)),
            |_, x| x.lt(0.0).masked(x.lt(1.0)),
        ];
        for (case, build) in cases.iter().enumerate() {
            let g = Graph::new();
            let x = g.input("x", Scope::Element, Kind::Float);
            assert_eq!(g.verify("ok"), Ok(()));
            build(&g, x);
            assert!(matches!(g.verify("bad"), Err(Error::Expr { .. })), "case {case}");
        }
    }

    #[test]
    fn expressions_of_two_graphs_do_not_mix() {
        let cases: [for<'g> fn(Expr<'g>, Expr<'g>) -> Expr<'g>; 5] = [
            |x, y| x + y,
            |x, y| x.at(y),
            |x, y| x.straight_through(y),
            |x, y| x.with_gradient(x, y),
            |x, y| x.masked(y),
        ];
        for (case, build) in cases.iter().enumerate() {
            let (g, other) = (Graph::new(), Graph::new());
            let x = g.input("x", Scope::Element, Kind::Float);
            let far = (0..9).fold(other.constant(0.5), |sum, k| sum + other.constant(f64::from(k)));
            build(x, far);
            assert!(g.verify("two").unwrap_err().to_string().contains("another graph"), "case {case}");
        }
    }
}
