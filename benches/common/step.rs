//! A step timed by wall clock: submitted, and waited for.

use wgloss::{Bound, Context};

/// Submits a step and waits for it.
pub fn step(ctx: &Context, bound: &Bound) {
    bound.submit().expect("submit");
    wait(ctx);
}

pub fn wait(ctx: &Context) {
    ctx.device().poll(wgpu::PollType::wait_indefinitely()).expect("poll");
}
