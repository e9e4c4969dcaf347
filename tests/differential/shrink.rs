//! Smaller problems that fail in the same way.

use super::expression::{Index, Test, Tree};
use super::problem::{Data, Device, Form, GROUPS, Home, Input, Problem, Term, Unequal};
use std::time::{Duration, Instant};
use wgloss::Pinned;
use wgloss::{DType, GradMode, Reduction, Scope};
use wgloss::{UPSTREAM, Upstream};

/// Shrinks greedily while `fails` holds: each simpler problem that fails is the next one to simplify, until none is
/// or the time is over.
pub fn shrink(problem: &Problem, time: Duration, mut fails: impl FnMut(&Problem) -> bool) -> Problem {
    let (mut best, start) = (problem.clone(), Instant::now());
    let mut candidates = simpler(&best);
    // After a step, what comes next in the list goes on; the list is done when all of it has failed to fail.
    let (mut next, mut tried) = (0, 0);
    while tried < candidates.len() && start.elapsed() < time {
        let candidate = &candidates[next % candidates.len()];
        if *candidate != best && fails(candidate) {
            best = candidate.clone();
            candidates = simpler(&best);
            tried = 0;
        } else {
            (next, tried) = (next + 1, tried + 1);
        }
    }
    best
}

/// Problems that are a step simpler. No way leads back from any of them.
fn simpler(problem: &Problem) -> Vec<Problem> {
    let mut all = Vec::new();
    let mut with = |change: &dyn Fn(&mut Problem)| {
        let mut changed = problem.clone();
        change(&mut changed);
        if settle(&mut changed) {
            all.push(changed);
        }
    };
    for data in &problem.data {
        if problem.data.len() > 1 {
            with(&|p| p.data = vec![*data]);
        }
    }
    if problem.terms.len() > 1 {
        for k in 0..problem.terms.len() {
            with(&|p| drop(p.terms.remove(k)));
        }
    }
    with(&|p| p.pinned = Pinned::default());
    with(&|p| p.pinned.kernel = None);
    with(&|p| p.pinned.width = None);
    with(&|p| p.pinned.subgroups = None);
    with(&|p| (p.pinned.workgroup, p.pinned.lanes) = (None, None));
    with(&|p| p.pinned.lanes = None);
    with(&|p| p.capacity = None);
    with(&|p| p.group_rows = None);
    with(&|p| p.unequal = None);
    for groups in [1, 2, 3] {
        if problem.unequal.is_some_and(|unequal| unequal.groups > groups) {
            with(&|p| regroup(p, groups));
        }
    }
    if problem.group_rows.is_some_and(|rows| rows > 1) {
        with(&|p| p.group_rows = Some(1));
    }
    with(&|p| p.device = Device::Adapter);
    with(&|p| p.scaled_by = None);
    with(&|p| p.broadcasts = false);
    if problem.domain.len() <= 2 {
        with(&|p| p.rows_along = None);
    }
    with(&|p| p.beside = None);
    with(&|p| {
        p.terms.iter_mut().for_each(|term| {
            if let Form::Expression { cols, .. } = &mut term.form {
                *cols = None;
            }
        });
    });
    with(&|p| p.upstream = Upstream::One);
    with(&|p| p.outputs.separate = false);
    with(&|p| p.outputs.found_inf = false);
    with(&|p| p.outputs.loss = true);
    with(&|p| p.outputs.denominator = false);
    with(&|p| p.outputs.accumulate_loss = false);
    with(&|p| p.outputs.loss_home = None);
    for k in 0..problem.outputs.extras.len() {
        with(&|p| drop(p.outputs.extras.remove(k)));
    }
    for reduction in [Reduction::None, Reduction::Sum, Reduction::Mean] {
        if problem.terms.iter().all(|term| term.reduction == reduction) {
            break;
        }
        with(&|p| p.terms.iter_mut().for_each(|term| term.reduction = reduction.clone()));
    }
    for k in 0..problem.terms.len() {
        with(&|p| p.terms[k].weight = 1.0);
        with(&|p| p.terms[k].renamed = false);
        if let Form::Catalogue { options, .. } = &problem.terms[k].form {
            for option in 0..options.len() {
                with(&|p| {
                    if let Form::Catalogue { options, .. } = &mut p.terms[k].form {
                        options.remove(option);
                    }
                });
            }
        }
    }
    with(&|p| p.inputs.iter_mut().for_each(|input| input.home = Home::default()));
    for k in 0..problem.inputs.len() {
        let optional = problem.loss().inputs().iter().all(|i| i.optional || i.name != problem.inputs[k].name);
        if optional && ![UPSTREAM, GROUPS].contains(&problem.inputs[k].name.as_str()) {
            with(&|p| drop(p.inputs.remove(k)));
        }
        with(&|p| p.inputs[k].grad = None);
        with(&|p| p.inputs[k].hessian = false);
        with(&|p| p.inputs[k].home = Home::default());
        with(&|p| p.inputs[k].home.pooled = false);
        with(&|p| p.inputs[k].home.offset = 0);
        with(&|p| p.inputs[k].home.repeats = Vec::new());
        with(&|p| {
            let dtype = &mut p.inputs[k].dtype;
            *dtype = if dtype.is_float() { DType::F32 } else { DType::I32 };
        });
        with(&|p| p.inputs[k].grad.iter_mut().for_each(|grad| grad.mode = GradMode::Write));
        with(&|p| p.inputs[k].grad.iter_mut().for_each(|grad| grad.dtype = None));
        with(&|p| p.inputs[k].grad.iter_mut().for_each(|grad| grad.home = Home::default()));
        if problem.inputs[k].name != GROUPS {
            let whole = problem.shape_of(problem.inputs[k].scope);
            with(&|p| p.inputs[k].shape.clone_from(&whole));
        }
    }
    for axis in 0..problem.domain.len() {
        let size = problem.domain[axis];
        for to in [1, 2, 3, size / 2, size.saturating_sub(1)] {
            if (1..size).contains(&to) {
                with(&|p| resize(p, axis, to));
            }
        }
    }
    for k in 0..problem.terms.len() {
        let Form::Expression { tree, .. } = &problem.terms[k].form else { continue };
        for smaller in smaller_trees(tree) {
            with(&|p| {
                if let Form::Expression { tree, .. } = &mut p.terms[k].form {
                    tree.clone_from(&smaller);
                }
            });
        }
    }
    for (k, Data { seed, .. }) in problem.data.iter().enumerate() {
        if *seed > 8 {
            for other in 1..4 {
                with(&|p| p.data[k].seed = other);
            }
        }
    }
    all
}

