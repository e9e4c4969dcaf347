//! What a problem is: plain data, from which both paths are set up, and which prints in a few lines.

use super::expression::{PARAMS, Tree};
use std::fmt;
use std::ops::Range;
use wgloss::Layout;
use wgloss::Pinned;
use wgloss::{ClassAxis, DType, GradMode, GroupInput, Loss, Reduction, RowAxis, Scope, Value, losses};
use wgloss::{UPSTREAM, Upstream};

/// Everything that a kernel is chosen, generated and fed by.
#[derive(Clone, Debug, PartialEq)]
pub struct Problem {
    pub terms: Vec<Term>,
    /// Name of a scalar input that scales the sum of the terms.
    pub scaled_by: Option<&'static str>,
    /// The axes that make a row, where they are not those of the definitions.
    pub rows_along: Option<RowAxis>,
    /// Whether predictions and targets may broadcast.
    pub broadcasts: bool,
    /// Shape of an element value.
    pub domain: Vec<usize>,
    pub inputs: Vec<Input>,
    pub upstream: Upstream,
    pub outputs: Outputs,
    pub group_rows: Option<u64>,
    /// Groups of unequal length, which the input [`GROUPS`] gives.
    pub unequal: Option<Unequal>,
    /// Size of the first axis in the plan, where that is more than what is bound.
    pub capacity: Option<usize>,
    pub device: Device,
    pub pinned: Pinned,
    /// Whether a loss of 0 over other shapes stands beside it, before it or after it.
    pub beside: Option<Side>,
    /// What the buffers hold, one after the other, for one bound plan.
    pub data: Vec<Data>,
}

/// What the input that gives groups of unequal length is called.
pub const GROUPS: &str = "groups";

/// Groups of unequal length.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Unequal {
    /// Whether they are given by ids; else by offsets.
    pub ids: bool,
    pub groups: usize,
}

/// Where a loss of 0 stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Side {
    Before,
    After,
}

/// One summand of the loss.
#[derive(Clone, Debug, PartialEq)]
pub struct Term {
    pub weight: f64,
    pub form: Form,
    pub reduction: Reduction,
    /// Whether it has a prediction and a target of its own, by other names than those of the other terms.
    pub renamed: bool,
}

/// What an option that is a scalar on the GPU is called as an input, before the option's name.
pub const KNOB: &str = "knob_";

/// What the inputs of a renamed term are called more.
const OWN: &str = "own_";

impl Term {
    /// The loss with the inputs of this term.
    fn renamed(&self, loss: Loss) -> Loss {
        let names: Vec<String> = loss.inputs().into_iter().map(|input| input.name).collect();
        let own = names.iter().filter(|name| self.renamed && ["input", "target"].contains(&name.as_str()));
        own.fold(loss, |loss, name| loss.rename_input(name, &format!("{OWN}{name}")))
    }

    /// The name that the loss itself declares for an input.
    pub fn declared<'n>(&self, name: &'n str) -> &'n str {
        name.strip_prefix(OWN).unwrap_or(name)
    }
}

#[derive(Clone, Debug, PartialEq)]
pub enum Form {
    Catalogue {
        name: &'static str,
        options: Vec<(String, Value)>,
    },
    /// `cols` is the number of columns that it states.
    Expression {
        tree: Tree,
        row_axis: RowAxis,
        cols: Option<usize>,
        params: [f64; 2],
    },
}

/// A tensor that the loss reads, and what becomes of its gradient.
#[derive(Clone, Debug, PartialEq)]
pub struct Input {
    pub name: String,
    pub scope: Scope,
    pub values: Values,
    pub dtype: DType,
    pub shape: Vec<usize>,
    pub home: Home,
    pub grad: Option<Grad>,
    pub hessian: bool,
}

#[derive(Clone, Debug, PartialEq)]
pub struct Grad {
    pub mode: GradMode,
    /// As the input, where nothing is said.
    pub dtype: Option<DType>,
    pub home: Home,
}

/// Which numbers an input holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Values {
    /// From −4 to 4.
    Any,
    /// The same in ascending order.
    Ascending,
    /// As `Any`; −∞ is a masked class.
    Logits,
    Probability,
    /// From −1 to 1.
    Cosine,
    LogProbability,
    /// 0 or 1.
    Binary,
    /// −1 or 1.
    Sign,
    /// From 0.1 to 4.
    Positive,
    /// 0, 1, 2, …
    Count,
    /// From 0 to 2.
    Weight,
    /// 0 or 1, mostly 1.
    Mask,
    /// From 0.25 to 2.
    Scale,
    /// From 0 to 1, and now and then one of them.
    Share,
    /// Between two numbers, no nearer than 0.1 to either.
    Between(u8, u8),
    Label,
    /// Labels of two classes.
    BinaryLabel,
    /// Boxes: two columns of least, two of largest coordinates.
    Box,
    /// Offsets or ids of groups of unequal length.
    Groups,
}

