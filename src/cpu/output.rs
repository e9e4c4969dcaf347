//! Results of a run.

use super::host::zeros;
use super::interpret::BadLabel;
use super::machine::HostFloat;
use crate::error::{Error, Result, no_first_value};
use crate::lower::OutputKind;

/// The wanted outputs of a run: losses, gradients, and others.
///
/// If a label was out of range, accessors return [`Error::LabelOutOfRange`], as reading from the GPU does, until
/// [`Self::take_bad_label`] clears the status; then they return the poisoned values. So it is with
/// [`Error::GroupOutOfRange`] and [`Self::take_bad_group`], and with [`Error::LengthOutOfRange`] and
/// [`Self::take_bad_length`], which come first.
#[derive(Clone, Debug)]
pub struct CpuOutput<T> {
    items: Vec<Item<T>>,
    /// Whether stored gradients are looked at.
    looks: bool,
    pub(crate) bad_label: Option<BadLabel>,
    /// The error of the first offset or id of groups that is not allowed.
    pub(super) bad_group: Option<Error>,
    /// The error of the first length of sequences that is out of range.
    bad_length: Option<Error>,
}

/// An output of an operator beside losses: its kind, the name of its input (of a gradient) or its own, its shape, its
/// values.
pub(crate) type OperatorOutput<T> = (OutputKind, String, Vec<usize>, Vec<T>);

#[derive(Clone, Debug)]
struct Item<T> {
    kind: OutputKind,
    /// Name of the input, for gradients.
    name: String,
    shape: Vec<usize>,
    /// Length of `values`, and of `broadcast`.
    counts: [usize; 2],
    /// Empty before the first run.
    values: Vec<T>,
    /// For a broadcast input, the gradients per element before they are summed to its shape; else empty.
    broadcast: Vec<T>,
}

impl<T: HostFloat> CpuOutput<T> {
    pub(super) fn new(looks: bool) -> CpuOutput<T> {
        CpuOutput { items: Vec::new(), looks, bad_label: None, bad_group: None, bad_length: None }
    }

    /// The outputs of an operator beside losses, and the first label and the first length out of range.
    pub(crate) fn of_operator(
        outputs: Vec<OperatorOutput<T>>,
        bad_label: Option<BadLabel>,
        bad_length: Option<Error>,
    ) -> CpuOutput<T> {
        let item = |(kind, name, shape, values): OperatorOutput<T>| {
            let counts = [values.len(), 0];
            Item { kind, name, shape, counts, values, broadcast: Vec::new() }
        };
        let items = outputs.into_iter().map(item).collect();
        CpuOutput { items, looks: false, bad_label, bad_group: None, bad_length }
    }

    /// The same values in another type.
    pub(crate) fn converted<U: HostFloat>(self) -> CpuOutput<U> {
        let CpuOutput { items, looks, bad_label, bad_group, bad_length } = self;
        let values = |all: Vec<T>| all.into_iter().map(|value| U::of(value.to())).collect();
        let item = |item: Item<T>| {
            let Item { kind, name, shape, counts, values: own, broadcast } = item;
            Item { kind, name, shape, counts, values: values(own), broadcast: values(broadcast) }
        };
        CpuOutput { items: items.into_iter().map(item).collect(), looks, bad_label, bad_group, bad_length }
    }

    pub(super) fn push(&mut self, kind: OutputKind, name: String, shape: Vec<usize>, counts: [usize; 2]) {
        self.items.push(Item { kind, name, shape, counts, values: Vec::new(), broadcast: Vec::new() });
    }

    /// Allocates the values on the first run.
    pub(super) fn make_room(&mut self) -> Result<()> {
        for Item { counts: [count, broadcast], values, broadcast: full, .. } in &mut self.items {
            if values.len() != *count || full.len() != *broadcast {
                *values = zeros("an output on the host", *count)?;
                *full = zeros("a gradient before it is summed to a broadcast input's shape", *broadcast)?;
            }
        }
        Ok(())
    }

