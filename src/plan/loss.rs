//! A loss prepared for shapes, without a device: its program, and the dispatches for tensors of those shapes. Pure.

use super::beside::Beside;
use crate::codegen::{Mode, pass_kernel};
use crate::dispatch::{OutputSignature, ParamSignature, Planned, Signature, output_name};
use crate::error::{Error, Result};
use crate::expr::op::{Kind, Op};
use crate::expr::{InputDecl, Node, NodeId};
use crate::limits::Limits;
use crate::loss::{Loss, Value, check_once, check_option, check_read, check_weight};
use crate::lower::{Columns, GroupInput, OutputKind, Over, Pass, Program, lower_columns};
use crate::plan::check::{
    check_capacity, check_grad_dtype, check_in_place, check_input, check_written, missing, mode_of,
};
use crate::plan::dispatches::dispatches;
use crate::plan::operator::{Conditions, Operator, Placed, Prepared, Tensors, TuneFacts};
use crate::plan::passes::{PassChoice, choose};
use crate::plan::problem::{Phasing, Placement, Problem, Shard};
use crate::plan::sizes::Sizes;
use crate::plan::spec::PlanSpec;
use crate::schedule::{
    Kernel, LEAST_COLS, LEAST_DIGIT_BITS, PassSchedule, Pinned, Shape, candidates, forward_and_backward,
    run_stages_ahead, save_rows, split_outputs, stages_ahead_of_columns, widen_stages,
};
use crate::shape::{ColumnCount, DType, Extents, Geometry, Layout, Operand, Rows, Scope, ShapeRule};
use std::sync::Arc;

/// Largest bytes of a buffer, whatever a device allows, so that sums of byte offsets fit 64 bits.
const MOST_BYTES: u64 = 1 << 60;

/// A loss prepared for shapes.
#[derive(Clone)]
pub(crate) struct PreparedLoss {
    pub loss: Loss,
    pub spec: PlanSpec,
    pub limits: Limits,
    pub program: Program,
    pub phasing: Phasing,
    pub signature: Signature,
}

impl PreparedLoss {
    pub fn new(loss: &Loss, spec: &PlanSpec, limits: &Limits) -> Result<PreparedLoss> {
        limits.check()?;
        let name = loss.name();
        let known = loss.inputs();
        check_once("input of the plan", spec.inputs.iter().map(|i| i.0.as_str()))?;
        check_once("element type of a gradient", spec.grad_dtypes.iter().map(|g| g.0.as_str()))?;
        for (input, dtype, _) in &spec.inputs {
            check_input(loss, &known, spec, (input, *dtype))?;
        }
        for input in known.iter().filter(|i| !i.optional) {
            if !spec.inputs.iter().any(|(name, ..)| *name == input.name) {
                return Err(missing(&name, &input.name, spec.inputs.iter().map(|i| i.0.as_str())));
            }
        }
        if let Some(GroupInput { input, .. }) = &spec.wanted.groups {
            if !spec.inputs.iter().any(|(name, ..)| name == input) {
                return Err(missing(&name, input, spec.inputs.iter().map(|i| i.0.as_str())));
            }
        }
        let present =
            |input: &str| spec.inputs.iter().find(|(name, ..)| name == input).map(|(_, dtype, _)| *dtype == DType::U32);
        let columns = if spec.shard.is_some() { Columns::Range } else { Columns::Whole };
        let program = lower_columns(loss, &spec.wanted, &present, columns)?;
        check_read(&name, &program.inputs, spec.inputs.iter().map(|i| i.0.as_str()))?;
        for (input, dtype) in &spec.grad_dtypes {
            check_grad_dtype(spec, input, *dtype)?;
        }
        let phasing = Phasing { shard: spec.shard, column_range: spec.shard.is_some(), forward: None };
        let signature = Signature::default();
        let mut prepared = PreparedLoss {
            loss: loss.clone(),
            spec: spec.clone(),
            limits: limits.clone(),
            program,
            phasing,
            signature,
        };
        prepared.check_shard()?;
        prepared.geometry(&prepared.planned_inputs(), &[])?;
        if !prepared.phasing.column_range && prepared.has_rows_larger_than_a_binding()? {
            prepared.program = lower_columns(loss, &spec.wanted, &present, Columns::Range)?;
            prepared.phasing.column_range = true;
        }
        prepared.arrange_passes()?;
        prepared.signature = prepared.make_signature();
        Ok(prepared)
    }

