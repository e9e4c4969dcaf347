//! A peer's side of the protocol: one line in, one line out.
//!
//! ```text
//!            < hello TAB name TAB version TAB device
//! work cross_entropy 1024x32000 f32
//!            < ready 1.1234567890123456e1 2.5e-2 -3.4e-4      (loss, norm and projection of the gradient)
//!            < skip no bf16 on this adapter
//! time
//!            < ms 12.345                                      (a step)
//! copy 268435456
//!            < ready 0 0 0                                    (then `time`: a copy of so many bytes)
//! quit
//! ```

use crate::work::{Summary, Work};
use std::io::{BufRead, Write};
use std::time::{Duration, Instant};

/// A turn is one step untimed, then steps for so long, at least one; its time is their mean. As in peers.py.
const TURN: Duration = Duration::from_millis(50);

pub type Fallible<T> = Result<T, Box<dyn std::error::Error>>;

/// What one prepared work can do.
pub trait Answer {
    /// Loss and gradient, done when this returns; neither is read back. This is what is timed.
    fn step(&mut self) -> Fallible<()>;

    /// Loss and gradient of the last step, read back.
    fn read(&mut self) -> Fallible<Summary>;
}

/// A library on a device.
pub trait Peer {
    /// Name, version, device.
    fn hello(&self) -> [String; 3];

    /// Makes the work's tensors. An error is why it cannot be done here.
    fn prepare(&mut self, work: &Work) -> Fallible<Box<dyn Answer>>;

    /// A copy of so many bytes on the same device, as a yardstick.
    fn prepare_copy(&mut self, _bytes: u64) -> Fallible<Box<dyn Answer>> {
        Err("copies are timed by wgloss".into())
    }
}

/// Answers the driver until it says `quit` or hangs up.
pub fn serve(peer: &mut dyn Peer) -> Fallible<()> {
    let mut out = std::io::stdout();
    let mut say = |line: &str| -> Fallible<()> {
        writeln!(out, "{line}")?;
        Ok(out.flush()?)
    };
    say(&format!("hello\t{}", peer.hello().join("\t")))?;
    let mut current: Option<Box<dyn Answer>> = None;
    for line in std::io::stdin().lock().lines() {
        let line = line?;
        let work = line.strip_prefix("work ");
        if let Some(what) = work.or(line.strip_prefix("copy ")) {
            // The tensors of the work before go first.
            current = None;
            let mut prepare = || -> Fallible<(Box<dyn Answer>, Summary)> {
                let mut answer =
                    if work.is_some() { peer.prepare(&what.parse()?)? } else { peer.prepare_copy(what.parse()?)? };
                answer.step()?;
                let read = answer.read()?;
                Ok((answer, read))
            };
            match prepare() {
                Ok((answer, Summary { loss, norm, projection })) => {
                    current = Some(answer);
                    say(&format!("ready {loss:e} {norm:e} {projection:e}"))?;
                }
                Err(error) => say(&format!("skip {}", error.to_string().lines().next().unwrap_or_default()))?,
            }
        } else if line == "time" {
            let answer = current.as_mut().ok_or("`time` before a work")?;
            // Wakes threads and caches that slept while others took their turn.
            answer.step()?;
            let (begin, mut steps) = (Instant::now(), 0);
            while begin.elapsed() < TURN {
                answer.step()?;
                steps += 1;
            }
            let ms = begin.elapsed().as_secs_f64() * 1e3 / f64::from(steps);
            say(&format!("ms {ms}"))?;
        } else if line == "quit" {
            break;
        } else {
            return Err(format!("`{line}`: not one of work, copy, time, quit").into());
        }
    }
    Ok(())
}
