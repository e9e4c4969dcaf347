//! Problems from seeds.

use super::grow::Grower;
use super::problem::{
    Data, Device, FLAVOURS, Flavour, Form, Input, KNOB, Outputs, Problem, Side, Term, Unequal, Values,
};
use super::random::Random;
use super::shrink::resize;
use super::tensors::{FLOATS, gradients, home, inputs};
use std::sync::OnceLock;
use wgloss::{Domain, Loss, Reduction, RowAxis, Scope, Value, losses};
use wgloss::{Exp2, Kernel, Pinned};
use wgloss::{UPSTREAM, Upstream};

/// Sizes of an axis: 1, odd, around a vector, around a subgroup, around a workgroup, and beyond.
const SIZES: [usize; 22] = [1, 2, 3, 4, 5, 7, 8, 9, 12, 16, 31, 33, 63, 64, 65, 129, 255, 256, 257, 1000, 1001, 1031];
/// Elements of a problem, as a rule.
const ELEMENTS: usize = 6_000;

/// Losses that may be added up, since their inputs have the same names and meanings.
const SUMS: [&[&str]; 2] = [
    &["cross_entropy", "z_loss", "softcap_cross_entropy", "multiclass_focal"],
    &["l1", "mse", "huber", "smooth_l1", "quantile", "rmse", "tvd"],
];

/// What `WGLOSS_FUZZ_LOSSES` says.
pub const ONLY: &str = "WGLOSS_FUZZ_LOSSES";

/// The losses that alone are drawn: those with a text of [`ONLY`] (`arcface,supcon`) in their name; `None` where it is not set.
fn only() -> Option<&'static [&'static str]> {
    static NAMES: OnceLock<Option<Vec<&'static str>>> = OnceLock::new();
    let of_text = |list: String| {
        let is_named = |name: &str| list.split(',').any(|part| name.contains(part));
        let names: Vec<&str> = losses::CATALOGUE.iter().map(|entry| entry.name).filter(|name| is_named(name)).collect();
        assert!(!names.is_empty(), "no loss has a text of {ONLY}={list} in its name");
        names
    };
    NAMES.get_or_init(|| std::env::var(ONLY).ok().map(of_text)).as_deref()
}

