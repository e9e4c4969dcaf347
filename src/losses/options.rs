//! Types of the losses that have options: one setter per option, so that an option that a loss lacks does not compile.

/// Makes the type of a loss with options, a newtype of [`Loss`](crate::loss::Loss): a setter per option (`number`, `index`, `flag`,
/// `word`, `axis`, that of the classes, or `rows`, the axes of a row), those that every loss has, and sums and products.
macro_rules! loss_with_options {
    ($(#[$about:meta])* $Type:ident { $($(#[$doc:meta])* $kind:ident $option:ident;)* }) => {
        $(#[$about])*
        ///
        /// Goes wherever a [`&Loss`](crate::loss::Loss) goes, and has its methods; sums and products with it are a
        /// [`Loss`](crate::loss::Loss).
        #[derive(Clone, Debug)]
        pub struct $Type(crate::loss::Loss);

        impl $Type {
            $($crate::losses::options::setter!($kind $option $(#[$doc])*);)*

            /// Sets the reduction, as [`Loss::reduction`](crate::loss::Loss::reduction).
            #[must_use]
            pub fn reduction(self, reduction: crate::loss::Reduction) -> Self {
                $Type(self.0.reduction(reduction))
            }

            /// Lets predictions and targets broadcast, as [`Loss::broadcast`](crate::loss::Loss::broadcast).
            #[must_use]
            pub fn broadcast(self, yes: bool) -> Self {
                $Type(self.0.broadcast(yes))
            }

            /// Lets an input go by another name, as [`Loss::rename_input`](crate::loss::Loss::rename_input).
            #[must_use]
            pub fn rename_input(self, from: &str, to: &str) -> Self {
                $Type(self.0.rename_input(from, to))
            }

            /// Multiplies by a number or a scalar on the GPU, as [`Loss::scaled_by`](crate::loss::Loss::scaled_by).
            #[must_use]
            pub fn scaled_by(self, factor: impl Into<crate::loss::ParamValue>) -> Self {
                $Type(self.0.scaled_by(factor))
            }
        }

        impl $Type {
            /// Weights it by a learned uncertainty, as [`Loss::with_uncertainty`](crate::loss::Loss::with_uncertainty).
            #[must_use]
            pub fn with_uncertainty(self, log_variance: &str) -> crate::loss::Loss {
                self.0.with_uncertainty(log_variance)
            }
        }

        impl std::ops::Deref for $Type {
            type Target = crate::loss::Loss;
            fn deref(&self) -> &crate::loss::Loss {
                &self.0
            }
        }

        impl From<$Type> for crate::loss::Loss {
            fn from(loss: $Type) -> crate::loss::Loss {
                loss.0
            }
        }

        impl<R: Into<crate::loss::Loss>> std::ops::Add<R> for $Type {
            type Output = crate::loss::Loss;
            fn add(self, other: R) -> crate::loss::Loss {
                self.0 + other
            }
        }

        impl<R: Into<crate::loss::Loss>> std::ops::Sub<R> for $Type {
            type Output = crate::loss::Loss;
            fn sub(self, other: R) -> crate::loss::Loss {
                self.0 - other
            }
        }

        impl std::ops::Neg for $Type {
            type Output = crate::loss::Loss;
            fn neg(self) -> crate::loss::Loss {
                -self.0
            }
        }

        impl<W: Into<crate::loss::ParamValue>> std::ops::Mul<W> for $Type {
            type Output = crate::loss::Loss;
            fn mul(self, weight: W) -> crate::loss::Loss {
                self.0 * weight
            }
        }

        impl<D: Into<f64>> std::ops::Div<D> for $Type {
            type Output = crate::loss::Loss;
            fn div(self, divisor: D) -> crate::loss::Loss {
                self.0 / divisor
            }
        }

        crate::losses::options::factors!($Type f64 i32);
    };
}

/// Numbers on the left of a loss with options: those that may stand on the left of a [`Loss`](crate::loss::Loss).
macro_rules! factors {
    ($Type:ident $($number:ty)*) => {$(
        impl std::ops::Mul<$Type> for $number {
            type Output = crate::loss::Loss;
            fn mul(self, loss: $Type) -> crate::loss::Loss {
                loss.0 * self
            }
        }
    )*};
}

/// The setter of one option.
macro_rules! setter {
    (number $option:ident $(#[$doc:meta])*) => {
        $(#[$doc])*
        #[must_use]
        pub fn $option(self, $option: impl Into<crate::loss::ParamValue>) -> Self {
            Self(self.0.option(stringify!($option), $option.into()))
        }
    };
    (index $option:ident $(#[$doc:meta])*) => {
        $(#[$doc])*
        #[must_use]
        pub fn $option(self, $option: impl Into<Option<i64>>) -> Self {
            Self(self.0.option(stringify!($option), $option.into()))
        }
    };
    (axis $option:ident $(#[$doc:meta])*) => {
        $(#[$doc])*
        #[must_use]
        pub fn $option(self, $option: crate::loss::ClassAxis) -> Self {
            Self(self.0.$option($option))
        }

        /// Sets the axes that make a row, as [`Loss::row_axis`](crate::loss::Loss::row_axis).
        #[must_use]
        pub fn row_axis(self, axis: crate::shape::RowAxis) -> Self {
            Self(self.0.row_axis(axis))
        }
    };
    (rows $option:ident $(#[$doc:meta])*) => {
        $(#[$doc])*
        #[must_use]
        pub fn $option(self, $option: crate::shape::RowAxis) -> Self {
            Self(self.0.$option($option))
        }
    };
    (word $option:ident $(#[$doc:meta])*) => {
        $(#[$doc])*
        #[must_use]
        pub fn $option(self, $option: &str) -> Self {
            Self(self.0.option(stringify!($option), $option))
        }
    };
    (flag $option:ident $(#[$doc:meta])*) => {
        $(#[$doc])*
        #[must_use]
        pub fn $option(self, $option: bool) -> Self {
            Self(self.0.option(stringify!($option), $option))
        }
    };
}

pub(super) use {factors, loss_with_options, setter};
