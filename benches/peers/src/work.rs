//! What is computed: losses, shapes, and numbers that every peer makes for itself, bit for bit the same.

use std::fmt;
use std::str::FromStr;

/// The losses that all peers have.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LossName {
    CrossEntropy,
    Mse,
    /// With delta = 1.
    Huber,
}

/// How logits, predictions and targets are stored, and the gradient.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum DType {
    F32,
    Bf16,
}

/// A loss over a matrix, reduced to its mean, with the gradient of its first input. Element-wise losses have one row.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Work {
    pub loss: LossName,
    pub rows: usize,
    pub cols: usize,
    pub dtype: DType,
}

/// The loss, and what tells a gradient from a wrong one.
#[derive(Clone, Copy, Debug)]
pub struct Summary {
    pub loss: f64,
    /// Euclidean norm of the gradient.
    pub norm: f64,
    /// Its inner product with numbers of seed 3: a gradient in another order has another one.
    pub projection: f64,
}

impl Work {
    pub const fn new(loss: LossName, rows: usize, cols: usize, dtype: DType) -> Work {
        Work { loss, rows, cols, dtype }
    }

    pub fn elements(&self) -> usize {
        self.rows * self.cols
    }

    pub fn shape(&self) -> Vec<usize> {
        if self.loss == LossName::CrossEntropy { vec![self.rows, self.cols] } else { vec![self.elements()] }
    }

    /// Bytes that must move, whoever moves them: inputs read once, loss and gradient written once. Labels count 4.
    pub fn bytes(&self) -> u64 {
        let size = if self.dtype == DType::F32 { 4 } else { 2 };
        let matrix = self.elements() as u64 * size;
        match self.loss {
            // read logits, labels; write gradient, loss
            LossName::CrossEntropy => 2 * matrix + 4 * self.rows as u64 + 4,
            // read input, target; write gradient, loss
            LossName::Mse | LossName::Huber => 3 * matrix + 4,
        }
    }

    /// Logits or predictions.
    pub fn input(&self) -> Vec<f32> {
        self.numbers(1)
    }

    /// Targets of an element-wise loss.
    pub fn target(&self) -> Vec<f32> {
        self.numbers(2)
    }

    pub fn labels(&self) -> Vec<i32> {
        (0..self.rows).map(|row| (row * 7919 % self.cols) as i32).collect()
    }

    fn numbers(&self, seed: u32) -> Vec<f32> {
        let number = |k: usize| number(k as u32, seed);
        match self.dtype {
            DType::F32 => (0..self.elements()).map(number).collect(),
            DType::Bf16 => (0..self.elements()).map(|k| to_bf16(number(k))).collect(),
        }
    }
}

/// PCG, Jarzynski and Olano (2020).
fn hash(word: u32) -> u32 {
    let state = word.wrapping_mul(747_796_405).wrapping_add(2_891_336_453);
    let word = ((state >> ((state >> 28) + 4)) ^ state).wrapping_mul(277_803_737);
    (word >> 22) ^ word
}

/// Uniform in -4..4. Every step is exact in f32, so any language computes the same.
fn number(place: u32, seed: u32) -> f32 {
    (hash(place ^ hash(seed)) >> 8) as f32 / (1 << 21) as f32 - 4.0
}

/// Rounded to the nearest bf16, ties to even.
fn to_bf16(x: f32) -> f32 {
    let bits = x.to_bits();
    f32::from_bits((bits + 0x7fff + ((bits >> 16) & 1)) & 0xffff_0000)
}

/// What a peer computed, in numbers that fit a line.
pub fn summary(loss: f64, gradient: &[f32]) -> Summary {
    summary_of(loss, gradient.iter().map(|g| f64::from(*g)))
}

fn summary_of(loss: f64, gradient: impl Iterator<Item = f64>) -> Summary {
    let (mut squares, mut projection) = (0.0, 0.0);
    for (place, g) in gradient.enumerate() {
        squares += g * g;
        projection += g * f64::from(number(place as u32, 3));
    }
    Summary { loss, norm: squares.sqrt(), projection }
}

