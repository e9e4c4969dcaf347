//! Expressions by the book, apart from the library: what the f64 path itself is held to.
//!
//! The GPU and the CPU run the same program, so a fault of lowering, of the rewrites or of a derivative shows on both.
//! Here a tree is evaluated node by node in f64, with its derivative along one random direction of all inputs (forward
//! mode, where the library's is reverse). The semantics are those of design §3: a branch that is not taken is not looked
//! at, a condition computed from NaN poisons, kinks and ties have the stated subgradients.

use super::dual::{Dual, NAN, apply, clamp, fold_row, pairs_row, scan_row, softmax, sorted_row};
use super::expression::{Fold, INPUTS, Index, PARAMS, Test, Tree};
use super::problem::{Flavour, Form, GROUPS, Input, Problem, Unequal};
use super::random::Random;
use super::values::Host;
use std::cell::Cell;
use wgloss::Wanted;
use wgloss::internals::expr::op::Op;
use wgloss::{Extent, HostTensor, Reduction, Scope, cpu};

/// Values of one scope.
struct Array {
    scope: Scope,
    values: Vec<Dual>,
}

/// Truth values of one scope; `None` is what a NaN leaves.
struct Truths {
    scope: Scope,
    values: Vec<Option<bool>>,
}

struct Oracle<'o> {
    rows: usize,
    cols: usize,
    /// The group of each row.
    group: Vec<usize>,
    groups: usize,
    batch: usize,
    inputs: Vec<(&'static str, Array)>,
    labels: Vec<i64>,
    /// Labels of elements.
    classes: Vec<i64>,
    params: [f64; 2],
    problem: &'o Problem,
    /// The largest derivative of any node so far.
    steepest: Cell<f64>,
    /// Whether rounding has decided a comparison so far.
    is_undecided: Cell<bool>,
    /// Whether that of f64 has: the f64 path may have decided otherwise.
    is_undecided_in_f64: Cell<bool>,
    /// Whether rounding has decided which of two numbers is larger so far.
    has_ties: Cell<bool>,
}

/// What is wrong with the f64 path of a problem.
pub struct Wrong {
    pub what: &'static str,
    pub message: String,
}

