//! Divergences between distributions, and distillation, which minimises one.

use super::KERAS_EPSILON;
use super::entry::{Entry, Range};
use super::options::loss_with_options;
use super::softmax::{label_nll, over_labels, scaled};
use super::{of_input_and_target, of_true_and_predicted};
use crate::expr::Expr;
use crate::loss::Value::{Flag, Index, Num};
use crate::loss::{Domain, Loss, ParamValue};
use crate::shape::RowAxis;
use crate::shape::Scope;

pub(super) const ENTRIES: &[Entry] = &[
    Entry::new("kl_div", || kl_div().into())
        .inputs(&[("input", Range::LogProbability), ("target", Range::Probability)])
        .inputs_where(&[("log_target", Flag(true), &[("target", Range::LogProbability)])])
        .variants(&[&[("log_target", Flag(true))]]),
    Entry::new("jsd", || jsd(0.5).into())
        .inputs(&[("input", Range::LogProbability), ("target", Range::LogProbability)])
        .variants(&[&[("beta", Num(0.1))], &[("beta", Num(0.0))], &[("beta", Num(1.0))]]),
    Entry::new("kl_divergence", kl_divergence)
        .inputs(&[("y_true", Range::Probability), ("y_pred", Range::Probability)]),
    Entry::new("generalized_kl", generalized_kl)
        .inputs(&[("log_predictions", Range::LogProbability), ("targets", Range::Positive)]),
    Entry::new("tvd", tvd).inputs(&[("input", Range::Probability), ("target", Range::Probability)]),
    Entry::new("distillation", || distillation(0.5, 2.0).into())
        .inputs(&[("student_logits", Range::Logits), ("teacher_logits", Range::Logits)])
        .variants(&[
            &[("alpha", Num(1.0)), ("temperature", Num(3.0))],
            &[("alpha", Num(0.3)), ("temperature", Num(1.0))],
            &[("alpha", Num(0.8)), ("temperature", Num(0.7)), ("ignore_index", Index(Some(1)))],
        ]),
];

/// Kullback–Leibler divergence, element by element, of log-probabilities `input` from `target`.
///
/// `L = t·ln t − t·x` (0·ln 0 is 0), or with `log_target` `exp(t)·(t − x)`; `x = input`, `t = target`.
///
/// Shapes: `input, target` of one shape → loss of that shape. Unit: nats; the mean divides by the number of
/// elements. `Reduction::BatchMean`, which divides by the size of the first axis, gives the divergence itself.
/// Gradient: `−t`, or `−exp(t)`, with respect to `input`; `ln t + 1 − x`, or `exp(t)·(t − x + 1)`, with respect to
/// `target` (NaN at `t = 0`, as in PyTorch).
/// Options: `log_target` (false).
/// An `input` of −∞ is probability zero, as a `target` of 0, or of −∞ with `log_target`, is: where the target has none the
/// loss is 0 (in PyTorch NaN, where both are zero), else +∞.
/// Source: Kullback and Leibler (1951), Ann. Math. Statist. 22(1). Same as `torch.nn.functional.kl_div`.
///
/// ```
/// use wgloss::{HostTensor, Reduction, cpu, losses};
/// let log_half = [0.5f32.ln(); 2];
/// let (x, t) = (HostTensor::f32(&log_half, &[1, 2]), HostTensor::f32(&[1.0, 0.0], &[1, 2]));
/// let loss = losses::kl_div().reduction(Reduction::BatchMean);
/// let out = cpu::forward_backward(&loss, &[("input", x), ("target", t)], &["input"])?;
/// assert!((out.loss()? - 2f64.ln()).abs() < 1e-7);
/// assert_eq!(out.grad("input")?, [-1.0, 0.0]);
/// # Ok::<(), wgloss::Error>(())
/// ```
pub fn kl_div() -> KlDiv {
    let loss = of_input_and_target("kl_div").flag("log_target", false).expr(|b| {
        let (x, t) = (b.input("input"), b.input("target"));
        if b.flag("log_target") { relative_entropy(t, x) } else { t.xlogy(t) - t.times(x) }
    });
    KlDiv(loss)
}

