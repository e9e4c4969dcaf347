//! Loops over blocks of values: scalar operations, reductions, strided copies. This is where the time goes.

use super::math::Math;
use crate::op::Op;

/// An operand: the same for the whole block, or one value a lane.
#[derive(Clone, Copy)]
pub enum Value<'a, V> {
    Uniform(V),
    Lanes(&'a [V]),
}

impl<V: Copy> Value<'_, V> {
    pub fn at(&self, lane: usize) -> V {
        match self {
            Value::Uniform(v) => *v,
            Value::Lanes(v) => v[lane],
        }
    }

    pub fn copy_to(self, out: &mut [V]) {
        match self {
            Value::Uniform(v) => out.fill(v),
            Value::Lanes(v) => out.copy_from_slice(v),
        }
    }
}

#[inline(always)]
pub fn map1<A: Copy, R: Copy>(a: Value<'_, A>, out: &mut [R], f: impl Fn(A) -> R) {
    match a {
        Value::Uniform(a) => out.fill(f(a)),
        Value::Lanes(a) => out.iter_mut().zip(a).for_each(|(o, &a)| *o = f(a)),
    }
}

#[inline(always)]
pub fn map2<A: Copy, B: Copy, R: Copy>(a: Value<'_, A>, b: Value<'_, B>, out: &mut [R], f: impl Fn(A, B) -> R) {
    match (a, b) {
        (Value::Uniform(a), b) => map1(b, out, |b| f(a, b)),
        (a, Value::Uniform(b)) => map1(a, out, |a| f(a, b)),
        (Value::Lanes(a), Value::Lanes(b)) => {
            out.iter_mut().zip(a.iter().zip(b)).for_each(|(o, (&a, &b))| *o = f(a, b));
        }
    }
}

pub fn select<V: Copy>(condition: Value<'_, bool>, yes: Value<'_, V>, no: Value<'_, V>, out: &mut [V]) {
    let choose = |c: bool, yes: V, no: V| if c { yes } else { no };
    match (condition, yes, no) {
        (Value::Uniform(c), yes, no) => (if c { yes } else { no }).copy_to(out),
        (c, Value::Uniform(yes), no) => map2(c, no, out, |c, no| choose(c, yes, no)),
        (c, yes, Value::Uniform(no)) => map2(c, yes, out, |c, yes| choose(c, yes, no)),
        (Value::Lanes(c), Value::Lanes(yes), Value::Lanes(no)) => {
            let operands = c.iter().zip(yes.iter().zip(no));
            out.iter_mut().zip(operands).for_each(|(o, (&c, (&yes, &no)))| *o = choose(c, yes, no));
        }
    }
}

/// An operation of one number.
pub fn unary<T: Math>(op: Op, a: Value<'_, T>, out: &mut [T]) {
    match op {
        Op::Neg => map1(a, out, |a| -a),
        Op::Abs => map1(a, out, |a| a.abs()),
        Op::Exp => map1(a, out, T::exp_lane),
        Op::Log => map1(a, out, T::ln_lane),
        Op::Log1p => map1(a, out, T::ln_1p_lane),
        Op::Sqrt => map1(a, out, |a| a.sqrt()),
        Op::Tanh => map1(a, out, T::tanh_lane),
        Op::Sigmoid => map1(a, out, T::sigmoid_lane),
        Op::Softplus => map1(a, out, T::softplus_lane),
        Op::LogSigmoid => map1(a, out, |a| -(-a).softplus_lane()),
        // Comparisons are false for NaN, which then passes through.
        Op::Relu => map1(a, out, |a| if a < T::zero() { T::zero() } else { a }),
        Op::Sign => map1(a, out, |a| {
            let sign = if a < T::zero() { -T::one() } else { a };
            if a > T::zero() { T::one() } else { sign }
        }),
        _ => map1(a, out, |a| op.eval(a, a)),
    }
}

