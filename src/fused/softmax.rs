//! The softmax of rows, as an operator.

use crate::codegen::template::fill;
use crate::dispatch::{Dispatch, Mode, Note, OutputKind, OutputSignature, Planned, Region, Signature, Slot};
use crate::error::{Error, Result};
use crate::expr::InputDecl;
use crate::expr::op::Kind;
use crate::limits::Limits;
use crate::plan::operator::{Asked, Operator, Placed, Prepared, Tensors, TuneFacts};
use crate::plan::spec::PlanSpec;
use crate::plan::uniform::UniformType;
use crate::schedule::{PassSchedule, Pinned};
use crate::shape::{DType, Geometry, Layout, Operand, RowAxis, Scope};
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
/// Errors: `Error::DType` unless `input` is f32; `Error::Unsupported` if gradients are asked for; `Error::Limit` for
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
        let asked = [&spec.wanted.grads, &spec.wanted.hessian_diagonals, &spec.wanted.extras];
        let others = asked.iter().any(|names| names.iter().any(|name| name != "softmax"));
        if others || spec.shard.is_some() || spec.separate_backward || spec.accumulate_loss {
            let message =
                "gradients, extras, shards or a separate backward of softmax, which has one output".to_owned();
            return Err(Error::Unsupported { message });
        }
        let output = OutputSignature {
            kind: OutputKind::Extra("softmax".to_owned()),
            mode: Mode::Write,
            dtype: DType::F32,
            scope: Scope::Element,
        };
        let input = InputDecl { name: "input".to_owned(), scope: Scope::Element, kind: Kind::Float };
        let signature = Signature {
            name: "softmax".to_owned(),
            inputs: vec![input],
            outputs: vec![output],
            params: Vec::new(),
            row_axis: RowAxis::Last,
        };
        let planned = spec.inputs[0].2.clone();
        let prepared = PreparedSoftmax { limits: limits.clone(), planned, pinned: spec.pinned, signature };
        prepared.dispatch(&prepared.planned()?)?;
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
    Operand { name, scope: Scope::Element, layout: &placed.layout }
}

impl PreparedSoftmax {
    fn dispatch(&self, tensors: &Tensors) -> Result<(Geometry, Dispatch)> {
        let input = tensors.inputs[0].as_ref().expect("the input is bound");
        let output = &tensors.outputs[0];
        let geometry = Geometry::new(RowAxis::Last, &[operand("input", input), operand("softmax", output)])?;
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
        let hooks = BTreeMap::from([("constants".to_owned(), "const WG: u32 = 32u;\n".to_owned())]);
        let wgsl = fill("softmax of rows", SHADER, &hooks).expect("the shader takes its constants").into();
        let region = |slot: Slot, writes: bool| Region { slot, writes, bytes: None };
        let storage = vec![region(Slot::Input(0), false), region(Slot::Output(0), true)];
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
        let (found, planned) = (given[0].2, &self.planned.shape);
        let fits = found.len() == planned.len() && (found.first() <= planned.first()) && found[1..] == planned[1..];
        if fits {
            return Ok(());
        }
        let expected = format!("{planned:?} as planned, or fewer along the first axis");
        Err(Error::Shape { input: "input".to_owned(), expected, found: found.to_vec() })
    }

    fn planned(&self) -> Result<Tensors> {
        let output = Placed::planned(Layout::contiguous(&self.planned.shape), DType::F32);
        Ok(Tensors { inputs: vec![Some(Placed::planned(self.planned.clone(), DType::F32))], outputs: vec![output] })
    }

    fn output_shapes(&self, inputs: &[Option<Placed>]) -> Result<Vec<Vec<usize>>> {
        Ok(inputs.iter().flatten().map(|input| input.layout.shape.clone()).collect())
    }

    fn plan(&self, tensors: &Tensors, asked: Asked) -> Result<Planned> {
        let (geometry, mut dispatch) = self.dispatch(tensors)?;
        if asked.pooled {
            dispatch.storage[0].writes = true;
            dispatch.wgsl = dispatch.wgsl.replace("var<storage, read> input", "var<storage, read_write> input").into();
        }
        let bytes = 8 * geometry.elements();
        Ok(Planned { dispatches: vec![dispatch], phases: vec![1], bytes, ..Planned::default() })
    }

    fn explain(&self, tensors: &Tensors, _: Asked, adapter: &str) -> Result<String> {
        let (geometry, dispatch) = self.dispatch(tensors)?;
        let Geometry { rows, cols, .. } = geometry;
        let bytes = 8 * geometry.elements();
        let [groups, _] = dispatch.grid;
        Ok(format!(
            "softmax: {rows} rows of {cols} columns, on {adapter}\n{groups} workgroups of 32, one a row; the row is read \
             three times, of which a cache may serve two\nmust move {bytes} B; 1 dispatch\n"
        ))
    }

    fn check_param(&self, _: usize, _: f64, _: f64) -> Result<()> {
        unreachable!("softmax has no parameters")
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
        let (geometry, dispatch) = self.dispatch(&self.planned()?)?;
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
        let text = fill("test", SHADER, &BTreeMap::from([("constants".to_owned(), "const WG: u32 = 8u;".to_owned())]));
        ROWS.check(&text.unwrap(), "Rows");
    }
}
