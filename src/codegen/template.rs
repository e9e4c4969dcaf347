//! Skeletons and hooks to shader source: imports, repeated blocks, filled hooks, and the functions of `math.wgsl` that
//! are called, at the widths at which they are called.
//!
//! The skeletons are valid WGSL as they stand, with stubs in their hooks. Filling fails on a hook without text, and on
//! text without a hook.

use crate::text::putln;
use std::collections::{BTreeMap, BTreeSet};

const COMMON: &str = include_str!("../../shaders/common.wgsl");
const STORAGE: &str = include_str!("../../shaders/storage.wgsl");
const MATH: &str = include_str!("../../shaders/math.wgsl");
const ROW_HOOKS: &str = include_str!("../../shaders/row_hooks.wgsl");
const ROW_SCAN_HOOKS: &str = include_str!("../../shaders/row_scan_hooks.wgsl");
const ROW_PAIR_HOOKS: &str = include_str!("../../shaders/row_pair_hooks.wgsl");
const ROW_SORT: &str = include_str!("../../shaders/row_sort.wgsl");
const IMPORT_SORT: &str = "// import row_sort\n";
const SCAN_DOUBLING: &str = include_str!("../../shaders/scan_doubling.wgsl");
const ENDS: &str = include_str!("../../shaders/ends.wgsl");
const SUM: &str = include_str!("../../shaders/sum.wgsl");
const SPAN: &str = include_str!("../../shaders/span.wgsl");

/// How the lanes of a row combine their states.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Default)]
pub enum LaneReduce {
    /// There is one lane per row.
    Lane,
    /// Through workgroup memory.
    #[default]
    Tree,
    /// By shuffles inside a subgroup.
    Subgroup,
}

impl LaneReduce {
    /// Every way.
    pub const ALL: [LaneReduce; 3] = [LaneReduce::Lane, LaneReduce::Tree, LaneReduce::Subgroup];

    fn text(self) -> &'static str {
        match self {
            LaneReduce::Lane => include_str!("../../shaders/gather_lane.wgsl"),
            LaneReduce::Tree => include_str!("../../shaders/gather_tree.wgsl"),
            LaneReduce::Subgroup => include_str!("../../shaders/gather_subgroup.wgsl"),
        }
    }

    fn again_text(self) -> &'static str {
        match self {
            LaneReduce::Lane => include_str!("../../shaders/again_lane.wgsl"),
            LaneReduce::Tree | LaneReduce::Subgroup => include_str!("../../shaders/again_workgroup.wgsl"),
        }
    }

    fn scan_text(self) -> &'static str {
        match self {
            LaneReduce::Lane => include_str!("../../shaders/scan_lane.wgsl"),
            LaneReduce::Tree => include_str!("../../shaders/scan_tree.wgsl"),
            LaneReduce::Subgroup => include_str!("../../shaders/scan_subgroup.wgsl"),
        }
    }
}

/// What a trip of a kernel over a row does.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum TripKind {
    /// It runs a stage: reductions, and looks at elements.
    Stage,
    /// It scans along the row.
    Scan,
    /// It folds values per pair over the partners of each element.
    Pairs,
    /// It sorts the row.
    Sort,
    /// It moves the elements of the row by an order.
    Move,
    /// It runs again and again, until the thresholds of its stage are found.
    Repeat,
}

impl TripKind {
    const ALL: [TripKind; 6] =
        [TripKind::Stage, TripKind::Scan, TripKind::Pairs, TripKind::Sort, TripKind::Move, TripKind::Repeat];

    /// The name of its hooks: one that runs again is one of a stage.
    pub fn name(self) -> &'static str {
        match self {
            TripKind::Stage | TripKind::Repeat => "stage",
            TripKind::Scan => "scan",
            TripKind::Pairs => "pairs",
            TripKind::Sort => "sort",
            TripKind::Move => "move",
        }
    }

    /// The kinds that have the lines of that name in skeletons.
    fn named(name: &str) -> Vec<TripKind> {
        match name {
            "repeat" => vec![TripKind::Repeat],
            _ => TripKind::ALL.into_iter().filter(|kind| kind.name() == name).collect(),
        }
    }
}

