//! Every loss of the catalogue, over its options, reductions and shapes: the CPU path against the oracle, the GPU
//! path against the CPU path, NaN and masks.
//!
//! The data keep clear of kinks and clamps, where differences of the oracle say nothing; golden data check those.

mod common;

use common::oracle::{self, Array, Case, Opt};
use common::{Outcome, context, golden, hessian_on_cpu, loss_of, on_cpu, on_gpu};
use std::collections::BTreeMap;
use wgloss::losses::CATALOGUE;
use wgloss::{HostTensor, Reduction, cpu, losses};

/// What the tests need to know of a loss: its family of inputs.
#[derive(Clone, Copy, PartialEq)]
enum Family {
    /// Two inputs, one loss an element.
    Elements,
    /// Two inputs, one loss in all.
    Total,
    /// `y_true` and `y_pred`, one loss for the last axis.
    Last,
    /// Scores and one label a row.
    Labels,
    /// Scores and probabilities a row.
    Probabilities,
    /// One input, one loss in all.
    Penalty,
}

fn family(name: &str) -> Family {
    match name {
        "rmse" => Family::Total,
        "log_cosh" | "hinge" | "squared_hinge" => Family::Last,
        "cross_entropy" | "nll" | "multiclass_focal" => Family::Labels,
        "cross_entropy_prob" => Family::Probabilities,
        "l1_penalty" | "l2_penalty" => Family::Penalty,
        _ => Family::Elements,
    }
}

/// The input and the target of a loss, by name. A penalty has no target.
fn names(name: &str) -> (&'static str, &'static str) {
    match family(name) {
        Family::Last => ("y_pred", "y_true"),
        Family::Penalty => ("w", ""),
        _ if name == "sigmoid_focal" => ("inputs", "targets"),
        _ => ("input", "target"),
    }
}

/// The optional inputs that a loss declares itself.
fn optional_inputs(name: &str) -> &'static [&'static str] {
    match name {
        "l1" | "mse" | "huber" | "bce" | "cross_entropy" | "cross_entropy_prob" | "nll" => &["weight"],
        "bce_with_logits" => &["weight", "pos_weight"],
        "multiclass_focal" => &["alpha"],
        _ => &[],
    }
}

