//! Pointers, loads and stores of the interpreter, and the words that they touch.

use super::interpreter::{Frame, Machine, Trip};
use super::values::Value;
use naga::{
    AddressSpace, ArraySize, AtomicFunction, Expression, GlobalVariable, Handle, LocalVariable, Module, Type, TypeInner,
};

/// The variable that a pointer leads into, and its space.
enum Root {
    Global(Handle<GlobalVariable>),
    Local(Handle<LocalVariable>),
}

impl<'m> Machine<'m> {
    /// Byte offset of a pointer in its variable, per lane.
    pub(super) fn offset(&mut self, frame: &mut Frame<'m>, pointer: Handle<Expression>, active: &[bool]) -> Value {
        let function = frame.function;
        let (base, index) = match function.expressions[pointer] {
            Expression::Access { base, index } => (base, self.value(frame, index, active)),
            Expression::AccessIndex { base, index } => (base, Value::of_lanes(1, self.lanes, |_, _| index)),
            _ => return Value::of_lanes(1, self.lanes, |_, _| 0),
        };
        let before = self.offset(frame, base, active);
        let is_buffer = self.is_buffer(frame, base);
        let pointed = match *self.inner(frame, base) {
            TypeInner::Pointer { base, .. } => &self.module.types[base].inner,
            ref other => other,
        };
        match pointed {
            TypeInner::Struct { members, .. } => {
                let index = index.at(0, 0) as usize;
                let flat = || members[..index].iter().map(|member| flat_words(self.module, member.ty)).sum::<usize>();
                let member = if is_buffer { members[index].offset } else { 4 * flat() as u32 };
                before.map(|offset| offset + member)
            }
            TypeInner::Array { base, stride, .. } => {
                let stride = if is_buffer { *stride } else { 4 * flat_words(self.module, *base) as u32 };
                before.zip(&index, |offset, index| offset.wrapping_add(index.wrapping_mul(stride)))
            }
            _ => before.zip(&index, |offset, index| offset + 4 * index),
        }
    }

    fn root(&self, frame: &Frame<'m>, pointer: Handle<Expression>) -> Root {
        match frame.function.expressions[pointer] {
            Expression::Access { base, .. } | Expression::AccessIndex { base, .. } => self.root(frame, base),
            Expression::GlobalVariable(variable) => Root::Global(variable),
            Expression::LocalVariable(variable) => Root::Local(variable),
            ref other => panic!("{other:?} is no pointer that is interpreted"),
        }
    }

    /// Whether a pointer leads into a uniform or storage buffer, whose layout WGSL fixes; other variables hold their words one
    /// after the other.
    fn is_buffer(&self, frame: &Frame<'m>, pointer: Handle<Expression>) -> bool {
        match self.root(frame, pointer) {
            Root::Local(_) => false,
            Root::Global(variable) => {
                let space = self.module.global_variables[variable].space;
                matches!(space, AddressSpace::Storage { .. } | AddressSpace::Uniform)
            }
        }
    }

    /// The word offsets, within the type that a pointer points to, of a value's words.
    fn layout(&self, frame: &Frame<'m>, pointer: Handle<Expression>) -> Vec<u32> {
        match *self.inner(frame, pointer) {
            TypeInner::Pointer { base, .. } if self.is_buffer(frame, pointer) => layout(self.module, base),
            TypeInner::Pointer { base, .. } => (0..flat_words(self.module, base) as u32).collect(),
            TypeInner::ValuePointer { size, .. } => (0..size.map_or(1, |size| size as u32)).collect(),
            ref other => panic!("{other:?} is no pointer"),
        }
    }

    /// Notes the words of a storage buffer that active lanes touch, and gives each lane's first word.
    fn touch(&mut self, frame: &Frame<'m>, variable: Handle<GlobalVariable>, words: &[Vec<u32>], is_write: bool) {
        let global = &self.module.global_variables[variable];
        if let (AddressSpace::Storage { .. }, Some(binding)) = (global.space, &global.binding) {
            let trip = Trip { binding: binding.binding, path: frame.path, is_write };
            self.touched.entry(trip).or_default().extend(words.iter().flatten());
        }
    }

    /// The words in memory of each active lane's value.
    fn places(&mut self, frame: &mut Frame<'m>, pointer: Handle<Expression>, active: &[bool]) -> Vec<Vec<u32>> {
        let offset = self.offset(frame, pointer, active);
        let layout = self.layout(frame, pointer);
        let of = |lane: usize| layout.iter().map(|word| offset.at(lane, 0) / 4 + word).collect();
        (0..self.lanes).map(|lane| if active[lane] { of(lane) } else { Vec::new() }).collect()
    }

