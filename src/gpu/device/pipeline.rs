//! Compute pipelines, made once for each source, and kept as long as a plan holds them or there is room.
//!
//! A source's first line is its title, the name of the loss and the shape: kernels that differ in it alone are one.

use crate::error::Result;
use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

/// A pipeline and the layout of its bindings.
pub(crate) struct Pipeline {
    pub pipeline: wgpu::ComputePipeline,
    pub layout: wgpu::BindGroupLayout,
}

/// Pipelines that nobody uses, where the context was not told how many to keep.
pub(crate) const IDLE: usize = 128;

/// Pipelines by their sources after the title. Those of live plans stay; of the others, those that were used last.
pub(crate) struct PipelineCache {
    known: Mutex<Known>,
}

struct Known {
    entries: HashMap<String, Entry>,
    /// Idle pipelines that are kept, at most.
    idle: usize,
    /// Grows with each use.
    clock: u64,
}

struct Entry {
    slot: Arc<Slot>,
    used: u64,
}

/// Locked while its pipeline is made: who wants the same one meanwhile waits for it.
type Slot = Mutex<Option<Arc<Pipeline>>>;

impl Entry {
    /// Whether nobody holds the pipeline, nor makes it, nor waits for it.
    fn is_idle(&self) -> bool {
        let held = |slot: Option<Arc<Pipeline>>| slot.is_some_and(|pipeline| Arc::strong_count(&pipeline) > 2);
        Arc::strong_count(&self.slot) == 1 && !held(locked(&self.slot).clone())
    }
}

impl Known {
    /// Drops the idle pipelines that were used longest ago, as far as there are too many.
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

/// What a panic elsewhere left is whole: nothing is half changed under these locks.
fn locked<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// What a source is known by: all but its title.
fn untitled(wgsl: &str) -> &str {
    wgsl.split_once('\n').map_or(wgsl, |(_, body)| body)
}

impl PipelineCache {
    /// The pipeline of a source; `make` makes it where it is not there.
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
        let mut place = locked(&slot);
        if let Some(found) = &*place {
            return Ok(found.clone());
        }
        let made = make().map(Arc::new);
        *place = made.as_ref().ok().cloned();
        drop(place);
        drop(slot);
        let mut known = locked(&self.known);
        // One that could not be made is idle at once, and worth nothing.
        if made.is_err() && known.entries.get(key).is_some_and(Entry::is_idle) {
            known.entries.remove(key);
        }
        known.evict();
        made
    }

    /// Pipelines that are there.
    pub fn len(&self) -> usize {
        locked(&self.known).entries.len()
    }

    /// To be called when pipelines were let go.
    pub fn trim(&self) {
        locked(&self.known).evict();
    }

    /// Keeps so many idle pipelines from now on.
    pub fn keep(&self, idle: usize) {
        let mut known = locked(&self.known);
        known.idle = idle;
        known.evict();
    }
}
