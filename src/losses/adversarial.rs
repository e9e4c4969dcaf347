//! Adversarial losses: a discriminator's, of scores of real and generated samples, and a generator's.

use super::entry::{Entry, Range, Ranges};
use super::options::loss_with_options;
use crate::expr::{Expr, Extent};
use crate::loss::{Build, DefinitionBuilder, Domain, Loss};
use crate::shape::{Scope, ShapeRule};

const LOGITS: Ranges = &[("fake", Range::Logits)];
const BOTH_LOGITS: Ranges = &[("real", Range::Logits), ("fake", Range::Logits)];
pub(super) const ENTRIES: &[Entry] = &[
    Entry::new("gan_minimax_d", gan_minimax_d).inputs(BOTH_LOGITS),
    Entry::new("gan_minimax_g", gan_minimax_g).inputs(LOGITS),
    Entry::new("gan_nonsaturating_d", gan_nonsaturating_d).inputs(BOTH_LOGITS),
    Entry::new("gan_nonsaturating_g", gan_nonsaturating_g).inputs(LOGITS),
    Entry::new("gan_lsgan_d", || gan_lsgan_d().into()),
    Entry::new("gan_lsgan_g", || gan_lsgan_g().into()),
    Entry::new("gan_hinge_d", gan_hinge_d),
    Entry::new("gan_hinge_g", gan_hinge_g),
    Entry::new("gan_wgan_d", gan_wgan_d),
    Entry::new("gan_wgan_g", gan_wgan_g),
];

/// Minimax loss of a discriminator: binary cross-entropy of real and generated samples.
///
/// `L = mean(softplus(−real)) + mean(softplus(fake))`, that is `−mean(ln D(real)) − mean(ln(1 − D(fake)))` with
/// `D = sigmoid`.
///
/// Shapes: `real, fake`: scores of any shape each, which may differ → one number. Unit: nats.
/// Gradient: `−sigmoid(−real)/N` with respect to `real`, `sigmoid(fake)/M` with respect to `fake`.
/// Source: Goodfellow et al. (2014), arXiv:1406.2661. [`gan_nonsaturating_d`] is the same.
///
/// ```
/// use wgloss::{HostTensor, cpu, losses};
/// let (real, fake) = (HostTensor::f32(&[0.0, 0.0], &[2]), HostTensor::f32(&[0.0], &[1]));
/// let inputs = [("real", real), ("fake", fake)];
/// let out = cpu::forward_backward(&losses::gan_minimax_d(), &inputs, &["real", "fake"])?;
/// assert!((out.loss()? - 2.0 * 2f64.ln()).abs() < 1e-12);
/// assert_eq!((out.grad("real")?, out.grad("fake")?), (&[-0.25, -0.25][..], &[0.5][..]));
/// # Ok::<(), wgloss::Error>(())
/// ```
pub fn gan_minimax_d() -> Loss {
    of_real_and_fake("gan_minimax_d").expr(|b| both(b, |real| (-real).softplus(), |fake| fake.softplus()))
}

/// Minimax loss of a generator: what it leaves of the discriminator's loss.
///
/// `L = −softplus(x)`, that is `ln(1 − D(x))` with `D = sigmoid` and `x = fake`.
///
/// Shapes: `fake`: scores of any shape → loss of that shape; the mean divides by the number of elements. Unit: nats.
/// Gradient: `−sigmoid(x)` with respect to `fake`: it vanishes where the discriminator is certain of `fake`.
/// Source: Goodfellow et al. (2014), arXiv:1406.2661; [`gan_nonsaturating_g`] is what is used instead.
///
/// ```
/// use wgloss::{HostTensor, cpu, losses};
/// let fake = HostTensor::f32(&[0.0, 0.0], &[2]);
/// let out = cpu::forward_backward(&losses::gan_minimax_g(), &[("fake", fake)], &["fake"])?;
/// assert!((out.loss()? + 2f64.ln()).abs() < 1e-12);
/// assert_eq!(out.grad("fake")?, [-0.25, -0.25]);
/// # Ok::<(), wgloss::Error>(())
/// ```
pub fn gan_minimax_g() -> Loss {
    of_fake("gan_minimax_g").expr(|b| -b.input("fake").softplus())
}

