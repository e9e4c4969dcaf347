//! Every loss of the catalogue, over its options, reductions and shapes: the CPU path against the oracle, the GPU
//! path against the CPU path, NaN and masks. What only the softmax family promises is in `softmax.rs`.
//!
//! Of the grid, both paths take the share that `WGLOSS_TEST_SHARE` says.

use crate::common::cases::{Family, Options, SMALL_SHAPES, case, extras_of, family, for_each_case, names};
use crate::common::cases::{option_sets, optional_inputs, reductions_of, scope_of, tried};
use crate::common::compare::{largest, mismatch, report};
use crate::common::oracle::{self, Case};
use crate::common::real::{Dual, Real};
use crate::common::share::Share;
use crate::common::{Outcome, context, context_for, golden, hessian_on_cpu, loss_of, on_cpu, on_gpu};
use rayon::prelude::*;
use wgloss::losses::{Entry, Range};
use wgloss::{Context, Error, HostTensor, Loss, Reduction, Scope, cpu, losses};

/// Inputs of numbers that the loss has a gradient for: all but a mask and integers.
fn differentiable(case: &Case) -> Vec<&str> {
    let numbers = case.arrays.keys().map(String::as_str).filter(|name| !case.integers.contains(*name));
    numbers.filter(|name| *name != "mask").collect()
}

#[test]
fn the_shares_of_a_grid_have_each_case_once() {
    let share = |text: &str| Share::parse(text).expect("a share");
    let mut sizes = [0; 3];
    for k in 0..1000 {
        let label = format!("huber [(\"delta\", Num(0.5))], mean, [3, {k}]");
        assert!(Share::ALL.takes(&label));
        let takes: Vec<usize> = (0..3).filter(|index| share(&format!("{index}/3")).takes(&label)).collect();
        assert_eq!(takes.len(), 1, "{label}");
        sizes[takes[0]] += 1;
    }
    assert!(sizes.iter().all(|size| (250..420).contains(size)), "{sizes:?}");
    assert_eq!(share("7/3"), share("1/3"));
    assert_eq!((Share::parse("1/0"), Share::parse("1"), Share::parse("-1/3")), (None, None, None));
}