/// The problem of a seed.
pub fn draw(seed: u64) -> Problem {
    let mut random = Random::new(seed);
    let random = &mut random;
    let expression = only().is_none() && random.one_in(2);
    let row_axis = match random.below(5) {
        _ if !expression => RowAxis::None,
        0 => other_axis(random),
        _ => random.pick(&[RowAxis::None, RowAxis::Last, RowAxis::Last, RowAxis::Class]),
    };
    let mut names: Vec<&'static str> = Vec::new();
    if !expression {
        names.push(match only() {
            Some(only) => random.pick(only),
            None => {
                let any = losses::CATALOGUE[random.below(losses::CATALOGUE.len())].name;
                if random.one_in(4) { random.pick(SUMS[0]) } else { any }
            }
        });
        while random.one_in(4) && names.len() < 3 {
            let group = SUMS.iter().find(|group| group.contains(&names[0]));
            names.extend(group.map(|group| random.pick(group)));
            if group.is_none() {
                break;
            }
        }
    }
    let of_rows = if expression { row_axis } else { named(names[0]).rows_along() };
    let own_axis = of_rows;
    let rows_along = match (of_rows, random.below(8)) {
        (RowAxis::None, _) => None,
        (RowAxis::Class, 0..=1) => Some(RowAxis::Last),
        (_, 2) => Some(other_axis(random)),
        _ => None,
    };
    let stated = names.iter().find_map(|name| named(name).cols().expect("one number of columns"));
    let rows_along = rows_along.filter(|_| stated.is_none());
    let of_rows = rows_along.unwrap_or(of_rows);
    let device = device(random);
    let mut domain = domain(of_rows, device, random);
    if let (Some(cols), Some(last)) = (stated, domain.last_mut()) {
        *last = cols as usize;
    }
    let columns = of_rows.columns(domain.len());
    let cols: usize = domain[columns.clone().unwrap_or(0..domain.len())].iter().product();
    let elements: usize = domain.iter().product();
    let rows = elements / cols;
    let along = columns.clone().unwrap_or_default();
    let first_of_rows = (0..domain.len()).find(|axis| !along.contains(axis)).map_or(1, |axis| domain[axis]);
    let group_rows = group_rows(columns.is_some(), rows, random);
    let unequal = expression && columns.is_some() && random.one_in(3);
    let group_rows = group_rows.filter(|_| !unequal);
    let rows_in_group = group_rows.map_or((rows / first_of_rows).max(1), |n| (n as usize).clamp(1, rows));
    let mut forms: Vec<Form> =
        names.into_iter().map(|name| Form::Catalogue { name, options: options(name, random) }).collect();
    // An expression alone, or with a loss of labels that it is added to.
    let beside = forms.len() == 1 && SUMS.iter().any(|group| group.contains(&forms[0].name())) && random.one_in(6);
    if expression || beside {
        let group = if unequal { rows } else { rows_in_group };
        let mut grower = Grower::new(random, columns.is_some(), [rows, cols], group);
        grower.unequal = unequal;
        let mut tree = grower.loss();
        // Most trees have no values of groups.
        for _ in 0..8 {
            if !unequal || tree.has_groups() {
                break;
            }
            tree = grower.loss();
        }
        let params = [random.pick(&[0.5, 1.5, 2.0]), random.pick(&[0.25, 1.0, 0.75])];
        // One statement in ten is wrong, and refused by both paths.
        let stated = if random.one_in(10) { cols + 1 } else { cols };
        let cols = (columns.is_some() && random.one_in(6)).then_some(stated);
        forms.push(Form::Expression { tree, row_axis: own_axis, cols, params });
    }
    let reduction = reduction(random);
    let several = forms.len() > 1;
    let terms = forms.into_iter().enumerate().map(|(place, form)| {
        let weight = if several || random.one_in(8) { random.pick(&[0.3, 0.7, 1.0, -2.0]) } else { 1.0 };
        let own = several && reduction != Reduction::None && random.one_in(3);
        let other = random.pick(&[Reduction::Sum, Reduction::Mean]);
        let renamed = place > 0 && matches!(form, Form::Catalogue { .. }) && random.one_in(3);
        Term { weight, form, reduction: if own { other } else { reduction.clone() }, renamed }
    });
    let mut problem = Problem {
        terms: terms.collect(),
        scaled_by: random.one_in(8).then_some("scale"),
        rows_along,
        broadcasts: random.one_in(2),
        domain,
        inputs: Vec::new(),
        upstream: Upstream::One,
        outputs: Outputs { loss: true, ..Outputs::default() },
        group_rows,
        unequal: None,
        capacity: None,
        device,
        pinned: Pinned::default(),
        beside: None,
        data: Vec::new(),
    };
    if unequal && has_groups(&problem) {
        let groups = random.pick(&[1, 2, 3, rows.div_ceil(3), rows, rows + 5]);
        problem.unequal = Some(Unequal { ids: random.one_in(2), groups });
    }
    inputs(&mut problem, random);
    gradients(&mut problem, random);
    outputs(&mut problem, random);
    capacity(&mut problem, random);
    if random.one_in(3) {
        problem.pinned = pinned(columns.is_some(), random);
    }
    // Losses beside each other have no found_inf.
    let beside = random.one_in(3).then(|| random.pick(&[Side::Before, Side::After]));
    problem.beside = beside.filter(|_| !problem.outputs.found_inf);
    empty(&mut problem, random);
    problem.data = data(&problem, random);
    problem
}

/// Whether a term has values of groups.
pub fn has_groups(problem: &Problem) -> bool {
    let has = |term: &Term| matches!(&term.form, Form::Expression { tree, .. } if tree.has_groups());
    problem.terms.iter().any(has)
}

