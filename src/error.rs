//! What can go wrong, with what was found and what is allowed.

/// Error of any wgloss call. Bad input is found on the host before anything is encoded, and changes nothing.
#[derive(Debug, Clone, PartialEq, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// A tensor's shape does not fit the others.
    #[error("shape of `{input}`: found {found:?}, expected {expected}")]
    Shape {
        /// Name of the input.
        input: String,
        /// What would fit.
        expected: String,
        /// What was given.
        found: Vec<usize>,
    },
    /// A tensor's element type is not one that the input takes.
    #[error("element type of `{input}`: found {found}, expected {expected}")]
    DType {
        /// Name of the input.
        input: String,
        /// What would fit.
        expected: String,
        /// What was given.
        found: String,
    },
    /// A parameter is outside its domain.
    #[error("{param} = {found} for {loss}; must be {allowed}")]
    Param {
        /// Name of the loss.
        loss: String,
        /// Name of the parameter.
        param: String,
        /// The value given.
        found: String,
        /// The domain.
        allowed: String,
    },
    /// A name that the loss or the plan does not know, or one that is missing.
    #[error("{what} `{name}`; known here: {known}")]
    Name {
        /// What the name was taken for.
        what: String,
        /// The name.
        name: String,
        /// The names that would do.
        known: String,
    },
    /// An expression is not well formed (scope, kind, or a reduction where none may stand).
    #[error("expression of {loss}: {message}")]
    Expr {
        /// Name of the loss.
        loss: String,
        /// What is wrong and what would be right.
        message: String,
    },
    /// A class index outside `0..classes` that is not `ignore_index`. Its row was poisoned with NaN.
    #[error(
        "{} in row {row} is out of range; classes are 0..{classes} (the row's loss and gradient are NaN)",
        label_text(*label)
    )]
    LabelOutOfRange {
        /// First row with such a label.
        row: u64,
        /// The label, as found in the buffer when the status was read; [`Error::UNKNOWN_LABEL`] where it could not be
        /// read (a buffer without `COPY_SRC`), or was changed since.
        label: i64,
        /// Number of classes.
        classes: u64,
    },
    /// Two bindings overlap in memory and at least one of them is written.
    #[error(
        "`{first}` and `{second}` overlap in one buffer (bytes {found}), and one of them is written; ask for an in-place gradient, or use disjoint ranges"
    )]
    Alias {
        /// One binding.
        first: String,
        /// The other binding.
        second: String,
        /// The byte ranges.
        found: String,
    },
    /// A tensor, a workspace or a kernel needs more than the device allows.
    #[error("{what} needs {needed}, the device allows {allowed} ({limit})")]
    Limit {
        /// What is too large.
        what: String,
        /// What it needs.
        needed: u64,
        /// What the device allows.
        allowed: u64,
        /// Name of the limit.
        limit: &'static str,
    },
    /// A buffer is smaller than the tensor in it, lacks a usage, or belongs elsewhere.
    #[error("buffer of `{input}`: {message}")]
    Buffer {
        /// Name of the binding.
        input: String,
        /// What is wrong and what would be right.
        message: String,
    },
    /// No adapter was found.
    #[error("no GPU adapter: {message}")]
    NoAdapter {
        /// What was looked for and how to get a software adapter.
        message: String,
    },
    /// The device ran out of memory when a buffer was created; the context is still usable.
    #[error("out of device memory: {what} of {bytes} bytes")]
    OutOfMemory {
        /// What was being created.
        what: String,
        /// Its size.
        bytes: u64,
    },
    /// The device reported an error, or was lost.
    #[error("device: {message}")]
    Device {
        /// What the device said.
        message: String,
    },
    /// Something that this version does not do.
    #[error("not supported: {message}")]
    Unsupported {
        /// What, and what to do instead.
        message: String,
    },
}

impl Error {
    /// Stands for the label of [`Error::LabelOutOfRange`] where the row is known and its label is not. Labels have 32
    /// bits: none is this.
    pub const UNKNOWN_LABEL: i64 = i64::MIN;
}

fn label_text(label: i64) -> String {
    if label == Error::UNKNOWN_LABEL { "a label (not known which)".to_owned() } else { format!("label {label}") }
}

/// Result of a wgloss call.
pub type Result<T> = std::result::Result<T, Error>;
