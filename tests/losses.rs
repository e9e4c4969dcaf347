//! Every loss of the catalogue, over its options, reductions and shapes: the CPU path against the oracle, the GPU
//! path against the CPU path, NaN and masks.

mod common;

use common::cases::{Family, SMALL_SHAPES, case, extras_of, family, for_each_case, names};
use common::cases::{option_sets, optional_inputs, reductions_of};
use common::oracle::{self, Case};
use common::{Outcome, context, golden, hessian_on_cpu, loss_of, on_cpu, on_gpu};
use wgloss::losses::CATALOGUE;
use wgloss::lower::{Wanted, lower};
use wgloss::{HostTensor, Loss, Reduction, Tensor, cpu, losses};

/// Inputs of numbers that the loss has a gradient for: all but a mask.
fn differentiable(case: &Case) -> Vec<&str> {
    case.arrays.keys().map(String::as_str).filter(|name| *name != "mask").collect()
}

/// The worst number that is off by more than `rtol·|want| + atol`, in words. NaN is always off.
fn mismatch(got: &[f64], want: &[f64], rtol: f64, atol: impl Fn(usize) -> f64) -> Option<String> {
    if got.len() != want.len() {
        return Some(format!("{} numbers, want {}", got.len(), want.len()));
    }
    let distance = |k: usize| (got[k] - want[k]).abs();
    let fits = |k: usize| got[k] == want[k] || distance(k) <= atol(k) + rtol * want[k].abs();
    let worst = (0..got.len()).filter(|&k| !fits(k)).max_by(|&a, &b| distance(a).total_cmp(&distance(b)));
    worst.map(|k| format!("[{k}] is {}, want {} ± {:.1e}", got[k], want[k], atol(k) + rtol * want[k].abs()))
}

fn largest(values: &[f64]) -> f64 {
    values.iter().fold(0.0, |most, x| x.abs().max(most))
}

fn report(complaints: Vec<String>, cases: usize) {
    let shown = complaints.iter().take(20).map(|c| format!("  {c}\n")).collect::<String>();
    assert!(complaints.is_empty(), "{} of {cases} cases:\n{shown}", complaints.len());
}

#[test]
fn every_loss_has_an_oracle() {
    for (name, _) in CATALOGUE {
        let case = case(name, &vec![], &[3, 5], &[], "mean", 2.0);
        assert!(oracle::oracle(name, &case).is_some(), "{name} has no oracle in tests/common/oracle.rs");
    }
}

#[test]
fn the_oracle_agrees_with_golden_data() {
    let folder = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden");
    let deviations = golden::deviations(&folder);
    let mut complaints = Vec::new();
    let mut cases = 0;
    for path in golden::files(&folder) {
        for case in golden::load(&path) {
            let name = if case.file == "cross_entropy_temperature" { "cross_entropy" } else { &case.file };
            let Some(got) = oracle::oracle(name, &case.to_oracle()) else { continue };
            let want = case.outputs["loss"].to_f64();
            let tolerance = golden::Tolerance::double(&want);
            let departs = |k: usize| {
                let on_loss = |d: &&golden::Deviation| d.loss == case.file && d.outputs.iter().any(|o| o == "loss");
                deviations.iter().filter(on_loss).any(|d| d.places(&case, "loss")[k])
            };
            for k in 0..want.len() {
                if tolerance.units(got[k], want[k]) > 1.0 && !departs(k) {
                    complaints.push(format!("{}/{}[{k}] is {}, want {}", case.file, case.name, got[k], want[k]));
                }
            }
            cases += 1;
        }
    }
    assert!(cases > 300, "only {cases} cases found");
    report(complaints, cases);
}

#[test]
fn losses_agree_with_the_oracle() {
    // 257: more than one workgroup's worth of odd columns.
    let shapes: Vec<&[usize]> = [SMALL_SHAPES, &[&[257], &[2, 257]]].concat();
    let (mut complaints, mut cases) = (Vec::new(), 0);
    for_each_case(&shapes, 2.5, |name, label, case| {
        cases += 1;
        let want = oracle::oracle(name, case).expect("an oracle");
        let loss = loss_of(name, case).expect("in the catalogue");
        match on_cpu(&loss, case, &[]) {
            // The textbook's 1 − p and ln(1 + x) lose digits of small losses: hence the absolute part.
            Ok(got) => {
                let off = mismatch(&got.loss, &want, 1e-12, |_| 1e-13 * (1.0 + largest(&want)));
                complaints.extend(off.map(|off| format!("{label}: loss {off}")));
            }
            Err(error) => complaints.push(format!("{label}: {error}")),
        }
    });
    report(complaints, cases);
}