    /// Whether the outputs have these kinds, shapes, and lengths of `broadcast`.
    pub(super) fn fits<'s>(&'s self, outputs: impl Iterator<Item = (&'s OutputKind, &'s [usize], usize)>) -> bool {
        self.items.iter().map(|item| (&item.kind, item.shape.as_slice(), item.counts[1])).eq(outputs)
    }

    /// The values of each output that passes store: before they are summed, for a broadcast input.
    pub(super) fn full_mut(&mut self) -> Vec<Option<&mut [T]>> {
        let mut full = Vec::new();
        for item in &mut self.items {
            full.push(Some(if item.broadcast.is_empty() { &mut item.values[..] } else { &mut item.broadcast[..] }));
        }
        full
    }

    pub(super) fn set_total(&mut self, index: usize, value: T) {
        self.items[index].values.fill(value);
    }

    /// Adds the outputs of another run: numbers and gradients that both have, and what this one has not.
    pub(super) fn add(&mut self, other: CpuOutput<T>) {
        self.bad_label = self.bad_label.or(other.bad_label);
        for item in other.items {
            let kind = std::mem::discriminant(&item.kind);
            let is_same = |known: &&mut Item<T>| std::mem::discriminant(&known.kind) == kind && known.name == item.name;
            match self.items.iter_mut().find(is_same) {
                Some(known) => known.values.iter_mut().zip(item.values).for_each(|(sum, more)| *sum = *sum + more),
                None => self.items.push(item),
            }
        }
    }

    /// Sets all gradients to 0: those of no rows, whatever their formula gives for sums of nothing.
    pub(super) fn clear_gradients(&mut self) {
        let gradients = self.items.iter_mut().filter(|item| item.kind.is_gradient());
        gradients.for_each(|item| item.values.fill(T::zero()));
    }

    pub(super) fn fold(&mut self, index: usize, sum: impl FnOnce(&[T], &mut [f64])) -> Result<()> {
        let item = &mut self.items[index];
        let mut sums = zeros("a gradient's sums", item.values.len())?;
        sum(&item.broadcast, &mut sums);
        item.values.iter_mut().zip(sums).for_each(|(value, sum)| *value = T::of(sum));
        Ok(())
    }

    fn item(&self, what: &str, name: &str, is: impl Fn(&Item<T>) -> bool) -> Result<&Item<T>> {
        if let Some(error) = self.bad_group.as_ref().or(self.bad_length.as_ref()) {
            return Err(error.clone());
        }
        if let Some(BadLabel { row, label, classes }) = self.bad_label {
            return Err(Error::LabelOutOfRange { row, label, classes });
        }
        let found = self.items.iter().find(|item| is(item));
        if found.is_some_and(|item| item.values.len() < item.counts[0]) {
            let message = "holds nothing yet: `CpuPlan::run` fills it".to_owned();
            return Err(Error::Buffer { input: "out".to_owned(), message });
        }
        found.ok_or_else(|| {
            let known = self.items.iter().map(|item| format!("{:?} {}", item.kind, item.name)).collect::<Vec<_>>();
            Error::Name { what: format!("no {what} was asked for,"), name: name.to_owned(), known: known.join(", ") }
        })
    }

    /// The loss: its only value, or the first if it is not reduced.
    ///
    /// Errors: [`Error::GroupOutOfRange`], [`Error::LabelOutOfRange`]; [`Error::Name`] if it was not wanted; [`Error::Shape`] if it has no values: not
    /// reduced, of no rows.
    pub fn loss(&self) -> Result<f64> {
        let first = self.loss_values()?.first().map(|value| value.to());
        first.ok_or_else(|| no_first_value(self.loss_shape()))
    }

    /// The losses, contiguous in the shape that the reduction gives.
    ///
    /// Errors: as [`Self::loss`].
    pub fn loss_values(&self) -> Result<&[T]> {
        Ok(&self.item("loss", "loss", |item| item.kind == OutputKind::Loss)?.values)
    }

    /// The values of the first output of such a kind, whatever labels are out of range: for an operator that goes on with them.
    pub(crate) fn unchecked(&self, is: impl Fn(&OutputKind) -> bool) -> &[T] {
        let found = self.items.iter().find(|item| is(&item.kind));
        &found.expect("the operator wanted it").values
    }

    /// Shape of the loss; empty if it is reduced, or not wanted.
    pub fn loss_shape(&self) -> &[usize] {
        let loss = self.items.iter().find(|item| item.kind == OutputKind::Loss);
        loss.map_or(&[], |item| &item.shape)
    }

    /// The gradient with respect to an input, contiguous in its shape, and summed if the input was broadcast.
    ///
    /// Errors: as [`Self::loss`].
    pub fn grad(&self, input: &str) -> Result<&[T]> {
        let is = |item: &Item<T>| matches!(item.kind, OutputKind::Grad(_)) && item.name == input;
        Ok(&self.item("gradient", input, is)?.values)
    }

    /// The diagonal of the Hessian with respect to an input, contiguous in its shape.
    ///
    /// Errors: as [`Self::loss`].
    pub fn hessian_diagonal(&self, input: &str) -> Result<&[T]> {
        let is = |item: &Item<T>| matches!(item.kind, OutputKind::HessianDiagonal(_)) && item.name == input;
        Ok(&self.item("Hessian diagonal", input, is)?.values)
    }

    /// An extra output, by name: one number per row, or one in all.
    ///
    /// Errors: as [`Self::loss`].
    pub fn extra(&self, name: &str) -> Result<&[T]> {
        let is = |item: &Item<T>| matches!(item.kind, OutputKind::Extra(_)) && item.name == name;
        Ok(&self.item("extra output", name, is)?.values)
    }

    /// The denominator of the mean, if it was wanted.
    pub fn denominator(&self) -> Option<f64> {
        let item = self.items.iter().find(|item| item.kind == OutputKind::Denominator)?;
        item.values.first().map(|value| value.to())
    }

    /// 1 if a value of some gradient is not finite, else 0, if that was wanted: as on the GPU
    /// ([`PlanSpec::found_inf`](crate::PlanSpec::found_inf)), of gradients in this output's type.
    pub fn found_inf(&self) -> Option<f64> {
        let gradients = self.items.iter().filter(|item| matches!(item.kind, OutputKind::Grad(_)));
        let is_found = |item: &Item<T>| item.values.iter().any(|value| !value.to().is_finite());
        self.looks.then(|| f64::from(u8::from(gradients.clone().any(is_found))))
    }

    /// First row whose label is out of range, and the label.
    pub fn bad_label(&self) -> Option<(u64, i64)> {
        self.bad_label.map(|bad| (bad.row, bad.label))
    }

    /// The error of the first offset or id of groups of unequal length that is out of range, which is cleared. Afterwards
    /// the values can be read; those of the groups in question are NaN.
    pub fn take_bad_group(&mut self) -> Option<Error> {
        self.bad_group.take()
    }

    /// The error of the first length of sequences that is out of range, which is cleared. Afterwards the values can be read;
    /// those of the sequences in question are NaN.
    pub fn take_bad_length(&mut self) -> Option<Error> {
        self.bad_length.take()
    }

    /// Reads and clears the status. Afterwards the values can be read; rows with a bad label are NaN.
    pub fn take_bad_label(&mut self) -> Option<(u64, i64)> {
        self.bad_label.take().map(|bad| (bad.row, bad.label))
    }
}
