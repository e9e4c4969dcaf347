//! Numbers with a derivative along one direction: the operations by the book, with the subgradients that are stated.

use super::expression::{Fold, Pairs};
use crate::special::{digamma, erf, lgamma, trigamma};
use wgloss::internals::expr::Scan;
use wgloss::internals::expr::op::Op;
use wgloss::{Direction, Order};

/// A value, and how it changes along the direction.
pub type Dual = [f64; 2];
pub const NAN: Dual = [f64::NAN; 2];

/// One operation.
pub fn apply(op: Op, [a, da]: Dual, [b, db]: Dual) -> Dual {
    let sigmoid = |a: f64| if a < 0.0 { a.exp() / (1.0 + a.exp()) } else { 1.0 / (1.0 + (-a).exp()) };
    let softplus = |a: f64| a.max(0.0) + (-a.abs()).exp().ln_1p();
    let chain = |value: f64, slope: f64| if a.is_nan() { NAN } else { [value, slope * da] };
    match op {
        Op::Neg => chain(-a, -1.0),
        Op::Abs => chain(a.abs(), if a == 0.0 { 0.0 } else { a.signum() }),
        Op::Sign => chain(if a == 0.0 { 0.0 } else { a.signum() }, 0.0),
        Op::Exp => chain(a.exp(), a.exp()),
        Op::Expm1 => chain(a.exp_m1(), a.exp()),
        Op::Log => chain(a.ln(), 1.0 / a),
        Op::Log1p => chain(a.ln_1p(), 1.0 / (1.0 + a)),
        Op::Sqrt => chain(a.sqrt(), 0.5 / a.sqrt()),
        Op::Tanh => chain(a.tanh(), 1.0 / (a.cosh() * a.cosh())),
        Op::Sigmoid => chain(sigmoid(a), sigmoid(a) * sigmoid(-a)),
        Op::LogSigmoid => chain(-softplus(-a), sigmoid(-a)),
        Op::Softplus => chain(softplus(a), sigmoid(a)),
        // cosh a = 1 + 2·sinh²(a/2)
        Op::LogCosh if a.abs() < 1.0 => chain((2.0 * (0.5 * a).sinh().powi(2)).ln_1p(), a.tanh()),
        Op::LogCosh => chain(a.abs() + (-2.0 * a.abs()).exp().ln_1p() - 2f64.ln(), a.tanh()),
        Op::Erf => chain(erf(a), std::f64::consts::FRAC_2_SQRT_PI * (-a * a).exp()),
        Op::Atan => chain(a.atan(), 1.0 / (1.0 + a * a)),
        Op::Floor => chain(a.floor(), 0.0),
        Op::Lgamma => chain(lgamma(a), digamma(a)),
        Op::Digamma => chain(digamma(a), trigamma(a)),
        Op::Relu => chain(a.max(0.0), f64::from(u8::from(a > 0.0))),
        Op::Add => [a + b, da + db],
        Op::Sub => [a - b, da - db],
        Op::Mul => [a * b, da * b + a * db],
        Op::Times => {
            let times = |a: f64, b: f64| if a == 0.0 && b.is_infinite() { 0.0 } else { a * b };
            [times(a, b), times(da, b) + times(db, a)]
        }
        Op::Div => [a / b, (da - a / b * db) / b],
        Op::Pow if a.is_nan() || b.is_nan() => NAN,
        Op::Pow => {
            let by_base = if da == 0.0 || b == 0.0 { 0.0 } else { b * a.powf(b - 1.0) * da };
            let by_exponent = if db == 0.0 { 0.0 } else { a.powf(b) * a.ln() * db };
            [a.powf(b), by_base + by_exponent]
        }
        Op::Maximum | Op::Minimum if a.is_nan() || b.is_nan() => NAN,
        Op::Maximum | Op::Minimum if a == b => [a, 0.5 * (da + db)],
        Op::Maximum => {
            if a > b {
                [a, da]
            } else {
                [b, db]
            }
        }
        Op::Minimum => {
            if a < b {
                [a, da]
            } else {
                [b, db]
            }
        }
        _ if a == 0.0 && !b.is_nan() => [0.0, da * b.ln()],
        _ => [a * b.ln(), da * b.ln() + a / b * db],
    }
}

