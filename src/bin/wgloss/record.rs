//! The one format of measurements: `wgloss bench --json` and the peers' benchmark write it, `wgloss report` reads it.

use serde::{Deserialize, Serialize};
use std::process::Command;
use std::time::{SystemTime, UNIX_EPOCH};
use wgloss::Context;

/// The version of the format that this program writes.
pub const FORMAT: u32 = 1;

/// One run of a benchmark on one machine.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Record {
    /// [`FORMAT`].
    pub format: u32,
    /// Version of wgloss.
    pub wgloss: String,
    /// What was built, where that is known; `-dirty` where it was changed since.
    pub commit: Option<String>,
    /// `YYYY-MM-DD`, UTC.
    pub date: String,
    pub adapter: Adapter,
    /// Model of the CPU.
    pub cpu: String,
    /// Threads of the CPU path.
    pub threads: usize,
    /// The fastest copy on the adapter in this run: bytes read and bytes written.
    pub copy_gb_per_s: Option<f64>,
    pub results: Vec<Measurement>,
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Adapter {
    pub name: String,
    pub backend: String,
    pub driver: String,
    pub r#type: String,
}

/// One thing measured.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Measurement {
    pub loss: String,
    pub rows: usize,
    pub cols: usize,
    /// How tensors are stored.
    pub dtype: String,
    pub work: Work,
    /// Who computed it: `wgloss`, `wgloss-cpu`, `burn`, `pytorch-cpu`, `candle-cpu`, …
    pub by: String,
    pub clock: Clock,
    /// What must move: inputs once, outputs once.
    pub bytes: u64,
    pub median_ms: f64,
    pub min_ms: f64,
    pub max_ms: f64,
    pub runs: usize,
    /// Of the median.
    pub gb_per_s: f64,
    /// Of a copy on the same adapter, in the same run, by the same clock.
    pub share_of_copy: Option<f64>,
    /// Worst error in units of the contract: 1 is as much as is allowed.
    pub error: Option<f64>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, clap::ValueEnum)]
#[serde(rename_all = "snake_case")]
#[value(rename_all = "snake_case")]
pub enum Work {
    /// The loss.
    Forward,
    /// The loss and the gradient of the prediction.
    ForwardBackward,
}

impl Work {
    pub fn name(self) -> &'static str {
        match self {
            Work::Forward => "forward",
            Work::ForwardBackward => "forward_backward",
        }
    }
}

/// What a time is: the two are never compared.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Clock {
    /// GPU timestamps around the kernels.
    Gpu,
    /// Wall clock of a whole call: encoding, submitting, waiting.
    Wall,
}

impl Clock {
    pub fn name(self) -> &'static str {
        match self {
            Clock::Gpu => "gpu",
            Clock::Wall => "wall",
        }
    }
}

impl Record {
    /// Of this program on this machine today, without results.
    pub fn new(ctx: &Context) -> Record {
        let info = ctx.adapter_info();
        let text = |of: fn(&wgpu::AdapterInfo) -> String| info.map_or_else(|| "unknown".to_owned(), of);
        Record {
            format: FORMAT,
            wgloss: env!("CARGO_PKG_VERSION").to_owned(),
            commit: commit(),
            date: date(SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs() / 86_400)),
            adapter: Adapter {
                name: text(|info| info.name.clone()),
                backend: text(|info| format!("{:?}", info.backend)),
                driver: text(|info| format!("{} {}", info.driver, info.driver_info).trim().to_owned()),
                r#type: text(|info| format!("{:?}", info.device_type)),
            },
            cpu: cpu(),
            threads: rayon::current_num_threads(),
            copy_gb_per_s: None,
            results: Vec::new(),
        }
    }

    /// A line for each result, after one of names. The adapter is in every line, so that files can be joined.
    pub fn csv(&self) -> String {
        let quoted = |text: &str| format!("\"{}\"", text.replace('"', "\"\""));
        let optional = |value: Option<f64>| value.map_or_else(String::new, |value| value.to_string());
        let mut text = "adapter,loss,rows,cols,dtype,work,by,clock,bytes,median_ms,min_ms,max_ms,runs,gb_per_s,\
                        share_of_copy,error\n"
            .to_owned();
        for m in &self.results {
            let fields = [
                quoted(&self.adapter.name),
                m.loss.clone(),
                m.rows.to_string(),
                m.cols.to_string(),
                m.dtype.clone(),
                m.work.name().to_owned(),
                m.by.clone(),
                m.clock.name().to_owned(),
                m.bytes.to_string(),
                m.median_ms.to_string(),
                m.min_ms.to_string(),
                m.max_ms.to_string(),
                m.runs.to_string(),
                m.gb_per_s.to_string(),
                optional(m.share_of_copy),
                optional(m.error),
            ];
            text.push_str(&(fields.join(",") + "\n"));
        }
        text
    }
}

