//! The specification of a plan: shapes, element types, outputs.

use crate::lower::{GroupInput, Upstream, Wanted};
use crate::plan::problem::Shard;
use crate::schedule::Pinned;
use crate::shape::{DType, Layout};

/// Where a gradient goes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Default)]
#[non_exhaustive]
pub enum GradMode {
    /// To a buffer of its own.
    #[default]
    Write,
    /// Over the input itself.
    InPlace,
    /// Added to what the buffer holds. Two accumulated gradients may share a buffer (inputs that are one tensor) where no
    /// dispatch writes both, as those of losses [beside](crate::Loss::beside) each other.
    Accumulate,
}

/// Shapes and outputs of a plan. The first axis is a capacity: fewer rows may be bound, down to none. A batch of no rows
/// (`[0, C]`, planned or bound) dispatches the last sums, what is made of sums by column (0 each), and zeros of gradients that have values.
///
/// ```
/// use wgloss::{DType, PlanSpec};
/// let spec = PlanSpec::new()
///     .input("input", DType::F32, &[64, 10])
///     .input("target", DType::I32, &[64])
///     .grad("input");
/// ```
#[derive(Clone, Debug, Default)]
pub struct PlanSpec {
    pub(crate) inputs: Vec<(String, DType, Layout)>,
    pub(crate) modes: Vec<(String, GradMode)>,
    pub(crate) grad_dtypes: Vec<(String, DType)>,
    pub(crate) wanted: Wanted,
    pub(crate) accumulate_loss: bool,
    pub(crate) group_rows: Option<u64>,
    pub(crate) pinned: Pinned,
    pub(crate) shard: Option<Shard>,
    /// Whether forward and backward are encoded apart.
    pub(crate) separate_backward: bool,
}

impl PlanSpec {
    /// The loss, and nothing else yet.
    #[must_use]
    pub fn new() -> PlanSpec {
        PlanSpec { wanted: Wanted { loss: true, ..Wanted::default() }, ..PlanSpec::default() }
    }

    /// A contiguous input.
    #[must_use]
    pub fn input(self, name: &str, dtype: DType, shape: &[usize]) -> PlanSpec {
        self.input_with(name, dtype, Layout::contiguous(shape))
    }

    /// An input with strides of its own.
    #[must_use]
    pub fn input_with(mut self, name: &str, dtype: DType, layout: Layout) -> PlanSpec {
        self.inputs.push((name.to_owned(), dtype, layout));
        self
    }

    /// The gradient with respect to an input, to a buffer of its own.
    #[must_use]
    pub fn grad(self, input: &str) -> PlanSpec {
        self.grad_mode(input, GradMode::Write)
    }

    /// The gradient with respect to an input, stored as `mode` says; the last call per input counts.
    #[must_use]
    pub fn grad_mode(mut self, input: &str, mode: GradMode) -> PlanSpec {
        match self.modes.iter_mut().find(|known| known.0 == input) {
            Some(known) => known.1 = mode,
            None => {
                self.wanted.grads.push(input.to_owned());
                self.modes.push((input.to_owned(), mode));
            }
        }
        self
    }

    /// Element type of the gradient with respect to an input; by default, the input's own.
    #[must_use]
    pub fn grad_dtype(mut self, input: &str, dtype: DType) -> PlanSpec {
        self.grad_dtypes.push((input.to_owned(), dtype));
        self
    }

    /// The diagonal of the Hessian with respect to an input.
    #[must_use]
    pub fn hessian_diagonal(mut self, input: &str) -> PlanSpec {
        self.wanted.hessian_diagonals.push(input.to_owned());
        self
    }

    /// The factor of the gradients: with anything but [`Upstream::One`], bind the input `upstream`.
    #[must_use]
    pub fn upstream(mut self, upstream: Upstream) -> PlanSpec {
        self.wanted.upstream = upstream;
        self
    }

    /// The denominator of the mean, as an output.
    #[must_use]
    pub fn denominator(mut self) -> PlanSpec {
        self.wanted.denominator = true;
        self
    }

    /// Another output of the loss, by name (see [`Loss::extras`](crate::Loss::extras)).
    #[must_use]
    pub fn extra(mut self, name: &str) -> PlanSpec {
        self.wanted.extras.push(name.to_owned());
        self
    }

