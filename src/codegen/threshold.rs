//! Steps of thresholds as WGSL: the state that lanes leave in a trip over the row, and what the row makes of it. The steps are
//! those of `expr/threshold.rs`.

use super::poison::bits;
use crate::expr::Threshold;
use crate::expr::op::Kind;
use crate::text::put;

/// Fields of a lane's state, by name without the node's number, and their kinds.
pub(super) fn fields(threshold: Threshold) -> &'static [(&'static str, Kind)] {
    match threshold {
        Threshold::Sparsemax => &[("m", Kind::Float), ("sum", Kind::Float), ("ties", Kind::Int), ("count", Kind::Int)],
        Threshold::Entmax15 => &[
            ("m", Kind::Float),
            ("sum", Kind::Float),
            ("squares", Kind::Float),
            ("ties", Kind::Int),
            ("count", Kind::Int),
        ],
        Threshold::TopK(_) => &[("c", Kind::Int), ("d", Kind::Int), ("e", Kind::Int)],
    }
}

/// Those of its fields that are sums of numbers.
pub(super) fn sums(threshold: Threshold) -> &'static [&'static str] {
    match threshold {
        Threshold::Sparsemax => &["sum"],
        Threshold::Entmax15 => &["sum", "squares"],
        Threshold::TopK(_) => &[],
    }
}

/// Fields of the row that are carried from step to step: of Newton's method the largest element, the threshold relative to it as
/// `below − from`, and how many elements were above that; of a rank the bits that are settled, and the lowest of those that
/// are next.
pub(super) fn row_fields(threshold: Threshold) -> &'static [(&'static str, &'static str)] {
    match threshold {
        Threshold::TopK(_) => &[("found", "u32"), ("unit", "u32")],
        _ => &[("top", "f32"), ("below", "f32"), ("from", "f32"), ("count", "u32"), ("left", "u32")],
    }
}

pub(super) fn identity(threshold: Threshold, n: u32, [f, u]: [&str; 2]) -> String {
    let of = |(name, kind): &(&str, Kind)| match (*name, kind) {
        ("m", _) => format!("    s.m{n} = {f}(LOWEST);\n"),
        (name, Kind::Float) => format!("    s.{name}{n} = {f}(0.0);\n    s.run_{name}{n} = {f}(0.0);\n"),
        (name, _) => format!("    s.{name}{n} = {u}(0u);\n"),
    };
    fields(threshold).iter().map(of).collect()
}

/// A step of a lane with elements `x`.
pub(super) fn step(threshold: Threshold, n: u32, x: &str, [f, u]: [&str; 2]) -> String {
    let one = |test: &str| format!("select({u}(0u), {u}(1u), {test})");
    match threshold {
        Threshold::TopK(_) => {
            let mut text = format!(
                "    let b{n} = bitcast<{u}>({x});\n    \
                 let key{n} = b{n} ^ (({u}(0u) - (b{n} >> {u}(31u))) | {u}(0x80000000u));\n"
            );
            for (name, digit) in [("c", 1), ("d", 2), ("e", 3)] {
                let counts = one(&format!("key{n} >= {u}(r.found{n} + {digit}u * r.unit{n})"));
                put!(text, "    s.{name}{n} += {counts};\n");
            }
            text
        }
        _ => {
            let is_entmax = threshold == Threshold::Entmax15;
            let half = if is_entmax { format!("{f}(0.5) * ") } else { String::new() };
            let (ties, counts) = (one(&format!("d{n} >= {f}(0.0)")), one(&format!("rest{n} > {f}(0.0)")));
            // Those that are the largest are counted; a NaN is neither above nor below, and is added.
            let mut text = format!(
                "    let x{n} = {x};\n    s.m{n} = max(s.m{n}, x{n});\n    \
                 let d{n} = {half}(x{n} - {f}(r.top{n}));\n    \
                 let rest{n} = (d{n} + {f}(r.from{n})) - {f}(r.below{n});\n    \
                 let above{n} = select(rest{n}, {f}(0.0), (rest{n} <= {f}(0.0)) | (d{n} >= {f}(0.0)));\n    \
                 s.run_sum{n} += above{n};\n    s.ties{n} += {ties};\n    s.count{n} += {counts};\n"
            );
            if is_entmax {
                put!(text, "    s.run_squares{n} += above{n} * above{n};\n");
            }
            text
        }
    }
}

pub(super) fn combine(threshold: Threshold, n: u32) -> String {
    let of = |(name, _): &(&str, Kind)| match *name {
        "m" => format!("    s.m{n} = max(a.m{n}, b.m{n});\n"),
        name => format!("    s.{name}{n} = a.{name}{n} + b.{name}{n};\n"),
    };
    fields(threshold).iter().map(of).collect()
}

