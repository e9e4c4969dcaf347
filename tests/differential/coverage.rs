//! What was covered, counted, so that a hole shows.

use super::expression::{Fold, Index, Part, Test, Tree};
use super::problem::{Data, Device, FLAVOURS, Form, Problem};
use super::reference::Outcome;
use super::run::Verdict;
use std::collections::BTreeMap;
use std::fmt::{self, Write};
use wgloss::Pinned;
use wgloss::Upstream;
use wgloss::internals::expr::op::Op;
use wgloss::{DType, GradMode, Reduction, RowAxis, Scope, Value, losses};

/// Counts by kind and name.
#[derive(Clone, Debug, Default)]
pub struct Coverage {
    counts: BTreeMap<&'static str, BTreeMap<String, usize>>,
}

impl Coverage {
    fn add(&mut self, kind: &'static str, name: impl Into<String>) {
        *self.counts.entry(kind).or_default().entry(name.into()).or_default() += 1;
    }

    /// Names that ought to be there.
    fn expect(&mut self, kind: &'static str, names: impl IntoIterator<Item = String>) {
        for name in names {
            self.counts.entry(kind).or_default().entry(name).or_default();
        }
    }

    pub fn merge(&mut self, other: &Coverage) {
        for (kind, counts) in &other.counts {
            for (name, count) in counts {
                *self.counts.entry(kind).or_default().entry(name.clone()).or_default() += count;
            }
        }
    }

    pub fn count_verdict(&mut self, verdict: &Verdict) {
        match verdict {
            Verdict::Agreed => self.add("problems", "agreed"),
            Verdict::Refused(why) => {
                self.add("problems", "refused by both");
                self.add("refused by both", why);
            }
            Verdict::Skipped(why) => {
                self.add("problems", "skipped");
                self.add("skipped", why);
            }
            Verdict::Failed(_) => self.add("problems", "failed"),
        }
    }

    /// Data that agreed.
    pub fn count_data(&mut self, data: Data, beyond_contract: bool, outcome: &Outcome) {
        self.add("data", format!("{:?}", data.flavour));
        if beyond_contract {
            self.add("bounds", "by evidence");
        } else {
            self.add("bounds", "by contract");
        }
        if outcome.bad_label.is_some() {
            self.add("data", "status: bad label");
        }
        if outcome.bad_group.is_some() {
            self.add("data", "status: bad group");
        }
    }

    /// An expression that the f64 path has right.
    pub fn count_oracle(&mut self) {
        self.add("bounds", "f64 path by the book");
    }

