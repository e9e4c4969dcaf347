//! WGSL run on the host, a workgroup's lanes in step, to count the words that a kernel moves.

use super::memory::flat_words;
use super::values::{Value, binary, convert, math, unary};
use naga::valid::{Capabilities, FunctionInfo, ModuleInfo, ValidationFlags, Validator};
use naga::{
    AddressSpace, Block, BuiltIn, Expression, Function, GlobalVariable, Handle, Literal, LocalVariable, MathFunction,
    Module, RelationalFunction, ScalarKind, Statement, TypeInner,
};
use std::collections::{HashMap, HashSet};

/// The words that one loop of a dispatch touches in a buffer (in all its turns, rows and workgroups).
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub struct Trip {
    /// Binding number of the buffer.
    pub binding: u32,
    /// The innermost loop, and the calls that lead to it.
    pub path: u64,
    pub is_write: bool,
}

/// A kernel and its buffers by binding number.
pub struct Machine<'m> {
    pub(super) module: &'m Module,
    info: &'m ModuleInfo,
    pub buffers: HashMap<u32, Vec<u32>>,
    pub(super) touched: HashMap<Trip, HashSet<u32>>,
    /// The loop around each loop, by path.
    around: HashMap<u64, u64>,
    pub(super) lanes: usize,
    /// Workgroup and private variables.
    pub(super) shared: HashMap<Handle<GlobalVariable>, Vec<u32>>,
    group: [u32; 2],
    grid: [u32; 2],
}

/// A call in progress.
pub(super) struct Frame<'m> {
    pub(super) function: &'m Function,
    info: &'m FunctionInfo,
    values: Vec<Option<Value>>,
    arguments: Vec<Value>,
    pub(super) locals: HashMap<Handle<LocalVariable>, Vec<u32>>,
    returned: Option<Value>,
    pub(super) path: u64,
}

/// Lanes that run on, and those that have left the block in another way.
#[derive(Clone)]
struct Lanes {
    active: Vec<bool>,
    broken: Vec<bool>,
    continued: Vec<bool>,
}

/// Parses and checks a kernel.
pub fn parsed(wgsl: &str) -> (Module, ModuleInfo) {
    let module = naga::front::wgsl::parse_str(wgsl).expect("a kernel parses");
    let mut validator = Validator::new(ValidationFlags::all(), Capabilities::SHADER_FLOAT16_IN_FLOAT32);
    let info = validator.validate(&module).expect("a kernel is valid");
    (module, info)
}

fn any(mask: &[bool]) -> bool {
    mask.contains(&true)
}

fn mix(path: u64, more: u64) -> u64 {
    (path ^ more).wrapping_mul(0x9e37_79b9_7f4a_7c15).rotate_left(29)
}

