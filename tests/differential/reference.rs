//! A problem on the CPU, in f64 and in f32.

use super::problem::{Form, Input, Problem, Term, Values};
use super::values::Host;
use std::collections::BTreeMap;
use std::fmt;
use wgloss::cpu::{CpuPlan, HostFloat};
use wgloss::loss::{MASK, SAMPLE_WEIGHT};
use wgloss::{Error, HostTensor, Loss, Reduction, Result};
use wgloss::{UPSTREAM, Upstream, Wanted};

/// An output.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Key {
    Loss,
    Denominator,
    Extra(String),
    Grad(String),
    Hessian(String),
}

impl fmt::Display for Key {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Key::Loss => f.write_str("loss"),
            Key::Denominator => f.write_str("denominator"),
            Key::Extra(name) => write!(f, "extra {name}"),
            Key::Grad(name) => write!(f, "gradient of {name}"),
            Key::Hessian(name) => write!(f, "Hessian diagonal of {name}"),
        }
    }
}

/// What a path gives for one set of data.
#[derive(Clone, Debug)]
pub struct Outcome {
    pub outputs: BTreeMap<Key, Vec<f64>>,
    pub bad_label: Option<(u64, i64)>,
    /// The error of the first offset or id of groups that is not allowed.
    pub bad_group: Option<Error>,
}

impl Outcome {
    pub fn has_infinite_gradient(&self) -> bool {
        let grads = self.outputs.iter().filter(|(key, _)| matches!(key, Key::Grad(_)));
        grads.flat_map(|(_, values)| values).any(|x| !x.is_finite())
    }
}

impl Problem {
    pub fn keys(&self) -> Vec<Key> {
        let mut keys = Vec::new();
        let outputs = &self.outputs;
        keys.extend(outputs.loss.then_some(Key::Loss));
        keys.extend(outputs.denominator.then_some(Key::Denominator));
        keys.extend(outputs.extras.iter().map(|name| Key::Extra(name.clone())));
        keys.extend(self.grads().into_iter().map(Key::Grad));
        keys.extend(self.inputs.iter().filter(|i| i.hessian).map(|i| Key::Hessian(i.name.clone())));
        keys
    }

    fn wanted(&self) -> Wanted {
        Wanted {
            loss: self.outputs.loss,
            denominator: self.outputs.denominator,
            grads: self.grads(),
            hessian_diagonals: self.inputs.iter().filter(|i| i.hessian).map(|i| i.name.clone()).collect(),
            upstream: self.upstream,
            extras: self.outputs.extras.clone(),
            found_inf: self.outputs.found_inf,
            groups: self.groups(),
        }
    }

    fn host<'h>(&'h self, hosts: &'h [Host]) -> Vec<(&'h str, HostTensor<'h>)> {
        self.inputs.iter().zip(hosts).map(|(input, host)| (input.name.as_str(), host.tensor(&input.shape))).collect()
    }
}

/// The problem lowered for one precision.
pub struct Reference<'p, T> {
    problem: &'p Problem,
    plan: CpuPlan<T>,
}

