//! Host types that tensors are made from, and how each is stored.

use super::dtype::Element;
use crate::error::{Error, Result};
use half::{bf16, f16};
use std::borrow::Cow;

/// Host types that a tensor can be made from: those that the GPU stores ([`Element`]), class indices in any integer type
/// (stored as i32, checked), and truth values (stored as 0 and 1 in f32: a mask).
///
/// ```
/// use wgloss::{Error, HostTensor, cpu, losses};
/// let logits = HostTensor::from_slice(&[2.0f32, 0.5, -1.0, 0.0, 1.0, 3.0], &[2, 3])?;
/// let labels = HostTensor::from_slice(&[0i64, 2], &[2])?;          // as for Tensor::from_slice
/// let mask = HostTensor::from_slice(&[true, false], &[2])?;
/// let inputs = [("input", logits), ("target", labels), ("mask", mask)];
/// assert!(cpu::forward_backward(&losses::cross_entropy(), &inputs, &[])?.loss()? < 0.3);
/// let error = HostTensor::from_slice(&[0, 1i64 << 40], &[2]).unwrap_err();
/// assert!(matches!(error, Error::Value { index: 1, .. }));
/// # Ok::<(), Error>(())
/// ```
/// ```compile_fail,E0277
/// # fn f64_is_no_type_of_a_gpu(ctx: &wgloss::Context) {
/// wgloss::Tensor::from_slice(ctx, &[1.0f64], &[1]);      // the compiler says: convert to f32
/// # }
/// ```
#[diagnostic::on_unimplemented(
    message = "no tensor is made from `{Self}`",
    label = "neither f32, f16 or bf16, nor an integer (class indices), nor bool (a mask)",
    note = "f64: convert first, `values.iter().map(|x| *x as f32).collect::<Vec<f32>>()`; on the CPU `HostTensor::f64` \
            takes it as it is"
)]
pub trait HostElement: Copy + Send + Sync + 'static {
    /// The type in which it is stored.
    type Stored: Element;

    /// The values as they are stored; those of the same type are borrowed. `what` is what an error calls them.
    ///
    /// # Errors
    /// [`Error::Value`] for the first class index that 32 bits do not hold.
    fn stored<'v>(what: &str, values: &'v [Self]) -> Result<Cow<'v, [Self::Stored]>>;
}

macro_rules! stored_as_they_are {
    ($($type:ty)*) => {$(
        impl HostElement for $type {
            type Stored = $type;
            fn stored<'v>(_: &str, values: &'v [$type]) -> Result<Cow<'v, [$type]>> {
                Ok(Cow::Borrowed(values))
            }
        }
    )*};
}

stored_as_they_are! { f32 f16 bf16 i32 u32 }

macro_rules! class_indices {
    ($($type:ty)*) => {$(
        impl HostElement for $type {
            type Stored = i32;
            fn stored<'v>(what: &str, values: &'v [$type]) -> Result<Cow<'v, [i32]>> {
                let narrow = |(index, value): (usize, &$type)| {
                    #[allow(clippy::useless_conversion, reason = "narrow types always fit")]
                    i32::try_from(*value).map_err(|_| too_large(what, index, value.to_string()))
                };
                values.iter().enumerate().map(narrow).collect::<Result<_>>().map(Cow::Owned)
            }
        }
    )*};
}

class_indices! { i64 u64 isize usize i16 u16 i8 u8 }

fn too_large(what: &str, index: usize, found: String) -> Error {
    let allowed = format!("class indices have 32 bits, {} to {}", i32::MIN, i32::MAX);
    Error::Value { input: what.to_owned(), index, found, allowed }
}

impl HostElement for bool {
    type Stored = f32;
    fn stored<'v>(_: &str, values: &'v [bool]) -> Result<Cow<'v, [f32]>> {
        Ok(values.iter().map(|truth| f32::from(u8::from(*truth))).collect())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn integers_become_class_indices_and_the_first_that_does_not_fit_is_named() {
        assert_eq!(*i64::stored("labels", &[0, -100, 7]).unwrap(), [0, -100, 7]);
        assert_eq!(*u8::stored("labels", &[0, 255]).unwrap(), [0, 255]);
        assert_eq!(*usize::stored("labels", &[3, 0]).unwrap(), [3, 0]);
        assert_eq!(*i64::stored("labels", &[i64::from(i32::MIN), i64::from(i32::MAX)]).unwrap(), [i32::MIN, i32::MAX]);
        let error = i64::stored("labels", &[0, 1 << 40, 1 << 41]).unwrap_err();
        let text = "element 1 of `labels` is 1099511627776: class indices have 32 bits, -2147483648 to 2147483647";
        assert_eq!(error.to_string(), text);
        let below = i64::from(i32::MIN) - 1;
        assert!(
            matches!(i64::stored("y", &[below]), Err(Error::Value { index: 0, found, .. }) if found == "-2147483649")
        );
        assert!(matches!(u64::stored("y", &[1, u64::MAX]), Err(Error::Value { index: 1, .. })));
    }

    #[test]
    fn truth_values_become_zero_and_one_and_stored_types_are_borrowed() {
        assert_eq!(*bool::stored("mask", &[true, false]).unwrap(), [1.0, 0.0]);
        assert!(matches!(f32::stored("x", &[1.0]), Ok(Cow::Borrowed([x])) if *x == 1.0));
        assert!(matches!(u32::stored("y", &[u32::MAX]), Ok(Cow::Borrowed(_))));
    }
}
