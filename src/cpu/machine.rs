//! Registers, and the steps that compute into them.

use super::code::{Action, Level, PassCode, Src, Step};
use super::host::Data;
use super::lanes::{self, Choose, Value};
use super::math::Math;
use crate::expr::op::{Kind, Op};
use crate::expr::{Extent, ParamDecl};
use crate::lower::Over;
use crate::shape::{Geometry, RowGroups, Scope};

/// Lanes per block: enough to hide a step's fixed cost, few enough for the first-level cache.
pub const LANES: usize = 1024;

/// Numbers that the CPU path computes in: f32 (throughput) and f64 (reference).
pub trait HostFloat: Math + Numbers + Choose {}
impl HostFloat for f32 {}
impl HostFloat for f64 {}

/// Host data as numbers of this type.
pub trait Numbers: Sized {
    /// The data themselves, if they have this type.
    fn borrow<'a>(data: &'a Data<'_>) -> Option<&'a [Self]>;
}

impl Numbers for f32 {
    fn borrow<'a>(data: &'a Data<'_>) -> Option<&'a [f32]> {
        if let Data::F32(values) = data { Some(values) } else { None }
    }
}

impl Numbers for f64 {
    fn borrow<'a>(data: &'a Data<'_>) -> Option<&'a [f64]> {
        if let Data::F64(values) = data { Some(values) } else { None }
    }
}

/// An input tensor of a run.
#[derive(Clone, Copy)]
pub struct Source<'a> {
    pub data: &'a Data<'a>,
    /// Along the axes of its scope.
    pub strides: [u64; 4],
    /// The axes along which its values vary.
    pub scope: Scope,
}

/// Data that all threads of a pass share.
pub struct Shared<'r, 'a> {
    /// The items of the pass.
    pub over: Over,
    pub geometry: &'r Geometry,
    /// Of groups of unequal length.
    pub row_groups: Option<&'r RowGroups>,
    pub has_rows: bool,
    pub params: &'r [ParamDecl],
    pub inputs: &'r [Source<'a>],
    /// By node.
    pub totals: &'r [f64],
    /// By node, then group.
    pub group_sums: &'r [Vec<f64>],
    /// By node, then column (group by group, of sums by group and column).
    pub column_sums: &'r [Vec<f64>],
}

impl Shared<'_, '_> {
    /// Items of the pass: rows, groups, columns, or without rows, elements.
    pub fn rows(&self) -> u64 {
        match self.over {
            Over::Groups => self.geometry.groups(),
            Over::GroupColumns => self.geometry.groups() * self.geometry.cols,
            Over::Rows | Over::RowsByColumn if self.has_rows => self.geometry.rows,
            _ => self.geometry.cols,
        }
    }

    /// Columns of a trip.
    pub fn cols(&self) -> usize {
        if self.has_rows && self.over.has_rows() { self.geometry.cols as usize } else { 1 }
    }

    /// The item of a lane: in a block along the columns, all lanes have one.
    fn item(&self, spot: Spot, lane: usize) -> u64 {
        if spot.along.is_some() { spot.row } else { spot.row + lane as u64 }
    }

    /// The column of a lane.
    fn col(&self, spot: Spot, lane: usize) -> usize {
        match self.over {
            Over::Columns => spot.row as usize + lane,
            Over::GroupColumns => ((spot.row + lane as u64) % self.geometry.cols) as usize,
            _ if spot.along.is_some() => spot.col + lane,
            _ => spot.col,
        }
    }

    /// Index, among values per group and column, of column 0 of a lane's group.
    fn first_of_group(&self, spot: Spot, lane: usize) -> usize {
        (self.group(self.item(spot, lane)).unwrap_or(0) * self.geometry.cols) as usize
    }

    /// The group of an item; `None` for a row that bad offsets or ids give to none.
    fn group(&self, item: u64) -> Option<u64> {
        match self.row_groups {
            _ if self.over == Over::Groups => Some(item),
            _ if self.over == Over::GroupColumns => Some(item / self.geometry.cols),
            Some(groups) => groups.of(item),
            None => Some(item / self.geometry.group_rows),
        }
    }

    /// Number of rows of an item's group, of groups of unequal length.
    fn group_rows(&self, item: u64) -> f64 {
        let groups = self.row_groups.expect("such numbers are read of groups of unequal length alone");
        self.group(item).map_or(f64::NAN, |group| groups.count(group))
    }

