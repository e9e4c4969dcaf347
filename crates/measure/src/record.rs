//! The one format of measurements: `wgloss bench --json` and the peers' benchmark write it, `wgloss report` reads it.

use crate::machine;
use serde::{Deserialize, Serialize};
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
    /// Commit that was built, if known; `-dirty` with uncommitted changes.
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
    /// Its clock: copying kernels by timestamps, or calls of the fastest copy by wall clock. On a software adapter, whose
    /// own copy is the host's, they are far apart.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub copy_clock: Option<Clock>,
    /// In the words of who measured.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub notes: Option<String>,
    /// Who was measured.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub peers: Vec<Peer>,
    pub results: Vec<Measurement>,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub not_timed: Vec<NotTimed>,
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Peer {
    pub by: String,
    pub version: String,
    /// Its device, in its own words.
    pub device: String,
}

/// A work that could not be measured.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct NotTimed {
    /// Loss, shape and element type.
    pub work: String,
    pub by: String,
    pub reason: String,
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
    /// Bytes that must move: inputs once, outputs once.
    pub bytes: u64,
    pub median_ms: f64,
    pub min_ms: f64,
    pub max_ms: f64,
    pub runs: usize,
    /// Of the median.
    pub gb_per_s: f64,
    /// Of a copy on the same adapter, in the same run, by the same clock.
    pub share_of_copy: Option<f64>,
    /// Worst error: 1 is as much as is allowed, by the numerics contract or by a comparison with peers.
    pub error: Option<f64>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[cfg_attr(feature = "clap", derive(clap::ValueEnum), value(rename_all = "snake_case"))]
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

/// The clock of a time; times by different clocks are never compared.
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

    /// The timed span, in words.
    pub fn what(self) -> &'static str {
        match self {
            Clock::Gpu => "kernels",
            Clock::Wall => "calls",
        }
    }
}

impl Adapter {
    /// That of a context.
    pub fn of(ctx: &Context) -> Adapter {
        let info = ctx.adapter_info();
        let text = |of: fn(&wgpu::AdapterInfo) -> String| info.map_or_else(|| "unknown".to_owned(), of);
        Adapter {
            name: text(|info| info.name.clone()),
            backend: text(|info| format!("{:?}", info.backend)),
            driver: text(|info| format!("{} {}", info.driver, info.driver_info).trim().to_owned()),
            r#type: text(|info| format!("{:?}", info.device_type)),
        }
    }
}

impl Record {
    /// Of this program on this machine today, without results.
    pub fn new(adapter: Adapter, threads: usize) -> Record {
        Record {
            format: FORMAT,
            wgloss: crate::VERSION.to_owned(),
            commit: machine::commit(),
            date: machine::date(),
            adapter,
            cpu: machine::cpu(),
            threads,
            copy_gb_per_s: None,
            copy_clock: None,
            notes: None,
            peers: Vec::new(),
            results: Vec::new(),
            not_timed: Vec::new(),
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_in_the_format_are_fixed() {
        assert_eq!(serde_json::to_string(&Work::ForwardBackward).unwrap(), "\"forward_backward\"");
        assert_eq!(serde_json::to_string(&Clock::Gpu).unwrap(), "\"gpu\"");
        assert_eq!((Work::Forward.name(), Clock::Wall.name()), ("forward", "wall"));
    }
}
