//! `wgloss export`: kernels and manifest, run by a host that has none of wgloss's code.

// The oracles that the library's tests have.
#[path = "../../../../tests/common/mod.rs"]
mod common;
mod host;

use common::cases::{case, names};
use common::compare::{mismatch, report};
use common::{label_of, loss_of, on_cpu, oracle};
use host::{Host, Written};
use std::path::{Path, PathBuf};
use std::process::{Command, Output};
use wgloss::losses::Entry;

fn wgloss(args: &[&str], folder: &Path) -> Output {
    let mut command = Command::new(env!("CARGO_BIN_EXE_wgloss"));
    command.arg("export").args(args).arg("-o").arg(folder).output().expect("the binary runs")
}

fn folder(name: &str) -> PathBuf {
    Path::new(env!("CARGO_TARGET_TMPDIR")).join("export").join(name)
}

/// A folder with what was exported.
fn exported(name: &str, args: &[&str]) -> PathBuf {
    let folder = folder(name);
    let output = wgloss(args, &folder);
    assert!(output.status.success(), "{args:?}: {}", String::from_utf8_lossy(&output.stderr));
    folder
}

fn host() -> Option<Host> {
    let host = Host::new();
    assert!(host.is_some() || std::env::var_os("WGLOSS_REQUIRE_ADAPTER").is_none(), "no adapter");
    host
}

fn f32s(values: &[f64]) -> Vec<u8> {
    values.iter().flat_map(|x| (*x as f32).to_le_bytes()).collect()
}

/// The upper halves of f32 values that have nothing in the lower.
fn bf16s(values: &[f64]) -> Vec<u8> {
    values.iter().flat_map(|x| ((*x as f32).to_bits() >> 16).to_le_bytes()[..2].to_vec()).collect()
}

fn numbers(bytes: &[u8], count: usize) -> Vec<f64> {
    let words = bytes.chunks_exact(4).take(count);
    words.map(|word| f64::from(f32::from_le_bytes(word.try_into().expect("four bytes")))).collect()
}

fn halves(bytes: &[u8], count: usize) -> Vec<f64> {
    let halves = bytes.chunks_exact(2).take(count);
    let widened = |half: &[u8]| f32::from_bits(u32::from(u16::from_le_bytes([half[0], half[1]])) << 16);
    halves.map(|half| f64::from(widened(half))).collect()
}

/// Logits that bf16 holds, and labels, one of them out of use.
fn logits(rows: usize, cols: usize) -> (Vec<f64>, Vec<i32>) {
    let mut state = 1u32;
    let mut random = || {
        state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
        state >> 16
    };
    let logits = (0..rows * cols).map(|_| f64::from(random() % 256) / 32.0 - 4.0).collect();
    let labels = (0..rows).map(|row| if row % 5 == 3 { -100 } else { (random() as usize % cols) as i32 });
    (logits, labels.collect())
}

/// Mean cross-entropy over the rows that count, and its gradient: the textbook.
fn cross_entropy(logits: &[f64], labels: &[i32], cols: usize) -> (f64, Vec<f64>) {
    let valid = labels.iter().filter(|label| **label >= 0).count() as f64;
    let (mut loss, mut grads) = (0.0, vec![0.0; logits.len()]);
    for (row, &label) in labels.iter().enumerate().filter(|(_, label)| **label >= 0) {
        let x = &logits[row * cols..][..cols];
        let max = x.iter().copied().fold(f64::MIN, f64::max);
        let sum: f64 = x.iter().map(|x| (x - max).exp()).sum();
        loss += sum.ln() + max - x[label as usize];
        for (col, x) in x.iter().enumerate() {
            let one_hot = if col == label as usize { 1.0 } else { 0.0 };
            grads[row * cols + col] = ((x - max).exp() / sum - one_hot) / valid;
        }
    }
    (loss / valid, grads)
}

fn label_bytes(labels: &[i32]) -> Vec<u8> {
    labels.iter().flat_map(|label| label.to_le_bytes()).collect()
}

