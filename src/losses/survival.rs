//! Losses of times until an event, some of which are censored: all that is known of these is that the event came later.

use super::entry::{Entry, Range};
use super::options::loss_with_options;
use crate::expr::{Direction, Expr, Extent, Order};
use crate::loss::Value::Word;
use crate::loss::{Build, DefinitionBuilder, Denominator, Loss, Unreduced};
use crate::shape::{RowAxis, Scope};

pub(super) const ENTRIES: &[Entry] = &[
    Entry::new("cox_partial_likelihood", || cox_partial_likelihood().into())
        .inputs(&[("input", Range::Logits), ("event", Range::Binary), ("time", Range::Positive)])
        .variants(&[&[("ties", Word("efron"))]]),
    Entry::new("cox_partial_likelihood_sorted", cox_partial_likelihood_sorted).inputs(&[
        ("input", Range::Logits),
        ("event", Range::Binary),
        ("time", Range::Ascending),
    ]),
];

fn of_subjects(name: &str) -> DefinitionBuilder {
    let definition = Loss::define(name).row_axis(RowAxis::Last);
    ["input", "event", "time"].into_iter().fold(definition, |d, name| d.input(name, Scope::Element))
}

/// Negative partial log-likelihood of Cox's proportional hazards.
///
/// `L = Σᵢ δᵢ·(ln Σ_{j∈Rᵢ} exp xⱼ − xᵢ)`, with `x = input` the logarithms of hazards, `δ = event` and the risk set
/// `Rᵢ = {j: timeⱼ ≥ timeᵢ}`. Of the `d` events of one time the `l`-th, from 0 on, has all of these at risk (`ties` breslow), or all
/// but the share `l/d` of their hazards: `ln(Σ_{j∈Rᵢ} exp xⱼ − l/d·Σ_{events k of timeᵢ} exp x_k)` (efron).
///
/// Shapes: `input, event, time: [N]`, or `[cohorts, N]`, each cohort by itself → loss per cohort. `event` is 1 where the event
/// was seen and 0 where the subject is censored. Unit: nats; the mean divides by the number of events of all cohorts, or by 1 if
/// there is none.
/// Gradient: of the whole expression with respect to `input`, as of [`cox_partial_likelihood_sorted`]; none with respect to `time`.
/// Options: `ties`, `breslow` (the default) or `efron`.
/// Cost: a sort and four scans, with `efron` seven (see [`Expr::argsort`]); [`cox_partial_likelihood_sorted`] does without the sort.
/// Errors: `Error::Param` unless `ties` is one of these words.
/// Source: Cox (1972), J. R. Stat. Soc. B 34(2); Breslow (1974), Biometrics 30(1); Efron (1977), J. Am. Stat. Assoc. 72(359).
/// Same as torchsurv's `neg_partial_log_likelihood`, whose default is efron; pycox takes tied times in any order.
///
/// ```
/// use wgloss::{HostTensor, Reduction, cpu, losses};
/// // The first and third subjects have one time.
/// let (x, time) = (HostTensor::f32(&[0.0; 3], &[3]), HostTensor::f32(&[2.0, 1.0, 2.0], &[3]));
/// let of = |ties: &str| {
///     let inputs = [("input", x.clone()), ("event", HostTensor::f32(&[1.0; 3], &[3])), ("time", time.clone())];
///     let loss = losses::cox_partial_likelihood().ties(ties).reduction(Reduction::Sum);
///     cpu::forward_backward(&loss, &inputs, &[])?.loss()
/// };
/// assert!((of("breslow")? - (3.0 * 2.0 * 2f64).ln()).abs() < 1e-12);
/// assert!((of("efron")? - (3.0 * 2.0 * 1f64).ln()).abs() < 1e-12);
/// # Ok::<(), wgloss::Error>(())
/// ```
pub fn cox_partial_likelihood() -> CoxPartialLikelihood {
    let loss = of_subjects("cox_partial_likelihood").words("ties", &["breslow", "efron"]).unreduced(|b| {
        let (x, event) = (b.input("input"), b.input("event"));
        let ranking = b.input("time").argsort(Order::Ascending);
        let times = Times::new(b.input("time").detach().in_order_of(ranking));
        // Shifts of all hazards cancel: this one leaves digits for the differences.
        let (x, of_event) = ((x - x.max().detach()).in_order_of(ranking), event.in_order_of(ranking));
        let at_risk = times.at_risk(x);
        let hazard = match b.word("ties") {
            "efron" => at_risk + times.tied(x - at_risk, of_event).log1p(),
            _ => at_risk,
        };
        let value = of_event.times(hazard - x).sum();
        Unreduced { value, denominator: Denominator::Total(event.sum().sum_over(Scope::Total).maximum(1.0)) }
    });
    CoxPartialLikelihood(loss)
}

loss_with_options! {
    /// The loss that [`cox_partial_likelihood`] makes.
    CoxPartialLikelihood {
        /// How events of one time count: `breslow` (the default) or `efron`, else `Error::Param`.
        word ties;
    }
}

