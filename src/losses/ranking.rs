//! Ranking: losses of pairs of scores, and of lists.

use super::entry::{Entry, Range};
use super::options::loss_with_options;
use super::softmax::cross_entropy_of;
use crate::loss::Value::Num;
use crate::loss::{Denominator, Domain, Loss, Unreduced};
use crate::shape::{RowAxis, Scope};

pub(super) const ENTRIES: &[Entry] = &[
    Entry::new("margin_ranking", || margin_ranking().into())
        .inputs(&[("target", Range::Sign)])
        .variants(&[&[("margin", Num(0.5))]]),
    Entry::new("bpr", bpr),
    Entry::new("margin_mse", margin_mse),
    Entry::new("ranking_softmax", ranking_softmax).inputs(&[
        ("logits", Range::Logits),
        ("labels", Range::Count),
        ("where", Range::Binary),
    ]),
    Entry::new("supcon", || supcon().into())
        .inputs(&[("scores", Range::Cosine), ("positives", Range::Binary), ("where", Range::Binary)])
        .variants(&[&[("temperature", Num(0.5))]]),
];

/// Margin ranking loss: one of two scores ought to be larger than the other, by a margin.
///
/// `L = max(margin − y·(x₁ − x₂), 0)`, with `x₁ = input1`, `x₂ = input2` and `y = target`: 1 if the first ought to be
/// larger, −1 if the second.
///
/// Shapes: `input1, input2, target` of one shape → loss of that shape. Unit: that of the scores.
/// Gradient: `−y` with respect to `input1`, `y` with respect to `input2` inside the margin; 0 where it is just met.
/// Options: `margin` (0).
/// Errors: `Error::Param` unless `margin` is finite.
/// Source: Herbrich, Graepel and Obermayer (2000). Same as `torch.nn.functional.margin_ranking_loss`; [`bpr`] is smooth.
///
/// ```
/// use wgloss::{HostTensor, cpu, losses};
/// let (x1, x2, y) = ([1.0, 1.0], [0.0, 0.0], [1.0, -1.0]);
/// let inputs = [("input1", &x1), ("input2", &x2), ("target", &y)].map(|(name, x)| (name, HostTensor::f32(x, &[2])));
/// let out = cpu::forward_backward(&losses::margin_ranking(), &inputs, &["input1"])?;
/// assert_eq!((out.loss()?, out.grad("input1")?), (0.5, &[0.0, 0.5][..]));
/// # Ok::<(), wgloss::Error>(())
/// ```
pub fn margin_ranking() -> MarginRanking {
    let definition = Loss::define("margin_ranking").input("input1", Scope::Element).input("input2", Scope::Element);
    let loss = definition.input("target", Scope::Element).param("margin", 0.0, Domain::Finite).expr(|b| {
        let gap = b.input("input1") - b.input("input2");
        (b.param("margin") - b.input("target") * gap).relu()
    });
    MarginRanking(loss)
}

loss_with_options! {
    /// The loss that [`margin_ranking`] makes.
    MarginRanking {
        /// By how much the scores ought to differ; finite, else `Error::Param`; 0 by default.
        number margin;
    }
}

/// Bayesian personalised ranking: what a user chose ought to score above what the user did not.
///
/// `L = −ln sigmoid(positive − negative)`.
///
/// Shapes: `positive, negative` of one shape → loss of that shape. Unit: nats.
/// Gradient: `−sigmoid(negative − positive)` with respect to `positive`, the opposite with respect to `negative`.
/// Source: Rendle et al. (2009), UAI, arXiv:1205.2618; RankNet's loss of given pairs. Some implementations add a constant
/// inside of the logarithm.
///
/// ```
/// use wgloss::{HostTensor, cpu, losses};
/// let (p, n) = (HostTensor::f32(&[1.0, -1e4], &[2]), HostTensor::f32(&[1.0, 1e4], &[2]));
/// let out = cpu::forward_backward(&losses::bpr(), &[("positive", p), ("negative", n)], &["positive"])?;
/// assert_eq!((out.loss()?, out.grad("positive")?), ((2f64.ln() + 2e4) / 2.0, &[-0.25, -0.5][..]));
/// # Ok::<(), wgloss::Error>(())
/// ```
pub fn bpr() -> Loss {
    let definition = Loss::define("bpr").input("positive", Scope::Element).input("negative", Scope::Element);
    definition.expr(|b| (b.input("negative") - b.input("positive")).softplus())
}

