//! Writing into strings, which cannot fail.

/// Appends formatted text to a `String`.
macro_rules! put {
    ($text:expr, $($args:tt)*) => {{
        use std::fmt::Write as _;
        $text.write_fmt(format_args!($($args)*)).expect("a string takes any text");
    }};
}

/// Appends formatted text and the end of the line to a `String`.
macro_rules! putln {
    ($text:expr, $($args:tt)*) => {{
        $crate::text::put!($text, $($args)*);
        $text.push('\n');
    }};
}

pub(crate) use {put, putln};