pub fn named(name: &str) -> Loss {
    losses::by_name(name).expect("a loss of the catalogue")
}

/// Rows along an axis that no loss of the catalogue has by itself, or along several.
fn other_axis(random: &mut Random) -> RowAxis {
    let axis = random.below(3);
    if random.one_in(2) { RowAxis::At(axis) } else { RowAxis::From(axis) }
}

fn device(random: &mut Random) -> Device {
    random.pick(&[Device::Adapter, Device::Adapter, Device::Adapter, Device::WebGpu, Device::Small])
}

fn domain(row_axis: RowAxis, device: Device, random: &mut Random) -> Vec<usize> {
    let rank = match row_axis {
        RowAxis::None => random.pick(&[1, 1, 2, 2, 3]),
        RowAxis::Last => random.pick(&[1, 2, 2, 2, 3]),
        RowAxis::At(axis) | RowAxis::From(axis) => axis + random.pick(&[1, 1, 2]),
        _ => random.pick(&[1, 2, 2, 2, 3, 3, 4]),
    };
    let columns = row_axis.columns(rank).unwrap_or_default();
    // A few are large enough that the small device cuts them, or that rows are split.
    let most = match random.below(24) {
        0 => 40_000,
        1 => 18_000,
        2..=7 if device == Device::Small => 40_000,
        _ => ELEMENTS,
    };
    let mut domain = vec![1; rank];
    // The axes of a row first, which may be any size; the others share what is left.
    let order = columns.clone().chain((0..rank).filter(|axis| !columns.contains(axis)));
    for axis in order {
        let left = most / domain.iter().product::<usize>().max(1);
        // Half of the rows are short, so that there are many.
        let left = if columns.contains(&axis) && random.one_in(2) { left.min(65) } else { left };
        let fit: Vec<usize> = SIZES.iter().copied().filter(|size| *size <= left.max(1)).collect();
        domain[axis] = random.pick(&fit);
        if columns.contains(&axis) && most > ELEMENTS && random.one_in(3) {
            domain[axis] = random.pick(&[4097, 5000, 17_001]).min(left);
        }
    }
    domain
}

fn group_rows(has_rows: bool, rows: usize, random: &mut Random) -> Option<u64> {
    if !has_rows || random.one_in(2) {
        return None;
    }
    let divisors: Vec<usize> = (1..=rows).filter(|n| rows.is_multiple_of(*n)).collect();
    match random.below(40) {
        0 => Some(random.pick(&[0, rows as u64 + 1, 1 << 32])),
        _ => Some(random.pick(&divisors) as u64),
    }
}

fn reduction(random: &mut Random) -> Reduction {
    match random.below(12) {
        0..=3 => Reduction::None,
        4 | 5 => Reduction::Sum,
        6 => Reduction::Mean,
        7 => Reduction::MeanOrZero,
        8 => Reduction::BatchMean,
        9 => Reduction::MeanWithSampleWeight,
        10 => Reduction::MeanOverPositive,
        _ => Reduction::By("n".to_owned()),
    }
}

