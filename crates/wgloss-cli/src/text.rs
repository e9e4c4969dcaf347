//! Columns of text, and stdout that may be closed.

use std::io::{ErrorKind, Write};

#[derive(Clone, Copy)]
pub enum Align {
    Left,
    Right,
}

/// Rows in columns as wide as their widest cell, two spaces apart, a line each.
pub fn columns(aligns: &[Align], rows: &[Vec<String>]) -> String {
    let width = |column: usize| rows.iter().map(|row| row[column].chars().count()).max().unwrap_or(0);
    let widths: Vec<usize> = (0..aligns.len()).map(width).collect();
    let line = |row: &Vec<String>| {
        let cells = row.iter().zip(aligns).zip(&widths).map(|((cell, align), &width)| match align {
            Align::Left => format!("{cell:<width$}"),
            Align::Right => format!("{cell:>width$}"),
        });
        format!("{}\n", cells.collect::<Vec<_>>().join("  ").trim_end())
    };
    rows.iter().map(line).collect()
}

/// Writes to stdout; a reader that has seen enough (`| head`) is no error.
pub fn print(text: &str) -> std::io::Result<()> {
    let mut out = std::io::stdout().lock();
    match out.write_all(text.as_bytes()).and_then(|()| out.flush()) {
        Err(error) if error.kind() == ErrorKind::BrokenPipe => Ok(()),
        other => other,
    }
}

/// A progress bar on stderr, where that is a terminal.
pub fn progress(steps: usize) -> indicatif::ProgressBar {
    let style = indicatif::ProgressStyle::with_template("{wide_bar} {pos}/{len} {elapsed}  {msg:<40!}");
    let bar = indicatif::ProgressBar::new(steps as u64);
    bar.with_style(style.expect("the template is constant"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn columns_are_as_wide_as_their_widest_cell() {
        let rows = [vec!["a".to_owned(), "1".to_owned()], vec!["long".to_owned(), "20".to_owned()]];
        assert_eq!(columns(&[Align::Left, Align::Right], &rows), "a      1\nlong  20\n");
    }
}
