//! Adjoints of what takes the elements of a row together: reductions, thresholds, scans, pairs, softmax.

use super::{Taken, Visit, nothing_of_zero, reaches};
use crate::expr::{Direction, Expr, Node, NodeId, Reduce, Scan, Threshold};
use crate::shape::Scope;

impl<'g> Visit<'_, 'g> {
    pub(super) fn reduce(&mut self, reduce: Reduce, x: NodeId) {
        let (graph, adjoint, taken) = (self.reverse.graph, self.adjoint, self.taken.clone());
        let value = graph.expr(x);
        match reduce {
            Reduce::Sum => self.give(x, adjoint, Scope::Element, taken),
            // Ties share the gradient equally.
            Reduce::Max | Reduce::Min => {
                let tie = self.ties(value, if reduce == Reduce::Max { value } else { -value });
                let count = tie.select(1.0, 0.0).sum();
                let (contribution, taken) = self.chosen(tie.select(adjoint / count, 0.0));
                self.give(x, contribution, Scope::Element, taken);
            }
            Reduce::ArgMax => {}
            Reduce::Threshold(threshold) => self.threshold(threshold, value),
            // The shift is taken to carry no gradient, so the maximum's own term counts as well.
            Reduce::ExpSumRest => {
                let contribution = adjoint * (value - value.max().detach()).exp();
                self.give(x, nothing_of_zero(contribution, adjoint, &taken), Scope::Element, taken);
            }
            Reduce::LogSumExpShifted => {
                let contribution = adjoint * value.softmax();
                self.give(x, nothing_of_zero(contribution, adjoint, &taken), Scope::Element, taken);
            }
        }
    }

    /// A threshold's derivative is that of the equation which it solves; of a rank, that of the elements which have it.
    fn threshold(&mut self, threshold: Threshold, x: Expr<'g>) {
        let (out, adjoint) = (self.out, self.adjoint);
        let contribution = match threshold {
            Threshold::Sparsemax => {
                let is_above = threshold.above(x, out)[0].gt(0.0);
                is_above.select(adjoint / is_above.select(1.0, 0.0).sum(), 0.0)
            }
            Threshold::Entmax15 => {
                let above = threshold.above(x, out)[0].relu();
                above.gt(0.0).select(adjoint * (above / (2.0 * above.sum())), 0.0)
            }
            Threshold::TopK(_) => {
                // Of infinite elements there is no difference.
                let tie = self.ties(x, x.equals(out).select(0.0, -(x - out).abs()));
                tie.select(adjoint / tie.select(1.0, 0.0).sum(), 0.0)
            }
        };
        let (contribution, taken) = self.chosen(contribution);
        self.give(x.id, contribution, Scope::Element, taken);
    }

    /// The elements that are equal to an element which a reduction has found. Computed again in another loop, none may be
    /// equal to it to the last bit: then the one where `nearness` is largest.
    fn ties(&self, x: Expr<'g>, nearness: Expr<'g>) -> Expr<'g> {
        let tie = x.equals(self.out);
        match self.reverse.graph.node(x.id) {
            Node::Input(_) => tie,
            _ => tie.or(self.reverse.graph.col_index().equals(nearness.argmax())),
        }
    }

    /// The adjoint, 0 at elements of the row that do not count, and the conditions of the row under which it counts.
    pub(super) fn along_row(&self) -> (Expr<'g>, Taken) {
        let (graph, conditions) = (self.reverse.graph, &self.taken.conditions);
        let of_row = conditions.iter().take_while(|id| reaches(graph.expr(**id), Scope::Row)).count();
        let (of_row, of_elements) = conditions.split_at(of_row);
        let not_zero = self.taken.not_zero || !of_elements.is_empty();
        let taken = Taken { conditions: of_row.to_vec(), not_zero, gathered: None };
        (self.reverse.zero_unless(self.adjoint, of_elements), taken)
    }

    /// The adjoint of a partner's value: that of the pair the other way round.
    pub(super) fn partner(&mut self, x: NodeId) {
        let (adjoint, taken) = self.along_row();
        self.give(x, adjoint.other_way_round(), Scope::Pair, taken);
    }

    /// The adjoint of a scan is a scan in the other direction.
    pub(super) fn scan(&mut self, scan: Scan, direction: Direction, [x, decay]: [NodeId; 2]) {
        let (graph, out, back) = (self.reverse.graph, self.out, direction.opposite());
        let (adjoint, taken) = self.along_row();
        match scan {
            Scan::Sum => self.give(x, adjoint.scan_sum(back), Scope::Element, taken),
            Scan::Decay => unreachable!("gradients alone hold it, and those of scans are not differentiated"),
            Scan::Shift => self.give(x, adjoint.shift(back), Scope::Element, taken),
            Scan::Linear => {
                let decay_of_next = match graph.expr(decay) {
                    decay if decay.scope().has_columns() => decay.shift(back),
                    decay => decay,
                };
                let along = adjoint.scan_linear(decay_of_next, back);
                self.give(x, along, Scope::Element, taken.clone());
                let of_decay = nothing_of_zero(along.times(out.shift(direction)), along, &taken);
                self.give(decay, of_decay, Scope::Element, taken);
            }
            // Σ gₖ exp(xⱼ − yₖ) over k from j on, as exp(xⱼ − yⱼ) wⱼ with wⱼ = gⱼ + exp(yⱼ − yₖ) wₖ of the next column k: no
            // exponent is above 0. Where y is −∞, x is too, and has no gradient.
            Scan::LogSumExp => {
                let largest = f64::from(f32::MAX);
                let counts = out.abs().le(largest);
                let along = adjoint.scan_decay(out.maximum(-largest).minimum(largest), back);
                let contribution = counts.select((graph.expr(x) - out).exp() * along, 0.0);
                self.give(x, nothing_of_zero(contribution, along, &taken), Scope::Element, taken);
            }
        }
    }

    pub(super) fn softmax(&mut self, x: NodeId) {
        let p = self.reverse.graph.expr(x).softmax();
        // Elements that do not count are 0 in the sum over the row.
        let (adjoint, taken) = self.within(self.adjoint, self.taken.clone(), Scope::Row);
        let weighed = nothing_of_zero(adjoint * p, adjoint, &taken);
        let along = self.reverse.sum_to(Scope::Row, weighed, Scope::Element);
        let contribution = nothing_of_zero(p * (adjoint - along), adjoint - along, &taken);
        self.give(x, contribution, Scope::Element, taken);
    }
}
