//! Loss functions and their gradients on any GPU that WebGPU reaches: one fused kernel for loss and gradient,
//! your own losses differentiated for you, and a CPU path that computes the same.
//!
//! ```no_run
//! use wgloss::{Context, Tensor, losses};
//!
//! fn main() -> wgloss::Result<()> {
//!     let ctx = Context::new()?;
//!     let logits = Tensor::from_slice(&ctx, &[2.0f32, 0.5, -1.0, 0.0, 1.0, 3.0], &[2, 3])?;
//!     let labels = Tensor::from_slice(&ctx, &[0i32, 2], &[2])?;
//!     let loss = losses::cross_entropy().label_smoothing(0.1);
//!     let out = loss.forward_backward(&ctx, &[("input", &logits), ("target", &labels)])?;
//!     println!("loss {}, gradient {:?}", out.loss()?, out.grad("input")?.to_vec::<f32>()?);
//!     Ok(())
//! }
//! ```
//!
//! Tensors go by the names of the loss's inputs. [`losses`] is the catalogue: each function has the formula, the inputs
//! with their shapes, the options, and the library that it follows. Options are methods, and weighted sums are one kernel:
//!
//! ```
//! use wgloss::{HostTensor, cpu, losses};
//! let loss = 0.7 * losses::huber(1.0) + 0.3 * losses::mse();
//! let (input, target) = (HostTensor::f32(&[3.0, -0.5], &[2]), HostTensor::f32(&[0.0, 0.0], &[2]));
//! let out = cpu::forward_backward(&loss, &[("input", input), ("target", target)], &["input"])?;   // needs no GPU
//! assert!((out.loss()? - 2.30625).abs() < 1e-12);
//! # Ok::<(), wgloss::Error>(())
//! ```
//!
//! # In a wgpu program of yours
//!
//! Device and buffers are yours, of the version of wgpu that is [`wgloss::wgpu`](wgpu). A plan compiles the kernels of a
//! loss for shapes, once; binding takes buffers, once per set of them; encoding records compute passes into your encoder,
//! with no submit, no poll and no readback.
//!
//! ```no_run
//! use wgloss::wgpu;
//! use wgloss::{Bindings, Context, DType, PlanSpec, Tensor, losses};
//!
//! async fn train(adapter: &wgpu::Adapter) -> Result<(), Box<dyn std::error::Error>> {
//!     let (device, queue) = adapter
//!         .request_device(&wgpu::DeviceDescriptor {
//!             required_features: Context::required_features(adapter), // | your own
//!             required_limits: Context::required_limits(adapter),     // .or_better_values_from(&your_own)
//!             ..Default::default()
//!         })
//!         .await?;
//!     // STORAGE is needed; COPY_SRC to read a tensor back, COPY_DST to write it from the host.
//!     let usage = wgpu::BufferUsages::STORAGE | wgpu::BufferUsages::COPY_SRC | wgpu::BufferUsages::COPY_DST;
//!     let buffer = |size| {
//!         device.create_buffer(&wgpu::BufferDescriptor { label: None, size, usage, mapped_at_creation: false })
//!     };
//!     let (batch, classes) = (64, 10);
//!     let (logits, labels, d_logits) = (buffer(64 * 10 * 4), buffer(64 * 4), buffer(64 * 10 * 4));
//!
//!     let ctx = Context::from_wgpu(device.clone(), queue.clone(), Some(adapter))?;
//!     let spec = PlanSpec::new()
//!         .input("input", DType::F32, &[batch, classes])
//!         .input("target", DType::I32, &[batch])
//!         .grad("input");
//!     let plan = ctx.plan(&losses::cross_entropy(), &spec)?;
//!     let logits = Tensor::from_buffer(&ctx, logits, 0, DType::F32, &[batch, classes])?;
//!     let labels = Tensor::from_buffer(&ctx, labels, 0, DType::I32, &[batch])?;
//!     let d_logits = Tensor::from_buffer(&ctx, d_logits, 0, DType::F32, &[batch, classes])?;
//!     let bindings = Bindings::new().input("input", &logits).input("target", &labels).grad("input", &d_logits);
//!     let bound = plan.bind(&bindings)?;
//!
//!     for step in 0..1000 {
//!         let mut encoder = device.create_command_encoder(&Default::default());
//!         // ... your passes that write the logits
//!         bound.encode(&mut encoder)?;
//!         // ... your passes that read the gradient of the logits
//!         queue.submit([encoder.finish()]);
//!         if step % 100 == 0 {
//!             println!("step {step}: loss {}", bound.read_loss_async().await?[0]); // waits for the GPU
//!         }
//!     }
//!     Ok(())
//! }
//! ```
//!
//! [`Plan::explain`] says which kernels were chosen and the bytes that they move, [`Bound::encode_in`] records into a
//! compute pass of yours, [`GradMode`] says where a gradient goes, and [`PlanSpec`] has the rest. `examples/train_mnist`
//! trains a network wholly on the GPU.
//!
//! # A loss of your own
//!
//! is an expression of named inputs; its gradient is derived. An input has one value per element, row (sample), column
//! (class) or in all: its [`Scope`]. Without a [`RowAxis`] elements stand alone:
//!
//! ```
//! use wgloss::{Loss, Scope};
//! let exp_square = Loss::define("exp_square")
//!     .input("input", Scope::Element)
//!     .input("target", Scope::Element)
//!     .expr(|b| {
//!         let e = (b.input("target") - b.input("input")).expm1();
//!         e * e
//!     });
//! ```
//!
//! With one, `sum`, `max`, `mean`, `logsumexp` and their like take elements to their row, `at` picks a row's element by
//! its label, and the loss has one value per row, of which the mean is taken unless [`Loss::reduction`] says otherwise.
//! [`Expr`] has the operations, [`loss::Build`] (here `b`) what an expression is built from, and
//! [`loss::DefinitionBuilder`] what a loss may declare.
//!
//! ```
//! use wgloss::{Domain, HostTensor, Loss, RowAxis, Scope, cpu};
//! // Cross entropy plus a squared margin of each row: logits `[N, C]`, or `[N, C, d1, …]`; labels `[N, …]`.
//! let loss = Loss::define("margin_cross_entropy")
//!     .input("input", Scope::Element)
//!     .label("target")
//!     .row_axis(RowAxis::Class)
//!     .param("strength", 0.1, Domain::NonNegative)
//!     .expr(|b| {
//!         let (x, label) = (b.input("input"), b.input("target"));
//!         // logsumexp − x_label, shifted by the maximum, so that confident rows keep their digits.
//!         let cross_entropy = x.logsumexp_shifted() + (x.max().detach() - x.at(label));
//!         let margin = x.max() - x.at(label);
//!         cross_entropy + b.param("strength") * margin * margin
//!     });
//! let loss = loss.option("strength", 0.5);
//!
//! let (logits, labels) = ([2.0f32, 0.5, -1.0, 0.0, 1.0, 3.0], [1i32, 2]);
//! let inputs = [("input", HostTensor::f32(&logits, &[2, 3])), ("target", HostTensor::i32(&labels, &[2]))];
//! let out = cpu::forward_backward(&loss, &inputs, &["input"])?;   // on a GPU: loss.forward_backward, ctx.plan, as above
//! let row = |x: [f64; 3], y: usize| {
//!     let margin = x.iter().fold(f64::MIN, |a, b| a.max(*b)) - x[y];
//!     x.iter().map(|x| x.exp()).sum::<f64>().ln() - x[y] + 0.5 * margin * margin
//! };
//! let want = (row([2.0, 0.5, -1.0], 1) + row([0.0, 1.0, 3.0], 2)) / 2.0;
//! assert!((out.loss()? - want).abs() < 1e-12);
//! println!("gradient {:?}", out.grad("input")?);
//! # Ok::<(), wgloss::Error>(())
//! ```
//!
//! How a loss becomes a kernel, and where: CONTRIBUTING.md has the map.
#![deny(unsafe_code)]

