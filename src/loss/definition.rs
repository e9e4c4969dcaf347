//! A loss without values for its options: its declarations, and the expression that it builds.

use super::build::{Build, Unreduced};
use super::declaration::{Domain, InputSpec, OptionDecl, SHAPE_OPTIONS, Value, check_option};
use super::given::MASK;
use crate::error::{Error, Result};
use crate::expr::Expr;
use crate::expr::op::Kind;
use crate::shape::{RowAxis, Scope, ShapeRule};

pub(super) type BuildFn = dyn for<'g> Fn(&Build<'g>) -> Unreduced<'g> + Send + Sync;
pub(super) type ExtraFn = dyn for<'g> Fn(&Build<'g>) -> Expr<'g> + Send + Sync;

/// A loss without the values of its options.
pub struct Definition {
    pub(super) name: String,
    pub(super) row_axis: RowAxis,
    /// The option by which rows lie along other axes, and the axes where it is false and true.
    pub(super) row_axes: Option<(String, [RowAxis; 2])>,
    /// The number of columns that it takes; `None` for any.
    pub(super) cols: Option<u64>,
    pub(super) inputs: Vec<InputSpec>,
    pub(super) options: Vec<OptionDecl>,
    pub(super) extras: Vec<(String, Box<ExtraFn>)>,
    /// The first input with a rule that was not declared before.
    undeclared: Option<String>,
    /// What is added to the reduced loss.
    pub(super) of_batch: Option<Box<ExtraFn>>,
    pub(super) build: Box<BuildFn>,
}

impl Definition {
    /// Scope of the mask that it declares.
    pub(super) fn mask(&self) -> Option<Scope> {
        self.inputs.iter().find(|input| input.name == MASK).map(|input| input.scope)
    }

    /// An error for a name declared twice, an input of scope `Param`, or a default outside its domain.
    pub(super) fn check(&self) -> Result<()> {
        let Definition { name: loss, inputs, options, .. } = self;
        let fault = |message: String| Err(Error::Expr { loss: loss.clone(), message });
        for (index, input) in inputs.iter().enumerate() {
            if inputs[..index].iter().any(|i| i.name == input.name) {
                return fault(format!("declares the input `{}` twice", input.name));
            }
            if input.kind == Kind::Int && !matches!(input.scope, Scope::Row | Scope::Element) {
                return fault(format!(
                    "declares the labels `{}` with scope {:?}: rows and elements have labels",
                    input.name, input.scope
                ));
            }
            if input.scope == Scope::Pair {
                return fault(format!(
                    "declares the input `{}` with scope Pair: no tensor has a value per pair; `partner` makes them",
                    input.name
                ));
            }
            if input.scope == Scope::Param {
                return fault(format!(
                    "declares the input `{}` with scope Param: a parameter is an option",
                    input.name
                ));
            }
        }
        match self.cols {
            Some(0) => return fault("states 0 columns; a row has at least one".to_owned()),
            Some(_) if self.row_axis == RowAxis::None => {
                return fault(
                    "states a number of columns without rows: say which axis makes them with `row_axis`".into(),
                );
            }
            _ => {}
        }
        if let Some(input) = &self.undeclared {
            return fault(format!("gives a shape rule to the input `{input}`, which it does not declare before"));
        }
        for (index, option) in options.iter().enumerate() {
            if options[..index].iter().any(|o| o.name == option.name) {
                return fault(format!("declares the option `{}` twice", option.name));
            }
            if SHAPE_OPTIONS.contains(&option.name.as_str()) {
                return fault(format!("declares the option `{}`, which losses have by themselves", option.name));
            }
            check_option(loss, option, &option.default)?;
        }
        Ok(())
    }
}

/// Writes a [`Definition`]: see [`Loss::define`](super::Loss::define).
pub struct DefinitionBuilder {
    name: String,
    row_axis: RowAxis,
    row_axes: Option<(String, [RowAxis; 2])>,
    cols: Option<u64>,
    inputs: Vec<InputSpec>,
    options: Vec<OptionDecl>,
    extras: Vec<(String, Box<ExtraFn>)>,
    /// The first input with a rule that was not declared before.
    undeclared: Option<String>,
    of_batch: Option<Box<ExtraFn>>,
}

impl DefinitionBuilder {
    pub(super) fn new(name: &str) -> DefinitionBuilder {
        DefinitionBuilder {
            name: name.to_owned(),
            row_axis: RowAxis::None,
            row_axes: None,
            cols: None,
            inputs: Vec::new(),
            options: Vec::new(),
            extras: Vec::new(),
            undeclared: None,
            of_batch: None,
        }
    }

    fn with_input(mut self, input: InputSpec) -> Self {
        self.inputs.push(input);
        self
    }

    /// An input of numbers. Inputs of one value per element have one shape, and those of one value per row that of the
    /// rows ([`ShapeRule::Same`]), unless [`DefinitionBuilder::shape_rule`] says otherwise.
    pub fn input(self, name: &str, scope: Scope) -> Self {
        self.with_input(InputSpec::required(name, scope, Kind::Float))
    }

