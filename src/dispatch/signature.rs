//! Inputs, outputs and parameters of an operator, by name.

use crate::codegen::Mode;
use crate::error::Error;
use crate::expr::{InputDecl, ParamDecl};
use crate::lower::OutputKind;
use crate::shape::{DType, Ragged, RowAxis, Scope};

/// An output.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct OutputSignature {
    /// Which output it is.
    pub kind: OutputKind,
    /// Whether it is written, accumulated, or takes the input's place.
    pub mode: Mode,
    /// Element type.
    pub dtype: DType,
    /// One value per element, row, column, or in all.
    pub scope: Scope,
}

/// A parameter that may change between submits.
#[derive(Clone, Debug, PartialEq)]
pub struct ParamSignature {
    /// Its name, its kind, and its value when the plan is made.
    pub decl: ParamDecl,
    /// First and last class index that it may be: the range of the element type of its labels.
    pub indices: [f64; 2],
}

/// Inputs, outputs and parameters of a prepared operator.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Signature {
    /// Name of the operator, for messages.
    pub name: String,
    /// Its inputs, in order.
    pub inputs: Vec<InputDecl>,
    /// Its outputs, in order.
    pub outputs: Vec<OutputSignature>,
    /// Its parameters, in order.
    pub params: Vec<ParamSignature>,
    /// Which axis makes a row.
    pub row_axis: RowAxis,
}

impl Signature {
    /// Index of an input by name.
    pub fn input(&self, name: &str) -> Option<usize> {
        self.inputs.iter().position(|input| input.name == name)
    }

    /// The error of a parameter that there is not.
    pub fn no_param(&self, name: &str) -> Error {
        let known: Vec<&str> = self.params.iter().map(|param| param.decl.name.as_str()).collect();
        let what = format!("{} has no parameter", self.name);
        Error::Name { what, name: name.to_owned(), known: known.join(", ") }
    }

    /// Name of an output, for messages.
    pub fn output_name(&self, kind: &OutputKind) -> String {
        output_name(&self.inputs, kind)
    }

    /// Names of all outputs, for messages.
    pub fn output_names(&self) -> Vec<String> {
        self.outputs.iter().map(|output| self.output_name(&output.kind)).collect()
    }
}

/// Name of an output of an operator with these inputs, for messages.
pub fn output_name(inputs: &[InputDecl], kind: &OutputKind) -> String {
    match kind {
        OutputKind::Loss => "loss".to_owned(),
        OutputKind::Denominator => "denominator".to_owned(),
        OutputKind::Extra(name) => format!("extra output {name}"),
        OutputKind::FoundInf => "found_inf".to_owned(),
        OutputKind::Grad(input) => format!("gradient of {}", inputs[*input].name),
        OutputKind::HessianDiagonal(input) => format!("Hessian diagonal of {}", inputs[*input].name),
    }
}

/// A class index that a label is compared with: a constant, or a parameter.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Compared {
    /// A class index.
    Index(i64),
    /// The parameter of that index.
    Param(usize),
}

/// A label input whose range is checked.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LabelInput {
    /// Index of the input.
    pub input: usize,
    /// Strides along [`Labels::axes`]; 0 where it is broadcast.
    pub strides: [u64; 4],
    /// Number of labels of a row (of an item), one per column; 1 for a label of the row.
    pub per_row: u64,
    /// The number of classes.
    pub classes: u64,
    /// Class indices that it is compared with, such as `ignore_index`.
    pub compared: Vec<Compared>,
}

/// Data to find the offset or id of groups of unequal length that a bad status reports.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct GroupStatus {
    /// The status word that reports on it, in the buffer of scalars.
    pub word: u64,
    /// Index of the input.
    pub input: usize,
    /// Its form.
    pub by: Ragged,
    /// Sizes of the axes that its values are counted along, outermost first, and its strides along them.
    pub axes: [[u64; 2]; 4],
    /// Rows, and groups.
    pub sizes: [u64; 2],
}

impl GroupStatus {
    /// Elements from the first offset or id to that of this index.
    pub fn element(&self, index: u64) -> u64 {
        let mut rest = index;
        let along = self.axes.iter().rev().map(|[size, stride]| {
            let at = rest % size;
            rest /= size;
            at * stride
        });
        along.sum()
    }
}

/// The values that elements of an input of indices may have.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum IndexRange {
    /// Labels of sequences: class indices below this number.
    Labels(u64),
    /// Lengths of sequences: numbers of elements up to this one.
    Lengths(u64),
}

impl IndexRange {
    /// The error of an element of that input out of range: its index along the first axis, and its value if that is known.
    pub fn error(self, input: &str, row: u64, value: Option<i64>) -> Error {
        match self {
            IndexRange::Labels(classes) => {
                Error::LabelOutOfRange { row, label: value.unwrap_or(Error::UNKNOWN_LABEL), classes }
            }
            IndexRange::Lengths(most) => Error::LengthOutOfRange { input: input.to_owned(), row, value, most },
        }
    }
}

/// Data to find the element of an input of indices that a bad status reports by its number in row-major order.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct IndexStatus {
    /// The status word that reports on it, in the buffer of scalars.
    pub word: u64,
    /// Index of the input.
    pub input: usize,
    /// Sizes of the axes, outermost first, and strides along them. The error names the index along the first.
    pub axes: [[u64; 2]; 2],
    /// The values that are allowed.
    pub range: IndexRange,
}

/// Data to find the label that a bad status reports.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Labels {
    /// The status word that reports on them, in the buffer of scalars.
    pub word: u64,
    /// Sizes of the axes that rows are counted along, outermost first.
    pub axes: Vec<u64>,
    /// Classes of all shards together.
    pub classes: u64,
    /// The label inputs.
    pub inputs: Vec<LabelInput>,
    /// Whether rows are indexed by their own number, too.
    pub by_row: bool,
}
