//! The binary: each subcommand, bad arguments, and a dispatch that falls short, which `verify` must find.

use serde_json::Value;
use std::process::{Command, Output};

fn wgloss(args: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_wgloss")).args(args).output().expect("the binary runs")
}

fn stdout(output: &Output) -> String {
    String::from_utf8(output.stdout.clone()).expect("UTF-8")
}

fn stderr(output: &Output) -> String {
    String::from_utf8_lossy(&output.stderr).into_owned()
}

/// Exits with 0, and prints what is returned.
fn right(args: &[&str]) -> String {
    let output = wgloss(args);
    assert_eq!(output.status.code(), Some(0), "{args:?}: {}{}", stdout(&output), stderr(&output));
    stdout(&output)
}

fn json(text: &str) -> Value {
    serde_json::from_str(text).unwrap_or_else(|error| panic!("{error}: {text}"))
}

/// Whether there is an adapter to run on. The binary always takes all that it has: with the limits of
/// `WGLOSS_TEST_LIMITS` there is nothing else to see.
fn has_adapter() -> bool {
    if std::env::var_os("WGLOSS_TEST_LIMITS").is_some() {
        return false;
    }
    let found = wgloss::Context::new();
    assert!(found.is_ok() || std::env::var_os("WGLOSS_REQUIRE_ADAPTER").is_none(), "{found:?}");
    found.is_ok()
}

#[test]
fn help_names_every_subcommand_and_hides_the_test_hook() {
    let help = right(&["--help"]);
    for word in ["adapters", "verify", "bench", "explain", "export", "report", "--adapter", "--backend", "Exit codes"] {
        assert!(help.contains(word), "{word} in {help}");
    }
    assert!(!right(&["verify", "--help"]).contains("break"));
}

#[test]
fn arguments_that_make_no_sense_exit_with_2_and_a_suggestion() {
    let cases: [(&[&str], &str); 6] = [
        (&["verify", "cross_entrpy"], "'cross_entropy'"),
        (&["bench", "mse1"], "'mse'"),
        (&["explain", "hubr"], "'huber'"),
        (&["verfy"], "'verify'"),
        (&["bench", "--rows", "3"], "--cols"),
        (&["bench", "--dtype", "f23"], "f32"),
    ];
    for (args, told) in cases {
        let output = wgloss(args);
        assert_eq!(output.status.code(), Some(2), "{args:?}");
        assert!(stderr(&output).contains(told), "{args:?}: {}", stderr(&output));
    }
}

#[test]
#[cfg(target_os = "linux")]
fn without_an_adapter_the_way_to_get_one_is_told() {
    // No Linux has this backend.
    let output = wgloss(&["adapters", "--backend", "dx12"]);
    assert_eq!(output.status.code(), Some(1));
    let told = stderr(&output);
    assert!(told.contains("no GPU adapter") && told.contains("apt-get install mesa-vulkan-drivers"), "{told}");
}

#[test]
fn an_adapter_that_is_not_there_is_told_with_those_that_are() {
    if !has_adapter() {
        return;
    }
    let output = wgloss(&["adapters", "--adapter", "no such adapter"]);
    assert_eq!(output.status.code(), Some(1));
    assert!(stderr(&output).contains("there are `"), "{}", stderr(&output));
}

#[test]
fn adapters_marks_the_one_that_is_picked() {
    if !has_adapter() {
        return;
    }
    let all = json(&right(&["adapters", "--json"]));
    let picked: Vec<&Value> = all.as_array().expect("a list").iter().filter(|one| one["picked"] == true).collect();
    assert_eq!(picked.len(), 1, "{all}");
    assert!(picked[0]["max_storage_buffer_binding_size"].as_u64().is_some_and(|bytes| bytes >= 1 << 27));
    let text = right(&["adapters"]);
    assert_eq!(text.matches("<- picked").count(), 1, "{text}");
}

#[test]
fn verify_finds_nothing_wrong_with_whole_kernels() {
    if !has_adapter() {
        return;
    }
    let found = json(&right(&["verify", "--quick", "--json", "mse", "nll"]));
    assert_eq!(found["passed"], true);
    let results = found["results"].as_array().expect("a list");
    for dtype in ["f32", "f16", "bf16"] {
        let lines: Vec<&Value> = results.iter().filter(|line| line["dtype"] == dtype).collect();
        assert!(lines.iter().any(|line| line["schedule"] == "split in 3"), "{found}");
        for line in lines.iter().filter(|line| line["shapes"] != 0) {
            assert!(line["units"].as_f64().is_some_and(|units| units <= 1.0), "{line}");
        }
    }
    let text = right(&["verify", "--quick", "mse", "--dtype", "f32"]);
    assert!(text.contains("elements, width 1") && text.contains("all right"), "{text}");
}

