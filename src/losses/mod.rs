//! The catalogue, by family. Each loss is one function; its options are set on the [`Loss`] that it returns.
//!
//! | family | losses |
//! |---|---|
//! | regression | [`l1`] ([`mae`]), [`mse`], [`rmse`], [`huber`], [`smooth_l1`], [`log_cosh`], [`quantile`], [`poisson_nll`] |
//! | binary | [`bce`], [`bce_with_logits`] |
//! | softmax | [`cross_entropy`], [`z_loss`], [`softcap_cross_entropy`], [`cross_entropy_prob`], [`nll`] |
//! | focal | [`sigmoid_focal`], [`multiclass_focal`] |
//! | divergence | [`kl_div`], [`jsd`], [`tvd`], [`distillation`] |
//! | hinge | [`hinge`], [`squared_hinge`] |
//! | penalty | [`l1_penalty`], [`l2_penalty`] |
//!
//! Every loss of one value an element or a row also takes `sample_weight` and `mask` in the shape of its losses
//! (a mask of 0 leaves a loss out of value, gradient and mean), and every [`Reduction`](crate::Reduction); the
//! default is the mean. Input and option names, and what the mean divides by, are those of the library that the
//! loss is named after.

use crate::expr::Expr;
use crate::loss::{Build, DefinitionBuilder, Loss};
use crate::shape::Scope;

mod binary;
mod divergence;
mod focal;
mod hinge;
mod penalty;
mod regression;
mod softmax;

pub use binary::{bce, bce_with_logits};
pub use divergence::{distillation, jsd, kl_div, tvd};
pub use focal::{multiclass_focal, sigmoid_focal};
pub use hinge::{hinge, squared_hinge};
pub use penalty::{l1_penalty, l2_penalty};
pub use regression::{huber, l1, log_cosh, mae, mse, poisson_nll, quantile, rmse, smooth_l1};
pub use softmax::{cross_entropy, cross_entropy_prob, nll, softcap_cross_entropy, z_loss};

/// A loss's name, and the function that makes it.
pub type Entry = (&'static str, fn() -> Loss);

/// Every loss by name, with default options: δ, β and λ 1 (jsd's β 0.5), τ 0.5, z 1e-4, a softcap of 30, α 0.5 and a
/// temperature of 2.
pub const CATALOGUE: &[Entry] = &[
    ("l1", l1),
    ("mse", mse),
    ("rmse", rmse),
    ("huber", || huber(1.0)),
    ("smooth_l1", || smooth_l1(1.0)),
    ("log_cosh", log_cosh),
    ("quantile", || quantile(0.5)),
    ("poisson_nll", poisson_nll),
    ("bce", bce),
    ("bce_with_logits", bce_with_logits),
    ("cross_entropy", cross_entropy),
    ("z_loss", || z_loss(1e-4)),
    ("softcap_cross_entropy", || softcap_cross_entropy(30.0)),
    ("cross_entropy_prob", cross_entropy_prob),
    ("nll", nll),
    ("sigmoid_focal", sigmoid_focal),
    ("multiclass_focal", multiclass_focal),
    ("kl_div", kl_div),
    ("jsd", || jsd(0.5)),
    ("tvd", tvd),
    ("distillation", || distillation(0.5, 2.0)),
    ("hinge", hinge),
    ("squared_hinge", squared_hinge),
    ("l1_penalty", || l1_penalty(1.0)),
    ("l2_penalty", || l2_penalty(1.0)),
];

/// The loss of that name in [`CATALOGUE`], with default options.
///
/// ```
/// use wgloss::{Value, losses};
/// let loss = losses::by_name("huber").expect("in the catalogue").option("delta", Value::Num(0.5));
/// assert_eq!(loss.name(), "huber");
/// assert!(losses::by_name("no such loss").is_none());
/// ```
pub fn by_name(name: &str) -> Option<Loss> {
    CATALOGUE.iter().find(|(known, _)| *known == name).map(|(_, make)| make())
}

/// Begins an element-wise loss of `input` and `target`.
fn of_input_and_target(name: &str) -> DefinitionBuilder {
    Loss::define(name).input("input", Scope::Element).input("target", Scope::Element)
}

/// The value times the optional input `weight`.
fn weighted<'g>(b: &Build<'g>, value: Expr<'g>) -> Expr<'g> {
    b.optional("weight").map_or(value, |weight| weight * value)
}

/// `a·x`, and 0 where `a` is 0 and `x` infinite: what has no share does not count, however far off it is. The
/// derivatives are those of the product.
fn times<'g>(a: Expr<'g>, x: Expr<'g>) -> Expr<'g> {
    let without_share = a.equals(0.0).and(x.abs().gt(3.0e38));
    without_share.select(0.0, a * x).with_gradient(a, x).with_gradient(x, a)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_loss_is_called_what_its_function_is_called() {
        for (name, make) in CATALOGUE {
            let loss = make();
            assert_eq!(loss.name(), *name);
            assert_eq!(loss.check(), Ok(()), "{name}");
        }
    }

    #[test]
    fn parameters_outside_their_domain_come_back_as_errors() {
        let bad = [huber(0.0), huber(f64::NAN), smooth_l1(-1.0), quantile(1.5), l1_penalty(f64::INFINITY)];
        for loss in bad {
            assert!(loss.check().is_err(), "{}", loss.name());
        }
        for loss in [smooth_l1(0.0), quantile(0.0), quantile(1.0), l2_penalty(0.0), sigmoid_focal().alpha(-1.0)] {
            assert_eq!(loss.check(), Ok(()), "{}", loss.name());
        }
        assert!(sigmoid_focal().alpha(-0.5).check().is_err());
        assert!(cross_entropy().label_smoothing(1.1).check().is_err());
        assert!(cross_entropy().temperature(0.0).check().is_err());
        let bad = [cross_entropy().logit_scale(0.0), cross_entropy().softcap(-1.0), softcap_cross_entropy(0.0)];
        for loss in bad.into_iter().chain([cross_entropy().lse_square_scale(-1.0), z_loss(f64::NAN)]) {
            assert!(loss.check().is_err(), "{}", loss.name());
        }
        assert!(distillation(1.1, 1.0).check().is_err() && distillation(0.5, 0.0).check().is_err());
        assert!(jsd(1.5).check().is_err() && jsd(1.0).check().is_ok());
        assert_eq!(cross_entropy().softcap(0.0).lse_square_scale(0.0).entropy_bonus(-1.0).check(), Ok(()));
    }
}
