//! What counts as agreement.
//!
//! 1. *Classes.* NaN must be where the f64 path has NaN, and nowhere else; likewise +∞ and −∞, except that a number
//!    beyond the largest of the output's type is ∞ there. No tolerance widens this. One thing does not count: what is
//!    NaN of finite inputs and good labels alone (0/0 of weights that are all 0, and 0·∞ after it) may be ∞, and a
//!    derivative 0, since drivers compute fast and rewrites may see the 0 first. Where some input is infinite, that is what
//!    the f64 path finds to be NaN with a finite number in its place as well. In expressions it may be anything, where
//!    an input is so large that exp overflows: some drivers stop at the largest number instead of ∞.
//! 2. *The contract* (design §6). Losses: 2e-6·|want| + 2e-7·mean|term|, a loss of one row 2e-7·max(1, reach), where
//!    the reach is the largest distance of a logit from its row's maximum. Gradients: 2e-6 of the largest of their row
//!    (of all, where the input is no element input), and 1e-6 relative; of expressions
//!    1e-6 of the upstream gradient (and 4e-7 of losses) times the steepest slope within, for what cancels to 0. 16-bit gradients: one rounding more.
//! 3. *Evidence*, only for what the contract refuses: the inputs are moved by up to one ulp of f32, a few times.
//!    - rounding: how far the CPU's f32 path is from its f64 path *on the same numbers*. Eight times the most of it in
//!      the row is allowed, up to 1e-3 of the row's largest value and 2e-6 (where terms of
//!      size 1 cancel to 0; for gradients of weights, of what the losses of rows are; for Hessians, whose terms are sums
//!      over the row, times its columns): formulas that f32 cannot do better than.
//!    - conditioning: how far the f64 path moves. Eight times that is allowed for expressions, which nobody wrote with
//!      care for their digits, and for gradients that are sums over rows. Not for losses and element gradients of the
//!      catalogue: they are promised for the numbers as they are given (a sum of several losses may cancel, and counts as
//!      an expression).
//!    - nothing left: 2^-22 of what a derivative of the catalogue is for ordinary numbers with the same weights, where
//!      the terms of a row's derivative cancel to nothing (one ulp of the inputs changes it more than a thousandfold:
//!      the gradient of equal logits whose labels are smoothed all the way), for sums over rows, and where an entropy is
//!      taken off (the difference of a logarithm and its mean). The small numbers of confident rows are none of these:
//!      one ulp hardly changes them.
//!
//!    Elsewhere numbers that are multiples of ½ do not move, so that ties and kinks stay ties and kinks. A swapped row,
//!    a missing term or a wrong factor is off by the size of the values, evidence is some 1e-6 of that.
//! 4. *The f32 CPU path* is judged as well: by classes exactly, by numbers to 1e-3 (it serves throughput; what is wanted
//!    here is that no fault of f32 semantics hides behind the f64 reference).
//! 5. *The f64 path* is held to `oracle.rs` for expressions, and to `invariants.rs` for what design §3 and §6 promise:
//!    the GPU runs the same program, and would share its faults.

use super::oracle::{self, Sensitivity};
use super::problem::{Data, Flavour, Form, Problem};
use super::reference::{self, Key, Outcome, Reference, cancellation};
use super::values::{Host, Moves, moved, values};
use std::cell::OnceCell;
use std::collections::BTreeMap;
use std::ops::Range;
use wgloss::UPSTREAM;
use wgloss::{DType, Reduction, Scope};

/// The worst number of an output that does not agree.
#[derive(Clone, Debug, PartialEq)]
pub struct Mismatch {
    /// Which path disagrees with the f64 path.
    pub path: &'static str,
    pub key: Key,
    pub class: &'static str,
    pub index: usize,
    pub count: usize,
    pub off: usize,
    pub got: f64,
    pub want: f64,
    pub allowed: f64,
}

/// How far results move, for each value of each output.
type Spread = BTreeMap<Key, Vec<f64>>;