    fn check_shard(&self) -> Result<()> {
        let Some(Shard { first, classes, shards }) = self.spec.shard else { return Ok(()) };
        let name = &self.program.name;
        if self.program.ragged.is_some() {
            let message = format!("a shard of {name} with groups of unequal length; take equal groups (group_rows)");
            return Err(Error::Unsupported { message });
        }
        if !self.program.has_rows() {
            let message = format!("a shard of {name}, which has no classes");
            return Err(Error::Unsupported { message });
        }
        let cols = self.extents(&self.planned_inputs())?.cols;
        if let Some(allowed) = self.program.cols.refused(classes) {
            let (loss, param, found) = (name.clone(), "shard".to_owned(), format!("{classes} classes"));
            return Err(Error::Param { loss, param, found, allowed });
        }
        let fits = first.checked_add(cols).is_some_and(|end| end <= classes) && classes <= i32::MAX as u64;
        if fits && shards > 0 {
            return Ok(());
        }
        let found = format!("{cols} classes from {first} of {classes} in {shards} shards");
        let allowed = "columns inside the classes, at least one shard, at most 2³¹ − 1 classes".to_owned();
        Err(Error::Param { loss: name.clone(), param: "shard".to_owned(), found, allowed })
    }

    /// Whether a row of some tensor exceeds a binding, so that no dispatch sees a whole row.
    fn has_rows_larger_than_a_binding(&self) -> Result<bool> {
        let Tensors { inputs, outputs } = self.planned_tensors()?;
        let geometry = self.geometry(&inputs, &outputs)?;
        let limits = &self.limits;
        let tensors = inputs.iter().flatten().chain(&outputs);
        let is_larger = |(io, strides): (&Placed, &[u64; 4])| {
            let row = io.dtype.size() * ((geometry.cols - 1) * strides[3] + 1);
            row + u64::from(limits.offset_alignment) + 16 > limits.binding_bytes
        };
        Ok(self.program.has_rows() && tensors.zip(&geometry.strides).any(is_larger))
    }

    /// Splits the passes to fit the device's limits and the plan's phases.
    fn arrange_passes(&mut self) -> Result<()> {
        let PreparedLoss { program, limits, .. } = &*self;
        let in_place: Vec<usize> = (0..program.outputs.len())
            .filter(|&o| matches!(mode_of(program, &self.spec, o), Mode::InPlace(_)))
            .collect();
        let by_column = |pass: &Pass| matches!(pass.over, Over::RowsByColumn | Over::Columns | Over::GroupColumns);
        let has_columns = program.passes.iter().any(by_column);
        if has_columns && self.spec.shard.is_some() {
            let message = format!("a shard of {}: it sums over the rows for each column", program.name);
            return Err(Error::Unsupported { message });
        }
        if self.spec.shard.is_some() || self.spec.separate_backward {
            let (program, forward) = forward_and_backward(program, limits, &in_place, self.spec.shard.is_some())?;
            (self.program, self.phasing.forward) = match has_columns {
                true => {
                    let (program, forward) = stages_ahead_of_columns(program, forward);
                    (program, Some(forward))
                }
                false => (program, Some(forward)),
            };
        } else {
            self.program = split_outputs(program, limits, &in_place)?;
            let Extents { rows, cols, .. } = self.extents(&self.planned_inputs())?;
            let by_column = self.program.passes.iter().any(|pass| pass.over == Over::RowsByColumn);
            if by_column {
                self.program = run_stages_ahead(&self.program);
            }
            if by_column && self.phasing.column_range {
                self.program = widen_stages(&self.program, &self.limits);
            }
            if by_column || cols >= LEAST_COLS && !self.phasing.column_range {
                // A quarter of the workspace; passes by column need all.
                let most = self.limits.binding_bytes / 16 / rows.max(1);
                self.program = save_rows(&self.program, if by_column { u64::MAX } else { most });
            }
        }
        check_in_place(&self.program, &in_place)
    }

