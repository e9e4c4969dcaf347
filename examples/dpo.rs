//! Direct preference optimisation (Rafailov et al., 2023) from the logits of a policy and of a reference: pairs of a chosen
//! and a rejected answer, packed one after the other; loss and gradient of the policy's logits, checked in f64.
//!
//! ```sh
//! cargo run --release --example dpo
//! ```

use std::time::Instant;
use wgloss::{Bindings, Context, Expr, Loss, PlanSpec, RowAxis, Scope, Tensor, loss::Build};

const BETA: f64 = 0.1;

/// Per pair, the sum over its tokens of `side·(log π(token) − log π_ref(token))`: `side` is 1 in the chosen answer, −1 in
/// the rejected one, 0 in a prompt.
fn margin<'g>(b: &Build<'g>) -> Expr<'g> {
    let log_prob = |logits: &str| b.input(logits).log_softmax().at(b.input("token"));
    (b.input("side") * (log_prob("policy") - log_prob("reference"))).sum_over(Scope::Group)
}

/// `−log σ(β·margin)`, averaged over the pairs.
fn dpo() -> Loss {
    let definition = Loss::define("dpo").input("policy", Scope::Element).input("reference", Scope::Element);
    let definition = definition.input("side", Scope::Row).label("token").row_axis(RowAxis::Last);
    let definition = definition.extra("margin", margin).extra("accuracy", |b| margin(b).gt(0.0).to_float());
    definition.expr(|b| -(BETA * margin(b)).log_sigmoid())
}

fn main() -> Result<(), Box<dyn std::error::Error>> {
    // Chosen and rejected answers of 8 to 31 tokens each.
    let (pairs, vocabulary) = (24, 8_000);
    let noise = |k: usize| (k as u32).wrapping_mul(2_654_435_761) >> 8;
    let (mut offsets, mut side): (Vec<i32>, Vec<f32>) = (vec![0], Vec::new());
    for pair in 0..pairs {
        side.extend(vec![1.0; 8 + noise(2 * pair) as usize % 24]);
        side.extend(vec![-1.0; 8 + noise(2 * pair + 1) as usize % 24]);
        offsets.push(side.len() as i32);
    }
    let tokens: Vec<i32> = (0..side.len()).map(|k| noise(k) as i32 % vocabulary as i32).collect();
    let logits = |seed: usize| -> Vec<f32> {
        (0..side.len() * vocabulary).map(|k| noise(k + seed) as f32 / (1 << 21) as f32 - 4.0).collect()
    };
    let (policy, reference) = (logits(1), logits(99));

    let ctx = Context::new()?;
    let shape = [side.len(), vocabulary];
    let tensors = [
        ("policy", Tensor::from_slice(&ctx, &policy, &shape)?),
        ("reference", Tensor::from_slice(&ctx, &reference, &shape)?),
        ("side", Tensor::from_slice(&ctx, &side, &shape[..1])?),
        ("token", Tensor::from_slice(&ctx, &tokens, &shape[..1])?),
        ("pairs", Tensor::from_slice(&ctx, &offsets, &[pairs + 1])?),
    ];
    let inputs = tensors.each_ref().map(|(name, tensor)| (*name, tensor));
    let spec = PlanSpec::new().like(&inputs).group_offsets("pairs").grad("policy").extra("margin").extra("accuracy");
    let plan = ctx.plan(&dpo(), &spec)?;
    println!("{}", plan.explain());
    let bound = plan.bind(&Bindings::new().inputs(&inputs))?;
    bound.submit()?;
    let loss = f64::from(bound.read_loss()?);
    let start = Instant::now();
    bound.submit()?;
    bound.read_loss()?;
    let accuracy = bound.read::<f32>(bound.extra("accuracy")?)?.iter().sum::<f32>() / pairs as f32;
    println!("on {}: loss {loss:.6}, accuracy {accuracy}, {:?} a step", ctx.adapter_name(), start.elapsed());

    // The same in f64.
    let (margins, gradient) = (bound.read::<f32>(bound.extra("margin")?)?, bound.read::<f32>(bound.grad("policy")?)?);
    let row = |all: &[f32], k: usize| -> Vec<f64> {
        all[k * vocabulary..][..vocabulary].iter().map(|x| f64::from(*x)).collect()
    };
    let log_sum = |row: &[f64]| row.iter().map(|x| x.exp()).sum::<f64>().ln();
    let log_prob = |row: Vec<f64>, k: usize| row[tokens[k] as usize] - log_sum(&row);
    let (mut want, mut worst, mut largest) = (0.0, 0.0f64, 0.0f64);
    for (pair, ends) in offsets.windows(2).enumerate() {
        let rows = ends[0] as usize..ends[1] as usize;
        let of_row = |k: usize| f64::from(side[k]) * (log_prob(row(&policy, k), k) - log_prob(row(&reference, k), k));
        let margin: f64 = rows.clone().map(of_row).sum();
        assert!((f64::from(margins[pair]) - margin).abs() < 1e-4 * (1.0 + margin.abs()), "pair {pair}");
        want += (-BETA * margin).exp().ln_1p() / pairs as f64;
        let by_margin = -BETA / (1.0 + (BETA * margin).exp()) / pairs as f64;
        for k in rows {
            let logits = row(&policy, k);
            let log_sum = log_sum(&logits);
            for (j, x) in logits.iter().enumerate() {
                let by_logit = f64::from(u8::from(j == tokens[k] as usize)) - (x - log_sum).exp();
                let want = by_margin * f64::from(side[k]) * by_logit;
                worst = worst.max((f64::from(gradient[k * vocabulary + j]) - want).abs());
                largest = largest.max(want.abs());
            }
        }
    }
    println!("in f64: loss {want:.6}; gradients up to {largest:.3e} are off by at most {worst:.1e}");
    assert!((loss - want).abs() < 2e-6 * want && worst < 2e-6 * largest);
    Ok(())
}