type Options = Vec<(&'static str, Opt)>;

/// The options that a loss is tried with: the default, and each that makes another expression.
fn option_sets(name: &str) -> Vec<Options> {
    use Opt::{Flag, Index, Num};
    let each = |option: &'static str, values: &[f64]| values.iter().map(|v| vec![(option, Num(*v))]).collect();
    match name {
        "huber" => each("delta", &[1.0, 0.5]),
        "smooth_l1" => each("beta", &[1.0, 0.5, 0.0]),
        "quantile" => each("tau", &[0.5, 0.1, 0.9]),
        "l1_penalty" | "l2_penalty" => each("lambda", &[1.0, 0.3]),
        "cross_entropy_prob" => each("label_smoothing", &[0.0, 0.1]),
        "kl_div" => vec![vec![("log_target", Flag(false))], vec![("log_target", Flag(true))]],
        "hinge" | "squared_hinge" => vec![vec![], vec![("convert_binary", Flag(false))]],
        "poisson_nll" => vec![
            vec![],
            vec![("full", Flag(true))],
            vec![("log_input", Flag(false)), ("eps", Num(0.001))],
            vec![("log_input", Flag(false)), ("full", Flag(true))],
        ],
        "sigmoid_focal" => [(2.0, 0.25), (0.0, 0.25), (1.0, -1.0), (0.5, 0.75), (3.5, -1.0)]
            .map(|(gamma, alpha)| vec![("gamma", Num(gamma)), ("alpha", Num(alpha))])
            .to_vec(),
        "multiclass_focal" => each("gamma", &[2.0, 0.0, 1.0, 0.5, 3.5]),
        "nll" => vec![vec![], vec![("ignore_index", Index(None))], vec![("ignore_index", Index(Some(1)))]],
        "cross_entropy" => vec![
            vec![],
            vec![("label_smoothing", Num(0.1))],
            vec![("label_smoothing", Num(1.0))],
            vec![("temperature", Num(0.7))],
            vec![("temperature", Num(2.5)), ("label_smoothing", Num(0.3)), ("ignore_index", Index(Some(1)))],
            vec![("ignore_index", Index(None))],
        ],
        _ => vec![vec![]],
    }
}

/// Numbers that are the same on every machine (splitmix64).
struct Random(u64);

impl Random {
    fn bits(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    /// Uniform, and an f32.
    fn uniform(&mut self, low: f64, high: f64) -> f64 {
        let unit = (self.bits() >> 11) as f64 / (1u64 << 53) as f64;
        f64::from((low + (high - low) * unit) as f32)
    }

    /// The same, no nearer than 0.02 to ± any of `kinks`.
    fn clear_of(&mut self, low: f64, high: f64, kinks: &[f64]) -> f64 {
        loop {
            let x = self.uniform(low, high);
            if kinks.iter().all(|kink| (x.abs() - kink).abs() > 0.02) {
                return x;
            }
        }
    }

    fn array(&mut self, shape: &[usize], mut one: impl FnMut(&mut Random) -> f64) -> Array {
        let count = shape.iter().product();
        Array::new(shape, (0..count).map(|_| one(self)).collect())
    }
}

/// Where the residuals of a loss have kinks, whatever its options.
const KINKS: &[f64] = &[0.0, 0.5, 1.0];

/// A case of a loss: its own inputs for `shape`, then `extras` by name. `spread` says how far logits reach.
fn case(name: &str, options: &Options, shape: &[usize], extras: &[&str], reduction: &str, spread: f64) -> Case {
    let text = format!("{name}{options:?}{shape:?}{extras:?}");
    let mut random = Random(text.bytes().fold(1, |hash, byte| hash.wrapping_mul(1099511628211) ^ u64::from(byte)));
    let random = &mut random;
    let options: BTreeMap<String, Opt> = options.iter().map(|(name, value)| (name.to_string(), *value)).collect();
    let mut case = Case { options, reduction: reduction.to_owned(), ..Case::default() };
    let (input, target) = names(name);
    let broadcast = extras.contains(&"broadcast");
    let target_shape = if broadcast { &shape[shape.len() - 1..] } else { shape };
    let mut row_shape = shape.to_vec();
    let mut classes = 1;
    let mut put = |name: &str, array: Array| drop(case.arrays.insert(name.to_owned(), array));
    match family(name) {
        Family::Elements | Family::Total => {
            let (x, t) = element_inputs(name, &case.options, shape, target_shape, spread, random);
            put(input, x);
            put(target, t);
        }
        Family::Last => {
            let signs = Array::new(shape, (0..shape.iter().product()).map(|k| [-1.0, 1.0, 1.0][k % 3]).collect());
            let (t, gap) = if name == "log_cosh" {
                (random.array(shape, |r| r.uniform(-1.0, 1.0)), &[][..])
            } else {
                (signs, &[1.0][..])
            };
            put(input, random.array(shape, |r| r.clear_of(-spread, spread, gap)));
            put(target, t);
            row_shape.pop();
        }
        Family::Penalty => put(input, random.array(shape, |r| r.clear_of(-spread, spread, &[0.0]))),
        Family::Labels | Family::Probabilities => {
            let axis = usize::from(shape.len() > 1);
            classes = row_shape.remove(axis);
            let log_p = |r: &mut Random| r.uniform(-spread, if name == "nll" { -0.1 } else { spread });
            put(input, random.array(shape, log_p));
            if family(name) == Family::Probabilities {
                put(target, random.array(shape, |r| r.uniform(0.0, 1.0)));
            } else {
                let rows = row_shape.iter().product::<usize>();
                let ignored = case.index("ignore_index", Some(-100)).filter(|_| rows > 2);
                let mut label = |row: usize| match ignored {
                    Some(index) if row % 3 == 1 => index,
                    _ => (random.bits() % classes as u64) as i64,
                };
                let mut labels: Vec<i64> = (0..rows).map(&mut label).collect();
                // The first row counts.
                labels[0] = classes as i64 - 1;
                case.labels = Some((labels, row_shape.clone()));
            }
        }
    }
    let by_class = matches!(family(name), Family::Labels | Family::Probabilities);
    for extra in extras {
        let array = match *extra {
            "mask" => {
                let count = row_shape.iter().product();
                Array::new(&row_shape, (0..count).map(|k| if k % 3 == 1 { 0.0 } else { 1.0 }).collect())
            }
            "sample_weight" => random.array(&row_shape, |r| r.uniform(0.5, 2.0)),
            "weight" | "alpha" if by_class => random.array(&[classes], |r| r.uniform(0.5, 2.0)),
            "weight" => random.array(shape, |r| r.uniform(0.5, 2.0)),
            // One an entry of the last axis.
            "pos_weight" => random.array(&shape[shape.len() - 1..], |r| r.uniform(0.5, 2.0)),
            _ => continue,
        };
        case.arrays.insert(extra.to_string(), array);
    }
    case
}

fn element_inputs(
    name: &str,
    options: &BTreeMap<String, Opt>,
    shape: &[usize],
    target_shape: &[usize],
    spread: f64,
    random: &mut Random,
) -> (Array, Array) {
    let on = |option: &str, default: bool| *options.get(option).unwrap_or(&Opt::Flag(default)) == Opt::Flag(true);
    match name {
        "bce" => (
            random.array(shape, |r| r.uniform(0.1, 0.9)),
            random.array(target_shape, |r| if r.bits() % 2 == 0 { r.uniform(0.0, 1.0) } else { 1.0 }),
        ),
        "bce_with_logits" | "sigmoid_focal" => (
            random.array(shape, |r| r.clear_of(-spread, spread, &[0.0])),
            random.array(target_shape, |r| if r.bits() % 2 == 0 { r.uniform(0.0, 1.0) } else { 1.0 }),
        ),
        "kl_div" if on("log_target", false) => {
            (random.array(shape, |r| r.uniform(-3.0, -0.1)), random.array(target_shape, |r| r.uniform(-3.0, -0.1)))
        }
        "kl_div" => {
            (random.array(shape, |r| r.uniform(-3.0, -0.1)), random.array(target_shape, |r| r.uniform(0.1, 0.9)))
        }
        "poisson_nll" => {
            let rate = if on("log_input", true) { (-1.0, 1.5) } else { (0.3, 4.0) };
            (
                random.array(shape, |r| r.uniform(rate.0, rate.1)),
                random.array(target_shape, |r| r.clear_of(0.1, 4.0, &[1.0])),
            )
        }
        // A residual clear of the kinks.
        _ => {
            let t = random.array(target_shape, |r| r.uniform(-1.0, 1.0));
            let spread_t = oracle::broadcast(&t, shape);
            let x = spread_t.iter().map(|t| f64::from((t + random.clear_of(-spread, spread, KINKS)) as f32)).collect();
            (Array::new(shape, x), t)
        }
    }
}

/// Which extra inputs a loss is tried with.
fn extras_of(name: &str) -> Vec<Vec<&'static str>> {
    let own = optional_inputs(name).to_vec();
    let mut sets = vec![vec![]];
    if !own.is_empty() {
        sets.push(own.clone());
    }
    if !matches!(family(name), Family::Total | Family::Penalty) {
        sets.push(vec!["sample_weight"]);
        sets.push(vec!["mask"]);
        sets.push([own, vec!["sample_weight", "mask"]].concat());
    }
    if matches!(family(name), Family::Elements | Family::Total) {
        sets.push(vec!["broadcast"]);
    }
    sets
}

fn reductions_of(name: &str, extras: &[&str]) -> Vec<&'static str> {
    if matches!(family(name), Family::Total | Family::Penalty) {
        return vec!["mean"];
    }
    let mut all = vec!["none", "sum", "mean", "batchmean"];
    // Elsewhere there may be no loss above zero, or one that differences bring there.
    if matches!(name, "l1" | "mse" | "bce") {
        all.push("mean_over_positive");
    }
    if extras.contains(&"sample_weight") {
        all.push("mean_with_sample_weight");
    }
    all
}

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

