//! Values of a workgroup's lanes, and the operations on their words.

use naga::{BinaryOperator, MathFunction, ScalarKind, UnaryOperator};

/// One value per lane, `words` words each.
#[derive(Clone, Debug)]
pub struct Value {
    pub words: usize,
    pub data: Vec<u32>,
}

impl Value {
    pub fn of_lanes(words: usize, lanes: usize, word: impl Fn(usize, usize) -> u32) -> Value {
        let data = (0..lanes).flat_map(|lane| (0..words).map(move |k| (lane, k))).map(|(lane, k)| word(lane, k));
        Value { words, data: data.collect() }
    }

    pub fn at(&self, lane: usize, word: usize) -> u32 {
        self.data[lane * self.words + word]
    }

    pub fn lane(&self, lane: usize) -> &[u32] {
        &self.data[lane * self.words..(lane + 1) * self.words]
    }

    pub fn lanes(&self) -> usize {
        self.data.len() / self.words.max(1)
    }

    /// Word by word; a value of one word serves all words of the other.
    pub fn zip(&self, other: &Value, f: impl Fn(u32, u32) -> u32) -> Value {
        let words = self.words.max(other.words);
        let of = |value: &Value, lane: usize, k: usize| value.at(lane, if value.words == 1 { 0 } else { k });
        Value::of_lanes(words, self.lanes(), |lane, k| f(of(self, lane, k), of(other, lane, k)))
    }

    pub fn map(&self, f: impl Fn(u32) -> u32) -> Value {
        Value { words: self.words, data: self.data.iter().map(|word| f(*word)).collect() }
    }
}

fn f(word: u32) -> f32 {
    f32::from_bits(word)
}

pub fn unary(op: UnaryOperator, kind: ScalarKind, x: u32) -> u32 {
    match (op, kind) {
        (UnaryOperator::Negate, ScalarKind::Float) => (-f(x)).to_bits(),
        (UnaryOperator::Negate, _) => x.wrapping_neg(),
        (UnaryOperator::LogicalNot, _) => 1 - x,
        (UnaryOperator::BitwiseNot, _) => !x,
    }
}

pub fn binary(op: BinaryOperator, kind: ScalarKind, a: u32, b: u32) -> u32 {
    use BinaryOperator as Op;
    let truth = u32::from;
    match (op, kind) {
        (Op::Add, ScalarKind::Float) => (f(a) + f(b)).to_bits(),
        (Op::Subtract, ScalarKind::Float) => (f(a) - f(b)).to_bits(),
        (Op::Multiply, ScalarKind::Float) => (f(a) * f(b)).to_bits(),
        (Op::Divide, ScalarKind::Float) => (f(a) / f(b)).to_bits(),
        (Op::Modulo, ScalarKind::Float) => (f(a) % f(b)).to_bits(),
        (Op::Less, ScalarKind::Float) => truth(f(a) < f(b)),
        (Op::LessEqual, ScalarKind::Float) => truth(f(a) <= f(b)),
        (Op::Greater, ScalarKind::Float) => truth(f(a) > f(b)),
        (Op::GreaterEqual, ScalarKind::Float) => truth(f(a) >= f(b)),
        (Op::Equal, ScalarKind::Float) => truth(f(a) == f(b)),
        (Op::NotEqual, ScalarKind::Float) => truth(f(a) != f(b)),
        (Op::Less, ScalarKind::Sint) => truth((a as i32) < b as i32),
        (Op::LessEqual, ScalarKind::Sint) => truth(a as i32 <= b as i32),
        (Op::Greater, ScalarKind::Sint) => truth(a as i32 > b as i32),
        (Op::GreaterEqual, ScalarKind::Sint) => truth(a as i32 >= b as i32),
        (Op::Divide, ScalarKind::Sint) => (a as i32).checked_div(b as i32).unwrap_or(0) as u32,
        (Op::Modulo, ScalarKind::Sint) => (a as i32).checked_rem(b as i32).unwrap_or(0) as u32,
        (Op::ShiftRight, ScalarKind::Sint) => ((a as i32) >> (b & 31)) as u32,
        (Op::Add, _) => a.wrapping_add(b),
        (Op::Subtract, _) => a.wrapping_sub(b),
        (Op::Multiply, _) => a.wrapping_mul(b),
        (Op::Divide, _) => a.checked_div(b).unwrap_or(0),
        (Op::Modulo, _) => a.checked_rem(b).unwrap_or(0),
        (Op::Less, _) => truth(a < b),
        (Op::LessEqual, _) => truth(a <= b),
        (Op::Greater, _) => truth(a > b),
        (Op::GreaterEqual, _) => truth(a >= b),
        (Op::Equal, _) => truth(a == b),
        (Op::NotEqual, _) => truth(a != b),
        (Op::And | Op::LogicalAnd, _) => a & b,
        (Op::ExclusiveOr, _) => a ^ b,
        (Op::InclusiveOr | Op::LogicalOr, _) => a | b,
        (Op::ShiftLeft, _) => a << (b & 31),
        (Op::ShiftRight, _) => a >> (b & 31),
    }
}

