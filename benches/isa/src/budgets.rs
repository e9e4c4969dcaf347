//! Budgets: instructions per element of chosen kernels, subgroups per SIMD of all, and no spill.

use crate::Fallible;
use crate::cases::{Case, FAMILIES};
use crate::record::{Compiled, Counts, Kernel, Nan, Planned};
use serde::Deserialize;

const BUDGETS: &str = include_str!("../budgets.toml");

/// Most that kernels may take.
#[derive(Clone, Debug, PartialEq, Deserialize)]
#[serde(deny_unknown_fields)]
struct Budgets {
    amd: Vec<Trips>,
    /// Kernels of fewer subgroups per SIMD than their family's least.
    #[serde(default)]
    crowded: Vec<Exception>,
    /// Kernels that may spill.
    #[serde(default)]
    spills: Vec<Exception>,
    /// Read by sass.py.
    #[serde(default)]
    nvidia: Vec<toml::Table>,
}

/// Budget of the last pass of a case.
#[derive(Clone, Debug, PartialEq, Deserialize)]
#[serde(deny_unknown_fields)]
struct Trips {
    loss: String,
    dtype: String,
    shape: Vec<usize>,
    family: String,
    nan: Nan,
    /// Vector instructions per element, of each trip over the row.
    vector_per_element: Vec<f64>,
    /// The goal, where it is missed; the budget is then what is reached today, and a little.
    goal: Option<Vec<f64>>,
}

/// Kernels that one of the rules leaves out.
#[derive(Clone, Debug, PartialEq, Deserialize)]
#[serde(deny_unknown_fields)]
struct Exception {
    family: String,
    losses: Vec<String>,
    /// The most registers that they spill, or the fewest subgroups per SIMD.
    limit: u64,
    why: String,
}

impl Trips {
    fn is_of(&self, compiled: &Compiled, case: &Case) -> bool {
        let is_case = self.loss == case.loss && self.dtype == case.dtype && self.shape == case.shape;
        is_case && self.family == compiled.family && self.nan == compiled.nan
    }
}

impl Exception {
    fn names(&self, compiled: &Compiled, case: &Case) -> bool {
        self.family == compiled.family && self.losses.contains(&case.loss)
    }
}

/// What is wrong with the kernels of a family, a line each.
pub fn faults(compiled: &Compiled) -> Fallible<Vec<String>> {
    Ok(faults_of(compiled, &budgets()?))
}

fn budgets() -> Fallible<Budgets> {
    Ok(toml::from_str(BUDGETS).map_err(|error| format!("budgets.toml: {error}"))?)
}

fn faults_of(compiled: &Compiled, budgets: &Budgets) -> Vec<String> {
    let mut faults = Vec::new();
    for (index, kernel) in compiled.kernels.iter().enumerate() {
        let Some(first) = compiled.cases.iter().find(|planned| planned.dispatches.contains(&index)) else { continue };
        let found = fault(compiled, budgets, kernel, &first.case);
        faults.extend(found.map(|fault| format!("{}: {}: {fault}", first.case.name(), kernel.title)));
    }
    for budget in &budgets.amd {
        let planned = compiled.cases.iter().find(|planned| budget.is_of(compiled, &planned.case));
        faults.extend(planned.and_then(|planned| passed(compiled, planned, budget)));
    }
    let of = |fault| format!("{}, NaN by {}: {fault}", compiled.family, compiled.nan.name());
    faults.into_iter().map(of).collect()
}

/// A crash, a spill, or too many registers.
fn fault(compiled: &Compiled, budgets: &Budgets, kernel: &Kernel, case: &Case) -> Option<String> {
    let Some(Counts { spilled, subgroups_per_simd, .. }) = kernel.counts else {
        return Some("the compiler crashed".to_owned());
    };
    let limit = |exceptions: &[Exception]| {
        exceptions.iter().find(|exception| exception.names(compiled, case)).map(|exception| exception.limit)
    };
    let most = limit(&budgets.spills).unwrap_or(0);
    if spilled > most {
        return Some(format!("spills {spilled} registers; allowed are {most}"));
    }
    let family = FAMILIES.iter().find(|family| family.name == compiled.family)?;
    let least = limit(&budgets.crowded).unwrap_or(family.subgroups_per_simd);
    let is_crowded = kernel.is_pass && subgroups_per_simd < least;
    is_crowded.then(|| format!("a SIMD has room for {subgroups_per_simd} subgroups; {least} are wanted"))
}