    fn count(&self, extent: Extent) -> u64 {
        match extent {
            Extent::Cols => self.geometry.cols,
            Extent::Rows => self.geometry.rows,
            Extent::Groups => self.geometry.groups(),
            Extent::GroupRows => self.geometry.group_rows,
            Extent::Elements => self.geometry.elements(),
            Extent::Batch => self.geometry.batch,
        }
    }
}

/// Calls `f(lane, offset, stride, count)` for each run of rows whose elements are `stride` apart, the first at
/// `offset`.
pub fn for_runs(
    geometry: &Geometry,
    has_rows: bool,
    strides: &[u64; 4],
    first: u64,
    count: usize,
    mut f: impl FnMut(usize, usize, usize, usize),
) {
    let last = if has_rows { 2 } else { 3 };
    // A scalar is loaded even where there are no rows.
    let axes = geometry.axes.map(|size| size.max(1));
    let mut index = [0u64; 4];
    let mut rest = first;
    for axis in (0..=last).rev() {
        index[axis] = rest % axes[axis];
        rest /= axes[axis];
    }
    let mut lane = 0;
    while lane < count {
        let offset: u64 = (0..=last).map(|axis| index[axis] * strides[axis]).sum();
        let run = (axes[last] - index[last]).min((count - lane) as u64) as usize;
        f(lane, offset as usize, strides[last] as usize, run);
        lane += run;
        index[last] = 0;
        for axis in (0..last).rev() {
            index[axis] += 1;
            if index[axis] < axes[axis] {
                break;
            }
            index[axis] = 0;
        }
    }
}

/// The rows and columns that a block's lanes are.
#[derive(Clone, Copy, Debug)]
pub struct Spot {
    /// The first row.
    pub row: u64,
    /// Number of lanes.
    pub count: usize,
    /// The column; the first column if lanes are columns.
    pub col: usize,
    /// If lanes are columns of one row, the row's index in the tile; `None` if lanes are rows.
    pub along: Option<usize>,
}

impl Spot {
    /// Index of the first lane among the elements of a tile, row after row, and the distance of two lanes.
    pub fn in_tile(self, cols: usize) -> (usize, usize) {
        match self.along {
            Some(row) => (row * cols + self.col, 1),
            None => (self.col, cols),
        }
    }
}

#[derive(Clone)]
enum Register<T> {
    Float(Vec<T>),
    Int(Vec<i64>),
    Bool(Vec<bool>),
    /// Lent to the step that writes it.
    Taken,
}

impl<T: Math> Register<T> {
    fn of(kind: Kind, lanes: usize) -> Register<T> {
        match kind {
            Kind::Float => Register::Float(vec![T::zero(); lanes]),
            Kind::Int => Register::Int(vec![0; lanes]),
            Kind::Bool => Register::Bool(vec![false; lanes]),
        }
    }
}

/// Registers of one level.
#[derive(Clone)]
pub struct Bank<'a, T> {
    registers: Vec<Register<T>>,
    /// Per register: the slice of an input that a load borrowed instead of copying.
    borrowed: Vec<Option<&'a [T]>>,
}

impl<T: Math> Bank<'_, T> {
    pub fn new(kinds: impl IntoIterator<Item = Kind>, lanes: usize) -> Self {
        let registers: Vec<Register<T>> = kinds.into_iter().map(|kind| Register::of(kind, lanes)).collect();
        Bank { borrowed: vec![None; registers.len()], registers }
    }
}

/// A thread's registers.
pub struct Machine<'r, 'a, T> {
    pub shared: &'r Shared<'r, 'a>,
    /// By [`Level`].
    banks: [Bank<'a, T>; 4],
    /// By number: what each scan, sort or permutation reads, then what is left, of the rows of a tile one after the other.
    pub left: Vec<Vec<T>>,
    /// By number: the columns of each row in the order of a sort.
    pub orders: Vec<Vec<u32>>,
    /// By number: an operand of partners, at the elements of the tile.
    partners: Vec<Register<T>>,
    /// The column of the partners in hand.
    pub partner: usize,
}

impl<'r, 'a, T: HostFloat> Machine<'r, 'a, T> {
    pub fn new(shared: &'r Shared<'r, 'a>, globals: Bank<'a, T>, rows: &[Kind], elements: &[Kind]) -> Self {
        let bank = |kinds: &[Kind]| Bank::new(kinds.iter().copied(), LANES);
        let banks = [globals, bank(rows), bank(elements), bank(&[])];
        let (left, orders, partners) = Default::default();
        Machine { shared, banks, left, orders, partners, partner: 0 }
    }

