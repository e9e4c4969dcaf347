//! Errors, each with the value found and the values allowed.

/// Error of any wgloss call. Bad input is found on the host before anything is encoded, and changes nothing.
#[derive(Debug, Clone, PartialEq, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// A tensor's shape does not fit the others.
    #[error("shape of `{input}`: found {found:?}, expected {expected}")]
    Shape {
        /// Name of the input.
        input: String,
        /// The shapes or types that fit.
        expected: String,
        /// The shape or type given.
        found: Vec<usize>,
    },
    /// A tensor's element type is not one that the input takes.
    #[error("element type of `{input}`: found {found}, expected {expected}")]
    DType {
        /// Name of the input.
        input: String,
        /// The shapes or types that fit.
        expected: String,
        /// The shape or type given.
        found: String,
    },
    /// A value on the host that no tensor stores.
    #[error("element {index} of `{input}` is {found}: {allowed}")]
    Value {
        /// The tensor that was being made, or the call.
        input: String,
        /// Index of the first such value.
        index: usize,
        /// The value.
        found: String,
        /// The values that can be stored.
        allowed: String,
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
        /// The failed look-up, as the start of a sentence: "mse has no input".
        what: String,
        /// The name.
        name: String,
        /// The names that are known here.
        known: String,
    },
    /// An expression is not well formed (scope, kind, or a reduction where none may stand).
    #[error("expression of {loss}: {message}")]
    Expr {
        /// Name of the loss.
        loss: String,
        /// The mistake, and the way to correct it.
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
        /// The label in the buffer when the status was read, or one of them, if the row has several; [`Error::UNKNOWN_LABEL`] if it could not be read (a buffer
        /// without `COPY_SRC`), or was changed since.
        label: i64,
        /// Number of classes.
        classes: u64,
    },
    /// An offset or id of groups of unequal length is out of range, or less than the one before it. It led nowhere outside
    /// the tensors; what depends on its group was poisoned with NaN.
    #[error(
        "element {index} of `{input}` is {}: must be {allowed}; the results of that group are NaN",
        value.map_or("wrong (its value is not known)".to_owned(), |value| value.to_string())
    )]
    GroupOutOfRange {
        /// Name of the input.
        input: String,
        /// Index of the first such offset (the group that it begins) or id (its row).
        index: u64,
        /// The value in the buffer when the status was read; `None` if it could not be read (a buffer without `COPY_SRC`).
        value: Option<i64>,
        /// The values that are allowed there, and why.
        allowed: String,
    },
    /// The length of a sequence is negative or more than its tensor has room for. Its results were poisoned with NaN.
    #[error(
        "`{input}` of sequence {row} is {}: must be 0 to {most}; the results of that sequence are NaN",
        value.map_or("wrong (its value is not known)".to_owned(), |value| value.to_string())
    )]
    LengthOutOfRange {
        /// Name of the input.
        input: String,
        /// Index of the first such sequence.
        row: u64,
        /// The length in the buffer when the status was read; `None` if it could not be read (a buffer without `COPY_SRC`).
        value: Option<i64>,
        /// The longest that there is room for.
        most: u64,
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
        /// The tensor, workspace or kernel.
        what: String,
        /// The amount needed.
        needed: u64,
        /// The most that the device allows.
        allowed: u64,
        /// Name of the limit.
        limit: &'static str,
    },
    /// A buffer is smaller than the tensor in it, lacks a usage, or belongs elsewhere.
    #[error("buffer of `{input}`: {message}")]
    Buffer {
        /// Name of the binding.
        input: String,
        /// The mistake, and the way to correct it.
        message: String,
    },
    /// No adapter was found.
    #[error("no GPU adapter: {message}")]
    NoAdapter {
        /// The adapters that were tried, and how to get a software adapter.
        message: String,
    },
    /// The device ran out of memory when a buffer was created; the context is still usable.
    #[error("out of device memory: {what} of {bytes} bytes")]
    OutOfMemory {
        /// The buffer that was being created.
        what: String,
        /// Its size in bytes.
        bytes: u64,
    },
    /// The device reported an error, or was lost.
    #[error("device: {message}")]
    Device {
        /// The device's message.
        message: String,
    },
    /// Something that this version does not do.
    #[error("not supported: {message}")]
    Unsupported {
        /// The missing feature, and an alternative.
        message: String,
    },
}

impl Error {
    /// The `label` of [`Error::LabelOutOfRange`] if only the row is known. No label has this value: labels have 32
    /// bits.
    pub const UNKNOWN_LABEL: i64 = i64::MIN;
}

fn label_text(label: i64) -> String {
    if label == Error::UNKNOWN_LABEL { "a label (not known which)".to_owned() } else { format!("label {label}") }
}

/// The error of reading one loss where there is none.
pub(crate) fn no_first_value(shape: &[usize]) -> Error {
    let expected = "at least one value; read all values of a loss that is not reduced".to_owned();
    Error::Shape { input: "loss".to_owned(), expected, found: shape.to_vec() }
}

/// Result of a wgloss call.
pub type Result<T> = std::result::Result<T, Error>;
