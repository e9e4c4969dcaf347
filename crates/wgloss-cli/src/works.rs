//! The suites that are measured: losses, shapes, element types.

use wgloss::losses::CATALOGUE;
use wgloss::{Loss, RowAxis};

#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub enum Suite {
    /// Four losses (or those named) at shapes that take a second or so each, in f32
    Quick,
    /// All losses (or those named), more and larger shapes, in f32 and bf16, forward alone as well
    Full,
}

/// A loss of the quick suite: softmax, elements, a kink, and functions that cost more than memory.
const QUICK: [&str; 4] = ["cross_entropy", "mse", "huber", "bce_with_logits"];

impl Suite {
    /// The losses of these names, or the suite's.
    pub fn losses(self, named: &[String]) -> Vec<Loss> {
        let is_in = |name: &str| match (named.is_empty(), self) {
            (false, _) => named.iter().any(|known| known == name),
            (true, Suite::Quick) => QUICK.contains(&name),
            (true, Suite::Full) => true,
        };
        CATALOGUE.iter().filter(|entry| is_in(entry.name)).map(|entry| (entry.make)()).collect()
    }

    /// Rows and columns for a loss.
    pub fn shapes(self, loss: &Loss) -> &'static [[usize; 2]] {
        match (self, loss.rows_along()) {
            (Suite::Quick, RowAxis::None) => &[[4096, 1024]],
            (Suite::Quick, _) => &[[4096, 1000], [256, 32_000]],
            (Suite::Full, RowAxis::None) => &[[1024, 1024], [16_384, 4096]],
            // A few classes, ImageNet's, and vocabularies.
            (Suite::Full, _) => &[[65_536, 10], [8192, 1000], [1024, 32_000], [1024, 50_257], [512, 128_256]],
        }
    }
}
