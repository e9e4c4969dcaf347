//! The softmax of rows, as an operator.

use crate::codegen::template::fill;
use crate::dispatch::{Dispatch, Mode, Note, OutputKind, OutputSignature, Planned, Region, Signature, Slot};
use crate::error::{Error, Result};
use crate::expr::InputDecl;
use crate::expr::op::Kind;
use crate::limits::Limits;
use crate::lower::{Upstream, Wanted};
use crate::plan::check::check_capacity;
use crate::plan::operator::{Conditions, Operator, Placed, Prepared, Tensors, TuneFacts};
use crate::plan::spec::PlanSpec;
use crate::plan::uniform::UniformType;
use crate::schedule::{PassSchedule, Pinned};
use crate::shape::{ColumnCount, DType, Extents, Geometry, Grouping, Layout, Operand, RowAxis, Rows, Scope, ShapeRule};
use std::collections::BTreeMap;
use std::sync::Arc;

const SHADER: &str = include_str!("../../shaders/softmax.wgsl");

/// `Rows` of `softmax.wgsl`.
static ROWS: UniformType = UniformType {
    words: 16,
    fields: &[
        ("axes", 0),
        ("strides", 4),
        ("result_strides", 8),
        ("rows", 12),
        ("first", 13),
        ("result_first", 14),
        ("reserved0", 15),
    ],
};

/// The operator that [`softmax`] makes.
#[derive(Clone, Copy, Debug, Default)]
#[non_exhaustive]
pub struct Softmax;

/// Softmax of the last axis.
///
/// `pⱼ = exp(xⱼ − max x) / Σₖ exp(xₖ − max x)`, with `x = input`.
///
/// Shapes: `input: [.., C]` in f32, of any strides → the extra output `softmax` of that shape. Unit: none.
/// Gradient: none; a loss that holds [`Expr::softmax`](crate::Expr::softmax) has one.
/// A row with a NaN or +∞, or of −∞ alone, is NaN, as in PyTorch.
/// Errors: `Error::DType` unless `input` is f32; `Error::Unsupported` if gradients are conditions for; `Error::Limit` for
/// tensors larger than a binding.
/// Source: `torch.nn.functional.softmax(input, dim=-1)`.
///
/// ```no_run
/// use wgloss::{Bindings, Context, DType, PlanSpec, Tensor, fused};
/// # fn main() -> wgloss::Result<()> {
/// let ctx = Context::new()?;
/// let logits = Tensor::from_slice(&ctx, &[0.0f32, 0.0, 1.0, 1.0], &[2, 2])?;
/// let plan = ctx.plan(&fused::softmax(), &PlanSpec::new().input("input", DType::F32, &[2, 2]))?;
/// let bound = plan.bind(&Bindings::new().input("input", &logits))?;
/// bound.submit()?;
/// let p: Vec<f32> = bound.read(bound.extra("softmax")?)?;
/// # Ok(()) }
/// ```
pub fn softmax() -> Softmax {
    Softmax
}

#[derive(Clone)]
struct PreparedSoftmax {
    limits: Limits,
    planned: Layout,
    pinned: Pinned,
    signature: Signature,
}