impl Values {
    /// Whether they are indices, not numbers.
    pub fn are_indices(self) -> bool {
        matches!(self, Values::Label | Values::BinaryLabel | Values::Groups)
    }
}

/// Where a tensor lies in its buffer.
#[derive(Clone, Debug, PartialEq, Eq, Default)]
pub struct Home {
    /// Elements before it.
    pub offset: usize,
    /// Elements between one index of the second innermost axis and the next.
    pub pad: usize,
    /// Elements from one to the next.
    pub step: usize,
    /// Axes in reversed order: the first is the innermost.
    pub reversed: bool,
    /// Axes whose stride is 0.
    pub repeats: Vec<bool>,
    /// All strides 1, so that elements overlap: no output may be there.
    pub sliding: bool,
    /// In the buffer that several tensors share.
    pub pooled: bool,
    /// Bytes of the buffer behind it.
    pub behind: usize,
}

#[derive(Clone, Debug, PartialEq, Eq, Default)]
pub struct Outputs {
    pub loss: bool,
    pub denominator: bool,
    pub extras: Vec<String>,
    pub accumulate_loss: bool,
    /// Whether forward and backward are encoded apart.
    pub separate: bool,
    /// Whether it is asked for if a stored gradient is not finite.
    pub found_inf: bool,
    /// Where the loss goes; to a tensor that the plan makes, if nothing is said.
    pub loss_home: Option<Home>,
}

/// Which limits the device has.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Device {
    /// All that the adapter has.
    Adapter,
    /// What every WebGPU device has.
    WebGpu,
    /// The same with bindings of 64 KiB.
    Small,
}

/// What is special about the numbers.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Flavour {
    Plain,
    /// Few different numbers.
    Ties,
    /// Logits with a large number in common, and confident rows.
    Offset,
    /// A NaN or two.
    Nan,
    /// Logits of −∞.
    MinusInfinity,
    /// A label out of range.
    BadLabel,
    /// An offset or id of groups that is not allowed.
    BadGroup,
    /// All labels ignored, weights and masks 0.
    Nothing,
}

pub const FLAVOURS: [Flavour; 8] = [
    Flavour::Plain,
    Flavour::Ties,
    Flavour::Offset,
    Flavour::Nan,
    Flavour::MinusInfinity,
    Flavour::BadLabel,
    Flavour::BadGroup,
    Flavour::Nothing,
];

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Data {
    pub flavour: Flavour,
    pub seed: u64,
}

impl Home {
    /// Strides of a tensor of that shape.
    pub fn layout(&self, shape: &[usize]) -> Layout {
        let mut strides = vec![usize::from(self.sliding); shape.len()];
        if self.sliding {
            return Layout { shape: shape.to_vec(), strides };
        }
        let axes: Vec<usize> =
            if self.reversed { (0..shape.len()).collect() } else { (0..shape.len()).rev().collect() };
        let mut step = self.step.max(1);
        for (place, &axis) in axes.iter().enumerate() {
            if self.repeats.get(axis).copied().unwrap_or(false) {
                continue;
            }
            strides[axis] = step;
            step *= shape[axis];
            if place == 0 {
                step += self.pad;
            }
        }
        Layout { shape: shape.to_vec(), strides }
    }

    pub fn is_plain(&self) -> bool {
        let Home { offset, pad, step, reversed, repeats, sliding, pooled, .. } = self;
        let straight = !reversed && !repeats.contains(&true) && !sliding;
        *offset == 0 && *pad == 0 && *step <= 1 && straight && !pooled
    }
}

impl Input {
    /// The shape beside values of that shape: without a last axis of size 1 that these do not have.
    pub fn shape_beside(&self, full: &[usize]) -> &[usize] {
        if self.shape.len() > full.len() { &self.shape[..full.len()] } else { &self.shape }
    }
}

impl Form {
    pub fn name(&self) -> &str {
        match self {
            Form::Catalogue { name, .. } => name,
            Form::Expression { .. } => "expression",
        }
    }

