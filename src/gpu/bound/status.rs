//! The status words of a bound plan, per loss: the first row with a label out of range, and which label that is; the first
//! offset or id of groups of unequal length that is not allowed; the first label or length of sequences out of range.

use crate::dispatch::{Compared, GroupStatus, IndexStatus, LabelInput, Labels};
use crate::error::{Error, Result};
use crate::gpu::device::context::Context;
use crate::lower::reported_label;
use crate::shape::DType;
use std::sync::{Arc, Mutex};

/// Value of a status word while no label (offset, id) was out of range.
pub(crate) const NONE_BAD: u32 = u32::MAX;

/// The status words, and all that is needed to find the labels that they report.
#[derive(Debug)]
pub(crate) struct Status {
    ctx: Context,
    /// Holds the status words.
    scalars: wgpu::Buffer,
    watched: Vec<Watched>,
    indices: Vec<WatchedIndices>,
    groups: Option<WatchedGroups>,
    /// Values of the parameters.
    params: Arc<Mutex<Vec<f64>>>,
}

/// A status word with the labels that it reports.
#[derive(Debug)]
pub(crate) struct Watched {
    labels: Labels,
    /// Buffers of the label inputs, in order.
    buffers: Vec<IndexBuffer>,
}

impl Watched {
    pub fn new(labels: &Labels, buffers: Vec<IndexBuffer>) -> Watched {
        Watched { labels: labels.clone(), buffers }
    }
}

/// A status word with the input of groups of unequal length that it reports.
#[derive(Debug)]
pub(crate) struct WatchedGroups {
    pub status: GroupStatus,
    /// Name of the input.
    pub name: String,
    pub buffer: IndexBuffer,
}

/// A status word with the input of indices that it reports.
#[derive(Debug)]
pub(crate) struct WatchedIndices {
    pub status: IndexStatus,
    /// Name of the input.
    pub name: String,
    pub buffer: IndexBuffer,
}

/// The buffer of an input of indices: labels, lengths, offsets or ids.
#[derive(Debug)]
pub(crate) struct IndexBuffer {
    pub buffer: wgpu::Buffer,
    /// First element.
    pub offset: u64,
    pub dtype: DType,
}

impl Status {
    /// `None` if there is no word to read.
    pub fn new(
        ctx: &Context,
        watched: (Vec<Watched>, Vec<WatchedIndices>, Option<WatchedGroups>),
        scalars: &wgpu::Buffer,
        params: &Arc<Mutex<Vec<f64>>>,
    ) -> Option<Status> {
        let (watched, indices, groups) = watched;
        let has_words = !watched.is_empty() || !indices.is_empty() || groups.is_some();
        has_words.then(|| Status {
            ctx: ctx.clone(),
            scalars: scalars.clone(),
            watched,
            indices,
            groups,
            params: params.clone(),
        })
    }

    /// Reads the words; if one names an index or a row, reports it and clears the word. An earlier error leaves it as it is.
    pub async fn check(&self) -> Result<()> {
        if let Some(groups) = &self.groups {
            self.check_groups(groups).await?;
        }
        for watched in &self.indices {
            self.check_indices(watched).await?;
        }
        for watched in &self.watched {
            self.check_word(watched).await?;
        }
        Ok(())
    }

    async fn check_indices(&self, watched: &WatchedIndices) -> Result<()> {
        let WatchedIndices { status: IndexStatus { word, axes: [outer, inner], range, .. }, name, buffer } = watched;
        let Some(number) = self.word(*word).await? else { return Ok(()) };
        let row = number / inner[0].max(1);
        let value = self.read(buffer, row * outer[1] + number % inner[0].max(1) * inner[1]).await?;
        self.clear(*word)?;
        Err(range.error(name, row, value))
    }

    async fn check_word(&self, watched: &Watched) -> Result<()> {
        let word = watched.labels.word;
        let Some(row) = self.word(word).await? else { return Ok(()) };
        let mut found = Vec::new();
        for (label, buffer) in watched.labels.inputs.iter().zip(&watched.buffers) {
            let (mut rest, mut element) = (row, 0);
            for (size, stride) in watched.labels.axes.iter().zip(label.strides).rev() {
                element += rest % size * stride;
                rest /= size;
            }
            // Of several labels of a row, the one that is reported.
            let between = if label.per_row > 1 { label.strides[3] } else { 0 };
            let all = self.read_several(buffer, element, [label.per_row, between]).await?;
            let is_compared = |value| self.is_compared(label, value);
            found.push(all.map(|all| reported_label(&all, label.classes, is_compared).unwrap_or(all[0])));
        }
        self.clear(word)?;
        let (label, classes) = self.named(&watched.labels, row, &found);
        Err(Error::LabelOutOfRange { row, label, classes })
    }

    async fn check_groups(&self, groups: &WatchedGroups) -> Result<()> {
        let WatchedGroups { status, name, buffer } = groups;
        let GroupStatus { word, by, sizes, .. } = *status;
        let Some(index) = self.word(word).await? else { return Ok(()) };
        let before = match index.checked_sub(1) {
            Some(before) => self.read(buffer, status.element(before)).await?,
            None => None,
        };
        let value = self.read(buffer, status.element(index)).await?;
        self.clear(word)?;
        Err(by.error(name, index, [before, value], sizes))
    }

    /// What a status word names; `None` if nothing was out of range.
    async fn word(&self, word: u64) -> Result<Option<u64>> {
        let bits = self.ctx.read("status", &self.scalars, 4 * word, 4).await?;
        let named: u32 = bytemuck::pod_read_unaligned(&bits);
        Ok((named != NONE_BAD).then_some(u64::from(named)))
    }

    fn clear(&self, word: u64) -> Result<()> {
        self.ctx.write("status", &self.scalars, 4 * word, &NONE_BAD.to_le_bytes())
    }

    /// The offset or id that lies this many elements after the first.
    async fn read(&self, at: &IndexBuffer, element: u64) -> Result<Option<i64>> {
        Ok(self.read_several(at, element, [1, 1]).await?.map(|all| all[0]))
    }

    /// The labels, offsets or ids that lie this many elements after the first: a number of them, so far apart. `None` if
    /// the buffer cannot be read: that hides the values, not the report.
    async fn read_several(
        &self,
        at: &IndexBuffer,
        element: u64,
        [count, between]: [u64; 2],
    ) -> Result<Option<Vec<i64>>> {
        let bytes = 4 * ((count - 1) * between + 1);
        let Ok(bits) = self.ctx.read("label", &at.buffer, 4 * (at.offset + element), bytes).await else {
            // A lost device has no report.
            return self.ctx.check_device().map(|()| None);
        };
        let each = bits.chunks_exact(4).step_by(between.max(1) as usize).map(|bits| match at.dtype {
            DType::U32 => i64::from(bytemuck::pod_read_unaligned::<u32>(bits)),
            _ => i64::from(bytemuck::pod_read_unaligned::<i32>(bits)),
        });
        Ok(Some(each.collect()))
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
