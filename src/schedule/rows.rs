//! Schedules of passes that visit the columns of rows: streamed, resident or split rows.

use super::along::{
    LANE_ROWS, LEAST_DIGIT_BITS, SOFTWARE_ITERATIONS, Team, combine_bytes, digit_bits, stops, streams, trips_over,
};
use super::registers::Registers;
use super::{Kernel, PassSchedule, Pinned, Shape, Spread, States, carries_nan};
use crate::error::{Error, Result};
use crate::limits::Limits;
use crate::lower::{Pass, Program};

/// Most words that a lane of a GPU holds of a row, unless few temporaries lie beside them.
const MOST_WORDS: u64 = 32;

/// Most words that a lane holds of a row. At 1,024 invocations a GPU's lane has 64 registers (NVIDIA, GCN, CDNA), and as many
/// as these go to temporaries. A CPU spills values to its nearest cache, which is cheaper than Mesa's loads (8,192 rows of
/// 1,000 columns: 47 ms instead of 70).
///
/// One tensor of f32 needs few temporaries, and what it spills where lanes have 64 registers is cheaper than a second trip
/// (H100, 2.98 TB/s copied: 56 words reach 92% of it, 74% when streamed; 64 words 75%). Lanes of GCN and CDNA have 64 at
/// 1,024 invocations, and NVIDIA's compiler, not theirs, spills well.
fn resident_words(shape: &Shape, limits: &Limits) -> u64 {
    let is_single = shape.held_bits == 32 && !shape.held_packed;
    match limits.software {
        true => 128,
        false if is_single && (1..=32).contains(&limits.subgroup) => 56,
        false => MOST_WORDS,
    }
}

/// Words that a lane of a GPU holds at best: fewer leave loads unused, more leave fewer rows in flight (H100, shares of the
/// copied 2.8 TB/s: rows of 8,192 halves 94% with 16 words, 81% with 8).
const BEST_WORDS: u64 = 16;

/// Most lanes that hold so few words each. Larger workgroups are alone on a core, so that nothing is loaded while they
/// compute: rows of 32,768 halves reach 82% with 512 lanes of 32 words, 80% with 1,024 of 16.
const BEST_LANES: u64 = 512;

/// Words of a step of `width` columns. A CPU holds values, one a word.
fn step_words(shape: &Shape, width: u32, limits: &Limits) -> u64 {
    if limits.software { u64::from(width) } else { u64::from(width * shape.held_bits).div_ceil(32).max(1) }
}

/// Fewest elements of a tensor for which a software adapter holds long rows in registers.
const SOFTWARE_RESIDENT: u64 = 1 << 20;
/// Most windows per lane that compile fast.
const SHORT_WINDOWS: u64 = 16;
/// Fewest rows that keep a GPU busy at one workgroup per row.
const BUSY_ROWS: u64 = 128;
/// Fewest columns for which splitting a row pays.
const SPLIT_COLS: u64 = 1 << 16;

/// Facts that the choice of a row kernel depends on.
struct Rows<'a> {
    shape: &'a Shape,
    limits: &'a Limits,
    /// Lanes per row.
    lanes: u32,
    /// Loads per lane.
    trips: u64,
    /// Windows of four columns per lane.
    windows: u64,
    /// Whether a software adapter would stop the loop over one row.
    stops: bool,
    /// Whether the row fits in the registers of its lanes, by the words that it takes.
    fits: bool,
    /// Whether it does so beside what else these hold, where schedules count it.
    fits_beside: bool,
    /// Whether other shards or chunks hold other columns of the rows.
    shared: bool,
    /// Whether several workgroups may split a row.
    can_split: bool,
    /// Words per column that trips along the rows leave.
    words: u32,
    /// Whether an earlier pass has run the stages, so that each element is read once.
    known: bool,
    /// Workgroups per row if it is split.
    splits: u32,
    /// Whether there are fewer long rows than the device has cores.
    few: bool,
}

