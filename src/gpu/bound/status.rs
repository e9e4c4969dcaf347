//! The status words of a bound plan, per loss: the first row with a label out of range, and which label that is; the first
//! offset or id of groups of unequal length that is not allowed.

use crate::dispatch::{Compared, GroupStatus, Labels};
use crate::error::{Error, Result};
use crate::gpu::device::context::Context;
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

/// The buffer of an input of indices: labels, offsets or ids.
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
        watched: Vec<Watched>,
        groups: Option<WatchedGroups>,
        scalars: &wgpu::Buffer,
        params: &Arc<Mutex<Vec<f64>>>,
    ) -> Option<Status> {
        let has_words = !watched.is_empty() || groups.is_some();
        has_words.then(|| Status {
            ctx: ctx.clone(),
            scalars: scalars.clone(),
            watched,
            groups,
            params: params.clone(),
        })
    }

    /// Reads the words; if one names an index or a row, reports it and clears the word. An earlier error leaves it as it is.
    pub async fn check(&self) -> Result<()> {
        if let Some(groups) = &self.groups {
            self.check_groups(groups).await?;
        }
        for watched in &self.watched {
            self.check_word(watched).await?;
        }
        Ok(())
    }

    async fn check_word(&self, watched: &Watched) -> Result<()> {
        let Labels { word, classes, .. } = watched.labels;
        let Some(row) = self.word(word).await? else { return Ok(()) };
        let mut found = Vec::new();
        for (label, buffer) in watched.labels.inputs.iter().zip(&watched.buffers) {
            let (mut rest, mut element) = (row, 0);
            for (size, stride) in watched.labels.axes.iter().zip(label.strides).rev() {
                element += rest % size * stride;
                rest /= size;
            }
            found.push(self.read(buffer, element).await?);
        }
        self.clear(word)?;
        Err(Error::LabelOutOfRange { row, label: self.named(&watched.labels, &found), classes })
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

    /// The label, offset or id that lies this many elements after the first; `None` if the buffer cannot be read: that
    /// hides the value, not the report.
    async fn read(&self, at: &IndexBuffer, element: u64) -> Result<Option<i64>> {
        let Ok(bits) = self.ctx.read("label", &at.buffer, 4 * (at.offset + element), 4).await else {
            // A lost device has no report.
            return self.ctx.check_device().map(|()| None);
        };
        Ok(Some(match at.dtype {
            DType::U32 => i64::from(bytemuck::pod_read_unaligned::<u32>(&bits)),
            _ => i64::from(bytemuck::pod_read_unaligned::<i32>(&bits)),
        }))
    }

    /// The row's label that is out of range, preferably one that the loss compares with nothing.
    fn named(&self, labels: &Labels, found: &[Option<i64>]) -> i64 {
        let outside = |label: i64| u64::try_from(label).map_or(true, |label| label >= labels.classes);
        let all = || labels.inputs.iter().zip(found).filter_map(|(label, found)| Some((label, (*found)?)));
        let mut wrong = all().filter(|(_, value)| outside(*value));
        let params = self.params.lock().expect("parameters are only locked to be set, which does not panic");
        let is = |with: &Compared, value: i64| match *with {
            Compared::Index(index) => index == value,
            Compared::Param(param) => params[param] == value as f64,
        };
        let surely = wrong.clone().find(|(label, value)| !label.compared.iter().any(|with| is(with, *value)));
        // A label that could not be read may be the wrong one.
        let perhaps = if found.contains(&None) { None } else { wrong.next() };
        surely.or(perhaps).map_or(Error::UNKNOWN_LABEL, |(_, value)| value)
    }
}