    /// Makes room for what runs along the rows of tiles of so many elements.
    pub fn take_rows(&mut self, code: &PassCode, elements: usize) {
        self.banks[Level::Pair as usize] = Bank::new(code.pair_slots.iter().copied(), LANES);
        self.left = vec![vec![T::zero(); elements]; code.along];
        self.orders = vec![Vec::new(); code.along];
        self.partners = vec![Register::Taken; code.partners];
    }

    /// Keeps an operand of partners in a block of a tile of `elements` elements.
    pub fn keep_partner(&mut self, (number, src): (usize, Src), spot: Spot, elements: usize) {
        let (first, stride) = spot.in_tile(self.shared.cols());
        let empty = |register: &Register<T>| matches!(register, Register::Taken);
        let mut kept = std::mem::replace(&mut self.partners[number], Register::Taken);
        if empty(&kept) {
            kept = Register::of(src.kind, elements);
        }
        let at = |lane: usize| first + lane * stride;
        match &mut kept {
            Register::Float(kept) => (0..spot.count).for_each(|lane| kept[at(lane)] = self.floats(src, spot).at(lane)),
            Register::Int(kept) => (0..spot.count).for_each(|lane| kept[at(lane)] = self.ints(src, spot).at(lane)),
            Register::Bool(kept) => (0..spot.count).for_each(|lane| kept[at(lane)] = self.bools(src, spot).at(lane)),
            Register::Taken => unreachable!("it was made above"),
        }
        self.partners[number] = kept;
    }

    /// Writes the partners' operand in each lane.
    fn partners_of<V: Copy>(&self, kept: &[V], spot: Spot, out: &mut [V]) {
        let cols = self.shared.cols();
        let row = |lane: usize| spot.along.unwrap_or(lane);
        out.iter_mut().enumerate().for_each(|(lane, out)| *out = kept[row(lane) * cols + self.partner]);
    }

    /// Runs global code and returns its registers.
    pub fn globals(shared: &'r Shared<'r, 'a>, steps: &[Step]) -> Bank<'a, T> {
        let bank = Bank::new(steps.iter().map(|s| s.out.kind), 1);
        let mut machine = Machine::new(shared, bank, &[], &[]);
        machine.run(steps, Spot { row: 0, count: 1, col: 0, along: None });
        let [globals, ..] = machine.banks;
        globals
    }

    /// A global number.
    pub fn global(bank: &Bank<'_, T>, src: Src) -> T {
        match (&bank.registers[src.slot], bank.borrowed[src.slot]) {
            (_, Some(values)) => values[0],
            (Register::Float(values), None) => values[0],
            _ => unreachable!("numbers lie in registers of numbers, not {src:?}"),
        }
    }

    /// A global truth value.
    pub fn global_bool(bank: &Bank<'_, T>, src: Src) -> bool {
        match &bank.registers[src.slot] {
            Register::Bool(values) => values[0],
            _ => unreachable!("truth values lie in registers of truth values, not {src:?}"),
        }
    }

    fn value<'s, V: Copy>(src: Src, spot: Spot, lanes: &'s [V]) -> Value<'s, V> {
        match (src.level, spot.along) {
            (Level::Global, _) => Value::Uniform(lanes[0]),
            (Level::Row, Some(row)) => Value::Uniform(lanes[row]),
            _ => Value::Lanes(&lanes[..spot.count]),
        }
    }