#[test]
fn every_loss_has_an_oracle() {
    for Entry { name, .. } in tried() {
        let case = case(name, &vec![], &[3, 5], &[], "mean", 2.0);
        assert!(oracle::oracle(name, &case).is_some(), "{name} has no oracle in tests/common/oracle/");
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
fn dual_numbers_have_the_derivatives_of_differences() {
    type Function = (&'static str, fn(Dual) -> Dual);
    let functions: [Function; 14] = [
        ("exp", Dual::exp),
        ("exp_m1", Dual::exp_m1),
        ("ln", Dual::ln),
        ("ln_1p", Dual::ln_1p),
        ("sqrt", Dual::sqrt),
        ("tanh", Dual::tanh),
        ("lgamma", Dual::lgamma),
        ("erf", Dual::erf),
        ("abs", |x| (-x).abs() * x),
        ("powf", |x| x.powf(2.5)),
        ("at_least", |x| x.at_least(0.1) * x.at_least(9.0)),
        ("product", |x| (x + 2.0) * x.squared()),
        ("quotient", |x| (x.squared() - 3.0) / (x * x + 1.0) / 2.0),
        ("sum", |x| [x, x * x, Dual::constant(1.0) - x * x * x].into_iter().sum()),
    ];
    for (name, f) in functions {
        for x in [0.3, 0.9, 1.7] {
            let got = f(Dual::variable(x));
            let at = |steps: f64| f(Dual::constant(x + steps * 1e-3)).value;
            let slope = (8.0 * (at(1.0) - at(-1.0)) - (at(2.0) - at(-2.0))) / 12e-3;
            let curvature = (16.0 * (at(1.0) + at(-1.0)) - (at(2.0) + at(-2.0)) - 30.0 * at(0.0)) / 12e-6;
            assert_eq!(got.value, at(0.0), "{name}");
            assert!((got.first - slope).abs() < 1e-8 * (1.0 + slope.abs()), "{name} at {x}: {got:?}, want {slope}");
            assert!((got.second - curvature).abs() < 1e-6 * (1.0 + curvature.abs()), "{name} at {x}: {got:?}");
        }
    }
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
fn gradients_agree_with_derivatives_of_the_oracle() {
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
            let off = mismatch(&got.grads[input], &want, 1e-12, |_| 1e-12 * (1.0 + largest(&want)));
            complaints.extend(off.map(|off| format!("{label}: gradient of {input} {off}")));
        }
    });
    report(complaints, cases);
}

#[test]
fn hessian_diagonals_agree_with_derivatives_of_the_oracle() {
    let (mut complaints, mut cases) = (Vec::new(), 0);
    for Entry { name, .. } in tried() {
        let (input, _) = names(name);
        if scope_of(&losses::by_name(name).expect("in the catalogue"), input) != Scope::Element {
            continue;
        }
        for options in option_sets(name) {
            for extras in [vec![], optional_inputs(name)] {
                for shape in [&[7][..], &[3, 4], &[2, 3, 2]] {
                    for reduction in ["mean", "none"] {
                        let case = case(name, &options, shape, &extras, reduction, 2.0);
                        let loss = loss_of(name, &case).expect("in the catalogue");
                        let label = format!("{name} {options:?} with {extras:?}, {reduction}, {shape:?}");
                        let want = oracle::hessian_diagonal(name, &case, input);
                        cases += 1;
                        match hessian_on_cpu(&loss, &case, input) {
                            // Rows share sums on which their gradient depends.
                            Err(Error::Unsupported { .. }) => {}
                            Ok(got) => {
                                let off = mismatch(&got, &want, 1e-11, |_| 1e-11 * (1.0 + largest(&want)));
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
        let taken_from = oracle::magnitudes(name, case).expect("an oracle");
        return want.loss.iter().zip(taken_from).map(|(x, from)| 2e-6 * x.abs() + 2e-7 * from.max(1.0)).collect();
    }
    let (terms, divisor) = terms(name, case, &want.loss);
    let magnitude: f64 = terms.iter().map(|x| x.abs()).sum();
    vec![2e-6 * want.loss[0].abs() + 2e-7 * magnitude / divisor]
}

/// Losses and gradients on the GPU, held against the CPU path. `None` where they agree.
fn gpu_mismatch(ctx: &Context, name: &str, case: &Case) -> Option<String> {
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
    let loss = loss_of(name, case).expect("in the catalogue");
    let is_weight = loss.inputs().iter().all(|spec| spec.name != input || spec.optional);
    if is_weight {
        let (terms, divisor) = terms(name, case, &want.loss);
        return vec![largest(grad) + 2.0 * largest(&terms) / divisor; grad.len()];
    }
    if !matches!(family(name), Family::Labels | Family::Probabilities) {
        return vec![largest(grad); grad.len()];
    }
    let mut scale = vec![0.0; grad.len()];
    let taken_from = oracle::gradient_magnitudes(name, case, input).map(|from| (from, terms(name, case, &want.loss).1));
    for (place, row) in oracle::rows_of(shape, usize::from(shape.len() > 1)).into_iter().enumerate() {
        let largest = row.iter().fold(0.0, |most, &k| grad[k].abs().max(most));
        let most = largest + taken_from.as_ref().map_or(0.0, |(from, divisor)| from[place] / divisor);
        row.iter().for_each(|&k| scale[k] = most);
    }
    scale
}

#[test]
fn gpu_agrees_with_the_cpu_path() {
    if context().is_none() {
        return;
    }
    // Side by side: pipelines are what this costs.
    let each = |name: &'static str| option_sets(name).into_iter().map(move |options| (name, options));
    let all: Vec<_> = tried().flat_map(|entry| each(entry.name)).collect();
    let found: Vec<(Vec<String>, usize)> =
        all.into_par_iter().with_max_len(1).map(|(name, options)| gpu_mismatches(name, &options)).collect();
    let cases = found.iter().map(|(_, cases)| cases).sum();
    report(found.into_iter().flat_map(|(complaints, _)| complaints).collect(), cases);
}

/// What differs from the CPU path over a loss's inputs and reductions, and how many cases there were.
fn gpu_mismatches(name: &str, options: &Options) -> (Vec<String>, usize) {
    let (mut complaints, mut cases) = (Vec::new(), 0);
    for (which, extras) in extras_of(name).into_iter().enumerate() {
        let reductions = reductions_of(name, &extras);
        // Every reduction with the plain inputs, one with each other set.
        let some = if which == 0 { &reductions[..] } else { &reductions[which % reductions.len()..][..1] };
        for reduction in some {
            // 257: a row longer than a workgroup of 256, with an odd end.
            for shape in [&[3, 5][..], &[2, 4, 3], &[3, 257]] {
                let label = format!("{name} {options:?} with {extras:?}, {reduction}, {shape:?}");
                let Some(ctx) = context_for(&label) else { continue };
                let case = case(name, options, shape, &extras, reduction, 3.0);
                cases += 1;
                complaints.extend(gpu_mismatch(ctx, name, &case).map(|off| format!("{label}: {off}")));
            }
        }
    }
    (complaints, cases)
}

#[test]
fn gpu_agrees_with_the_cpu_path_on_confident_and_far_off_rows() {
    if context().is_none() {
        return;
    }
    let (mut complaints, mut cases) = (Vec::new(), 0);
    let of_logits = |entry: &&Entry| entry.range(&(entry.make)(), names(entry.name).0) == Range::Logits;
    let tried = tried().filter(of_logits).map(|entry| entry.name);
    for name in tried {
        // Losses of 1e-6 and less beside losses of 30, and rows at a common offset.
        for (spread, offset) in [(30.0f64, 0.0), (3.0, 1e6), (3.0, -1e4), (0.0, 5.0)] {
            let by_class = family(name) != Family::Elements;
            if !by_class && offset != 0.0 {
                continue;
            }
            for options in option_sets(name) {
                for reduction in ["none", "mean"] {
                    let Some(ctx) = context_for(&format!("far off {name} {options:?} {reduction}")) else { continue };
                    let mut case = case(name, &options, &[6, 9], &[], reduction, spread.max(0.1));
                    for x in &mut case.arrays.get_mut(names(name).0).expect("the input").values {
                        *x = f64::from((if spread == 0.0 { 0.0 } else { *x } + offset) as f32);
                    }
                    cases += 1;
                    let off = gpu_mismatch(ctx, name, &case);
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
    // Class 0 does not count without the background.
    let is_element = case.arrays[input].shape.len() == case.arrays[names(name).0].shape.len();
    let first = is_element && case.options.get("include_background") == Some(&oracle::Opt::Flag(false));
    let Some((labels, _)) = case.labels.as_ref().filter(|_| family(name) != Family::Elements) else {
        return usize::from(first);
    };
    let shape = &case.arrays[names(name).0].shape;
    // Of one class more than columns, the last reaches the last column.
    let label = |cols: usize| (labels[0] as usize).min(cols - 1);
    let loss = loss_of(name, case).expect("in the catalogue");
    match loss.inputs().iter().find(|spec| spec.name == input).map(|spec| spec.scope) {
        Some(Scope::Element) => {
            let row = &oracle::rows_of(shape, usize::from(shape.len() > 1))[0];
            row[label(row.len())]
        }
        Some(Scope::Column) => label(case.arrays[input].values.len()),
        // The first row's, or `sample_weight`.
        Some(Scope::Row) | None => 0,
        other => panic!("{name}'s input {input} has scope {other:?}"),
    }
}

#[test]
fn nan_in_an_element_gives_nan_out() {
    let mut complaints = Vec::new();
    let mut cases = 0;
    for Entry { name, .. } in tried() {
        let mut extras = optional_inputs(name);
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
                    if let Some(ctx) = context_for(&format!("NaN {name} {options:?} {reduction}")) {
                        look("GPU", on_gpu(ctx, &loss, &case, &[names(name).0]));
                    }
                }
            }
        }
    }
    report(complaints, cases);
}

fn has_option(loss: &Loss, name: &str) -> bool {
    loss.options().iter().any(|option| option.name == name)
}

#[test]
fn an_ignored_or_masked_loss_is_exactly_zero_whatever_it_holds() {
    let mut complaints = Vec::new();
    let mut cases = 0;
    for Entry { name, .. } in tried() {
        if matches!(family(name), Family::Total | Family::Penalty) {
            continue;
        }
        let (input, _) = names(name);
        for bad in [f64::NAN, f64::INFINITY] {
            for reduction in ["sum", "none"] {
                // Rows 1 and 4 are masked, or (labels) ignored. Elements: those whose place leaves 1 by 3.
                let labels = has_option(&losses::by_name(name).expect("in the catalogue"), "ignore_index");
                let options = if labels { vec![("ignore_index", oracle::Opt::Index(Some(-100)))] } else { vec![] };
                let mut case = case(name, &options, &[6, 5], if labels { &[] } else { &["mask"] }, reduction, 2.0);
                let rows = case.arrays.get("mask").filter(|_| family(name) != Family::Elements);
                if rows.is_some_and(|mask| mask.values.len() != 6) {
                    continue;
                }
                let clean = case.clone();
                let values = &mut case.arrays.get_mut(input).expect("the input").values;
                let elements = if family(name) == Family::Elements { 1 } else { values.len() / 6 };
                let out: Vec<usize> = (0..values.len()).filter(|k| k / elements % 3 == 1).collect();
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
                if let Some(ctx) = context_for(&format!("left out {name} {reduction}")) {
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
    let all: [Loss; 3] = [losses::cross_entropy().into(), losses::nll().into(), losses::multiclass_focal().into()];
    for loss in all {
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
                ..Case::default()
            };
            let Some(ctx) = context() else { continue };
            assert_eq!(gpu_mismatch(ctx, "cross_entropy", &case), None, "{options:?}, {reduction}");
        }
    }
}