/// Non-saturating loss of a discriminator, which is the minimax one.
///
/// `L = mean(softplus(−real)) + mean(softplus(fake))`.
///
/// Shapes: `real, fake`: scores of any shape each, which may differ → one number. Unit: nats.
/// Gradient: `−sigmoid(−real)/N` with respect to `real`, `sigmoid(fake)/M` with respect to `fake`.
/// Source: Goodfellow et al. (2014), arXiv:1406.2661.
///
/// ```
/// use wgloss::{HostTensor, cpu, losses};
/// let (real, fake) = (HostTensor::f32(&[0.0, 0.0], &[2]), HostTensor::f32(&[0.0], &[1]));
/// let out = cpu::forward_backward(&losses::gan_nonsaturating_d(), &[("real", real), ("fake", fake)], &["fake"])?;
/// assert!((out.loss()? - 2.0 * 2f64.ln()).abs() < 1e-12);
/// assert_eq!(out.grad("fake")?, [0.5]);
/// # Ok::<(), wgloss::Error>(())
/// ```
pub fn gan_nonsaturating_d() -> Loss {
    of_real_and_fake("gan_nonsaturating_d").expr(|b| both(b, |real| (-real).softplus(), |fake| fake.softplus()))
}

/// Non-saturating loss of a generator.
///
/// `L = softplus(−x)`, that is `−ln D(x)` with `D = sigmoid` and `x = fake`.
///
/// Shapes: `fake`: scores of any shape → loss of that shape; the mean divides by the number of elements. Unit: nats.
/// Gradient: `−sigmoid(−x)` with respect to `fake`.
/// Source: Goodfellow et al. (2014), arXiv:1406.2661; [`gan_nonsaturating_d`] is its discriminator's.
///
/// ```
/// use wgloss::{HostTensor, cpu, losses};
/// let fake = HostTensor::f32(&[0.0, -80.0], &[2]);
/// let out = cpu::forward_backward(&losses::gan_nonsaturating_g(), &[("fake", fake)], &["fake"])?;
/// assert!((out.loss()? - (2f64.ln() + 80.0) / 2.0).abs() < 1e-12);
/// assert_eq!(out.grad("fake")?[0], -0.25);
/// # Ok::<(), wgloss::Error>(())
/// ```
pub fn gan_nonsaturating_g() -> Loss {
    of_fake("gan_nonsaturating_g").expr(|b| (-b.input("fake")).softplus())
}

/// Least-squares loss of a discriminator.
///
/// `L = mean((real − real_label)²)/2 + mean((fake − fake_label)²)/2`.
///
/// Shapes: `real, fake`: scores of any shape each, which may differ → one number. Unit: that of the score².
/// Gradient: `(real − real_label)/N` with respect to `real`, `(fake − fake_label)/M` with respect to `fake`.
/// Options: `real_label` (1), `fake_label` (0).
/// Errors: `Error::Param` unless both are finite.
/// Source: Mao et al. (2017), arXiv:1611.04076.
///
/// ```
/// use wgloss::{HostTensor, cpu, losses};
/// let (real, fake) = (HostTensor::f32(&[1.0, 3.0], &[2]), HostTensor::f32(&[1.0], &[1]));
/// let inputs = [("real", real), ("fake", fake)];
/// let out = cpu::forward_backward(&losses::gan_lsgan_d(), &inputs, &["real", "fake"])?;
/// assert_eq!((out.loss()?, out.grad("real")?, out.grad("fake")?), (1.5, &[0.0, 1.0][..], &[1.0][..]));
/// # Ok::<(), wgloss::Error>(())
/// ```
pub fn gan_lsgan_d() -> GanLsganD {
    let definition = of_real_and_fake("gan_lsgan_d").param("real_label", 1.0, Domain::Finite);
    let loss = definition
        .param("fake_label", 0.0, Domain::Finite)
        .expr(|b| both(b, |real| half_square(b, real, "real_label"), |fake| half_square(b, fake, "fake_label")));
    GanLsganD(loss)
}

