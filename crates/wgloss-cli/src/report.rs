//! `wgloss report`: records to one self-contained page.

mod page;
mod plots;

use super::{Fallible, Verdict};
use measure::record::{FORMAT, Record};
use std::path::{Path, PathBuf};

#[derive(clap::Args)]
pub struct Args {
    /// Records: files that `wgloss bench --json` or the peers' benchmark wrote
    #[arg(required = true, value_name = "FILES")]
    files: Vec<PathBuf>,
    /// The page to write
    #[arg(short, long, value_name = "FILE", default_value = "report.html")]
    output: PathBuf,
}

pub fn run(args: &Args) -> Fallible<Verdict> {
    let records = args.files.iter().map(|file| read(file)).collect::<Fallible<Vec<Record>>>()?;
    let page = page::page(&records)?;
    std::fs::write(&args.output, page).map_err(|error| format!("{}: {error}", args.output.display()))?;
    println!("{} ({} records)", args.output.display(), records.len());
    Ok(Verdict::Right)
}

fn read(file: &Path) -> Fallible<Record> {
    let named = |error: &dyn std::fmt::Display| format!("{}: {error}", file.display());
    let text = std::fs::read_to_string(file).map_err(|error| named(&error))?;
    let record: Record = serde_json::from_str(&text).map_err(|error| named(&error))?;
    if record.format != FORMAT {
        return Err(named(&format!("format {}; this program reads format {FORMAT}", record.format)).into());
    }
    Ok(record)
}