    fn memory<'f>(&'f mut self, frame: &'f mut Frame<'m>, root: &Root) -> (&'f mut Vec<u32>, bool) {
        match root {
            Root::Local(variable) => (frame.locals.get_mut(variable).expect("a local has memory"), true),
            Root::Global(variable) => {
                let global = &self.module.global_variables[*variable];
                match global.space {
                    AddressSpace::WorkGroup => (self.shared.get_mut(variable).expect("it was cleared"), false),
                    AddressSpace::Private => (self.shared.get_mut(variable).expect("it was cleared"), true),
                    _ => {
                        let binding = global.binding.as_ref().expect("a buffer is bound").binding;
                        (self.buffers.get_mut(&binding).expect("a buffer is bound"), false)
                    }
                }
            }
        }
    }

    pub(super) fn load(&mut self, frame: &mut Frame<'m>, pointer: Handle<Expression>, active: &[bool]) -> Value {
        let places = self.places(frame, pointer, active);
        let root = self.root(frame, pointer);
        if let Root::Global(variable) = root {
            self.touch(frame, variable, &places, false);
        }
        let (lanes, words) = (self.lanes, self.layout(frame, pointer).len());
        let (memory, per_lane) = self.memory(frame, &root);
        let each = if per_lane { memory.len() / lanes } else { 0 };
        let at = |lane: usize, k: usize| {
            let place = places[lane].get(k).map(|word| lane * each + *word as usize);
            place.and_then(|place| memory.get(place)).copied().unwrap_or(0)
        };
        Value::of_lanes(words, lanes, at)
    }

    pub(super) fn store(&mut self, frame: &mut Frame<'m>, pointer: Handle<Expression>, value: &Value, active: &[bool]) {
        let places = self.places(frame, pointer, active);
        let root = self.root(frame, pointer);
        if let Root::Global(variable) = root {
            self.touch(frame, variable, &places, true);
        }
        let lanes = self.lanes;
        let (memory, per_lane) = self.memory(frame, &root);
        let each = if per_lane { memory.len() / lanes } else { 0 };
        for (lane, places) in places.iter().enumerate() {
            for (k, place) in places.iter().enumerate() {
                memory[lane * each + *place as usize] = value.at(lane, k);
            }
        }
    }

    pub(super) fn atomic(
        &mut self,
        frame: &mut Frame<'m>,
        pointer: Handle<Expression>,
        fun: AtomicFunction,
        value: &Value,
        active: &[bool],
    ) -> Value {
        let places = self.places(frame, pointer, active);
        let root = self.root(frame, pointer);
        let (memory, _) = self.memory(frame, &root);
        let mut before = Value::of_lanes(1, value.lanes(), |_, _| 0);
        for (lane, places) in places.iter().enumerate() {
            for place in places {
                let word = &mut memory[*place as usize];
                before.data[lane] = *word;
                *word = match fun {
                    AtomicFunction::Min => (*word).min(value.at(lane, 0)),
                    AtomicFunction::Max => (*word).max(value.at(lane, 0)),
                    AtomicFunction::InclusiveOr => *word | value.at(lane, 0),
                    AtomicFunction::Exchange { .. } => value.at(lane, 0),
                    AtomicFunction::And => *word & value.at(lane, 0),
                    other => panic!("{other:?} is not interpreted"),
                };
            }
        }
        before
    }
}

/// Word offsets of a type's words in memory, in the order in which a value holds them.
fn layout(module: &Module, ty: Handle<Type>) -> Vec<u32> {
    match module.types[ty].inner {
        TypeInner::Scalar(_) | TypeInner::Atomic(_) => vec![0],
        TypeInner::Vector { size, .. } => (0..size as u32).collect(),
        TypeInner::Struct { ref members, .. } => {
            let of = |member: &naga::StructMember| {
                let first = member.offset / 4;
                layout(module, member.ty).into_iter().map(move |word| first + word).collect::<Vec<_>>()
            };
            members.iter().flat_map(of).collect()
        }
        TypeInner::Array { base, size: ArraySize::Constant(count), stride } => {
            let own = layout(module, base);
            (0..count.get())
                .flat_map(|k| own.iter().map(move |word| k * stride / 4 + word).collect::<Vec<_>>())
                .collect()
        }
        ref other => panic!("{other:?} is not interpreted"),
    }
}

/// Words of a value of that type.
pub(super) fn flat_words(module: &Module, ty: Handle<Type>) -> usize {
    layout(module, ty).len()
}
