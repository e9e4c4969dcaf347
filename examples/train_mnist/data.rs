//! The digits: IDX files (gzip) into memory, and random numbers to shuffle and initialise with.

use std::io::Read;
use std::path::Path;

use flate2::read::GzDecoder;

use crate::Result;

/// Pixels of an image, 28 × 28.
pub const PIXELS: usize = 28 * 28;

/// Images and the digits that they show.
pub struct Digits {
    /// Row-major, 0 (paper) to 255 (ink); [`PIXELS`] an image.
    pub pixels: Vec<u8>,
    /// One of 0 to 9 an image.
    pub labels: Vec<i32>,
}

impl Digits {
    /// Reads `<name>-images-idx3-ubyte.gz` and `<name>-labels-idx1-ubyte.gz` in `folder`.
    pub fn read(folder: &Path, name: &str) -> Result<Digits> {
        let (shape, pixels) = read_idx(&folder.join(format!("{name}-images-idx3-ubyte.gz")))?;
        let (rows, labels) = read_idx(&folder.join(format!("{name}-labels-idx1-ubyte.gz")))?;
        if shape[1..] != [28, 28] || shape[..1] != rows[..] {
            return Err(format!("{name}: images {shape:?}, labels {rows:?}; expected [n, 28, 28] and [n]").into());
        }
        let labels = labels.into_iter().map(i32::from).collect();
        Ok(Digits { pixels, labels })
    }

    pub fn followed_by(mut self, other: Digits) -> Digits {
        self.pixels.extend(other.pixels);
        self.labels.extend(other.labels);
        self
    }
}

/// An IDX file of bytes: two zeros, the type (8: u8), the number of axes, their lengths (big-endian u32), the bytes.
fn read_idx(path: &Path) -> Result<(Vec<usize>, Vec<u8>)> {
    let file = std::fs::File::open(path).map_err(|error| format!("{}: {error}", path.display()))?;
    let mut bytes = Vec::new();
    GzDecoder::new(file).read_to_end(&mut bytes)?;
    let malformed = || format!("{}: not an IDX file of bytes", path.display());

    let (magic, rest) = bytes.split_first_chunk::<4>().ok_or_else(malformed)?;
    let &[0, 0, 8, axes] = magic else { return Err(malformed().into()) };
    let (lengths, data) = rest.split_at_checked(4 * usize::from(axes)).ok_or_else(malformed)?;
    let shape: Vec<usize> = lengths
        .chunks_exact(4)
        .map(|axis| axis.iter().fold(0, |length, &byte| 256 * length + usize::from(byte)))
        .collect();
    if shape.iter().product::<usize>() != data.len() {
        return Err(malformed().into());
    }
    Ok((shape, data.to_vec()))
}

/// SplitMix64, https://prng.di.unimi.it/splitmix64.c: the same numbers for a seed on every machine.
pub struct Random(pub u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let z = (self.0 ^ (self.0 >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    /// Uniform in [-1, 1).
    pub fn signed(&mut self) -> f32 {
        (self.next() >> 40) as f32 / (1u64 << 23) as f32 - 1.0
    }

    /// 0 to `count` − 1, shuffled anew each time round, until there are at least `len`.
    pub fn epochs(&mut self, count: usize, len: usize) -> Vec<u32> {
        let mut epoch: Vec<u32> = (0..count as u32).collect();
        let mut order = Vec::new();
        while order.len() < len {
            for last in (1..count).rev() {
                epoch.swap(last, (self.next() % (last as u64 + 1)) as usize);
            }
            order.extend(&epoch);
        }
        order
    }
}