    /// A problem that both paths take.
    pub fn count_session(&mut self, problem: &Problem, explain: &str, kernels: &[String]) {
        for term in &problem.terms {
            self.add("losses", term.form.name());
            self.add("reductions", reduction(&term.reduction));
            match &term.form {
                Form::Catalogue { options, .. } => {
                    for (name, value) in options {
                        self.add("options", name);
                        if matches!(value, Value::Scalar(_)) {
                            self.add("options", "on the GPU");
                        }
                    }
                }
                Form::Expression { tree, row_axis, cols, .. } => {
                    if cols.is_some() {
                        self.add("layouts", "stated columns");
                    }
                    self.add("row axis of expressions", kind_of_axis(*row_axis));
                    self.count_tree(tree);
                }
            }
        }
        if problem.terms.len() > 1 {
            self.add("losses", "several terms");
        }
        if problem.terms.iter().any(|term| term.renamed) {
            self.add("losses", "renamed inputs");
        }
        if problem.beside().is_some() {
            self.add("losses", "beside another");
        }
        if problem.scaled_by.is_some() {
            self.add("losses", "scaled_by");
        }
        if problem.broadcasts {
            self.add("layouts", "broadcast allowed");
        }
        if let Some(axis) = problem.rows_along {
            self.add("layouts", format!("rows along {}", kind_of_axis(axis)));
        }
        let whole = problem.domain.clone();
        for input in &problem.inputs {
            self.add("input dtypes", input.dtype.to_string());
            let home = &input.home;
            let mut layout = |is: bool, what: &str| {
                if is {
                    self.add("layouts", what);
                }
            };
            layout(home.offset > 0, "offset");
            layout(home.pad > 0, "padded");
            layout(home.step > 1, "every second");
            layout(home.reversed, "axes reversed");
            layout(home.repeats.contains(&true), "stride 0");
            layout(home.pooled, "pooled");
            layout(home.is_plain(), "contiguous");
            layout(input.scope == Scope::Element && input.shape_beside(&whole) != whole, "broadcast elements");
            layout(
                input.scope == Scope::Element && input.shape.len() > whole.len(),
                "elements with a last axis of size 1",
            );
            let rows = problem.shape_of(Scope::Row);
            layout(input.scope == Scope::Row && input.shape_beside(&rows) != rows, "broadcast rows");
            layout(input.scope == Scope::Row && input.shape.len() > rows.len(), "rows with a last axis of size 1");
            for name in ["sample_weight", "mask", "weight", "pos_weight", "alpha"] {
                if input.name == name {
                    self.add("optional inputs", name);
                }
            }
            if let Some(grad) = &input.grad {
                self.add("gradients", format!("{:?}", grad.mode));
                self.add("gradients", format!("of {:?}", input.scope));
                self.add("gradient dtypes", problem.grad_dtype(&input.name).to_string());
            }
            if input.hessian {
                self.add("outputs", "Hessian diagonal");
            }
        }
        let outputs = &problem.outputs;
        let fused = !outputs.separate && outputs.loss && problem.inputs.iter().any(|input| input.grad.is_some());
        let mut flag = |is: bool, what: &str| {
            if is {
                self.add("outputs", what);
            }
        };
        flag(fused, "fused");
        flag(outputs.separate, "separate backward");
        flag(outputs.found_inf, "found_inf");
        flag(!outputs.loss, "without loss");
        flag(!problem.inputs.iter().any(|input| input.grad.is_some()), "loss alone");
        flag(outputs.denominator, "denominator");
        flag(outputs.accumulate_loss, "accumulated loss");
        flag(problem.capacity.is_some(), "fewer rows than planned");
        flag(problem.group_rows.is_some(), "group_rows");
        flag(problem.unequal.is_some_and(|unequal| unequal.ids), "group_ids");
        flag(problem.unequal.is_some_and(|unequal| !unequal.ids), "group_offsets");
        for name in &outputs.extras {
            self.add("outputs", format!("extra {name}"));
        }
        self.add("upstream", format!("{:?}", problem.upstream));
        self.add("devices", format!("{:?}", problem.device));
        let (rows, cols) = problem.rows_cols();
        self.add("rows", size(rows));
        self.add("columns", size(cols));
        self.count_force(problem.pinned);
        self.count_schedules(explain, kernels);
    }

    fn count_force(&mut self, pinned: Pinned) {
        let mut forced = |is: bool, what: String| {
            if is {
                self.add("forced", what);
            }
        };
        forced(pinned == Pinned::default(), "nothing".to_owned());
        forced(pinned.kernel.is_some(), format!("{:?}", pinned.kernel));
        forced(pinned.workgroup.is_some(), "workgroup".to_owned());
        forced(pinned.lanes.is_some(), "lanes".to_owned());
        forced(pinned.width.is_some(), format!("width {:?}", pinned.width));
        forced(pinned.subgroups.is_some(), format!("subgroups {:?}", pinned.subgroups));
        forced(pinned.carries_nan.is_some(), "NaN by sums".to_owned());
        forced(pinned.exp2.is_some(), "exp2".to_owned());
    }

    fn count_schedules(&mut self, explain: &str, kernels: &[String]) {
        for kernel in ["element-wise", "streamed rows", "resident rows", "rows split", "width 1", "width 4", "width 8"]
        {
            let found = explain.matches(kernel).count();
            for _ in 0..found {
                self.add("schedules", kernel);
            }
        }
        for (word, name) in [("subgroups of", "subgroups"), (" chunks", "several chunks")] {
            if explain.contains(word) {
                self.add("schedules", name);
            }
        }
        let others = [
            ("sums of pass", "reduce"),
            ("words that rows share", "stitch"),
            ("gradient narrowed", "narrow"),
            ("summed over broadcast", "broadcast sum"),
        ];
        for (word, name) in others {
            if kernels.iter().any(|title| title.contains(word)) {
                self.add("schedules", name);
            }
        }
    }