loss_with_options! {
    /// The loss that [`gan_lsgan_d`] makes.
    GanLsganD {
        /// The score that real samples should have; finite, else `Error::Param`; 1 by default.
        number real_label;
        /// The score that generated samples should have; finite, else `Error::Param`; 0 by default.
        number fake_label;
    }
}

/// Least-squares loss of a generator.
///
/// `L = (x − real_label)²/2`, with `x = fake`.
///
/// Shapes: `fake`: scores of any shape → loss of that shape; the mean divides by the number of elements. Unit: that of the score².
/// Gradient: `x − real_label` with respect to `fake`.
/// Options: `real_label` (1).
/// Errors: `Error::Param` unless it is finite.
/// Source: Mao et al. (2017), arXiv:1611.04076; [`gan_lsgan_d`] is its discriminator's.
///
/// ```
/// use wgloss::{HostTensor, cpu, losses};
/// let fake = HostTensor::f32(&[1.0, 3.0], &[2]);
/// let out = cpu::forward_backward(&losses::gan_lsgan_g(), &[("fake", fake)], &["fake"])?;
/// assert_eq!((out.loss()?, out.grad("fake")?), (1.0, &[0.0, 1.0][..]));
/// # Ok::<(), wgloss::Error>(())
/// ```
pub fn gan_lsgan_g() -> GanLsganG {
    let definition = of_fake("gan_lsgan_g").param("real_label", 1.0, Domain::Finite);
    GanLsganG(definition.expr(|b| half_square(b, b.input("fake"), "real_label")))
}

loss_with_options! {
    /// The loss that [`gan_lsgan_g`] makes.
    GanLsganG {
        /// The score of real samples; finite, else `Error::Param`; 1 by default.
        number real_label;
    }
}

/// `(x − label)²/2`, where the label is that option.
fn half_square<'g>(b: &Build<'g>, score: Expr<'g>, label: &str) -> Expr<'g> {
    let r = score - b.param(label);
    0.5 * (r * r)
}

/// Hinge loss of a discriminator.
///
/// `L = mean(max(0, 1 − real)) + mean(max(0, 1 + fake))`.
///
/// Shapes: `real, fake`: scores of any shape each, which may differ → one number. Unit: that of the score.
/// Gradient: `−1/N` where `real < 1`, `1/M` where `fake > −1`, else 0, at the kinks too.
/// Source: Lim and Ye (2017), arXiv:1705.02894.
///
/// ```
/// use wgloss::{HostTensor, cpu, losses};
/// let (real, fake) = (HostTensor::f32(&[0.5, 2.0], &[2]), HostTensor::f32(&[-0.5], &[1]));
/// let inputs = [("real", real), ("fake", fake)];
/// let out = cpu::forward_backward(&losses::gan_hinge_d(), &inputs, &["real", "fake"])?;
/// assert_eq!((out.loss()?, out.grad("real")?, out.grad("fake")?), (0.75, &[-0.5, 0.0][..], &[1.0][..]));
/// # Ok::<(), wgloss::Error>(())
/// ```
pub fn gan_hinge_d() -> Loss {
    of_real_and_fake("gan_hinge_d").expr(|b| both(b, |real| (1.0 - real).relu(), |fake| (1.0 + fake).relu()))
}

