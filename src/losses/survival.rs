//! Losses of times until an event, some of which are censored: all that is known of these is that the event came later.

use super::entry::{Entry, Range};
use crate::expr::{Direction, Expr};
use crate::loss::{Build, Denominator, Loss, Unreduced};
use crate::shape::{RowAxis, Scope};

pub(super) const ENTRIES: &[Entry] = &[Entry::new("cox_partial_likelihood_sorted", cox_partial_likelihood_sorted)
    .inputs(&[("input", Range::Logits), ("event", Range::Binary), ("time", Range::Ascending)])];

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
/// Source: Cox (1972), J. R. Stat. Soc. B 34(2); Breslow (1974), Biometrics 30(1). Same as torchsurv's
/// `neg_partial_log_likelihood` with `ties_method="breslow"`, which sorts.
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
    let definition = Loss::define("cox_partial_likelihood_sorted").row_axis(RowAxis::Last);
    let definition = ["input", "event", "time"].into_iter().fold(definition, |d, name| d.input(name, Scope::Element));
    definition.unreduced(|b| {
        let (x, event) = (b.input("input"), b.input("event"));
        // Shifts of all hazards cancel: this one leaves digits for the differences.
        let x = x - x.max().detach();
        let each = event.times(at_risk(b, x) - x);
        Unreduced { value: in_order(b, each.sum()), denominator: Denominator::Sum(event.sum()) }
    })
}

/// Whether a column has another time than the one before.
fn is_first_of_time<'g>(b: &Build<'g>) -> Expr<'g> {
    let (time, col) = (b.input("time").detach(), b.graph().col_index());
    col.equals(b.graph().index(0)).or(!time.equals(time.shift(Direction::Forward)))
}

/// The logarithm of the sum of hazards from the first column of the same time on.
fn at_risk<'g>(b: &Build<'g>, x: Expr<'g>) -> Expr<'g> {
    let (from_here, is_first) = (x.scan_logsumexp(Direction::Reverse), is_first_of_time(b));
    // Handed from the first column of each time to those after it.
    is_first.select(from_here, 0.0).scan_linear(is_first.select(0.0, 1.0), Direction::Forward)
}

/// The value of a row, or NaN where its times do not ascend.
fn in_order<'g>(b: &Build<'g>, value: Expr<'g>) -> Expr<'g> {
    let (time, col) = (b.input("time").detach(), b.graph().col_index());
    let is_late = time.lt(time.shift(Direction::Forward)).and(!col.equals(b.graph().index(0)));
    is_late.to_float().max().gt(0.0).select(f64::NAN, value)
}
