//! Times contenders in interleaved rounds: by GPU timestamps, or by wall clock over many submits.

use crate::Fallible;
use measure::clock::{Clock, Encode, Times};
use std::time::{Duration, Instant};
use wgloss::Context;

/// What is timed: commands of one step.
pub struct Contender<'a> {
    pub name: &'static str,
    pub encode: Box<Encode<'a>>,
}

pub struct Rounds<'a> {
    clock: Clock<'a>,
    by_gpu: bool,
    /// How time is told.
    pub name: String,
}

impl<'a> Rounds<'a> {
    /// By wall clock, if that is asked for, or the device has no timestamps around commands.
    pub fn new(ctx: &'a Context, wall: bool) -> Rounds<'a> {
        let clock = Clock::new(ctx);
        let by_gpu = clock.has_command_stamps() && !wall;
        let name = if by_gpu { "GPU timestamps" } else { "wall clock over many submits" };
        Rounds { clock, by_gpu, name: name.to_owned() }
    }

    /// Warm-up, then rounds in which each contender takes one turn.
    pub fn time(&mut self, contenders: &[Contender<'_>], warm_up: Duration, rounds: usize) -> Fallible<Vec<Times>> {
        let mut all = vec![Times::default(); contenders.len()];
        let begin = Instant::now();
        self.round(contenders, 0)?;
        while begin.elapsed() < warm_up {
            self.round(contenders, 0)?;
        }
        for round in 0..rounds {
            for (times, ms) in all.iter_mut().zip(self.round(contenders, round)?) {
                times.push(ms);
            }
        }
        Ok(all)
    }

    /// Milliseconds of each contender; who begins rotates.
    fn round(&mut self, contenders: &[Contender<'_>], round: usize) -> Fallible<Vec<f64>> {
        if self.by_gpu {
            let steps: Vec<&Encode<'_>> = contenders.iter().map(|contender| &*contender.encode).collect();
            match self.clock.round_by_gpu(&steps, round)? {
                Ok(times) => return Ok(times),
                Err(fault) => {
                    self.name = format!("wall clock over many submits ({fault})");
                    eprintln!("{}", self.name);
                    self.by_gpu = false;
                }
            }
        }
        let by_wall = |contender: &Contender<'_>| Ok(self.clock.by_repeated_wall(&*contender.encode)?);
        contenders.iter().map(by_wall).collect()
    }
}