impl Operator for Softmax {
    fn prepare(&self, spec: &PlanSpec, limits: &Limits) -> Result<Arc<dyn Prepared>> {
        limits.check()?;
        let given: Vec<(&str, DType, &[usize])> =
            spec.inputs.iter().map(|(name, dtype, layout)| (name.as_str(), *dtype, &layout.shape[..])).collect();
        check_names(&given)?;
        let Wanted { loss: _, grads, hessian_diagonals, extras, denominator, upstream, found_inf, groups } =
            &spec.wanted;
        let others = [grads, hessian_diagonals, extras].into_iter().flatten().any(|name| name != "softmax");
        let as_of_a_loss = *denominator
            || *found_inf
            || *upstream != Upstream::One
            || spec.accumulate_loss
            || spec.group_rows.is_some()
            || groups.is_some();
        if others || as_of_a_loss || spec.shard.is_some() || spec.separate_backward {
            let message = "gradients, extras, a denominator, found_inf, an upstream, groups, shards or a separate backward of \
                           softmax, which has one output";
            return Err(Error::Unsupported { message: message.to_owned() });
        }
        if spec.pinned != Pinned::default() {
            let message = "a pinned schedule of softmax, which has one kernel".to_owned();
            return Err(Error::Unsupported { message });
        }
        let output = OutputSignature {
            kind: OutputKind::Extra("softmax".to_owned()),
            mode: Mode::Write,
            dtype: DType::F32,
            scope: Scope::Element,
        };
        let input = InputDecl {
            unsigned: false,
            classes: None,
            name: "input".to_owned(),
            scope: Scope::Element,
            kind: Kind::Float,
            shape_rule: ShapeRule::Broadcast,
        };
        let signature = Signature {
            name: "softmax".to_owned(),
            inputs: vec![input],
            outputs: vec![output],
            params: Vec::new(),
            row_axis: RowAxis::Last,
        };
        let planned = spec.inputs[0].2.clone();
        let prepared = PreparedSoftmax { limits: limits.clone(), planned, pinned: spec.pinned, signature };
        prepared.dispatch(&prepared.planned()?, false)?;
        Ok(Arc::new(prepared))
    }
}

/// One f32 input, of this name.
fn check_names(given: &[(&str, DType, &[usize])]) -> Result<()> {
    let known = || given.iter().map(|input| input.0).collect::<Vec<_>>().join(", ");
    match given {
        [("input", DType::F32, _)] => Ok(()),
        [("input", dtype, _)] => {
            let (expected, found) = ("f32".to_owned(), dtype.to_string());
            Err(Error::DType { input: "input".to_owned(), expected, found })
        }
        _ => Err(Error::Name { what: "softmax needs one input".into(), name: "input".into(), known: known() }),
    }
}

fn operand<'a>(name: &'a str, placed: &'a Placed) -> Operand<'a> {
    Operand { name, scope: Scope::Element, rule: ShapeRule::Broadcast, layout: &placed.layout }
}

impl PreparedSoftmax {
    /// `pooled` says that some buffer is both read and written.
    fn dispatch(&self, tensors: &Tensors, pooled: bool) -> Result<(Geometry, Dispatch)> {
        let input = tensors.inputs[0].as_ref().expect("the input is bound");
        let output = &tensors.outputs[0];
        let rows = Rows {
            axis: RowAxis::Last,
            cols: ColumnCount::default(),
            grouping: Grouping::Equal(None),
            loss: "softmax",
        };
        let geometry = Geometry::new(rows, &[operand("input", input), operand("softmax", output)])?;
        for (name, placed) in [("input", input), ("softmax", output)] {
            let needed = placed.layout.extent().saturating_mul(4).saturating_add(16);
            let allowed = self.limits.binding_bytes.min(u64::from(u32::MAX));
            if needed > allowed {
                let (what, limit) = (format!("tensor `{name}`"), "max_storage_buffer_binding_size");
                return Err(Error::Limit { what, needed, allowed, limit });
            }
        }
        let first = |placed: &Placed| placed.offset % u64::from(self.limits.offset_alignment / 4);
        let uniform = ROWS
            .fill()
            .vector("axes", geometry.axes)
            .vector("strides", geometry.strides[0])
            .vector("result_strides", geometry.strides[1])
            .count("rows", geometry.rows)
            .count("first", first(input))
            .count("result_first", first(output))
            .done();
        let access = if pooled { "read_write" } else { "read" };
        let input = format!("@group(0) @binding(2) var<storage, {access}> input: array<u32>;\n");
        let hooks = BTreeMap::from([
            ("constants".to_owned(), "const WG: u32 = 32u;\n".to_owned()),
            ("input".to_owned(), input),
        ]);
        let wgsl = fill("softmax of rows", SHADER, &hooks).expect("the shader takes these hooks").into();
        let region = |slot: Slot, writes: bool| Region { slot, writes, bytes: None };
        let storage = vec![region(Slot::Input(0), pooled), region(Slot::Output(0), true)];
        let grid = [geometry.rows.min(u64::from(self.limits.workgroups)), 1];
        Ok((geometry, Dispatch { wgsl, grid, uniforms: vec![(0, uniform)], storage, note: Note::Whole }))
    }
}