    fn count_tree(&mut self, tree: &Tree) {
        tree.visit(&mut |part| match part {
            Part::Tree(tree) => {
                match tree {
                    Tree::Op(op, _) => self.add("operations", format!("{op:?}")),
                    Tree::Clamp(..) => self.add("operations", "clamp"),
                    Tree::Powi(..) => self.add("operations", "powi"),
                    Tree::Select(..) => self.add("operations", "Select"),
                    Tree::Masked(..) => self.add("operations", "masked"),
                    Tree::Truth(_) => self.add("operations", "ToFloat"),
                    Tree::Fold(fold, _) => self.add("operations", format!("row {fold:?}")),
                    Tree::Softmax(_) => self.add("operations", "softmax"),
                    Tree::LogSoftmax(_) => self.add("operations", "log_softmax"),
                    Tree::Scan(scan, along, _) => self.add("operations", format!("scan {scan:?} {along:?}")),
                    Tree::Pairs(pairs, _) => self.add("operations", format!("pairs {pairs:?}")),
                    Tree::Sorted(order, back, ..) => {
                        self.add("operations", format!("sort {order:?}{}", if *back { " back" } else { "" }))
                    }
                    Tree::At(Index::Label, _) => self.add("operations", "at(label)"),
                    Tree::At(Index::ArgMax(_), _) => self.add("operations", "at(argmax)"),
                    Tree::At(Index::Fixed(_), _) => self.add("operations", "at(index)"),
                    Tree::SumOver(scope, _) => self.add("operations", format!("sum_over({scope:?})")),
                    Tree::LogSumExpOver(scope, _) => self.add("operations", format!("logsumexp_over({scope:?})")),
                    Tree::Detach(_) => self.add("operations", "detach"),
                    Tree::StraightThrough(..) => self.add("operations", "straight_through"),
                    Tree::WithGradient(..) => self.add("operations", "with_gradient"),
                    Tree::At(Index::Row, _) => self.add("operations", "at(row_index)"),
                    Tree::Col => self.add("operations", "col_index"),
                    Tree::GroupRows => self.add("operations", "rows of the group"),
                    Tree::Row => self.add("operations", "row_index"),
                    Tree::Input(_) | Tree::Const(_) | Tree::Param(_) | Tree::Count(_) => {}
                }
                self.add("scopes", format!("{:?}", tree.scope()));
            }
            Part::Test(test) => match test {
                Test::Compare(op, ..) => self.add("operations", format!("{op:?}")),
                Test::Not(_) => self.add("operations", "Not"),
                Test::And(..) => self.add("operations", "And"),
                Test::Or(..) => self.add("operations", "Or"),
                Test::ColIs(_) => self.add("operations", "column is"),
                Test::ColBelow(_) => self.add("operations", "column below"),
                Test::LabelIs(_) => self.add("operations", "label_is"),
                Test::LabelBelow(_) => self.add("operations", "label below"),
                Test::ClassIs(_, true) => self.add("operations", "class in range"),
                Test::ClassIs(_, false) => self.add("operations", "class of an element"),
            },
            Part::Index(_) => {}
        });
    }