/// Makes the parts fit each other again; false where that cannot be.
fn settle(problem: &mut Problem) -> bool {
    let known = problem.loss().inputs();
    let generic = ["sample_weight", "mask", UPSTREAM, GROUPS];
    if problem.upstream == Upstream::One {
        problem.inputs.retain(|input| input.name != UPSTREAM);
    }
    if problem.unequal.is_none() {
        problem.inputs.retain(|input| input.name != GROUPS);
    }
    let rows_of_groups = |term: &Term| match &term.form {
        Form::Expression { tree, .. } => tree.has(|tree| *tree == Tree::GroupRows),
        Form::Catalogue { .. } => false,
    };
    let fits = match problem.unequal {
        Some(_) => super::draw::has_groups(problem),
        None => !problem.terms.iter().any(rows_of_groups),
    };
    if !fits {
        return false;
    }
    problem.inputs.retain(|input| known.iter().any(|i| i.name == input.name) || generic.contains(&input.name.as_str()));
    if known.iter().any(|i| !i.optional && problem.input(&i.name).is_none()) {
        return false;
    }
    let scope = super::draw::loss_scope(problem);
    let upstream = problem.upstream;
    let shapes: Vec<Vec<usize>> = [Scope::Element, Scope::Row].iter().map(|s| problem.shape_of(*s)).collect();
    for input in &mut problem.inputs {
        let by_loss = ["sample_weight", "mask"].contains(&input.name.as_str());
        if by_loss || input.name == UPSTREAM && upstream == Upstream::PerLoss {
            input.scope = scope;
            let whole = if scope == Scope::Element { &shapes[0] } else { &shapes[1] };
            input.shape.clone_from(whole);
        }
        if let Some(grad) = &mut input.grad {
            if grad.mode == GradMode::InPlace {
                grad.dtype = None;
            }
        }
    }
    let outputs = &mut problem.outputs;
    outputs.accumulate_loss &= outputs.loss && outputs.loss_home.is_some();
    let extras = problem.loss();
    let extras = extras.extras();
    let outputs = &mut problem.outputs;
    outputs.extras.retain(|name| extras.contains(&name.as_str()));
    let reduced = !matches!(problem.terms[0].reduction, Reduction::None | Reduction::Sum);
    problem.outputs.denominator &= reduced && scope > Scope::Total;
    let has_element = problem.inputs.iter().any(|i| i.scope == Scope::Element && i.shape == problem.domain);
    problem.outputs.found_inf &= !problem.grads().is_empty();
    let has_output = !problem.keys().is_empty();
    has_element
        && has_output
        && (problem.upstream != Upstream::PerLoss || problem.terms[0].reduction == Reduction::None)
}