impl<'p, T: HostFloat> Reference<'p, T> {
    /// The values are not looked at.
    pub fn new(problem: &'p Problem, hosts: &[Host]) -> Result<Reference<'p, T>> {
        let plan = CpuPlan::new(&problem.loss(), &problem.host(hosts), &problem.wanted())?;
        let plan = match problem.group_rows {
            Some(rows) => plan.group_rows(rows as usize)?,
            None => plan,
        };
        Ok(Reference { problem, plan })
    }

    pub fn run(&self, hosts: &[Host]) -> Result<Outcome> {
        let mut out = self.plan.output();
        self.plan.run(&self.problem.host(hosts), &mut out)?;
        let bad_group = out.take_bad_group();
        let bad_label = out.take_bad_label();
        let numbers = |values: &[T]| values.iter().map(|x| x.to()).collect::<Vec<f64>>();
        let mut outputs = BTreeMap::new();
        for key in self.problem.keys() {
            let values = match &key {
                Key::Loss => numbers(out.loss_values()?),
                Key::Denominator => out.denominator().into_iter().collect(),
                Key::Extra(name) => numbers(out.extra(name)?),
                Key::Grad(name) => numbers(out.grad(name)?),
                Key::Hessian(name) => numbers(out.hessian_diagonal(name)?),
            };
            outputs.insert(key, values);
        }
        let outcome = Outcome { outputs, bad_label, bad_group };
        let want = self.problem.outputs.found_inf.then(|| f64::from(u8::from(outcome.has_infinite_gradient())));
        assert_eq!(out.found_inf(), want, "found_inf of the CPU");
        Ok(outcome)
    }
}

/// The losses of a single term before they are reduced, weighted and masked.
pub fn terms(problem: &Problem, hosts: &[Host]) -> Option<Vec<f64>> {
    let [term] = &problem.terms[..] else { return None };
    losses_of(problem, term, hosts, &[SAMPLE_WEIGHT, MASK])
}

/// The losses of a term before they are reduced, from its own inputs and from those of these names.
fn losses_of(problem: &Problem, term: &Term, hosts: &[Host], besides: &[&str]) -> Option<Vec<f64>> {
    let loss: Loss = problem.loss_of(term).reduction(Reduction::None);
    let own = loss.inputs().into_iter().map(|input| input.name);
    let groups = match &term.form {
        Form::Expression { tree, .. } => problem.groups_of(tree),
        Form::Catalogue { .. } => None,
    };
    let besides = besides.iter().map(|name| (*name).to_owned());
    let names: Vec<String> = own.chain(besides).chain(groups.iter().map(|groups| groups.input.clone())).collect();
    let kept = |name: &str| names.iter().any(|own| own == name);
    let inputs: Vec<_> = problem.host(hosts).into_iter().filter(|(name, _)| kept(name)).collect();
    let wanted = Wanted { loss: true, upstream: Upstream::One, groups, ..Wanted::default() };
    let mut out = wgloss::cpu::run::<f64>(&loss, &inputs, &wanted).ok()?;
    out.take_bad_group();
    out.take_bad_label();
    Some(out.loss_values().ok()?.to_vec())
}

/// Σ|term| / |Σ term| of a loss that is reduced: by how much its terms cancel. 1 where that is not known.
pub fn cancellation(problem: &Problem, hosts: &[Host]) -> f64 {
    let Some(values) = terms(problem, hosts) else { return 1.0 };
    let (sum, all) = values.iter().fold((0.0, 0.0), |(sum, all), x| (sum + x, all + x.abs()));
    let ratio: f64 = all / f64::abs(sum);
    if ratio.is_finite() { ratio.max(1.0) } else { 1.0 }
}

/// The size of what gradients of weights are differences of, and 1: the largest loss of a row, of all terms and of both
/// sets of data, times its upstream gradient, divided by weights (of which the smallest counts).
pub fn weighted_size(problem: &Problem, hosts: [&[Host]; 2]) -> f64 {
    let of = |term: &Term, hosts: &[Host]| {
        let losses = losses_of(problem, term, hosts, &[]).unwrap_or_default().into_iter();
        losses.filter(|x| x.is_finite()).fold(0.0f64, |most, x| most.max(x.abs())) * term.weight.abs()
    };
    let most = |term: &Term| of(term, hosts[0]).max(of(term, hosts[1]));
    let numbers = |is_it: fn(&Input) -> bool| {
        let hosts = problem.inputs.iter().zip(hosts[0]).filter(move |(input, _)| is_it(input));
        hosts.flat_map(|(_, host)| host.numbers()).map(|x| f64::from(x.abs())).filter(|x| x.is_finite() && *x > 0.0)
    };
    let weight = numbers(|input| input.values == Values::Weight).fold(1.0, f64::min);
    let upstream = numbers(|input| input.name == UPSTREAM).fold(1.0, f64::max);
    (problem.terms.iter().map(most).sum::<f64>() * upstream / weight).max(1.0)
}
