//! Shared by the command line, the benchmarks and the peers: one clock, one copy, one numerics contract, the same
//! problems, and one format of records.
//!
//! - [`problem`]: inputs for any loss of the catalogue, the same on every machine.
//! - [`contract`]: how far a result is from the f64 reference, in units of what is allowed. Checked before each timing.
//! - [`clock`]: GPU timestamps around kernels, wall clock around calls.
//! - [`copy`]: the baseline of all times; [`sweep`]: one kernel over whole buffers.
//! - [`record`] and [`machine`]: the record of a run.

pub mod clock;
pub mod contract;
pub mod copy;
pub mod machine;
pub mod problem;
pub mod record;
pub mod sweep;

/// Version of wgloss: all crates of the workspace have the same.
pub const VERSION: &str = env!("CARGO_PKG_VERSION");
