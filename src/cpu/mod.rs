//! The CPU path: an interpreter of lowered losses, in f64 (the reference) or f32 (the throughput baseline).
//!
//! It runs the same [`Program`] as the GPU, with the same treatment of NaN, masks and labels, on all threads.
//! Sums do not depend on the number of threads.
//!
//! ```
//! use wgloss::{HostTensor, cpu, losses};
//! # fn main() -> wgloss::Result<()> {
//! let (input, target) = ([1.0f32, 2.0, 3.0], [1.0f32, 0.0, 0.0]);
//! let inputs = [("input", HostTensor::f32(&input, &[3])), ("target", HostTensor::f32(&target, &[3]))];
//! let out = cpu::forward_backward(&losses::mse(), &inputs, &["input"])?;
//! assert_eq!(out.loss()?, 13.0 / 3.0);
//! assert_eq!(out.grad("input")?, [0.0, 4.0 / 3.0, 2.0]);
//! # Ok(())
//! # }
//! ```

mod code;
mod compile;
mod host;
mod interpret;
mod lanes;
mod machine;
mod math;
mod output;
mod state;
mod tasks;
#[cfg(test)]
mod tests;
mod values;

pub use host::HostTensor;
pub(crate) use interpret::BadLabel;
pub use machine::HostFloat;
pub use output::CpuOutput;
pub(crate) use output::OperatorOutput;

use crate::error::{Error, Result};
use crate::expr::{Node, NodeId};
use crate::loss::{Loss, check_once, check_read};
use crate::lower::{OutputKind, Over, Program, RaggedInput, UPSTREAM, Wanted, lower, reported_label};
use crate::shape::{Extents, Geometry, Layout, Operand, Ragged, RowGroups, Rows, Scope, no_hessian_of_broadcast};
use code::{Dest, ElementDest, FinalCode, PassCode};
use host::{Data, zeros};
use interpret::run_pass;
use machine::{Machine, Shared, Source, for_runs};
use std::marker::PhantomData;

