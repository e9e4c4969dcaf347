//! Counts as numbers for the planned shape, with formulas for any shape.

use crate::error::{Error, Result};
use crate::plan::problem::Problem;
use crate::plan::sizes::{Known, Sizes};
use crate::shape::{Count, Formula, Scope};

/// A number for the planned shape, and its formula.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Traced {
    pub number: u64,
    pub formula: Formula,
}

impl Traced {
    fn with(self, other: Traced, f: fn(u64, u64) -> u64, g: fn(Formula, Formula) -> Formula) -> Traced {
        Traced { number: f(self.number, other.number), formula: g(self.formula, other.formula) }
    }
}

impl Count for Traced {
    fn of(value: u64) -> Traced {
        Traced { number: value, formula: Formula::of(value) }
    }

    fn plus(self, other: Traced) -> Traced {
        self.with(other, Count::plus, Count::plus)
    }

    fn times(self, other: Traced) -> Traced {
        self.with(other, Count::times, Count::times)
    }

    fn div_ceil(self, other: Traced) -> Traced {
        self.with(other, Count::div_ceil, Count::div_ceil)
    }

    fn at_most(self, other: Traced) -> Traced {
        self.with(other, Count::at_most, Count::at_most)
    }

    fn at_least(self, other: Traced) -> Traced {
        self.with(other, Count::at_least, Count::at_least)
    }
}

impl Known for Traced {
    fn number(&self) -> u64 {
        self.number
    }

    fn is_zero(&self) -> bool {
        self.formula == Formula::Number(0)
    }
}

/// Rows of the geometry; 1 for a loss without rows.
fn rows(has_rows: bool) -> Formula {
    if has_rows { Formula::Rows } else { Formula::of(1) }
}

/// Strides of a contiguous tensor along the axes of its scope.
fn strides(scope: Scope, has_rows: bool) -> [Formula; 4] {
    let [zero, one] = [0, 1].map(Formula::of);
    match (scope, has_rows) {
        (Scope::Element, true) => [zero.clone(), zero, Formula::Cols, one],
        (Scope::Element, false) | (Scope::Column | Scope::Group, _) => [zero.clone(), zero.clone(), zero, one],
        (Scope::Row, true) => [zero.clone(), zero.clone(), one, zero],
        _ => [zero.clone(), zero.clone(), zero.clone(), zero],
    }
}

/// The sizes of a problem of contiguous `[rows, cols]`, `[rows]`, `[cols]` and single values.
pub(crate) fn sizes(problem: &Problem<'_>, shape: [u64; 2], group_rows: u64) -> Result<Sizes<Traced>> {
    let numbers = Sizes::of(problem);
    let program = problem.program;
    let has_rows = program.has_rows();
    let is_right = std::cell::Cell::new(true);
    let traced = |formula: Formula, number: u64| {
        is_right.set(is_right.get() && formula.at(shape[0], shape[1]) == number);
        Traced { number, formula }
    };
    let elements = Formula::Rows.times(Formula::Cols);
    let cols = if has_rows { Formula::Cols } else { elements.clone() };
    let one = || Formula::of(1);
    let axes = match has_rows {
        true => [one(), one(), Formula::Rows, Formula::Cols],
        false => [one(), one(), one(), elements.clone()],
    };
    let vector = |formulas: [Formula; 4], numbers: [u64; 4]| {
        let mut both = formulas.into_iter().zip(numbers);
        [(); 4].map(|()| both.next().map_or_else(|| Traced::of(0), |(formula, number)| traced(formula, number)))
    };
    let inputs = program.inputs.iter().zip(&numbers.inputs);
    let inputs = inputs.map(|(decl, given)| given.map(|given| vector(strides(decl.scope, has_rows), given)));
    let outputs = program.outputs.iter().zip(&numbers.outputs);
    let sizes = Sizes {
        rows: traced(rows(has_rows), numbers.rows),
        cols: traced(cols.clone(), numbers.cols),
        elements: traced(elements, numbers.elements),
        classes: traced(cols, numbers.classes),
        first_col: Traced::of(0),
        batch: traced(Formula::Rows, numbers.batch),
        group_rows: Traced::of(group_rows),
        // Groups are whole: a condition of the export.
        groups: traced(rows(has_rows).div_ceil(Formula::of(group_rows)), numbers.groups),
        axes: vector(axes, numbers.axes),
        inputs: inputs.collect(),
        outputs: outputs.map(|(output, given)| vector(strides(output.scope, has_rows), *given)).collect(),
    };
    let firsts = problem.inputs.iter().flatten().chain(&problem.outputs);
    if is_right.get() && firsts.into_iter().all(|placed| placed.first == 0) {
        return Ok(sizes);
    }
    Err(Error::Unsupported { message: "exporting tensors that are not contiguous".to_owned() })
}
