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
//! [`losses`] is the catalogue, with the formula of each. Options are methods, and weighted sums are one kernel:
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
//! A loss of your own is an expression; its gradient is derived:
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
//! In a training loop, [`Context::plan`] compiles a loss for shapes, [`Plan::bind`] takes buffers, and
//! [`Bound::encode`] records a step into your encoder: no submit, no poll, no readback.
//!
//! How a loss becomes a kernel, and where: CONTRIBUTING.md has the map.
#![deny(unsafe_code)]

mod codegen;
mod contract;
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
pub use expr::{Expr, Extent, Graph, IntoExpr};
pub use gpu::{Bindings, Bound, Context, Output, Plan, Tensor};

#[cfg(not(target_arch = "wasm32"))]
pub use gpu::{TuneCache, TuneOptions};
pub use limits::Limits;
#[doc(inline)]
pub use loss::{ClassAxis, Domain, Loss, ParamValue, Reduction, Value};
pub use lower::{GroupInput, UPSTREAM, Upstream, Wanted};
pub use plan::{GradMode, Operator, PlanSpec, Shard, TuneCandidate, TuneClock, Tuning};
pub use schedule::{Kernel, Pinned};
pub use shape::{
    Count, DType, Element, Formula, FormulaOp, HostElement, Layout, Ragged, RowAxis, Scope, ShapeRule, widen_bf16,
    widen_f16,
};