/// Some of a loss's options, with values of their domains and those at which the expression changes.
fn options(name: &str, random: &mut Random) -> Vec<(String, Value)> {
    let loss = named(name);
    let mut options = Vec::new();
    for decl in loss.options() {
        if random.one_in(2) {
            continue;
        }
        let value = match decl.default {
            Value::Flag(_) => Value::Flag(random.one_in(2)),
            Value::Word(_) => Value::Word(random.pick(decl.words)),
            Value::Index(_) => Value::Index(random.pick(&[None, Some(-100), Some(-1), Some(2), Some(1 << 40)])),
            Value::Num(_) if random.one_in(6) => Value::Scalar(format!("{KNOB}{}", decl.name)),
            Value::Num(_) if !decl.structural.is_empty() && random.one_in(3) => {
                Value::Num(random.pick(&decl.structural))
            }
            Value::Num(_) if !decl.special.is_empty() && random.one_in(3) => Value::Num(random.pick(&decl.special)),
            Value::Num(_) => Value::Num(match (decl.name.as_str(), decl.domain) {
                ("softcap", _) => random.pick(&[5.0, 30.0]),
                ("eps", _) => random.pick(&[1e-8, 0.1]),
                ("lse_square_scale" | "z", _) => random.pick(&[1e-4, 0.1]),
                (_, Domain::Between(low, high)) => low + (high - low) * random.pick(&[0.25, 0.5, 0.75]),
                (_, Domain::Order) => random.pick(&[1.0, 2.0, 5.0]),
                // Rows may have one column.
                (_, Domain::Rank) => 1.0,
                (_, Domain::OneOrTwo) => random.pick(&[1.0, 2.0]),
                (_, Domain::Finite | Domain::FiniteOrMinusInfinite) => random.pick(&[-0.5, 0.2, 1.0]),
                (_, Domain::Positive | Domain::PositiveOrInfinite) => random.pick(&[0.5, 1.0, 2.0, 0.7]),
                (_, Domain::BelowHalf) => random.pick(&[0.0, 0.1, 0.3]),
                (_, Domain::NonNegative) => random.pick(&[0.0, 0.5, 1.0, 3.0]),
                (_, _) => random.pick(&[0.0, 0.1, 0.5, 1.0]),
            }),
            ref other => panic!("{name}: no values for an option like {other:?}"),
        };
        options.push((decl.name.clone(), value));
    }
    options
}

/// How many values a loss has before it is reduced.
pub fn loss_scope(problem: &Problem) -> Scope {
    let of = |term: &Term| match &term.form {
        Form::Expression { tree, .. } => tree.scope().max(Scope::Total),
        Form::Catalogue { name, .. } => named(name).scope().expect("well formed"),
    };
    of(&problem.terms[0])
}

fn outputs(problem: &mut Problem, random: &mut Random) {
    let loss = problem.loss();
    let pool = problem.inputs.iter().any(|input| input.home.pooled);
    let has_grads = problem.inputs.iter().any(|input| input.grad.is_some());
    let scope = loss_scope(problem);
    let reduced = problem.terms[0].reduction != Reduction::None || scope <= Scope::Total;
    problem.upstream = match random.below(4) {
        0 => Upstream::Scalar,
        1 if !reduced => Upstream::PerLoss,
        _ => Upstream::One,
    };
    if problem.upstream != Upstream::One {
        let scope = if problem.upstream == Upstream::Scalar { Scope::Scalar } else { scope };
        let shape = problem.shape_of(scope);
        let (name, values, dtype) = (UPSTREAM.to_owned(), Values::Any, random.pick(&FLOATS));
        let home = home(shape.len(), true, pool, random);
        problem.inputs.push(Input { name, scope, values, dtype, shape, home, grad: None, hessian: false });
    }
    let outputs = &mut problem.outputs;
    outputs.loss = !has_grads || !random.one_in(6);
    let denominated = |r: &Reduction| !matches!(r, Reduction::None | Reduction::Sum);
    outputs.denominator = scope > Scope::Total && denominated(&problem.terms[0].reduction) && random.one_in(4);
    let extras = loss.extras();
    if !extras.is_empty() && random.one_in(4) {
        for name in extras {
            if random.one_in(2) && !outputs.extras.iter().any(|known| known == name) {
                outputs.extras.push(name.to_owned());
            }
        }
    }
    let shape = if reduced { Vec::new() } else { problem.shape_of(scope) };
    let outputs = &mut problem.outputs;
    if outputs.loss && random.one_in(3) {
        outputs.loss_home = Some(home(shape.len(), false, pool, random));
        outputs.accumulate_loss = random.one_in(2);
    }
    outputs.separate = has_grads && random.one_in(5);
    outputs.found_inf = has_grads && random.one_in(4);
}