/// A value within bounds, of which the upper one counts where they are in the wrong order; at a bound it is itself.
pub fn clamp(x: Dual, low: Dual, high: Dual) -> Dual {
    if x[0].is_nan() || low[0].is_nan() || high[0].is_nan() {
        return NAN;
    }
    let raised = if x[0] < low[0] { low } else { x };
    if raised[0] > high[0] { high } else { raised }
}

/// A row to one number.
pub fn fold_row(fold: Fold, x: &[Dual]) -> Dual {
    if x.iter().any(|x| x[0].is_nan()) {
        return NAN;
    }
    let n = x.len() as f64;
    let sum = x.iter().fold([0.0; 2], |sum, x| [sum[0] + x[0], sum[1] + x[1]]);
    let extreme = |better: fn(f64, f64) -> f64| {
        let most = x.iter().map(|x| x[0]).reduce(better).unwrap_or(f64::NAN);
        let ties: Vec<f64> = x.iter().filter(|x| x[0] == most).map(|x| x[1]).collect();
        [most, ties.iter().sum::<f64>() / ties.len() as f64]
    };
    match fold {
        Fold::Sum => sum,
        Fold::Mean => [sum[0] / n, sum[1] / n],
        Fold::Max => extreme(f64::max),
        Fold::Min => extreme(f64::min),
        Fold::ArgMax => {
            let most = extreme(f64::max)[0];
            [x.iter().position(|x| x[0] == most).unwrap_or(0) as f64, 0.0]
        }
        Fold::LogSumExp | Fold::LogSumExpShifted => {
            let most = extreme(f64::max)[0];
            let total: f64 = x.iter().map(|x| (x[0] - most).exp()).sum();
            let slope = x.iter().map(|x| (x[0] - most).exp() / total * x[1]).sum();
            [total.ln() + if fold == Fold::LogSumExp { most } else { 0.0 }, slope]
        }
        Fold::TopK(k) => {
            let mut sorted: Vec<f64> = x.iter().map(|x| x[0]).collect();
            sorted.sort_by(|a, b| b.total_cmp(a));
            let ties: Vec<f64> = x.iter().filter(|x| x[0] == sorted[k as usize - 1]).map(|x| x[1]).collect();
            [sorted[k as usize - 1], ties.iter().sum::<f64>() / ties.len() as f64]
        }
        Fold::Sparsemax | Fold::Entmax15 => threshold(x, fold == Fold::Entmax15),
    }
}

/// The threshold of a sparsemax or an entmax, by bisection: what is above it adds up to 1. Of the sum's slope its own.
fn threshold(x: &[Dual], is_entmax: bool) -> Dual {
    let (scale, power) = if is_entmax { (0.5, 2) } else { (1.0, 1) };
    let top = scale * x.iter().map(|x| x[0]).fold(f64::NEG_INFINITY, f64::max);
    if !top.is_finite() {
        return NAN;
    }
    // Relative to the largest element.
    let above = |at: f64| x.iter().map(move |x| ((scale * x[0] - top) - at).max(0.0));
    let (mut low, mut high) = (-1.0, 0.0);
    for _ in 0..200 {
        let middle = 0.5 * (low + high);
        let is_low = above(middle).map(|rest| rest.powi(power)).sum::<f64>() > 1.0;
        (low, high) = if is_low { (middle, high) } else { (low, middle) };
    }
    let weight = |rest: f64| if rest > 0.0 { rest.powi(power - 1) } else { 0.0 };
    let all: f64 = above(low).map(weight).sum();
    let slope: f64 =
        above(low).zip(x).map(|(rest, x)| if rest > 0.0 { weight(rest) * scale * x[1] } else { 0.0 }).sum();
    [top + low, slope / all]
}