/// A hand-written kernel with hooks.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Skeleton {
    /// `elementwise.wgsl`
    Elementwise,
    /// `row.wgsl`
    Row,
    /// `row_resident.wgsl`
    RowResident,
    /// `row_pairs.wgsl`
    RowPairs,
    /// `row_scan.wgsl`
    RowScan,
    /// `row_scan_resident.wgsl`
    RowScanResident,
    /// `row_split.wgsl`
    RowSplit,
    /// `row_states.wgsl`
    RowStates,
    /// `reduce.wgsl`
    Reduce,
    /// `broadcast_sum.wgsl`
    BroadcastSum,
    /// `narrow.wgsl`
    Narrow,
    /// `probe.wgsl`
    Probe,
    /// `stitch.wgsl`
    Stitch,
    /// `scalar.wgsl`
    Scalar,
    /// `column_sums.wgsl`
    ColumnSums,
    /// `column_finish.wgsl`
    ColumnFinish,
    /// `found.wgsl`
    Found,
    /// `row_groups.wgsl`
    RowGroups,
    /// `ragged_sums.wgsl`
    RaggedSums,
}

impl Skeleton {
    /// Every skeleton.
    pub const ALL: [Skeleton; 19] = [
        Skeleton::Elementwise,
        Skeleton::Row,
        Skeleton::RowResident,
        Skeleton::RowPairs,
        Skeleton::RowScan,
        Skeleton::RowScanResident,
        Skeleton::RowSplit,
        Skeleton::RowStates,
        Skeleton::Reduce,
        Skeleton::BroadcastSum,
        Skeleton::Narrow,
        Skeleton::Probe,
        Skeleton::Stitch,
        Skeleton::Scalar,
        Skeleton::ColumnSums,
        Skeleton::ColumnFinish,
        Skeleton::Found,
        Skeleton::RowGroups,
        Skeleton::RaggedSums,
    ];

    fn text(self) -> &'static str {
        match self {
            Skeleton::Elementwise => include_str!("../../shaders/elementwise.wgsl"),
            Skeleton::Row => include_str!("../../shaders/row.wgsl"),
            Skeleton::RowResident => include_str!("../../shaders/row_resident.wgsl"),
            Skeleton::RowPairs => include_str!("../../shaders/row_pairs.wgsl"),
            Skeleton::RowScan => include_str!("../../shaders/row_scan.wgsl"),
            Skeleton::RowScanResident => include_str!("../../shaders/row_scan_resident.wgsl"),
            Skeleton::RowSplit => include_str!("../../shaders/row_split.wgsl"),
            Skeleton::RowStates => include_str!("../../shaders/row_states.wgsl"),
            Skeleton::Reduce => include_str!("../../shaders/reduce.wgsl"),
            Skeleton::BroadcastSum => include_str!("../../shaders/broadcast_sum.wgsl"),
            Skeleton::Probe => include_str!("../../shaders/probe.wgsl"),
            Skeleton::Narrow => include_str!("../../shaders/narrow.wgsl"),
            Skeleton::Stitch => include_str!("../../shaders/stitch.wgsl"),
            Skeleton::Scalar => include_str!("../../shaders/scalar.wgsl"),
            Skeleton::ColumnSums => include_str!("../../shaders/column_sums.wgsl"),
            Skeleton::ColumnFinish => include_str!("../../shaders/column_finish.wgsl"),
            Skeleton::Found => include_str!("../../shaders/found.wgsl"),
            Skeleton::RowGroups => include_str!("../../shaders/row_groups.wgsl"),
            Skeleton::RaggedSums => include_str!("../../shaders/ragged_sums.wgsl"),
        }
    }
}

/// The shader with its stubs.
pub fn stub(skeleton: Skeleton, combine: LaneReduce) -> String {
    let index = |kind: TripKind| usize::from(kind == TripKind::Repeat);
    let of_each = TripKind::ALL.map(|kind| (kind, index(kind)));
    assemble("stub", &repeat(&import(skeleton.text(), combine), &of_each))
}

/// Fills the hooks of a skeleton, with its repeated blocks once per trip.
pub fn fill_hooks(
    title: &str,
    skeleton: Skeleton,
    trips: &[TripKind],
    combine: LaneReduce,
    hooks: &BTreeMap<String, String>,
) -> Result<String, String> {
    let trips: Vec<(TripKind, usize)> = trips.iter().copied().zip(0..).collect();
    let sorts = trips.iter().any(|(kind, _)| *kind == TripKind::Sort);
    let text = if sorts { skeleton.text().to_owned() } else { skeleton.text().replace(IMPORT_SORT, "") };
    let text = repeat(&import(&text, combine), &trips);
    fill(title, &text, hooks).map_err(|what| format!("{skeleton:?}: {what}"))
}