/// An operation of two numbers.
pub fn binary<T: Math>(op: Op, a: Value<'_, T>, b: Value<'_, T>, out: &mut [T]) {
    let nan = |a: T, b: T, chosen: T| if a.is_nan() || b.is_nan() { a + b } else { chosen };
    match op {
        Op::Add => map2(a, b, out, |a, b| a + b),
        Op::Sub => map2(a, b, out, |a, b| a - b),
        Op::Mul => map2(a, b, out, |a, b| a * b),
        Op::Div => map2(a, b, out, |a, b| a / b),
        Op::Maximum => map2(a, b, out, |a, b| nan(a, b, if a > b { a } else { b })),
        Op::Minimum => map2(a, b, out, |a, b| nan(a, b, if a < b { a } else { b })),
        Op::Xlogy => map2(a, b, out, |a, b| {
            let product = a * b.ln_lane();
            if a == T::zero() && !b.is_nan() { T::zero() } else { product }
        }),
        _ => map2(a, b, out, |a, b| op.eval(a, b)),
    }
}

/// Accumulators of a reduction, so that neighbouring steps do not wait for each other.
const WIDTH: usize = 32;

/// Reduces with `WIDTH` accumulators, then those with each other, in an order that depends on the length alone.
#[inline(always)]
fn fold<T: Copy, A: Copy>(
    values: &[T],
    identity: A,
    step: impl Fn(A, T) -> A + Copy,
    join: impl Fn(A, A) -> A + Copy,
) -> A {
    let mut sums = [identity; WIDTH];
    let chunks = values.chunks_exact(WIDTH);
    let rest = chunks.remainder();
    for chunk in chunks {
        for (sum, &x) in sums.iter_mut().zip(chunk) {
            *sum = step(*sum, x);
        }
    }
    for (sum, &x) in sums.iter_mut().zip(rest) {
        *sum = step(*sum, x);
    }
    sums.into_iter().fold(identity, join)
}

pub fn sum<T: Math>(values: &[T]) -> f64 {
    let mut sums = [T::zero(); WIDTH];
    let chunks = values.chunks_exact(WIDTH);
    let rest = chunks.remainder();
    for chunk in chunks {
        for (sum, &x) in sums.iter_mut().zip(chunk) {
            *sum = *sum + x;
        }
    }
    for (sum, &x) in sums.iter_mut().zip(rest) {
        *sum = *sum + x;
    }
    sums.into_iter().map(T::to).sum()
}

pub fn max<T: Math>(values: &[T]) -> T {
    let larger = |a: T, b: T| if b > a { b } else { a };
    fold(values, T::neg_infinity(), larger, larger)
}

pub fn min<T: Math>(values: &[T]) -> T {
    let smaller = |a: T, b: T| if b < a { b } else { a };
    fold(values, T::infinity(), smaller, smaller)
}

pub fn any_nan<T: Math>(values: &[T]) -> bool {
    fold(values, false, |any, x| any | x.is_nan(), |a, b| a | b)
}

/// State of an online softmax: `rest` is Σ over j ≠ argmax of exp(xⱼ − max); before any value it is −1, so that
/// 1 + rest is always the sum of all.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Online<T> {
    pub max: T,
    pub rest: f64,
}

impl<T: Math> Online<T> {
    /// Whether there is a softmax of what was seen: not of nothing (or all −∞), and not with +∞.
    pub fn is_defined(&self) -> bool {
        self.rest != -1.0 && self.max != T::infinity()
    }

    pub fn empty() -> Online<T> {
        Online { max: T::min_value(), rest: -1.0 }
    }

    pub fn of(values: &[T]) -> Online<T> {
        let max = max(values);
        if max == T::neg_infinity() {
            return Online::empty();
        }
        // Every value equal to the maximum adds exactly 1, and the first of them is not counted.
        let zero = T::zero();
        let e = |sum: T, x: T| sum + if x == max { zero } else { (x - max).exp_lane() };
        let rest = fold(values, zero, e, |a, b| a + b).to();
        let ties = fold(values, 0u32, |count, x| count + u32::from(x == max), |a, b| a + b);
        Online { max, rest: rest + (f64::from(ties) - 1.0) }
    }