/// Another size for an axis of the domain, and so of every input that has it.
pub fn resize(problem: &mut Problem, axis: usize, to: usize) {
    let columns = problem.columns().unwrap_or_default();
    let has_rows = problem.columns().is_some();
    let rank = problem.domain.len();
    let (rows, elements) = (problem.shape_of(Scope::Row), problem.domain.clone());
    problem.domain[axis] = to;
    for input in &mut problem.inputs {
        let of_rows = input.shape_beside(&rows).len();
        let own = match input.scope {
            Scope::Element => (axis + input.shape_beside(&elements).len()).checked_sub(rank),
            Scope::Row if has_rows && !columns.contains(&axis) => {
                let axis = if axis >= columns.end { axis - columns.len() } else { axis };
                (axis + of_rows + columns.len()).checked_sub(rank)
            }
            _ => None,
        };
        if let Some(size) = own.and_then(|own| input.shape.get_mut(own)) {
            *size = (*size).min(to);
        }
    }
    if let Some(capacity) = &mut problem.capacity {
        if axis == 0 {
            *capacity = 2 * to;
        }
    }
    if let Some(rows) = problem.group_rows {
        if !problem.rows_cols().0.is_multiple_of(rows.max(1) as usize) {
            problem.group_rows = Some(1);
        }
    }
    let cols = problem.rows_cols().1;
    for input in problem.inputs.iter_mut().filter(|input| input.scope == Scope::Column) {
        input.shape.iter_mut().for_each(|size| *size = (*size).min(cols));
    }
    fit_groups(problem);
}

/// Another number of groups of unequal length.
fn regroup(problem: &mut Problem, groups: usize) {
    problem.unequal = problem.unequal.map(|unequal| Unequal { groups, ..unequal });
    fit_groups(problem);
}

/// Gives inputs of groups a value per group again.
fn fit_groups(problem: &mut Problem) {
    let groups = problem.shape_of(Scope::Group);
    for input in problem.inputs.iter_mut().filter(|input| input.scope == Scope::Group && input.name == GROUPS) {
        input.shape = vec![groups[0] + 1];
    }
    let of_groups = |input: &&mut Input| input.scope == Scope::Group && input.name != GROUPS;
    for input in problem.inputs.iter_mut().filter(of_groups).filter(|input| !input.shape.is_empty()) {
        input.shape = if input.shape == [1] { vec![1] } else { groups.clone() };
    }
    let of_both = problem.shape_of(Scope::GroupColumn);
    for input in problem.inputs.iter_mut().filter(|input| input.scope == Scope::GroupColumn) {
        let lead = of_both.len() - input.shape.len();
        input
            .shape
            .iter_mut()
            .zip(&of_both[lead..])
            .for_each(|(size, whole)| *size = if *size == 1 { 1 } else { *whole });
    }
}

