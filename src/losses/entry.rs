//! What the catalogue knows of a loss besides its definition: its name, and what it is to be tried with.
//!
//! A loss is added in three places: in its family file, its function, its type where it has options, and its entry; in
//! `tests/common/oracle/`, its textbook form; in README.md, its row. Tests fail without the last two.

use crate::expr::op::Kind;
use crate::loss::{Loss, MASK, Value};

/// Where the values of an input lie that tests, verification and benchmarks draw: inside the domain of the loss, and
/// clear of where it is infinite.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Range {
    /// Any number: predictions, and what they are compared with.
    Any,
    /// Cosines of angles, −1 to 1.
    Cosine,
    /// Coordinates of embeddings, whose distances are moderate: any number.
    Coordinate,
    /// Scores of a sigmoid or a softmax: any number.
    Logits,
    /// Logarithms of probabilities, below 0.
    LogProbability,
    /// 0 to 1.
    Probability,
    /// Above 0: rates.
    Positive,
    /// Numbers of events, 0 or more.
    Count,
    /// −1 or 1.
    Sign,
    /// 0 or 1: numbers, or class indices.
    Binary,
    /// Class indices.
    Label,
    /// Class indices of one class more than there are columns.
    LabelBetween,
    /// Numbers in ascending order along the columns.
    Ascending,
    /// Numbers of tokens: integers from 0.
    Length,
    /// Boxes (left, top, right, bottom) that overlap: the first two columns below 1.5, the others above 2.
    Box,
    /// Positions between the columns: 0 to their number less one.
    Bin,
    /// Weights, above 0.
    Weight,
}

impl Range {
    /// The least and the largest number to draw; of [`Range::Sign`] and [`Range::Binary`] the two that there are; of
    /// [`Range::Bin`] those that rows of two columns take. Class indices depend on how many classes there are, and numbers of
    /// tokens are integers: they have none.
    pub fn bounds(self) -> Option<(f64, f64)> {
        match self {
            Range::Any | Range::Logits | Range::Ascending => Some((-4.0, 4.0)),
            Range::Cosine => Some((-0.95, 0.95)),
            Range::Coordinate => Some((-0.5, 0.5)),
            Range::LogProbability => Some((-6.0, -0.1)),
            Range::Probability => Some((0.02, 0.98)),
            Range::Positive | Range::Count => Some((0.1, 4.0)),
            Range::Sign => Some((-1.0, 1.0)),
            Range::Binary => Some((0.0, 1.0)),
            Range::Box => Some((0.0, 3.5)),
            Range::Bin => Some((0.0, 0.9)),
            Range::Weight => Some((0.5, 2.0)),
            Range::Label | Range::LabelBetween | Range::Length => None,
        }
    }
}

/// Options by name.
pub(super) type Options = &'static [(&'static str, Value)];

/// Ranges of inputs by name.
pub(super) type Ranges = &'static [(&'static str, Range)];

/// A loss of the catalogue.
#[derive(Clone, Copy, Debug)]
#[non_exhaustive]
pub struct Entry {
    /// Its name, which is also that of its function.
    pub name: &'static str,
    /// Makes it, with default options.
    pub make: fn() -> Loss,
    /// Other options to try it with: each set selects another expression, or reaches other values of the same.
    pub variants: &'static [Options],
    ranges: Ranges,
    ranges_where: &'static [(&'static str, Value, Ranges)],
}

impl Entry {
    pub(super) const fn new(name: &'static str, make: fn() -> Loss) -> Entry {
        Entry { name, make, variants: &[], ranges: &[], ranges_where: &[] }
    }

    /// The inputs that are not what [`Entry::range`] takes them for.
    pub(super) const fn inputs(self, ranges: Ranges) -> Entry {
        Entry { ranges, ..self }
    }

    /// Inputs that an option of this value makes something else.
    pub(super) const fn inputs_where(self, ranges_where: &'static [(&'static str, Value, Ranges)]) -> Entry {
        Entry { ranges_where, ..self }
    }

    /// Other options to try it with than the default ones.
    pub(super) const fn variants(self, variants: &'static [Options]) -> Entry {
        Entry { variants, ..self }
    }

    /// Where the values of an input lie, with the options that `loss`, this one, has. Where the family says nothing,
    /// class indices are labels, optional inputs weights, and others any number.
    pub fn range(&self, loss: &Loss, input: &str) -> Range {
        let of = |ranges: Ranges| ranges.iter().find(|(name, _)| *name == input).map(|(_, range)| *range);
        let holds = |option: &str, value: &Value| loss.option_value(option) == Some(value);
        let conditional = self.ranges_where.iter().filter(|(option, value, _)| holds(option, value));
        if let Some(range) = conditional.map(|(.., ranges)| *ranges).find_map(of).or_else(|| of(self.ranges)) {
            return range;
        }
        match loss.inputs().iter().find(|spec| spec.name == input) {
            Some(spec) if spec.kind == Kind::Int => Range::Label,
            Some(spec) if spec.name == MASK => Range::Binary,
            Some(spec) if spec.optional => Range::Weight,
            _ => Range::Any,
        }
    }

    /// That ranges are those of inputs, and options in their conditions options, that the loss has.
    #[cfg(test)]
    pub(super) fn check(&self, loss: &Loss) {
        let conditional = self.ranges_where.iter().flat_map(|(.., ranges)| *ranges);
        for (input, _) in self.ranges.iter().chain(conditional) {
            assert!(loss.inputs().iter().any(|spec| spec.name == *input), "{} has no input {input}", self.name);
        }
        for (option, ..) in self.ranges_where {
            assert!(loss.option_value(option).is_some(), "{} has no option {option}", self.name);
        }
    }
}

/// The entries of all families, in order.
pub(super) const fn concatenated<const N: usize>(families: &[&[Entry]]) -> [Entry; N] {
    let mut all = [families[0][0]; N];
    let (mut family, mut place) = (0, 0);
    while family < families.len() {
        let mut k = 0;
        while k < families[family].len() {
            all[place] = families[family][k];
            (k, place) = (k + 1, place + 1);
        }
        family += 1;
    }
    assert!(place == N, "an entry for each place");
    all
}

/// How many entries all families have.
pub(super) const fn count(families: &[&[Entry]]) -> usize {
    let (mut family, mut sum) = (0, 0);
    while family < families.len() {
        sum += families[family].len();
        family += 1;
    }
    sum
}