fn check(what: &str, got: &Written, want: &(f64, Vec<f64>), half: bool) {
    let count = want.1.len();
    let loss = numbers(&got.outputs["loss"], 1);
    assert!(mismatch(&loss, &[want.0], 2e-6, |_| 2e-7).is_none(), "{what}: loss {loss:?}, want {}", want.0);
    let largest = want.1.iter().fold(0.0f64, |most, x| most.max(x.abs()));
    let d_input = &got.outputs["d_input"];
    // bf16: one rounding.
    let off = match half {
        false => mismatch(&numbers(d_input, count), &want.1, 1e-6, |_| 2e-6 * largest),
        true => mismatch(&halves(d_input, count), &want.1, 1.0 / 256.0, |_| 2e-6 * largest),
    };
    assert!(off.is_none(), "{what}: d_input {}", off.unwrap_or_default());
}

#[test]
fn cross_entropy_runs_from_its_manifest_at_other_shapes() {
    let Some(host) = host() else { return };
    // Made for, then run at: rows in registers, odd rows that share words in bf16, streamed rows, split rows, one lane
    // a row, more rows than one step adds up.
    let cases: [([u64; 2], &[[u64; 2]]); 6] = [
        ([64, 1000], &[[64, 1000], [37, 1000], [5, 500], [3, 4]]),
        ([64, 1001], &[[64, 1001], [9, 777], [8, 1000]]),
        ([200, 20_000], &[[20, 20_000], [2, 30_000]]),
        ([3, 70_000], &[[3, 70_000], [2, 1000], [40, 8192]]),
        ([500, 10], &[[500, 10], [33, 7]]),
        ([20_000, 12], &[[20_000, 12], [16_385, 12], [70, 8], [2, 4]]),
    ];
    for dtype in ["f32", "bf16"] {
        for (made_for, shapes) in cases {
            let [rows, cols] = made_for.map(|size| size.to_string());
            let name = format!("cross_entropy-{dtype}-{rows}x{cols}");
            let folder = exported(&name, &["cross_entropy", "--rows", &rows, "--cols", &cols, "--dtype", dtype]);
            let program = host.load(&folder);
            for [rows, cols] in shapes {
                let (logits, labels) = logits(*rows as usize, *cols as usize);
                let bytes = if dtype == "f32" { f32s(&logits) } else { bf16s(&logits) };
                let got = program.run(&[("input", bytes), ("target", label_bytes(&labels))], *rows, *cols);
                let want = cross_entropy(&logits, &labels, *cols as usize);
                check(&format!("{name} at {rows} x {cols}"), &got, &want, dtype == "bf16");
                assert_eq!(got.status, u32::MAX);
            }
        }
    }
}

#[test]
fn a_bad_label_is_in_the_status_word_and_a_scalar_scales_the_gradient() {
    let Some(host) = host() else { return };
    let folder = exported("upstream", &["cross_entropy", "--rows", "16", "--cols", "100", "--upstream"]);
    let program = host.load(&folder);
    let (logits, mut labels) = logits(16, 100);
    let run = |labels: &[i32]| {
        let inputs = [("input", f32s(&logits)), ("target", label_bytes(labels)), ("upstream", f32s(&[3.0]))];
        program.run(&inputs, 16, 100)
    };
    let (loss, grads) = cross_entropy(&logits, &labels, 100);
    check("upstream 3", &run(&labels), &(loss, grads.iter().map(|grad| 3.0 * grad).collect()), false);
    labels[11] = 100;
    let got = run(&labels);
    assert_eq!(got.status, 11);
    assert!(numbers(&got.outputs["loss"], 1)[0].is_nan());
}