loss_with_options! {
    /// The loss that [`kl_div`] makes.
    KlDiv {
        /// Whether `target` is given as logarithms, the second of the two formulas; false by default.
        flag log_target;
    }
}

/// Generalised Jensen–Shannon divergence of log-probabilities: of a student's `input` and a teacher's `target`.
///
/// `L = Σⱼ β·Pⱼ·(ln Pⱼ − ln Mⱼ) + (1 − β)·Qⱼ·(ln Qⱼ − ln Mⱼ)`, with `ln Q = input`, `ln P = target` and
/// `M = β·P + (1 − β)·Q`; at `β = 0` it is `Σ P·(ln P − ln Q)`, at `β = 1` `Σ Q·(ln Q − ln P)`. 0·ln 0 is 0.
///
/// Shapes: `input, target: [rows, cols]`, the last axis a distribution → loss `[rows]`. Unit: nats; the mean divides
/// by the number of rows, as `Reduction::BatchMean` does where there is one axis of rows.
/// Gradient: `(1 − β)·Q·(ln Q − ln M)` with respect to `input`, `β·P·(ln P − ln M)` with respect to `target`. At
/// `β = 0` they are `−P` and `P·(ln P − ln Q + 1)`, at `β = 1` `Q·(ln Q − ln P + 1)` and `−Q`.
/// An entry of −∞ is probability zero. Between 0 and 1 that always gives a finite loss; at `β = 0` and 1 the loss is
/// +∞ where the second distribution lacks what the first has (on the GPU, what f32 knows of it: `exp(−104)` is 0).
/// Errors: `Error::Param` unless `beta` is in \[0, 1\].
/// Source: Agarwal et al. (2024), GKD, arXiv:2306.13649; Lin (1991), IEEE Trans. Inf. Theory 37(1). Same as
/// `LigerJSD` and TRL's `generalized_jsd_loss`.
///
/// ```
/// use wgloss::{HostTensor, cpu, losses};
/// let (certain_of_0, certain_of_1) = ([0.0, f32::NEG_INFINITY], [f32::NEG_INFINITY, 0.0]);
/// let (q, p) = (HostTensor::f32(&certain_of_0, &[1, 2]), HostTensor::f32(&certain_of_1, &[1, 2]));
/// let out = cpu::forward_backward(&losses::jsd(0.5), &[("input", q), ("target", p)], &["input"])?;
/// assert!((out.loss()? - 2f64.ln()).abs() < 1e-12);
/// let d_input = out.grad("input")?;
/// assert!((d_input[0] - 0.5 * 2f64.ln()).abs() < 1e-12 && d_input[1] == 0.0);
/// # Ok::<(), wgloss::Error>(())
/// ```
pub fn jsd(beta: impl Into<ParamValue>) -> Jsd {
    let definition = of_input_and_target("jsd").row_axis(RowAxis::Last);
    let loss = definition.structural_param("beta", 0.5, Domain::Unit, &[0.0, 1.0]).expr(|b| {
        let (x, y) = (b.input("input"), b.input("target"));
        match b.value("beta") {
            Some(0.0) => relative_entropy(y, x).sum(),
            Some(1.0) => relative_entropy(x, y).sum(),
            _ => mixture_divergence(x, y, b.param("beta")).sum(),
        }
    });
    Jsd(loss).beta(beta)
}

loss_with_options! {
    /// The loss that [`jsd`] makes.
    Jsd {
        /// `β`, the share of `P` in the mixture `M`; in \[0, 1\], of which 0 and 1 (other formulas) need plans of their
        /// own, else `Error::Param`. No default: [`jsd`]'s argument.
        number beta;
    }
}

/// `exp(a)·(a − b)`, and 0 where `exp(a)` is.
fn relative_entropy<'g>(a: Expr<'g>, b: Expr<'g>) -> Expr<'g> {
    let p = a.exp();
    p * where_positive(p, a - b)
}

/// `x` where the probability `p` is not 0: what multiplies a probability of 0 may be infinite.
fn where_positive<'g>(p: Expr<'g>, x: Expr<'g>) -> Expr<'g> {
    p.gt(0.0).select(x, 0.0)
}

