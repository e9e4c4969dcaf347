//! Counts in AMD machine code, as RADV prints it: of each loop, and of the code outside of loops.

use serde::{Deserialize, Serialize};
use std::collections::{BTreeMap, BTreeSet};

/// Counts of one part of a kernel: of a loop, without those inside of it, or of the code outside of loops.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Part {
    /// Vector instructions, transcendental ones among them.
    pub vector: u32,
    /// Exponentials, logarithms, reciprocals, roots, sines.
    pub transcendental: u32,
    /// Loads from memory by lanes.
    pub loads: u32,
    /// Stores to memory by lanes.
    pub stores: u32,
    /// Most loads that are issued before one is waited for.
    pub in_flight: u32,
    /// Most bytes that a lane loads from one buffer.
    pub loaded: u32,
    /// Most bytes that a lane stores to one buffer.
    pub stored: u32,
    /// Whether it holds other loops, which are not counted in it.
    pub is_outer: bool,
}

impl Part {
    /// Elements of `bytes` bytes that a lane takes in one turn. Code that loads and stores element by element stores as many
    /// as it loads; where it stores none, loads tell.
    pub fn elements(&self, bytes: u32) -> u32 {
        (if self.stores > 0 { self.stored } else { self.loaded }) / bytes
    }
}

/// An instruction: its name, and its operands.
struct Instruction<'a> {
    op: &'a str,
    operands: &'a str,
}

const TRANSCENDENTAL: [&str; 6] = ["v_exp_", "v_log_", "v_rcp_", "v_rsq_", "v_sqrt_", "v_sin_"];

impl Instruction<'_> {
    fn is_memory(&self, what: &str) -> bool {
        (self.op.starts_with("buffer_") || self.op.starts_with("global_")) && self.op.contains(what)
    }

    /// Bytes of a load or store per lane.
    fn bytes(&self) -> u32 {
        let name = self.op.rsplit('_').next().unwrap_or_default();
        match name {
            "dwordx4" | "b128" => 16,
            "dwordx3" | "b96" => 12,
            "dwordx2" | "b64" => 8,
            "ubyte" | "sbyte" | "byte" | "u8" | "i8" | "b8" => 1,
            "ushort" | "sshort" | "short" | "u16" | "i16" | "b16" => 2,
            _ => 4,
        }
    }

    /// The scalar registers that hold the buffer's descriptor.
    fn buffer(&self) -> &str {
        self.operands.split(", ").find(|operand| operand.starts_with("s[")).unwrap_or_default()
    }
}

/// The code outside of loops, then each loop.
pub fn parts(code: &str) -> (Part, Vec<Part>) {
    let (instructions, labels) = parsed(code);
    let loops = loops(&instructions, &labels);
    let all = (0, instructions.len());
    let inside = |outer: (usize, usize)| loops.iter().copied().filter(move |inner| is_inside(*inner, outer));
    let outside = count(&instructions, all, &loops.iter().copied().collect::<Vec<_>>());
    let of = |range: &(usize, usize)| count(&instructions, *range, &inside(*range).collect::<Vec<_>>());
    (outside, loops.iter().map(of).collect())
}

fn is_inside(inner: (usize, usize), outer: (usize, usize)) -> bool {
    inner != outer && outer.0 <= inner.0 && inner.1 <= outer.1
}

fn parsed(code: &str) -> (Vec<Instruction<'_>>, BTreeMap<&str, usize>) {
    let (mut instructions, mut labels) = (Vec::new(), BTreeMap::new());
    for line in code.lines() {
        let line = line.split(';').next().unwrap_or_default();
        match line.trim().strip_suffix(':') {
            Some(label) => {
                labels.insert(label, instructions.len());
            }
            None if line.starts_with('\t') => {
                let (op, operands) = line.trim().split_once(' ').unwrap_or((line.trim(), ""));
                instructions.push(Instruction { op, operands: operands.trim() });
            }
            None => {}
        }
    }
    (instructions, labels)
}