#[test]
fn gradients_agree_with_differences_of_the_oracle() {
    let (mut complaints, mut cases) = (Vec::new(), 0);
    for_each_case(SMALL_SHAPES, 2.5, |name, label, case| {
        let loss = loss_of(name, case).expect("in the catalogue");
        let grads = differentiable(case);
        cases += 1;
        let got = match on_cpu(&loss, case, &grads) {
            Ok(got) => got,
            Err(error) => return complaints.push(format!("{label}: {error}")),
        };
        for input in grads {
            let want = oracle::gradient(name, case, input);
            let off = mismatch(&got.grads[input], &want, 1e-8, |_| 1e-9 * (1.0 + largest(&want)));
            complaints.extend(off.map(|off| format!("{label}: gradient of {input} {off}")));
        }
    });
    report(complaints, cases);
}

#[test]
fn hessian_diagonals_agree_with_differences_of_the_oracle() {
    let (mut complaints, mut cases) = (Vec::new(), 0);
    for (name, _) in CATALOGUE {
        let (input, _) = names(name);
        for options in option_sets(name) {
            for extras in [&[][..], optional_inputs(name)] {
                for shape in [&[7][..], &[3, 4], &[2, 3, 2]] {
                    for reduction in ["mean", "none"] {
                        let case = case(name, &options, shape, extras, reduction, 2.0);
                        let loss = loss_of(name, &case).expect("in the catalogue");
                        let label = format!("{name} {options:?} with {extras:?}, {reduction}, {shape:?}");
                        let want = oracle::hessian_diagonal(name, &case, input);
                        cases += 1;
                        match hessian_on_cpu(&loss, &case, input) {
                            Ok(got) => {
                                let off = mismatch(&got, &want, 1e-6, |_| 1e-7 * (1.0 + largest(&want)));
                                complaints.extend(off.map(|off| format!("{label}: {off}")));
                            }
                            Err(error) => complaints.push(format!("{label}: {error}")),
                        }
                    }
                }
            }
        }
    }
    report(complaints, cases);
}

#[test]
fn hessian_diagonal_of_cross_entropy_is_p_times_one_minus_p() -> wgloss::Result<()> {
    let case = case("cross_entropy", &vec![], &[2, 5], &[], "mean", 3.0);
    let diagonal = hessian_on_cpu(&losses::cross_entropy(), &case, "input")?;
    for (row, logits) in case.arrays["input"].values.chunks(5).enumerate() {
        for (col, log_p) in oracle::log_softmax(logits).into_iter().enumerate() {
            let p = log_p.exp();
            assert!((diagonal[row * 5 + col] - p * (1.0 - p) / 2.0).abs() < 1e-14, "row {row}, column {col}");
        }
    }
    Ok(())
}

/// The losses before the reduction, and what their sum was divided by.
fn terms(name: &str, case: &Case, reduced: &[f64]) -> (Vec<f64>, f64) {
    let unreduced = Case { reduction: "none".to_owned(), ..case.clone() };
    let terms = oracle::oracle(name, &unreduced).expect("an oracle");
    let sum: f64 = terms.iter().sum();
    let divided = !matches!(case.reduction.as_str(), "none" | "sum") && sum != 0.0;
    (terms, if divided { (sum / reduced[0]).abs() } else { 1.0 })
}

/// The numerics contract (design §6): how far the GPU's loss may be off, loss by loss.
fn loss_tolerance(name: &str, case: &Case, want: &Outcome) -> Vec<f64> {
    if matches!(family(name), Family::Total | Family::Penalty) {
        return want.loss.iter().map(|x| 2.2e-6 * x.abs()).collect();
    }
    if case.reduction == "none" {
        let reach = reach(name, case);
        return want.loss.iter().zip(reach).map(|(x, reach)| 2e-6 * x.abs() + 2e-7 * reach.max(1.0)).collect();
    }
    let (terms, divisor) = terms(name, case, &want.loss);
    let magnitude: f64 = terms.iter().map(|x| x.abs()).sum();
    vec![2e-6 * want.loss[0].abs() + 2e-7 * magnitude / divisor]
}

