//! Every loss of the catalogue, in every element type, by the subcommands that take one. (`export` has a file of its own:
//! there each runs from its manifest.)
//!
//! Of the grid runs the share that `WGLOSS_TEST_SHARE` says.

#[path = "../../../tests/common/share.rs"]
mod share;

use rayon::prelude::*;
use share::Share;
use std::process::Command;
use wgloss::Limits;
use wgloss::losses::CATALOGUE;

const DTYPES: [&str; 3] = ["f32", "f16", "bf16"];
/// A row of a few columns; an odd one of several vectors; one that is streamed.
const SHAPES: [[&str; 2]; 3] = [["7", "3"], ["64", "257"], ["3", "50257"]];

/// What the binary prints; an error where it does not exit with 0.
fn printed(args: &[&str]) -> Result<String, String> {
    let output = Command::new(env!("CARGO_BIN_EXE_wgloss")).args(args).output().expect("the binary runs");
    let [out, err] = [&output.stdout, &output.stderr].map(|text| String::from_utf8_lossy(text).into_owned());
    if output.status.success() { Ok(out) } else { Err(format!("{args:?}: {out}{err}")) }
}

/// Tries the part of the works that the share takes, side by side, and tells all that went wrong.
fn try_all(works: Vec<Vec<&str>>, expected: impl Fn(&[&str], &str) -> bool + Sync) {
    let share = Share::from_env();
    let taken: Vec<Vec<&str>> = works.into_iter().filter(|args| share.takes(&args.join(" "))).collect();
    let complaint = |args: &Vec<&str>| match printed(args) {
        Ok(text) if expected(args, &text) => None,
        Ok(text) => Some(format!("{args:?} printed {text}")),
        Err(error) => Some(error),
    };
    let complaints: Vec<String> = taken.par_iter().filter_map(complaint).collect();
    assert!(complaints.is_empty(), "{} of {}:\n{}", complaints.len(), taken.len(), complaints.join("\n"));
}

#[test]
fn verify_finds_every_loss_right_in_every_element_type() {
    let found = wgloss::Context::new();
    assert!(found.is_ok() || std::env::var_os("WGLOSS_REQUIRE_ADAPTER").is_none(), "{found:?}");
    // The binary takes all limits that the adapter has, whatever the tests are to see.
    if found.is_err() || std::env::var_os("WGLOSS_TEST_LIMITS").is_some() {
        return;
    }
    let of_loss = |name| DTYPES.map(|dtype| vec!["verify", "--quick", name, "--dtype", dtype]);
    let works = CATALOGUE.iter().flat_map(|entry| of_loss(entry.name)).collect();
    try_all(works, |_, text| text.contains("all right"));
}

#[test]
fn explain_plans_every_loss_for_gpus_that_are_not_here() {
    let mut works = Vec::new();
    for (index, entry) in CATALOGUE.iter().enumerate() {
        for (dtype, [rows, cols]) in DTYPES.iter().flat_map(|dtype| SHAPES.map(|shape| (*dtype, shape))) {
            // Each GPU has losses of all kinds: neighbours in the catalogue are of one family.
            let (preset, _) = Limits::PRESETS[(index + works.len()) % Limits::PRESETS.len()];
            let shape = ["--rows", rows, "--cols", cols, "--dtype", dtype];
            works.push([&["explain", entry.name, "--as", preset][..], &shape].concat());
        }
    }
    // A loss of a stated number of columns has that.
    try_all(works, |args, text| text.contains(&format!("on the preset {}", args[3])) && text.contains("gradient of"));
}