/// The tree with one node replaced by an operand of it, or by a leaf.
fn smaller_trees(tree: &Tree) -> Vec<Tree> {
    let mut all = Vec::new();
    let scope = tree.scope();
    for place in 0..tree.size() {
        for (k, _) in replacements(tree, place).into_iter().enumerate() {
            let changed = rebuild(tree, place, k);
            let whole = !matches!(changed.scope(), Scope::Scalar | Scope::Param);
            if changed != *tree && whole && (changed.scope() == scope || changed.scope() >= Scope::Row) {
                all.push(changed);
            }
        }
    }
    all.sort_by_key(Tree::size);
    all.truncate(60);
    all
}

/// What may stand for the number at that place, counted as `visit` does.
fn replacements(tree: &Tree, place: usize) -> Vec<Tree> {
    let mut found = Vec::new();
    let mut count = 0;
    tree.visit(&mut |part| {
        if count == place {
            if let super::expression::Part::Tree(node) = part {
                found = instead(node);
            }
        }
        count += 1;
    });
    found
}

fn instead(node: &Tree) -> Vec<Tree> {
    let operands = |x: &[&Tree]| x.iter().map(|x| (*x).clone()).collect::<Vec<_>>();
    let mut all = match node {
        Tree::Const(value) if *value != 1.0 => return vec![Tree::Const(1.0)],
        Tree::Const(_) | Tree::Input("input") => return Vec::new(),
        Tree::Param(_) | Tree::Count(_) | Tree::GroupRows => return vec![Tree::Const(2.0)],
        Tree::Input("other") => return vec![Tree::Input("input")],
        Tree::Input("s") => return vec![Tree::Input("r")],
        Tree::Input("k") => return vec![Tree::Const(2.0)],
        Tree::Input(_) | Tree::Col | Tree::Row => Vec::new(),
        Tree::Op(_, x) | Tree::Scan(_, _, x) | Tree::Pairs(_, x) => x.clone(),
        Tree::Clamp(x, low, high) => operands(&[x, low, high]),
        Tree::Powi(x, _) => operands(&[x]),
        Tree::Select(_, a, b) | Tree::StraightThrough(a, b) | Tree::WithGradient(a, _, b) => operands(&[a, b]),
        Tree::Sorted(_, _, x, key) => operands(&[x, key]),
        Tree::Masked(_, x) | Tree::Softmax(x) | Tree::LogSoftmax(x) | Tree::Detach(x) => operands(&[x]),
        Tree::Fold(_, x) | Tree::At(_, x) => operands(&[x]),
        Tree::LogSumExpOver(scope, x) => [operands(&[x]), vec![Tree::SumOver(*scope, x.clone())]].concat(),
        Tree::SumOver(_, x) => operands(&[x]),
        Tree::Truth(test) => test_operands(test),
    };
    match node.scope() {
        Scope::Element => all.push(Tree::Input("input")),
        Scope::Row => all.push(Tree::Input("r")),
        Scope::Group => all.push(Tree::Input("g")),
        Scope::Column => all.push(Tree::Input("c")),
        Scope::GroupColumn => all.push(Tree::Input("h")),
        _ => all.push(Tree::Const(2.0)),
    }
    all
}

fn test_operands(test: &Test) -> Vec<Tree> {
    match test {
        Test::Compare(_, a, b) => vec![a.clone(), b.clone()],
        Test::Not(a) => test_operands(a),
        Test::And(a, b) | Test::Or(a, b) => [test_operands(a), test_operands(b)].concat(),
        Test::ColIs(Index::ArgMax(x)) | Test::ColBelow(Index::ArgMax(x)) => vec![(**x).clone()],
        Test::ColIs(_) | Test::ColBelow(_) | Test::LabelIs(_) | Test::LabelBelow(_) | Test::ClassIs(..) => Vec::new(),
    }
}

/// The tree with the number at that place replaced by its `k`-th replacement; a test there is replaced by its first part.
fn rebuild(tree: &Tree, place: usize, k: usize) -> Tree {
    let mut count = 0;
    rebuild_tree(tree, place, k, &mut count)
}