/// Chooses the schedule of a pass over the columns of rows.
pub(super) fn choose(
    (program, pass): (&Program, &Pass),
    shape: &Shape,
    width: u32,
    limits: &Limits,
    pinned: Pinned,
) -> Result<PassSchedule> {
    let early = if shape.masked { u64::from(width) - 1 } else { 0 };
    let vectors = (shape.cols + early).div_ceil(u64::from(width));
    let Holding { team, fits, fits_beside } = team((program, pass), [vectors, width.into()], shape, limits, pinned);
    let Team { workgroup, lanes, subgroup, .. } = team;
    let combined = combine_bytes(pass, workgroup, LEAST_DIGIT_BITS);
    if lanes > 1 && combined > u64::from(limits.workgroup_bytes) {
        return Err(Error::Limit {
            what: format!("the row states of {workgroup} invocations"),
            needed: combined,
            allowed: u64::from(limits.workgroup_bytes),
            limit: "max_compute_workgroup_storage_size",
        });
    }
    if lanes == 0 || !lanes.is_power_of_two() || lanes > workgroup {
        let message = format!("{lanes} lanes a row in a workgroup of {workgroup}");
        return Err(Error::Unsupported { message });
    }
    let trips = vectors.div_ceil(u64::from(lanes));
    let stages = trips_over(pass);
    let shared = shape.states == States::Shared;
    let rows = Rows {
        shape,
        limits,
        lanes,
        trips,
        windows: trips * u64::from(width.div_ceil(4)),
        stops: stops(limits, pass, trips, team),
        fits: fits && !streams(pass),
        fits_beside,
        shared,
        can_split: (stages > 0 || shared || pass.known.is_some())
            && !(shape.overwritten || pass.runs_along_rows() || pass.has_thresholds()),
        words: pass.along().map(|id| program.node(id).words_left()).sum(),
        known: pass.known.is_some(),
        splits: limits.workgroups.min(64).min((shape.cols / 4096).max(1) as u32),
        few: shape.rows < busy_rows(limits) && shape.cols >= SPLIT_COLS,
    };
    let (kernel, why) = match pinned.kernel {
        Some(kernel) => (rows.pinned(kernel)?, "asked for"),
        None => rows.default()?,
    };
    let kernel = match kernel {
        Kernel::Row if rows.words > 0 => Kernel::RowScan {
            words: rows.words,
            digit_bits: digit_bits(limits, pass, trips * u64::from(width), workgroup),
        },
        kernel => kernel,
    };
    // A split row takes the whole workgroup.
    let lanes = if kernel == Kernel::RowPairs { 1 } else { lanes };
    let lanes = if matches!(kernel, Kernel::RowSplit { .. }) { workgroup } else { lanes };
    let spread = Spread::new(kernel, workgroup, lanes, width, limits);
    let grid = spread.grid(shape.rows, shape.cols).map(|groups| groups as u32);
    let strided = shape.rows.div_ceil(spread.each) > spread.most || spread.held > 0;
    let exp2 = pinned.exp2.unwrap_or(limits.exp2);
    let carries_nan = carries_nan(limits, pinned);
    Ok(PassSchedule { kernel, workgroup, lanes, subgroup, exp2, carries_nan, width, grid, strided, alone: false, why })
}