    /// For each input of the program, the tensor that the specification describes.
    pub fn planned_inputs(&self) -> Vec<Option<Placed>> {
        let planned = |decl: &InputDecl| {
            let given = self.spec.inputs.iter().find(|(name, ..)| *name == decl.name);
            given.map(|(_, dtype, layout)| Placed::planned(layout.clone(), *dtype))
        };
        self.program.inputs.iter().map(planned).collect()
    }

    /// How an output is stored: a gradient as its input, or as the plan's specification says; the rest in f32.
    pub fn dtype_of(&self, output: usize) -> DType {
        let OutputKind::Grad(input) = self.program.outputs[output].kind else { return DType::F32 };
        let name = &self.program.inputs[input].name;
        let asked = self.spec.grad_dtypes.iter().rev().find(|(input, _)| input == name).map(|(_, dtype)| *dtype);
        let own = || self.spec.inputs.iter().find(|(input, ..)| input == name).map(|(_, dtype, _)| *dtype);
        asked.or_else(own).unwrap_or(DType::F32)
    }

    fn shape_of(&self, output: usize, extents: &Extents) -> Vec<usize> {
        let output = &self.program.outputs[output];
        match output.kind {
            OutputKind::Loss | OutputKind::Extra(_) => extents.shape_of(output.scope),
            OutputKind::Denominator | OutputKind::FoundInf => Vec::new(),
            OutputKind::Grad(input) | OutputKind::HessianDiagonal(input) => {
                let name = &self.program.inputs[input].name;
                match self.spec.inputs.iter().find(|(input, ..)| input == name) {
                    Some((.., layout)) => layout.shape.clone(),
                    None => extents.shape_of(self.program.inputs[input].scope),
                }
            }
        }
    }

    fn operands<'a>(&'a self, inputs: &'a [Option<Placed>]) -> Vec<Operand<'a>> {
        let inputs = self.program.inputs.iter().zip(inputs);
        let operand = |(decl, io): (&'a InputDecl, &'a Option<Placed>)| io.as_ref().map(|io| decl.operand(&io.layout));
        inputs.filter_map(operand).collect()
    }

