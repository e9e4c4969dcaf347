//! Pairs of elements of a row: values of one element seen from another, folded over all partners of each.
//!
//! A value of scope [`Pair`](crate::Scope::Pair) belongs to an element and its partner, any element of the same row, itself
//! too. The adjoint of a sum over partners is the adjoint of each pair; that of a partner's value is the adjoint of the pair
//! the other way round.

use super::handle::Expr;
use super::node::{Fold, Node, NodeId};
use crate::shape::Scope;
use std::collections::HashMap;

impl<'g> Expr<'g> {
    /// `xₖ`, the value of the partner, seen from each element `j` of the row: one value per pair `(j, k)`.
    ///
    /// Every element has all elements of its row as partners, itself too: leave that pair out where it must not count, for
    /// example by `col_index`. Work grows with the square of the columns: for long rows, sort them ([`Expr::argsort`]). A
    /// software adapter, which stops long loops, takes rows of a few thousand columns
    /// ([`Error::Unsupported`](crate::Error::Unsupported) beyond); such a loss cannot be a shard of the classes.
    ///
    /// ```
    /// use wgloss::{HostTensor, Loss, Reduction, RowAxis, Scope, cpu};
    /// // Hinge of every pair that the labels order: (1 − (xⱼ − xₖ))₊ where yⱼ > yₖ.
    /// let ranked = Loss::define("ranked").input("x", Scope::Element).input("y", Scope::Element);
    /// let ranked = ranked.row_axis(RowAxis::Last).expr(|b| {
    ///     let (x, y) = (b.input("x"), b.input("y"));
    ///     y.gt(y.partner()).select((1.0 - (x - x.partner())).relu(), 0.0).sum_partners().sum()
    /// });
    /// let (x, y) = ([0.5f32, 1.0, 0.0], [2.0f32, 0.0, 1.0]);
    /// let inputs = [("x", HostTensor::f32(&x, &[1, 3])), ("y", HostTensor::f32(&y, &[1, 3]))];
    /// let out = cpu::forward_backward(&ranked.reduction(Reduction::Sum), &inputs, &["x"])?;
    /// assert_eq!((out.loss()?, out.grad("x")?), (1.5 + 0.5 + 2.0, &[-2.0, 2.0, 0.0][..]));
    /// # Ok::<(), wgloss::Error>(())
    /// ```
    pub fn partner(self) -> Expr<'g> {
        self.graph().add(Node::Partner(self.id))
    }

    /// Σₖ of the value of each pair `(j, k)` over the partners `k`: one value per element `j`.
    ///
    /// Gradient: the adjoint of `j` for every pair of `j`.
    pub fn sum_partners(self) -> Expr<'g> {
        self.graph().add(Node::FoldPartners(Fold::Sum, self.id))
    }

    /// maxₖ of the value of each pair over the partners, −∞ where all are. It carries no gradient: it is the shift of a
    /// logsumexp.
    pub fn max_partners(self) -> Expr<'g> {
        self.graph().add(Node::FoldPartners(Fold::Max, self.id))
    }

    /// ln Σₖ exp of the value of each pair over the partners: −∞ where all are −∞. Its gradient is the softmax over the
    /// partners.
    ///
    /// ```
    /// use wgloss::{HostTensor, Loss, RowAxis, Scope, cpu};
    /// // Of each element, the logsumexp of those that are not larger.
    /// let loss = Loss::define("below").input("x", Scope::Element).row_axis(RowAxis::Last).expr(|b| {
    ///     let x = b.input("x");
    ///     x.partner().le(x).select(x.partner(), f64::NEG_INFINITY).logsumexp_partners()
    /// });
    /// let out = cpu::forward_backward(&loss, &[("x", HostTensor::f32(&[0.0, 1.0], &[1, 2]))], &[])?;
    /// assert!((out.loss()? - (1f64 + 1f64.exp()).ln() / 2.0).abs() < 1e-12);
    /// # Ok::<(), wgloss::Error>(())
    /// ```
    pub fn logsumexp_partners(self) -> Expr<'g> {
        let most = self.max_partners();
        // Where all are −∞ there is nothing to shift by.
        let shift = most.ge(-f64::from(f32::MAX)).select(most, 0.0);
        (self - shift).exp().sum_partners().log() + shift
    }

    /// The value of each pair `(k, j)` at the pair `(j, k)`: elements become their partners, and partners elements.
    pub(crate) fn other_way_round(self) -> Expr<'g> {
        let graph = self.graph();
        let is_pair = |id: NodeId| graph.scope(id) == Scope::Pair;
        let mut done: HashMap<NodeId, NodeId> = HashMap::new();
        for id in graph.reachable_until(&[self.id], |node| matches!(node, Node::Partner(_))) {
            let turned = match graph.node(id) {
                Node::Partner(x) => x,
                node if is_pair(id) => graph.add(node.map(|operand| done[&operand])).id,
                _ if graph.scope(id).has_columns() => graph.expr(id).partner().id,
                _ => id,
            };
            done.insert(id, turned);
        }
        graph.expr(done[&self.id])
    }
}

#[cfg(test)]
mod tests {
    use crate::expr::Graph;
    use crate::expr::op::Kind;
    use crate::shape::Scope;

    #[test]
    fn a_pair_turned_twice_is_itself() {
        let g = Graph::new();
        let x = g.input("x", Scope::Element, Kind::Float);
        let r = g.input("r", Scope::Row, Kind::Float);
        let pair = (x - x.partner().exp()) * r + g.col_index().to_float();
        assert_eq!(g.print(pair.other_way_round().id), "((partner(x) - exp(x)) * r + partner(tofloat(col)))");
        let gap = (x - x.partner()) * r;
        assert_eq!(gap.other_way_round().other_way_round().id, gap.id);
    }
}
