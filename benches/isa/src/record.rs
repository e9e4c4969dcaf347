//! Counts of kernels, as they are kept.

use crate::cases::Case;
use crate::code::Part;
use measure::machine;
use serde::{Deserialize, Serialize};

/// How a kernel finds NaN, which depends on whether an adapter's arithmetic was probed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, clap::ValueEnum)]
#[serde(rename_all = "snake_case")]
pub enum Nan {
    /// By the bits of each element: not probed, and with an exponential of wgloss's own.
    Bits,
    /// By sums: probed, and with the adapter's exp2.
    Sums,
}

impl Nan {
    pub const ALL: [Nan; 2] = [Nan::Bits, Nan::Sums];

    pub fn name(self) -> &'static str {
        match self {
            Nan::Bits => "bits",
            Nan::Sums => "sums",
        }
    }
}

/// One run of the tool on one commit.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Record {
    /// [`FORMAT`].
    pub format: u32,
    /// Commit that was built, if known; `-dirty` with uncommitted changes.
    pub commit: Option<String>,
    /// `YYYY-MM-DD`, UTC.
    pub date: String,
    /// The compiler.
    pub compiler: String,
    /// Names of the values of a line of a kernel.
    pub columns: [&'static str; 11],
    pub families: Vec<FamilyRecord>,
}

/// The version of the format that this program writes.
const FORMAT: u32 = 1;

/// The kernels of passes of a family of GPUs.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct FamilyRecord {
    family: String,
    nan: Nan,
    cases: usize,
    kernels: Vec<Line>,
}

type Line =
    (String, String, usize, Option<u64>, Option<u64>, Option<u64>, Option<u64>, Option<u64>, u32, usize, Vec<[f64; 4]>);

impl Record {
    /// The figures of these families, of the commit that was built, today.
    pub fn new(families: &[Compiled]) -> Record {
        let columns = [
            "case",
            "kernel",
            "cases with it",
            "instructions",
            "registers",
            "spilled",
            "spilled scalars",
            "subgroups per SIMD",
            "workgroup",
            "dispatches",
            "trips: vector and transcendental instructions per element, elements per turn, loads in flight",
        ];
        let (commit, date) = (machine::commit(), machine::date());
        let families = families.iter().map(FamilyRecord::new).collect();
        Record { format: FORMAT, commit, date, compiler: "RADV (Mesa)".to_owned(), columns, families }
    }
}

impl FamilyRecord {
    fn new(compiled: &Compiled) -> FamilyRecord {
        let Compiled { family, nan, cases, kernels } = compiled;
        let line = |(index, kernel): (usize, &Kernel)| {
            let of = || cases.iter().filter(move |planned| planned.dispatches.contains(&index));
            let first = of().next()?;
            let count = |of: fn(&Counts) -> u64| kernel.counts.as_ref().map(of);
            let rounded = |value: f64| (value * 100.0).round() / 100.0;
            let trips = kernel.counts.iter().flat_map(|counts| counts.trips(kernel.held, first.case.bytes()));
            let trips = trips.map(|trip| {
                let (elements, in_flight) = (f64::from(trip.elements), f64::from(trip.in_flight));
                [rounded(trip.vector), rounded(trip.transcendental), elements, in_flight]
            });
            kernel.is_pass.then(|| {
                (
                    first.case.name(),
                    kernel.title.clone(),
                    of().count(),
                    count(|counts| counts.instructions),
                    count(|counts| counts.registers),
                    count(|counts| counts.spilled),
                    count(|counts| counts.spilled_scalars),
                    count(|counts| counts.subgroups_per_simd),
                    kernel.workgroup,
                    first.dispatches.len(),
                    trips.collect(),
                )
            })
        };
        let lines = kernels.iter().enumerate().filter_map(line).collect();
        FamilyRecord { family: family.clone(), nan: *nan, cases: cases.len(), kernels: lines }
    }
}

/// All kernels that were compiled for a family of GPUs.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Compiled {
    pub family: String,
    pub nan: Nan,
    pub cases: Vec<Planned>,
    pub kernels: Vec<Kernel>,
}

/// A kernel, as a process that compiles tells of it: before it compiles it, so that the kernel is known that crashed it,
/// and afterwards.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Told {
    /// That index is compiled next.
    Next(usize, Kernel),
    /// That index was compiled.
    Done(usize, Counts),
    /// All kernels were; these are the cases.
    Cases(Vec<Planned>),
}

