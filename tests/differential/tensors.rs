//! Tensors drawn for a problem: their numbers, shapes, types, places, and what becomes of their gradients.

use super::draw::loss_scope;
use super::problem::{Form, GROUPS, Grad, Home, Input, KNOB, Problem, Term, Values};
use super::random::Random;
use wgloss::losses::{self, Range};
use wgloss::{DType, Domain, GradMode, Kind, Reduction, Scope, ShapeRule, Value};

pub const FLOATS: [DType; 5] = [DType::F32, DType::F32, DType::F32, DType::F16, DType::BF16];

/// Which numbers an input of that loss takes.
pub fn values_of(form: &Form, input: &str) -> Values {
    let Form::Catalogue { name, .. } = form else {
        return if input == "k" { Values::Scale } else { Values::Any };
    };
    let loss = form.loss();
    if let Some(option) = input.strip_prefix(KNOB) {
        let decl = loss.options().iter().find(|decl| decl.name == option).expect("an option of the loss");
        return match decl.domain {
            Domain::Unit | Domain::UnitOrOff => Values::Share,
            Domain::Between(low, high) => Values::Between(low as u8, high as u8),
            _ => Values::Scale,
        };
    }
    let converts = loss.option_value("convert_binary") == Some(&Value::Flag(true));
    match losses::entry(name).expect("a loss of the catalogue").range(&loss, input) {
        Range::Logits => Values::Logits,
        Range::LogProbability => Values::LogProbability,
        Range::Probability => Values::Probability,
        Range::Cosine => Values::Cosine,
        Range::Positive => Values::Positive,
        Range::Count => Values::Count,
        Range::Binary => Values::Binary,
        Range::Sign if converts => Values::Binary,
        Range::Sign => Values::Sign,
        Range::Label | Range::LabelBetween => Values::Label,
        Range::Ascending => Values::Ascending,
        Range::Weight => Values::Weight,
        Range::Box => Values::Box,
        Range::Bin => Values::Probability,
        _ => Values::Any,
    }
}

/// The tensors that the loss reads.
pub fn inputs(problem: &mut Problem, random: &mut Random) {
    let loss = problem.loss();
    let pool = random.one_in(3);
    let mut specs: Vec<(String, Scope, Values, ShapeRule)> = Vec::new();
    for spec in loss.inputs() {
        if spec.optional && random.one_in(2) {
            continue;
        }
        let of_term = |term: &&Term| problem.loss_of(term).inputs().iter().any(|i| i.name == spec.name);
        let values = match problem.terms.iter().find(of_term) {
            Some(term) if spec.kind == Kind::Int => match values_of(&term.form, term.declared(&spec.name)) {
                Values::Binary => Values::BinaryLabel,
                _ => Values::Label,
            },
            Some(term) => values_of(&term.form, term.declared(&spec.name)),
            None => Values::Scale,
        };
        specs.push((spec.name, spec.scope, values, spec.shape_rule));
    }
    let scope = loss_scope(problem);
    let by_weight = problem.terms.iter().any(|term| term.reduction == Reduction::MeanWithSampleWeight);
    let takes = scope > Scope::Total || random.one_in(30);
    if takes && (by_weight && !random.one_in(30) || random.one_in(5)) {
        specs.push(("sample_weight".to_owned(), scope, Values::Weight, ShapeRule::Broadcast));
    }
    // Some losses have a mask of their own.
    if takes && random.one_in(5) && loss.inputs().iter().all(|input| input.name != "mask") {
        specs.push(("mask".to_owned(), scope, Values::Mask, ShapeRule::Broadcast));
    }
    let mut whole = false;
    for (name, scope, values, rule) in specs {
        let full = problem.shape_of(scope);
        let must = scope == Scope::Element && !whole;
        whole |= scope == Scope::Element;
        let shape = match rule {
            ShapeRule::Broadcast if !must => broadcast(scope, &full, random),
            // One in a hundred is refused by both paths.
            ShapeRule::Same if !must && random.one_in(100) => broadcast(scope, &full, random),
            _ => full,
        };
        // Of more than one axis, Keras squeezes; of both inputs, one.
        let may_exceed = rule == ShapeRule::SameUpToLastOne && !must && shape.len() > 1;
        let shape = if may_exceed && random.one_in(6) { [&shape[..], &[1]].concat() } else { shape };
        let may_end_in_one = scope == Scope::Row && shape.len() == problem.shape_of(scope).len();
        let shape = if may_end_in_one && random.one_in(12) { [&shape[..], &[1]].concat() } else { shape };
        let dtype = match values {
            values if values.are_indices() => random.pick(&[DType::I32, DType::I32, DType::U32]),
            _ => random.pick(&FLOATS),
        };
        let home = home(shape.len(), true, pool, random);
        problem.inputs.push(Input { name, scope, values, dtype, shape, home, grad: None, hessian: false });
    }
    groups(problem, pool, random);
}

