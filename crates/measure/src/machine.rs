//! Commit, day and processor, for records.

use std::path::Path;
use std::process::Command;

fn said(program: &str, args: &[&str]) -> Option<String> {
    let out = Command::new(program).args(args).output().ok()?;
    let text = String::from_utf8(out.stdout).ok()?.trim().to_owned();
    (out.status.success() && !text.is_empty()).then_some(text)
}

/// `WGLOSS_COMMIT`, or what git says of this checkout; `-dirty` where something is not committed.
pub fn commit() -> Option<String> {
    let checkout = Path::new(concat!(env!("CARGO_MANIFEST_DIR"), "/../.."));
    let given = std::env::var("WGLOSS_COMMIT").ok().filter(|commit| !commit.is_empty());
    let ask = || {
        // Not a repository around a registry's copy.
        checkout.join(".git").exists().then_some(())?;
        said("git", &["-C", checkout.to_str()?, "describe", "--always", "--dirty", "--abbrev=12", "--exclude=*"])
    };
    given.or_else(ask)
}

/// `YYYY-MM-DD`, UTC.
pub fn date() -> String {
    time::OffsetDateTime::now_utc().date().to_string()
}

/// The processor's name.
pub fn cpu() -> String {
    let linux = || {
        let text = std::fs::read_to_string("/proc/cpuinfo").ok()?;
        let line = text.lines().find(|line| line.starts_with("model name"))?;
        Some(line.split_once(':')?.1.trim().to_owned())
    };
    let mac = || cfg!(target_os = "macos").then(|| said("sysctl", &["-n", "machdep.cpu.brand_string"])).flatten();
    let windows = || std::env::var("PROCESSOR_IDENTIFIER").ok();
    linux().or_else(mac).or_else(windows).unwrap_or_else(|| std::env::consts::ARCH.to_owned())
}