/// Margin MSE: the difference of a student's two scores ought to be that of a teacher's.
///
/// `L = ((positive − negative) − (teacher_positive − teacher_negative))²`.
///
/// Shapes: the four inputs of one shape → loss of that shape. Unit: that of the scores, squared.
/// Gradient: `2m` with respect to `positive` and `teacher_negative`, `−2m` with respect to the others, with `m` what is
/// squared.
/// Source: Hofstätter et al. (2020), arXiv:2010.02666; sentence-transformers' `MarginMSELoss` of given scores.
///
/// ```
/// use wgloss::{HostTensor, cpu, losses};
/// let scores = [("positive", [3.0]), ("negative", [1.0]), ("teacher_positive", [5.0]), ("teacher_negative", [4.0])];
/// let inputs: Vec<_> = scores.iter().map(|(name, x)| (*name, HostTensor::f32(x, &[1]))).collect();
/// let out = cpu::forward_backward(&losses::margin_mse(), &inputs, &["positive", "negative"])?;
/// assert_eq!((out.loss()?, out.grad("positive")?, out.grad("negative")?), (1.0, &[2.0][..], &[-2.0][..]));
/// # Ok::<(), wgloss::Error>(())
/// ```
pub fn margin_mse() -> Loss {
    let scores = ["positive", "negative", "teacher_positive", "teacher_negative"];
    let definition = scores.into_iter().fold(Loss::define("margin_mse"), |loss, name| loss.input(name, Scope::Element));
    definition.expr(move |b| {
        let [positive, negative, teacher_positive, teacher_negative] = scores.map(|name| b.input(name));
        let m = (positive - negative) - (teacher_positive - teacher_negative);
        m * m
    })
}

/// Softmax loss of a ranked list: the cross-entropy of the items' relevance.
///
/// `L = −Σⱼ wⱼ·yⱼ·ln softmax(x)ⱼ` over the last axis, with `x = logits`, `y = labels` (not normalised) and `w = weights` (1).
/// Items whose `where` is 0 are in neither the sum nor the softmax.
///
/// Shapes: `logits, labels: [..., items]`, optional `where` and `weights` that broadcast → loss `[...]`. Unit: nats; the
/// mean divides by the number of lists in which an item counts.
/// Gradient: `softmax(x)·Σⱼ wⱼyⱼ − w·y` with respect to `logits`; exactly 0 for items that do not count, whatever they hold.
/// A list in which none counts has loss 0; where there is no other, the mean is NaN (in optax 0, as with
/// [`Reduction::MeanOrZero`](crate::Reduction::MeanOrZero)).
/// Source: Cao et al. (2007), ListNet, ICML. Same as `optax.losses.ranking_softmax_loss`, of which `reduce_fn` None is
/// `Reduction::None`.
///
/// ```
/// use wgloss::{HostTensor, cpu, losses};
/// let (x, y, keep) = ([0.0, 0.0, f32::NAN], [2.0, 0.0, 1.0], [1.0, 1.0, 0.0]);
/// let inputs = [("logits", &x), ("labels", &y), ("where", &keep)].map(|(name, x)| (name, HostTensor::f32(x, &[1, 3])));
/// let out = cpu::forward_backward(&losses::ranking_softmax(), &inputs, &["logits"])?;
/// assert!((out.loss()? - 2.0 * 2f64.ln()).abs() < 1e-12);
/// assert_eq!(out.grad("logits")?, [-1.0, 1.0, 0.0]);
/// # Ok::<(), wgloss::Error>(())
/// ```
pub fn ranking_softmax() -> Loss {
    let definition = Loss::define("ranking_softmax").row_axis(RowAxis::Last).input("logits", Scope::Element);
    let definition = definition.input("labels", Scope::Element).optional("where", Scope::Element);
    definition.optional("weights", Scope::Element).unreduced(|b| {
        let (x, y) = (b.input("logits"), b.input("labels"));
        let relevance = b.optional("weights").map_or(y, |weights| weights * y);
        let Some(keep) = b.optional("where").map(|keep| !keep.equals(0.0)) else {
            return (-(relevance * x.log_softmax()).sum()).into();
        };
        let kept = keep.select(x, f64::NEG_INFINITY);
        let value = -(relevance * kept.log_softmax()).masked(keep).sum();
        let counts = keep.to_float().max();
        Unreduced { value: value.masked(counts.gt(0.0)), denominator: Denominator::Sum(counts) }
    })
}