impl<'m> Machine<'m> {
    pub fn new(module: &'m Module, info: &'m ModuleInfo, buffers: HashMap<u32, Vec<u32>>) -> Machine<'m> {
        let [x, y, z] = module.entry_points[0].workgroup_size;
        let lanes = (x * y * z) as usize;
        let (touched, around, shared) = Default::default();
        Machine { module, info, buffers, touched, around, lanes, shared, group: [0; 2], grid: [0; 2] }
    }

    pub fn run(&mut self, grid: [u32; 2]) {
        self.grid = grid;
        for y in 0..grid[1] {
            for x in 0..grid[0] {
                self.group = [x, y];
                self.run_workgroup();
            }
        }
    }

    /// The trips, and the number of words that each touches and no loop inside of it does.
    pub fn trips(&self) -> Vec<(Trip, usize)> {
        let is_inside = |mut path: u64, outer: u64| {
            while let Some(around) = self.around.get(&path) {
                path = *around;
                if path == outer {
                    return true;
                }
            }
            false
        };
        let own = |(trip, words): (&Trip, &HashSet<u32>)| {
            let same = |other: &Trip| (other.binding, other.is_write) == (trip.binding, trip.is_write);
            let inner = self.touched.iter().filter(|(other, _)| same(other) && is_inside(other.path, trip.path));
            let inner: Vec<&HashSet<u32>> = inner.map(|(_, words)| words).collect();
            let count = words.iter().filter(|word| !inner.iter().any(|inner| inner.contains(word))).count();
            (*trip, count)
        };
        self.touched.iter().map(own).collect()
    }

    fn run_workgroup(&mut self) {
        self.shared.clear();
        for (handle, variable) in self.module.global_variables.iter() {
            let words = match variable.space {
                AddressSpace::WorkGroup => flat_words(self.module, variable.ty),
                AddressSpace::Private => flat_words(self.module, variable.ty) * self.lanes,
                _ => continue,
            };
            self.shared.insert(handle, vec![0; words]);
        }
        let entry = &self.module.entry_points[0].function;
        let arguments = entry.arguments.iter().map(|argument| {
            let Some(naga::Binding::BuiltIn(builtin)) = argument.binding else { panic!("arguments are built in") };
            self.built_in(builtin)
        });
        let arguments = arguments.collect();
        let active = vec![true; self.lanes];
        self.call(entry, self.info.get_entry_point(0), arguments, active, 1);
    }

    fn built_in(&self, builtin: BuiltIn) -> Value {
        let (group, grid, lanes) = (self.group, self.grid, self.lanes);
        let three = |words: &dyn Fn(usize) -> [u32; 3]| Value::of_lanes(3, lanes, |lane, k| words(lane)[k]);
        match builtin {
            BuiltIn::WorkGroupId => three(&|_| [group[0], group[1], 0]),
            BuiltIn::NumWorkGroups => three(&|_| [grid[0], grid[1], 1]),
            BuiltIn::LocalInvocationId => three(&|lane| [lane as u32, 0, 0]),
            BuiltIn::GlobalInvocationId => three(&|lane| [group[0] * lanes as u32 + lane as u32, group[1], 0]),
            BuiltIn::LocalInvocationIndex => Value::of_lanes(1, lanes, |lane, _| lane as u32),
            other => panic!("{other:?} is not interpreted"),
        }
    }

    fn call(
        &mut self,
        function: &'m Function,
        info: &'m FunctionInfo,
        arguments: Vec<Value>,
        active: Vec<bool>,
        path: u64,
    ) -> Option<Value> {
        let values = vec![None; function.expressions.len()];
        let mut frame = Frame { function, info, values, arguments, locals: HashMap::new(), returned: None, path };
        for (handle, local) in function.local_variables.iter() {
            let words = flat_words(self.module, local.ty);
            let mut memory = vec![0; words * self.lanes];
            if let Some(init) = local.init {
                let value = self.value(&mut frame, init, &active);
                for lane in 0..self.lanes {
                    memory[lane * words..(lane + 1) * words].copy_from_slice(value.lane(lane));
                }
            }
            frame.locals.insert(handle, memory);
        }
        let off = vec![false; self.lanes];
        let mut lanes = Lanes { active, broken: off.clone(), continued: off };
        self.block(&mut frame, &function.body, &mut lanes);
        frame.returned
    }

    fn block(&mut self, frame: &mut Frame<'m>, block: &'m Block, lanes: &mut Lanes) {
        for (index, statement) in block.iter().enumerate() {
            if !any(&lanes.active) {
                return;
            }
            match statement {
                Statement::Emit(range) => {
                    for expression in range.clone() {
                        let value = self.computed(frame, expression, &lanes.active);
                        frame.values[expression.index()] = Some(value);
                    }
                }
                Statement::Block(inner) => self.block(frame, inner, lanes),
                Statement::If { condition, accept, reject } => {
                    let holds = self.value(frame, *condition, &lanes.active);
                    self.branch(frame, |lane| holds.at(lane, 0) != 0, [accept, reject], lanes);
                }
                Statement::Switch { selector, cases } => {
                    let selected = self.value(frame, *selector, &lanes.active);
                    self.switch(frame, &selected, cases, lanes);
                }
                Statement::Loop { body, continuing, break_if } => {
                    let here = mix(frame.path, std::ptr::from_ref(statement) as u64 + index as u64);
                    let before = std::mem::replace(&mut frame.path, here);
                    self.around.insert(here, before);
                    self.repeat(frame, [body, continuing], *break_if, lanes);
                    frame.path = before;
                }
                Statement::Break => leave(&mut lanes.active, &mut lanes.broken),
                Statement::Continue => leave(&mut lanes.active, &mut lanes.continued),
                Statement::Return { value } => {
                    if let Some(value) = value.map(|value| self.value(frame, value, &lanes.active)) {
                        let before = frame.returned.take();
                        frame.returned = Some(chosen(&lanes.active, value, before));
                    }
                    lanes.active.fill(false);
                }
                Statement::ControlBarrier(_) | Statement::MemoryBarrier(_) => {}
                Statement::Store { pointer, value } => {
                    let value = self.value(frame, *value, &lanes.active);
                    self.store(frame, *pointer, &value, &lanes.active);
                }
                Statement::Atomic { pointer, fun, value, result } => {
                    let value = self.value(frame, *value, &lanes.active);
                    let before = self.atomic(frame, *pointer, *fun, &value, &lanes.active);
                    if let Some(result) = result {
                        frame.values[result.index()] = Some(before);
                    }
                }
                Statement::Call { function, arguments, result } => {
                    let arguments = arguments.iter().map(|x| self.value(frame, *x, &lanes.active)).collect();
                    let path = frame.path;
                    let called = &self.module.functions[*function];
                    let returned = self.call(called, &self.info[*function], arguments, lanes.active.clone(), path);
                    if let Some(result) = result {
                        frame.values[result.index()] = returned;
                    }
                }
                other => panic!("{other:?} is not interpreted"),
            }
        }
    }

    fn branch(
        &mut self,
        frame: &mut Frame<'m>,
        holds: impl Fn(usize) -> bool,
        [yes, no]: [&'m Block; 2],
        lanes: &mut Lanes,
    ) {
        let before = lanes.active.clone();
        let of = |truth: bool| (0..before.len()).map(|lane| before[lane] && holds(lane) == truth).collect::<Vec<_>>();
        let mut after = vec![false; before.len()];
        for (mask, block) in [(of(true), yes), (of(false), no)] {
            lanes.active = mask;
            self.block(frame, block, lanes);
            after.iter_mut().zip(&lanes.active).for_each(|(all, own)| *all |= own);
        }
        lanes.active = after;
    }

    fn switch(&mut self, frame: &mut Frame<'m>, selected: &Value, cases: &'m [naga::SwitchCase], lanes: &mut Lanes) {
        let before = lanes.active.clone();
        let mut open = before.clone();
        let mut after = vec![false; before.len()];
        for case in cases {
            let fits = |lane: usize| match case.value {
                naga::SwitchValue::I32(value) => selected.at(lane, 0) == value as u32,
                naga::SwitchValue::U32(value) => selected.at(lane, 0) == value,
                naga::SwitchValue::Default => true,
            };
            lanes.active = (0..open.len()).map(|lane| open[lane] && fits(lane)).collect();
            open.iter_mut().zip(&lanes.active).for_each(|(open, taken)| *open &= !taken);
            let broken = std::mem::replace(&mut lanes.broken, vec![false; before.len()]);
            self.block(frame, &case.body, lanes);
            let left = std::mem::replace(&mut lanes.broken, broken);
            (0..after.len()).for_each(|lane| after[lane] |= lanes.active[lane] || left[lane]);
        }
        lanes.active = after.iter().zip(open).map(|(after, open)| *after || open).collect();
    }

    fn repeat(
        &mut self,
        frame: &mut Frame<'m>,
        [body, continuing]: [&'m Block; 2],
        break_if: Option<Handle<Expression>>,
        lanes: &mut Lanes,
    ) {
        let off = vec![false; lanes.active.len()];
        let broken = std::mem::replace(&mut lanes.broken, off.clone());
        let continued = std::mem::replace(&mut lanes.continued, off.clone());
        while any(&lanes.active) {
            self.block(frame, body, lanes);
            let again = std::mem::replace(&mut lanes.continued, off.clone());
            lanes.active.iter_mut().zip(again).for_each(|(active, again)| *active |= again);
            if any(&lanes.active) {
                self.block(frame, continuing, lanes);
                if let Some(condition) = break_if {
                    let ends = self.value(frame, condition, &lanes.active);
                    for lane in 0..off.len() {
                        if lanes.active[lane] && ends.at(lane, 0) != 0 {
                            (lanes.active[lane], lanes.broken[lane]) = (false, true);
                        }
                    }
                }
            }
        }
        lanes.active = std::mem::replace(&mut lanes.broken, broken);
        lanes.continued = continued;
    }

    pub(super) fn inner<'f>(&'f self, frame: &'f Frame<'m>, expression: Handle<Expression>) -> &'f TypeInner {
        frame.info[expression].ty.inner_with(&self.module.types)
    }

    fn kind(&self, frame: &Frame<'m>, expression: Handle<Expression>) -> ScalarKind {
        self.inner(frame, expression).scalar_kind().unwrap_or(ScalarKind::Uint)
    }

    pub(super) fn value(&mut self, frame: &mut Frame<'m>, expression: Handle<Expression>, active: &[bool]) -> Value {
        match &frame.values[expression.index()] {
            Some(value) => value.clone(),
            None => self.computed(frame, expression, active),
        }
    }

    fn constant(&self, expression: Handle<Expression>) -> Value {
        let lanes = self.lanes;
        match self.module.global_expressions[expression] {
            Expression::Literal(literal) => Value::of_lanes(1, lanes, |_, _| literal_bits(literal)),
            Expression::Constant(constant) => self.constant(self.module.constants[constant].init),
            Expression::ZeroValue(ty) => Value::of_lanes(flat_words(self.module, ty), lanes, |_, _| 0),
            Expression::Splat { size, value } => {
                let value = self.constant(value);
                Value::of_lanes(size as usize, lanes, |lane, _| value.at(lane, 0))
            }
            Expression::Compose { ref components, .. } => {
                let parts: Vec<Value> = components.iter().map(|part| self.constant(*part)).collect();
                composed(&parts, lanes)
            }
            ref other => panic!("{other:?} is not interpreted as a constant"),
        }
    }

    fn computed(&mut self, frame: &mut Frame<'m>, expression: Handle<Expression>, active: &[bool]) -> Value {
        let lanes = self.lanes;
        let function = frame.function;
        match function.expressions[expression] {
            Expression::Literal(literal) => Value::of_lanes(1, lanes, |_, _| literal_bits(literal)),
            Expression::Constant(constant) => self.constant(self.module.constants[constant].init),
            Expression::ZeroValue(ty) => Value::of_lanes(flat_words(self.module, ty), lanes, |_, _| 0),
            Expression::FunctionArgument(index) => frame.arguments[index as usize].clone(),
            Expression::Compose { ref components, .. } => {
                let parts: Vec<Value> = components.iter().map(|part| self.value(frame, *part, active)).collect();
                composed(&parts, lanes)
            }
            Expression::Splat { size, value } => {
                let value = self.value(frame, value, active);
                Value::of_lanes(size as usize, lanes, |lane, _| value.at(lane, 0))
            }
            Expression::Swizzle { size, vector, pattern } => {
                let value = self.value(frame, vector, active);
                Value::of_lanes(size as usize, lanes, |lane, k| value.at(lane, pattern[k] as usize))
            }
            Expression::Access { .. } | Expression::AccessIndex { .. }
                if matches!(
                    self.inner(frame, expression),
                    TypeInner::Pointer { .. } | TypeInner::ValuePointer { .. }
                ) =>
            {
                self.offset(frame, expression, active)
            }
            Expression::AccessIndex { base, index } => self.part(frame, base, |_| index, active),
            Expression::Access { base, index } => {
                let index = self.value(frame, index, active);
                self.part(frame, base, |lane| index.at(lane, 0), active)
            }
            Expression::GlobalVariable(_) | Expression::LocalVariable(_) => Value::of_lanes(1, lanes, |_, _| 0),
            Expression::Load { pointer } => self.load(frame, pointer, active),
            _ => self.operation(frame, expression, active),
        }
    }

    /// An operation on values.
    fn operation(&mut self, frame: &mut Frame<'m>, expression: Handle<Expression>, active: &[bool]) -> Value {
        let lanes = self.lanes;
        match frame.function.expressions[expression] {
            Expression::Unary { op, expr } => {
                let kind = self.kind(frame, expr);
                self.value(frame, expr, active).map(|x| unary(op, kind, x))
            }
            Expression::Binary { op, left, right } => {
                let kind = self.kind(frame, left);
                let left = self.value(frame, left, active);
                left.zip(&self.value(frame, right, active), |a, b| binary(op, kind, a, b))
            }
            Expression::Select { condition, accept, reject } => {
                let condition = self.value(frame, condition, active);
                let (yes, no) = (self.value(frame, accept, active), self.value(frame, reject, active));
                let holds = |lane: usize, k: usize| condition.at(lane, if condition.words == 1 { 0 } else { k }) != 0;
                let of = |lane, k| if holds(lane, k) { yes.at(lane, k) } else { no.at(lane, k) };
                Value::of_lanes(yes.words, lanes, of)
            }
            Expression::Relational { fun, argument } => {
                let value = self.value(frame, argument, active);
                let truth = |lane: usize| match fun {
                    RelationalFunction::All => value.lane(lane).iter().all(|word| *word != 0),
                    RelationalFunction::Any => value.lane(lane).iter().any(|word| *word != 0),
                    other => panic!("{other:?} is not interpreted"),
                };
                Value::of_lanes(1, lanes, |lane, _| u32::from(truth(lane)))
            }
            Expression::Math { fun, arg, arg1, arg2, .. } => {
                let kind = self.kind(frame, arg);
                let x = self.value(frame, arg, active);
                let [y, z] = [arg1, arg2].map(|arg| arg.map(|arg| self.value(frame, arg, active)));
                math_of(fun, kind, [Some(x), y, z], lanes)
            }
            Expression::As { expr, kind, convert: width } => {
                let from = self.kind(frame, expr);
                let value = self.value(frame, expr, active);
                if width.is_some() { value.map(|x| convert(from, kind, x)) } else { value }
            }
            ref other => panic!("{other:?} is not interpreted"),
        }
    }

    /// A part of a value: a component, a member, an element.
    fn part(
        &mut self,
        frame: &mut Frame<'m>,
        base: Handle<Expression>,
        index: impl Fn(usize) -> u32,
        active: &[bool],
    ) -> Value {
        let value = self.value(frame, base, active);
        let (first, words): (Vec<usize>, usize) = match *self.inner(frame, base) {
            TypeInner::Struct { ref members, .. } => {
                let index = index(0) as usize;
                let before = members[..index].iter().map(|member| flat_words(self.module, member.ty)).sum();
                (vec![before; self.lanes], flat_words(self.module, members[index].ty))
            }
            TypeInner::Array { base, .. } => {
                let words = flat_words(self.module, base);
                ((0..self.lanes).map(|lane| index(lane) as usize * words).collect(), words)
            }
            _ => ((0..self.lanes).map(|lane| index(lane) as usize).collect(), 1),
        };
        let at = |lane: usize, k: usize| value.lane(lane).get(first[lane] + k).copied().unwrap_or(0);
        Value::of_lanes(words, self.lanes, at)
    }
}