fn rebuild_tree(tree: &Tree, place: usize, k: usize, count: &mut usize) -> Tree {
    let here = *count == place;
    *count += 1;
    if here {
        return instead(tree).swap_remove(k);
    }
    let mut own = |x: &Tree| rebuild_tree(x, place, k, count);
    match tree {
        Tree::Op(op, x) => Tree::Op(*op, x.iter().map(own).collect()),
        Tree::Clamp(x, low, high) => {
            let [x, low, high] = [x, low, high].map(|x| Box::new(own(x)));
            Tree::Clamp(x, low, high)
        }
        Tree::Powi(x, n) => Tree::Powi(own(x).into(), *n),
        Tree::Fold(fold, x) => Tree::Fold(*fold, own(x).into()),
        Tree::Softmax(x) => Tree::Softmax(own(x).into()),
        Tree::LogSoftmax(x) => Tree::LogSoftmax(own(x).into()),
        Tree::Scan(scan, along, x) => Tree::Scan(*scan, *along, x.iter().map(&mut own).collect()),
        Tree::Pairs(pairs, x) => Tree::Pairs(*pairs, x.iter().map(&mut own).collect()),
        Tree::Sorted(order, back, x, key) => {
            let x = own(x);
            Tree::Sorted(*order, *back, x.into(), own(key).into())
        }
        Tree::SumOver(scope, x) => Tree::SumOver(*scope, own(x).into()),
        Tree::LogSumExpOver(scope, x) => Tree::LogSumExpOver(*scope, own(x).into()),
        Tree::Detach(x) => Tree::Detach(own(x).into()),
        Tree::StraightThrough(a, b) => {
            let a = own(a);
            Tree::StraightThrough(a.into(), own(b).into())
        }
        Tree::WithGradient(a, input, b) => {
            let a = own(a);
            Tree::WithGradient(a.into(), input, own(b).into())
        }
        Tree::Select(test, a, b) => {
            let test = rebuild_test(test, place, k, count);
            let a = rebuild_tree(a, place, k, count);
            Tree::Select(test.into(), a.into(), rebuild_tree(b, place, k, count).into())
        }
        Tree::Masked(test, x) => {
            let test = rebuild_test(test, place, k, count);
            Tree::Masked(test.into(), rebuild_tree(x, place, k, count).into())
        }
        Tree::Truth(test) => Tree::Truth(rebuild_test(test, place, k, count).into()),
        Tree::At(index, x) => {
            let index = rebuild_index(index, place, k, count);
            Tree::At(index, rebuild_tree(x, place, k, count).into())
        }
        leaf => leaf.clone(),
    }
}

fn rebuild_test(test: &Test, place: usize, k: usize, count: &mut usize) -> Test {
    *count += 1;
    match test {
        Test::Compare(op, a, b) => {
            let a = rebuild_tree(a, place, k, count);
            Test::Compare(*op, a, rebuild_tree(b, place, k, count))
        }
        Test::Not(a) => Test::Not(rebuild_test(a, place, k, count).into()),
        Test::And(a, b) => {
            let a = rebuild_test(a, place, k, count);
            Test::And(a.into(), rebuild_test(b, place, k, count).into())
        }
        Test::Or(a, b) => {
            let a = rebuild_test(a, place, k, count);
            Test::Or(a.into(), rebuild_test(b, place, k, count).into())
        }
        Test::ColIs(index) => Test::ColIs(rebuild_index(index, place, k, count)),
        Test::ColBelow(index) => Test::ColBelow(rebuild_index(index, place, k, count)),
        Test::LabelIs(index) => Test::LabelIs(*index),
        Test::LabelBelow(index) => Test::LabelBelow(*index),
        Test::ClassIs(index, is_checked) => Test::ClassIs(*index, *is_checked),
    }
}

fn rebuild_index(index: &Index, place: usize, k: usize, count: &mut usize) -> Index {
    *count += 1;
    match index {
        Index::ArgMax(x) => Index::ArgMax(rebuild_tree(x, place, k, count).into()),
        other => other.clone(),
    }
}
