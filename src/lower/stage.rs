//! Stages of a pass: what is made of whole rows, trip after trip.

use crate::expr::{Direction, Move, Node, NodeId};

/// What runs along a row in one trip.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Along {
    /// Scans in one direction.
    Scans(Direction),
    /// Folds over the partners of each element.
    Pairs,
    /// One sort.
    Sort,
    /// Permutations that move elements the same way.
    Permutations(Move),
}

/// A trip along a row, and the values per element that it leaves for later stages and outputs.
#[derive(Clone, Debug, PartialEq)]
pub struct AlongTrip {
    /// What runs.
    pub along: Along,
    /// The values.
    pub nodes: Vec<NodeId>,
    /// Of pairs: the values that they read of partners.
    pub partners: usize,
}

impl AlongTrip {
    /// Most words of workgroup memory that it takes per invocation, if a sort takes so many bits of its keys at once.
    pub fn lane_words(&self, digit_bits: u32) -> usize {
        match self.along {
            Along::Scans(_) => 2 * self.nodes.len(),
            // A window of each.
            Along::Pairs => 4 * self.partners,
            // Counts of all digits, and their sum.
            Along::Sort => (1 << digit_bits) + 1,
            Along::Permutations(_) => 0,
        }
    }
}

/// Row reductions that run in one trip over the row (thresholds among them in trips of their own, step by step), and trips along
/// it that run after them. Without either, the trip only looks at elements.
#[derive(Clone, Debug, PartialEq, Default)]
pub struct Stage {
    /// The reductions. A maximum is not listed if `ExpSumRest` of the same operand leaves it too.
    pub reduces: Vec<NodeId>,
    /// Trips along the row, in order.
    pub along: Vec<AlongTrip>,
    /// Most trips over the row in which its thresholds are found, after those of the other reductions; 0 without thresholds.
    pub steps: u32,
}

impl Stage {
    /// Adds a value that runs along the row.
    pub(super) fn add_along(&mut self, id: NodeId, node: &Node) {
        let along = match *node {
            Node::Scan(_, direction, _) => Along::Scans(direction),
            Node::FoldPartners(..) => Along::Pairs,
            Node::ArgSort(..) => Along::Sort,
            Node::Permute(way, _) => Along::Permutations(way),
            ref other => unreachable!("{other:?} does not run along a row"),
        };
        match self.along.iter_mut().find(|trip| trip.along == along && along != Along::Sort) {
            Some(trip) => trip.nodes.push(id),
            None => self.along.push(AlongTrip { along, nodes: vec![id], partners: 0 }),
        }
        self.along.sort_by_key(|trip| trip.along);
    }

    /// The values that its trips along the row leave, in order.
    pub fn left(&self) -> impl Iterator<Item = NodeId> + '_ {
        self.along.iter().flat_map(|trip| trip.nodes.iter().copied())
    }
}
