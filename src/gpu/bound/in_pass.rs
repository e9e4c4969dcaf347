//! A step inside a compute pass that somebody else began.

use crate::dispatch::{Dispatch, FIRST_STORAGE};
use crate::error::Result;
use crate::gpu::bound::{Bound, BoundDispatch, UNIFORM_STRIDE};
use crate::plan::scalars::{Scalar, scalar_dispatch};
use crate::shape::DType;

impl Bound {
    /// Records the step into a compute pass of the caller's, between its own dispatches: wgpu orders dispatches of one
    /// pass that share a buffer, so inputs may come from dispatches before, and outputs go to dispatches after. Sets the
    /// pass's pipeline and bind group 0.
    ///
    /// In a pass nothing is copied: scalar inputs of 32 bits (an upstream gradient, a task weight), which
    /// [`Bound::encode`] copies, are read by one small dispatch each. The first call makes their kernel; otherwise nothing
    /// is allocated that recording by hand would not.
    ///
    /// ```no_run
    /// # fn step(device: &wgpu::Device, bound: &wgloss::Bound) -> wgloss::Result<()> {
    /// let mut encoder = device.create_command_encoder(&Default::default());
    /// let mut pass = encoder.begin_compute_pass(&Default::default());
    /// // … the model's forward dispatches …
    /// bound.encode_in(&mut pass)?;
    /// // … its backward dispatches …
    /// # Ok(()) }
    /// ```
    ///
    /// # Errors
    /// As [`Bound::encode`]; [`Error::Device`](crate::Error::Device) and [`Error::OutOfMemory`](crate::Error::OutOfMemory) of
    /// the first call. Nothing has been recorded then.
    pub fn encode_in(&self, pass: &mut wgpu::ComputePass<'_>) -> Result<()> {
        self.check_whole()?;
        self.record_in(pass, &self.dispatches)
    }

    /// As [`Bound::encode_forward`], into a compute pass of the caller's: see [`Bound::encode_in`].
    ///
    /// # Errors
    /// As [`Bound::encode_forward`] and [`Bound::encode_in`].
    pub fn encode_forward_in(&self, pass: &mut wgpu::ComputePass<'_>) -> Result<()> {
        self.record_in(pass, self.phase(self.exchanges.len())?)
    }

    /// As [`Bound::encode_backward`], into a compute pass of the caller's: the upstream gradient may come from a dispatch
    /// of the same pass.
    ///
    /// # Errors
    /// As [`Bound::encode_forward_in`].
    pub fn encode_backward_in(&self, pass: &mut wgpu::ComputePass<'_>) -> Result<()> {
        self.record_in(pass, self.phase(self.exchanges.len() + 1)?)
    }

    fn record_in(&self, pass: &mut wgpu::ComputePass<'_>, dispatches: &[BoundDispatch]) -> Result<()> {
        let copies = self.copies_in_pass()?;
        record(pass, copies.iter().chain(&self.scalar_dispatches).chain(dispatches));
        Ok(())
    }

    /// One dispatch per scalar input of 32 bits.
    fn copies_in_pass(&self) -> Result<&[BoundDispatch]> {
        if self.copies.is_empty() {
            return Ok(&[]);
        }
        if let Some(made) = self.copy_dispatches.get() {
            return Ok(made);
        }
        let made = self.make_copies()?;
        Ok(self.copy_dispatches.get_or_init(|| made))
    }

    fn make_copies(&self) -> Result<Vec<BoundDispatch>> {
        let ctx = self.context();
        let (what, alignment) = ("wgloss scalars of a pass", u64::from(ctx.limits().offset_alignment));
        let usage = wgpu::BufferUsages::UNIFORM | wgpu::BufferUsages::COPY_DST;
        let uniforms = ctx.create_buffer(what, UNIFORM_STRIDE * self.copies.len() as u64, usage)?;
        let mut made = Vec::new();
        for (index, (buffer, from, to)) in self.copies.iter().enumerate() {
            // The first word of the scalars is the status.
            let (start, slot) = (from - from % alignment, to / 4 - 1);
            let scalar = Scalar { input: index, dtype: DType::U32, first: (from - start) / 4, slot };
            let dispatch: Dispatch = scalar_dispatch(&self.plan.inner.prepared.signature().name, &scalar);
            let pipeline = ctx.pipeline(&dispatch)?;
            let [(binding, uniform)] = &dispatch.uniforms[..] else { unreachable!("one uniform per scalar") };
            let offset = UNIFORM_STRIDE * index as u64;
            let words = uniform.words(&[]);
            ctx.write(what, &uniforms, offset, bytemuck::cast_slice(&words))?;
            let range = |buffer, offset, bytes| {
                let size = wgpu::BufferSize::new(bytes);
                wgpu::BindingResource::Buffer(wgpu::BufferBinding { buffer, offset, size })
            };
            let resources = [
                (*binding, range(&uniforms, offset, 4 * words.len() as u64)),
                (FIRST_STORAGE, range(buffer, start, from - start + 4)),
                (FIRST_STORAGE + 1, self.scalars.as_entire_binding()),
            ];
            let entries = resources.map(|(binding, resource)| wgpu::BindGroupEntry { binding, resource });
            let descriptor =
                wgpu::BindGroupDescriptor { label: Some(what), layout: &pipeline.layout, entries: &entries };
            let group = ctx.caught(what, 0, || ctx.device().create_bind_group(&descriptor))?;
            made.push(BoundDispatch { pipeline, group, grid: [1, 1] });
        }
        Ok(made)
    }
}

/// Records dispatches into a pass.
pub(super) fn record<'d>(pass: &mut wgpu::ComputePass<'_>, dispatches: impl Iterator<Item = &'d BoundDispatch>) {
    for dispatch in dispatches {
        pass.set_pipeline(&dispatch.pipeline.pipeline);
        pass.set_bind_group(0, &dispatch.group, &[]);
        pass.dispatch_workgroups(dispatch.grid[0], dispatch.grid[1], 1);
    }
}
