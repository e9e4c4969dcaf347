//! Losses over the lattices of sequences: all alignments of labels with frames, all taggings of a sentence.
//!
//! An operator is its options, its sizes, its dispatches and its form on the host; the rest is shared. `operator` plans,
//! `setup` checks lengths and labels and reduces losses, `rows` gathers probabilities from a tensor of classes through a
//! `window`, `space` lays out the workspace, `host` runs on the CPU.

mod crf;
mod ctc;
mod host;
mod operator;
mod problem;
mod rnnt;
mod rows;
mod setup;
mod space;
mod window;

pub use crf::{Crf, crf};
pub use ctc::{Ctc, OptaxCtc, ctc, optax_ctc};
pub use host::{HostOperator, forward_backward, run};
pub use rnnt::{Rnnt, rnnt};

use crate::error::{Error, Result};
use crate::loss::Reduction;

const SEQUENCE: &str = include_str!("../../../shaders/sequence.wgsl");
const WINDOW_TEXT: &str = include_str!("../../../shaders/sequence_window.wgsl");

/// How the losses of sequences become one number.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Weighting {
    /// Not at all.
    None,
    /// Their sum.
    Sum,
    /// Their sum, divided by their number.
    ByBatch,
    /// As `ByBatch`, of losses each divided by the number of its labels, or by 1 if there are none.
    ByLabels,
    /// Their sum, divided by the number of labels of all of them.
    ByTokens,
}

impl Weighting {
    /// `mean` is that of [`Reduction::Mean`].
    ///
    /// # Errors
    /// [`Error::Unsupported`] for a reduction that sequences do not have.
    fn new(name: &str, reduction: &Reduction, mean: Weighting) -> Result<Weighting> {
        match reduction {
            Reduction::None => Ok(Weighting::None),
            Reduction::Sum => Ok(Weighting::Sum),
            Reduction::Mean => Ok(mean),
            Reduction::BatchMean => Ok(Weighting::ByBatch),
            other => {
                let message = format!("reduction {other:?} of {name}; take None, Sum, Mean or BatchMean");
                Err(Error::Unsupported { message })
            }
        }
    }

    /// The factor of a sequence's loss, in kernels.
    fn text(self) -> String {
        let factor = match self {
            Weighting::ByTokens => {
                return "fn weight(labels: u32) -> f32 {\n    var tokens = 0u;\n    \
                        for (var n = 0u; n < sequences.all; n++) {\n        tokens += labels_of(n).value;\n    }\n    \
                        return 1.0 / f32(tokens);\n}\n"
                    .to_owned();
            }
            Weighting::None | Weighting::Sum => "1.0",
            Weighting::ByBatch => "1.0 / f32(sequences.all)",
            Weighting::ByLabels => "1.0 / (f32(sequences.all) * f32(max(labels, 1u)))",
        };
        format!("fn weight(labels: u32) -> f32 {{ return {factor}; }}\n")
    }

    /// The factor of the loss of a sequence with `labels` labels, in a batch of `tokens` labels in all.
    fn factor(self, sequences: usize, labels: usize, tokens: usize) -> f64 {
        match self {
            Weighting::None | Weighting::Sum => 1.0,
            Weighting::ByBatch => 1.0 / sequences as f64,
            Weighting::ByTokens => 1.0 / tokens as f64,
            Weighting::ByLabels => 1.0 / (sequences as f64 * labels.max(1) as f64),
        }
    }

    /// The losses, reduced.
    fn reduce(self, losses: &[f64], factors: &[f64]) -> Vec<f64> {
        match self {
            Weighting::None => losses.to_vec(),
            Weighting::ByBatch | Weighting::ByLabels | Weighting::ByTokens if losses.is_empty() => vec![f64::NAN],
            _ => vec![losses.iter().zip(factors).map(|(loss, factor)| loss * factor).sum()],
        }
    }
}

/// Validates a shader over sequences with the stubs of its hooks.
#[cfg(test)]
fn validate_stub(shader: &str) {
    use crate::codegen::template::fill;
    let source = rows::imported(shader);
    let names = source.lines().filter_map(|line| line.strip_prefix("// hook begin: "));
    let stub = |name: &str| {
        let rest = source.split(&format!("// hook begin: {name}\n")).nth(1).unwrap();
        (name.to_owned(), rest.split("// hook end").next().unwrap().to_owned())
    };
    let text = fill("stub", &source, &names.map(stub).collect()).unwrap();
    let module = naga::front::wgsl::parse_str(&text).unwrap_or_else(|e| panic!("{}", e.emit_to_string(&text)));
    let flags = naga::valid::ValidationFlags::all();
    let mut validator = naga::valid::Validator::new(flags, naga::valid::Capabilities::empty());
    validator.validate(&module).unwrap_or_else(|e| panic!("{}", e.emit_to_string(&text)));
}

#[cfg(test)]
mod tests {
    #[test]
    fn shaders_are_valid_with_their_stubs() {
        super::validate_stub(include_str!("../../../shaders/sequence_setup.wgsl"));
        super::validate_stub(include_str!("../../../shaders/sequence_rows.wgsl"));
        super::validate_stub(include_str!("../../../shaders/sequence_losses.wgsl"));
    }
}