/// A function of up to three numbers.
pub fn math(fun: MathFunction, kind: ScalarKind, [a, b, c]: [u32; 3]) -> u32 {
    use MathFunction as M;
    let float = |x: f32| x.to_bits();
    let [x, y, z] = [a, b, c].map(f);
    let (i, j, k) = (a as i32, b as i32, c as i32);
    match (fun, kind) {
        (M::Abs, ScalarKind::Float) => float(x.abs()),
        (M::Min, ScalarKind::Float) => float(x.min(y)),
        (M::Max, ScalarKind::Float) => float(x.max(y)),
        (M::Clamp, ScalarKind::Float) => float(x.max(y).min(z)),
        (M::Sign, ScalarKind::Float) => float(if x > 0.0 {
            1.0
        } else if x < 0.0 {
            -1.0
        } else {
            0.0
        }),
        (M::Abs, ScalarKind::Sint) => i.wrapping_abs() as u32,
        (M::Min, ScalarKind::Sint) => i.min(j) as u32,
        (M::Max, ScalarKind::Sint) => i.max(j) as u32,
        (M::Clamp, ScalarKind::Sint) => i.max(j).min(k) as u32,
        (M::Min, _) => a.min(b),
        (M::Max, _) => a.max(b),
        (M::Clamp, _) => a.max(b).min(c),
        (M::Exp, _) => float(x.exp()),
        (M::Exp2, _) => float(x.exp2()),
        (M::Log, _) => float(x.ln()),
        (M::Log2, _) => float(x.log2()),
        (M::Pow, _) => float(x.powf(y)),
        (M::Sqrt, _) => float(x.sqrt()),
        (M::Tanh, _) => float(x.tanh()),
        (M::Fma, _) => float(x.mul_add(y, z)),
        (M::Trunc, _) => float(x.trunc()),
        (M::Floor, _) => float(x.floor()),
        (M::Ceil, _) => float(x.ceil()),
        (M::Round, _) => float(x.round_ties_even()),
        (other, _) => panic!("{other:?} is not interpreted"),
    }
}

/// A conversion between kinds.
pub fn convert(from: ScalarKind, to: ScalarKind, x: u32) -> u32 {
    use ScalarKind::{Bool, Float, Sint, Uint};
    match (from, to) {
        (Float, Float) | (Uint | Sint | Bool, Uint | Sint) => x,
        (Float, Uint) => f(x) as u32,
        (Float, Sint) => f(x) as i32 as u32,
        (Sint, Float) => (x as i32 as f32).to_bits(),
        (Uint | Bool, Float) => (x as f32).to_bits(),
        (_, Bool) => u32::from(x != 0),
        other => panic!("{other:?} is not interpreted"),
    }
}
