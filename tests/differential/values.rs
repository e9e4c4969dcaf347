//! The numbers of a problem, and labels, as both paths get them.

use super::expression::CLASS_COUNT;
use super::invariants::has_pairs;
use super::judge::row_groups;
use super::problem::{Data, Flavour, Form, Input, Problem, Values};
use super::random::Random;
use half::{bf16, f16};
use wgloss::{DType, HostTensor, Scope, Value};

/// A tensor's values in logical order; numbers are exactly what their type stores.
#[derive(Clone, Debug)]
pub enum Host {
    Numbers(Vec<f32>),
    Signed(Vec<i32>),
    Unsigned(Vec<u32>),
}

impl Host {
    pub fn tensor<'a>(&'a self, shape: &[usize]) -> HostTensor<'a> {
        match self {
            Host::Numbers(values) => HostTensor::f32(values, shape),
            Host::Signed(values) => HostTensor::i32(values, shape),
            Host::Unsigned(values) => HostTensor::u32(values, shape),
        }
    }

    pub fn numbers(&self) -> &[f32] {
        if let Host::Numbers(values) = self { values } else { &[] }
    }
}

/// The nearest number of that type; none that a device may flush to zero.
pub fn stored(dtype: DType, x: f32) -> f32 {
    let x = match dtype {
        DType::F16 => f16::from_f32(x).to_f32(),
        DType::BF16 => bf16::from_f32(x).to_f32(),
        _ => x,
    };
    if x.abs() < 1e-30 { 0.0 } else { x }
}

/// The values of every input, in their order.
pub fn values(problem: &Problem, data: Data) -> Vec<Host> {
    let mut random = Random::new(data.seed);
    let (_, cols) = problem.rows_cols();
    // Expressions compare their labels with −100.
    let is_expression = problem.terms.iter().any(|term| matches!(term.form, Form::Expression { .. }));
    let ignored = problem.terms.iter().find_map(|term| ignored_index(&term.form)).or(is_expression.then_some(-100));
    let offset = random.pick(&[1e3, 1e4, -1e4, 1e6]);
    let mut all: Vec<Host> = Vec::new();
    for input in &problem.inputs {
        let count: usize = input.shape.iter().product();
        let mut host = if input.values == Values::Groups {
            groups(problem, input, data.flavour, &mut random)
        } else if input.values.are_indices() {
            // Labels of elements have classes of their own, and none is ignored.
            let (classes, ignored) = match (input.values, input.scope) {
                (Values::BinaryLabel, _) => (2, Some(0)),
                (_, Scope::Element) => (CLASS_COUNT as usize, Some(0)),
                _ => (cols, ignored),
            };
            labels(input, count, classes, ignored, data.flavour, &mut random)
        } else {
            let last = input.shape.last().copied().unwrap_or(1);
            let corner = |k: usize| if input.values == Values::Box && k % last > 1 { 2.5 } else { 0.0 };
            let number = |k: usize, random: &mut Random| corner(k) + number(input.values, data.flavour, offset, random);
            Host::Numbers((0..count).map(|k| stored(input.dtype, number(k, &mut random) as f32)).collect())
        };
        if let (Values::Ascending, Host::Numbers(values)) = (input.values, &mut host) {
            values.sort_by(f32::total_cmp);
        }
        repeat(input, &mut host);
        all.push(host);
    }
    if data.flavour == Flavour::MinusInfinity && has_pairs(problem) {
        pair_zeros(problem, &mut all);
    }
    if data.flavour == Flavour::Nan {
        place_nan(problem, &mut all, &mut random);
    }
    all
}

/// The label that a loss leaves out.
pub fn ignored_index(form: &Form) -> Option<i64> {
    let Form::Catalogue { options, .. } = form else { return None };
    let given = options.iter().find_map(|(name, value)| match value {
        Value::Index(index) if name == "ignore_index" => Some(*index),
        _ => None,
    });
    let default = || form.loss().options().iter().find(|o| o.name == "ignore_index").map(|o| o.default.clone());
    match (given, default()) {
        (Some(index), _) => index,
        (None, Some(Value::Index(index))) => index,
        _ => None,
    }
}

