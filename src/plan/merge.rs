//! The dispatches of several operators as those of one.

use crate::dispatch::{
    Compared, Dispatch, Field, IndexStatus, Kept, Labels, Mode, OutputKind, OutputSignature, Planned, Region, Slot,
    Uniform, Word,
};
use std::sync::Arc;

/// Where the tensors and parameters of one operator are among those of all.
#[derive(Clone, Debug)]
pub(crate) struct Indices {
    /// Inputs of all, and outputs of an operator before it.
    pub inputs: Vec<Slot>,
    pub outputs: Vec<usize>,
    /// Its parameters follow each other from this index on.
    pub first_param: usize,
}

impl Indices {
    /// An input that is one of all.
    pub fn input(&self, own: usize) -> usize {
        match self.inputs[own] {
            Slot::Input(input) => input,
            other => {
                unreachable!("labels, scalars, and what has a gradient or is overwritten are inputs, not {other:?}")
            }
        }
    }

    /// An output, its inputs counted among all.
    pub fn output(&self, own: &OutputSignature) -> OutputSignature {
        let kind = match &own.kind {
            OutputKind::Grad(input) => OutputKind::Grad(self.input(*input)),
            OutputKind::HessianDiagonal(input) => OutputKind::HessianDiagonal(self.input(*input)),
            other => other.clone(),
        };
        let mode = match own.mode {
            Mode::InPlace(input) => Mode::InPlace(self.input(input)),
            other => other,
        };
        OutputSignature { kind, mode, ..own.clone() }
    }

    fn labels(&self, own: Labels, first_word: u64) -> Labels {
        let mut labels = Labels { word: own.word + first_word, ..own };
        for label in &mut labels.inputs {
            label.input = self.input(label.input);
            for compared in &mut label.compared {
                if let Compared::Param(param) = compared {
                    *param += self.first_param;
                }
            }
        }
        labels
    }
}

/// One operator's share of the common buffers.
struct Share<'i> {
    indices: &'i Indices,
    /// First word of its scalars, and the word after its last.
    scalars: [u64; 2],
    /// Uniforms of its own with their parameters counted among all: each once, since buffers hold each once.
    uniforms: Vec<(Arc<Uniform>, Arc<Uniform>)>,
}

impl Share<'_> {
    fn region(&self, region: &Region) -> Region {
        let Region { slot, writes, bytes } = *region;
        let (slot, bytes) = match slot {
            Slot::Input(input) => (self.indices.inputs[input], bytes),
            Slot::Output(output) => (Slot::Output(self.indices.outputs[output]), bytes),
            Slot::Kept(output) => (Slot::Kept(self.indices.outputs[output]), bytes),
            Slot::Scalars => (slot, Some(self.scalars.map(|word| 4 * word))),
            // Operators run one after the other, and keep nothing in the workspace.
            Slot::Workspace => (slot, bytes),
            Slot::States(_) | Slot::AllStates(_) | Slot::FoundInf => {
                unreachable!("neither shards nor found_inf beside each other")
            }
        };
        Region { slot, writes, bytes }
    }

    fn uniform(&mut self, own: &Arc<Uniform>) -> Arc<Uniform> {
        if let Some((_, known)) = self.uniforms.iter().find(|(known, _)| Arc::ptr_eq(known, own)) {
            return known.clone();
        }
        let first_param = self.indices.first_param;
        let field = |field: &Field| match field.word {
            Word::Param(param) => Field { word: Word::Param(first_param + param), ..field.clone() },
            _ => field.clone(),
        };
        let moved = Arc::new(Uniform { words: own.words, fields: own.fields.iter().map(field).collect() });
        self.uniforms.push((own.clone(), moved.clone()));
        moved
    }

    fn dispatch(&mut self, own: Dispatch) -> Dispatch {
        let uniforms = own.uniforms.iter().map(|(binding, uniform)| (*binding, self.uniform(uniform))).collect();
        let storage = own.storage.iter().map(|region| self.region(region)).collect();
        Dispatch { uniforms, storage, ..own }
    }
}

/// The dispatches of all, one operator after the other, in one phase. They share the workspace; each has scalars of its
/// own, from a multiple of `alignment` bytes on.
pub(crate) fn merged(planned: Vec<(Planned, &Indices)>, alignment: u64) -> Planned {
    let mut all = Planned::default();
    for (own, indices) in planned {
        let first = all.scalar_words.next_multiple_of(alignment.max(4) / 4);
        let mut share = Share { indices, scalars: [first, first + own.scalar_words], uniforms: Vec::new() };
        all.scalars.extend(own.scalars.into_iter().map(|dispatch| share.dispatch(dispatch)));
        all.dispatches.extend(own.dispatches.into_iter().map(|dispatch| share.dispatch(dispatch)));
        all.workspace = all.workspace.max(own.workspace);
        all.scalar_words = share.scalars[1];
        all.scalar_copies.extend(own.scalar_copies.iter().map(|(input, word)| (indices.input(*input), first + word)));
        for Kept { output, bytes } in own.kept {
            let output = indices.outputs[output];
            match all.kept.iter_mut().find(|kept| kept.output == output) {
                Some(kept) => kept.bytes = kept.bytes.max(bytes),
                None => all.kept.push(Kept { output, bytes }),
            }
        }
        all.labels.extend(own.labels.into_iter().map(|labels| indices.labels(labels, first)));
        all.indices.extend(own.indices.into_iter().map(|status| IndexStatus {
            word: first + status.word,
            input: indices.input(status.input),
            ..status
        }));
        all.bytes += own.bytes;
    }
    all.phases = vec![all.dispatches.len()];
    all
}