mod codegen;
mod contract;
#[cfg(test)]
mod counted;
pub mod cpu;
mod dispatch;
mod error;
pub mod export;
mod expr;
pub mod fused;
mod gpu;
mod limits;
pub mod loss;
pub mod losses;
mod lower;
mod plan;
mod schedule;
pub mod schemes;
mod shape;
mod text;

/// What tests and tools look into. No part of the API: it changes with any release.
#[doc(hidden)]
pub mod internals {
    pub mod contract {
        pub use crate::contract::*;
    }
    pub mod codegen {
        pub use crate::codegen::*;
    }
    pub mod dispatch {
        pub use crate::dispatch::*;
    }
    pub mod expr {
        pub use crate::expr::*;
    }
    pub mod lower {
        pub use crate::lower::*;
    }
    pub mod plan {
        pub use crate::plan::preview::{Preview, preview};
    }
    pub mod schedule {
        pub use crate::schedule::*;
    }
    pub mod shape {
        pub use crate::shape::*;
    }
}

/// The version of wgpu that [`Context`] and [`Tensor`] share devices and buffers of.
pub use wgpu;

#[doc(inline)]
pub use cpu::{CpuOutput, CpuPlan, HostTensor};
pub use error::{Error, Result};
pub use expr::op::Kind;
pub use expr::{Direction, Expr, Extent, Graph, IntoExpr, Order, Ranking};
pub use gpu::{Bindings, Bound, Context, Output, Plan, Tensor};

#[cfg(not(target_arch = "wasm32"))]
pub use gpu::{TuneCache, TuneOptions};
pub use limits::{Exp2, Limits};
#[doc(inline)]
pub use loss::{ClassAxis, Domain, Loss, ParamValue, Reduction, Value};
pub use lower::{GroupInput, UPSTREAM, Upstream, Wanted};
pub use plan::{GradMode, Operator, PlanSpec, Shard, TuneCandidate, TuneClock, Tuning};
pub use schedule::{Kernel, Pinned};
pub use shape::{DType, Element, HostElement, Layout, Ragged, RowAxis, Scope, ShapeRule, widen_bf16, widen_f16};