fn number(values: Values, flavour: Flavour, offset: f64, random: &mut Random) -> f64 {
    let ties = flavour == Flavour::Ties;
    match values {
        Values::Any | Values::Logits if ties => random.pick(&[0.0, 1.0, -1.0, 2.0, 0.5, 1.0]),
        Values::Logits if flavour == Flavour::Offset => {
            offset + if random.one_in(6) { 40.0 } else { random.between(-4.0, 4.0) }
        }
        Values::Logits if flavour == Flavour::MinusInfinity && random.one_in(4) => f64::NEG_INFINITY,
        Values::Any | Values::Logits | Values::Ascending => random.between(-4.0, 4.0),
        Values::Cosine if ties => random.pick(&[0.0, 1.0, -1.0, 0.5]),
        Values::Cosine => random.between(-0.99, 0.99),
        Values::Probability if ties => random.pick(&[0.0, 1.0, 0.5]),
        Values::Probability => random.between(0.01, 0.99),
        Values::LogProbability if flavour == Flavour::MinusInfinity && random.one_in(4) => f64::NEG_INFINITY,
        Values::LogProbability => -random.between(0.01, 6.0),
        Values::Binary => random.below(2) as f64,
        Values::Sign => random.pick(&[-1.0, 1.0]),
        Values::Positive => random.between(0.1, 4.0),
        Values::Count => random.below(6) as f64,
        Values::Weight if flavour == Flavour::Nothing => 0.0,
        Values::Weight if random.one_in(8) => 0.0,
        Values::Weight => random.between(0.1, 2.0),
        Values::Mask if flavour == Flavour::Nothing => 0.0,
        Values::Mask => f64::from(u8::from(!random.one_in(4))),
        Values::Scale if ties => random.pick(&[1.0, 2.0, 0.5]),
        Values::Scale => random.between(0.25, 2.0),
        Values::Share if ties || random.one_in(4) => random.pick(&[0.0, 1.0, 0.5]),
        Values::Share => random.between(0.0, 1.0),
        Values::Between(low, high) => random.between(f64::from(low) + 0.1, f64::from(high) - 0.1),
        Values::Box if ties => random.pick(&[0.0, 1.0, 0.5]),
        Values::Box => random.between(0.0, 2.0),
        Values::Label | Values::BinaryLabel | Values::Groups => 0.0,
    }
}

/// Labels of `cols` classes, some of them ignored where the loss ignores one: to any other loss such a label is a bad one.
fn labels(
    input: &Input,
    count: usize,
    cols: usize,
    ignored: Option<i64>,
    flavour: Flavour,
    random: &mut Random,
) -> Host {
    let mut labels: Vec<i64> = (0..count)
        .map(|_| match ignored {
            Some(ignored) if flavour == Flavour::Nothing || random.one_in(5) => ignored,
            _ => random.below(cols) as i64,
        })
        .collect();
    // Without any that counts most means are NaN, which says little.
    if flavour != Flavour::Nothing && count > 0 {
        labels[random.below(count)] = random.below(cols) as i64;
    }
    if flavour == Flavour::BadLabel && count > 0 {
        let bad = random.pick(&[cols as i64, cols as i64 + 95, i64::from(i32::MAX), -1, -99, i64::from(i32::MIN)]);
        labels[random.below(count)] = bad;
    }
    if input.dtype == DType::U32 {
        // An index that no label can have is not put there.
        return Host::Unsigned(labels.iter().map(|y| u32::try_from(*y).unwrap_or(0)).collect());
    }
    Host::Signed(labels.iter().map(|y| *y as i32).collect())
}

/// Offsets or ids of groups of random lengths: many without rows, or nearly equal ones, or one that has all rows.
fn groups(problem: &Problem, input: &Input, flavour: Flavour, random: &mut Random) -> Host {
    let groups = problem.unequal.map_or(0, |unequal| unequal.groups);
    let is_ids = input.scope == Scope::Row;
    // An id per row, as the input has them, where there is no such axis of rows too.
    let rows: usize = if is_ids { input.shape.iter().product() } else { problem.rows_cols().0 };
    let way = random.below(4);
    let all = random.below(groups.max(1));
    let mut cuts: Vec<i64> = (1..groups)
        .map(|group| match way {
            0 => (group * rows / groups) as i64,
            1 => {
                if group > all {
                    rows as i64
                } else {
                    0
                }
            }
            _ => random.below(rows + 1) as i64,
        })
        .collect();
    cuts.sort_unstable();
    let offsets = [&[0], &cuts[..], &[rows as i64]].concat();
    let last_begun = |row: i64| offsets[..groups].partition_point(|offset| *offset <= row) as i64 - 1;
    let mut indices = if is_ids { (0..rows as i64).map(last_begun).collect() } else { offsets };
    if flavour == Flavour::BadGroup && !indices.is_empty() {
        let most = if is_ids { groups } else { rows } as i64;
        let wild = [most, most + 1, -1, 0, i64::from(i32::MAX), i64::from(i32::MIN), most / 2];
        for _ in 0..1 + random.below(3) {
            let place = random.below(indices.len());
            indices[place] = random.pick(&wild);
        }
    }
    match input.dtype {
        DType::U32 => Host::Unsigned(indices.iter().map(|index| *index as u32).collect()),
        _ => Host::Signed(indices.iter().map(|index| *index as i32).collect()),
    }
}