    fn rows(&self, inputs: &[Option<Placed>]) -> Result<Rows<'_>> {
        let Program { row_axis: axis, cols, name: loss, .. } = &self.program;
        // Of a shard, all classes count: `check_shard`.
        let cols = if self.spec.shard.is_some() { ColumnCount::default() } else { *cols };
        let layout = |input: usize| inputs.get(input)?.as_ref().map(|placed| &placed.layout);
        let grouping = self.program.grouping(self.spec.group_rows, layout)?;
        Ok(Rows { axis: *axis, cols, grouping, loss })
    }

    /// Sizes of a problem with these inputs.
    fn extents(&self, inputs: &[Option<Placed>]) -> Result<Extents> {
        Extents::new(self.rows(inputs)?, &self.operands(inputs))
    }

    /// Geometry of these tensors; `outputs` may be empty while their shapes are unknown.
    fn geometry(&self, inputs: &[Option<Placed>], outputs: &[Placed]) -> Result<Geometry> {
        let program = &self.program;
        let mut operands = self.operands(inputs);
        for (output, io) in program.outputs.iter().zip(outputs) {
            let value = |name, scope| Operand { name, scope, rule: ShapeRule::Broadcast, layout: &io.layout };
            operands.push(match output.kind {
                OutputKind::Loss => value("loss", output.scope),
                OutputKind::Extra(ref name) => value(name, output.scope),
                OutputKind::Denominator => value("denominator", Scope::Total),
                OutputKind::FoundInf => value("found_inf", Scope::Total),
                OutputKind::Grad(input) | OutputKind::HessianDiagonal(input) => {
                    program.inputs[input].operand(&io.layout)
                }
            });
        }
        Geometry::new(self.rows(inputs)?, &operands)
    }

    /// The tensors that the plan was made for, contiguous where nothing else was said.
    pub fn planned_tensors(&self) -> Result<Tensors> {
        let mut inputs = self.planned_inputs();
        let extents = self.extents(&inputs)?;
        for (decl, io) in self.program.inputs.iter().zip(&mut inputs) {
            // The upstream gradient is shaped as the loss; it need not be described.
            let layout = || Layout::contiguous(&extents.shape_of(decl.scope));
            io.get_or_insert_with(|| Placed::planned(layout(), DType::F32));
        }
        let output = |o: usize| match mode_of(&self.program, &self.spec, o) {
            // In place: the input's own layout.
            Mode::InPlace(input) => {
                let io = inputs[input].as_ref().expect("every input has a layout by now");
                Placed::planned(io.layout.clone(), io.dtype)
            }
            _ => Placed::planned(Layout::contiguous(&self.shape_of(o, &extents)), self.dtype_of(o)),
        };
        let mut outputs: Vec<Placed> = (0..self.program.outputs.len()).map(output).collect();
        outputs.extend(self.program.found_inf.then(|| Placed::planned(Layout::contiguous(&[]), DType::F32)));
        self.check_bytes(&inputs, &outputs)?;
        for (output, io) in self.program.outputs.iter().zip(&outputs) {
            check_written(&output_name(&self.program.inputs, &output.kind), &io.layout)?;
        }
        Ok(Tensors { inputs, outputs })
    }

    /// Every tensor fits a buffer. After this, sums and products of one tensor's strides and sizes fit 64 bits.
    pub fn check_bytes(&self, inputs: &[Option<Placed>], outputs: &[Placed]) -> Result<()> {
        let allowed = self.limits.buffer_bytes.min(MOST_BYTES);
        let names = self.program.inputs.iter().map(|i| i.name.clone());
        let inputs = names.zip(inputs).filter_map(|(name, io)| io.as_ref().map(|io| (name, io)));
        let outputs = outputs.iter().zip(&self.program.outputs);
        let outputs = outputs.map(|(io, output)| (output_name(&self.program.inputs, &output.kind), io));
        for (name, io) in inputs.chain(outputs) {
            let needed = io.layout.extent().saturating_add(io.offset).saturating_mul(io.dtype.size());
            if needed > allowed {
                let what = format!("tensor `{name}`");
                return Err(Error::Limit { what, needed, allowed, limit: "max_buffer_size" });
            }
        }
        Ok(())
    }

    fn make_signature(&self) -> Signature {
        let program = &self.program;
        let output = |index: usize| OutputSignature {
            kind: program.outputs[index].kind.clone(),
            mode: mode_of(program, &self.spec, index),
            dtype: self.dtype_of(index),
            scope: program.outputs[index].scope,
        };
        let param = |index: usize| ParamSignature {
            decl: program.params[index].clone(),
            indices: self.class_indices(index as u32),
        };
        // Behind the outputs of the program.
        let found_inf =
            OutputSignature { kind: OutputKind::FoundInf, mode: Mode::Write, dtype: DType::F32, scope: Scope::Total };
        let outputs = (0..program.outputs.len()).map(output);
        Signature {
            name: program.name.clone(),
            inputs: program.inputs.clone(),
            outputs: outputs.chain(program.found_inf.then_some(found_inf)).collect(),
            params: (0..program.params.len()).map(param).collect(),
            row_axis: program.row_axis,
        }
    }

    /// First and last value of the labels that a parameter is compared with.
    fn class_indices(&self, param: u32) -> [f64; 2] {
        let program = &self.program;
        let is_param = |id: NodeId| id != NodeId::NONE && *program.node(id) == Node::Param(param);
        let beside = program.nodes.iter().filter_map(|node| match *node {
            Node::Op(Op::Eq, [a, b, _]) if is_param(a) => Some(b),
            Node::Op(Op::Eq, [a, b, _]) if is_param(b) => Some(a),
            _ => None,
        });
        let is_unsigned = |id: NodeId| {
            let Node::Input(input) = *program.node(id) else { return false };
            let name = &program.inputs[input as usize].name;
            self.spec.inputs.iter().any(|(input, dtype, _)| input == name && *dtype == DType::U32)
        };
        let all = [f64::from(i32::MIN), f64::from(u32::MAX)];
        beside.fold(all, |[first, last], label| match is_unsigned(label) {
            true => [first.max(0.0), last],
            false => [first, last.min(f64::from(i32::MAX))],
        })
    }

    /// The problem that these tensors pose.
    pub fn problem(&self, tensors: &Tensors, pooled: bool, pinned: Pinned) -> Result<Problem<'_>> {
        self.check_bytes(&tensors.inputs, &tensors.outputs)?;
        let (program, limits) = (&self.program, &self.limits);
        let geometry = self.geometry(&tensors.inputs, &tensors.outputs)?;
        let mut strides = geometry.strides.iter();
        let alignment = u64::from(limits.offset_alignment);
        let mut placement = |placed: &Placed| Placement {
            strides: *strides.next().expect("every tensor has strides of the geometry"),
            offset: placed.offset,
            first: placed.offset % (alignment / placed.dtype.size()),
            dtype: placed.dtype,
            whole_bytes: placed.whole_bytes,
            is_empty: placed.layout.is_empty(),
        };
        let inputs: Vec<Option<Placement>> = tensors.inputs.iter().map(|io| io.as_ref().map(&mut placement)).collect();
        let (outputs, others) = tensors.outputs.split_at(program.outputs.len());
        let outputs: Vec<Placement> = outputs.iter().map(placement).collect();
        let found_inf = others.first().map(|placed| placed.offset % (alignment / placed.dtype.size()));
        let modes: Vec<Mode> = (0..program.outputs.len()).map(|o| mode_of(program, &self.spec, o)).collect();
        let destinations = vec![None; outputs.len()];
        let phasing = self.phasing;
        Ok(Problem {
            program,
            geometry,
            inputs,
            outputs,
            destinations,
            modes,
            pooled,
            limits,
            pinned,
            phasing,
            found_inf,
        })
    }

    /// The problem, and the choice for each pass: the tuned schedule where these tensors allow it, else the default.
    pub fn choose(&self, tensors: &Tensors, conditions: Conditions) -> Result<(Problem<'_>, Vec<PassChoice>)> {
        let with = |pinned: Pinned| {
            let mut problem = self.problem(tensors, conditions.pooled, pinned)?;
            let choices = choose(&mut problem)?;
            Ok((problem, choices))
        };
        let tuned = conditions.tuned.and_then(|pinned| with(pinned).ok());
        tuned.map_or_else(|| with(self.spec.pinned), Ok)
    }

    /// Checks an input against the plan; its first axis may be shorter.
    fn check_capacity(&self, name: &str, dtype: DType, shape: &[usize]) -> Result<()> {
        let Some((_, as_planned, planned)) = self.spec.inputs.iter().find(|known| known.0 == name) else {
            return Ok(());
        };
        check_capacity(name, (*as_planned, &planned.shape), (dtype, shape))
    }
}