    pub fn loss(&self) -> Loss {
        match self {
            Form::Catalogue { name, options } => {
                let loss = losses::by_name(name).expect("a loss of the catalogue");
                options.iter().fold(loss, |loss, (option, value)| loss.option(option, value.clone()))
            }
            Form::Expression { tree, row_axis, cols, params } => tree.loss("expression", *row_axis, *cols, *params),
        }
    }
}

impl Problem {
    /// The loss of a term, as the problem lays it out.
    pub fn loss_of(&self, term: &Term) -> Loss {
        let loss = term.renamed(term.form.loss().broadcast(self.broadcasts));
        match (self.rows_along, loss.rows_along()) {
            (Some(RowAxis::Last), RowAxis::Class) => loss.class_axis(ClassAxis::Last),
            (Some(axis), RowAxis::Class | RowAxis::Last) => loss.row_axis(axis),
            _ => loss,
        }
    }

    pub fn loss(&self) -> Loss {
        let each = self.terms.iter().map(|term| {
            let loss = self.loss_of(term).reduction(term.reduction.clone());
            if term.weight == 1.0 { loss } else { term.weight * loss }
        });
        let loss = each.reduce(|a, b| a + b).expect("a loss has at least one term");
        match self.scaled_by {
            Some(name) => loss.scaled_by(name),
            None => loss,
        }
    }

    /// The side of a loss of 0 over other shapes, where the problem is one number in one phase with a schedule of its own.
    pub fn beside(&self) -> Option<Side> {
        let reduced = self.terms.iter().all(|term| term.reduction != Reduction::None);
        let whole = !self.outputs.separate && self.upstream != Upstream::PerLoss && self.group_rows.is_none();
        let whole = whole && self.unequal.is_none();
        // The denominator is the first loss's.
        let fits = |side: &Side| *side == Side::After || !self.outputs.denominator;
        self.beside.filter(|side| reduced && whole && self.pinned == Pinned::default() && fits(side))
    }

    pub fn is_catalogue(&self) -> bool {
        self.terms.iter().all(|term| matches!(term.form, Form::Catalogue { .. }))
    }

    /// The input that gives groups of unequal length to a loss of these values, if it has values of groups.
    pub fn groups_of(&self, tree: &Tree) -> Option<GroupInput> {
        self.groups().filter(|_| tree.has_groups())
    }

    /// The input that gives groups of unequal length.
    pub fn groups(&self) -> Option<GroupInput> {
        self.unequal.map(|Unequal { ids, groups }| match ids {
            true => GroupInput::ids(GROUPS, groups as u64),
            false => GroupInput::offsets(GROUPS),
        })
    }

    pub fn input(&self, name: &str) -> Option<&Input> {
        self.inputs.iter().find(|input| input.name == name)
    }

    pub fn grads(&self) -> Vec<String> {
        self.inputs.iter().filter(|i| i.grad.is_some()).map(|i| i.name.clone()).collect()
    }

    /// The axes of an element value that make a row.
    pub fn columns(&self) -> Option<Range<usize>> {
        self.loss().rows_along().columns(self.domain.len())
    }

    /// Shape of a value of that scope.
    pub fn shape_of(&self, scope: Scope) -> Vec<usize> {
        match scope {
            Scope::Element => self.domain.clone(),
            Scope::Row => {
                let mut shape = self.domain.clone();
                shape.drain(self.columns().unwrap_or_default());
                shape
            }
            Scope::Column => vec![self.columns().map_or(1, |columns| self.domain[columns].iter().product())],
            Scope::Group if self.unequal.is_some() => vec![self.unequal.map_or(0, |unequal| unequal.groups)],
            Scope::Group => {
                let (rows, _) = self.rows_cols();
                let first = self.shape_of(Scope::Row).first().copied().unwrap_or(1);
                let by_batch = (rows / first.max(1)).max(1);
                // A number of rows that makes no whole groups is refused, whatever the shape.
                let own = self.group_rows.map(|own| own as usize).filter(|own| *own > 0 && rows.is_multiple_of(*own));
                vec![rows / own.unwrap_or(by_batch)]
            }
            Scope::GroupColumn => [self.shape_of(Scope::Group), self.shape_of(Scope::Column)].concat(),
            _ => Vec::new(),
        }
    }

    pub fn rows_cols(&self) -> (usize, usize) {
        let all: usize = self.domain.iter().product();
        match self.columns() {
            Some(columns) => {
                let cols: usize = self.domain[columns].iter().product();
                (all / cols.max(1), cols)
            }
            None => (1, all),
        }
    }
}