#[test]
fn verify_finds_a_schedule_that_leaves_the_last_row_out() {
    if !has_adapter() {
        return;
    }
    let args = ["verify", "--quick", "--dtype", "f32", "--break-schedule"];
    // Of one kernel alone: the others stay right.
    let output = wgloss(&[&args[..], &["split in 3", "cross_entropy"]].concat());
    assert_eq!(output.status.code(), Some(1), "{}", stdout(&output));
    let wrong: Vec<String> =
        stderr(&output).lines().filter(|line| line.starts_with("WRONG")).map(str::to_owned).collect();
    // The third row is not written.
    let told = "WRONG cross_entropy, split in 3, f32, shape [3, 257]: gradient of input at [2, 0]: got NaN, want ";
    assert!(wrong.iter().any(|line| line.starts_with(told)), "{wrong:?}");
    assert!(wrong.iter().all(|line| line.contains(", split in 3")), "{wrong:?}");
    let told = stdout(&output);
    assert!(told.contains("WRONG: 2 of "), "{told}");
    // The same as JSON, of a loss without rows.
    let output = wgloss(&[&args[..], &["elements", "huber", "--json"]].concat());
    assert_eq!(output.status.code(), Some(1));
    let found = json(&stdout(&output));
    let results = found["results"].as_array().expect("a list");
    let of = |name: &str| results.iter().find(|line| line["schedule"] == name).expect("a line for each schedule");
    assert_eq!(found["passed"], false);
    assert_eq!(of("as chosen")["passed"], true);
    let line = of("elements, width 1");
    assert_eq!(line["passed"], false);
    assert_eq!(line["worst"]["got"], "NaN");
    assert_eq!(line["worst"]["shape"], serde_json::json!([3, 257]));
    assert_eq!(line["worst"]["index"], serde_json::json!([2, 0]), "{line}");
}

#[test]
fn bench_gives_one_record_for_gpu_and_cpu() {
    if !has_adapter() {
        return;
    }
    let args = ["bench", "mse", "cross_entropy", "--rows", "32", "--cols", "33"];
    let record = json(&right(&[&args[..], &["--json"]].concat()));
    assert_eq!(record["format"], 1);
    assert_eq!(record["wgloss"], env!("CARGO_PKG_VERSION"));
    assert_eq!(record["date"].as_str().map(str::len), Some(10));
    for key in ["name", "backend", "driver", "type"] {
        assert!(record["adapter"][key].is_string(), "{key}");
    }
    assert!(record["cpu"].is_string() && record["threads"].as_u64().is_some_and(|threads| threads > 0));
    assert!(record["copy_gb_per_s"].as_f64().is_some_and(|rate| rate > 0.0));
    let results = record["results"].as_array().expect("a list");
    let of = |loss: &str, by: &str| results.iter().find(|r| r["loss"] == loss && r["by"] == by && r["clock"] == "wall");
    for loss in ["mse", "cross_entropy"] {
        for by in ["wgloss", "wgloss-cpu"] {
            let line = of(loss, by).unwrap_or_else(|| panic!("{loss} by {by}: {record}"));
            let number = |key: &str| line[key].as_f64().unwrap_or_else(|| panic!("{key} of {line}"));
            assert!(number("min_ms") <= number("median_ms") && number("median_ms") <= number("max_ms"));
            assert!(number("error") <= 1.0 && number("runs") >= 5.0);
            let rate = number("bytes") / number("median_ms") / 1e6;
            assert!((number("gb_per_s") / rate - 1.0).abs() < 1e-9);
        }
        assert!(of(loss, "wgloss").unwrap()["share_of_copy"].is_f64());
        assert!(of(loss, "wgloss-cpu").unwrap()["share_of_copy"].is_null(), "it is not the device's copy");
    }
    // Input, target and gradient of 4 bytes, and the loss.
    assert_eq!(of("mse", "wgloss").unwrap()["bytes"], 3 * 4 * 32 * 33 + 4);

    let args = ["bench", "mse", "--rows", "8", "--cols", "8", "--dtype", "f16", "--work", "forward", "--csv"];
    let csv = right(&args);
    let mut lines = csv.lines();
    let columns = lines.next().expect("a line of names").split(',').count();
    assert_eq!(columns, 16);
    assert!(lines.all(|line| line.contains(",mse,8,8,f16,forward,wgloss,")), "{csv}");
}

