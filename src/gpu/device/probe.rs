//! Accuracy of an adapter's exp2, measured once per context.

use crate::codegen::template::{LaneReduce, Skeleton, fill_hooks};
use crate::dispatch::{Dispatch, FIRST_STORAGE, Note, Region, Slot};
use crate::error::Result;
use crate::gpu::device::context::Context;
use std::collections::BTreeMap;

/// Number of arguments from −40 to 0; arguments whose results must be exact.
const SWEEP: usize = 4096;
const EXACT: [(f32, f32); 4] = [(0.0, 1.0), (-151.0, 0.0), (-3e38, 0.0), (f32::NEG_INFINITY, 0.0)];
/// Largest relative error for softmax loops: at 0, and what is added per unit of the argument, whose rounding is scaled by 2ˣ.
const BOUND: [f64; 2] = [3e-7, 1e-7];

fn arguments() -> Vec<f32> {
    let sweep = (0..SWEEP).map(|k| -40.0 * k as f32 / SWEEP as f32);
    sweep.chain(EXACT.map(|(x, _)| x)).collect()
}

/// Whether these results are accurate enough for softmax loops.
fn is_accurate(results: &[f32]) -> bool {
    let close = |(x, got): (f32, &f32)| {
        let want = f64::from(x).exp();
        (f64::from(*got) - want).abs() <= (BOUND[0] + BOUND[1] * f64::from(-x)) * want
    };
    let (sweep, exact) = results.split_at(SWEEP.min(results.len()));
    results.len() == SWEEP + EXACT.len()
        && arguments().into_iter().zip(sweep).all(close)
        && EXACT.iter().zip(exact).all(|((_, want), got)| want == got)
}

/// Runs `math_exp2_neg` on the device. On any error the answer is no: the kernels then use `math_exp_neg`.
pub(crate) async fn exp2_is_accurate(ctx: &Context) -> bool {
    results(ctx).await.is_ok_and(|results| is_accurate(&results))
}

async fn results(ctx: &Context) -> Result<Vec<f32>> {
    let hooks = BTreeMap::from([("constants".to_owned(), "const WG: u32 = 64u;\n".to_owned())]);
    let wgsl = fill_hooks("probe of exp2", Skeleton::Probe, 0, LaneReduce::Tree, &hooks);
    let storage = vec![Region { slot: Slot::Workspace, writes: true, bytes: None }];
    let wgsl = wgsl.expect("the probe takes constants").into();
    let dispatch = Dispatch { wgsl, grid: [1, 1], uniforms: Vec::new(), storage, note: Note::Whole };
    let pipeline = ctx.pipeline(&dispatch)?;
    let arguments = arguments();
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
                assert_eq!(results.len(), SWEEP + EXACT.len());
                assert!((results[SWEEP / 2] / (-20f32).exp() - 1.0).abs() < 1e-5);
            }
            Err(error) if std::env::var_os("WGLOSS_REQUIRE_ADAPTER").is_none() => eprintln!("skipped: {error}"),
            Err(error) => panic!("WGLOSS_REQUIRE_ADAPTER is set, but {error}"),
        }
    }

    #[test]
    fn what_errs_is_not_taken() {
        let exact: Vec<f32> = arguments().into_iter().map(|x| f64::from(x).exp() as f32).collect();
        assert!(is_accurate(&exact));
        for (index, value) in
            [(1000, exact[1000] * (1.0 + 2e-6)), (2000, f32::NAN), (SWEEP, 0.999_999_9), (SWEEP + 3, 1e-38)]
        {
            let mut results = exact.clone();
            results[index] = value;
            assert!(!is_accurate(&results), "{index}: {value}");
        }
        assert!(!is_accurate(&[]), "nothing came back");
    }
}