pub struct Judge<'j> {
    pub problem: &'j Problem,
    pub double: &'j Reference<'j, f64>,
    pub single: &'j Reference<'j, f32>,
    pub hosts: &'j [Host],
    pub want: &'j Outcome,
    /// What outputs are added to.
    pub bases: &'j BTreeMap<Key, Vec<f64>>,
    evidence: Option<[Spread; 2]>,
    cancellation: Option<f64>,
    sensitivity: OnceCell<Sensitivity>,
    reach: OnceCell<f64>,
    /// The largest upstream gradient, and 1.
    largest_upstream: OnceCell<f64>,
    /// Whether evidence was needed for what agrees.
    pub beyond_contract: bool,
}

impl<'j> Judge<'j> {
    pub fn new(
        problem: &'j Problem,
        double: &'j Reference<'j, f64>,
        single: &'j Reference<'j, f32>,
        hosts: &'j [Host],
        want: &'j Outcome,
        bases: &'j BTreeMap<Key, Vec<f64>>,
    ) -> Judge<'j> {
        let (sensitivity, reach, beyond_contract) = (OnceCell::new(), OnceCell::new(), false);
        let (evidence, cancellation) = (None, None);
        Judge {
            problem,
            double,
            single,
            hosts,
            want,
            bases,
            evidence,
            cancellation,
            sensitivity,
            reach,
            largest_upstream: OnceCell::new(),
            beyond_contract,
        }
    }

    /// The first output of the GPU that does not agree.
    pub fn gpu(&mut self, got: &Outcome) -> Option<Mismatch> {
        self.problem.keys().into_iter().find_map(|key| {
            let dtype = match &key {
                Key::Grad(name) => self.problem.grad_dtype(name),
                _ => DType::F32,
            };
            self.compare("GPU", &key, &got.outputs[&key], dtype)
        })
    }

    /// The first output of the CPU's f32 path that does not agree.
    pub fn cpu(&mut self, got: &Outcome) -> Option<Mismatch> {
        self.problem.keys().into_iter().find_map(|key| self.compare("CPU f32", &key, &got.outputs[&key], DType::F32))
    }

    /// Of expressions with a comparison that rounding decides, nothing can be said; nor which logit is the largest, where
    /// a cap flattens them; nor of gradients where rounding decides which of two numbers is larger.
    fn compare(&mut self, path: &'static str, key: &Key, got: &[f64], dtype: DType) -> Option<Mismatch> {
        let found = self.difference(path, key, got, dtype);
        let predicts = matches!(key, Key::Extra(name) if ["predicted", "correct"].contains(&name.as_str()));
        let found = found.filter(|_| !(self.sensitivity().is_undecided || predicts && self.has_option("softcap")));
        let shares = matches!(key, Key::Grad(_) | Key::Hessian(_));
        found.filter(|_| !(shares && self.sensitivity().has_ties))
    }

    fn difference(&mut self, path: &'static str, key: &Key, got: &[f64], dtype: DType) -> Option<Mismatch> {
        let gpu = path == "GPU";
        let mut want = self.want.outputs[key].clone();
        let base = self.bases.get(key).filter(|_| gpu);
        let groups = self.groups(key, want.len());
        let largest = largest_of(&groups, &want);
        let terms = if *key == Key::Loss { self.terms(&want) } else { 0.0 };
        let bound: Vec<f64> = (0..want.len()).map(|k| self.contract(key, want[k], largest[k], terms, gpu)).collect();
        if let Some(base) = base {
            want.iter_mut().zip(base).for_each(|(want, base)| *want += base);
        }
        let stored = |k: usize, bound: f64| {
            let sum = base.map_or(0.0, |base| 6e-8 * (base[k].abs() + want[k].abs()));
            bound + sum + rounding(dtype, want[k])
        };
        if got.len() != want.len() {
            let (got, want) = (got.len() as f64, want.len() as f64);
            return Some(self.mismatch(path, key, "count", 0, [0, 0], [got, want, 0.0]));
        }
        let of_finite = OnceCell::new();
        let of_finite = || of_finite.get_or_init(|| self.of_finite_inputs(key)).as_ref();
        let undefined = |k: usize| want[k].is_nan() && of_finite().is_some_and(|of| of[k].is_nan());
        let nothing = |k: usize| got[k] == base.map_or(0.0, |base| base[k]);
        let overflows = !self.problem.is_catalogue()
            && self.hosts.iter().flat_map(|host| host.numbers()).any(|x| x.abs() > 80.0 && x.is_finite());
        let other =
            |k: usize| overflows || got[k].is_infinite() || matches!(key, Key::Grad(_) | Key::Hessian(_)) && nothing(k);
        let class = |k: usize| class_error(got[k], want[k], dtype).filter(|_| !(undefined(k) && other(k)));
        if let Some(first) = (0..want.len()).find(|k| class(*k).is_some()) {
            let off = (0..want.len()).filter(|k| class(*k).is_some()).count();
            let name = class(first).unwrap_or_default();
            return Some(self.mismatch(path, key, name, first, [want.len(), off], [got[first], want[first], 0.0]));
        }
        let excess = |k: usize, bound: f64| {
            if !want[k].is_finite() || !got[k].is_finite() { 0.0 } else { (got[k] - want[k]).abs() / stored(k, bound) }
        };
        if (0..want.len()).all(|k| excess(k, bound[k]) <= 1.0) {
            return None;
        }
        // Which losses are above 0 is a matter of underflow.
        let counts_positive = self.problem.terms.iter().any(|term| term.reduction == Reduction::MeanOverPositive);
        for draws in [6, 40] {
            let [rounds, moves] = self.evidence(draws);
            let rounds = largest_of(&groups, &rounds[key]);
            let moves = moves[key].clone();
            let size = match key {
                Key::Hessian(_) => self.problem.rows_cols().1 as f64,
                _ if self.is_sum(key) => reference::weighted_size(self.problem, [self.hosts, &self.ordinary()]),
                _ => 1.0,
            };
            let left = self.nothing_left(key, &groups, &largest);
            let several = self.problem.terms.len() > 1;
            let counts = !self.problem.is_catalogue() || several || self.is_sum(key);
            let allowed = |k: usize| {
                let moves = if counts || !gpu { moves[k] } else { 0.0 };
                let rounds =
                    if counts_positive { rounds[k] } else { rounds[k].min(1e-3 * largest[k].max(moves) + 2e-6 * size) };
                bound[k] + 8.0 * (rounds + moves) + left[k]
            };
            let off: Vec<usize> = (0..want.len()).filter(|k| excess(*k, allowed(*k)) > 1.0).collect();
            if off.is_empty() {
                self.beyond_contract |= gpu;
                return None;
            }
            if draws == 40 {
                let worst =
                    off.iter().copied().max_by(|a, b| excess(*a, allowed(*a)).total_cmp(&excess(*b, allowed(*b))));
                let k = worst.unwrap_or(0);
                let numbers = [got[k], want[k], stored(k, allowed(k))];
                return Some(self.mismatch(path, key, "number", k, [want.len(), off.len()], numbers));
            }
        }
        None
    }

    /// The f64 path's values of an output with every infinite input replaced by −1; `None` where a label or group is out
    /// of range or an input is NaN.
    fn of_finite_inputs(&self, key: &Key) -> Option<Vec<f64>> {
        let numbers = || self.hosts.iter().flat_map(|host| host.numbers());
        if self.want.bad_label.is_some() || self.want.bad_group.is_some() || numbers().any(|x| x.is_nan()) {
            return None;
        }
        if numbers().all(|x| x.is_finite()) {
            return Some(self.want.outputs[key].clone());
        }
        let finite = |x: &f32| if x.is_finite() { *x } else { -1.0 };
        let replaced = |host: &Host| match host {
            Host::Numbers(values) => Host::Numbers(values.iter().map(finite).collect()),
            other => other.clone(),
        };
        let hosts: Vec<Host> = self.hosts.iter().map(replaced).collect();
        self.double.run(&hosts).ok().map(|outcome| outcome.outputs[key].clone())
    }

    fn mismatch(
        &self,
        path: &'static str,
        key: &Key,
        class: &'static str,
        index: usize,
        [count, off]: [usize; 2],
        [got, want, allowed]: [f64; 3],
    ) -> Mismatch {
        Mismatch { path, key: key.clone(), class, index, count, off, got, want, allowed }
    }

    fn contract(&self, key: &Key, want: f64, largest: f64, terms: f64, gpu: bool) -> f64 {
        if !gpu {
            return 1e-3 * largest + 1e-4 * want.abs() + 1e-5;
        }
        match key {
            Key::Loss => 2e-6 * want.abs() + 2e-7 * terms + 0.4 * self.cancelled(key),
            Key::Denominator => 2e-6 * want.abs(),
            Key::Extra(_) => 2e-6 * want.abs() + 2e-7 * self.reach(),
            Key::Grad(_) => 2e-6 * largest + 1e-6 * want.abs() + self.cancelled(key),
            // Where confident rows leave nothing, what is left of it is of no use.
            // The contract does not speak of Hessians: of confident rows they are powers of what is left.
            Key::Hessian(_) => 2e-6 * largest + 3e-5 * want.abs() + self.cancelled(key).max(1e-20),
        }
    }

    /// What may be left where a derivative of an expression cancels to 0 (that of a softmax's sum): some ulps of what
    /// every derivative begins with, the upstream gradient, times the steepest of what they go through (its square, of
    /// second derivatives) and the root of how many there are, or a fifth of them: an exponential of the driver's may be
    /// off to one side.
    fn cancelled(&self, key: &Key) -> f64 {
        if self.problem.is_catalogue() {
            return 1e-36;
        }
        let most = *self.largest_upstream.get_or_init(|| {
            let upstream = self.problem.inputs.iter().zip(self.hosts).filter(|(input, _)| input.name == UPSTREAM);
            let numbers = upstream.flat_map(|(_, host)| host.numbers());
            numbers.filter(|x| x.is_finite()).fold(1.0f64, |most, x| most.max(f64::from(x.abs())))
        });
        let elements = self.problem.domain.iter().product::<usize>() / self.want.outputs[key].len().max(1);
        let steep = self.sensitivity().steepest.min(1e3);
        let steep = if matches!(key, Key::Hessian(_)) { steep * steep } else { steep };
        let elements = elements.max(1) as f64;
        1e-6 * most * steep * elements.sqrt().max(0.2 * elements)
    }

    fn sensitivity(&self) -> Sensitivity {
        *self.sensitivity.get_or_init(|| oracle::sensitivity(self.problem, self.hosts))
    }

    /// The same weights and parameters with ordinary elements, which do not repeat.
    fn ordinary(&self) -> Vec<Host> {
        let mut problem = self.problem.clone();
        problem.inputs.iter_mut().for_each(|input| input.home.repeats.fill(false));
        let mut hosts = values(&problem, Data { flavour: Flavour::Plain, seed: 1 });
        for (k, input) in self.problem.inputs.iter().enumerate() {
            if input.scope != Scope::Element {
                hosts[k] = self.hosts[k].clone();
            }
        }
        hosts
    }

    /// What may be left of derivatives of the catalogue whose terms cancel to nothing.
    fn nothing_left(&self, key: &Key, groups: &[usize], largest: &[f64]) -> Vec<f64> {
        let none = vec![0.0; largest.len()];
        if !self.problem.is_catalogue() || !matches!(key, Key::Grad(_) | Key::Hessian(_)) {
            return none;
        }
        let moved = moved(self.hosts, 1, Moves::All);
        let results = (self.double.run(&self.ordinary()), self.double.run(&moved));
        let (Ok(ordinary), Ok(moved)) = results else { return none };
        let ordinary = ordinary.outputs[key].iter().filter(|x| x.is_finite()).fold(0.0f64, |most, x| most.max(x.abs()));
        // In rows of one column every derivative of a softmax is 0, and only the size of a logit says what may be left.
        let ordinary = if self.problem.rows_cols().1 == 1 { ordinary.max(4.0) } else { ordinary };
        let moves = largest_of(groups, &moved.outputs[key]);
        let always = self.is_sum(key) || self.has_entropy();
        let is_nothing = |k: usize| always || moves[k] > 1e3 * largest[k];
        (0..largest.len()).map(|k| if is_nothing(k) { ordinary * 2f64.powi(-22) } else { 0.0 }).collect()
    }

    /// What 2e-7 of a loss's bound is of.
    fn terms(&mut self, want: &[f64]) -> f64 {
        if want.len() > 1 || self.problem.terms[0].reduction == Reduction::None {
            return self.reach();
        }
        let (problem, hosts) = (self.problem, self.hosts);
        let ratio = *self.cancellation.get_or_insert_with(|| cancellation(problem, hosts));
        let rows = if self.problem.terms[0].reduction == Reduction::Sum { self.problem.rows_cols().0 } else { 1 };
        let before = if self.has_entropy() { self.reach() * rows as f64 } else { 0.0 };
        (want[0].abs() * ratio).max(before)
    }

    /// Whether an entropy is taken off the loss: its terms are what it is before that.
    fn has_entropy(&self) -> bool {
        self.has_option("entropy_bonus")
    }

    fn has_option(&self, option: &str) -> bool {
        self.problem.terms.iter().any(|term| match &term.form {
            Form::Catalogue { options, .. } => options.iter().any(|(name, _)| name == option),
            _ => false,
        })
    }

    /// The largest distance of a logit from its row's maximum, and 1; and the largest entropy, where one is taken off.
    fn reach(&self) -> f64 {
        *self.reach.get_or_init(|| self.find_reach())
    }

    fn find_reach(&self) -> f64 {
        let mut reach = 1.0f64;
        let Some(columns) = self.problem.columns() else { return reach };
        let entropy = if self.has_entropy() { (self.problem.rows_cols().1 as f64).ln() } else { 0.0 };
        for (input, host) in self.problem.inputs.iter().zip(self.hosts) {
            if input.scope != Scope::Element || input.values.are_indices() {
                continue;
            }
            let groups = row_groups(input.shape_beside(&self.problem.domain), self.problem.domain.len(), &columns);
            let values: Vec<f64> = host.numbers().iter().map(|x| f64::from(*x)).collect();
            let mut bounds: BTreeMap<usize, (f64, f64)> = BTreeMap::new();
            for (group, x) in groups.iter().zip(&values).filter(|(_, x)| x.is_finite()) {
                let (low, high) = bounds.entry(*group).or_insert((*x, *x));
                (*low, *high) = (low.min(*x), high.max(*x));
            }
            reach = bounds.values().fold(reach, |reach, (low, high)| reach.max(high - low));
        }
        reach + entropy
    }

    /// Whether an output is a sum over rows.
    fn is_sum(&self, key: &Key) -> bool {
        let Key::Grad(name) = key else { return false };
        let input = self.problem.input(name).expect("a gradient is of an input");
        input.scope != Scope::Element || input.shape_beside(&self.problem.domain) != self.problem.domain
    }

    /// Which values are one row.
    fn groups(&self, key: &Key, count: usize) -> Vec<usize> {
        match key {
            Key::Grad(name) | Key::Hessian(name) => {
                let input = self.problem.input(name).expect("a gradient is of an input");
                match (input.scope, self.problem.columns()) {
                    (Scope::Element, Some(columns)) => {
                        row_groups(input.shape_beside(&self.problem.domain), self.problem.domain.len(), &columns)
                    }
                    _ => vec![0; count],
                }
            }
            _ => (0..count).collect(),
        }
    }

    fn evidence(&mut self, draws: u64) -> &[Spread; 2] {
        let has = self.evidence.as_ref().is_some_and(|_| draws <= 6);
        if !has {
            let spread = || self.want.outputs.iter().map(|(key, values)| (key.clone(), vec![0.0; values.len()]));
            let mut all: [Spread; 2] = [spread().collect(), spread().collect()];
            for draw in 0..draws {
                let hosts = if draw == 0 { self.hosts.to_vec() } else { moved(self.hosts, draw, Moves::Ordinary) };
                let (Ok(double), Ok(single)) = (self.double.run(&hosts), self.single.run(&hosts)) else { continue };
                widen(&mut all[0], &single, &double);
                widen(&mut all[1], &double, self.want);
            }
            self.evidence = Some(all);
        }
        self.evidence.as_ref().expect("there is evidence by now")
    }
}