#[test]
fn explain_tells_expression_gradient_stages_and_bytes() {
    if !has_adapter() {
        return;
    }
    let text = right(&["explain", "cross_entropy", "--rows", "64", "--cols", "1000", "-O", "label_smoothing=0.1"]);
    for part in ["gradient of input", "softmax(input)", "label_smoothing", "stage 0", "must move", "64 rows of 1000"] {
        assert!(text.contains(part), "{part} in {text}");
    }
    assert!(!text.contains("@compute"));
    let kernels = right(&["explain", "huber", "--rows", "4", "--cols", "4", "--dtype", "bf16", "--wgsl"]);
    assert!(kernels.contains("@compute") && kernels.contains("// huber: pass 0"), "{kernels}");
    right(&["explain", "cross_entropy", "-O", "class_axis=last"]);
    let output = wgloss(&["explain", "cross_entropy", "-O", "class_axis=first"]);
    assert!(String::from_utf8_lossy(&output.stderr).contains("one, last"));
    right(&["explain", "hinge", "-O", "row_axis=1.."]);
    let output = wgloss(&["explain", "hinge", "-O", "row_axis=..1"]);
    assert!(String::from_utf8_lossy(&output.stderr).contains("INDEX.."));
    let learned = right(&["explain", "cross_entropy", "--rows", "64", "-O", "temperature=@t"]);
    assert!(learned.lines().any(|line| line.contains("/ t")), "{learned}");
    let output = wgloss(&["explain", "huber", "--option", "delta=@mask"]);
    assert!(stderr(&output).contains("the name of a scalar input"), "{}", stderr(&output));
    let output = wgloss(&["explain", "huber", "--option", "beta=1"]);
    assert_eq!(output.status.code(), Some(1));
    assert!(stderr(&output).contains("known here: delta"), "{}", stderr(&output));
}

#[test]
fn explain_plans_for_a_gpu_that_is_not_here() {
    // With no driver at all: a Vulkan loader that is told of none, and backends that Linux has not.
    let explain = |args: &[&str]| {
        let mut command = Command::new(env!("CARGO_BIN_EXE_wgloss"));
        command.env("WGPU_BACKEND", "dx12").env("VK_DRIVER_FILES", "").args(["explain", "cross_entropy"]).args(args);
        let output = command.output().expect("the binary runs");
        assert_eq!(output.status.code(), Some(0), "{args:?}: {}", stderr(&output));
        stdout(&output)
    };
    let shape = ["--rows", "4096", "--cols", "50257", "--dtype", "bf16", "--wgsl", "--as"];
    let text = explain(&[&shape[..], &["navi21"]].concat());
    for part in ["on the preset navi21", "subgroups of 32", "must move", "@compute"] {
        assert!(text.contains(part), "{part} in {text}");
    }
    assert!(explain(&["--as", "webgpu"]).contains("no subgroups"));
    let unknown = wgloss(&["explain", "mse", "--as", "navi22"]);
    assert_eq!(unknown.status.code(), Some(2));
    assert!(stderr(&unknown).contains("navi21"), "{}", stderr(&unknown));
}

