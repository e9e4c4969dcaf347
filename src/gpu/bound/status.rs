//! The status word of a bound plan: the first row with a label out of range, and which label that is.

use crate::error::{Error, Result};
use crate::expr::op::{Kind, Op};
use crate::expr::{Node, NodeId};
use crate::gpu::bind::Maker;
use crate::gpu::device::context::Context;
use crate::gpu::tensor::Tensor;
use crate::lower::Program;
use crate::shape::DType;
use std::sync::{Arc, Mutex};

/// What the status word holds while no label was out of range.
pub(crate) const NO_BAD_ROW: u32 = u32::MAX;

/// What is needed to read the status word, and to find the label that it is about.
#[derive(Debug)]
pub(crate) struct Status {
    ctx: Context,
    /// The status word is its first one.
    scalars: wgpu::Buffer,
    /// Sizes of the axes that rows are counted along, outermost first.
    axes: Vec<u64>,
    classes: u64,
    labels: Vec<Label>,
    /// Values of the parameters.
    params: Arc<Mutex<Vec<f64>>>,
}

/// What a label is compared with.
#[derive(Clone, Copy, Debug)]
enum Compared {
    Index(i64),
    /// The parameter of that place.
    Param(usize),
}

/// A label input that indexes the row.
#[derive(Debug)]
struct Label {
    tensor: Tensor,
    /// Along `axes`; 0 where it is broadcast.
    strides: [u64; 4],
    /// Class indices that the loss compares it with: perhaps to leave such rows out.
    compared: Vec<Compared>,
}

impl Status {
    /// None for a plan in which no label indexes a row.
    pub fn new(maker: &Maker<'_>, scalars: &wgpu::Buffer, params: &Arc<Mutex<Vec<f64>>>) -> Option<Arc<Status>> {
        let Maker { inner, inputs, geometry, .. } = maker;
        let program = &inner.compiled.program;
        let label = |place: usize| Label {
            tensor: inputs[place].clone().expect("every input of the program is bound"),
            strides: geometry.strides[place],
            compared: compared(program, place),
        };
        let labels: Vec<Label> = indexing(program).into_iter().map(label).collect();
        let axes = geometry.axes[..if program.has_rows() { 3 } else { 4 }].to_vec();
        let classes = inner.compiled.staging.shard.map_or(geometry.cols, |shard| shard.classes);
        if labels.is_empty() {
            return None;
        }
        let (ctx, scalars, params) = (inner.ctx.clone(), scalars.clone(), params.clone());
        Some(Arc::new(Status { ctx, scalars, axes, classes, labels, params }))
    }

    /// Reads the word; where it names a row, reports that and clears it. Whatever fails before leaves it as it is.
    pub async fn check(&self) -> Result<()> {
        let word = self.ctx.read("status", &self.scalars, 0, 4).await?;
        let row: u32 = bytemuck::pod_read_unaligned(&word);
        if row == NO_BAD_ROW {
            return Ok(());
        }
        let row = u64::from(row);
        let mut found = Vec::new();
        for label in &self.labels {
            let value = self.read(label, row).await;
            if value.is_err() {
                // A buffer that cannot be read hides its label, not the report; a lost device has no report.
                self.ctx.check_device()?;
            }
            found.push(value.ok());
        }
        self.ctx.write("status", &self.scalars, 0, &NO_BAD_ROW.to_le_bytes())?;
        Err(Error::LabelOutOfRange { row, label: self.named(&found), classes: self.classes })
    }

    /// The label of a row.
    async fn read(&self, label: &Label, row: u64) -> Result<i64> {
        let (mut rest, mut place) = (row, label.tensor.offset());
        for (size, stride) in self.axes.iter().zip(label.strides).rev() {
            place += rest % size * stride;
            rest /= size;
        }
        let bits = self.ctx.read("label", label.tensor.buffer(), 4 * place, 4).await?;
        Ok(match label.tensor.dtype() {
            DType::U32 => i64::from(bytemuck::pod_read_unaligned::<u32>(&bits)),
            _ => i64::from(bytemuck::pod_read_unaligned::<i32>(&bits)),
        })
    }

    /// Which of a row's labels is out of range: one that the loss does not compare with anything, if there is one.
    fn named(&self, found: &[Option<i64>]) -> i64 {
        let outside = |label: i64| u64::try_from(label).map_or(true, |label| label >= self.classes);
        let all = || self.labels.iter().zip(found).filter_map(|(label, found)| Some((label, (*found)?)));
        let mut wrong = all().filter(|(_, value)| outside(*value));
        let params = self.params.lock().expect("parameters are only locked to be set, which does not panic");
        let is = |with: &Compared, value: i64| match *with {
            Compared::Index(index) => index == value,
            Compared::Param(place) => params[place] == value as f64,
        };
        let surely = wrong.clone().find(|(label, value)| !label.compared.iter().any(|with| is(with, *value)));
        // One that was not read may be the one.
        let perhaps = if found.contains(&None) { None } else { wrong.next() };
        surely.or(perhaps).map_or(Error::UNKNOWN_LABEL, |(_, value)| value)
    }
}

/// Places of the label inputs that index a row.
fn indexing(program: &Program) -> Vec<usize> {
    let gathers =
        program.nodes.iter().filter_map(|node| if let Node::At(_, label) = node { Some(*label) } else { None });
    let stored = program.outputs.iter().filter_map(|output| output.at_label.map(|(label, _)| label));
    let roots: Vec<NodeId> = gathers.chain(stored).collect();
    let below = program.below(&roots, |id| program.kind(id) != Kind::Int);
    let input = |id: NodeId| match *program.node(id) {
        Node::Input(place) if program.kind(id) == Kind::Int => Some(place as usize),
        _ => None,
    };
    below.into_iter().filter_map(input).collect()
}

/// Class indices that a label input is compared with.
fn compared(program: &Program, place: usize) -> Vec<Compared> {
    let is_label = |id: NodeId| *program.node(id) == Node::Input(place as u32);
    let index = |id: NodeId| match *program.node(id) {
        Node::Int(index) => Some(Compared::Index(index)),
        Node::Param(place) => Some(Compared::Param(place as usize)),
        _ => None,
    };
    let pairs = program.nodes.iter().filter_map(|node| match *node {
        Node::Op(Op::Eq, [a, b, _]) if is_label(a) => index(b),
        Node::Op(Op::Eq, [a, b, _]) if is_label(b) => index(a),
        _ => None,
    });
    pairs.collect()
}