fn widen(spread: &mut Spread, a: &Outcome, b: &Outcome) {
    for (key, most) in spread {
        for (k, most) in most.iter_mut().enumerate() {
            let off = (a.outputs[key][k] - b.outputs[key][k]).abs();
            if off.is_finite() {
                *most = most.max(off);
            }
        }
    }
}

/// For each element of that shape, which row it is of.
pub fn row_groups(shape: &[usize], rank: usize, columns: &Range<usize>) -> Vec<usize> {
    // Shapes are aligned at their ends.
    let own = |axis: usize| (axis + shape.len()).saturating_sub(rank);
    let own = own(columns.start)..own(columns.end);
    let cols: usize = shape[own.clone()].iter().product();
    let inner: usize = shape[own.end..].iter().product();
    (0..shape.iter().product()).map(|k| k / (inner * cols).max(1) * inner + k % inner.max(1)).collect()
}

/// For each value the largest of its group.
fn largest_of(groups: &[usize], values: &[f64]) -> Vec<f64> {
    let most = groups.iter().copied().max().map_or(0, |most| most + 1);
    let mut largest = vec![0.0f64; most];
    for (group, x) in groups.iter().zip(values).filter(|(_, x)| x.is_finite()) {
        largest[*group] = largest[*group].max(x.abs());
    }
    groups.iter().map(|group| largest[*group]).collect()
}