/// SupCon: each row of scores ought to be largest at its positives, the others of its class.
///
/// `L = −1/|P|·Σ_{j∈P} ln softmax(x/temperature)ⱼ` over the last axis, with `x = scores` and `P` the columns where `positives` is
/// not 0. Columns whose `where` is 0 are in neither `P` nor the softmax: of scores of a batch with itself, the diagonal.
///
/// Shapes: `scores: [N, M]`, the similarity of each embedding with each other, `positives` of that shape, whether their labels are
/// equal, optional `where` that broadcasts → loss `[N]`. Unit: nats; the mean divides by the number of rows with a positive.
/// Gradient: `(softmax(x/temperature)ⱼ − [j ∈ P]/|P|)/temperature` with respect to `scores`; exactly 0 where `where` is 0, whatever
/// they hold. A row without a positive has loss and gradient exactly 0; where there is no other, the mean is NaN.
/// Options: `temperature` (0.1).
/// Errors: `Error::Param` unless `temperature` is finite and > 0.
/// Source: Khosla et al. (2020), arXiv:2004.11362, `L_out`. Same as pytorch-metric-learning's `SupConLoss`, which takes embeddings
/// and labels and leaves out the diagonal; the paper's code multiplies by its temperature over a base of 0.07, which
/// [`scaled_by`](crate::Loss::scaled_by) does. [`ranking_softmax`] takes weights instead of positives.
///
/// ```
/// use wgloss::{HostTensor, cpu, losses};
/// let labels = [0, 0, 1];
/// let of_pairs = |f: fn(usize, usize, [i32; 3]) -> bool| {
///     let pair = |k: usize| f32::from(u8::from(f(k / 3, k % 3, labels)));
///     std::array::from_fn::<f32, 9, _>(pair)
/// };
/// let (positives, others) = (of_pairs(|i, j, labels| labels[i] == labels[j]), of_pairs(|i, j, _| i != j));
/// let scores = [1.0, 0.5, 0.5, 0.5, 1.0, 0.0, 0.5, 0.0, 1.0];
/// let inputs = [("scores", &scores), ("positives", &positives), ("where", &others)];
/// let inputs = inputs.map(|(name, x)| (name, HostTensor::f32(x, &[3, 3])));
/// let out = cpu::forward_backward(&losses::supcon().temperature(0.5), &inputs, &["scores"])?;
/// let want = [2f64.ln(), (-1f64).exp().ln_1p()];      // the third has no positive
/// assert!((out.loss()? - (want[0] + want[1]) / 2.0).abs() < 1e-12);
/// assert_eq!(out.grad("scores")?[..3], [0.0, -0.5, 0.5]);
/// # Ok::<(), wgloss::Error>(())
/// ```
pub fn supcon() -> Supcon {
    let definition = Loss::define("supcon").row_axis(RowAxis::Last).input("scores", Scope::Element);
    let definition = definition.input("positives", Scope::Element).optional("where", Scope::Element);
    let loss = definition.param("temperature", 0.1, Domain::Positive).unreduced(|b| {
        let (x, is_positive) = (b.input("scores"), !b.input("positives").equals(0.0));
        let keep = b.optional("where").map(|keep| !keep.equals(0.0));
        let kept = |x| keep.map_or(x, |keep| keep.select(x, f64::NEG_INFINITY));
        let is_positive = keep.map_or(is_positive, |keep| is_positive.and(keep));
        let count = is_positive.to_float().sum();
        let has_positive = count.gt(0.0);
        // The largest comes off first: divided, a large common offset would round the differences away. What is left out is
        // −∞ only then, so that the temperature's derivative has no ∞ in it.
        let z = kept((x - kept(x).max().detach()) / b.param("temperature"));
        let value = cross_entropy_of(z, is_positive.to_float() / count).masked(has_positive);
        Unreduced { value, denominator: Denominator::Sum(has_positive.to_float()) }
    });
    Supcon(loss)
}

loss_with_options! {
    /// The loss that [`supcon`] makes.
    Supcon {
        /// `temperature`, which divides the scores; finite and > 0, else `Error::Param`; 0.1 by default.
        number temperature;
    }
}