/// A scan of a row; of a linear one, the decays come second. A NaN that it reads makes the whole row NaN.
pub fn scan_row(scan: Scan, along: Direction, operands: &[Vec<Dual>]) -> Vec<Dual> {
    let n = operands[0].len();
    if operands.iter().flatten().any(|x| x[0].is_nan()) {
        return vec![NAN; n];
    }
    let mut y = vec![[0.0; 2]; n];
    for step in 0..n {
        let column = |step: usize| if along == Direction::Forward { step } else { n - 1 - step };
        let x = operands[0][column(step)];
        let before = step.checked_sub(1).map(&column);
        y[column(step)] = match (scan, before) {
            (Scan::Shift, before) => before.map_or([0.0; 2], |before| operands[0][before]),
            (_, None) => x,
            (Scan::Decay, _) => unreachable!("gradients alone hold it"),
            (Scan::Sum, Some(before)) => apply(Op::Add, x, y[before]),
            (Scan::LogSumExp, Some(before)) => fold_row(Fold::LogSumExp, &[y[before], x]),
            (Scan::Linear, Some(before)) => apply(Op::Add, x, apply(Op::Mul, operands[1][column(step)], y[before])),
        };
    }
    y
}

/// Folds over the partners of each element of a row. A NaN that a pair takes makes the whole row NaN.
pub fn pairs_row(pairs: Pairs, a: &[Dual], b: &[Dual], m: &[Dual]) -> Vec<Dual> {
    let n = a.len();
    let is_taken = |j: usize, k: usize| pairs != Pairs::Above || m[j][0] > m[k][0];
    let reads_m = pairs == Pairs::Above && m.iter().any(|m| m[0].is_nan());
    let is_nan = |j: usize, k: usize| is_taken(j, k) && (a[j][0].is_nan() || b[k][0].is_nan());
    if reads_m || (0..n).any(|j| (0..n).any(|k| is_nan(j, k))) {
        return vec![NAN; n];
    }
    let fold = |j: usize| {
        let taken: Vec<usize> = (0..n).filter(|k| is_taken(j, *k)).collect();
        let gap = |k: &usize| apply(Op::Sub, a[j], b[*k]);
        let sum = |terms: &mut dyn Iterator<Item = Dual>| terms.fold([0.0; 2], |sum, x| apply(Op::Add, sum, x));
        match pairs {
            Pairs::Product => sum(&mut taken.iter().map(|k| apply(Op::Mul, a[j], b[*k]))),
            Pairs::Above => sum(&mut taken.iter().map(|k| apply(Op::Tanh, gap(k), [0.0; 2]))),
            Pairs::LogSumExp => fold_row(Fold::LogSumExp, &taken.iter().map(gap).collect::<Vec<Dual>>()),
        }
    };
    (0..n).map(fold).collect()
}

/// A row in the order of its keys, equal ones by their column, or `back` from it.
pub fn sorted_row(order: Order, back: bool, x: &[Dual], keys: &[Dual]) -> Vec<Dual> {
    let n = x.len();
    if x.iter().chain(keys).any(|x| x[0].is_nan()) {
        return vec![NAN; n];
    }
    let mut columns: Vec<usize> = (0..n).collect();
    columns.sort_by(|&a, &b| {
        let by = keys[a][0].partial_cmp(&keys[b][0]).expect("no key is NaN");
        if order == Order::Ascending { by } else { by.reverse() }
    });
    let mut y = vec![[0.0; 2]; n];
    for (rank, column) in columns.into_iter().enumerate() {
        let (from, to) = if back { (rank, column) } else { (column, rank) };
        y[to] = x[from];
    }
    y
}

/// The softmax of a row, or its logarithm.
pub fn softmax(x: &[Dual], is_log: bool) -> Vec<Dual> {
    let [lse, slope] = fold_row(Fold::LogSumExp, x);
    let one = |[x, dx]: &Dual| {
        let log = x - lse;
        if is_log { [log, dx - slope] } else { [log.exp(), log.exp() * (dx - slope)] }
    };
    x.iter().map(one).collect()
}