    /// Whether a gradient that the step stores is not finite, as an output: the f32 scalar [`Bound::found_inf`] on the GPU is
    /// 1 if a stored value of any gradient of the plan is NaN or ±∞, else 0, as an optimizer kernel or a gradient scaler
    /// wants it for mixed precision (PyTorch's `found_inf`). What is stored counts: an overflow to ∞ in a 16-bit gradient,
    /// the sum of an accumulated one. It is written anew by every step (every backward, where that is encoded apart), by
    /// one dispatch more; kernels look at the words that they store, and read nothing again. Of a shard it says what that
    /// shard stores.
    ///
    /// ```no_run
    /// use wgloss::{Bindings, Context, DType, PlanSpec, Tensor, losses};
    /// # fn main() -> wgloss::Result<()> {
    /// let ctx = Context::new()?;
    /// let (logits, labels) = (Tensor::zeros(&ctx, DType::F16, &[64, 10])?, Tensor::zeros(&ctx, DType::I32, &[64])?);
    /// let inputs = [("input", &logits), ("target", &labels)];
    /// let plan = ctx.plan(&losses::cross_entropy(), &PlanSpec::new().like(&inputs).grad("input").found_inf())?;
    /// let bound = plan.bind(&Bindings::new().inputs(&inputs))?;
    /// bound.submit()?;
    /// let skip: &Tensor = bound.found_inf()?;         // bind it in the optimizer's kernel: no readback
    /// # Ok(()) }
    /// ```
    ///
    /// A plan without gradients is an [`Error::Expr`](crate::Error::Expr).
    ///
    /// [`Bound::found_inf`]: crate::Bound::found_inf
    #[must_use]
    pub fn found_inf(mut self) -> PlanSpec {
        self.wanted.found_inf = true;
        self
    }

    /// Gradients only: the backward half of a vector-Jacobian product.
    #[must_use]
    pub fn without_loss(mut self) -> PlanSpec {
        self.wanted.loss = false;
        self
    }

    /// The loss is added to what its tensor holds: several losses into one scalar.
    #[must_use]
    pub fn accumulate_loss(mut self) -> PlanSpec {
        self.accumulate_loss = true;
        self
    }

    /// Consecutive rows that make a group. By default as many as give each group one value of an input of
    /// [`Scope::Group`](crate::Scope::Group) with several values, else the rows of one index of their first axis. They must
    /// divide the number of rows, planned or bound, else that is an [`Error::Param`](crate::Error::Param). For groups of
    /// unequal length: [`group_offsets`](PlanSpec::group_offsets).
    ///
    /// A group counts as one: a loss per group has shape `[groups]` with [`Reduction::None`](crate::Reduction::None), its
    /// `Mean` divides by the number of groups, and `sum_over(Scope::Total)` of a group value adds each group's value once.
    /// Inputs of that scope have shape `[groups]`, or one value for all.
    #[must_use]
    pub fn group_rows(mut self, rows: u64) -> PlanSpec {
        self.group_rows = Some(rows);
        self
    }

