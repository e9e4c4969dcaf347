//! Checks of a specification: names, element types, destinations of gradients. Pure.

use crate::codegen::Mode;
use crate::error::{Error, Result};
use crate::expr::op::Kind;
use crate::loss::{InputSpec, Loss};
use crate::lower::{OutputKind, Program, UPSTREAM};
use crate::plan::spec::{GradMode, PlanSpec};
use crate::schedule::tensor_inputs;
use crate::shape::{DType, Layout, Scope};

/// An error unless the loss has the input (or it gives the groups), and takes it in that type.
pub(crate) fn check_input(loss: &Loss, known: &[InputSpec], spec: &PlanSpec, given: (&str, DType)) -> Result<()> {
    let (input, dtype) = given;
    let gives_groups = spec.wanted.groups.as_ref().is_some_and(|groups| groups.input == input);
    let kind = match known.iter().find(|i| i.name == input) {
        Some(spec) => spec.kind,
        None if gives_groups => Kind::Int,
        None if input == UPSTREAM || loss.weights_and_masks().iter().any(|name| name == input) => Kind::Float,
        None => {
            let beside = loss.weights_and_masks().into_iter().chain([UPSTREAM.to_owned()]);
            let all: Vec<String> = known.iter().map(|i| i.name.clone()).chain(beside).collect();
            let what = format!("{} has no input", loss.name());
            return Err(Error::Name { what, name: input.to_owned(), known: all.join(", ") });
        }
    };
    let fits = if kind == Kind::Int { !dtype.is_float() } else { dtype.is_float() };
    if fits {
        return Ok(());
    }
    let expected = match kind {
        Kind::Int if gives_groups => "i32 or u32, as it gives the groups",
        Kind::Int => "i32 or u32 class indices",
        _ => "f32, f16 or bf16",
    };
    Err(Error::DType { input: input.to_owned(), expected: expected.to_owned(), found: dtype.to_string() })
}

/// Refuses to write a layout in which elements share an address.
pub(crate) fn check_written(name: &str, layout: &Layout) -> Result<()> {
    if !layout.overlaps_itself() {
        return Ok(());
    }
    let Layout { shape, strides } = layout;
    let message = format!("is written, but elements of shape {shape:?} with strides {strides:?} share an address");
    Err(Error::Buffer { input: name.to_owned(), message })
}

/// A gradient is stored as a float, in place as its input's type.
pub(crate) fn check_grad_dtype(spec: &PlanSpec, input: &str, dtype: DType) -> Result<()> {
    let wrong = |expected: String| {
        Err(Error::DType { input: format!("gradient of {input}"), expected, found: dtype.to_string() })
    };
    if !dtype.is_float() {
        return wrong("f32, f16 or bf16".to_owned());
    }
    let in_place = spec.modes.iter().any(|(name, mode)| name == input && *mode == GradMode::InPlace);
    match spec.inputs.iter().find(|(name, ..)| name == input) {
        _ if !spec.wanted.grads.iter().any(|grad| grad == input) => {
            let what = "an element type is given, but no gradient is asked for, of".to_owned();
            Err(Error::Name { what, name: input.to_owned(), known: spec.wanted.grads.join(", ") })
        }
        Some((_, own, _)) if in_place && *own != dtype => wrong(format!("{own}, in place of the input")),
        Some(_) => Ok(()),
        None => Err(missing("the plan's gradient", input, spec.inputs.iter().map(|i| i.0.as_str()))),
    }
}

pub(crate) fn missing<'a>(loss: &str, input: &str, given: impl Iterator<Item = &'a str>) -> Error {
    let what = format!("{loss} needs the input");
    Error::Name { what, name: input.to_owned(), known: given.collect::<Vec<_>>().join(", ") }
}

pub(crate) fn mode_of(program: &Program, spec: &PlanSpec, output: usize) -> Mode {
    match &program.outputs[output].kind {
        OutputKind::Loss if spec.accumulate_loss => Mode::Accumulate,
        OutputKind::Grad(input) => {
            let name = &program.inputs[*input].name;
            match spec.modes.iter().find(|m| m.0 == *name).map(|m| m.1) {
                Some(GradMode::InPlace) => Mode::InPlace(*input),
                Some(GradMode::Accumulate) => Mode::Accumulate,
                _ => Mode::Write,
            }
        }
        _ => Mode::Write,
    }
}

/// An input may be overwritten only by the last pass that reads it.
pub(crate) fn check_in_place(program: &Program, in_place: &[usize]) -> Result<()> {
    for &output in in_place {
        let OutputKind::Grad(input) = program.outputs[output].kind else { continue };
        if program.outputs[output].scope <= Scope::Total {
            let message = format!("an in-place gradient of `{}`, which is one value", program.inputs[input].name);
            return Err(Error::Unsupported { message });
        }
        let written = program.passes.iter().position(|p| p.outputs.contains(&output)).unwrap_or(0);
        let read_after = program.passes[written + 1..].iter().any(|p| tensor_inputs(program, p).contains(&input));
        if read_after {
            let message = format!(
                "an in-place gradient of `{}`: a later pass must read it again; ask for fewer outputs",
                program.inputs[input].name
            );
            return Err(Error::Unsupported { message });
        }
    }
    Ok(())
}

/// A bound input is as planned, but for fewer indices along the first axis.
pub(crate) fn check_capacity(name: &str, planned: (DType, &[usize]), found: (DType, &[usize])) -> Result<()> {
    let ((planned_dtype, planned), (dtype, shape)) = (planned, found);
    if planned_dtype != dtype {
        let (expected, found) = (format!("{planned_dtype}, as planned"), dtype.to_string());
        return Err(Error::DType { input: name.to_owned(), expected, found });
    }
    let fits = shape.len() == planned.len()
        && shape.iter().zip(planned).enumerate().all(|(axis, (a, b))| a == b || axis == 0 && a < b);
    if fits {
        return Ok(());
    }
    let expected = format!("{planned:?} as planned, or fewer along the first axis");
    Err(Error::Shape { input: name.to_owned(), expected, found: shape.to_vec() })
}