impl Rows<'_> {
    /// The kernel that is pinned, if it can run.
    fn pinned(&self, kernel: Kernel) -> Result<Kernel> {
        let (cols, lanes) = (self.shape.cols, self.lanes);
        let fault = |message: String| Err(Error::Unsupported { message });
        match kernel {
            Kernel::Row | Kernel::RowResident { .. } if self.shared => {
                fault("a kernel of whole rows for a part of their columns".to_owned())
            }
            Kernel::RowResident { .. } if !self.fits => {
                fault(format!("a resident row of {cols} columns over {lanes} lanes"))
            }
            Kernel::RowResident { .. } => Ok(Kernel::RowResident { trips: self.trips as u32 }),
            Kernel::RowSplit { .. } if !self.can_split => fault(
                "sharing a row without row reductions, with scans along it or thresholds of it, or while an input that all of it \
                 reads is overwritten"
                    .to_owned(),
            ),
            Kernel::RowSplit { splits } if splits == 0 || splits > self.limits.workgroups => {
                fault(format!("{splits} workgroups a row; 1 to {}", self.limits.workgroups))
            }
            Kernel::RowPairs if !self.shape.row_pairs => {
                fault("pairs of rows where no 16-bit output has two neighbouring rows in a word".to_owned())
            }
            Kernel::Row | Kernel::RowPairs if self.stops => {
                fault(format!("{cols} columns over {lanes} lanes of a software adapter, which stops long loops"))
            }
            Kernel::Elementwise | Kernel::ColumnSums { .. } | Kernel::RowScan { .. } => {
                fault("the element-wise kernel, or that of column sums, for a pass with rows".to_owned())
            }
            kernel => Ok(kernel),
        }
    }

    /// The default kernel, and the reason.
    fn default(&self) -> Result<(Kernel, &'static str)> {
        let &Rows { shape, limits, stops, can_split, splits, few, .. } = self;
        // Mesa takes seconds to compile long unrolled rows: large tensors repay them.
        let is_slow_to_compile = limits.software
            && shape.rows.saturating_mul(shape.cols) < SOFTWARE_RESIDENT
            && self.windows > SHORT_WINDOWS;
        if self.shared {
            let splits = if few || stops { splits } else { 1 };
            return Ok((Kernel::RowSplit { splits }, "other parts of the rows lie elsewhere"));
        }
        if shape.row_pairs {
            return Ok((Kernel::RowPairs, "neighbouring rows share the words of a 16-bit output"));
        }
        if can_split && splits > 1 && few {
            return Ok((Kernel::RowSplit { splits }, "fewer long rows than the device has cores"));
        }
        if stops && can_split {
            return Ok((Kernel::RowSplit { splits }, "a software adapter stops long loops"));
        }
        if stops {
            let message = format!("{} columns on a software adapter, which stops long loops", shape.cols);
            return Err(Error::Unsupported { message });
        }
        if self.known {
            return Ok((Kernel::Row, "an earlier pass has run its stages"));
        }
        if self.fits && self.fits_beside && !is_slow_to_compile {
            return Ok((Kernel::RowResident { trips: self.trips as u32 }, "the row fits in registers"));
        }
        if shape.states == States::Kept && can_split {
            return Ok((Kernel::RowSplit { splits: 1 }, "longer than registers hold, and its states are kept"));
        }
        Ok((Kernel::Row, if limits.software { "streamed from the CPU's caches" } else { "longer than registers hold" }))
    }
}

/// Fewest lanes of a subgroup that a schedule counts on; 0 if it has no subgroup operations.
fn subgroup_of(limits: &Limits, pinned: Pinned) -> u32 {
    if pinned.subgroups == Some(false) { 0 } else { limits.subgroup }
}

fn busy_rows(limits: &Limits) -> u64 {
    if limits.software { 2 } else { BUSY_ROWS }
}

/// Lanes that take a row, and whether they can hold it.
struct Holding {
    /// The lanes.
    team: Team,
    /// See [`Rows::fits`].
    fits: bool,
    /// See [`Rows::fits_beside`].
    fits_beside: bool,
}