impl Operator for Loss {
    fn prepare(&self, spec: &PlanSpec, limits: &Limits) -> Result<Arc<dyn Prepared>> {
        let shape_of = |name: &str| {
            let layout = spec.inputs.iter().find(|(known, ..)| known == name);
            layout.map(|(.., layout)| &layout.shape[..])
        };
        match &self.parts(shape_of)?[..] {
            [] => Ok(Arc::new(PreparedLoss::new(self, spec, limits)?)),
            parts => Beside::of(parts).prepare(spec, limits),
        }
    }
}

/// Types that dereference to a [`Loss`]: losses with options of their own.
impl<L: std::ops::Deref<Target = Loss>> Operator for L {
    fn prepare(&self, spec: &PlanSpec, limits: &Limits) -> Result<Arc<dyn Prepared>> {
        Loss::prepare(self, spec, limits)
    }
}

impl Prepared for PreparedLoss {
    fn signature(&self) -> &Signature {
        &self.signature
    }

    fn check_inputs(&self, given: &[(&str, DType, &[usize])]) -> Result<()> {
        let (known, name) = (self.loss.inputs(), &self.program.name);
        check_once("input", given.iter().map(|input| input.0))?;
        for &(input, dtype, _) in given {
            check_input(&self.loss, &known, &self.spec, (input, dtype))?;
            if self.program.input(input).is_none() {
                let what = "the plan was made without the input".to_owned();
                let planned: Vec<&str> = self.program.inputs.iter().map(|i| i.name.as_str()).collect();
                return Err(Error::Name { what, name: input.to_owned(), known: planned.join(", ") });
            }
        }
        for decl in &self.program.inputs {
            let Some((_, dtype, shape)) = given.iter().find(|input| input.0 == decl.name) else {
                return Err(missing(name, &decl.name, given.iter().map(|input| input.0)));
            };
            self.check_capacity(&decl.name, *dtype, shape)?;
        }
        Ok(())
    }