/// For each loss how far its logits reach: |x|, or in a row from the largest to the smallest. A Poisson loss is a
/// difference of rates, whose own last bits are all that f32 knows of it.
fn reach(name: &str, case: &Case) -> Vec<f64> {
    let input = &case.arrays[names(name).0];
    let axis = match family(name) {
        Family::Labels | Family::Probabilities => usize::from(input.shape.len() > 1),
        Family::Last => input.shape.len() - 1,
        _ if name == "poisson_nll" => return input.values.iter().map(|x| x.abs().max(x.exp())).collect(),
        _ => return input.values.iter().map(|x| x.abs()).collect(),
    };
    let range = |row: Vec<usize>| {
        let at = |&k: &usize| input.values[k];
        row.iter().map(at).fold(f64::MIN, f64::max) - row.iter().map(at).fold(f64::MAX, f64::min)
    };
    oracle::rows_of(&input.shape, axis).into_iter().map(range).collect()
}

/// Losses and gradients on the GPU, held against the CPU path. `None` where they agree.
fn gpu_mismatch(name: &str, case: &Case) -> Option<String> {
    let ctx = context()?;
    let loss = loss_of(name, case).expect("in the catalogue");
    let grads = differentiable(case);
    let want = match on_cpu(&loss, case, &grads) {
        Ok(want) => want,
        Err(error) => return Some(format!("CPU: {error}")),
    };
    let got = match on_gpu(ctx, &loss, case, &grads) {
        Ok(got) => got,
        Err(error) => return Some(format!("GPU: {error}")),
    };
    let tolerance = loss_tolerance(name, case, &want);
    if let Some(off) = mismatch(&got.loss, &want.loss, 0.0, |k| tolerance[k]) {
        return Some(format!("loss {off}"));
    }
    grads.iter().find_map(|input| {
        let scale = gradient_scale(name, input, case, &want);
        // The CPU path's f64 goes below f32's smallest normal number.
        let atol = |k: usize| 2e-6 * scale[k] + f64::from(f32::MIN_POSITIVE);
        let off = mismatch(&got.grads[*input], &want.grads[*input], 1e-6, atol)?;
        Some(format!("gradient of {input} {off}"))
    })
}

/// What the error of each gradient is measured by: the largest of its row; without rows, of all. The gradient of a
/// weight is a difference of losses: those count as well.
fn gradient_scale(name: &str, input: &str, case: &Case, want: &Outcome) -> Vec<f64> {
    let grad = &want.grads[input];
    let shape = &case.arrays[input].shape;
    let (main, target) = names(name);
    if input != main && input != target && input != "teacher_logits" {
        let (terms, divisor) = terms(name, case, &want.loss);
        return vec![largest(grad) + 2.0 * largest(&terms) / divisor; grad.len()];
    }
    if !matches!(family(name), Family::Labels | Family::Probabilities) {
        return vec![largest(grad); grad.len()];
    }
    let mut scale = vec![0.0; grad.len()];
    // That of a teacher too is a difference of losses, that of its student one of probabilities.
    let distilled = (name == "distillation").then(|| terms(name, case, &want.loss));
    for (place, row) in oracle::rows_of(shape, usize::from(shape.len() > 1)).into_iter().enumerate() {
        let mut most = row.iter().fold(0.0, |most, &k| grad[k].abs().max(most));
        if let Some((losses, divisor)) = &distilled {
            let temperature = case.num("temperature", 2.0);
            let logits: Vec<f64> = row.iter().map(|&k| case.arrays[main].values[k] / temperature).collect();
            let probability = oracle::log_softmax(&logits).into_iter().fold(f64::MIN, f64::max).exp();
            most += if input == main { temperature * probability } else { losses[place].abs() } / divisor;
        }
        row.iter().for_each(|&k| scale[k] = most);
    }
    scale
}

