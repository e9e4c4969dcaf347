//! Compute pipelines, made once per source, and kept as long as a plan holds them or there is room.
//!
//! A source's first line is its title, the name of the loss and the shape: kernels that differ in it alone share a pipeline.

use crate::error::Result;
use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

/// A pipeline and the layout of its bindings.
pub(crate) struct Pipeline {
    pub pipeline: wgpu::ComputePipeline,
    pub layout: wgpu::BindGroupLayout,
}

/// Default of the most idle pipelines that are kept.
pub(crate) const IDLE: usize = 128;

/// Pipelines, by source without title. Pipelines of live plans stay; of the others, the last used ones.
pub(crate) struct PipelineCache {
    known: Mutex<Known>,
}

struct Known {
    entries: HashMap<String, Entry>,
    /// Most idle pipelines that are kept.
    idle: usize,
    /// Number of uses so far.
    clock: u64,
}

struct Entry {
    slot: Arc<Slot>,
    used: u64,
}

/// Locked while its pipeline is made, so that a second request waits for the first.
type Slot = Mutex<Option<Arc<Pipeline>>>;

impl Entry {
    /// Whether no plan holds the pipeline, and no thread makes it or waits for it.
    fn is_idle(&self) -> bool {
        let held = |slot: Option<Arc<Pipeline>>| slot.is_some_and(|pipeline| Arc::strong_count(&pipeline) > 2);
        Arc::strong_count(&self.slot) == 1 && !held(locked(&self.slot).clone())
    }
}

impl Known {
    /// Drops the least recently used idle pipelines, down to the most that are kept.
    fn evict(&mut self) {
        let mut idle: Vec<u64> =
            self.entries.values().filter(|entry| entry.is_idle()).map(|entry| entry.used).collect();
        let surplus = idle.len().saturating_sub(self.idle);
        let Some(last) = surplus.checked_sub(1) else { return };
        idle.sort_unstable();
        self.entries.retain(|_, entry| entry.used > idle[last] || !entry.is_idle());
    }
}

impl Default for PipelineCache {
    fn default() -> PipelineCache {
        PipelineCache { known: Mutex::new(Known { entries: HashMap::new(), idle: IDLE, clock: 0 }) }
    }
}

/// Locks in spite of a panic elsewhere: under these locks nothing is ever half changed.
fn locked<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// The key of a source: all but its title.
fn untitled(wgsl: &str) -> &str {
    wgsl.split_once('\n').map_or(wgsl, |(_, body)| body)
}

impl PipelineCache {
    /// The pipeline of a source, from the cache or made by `make`.
    pub fn get(&self, wgsl: &str, make: impl FnOnce() -> Result<Pipeline>) -> Result<Arc<Pipeline>> {
        let key = untitled(wgsl);
        let slot = {
            let mut known = locked(&self.known);
            known.clock += 1;
            let used = known.clock;
            match known.entries.get_mut(key) {
                Some(entry) => {
                    entry.used = used;
                    entry.slot.clone()
                }
                None => {
                    let slot = Arc::<Slot>::default();
                    known.entries.insert(key.to_owned(), Entry { slot: slot.clone(), used });
                    slot
                }
            }
        };
        let mut pipeline = locked(&slot);
        if let Some(found) = &*pipeline {
            return Ok(found.clone());
        }
        let made = make().map(Arc::new);
        *pipeline = made.as_ref().ok().cloned();
        drop(pipeline);
        drop(slot);
        let mut known = locked(&self.known);
        // A slot whose pipeline could not be made is of no use.
        if made.is_err() && known.entries.get(key).is_some_and(Entry::is_idle) {
            known.entries.remove(key);
        }
        known.evict();
        made
    }

    /// Number of pipelines, idle ones included.
    pub fn len(&self) -> usize {
        locked(&self.known).entries.len()
    }

    /// Drops surplus idle pipelines; call it after a plan let go of its own.
    pub fn trim(&self) {
        locked(&self.known).evict();
    }

    /// Keeps at most `idle` idle pipelines.
    pub fn keep(&self, idle: usize) {
        let mut known = locked(&self.known);
        known.idle = idle;
        known.evict();
    }
}