    fn planned(&self) -> Result<Tensors> {
        self.planned_tensors()
    }

    fn output_shapes(&self, inputs: &[Option<Placed>]) -> Result<Vec<Vec<usize>>> {
        let extents = self.extents(inputs)?;
        let shape = |index: usize| match self.program.outputs[index].kind {
            OutputKind::Grad(input) | OutputKind::HessianDiagonal(input) => match &inputs[input] {
                Some(input) => input.layout.shape.clone(),
                None => self.shape_of(index, &extents),
            },
            _ => self.shape_of(index, &extents),
        };
        let found_inf = self.program.found_inf.then(Vec::new);
        Ok((0..self.program.outputs.len()).map(shape).chain(found_inf).collect())
    }

    fn plan(&self, tensors: &Tensors, conditions: Conditions) -> Result<Planned> {
        let (problem, choices) = self.choose(tensors, conditions)?;
        dispatches(&problem, &choices, Sizes::of(&problem), problem.bytes())
    }

    fn explain(&self, tensors: &Tensors, conditions: Conditions, adapter: &str) -> Result<String> {
        let (problem, choices) = self.choose(tensors, conditions)?;
        let planned = dispatches(&problem, &choices, Sizes::of(&problem), problem.bytes())?;
        Ok(problem.explain(&choices, &planned, adapter))
    }