/// Before the first step.
pub(super) fn begin(threshold: Threshold, n: u32) -> String {
    match threshold {
        Threshold::TopK(_) => {
            format!("    r.found{n} = 0u;\n    r.unit{n} = {}u;\n", 1u32 << (32 - Threshold::BITS))
        }
        _ => format!(
            "    r.top{n} = LOWEST;\n    r.below{n} = 0.0;\n    r.from{n} = 0.0;\n    r.count{n} = 0u;\n    r.left{n} = {}u;\n",
            threshold.steps()
        ),
    }
}

/// Whether a step is left to do.
pub(super) fn is_open(threshold: Threshold, n: u32) -> String {
    match threshold {
        Threshold::TopK(_) => format!("r.unit{n} != 0u"),
        _ => format!("r.left{n} != 0u"),
    }
}

/// What the row makes of the state `s` of all lanes.
pub(super) fn finish(threshold: Threshold, n: u32) -> String {
    let advance = match threshold {
        Threshold::TopK(k) => {
            return format!(
                "    let digit{n} = select(0u, 1u, s.c{n} >= {k}u) + select(0u, 1u, s.d{n} >= {k}u) + select(0u, 1u, s.e{n} >= {k}u);\n    \
                 r.found{n} += digit{n} * r.unit{n};\n    r.unit{n} >>= {}u;\n",
                Threshold::BITS
            );
        }
        // The elements above only get fewer; if they do not, the threshold is that of these.
        Threshold::Sparsemax => format!(
            "        let excess{n} = s.sum{n} + ((ties{n} * r.from{n} - 1.0) - ties{n} * r.below{n});\n        \
             r.below{n} += excess{n} / f32(s.count{n});\n        \
             r.left{n} = select(0u, r.left{n} - 1u, s.count{n} < r.count{n});\n        r.count{n} = s.count{n};\n"
        ),
        // After the step the threshold is off by (count − sum²/squares)·step²/(2·sum) at most.
        Threshold::Entmax15 => format!(
            "        let excess{n} = s.squares{n} + ((ties{n} * r.from{n} - 1.0) - \
             ties{n} * r.below{n} * (2.0 * r.from{n} - r.below{n}));\n        \
             let sum{n} = s.sum{n} + ties{n} * (r.from{n} - r.below{n});\n        \
             let root{n} = sqrt(1.0 + excess{n});\n        \
             let step{n} = root{n} * excess{n} / ((root{n} + 1.0) * sum{n});\n        r.below{n} += step{n};\n        \
             let bend{n} = f32(s.count{n}) - sum{n} * (sum{n} / (1.0 + excess{n}));\n        let off{n} = step{n} * step{n} * bend{n};\n"
        ),
    };
    let test = match threshold {
        Threshold::Entmax15 => format!(
            "        let is_off{n} = off{n} > 1.1920929e-7 * abs(r.below{n}) * sum{n};\n        \
             r.left{n} = select(0u, r.left{n} - 1u, is_off{n});\n"
        ),
        _ => String::new(),
    };
    format!(
        "    if (r.left{n} == {}u) {{\n        r.top{n} = s.m{n};\n        r.from{n} = 1.0;\n        \
         r.count{n} = 0xffffffffu;\n        r.left{n} -= 1u;\n    }} else if (r.left{n} != 0u) {{\n        \
         let ties{n} = f32(s.ties{n});\n{advance}        \
         if (r.from{n} > 0.0 && r.below{n} > 0.5) {{\n            r.below{n} -= 1.0;\n            r.from{n} = 0.0;\n        }}\n{test}    }}\n",
        threshold.steps()
    )
}

/// The value, after the last step, and the `poisons` that a row without one has.
pub(super) fn close(threshold: Threshold, n: u32, poisons: &[usize]) -> String {
    match threshold {
        Threshold::TopK(_) => format!(
            "    r.n{n} = bitcast<f32>(r.found{n} ^ select(0xffffffffu, 0x80000000u, r.found{n} >= 0x80000000u));\n"
        ),
        _ => {
            let mut text = format!("    r.n{n} = r.below{n};\n");
            // All elements are −∞, or one is +∞ or NaN.
            for bits in poisons.iter().map(|poison| bits(*poison)) {
                put!(
                    text,
                    "    r.{bits} = select(r.{bits}, NAN_BITS, r.top{n} <= LOWEST || math_is_nan(r.below{n}) || \
                     bitcast<u32>(r.top{n}) == INF_BITS);\n"
                );
            }
            text
        }
    }
}