fn home_text(home: &Home) -> String {
    let mut words = Vec::new();
    let mut word = |is: bool, text: String| words.extend(is.then_some(text));
    word(home.offset > 0, format!("offset {}", home.offset));
    word(home.pad > 0, format!("pad {}", home.pad));
    word(home.step > 1, format!("every {}", home.step));
    word(home.reversed, "axes reversed".to_owned());
    word(home.repeats.contains(&true), format!("repeats {:?}", home.repeats));
    word(home.sliding, "all strides 1".to_owned());
    word(home.pooled, "pooled".to_owned());
    if words.is_empty() { String::new() } else { format!(" ({})", words.join(", ")) }
}

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let terms = self.terms.iter().map(|term| {
            let weight = if term.weight == 1.0 { String::new() } else { format!("{} * ", term.weight) };
            let form = match &term.form {
                Form::Catalogue { name, options } => {
                    let options = options.iter().map(|(name, value)| format!(".option({name:?}, {value:?})"));
                    format!("{name}(){}", options.collect::<String>())
                }
                Form::Expression { tree, row_axis, cols, params } => {
                    let read = |name: &&str| tree.has(|t| matches!(t, Tree::Param(p) if p == name));
                    let params = PARAMS.iter().zip(params).filter(|(name, _)| read(name));
                    let params = params.map(|(name, value)| format!(", {name} = {value}")).collect::<String>();
                    let cols = cols.map_or(String::new(), |cols| format!(", {cols} columns"));
                    format!("[{tree}] (row axis {row_axis:?}{cols}{params})")
                }
            };
            let own = if term.renamed { ", of inputs of its own" } else { "" };
            format!("{weight}{form} reduced by {:?}{own}", term.reduction)
        });
        write!(f, "  loss: {}", terms.collect::<Vec<_>>().join("\n      + "))?;
        if let Some(name) = self.scaled_by {
            write!(f, ", scaled by {name}")?;
        }
        if let Some(axis) = self.rows_along {
            write!(f, ", rows along {axis}")?;
        }
        if self.broadcasts {
            f.write_str(", broadcasting")?;
        }
        for input in &self.inputs {
            let Input { name, values, dtype, shape, .. } = input;
            write!(f, "\n  {name}: {dtype} {shape:?} {values:?}{}", home_text(&input.home))?;
            if let Some(grad) = &input.grad {
                let dtype = grad.dtype.map_or(String::new(), |dtype| format!(" as {dtype}"));
                write!(f, "; gradient {:?}{dtype}{}", grad.mode, home_text(&grad.home))?;
            }
            if input.hessian {
                f.write_str("; Hessian diagonal")?;
            }
        }
        let outputs = &self.outputs;
        let mut how = vec![format!("limits {:?}", self.device)];
        let mut word = |is: bool, text: String| how.extend(is.then_some(text));
        if let Some(side) = self.beside() {
            word(true, format!("a loss of 0 {side:?}"));
        }
        word(self.upstream != Upstream::One, format!("{UPSTREAM} {:?}", self.upstream));
        word(!outputs.loss, "without_loss".to_owned());
        word(outputs.denominator, "denominator".to_owned());
        word(!outputs.extras.is_empty(), format!("extras {:?}", outputs.extras));
        word(outputs.accumulate_loss, "accumulate_loss".to_owned());
        word(outputs.separate, "separate_backward".to_owned());
        word(outputs.found_inf, "found_inf".to_owned());
        if let Some(home) = &outputs.loss_home {
            word(true, format!("loss bound{}", home_text(home)));
        }
        word(self.group_rows.is_some(), format!("group_rows {}", self.group_rows.unwrap_or(0)));
        if let Some(Unequal { ids, groups }) = self.unequal {
            word(true, format!("{groups} groups by {}", if ids { "ids" } else { "offsets" }));
        }
        word(self.capacity.is_some(), format!("planned for {} along axis 0", self.capacity.unwrap_or(0)));
        if self.pinned != Pinned::default() {
            word(true, format!("{:?}", self.pinned));
        }
        write!(f, "\n  {}", how.join("; "))?;
        let data = self.data.iter().map(|data| format!("{:?}/{:x}", data.flavour, data.seed & 0xffff));
        write!(f, "\n  data: {}", data.collect::<Vec<_>>().join(", "))
    }
}
