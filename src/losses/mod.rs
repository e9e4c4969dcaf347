//! The catalogue: each loss is one function, with its formula, shapes, gradient and source.
//!
//! A loss without options is a [`Loss`]. A loss with options is a type of its own with a setter for each, documented
//! there; an option that a loss does not have does not compile:
//!
//! ```
//! use wgloss::{Loss, Reduction, losses};
//! let loss = losses::cross_entropy().label_smoothing(0.1).ignore_index(-1).reduction(Reduction::Sum);
//! let sum: Loss = 0.7 * losses::huber(1.0) + 0.3 * losses::mse();     // one kernel
//! ```
//! ```compile_fail,E0599
//! let loss = wgloss::losses::mse().label_smoothing(0.1);              // a mean squared error has no such option
//! ```
//!
//! A number may be a scalar on the GPU instead, named like an input: `cross_entropy().temperature("t")` reads the scalar
//! bound as `t`, which may change every step, and has a gradient. The plan is then made for any value; one that turns
//! something off by another formula (`softcap` 0) needs a plan of its own. See [`ParamValue`](crate::ParamValue).
//!
//! Such a type goes wherever a [`&Loss`](Loss) goes. Where the loss is known at run time only, [`by_name`] makes it and
//! [`Loss::option`] sets its options. A value outside an option's domain is an [`Error`](crate::Error) when the loss is
//! planned.
//!
//! Predictions and targets have one shape, unless [`broadcast(true)`](crate::Loss::broadcast) lets them broadcast; weights
//! and masks broadcast. Losses over classes have these along axis 1, or by [`class_axis`](crate::Loss::class_axis) along the
//! last axis. Labels and other values per row may have a last axis of size 1 besides.
//!
//! Every loss of one value an element or a row also takes `sample_weight` and `mask` in the shape of its losses
//! (a mask of 0 leaves a loss out of value, gradient and mean), and every [`Reduction`](crate::Reduction); the
//! default is the mean. Input and option names, and what the mean divides by, are those of the library that the
//! loss is named after.

use crate::expr::Expr;
use crate::loss::{Build, DefinitionBuilder, Loss};
use crate::shape::{RowAxis, Scope, ShapeRule};

mod adversarial;
mod binary;
mod boxes;
mod categorical;
mod cumulative;
mod detection;
mod divergence;
mod dpo;
mod embedding;
mod entry;
mod focal;
mod hinge;
mod likelihood;
mod lists;
mod lovasz;
mod margin;
mod margin_softmax;
mod multiclass_margin;
mod noisy_labels;
mod options;
mod ordinal;
mod overlap;
mod penalty;
mod policy;
mod preference;
mod ranking;
mod regression;
mod relative;
mod robust;
mod segmentation;
mod sequence;
mod sigmoid;
mod softmax;
mod survival;
mod threshold;
mod value;

pub use adversarial::*;
pub use binary::*;
pub use boxes::*;
pub use categorical::*;
pub use cumulative::*;
pub use detection::*;
pub use divergence::*;
pub use dpo::*;
pub use embedding::*;
pub use entry::{Entry, Range};
pub use focal::*;
pub use hinge::*;
pub use likelihood::*;
pub use lists::*;
pub(crate) use lovasz::lovasz;
pub use lovasz::{LovaszHinge, lovasz_hinge};
pub use margin::*;
pub use margin_softmax::*;
pub use multiclass_margin::*;
pub use noisy_labels::*;
pub use ordinal::*;
pub use overlap::*;
pub use penalty::*;
pub use policy::*;
pub use preference::*;
pub use ranking::*;
pub use regression::*;
pub use relative::*;
pub use robust::*;
pub use segmentation::*;
pub use sequence::*;
pub use sigmoid::*;
pub use softmax::*;
pub use survival::*;
pub use threshold::*;
pub use value::*;

/// The entries of each family.
const FAMILIES: &[&[Entry]] = &[
    regression::ENTRIES,
    robust::ENTRIES,
    relative::ENTRIES,
    likelihood::ENTRIES,
    binary::ENTRIES,
    softmax::ENTRIES,
    focal::ENTRIES,
    divergence::ENTRIES,
    hinge::ENTRIES,
    margin::ENTRIES,
    multiclass_margin::ENTRIES,
    sigmoid::ENTRIES,
    categorical::ENTRIES,
    noisy_labels::ENTRIES,
    margin_softmax::ENTRIES,
    ordinal::ENTRIES,
    cumulative::ENTRIES,
    survival::ENTRIES,
    threshold::ENTRIES,
    sequence::ENTRIES,
    adversarial::ENTRIES,
    embedding::ENTRIES,
    ranking::ENTRIES,
    lists::ENTRIES,
    penalty::ENTRIES,
    dpo::ENTRIES,
    preference::ENTRIES,
    policy::ENTRIES,
    boxes::ENTRIES,
    detection::ENTRIES,
    segmentation::ENTRIES,
    overlap::ENTRIES,
    lovasz::ENTRIES,
    value::ENTRIES,
];

/// Every loss, as [`by_name`] makes it.
pub const CATALOGUE: &[Entry] = &entry::concatenated::<{ entry::count(FAMILIES) }>(FAMILIES);