impl Prepared for PreparedSoftmax {
    fn signature(&self) -> &Signature {
        &self.signature
    }

    fn check_inputs(&self, given: &[(&str, DType, &[usize])]) -> Result<()> {
        check_names(given)?;
        check_capacity("input", (DType::F32, &self.planned.shape), (given[0].1, given[0].2))
    }

    fn planned(&self) -> Result<Tensors> {
        let output = Placed::planned(Layout::contiguous(&self.planned.shape), DType::F32);
        Ok(Tensors { inputs: vec![Some(Placed::planned(self.planned.clone(), DType::F32))], outputs: vec![output] })
    }

    fn output_shapes(&self, inputs: &[Option<Placed>]) -> Result<Vec<Vec<usize>>> {
        Ok(inputs.iter().flatten().map(|input| input.layout.shape.clone()).collect())
    }

    fn plan(&self, tensors: &Tensors, conditions: Conditions) -> Result<Planned> {
        let (geometry, dispatch) = self.dispatch(tensors, conditions.pooled)?;
        let bytes = 8 * geometry.elements();
        // The status word, which nothing sets.
        let scalar_words = 1;
        // Of no rows there is nothing to dispatch.
        let dispatches: Vec<Dispatch> = (!geometry.is_empty()).then_some(dispatch).into_iter().collect();
        Ok(Planned { phases: vec![dispatches.len()], dispatches, bytes, scalar_words, ..Planned::default() })
    }

    fn explain(&self, tensors: &Tensors, conditions: Conditions, adapter: &str) -> Result<String> {
        let (geometry, dispatch) = self.dispatch(tensors, conditions.pooled)?;
        let Extents { rows, cols, .. } = geometry.extents;
        let bytes = 8 * geometry.elements();
        let [groups, _] = dispatch.grid;
        Ok(format!(
            "softmax: {rows} rows of {cols} columns, on {adapter}\n{groups} workgroups of 32, one a row; the row is read \
             three times, of which a cache may serve two\nmust move {bytes} B\ndoes move {} B; 1 dispatch\n",
            2 * bytes
        ))
    }

    fn param(&self, name: &str, _: f64) -> Result<Option<usize>> {
        Err(self.signature().no_param(name))
    }

    fn pinned(&self) -> Pinned {
        self.pinned
    }

    fn pin(&self, pinned: Pinned) -> Arc<dyn Prepared> {
        Arc::new(PreparedSoftmax { pinned, ..self.clone() })
    }

    fn schedules(&self) -> Result<Vec<PassSchedule>> {
        Ok(Vec::new())
    }

    fn candidates(&self) -> Result<Vec<Pinned>> {
        Ok(vec![self.pinned])
    }

    fn tune_facts(&self) -> Result<TuneFacts> {
        let (geometry, dispatch) = self.dispatch(&self.planned()?, false)?;
        Ok(TuneFacts {
            rows: geometry.rows,
            cols: geometry.cols,
            tensors: vec!["input f32".to_owned(), "softmax f32".to_owned()],
            alignment: Vec::new(),
            kernels: vec![dispatch.wgsl.to_string()],
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn word_indices_are_the_shader_compilers() {
        let spec = PlanSpec::new().input("input", DType::F32, &[2, 3]);
        let prepared = softmax().prepare(&spec, &Limits::WEBGPU).unwrap();
        let planned = prepared.plan(&prepared.planned().unwrap(), Conditions::default()).unwrap();
        ROWS.check(&planned.dispatches[0].wgsl, "Rows");
    }
}