    /// Groups of unequal length, as packed sequences are (FlashAttention's `cu_seqlens`, PyTorch's jagged layout): the input
    /// of that name holds `[groups + 1]` offsets, i32 or u32: the first row of each group, then the number of rows.
    /// They are read on the GPU each step; the host knows the number of groups alone, of which fewer may be bound. A group
    /// without rows counts as one all the same: its sums are 0, its own mean is NaN, and `Mean` divides by it too; a mask
    /// leaves it out.
    ///
    /// ```no_run
    /// use wgloss::{Bindings, Context, DType, Loss, PlanSpec, Reduction, RowAxis, Scope, Tensor};
    /// # fn main() -> wgloss::Result<()> {
    /// // Per sequence of packed tokens, the sum of a score per token.
    /// let scores = Loss::define("scores").input("x", Scope::Element).row_axis(RowAxis::Last).expr(|b| {
    ///     b.input("x").logsumexp().sum_over(Scope::Group)
    /// });
    /// let ctx = Context::new()?;
    /// let (x, cu_seqlens) = (Tensor::zeros(&ctx, DType::F32, &[10, 32_000])?, Tensor::from_slice(&ctx, &[0, 3, 10], &[3])?);
    /// let inputs = [("x", &x), ("cu_seqlens", &cu_seqlens)];
    /// let spec = PlanSpec::new().like(&inputs).grad("x").group_offsets("cu_seqlens");
    /// let bound = ctx.plan(&scores.reduction(Reduction::None), &spec)?.bind(&Bindings::new().inputs(&inputs))?;
    /// bound.submit()?;
    /// assert_eq!(bound.loss()?.shape(), [2]);
    /// # Ok(()) }
    /// ```
    ///
    /// Offsets that descend, that exceed the number of rows, or that do not begin with 0 and end with it, lead nowhere
    /// outside the tensors: they poison the group that begins there and the one that ends there with NaN, and reading a
    /// result returns [`Error::GroupOutOfRange`](crate::Error::GroupOutOfRange).
    ///
    /// Cost: one dispatch per step finds each row's group by binary search (a word per row and three words per group of
    /// workspace), which passes that read values of groups load again, 4 bytes per row. A sum over groups reads its terms once,
    /// or of more than 16,384 rows twice: first sums of whole blocks of rows, then the blocks and ends of each group. So one
    /// group of a million rows and 100,000 groups of three rows both take as long as a trip over the terms.
    ///
    /// Errors of the plan: [`Error::Expr`](crate::Error::Expr) for a loss without values of groups,
    /// [`Error::Shape`](crate::Error::Shape), [`Error::DType`](crate::Error::DType), [`Error::Name`](crate::Error::Name) for
    /// an input that is not described or is one of the loss; [`Error::Param`](crate::Error::Param) with
    /// [`group_rows`](PlanSpec::group_rows); [`Error::Unsupported`](crate::Error::Unsupported) for groups of a batch of no
    /// rows, shards, exports, and losses beside each other.
    #[must_use]
    pub fn group_offsets(mut self, input: &str) -> PlanSpec {
        self.wanted.groups = Some(GroupInput::offsets(input));
        self
    }

    /// Groups of unequal length by ids: as [`group_offsets`](PlanSpec::group_offsets), but the input of that name holds
    /// for each row the index of its group, ascending and below `groups`, i32 or u32, in the shape of the rows. An id that
    /// is out of range, or less than the one before it, is an error as there; it poisons its row and the group among whose
    /// rows it stands. A sum over groups reads the rows' groups besides, 4 bytes per row.
    ///
    /// ```
    /// use wgloss::{DType, PlanSpec};
    /// let spec = PlanSpec::new()
    ///     .input("x", DType::F32, &[10, 5])
    ///     .input("segment_ids", DType::I32, &[10])
    ///     .group_ids("segment_ids", 3);
    /// ```
    #[must_use]
    pub fn group_ids(mut self, input: &str, groups: u64) -> PlanSpec {
        self.wanted.groups = Some(GroupInput::ids(input, groups));
        self
    }

    /// Separates forward and backward: [`Bound::encode_forward`](crate::Bound::encode_forward) writes the loss, and keeps
    /// the states of long rows (in a workspace of the bound plan's own) for
    /// [`Bound::encode_backward`](crate::Bound::encode_backward), whose upstream gradient may be computed in between.
    /// Rows that fit in registers keep no states: backward reads them once, and reduces them again.
    #[must_use]
    pub fn separate_backward(mut self) -> PlanSpec {
        self.separate_backward = true;
        self
    }

    /// The columns are one shard of the classes: see [`Bound::encode_states`](crate::Bound::encode_states).
    #[must_use]
    pub fn shard(mut self, shard: Shard) -> PlanSpec {
        self.shard = Some(shard);
        self
    }

    /// Pins the schedule, or parts of it, for tests and experiments; fields that are `None` are chosen as usual. A
    /// schedule that the shapes or the device rule out is an [`Error::Unsupported`](crate::Error::Unsupported) or an
    /// [`Error::Limit`](crate::Error::Limit) of the plan.
    ///
    /// ```
    /// use wgloss::{DType, Kernel, Pinned, PlanSpec};
    /// let streamed = Pinned { kernel: Some(Kernel::Row), lanes: Some(64), ..Pinned::default() };
    /// let spec = PlanSpec::new().input("input", DType::F32, &[64, 1000]).input("target", DType::I32, &[64]);
    /// let spec = spec.grad("input").pin(streamed);
    /// ```
    #[must_use]
    pub fn pin(mut self, pinned: Pinned) -> PlanSpec {
        self.pinned = pinned;
        self
    }
}