/// A case with its dispatches.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Planned {
    #[serde(flatten)]
    pub case: Case,
    /// Index of the kernel of each dispatch.
    pub dispatches: Vec<usize>,
}

/// A kernel and its counts.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Kernel {
    /// First line of its WGSL.
    pub title: String,
    /// Invocations of a workgroup.
    pub workgroup: u32,
    /// Whether it is a pass over rows or elements; others add up what passes leave.
    pub is_pass: bool,
    /// Elements of one tensor that a lane holds, of a kernel that holds rows.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub held: Option<u32>,
    /// What the compiler made of it; `None` where the compiler crashed.
    pub counts: Option<Counts>,
}

/// What a compiler made of a kernel.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Counts {
    pub instructions: u64,
    /// Vector registers.
    pub registers: u64,
    /// Vector registers that are spilled, to memory.
    pub spilled: u64,
    /// Scalar registers that are spilled, to lanes of vector registers.
    pub spilled_scalars: u64,
    /// Subgroups that a SIMD has room for.
    pub subgroups_per_simd: u64,
    /// The code outside of loops.
    pub outside: Part,
    pub loops: Vec<Part>,
}

/// What a trip over a row costs.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Trip {
    /// Vector instructions per element.
    pub vector: f64,
    /// Transcendental ones among them.
    pub transcendental: f64,
    /// Elements per turn of its loop.
    pub elements: u32,
    pub in_flight: u32,
}

impl Counts {
    /// The trips over memory of a kernel of elements of `bytes` bytes. Of held rows all code counts once; of others, the
    /// cheapest loop that only loads, then the cheapest that stores: further loops are for ends and for rows with NaN.
    pub fn trips(&self, held: Option<u32>, bytes: u32) -> Vec<Trip> {
        if let Some(held) = held {
            let parts = || self.loops.iter().chain([&self.outside]);
            let vector = parts().map(|part| part.vector).sum();
            let transcendental = parts().map(|part| part.transcendental).sum();
            let in_flight = parts().map(|part| part.in_flight).max().unwrap_or(0);
            return vec![trip(vector, transcendental, held, in_flight)];
        }
        let inner = || self.loops.iter().filter(|part| !part.is_outer && part.loads > 0 && part.elements(bytes) > 0);
        let of = |part: &Part| trip(part.vector, part.transcendental, part.elements(bytes), part.in_flight);
        let cheapest = |stores: bool| {
            let trips = inner().filter(|part| (part.stores > 0) == stores).map(of);
            trips.min_by(|a, b| a.vector.total_cmp(&b.vector))
        };
        [false, true].into_iter().filter_map(cheapest).collect()
    }
}

fn trip(vector: u32, transcendental: u32, elements: u32, in_flight: u32) -> Trip {
    let each = |count: u32| f64::from(count) / f64::from(elements);
    Trip { vector: each(vector), transcendental: each(transcendental), elements, in_flight }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn counts(loops: Vec<Part>) -> Counts {
        Counts {
            instructions: 0,
            registers: 0,
            spilled: 0,
            spilled_scalars: 0,
            subgroups_per_simd: 8,
            outside: Part { vector: 100, ..Part::default() },
            loops,
        }
    }

    #[test]
    fn a_streamed_row_takes_a_trip_that_loads_and_one_that_stores() {
        let load = Part { vector: 64, loads: 4, loaded: 64, ..Part::default() };
        let ends = Part { vector: 64, loads: 1, loaded: 2, ..Part::default() };
        let store = Part { vector: 96, loads: 1, loaded: 16, stores: 1, stored: 16, ..Part::default() };
        let trips = counts(vec![ends, load, store]).trips(None, 2);
        assert_eq!(trips.iter().map(|trip| (trip.vector, trip.elements)).collect::<Vec<_>>(), [(2.0, 32), (12.0, 8)]);
    }

    #[test]
    fn all_code_of_a_held_row_counts_once() {
        let trips = counts(vec![Part { vector: 28, ..Part::default() }]).trips(Some(32), 2);
        assert_eq!(trips.iter().map(|trip| trip.vector).collect::<Vec<_>>(), [4.0]);
    }
}