    pub fn join(self, other: Online<T>) -> Online<T> {
        let (large, small) = if other.max > self.max { (other, self) } else { (self, other) };
        let scale = (small.max - large.max).to().exp();
        Online { max: large.max, rest: large.rest + scale * (1.0 + small.rest) }
    }
}

/// One more value for each lane's online softmax.
pub fn online_step<T: Math>(values: &[T], max: &mut [T], rest: &mut [f64]) {
    for (&x, (m, r)) in values.iter().zip(max.iter_mut().zip(rest)) {
        let e = (-(x - *m).abs()).exp_lane().to();
        *r = if x > *m { (*r + 1.0) * e } else { *r + e };
        *m = if x > *m { x } else { *m };
    }
}

/// Strided numbers, converted.
pub fn gather<S: Copy, V: Copy>(data: &[S], offset: usize, stride: usize, out: &mut [V], f: impl Fn(S) -> V) {
    let count = out.len();
    match stride {
        0 => out.fill(f(data[offset])),
        1 => out.iter_mut().zip(&data[offset..offset + count]).for_each(|(o, &x)| *o = f(x)),
        _ => out.iter_mut().zip(data[offset..].iter().step_by(stride)).for_each(|(o, &x)| *o = f(x)),
    }
}

/// Numbers to strided places.
pub fn scatter<T: Copy>(values: &[T], out: &mut [T], offset: usize, stride: usize) {
    out[offset..].iter_mut().step_by(stride).zip(values).for_each(|(o, &x)| *o = x);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn operations_agree_with_their_definition() {
        let points = [-2.5, -1.0, -0.3, 0.0, 0.4, 1.0, 7.0, f64::NAN, f64::INFINITY, f64::NEG_INFINITY];
        let same = |op: Op, got: f64, want: f64| assert!(got == want || got.is_nan() && want.is_nan(), "{op:?}");
        for op in Op::ALL {
            let floats = vec![crate::op::Kind::Float; op.arity()];
            if op.kind(&floats) != Ok(crate::op::Kind::Float) {
                continue;
            }
            for a in points {
                for b in points {
                    let mut out = [0.0; 3];
                    if op.arity() == 1 {
                        unary(op, Value::Lanes(&[a; 3]), &mut out);
                    } else {
                        binary(op, Value::Lanes(&[a; 3]), Value::Uniform(b), &mut out);
                    }
                    same(op, out[2], op.eval(a, b));
                }
            }
        }
    }

    #[test]
    fn online_states_join_to_the_state_of_the_whole() {
        let values: Vec<f64> = (0..77).map(|k| f64::from((k * 37) % 50) * 0.3 - 5.0).collect();
        let whole = Online::of(&values);
        let parts = Online::of(&values[40..]).join(Online::of(&values[..40])).join(Online::empty());
        let (mut max, mut rest) = ([f64::MIN], [-1.0]);
        for x in &values {
            online_step(&[*x], &mut max, &mut rest);
        }
        for other in [parts, Online { max: max[0], rest: rest[0] }] {
            assert_eq!(other.max, whole.max);
            assert!((other.rest - whole.rest).abs() < 1e-12 * whole.rest, "{other:?} {whole:?}");
        }
        let logsumexp = values.iter().map(|x| x.exp()).sum::<f64>().ln();
        assert!((whole.max + whole.rest.ln_1p() - logsumexp).abs() < 1e-13);
    }

    #[test]
    fn empty_and_infinite_rows_keep_an_empty_state() {
        let none = [f32::NEG_INFINITY; 40];
        assert_eq!(Online::of(&none), Online::empty());
        assert!(!Online::of(&none).is_defined() && !Online::of(&[f64::INFINITY, 0.0]).is_defined());
        let (mut max, mut rest) = ([f32::MIN], [-1.0]);
        online_step(&none[..1], &mut max, &mut rest);
        assert_eq!((max, rest), ([f32::MIN], [-1.0]));
        assert_eq!(Online::of(&[f32::NEG_INFINITY, 3.0, 3.0]), Online { max: 3.0, rest: 1.0 });
    }
}
