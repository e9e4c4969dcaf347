//! What an adapter's arithmetic does, measured once per context: how accurate its exp2 is, and functions that are made of it and
//! of its inverseSqrt; and whether NaN goes through.

use crate::codegen::template::{LaneReduce, Skeleton, fill_hooks};
use crate::dispatch::{Dispatch, FIRST_STORAGE, Note, Region, Slot};
use crate::error::Result;
use crate::gpu::device::context::Context;
use crate::limits::Exp2;
use std::collections::BTreeMap;
use std::ops::Range;

/// Number of arguments of a function, from its lowest to 0; arguments for which e^x must be exact.
const SWEEP: usize = 4096;
const EXACT: [f32; 4] = [0.0, -151.0, -3e38, f32::NEG_INFINITY];
const ARGUMENTS: usize = SWEEP + EXACT.len();

/// A function that the shader calls.
struct Function {
    want: fn(f64) -> f64,
    /// The lowest argument.
    lowest: f32,
    /// Largest relative error: at 0, and what is added per unit of the argument.
    bound: [f64; 2],
}

/// In the order of the shader. Softmax loops scale the rounding of the argument by 2ˣ.
const FUNCTIONS: [Function; 8] = [
    Function { want: f64::exp, lowest: -40.0, bound: [3e-7, 1e-7] },
    Function { want: f64::exp, lowest: -87.0, bound: [1e-6, 0.0] },
    Function { want: |x| (-x).exp(), lowest: -87.0, bound: [1e-6, 0.0] },
    Function { want: |x| 1.0 / (1.0 + (-x).exp()), lowest: -87.0, bound: [1e-6, 0.0] },
    Function { want: |x| x.exp().ln_1p(), lowest: -87.0, bound: [1e-6, 0.0] },
    Function { want: f64::ln, lowest: -87.0, bound: [0.0, 0.0] },
    Function { want: |x| (-x).ln(), lowest: -87.0, bound: [1e-6, 0.0] },
    Function { want: |x| (-x).ln_1p(), lowest: -87.0, bound: [1e-6, 0.0] },
];

/// Bits of NaN: quiet and signalling, of both signs, with all bits set.
const NANS: [u32; 6] = [0x7fc0_0000, 0xffc0_0000, 0x7f80_0001, 0xff80_0001, 0x7fff_ffff, 0xffff_ffff];
/// Values beside a NaN in a row.
const BESIDE: [f32; 5] = [1.0, -3.5, f32::NEG_INFINITY, f32::INFINITY, 3e38];

/// What was measured of an adapter.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Probed {
    /// What its exp2 is accurate enough for; for functions only where these carry NaN.
    pub exp2: Exp2,
    /// Whether NaN goes through exp2, products and sums, at every place of a row.
    pub carries_nan: bool,
}

fn arguments() -> Vec<f32> {
    let of = |function: &Function| {
        let lowest = function.lowest;
        (0..SWEEP).map(move |k| lowest * k as f32 / SWEEP as f32).chain(EXACT)
    };
    FUNCTIONS.iter().flat_map(of).collect()
}

/// Rows of four values with a NaN each: at every place, beside every value.
fn rows() -> Vec<[f32; 4]> {
    let each = |bits: u32| (0..4).flat_map(move |at| BESIDE.map(|x| (bits, at, x)));
    let row = |(bits, at, x): (u32, usize, f32)| {
        let mut row = [x, 0.25, x, -1.0];
        row[at] = f32::from_bits(bits);
        row
    };
    NANS.into_iter().flat_map(each).map(row).collect()
}

/// Whether these sums of every row are NaN, by their bits: the first three, and that of functions.
fn carries_nan(results: &[f32], sums: Range<usize>) -> bool {
    let is_nan = |x: &f32| x.to_bits() & 0x7fff_ffff > 0x7f80_0000;
    results.len() == 4 * rows().len() && results.chunks(4).all(|row| row[sums.clone()].iter().all(is_nan))
}

/// Whether the results of these functions are accurate enough.
fn is_accurate(results: &[f32], functions: Range<usize>) -> bool {
    let arguments = arguments();
    let close = |(k, got): (usize, &f32)| {
        let (function, x) = (&FUNCTIONS[k / ARGUMENTS], f64::from(arguments[k]));
        let (want, got) = ((function.want)(x), f64::from(*got));
        let is_exact = k / ARGUMENTS == 0 && k % ARGUMENTS >= SWEEP;
        let bound = if is_exact { 0.0 } else { function.bound[0] - function.bound[1] * x };
        let same = got == f64::from(want as f32) || (want.is_nan() && got.is_nan());
        // Where the result is subnormal, it may be flushed.
        let flushed = !is_exact && want.abs() < f64::from(f32::MIN_POSITIVE) && got.abs() <= want.abs();
        same || flushed || (got - want).abs() <= bound * want.abs()
    };
    let range = functions.start * ARGUMENTS..functions.end * ARGUMENTS;
    results.len() == arguments.len() && results.iter().enumerate().take(range.end).skip(range.start).all(close)
}