    /// An input of numbers that may be absent. It broadcasts ([`ShapeRule::Broadcast`]), unless
    /// [`DefinitionBuilder::shape_rule`] says otherwise.
    pub fn optional(self, name: &str, scope: Scope) -> Self {
        self.with_input(InputSpec::optional(name, scope))
    }

    /// One class index per row.
    pub fn label(self, name: &str) -> Self {
        self.with_input(InputSpec::required(name, Scope::Row, Kind::Int))
    }

    /// Class indices, one per value of that scope: of each element, say. [`Expr::in_range`] checks them; they compare with
    /// others and with columns. A label of a row that gathers is checked by that ([`DefinitionBuilder::label`]).
    pub fn labels(self, name: &str, scope: Scope) -> Self {
        self.with_input(InputSpec::required(name, scope, Kind::Int))
    }

    /// Integers that may be absent, one per value of that scope: lengths, say. They broadcast ([`ShapeRule::Broadcast`]),
    /// unless [`DefinitionBuilder::shape_rule`] says otherwise.
    pub fn optional_labels(self, name: &str, scope: Scope) -> Self {
        self.with_input(InputSpec { kind: Kind::Int, ..InputSpec::optional(name, scope) })
    }

    /// The shapes that a declared input may have beside the others: see [`ShapeRule`]. A name that is not declared comes
    /// back as an error when the loss is planned.
    pub fn shape_rule(mut self, input: &str, rule: ShapeRule) -> Self {
        match self.inputs.iter_mut().find(|known| known.name == input) {
            Some(known) => known.shape_rule = rule,
            None => drop(self.undeclared.get_or_insert(input.to_owned())),
        }
        self
    }

    /// Which axes make a row, unless [`Loss::row_axis`](super::Loss::row_axis) sets others. Needed for row reductions.
    pub fn row_axis(mut self, row_axis: RowAxis) -> Self {
        self.row_axis = row_axis;
        self
    }

    /// A flag by which rows lie along one or the other axes, of false and of true: per image, or of the whole batch.
    ///
    /// ```
    /// use wgloss::{HostTensor, Loss, Reduction, RowAxis, Scope, cpu};
    /// let loss = Loss::define("largest").input("x", Scope::Element);
    /// let loss = loss.row_axis_by("per_image", true, [RowAxis::From(0), RowAxis::From(1)]).expr(|b| b.input("x").max());
    /// let of = |per_image: bool| {
    ///     let x = HostTensor::f32(&[1.0, 2.0, 4.0, 3.0], &[2, 2]);
    ///     let loss = loss.clone().option("per_image", per_image).reduction(Reduction::Sum);
    ///     cpu::forward_backward(&loss, &[("x", x)], &[])?.loss()
    /// };
    /// assert_eq!((of(true)?, of(false)?), (2.0 + 4.0, 4.0));
    /// # Ok::<(), wgloss::Error>(())
    /// ```
    pub fn row_axis_by(mut self, option: &str, default: bool, axes: [RowAxis; 2]) -> Self {
        self.row_axes = Some((option.to_owned(), axes));
        self.row_axis(axes[usize::from(default)]).flag(option, default)
    }

    /// The number of columns of every row, of a formula that tells them apart ([`Expr::column`]): the four numbers of a
    /// box. Tensors with other rows are an [`Error::Shape`] of the plan, or of the call on the CPU.
    ///
    /// ```
    /// use wgloss::{Error, Expr, HostTensor, Loss, RowAxis, Scope, cpu};
    /// fn area(x: Expr<'_>) -> Expr<'_> {
    ///     (x.column(2) - x.column(0)) * (x.column(3) - x.column(1))
    /// }
    /// // 1 − IoU of boxes (left, top, right, bottom).
    /// let iou = Loss::define("iou").input("a", Scope::Element).input("b", Scope::Element);
    /// let iou = iou.row_axis(RowAxis::Last).cols(4).expr(|boxes| {
    ///     let (a, b) = (boxes.input("a"), boxes.input("b"));
    ///     let side = |low: usize| {
    ///         let (from, to) = (a.column(low).maximum(b.column(low)), a.column(low + 2).minimum(b.column(low + 2)));
    ///         (to - from).relu()
    ///     };
    ///     let both = side(0) * side(1);
    ///     1.0 - both / (area(a) + area(b) - both)
    /// });
    /// let (a, b) = (HostTensor::f32(&[0.0, 0.0, 2.0, 1.0], &[1, 4]), HostTensor::f32(&[1.0, 0.0, 3.0, 1.0], &[1, 4]));
    /// let out = cpu::forward_backward(&iou, &[("a", a), ("b", b)], &["a"])?;
    /// assert!((out.loss()? - 2.0 / 3.0).abs() < 1e-12);
    /// let (a, b) = (HostTensor::f32(&[0.0; 5], &[1, 5]), HostTensor::f32(&[1.0; 5], &[1, 5]));
    /// assert!(matches!(cpu::forward_backward(&iou, &[("a", a), ("b", b)], &[]), Err(Error::Shape { .. })));
    /// # Ok::<(), Error>(())
    /// ```
    ///
    /// [`Error::Shape`]: crate::Error::Shape
    pub fn cols(mut self, count: usize) -> Self {
        self.cols = Some(count as u64);
        self
    }

