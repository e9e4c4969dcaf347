//! The status words of a bound plan, one per loss: the first row with a label out of range, and which label that is.

use crate::dispatch::{Compared, LabelInput, Labels};
use crate::error::{Error, Result};
use crate::gpu::device::context::Context;
use crate::lower::reported_label;
use crate::shape::DType;
use std::sync::{Arc, Mutex};

/// Value of the status word while no label was out of range.
pub(crate) const NO_BAD_ROW: u32 = u32::MAX;

/// The status words, and all that is needed to find the labels that they report.
#[derive(Debug)]
pub(crate) struct Status {
    ctx: Context,
    /// Holds the status words.
    scalars: wgpu::Buffer,
    watched: Vec<Watched>,
    /// Values of the parameters.
    params: Arc<Mutex<Vec<f64>>>,
}

/// A status word with the labels that it reports.
#[derive(Debug)]
pub(crate) struct Watched {
    labels: Labels,
    /// Buffers of the label inputs, in order.
    buffers: Vec<LabelBuffer>,
}

impl Watched {
    pub fn new(labels: &Labels, buffers: Vec<LabelBuffer>) -> Watched {
        Watched { labels: labels.clone(), buffers }
    }
}

/// The buffer of a label input.
#[derive(Debug)]
pub(crate) struct LabelBuffer {
    pub buffer: wgpu::Buffer,
    /// First element.
    pub offset: u64,
    pub dtype: DType,
}

impl Status {
    pub fn new(ctx: &Context, watched: Vec<Watched>, scalars: &wgpu::Buffer, params: &Arc<Mutex<Vec<f64>>>) -> Status {
        Status { ctx: ctx.clone(), scalars: scalars.clone(), watched, params: params.clone() }
    }

    /// Reads the words; if one names a row, reports the row and clears the word. An earlier error leaves it as it is.
    pub async fn check(&self) -> Result<()> {
        for watched in &self.watched {
            self.check_word(watched).await?;
        }
        Ok(())
    }

    async fn check_word(&self, watched: &Watched) -> Result<()> {
        let word = watched.labels.word;
        let bits = self.ctx.read("status", &self.scalars, 4 * word, 4).await?;
        let row: u32 = bytemuck::pod_read_unaligned(&bits);
        if row == NO_BAD_ROW {
            return Ok(());
        }
        let row = u64::from(row);
        let mut found = Vec::new();
        for (label, buffer) in watched.labels.inputs.iter().zip(&watched.buffers) {
            let value = self.read(&watched.labels.axes, label, buffer, row).await;
            if value.is_err() {
                // A buffer that cannot be read hides its label, not the report; a lost device has no report.
                self.ctx.check_device()?;
            }
            found.push(value.ok());
        }
        self.ctx.write("status", &self.scalars, 4 * word, &NO_BAD_ROW.to_le_bytes())?;
        let (label, classes) = self.named(&watched.labels, row, &found);
        Err(Error::LabelOutOfRange { row, label, classes })
    }

    /// The label of a row; of several the one that is reported.
    async fn read(&self, axes: &[u64], label: &LabelInput, at: &LabelBuffer, row: u64) -> Result<i64> {
        let (mut rest, mut element) = (row, at.offset);
        for (size, stride) in axes.iter().zip(label.strides).rev() {
            element += rest % size * stride;
            rest /= size;
        }
        let between = if label.per_row > 1 { label.strides[3] } else { 0 };
        let bits = self.ctx.read("label", &at.buffer, 4 * element, 4 * ((label.per_row - 1) * between + 1)).await?;
        let each = bits.chunks_exact(4).step_by(between.max(1) as usize).map(|bits| match at.dtype {
            DType::U32 => i64::from(bytemuck::pod_read_unaligned::<u32>(bits)),
            _ => i64::from(bytemuck::pod_read_unaligned::<i32>(bits)),
        });
        let all: Vec<i64> = each.collect();
        Ok(reported_label(&all, label.classes, |value| self.is_compared(label, value)).unwrap_or(all[0]))
    }

    /// Whether the loss compares a label with that index.
    fn is_compared(&self, label: &LabelInput, value: i64) -> bool {
        let params = self.params.lock().expect("parameters are only locked to be set, which does not panic");
        label.compared.iter().any(|with| match *with {
            Compared::Index(index) => index == value,
            Compared::Param(param) => params[param] == value as f64,
        })
    }

    /// The row's label that is out of range, preferably one that the loss compares with nothing; of labels that are in
    /// range, the row's own number, where that is one. And the number of classes.
    fn named(&self, labels: &Labels, row: u64, found: &[Option<i64>]) -> (i64, u64) {
        let all = || labels.inputs.iter().zip(found).filter_map(|(label, found)| Some((label, (*found)?)));
        let is_outside = |label: &LabelInput, value: i64| reported_label(&[value], label.classes, |_| false).is_some();
        let mut wrong = all().filter(|(label, value)| is_outside(label, *value));
        let surely = wrong.clone().find(|(label, value)| !self.is_compared(label, *value));
        // A label that could not be read may be the wrong one.
        let perhaps = if found.contains(&None) { None } else { wrong.next() };
        let own = (labels.by_row && row >= labels.classes).then_some((row as i64, labels.classes));
        let of_input = |(label, value): (&LabelInput, i64)| (value, label.classes);
        let found = surely.map(of_input).or(own).or(perhaps.map(of_input));
        // One label input, or several with as many classes.
        let classes = labels.inputs.first().map_or(labels.classes, |label| label.classes);
        found.unwrap_or((Error::UNKNOWN_LABEL, classes))
    }
}