/// Whether the f64 path is right on a problem that is one expression; `None` where that is not known.
pub fn check(problem: &Problem, flavour: Flavour, hosts: &[Host], seed: u64) -> Option<Result<(), Wrong>> {
    let wrong = |what: &'static str, message: String| Some(Err(Wrong { what, message }));
    let [term] = &problem.terms[..] else { return None };
    let Form::Expression { tree, params, .. } = &term.form else { return None };
    // Whether a gather looks at the rest of its row is not said anywhere.
    let gathers = tree.has(|t| matches!(t, Tree::At(..)));
    if matches!(flavour, Flavour::BadLabel | Flavour::BadGroup) || flavour == Flavour::Nan && gathers {
        return None;
    }
    let mut random = Random::new(seed ^ 0x04ac1e);
    let groups = problem.groups_of(tree);
    let is_read = |name: &str| tree.reads(name) || groups.as_ref().is_some_and(|groups| groups.input == name);
    let read: Vec<usize> = (0..hosts.len()).filter(|k| is_read(&problem.inputs[*k].name)).collect();
    let directions: Vec<Vec<f64>> =
        read.iter().map(|k| hosts[*k].numbers().iter().map(|_| random.between(-1.0, 1.0)).collect()).collect();
    let oracle = Oracle::new(problem, *params, hosts, &read, &directions);
    let want = oracle.tree(tree);
    if oracle.is_undecided_in_f64.get() {
        return None;
    }
    let inputs: Vec<(&str, HostTensor<'_>)> =
        read.iter().map(|k| (problem.inputs[*k].name.as_str(), hosts[*k].tensor(&problem.inputs[*k].shape))).collect();
    let run = |reduction: Reduction, grads: &[String]| {
        let wanted = Wanted { loss: true, grads: grads.to_vec(), groups: groups.clone(), ..Wanted::default() };
        let plan = cpu::CpuPlan::<f64>::new(&problem.loss_of(term).reduction(reduction), &inputs, &wanted).ok()?;
        let plan = match problem.group_rows {
            Some(rows) => plan.group_rows(rows as usize).ok()?,
            None => plan,
        };
        let mut out = plan.output();
        plan.run(&inputs, &mut out).ok()?;
        (out.take_bad_group().is_none() && out.take_bad_label().is_none()).then_some(out)
    };
    let values = run(Reduction::None, &[])?;
    let got = oracle.in_rows(values.loss_values().ok()?, want.scope);
    let largest = want.values.iter().map(|x| x[0].abs()).filter(|x| x.is_finite()).fold(1e-9, f64::max);
    for (k, (got, [want, _])) in got.iter().zip(&want.values).enumerate() {
        let fits = got.is_nan() && want.is_nan() || got == want || (got - want).abs() <= 1e-9 * (largest + want.abs());
        if !fits {
            let what = if got.is_nan() != want.is_nan() { "NaN in loss" } else { "loss" };
            return wrong(what, format!("the f64 path says {got:e} for loss {k}, by the book it is {want:e}"));
        }
    }
    let grads: Vec<String> =
        read.iter().filter(|k| !hosts[**k].numbers().is_empty()).map(|k| problem.inputs[*k].name.clone()).collect();
    let out = run(Reduction::Sum, &grads)?;
    let slope: f64 = want.values.iter().map(|x| x[1]).sum();
    // Of no rows all gradients are 0, of scalars too, whatever they go through.
    let is_empty = problem.domain.contains(&0);
    if is_empty && grads.iter().any(|name| out.grad(name).is_ok_and(|grad| grad.iter().any(|x| *x != 0.0))) {
        return wrong("gradient", "a gradient of no rows that is not 0".to_owned());
    }
    if want.values.iter().any(|x| x[0].is_nan()) || !slope.is_finite() || is_empty {
        return Some(Ok(()));
    }
    let (mut sum, mut size) = (0.0, want.values.iter().map(|x| x[1].abs()).sum::<f64>());
    for (k, direction) in read.iter().zip(&directions).filter(|(k, _)| !hosts[**k].numbers().is_empty()) {
        let name = &problem.inputs[*k].name;
        for (place, (grad, direction)) in out.grad(name).ok()?.iter().zip(direction).enumerate() {
            if !grad.is_finite() {
                let message =
                    format!("gradient {place} of {name} is {grad} on the f64 path, though the loss is finite");
                return wrong("NaN in gradient", message);
            }
            sum += grad * direction;
            size += (grad * direction).abs();
        }
    }
    let off = (sum - slope).abs();
    if off > 1e-7 * size + 1e-9 {
        let message =
            format!("the f64 path's gradient along a direction is {sum:e}, by the book {slope:e} (of {size:e})");
        return wrong("gradient", message);
    }
    Some(Ok(()))
}

/// How a problem's expressions respond to rounding.
#[derive(Clone, Copy, Debug)]
pub struct Sensitivity {
    /// The largest derivative within them, along a direction of ±1, and 1: what is left where derivatives cancel is some
    /// ulps of it.
    pub steepest: f64,
    /// Whether computed numbers are compared that are equal but for rounding.
    pub is_undecided: bool,
    /// Whether the larger or smaller of such numbers is taken: the gradient's share is decided by rounding.
    pub has_ties: bool,
}

/// How the expressions of a problem respond to rounding.
pub fn sensitivity(problem: &Problem, hosts: &[Host]) -> Sensitivity {
    let mut all = Sensitivity { steepest: 1.0, is_undecided: false, has_ties: false };
    for term in &problem.terms {
        let Form::Expression { tree, params, .. } = &term.form else { continue };
        let mut random = Random::new(1);
        let read: Vec<usize> = (0..hosts.len()).filter(|k| tree.reads(&problem.inputs[*k].name)).collect();
        let along: Vec<Vec<f64>> =
            read.iter().map(|k| hosts[*k].numbers().iter().map(|_| random.pick(&[-1.0, 1.0])).collect()).collect();
        let oracle = Oracle::new(problem, *params, hosts, &read, &along);
        oracle.tree(tree);
        all.steepest = all.steepest.max(oracle.steepest.get() * term.weight.abs());
        all.is_undecided |= oracle.is_undecided.get();
        all.has_ties |= oracle.has_ties.get();
    }
    all
}

impl<'o> Oracle<'o> {
    fn new(problem: &'o Problem, params: [f64; 2], hosts: &[Host], read: &[usize], along: &[Vec<f64>]) -> Oracle<'o> {
        let (rows, cols) = problem.rows_cols();
        let batch = problem.domain.first().copied().unwrap_or(1);
        let (group, groups) = groups_of(problem, hosts);
        let (inputs, labels, classes) = (Vec::new(), Vec::new(), Vec::new());
        let steepest = Cell::new(0.0);
        let [is_undecided, is_undecided_in_f64, has_ties] = [false; 3].map(Cell::new);
        let mut oracle = Oracle {
            rows,
            cols,
            group,
            groups,
            batch,
            inputs,
            labels,
            classes,
            params,
            problem,
            steepest,
            is_undecided,
            is_undecided_in_f64,
            has_ties,
        };
        for (place, k) in read.iter().enumerate().filter(|(_, k)| problem.inputs[**k].name != GROUPS) {
            let input = &problem.inputs[*k];
            let full = problem.shape_of(input.scope);
            let sources = sources(input.shape_beside(&full), &full);
            match &hosts[*k] {
                Host::Numbers(values) => {
                    let all: Vec<Dual> = sources.iter().map(|s| [f64::from(values[*s]), along[place][*s]]).collect();
                    let values = oracle.in_rows(&all, input.scope);
                    let name = INPUTS.iter().find(|i| i.0 == input.name).map_or("input", |i| i.0);
                    oracle.inputs.push((name, Array { scope: input.scope, values }));
                }
                Host::Signed(values) => oracle.note(input, sources.iter().map(|s| i64::from(values[*s])).collect()),
                Host::Unsigned(values) => oracle.note(input, sources.iter().map(|s| i64::from(values[*s])).collect()),
            }
        }
        oracle
    }

    fn note(&mut self, input: &Input, labels: Vec<i64>) {
        match input.scope {
            Scope::Element => self.classes = self.in_rows(&labels, Scope::Element),
            _ => self.labels = labels,
        }
    }

    /// Element values in the order of rows, then columns.
    fn in_rows<T: Copy>(&self, values: &[T], scope: Scope) -> Vec<T> {
        let Some(columns) = self.problem.columns().filter(|_| scope == Scope::Element) else { return values.to_vec() };
        let inner: usize = self.problem.domain[columns.end..].iter().product();
        let mut all = Vec::new();
        for row in 0..self.rows {
            let first = row / inner * inner * self.cols + row % inner;
            all.extend((0..self.cols).map(|col| values[first + col * inner]));
        }
        all
    }

    fn count(&self, scope: Scope) -> usize {
        match scope {
            Scope::Element => self.rows * self.cols,
            Scope::Row => self.rows,
            Scope::Column => self.cols,
            Scope::Group => self.groups,
            Scope::GroupColumn => self.groups * self.cols,
            _ => 1,
        }
    }

    /// Index of a value of `of` that belongs to that value of `scope`.
    fn index(&self, scope: Scope, k: usize, of: Scope) -> usize {
        let (row, col) = match scope {
            Scope::Element | Scope::GroupColumn => (k / self.cols, k % self.cols),
            Scope::Column => (0, k),
            _ => (k, 0),
        };
        // Of groups, the first index is the group's.
        let group = || if matches!(scope, Scope::Group | Scope::GroupColumn) { row } else { self.group[row] };
        match of {
            Scope::Element => k,
            Scope::Row => row,
            Scope::Column => col,
            Scope::Group => group(),
            Scope::GroupColumn => group() * self.cols + col,
            _ => 0,
        }
    }

    fn map(&self, operands: &[&Array], f: impl Fn(&[Dual]) -> Dual) -> Array {
        let scope = operands.iter().fold(Scope::Param, |scope, x| scope.join(x.scope));
        let values = (0..self.count(scope)).map(|k| {
            let x: Vec<Dual> = operands.iter().map(|x| x.values[self.index(scope, k, x.scope)]).collect();
            f(&x)
        });
        Array { scope, values: values.collect() }
    }

    /// The elements of a row.
    fn row(&self, x: &Array, row: usize) -> Vec<Dual> {
        (0..self.cols).map(|col| x.values[self.index(Scope::Element, row * self.cols + col, x.scope)]).collect()
    }

    fn tree(&self, tree: &Tree) -> Array {
        let array = self.node(tree);
        let slopes = array.values.iter().map(|x| x[1].abs()).filter(|x| x.is_finite());
        self.steepest.set(slopes.fold(self.steepest.get(), f64::max));
        array
    }

    fn node(&self, tree: &Tree) -> Array {
        let constant = |value: f64| Array { scope: Scope::Param, values: vec![[value, 0.0]] };
        match tree {
            Tree::Const(value) => constant(*value),
            Tree::Param(name) => constant(self.params[PARAMS.iter().position(|p| p == name).unwrap_or(0)]),
            Tree::Input(name) => {
                let (_, Array { scope, values }) = self.inputs.iter().find(|i| i.0 == *name).expect("an input is read");
                Array { scope: *scope, values: values.clone() }
            }
            Tree::Col => {
                let values = (0..self.cols).map(|col| [col as f64, 0.0]).collect();
                Array { scope: Scope::Column, values }
            }
            Tree::Row => {
                let values = (0..self.rows).map(|row| [row as f64, 0.0]).collect();
                Array { scope: Scope::Row, values }
            }
            Tree::Count(extent) => constant(match extent {
                Extent::Cols => self.cols as f64,
                Extent::Rows => self.rows as f64,
                Extent::Elements => (self.rows * self.cols) as f64,
                Extent::Batch => self.batch as f64,
                other => panic!("{other:?} by the book"),
            }),
            Tree::GroupRows => {
                let rows = |group: usize| self.group.iter().filter(|own| **own == group).count();
                Array { scope: Scope::Group, values: (0..self.groups).map(|group| [rows(group) as f64, 0.0]).collect() }
            }
            Tree::Op(op, x) => {
                let picks = matches!(op, Op::Maximum | Op::Minimum) && !x.iter().all(Tree::is_exact);
                let x: Vec<Array> = x.iter().map(|x| self.tree(x)).collect();
                let zero = constant(0.0);
                let operands = if x.len() == 2 { [&x[0], &x[1]] } else { [&x[0], &zero] };
                self.map(&operands, |x| {
                    if picks && is_near(x[0][0], x[1][0]) {
                        self.has_ties.set(true);
                    }
                    apply(*op, x[0], x[1])
                })
            }
            Tree::Clamp(x, low, high) => {
                let picks = [x, low, high].iter().any(|x| !x.is_exact());
                let (x, low, high) = (self.tree(x), self.tree(low), self.tree(high));
                self.map(&[&x, &low, &high], |x| {
                    if picks && (is_near(x[0][0], x[1][0]) || is_near(x[0][0], x[2][0]) || is_near(x[1][0], x[2][0])) {
                        self.has_ties.set(true);
                    }
                    clamp(x[0], x[1], x[2])
                })
            }
            Tree::Powi(x, n) => {
                let n = f64::from(*n);
                self.map(&[&self.tree(x)], |x| apply(Op::Pow, x[0], [n, 0.0]))
            }
            Tree::Select(test, a, b) => {
                let (test, a, b) = (self.test(test).as_array(), self.tree(a), self.tree(b));
                self.map(&[&test, &a, &b], |x| {
                    if x[0][0].is_nan() {
                        NAN
                    } else if x[0][0] == 1.0 {
                        x[1]
                    } else {
                        x[2]
                    }
                })
            }
            Tree::Masked(test, x) => {
                let (test, x) = (self.test(test).as_array(), self.tree(x));
                self.map(&[&test, &x], |x| {
                    if x[0][0].is_nan() {
                        NAN
                    } else if x[0][0] == 1.0 {
                        x[1]
                    } else {
                        [0.0; 2]
                    }
                })
            }
            Tree::Truth(test) => self.test(test).as_array(),
            Tree::Fold(fold, x) => {
                let is_rounded = !x.is_exact();
                let x = self.tree(x);
                let of_row = |row: usize| {
                    let x = self.row(&x, row);
                    let found = fold_row(*fold, &x);
                    if has_near_ties((*fold, is_rounded), &x, found[0], 1e-5) {
                        self.has_ties.set(true);
                    }
                    if has_near_ties((*fold, is_rounded), &x, found[0], 1e-12) {
                        self.is_undecided_in_f64.set(true);
                    }
                    found
                };
                Array { scope: Scope::Row, values: (0..self.rows).map(of_row).collect() }
            }
            Tree::Softmax(x) | Tree::LogSoftmax(x) => {
                let x = self.tree(x);
                let is_log = matches!(tree, Tree::LogSoftmax(_));
                let values = (0..self.rows).flat_map(|row| softmax(&self.row(&x, row), is_log)).collect();
                Array { scope: Scope::Element, values }
            }
            Tree::Scan(scan, along, operands) => {
                let operands: Vec<Array> = operands.iter().map(|x| self.tree(x)).collect();
                let of_row = |row: usize| {
                    let x: Vec<Vec<Dual>> = operands.iter().map(|x| self.row(x, row)).collect();
                    scan_row(*scan, *along, &x)
                };
                Array { scope: Scope::Element, values: (0..self.rows).flat_map(of_row).collect() }
            }
            Tree::Pairs(pairs, operands) => {
                let operands: Vec<Array> = operands.iter().map(|x| self.tree(x)).collect();
                let of_row = |row: usize| {
                    let [a, b, m] = [0, 1, 2].map(|k| self.row(&operands[k], row));
                    pairs_row(*pairs, &a, &b, &m)
                };
                Array { scope: Scope::Element, values: (0..self.rows).flat_map(of_row).collect() }
            }
            Tree::Sorted(order, back, x, key) => {
                let (x, key) = (self.tree(x), self.tree(key));
                let of_row = |row: usize| sorted_row(*order, *back, &self.row(&x, row), &self.row(&key, row));
                Array { scope: Scope::Element, values: (0..self.rows).flat_map(of_row).collect() }
            }
            Tree::At(index, x) => {
                let (indices, x) = (self.indices(index), self.tree(x));
                let at = |row: usize| match indices[row] {
                    Some(k) if (0..self.cols as i64).contains(&k) => self.row(&x, row)[k as usize],
                    _ => NAN,
                };
                Array { scope: Scope::Row, values: (0..self.rows).map(at).collect() }
            }
            Tree::SumOver(to, x) => {
                let sum = |all: &[Dual]| all.iter().fold([0.0; 2], |sum, x| [sum[0] + x[0], sum[1] + x[1]]);
                Array { scope: *to, values: self.sets(*to, &self.tree(x)).iter().map(|all| sum(all)).collect() }
            }
            Tree::LogSumExpOver(to, x) => {
                let nothing = [f64::NEG_INFINITY, 0.0];
                let fold = |x: &Vec<Dual>| if x.is_empty() { nothing } else { fold_row(Fold::LogSumExp, x) };
                Array { scope: *to, values: self.sets(*to, &self.tree(x)).iter().map(fold).collect() }
            }
            Tree::Detach(x) => self.map(&[&self.tree(x)], |x| [x[0][0], 0.0]),
            Tree::StraightThrough(a, b) => self.map(&[&self.tree(a), &self.tree(b)], |x| [x[0][0], x[1][1]]),
            Tree::WithGradient(a, input, b) => {
                let wrt = self.tree(&Tree::Input(input));
                // Nested, the derivatives add.
                let own = if matches!(**a, Tree::WithGradient(..)) { 1.0 } else { 0.0 };
                self.map(&[&self.tree(a), &wrt, &self.tree(b)], |x| [x[0][0], x[1][1] * x[2][0] + own * x[0][1]])
            }
        }
    }

    /// The values that go to each value of a scope further out.
    fn sets(&self, to: Scope, x: &Array) -> Vec<Vec<Dual>> {
        // Values of groups and of columns count once each.
        let inner = if x.scope > Scope::Total { x.scope } else { Scope::Row };
        let mut sets = vec![Vec::new(); self.count(to)];
        for k in 0..self.count(inner) {
            sets[self.index(inner, k, to)].push(x.values[self.index(inner, k, x.scope)]);
        }
        sets
    }

    fn indices(&self, index: &Index) -> Vec<Option<i64>> {
        match index {
            Index::Label => self.labels.iter().map(|y| Some(*y)).collect(),
            Index::Row => (0..self.rows as i64).map(Some).collect(),
            // Of no rows too, columns ask for it.
            Index::Fixed(index) => vec![Some(*index); self.rows.max(1)],
            Index::ArgMax(x) => {
                let x = self.tree(x);
                let most = |row: usize| fold_row(Fold::ArgMax, &self.row(&x, row))[0];
                (0..self.rows).map(|row| Some(most(row)).filter(|k| !k.is_nan()).map(|k| k as i64)).collect()
            }
        }
    }

    fn test(&self, test: &Test) -> Truths {
        match test {
            Test::Compare(op, a, b) => {
                let is_rounded = !a.is_exact() || !b.is_exact();
                let (a, b) = (self.tree(a), self.tree(b));
                let scope = a.scope.join(b.scope);
                let values = (0..self.count(scope)).map(|k| {
                    let (a, b) =
                        (a.values[self.index(scope, k, a.scope)][0], b.values[self.index(scope, k, b.scope)][0]);
                    if is_rounded && is_near(a, b) {
                        self.is_undecided.set(true);
                    }
                    if is_rounded && is_within(a, b, 1e-13) {
                        self.is_undecided_in_f64.set(true);
                    }
                    let holds = match op {
                        Op::Lt => a < b,
                        Op::Le => a <= b,
                        _ => a == b,
                    };
                    (!a.is_nan() && !b.is_nan()).then_some(holds)
                });
                Truths { scope, values: values.collect() }
            }
            Test::Not(a) => {
                let a = self.test(a);
                Truths { scope: a.scope, values: a.values.into_iter().map(|a| a.map(|a| !a)).collect() }
            }
            Test::And(a, b) => self.both(a, b, |a, b| a && b),
            Test::Or(a, b) => self.both(a, b, |a, b| a || b),
            Test::ColIs(index) | Test::ColBelow(index) => {
                let indices = self.indices(index);
                let scope = if matches!(index, Index::Fixed(_)) { Scope::Column } else { Scope::Element };
                let is_below = matches!(test, Test::ColBelow(_));
                let compare = |col: i64, index: i64| if is_below { col < index } else { col == index };
                let holds = |k: usize| indices[k / self.cols].map(|index| compare((k % self.cols) as i64, index));
                Truths { scope, values: (0..self.count(scope)).map(holds).collect() }
            }
            Test::ClassIs(index, _) => {
                Truths { scope: Scope::Element, values: self.classes.iter().map(|y| Some(y == index)).collect() }
            }
            Test::LabelBelow(index) => {
                Truths { scope: Scope::Row, values: self.labels.iter().map(|y| Some(y < index)).collect() }
            }
            Test::LabelIs(index) => {
                Truths { scope: Scope::Row, values: self.labels.iter().map(|y| Some(y == index)).collect() }
            }
        }
    }

    fn both(&self, a: &Test, b: &Test, f: impl Fn(bool, bool) -> bool) -> Truths {
        let (a, b) = (self.test(a), self.test(b));
        let scope = a.scope.join(b.scope);
        let values = (0..self.count(scope)).map(|k| {
            let (a, b) = (a.values[self.index(scope, k, a.scope)], b.values[self.index(scope, k, b.scope)]);
            a.zip(b).map(|(a, b)| f(a, b))
        });
        Truths { scope, values: values.collect() }
    }
}

/// The group of each row, and the number of groups. Of groups that are not allowed, any.
fn groups_of(problem: &Problem, hosts: &[Host]) -> (Vec<usize>, usize) {
    let (rows, _) = problem.rows_cols();
    let given = problem.inputs.iter().zip(hosts).find(|(input, _)| input.name == GROUPS);
    let (Some(Unequal { ids, groups }), Some((_, host))) = (problem.unequal, given) else {
        let first = problem.shape_of(Scope::Row).first().copied().unwrap_or(1);
        let group_rows = problem.group_rows.map_or((rows / first.max(1)).max(1), |rows| rows as usize);
        return ((0..rows).map(|row| row / group_rows).collect(), rows / group_rows);
    };
    let indices: Vec<i64> = match host {
        Host::Signed(values) => values.iter().map(|value| i64::from(*value)).collect(),
        Host::Unsigned(values) => values.iter().map(|value| i64::from(*value)).collect(),
        Host::Numbers(_) => Vec::new(),
    };
    let group = |row: usize| match ids {
        true => indices[row].clamp(0, groups as i64 - 1) as usize,
        false => (0..groups).rev().find(|group| indices[*group] <= row as i64).unwrap_or(0),
    };
    ((0..rows).map(group).collect(), groups)
}

/// Whether rounding to so many digits decides which elements have a part in the derivative of a threshold `found`.
fn has_near_ties((fold, is_rounded): (Fold, bool), x: &[Dual], found: f64, digits: f64) -> bool {
    let near = |scale: f64| {
        let at = move |x: &&Dual| (scale * x[0] - found).abs() <= digits * found.abs().max(1.0);
        x.iter().filter(at).count()
    };
    match fold {
        Fold::Sparsemax => near(1.0) > 0,
        Fold::Entmax15 => near(0.5) > 0,
        Fold::TopK(_) => is_rounded && near(1.0) > 1,
        _ => false,
    }
}

/// Whether two numbers are equal but for rounding.
fn is_near(a: f64, b: f64) -> bool {
    is_within(a, b, 1e-5)
}

/// Whether two numbers differ by no more than this share of the larger.
fn is_within(a: f64, b: f64, share: f64) -> bool {
    (a - b).abs() <= share * a.abs().max(b.abs()).max(1e-30)
}

impl Truths {
    /// 0, 1, and NaN.
    fn as_array(&self) -> Array {
        let number = |truth: &Option<bool>| truth.map_or(NAN, |truth| [f64::from(u8::from(truth)), 0.0]);
        Array { scope: self.scope, values: self.values.iter().map(number).collect() }
    }
}

/// For each index of `full`, the one of `shape` that it is broadcast from.
fn sources(shape: &[usize], full: &[usize]) -> Vec<usize> {
    let lead = full.len().saturating_sub(shape.len());
    let mut all = vec![0];
    for (axis, &size) in full.iter().enumerate() {
        let own = axis.checked_sub(lead).map_or(1, |axis| shape[axis]);
        all = all
            .into_iter()
            .flat_map(|base| (0..size).map(move |k| base * own + if own == 1 { 0 } else { k }))
            .collect();
    }
    all
}