#[test]
fn an_export_clears_what_an_earlier_one_left_and_nothing_else() {
    let folder = std::path::Path::new(env!("CARGO_TARGET_TMPDIR")).join("cli-export");
    let _ = std::fs::remove_dir_all(&folder);
    let export = |loss: &str| wgloss(&["export", loss, "-o", folder.to_str().unwrap()]);
    let held = || {
        let entries =
            std::fs::read_dir(&folder).unwrap().map(|entry| entry.unwrap().file_name().into_string().unwrap());
        entries.collect::<std::collections::BTreeSet<String>>()
    };
    let named = || {
        let manifest = json(&std::fs::read_to_string(folder.join("manifest.json")).unwrap());
        let kernels = manifest["kernels"].as_array().unwrap().iter().map(|k| k["file"].as_str().unwrap().to_owned());
        kernels.chain(["manifest.json".to_owned()]).collect::<std::collections::BTreeSet<String>>()
    };
    assert_eq!(export("cross_entropy").status.code(), Some(0));
    let many = held();
    assert_eq!(many, named());
    // One that no manifest names any more, as exports of before left them; and files of somebody else's.
    std::fs::copy(folder.join("kernel0.wgsl"), folder.join("kernel9.wgsl")).unwrap();
    let mine = ["kernel77.wgsl", "kernel.wgsl", "notes.txt"];
    mine.iter().for_each(|name| std::fs::write(folder.join(name), "mine").unwrap());
    assert_eq!(export("mse").status.code(), Some(0));
    let few = named();
    assert!(few.len() < many.len());
    assert_eq!(held(), few.iter().cloned().chain(mine.map(str::to_owned)).collect());
    assert!(mine.iter().all(|name| std::fs::read_to_string(folder.join(name)).unwrap() == "mine"));
    // What would be written over is not ours: nothing is changed.
    std::fs::write(folder.join("kernel2.wgsl"), "mine").unwrap();
    let refused = export("cross_entropy");
    assert!(refused.status.code() == Some(1) && stderr(&refused).contains("kernel2.wgsl"), "{}", stderr(&refused));
    assert_eq!(named(), few, "the earlier export is whole");
    std::fs::write(folder.join("manifest.json"), "{\"format\": \"a web app\"}").unwrap();
    let refused = export("mse");
    assert!(refused.status.code() == Some(1) && stderr(&refused).contains("manifest.json"), "{}", stderr(&refused));
    assert_eq!(std::fs::read_to_string(folder.join("manifest.json")).unwrap(), "{\"format\": \"a web app\"}");
    // A manifest that names what lies elsewhere, or what no export writes.
    std::fs::remove_file(folder.join("kernel2.wgsl")).unwrap();
    let evil =
        "{\"format\": \"wgloss manifest 1\", \"kernels\": [{\"file\": \"../victim.wgsl\"}, {\"file\": \"notes.txt\"}]}";
    std::fs::write(folder.join("manifest.json"), evil).unwrap();
    std::fs::write(folder.with_file_name("victim.wgsl"), "mine").unwrap();
    assert_eq!(export("mse").status.code(), Some(0));
    assert!(folder.with_file_name("victim.wgsl").exists() && folder.join("notes.txt").exists());
}

#[test]
fn sizes_that_no_machine_holds_are_complained_of() {
    if !has_adapter() {
        return;
    }
    for (loss, rows, cols) in [
        ("mse", "4294967295", "4294967295"),
        ("cross_entropy", "4294967295", "4294967295"),
        ("cross_entropy", "1", "4294967295"),
        ("l1_penalty", "4294967295", "65536"),
    ] {
        let output = wgloss(&["bench", loss, "--rows", rows, "--cols", cols]);
        assert_eq!(output.status.code(), Some(1), "{loss} {rows}x{cols}: {}", stderr(&output));
        let told = stderr(&output);
        assert!(told.contains("needs") || told.contains("expected at most"), "{loss} {rows}x{cols}: {told}");
    }
}

#[test]
fn a_report_of_odd_records_ends_and_holds_no_markup_of_theirs() {
    let folder = std::path::Path::new(env!("CARGO_TARGET_TMPDIR")).join("cli-report");
    std::fs::create_dir_all(&folder).unwrap();
    let (record, page) = (folder.join("record.json"), folder.join("page.html"));
    for number in ["1e308", "5e-324", "0.0", "-1.0", "1e20"] {
        let text = format!(
            r#"{{"format": 1, "wgloss": "0", "commit": null, "date": "<script>alert(1)</script>",
            "adapter": {{"name": "a", "backend": "b", "driver": "d", "type": "t"}}, "cpu": "c", "threads": 1,
            "copy_gb_per_s": {number}, "results": [{{"loss": "mse", "rows": 1, "cols": 1, "dtype": "f32",
            "work": "forward", "by": "wgloss", "clock": "wall", "bytes": 8, "median_ms": {number}, "min_ms": {number},
            "max_ms": {number}, "runs": 1, "gb_per_s": {number}, "share_of_copy": {number}, "error": {number}}}]}}"#
        );
        std::fs::write(&record, text).unwrap();
        right(&["report", record.to_str().unwrap(), "-o", page.to_str().unwrap()]);
        let html = std::fs::read_to_string(&page).unwrap();
        assert!(!html.contains("<script") && html.contains("&lt;script&gt;"), "{number}");
    }
}