fn leave(active: &mut [bool], to: &mut [bool]) {
    for (active, to) in active.iter_mut().zip(to) {
        *to |= *active;
        *active = false;
    }
}

fn chosen(active: &[bool], value: Value, before: Option<Value>) -> Value {
    let Some(before) = before else { return value };
    Value::of_lanes(
        value.words,
        active.len(),
        |lane, k| if active[lane] { value.at(lane, k) } else { before.at(lane, k) },
    )
}

fn composed(parts: &[Value], lanes: usize) -> Value {
    let words = parts.iter().map(|part| part.words).sum();
    let data = (0..lanes).flat_map(|lane| parts.iter().flat_map(move |part| part.lane(lane).to_vec()));
    Value { words, data: data.collect() }
}

fn math_of(fun: MathFunction, kind: ScalarKind, [x, y, z]: [Option<Value>; 3], lanes: usize) -> Value {
    let x = x.expect("a function has an argument");
    match fun {
        MathFunction::Unpack2x16float => {
            let half = |lane: usize, k: usize| half::f16::from_bits((x.at(lane, 0) >> (16 * k)) as u16);
            return Value::of_lanes(2, lanes, |lane, k| half(lane, k).to_f32().to_bits());
        }
        MathFunction::Pack2x16float => {
            let half = |word: u32| u32::from(half::f16::from_f32(f32::from_bits(word)).to_bits());
            return Value::of_lanes(1, lanes, |lane, _| half(x.at(lane, 0)) | half(x.at(lane, 1)) << 16);
        }
        _ => {}
    }
    let of = |value: &Option<Value>, lane: usize, k: usize| {
        value.as_ref().map_or(0, |value| value.at(lane, if value.words == 1 { 0 } else { k }))
    };
    Value::of_lanes(x.words, lanes, |lane, k| math(fun, kind, [x.at(lane, k), of(&y, lane, k), of(&z, lane, k)]))
}

fn literal_bits(literal: Literal) -> u32 {
    match literal {
        Literal::F32(x) => x.to_bits(),
        Literal::U32(x) => x,
        Literal::I32(x) => x as u32,
        Literal::Bool(x) => u32::from(x),
        other => panic!("{other:?} is not interpreted"),
    }
}
