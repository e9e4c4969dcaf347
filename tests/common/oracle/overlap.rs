//! Losses of the overlap of classes, of logits and labels.

use super::{Case, class_axis, log_softmax, rows_of};
use crate::common::real::Real;

/// What the losses are made of, for one class.
struct Class<R> {
    /// Σ p·g, Σ p, Σ p² and Σ g over the voxels.
    both: R,
    predicted: R,
    squares: R,
    voxels: f64,
}

/// The loss of that name, one number; `None` for those of other families.
pub fn oracle<R: Real>(name: &str, case: &Case<R>) -> Option<R> {
    let smooth = case.num("smooth", 1e-5);
    let dice = |class: &Class<R>| {
        let predicted = if case.flag("squared_pred", false) { class.squares } else { class.predicted };
        R::ONE - (class.both * 2.0 + smooth) / (predicted + class.voxels + smooth)
    };
    Some(match name {
        "dice_ce" => mean(case, dice) * case.num("lambda_dice", 1.0) + cross_entropy(case) * case.num("lambda_ce", 1.0),
        "dice_focal" => mean(case, dice) * case.num("lambda_dice", 1.0) + focal(case) * case.num("lambda_focal", 1.0),
        "generalized_dice" => generalized_dice(case, smooth),
        "focal_tversky" => mean(case, |class| {
            let (added, missed) = (class.predicted - class.both, -class.both + class.voxels);
            let all = class.both + added * case.num("alpha", 0.3) + missed * case.num("beta", 0.7) + smooth;
            let wrong = R::ONE - (class.both + smooth) / all;
            // Of one class nothing is wrong but for rounding.
            let nothing = wrong.value() < 1e-15;
            if nothing { R::constant(0.0) } else { wrong.powf(case.num("gamma", 0.75)) }
        }),
        "jaccard" => {
            mean(case, |class| R::ONE - (class.both + smooth) / (class.predicted - class.both + class.voxels + smooth))
        }
        "log_cosh_dice" => {
            let d = mean(case, dice);
            ((d.exp() + (-d).exp()) / 2.0).ln()
        }
        _ => return None,
    })
}

/// The classes of each sample, or with `batch` of all: those that count.
fn classes<R: Real>(case: &Case<R>) -> Vec<Vec<Class<R>>> {
    let input = &case.arrays["input"];
    let (labels, _) = case.labels.as_ref().expect("labels");
    let rows = rows_of(&input.shape, class_axis(&input.shape));
    let samples = if input.shape.len() > 1 { input.shape[0] } else { 1 };
    let sets = if case.flag("batch", false) { 1 } else { samples };
    let first = usize::from(!case.flag("include_background", true));
    let mut all = Vec::new();
    for set in rows.chunks(rows.len() / sets).zip(labels.chunks(rows.len() / sets)) {
        let cols = set.0[0].len();
        let zero = R::constant(0.0);
        let none = || Class { both: zero, predicted: zero, squares: zero, voxels: 0.0 };
        let mut sums: Vec<Class<R>> = (0..cols).map(|_| none()).collect();
        for (row, label) in set.0.iter().zip(set.1) {
            let log_p = log_softmax(&row.iter().map(|&k| input.values[k]).collect::<Vec<R>>());
            for (c, (sum, log_p)) in sums.iter_mut().zip(log_p).enumerate() {
                let (p, g) = (log_p.exp(), f64::from(u8::from(c as i64 == *label)));
                sum.both = sum.both + p * g;
                sum.predicted = sum.predicted + p;
                sum.squares = sum.squares + p * p;
                sum.voxels += g;
            }
        }
        all.push(sums.into_iter().skip(first).collect());
    }
    all
}

fn mean<R: Real>(case: &Case<R>, loss: impl Fn(&Class<R>) -> R) -> R {
    let all: Vec<Class<R>> = classes(case).into_iter().flatten().collect();
    all.iter().map(loss).sum::<R>() / all.len().max(1) as f64
}

fn generalized_dice<R: Real>(case: &Case<R>, smooth: f64) -> R {
    let weight = |voxels: f64| match case.word("weight_type", "square") {
        "square" => 1.0 / (voxels * voxels),
        "simple" => 1.0 / voxels,
        _ => 1.0,
    };
    let all = classes(case);
    let one = |classes: &Vec<Class<R>>| {
        let finite = classes.iter().map(|class| weight(class.voxels)).filter(|w| w.is_finite());
        let largest = finite.fold(0.0, f64::max);
        let weights: Vec<f64> = classes.iter().map(|class| weight(class.voxels)).collect();
        let weight = |k: usize| if weights[k].is_finite() { weights[k] } else { largest };
        let both: R = (0..classes.len()).map(|k| classes[k].both * weight(k)).sum();
        let each: R = (0..classes.len()).map(|k| (classes[k].predicted + classes[k].voxels) * weight(k)).sum();
        R::ONE - (both * 2.0 + smooth) / (each + smooth)
    };
    all.iter().map(one).sum::<R>() / all.len() as f64
}

/// −ln p of each voxel's label.
fn surprises<R: Real>(case: &Case<R>) -> Vec<R> {
    let input = &case.arrays["input"];
    let (labels, _) = case.labels.as_ref().expect("labels");
    let rows = rows_of(&input.shape, class_axis(&input.shape));
    let of_row = |(row, label): (&Vec<usize>, &i64)| {
        -log_softmax(&row.iter().map(|&k| input.values[k]).collect::<Vec<R>>())[*label as usize]
    };
    rows.iter().zip(labels).map(of_row).collect()
}

fn cross_entropy<R: Real>(case: &Case<R>) -> R {
    let input = &case.arrays["input"];
    let (labels, _) = case.labels.as_ref().expect("labels");
    let weights = case.spread("weight", &[input.shape[class_axis(&input.shape)]]);
    let each: R = surprises(case).into_iter().zip(labels).map(|(nll, y)| nll * weights[*y as usize]).sum();
    each / labels.iter().map(|y| weights[*y as usize]).sum::<R>()
}

fn focal<R: Real>(case: &Case<R>) -> R {
    let gamma = case.num("gamma", 2.0);
    let each: R = surprises(case).into_iter().map(|nll| (R::ONE - (-nll).exp()).powf(gamma) * nll).sum();
    each / case.arrays["input"].values.len() as f64
}
