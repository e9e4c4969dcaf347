//! `isa hlsl`: kernels as HLSL, for a compiler that takes no SPIR-V, with a list of them.

use crate::Fallible;
use crate::cases::{Case, Choice, cases, probed};
use crate::compile::held;
use crate::record::Nan;
use crate::shaders::hlsl;
use serde::Serialize;
use std::path::PathBuf;
use wgloss::Limits;
use wgloss::internals::dispatch::Note;

#[derive(clap::Args)]
pub struct Args {
    #[command(flatten)]
    choice: Choice,
    /// How kernels find NaN
    #[arg(long, value_enum, default_value = "sums")]
    nan: Nan,
    /// The folder to write into, which is made where it is not there
    #[arg(value_name = "FOLDER")]
    folder: PathBuf,
}

/// A pass of a case.
#[derive(Serialize)]
struct Written {
    #[serde(flatten)]
    case: Case,
    nan: Nan,
    title: String,
    /// Name of its file.
    file: String,
    /// Elements of one tensor that a lane holds, of a kernel that holds rows.
    held: Option<u32>,
}

/// Writes the passes of all cases as planned for an H100.
pub fn run(args: &Args) -> Fallible<bool> {
    std::fs::create_dir_all(&args.folder)?;
    let limits = probed(&Limits::H100, args.nan);
    let mut all = Vec::new();
    for case in cases(&args.choice)? {
        let preview = case.preview(&limits)?;
        for dispatch in preview.planned.all().filter(|dispatch| matches!(dispatch.note, Note::Pass(_))) {
            let file = format!("{}.hlsl", all.len());
            std::fs::write(args.folder.join(&file), hlsl(&dispatch.wgsl)?)?;
            let title = dispatch.title().trim_start_matches("// ").to_owned();
            let held = held(dispatch, &preview.schedules);
            all.push(Written { case: case.clone(), nan: args.nan, title, file, held });
        }
    }
    std::fs::write(args.folder.join("kernels.json"), serde_json::to_string_pretty(&all)?)?;
    println!("{} kernels in {}", all.len(), args.folder.display());
    Ok(true)
}