/// Negative partial log-likelihood of Cox's proportional hazards, of subjects in ascending order of time.
///
/// `L = Σᵢ δᵢ·(ln Σ_{j∈Rᵢ} exp xⱼ − xᵢ)`, with `x = input` the logarithms of hazards, `δ = event` and the risk set
/// `Rᵢ = {j: timeⱼ ≥ timeᵢ}`: with equal times, all of these are at risk (Breslow).
///
/// Shapes: `input, event, time: [N]`, or `[cohorts, N]`, each cohort by itself → loss per cohort. `event` is 1 where the event
/// was seen and 0 where the subject is censored. Unit: nats; the mean divides by the number of events of all cohorts, and is
/// 0/0 = NaN of none.
/// Gradient: `Σ_{i: j∈Rᵢ} δᵢ·exp(xⱼ − ln Σ_{k∈Rᵢ} exp x_k) − δⱼ` with respect to `input`; none with respect to `time`.
/// A row whose times do not ascend is NaN.
/// Cost: four scans (see [`Expr::scan_sum`]), whatever the number of subjects.
/// Source: as [`cox_partial_likelihood`], which sorts.
///
/// ```
/// use wgloss::{HostTensor, Reduction, cpu, losses};
/// // The second and third subjects have one time: both are at risk for both.
/// let (x, event) = (HostTensor::f32(&[0.0; 3], &[3]), HostTensor::f32(&[1.0, 1.0, 1.0], &[3]));
/// let inputs = [("input", x), ("event", event), ("time", HostTensor::f32(&[1.0, 2.0, 2.0], &[3]))];
/// let loss = losses::cox_partial_likelihood_sorted().reduction(Reduction::Sum);
/// let out = cpu::forward_backward(&loss, &inputs, &["input"])?;
/// assert!((out.loss()? - 12f64.ln()).abs() < 1e-12 && (out.grad("input")?[0] + 2.0 / 3.0).abs() < 1e-12);
/// # Ok::<(), wgloss::Error>(())
/// ```
pub fn cox_partial_likelihood_sorted() -> Loss {
    of_subjects("cox_partial_likelihood_sorted").unreduced(|b| {
        let (x, event) = (b.input("input"), b.input("event"));
        // Shifts of all hazards cancel: this one leaves digits for the differences.
        let x = x - x.max().detach();
        let each = event.times(Times::new(b.input("time").detach()).at_risk(x) - x);
        Unreduced { value: in_order(b, each.sum()), denominator: Denominator::Sum(event.sum()) }
    })
}

/// Subjects in ascending order of time.
struct Times<'g> {
    /// Whether a subject is the first, and the last, of its time.
    is_first: Expr<'g>,
    is_last: Expr<'g>,
}

impl<'g> Times<'g> {
    fn new(time: Expr<'g>) -> Times<'g> {
        let (graph, col) = (time.graph(), time.graph().col_index());
        let is_last_col = (col.to_float() + 1.0).equals(graph.count(Extent::Cols));
        let changes = |along: Direction| !time.equals(time.shift(along));
        Times {
            is_first: col.equals(graph.index(0)).or(changes(Direction::Forward)),
            is_last: is_last_col.or(changes(Direction::Reverse)),
        }
    }

    /// The value of the first subject of each time, for all of that time.
    fn of_first(&self, x: Expr<'g>) -> Expr<'g> {
        self.is_first.select(x, 0.0).scan_linear(self.is_first.select(0.0, 1.0), Direction::Forward)
    }

    /// The value of the last.
    fn of_last(&self, x: Expr<'g>) -> Expr<'g> {
        self.is_last.select(x, 0.0).scan_linear(self.is_last.select(0.0, 1.0), Direction::Reverse)
    }

    /// The sum over the subjects of each time up to each.
    fn up_to(&self, x: Expr<'g>) -> Expr<'g> {
        x.scan_linear(self.is_first.select(0.0, 1.0), Direction::Forward)
    }

    /// The logarithm of the sum of hazards from the first subject of the same time on.
    fn at_risk(&self, x: Expr<'g>) -> Expr<'g> {
        self.of_first(x.scan_logsumexp(Direction::Reverse))
    }

    /// `−l/d·Σ exp x` over the events of the time of each, of which it is the `l`-th of `d`, from 0 on.
    fn tied(&self, x: Expr<'g>, event: Expr<'g>) -> Expr<'g> {
        let is_event = event.gt(0.0);
        let (hazards, counts) = (self.up_to(is_event.select(x.exp(), 0.0)), self.up_to(is_event.to_float()));
        let share = (counts - 1.0) / self.of_last(counts);
        is_event.select(-(share * self.of_last(hazards)), 0.0)
    }
}

/// The value of a row, or NaN where its times do not ascend.
fn in_order<'g>(b: &Build<'g>, value: Expr<'g>) -> Expr<'g> {
    let (time, col) = (b.input("time").detach(), b.graph().col_index());
    let is_late = time.lt(time.shift(Direction::Forward)).and(!col.equals(b.graph().index(0)));
    is_late.to_float().max().gt(0.0).select(f64::NAN, value)
}
