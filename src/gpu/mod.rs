//! The only folder that names wgpu: contexts, tensors, plans on a device, bound plans, and calls.

mod bind;
mod bound;
mod call;
pub(crate) mod device;
mod plan;
mod tensor;
#[cfg(not(target_arch = "wasm32"))]
mod tune;

pub use bind::Bindings;
pub use bound::Bound;
pub use call::Output;
pub use device::context::Context;
pub use plan::Plan;
pub use tensor::Tensor;
#[cfg(not(target_arch = "wasm32"))]
pub use tune::{TuneCache, TuneOptions};

#[cfg(not(target_arch = "wasm32"))]
const _: () = {
    const fn is_send_sync<T: Send + Sync>() {}
    is_send_sync::<Context>();
    is_send_sync::<Tensor>();
    is_send_sync::<Plan>();
    is_send_sync::<Bound>();
};
