//! The order of a row's elements, and elements moved into it and back.

use super::handle::Expr;
use super::node::{Node, NodeId};
use super::op::Real;

/// Which elements of a row come first.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Order {
    /// The smallest.
    Ascending,
    /// The largest.
    Descending,
}

impl Order {
    /// The columns of a row in this order of its elements: equal elements (−0 and 0 too) by their column.
    pub(crate) fn argsort<T: Real>(self, keys: &[T], columns: &mut [u32]) {
        columns.iter_mut().zip(0..).for_each(|(column, k)| *column = k);
        let key = |column: &u32| keys[*column as usize];
        columns.sort_by(|a, b| {
            let (a, b) = if self == Order::Ascending { (key(a), key(b)) } else { (key(b), key(a)) };
            // NaN poisons its row elsewhere; here it comes after all numbers.
            a.partial_cmp(&b).unwrap_or_else(|| a.is_nan().cmp(&b.is_nan()))
        });
    }
}

/// Where a permutation moves an element.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Move {
    /// Column k gets the element at the k-th column of the order.
    Gather,
    /// The k-th column of the order gets the element at column k.
    Scatter,
}

impl Move {
    /// The way back.
    pub(crate) fn opposite(self) -> Move {
        match self {
            Move::Gather => Move::Scatter,
            Move::Scatter => Move::Gather,
        }
    }

    /// Moves the elements of a row.
    pub(crate) fn run<T: Copy>(self, from: &[T], columns: &[u32], to: &mut [T]) {
        for (k, &column) in columns.iter().enumerate() {
            match self {
                Move::Gather => to[k] = from[column as usize],
                Move::Scatter => to[column as usize] = from[k],
            }
        }
    }
}

/// The order of a row's elements: [`Expr::argsort`].
#[derive(Clone, Copy, Debug)]
pub struct Ranking<'g>(Expr<'g>);

impl<'g> Expr<'g> {
    /// The order of the row's elements: `x.in_order_of(x.argsort(Order::Ascending))` is the sorted row. Equal elements are
    /// taken by their column, so that results are deterministic. It carries no gradient. NaN poisons the row.
    ///
    /// Cost: a stable radix sort in the workspace by one workgroup per row: eight times the keys and columns are read and
    /// written, 168 bytes per element in all, which caches hold of rows in hand. Such a loss cannot be a shard of the classes,
    /// and a row must fit a binding: else [`Error::Unsupported`](crate::Error::Unsupported).
    ///
    /// ```
    /// use wgloss::{HostTensor, Loss, Order, Reduction, RowAxis, Scope, cpu};
    /// // The mean of the two largest elements.
    /// let loss = Loss::define("top2").input("x", Scope::Element).row_axis(RowAxis::Last).expr(|b| {
    ///     let x = b.input("x");
    ///     let sorted = x.in_order_of(x.argsort(Order::Descending));
    ///     b.graph().col_index().lt(b.graph().index(2)).select(sorted, 0.0).sum() / 2.0
    /// });
    /// let x = HostTensor::f32(&[1.0, 5.0, 3.0, 2.0], &[1, 4]);
    /// let out = cpu::forward_backward(&loss.reduction(Reduction::Sum), &[("x", x)], &["x"])?;
    /// assert_eq!((out.loss()?, out.grad("x")?), (4.0, &[0.0, 0.5, 0.5, 0.0][..]));
    /// # Ok::<(), wgloss::Error>(())
    /// ```
    pub fn argsort(self, order: Order) -> Ranking<'g> {
        Ranking(self.graph().add(Node::ArgSort(order, self.id)))
    }

    /// The elements in an order: column `k` gets the element whose rank is `k`. Its gradient goes back to that element.
    pub fn in_order_of(self, ranking: Ranking<'g>) -> Expr<'g> {
        self.moved(Move::Gather, ranking.0.id)
    }

    /// The elements in an order taken back: column `j` gets the element at column `rank of j`. The inverse of
    /// [`Expr::in_order_of`], and its gradient.
    ///
    /// ```
    /// use wgloss::{HostTensor, Loss, Order, Reduction, RowAxis, Scope, cpu};
    /// // The rank of each element, from 0 for the largest.
    /// let ranks = Loss::define("ranks").input("x", Scope::Element).row_axis(RowAxis::Last).expr(|b| {
    ///     b.graph().col_index().to_float().back_from_order_of(b.input("x").argsort(Order::Descending))
    /// });
    /// let x = HostTensor::f32(&[1.0, 5.0, 3.0, 5.0], &[1, 4]);
    /// let out = cpu::forward_backward(&ranks.reduction(Reduction::None), &[("x", x)], &[])?;
    /// assert_eq!(out.loss_values()?, [3.0, 0.0, 2.0, 1.0]);
    /// # Ok::<(), wgloss::Error>(())
    /// ```
    pub fn back_from_order_of(self, ranking: Ranking<'g>) -> Expr<'g> {
        self.moved(Move::Scatter, ranking.0.id)
    }

    fn moved(self, way: Move, order: NodeId) -> Expr<'g> {
        self.graph().add(Node::Permute(way, [self.id, order]))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn equal_elements_are_ordered_by_column() {
        let keys = [1.0, 3.0, 1.0, -0.0, 0.0, f64::NEG_INFINITY];
        let mut columns = [0; 6];
        Order::Ascending.argsort(&keys, &mut columns);
        assert_eq!(columns, [5, 3, 4, 0, 2, 1]);
        Order::Descending.argsort(&keys, &mut columns);
        assert_eq!(columns, [1, 0, 2, 3, 4, 5]);
        // A comparison that is no order would panic.
        let some_nan: Vec<f64> = (0..90).map(|k| if k % 7 == 3 { f64::NAN } else { f64::from(k * 37 % 11) }).collect();
        Order::Ascending.argsort(&some_nan, &mut [0; 90]);
        let (mut sorted, mut back) = ([0.0; 6], [0.0; 6]);
        Move::Gather.run(&keys, &columns, &mut sorted);
        Move::Scatter.run(&sorted, &columns, &mut back);
        assert_eq!(back, keys);
    }
}