/// Hinge loss of a generator: the negative score.
///
/// `L = −x`, with `x = fake`.
///
/// Shapes: `fake`: scores of any shape → loss of that shape; the mean divides by the number of elements. Unit: that of the score.
/// Gradient: −1 with respect to `fake`.
/// Source: Lim and Ye (2017), arXiv:1705.02894; [`gan_hinge_d`] is its discriminator's.
///
/// ```
/// use wgloss::{HostTensor, cpu, losses};
/// let fake = HostTensor::f32(&[1.0, 3.0], &[2]);
/// let out = cpu::forward_backward(&losses::gan_hinge_g(), &[("fake", fake)], &["fake"])?;
/// assert_eq!((out.loss()?, out.grad("fake")?), (-2.0, &[-0.5, -0.5][..]));
/// # Ok::<(), wgloss::Error>(())
/// ```
pub fn gan_hinge_g() -> Loss {
    of_fake("gan_hinge_g").expr(|b| -b.input("fake"))
}

/// Wasserstein loss of a critic.
///
/// `L = mean(fake) − mean(real)`.
///
/// Shapes: `real, fake`: scores of any shape each, which may differ → one number. Unit: that of the score.
/// Gradient: `−1/N` with respect to `real`, `1/M` with respect to `fake`.
/// Source: Arjovsky, Chintala and Bottou (2017), arXiv:1701.07875. Weight clipping or a gradient penalty is the trainer's.
///
/// ```
/// use wgloss::{HostTensor, cpu, losses};
/// let (real, fake) = (HostTensor::f32(&[1.0, 3.0], &[2]), HostTensor::f32(&[0.5], &[1]));
/// let inputs = [("real", real), ("fake", fake)];
/// let out = cpu::forward_backward(&losses::gan_wgan_d(), &inputs, &["real", "fake"])?;
/// assert_eq!((out.loss()?, out.grad("real")?, out.grad("fake")?), (-1.5, &[-0.5, -0.5][..], &[1.0][..]));
/// # Ok::<(), wgloss::Error>(())
/// ```
pub fn gan_wgan_d() -> Loss {
    of_real_and_fake("gan_wgan_d").expr(|b| both(b, |real| -real, |fake| fake))
}

/// Wasserstein loss of a generator: the negative score.
///
/// `L = −x`, with `x = fake`.
///
/// Shapes: `fake`: scores of any shape → loss of that shape; the mean divides by the number of elements. Unit: that of the score.
/// Gradient: −1 with respect to `fake`.
/// Source: Arjovsky, Chintala and Bottou (2017), arXiv:1701.07875; [`gan_wgan_d`] is its critic's.
///
/// ```
/// use wgloss::{HostTensor, cpu, losses};
/// let fake = HostTensor::f32(&[1.0, 3.0], &[2]);
/// let out = cpu::forward_backward(&losses::gan_wgan_g(), &[("fake", fake)], &["fake"])?;
/// assert_eq!((out.loss()?, out.grad("fake")?), (-2.0, &[-0.5, -0.5][..]));
/// # Ok::<(), wgloss::Error>(())
/// ```
pub fn gan_wgan_g() -> Loss {
    of_fake("gan_wgan_g").expr(|b| -b.input("fake"))
}

/// Begins a generator's loss.
fn of_fake(name: &str) -> DefinitionBuilder {
    Loss::define(name).input("fake", Scope::Element)
}

/// Begins a discriminator's loss: real and generated samples may differ in number.
fn of_real_and_fake(name: &str) -> DefinitionBuilder {
    let definition = Loss::define(name).input("real", Scope::Element).input("fake", Scope::Element);
    definition.shape_rule("real", ShapeRule::Apart).shape_rule("fake", ShapeRule::Apart)
}

/// `mean(f(real)) + mean(g(fake))`, of those that are there.
fn both<'g>(b: &Build<'g>, f: impl FnOnce(Expr<'g>) -> Expr<'g>, g: impl FnOnce(Expr<'g>) -> Expr<'g>) -> Expr<'g> {
    let (real, fake) = (b.optional("real").map(f), b.optional("fake").map(g));
    let each = match (real, fake) {
        (Some(real), Some(fake)) => real + fake,
        (Some(one), None) | (None, Some(one)) => one,
        (None, None) => b.graph().constant(f64::NAN),
    };
    each.sum_over(Scope::Total) / b.graph().count(Extent::Elements)
}
