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
//! - [`losses`] is the catalogue; [`Loss::define`] begins a loss of your own; `0.7 * mse() + 0.3 * l1()` is one kernel.
//! - [`Context::plan`] compiles a loss for shapes, [`Plan::bind`] takes buffers, [`Bound::encode`] records a step into
//!   your encoder: no submit, no poll, no readback.
//! - [`cpu`] runs the same program on the host, in f64 as the reference or in f32 for speed.
//!
//! How a loss becomes a kernel: [`expr`] (the language), [`autodiff`], [`simplify`], [`lower`] (passes and stages),
//! [`schedule`] (which kernel, how large), [`codegen`] and [`template`] (WGSL), and the GPU's plans.
#![deny(unsafe_code)]

pub mod autodiff;
pub mod codegen;
mod count;
pub mod cpu;
mod dtype;
mod error;
pub mod expr;
pub mod geometry;
mod gpu;
pub mod loss;
pub mod losses;
pub mod lower;
pub mod op;
pub mod schedule;
pub mod simplify;
pub mod template;
mod text;

pub use count::{Count, Formula, Operator};
pub use cpu::{CpuOutput, CpuPlan, HostTensor};
pub use dtype::{DType, Element, narrow_labels, widen_bf16, widen_f16};
pub use error::{Error, Result};
pub use expr::{Expr, Extent, Graph, Scope};
pub use gpu::{
    Bindings, Bound, Context, GradMode, Output, Plan, PlanSpec, Shard, Tensor, TuneCandidate, TuneClock, Tuning, export,
};
#[cfg(not(target_arch = "wasm32"))]
pub use gpu::{TuneCache, TuneOptions};
pub use loss::{Domain, Loss, Reduction, RowAxis, Value};
pub use op::Kind;