/// The lanes of each row: by default, or, where registers are counted, as many more as hold the row.
fn team(
    (program, pass): (&Program, &Pass),
    [vectors, width]: [u64; 2],
    shape: &Shape,
    limits: &Limits,
    pinned: Pinned,
) -> Holding {
    let [least, most] = workgroups(shape, pass, limits);
    let lanes = row_lanes([vectors, width], most, (shape, pass), limits, pinned);
    let registers = Registers::of(program, pass, shape, limits);
    let trips = |lanes: u32| vectors.div_ceil(u64::from(lanes.max(1)));
    let workgroup = |lanes: u32| pinned.workgroup.unwrap_or(lanes.max(least));
    let fits = |lanes| trips(lanes) * step_words(shape, width as u32, limits) <= resident_words(shape, limits);
    let fits_beside = |lanes| registers.is_none_or(|registers| registers.hold(trips(lanes) * width, workgroup(lanes)));
    let lanes = match registers {
        Some(registers) if pinned.lanes.or(pinned.workgroup).is_none() => {
            let may_hold = shape.states != States::Shared && pass.known.is_none();
            // Lanes of rows that lie next to each other read whole lines only if each has its row.
            let most = if lanes == 1 && shape.rows_innermost { 1 } else { most };
            registers.lanes([lanes, most], |lanes| may_hold && fits(lanes) && fits_beside(lanes))
        }
        _ => lanes,
    };
    let subgroup = subgroup_of(limits, pinned);
    let team = Team { workgroup: workgroup(lanes), lanes, subgroup, width: width as u32 };
    Holding { team, fits: fits(lanes), fits_beside: fits_beside(lanes) }
}

/// Fewest and most invocations of a workgroup.
fn workgroups(shape: &Shape, pass: &Pass, limits: &Limits) -> [u32; 2] {
    let mut most = limits.invocations().min(1024);
    while most > 1 && combine_bytes(pass, most, LEAST_DIGIT_BITS) > u64::from(limits.workgroup_bytes) {
        most /= 2;
    }
    // Enough invocations for a busy workgroup: a vector of one core, or a few subgroups.
    // Where rows are in parts, all of them take one row.
    let by_row = !shape.rows_innermost || shape.states == States::Shared;
    [if limits.software && by_row { 8 } else { 64.min(most) }, most]
}

/// Lanes per row.
fn row_lanes(
    [vectors, width]: [u64; 2],
    most: u32,
    (shape, pass): (&Shape, &Pass),
    limits: &Limits,
    pinned: Pinned,
) -> u32 {
    let stages = trips_over(pass);
    let lanes = pinned.lanes.or(pinned.workgroup);
    lanes.unwrap_or_else(|| {
        let words = step_words(shape, width as u32, limits);
        let held = (resident_words(shape, limits) / words).max(1);
        let best = (BEST_WORDS / words).max(1);
        if shape.rows_innermost && shape.rows >= LANE_ROWS {
            // Neighbouring lanes read neighbouring rows.
            1
        } else if limits.software {
            let needed = (vectors * (stages + 1)).div_ceil(SOFTWARE_ITERATIONS).next_power_of_two();
            let resident = vectors.div_ceil(held).next_power_of_two();
            let mut lanes = if resident <= 64 && !streams(pass) { resident.max(8) } else { needed.max(8) };
            let subgroup = subgroup_of(limits, pinned);
            let stops = |lanes: u64| {
                let team = Team { workgroup: lanes as u32, lanes: lanes as u32, subgroup, width: width as u32 };
                stops(limits, pass, vectors.div_ceil(lanes), team)
            };
            while lanes < u64::from(most) && stops(lanes) {
                lanes *= 2;
            }
            if vectors <= held && !streams(pass) { 1 } else { (lanes as u32).min(most) }
        } else if vectors <= 4 {
            1
        } else if vectors <= 32 * held {
            // Short rows: at most one subgroup.
            (vectors.div_ceil(best).next_power_of_two() as u32).min(32)
        } else {
            // Long rows: few at a time, so that caches still hold a row when it is read again.
            let lanes = vectors.div_ceil(best).next_power_of_two().min(u64::from(most));
            let fewer = (MOST_WORDS / words).max(1) * BEST_LANES;
            if vectors <= fewer { lanes.min(BEST_LANES) as u32 } else { lanes as u32 }
        }
    })
}
