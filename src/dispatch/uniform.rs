//! Uniform buffers, word by word: constants, counts, and parameters that may change later.

use crate::shape::Formula;
use std::fmt;

/// A word of a uniform buffer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Word<N = u64> {
    /// Bits that no shape and no call changes.
    Bits(u32),
    /// A count, as u32; the largest u32 where it does not fit.
    Count(N),
    /// A count, as f32.
    Float(N),
    /// A parameter, by its index in the signature.
    Param(usize),
}

/// Name of a word in the WGSL: a field, a component of a vector, or a component of an element of an array.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum FieldName {
    /// `field`
    Field(&'static str),
    /// `field[component]`
    Component(&'static str, usize),
    /// `field[index][component]`
    Element(&'static str, usize, usize),
    /// `field[index]` of the parameters.
    Param(usize),
}

impl fmt::Display for FieldName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            FieldName::Field(name) => f.write_str(name),
            FieldName::Component(name, k) => write!(f, "{name}[{k}]"),
            FieldName::Element(name, index, k) => write!(f, "{name}[{index}][{k}]"),
            FieldName::Param(index) => write!(f, "params[{}][{}]", index / 4, index % 4),
        }
    }
}

/// A word of a uniform buffer, with its name and index.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Field<N = u64> {
    /// Its name in the WGSL.
    pub name: FieldName,
    /// Its index among the buffer's words.
    pub index: u32,
    /// Its value.
    pub word: Word<N>,
}

/// A uniform buffer. Words that no field names are 0.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Uniform<N = u64> {
    /// Its size in words.
    pub words: u32,
    /// Its values.
    pub fields: Vec<Field<N>>,
}

impl Uniform<u64> {
    /// Its words, with these values of the parameters.
    pub fn words(&self, params: &[u32]) -> Vec<u32> {
        self.at(params, |count| *count)
    }
}

impl Uniform<Formula> {
    /// Its words for a shape, with these values of the parameters.
    pub fn at_shape(&self, params: &[u32], rows: u64, cols: u64) -> Vec<u32> {
        self.at(params, |count| count.at(rows, cols))
    }
}

impl<N> Uniform<N> {
    fn at(&self, params: &[u32], number: impl Fn(&N) -> u64) -> Vec<u32> {
        let mut words = vec![0; self.words as usize];
        for field in &self.fields {
            words[field.index as usize] = match &field.word {
                Word::Bits(bits) => *bits,
                Word::Count(count) => u32::try_from(number(count)).unwrap_or(u32::MAX),
                Word::Float(count) => (number(count) as f32).to_bits(),
                Word::Param(index) => params[*index],
            };
        }
        words
    }

    /// The index of the word that holds a parameter.
    pub fn param(&self, param: usize) -> Option<u32> {
        self.fields.iter().find(|field| matches!(field.word, Word::Param(index) if index == param)).map(|f| f.index)
    }
}