/// Strides of 0 repeat the first index of their axis.
fn repeat(input: &Input, host: &mut Host) {
    if !input.home.repeats.contains(&true) {
        return;
    }
    let sources: Vec<usize> = (0..input.shape.iter().product()).map(|k| source(input, k)).collect();
    match host {
        Host::Numbers(values) => *values = sources.iter().map(|k| values[*k]).collect(),
        Host::Signed(values) => *values = sources.iter().map(|k| values[*k]).collect(),
        Host::Unsigned(values) => *values = sources.iter().map(|k| values[*k]).collect(),
    }
}

/// The logical index that shares memory with `index`, and comes first.
fn source(input: &Input, index: usize) -> usize {
    let (mut rest, mut step, mut first) = (index, 1, 0);
    for (axis, &size) in input.shape.iter().enumerate().rev() {
        if !input.home.repeats.get(axis).copied().unwrap_or(false) {
            first += rest % size * step;
        }
        rest /= size;
        step *= size;
    }
    first
}

/// Where a logit is −∞ the target has no probability; every row keeps a finite logit.
fn pair_zeros(problem: &Problem, all: &mut [Host]) {
    let (rows, as_logarithm) = (problem.columns(), problem.inputs[1].values == Values::LogProbability);
    let groups = match rows {
        Some(columns) => row_groups(&problem.domain, problem.domain.len(), &columns),
        None => Vec::new(),
    };
    let [Host::Numbers(logits), Host::Numbers(targets), ..] = all else { return };
    let mut seen: Vec<usize> = Vec::new();
    for (k, (logit, target)) in logits.iter_mut().zip(targets).enumerate() {
        let first = groups.get(k).is_some_and(|row| !seen.contains(row));
        if first {
            seen.push(groups[k]);
            if !logit.is_finite() {
                *logit = -1.0;
            }
        }
        if first && !target.is_finite() {
            *target = -1.0;
        }
        if *logit == f32::NEG_INFINITY {
            *target = if as_logarithm { f32::NEG_INFINITY } else { 0.0 };
        }
    }
}

/// One input gets a NaN, mostly one of elements; often where a mask or an ignored label hides it.
fn place_nan(problem: &Problem, all: &mut [Host], random: &mut Random) {
    let numbers: Vec<usize> = (0..all.len()).filter(|k| !problem.inputs[*k].values.are_indices()).collect();
    let one = random.pick(&numbers);
    let place = if random.one_in(3) { one } else { numbers[0] };
    for _ in 0..1 + random.below(2) {
        let Host::Numbers(values) = &mut all[place] else { continue };
        if values.is_empty() {
            continue;
        }
        let k = random.below(values.len());
        // Outside of its domain a probability has no logarithm, which is NaN as well.
        let outside = problem.inputs[place].values == Values::Probability && random.one_in(3);
        values[k] = if outside { 1.5 } else { f32::NAN };
    }
    repeat(&problem.inputs[place], &mut all[place]);
}

/// Which numbers are moved.
#[derive(Clone, Copy, PartialEq)]
pub enum Moves {
    /// Not the multiples of one half: ties, kinks and the ends of domains are where they are, and must come out as
    /// they are.
    Ordinary,
    All,
}

/// The same numbers moved by up to one unit in the last place of f32. Labels stay.
pub fn moved(all: &[Host], seed: u64, moves: Moves) -> Vec<Host> {
    let mut random = Random::new(seed);
    let mut nudge = |x: &f32| {
        let stays = moves == Moves::Ordinary && (2.0 * x).fract() == 0.0;
        if stays || !x.is_finite() {
            return *x;
        }
        if *x == 0.0 {
            return f32::EPSILON * (1.0 - random.below(3) as f32);
        }
        f32::from_bits(x.to_bits() + 1 - random.below(3) as u32)
    };
    let mut moved = Vec::new();
    for host in all {
        moved.push(match host {
            Host::Numbers(values) => Host::Numbers(values.iter().map(&mut nudge).collect()),
            other => other.clone(),
        });
    }
    moved
}
