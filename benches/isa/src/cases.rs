//! The problems whose kernels are compiled: every loss of the catalogue, loss and gradient, of shapes that reach every
//! kernel family.

use crate::Fallible;
use crate::record::Nan;
use measure::problem::Storage;
use serde::{Deserialize, Serialize};
use wgloss::internals::plan::{Preview, preview};
use wgloss::{DType, Exp2, Kind, Limits, Loss, PlanSpec, Scope, losses};

/// Short rows, rows of a subgroup, rows that registers hold, rows that are streamed, classes at axis 1, rows of an odd
/// length.
pub const SHAPES: [&[usize]; 6] =
    [&[65_536, 10], &[8192, 1000], &[4096, 32_000], &[2048, 128_256], &[16, 21, 65_536], &[8192, 50_257]];

/// A loss of the catalogue with its default options and the inputs that it must have.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Case {
    pub loss: String,
    /// How numbers are stored.
    pub dtype: String,
    /// Of its element inputs: `[rows, cols]`, or `[N, C, d]` with the columns at axis 1.
    pub shape: Vec<usize>,
}

/// Which cases are compiled.
#[derive(Clone, Debug, clap::Args)]
pub struct Choice {
    /// Only losses of these names
    #[arg(long = "loss", value_name = "NAME", value_parser = clap::builder::PossibleValuesParser::new(names()))]
    losses: Vec<String>,
    /// Only numbers stored so; by default f32 and bf16
    #[arg(long, value_enum, value_name = "TYPE")]
    dtype: Vec<Storage>,
    /// Only these shapes: `4096x32000`
    #[arg(long = "shape", value_name = "SHAPE", value_parser = parsed_shape)]
    shapes: Vec<Vec<usize>>,
    /// One loss of each kernel family, each of one shape
    #[arg(long, conflicts_with_all = ["losses", "dtype", "shapes"])]
    few: bool,
}

/// A loss and a shape of each kernel family: one lane per row, rows of a subgroup, held rows, streamed rows, classes at axis
/// 1, an odd length, elements, sums by column, gathers alone, columns of a stated number, scans, pairs, sorts.
const FEW: [(&str, Storage, &[usize]); 15] = [
    ("cross_entropy", Storage::F32, SHAPES[0]),
    ("cross_entropy", Storage::Bf16, SHAPES[1]),
    ("cross_entropy", Storage::Bf16, SHAPES[2]),
    ("cross_entropy", Storage::Bf16, SHAPES[3]),
    ("cross_entropy", Storage::Bf16, SHAPES[4]),
    ("cross_entropy", Storage::Bf16, SHAPES[5]),
    ("jsd", Storage::Bf16, SHAPES[2]),
    ("mse", Storage::Bf16, SHAPES[1]),
    ("bce_with_logits", Storage::F32, SHAPES[1]),
    ("dice_ce", Storage::Bf16, SHAPES[4]),
    ("nll", Storage::F32, SHAPES[1]),
    ("giou", Storage::F32, &[65_536, 4]),
    ("emd_squared", Storage::F32, SHAPES[2]),
    ("ranknet", Storage::F32, SHAPES[1]),
    ("list_mle", Storage::F32, SHAPES[1]),
];

fn names() -> impl Iterator<Item = &'static str> {
    losses::CATALOGUE.iter().map(|entry| entry.name)
}

fn parsed_shape(text: &str) -> Result<Vec<usize>, String> {
    let sizes = text.split('x').map(|size| size.parse::<usize>().ok().filter(|size| *size > 0));
    let sizes = sizes.collect::<Option<Vec<usize>>>().filter(|sizes| matches!(sizes.len(), 2 | 3));
    sizes.ok_or_else(|| format!("`{text}` for a shape; two or three sizes above 0, as `4096x32000`"))
}

impl Case {
    fn new(loss: &str, dtype: Storage, shape: &[usize]) -> Case {
        Case { loss: loss.to_owned(), dtype: dtype.name(), shape: shape.to_vec() }
    }

    pub fn name(&self) -> String {
        format!("{} {} {:?}", self.loss, self.dtype, self.shape)
    }

    /// Bytes of an element.
    pub fn bytes(&self) -> u32 {
        if self.dtype == Storage::F32.name() { 4 } else { 2 }
    }

    /// The loss. Where it has one sum per sample and class, a sample is a row here: sums are taken over the batch instead.
    fn loss(&self) -> Fallible<Loss> {
        let entry = losses::entry(&self.loss).ok_or("the name of a loss of the catalogue")?;
        let loss = (entry.make)();
        let by_sample = self.shape.len() == 2 && loss.option_value("batch").is_some();
        Ok(if by_sample { loss.option("batch", true) } else { loss })
    }

    /// Loss and gradient as a device with these limits would compute them.
    pub fn preview(&self, limits: &Limits) -> Fallible<Preview> {
        let loss = self.loss()?;
        Ok(preview(&loss, &self.spec(&loss)?, limits, "a GPU that is not here")?)
    }