/// One element, a row of one column, odd sizes, an inner axis after the classes, no batch axis.
const SMALL_SHAPES: &[&[usize]] = &[&[1], &[7], &[4, 1], &[3, 5], &[2, 4, 3]];

/// Calls `each(name, label, case)` for the whole grid; the label says which case it is.
fn for_each_case(shapes: &[&[usize]], spread: f64, mut each: impl FnMut(&str, &str, &Case)) {
    for (name, _) in CATALOGUE {
        for options in option_sets(name) {
            for extras in extras_of(name) {
                for reduction in reductions_of(name, &extras) {
                    for shape in shapes {
                        let case = case(name, &options, shape, &extras, reduction, spread);
                        let label = format!("{name} {options:?} with {extras:?}, {reduction}, {shape:?}");
                        each(name, &label, &case);
                    }
                }
            }
        }
    }
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

/// The numerics contract (design §6): how far the GPU's loss may be off, loss by loss.
fn loss_tolerance(name: &str, case: &Case, want: &Outcome) -> Vec<f64> {
    if matches!(family(name), Family::Total | Family::Penalty) {
        return want.loss.iter().map(|x| 2.2e-6 * x.abs()).collect();
    }
    let terms = match case.reduction.as_str() {
        "none" => want.loss.clone(),
        _ => {
            let mut unreduced = case.clone();
            unreduced.reduction = "none".to_owned();
            oracle::oracle(name, &unreduced).expect("an oracle")
        }
    };
    if case.reduction == "none" {
        let reach = reach(name, case);
        return want.loss.iter().zip(reach).map(|(x, reach)| 2e-6 * x.abs() + 2e-7 * reach.max(1.0)).collect();
    }
    let sum: f64 = terms.iter().sum();
    let magnitude: f64 = terms.iter().map(|x| x.abs()).sum();
    let divisor = if case.reduction == "sum" || sum == 0.0 { 1.0 } else { (sum / want.loss[0]).abs() };
    vec![2e-6 * want.loss[0].abs() + 2e-7 * magnitude / divisor]
}

/// For each loss how far its logits reach: |x|, or in a row from the largest to the smallest.
fn reach(name: &str, case: &Case) -> Vec<f64> {
    let input = &case.arrays[names(name).0];
    let axis = match family(name) {
        Family::Labels | Family::Probabilities => usize::from(input.shape.len() > 1),
        Family::Last => input.shape.len() - 1,
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
        let want = &want.grads[*input];
        let most = row_maxima(name, input, case, want);
        let off = mismatch(&got.grads[*input], want, 1e-6, |k| 2e-6 * most[k])?;
        Some(format!("gradient of {input} {off}"))
    })
}

/// For each element the largest gradient of its row; without rows, of all.
fn row_maxima(name: &str, input: &str, case: &Case, grad: &[f64]) -> Vec<f64> {
    let shape = &case.arrays[input].shape;
    let by_class =
        matches!(family(name), Family::Labels | Family::Probabilities) && input != "weight" && shape.len() > 1;
    if !by_class || input == "sample_weight" {
        return vec![largest(grad); grad.len()];
    }
    let mut most = vec![0.0; grad.len()];
    for row in oracle::rows_of(shape, 1) {
        let values: Vec<f64> = row.iter().map(|&k| grad[k]).collect();
        row.iter().for_each(|&k| most[k] = largest(&values));
    }
    most
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
    for name in ["cross_entropy", "cross_entropy_prob", "multiclass_focal", "bce_with_logits", "sigmoid_focal"] {
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
    let shape = &case.arrays["input"].shape;
    let label = labels[0] as usize;
    match input {
        "input" => oracle::rows_of(shape, usize::from(shape.len() > 1))[0][label],
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
                let mut case = case(name, &vec![], &[6, 5], if labels { &[] } else { &["mask"] }, reduction, 2.0);
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