fn said(program: &str, args: &[&str]) -> Option<String> {
    let out = Command::new(program).args(args).output().ok()?;
    let text = String::from_utf8(out.stdout).ok()?.trim().to_owned();
    (out.status.success() && !text.is_empty()).then_some(text)
}

/// `WGLOSS_COMMIT`, or what git says of the checkout that this was built in.
fn commit() -> Option<String> {
    let given = std::env::var("WGLOSS_COMMIT").ok().filter(|commit| !commit.is_empty());
    let checkout = env!("CARGO_MANIFEST_DIR");
    let ask = || {
        // Not a repository around a registry's copy.
        std::path::Path::new(checkout).join(".git").exists().then_some(())?;
        let hash = said("git", &["-C", checkout, "rev-parse", "--short=12", "HEAD"])?;
        let changed = said("git", &["-C", checkout, "status", "--porcelain", "--untracked-files=no"]).is_some();
        Some(if changed { hash + "-dirty" } else { hash })
    };
    given.or_else(ask)
}

fn cpu() -> String {
    let linux = || {
        let text = std::fs::read_to_string("/proc/cpuinfo").ok()?;
        let line = text.lines().find(|line| line.starts_with("model name"))?;
        Some(line.split_once(':')?.1.trim().to_owned())
    };
    let mac = || cfg!(target_os = "macos").then(|| said("sysctl", &["-n", "machdep.cpu.brand_string"])).flatten();
    let windows = || std::env::var("PROCESSOR_IDENTIFIER").ok();
    linux().or_else(mac).or_else(windows).unwrap_or_else(|| std::env::consts::ARCH.to_owned())
}

/// The day so many days after 1970-01-01. Source: Hinnant, "chrono-compatible low-level date algorithms".
fn date(days: u64) -> String {
    let shifted = days + 719_468;
    let (era, day_of_era) = (shifted / 146_097, shifted % 146_097);
    let year = (day_of_era - day_of_era / 1460 + day_of_era / 36_524 - day_of_era / 146_096) / 365;
    let day_of_year = day_of_era - (365 * year + year / 4 - year / 100);
    let from_march = (5 * day_of_year + 2) / 153;
    let day = day_of_year - (153 * from_march + 2) / 5 + 1;
    let month = if from_march < 10 { from_march + 3 } else { from_march - 9 };
    let year = era * 400 + year + u64::from(month <= 2);
    format!("{year:04}-{month:02}-{day:02}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn days_are_dates() {
        let days = [0, 59, 19_782, 20_088, 20_778];
        assert_eq!(days.map(date), ["1970-01-01", "1970-03-01", "2024-02-29", "2024-12-31", "2026-11-21"]);
    }

    #[test]
    fn names_in_the_format_are_fixed() {
        assert_eq!(serde_json::to_string(&Work::ForwardBackward).unwrap(), "\"forward_backward\"");
        assert_eq!(serde_json::to_string(&Clock::Gpu).unwrap(), "\"gpu\"");
        assert_eq!((Work::Forward.name(), Clock::Wall.name()), ("forward", "wall"));
    }
}