/// The loss of that name in [`CATALOGUE`], with default options; those that its function asks for are what its entry has (δ, β
/// and λ 1, τ 0.5, a temperature of 2 and the like: [`Loss::options`] lists them). Others are set
/// [by name](Loss::option).
///
/// ```
/// use wgloss::losses;
/// let loss = losses::by_name("huber").expect("in the catalogue").option("delta", 0.5);
/// assert_eq!(loss.name(), "huber");
/// assert!(losses::by_name("no such loss").is_none());
/// ```
pub fn by_name(name: &str) -> Option<Loss> {
    entry(name).map(|entry| (entry.make)())
}

/// The entry of that name in [`CATALOGUE`].
pub fn entry(name: &str) -> Option<&'static Entry> {
    CATALOGUE.iter().find(|entry| entry.name == name)
}

/// Begins an element-wise loss of `input` and `target`.
fn of_input_and_target(name: &str) -> DefinitionBuilder {
    Loss::define(name).input("input", Scope::Element).input("target", Scope::Element)
}

/// Keras's `backend.epsilon()`: what a probability, its complement or a divisor is at least.
const KERAS_EPSILON: f64 = 1e-7;

/// Begins a loss of Keras's `y_true` and `y_pred` over the last axis. As there, one of them may lack a last axis of size 1.
fn of_true_and_predicted(name: &str) -> DefinitionBuilder {
    let definition = Loss::define(name).row_axis(RowAxis::Last).input("y_true", Scope::Element);
    let definition = definition.input("y_pred", Scope::Element).shape_rule("y_true", ShapeRule::SameUpToLastOne);
    definition.shape_rule("y_pred", ShapeRule::SameUpToLastOne)
}

/// The value times the optional input `weight`.
fn weighted<'g>(b: &Build<'g>, value: Expr<'g>) -> Expr<'g> {
    b.optional("weight").map_or(value, |weight| weight * value)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::loss::Value;

    #[test]
    fn a_loss_is_called_what_its_function_is_called() {
        for entry in CATALOGUE {
            let loss = (entry.make)();
            assert_eq!(loss.name(), entry.name);
            assert_eq!(loss.check(), Ok(()), "{}", entry.name);
            assert_eq!(CATALOGUE.iter().filter(|other| other.name == entry.name).count(), 1, "{}", entry.name);
        }
    }

    #[test]
    fn entries_name_options_and_inputs_that_the_loss_has() {
        for entry in CATALOGUE {
            let loss = (entry.make)();
            entry.check(&loss);
            for variant in entry.variants {
                let set = |loss: Loss, (name, value): &(&str, Value)| loss.option(name, value.clone());
                let loss = variant.iter().fold(loss.clone(), set);
                assert_eq!(loss.check(), Ok(()), "{}", entry.name);
            }
        }
    }

    #[test]
    fn parameters_outside_their_domain_come_back_as_errors() {
        let refused = |loss: &Loss| assert!(loss.check().is_err(), "{}", loss.name());
        let taken = |loss: &Loss| assert_eq!(loss.check(), Ok(()), "{}", loss.name());
        refused(&huber(0.0));
        refused(&huber(f64::NAN));
        refused(&smooth_l1(-1.0));
        refused(&quantile(1.5));
        refused(&l1_penalty(f64::INFINITY));
        taken(&smooth_l1(0.0));
        taken(&quantile(0.0));
        taken(&quantile(1));
        taken(&l2_penalty(0.0f32));
        taken(&sigmoid_focal().alpha(-1.0));
        refused(&sigmoid_focal().alpha(-0.5));
        refused(&cross_entropy().label_smoothing(1.1));
        refused(&cross_entropy().temperature(0.0));
        refused(&cross_entropy().logit_scale(0.0));
        refused(&cross_entropy().softcap(-1.0));
        refused(&cross_entropy().lse_square_scale(-1.0));
        refused(&softcap_cross_entropy(0.0));
        refused(&z_loss(f64::NAN));
        refused(&distillation(1.1, 1.0));
        refused(&distillation(0.5, 0.0));
        refused(&jsd(1.5));
        refused(&multi_margin().p(1.5));
        refused(&generalized_ce().q(0.0));
        refused(&taylor_ce().order(0.0));
        refused(&taylor_ce().order(2.5));
        refused(&asymmetric().clip(1.5));
        refused(&ldam().scale(0.0));
        taken(&jsd(1.0));
        taken(&cross_entropy().softcap(0.0).lse_square_scale(0.0).entropy_bonus(-1.0));
    }

    #[test]
    fn losses_of_any_type_add_up() {
        let sums = [
            0.7 * huber(1.0) + 0.3 * mse(),
            mse() * 0.3 + huber(1.0) * 0.7,
            huber(1.0) + mse(),
            mse() + huber(1.0),
            huber(1.0) + smooth_l1(1.0),
        ];
        let names = ["0.7*huber + 0.3*mse", "0.3*mse + 0.7*huber", "huber + mse", "mse + huber", "huber + smooth_l1"];
        assert_eq!(sums.map(|sum| sum.name()), names);
    }

    #[test]
    fn options_of_a_sum_go_by_term() {
        let delta = |sum: &Loss| sum.option_value("delta").cloned();
        let sum = huber(1.0) + 0.5 * huber(2.0) + smooth_l1(1.0);
        assert_eq!(delta(&sum.clone().option("huber#2.delta", 0.5)), Some(Value::Num(1.0)));
        assert_eq!(delta(&sum.clone().option("huber.delta", 0.5)), Some(Value::Num(0.5)));
        assert_eq!(delta(&sum.clone().option("delta", 0.25)), Some(Value::Num(0.25)));
        assert!(sum.option("smooth_l1.delta", 0.5).check().is_err());
    }
}
