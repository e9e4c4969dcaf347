//! Loops over blocks of values: scalar operations, reductions, strided copies. This is where the time goes.

use super::math::Math;
use crate::expr::op::Op;

/// An operand: one value for the whole block, or one per lane.
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

// Loops are macros: a closure with a long body is not always inlined, and its loop is then not vectorised.

/// `out = body(a)`, lane by lane.
macro_rules! map1 {
    ($a:expr, $out:expr, |$x:pat_param| $body:expr) => {
        match $a {
            Value::Uniform($x) => $out.fill($body),
            Value::Lanes(lanes) => {
                for (o, &$x) in $out.iter_mut().zip(lanes) {
                    *o = $body;
                }
            }
        }
    };
}

/// `out = body(a, b)`, lane by lane.
macro_rules! map2 {
    ($a:expr, $b:expr, $out:expr, |$x:pat_param, $y:pat_param| $body:expr) => {
        match ($a, $b) {
            (Value::Uniform($x), b) => map1!(b, $out, |$y| $body),
            (a, Value::Uniform($y)) => map1!(a, $out, |$x| $body),
            (Value::Lanes(a), Value::Lanes(b)) => {
                for (o, (&$x, &$y)) in $out.iter_mut().zip(a.iter().zip(b)) {
                    *o = $body;
                }
            }
        }
    };
}

/// Accumulators per reduction: independent, so that a step does not wait for the one before.
const WIDTH: usize = 32;

/// `WIDTH` accumulators over the values, in an order that depends on the length only.
macro_rules! accumulate {
    ($values:expr, $identity:expr, |$sum:pat_param, $x:pat_param| $step:expr) => {{
        let mut sums = [$identity; WIDTH];
        let chunks = $values.chunks_exact(WIDTH);
        let rest = chunks.remainder();
        for chunk in chunks {
            for (sum, &$x) in sums.iter_mut().zip(chunk) {
                let $sum = *sum;
                *sum = $step;
            }
        }
        for (sum, &$x) in sums.iter_mut().zip(rest) {
            let $sum = *sum;
            *sum = $step;
        }
        sums.into_iter()
    }};
}