/// Lowers a loss and runs it once. The upstream gradient, if `wanted` has one, is the input `upstream`.
///
/// Errors: as [`CpuPlan::new`]. A label out of range is reported by the accessors of the output.
///
/// ```
/// use wgloss::Wanted;
/// use wgloss::{HostTensor, Reduction, cpu, losses};
/// # fn main() -> wgloss::Result<()> {
/// let x = [1.0f32, 2.0];
/// let inputs = [("input", HostTensor::f32(&x, &[2])), ("target", HostTensor::f32(&[0.0, 0.0], &[2]))];
/// let wanted = Wanted { loss: true, ..Wanted::default() };
/// let out = cpu::run::<f32>(&losses::mse().reduction(Reduction::None), &inputs, &wanted)?;
/// assert_eq!(out.loss_values()?, [1.0, 4.0]);
/// # Ok(())
/// # }
/// ```
pub fn run<T: HostFloat>(loss: &Loss, inputs: &[(&str, HostTensor<'_>)], wanted: &Wanted) -> Result<CpuOutput<T>> {
    let shape_of = |name: &str| inputs.iter().find(|(known, _)| *known == name).map(|(_, tensor)| tensor.shape());
    let parts = loss.parts(shape_of)?;
    if !parts.is_empty() {
        return run_parts(&parts, inputs, wanted);
    }
    let plan = CpuPlan::new(loss, inputs, wanted)?;
    let mut out = plan.output();
    plan.run(inputs, &mut out)?;
    Ok(out)
}

/// The sum of the parts of a loss over several shapes.
fn run_parts<T: HostFloat>(parts: &[Loss], inputs: &[(&str, HostTensor<'_>)], wanted: &Wanted) -> Result<CpuOutput<T>> {
    let mut all = CpuOutput::new(wanted.found_inf);
    for part in parts {
        let hidden: Vec<String> = parts.iter().flat_map(Loss::inputs).map(|input| input.name).collect();
        let own: Vec<String> = part.inputs().into_iter().map(|input| input.name).collect();
        let is_others = |name: &str| hidden.iter().any(|known| known == name) && !own.iter().any(|known| known == name);
        let given: Vec<_> = inputs.iter().filter(|(name, _)| !is_others(name)).cloned().collect();
        let mut wanted = wanted.clone();
        wanted.grads.retain(|name| !is_others(name));
        wanted.hessian_diagonals.retain(|name| !is_others(name));
        all.add(run(part, &given, &wanted)?);
    }
    Ok(all)
}

/// The loss and its gradients with respect to the inputs named, in f64.
///
/// Errors: as [`CpuPlan::new`].
pub fn forward_backward(loss: &Loss, inputs: &[(&str, HostTensor<'_>)], grads: &[&str]) -> Result<CpuOutput<f64>> {
    let grads = grads.iter().map(|g| (*g).to_owned()).collect();
    run(loss, inputs, &Wanted { loss: true, grads, ..Wanted::default() })
}

/// The diagonal of the Hessian with respect to an element-wise input, in f64.
///
/// Errors: as [`CpuPlan::new`], [`Error::LabelOutOfRange`], and [`Error::Unsupported`] for an input that is
/// broadcast.
///
/// ```
/// use wgloss::{HostTensor, Reduction, cpu, losses};
/// # fn main() -> wgloss::Result<()> {
/// let x = [3.0f64, -1.0];
/// let inputs = [("input", HostTensor::f64(&x, &[2])), ("target", HostTensor::f64(&[0.0, 0.0], &[2]))];
/// let diagonal = cpu::hessian_diagonal(&losses::mse().reduction(Reduction::Sum), &inputs, "input")?;
/// assert_eq!(diagonal, [2.0, 2.0]);
/// # Ok(())
/// # }
/// ```
pub fn hessian_diagonal(loss: &Loss, inputs: &[(&str, HostTensor<'_>)], wrt: &str) -> Result<Vec<f64>> {
    let wanted = Wanted { hessian_diagonals: vec![wrt.to_owned()], ..Wanted::default() };
    let out = run::<f64>(loss, inputs, &wanted)?;
    out.hessian_diagonal(wrt).map(<[f64]>::to_vec)
}

/// A loss lowered for inputs of certain shapes, to run many times.
///
/// ```
/// use wgloss::cpu::CpuPlan;
/// use wgloss::Wanted;
/// use wgloss::{HostTensor, losses};
/// # fn main() -> wgloss::Result<()> {
/// let (input, target) = ([1.0f32, 2.0], [0.0f32, 0.0]);
/// let inputs = [("input", HostTensor::f32(&input, &[2])), ("target", HostTensor::f32(&target, &[2]))];
/// let plan = CpuPlan::<f32>::new(&losses::mse(), &inputs, &Wanted { loss: true, ..Wanted::default() })?;
/// let mut out = plan.output();
/// for _ in 0..3 {
///     plan.run(&inputs, &mut out)?;
///     assert_eq!(out.loss()?, 2.5);
/// }
/// # Ok(())
/// # }
/// ```
#[derive(Clone, Debug)]
pub struct CpuPlan<T> {
    loss: Loss,
    wanted: Wanted,
    program: Program,
    geometry: Geometry,
    passes: Vec<PassCode>,
    last: FinalCode,
    /// Shape, strides and signedness of each input of the program.
    inputs: Vec<(Layout, bool)>,
    outputs: Vec<OutputPlan>,
    /// Rows per class axis that are adjacent in memory.
    inner: usize,
    numbers: PhantomData<T>,
}

/// Sums of the passes that have run, by node of the program.
struct Sums {
    totals: Vec<f64>,
    /// One value per group.
    groups: Vec<Vec<f64>>,
    /// One value per column, or per group and column.
    columns: Vec<Vec<f64>>,
}

/// The inputs of a run, and its groups of unequal length.
type RunData<'r, 'a> = (&'r [Source<'a>], Option<&'r RowGroups>);

/// Shape of an output of the program.
#[derive(Clone, Debug)]
struct OutputPlan {
    shape: Vec<usize>,
    /// Values that the passes compute.
    count: usize,
    /// For the gradient of a broadcast input: strides of that input along the merged axes, by which values are summed.
    fold: Option<[u64; 4]>,
}

impl OutputPlan {
    /// Values that are summed into the shape of a broadcast input; 0 for other outputs.
    fn broadcast(&self) -> usize {
        if self.fold.is_some() { self.count } else { 0 }
    }
}

impl<T: HostFloat> CpuPlan<T> {
    /// Lowers a loss for inputs of these shapes and types; no value is read.
    ///
    /// Errors: [`Error::Name`] for an input that is missing or unknown, [`Error::DType`] for labels that are no
    /// integers and numbers that are, [`Error::Shape`], [`Error::Buffer`] for data shorter than their layout, and
    /// errors of lowering.
    pub fn new(loss: &Loss, inputs: &[(&str, HostTensor<'_>)], wanted: &Wanted) -> Result<CpuPlan<T>> {
        loss.check()?;
        check_names(loss, inputs, wanted)?;
        let present = |name: &str| find(inputs, name).map(|tensor| tensor.data.is_unsigned());
        let program = lower(loss, wanted, &present)?;
        check_read(&program.name, &program.inputs, inputs.iter().map(|(name, _)| *name))?;
        let tensors = program_inputs(&program, inputs)?;
        let inputs_and_tensors = program.inputs.iter().zip(&tensors);
        let operands: Vec<Operand<'_>> =
            inputs_and_tensors.map(|(decl, tensor)| decl.operand(&tensor.layout)).collect();
        let (geometry, outputs) = place_outputs(&program, None, &operands)?;
        program.check_batch(&geometry)?;
        let columns = program.row_axis.columns(geometry.domain.len());
        let inner = columns.map_or(1, |columns| geometry.domain[columns.end..].iter().product());
        let passes = (0..program.passes.len()).map(|pass| compile::compile_pass(&program, pass)).collect();
        let last = compile::compile_final(&program);
        let inputs = tensors.iter().map(|t| (t.layout.clone(), t.data.is_unsigned())).collect();
        let (loss, wanted, numbers) = (loss.clone(), wanted.clone(), PhantomData);
        Ok(CpuPlan { loss, wanted, program, geometry, passes, last, inputs, outputs, inner, numbers })
    }

    /// Sets the number of consecutive rows per group; the default is the rows per index of their first axis. Groups of
    /// unequal length are those of [`Wanted::groups`].
    ///
    /// Errors: [`Error::Param`] unless it divides the number of rows, and for groups of unequal length.
    pub fn group_rows(mut self, rows: usize) -> Result<CpuPlan<T>> {
        let inputs = self.program.inputs.iter().zip(&self.inputs);
        let operands: Vec<Operand<'_>> = inputs.map(|(decl, (layout, _))| decl.operand(layout)).collect();
        (self.geometry, self.outputs) = place_outputs(&self.program, Some(rows as u64), &operands)?;
        Ok(self)
    }

    /// An empty output for [`Self::run`], which allocates it on the first run.
    pub fn output(&self) -> CpuOutput<T> {
        let mut out = CpuOutput::new(self.program.found_inf);
        for (output, plan) in self.program.outputs.iter().zip(&self.outputs) {
            let name = match output.kind {
                OutputKind::Grad(input) | OutputKind::HessianDiagonal(input) => self.program.inputs[input].name.clone(),
                OutputKind::Loss | OutputKind::Denominator | OutputKind::FoundInf => String::new(),
                OutputKind::Extra(ref name) => name.clone(),
            };
            let count = if plan.fold.is_some() { plan.shape.iter().product() } else { plan.count };
            out.push(output.kind.clone(), name, plan.shape.clone(), [count, plan.broadcast()]);
        }
        out
    }

    /// Runs the loss. Inputs must have the shapes, strides and types of the plan; `out` comes from [`Self::output`].
    ///
    /// Errors: as [`Self::new`] where an input differs from the plan's; [`Error::OutOfMemory`].
    pub fn run(&self, inputs: &[(&str, HostTensor<'_>)], out: &mut CpuOutput<T>) -> Result<()> {
        check_names(&self.loss, inputs, &self.wanted)?;
        let tensors = program_inputs(&self.program, inputs)?;
        self.check_same(&tensors)?;
        let kinds = self.program.outputs.iter().map(|output| &output.kind);
        if !out.fits(kinds.zip(&self.outputs).map(|(kind, plan)| (kind, &plan.shape[..], plan.broadcast()))) {
            let message = "the output is not one of this plan's".to_owned();
            return Err(Error::Buffer { input: "out".to_owned(), message });
        }
        out.make_room()?;
        let all = tensors.iter().zip(&self.program.inputs).zip(&self.geometry.strides);
        let sources: Vec<Source<'_>> = all
            .map(|((tensor, decl), strides)| Source { data: &tensor.data, strides: *strides, scope: decl.scope })
            .collect();
        let nodes = self.program.nodes.len();
        let none = vec![Vec::new(); nodes];
        let row_groups = self.row_groups(&tensors);
        let mut sums = Sums { totals: vec![0.0; nodes], groups: none.clone(), columns: none };
        out.bad_label = None;
        out.bad_group = row_groups.as_ref().and_then(|groups| self.bad_group(groups));
        let row_groups = row_groups.as_ref();
        let is_empty = self.geometry.is_empty();
        for (node, columns) in self.program.nodes.iter().zip(&mut sums.columns).filter(|_| is_empty) {
            if let Node::FoldOver(fold, to @ (Scope::Column | Scope::GroupColumn), _) = node {
                *columns = vec![fold.identity(); self.geometry.shape_of(*to).iter().product()];
            }
        }
        // Of no rows, passes over columns alone have items.
        for code in self.passes.iter().filter(|code| !is_empty || code.over == Over::Columns) {
            self.run_pass(code, (&sources, row_groups), &mut sums, out)?;
        }
        out.bad_label = out.bad_label.map(|bad| self.of_element(bad, &sources));
        let shared = self.shared(Over::Rows, (&sources, row_groups), &sums);
        self.finish_totals(&shared, out);
        if is_empty {
            out.clear_gradients();
        }
        for (index, plan) in self.outputs.iter().enumerate() {
            if let Some(strides) = plan.fold.as_ref().filter(|_| !is_empty) {
                let scope = self.program.outputs[index].scope;
                let cols = if scope == Scope::Element { shared.cols() } else { 1 };
                out.fold(index, |full, sums| match scope {
                    Scope::GroupColumn => self.fold_group_columns(full, strides, sums),
                    _ => self.fold(full, cols, strides, sums),
                })?;
            }
        }
        Ok(())
    }

    /// A label out of range as it stands in its input. Of labels of elements, the row's passes tell only that there is one.
    fn of_element(&self, bad: BadLabel, sources: &[Source<'_>]) -> BadLabel {
        let Geometry { axes, ref strides, .. } = self.geometry;
        let of_elements = self
            .program
            .checked_labels(self.geometry.cols)
            .into_iter()
            .filter(|(input, _)| self.program.has_rows() && self.program.inputs[*input].scope == Scope::Element);
        let wrong = |(input, classes): (usize, u64)| {
            let (mut rest, mut first) = (bad.row, 0);
            for axis in (0..3).rev() {
                first += rest % axes[axis] * strides[input][axis];
                rest /= axes[axis];
            }
            let at = |col: u64| sources[input].data.index((first + col * strides[input][3]) as usize);
            let labels: Vec<i64> = (0..self.geometry.cols).map(at).collect();
            let compared = self.program.compared_with(input);
            let is_compared = |label: i64| {
                compared.iter().any(|with| match *with {
                    Node::Param(param) => self.program.params[param as usize].value == label as f64,
                    ref index => *index == Node::Int(label),
                })
            };
            let label = reported_label(&labels, classes, is_compared)?;
            Some(BadLabel { row: bad.row, label, classes })
        };
        let stands_for_others = bad.label == i64::from(i32::MIN);
        of_elements.filter(|_| stands_for_others).find_map(wrong).unwrap_or(bad)
    }

    /// Runs one pass into `out`, and its sums into `sums`.
    fn run_pass(&self, code: &PassCode, data: RunData<'_, '_>, sums: &mut Sums, out: &mut CpuOutput<T>) -> Result<()> {
        let shared = self.shared(code.over, data, sums);
        let rows = shared.rows() as usize;
        let is_group = |store: &&code::Store| matches!(store.dest, Dest::GroupTerm(_));
        let terms = code.stores.iter().filter(is_group).map(|_| zeros("the rows' terms of a group sum", rows));
        let mut terms: Vec<Vec<T>> = terms.collect::<Result<_>>()?;
        let mut outputs = out.full_mut();
        let mut free_terms = terms.iter_mut();
        let mut take = |output: usize| outputs[output].take().expect("an output is stored once");
        let mut stores = Vec::new();
        for store in &code.stores {
            stores.push(match store.dest {
                Dest::Output(output) => take(output),
                Dest::GroupTerm(_) => free_terms.next().expect("every store of group terms has terms").as_mut_slice(),
            });
        }
        let outputs = code.element_stores.iter().filter_map(|store| match store.dest {
            ElementDest::Output(output) => Some(take(output)),
            ElementDest::ColumnSum(_) | ElementDest::GroupColumnSum(_) => None,
        });
        let elements = outputs.collect();
        let inner = if code.over.has_rows() { self.inner } else { 1 };
        let result = run_pass(&shared, code, inner, stores, elements)?;
        for (sum, value) in code.sums.iter().zip(&result.sums) {
            sums.totals[sum.node] = *value;
        }
        let column_sums = code.element_stores.iter().filter_map(|store| match store.dest {
            ElementDest::ColumnSum(node) | ElementDest::GroupColumnSum(node) => Some(node),
            ElementDest::Output(_) => None,
        });
        for (node, columns) in column_sums.zip(result.columns) {
            sums.columns[node] = columns;
        }
        for (store, terms) in code.stores.iter().filter(is_group).zip(&terms) {
            let Dest::GroupTerm(node) = store.dest else { unreachable!("only stores of group terms are left") };
            let (fold, combine) = (store.fold, |a: f64, b: f64| store.fold.combine(a, b));
            let folded = |terms: &mut dyn Iterator<Item = &T>| terms.map(|x| x.to()).fold(fold.identity(), combine);
            let cols = self.geometry.cols as usize;
            let each = if code.over == Over::GroupColumns { cols } else { self.geometry.group_rows as usize };
            match data.1 {
                Some(groups) => {
                    sums.groups[node] = groups.folds(fold.identity(), combine, |row| terms[row].to());
                }
                None if self.program.scope(NodeId(node as u32)) == Scope::Column => {
                    let of = |col: usize| folded(&mut terms.iter().skip(col).step_by(cols));
                    sums.columns[node] = (0..cols).map(of).collect();
                }
                None => sums.groups[node] = terms.chunks(each).map(|terms| folded(&mut terms.iter())).collect(),
            }
        }
        // The lowest row of any pass.
        out.bad_label = out.bad_label.into_iter().chain(result.bad_label).min_by_key(|bad| bad.row);
        Ok(())
    }

    /// Computes the outputs of one number, after all passes.
    fn finish_totals(&self, shared: &Shared<'_, '_>, out: &mut CpuOutput<T>) {
        let globals = Machine::<T>::globals(shared, &self.last.globals);
        for total in &self.last.outputs {
            let holds = |row: Option<code::Src>| row.is_none_or(|row| Machine::global_bool(&globals, row));
            let is_nan =
                |(src, row): &(code::Src, Option<code::Src>)| Machine::global(&globals, *src).is_nan() && holds(*row);
            let poisoned = total.looks.iter().any(is_nan);
            let value = Machine::global(&globals, total.src);
            out.set_total(total.output, if poisoned { T::nan() } else { value });
        }
    }

    /// Groups of unequal length; `None` where groups are equal.
    fn row_groups(&self, tensors: &[&HostTensor<'_>]) -> Option<RowGroups> {
        let RaggedInput { index, by } = self.program.ragged?;
        let Geometry { axes, strides, .. } = &self.geometry;
        let read = |at: u64| match &tensors[index].data {
            Data::I32(values) => i64::from(values[at as usize]),
            Data::U32(values) => i64::from(values[at as usize]),
            _ => unreachable!("inputs of indices hold i32 or u32: the plan checked"),
        };
        let [a0, a1, a2, along] = strides[index];
        let address = |index: u64| match by {
            Ragged::Offsets => index * along,
            Ragged::Ids { .. } => {
                let (outer, last) = (index / axes[2], index % axes[2]);
                outer / axes[1] * a0 + outer % axes[1] * a1 + last * a2
            }
        };
        let sizes = [self.geometry.rows, self.geometry.groups()];
        (!self.geometry.is_empty()).then(|| RowGroups::new(by, sizes, |index| read(address(index))))
    }

    /// The error of the first offset or id that is not allowed.
    fn bad_group(&self, groups: &RowGroups) -> Option<Error> {
        let (RaggedInput { index, by }, (at, found)) = (self.program.ragged?, groups.first_bad?);
        let sizes = [self.geometry.rows, self.geometry.groups()];
        Some(by.error(&self.program.inputs[index].name, at, found, sizes))
    }

    fn shared<'r, 'a>(&'r self, over: Over, data: RunData<'r, 'a>, sums: &'r Sums) -> Shared<'r, 'a> {
        let (inputs, row_groups) = data;
        let CpuPlan { geometry, program, .. } = self;
        let (has_rows, params) = (program.has_rows(), &program.params[..]);
        let Sums { totals, groups: group_sums, columns: column_sums } = sums;
        Shared { over, geometry, row_groups, has_rows, params, inputs, totals, group_sums, column_sums }
    }

    fn check_same(&self, tensors: &[&HostTensor<'_>]) -> Result<()> {
        for ((decl, tensor), (layout, unsigned)) in self.program.inputs.iter().zip(tensors).zip(&self.inputs) {
            if tensor.layout != *layout {
                let expected = format!("{:?} with strides {:?}, as planned", layout.shape, layout.strides);
                let found = tensor.layout.shape.clone();
                return Err(Error::Shape { input: decl.name.clone(), expected, found });
            }
            if tensor.data.is_unsigned() != *unsigned {
                let expected = if *unsigned { "u32, as planned" } else { "a signed type, as planned" };
                return Err(tensor.dtype_error(&decl.name, expected));
            }
        }
        Ok(())
    }

    /// Sums the gradients of groups and columns that one element of a broadcast input was read for.
    fn fold_group_columns(&self, full: &[T], strides: &[u64; 4], sums: &mut [f64]) {
        for (index, value) in (0..).zip(full) {
            let (group, col) = (index / self.geometry.cols, index % self.geometry.cols);
            sums[(group * strides[2] + col * strides[3]) as usize] += value.to();
        }
    }

    /// Sums the gradients of elements (or rows) that one element of a broadcast input was read for.
    fn fold(&self, full: &[T], cols: usize, strides: &[u64; 4], sums: &mut [f64]) {
        let has_rows = self.program.has_rows();
        let rows = full.len() / cols;
        let by_col = if has_rows { strides[3] as usize } else { 0 };
        let inner = if cols == 1 { 1 } else { self.inner };
        for_runs(&self.geometry, has_rows, strides, 0, rows, |first, offset, stride, count| {
            for k in 0..count {
                let (unit, within) = ((first + k) / inner, (first + k) % inner);
                let values = full[unit * inner * cols + within..].iter().step_by(inner).take(cols);
                for (col, value) in values.enumerate() {
                    sums[offset + k * stride + col * by_col] += value.to();
                }
            }
        });
    }
}

fn find<'t, 'a>(inputs: &'t [(&str, HostTensor<'a>)], name: &str) -> Option<&'t HostTensor<'a>> {
    inputs.iter().find(|(known, _)| *known == name).map(|(_, tensor)| tensor)
}

/// An error unless every input that the loss needs is given, and no other.
fn check_names(loss: &Loss, inputs: &[(&str, HostTensor<'_>)], wanted: &Wanted) -> Result<()> {
    let specs = loss.inputs();
    let beside = loss.weights_and_masks();
    let mut known: Vec<&str> = specs.iter().map(|spec| spec.name.as_str()).collect();
    known.extend(beside.iter().map(String::as_str));
    let upstream = wanted.has_upstream().then_some(UPSTREAM);
    let groups = wanted.groups.as_ref().map(|groups| groups.input.as_str());
    known.extend(upstream.into_iter().chain(groups));
    check_once("input", inputs.iter().map(|(name, _)| *name))?;
    let error = |what: &str, name: &str, known: &[&str]| {
        let (what, known) = (format!("{} {what}", loss.name()), known.join(", "));
        Err(Error::Name { what, name: name.to_owned(), known })
    };
    let given: Vec<&str> = inputs.iter().map(|(name, _)| *name).collect();
    if let Some(unknown) = given.iter().find(|name| !known.contains(name)) {
        return error("has no input", unknown, &known);
    }
    let needed = specs.iter().filter(|spec| !spec.optional).map(|spec| spec.name.as_str());
    let mut needed = needed.chain(upstream).chain(groups);
    match needed.find(|name| !given.contains(name)) {
        Some(missing) => error("needs the input", missing, &given),
        None => Ok(()),
    }
}

/// The tensors of a program's inputs, in its order, their types and lengths checked.
fn program_inputs<'t, 'a>(program: &Program, inputs: &'t [(&str, HostTensor<'a>)]) -> Result<Vec<&'t HostTensor<'a>>> {
    let mut tensors = Vec::new();
    for decl in &program.inputs {
        let Some(tensor) = find(inputs, &decl.name) else {
            let what = format!("{} needs the input", program.name);
            let known = inputs.iter().map(|(name, _)| *name).collect::<Vec<_>>().join(", ");
            return Err(Error::Name { what, name: decl.name.clone(), known });
        };
        tensor.check(&decl.name, decl.kind)?;
        tensors.push(tensor);
    }
    Ok(tensors)
}

/// The geometry of the inputs, and of gradients that are summed to the shape of a broadcast input.
fn place_outputs(
    program: &Program,
    group_rows: Option<u64>,
    inputs: &[Operand<'_>],
) -> Result<(Geometry, Vec<OutputPlan>)> {
    let grouping = program.grouping(group_rows, |input| inputs.get(input).map(|input| input.layout))?;
    let rows = Rows { axis: program.row_axis, cols: program.cols, grouping, loss: &program.name };
    let extents = Extents::new(rows, inputs)?;
    let layouts: Vec<Layout> = inputs.iter().map(|input| Layout::contiguous(&input.layout.shape)).collect();
    let mut all = inputs.to_vec();
    let mut outputs: Vec<(OutputPlan, Option<usize>)> = Vec::new();
    for output in &program.outputs {
        let shape = extents.shape_of(output.scope);
        let count = shape.iter().product();
        let (shape, input) = match output.kind {
            OutputKind::Grad(input) | OutputKind::HessianDiagonal(input) => (layouts[input].shape.clone(), Some(input)),
            OutputKind::Loss | OutputKind::Denominator | OutputKind::FoundInf | OutputKind::Extra(_) => (shape, None),
        };
        let smaller = input.filter(|input| output.scope > Scope::Total && layouts[*input].len() != count);
        if let (Some(input), OutputKind::HessianDiagonal(_)) = (smaller, &output.kind) {
            return Err(no_hessian_of_broadcast(inputs[input].name));
        }
        let operand = smaller.map(|input| {
            all.push(Operand { layout: &layouts[input], ..inputs[input].clone() });
            all.len() - 1
        });
        outputs.push((OutputPlan { shape, count, fold: None }, operand));
    }
    let geometry = Geometry::new(rows, &all)?;
    let fold = |operand: Option<usize>| operand.map(|operand| geometry.strides[operand]);
    let outputs = outputs.into_iter().map(|(plan, operand)| OutputPlan { fold: fold(operand), ..plan }).collect();
    Ok((geometry, outputs))
}