#[test]
fn gpu_agrees_with_the_cpu_path() {
    if context().is_none() {
        return;
    }
    let (mut complaints, mut cases) = (Vec::new(), 0);
    for (name, _) in CATALOGUE {
        for options in option_sets(name) {
            for (which, extras) in extras_of(name).into_iter().enumerate() {
                let reductions = reductions_of(name, &extras);
                // Every reduction with the plain inputs, one with each other set: pipelines are what this costs.
                let some = if which == 0 { &reductions[..] } else { &reductions[which % reductions.len()..][..1] };
                for reduction in some {
                    // 257: a row longer than a workgroup of 256, with an odd end.
                    for shape in [&[3, 5][..], &[2, 4, 3], &[3, 257]] {
                        let case = case(name, &options, shape, &extras, reduction, 3.0);
                        cases += 1;
                        let label = format!("{name} {options:?} with {extras:?}, {reduction}, {shape:?}");
                        complaints.extend(gpu_mismatch(name, &case).map(|off| format!("{label}: {off}")));
                    }
                }
            }
        }
    }
    report(complaints, cases);
}

#[test]
fn gpu_agrees_with_the_cpu_path_on_confident_and_far_off_rows() {
    if context().is_none() {
        return;
    }
    let (mut complaints, mut cases) = (Vec::new(), 0);
    let tried = [
        "cross_entropy",
        "z_loss",
        "softcap_cross_entropy",
        "distillation",
        "cross_entropy_prob",
        "multiclass_focal",
        "bce_with_logits",
        "sigmoid_focal",
    ];
    for name in tried {
        // Losses of 1e-6 and less beside losses of 30, and rows at a common offset.
        for (spread, offset) in [(30.0f64, 0.0), (3.0, 1e6), (3.0, -1e4), (0.0, 5.0)] {
            let by_class = family(name) != Family::Elements;
            if !by_class && offset != 0.0 {
                continue;
            }
            for options in option_sets(name) {
                for reduction in ["none", "mean"] {
                    let mut case = case(name, &options, &[6, 9], &[], reduction, spread.max(0.1));
                    for x in &mut case.arrays.get_mut(names(name).0).expect("the input").values {
                        *x = f64::from((if spread == 0.0 { 0.0 } else { *x } + offset) as f32);
                    }
                    cases += 1;
                    let off = gpu_mismatch(name, &case);
                    complaints
                        .extend(off.map(|off| format!("{name} {options:?} {reduction} ±{spread} + {offset}: {off}")));
                }
            }
        }
    }
    report(complaints, cases);
}

/// An element of an input that the first loss depends on.
fn element_that_counts(name: &str, case: &Case, input: &str) -> usize {
    let Some((labels, _)) = &case.labels else { return 0 };
    let shape = &case.arrays[names(name).0].shape;
    let label = labels[0] as usize;
    match input {
        "input" | "student_logits" | "teacher_logits" => oracle::rows_of(shape, usize::from(shape.len() > 1))[0][label],
        "weight" | "alpha" => label,
        "sample_weight" => 0,
        other => panic!("{name} has no input {other}"),
    }
}

#[test]
fn nan_in_an_element_gives_nan_out() {
    let mut complaints = Vec::new();
    let mut cases = 0;
    for (name, _) in CATALOGUE {
        let mut extras = optional_inputs(name).to_vec();
        if !matches!(family(name), Family::Total | Family::Penalty) {
            extras.push("sample_weight");
        }
        for options in option_sets(name) {
            for reduction in ["mean", "none"] {
                let clean = case(name, &options, &[3, 5], &extras, reduction, 2.0);
                let loss = loss_of(name, &clean).expect("in the catalogue");
                for input in differentiable(&clean) {
                    let mut case = clean.clone();
                    let place = element_that_counts(name, &clean, input);
                    case.arrays.get_mut(input).expect("the input").values[place] = f64::NAN;
                    cases += 1;
                    let mut look = |path: &str, outcome: wgloss::Result<Outcome>| match outcome {
                        Ok(got) if got.loss[0].is_nan() => {}
                        Ok(got) => {
                            complaints.push(format!("{path} {name} {options:?} {reduction} {input}: {}", got.loss[0]))
                        }
                        Err(error) => {
                            complaints.push(format!("{path} {name} {options:?} {reduction} {input}: {error}"))
                        }
                    };
                    look("CPU", on_cpu(&loss, &case, &[names(name).0]));
                    if let Some(ctx) = context() {
                        look("GPU", on_gpu(ctx, &loss, &case, &[names(name).0]));
                    }
                }
            }
        }
    }
    report(complaints, cases);
}

