//! Cases for every loss of the catalogue: its options, its optional inputs, its reductions, on any shape.
//!
//! The data keep clear of kinks and clamps, where differences of the oracle say nothing; golden data check those.

use super::golden::is_integer;
use super::oracle::{self, Array, Case, Opt};
use super::{is_in_share, loss_of};
use std::collections::BTreeMap;
use std::sync::OnceLock;
use wgloss::losses::{CATALOGUE, Entry, Range};
use wgloss::{Kind, Loss, RowAxis, Scope, ShapeRule, Value};

/// What a loss takes, and how many losses it gives.
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

/// A loss of the catalogue, and what its declaration says.
pub struct Declared {
    pub entry: &'static Entry,
    pub family: Family,
    /// The input that gradients are taken of.
    input: String,
    /// The label; without one the other input that must be there; of a penalty nothing.
    target: String,
    /// Optional inputs.
    optional: Vec<String>,
}

impl Declared {
    fn new(entry: &'static Entry) -> Declared {
        let loss = (entry.make)();
        let (optional, required): (Vec<_>, Vec<_>) = loss.inputs().into_iter().partition(|spec| spec.optional);
        let input = loss.differentiable().expect("an input of numbers");
        let label = required.iter().find(|spec| spec.kind == Kind::Int);
        let target = label.or(required.iter().find(|spec| spec.name != input));
        let family = match (loss.scope().expect("well formed"), loss.rows_along()) {
            (Scope::Element, _) => Family::Elements,
            (Scope::Row, RowAxis::Class) if label.is_some() => Family::Labels,
            (Scope::Row, RowAxis::Class) => Family::Probabilities,
            (Scope::Row, _) => Family::Last,
            _ if required.len() == 1 => Family::Penalty,
            _ => Family::Total,
        };
        let target = target.map_or_else(String::new, |spec| spec.name.clone());
        Declared { entry, family, input, target, optional: optional.into_iter().map(|spec| spec.name).collect() }
    }
}

/// The losses that generic grids go over: all, or those with a text of `WGLOSS_TEST_LOSSES` (`margin,focal`) in their name.
pub fn tried() -> impl Iterator<Item = &'static Entry> {
    static PARTS: OnceLock<Option<Vec<String>>> = OnceLock::new();
    let split = |list: String| list.split(',').map(str::to_owned).collect();
    let parts = PARTS.get_or_init(|| std::env::var("WGLOSS_TEST_LOSSES").ok().map(split));
    let is_tried =
        |name: &str| parts.as_ref().is_none_or(|parts| parts.iter().any(|part| name.contains(part.as_str())));
    CATALOGUE.iter().filter(move |entry| is_tried(entry.name))
}

/// A loss of the catalogue by name.
pub fn declared(name: &str) -> &'static Declared {
    static ALL: OnceLock<BTreeMap<&str, Declared>> = OnceLock::new();
    let all = ALL.get_or_init(|| CATALOGUE.iter().map(|entry| (entry.name, Declared::new(entry))).collect());
    all.get(name).unwrap_or_else(|| panic!("{name} is not in the catalogue"))
}

pub fn family(name: &str) -> Family {
    declared(name).family
}

/// The input and the target of a loss, by name. A penalty has no target.
pub fn names(name: &str) -> (&'static str, &'static str) {
    let Declared { input, target, .. } = declared(name);
    (input, target)
}

/// The optional inputs that a loss declares itself.
pub fn optional_inputs(name: &str) -> Vec<&'static str> {
    declared(name).optional.iter().map(String::as_str).collect()
}