/// Plans for more rows than are bound, where the first axis is one of rows.
fn capacity(problem: &mut Problem, random: &mut Random) {
    if random.one_in(8) && !problem.columns().is_some_and(|columns| columns.contains(&0)) && !problem.domain.is_empty()
    {
        // Groups divide the planned rows as well as those that are bound.
        let more = if problem.group_rows.is_some() { problem.domain[0] } else { random.pick(&[1, 3, 16]) };
        problem.capacity = Some(problem.domain[0] + more);
    }
}

/// Sometimes an axis of rows has no index: planned so, or bound so to a plan of more. Inputs that are broadcast along it
/// still are.
fn empty(problem: &mut Problem, random: &mut Random) {
    let columns = problem.columns().unwrap_or_default();
    let axes: Vec<usize> = (0..problem.domain.len()).filter(|axis| !columns.contains(axis)).collect();
    if axes.is_empty() || !random.one_in(20) {
        return;
    }
    let axis = random.pick(&axes);
    let is_long = problem.domain[axis] > 1;
    let before: Vec<Vec<usize>> = problem.inputs.iter().map(|input| input.shape.clone()).collect();
    resize(problem, axis, 0);
    for (input, before) in problem.inputs.iter_mut().zip(before) {
        let broadcast = input.shape.iter_mut().zip(before).filter(|(_, before)| is_long && *before == 1);
        broadcast.for_each(|(size, _)| *size = 1);
    }
    if axis == 0 {
        problem.capacity = random.one_in(2).then(|| random.pick(&[1, 3, 16]));
        problem.group_rows = problem.group_rows.filter(|_| problem.capacity.is_none());
    }
}

fn pinned(has_rows: bool, random: &mut Random) -> Pinned {
    let mut pinned = Pinned::default();
    if has_rows {
        let kernels = [Kernel::Row, Kernel::RowResident { trips: 0 }, Kernel::RowSplit { splits: 2 }];
        pinned.kernel = (!random.one_in(4)).then(|| random.pick(&kernels));
        if matches!(pinned.kernel, Some(Kernel::RowSplit { .. })) {
            pinned.kernel = Some(Kernel::RowSplit { splits: random.pick(&[1, 2, 3, 5]) });
        }
    }
    if random.one_in(2) {
        pinned.workgroup = Some(random.pick(&[8, 16, 32, 64, 128, 256]));
        let split = matches!(pinned.kernel, Some(Kernel::RowSplit { .. }));
        if has_rows && !split {
            let lanes = [1, 2, 4, 8, 16, 32].into_iter().filter(|lanes| Some(*lanes) <= pinned.workgroup);
            pinned.lanes = Some(random.pick(&lanes.collect::<Vec<u32>>()));
        }
    }
    pinned.width = random.one_in(2).then(|| random.pick(&[1, 4]));
    pinned.subgroups = random.one_in(2).then(|| random.one_in(2));
    // As on a GPU that was probed. Software's exp2 is too far off for the sums of softmax rows.
    pinned.carries_nan = random.one_in(3).then_some(true);
    pinned.exp2 = (!has_rows && random.one_in(2)).then_some(Exp2::Functions);
    pinned
}

fn data(problem: &Problem, random: &mut Random) -> Vec<Data> {
    let has = |values: &[Values]| problem.inputs.iter().any(|input| values.contains(&input.values));
    let fits: Vec<Flavour> = FLAVOURS
        .into_iter()
        .filter(|flavour| match flavour {
            Flavour::Plain | Flavour::Ties | Flavour::Nan => true,
            Flavour::Offset => has(&[Values::Logits]) && has(&[Values::Label]),
            Flavour::MinusInfinity => has(&[Values::Logits, Values::LogProbability]) && problem.is_catalogue(),
            Flavour::BadLabel => has(&[Values::Label, Values::BinaryLabel]),
            Flavour::BadGroup => has(&[Values::Groups]),
            Flavour::Nothing => has(&[Values::Label, Values::Weight, Values::Mask]),
        })
        .collect();
    let mut data = vec![Data { flavour: Flavour::Plain, seed: random.word() }];
    for _ in 0..3 {
        data.push(Data { flavour: random.pick(&fits), seed: random.word() });
    }
    data
}