    /// The table, with what was never met.
    pub fn table(mut self) -> String {
        self.expect("losses", losses::CATALOGUE.iter().map(|entry| entry.name.to_owned()));
        self.expect("operations", Op::ALL.iter().map(|op| format!("{op:?}")));
        let thresholds = [Fold::Sparsemax, Fold::Entmax15, Fold::TopK(1), Fold::TopK(2)];
        self.expect("operations", thresholds.iter().map(|fold| format!("row {fold:?}")));
        let folds = [Fold::Sum, Fold::Mean, Fold::Max, Fold::Min, Fold::ArgMax, Fold::LogSumExp];
        self.expect("operations", folds.iter().map(|fold| format!("row {fold:?}")));
        let rest = [
            "clamp",
            "powi",
            "masked",
            "softmax",
            "at(label)",
            "at(argmax)",
            "logsumexp_over(Group)",
            "logsumexp_over(Column)",
            "logsumexp_over(GroupColumn)",
            "logsumexp_over(Total)",
            "sum_over(Group)",
            "sum_over(Column)",
            "sum_over(GroupColumn)",
            "sum_over(Total)",
            "col_index",
            "rows of the group",
            "row_index",
            "column below",
            "label below",
            "at(row_index)",
            "class in range",
            "class of an element",
        ];
        self.expect("operations", rest.iter().map(|name| (*name).to_owned()));
        use Scope::{Column, Element, Group, GroupColumn, Param, Row, Scalar, Total};
        self.expect(
            "scopes",
            [Param, Scalar, Total, Group, Row, Column, GroupColumn, Element].map(|s| format!("{s:?}")),
        );
        self.expect("input dtypes", DTYPES.map(|dtype| dtype.to_string()));
        self.expect("gradient dtypes", DTYPES[..3].iter().map(ToString::to_string));
        let modes = [GradMode::Write, GradMode::InPlace, GradMode::Accumulate];
        self.expect("gradients", modes.map(|mode| format!("{mode:?}")));
        self.expect("gradients", [Scalar, Row, Column, Element].map(|scope| format!("of {scope:?}")));
        self.expect("upstream", [Upstream::One, Upstream::Scalar, Upstream::PerLoss].map(|u| format!("{u:?}")));
        self.expect("devices", [Device::Adapter, Device::WebGpu, Device::Small].map(|d| format!("{d:?}")));
        self.expect("data", FLAVOURS.map(|flavour| format!("{flavour:?}")));
        self.expect("row axis of expressions", ["None", "Last", "Class", "At", "From"].map(str::to_owned));
        self.expect("layouts", ["stated columns".to_owned()]);
        self.expect("layouts", ["Last", "At", "From"].map(|axis| format!("rows along {axis}")));
        self.expect("rows", ["0".to_owned()]);
        self.expect("outputs", ["group_offsets", "group_ids"].map(str::to_owned));
        self.expect("reductions", REDUCTIONS.iter().map(|name| (*name).to_owned()));
        let schedules = ["element-wise", "streamed rows", "resident rows", "rows split", "several chunks", "stitch"];
        self.expect("schedules", schedules.map(str::to_owned));
        self.to_string()
    }
}

const DTYPES: [DType; 5] = [DType::F32, DType::F16, DType::BF16, DType::I32, DType::U32];
const REDUCTIONS: [&str; 8] =
    ["None", "Sum", "Mean", "MeanOrZero", "BatchMean", "MeanWithSampleWeight", "MeanOverPositive", "By"];

/// A row axis without its index.
fn kind_of_axis(axis: RowAxis) -> String {
    format!("{axis:?}").split('(').next().unwrap_or("").to_owned()
}

fn reduction(reduction: &Reduction) -> String {
    format!("{reduction:?}").split('(').next().unwrap_or("").to_owned()
}

fn size(n: usize) -> &'static str {
    match n {
        0 => "0",
        1 => "1",
        2..=4 => "2-4",
        5..=16 => "5-16",
        17..=64 => "17-64",
        65..=254 => "65-254",
        255..=257 => "255-257",
        258..=1031 => "258-1031",
        _ => "more",
    }
}

impl fmt::Display for Coverage {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (kind, counts) in &self.counts {
            let mut line = format!("{kind:<24}");
            let mut width = line.len();
            for (name, count) in counts {
                let word = if *count == 0 { format!("{name} NEVER") } else { format!("{name} {count}") };
                if width + word.len() > 118 {
                    write!(line, "\n{:<24}", "")?;
                    width = 24;
                }
                width += word.len() + 2;
                write!(line, "{word}, ")?;
            }
            writeln!(f, "{}", line.trim_end_matches(", "))?;
        }
        Ok(())
    }
}