pub type Options = Vec<(&'static str, Opt)>;

/// The options that a loss is tried with: the default, and each that makes another expression.
pub fn option_sets(name: &str) -> Vec<Options> {
    let opt = |value: &Value| match *value {
        Value::Num(x) => Opt::Num(x),
        Value::Flag(yes) => Opt::Flag(yes),
        Value::Index(index) => Opt::Index(index),
        Value::Word(word) => Opt::Word(word),
        ref other => panic!("option {other:?}"),
    };
    let variants = declared(name).entry.variants.iter();
    let variants = variants.map(|options| options.iter().map(|(name, value)| (*name, opt(value))).collect());
    std::iter::once(vec![]).chain(variants).collect()
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
    case.broadcast = extras.contains(&"broadcast");
    let loss = loss_of(name, &case).expect("in the catalogue");
    let axis = match loss.rows_along() {
        RowAxis::Class if shape.len() > 1 => Some(1),
        RowAxis::Class | RowAxis::Last => Some(shape.len() - 1),
        _ => None,
    };
    // Rows of a stated number of columns have it.
    let mut stated = shape.to_vec();
    if let (Some(cols), Some(last)) = (loss.cols().expect("one number of columns"), stated.last_mut()) {
        *last = cols as usize;
    }
    let shape = &stated[..];
    let mut row_shape = shape.to_vec();
    let classes = axis.map_or(1, |axis| row_shape.remove(axis));
    if let RowAxis::From(first) = loss.rows_along() {
        row_shape.truncate(first);
    }
    // A power of the miss bends sharply near a miss of 0.
    let reach = if name == "sigmoid_focal" { 0.6 * spread } else { spread };
    let target_shape = if extras.contains(&"broadcast") { &shape[shape.len() - 1..] } else { shape };
    targets(&mut case, name, &loss, [target_shape, shape, &row_shape], classes, reach, random);
    let of_element = |target: &&Array| target.shape.len() == shape.len() || extras.contains(&"broadcast");
    let target = case.arrays.get(names(name).1).filter(of_element).map(|target| oracle::broadcast(target, shape));
    let ranges = [names(name).0, names(name).1].map(|input| range(name, &loss, input));
    let input_range = ranges[0];
    let shape = if scope_of(&loss, names(name).0) == Scope::Row { &row_shape[..] } else { shape };
    let values = (0..shape.iter().product()).map(|k| {
        let beside = target.as_ref().map(|target| target[k]);
        prediction(ranges, beside, reach, random)
    });
    let mut values = Array::new(shape, values.collect());
    if input_range == Range::Box {
        values = boxes(shape, random);
    }
    case.arrays.insert(names(name).0.to_owned(), values);
    let mut whole = false;
    for extra in extras {
        let declared = loss.inputs().into_iter().find(|spec| spec.name == *extra);
        let range = declared.as_ref().map(|_| range(name, &loss, extra));
        let weighed = match declared.as_ref().map(|spec| spec.scope) {
            Some(Scope::Scalar) => &[][..],
            Some(Scope::Column) => &[classes],
            Some(Scope::Row) => &row_shape[..],
            Some(_) if range != Some(Range::Weight) => shape,
            Some(_) if declared.as_ref().is_some_and(|spec| spec.shape_rule == ShapeRule::Same) => shape,
            // One an entry of the last axis, but for the first.
            Some(_) if std::mem::replace(&mut whole, true) => &shape[shape.len() - 1..],
            Some(_) => shape,
            None if loss.scope() == Ok(Scope::Element) => shape,
            None => &row_shape[..],
        };
        let array = match *extra {
            "broadcast" => continue,
            "mask" => {
                Array::new(weighed, (0..weighed.iter().product()).map(|k| if k % 3 == 1 { 0.0 } else { 1.0 }).collect())
            }
            _ => match range {
                Some(range) if is_integer(extra) => {
                    case.integers.insert(extra.to_string());
                    integers(range, weighed, random)
                }
                Some(Range::LogProbability) => random.array(weighed, |r| r.uniform(-3.0, -0.1)),
                Some(Range::Any) => random.array(weighed, |r| r.uniform(-reach, reach)),
                // Of each row the first counts; columns have unequal numbers of them.
                Some(Range::Binary) => {
                    let cols = weighed.last().copied().unwrap_or(1).max(1);
                    let keeps = |k: usize| k.is_multiple_of(cols) || (k % cols + (k / cols).pow(2)) % 3 != 2;
                    let keeps = (0..weighed.iter().product()).map(|k| f64::from(u8::from(keeps(k))));
                    Array::new(weighed, keeps.collect())
                }
                _ => random.array(weighed, |r| r.uniform(0.5, 2.0)),
            },
        };
        case.arrays.insert(extra.to_string(), array);
    }
    case
}

/// The scope of an input.
pub fn scope_of(loss: &Loss, input: &str) -> Scope {
    loss.inputs().into_iter().find(|spec| spec.name == input).map_or(Scope::Element, |spec| spec.scope)
}

fn range(name: &str, loss: &Loss, input: &str) -> Range {
    declared(name).entry.range(loss, input)
}

fn integers(range: Range, shape: &[usize], random: &mut Random) -> Array {
    let least = if range == Range::Length { 1 } else { 0 };
    let most = if range == Range::Length { 9 } else { 2 };
    random.array(shape, |r| (least + r.bits() % most) as f64)
}

/// Boxes in the last axis, none of whose edges is near one of the other boxes'.
fn boxes(shape: &[usize], random: &mut Random) -> Array {
    let corner = |col: usize, r: &mut Random| if col < 2 { r.uniform(0.0, 1.5) } else { r.uniform(2.0, 3.5) };
    Array::new(shape, (0..shape.iter().product()).map(|k| corner(k % 4, random)).collect())
}

/// The inputs that must be there besides the prediction: labels, targets, a teacher's logits.
fn targets(
    case: &mut Case,
    name: &str,
    loss: &Loss,
    [target_shape, whole, row_shape]: [&[usize]; 3],
    classes: usize,
    reach: f64,
    random: &mut Random,
) {
    let input = names(name).0;
    for spec in loss.inputs().into_iter().filter(|spec| !spec.optional && spec.name != input) {
        let shape = match spec.scope {
            Scope::Column => &[classes],
            // Such an input broadcasts along the last axis alone.
            _ if spec.shape_rule == ShapeRule::OptionalLastAxis => whole,
            Scope::Row => row_shape,
            _ => target_shape,
        };
        let array = match range(name, loss, &spec.name) {
            range if is_integer(&spec.name) => {
                case.integers.insert(spec.name.clone());
                integers(range, shape, random)
            }
            Range::Binary if spec.kind == Kind::Int => {
                let labels = (0..whole.iter().product()).map(|_| (random.bits() & 1) as i64);
                case.labels = Some((labels.collect(), whole.to_vec()));
                continue;
            }
            // Of each row the first counts: a mean over rows without any is NaN.
            Range::Binary if loss.rows_along() == RowAxis::Last => {
                let drawn = random.array(shape, |r| (r.bits() & 1) as f64).values;
                let first = |(k, x): (usize, f64)| if k.is_multiple_of(classes) { 1.0 } else { x };
                Array::new(shape, drawn.into_iter().enumerate().map(first).collect())
            }
            Range::Binary => random.array(shape, |r| (r.bits() & 1) as f64),
            Range::Box => boxes(shape, random),
            Range::Bin if classes == 1 => random.array(shape, |_| 0.0),
            // Clear of the columns themselves.
            Range::Bin => random.array(shape, |r| {
                let last = classes.saturating_sub(2) as u64;
                f64::from(((r.bits() % (last + 1)) as f64 + r.uniform(0.1, 0.9)) as f32)
            }),
            // A list of labels per row, which ends before the third.
            Range::Label if (spec.scope, spec.kind) == (Scope::Element, Kind::Int) => {
                let columns = 0..whole.iter().product();
                let label = |k: usize| if k % classes < 2 { (random.bits() % classes as u64) as i64 } else { -1 };
                case.labels = Some((columns.map(label).collect(), whole.to_vec()));
                continue;
            }
            label @ (Range::Label | Range::LabelBetween) => {
                let classes = classes + usize::from(label == Range::LabelBetween);
                let rows = row_shape.iter().product::<usize>();
                let ignored = match loss.option_value("ignore_index") {
                    Some(Value::Index(index)) if rows > 2 => *index,
                    _ => None,
                };
                let label = |row: usize| match ignored {
                    Some(index) if row % 3 == 1 => index,
                    _ => (random.bits() % classes as u64) as i64,
                };
                let mut labels: Vec<i64> = (0..rows).map(label).collect();
                // The first row counts.
                labels[0] = classes as i64 - 1;
                case.labels = Some((labels, row_shape.to_vec()));
                continue;
            }
            Range::Sign => Array::new(shape, (0..shape.iter().product()).map(|k| [-1.0, 1.0, 1.0][k % 3]).collect()),
            // A step apart: a class without a width has probability zero.
            Range::Ascending => {
                let mut low = -1.5;
                random.array(shape, |r| {
                    low = f64::from((low + r.uniform(0.2, 0.9)) as f32);
                    low
                })
            }
            Range::Logits => random.array(shape, |r| r.uniform(-reach, reach)),
            Range::LogProbability => random.array(shape, |r| r.uniform(-3.0, -0.1)),
            Range::Probability => random.array(shape, |r| if r.bits() & 1 == 0 { r.uniform(0.3, 0.9) } else { 1.0 }),
            Range::Count | Range::Positive => random.array(shape, |r| r.clear_of(0.3, 4.0, &[1.0])),
            Range::Cosine => random.array(shape, |r| r.uniform(-0.95, 0.95)),
            Range::Coordinate => random.array(shape, |r| r.uniform(-0.5, 0.5)),
            _ => random.array(shape, |r| r.uniform(-1.0, 1.0)),
        };
        case.arrays.insert(spec.name, array);
    }
}

/// A prediction beside the target, both in their ranges: clear of kinks, which are where they are equal, or so far apart.
fn prediction([range, of_target]: [Range; 2], target: Option<f64>, reach: f64, random: &mut Random) -> f64 {
    match range {
        Range::Any if of_target == Range::Any => {
            f64::from((target.unwrap_or(0.0) + random.clear_of(-reach, reach, KINKS)) as f32)
        }
        Range::Any => random.clear_of(-reach, reach, KINKS),
        Range::Logits | Range::Box => random.uniform(-reach, reach),
        Range::LogProbability => random.uniform(-3.0, -0.1),
        Range::Probability => loop {
            let x = random.uniform(0.3, 0.7);
            if target.is_none_or(|target| (x - target).abs() > 0.02) {
                break x;
            }
        },
        Range::Count | Range::Positive => random.clear_of(0.3, 4.0, &[1.0]),
        Range::Cosine => random.uniform(-0.95, 0.95),
        Range::Coordinate => random.uniform(-0.5, 0.5),
        other => panic!("a prediction in the range {other:?}"),
    }
}

/// Which extra inputs a loss is tried with.
pub fn extras_of(name: &str) -> Vec<Vec<&'static str>> {
    let own = optional_inputs(name);
    let mut sets = vec![vec![]];
    if !own.is_empty() {
        sets.push(own.clone());
    }
    if !matches!(family(name), Family::Total | Family::Penalty) {
        sets.push(vec!["sample_weight"]);
        sets.push(vec!["mask"]);
        let beside = ["sample_weight", "mask"].into_iter().filter(|name| !own.contains(name));
        sets.push(own.iter().copied().chain(beside).collect());
    }
    // Labels, and integers, do not broadcast.
    let whole = |name: &str| (declared(name).entry.make)().inputs().iter().all(|spec| spec.kind != Kind::Int);
    if matches!(family(name), Family::Elements | Family::Total) && whole(name) {
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
    if matches!(name, "mse" | "cross_entropy") {
        all.push("mean_or_zero");
    }
    if extras.contains(&"sample_weight") {
        all.push("mean_with_sample_weight");
    }
    all
}

/// One element, a row of one column, odd sizes, an inner axis after the classes, no batch axis.
pub const SMALL_SHAPES: &[&[usize]] = &[&[1], &[7], &[4, 1], &[3, 5], &[2, 4, 3]];

/// Calls `each(name, label, case)` for the share of the grid that is to run; the label says which case it is.
pub fn for_each_case(shapes: &[&[usize]], spread: f64, mut each: impl FnMut(&str, &str, &Case)) {
    for Entry { name, .. } in tried() {
        for options in option_sets(name) {
            let of_options = options.iter().map(|(name, value)| (name.to_string(), *value)).collect();
            let loss = loss_of(name, &Case { options: of_options, ..Case::default() }).expect("in the catalogue");
            // Rows along the axes from one on need that axis.
            let has_rows =
                |shape: &&&[usize]| !matches!(loss.rows_along(), RowAxis::From(first) if shape.len() <= first);
            for extras in extras_of(name) {
                for reduction in reductions_of(name, &extras) {
                    for shape in shapes.iter().filter(has_rows) {
                        let label = format!("{name} {options:?} with {extras:?}, {reduction}, {shape:?}");
                        if is_in_share(&label) {
                            each(name, &label, &case(name, &options, shape, &extras, reduction, spread));
                        }
                    }
                }
            }
        }
    }
}