    fn spec(&self, loss: &Loss) -> Fallible<PlanSpec> {
        let dtype = Storage::ALL.into_iter().find(|storage| storage.name() == self.dtype);
        let dtype = dtype.ok_or("the name of an element type")?.dtype();
        let (cols, mut rows) = (self.shape[1], self.shape.clone());
        rows.remove(1);
        let mut spec = PlanSpec::new();
        for input in loss.inputs().into_iter().filter(|input| !input.optional) {
            let shape: &[usize] = match input.scope {
                Scope::Element => &self.shape,
                Scope::Row => &rows,
                Scope::Column => &[cols],
                _ => &[],
            };
            spec = spec.input(&input.name, if input.kind == Kind::Int { DType::I32 } else { dtype }, shape);
        }
        Ok(spec.grad(&loss.differentiable().ok_or("an input to differentiate by")?))
    }
}

/// The cases of a choice, and the losses that have no columns at axis 1, whose case of that shape is left out.
pub fn cases(choice: &Choice) -> Fallible<Vec<Case>> {
    if choice.few {
        return Ok(FEW.iter().map(|(loss, dtype, shape)| Case::new(loss, *dtype, shape)).collect());
    }
    let is_chosen = |name: &&str| choice.losses.is_empty() || choice.losses.iter().any(|chosen| chosen == name);
    let dtypes = if choice.dtype.is_empty() { &[Storage::F32, Storage::Bf16][..] } else { &choice.dtype };
    let mut cases = Vec::new();
    for name in names().filter(is_chosen) {
        for &dtype in dtypes {
            for shape in shapes(name, choice)? {
                cases.push(Case::new(name, dtype, &shape));
            }
        }
    }
    Ok(cases)
}

/// The shapes of a loss: where it states its number of columns, rows of as many.
fn shapes(name: &str, choice: &Choice) -> Fallible<Vec<Vec<usize>>> {
    let given = || choice.shapes.iter().cloned();
    let all: Vec<Vec<usize>> =
        if choice.shapes.is_empty() { SHAPES.map(<[usize]>::to_vec).to_vec() } else { given().collect() };
    let loss = Case::new(name, Storage::F32, SHAPES[0]).loss()?;
    let stated = loss.cols()?;
    let mut shapes: Vec<Vec<usize>> = Vec::new();
    for mut shape in all {
        if let Some(cols) = stated {
            shape = vec![65_536, cols as usize];
        }
        // Rows of the last axis, or of all but the first, take labels of other shapes than classes at axis 1 do.
        let is_refused = || shape.len() == 3 && Case::new(name, Storage::F32, &shape).preview(&Limits::WEBGPU).is_err();
        if !shapes.contains(&shape) && !is_refused() {
            shapes.push(shape);
        }
    }
    Ok(shapes)
}

/// A family of AMD GPUs, by Mesa's name, and the limits that its kernels are made for.
pub struct Family {
    pub name: &'static str,
    limits: Limits,
    /// Fewest subgroups on a SIMD that kernels of rows and elements leave room for.
    pub subgroups_per_simd: u64,
}

/// GCN and CDNA, RDNA 2, RDNA 3, whose limits are those of RDNA 2. On GCN the goal is 4 subgroups per SIMD, which rows that
/// are held in 128 registers per lane miss.
pub const FAMILIES: [Family; 3] = [
    Family { name: "vega10", limits: Limits::VEGA10, subgroups_per_simd: 2 },
    Family { name: "navi21", limits: Limits::NAVI21, subgroups_per_simd: 8 },
    Family { name: "gfx1100", limits: Limits::NAVI21, subgroups_per_simd: 8 },
];

impl Family {
    pub fn limits(&self, nan: Nan) -> Limits {
        probed(&self.limits, nan)
    }
}

/// Limits of an adapter whose exp2 and arithmetic with NaN were probed and found right, or were not.
pub fn probed(limits: &Limits, nan: Nan) -> Limits {
    let is_probed = nan == Nan::Sums;
    let exp2 = if is_probed { Exp2::Functions } else { Exp2::Nothing };
    Limits { exp2, carries_nan: is_probed, ..limits.clone() }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn choice(losses: &[&str]) -> Choice {
        let losses = losses.iter().map(|name| (*name).to_owned()).collect();
        Choice { losses, dtype: Vec::new(), shapes: Vec::new(), few: false }
    }

    #[test]
    fn a_loss_has_the_shapes_that_it_takes() {
        let count = |name: &str| cases(&choice(&[name])).unwrap().len();
        assert_eq!(count("cross_entropy"), 2 * SHAPES.len());
        assert_eq!(count("giou"), 2, "boxes have four columns");
        let all = cases(&choice(&["giou"])).unwrap();
        assert!(all.iter().all(|case| case.shape == [65_536, 4]), "{all:?}");
    }

    #[test]
    fn the_few_can_be_planned() {
        for case in cases(&Choice { few: true, ..choice(&[]) }).unwrap() {
            let limits = FAMILIES[0].limits(Nan::Bits);
            assert!(case.preview(&limits).is_ok(), "{}", case.name());
        }
    }

    #[test]
    fn shapes_are_sizes_apart_by_an_x() {
        assert_eq!(parsed_shape("4096x32000"), Ok(vec![4096, 32_000]));
        for wrong in ["", "4096", "0x10", "4x", "1x2x3x4"] {
            assert!(parsed_shape(wrong).is_err(), "{wrong}");
        }
    }
}
