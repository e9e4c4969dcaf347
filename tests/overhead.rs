//! A step of a bound plan allocates nothing that recording its passes by hand would not.

#[path = "../benches/overhead/allocations.rs"]
mod allocations;
mod common;
#[path = "../benches/overhead/hand.rs"]
mod hand;

use allocations::allocations;
use common::context;
use hand::{CROSS_ENTROPY, Hand, MSE};
use wgloss::{Bindings, DType, PlanSpec, Tensor, losses};

#[test]
fn encoding_a_bound_plan_allocates_no_more_than_recording_by_hand() {
    let Some(ctx) = context() else { return };
    if !ctx.limits().software {
        eprintln!("skipped: the passes by hand are those of a software adapter");
        return;
    }
    let zeros = |dtype, shape: &[usize]| Tensor::zeros(ctx, dtype, shape).unwrap();
    let x = zeros(DType::F32, &[64, 10]);
    let (classes, values) = (zeros(DType::I32, &[64]), zeros(DType::F32, &[64, 10]));
    for (loss, y, dispatches) in
        [(losses::cross_entropy().into(), &classes, &CROSS_ENTROPY[..]), (losses::mse(), &values, &MSE[..])]
    {
        let inputs = [("input", &x), ("target", y)];
        let plan = ctx.plan(&loss, &PlanSpec::new().like(&inputs).grad("input")).unwrap();
        let bound = plan.bind(&Bindings::new().inputs(&inputs)).unwrap();
        let dispatched = format!("; {} dispatches", dispatches.len());
        assert!(bound.explain().contains(&dispatched), "{dispatched} by hand, not so in\n{}", bound.explain());
        // What the first step of either finds unwritten, wgpu zeroes: that is no cost of later ones.
        bound.submit().unwrap();
        let hand = Hand::new(ctx, dispatches);
        hand.check(ctx);
        let count = |encode: &dyn Fn(&mut wgpu::CommandEncoder)| {
            let once = || {
                let mut encoder = ctx.device().create_command_encoder(&wgpu::CommandEncoderDescriptor::default());
                encode(&mut encoder);
                drop(encoder.finish());
            };
            // The fewest: what wgpu allocates now and then, as when a pool grows, belongs to neither.
            (0..32).map(|_| allocations(once)).min().unwrap()
        };
        let in_pass = |encoder: &mut wgpu::CommandEncoder| {
            let mut pass = encoder.begin_compute_pass(&wgpu::ComputePassDescriptor::default());
            bound.encode_in(&mut pass).unwrap();
        };
        let (by_plan, by_hand) = (count(&|encoder| bound.encode(encoder).unwrap()), count(&|e| hand.encode(e)));
        let in_pass = count(&in_pass);
        let most = by_plan.max(in_pass);
        assert!(most <= by_hand, "{}: {by_plan} allocations, {in_pass} in a pass, {by_hand} by hand", loss.name());
    }
}