#[test]
fn an_ignored_or_masked_loss_is_exactly_zero_whatever_it_holds() {
    let mut complaints = Vec::new();
    let mut cases = 0;
    for (name, _) in CATALOGUE {
        if matches!(family(name), Family::Total | Family::Penalty) {
            continue;
        }
        let (input, _) = names(name);
        for bad in [f64::NAN, f64::INFINITY] {
            for reduction in ["sum", "none"] {
                // Rows 1 and 4 are masked, or (labels) ignored. Elements: those whose place leaves 1 by 3.
                let labels = family(name) == Family::Labels;
                let options = match name {
                    &"distillation" => vec![("ignore_index", oracle::Opt::Index(Some(-100)))],
                    _ => vec![],
                };
                let mut case = case(name, &options, &[6, 5], if labels { &[] } else { &["mask"] }, reduction, 2.0);
                let clean = case.clone();
                let values = &mut case.arrays.get_mut(input).expect("the input").values;
                let elements = if family(name) == Family::Elements { 1 } else { 5 };
                let out: Vec<usize> = (0..30).filter(|k| k / elements % 3 == 1).collect();
                out.iter().for_each(|&k| values[k] = bad);
                let loss = loss_of(name, &case).expect("in the catalogue");
                cases += 1;
                let mut look = |path: &str, got: wgloss::Result<Outcome>, want: wgloss::Result<Outcome>| {
                    let (got, want) = match (got, want) {
                        (Ok(got), Ok(want)) => (got, want),
                        (Err(error), _) | (_, Err(error)) => return complaints.push(format!("{path} {name}: {error}")),
                    };
                    let exact = out.iter().all(|&k| got.grads[input][k] == 0.0);
                    // Bit for bit what it is without the bad numbers.
                    if !exact || got.loss != want.loss || got.grads != want.grads {
                        complaints.push(format!("{path} {name}, {reduction}, {bad} left out: {:?}", got.loss));
                    }
                };
                look("CPU", on_cpu(&loss, &case, &[input]), on_cpu(&loss, &clean, &[input]));
                if let Some(ctx) = context() {
                    look("GPU", on_gpu(ctx, &loss, &case, &[input]), on_gpu(ctx, &loss, &clean, &[input]));
                }
            }
        }
    }
    report(complaints, cases);
}

#[test]
fn unsigned_labels_are_the_same_labels() -> wgloss::Result<()> {
    let x = [0.5f32, -1.0, 2.0, 0.0, 1.0, 3.0];
    for loss in [losses::cross_entropy(), losses::nll(), losses::multiclass_focal()] {
        // No unsigned label is −100, so that the mean is over all rows.
        for loss in [loss.clone(), loss.reduction(Reduction::None)] {
            let input = ("input", HostTensor::f32(&x, &[2, 3]));
            let signed = [input.clone(), ("target", HostTensor::i32(&[2, 0], &[2]))];
            let unsigned = [input, ("target", HostTensor::u32(&[2, 0], &[2]))];
            let signed = cpu::forward_backward(&loss, &signed, &["input"])?;
            let unsigned = cpu::forward_backward(&loss, &unsigned, &["input"])?;
            assert_eq!(signed.loss_values()?, unsigned.loss_values()?, "{}", loss.name());
            assert_eq!(signed.grad("input")?, unsigned.grad("input")?, "{}", loss.name());
        }
    }
    Ok(())
}

#[test]
fn a_label_of_probability_zero_has_infinite_loss_with_smoothing_too() -> wgloss::Result<()> {
    let x = [f32::NEG_INFINITY, 0.0, 1.0];
    let inputs = [("input", HostTensor::f32(&x, &[1, 3])), ("target", HostTensor::i32(&[0], &[1]))];
    for loss in [losses::cross_entropy(), losses::cross_entropy().label_smoothing(0.1)] {
        let out = cpu::forward_backward(&loss, &inputs, &["input"])?;
        assert_eq!(out.loss()?, f64::INFINITY);
        assert!(out.grad("input")?.iter().all(|g| g.is_finite()), "{:?}", out.grad("input"));
    }
    Ok(())
}