/// Fills the hooks of a shader without repeated blocks.
pub fn fill(title: &str, text: &str, hooks: &BTreeMap<String, String>) -> Result<String, String> {
    let text = import(text, LaneReduce::default());
    let mut filled = String::new();
    let mut used = BTreeSet::new();
    let mut inside: Option<&str> = None;
    for line in text.lines() {
        if let Some(name) = line.trim().strip_prefix("// hook begin: ") {
            let name = name.split(';').next().unwrap_or(name).trim();
            let hook = hooks.get(name).ok_or_else(|| format!("hook `{name}` is not filled"))?;
            filled.push_str(hook);
            if !hook.is_empty() && !hook.ends_with('\n') {
                filled.push('\n');
            }
            used.insert(name.to_owned());
            inside = Some(line);
        } else if line.trim() == "// hook end" {
            inside = None;
        } else if inside.is_none() {
            filled.push_str(line);
            filled.push('\n');
        }
    }
    if let Some(name) = hooks.keys().find(|name| !used.contains(*name)) {
        return Err(format!("there is no hook `{name}`"));
    }
    Ok(assemble(title, &filled))
}

fn assemble(title: &str, body: &str) -> String {
    // Only where 16-bit types are used: the smallest devices lack the functions that unpack them.
    let is_packed = ["_f16(", "_bf16(", "pack4_bf16_"].iter().any(|call| body.contains(call));
    let storage = if is_packed { STORAGE } else { "" };
    // The name of a loss may hold a line break, which would end the comment.
    let title = title.replace(|c: char| c.is_control() || matches!(c, '\u{2028}' | '\u{2029}'), " ");
    format!("// {title}\n{COMMON}\n{storage}{}\n{body}", math_for(body))
}

fn import(text: &str, combine: LaneReduce) -> String {
    let text = text.replace("// import row_hooks\n", ROW_HOOKS).replace("// import ends\n", ENDS);
    let text = text.replace("// import row_scan_hooks\n", ROW_SCAN_HOOKS).replace(IMPORT_SORT, ROW_SORT);
    let text = text.replace("// import row_pair_hooks\n", ROW_PAIR_HOOKS);
    let text =
        text.replace("// import scan\n", combine.scan_text()).replace("// import scan_doubling\n", SCAN_DOUBLING);
    let text = text.replace("// import sum\n", SUM).replace("// import span\n", SPAN);
    text.replace("// import gather\n", combine.text()).replace("// import again\n", combine.again_text())
}

/// Repeated blocks, from `// repeat begin: …` to `// repeat end`, with a trip's index instead of 0: of `stage`, `scan`, … once
/// per trip of that kind; of `trip` once per trip, with the lines below `// of stage`, `// of scan`, … A trip that runs again is
/// one of a stage, with the lines below `// of repeat` too.
fn repeat(text: &str, trips: &[(TripKind, usize)]) -> String {
    let mut out = String::new();
    // The lines of the block that each kind of trip has.
    let mut block: Option<[String; TripKind::ALL.len()]> = None;
    let mut kinds: Vec<TripKind> = Vec::new();
    let named = |name: &str| Some(TripKind::named(name)).filter(|kinds| !kinds.is_empty());
    for line in text.lines() {
        let begins = line.trim().strip_prefix("// repeat begin: ");
        let of_kind = line.trim().strip_prefix("// of ").and_then(named);
        match (line.trim(), &mut block) {
            _ if begins.is_some() => {
                kinds = begins.and_then(named).unwrap_or(TripKind::ALL.to_vec());
                block = Some(Default::default());
            }
            (_, Some(_)) if of_kind.is_some() => kinds = of_kind.unwrap_or_default(),
            ("// repeat end", Some(lines)) => {
                trips.iter().for_each(|&(kind, index)| out.push_str(&numbered(&lines[kind as usize], index)));
                block = None;
            }
            (_, Some(lines)) => {
                for kind in &kinds {
                    let of_kind = &mut lines[*kind as usize];
                    of_kind.push_str(line);
                    of_kind.push('\n');
                }
            }
            (_, None) => {
                out.push_str(line);
                out.push('\n');
            }
        }
    }
    out
}

/// A repeated block with the names of that trip.
fn numbered(lines: &str, index: usize) -> String {
    ["stage", "state", "Stage", "STAGE", "scan", "Scan", "Scanned", "SCAN", "pairs", "Pairs", "Paired", "sort", "move"]
        .into_iter()
        .fold(lines.to_owned(), |lines, name| lines.replace(&format!("{name}0"), &format!("{name}{index}")))
}

