//! Buffers whose every byte is known: tensors between canaries.

use super::problem::Home;
use super::values::Host;
use half::{bf16, f16};
use wgloss::Layout;
use wgloss::{Context, DType, Result, Tensor};

/// NaN in f32, and in both halves in f16 and bf16: what is read beside a tensor shows as well as what is written there.
const CANARY: u32 = 0x7fc1_7fc2;

/// Where a tensor lies.
#[derive(Clone, Debug)]
pub struct Slot {
    pub name: String,
    pub dtype: DType,
    pub layout: Layout,
    buffer: usize,
    /// First element in the buffer.
    first: usize,
}

/// Buffers in the making, then made.
pub struct Arena {
    images: Vec<Vec<u8>>,
    buffers: Vec<wgpu::Buffer>,
    /// The image that pooled tensors share.
    pool: Option<usize>,
}

impl Slot {
    fn bytes(&self, element: usize) -> std::ops::Range<usize> {
        let size = self.dtype.size() as usize;
        let first = (self.first + element) * size;
        first..first + size
    }

    /// Offsets of the elements in logical order.
    fn elements(&self) -> Vec<usize> {
        let Layout { shape, strides } = &self.layout;
        let mut all = vec![0];
        for (&size, &stride) in shape.iter().zip(strides) {
            all = all.into_iter().flat_map(|base| (0..size).map(move |k| base + k * stride)).collect();
        }
        all
    }

    /// First and one-past-last byte, in whole words.
    fn words(&self) -> std::ops::Range<usize> {
        let Some(last) = (self.layout.extent() as usize).checked_sub(1) else { return 0..0 };
        let (first, last) = (self.bytes(0).start, self.bytes(last).end);
        first - first % 4..last.next_multiple_of(4)
    }
}

impl Arena {
    pub fn new() -> Arena {
        Arena { images: Vec::new(), buffers: Vec::new(), pool: None }
    }

    /// Finds room for a tensor.
    pub fn place(&mut self, name: &str, dtype: DType, shape: &[usize], home: &Home) -> Slot {
        let layout = home.layout(shape);
        let buffer = match self.pool.filter(|_| home.pooled) {
            Some(pool) => pool,
            None => {
                self.images.push(Vec::new());
                self.images.len() - 1
            }
        };
        if home.pooled {
            self.pool = Some(buffer);
        }
        let image = &mut self.images[buffer];
        let size = dtype.size() as usize;
        let first = image.len() / size + home.offset;
        let end = (first + layout.extent() as usize) * size;
        let end = end.next_multiple_of(4) + home.behind;
        while image.len() < end {
            image.extend_from_slice(&CANARY.to_le_bytes());
        }
        Slot { name: name.to_owned(), dtype, layout, buffer, first }
    }

    /// Makes the buffers. None is larger than its tensors and what lies behind them.
    pub fn make(&mut self, ctx: &Context) {
        for image in &self.images {
            let usage = wgpu::BufferUsages::STORAGE | wgpu::BufferUsages::COPY_SRC | wgpu::BufferUsages::COPY_DST;
            let size = image.len() as u64;
            let descriptor = wgpu::BufferDescriptor { label: Some("arena"), size, usage, mapped_at_creation: false };
            self.buffers.push(ctx.device().create_buffer(&descriptor));
        }
    }

    pub fn tensor(&self, ctx: &Context, slot: &Slot) -> Result<Tensor> {
        let buffer = self.buffers[slot.buffer].clone();
        Tensor::from_buffer_strided(ctx, buffer, slot.first as u64, slot.dtype, slot.layout.clone())
    }

    /// Puts values into the image.
    pub fn put(&mut self, slot: &Slot, host: &Host) {
        let places = slot.elements();
        for (k, place) in places.into_iter().enumerate() {
            let to = &mut self.images[slot.buffer][slot.bytes(place)];
            match host {
                Host::Numbers(values) => match slot.dtype {
                    DType::F16 => to.copy_from_slice(&f16::from_f32(values[k]).to_le_bytes()),
                    DType::BF16 => to.copy_from_slice(&bf16::from_f32(values[k]).to_le_bytes()),
                    _ => to.copy_from_slice(&values[k].to_le_bytes()),
                },
                Host::Signed(values) => to.copy_from_slice(&values[k].to_le_bytes()),
                Host::Unsigned(values) => to.copy_from_slice(&values[k].to_le_bytes()),
            }
        }
    }

    /// Puts the canary where a tensor lies.
    pub fn clear(&mut self, slot: &Slot) {
        let canary = CANARY.to_le_bytes();
        for place in slot.elements() {
            for byte in slot.bytes(place) {
                self.images[slot.buffer][byte] = canary[byte % 4];
            }
        }
    }

    /// Copies all images to the buffers.
    pub fn upload(&self, ctx: &Context) {
        for (buffer, image) in self.buffers.iter().zip(&self.images) {
            ctx.queue().write_buffer(buffer, 0, image);
        }
    }

    /// Copies the words of one tensor.
    pub fn upload_one(&self, ctx: &Context, slot: &Slot) {
        let words = slot.words();
        let image = &self.images[slot.buffer];
        ctx.queue().write_buffer(&self.buffers[slot.buffer], words.start as u64, &image[words]);
    }

    /// Reads all buffers back: the values of the written tensors, and the first byte that changed though it is none
    /// of theirs.
    pub fn download(&self, ctx: &Context, written: &[&Slot]) -> Result<(Vec<Vec<f64>>, Option<String>)> {
        let mut found: Vec<Vec<u8>> = Vec::new();
        for (buffer, image) in self.buffers.iter().zip(&self.images) {
            let words = Tensor::from_buffer(ctx, buffer.clone(), 0, DType::U32, &[image.len() / 4])?;
            let words: Vec<u32> = pollster::block_on(words.read(ctx))?;
            found.push(words.iter().flat_map(|word| word.to_le_bytes()).collect());
        }
        let mut values = Vec::new();
        let mut free: Vec<Vec<bool>> = found.iter().map(|bytes| vec![false; bytes.len()]).collect();
        for slot in written {
            let bytes = &found[slot.buffer];
            let mut all = Vec::new();
            for place in slot.elements() {
                let at = slot.bytes(place);
                free[slot.buffer][at.clone()].fill(true);
                all.push(number(slot.dtype, &bytes[at]));
            }
            values.push(all);
        }
        for (place, ((found, image), free)) in found.iter().zip(&self.images).zip(&free).enumerate() {
            let changed = (0..image.len()).find(|k| !free[*k] && found[*k] != image[*k]);
            if let Some(byte) = changed {
                let word = byte - byte % 4;
                let text = |bytes: &[u8]| format!("{:02x?}", &bytes[word..word + 4]);
                let shared = if self.pool == Some(place) { " of the pool" } else { "" };
                let message = format!("byte {byte}{shared} changed, word {} from {}", text(found), text(image));
                return Ok((values, Some(message)));
            }
        }
        Ok((values, None))
    }
}

fn number(dtype: DType, bytes: &[u8]) -> f64 {
    match dtype {
        DType::F16 => f64::from(f16::from_le_bytes([bytes[0], bytes[1]])),
        DType::BF16 => f64::from(bf16::from_le_bytes([bytes[0], bytes[1]])),
        _ => f64::from(f32::from_le_bytes([bytes[0], bytes[1], bytes[2], bytes[3]])),
    }
}