#[test]
fn a_capped_logit_of_minus_infinity_is_still_probability_zero() -> wgloss::Result<()> {
    // Capped after the mask, the two masked classes would each weigh exp(−2) against the others' exp(2).
    let x = [f32::NEG_INFINITY, 50.0, 50.0, f32::NEG_INFINITY];
    for loss in [losses::softcap_cross_entropy(2.0), losses::cross_entropy().softcap(2.0).logit_scale(0.5)] {
        let shapes = (&[1, 4][..], &[1][..]);
        let inputs = [("input", HostTensor::f32(&x, shapes.0)), ("target", HostTensor::i32(&[1], shapes.1))];
        let out = cpu::forward_backward(&loss, &inputs, &["input"])?;
        assert!((out.loss()? - 2f64.ln()).abs() < 1e-12, "{}", out.loss()?);
        assert!(out.grad("input")?[0] == 0.0 && out.grad("input")?[3] == 0.0);
        let Some(ctx) = context() else { continue };
        let (x, y) = (Tensor::from_slice(ctx, &x, shapes.0)?, Tensor::from_slice(ctx, &[1i32], shapes.1)?);
        let out = loss.forward_backward(ctx, &[("input", &x), ("target", &y)])?;
        assert!((f64::from(out.loss()?) - 2f64.ln()).abs() < 1e-6, "{}", out.loss()?);
        let grad = out.grad("input")?.to_vec::<f32>()?;
        assert!(grad[0] == 0.0 && grad[3] == 0.0, "{grad:?}");
    }
    Ok(())
}

#[test]
fn masked_classes_add_nothing_to_the_entropy() -> wgloss::Result<()> {
    let x = [f32::NEG_INFINITY, 0.0, 0.0, -200.0];
    let inputs = [("input", HostTensor::f32(&x, &[1, 4])), ("target", HostTensor::i32(&[1], &[1]))];
    let loss = losses::cross_entropy().entropy_bonus(0.5);
    let out = cpu::forward_backward(&loss, &inputs, &["input"])?;
    assert!((out.loss()? - 0.5 * 2f64.ln()).abs() < 1e-12, "{}", out.loss()?);
    assert_eq!(out.grad("input")?[0], 0.0);
    let Some(ctx) = context() else { return Ok(()) };
    let (x, y) = (Tensor::from_slice(ctx, &x, &[1, 4])?, Tensor::from_slice(ctx, &[1i32], &[1])?);
    let out = loss.forward_backward(ctx, &[("input", &x), ("target", &y)])?;
    assert!((f64::from(out.loss()?) - 0.5 * 2f64.ln()).abs() < 1e-6, "{}", out.loss()?);
    assert_eq!(out.grad("input")?.to_vec::<f32>()?[0], 0.0);
    Ok(())
}

#[test]
fn gradients_of_confident_rows_keep_their_digits_however_they_are_reduced() {
    // The label is certain to 1e-5, 1e-3 and 1e-2: so small is the gradient beside what cancels in it.
    let x: Vec<f64> = (0..51).map(|k| f64::from([14.5f32, 9.75, 7.5][k / 17]) * f64::from(k % 17 == 3)).collect();
    let wavy = |k: usize| f64::from((x[k] + 0.5 * (k as f64).sin()) as f32);
    let input = oracle::Array::new(&[3, 17], (0..51).map(wavy).collect());
    for (entropy_bonus, softcap) in [(0.0, 0.0), (0.5, 0.0), (0.0, 30.0)] {
        for reduction in ["none", "sum", "mean"] {
            let options = [("entropy_bonus", entropy_bonus), ("softcap", softcap)];
            let case = Case {
                arrays: [("input".to_owned(), input.clone())].into(),
                options: options.map(|(name, value)| (name.to_owned(), oracle::Opt::Num(value))).into(),
                reduction: reduction.to_owned(),
                labels: Some((vec![3; 3], vec![3])),
            };
            assert_eq!(gpu_mismatch("cross_entropy", &case), None, "{options:?}, {reduction}");
        }
    }
}

#[test]
fn options_that_are_off_leave_the_program_as_it_is() -> wgloss::Result<()> {
    let program = |loss: &Loss| {
        let wanted = Wanted { loss: true, grads: vec!["input".to_owned()], ..Wanted::default() };
        lower(loss, &wanted, &|name| ["input", "target"].contains(&name).then_some(false))
    };
    let plain = program(&losses::cross_entropy())?;
    let off = losses::cross_entropy().logit_scale(1.0).softcap(0.0).lse_square_scale(0.0).entropy_bonus(0.0);
    assert_eq!(program(&off)?, plain);
    assert_eq!(plain.passes.len(), 2, "one over the labels, one over the logits");
    assert_eq!(plain.passes[1].stages.len(), 1);
    Ok(())
}