/// `βP(ln P − ln M) + (1 − β)Q(ln Q − ln M)` of `x = ln Q` and `y = ln P`.
fn mixture_divergence<'g>(x: Expr<'g>, y: Expr<'g>, beta: Expr<'g>) -> Expr<'g> {
    let (q, p) = (x.exp(), y.exp());
    let q_is_larger = x.ge(y);
    let gap = (x - y).abs();
    // ln M is counted from the larger of the two logarithms, to which the share of the smaller is little to add.
    let share_of_smaller = q_is_larger.select(beta, 1.0 - beta);
    let larger = -(share_of_smaller * (-gap).expm1()).log1p();
    let smaller = larger - gap;
    let log_q_over_m = where_positive(q, q_is_larger.select(larger, smaller));
    let log_p_over_m = where_positive(p, q_is_larger.select(smaller, larger));
    let d_x = (1.0 - beta) * q * log_q_over_m;
    let d_y = beta * p * log_p_over_m;
    // What the derivatives have through M adds up to zero; left to rounding, it would drown near-equal distributions.
    let d_beta = p * log_p_over_m - q * log_q_over_m - (p - q);
    (d_x + d_y).with_gradient(x, d_x).with_gradient(y, d_y).with_gradient(beta, d_beta)
}

/// Kullback–Leibler divergence of the probabilities `y_pred` from `y_true`, in Keras's form.
///
/// `L = Σⱼ tⱼ·ln(tⱼ/pⱼ)` over the last axis, with `t = y_true` and `p = y_pred`, both clipped to \[1e-7, 1\].
///
/// Shapes: `y_true, y_pred: [rows, cols]` → loss `[rows]`; as in Keras, one of them may lack a last axis of size 1.
/// Unit: nats.
/// Gradient: `−t/p` with respect to `y_pred`, `ln(t/p) + 1` with respect to `y_true`; 0 where the one is clipped, half at a
/// bound.
/// Source: same as `keras.losses.KLDivergence`; [`kl_div`] takes logarithms, and has no clip.
///
/// ```
/// use wgloss::{HostTensor, cpu, losses};
/// let (t, p) = (HostTensor::f32(&[0.5, 0.5], &[1, 2]), HostTensor::f32(&[0.25, 0.75], &[1, 2]));
/// let out = cpu::forward_backward(&losses::kl_divergence(), &[("y_true", t), ("y_pred", p)], &["y_pred"])?;
/// assert!((out.loss()? - 0.5 * (4f64 / 3.0).ln()).abs() < 1e-12);
/// assert!(out.grad("y_pred")?[0] == -2.0 && (out.grad("y_pred")?[1] + 2.0 / 3.0).abs() < 1e-12);
/// # Ok::<(), wgloss::Error>(())
/// ```
pub fn kl_divergence() -> Loss {
    of_true_and_predicted("kl_divergence").expr(|b| {
        let [t, p] = ["y_true", "y_pred"].map(|name| b.input(name).maximum(KERAS_EPSILON).minimum(1.0));
        (t * (t / p).log()).sum()
    })
}

/// Generalised Kullback–Leibler divergence (I-divergence), of masses that need not add up to one.
///
/// `L = Σⱼ tⱼ·(ln tⱼ − xⱼ) + exp(xⱼ) − tⱼ` over the last axis, with `x = log_predictions` and `t = targets`. 0·ln 0 is 0.
///
/// Shapes: `log_predictions, targets: [..., cols]` → loss `[...]`; another axis by `row_axis`, or as in optax by
/// `.option("axis", 0)`. Unit: nats.
/// Gradient: `exp(x) − t` with respect to `log_predictions`, `ln t − x` with respect to `targets`, −∞ at `t = 0`.
/// An `x` of −∞ is no mass: with a target of 0 its term is 0, with any other +∞.
/// Source: Csiszár (1991). Same as `optax.losses.generalized_kl_divergence`; the sum of [`kl_div`] and what the masses differ
/// by.
///
/// ```
/// use wgloss::{HostTensor, cpu, losses};
/// let (x, t) = (HostTensor::f32(&[0.0, 0.0], &[1, 2]), HostTensor::f32(&[1.0, 0.0], &[1, 2]));
/// let inputs = [("log_predictions", x), ("targets", t)];
/// let out = cpu::forward_backward(&losses::generalized_kl(), &inputs, &["log_predictions"])?;
/// assert_eq!((out.loss()?, out.grad("log_predictions")?), (1.0, &[0.0, 1.0][..]));
/// # Ok::<(), wgloss::Error>(())
/// ```
pub fn generalized_kl() -> Loss {
    let definition = Loss::define("generalized_kl").row_axis(RowAxis::Last).input("log_predictions", Scope::Element);
    definition.input("targets", Scope::Element).expr(|b| {
        let (x, t) = (b.input("log_predictions"), b.input("targets"));
        let gap = x.exp() - t;
        let value = t.xlogy(t) - t.times(x) + gap;
        value.with_gradient(x, gap).with_gradient(t, t.log() - x).sum()
    })
}