/// Textbook loops in f64, too simple to be wrong.
pub fn reference(work: &Work) -> Summary {
    let (input, cols) = (work.input(), work.cols);
    let mut loss = 0.0;
    let mut gradient = Vec::with_capacity(work.elements());
    if work.loss == LossName::CrossEntropy {
        let rows = work.rows as f64;
        for (logits, label) in input.chunks(cols).zip(work.labels()) {
            let largest = logits.iter().fold(f32::NEG_INFINITY, |m, x| m.max(*x));
            let shifted = |x: f32| f64::from(x) - f64::from(largest);
            let sum: f64 = logits.iter().map(|x| shifted(*x).exp()).sum();
            loss += (sum.ln() - shifted(logits[label as usize])) / rows;
            for (col, x) in logits.iter().enumerate() {
                let hit = if col == label as usize { 1.0 } else { 0.0 };
                gradient.push((shifted(*x).exp() / sum - hit) / rows);
            }
        }
    } else {
        let count = work.elements() as f64;
        for (x, y) in input.iter().zip(work.target()) {
            let r = f64::from(*x) - f64::from(y);
            let (value, slope) = match work.loss {
                LossName::Huber if r.abs() <= 1.0 => (0.5 * r * r, r),
                LossName::Huber => (r.abs() - 0.5, r.signum()),
                _ => (r * r, 2.0 * r),
            };
            loss += value / count;
            gradient.push(slope / count);
        }
    }
    summary_of(loss, gradient.into_iter())
}

impl fmt::Display for LossName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            LossName::CrossEntropy => "cross_entropy",
            LossName::Mse => "mse",
            LossName::Huber => "huber",
        })
    }
}

impl fmt::Display for DType {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(if *self == DType::F32 { "f32" } else { "bf16" })
    }
}

/// `cross_entropy 1024x32000 f32`
impl fmt::Display for Work {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {}x{} {}", self.loss, self.rows, self.cols, self.dtype)
    }
}

impl FromStr for Work {
    type Err = String;

    fn from_str(text: &str) -> Result<Work, String> {
        let parse = || {
            let mut words = text.split(' ');
            let loss = match words.next()? {
                "cross_entropy" => LossName::CrossEntropy,
                "mse" => LossName::Mse,
                "huber" => LossName::Huber,
                _ => return None,
            };
            let (rows, cols) = words.next()?.split_once('x')?;
            let dtype = match words.next()? {
                "f32" => DType::F32,
                "bf16" => DType::Bf16,
                _ => return None,
            };
            Some(Work::new(loss, rows.parse().ok()?, cols.parse().ok()?, dtype))
        };
        parse().ok_or_else(|| format!("`{text}`: a work reads `cross_entropy 1024x32000 f32`"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    // numbers(1) and to_bf16 as peers.py makes them.
    #[test]
    fn numbers_are_those_of_the_python_peers() {
        let work: Work = "mse 1x4 f32".parse().unwrap();
        assert_eq!(work.input(), NUMBERS);
        let work: Work = "mse 1x4 bf16".parse().unwrap();
        assert_eq!(work.input(), BF16_NUMBERS);
        assert_eq!(work.to_string(), "mse 1x4 bf16");
    }

    const NUMBERS: [f32; 4] = [3.2864155769348145, 1.5490856170654297, 2.990344524383545, 0.15642356872558594];
    const BF16_NUMBERS: [f32; 4] = [3.28125, 1.546875, 2.984375, 0.15625];

    #[test]
    fn reference_gradient_is_the_slope_of_the_reference_loss() {
        // Two equal logits: ln 2, ±1/2.
        let sums = summary(0.5, &[3.0, -4.0]);
        assert_eq!(sums.norm, 5.0);
        for name in ["mse", "huber", "cross_entropy"] {
            let work: Work = format!("{name} 3x5 f32").parse().unwrap();
            let found = reference(&work);
            assert!(found.loss > 0.0 && found.norm > 0.0, "{name}: {found:?}");
        }
    }
}