/// The functions of `math.wgsl` that the text calls, directly or not, at width 1 or (as `math_exp4`) at width 4.
fn math_for(body: &str) -> String {
    let functions = functions(MATH);
    let mut wanted: BTreeSet<(String, bool)> = BTreeSet::new();
    let mut open: Vec<String> = vec![body.to_owned()];
    while let Some(text) = open.pop() {
        for word in words(&text).filter(|w| w.starts_with("math_")) {
            for (name, source) in &functions {
                for wide in [false, true] {
                    let called = if wide { format!("{name}4") } else { (*name).to_owned() };
                    if word == called && wanted.insert(((*name).to_owned(), wide)) {
                        open.push(if wide { widen(source) } else { (*source).to_owned() });
                    }
                }
            }
        }
    }
    let mut out = String::from("alias F = f32;\nalias U = u32;\nalias I = i32;\nalias B = bool;\n");
    out.push_str("alias F4 = vec4<f32>;\nalias U4 = vec4<u32>;\nalias I4 = vec4<i32>;\nalias B4 = vec4<bool>;\n");
    for constant in MATH.lines().filter(|line| line.starts_with("const ")) {
        putln!(out, "{constant}");
    }
    for (name, source) in &functions {
        for wide in [false, true] {
            if wanted.contains(&((*name).to_owned(), wide)) {
                out.push_str(&if wide { widen(source) } else { (*source).to_owned() });
                out.push('\n');
            }
        }
    }
    out
}

/// Functions at column 0, by name, in order.
fn functions(text: &str) -> Vec<(&str, &str)> {
    let mut all = Vec::new();
    let mut rest = 0;
    while let Some(begin) = text[rest..].find("\nfn ").map(|at| rest + at + 1) {
        let end = text[begin..].find("\n}").map_or(text.len(), |at| begin + at + 3).min(text.len());
        let name = text[begin + 3..].split('(').next().unwrap_or_default();
        all.push((name, &text[begin..end]));
        rest = end - 1;
    }
    all
}

fn words(text: &str) -> impl Iterator<Item = &str> {
    text.split(|c: char| !c.is_ascii_alphanumeric() && c != '_')
}

/// The function at width 4: types F, U, I, B and `math_` names get a 4.
fn widen(source: &str) -> String {
    let mut out = String::new();
    let mut rest = source;
    while !rest.is_empty() {
        let end = rest.find(|c: char| !c.is_ascii_alphanumeric() && c != '_').unwrap_or(rest.len());
        let word = &rest[..end];
        out.push_str(word);
        if matches!(word, "F" | "U" | "I" | "B") || word.starts_with("math_") {
            out.push('4');
        }
        let next = rest[end..].chars().next();
        out.extend(next);
        rest = &rest[end + next.map_or(0, char::len_utf8)..];
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    const CAPABILITIES: naga::valid::Capabilities =
        naga::valid::Capabilities::SUBGROUP.union(naga::valid::Capabilities::SHADER_FLOAT16_IN_FLOAT32);

    pub fn validate(source: &str) -> Result<(), String> {
        let module = naga::front::wgsl::parse_str(source).map_err(|e| e.emit_to_string(source))?;
        let flags = naga::valid::ValidationFlags::all();
        let mut validator = naga::valid::Validator::new(flags, CAPABILITIES);
        validator.validate(&module).map_err(|e| e.emit_to_string(source))?;
        let entries: Vec<&str> = module.entry_points.iter().map(|e| e.name.as_str()).collect();
        (entries == ["main"]).then_some(()).ok_or_else(|| format!("entry points: {entries:?}"))
    }

    #[test]
    fn every_skeleton_is_valid_with_its_stubs() {
        for (skeleton, combine) in Skeleton::ALL.into_iter().flat_map(|s| LaneReduce::ALL.map(|c| (s, c))) {
            let source = stub(skeleton, combine);
            validate(&source).unwrap_or_else(|e| panic!("{skeleton:?}, {combine:?}: {e}"));
        }
    }

    #[test]
    fn a_hook_that_nobody_fills_is_an_error() {
        let hooks = BTreeMap::from([("bindings".to_owned(), String::new())]);
        let error = fill_hooks("t", Skeleton::Elementwise, &[], LaneReduce::Tree, &hooks).unwrap_err();
        assert!(error.contains("hook `items`"), "{error}");
        let hooks = ["constants", "seen", "odd"].map(|name| (name.to_owned(), String::new()));
        let hooks = BTreeMap::from(hooks);
        let error = fill_hooks("t", Skeleton::Narrow, &[], LaneReduce::Tree, &hooks).unwrap_err();
        assert!(error.contains("no hook `odd`"), "{error}");
    }

    #[test]
    fn math_comes_at_the_width_asked_for() {
        let source = math_for("math_exp4(x)");
        assert!(source.contains("fn math_exp4(") && !source.contains("fn math_exp("));
        assert!(!math_for("exp(x)").contains("fn math_"));
    }

    #[test]
    fn a_title_stays_in_its_comment() {
        let source = assemble("a\nb\r\u{85}c\u{2028}d", "");
        assert!(source.starts_with("// a b  c d\n"), "{source}");
    }
}
