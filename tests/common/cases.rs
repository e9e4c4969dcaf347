//! Cases for every loss of the catalogue: its options, its optional inputs, its reductions, on any shape.
//!
//! The data keep clear of kinks and clamps, where differences of the oracle say nothing; golden data check those.

use super::oracle::{self, Array, Case, Opt};
use std::collections::BTreeMap;
use wgloss::losses::CATALOGUE;

/// What the tests need to know of a loss: its family of inputs.
#[derive(Clone, Copy, PartialEq)]
pub enum Family {
    /// Two inputs, one loss an element.
    Elements,
    /// Two inputs, one loss in all.
    Total,
    /// A prediction and a target, one loss for the last axis.
    Last,
    /// Scores and one label a row.
    Labels,
    /// Scores and probabilities a row.
    Probabilities,
    /// One input, one loss in all.
    Penalty,
}

pub fn family(name: &str) -> Family {
    match name {
        "rmse" => Family::Total,
        "log_cosh" | "hinge" | "squared_hinge" | "jsd" => Family::Last,
        "cross_entropy" | "z_loss" | "softcap_cross_entropy" | "nll" | "multiclass_focal" | "distillation" => {
            Family::Labels
        }
        "cross_entropy_prob" => Family::Probabilities,
        "l1_penalty" | "l2_penalty" => Family::Penalty,
        _ => Family::Elements,
    }
}

/// The input and the target of a loss, by name. A penalty has no target.
pub fn names(name: &str) -> (&'static str, &'static str) {
    match family(name) {
        Family::Last if name != "jsd" => ("y_pred", "y_true"),
        Family::Penalty => ("w", ""),
        _ if name == "sigmoid_focal" => ("inputs", "targets"),
        _ if name == "distillation" => ("student_logits", "target"),
        _ => ("input", "target"),
    }
}

/// The optional inputs that a loss declares itself.
pub fn optional_inputs(name: &str) -> &'static [&'static str] {
    match name {
        "l1" | "mse" | "huber" | "bce" | "cross_entropy" | "cross_entropy_prob" | "nll" => &["weight"],
        "bce_with_logits" => &["weight", "pos_weight"],
        "multiclass_focal" => &["alpha"],
        _ => &[],
    }
}

pub type Options = Vec<(&'static str, Opt)>;

/// The options that a loss is tried with: the default, and each that makes another expression.
pub fn option_sets(name: &str) -> Vec<Options> {
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
            vec![("logit_scale", Num(1.7))],
            vec![("softcap", Num(2.0))],
            vec![("lse_square_scale", Num(0.1))],
            vec![("entropy_bonus", Num(0.2))],
            vec![
                ("logit_scale", Num(0.6)),
                ("temperature", Num(1.5)),
                ("lse_square_scale", Num(0.05)),
                ("entropy_bonus", Num(-0.1)),
            ],
            vec![
                ("logit_scale", Num(1.3)),
                ("softcap", Num(4.0)),
                ("temperature", Num(0.8)),
                ("label_smoothing", Num(0.2)),
                ("lse_square_scale", Num(0.02)),
                ("entropy_bonus", Num(0.1)),
                ("ignore_index", Index(Some(1))),
            ],
        ],
        "jsd" => each("beta", &[0.5, 0.1, 0.0, 1.0]),
        "distillation" => vec![
            vec![],
            vec![("alpha", Num(1.0)), ("temperature", Num(3.0))],
            vec![("alpha", Num(0.3)), ("temperature", Num(1.0))],
            vec![("alpha", Num(0.8)), ("temperature", Num(0.7)), ("ignore_index", Index(Some(1)))],
        ],
        "z_loss" => each("z", &[1e-4, 0.1, 0.0]),
        "softcap_cross_entropy" => each("softcap", &[30.0, 3.0]),
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
pub fn case(name: &str, options: &Options, shape: &[usize], extras: &[&str], reduction: &str, spread: f64) -> Case {
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
        Family::Last if name == "jsd" => {
            let log_p = |r: &mut Random| r.uniform(-3.0, -0.1);
            put(input, random.array(shape, log_p));
            put(target, random.array(shape, log_p));
            row_shape.pop();
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
            if name == "distillation" {
                put("teacher_logits", random.array(shape, log_p));
            }
            if family(name) == Family::Probabilities {
                put(target, random.array(shape, |r| r.uniform(0.0, 1.0)));
            } else {
                let rows = row_shape.iter().product::<usize>();
                // Distillation ignores no label where it is not told to.
                let default = if name == "distillation" { None } else { Some(-100) };
                let ignored = case.index("ignore_index", default).filter(|_| rows > 2);
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
            random.array(shape, |r| r.uniform(0.3, 0.7)),
            random.array(target_shape, |r| if r.bits() & 1 == 0 { r.uniform(0.0, 1.0) } else { 1.0 }),
        ),
        "bce_with_logits" | "sigmoid_focal" => {
            // A power of the miss bends sharply near a miss of 0.
            let reach = if name == "sigmoid_focal" { 0.6 * spread } else { spread };
            let target = |r: &mut Random| if r.bits() & 1 == 0 { r.uniform(0.2, 0.8) } else { 1.0 };
            (random.array(shape, |r| r.uniform(-reach, reach)), random.array(target_shape, target))
        }
        "kl_div" if on("log_target", false) => {
            (random.array(shape, |r| r.uniform(-3.0, -0.1)), random.array(target_shape, |r| r.uniform(-3.0, -0.1)))
        }
        "kl_div" => {
            (random.array(shape, |r| r.uniform(-3.0, -0.1)), random.array(target_shape, |r| r.uniform(0.3, 0.9)))
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
pub fn extras_of(name: &str) -> Vec<Vec<&'static str>> {
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

pub fn reductions_of(name: &str, extras: &[&str]) -> Vec<&'static str> {
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

/// One element, a row of one column, odd sizes, an inner axis after the classes, no batch axis.
pub const SMALL_SHAPES: &[&[usize]] = &[&[1], &[7], &[4, 1], &[3, 5], &[2, 4, 3]];

/// Calls `each(name, label, case)` for the whole grid; the label says which case it is.
pub fn for_each_case(shapes: &[&[usize]], spread: f64, mut each: impl FnMut(&str, &str, &Case)) {
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