/// The offsets or ids of groups of unequal length.
fn groups(problem: &mut Problem, pool: bool, random: &mut Random) {
    let Some(unequal) = problem.unequal else { return };
    let scope = if unequal.ids { Scope::Row } else { Scope::Group };
    let shape = if unequal.ids { problem.shape_of(Scope::Row) } else { vec![unequal.groups + 1] };
    let (name, values, dtype) = (GROUPS.to_owned(), Values::Groups, random.pick(&[DType::I32, DType::U32]));
    let home = home(shape.len(), false, pool, random);
    problem.inputs.push(Input { name, scope, values, dtype, shape, home, grad: None, hessian: false });
}

/// A shape that broadcasts to `full`: some axes 1, some leading axes absent.
pub fn broadcast(scope: Scope, full: &[usize], random: &mut Random) -> Vec<usize> {
    if scope <= Scope::Scalar {
        return if random.one_in(2) { Vec::new() } else { vec![1] };
    }
    let mut shape = full.to_vec();
    if scope == Scope::Column || !random.one_in(4) {
        return shape;
    }
    for size in &mut shape {
        if random.one_in(2) {
            *size = 1;
        }
    }
    if random.one_in(2) {
        shape.drain(..random.below(full.len() + 1));
    }
    shape
}

/// A place for a tensor.
pub fn home(rank: usize, repeats: bool, pool: bool, random: &mut Random) -> Home {
    let mut home =
        Home { step: 1, pooled: pool && !random.one_in(4), behind: random.pick(&[0, 0, 16, 64]), ..Home::default() };
    if random.one_in(3) {
        home.offset = random.pick(&[1, 2, 3, 4, 5, 8, 64, 65]);
    }
    if rank > 1 && random.one_in(4) {
        home.pad = random.pick(&[1, 3, 4, 8]);
    }
    home.step = if random.one_in(12) { 2 } else { 1 };
    home.reversed = rank > 1 && random.one_in(10);
    if repeats && rank > 0 && random.one_in(12) {
        home.repeats = (0..rank).map(|_| random.one_in(2)).collect();
    }
    home
}

/// Which gradients are wanted, and how.
pub fn gradients(problem: &mut Problem, random: &mut Random) {
    let pool = problem.inputs.iter().any(|input| input.home.pooled);
    for (place, input) in problem.inputs.iter_mut().enumerate() {
        if input.values.are_indices() || !(place == 0 || random.one_in(3)) || random.one_in(12) {
            continue;
        }
        let repeats = input.home.repeats.contains(&true);
        let mode = match random.below(6) {
            0 | 1 if input.scope > Scope::Total && input.scope != Scope::Column && !repeats => GradMode::InPlace,
            2 => GradMode::Accumulate,
            _ => GradMode::Write,
        };
        let dtype = (mode != GradMode::InPlace && random.one_in(4)).then(|| random.pick(&FLOATS));
        let mut home = home(input.shape.len(), false, pool, random);
        home.sliding = mode != GradMode::InPlace && random.one_in(60);
        input.grad = Some(Grad { mode, dtype, home });
    }
    let whole = problem.domain.clone();
    if random.one_in(10) {
        let fits = |i: &&mut Input| i.scope == Scope::Element && !i.values.are_indices();
        if let Some(input) = problem.inputs.iter_mut().find(fits) {
            input.hessian = input.shape == whole || random.one_in(4);
        }
    }
}