#[test]
fn jsd_of_distributions_with_zeros_is_finite_where_it_is_defined() -> wgloss::Result<()> {
    let never = f32::NEG_INFINITY;
    let half = 0.5f32.ln();
    // Both lack the last class. The third lacks what the fourth has; −150 is 0 in f32.
    let q = [0.0, never, never, half, half, never, half, half, never, 0.0, -150.0, never];
    let p = [never, 0.0, never, half, half, never, 0.0, never, never, 0.0, never, never];
    let quarter = 0.5 * (4f64 / 3.0).ln();
    let of_0 = [f64::INFINITY, 0.0, 2f64.ln(), 0.0];
    let of_1 = [f64::INFINITY, 0.0, f64::INFINITY, f64::INFINITY];
    let of_half = [2f64.ln(), 0.0, quarter + 0.25 * 2f64.ln() - 0.25 * 1.5f64.ln(), 0.0];
    for (beta, want) in [(0.0, of_0), (1.0, of_1), (0.5, of_half)] {
        let loss = losses::jsd(beta).reduction(Reduction::None);
        let inputs = [("input", HostTensor::f32(&q, &[4, 3])), ("target", HostTensor::f32(&p, &[4, 3]))];
        let out = cpu::forward_backward(&loss, &inputs, &["input", "target"])?;
        assert_eq!(mismatch(out.loss_values()?, &want, 1e-7, |_| 1e-7), None, "CPU, β = {beta}");
        if beta == 0.5 {
            let finite = |name: &str| out.grad(name).is_ok_and(|grad| grad.iter().all(|g| g.is_finite()));
            assert!(finite("input") && finite("target"));
        }
        let Some(ctx) = context() else { continue };
        let (x, y) = (Tensor::from_slice(ctx, &q, &[4, 3])?, Tensor::from_slice(ctx, &p, &[4, 3])?);
        let got = loss.forward_backward_of(ctx, &[("input", &x), ("target", &y)], &["input", "target"])?;
        let values: Vec<f64> = got.loss_values()?.into_iter().map(f64::from).collect();
        // Where e⁻¹⁵⁰ is 0 its product with ln 0 is 0 too.
        let row = |k: usize| beta != 1.0 || k != 3;
        let (values, want): (Vec<f64>, Vec<f64>) = (0..4).filter(|k| row(*k)).map(|k| (values[k], want[k])).unzip();
        assert_eq!(mismatch(&values, &want, 2e-6, |_| 2e-7), None, "GPU, β = {beta}");
        if beta == 0.5 {
            for name in ["input", "target"] {
                assert!(got.grad(name)?.to_vec::<f32>()?.iter().all(|g| g.is_finite()), "{name}");
            }
        }
    }
    Ok(())
}

#[test]
fn gradient_of_jsd_keeps_its_digits_between_near_equal_distributions() -> wgloss::Result<()> {
    let Some(ctx) = context() else { return Ok(()) };
    // Logarithms 1e-4 and less apart: the gradient is that much smaller than what cancels in it.
    let x: Vec<f64> = (0..40).map(|k| f64::from((-3.0 - f64::from(k % 7) / 4.0) as f32)).collect();
    let near = |k: usize| f64::from((x[k] + 1e-4 * (k as f64).sin()) as f32);
    let y: Vec<f64> = (0..40).map(near).collect();
    for beta in [0.5, 0.1] {
        let arrays = [("input", x.clone()), ("target", y.clone())];
        let array = |(name, values): (&str, Vec<f64>)| (name.to_owned(), oracle::Array::new(&[2, 20], values));
        let options = [("beta".to_owned(), oracle::Opt::Num(beta))].into();
        let case = Case { arrays: arrays.map(array).into(), options, reduction: "none".to_owned(), labels: None };
        let loss = losses::jsd(beta).reduction(Reduction::None);
        let (got, want) = (on_gpu(ctx, &loss, &case, &["input"])?, on_cpu(&loss, &case, &["input"])?);
        let (got, want) = (&got.grads["input"], &want.grads["input"]);
        assert_eq!(mismatch(got, want, 1e-6, |_| 2e-6 * largest(want)), None, "β = {beta}");
    }
    Ok(())
}