/// Total variation distance of probabilities, element by element.
///
/// `L = |r|/2`, with `r = input − target`.
///
/// Shapes: `input, target` of one shape → loss of that shape. Unit: none; the mean divides by the number of
/// elements. `Reduction::BatchMean`, which divides by the size of the first axis, gives the distance itself.
/// Gradient: `sign(r)/2` with respect to `input`; 0 at `r = 0` (in Liger −1/2).
/// Source: formula. Same as `LigerTVDLoss` but for equal entries.
///
/// ```
/// use wgloss::{HostTensor, Reduction, cpu, losses};
/// let (q, p) = (HostTensor::f32(&[1.0, 0.0, 0.0], &[1, 3]), HostTensor::f32(&[0.0, 1.0, 0.0], &[1, 3]));
/// let loss = losses::tvd().reduction(Reduction::BatchMean);
/// let out = cpu::forward_backward(&loss, &[("input", q), ("target", p)], &["input"])?;
/// assert_eq!((out.loss()?, out.grad("input")?), (1.0, &[0.5, -0.5, 0.0][..]));
/// # Ok::<(), wgloss::Error>(())
/// ```
pub fn tvd() -> Loss {
    of_input_and_target("tvd").expr(|b| 0.5 * (b.input("input") - b.input("target")).abs())
}

/// Knowledge distillation: a student's logits against a teacher's, and against labels.
///
/// `L = α·T²·Σⱼ pⱼ·(ln pⱼ − ln qⱼ) + (1 − α)·(ln Σⱼ exp xⱼ − x_y)`, with `x = student_logits`,
/// `p = softmax(teacher_logits/T)`, `q = softmax(x/T)`, `T = temperature` and `y = target`. 0·ln 0 is 0.
///
/// Shapes: `student_logits, teacher_logits: [N, C, d1, …]` (or `[C]`), `target: [N, d1, …]` class indices
/// → loss `[N, d1, …]`. Unit: nats; the mean divides by the number of rows that are not ignored.
/// Gradient: `α·T·(q − p) + (1 − α)·(softmax(x) − onehot(y))` with respect to `student_logits`;
/// `α·T·p·(ln p − ln q − Σⱼ pⱼ·(ln pⱼ − ln qⱼ))` with respect to `teacher_logits`. Rows labelled `ignore_index` have
/// loss and gradients exactly 0. A logit of −∞ means probability zero; where only the student's is, the loss is +∞.
/// Options: `alpha` (0.5; at 0 the teacher does not count, at 1 the labels do not),
/// `temperature` (2), `ignore_index` (none).
/// Errors: `Error::Param` unless `alpha` is in \[0, 1\] and `temperature` is finite and > 0; `Error::LabelOutOfRange`
/// when a result with such a label is read.
/// Source: Hinton, Vinyals and Dean (2015), arXiv:1503.02531. The parts are [`kl_div`] and
/// [`cross_entropy`](super::cross_entropy).
///
/// ```
/// use wgloss::{HostTensor, cpu, losses};
/// let (student, teacher) = (HostTensor::f32(&[0.0, 0.0], &[1, 2]), HostTensor::f32(&[1e4, -1e4], &[1, 2]));
/// let inputs = [("student_logits", student), ("teacher_logits", teacher), ("target", HostTensor::i32(&[0], &[1]))];
/// let out = cpu::forward_backward(&losses::distillation(0.5, 2.0), &inputs, &["student_logits"])?;
/// assert!((out.loss()? - (0.5 * 4.0 + 0.5) * 2f64.ln()).abs() < 1e-12);
/// assert_eq!(out.grad("student_logits")?, [-0.75, 0.75]);
/// # Ok::<(), wgloss::Error>(())
/// ```
pub fn distillation(alpha: impl Into<ParamValue>, temperature: impl Into<ParamValue>) -> Distillation {
    let definition = Loss::define("distillation").row_axis(RowAxis::Class).input("student_logits", Scope::Element);
    let definition = definition.input("teacher_logits", Scope::Element).label("target").index("ignore_index", None);
    let definition = definition.special_param("alpha", 0.5, Domain::Unit, &[0.0, 1.0]);
    let loss = definition.special_param("temperature", 2.0, Domain::Positive, &[1.0]).unreduced(|b| {
        let (student, teacher, y) = (b.input("student_logits"), b.input("teacher_logits"), b.input("target"));
        let hard = || label_nll(student, y);
        let soft = || {
            if b.value("temperature") == Some(1.0) {
                return relative_entropy_of_softmaxes(teacher, student);
            }
            let t = b.param("temperature");
            t * t * relative_entropy_of_softmaxes(softened(teacher, t), softened(student, t))
        };
        let alpha = b.param("alpha");
        let value = match b.value("alpha") {
            Some(0.0) => hard(),
            Some(1.0) => soft(),
            _ => {
                // Without a share, the teacher has no gradient, where it would be infinite too.
                let soft = soft();
                let counted = soft.straight_through(soft.masked(!alpha.equals(0.0)));
                alpha.times(counted) + (1.0 - alpha).times(hard())
            }
        };
        over_labels(b, value, None)
    });
    Distillation(loss).alpha(alpha).temperature(temperature)
}