impl Probed {
    /// Runs the probe on the device. On any error the answers are no: the kernels then use `math_exp_neg`, and look at bits.
    pub(crate) async fn of(ctx: &Context) -> Probed {
        let Ok(results) = results(ctx).await else { return Probed::default() };
        let (exp2, nan) = results.split_at(arguments().len().min(results.len()));
        let is_exp2 = is_accurate(exp2, 0..1);
        let has_functions = is_accurate(exp2, 1..FUNCTIONS.len()) && carries_nan(nan, 3..4);
        let exp2 = match (is_exp2, has_functions) {
            (false, _) => Exp2::Nothing,
            (true, false) => Exp2::Sums,
            (true, true) => Exp2::Functions,
        };
        // The sums are made of that exp2.
        Probed { exp2, carries_nan: is_exp2 && carries_nan(nan, 0..3) }
    }
}

async fn results(ctx: &Context) -> Result<Vec<f32>> {
    let rows_from = arguments().len();
    let constants =
        format!("const WG: u32 = 64u;\nconst ARGUMENTS: u32 = {ARGUMENTS}u;\nconst ROWS_FROM: u32 = {rows_from}u;\n");
    let hooks = BTreeMap::from([("constants".to_owned(), constants)]);
    let wgsl = fill_hooks("probe of exp2", Skeleton::Probe, &[], LaneReduce::Tree, &hooks);
    let storage = vec![Region { slot: Slot::Workspace, writes: true, bytes: None }];
    let wgsl = wgsl.expect("the probe takes constants").into();
    let dispatch = Dispatch { wgsl, grid: [1, 1], uniforms: Vec::new(), storage, note: Note::Whole };
    let pipeline = ctx.pipeline(&dispatch)?;
    let mut arguments = arguments();
    arguments.extend(rows().into_iter().flatten());
    let bytes = 4 * arguments.len() as u64;
    let usage = wgpu::BufferUsages::STORAGE | wgpu::BufferUsages::COPY_SRC | wgpu::BufferUsages::COPY_DST;
    let buffer = ctx.create_buffer("wgloss probe", bytes, usage)?;
    ctx.write("wgloss probe", &buffer, 0, bytemuck::cast_slice(&arguments))?;
    let entry = wgpu::BindGroupEntry { binding: FIRST_STORAGE, resource: buffer.as_entire_binding() };
    ctx.submit("probe", |encoder| {
        let group = ctx.device().create_bind_group(&wgpu::BindGroupDescriptor {
            label: Some("wgloss probe"),
            layout: &pipeline.layout,
            entries: std::slice::from_ref(&entry),
        });
        let mut pass = encoder.begin_compute_pass(&wgpu::ComputePassDescriptor::default());
        pass.set_pipeline(&pipeline.pipeline);
        pass.set_bind_group(0, &group, &[]);
        pass.dispatch_workgroups((arguments.len() as u32).div_ceil(64), 1, 1);
    })?;
    Ok(bytemuck::pod_collect_to_vec(&ctx.read("probe", &buffer, 0, bytes).await?))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_result_comes_back() {
        match Context::new() {
            Ok(ctx) => {
                let results = pollster::block_on(results(&ctx)).unwrap();
                assert_eq!(results.len(), arguments().len() + 4 * rows().len());
                assert!((results[SWEEP / 2] / (-20f32).exp() - 1.0).abs() < 1e-5);
            }
            Err(error) if std::env::var_os("WGLOSS_REQUIRE_ADAPTER").is_none() => eprintln!("skipped: {error}"),
            Err(error) => panic!("WGLOSS_REQUIRE_ADAPTER is set, but {error}"),
        }
    }

    #[test]
    fn what_errs_is_not_taken() {
        let want = |(k, x): (usize, f32)| (FUNCTIONS[k / ARGUMENTS].want)(f64::from(x)) as f32;
        let exact: Vec<f32> = arguments().into_iter().enumerate().map(want).collect();
        assert!(is_accurate(&exact, 0..1) && is_accurate(&exact, 1..FUNCTIONS.len()));
        let of = |function: usize, k: usize| function * ARGUMENTS + k;
        let wrong = [
            (1000, exact[1000] * (1.0 + 2e-6)),
            (2000, f32::NAN),
            (SWEEP, 0.999_999_9),
            (SWEEP + 3, 1e-38),
            (of(1, 4000), exact[of(1, 4000)] * (1.0 + 2e-6)),
            (of(2, SWEEP + 3), f32::NAN),
            (of(3, 10), exact[of(3, 10)] * (1.0 - 2e-6)),
            (of(4, 0), 0.5),
        ];
        for (index, value) in wrong {
            let mut results = exact.clone();
            results[index] = value;
            let function = index / ARGUMENTS;
            assert!(!is_accurate(&results, function..function + 1), "{index}: {value}");
            assert!((0..FUNCTIONS.len()).all(|k| k == function || is_accurate(&results, k..k + 1)), "{index}: {value}");
        }
        assert!(!is_accurate(&[], 0..1), "nothing came back");
    }

    #[test]
    fn a_nan_that_is_lost_is_noticed() {
        let all = vec![f32::NAN; 4 * rows().len()];
        assert!(carries_nan(&all, 0..4));
        for lost in [0, 5, all.len() - 2] {
            let mut results = all.clone();
            results[lost] = f32::INFINITY;
            let sum = lost % 4;
            assert!(!carries_nan(&results, sum..sum + 1), "{lost}");
        }
        assert!(!carries_nan(&[], 0..3), "nothing came back");
    }
}