/// A budget that the last pass of its case passes.
fn passed(compiled: &Compiled, planned: &Planned, budget: &Trips) -> Option<String> {
    let mut kernels = planned.dispatches.iter().rev().map(|index| &compiled.kernels[*index]);
    let kernel = kernels.find(|kernel| kernel.is_pass)?;
    let trips = kernel.counts.as_ref()?.trips(kernel.held, planned.case.bytes());
    let taken: Vec<f64> = trips.iter().map(|trip| (trip.vector * 10.0).round() / 10.0).collect();
    let most = &budget.vector_per_element;
    let is_kept = taken.len() == most.len() && taken.iter().zip(most).all(|(taken, most)| taken <= most);
    let name = planned.case.name();
    (!is_kept).then(|| format!("{name}: {taken:?} vector instructions an element; the budget is {most:?}"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::code::Part;

    fn compiled(spilled: u64, vector: u32, subgroups_per_simd: u64) -> Compiled {
        let case = Case { loss: "mse".to_owned(), dtype: "f32".to_owned(), shape: vec![8, 8] };
        let (outside, loops) = (Part { vector, ..Part::default() }, Vec::new());
        let (instructions, registers, spilled_scalars) = (1, 1, 7);
        let counts = Counts { instructions, registers, spilled, spilled_scalars, subgroups_per_simd, outside, loops };
        let (title, workgroup) = ("mse: pass 0".to_owned(), 64);
        let kernel = Kernel { title, workgroup, is_pass: true, held: Some(8), counts: Some(counts) };
        let cases = vec![Planned { case, dispatches: vec![0] }];
        Compiled { family: "navi21".to_owned(), nan: Nan::Sums, cases, kernels: vec![kernel] }
    }

    fn example() -> Budgets {
        let text = "amd = [{ loss = 'mse', dtype = 'f32', shape = [8, 8], family = 'navi21', nan = 'sums', \
                    vector_per_element = [10.0] }]";
        toml::from_str(text).unwrap()
    }

    #[test]
    fn a_spill_and_a_passed_budget_are_faults() {
        let of = |compiled: &Compiled| faults_of(compiled, &example()).join("\n");
        assert_eq!(of(&compiled(0, 80, 8)), "", "scalars that are spilled go to no memory");
        assert!(of(&compiled(1, 80, 8)).contains("spills 1 registers"));
        assert!(of(&compiled(0, 81, 8)).contains("[10.1] vector instructions an element; the budget is [10.0]"));
        assert!(of(&compiled(0, 80, 7)).contains("room for 7 subgroups; 8 are wanted"));
        let mut crashed = compiled(0, 80, 8);
        crashed.kernels[0].counts = None;
        assert!(of(&crashed).contains("crashed"));
    }

    #[test]
    fn an_exception_is_for_its_losses_alone() {
        let of = |name: &str| Exception {
            family: "navi21".into(),
            losses: vec![name.into()],
            limit: 3,
            why: "a test".into(),
        };
        let with = |name: &str| Budgets { spills: vec![of(name)], ..example() };
        assert!(faults_of(&compiled(3, 80, 8), &with("mse")).is_empty());
        assert!(!faults_of(&compiled(4, 80, 8), &with("mse")).is_empty());
        assert!(!faults_of(&compiled(3, 80, 8), &with("l1")).is_empty());
    }

    #[test]
    fn budgets_are_of_families_and_losses_that_there_are() {
        let budgets = budgets().unwrap();
        let is_family = |name: &str| FAMILIES.iter().any(|family| family.name == name);
        assert!(budgets.amd.iter().all(|budget| is_family(&budget.family)));
        for budget in &budgets.amd {
            let passes_goal = |goal: &Vec<f64>| goal.iter().zip(&budget.vector_per_element).any(|(a, b)| a < b);
            assert!(wgloss::losses::entry(&budget.loss).is_some(), "{budget:?}");
            assert!(budget.goal.as_ref().is_none_or(passes_goal), "a goal that is met is the budget: {budget:?}");
        }
        for exception in budgets.crowded.iter().chain(&budgets.spills) {
            assert!(is_family(&exception.family) && !exception.why.is_empty(), "{exception:?}");
            assert!(exception.losses.iter().all(|name| wgloss::losses::entry(name).is_some()), "{exception:?}");
        }
    }
}