#[test]
fn distillation_with_zeros_is_finite_where_it_is_defined() -> wgloss::Result<()> {
    let never = f32::NEG_INFINITY;
    // The teacher's zeros are the student's, the teacher's alone, the student's alone; the last teacher is certain.
    let student = [0.0, 0.0, never, 0.0, 0.0, 0.0, 0.0, 0.0, never, 1e6, 1e6, 1e6];
    let teacher = [0.0, 0.0, never, 0.0, 0.0, never, 0.0, 0.0, 0.0, 1e4, -1e4, -1e4];
    let (two, three) = (2f64.ln(), 3f64.ln());
    let labels = [0i32; 4];
    for temperature in [1.0, 2.0] {
        let soft = [0.0, 1.5f64.ln(), f64::INFINITY, three].map(|kl| 0.5 * temperature * temperature * kl);
        let want: Vec<f64> = soft.iter().zip([two, three, two, three]).map(|(soft, hard)| soft + 0.5 * hard).collect();
        let loss = losses::distillation(0.5, temperature).reduction(Reduction::None);
        let inputs = [
            ("student_logits", HostTensor::f32(&student, &[4, 3])),
            ("teacher_logits", HostTensor::f32(&teacher, &[4, 3])),
            ("target", HostTensor::i32(&labels, &[4])),
        ];
        let both = ["student_logits", "teacher_logits"];
        let out = cpu::forward_backward(&loss, &inputs, &both)?;
        assert_eq!(mismatch(out.loss_values()?, &want, 1e-12, |_| 1e-12), None, "CPU, T = {temperature}");
        assert!(out.grad("student_logits")?.iter().all(|g| g.is_finite()));
        assert!(out.grad("teacher_logits")?[..6].iter().all(|g| g.is_finite()));
        let Some(ctx) = context() else { continue };
        let tensor = |x: &[f32]| Tensor::from_slice(ctx, x, &[4, 3]);
        let (x, t, y) = (tensor(&student)?, tensor(&teacher)?, Tensor::from_slice(ctx, &labels, &[4])?);
        let inputs = [("student_logits", &x), ("teacher_logits", &t), ("target", &y)];
        let out = loss.forward_backward_of(ctx, &inputs, &both)?;
        let values: Vec<f64> = out.loss_values()?.into_iter().map(f64::from).collect();
        assert_eq!(mismatch(&values, &want, 2e-6, |_| 2e-7), None, "GPU, T = {temperature}");
        assert!(out.grad("student_logits")?.to_vec::<f32>()?.iter().all(|g| g.is_finite()));
        assert!(out.grad("teacher_logits")?.to_vec::<f32>()?[..6].iter().all(|g| g.is_finite()));
    }
    Ok(())
}

#[test]
fn distillation_at_alpha_0_and_1_is_its_parts() -> wgloss::Result<()> {
    let (x, t) = ([0.5f32, -1.0, 2.0, 0.0, 1.0, 3.0], [0.0f32, 1.0, 0.5, -2.0, 0.25, 1.0]);
    let inputs =
        |main: &'static str| [(main, HostTensor::f32(&x, &[2, 3])), ("target", HostTensor::i32(&[2, 0], &[2]))];
    let hard = cpu::forward_backward(&losses::cross_entropy(), &inputs("input"), &["input"])?;
    let [student, labels] = inputs("student_logits");
    let all = [student, ("teacher_logits", HostTensor::f32(&t, &[2, 3])), labels];
    let both = ["student_logits", "teacher_logits"];
    let out = cpu::forward_backward(&losses::distillation(0.0, 2.0), &all, &both)?;
    assert_eq!(out.loss()?, hard.loss()?);
    assert_eq!(out.grad("student_logits")?, hard.grad("input")?);
    assert_eq!(out.grad("teacher_logits")?, [0.0; 6]);
    // A student that has become its teacher.
    let same = [all[0].clone(), ("teacher_logits", HostTensor::f32(&x, &[2, 3])), all[2].clone()];
    let out = cpu::forward_backward(&losses::distillation(1.0, 3.0), &same, &both)?;
    assert_eq!(
        (out.loss()?, out.grad("student_logits")?, out.grad("teacher_logits")?),
        (0.0, &[0.0; 6][..], &[0.0; 6][..])
    );
    Ok(())
}