    pub fn floats(&self, src: Src, spot: Spot) -> Value<'_, T> {
        let bank = &self.banks[src.level as usize];
        match (&bank.registers[src.slot], bank.borrowed[src.slot]) {
            (_, Some(values)) => Self::value(src, spot, values),
            (Register::Float(values), None) => Self::value(src, spot, values),
            _ => unreachable!("numbers lie in registers of numbers, not {src:?}"),
        }
    }

    pub fn ints(&self, src: Src, spot: Spot) -> Value<'_, i64> {
        let Register::Int(values) = &self.banks[src.level as usize].registers[src.slot] else {
            unreachable!("indices lie in registers of indices, not {src:?}")
        };
        Self::value(src, spot, values)
    }

    pub fn bools(&self, src: Src, spot: Spot) -> Value<'_, bool> {
        let Register::Bool(values) = &self.banks[src.level as usize].registers[src.slot] else {
            unreachable!("truth values lie in registers of truth values, not {src:?}")
        };
        Self::value(src, spot, values)
    }

    /// Writes a row value that no step computes.
    pub fn set_floats(&mut self, out: Src, values: impl Iterator<Item = T>) {
        let bank = &mut self.banks[out.level as usize];
        bank.borrowed[out.slot] = None;
        let Register::Float(lanes) = &mut bank.registers[out.slot] else {
            unreachable!("numbers lie in registers of numbers, not {out:?}")
        };
        lanes.iter_mut().zip(values).for_each(|(lane, value)| *lane = value);
    }

    /// Writes a row index that no step computes.
    pub fn set_ints(&mut self, out: Src, values: &[i64]) {
        let Register::Int(lanes) = &mut self.banks[out.level as usize].registers[out.slot] else {
            unreachable!("indices lie in registers of indices, not {out:?}")
        };
        lanes[..values.len()].copy_from_slice(values);
    }

    /// Runs steps.
    pub fn run(&mut self, steps: &[Step], spot: Spot) {
        for Step { out, action } in steps {
            let level = out.level as usize;
            let mut register = std::mem::replace(&mut self.banks[level].registers[out.slot], Register::Taken);
            let borrowed = self.compute(action, spot, &mut register);
            self.banks[level].borrowed[out.slot] = borrowed;
            self.banks[level].registers[out.slot] = register;
        }
    }

    /// Computes a step into a register, or returns the slice of an input that holds its numbers.
    fn compute(&self, action: &Action<Src>, spot: Spot, out: &mut Register<T>) -> Option<&'a [T]> {
        let count = spot.count;
        match (*action, out) {
            (Action::Float(bits), Register::Float(out)) => out.fill(T::of(f64::from_bits(bits))),
            (Action::Int(value), Register::Int(out)) => out.fill(value),
            (Action::Bool(value), Register::Bool(out)) => out.fill(value),
            (Action::Param(index), Register::Float(out)) => out.fill(T::of(self.shared.params[index].value)),
            (Action::Param(index), Register::Int(out)) => out.fill(self.shared.params[index].value as i64),
            (Action::Count(extent), Register::Float(out)) => out.fill(T::of(self.shared.count(extent) as f64)),
            (Action::Total(node), Register::Float(out)) => out.fill(T::of(self.shared.totals[node])),
            (Action::GroupSum(node), Register::Float(out)) => {
                let sums = &self.shared.group_sums[node];
                let group = |lane: usize| self.shared.group(spot.row + lane as u64);
                let sum = |lane: usize| group(lane).map_or(f64::NAN, |group| sums[group as usize]);
                out[..count].iter_mut().enumerate().for_each(|(lane, o)| *o = T::of(sum(lane)));
            }
            (Action::GroupRows, Register::Float(out)) => {
                let rows = |lane: usize| self.shared.group_rows(spot.row + lane as u64);
                out[..count].iter_mut().enumerate().for_each(|(lane, o)| *o = T::of(rows(lane)));
            }
            (Action::ColumnSum(node), Register::Float(out)) => {
                let sums = &self.shared.column_sums[node];
                let col = |lane: usize| self.shared.col(spot, lane);
                out[..count].iter_mut().enumerate().for_each(|(lane, o)| *o = T::of(sums[col(lane)]));
            }
            (Action::GroupColumnSum(node), Register::Float(out)) => {
                let sums = &self.shared.column_sums[node];
                let index = |lane: usize| self.shared.first_of_group(spot, lane) + self.shared.col(spot, lane);
                out[..count].iter_mut().enumerate().for_each(|(lane, o)| *o = T::of(sums[index(lane)]));
            }
            (Action::GatherGroupColumnSum(node, label), Register::Float(out)) => {
                let (sums, labels) = (&self.shared.column_sums[node], self.ints(label, spot));
                let last = self.shared.geometry.cols as usize - 1;
                let col = |lane: usize| usize::try_from(labels.at(lane)).unwrap_or(usize::MAX).min(last);
                let index = |lane: usize| self.shared.first_of_group(spot, lane) + col(lane);
                out[..count].iter_mut().enumerate().for_each(|(lane, o)| *o = T::of(sums[index(lane)]));
            }
            (Action::GatherColumnSum(node, label), Register::Float(out)) => {
                let (sums, labels) = (&self.shared.column_sums[node], self.ints(label, spot));
                let col = |lane: usize| usize::try_from(labels.at(lane)).unwrap_or(usize::MAX).min(sums.len() - 1);
                out[..count].iter_mut().enumerate().for_each(|(lane, o)| *o = T::of(sums[col(lane)]));
            }
            (Action::Load(input), Register::Float(out)) => return self.load_floats(input, spot, &mut out[..count]),
            (Action::Load(input), Register::Int(out)) => self.load_ints(input, spot, &mut out[..count]),
            (Action::Gather(input, label), Register::Float(out)) => {
                let labels = self.ints(label, spot);
                self.gather(input, labels, spot, &mut out[..count]);
            }
            (Action::Gather(input, label), Register::Int(out)) => {
                let labels = self.ints(label, spot);
                self.gather_ints(input, labels, spot, &mut out[..count]);
            }
            (Action::ColIndex, Register::Int(out)) => {
                let col = |lane: usize| self.shared.col(spot, lane) as i64;
                out[..count].iter_mut().enumerate().for_each(|(lane, o)| *o = col(lane));
            }
            (Action::RowIndex, Register::Int(out)) => {
                out[..count].iter_mut().zip(spot.row..).for_each(|(o, row)| *o = row as i64);
            }
            (Action::Partner(number, _), out) => match (&self.partners[number], out) {
                (Register::Float(kept), Register::Float(out)) => self.partners_of(kept, spot, &mut out[..count]),
                (Register::Int(kept), Register::Int(out)) => self.partners_of(kept, spot, &mut out[..count]),
                (Register::Bool(kept), Register::Bool(out)) => self.partners_of(kept, spot, &mut out[..count]),
                _ => unreachable!("partners are kept before pairs are visited"),
            },
            (Action::Left(number), Register::Float(out)) => {
                let cols = self.shared.cols();
                let (first, stride) = spot.in_tile(cols);
                lanes::gather(&self.left[number], first, stride, &mut out[..count], |x| x);
            }
            (Action::Op(op, operands), out) => self.operate(op, operands, spot, out),
            (other, _) => unreachable!("the register of {other:?} is of the kind that it gives"),
        }
        None
    }

    fn operate(&self, op: Op, operands: [Option<Src>; 3], spot: Spot, out: &mut Register<T>) {
        let count = spot.count;
        let operand = |k: usize| operands[k].expect("an operation has one operand per argument");
        let float = |k: usize| self.floats(operand(k), spot);
        let int = |k: usize| self.ints(operand(k), spot);
        let truth = |k: usize| self.bools(operand(k), spot);
        match out {
            Register::Float(out) => {
                let out = &mut out[..count];
                match op {
                    Op::Select => lanes::select(truth(0), float(1), float(2), out),
                    Op::ToFloat if operand(0).kind == Kind::Int => lanes::to_float(int(0), out, |a| T::of(a as f64)),
                    Op::ToFloat => lanes::to_float(truth(0), out, |a| if a { T::one() } else { T::zero() }),
                    _ if op.arity() == 1 => lanes::unary(op, float(0), out),
                    _ => lanes::binary(op, float(0), float(1), out),
                }
            }
            Register::Int(out) => match op {
                Op::Select => lanes::select(truth(0), int(1), int(2), &mut out[..count]),
                other => unreachable!("selections alone give indices, not {other:?}"),
            },
            Register::Bool(out) => {
                let out = &mut out[..count];
                match op {
                    Op::Select => lanes::select(truth(0), truth(1), truth(2), out),
                    Op::Not => lanes::logic(op, truth(0), truth(0), out),
                    Op::And | Op::Or => lanes::logic(op, truth(0), truth(1), out),
                    _ if operand(0).kind == Kind::Int => lanes::compare(op, int(0), int(1), out),
                    _ => lanes::compare(op, float(0), float(1), out),
                }
            }
            Register::Taken => unreachable!("a step has its register while it computes"),
        }
    }

    /// Calls `f(lane, offset, stride, count)` for each run of lanes whose elements are `stride` apart in an input.
    fn runs(&self, input: usize, spot: Spot, mut f: impl FnMut(usize, usize, usize, usize)) {
        let Shared { geometry, has_rows, .. } = *self.shared;
        let Source { ref strides, scope, .. } = self.shared.inputs[input];
        if scope == Scope::GroupColumn || self.shared.over == Over::GroupColumns && scope == Scope::Column {
            let offset = |lane: usize| {
                let group = self.shared.group(self.shared.item(spot, lane)).unwrap_or(0);
                (group * strides[2]) as usize + self.shared.col(spot, lane) * strides[3] as usize
            };
            return (0..spot.count).for_each(|lane| f(lane, offset(lane), 0, 1));
        }
        if scope == Scope::Group {
            // Row values: lanes are items.
            // Values of no group are overwritten later.
            let group = |lane: usize| self.shared.group(spot.row + lane as u64).unwrap_or(0);
            let offset = |lane: usize| (group(lane) * strides[3]) as usize;
            return (0..spot.count).for_each(|lane| f(lane, offset(lane), 0, 1));
        }
        if self.shared.over == Over::Columns {
            let stride = strides[3] as usize;
            return f(0, spot.row as usize * stride, stride, spot.count);
        }
        let by_col = if has_rows { strides[3] as usize } else { 0 };
        match spot.along {
            Some(_) => for_runs(geometry, has_rows, strides, spot.row, 1, |_, offset, _, _| {
                f(0, offset + spot.col * by_col, by_col, spot.count);
            }),
            None => for_runs(geometry, has_rows, strides, spot.row, spot.count, |lane, offset, stride, count| {
                f(lane, offset + spot.col * by_col, stride, count);
            }),
        }
    }

    fn load_floats(&self, input: usize, spot: Spot, out: &mut [T]) -> Option<&'a [T]> {
        let data = self.shared.inputs[input].data;
        let own = T::borrow(data);
        let mut borrowed = None;
        self.runs(input, spot, |lane, offset, stride, count| {
            if let (Some(values), true) = (own, count == spot.count && (stride == 1 || count == 1)) {
                borrowed = Some(&values[offset..offset + count]);
                return;
            }
            let out = &mut out[lane..lane + count];
            match (own, data) {
                (Some(values), _) => lanes::gather(values, offset, stride, out, |x| x),
                (_, Data::F32(values)) => lanes::gather(values, offset, stride, out, |x| T::of(f64::from(x))),
                (_, Data::F64(values)) => lanes::gather(values, offset, stride, out, T::of),
                _ => unreachable!("inputs of numbers hold f32 or f64: the plan checked"),
            }
        });
        for lane in self.without_group(input, spot) {
            out[lane] = T::nan();
            borrowed = None;
        }
        borrowed
    }

    /// Lanes whose row is in no group, if the input has one value per group.
    fn without_group(&self, input: usize, spot: Spot) -> impl Iterator<Item = usize> {
        let lanes = if self.shared.inputs[input].scope == Scope::Group { spot.count } else { 0 };
        (0..lanes).filter(move |lane| self.shared.group(spot.row + *lane as u64).is_none())
    }

    fn load_ints(&self, input: usize, spot: Spot, out: &mut [i64]) {
        self.runs(input, spot, |lane, offset, stride, count| {
            let out = &mut out[lane..lane + count];
            match self.shared.inputs[input].data {
                Data::I32(values) => lanes::gather(values, offset, stride, out, i64::from),
                Data::U32(values) => lanes::gather(values, offset, stride, out, i64::from),
                _ => unreachable!("inputs of indices hold i32 or u32: the plan checked"),
            }
        });
        // No class, and no index that a loss ignores.
        self.without_group(input, spot).for_each(|lane| out[lane] = i64::MAX);
    }

    /// Each row's number at its label's column; a label out of range reads the last column.
    fn gather(&self, input: usize, labels: Value<'_, i64>, spot: Spot, out: &mut [T]) {
        let Source { data, strides, .. } = self.shared.inputs[input];
        let read = |at: usize| match data {
            Data::F32(values) => T::of(f64::from(values[at])),
            Data::F64(values) => T::of(values[at]),
            _ => unreachable!("inputs of numbers hold f32 or f64: the plan checked"),
        };
        self.gather_with(input, strides[3], labels, spot, |lane, at| out[lane] = read(at));
    }

    /// Each row's index at its label's column, likewise.
    fn gather_ints(&self, input: usize, labels: Value<'_, i64>, spot: Spot, out: &mut [i64]) {
        let Source { data, strides, .. } = self.shared.inputs[input];
        self.gather_with(input, strides[3], labels, spot, |lane, at| out[lane] = data.index(at));
    }

    /// Calls `f(lane, element)` for each row, with the element at its label's column.
    fn gather_with(
        &self,
        input: usize,
        by_col: u64,
        labels: Value<'_, i64>,
        spot: Spot,
        mut f: impl FnMut(usize, usize),
    ) {
        let (by_col, cols) = (by_col as usize, self.shared.cols());
        self.runs(input, Spot { col: 0, ..spot }, |lane, offset, stride, count| {
            for k in 0..count {
                let col = usize::try_from(labels.at(lane + k)).unwrap_or(usize::MAX);
                let at = offset + k * stride + col.min(cols - 1) * by_col;
                f(lane + k, at);
            }
        });
    }
}