    fn with_option(mut self, name: &str, default: Value, domain: Domain) -> Self {
        let (name, structural, special) = (name.to_owned(), Vec::new(), Vec::new());
        self.options.push(OptionDecl { name, default, domain, structural, special, words: &[] });
        self
    }

    /// A number: a uniform of the kernel.
    pub fn param(self, name: &str, default: f64, domain: Domain) -> Self {
        self.with_option(name, Value::Num(default), domain)
    }

    /// A number whose values `at` change the formula, so that the formula of the others has not that limit (0 for "off"):
    /// such a value needs a plan of its own.
    pub fn structural_param(mut self, name: &str, default: f64, domain: Domain, at: &[f64]) -> Self {
        self = self.param(name, default, domain);
        self.options.last_mut().expect("it was just declared").structural = at.to_vec();
        self
    }

    /// A number whose values `at` make the formula simpler, and a plan's kernel faster. The formula of the others must
    /// be right there too, to its limits: `set_param` may take a plan there, and a scalar on the GPU may hold it.
    ///
    /// ```
    /// use wgloss::{Domain, Loss, Scope};
    /// let loss = Loss::define("power").input("x", Scope::Element).special_param("p", 2.0, Domain::Positive, &[2.0]);
    /// let loss = loss.expr(|b| {
    ///     let x = b.input("x").abs();
    ///     if b.value("p") == Some(2.0) { x * x } else { x.pow(b.param("p")) }
    /// });
    /// # loss.check().unwrap();
    /// ```
    pub fn special_param(mut self, name: &str, default: f64, domain: Domain, at: &[f64]) -> Self {
        self = self.param(name, default, domain);
        self.options.last_mut().expect("it was just declared").special = at.to_vec();
        self
    }

    /// A class index, or none.
    pub fn index(self, name: &str, default: Option<i64>) -> Self {
        self.with_option(name, Value::Index(default), Domain::Finite)
    }

    /// A switch.
    pub fn flag(self, name: &str, default: bool) -> Self {
        self.with_option(name, Value::Flag(default), Domain::Finite)
    }

    /// One of these words, of which the first is the default. Each selects a formula.
    ///
    /// ```
    /// use wgloss::{Error, Loss, Scope};
    /// let loss = Loss::define("distance").input("x", Scope::Element).words("norm", &["l1", "l2"]).expr(|b| {
    ///     let x = b.input("x");
    ///     if b.word("norm") == "l1" { x.abs() } else { x * x }
    /// });
    /// assert_eq!(loss.clone().option("norm", "l2").check(), Ok(()));
    /// let error = loss.option("norm", "l3").check().unwrap_err();
    /// assert_eq!(error.to_string(), "norm = l3 for distance; must be one of l1, l2");
    /// ```
    pub fn words(mut self, name: &str, words: &'static [&'static str]) -> Self {
        self = self.with_option(name, Value::Word(words.first().copied().unwrap_or("")), Domain::Finite);
        self.options.last_mut().expect("it was just declared").words = words;
        self
    }

    /// An extra output, which a plan may ask for by name: one number per row, or one in all.
    pub fn extra<F>(mut self, name: &str, build: F) -> Self
    where
        F: for<'g> Fn(&Build<'g>) -> Expr<'g> + Send + Sync + 'static,
    {
        self.extras.push((name.to_owned(), Box::new(build)));
        self
    }

    /// A term of the whole batch, one number, which is added to the reduced loss, whatever the reduction is; with
    /// [`Reduction::None`](super::Reduction::None) to each value. `sample_weight` and `mask` do not act on it: a definition
    /// that declares `mask` itself, as an optional input of the scope of its losses, may.
    ///
    /// ```
    /// use wgloss::{HostTensor, Loss, Reduction, Scope, cpu};
    /// let loss = Loss::define("spread").input("x", Scope::Element).of_batch(|b| b.input("x").sum_over(Scope::Total));
    /// let loss = loss.expr(|b| b.input("x") * b.input("x")).reduction(Reduction::Sum);
    /// let x = HostTensor::f32(&[1.0, 2.0], &[2]);
    /// assert_eq!(cpu::forward_backward(&loss, &[("x", x)], &[])?.loss()?, 5.0 + 3.0);
    /// # Ok::<(), wgloss::Error>(())
    /// ```
    pub fn of_batch<F>(mut self, build: F) -> Self
    where
        F: for<'g> Fn(&Build<'g>) -> Expr<'g> + Send + Sync + 'static,
    {
        self.of_batch = Some(Box::new(build));
        self
    }

    /// The definition with this expression.
    pub(super) fn finish(self, build: Box<BuildFn>) -> Definition {
        let DefinitionBuilder { name, row_axis, row_axes, cols, inputs, options, extras, undeclared, of_batch } = self;
        Definition { name, row_axis, row_axes, cols, inputs, options, extras, undeclared, of_batch, build }
    }
}