/// Ranges of instructions from a branch's earlier target to the branch.
fn loops(instructions: &[Instruction<'_>], labels: &BTreeMap<&str, usize>) -> BTreeSet<(usize, usize)> {
    let mut ends: BTreeMap<usize, usize> = BTreeMap::new();
    for (index, instruction) in instructions.iter().enumerate() {
        let is_branch = instruction.op.starts_with("s_branch") || instruction.op.starts_with("s_cbranch");
        match labels.get(instruction.operands) {
            // Of several branches to one target, the last ends the loop.
            Some(&begin) if is_branch && begin <= index => ends.insert(begin, index + 1),
            _ => None,
        };
    }
    ends.into_iter().collect()
}

fn count(instructions: &[Instruction<'_>], range: (usize, usize), without: &[(usize, usize)]) -> Part {
    let mut part = Part { is_outer: !without.is_empty(), ..Part::default() };
    let (mut loaded, mut stored): (BTreeMap<&str, u32>, BTreeMap<&str, u32>) = Default::default();
    let mut waiting = 0;
    for index in (range.0..range.1).filter(|index| !without.iter().any(|(a, b)| (a..b).contains(&index))) {
        let instruction = &instructions[index];
        let op = instruction.op;
        part.vector += u32::from(op.starts_with("v_"));
        part.transcendental += u32::from(TRANSCENDENTAL.iter().any(|name| op.starts_with(name)));
        if instruction.is_memory("load") {
            part.loads += 1;
            *loaded.entry(instruction.buffer()).or_default() += instruction.bytes();
            waiting += 1;
            part.in_flight = part.in_flight.max(waiting);
        } else if instruction.is_memory("store") {
            part.stores += 1;
            *stored.entry(instruction.buffer()).or_default() += instruction.bytes();
        } else if let Some(left) = waits_for_all_but(instruction) {
            waiting = waiting.min(left);
        }
    }
    part.loaded = loaded.into_values().max().unwrap_or(0);
    part.stored = stored.into_values().max().unwrap_or(0);
    part
}

/// Loads that a wait leaves in flight.
fn waits_for_all_but(instruction: &Instruction<'_>) -> Option<u32> {
    let left = instruction.operands.split("vmcnt(").nth(1)?.split(')').next()?;
    left.parse().ok().filter(|_| instruction.op == "s_waitcnt")
}

#[cfg(test)]
mod tests {
    use super::*;

    const CODE: &str = "
BB0:
\tv_mov_b32_e32 v0, 0                    ; 7E000280
\ts_cbranch_scc1 BB3                     ; BF850000
BB1:
\tbuffer_load_dwordx4 v[0:3], v9, s[4:7], 0 offen ; E05C1000 80010009
\tbuffer_load_dwordx4 v[4:7], v9, s[4:7], 0 offen offset:16 ; E05C1010 80010409
\tbuffer_load_dwordx2 v[4:5], v9, s[8:11], 0 offen ; E0541000
\ts_waitcnt vmcnt(1)                     ; BF8C3F71
\tv_exp_f32_e32 v0, v0                   ; 7E004B00
BB2:
\tv_add_f32_e32 v0, v0, v1               ; 06000300
\ts_cbranch_scc0 BB2                     ; BF840000
\tbuffer_load_dword v8, v9, s[4:7], 0 offen ; E0501000
\ts_waitcnt vmcnt(0)                     ; BF8C3F70
\tbuffer_store_dwordx2 v[0:1], v9, s[12:15], 0 offen ; E0741000
\ts_branch BB1                           ; BF820000
BB3:
\ts_endpgm                               ; BF810000
";

    #[test]
    fn loops_are_counted_without_those_inside() {
        let (outside, loops) = parts(CODE);
        assert_eq!((outside.vector, outside.loads), (1, 0));
        let [outer, inner] = loops[..] else { panic!("{loops:?}") };
        assert_eq!((outer.vector, outer.transcendental, outer.loads, outer.stores), (1, 1, 4, 1));
        assert_eq!((outer.loaded, outer.stored, outer.in_flight), (36, 8, 3));
        assert!(outer.is_outer && !inner.is_outer && inner.vector == 1);
    }

    #[test]
    fn elements_are_those_stored_or_else_those_loaded() {
        let part = Part { loads: 4, loaded: 64, ..Part::default() };
        assert_eq!((part.elements(2), part.elements(4)), (32, 16));
        assert_eq!(Part { stores: 2, stored: 8, ..part }.elements(2), 4);
    }
}