#[test]
fn every_loss_runs_from_its_manifest() {
    let Some(host) = host() else { return };
    let (mut complaints, mut count) = (Vec::new(), 0);
    for Entry { name, make, .. } in wgloss::losses::CATALOGUE {
        let cols = make().cols().expect("one number of columns").unwrap_or(28) as usize;
        // An export has rows along its first axis.
        let is_whole = make().rows_along() == wgloss::RowAxis::From(0);
        // Nor has it values per sample and class: kernels are made for one number of samples.
        let is_by_sample = make().option_value("batch").is_some();
        let options = match (is_whole, is_by_sample) {
            (true, _) => vec![("axis", oracle::Opt::AxesFrom(1))],
            (_, true) => vec![("batch", oracle::Opt::Flag(true))],
            _ => vec![],
        };
        let cols_text = cols.to_string();
        let mut args = vec![*name, "--rows", "40", "--cols", &cols_text];
        if is_whole {
            args.extend(["--option", "row_axis=1.."]);
        }
        if is_by_sample {
            args.extend(["--option", "batch=true"]);
        }
        let folder = exported(name, &args);
        let program = host.load(&folder);
        let rows = 7;
        let case = case(name, &options, &[rows, cols], &[], "mean", 2.5);
        let loss = loss_of(name, &case).expect("a loss");
        let label = case.labels.as_ref().map_or_else(String::new, |_| label_of(&loss));
        let whole = |values: &[f64]| values.iter().map(|x| *x as i32).collect::<Vec<i32>>();
        let bytes = |name: &String, values: &[f64]| match case.integers.contains(name) {
            true => label_bytes(&whole(values)),
            false => f32s(values),
        };
        let mut inputs: Vec<(&str, Vec<u8>)> =
            case.arrays.iter().map(|(name, array)| (name.as_str(), bytes(name, &array.values))).collect();
        if let Some((labels, _)) = &case.labels {
            let narrow: Vec<i32> = labels.iter().map(|label| *label as i32).collect();
            inputs.push((&label, label_bytes(&narrow)));
        }
        let got = program.run(&inputs, rows as u64, cols as u64);
        count += 1;
        // The oracle is the textbook; the CPU path's gradients were compared with its differences.
        let want = oracle::oracle(name, &case).expect("an oracle");
        let value = numbers(&got.outputs["loss"], want.len());
        complaints.extend(mismatch(&value, &want, 1e-5, |_| 1e-6).map(|off| format!("{name}: loss {off}")));
        let wrt = names(name).0;
        let want = &on_cpu(&loss, &case, &[wrt]).expect("right").grads[wrt];
        let largest = want.iter().fold(0.0f64, |most, x| most.max(x.abs()));
        let grads = numbers(&got.outputs[&format!("d_{wrt}")], want.len());
        let off = mismatch(&grads, want, 1e-6, |_| 4e-6 * largest);
        complaints.extend(off.map(|off| format!("{name}: d_{wrt} {off}")));
    }
    report(complaints, count);
}

#[test]
fn conditions_refuse_what_the_kernels_cannot_do() {
    let Some(host) = host() else { return };
    let folder = exported("conditions", &["cross_entropy", "--rows", "64", "--cols", "1000"]);
    let program = host.load(&folder);
    assert!(program.unmet(64, 1000).is_empty());
    assert_eq!(program.unmet(64, 1001), ["cols % 4 == 0"]);
    assert_eq!(program.unmet(1, 1000), ["2 <= rows"]);
    assert_eq!(program.unmet(64, 4000), ["cols <= 1024"]);
    assert_eq!(program.unmet(70_000, 1000), ["rows <= 65536"]);
}

#[test]
fn arguments_that_cannot_be_exported_are_told() {
    let cases: [(&[&str], i32, &str); 6] = [
        (&["cross_entrpy"], 2, "'cross_entropy'"),
        (&["mse", "--rows", "1"], 2, "1 is not in 2"),
        (&["cross_entropy", "--input", "wieght"], 1, "weight, sample_weight, mask"),
        (&["cross_entropy", "--rows", "50000"], 1, "128 MiB"),
        (&["mse", "--reduction", "none", "--upstream"], 1, "--upstream"),
        (&["huber", "-O", "delta=-1"], 1, "delta"),
    ];
    for (args, code, told) in cases {
        let output = wgloss(args, &folder("refused"));
        let stderr = String::from_utf8_lossy(&output.stderr).into_owned();
        assert!(output.status.code() == Some(code) && stderr.contains(told), "{args:?}: {stderr}");
    }
    assert!(!folder("refused").exists(), "nothing is written of what was refused");
}