loss_with_options! {
    /// The loss that [`distillation`] makes.
    Distillation {
        /// `α`, the share of the teacher; in \[0, 1\], else `Error::Param`. No default: [`distillation`]'s argument.
        number alpha;
        /// `T`, which divides the logits of both before the softmax; finite and > 0, else `Error::Param`. No default:
        /// [`distillation`]'s argument.
        number temperature;
        /// Labels of this value are left out: loss and gradient exactly 0, and not in the mean. None (no label is) or any
        /// index; none by default.
        index ignore_index;
        /// The axis of the classes: 1, as in PyTorch (the default), or the last one: `[N, d1, …, C]`.
        axis class_axis;
    }
}

/// Logits over the temperature. The row's maximum comes off first: divided, a large common offset would round the
/// differences away.
fn softened<'g>(x: Expr<'g>, temperature: Expr<'g>) -> Expr<'g> {
    scaled(x - x.max().detach(), None, Some(temperature))
}

/// `Σⱼ pⱼ(ln pⱼ − ln qⱼ)` of `p = softmax(a)` and `q = softmax(b)`.
///
/// Since Σ p = Σ q, it is also `Σⱼ pⱼ(exp δⱼ − 1 − δⱼ)` with `δ = ln q − ln p`, whose terms are of second order: where
/// the distributions are near each other nothing of first order is left to cancel.
fn relative_entropy_of_softmaxes<'g>(a: Expr<'g>, b: Expr<'g>) -> Expr<'g> {
    let (p, q) = (a.softmax(), b.softmax());
    // Below this p the term is q, and above it q/p does not overflow.
    let counts = p.gt(1e-37);
    let top = a.max().detach();
    let gap = counts.select((a - top) - (b - b.max().detach()), 0.0);
    let delta = (a.logsumexp_shifted() - b.logsumexp_shifted()) - gap;
    let value = counts.select(p * (delta.expm1() - delta), q);
    // p counts as a weight only: what the derivative has through ln p adds up to zero, as a constant does. Counted from
    // the gap where p is largest, those of a confident row keep their digits.
    let gap_at_top = a.ge(top).select(gap, -3.0e38).max().detach();
    value.with_gradient(p, gap - gap_at_top).with_gradient(b, q - p).sum()
}