    fn param(&self, name: &str, value: f64) -> Result<Option<usize>> {
        let wrong = |loss: &str, allowed: String| {
            let (loss, param) = (loss.to_owned(), name.to_owned());
            Err(Error::Param { loss, param, found: format!("{value}"), allowed })
        };
        let found = self.signature.params.iter().position(|param| param.decl.name == name);
        let option = self.loss.param_option(name).filter(|(_, decl, _)| matches!(decl.default, Value::Num(_)));
        if let Some((loss, decl, made)) = option {
            check_option(loss, decl, &Value::Num(value))?;
            if let Some(allowed) = decl.refused_change(made, value) {
                return wrong(loss, allowed);
            }
            if found.is_none() && *made == Value::Num(value) {
                return Ok(None);
            }
        }
        let Some(param) = found else { return Err(self.signature.no_param(name)) };
        let ParamSignature { decl, indices: [first, last] } = &self.signature.params[param];
        let is_index = decl.kind == Kind::Int;
        if is_index && (value.fract() != 0.0 || !(*first..=*last).contains(&value)) {
            let allowed = format!("a class index, {first} to {last}, as the labels are stored");
            return wrong(&self.program.name, allowed);
        }
        if !is_index && option.is_none() {
            check_weight(&self.program.name, value)?;
        }
        Ok(Some(param))
    }

    fn pinned(&self) -> Pinned {
        self.spec.pinned
    }

    fn pin(&self, pinned: Pinned) -> Arc<dyn Prepared> {
        Arc::new(PreparedLoss { spec: self.spec.clone().pin(pinned), ..self.clone() })
    }

    fn schedules(&self) -> Result<Vec<PassSchedule>> {
        let (_, choices) = self.choose(&self.planned_tensors()?, Conditions::default())?;
        Ok(choices.iter().map(|choice| choice.schedule).collect())
    }

    fn candidates(&self) -> Result<Vec<Pinned>> {
        if self.phasing.shard.is_some() {
            let message = "tuning a shard of the classes, which does not run by itself".to_owned();
            return Err(Error::Unsupported { message });
        }
        let (problem, choices) = self.choose(&self.planned_tensors()?, Conditions::default())?;
        if problem.geometry.is_empty() {
            let message = "tuning a plan of no rows, which runs no pass".to_owned();
            return Err(Error::Unsupported { message });
        }
        let shapes: Vec<Shape> = choices.iter().map(|choice| choice.shape).collect();
        Ok(candidates(&self.program, &shapes, &self.limits, self.spec.pinned))
    }

    fn tune_facts(&self) -> Result<TuneFacts> {
        let tensors = self.planned_tensors()?;
        let (problem, choices) = self.choose(&tensors, Conditions::default())?;
        let inputs = self.program.inputs.iter().zip(&tensors.inputs);
        let inputs = inputs.filter_map(|(decl, io)| Some(format!("{} {}", decl.name, io.as_ref()?.dtype)));
        let outputs =
            tensors.outputs.iter().zip(&self.signature.outputs).map(|(io, output)| {
                format!("{} {} {:?}", self.signature.output_name(&output.kind), io.dtype, output.mode)
            });
        // One fixed schedule: the text then depends on the program and its tensors, not on the shape.
        let kernels = choices.iter().enumerate().map(|(pass, choice)| {
            let chosen = &choice.schedule;
            let kernel = match chosen.kernel {
                Kernel::Elementwise | Kernel::ColumnSums { .. } => chosen.kernel,
                _ if self.program.passes[pass].runs_along_rows() => {
                    Kernel::RowScan { words: 0, digit_bits: LEAST_DIGIT_BITS }
                }
                _ => Kernel::Row,
            };
            let (workgroup, lanes, subgroup) = (64, 64, 0);
            let fixed = PassSchedule { kernel, workgroup, lanes, subgroup, strided: false, ..*chosen };
            pass_kernel(&self.program, pass, &fixed, &choice.variant, 0).wgsl
        });
        let alignment = choices.iter().map(|choice| {
            let Shape { width, masked, rows_innermost, overwritten, .. } = choice.shape;
            let flags = [masked, rows_innermost, overwritten].map(|flag| if flag { 'y' } else { 'n' });
            format!("aligned {width}{}", flags.iter().collect::<String>())
        });
        Ok(TuneFacts {
            rows: problem.geometry.rows,
            cols: problem.geometry.cols,
            tensors: inputs.chain(outputs).collect(),
            alignment: alignment.collect(),
            kernels: kernels.collect(),
        })
    }
}