/// Half a unit in the last place of a 16-bit type.
fn rounding(dtype: DType, want: f64) -> f64 {
    match dtype {
        DType::F16 => (want.abs() / 2048.0).max(2f64.powi(-25)) * 1.001,
        DType::BF16 => want.abs() / 256.0 * 1.001 + 1e-38,
        _ => 0.0,
    }
}

/// What is wrong apart from digits.
fn class_error(got: f64, want: f64, dtype: DType) -> Option<&'static str> {
    let most = if dtype == DType::F16 { 65_504.0 } else { f64::from(f32::MAX) };
    let beyond = want.abs() >= 0.998 * most && want.is_finite();
    match (got, want) {
        (got, want) if got.is_nan() && want.is_nan() => None,
        (got, _) if got.is_nan() => Some("NaN"),
        (_, want) if want.is_nan() => Some("no NaN"),
        (got, want) if got.is_infinite() && beyond && got.signum() == want.signum() => None,
        (got, want) if got.is_infinite() || want.is_infinite() => (got != want).then_some("infinity"),
        _ => None,
    }
}

/// The judge judged: what is plainly wrong must not pass.
pub fn check_itself() {
    let want: [f64; 3] = [1.0, f64::NAN, f64::INFINITY];
    assert_eq!(class_error(f64::NAN, want[0], DType::F32), Some("NaN"));
    assert_eq!(class_error(0.0, want[1], DType::F32), Some("no NaN"));
    assert_eq!(class_error(f64::NEG_INFINITY, want[2], DType::F32), Some("infinity"));
    assert_eq!(class_error(f64::INFINITY, 7e4, DType::F16), None);
    assert_eq!(class_error(f64::INFINITY, 7e4, DType::F32), Some("infinity"));
    assert_eq!(row_groups(&[2, 3, 2], 3, &(1..2)), [0, 1, 0, 1, 0, 1, 2, 3, 2, 3, 2, 3]);
    assert_eq!(row_groups(&[3], 2, &(1..2)), [0, 0, 0]);
    assert_eq!(row_groups(&[2], 2, &(0..1)), [0, 1]);
    assert_eq!(row_groups(&[2, 1, 2], 3, &(1..3)), [0, 0, 1, 1]);
    assert_eq!(largest_of(&[0, 0, 1], &[1.0, -3.0, f64::NAN]), [3.0, 3.0, 0.0]);
}