/// Functions compiled twice, the second time for AVX2 with FMA, which runs if the processor has both. Results have the
/// same bits, except for transcendental functions: a function that calls these takes `const FMA`.
macro_rules! vectorised {
    ($($(#[$doc:meta])* pub fn $name:ident<$t:ident: $bound:ident $(, const $fma:ident)?>($($arg:ident: $ty:ty),*) $(-> $result:ty)? $body:block)*) => {$(
        $(#[$doc])*
        #[multiversion::multiversion(targets("x86_64+avx2+fma"))]
        pub fn $name<$t: $bound>($($arg: $ty),*) $(-> $result)? {
            $(const $fma: bool = multiversion::target::target_cfg_f!(target_feature = "fma");)?
            $body
        }
    )*};
}

vectorised! {
    /// An operation of one number.
    pub fn unary<T: Math, const FMA>(op: Op, a: Value<'_, T>, out: &mut [T]) {
        match op {
            Op::Neg => map1!(a, out, |a| -a),
            Op::Abs => map1!(a, out, |a| a.abs()),
            Op::Exp => map1!(a, out, |a| a.exp_lane::<FMA>()),
            Op::Log => map1!(a, out, |a| a.ln_lane::<FMA>()),
            Op::Log1p => map1!(a, out, |a| a.ln_1p_lane::<FMA>()),
            Op::Sqrt => map1!(a, out, |a| a.sqrt()),
            Op::Tanh => map1!(a, out, |a| a.tanh_lane::<FMA>()),
            Op::Sigmoid => map1!(a, out, |a| a.sigmoid_lane::<FMA>()),
            Op::Softplus => map1!(a, out, |a| a.softplus_lane::<FMA>()),
            Op::LogSigmoid => map1!(a, out, |a| -(-a).softplus_lane::<FMA>()),
            // Comparisons are false for NaN, which then passes through.
            Op::Relu => map1!(a, out, |a| if a < T::zero() { T::zero() } else { a }),
            Op::Sign => map1!(a, out, |a| {
                let sign = if a < T::zero() { -T::one() } else { a };
                if a > T::zero() { T::one() } else { sign }
            }),
            _ => map1!(a, out, |a| op.eval(a, a)),
        }
    }

    /// An operation of two numbers.
    pub fn binary<T: Math, const FMA>(op: Op, a: Value<'_, T>, b: Value<'_, T>, out: &mut [T]) {
        match op {
            Op::Add => map2!(a, b, out, |a, b| a + b),
            Op::Sub => map2!(a, b, out, |a, b| a - b),
            Op::Mul => map2!(a, b, out, |a, b| a * b),
            Op::Div => map2!(a, b, out, |a, b| a / b),
            // NaN in either is NaN in their sum.
            Op::Maximum => map2!(a, b, out, |a, b| if a.is_nan() | b.is_nan() { a + b } else if a > b { a } else { b }),
            Op::Minimum => map2!(a, b, out, |a, b| if a.is_nan() | b.is_nan() { a + b } else if a < b { a } else { b }),
            Op::Xlogy => map2!(a, b, out, |a, b| {
                let product = a * b.ln_lane::<FMA>();
                if (a == T::zero()) & !b.is_nan() { T::zero() } else { product }
            }),
            Op::Times => map2!(a, b, out, |a, b| {
                if (a == T::zero()) & b.is_infinite() { T::zero() } else { a * b }
            }),
            _ => map2!(a, b, out, |a, b| op.eval(a, b)),
        }
    }

    /// A comparison.
    pub fn compare<V: Comparable>(op: Op, a: Value<'_, V>, b: Value<'_, V>, out: &mut [bool]) {
        match op {
            Op::Lt => map2!(a, b, out, |a, b| a < b),
            Op::Le => map2!(a, b, out, |a, b| a <= b),
            Op::Eq => map2!(a, b, out, |a, b| a == b),
            other => unreachable!("comparisons compare, not {other:?}"),
        }
    }

    /// `yes` where the condition holds, else `no`.
    pub fn select<V: Choose>(condition: Value<'_, bool>, yes: Value<'_, V>, no: Value<'_, V>, out: &mut [V]) {
        match (condition, yes, no) {
            (Value::Uniform(true), yes, _) => yes.copy_to(out),
            (Value::Uniform(false), _, no) => no.copy_to(out),
            (c, Value::Uniform(yes), no) => map2!(c, no, out, |c, no| V::choose(c, yes, no)),
            (c, yes, Value::Uniform(no)) => map2!(c, yes, out, |c, yes| V::choose(c, yes, no)),
            (Value::Lanes(c), Value::Lanes(yes), Value::Lanes(no)) => {
                for (o, (&c, (&yes, &no))) in out.iter_mut().zip(c.iter().zip(yes.iter().zip(no))) {
                    *o = V::choose(c, yes, no);
                }
            }
        }
    }

    /// Σ: accumulators in `T`, their total in f64.
    pub fn sum<T: Math>(values: &[T]) -> f64 {
        accumulate!(values, T::zero(), |sum, x| sum + x).map(T::to).sum()
    }

    /// The largest; NaN does not count.
    pub fn max<T: Math>(values: &[T]) -> T {
        accumulate!(values, T::neg_infinity(), |max, x| if x > max { x } else { max }).fold(T::neg_infinity(), T::max)
    }

    /// The smallest; NaN does not count.
    pub fn min<T: Math>(values: &[T]) -> T {
        accumulate!(values, T::infinity(), |min, x| if x < min { x } else { min }).fold(T::infinity(), T::min)
    }

    /// Whether a value is NaN.
    pub fn any_nan<T: Math>(values: &[T]) -> bool {
        accumulate!(values, T::zero(), |nan, x| if x.is_nan() { x } else { nan }).any(T::is_nan)
    }

    /// Σ exp(xⱼ − max) over the values below the maximum, and the number of values equal to it.
    pub fn exp_sum_below<T: Math, const FMA>(values: &[T], max: T) -> (f64, f64) {
        let (zero, one) = (T::zero(), T::one());
        let below = accumulate!(values, zero, |sum, x| sum + if x == max { zero } else { (x - max).exp_lane::<FMA>() });
        let equal = accumulate!(values, zero, |count, x| count + if x == max { one } else { zero });
        (below.map(T::to).sum(), equal.map(T::to).sum())
    }

    /// Adds one value per lane to the lane's online softmax.
    pub fn online_step<T: Math, const FMA>(values: &[T], max: &mut [T], rest: &mut [f64]) {
        for (&x, (m, r)) in values.iter().zip(max.iter_mut().zip(rest)) {
            let e = (-(x - *m).abs()).exp_lane::<FMA>().to();
            *r = if x > *m { (*r + 1.0) * e } else { *r + e };
            *m = if x > *m { x } else { *m };
        }
    }
}

/// Types that `compare` takes.
pub trait Comparable: Copy + PartialOrd {}
impl<V: Copy + PartialOrd> Comparable for V {}

/// Types that `select` takes. Selection is by bits: from `if`, the compiler selects between addresses, lane by lane.
pub trait Choose: Copy {
    fn choose(condition: bool, yes: Self, no: Self) -> Self;
}

impl Choose for f32 {
    #[inline(always)]
    fn choose(condition: bool, yes: f32, no: f32) -> f32 {
        let mask = u32::from(condition).wrapping_neg();
        f32::from_bits((yes.to_bits() & mask) | (no.to_bits() & !mask))
    }
}

impl Choose for f64 {
    #[inline(always)]
    fn choose(condition: bool, yes: f64, no: f64) -> f64 {
        let mask = u64::from(condition).wrapping_neg();
        f64::from_bits((yes.to_bits() & mask) | (no.to_bits() & !mask))
    }
}

impl Choose for i64 {
    #[inline(always)]
    fn choose(condition: bool, yes: i64, no: i64) -> i64 {
        let mask = i64::from(condition).wrapping_neg();
        (yes & mask) | (no & !mask)
    }
}

impl Choose for bool {
    #[inline(always)]
    fn choose(condition: bool, yes: bool, no: bool) -> bool {
        (condition & yes) | (!condition & no)
    }
}

/// A truth value or an index as a number.
pub fn to_float<V: Copy, T: Math>(a: Value<'_, V>, out: &mut [T], f: impl Fn(V) -> T) {
    map1!(a, out, |a| f(a));
}

/// An operation of truth values.
pub fn logic(op: Op, a: Value<'_, bool>, b: Value<'_, bool>, out: &mut [bool]) {
    match op {
        Op::Not => map1!(a, out, |a| !a),
        Op::And => map2!(a, b, out, |a, b| a & b),
        Op::Or => map2!(a, b, out, |a, b| a | b),
        other => unreachable!("truth values go into not, and, or, not {other:?}"),
    }
}

/// State of an online softmax: `rest` is Σ over j ≠ argmax of exp(xⱼ − max). It is −1 before any value, so that 1 +
/// rest is always Σⱼ exp(xⱼ − max).
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Online<T> {
    pub max: T,
    pub rest: f64,
}

impl<T: Math> Online<T> {
    /// Whether the softmax is defined: there was a value above −∞, and none was +∞.
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
        // Each value equal to the maximum adds exactly 1; the first is left out of `rest`.
        let (below, equal) = exp_sum_below(values, max);
        Online { max, rest: below + (equal - 1.0) }
    }

    pub fn join(self, other: Online<T>) -> Online<T> {
        let (large, small) = if other.max > self.max { (other, self) } else { (self, other) };
        let scale = (small.max - large.max).to().exp();
        Online { max: large.max, rest: large.rest + scale * (1.0 + small.rest) }
    }
}

/// Reads strided numbers, converted by `f`.
pub fn gather<S: Copy, V: Copy>(data: &[S], offset: usize, stride: usize, out: &mut [V], f: impl Fn(S) -> V) {
    let count = out.len();
    match stride {
        0 => out.fill(f(data[offset])),
        1 => out.iter_mut().zip(&data[offset..offset + count]).for_each(|(o, &x)| *o = f(x)),
        _ => out.iter_mut().zip(data[offset..].iter().step_by(stride)).for_each(|(o, &x)| *o = f(x)),
    }
}

/// Writes numbers with a stride.
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
            let floats = vec![crate::expr::op::Kind::Float; op.arity()];
            if op.kind(&floats) != Ok(crate::expr::op::Kind::Float) {
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
