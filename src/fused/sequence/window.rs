//! Windows of a tensor of classes, of which a binding may hold a part, and how kernels load and store its rows.

use super::problem::Problem;
use crate::dispatch::{Mode, Region, Slot, Uniform};
use crate::error::{Error, Result};
use crate::plan::operator::Placed;
use crate::plan::uniform::UniformType;
use crate::shape::DType;
use crate::text::put;
use std::ops::Range;
use std::sync::Arc;

/// `Window` of `sequence_window.wgsl`.
pub(super) static WINDOW: UniformType = UniformType {
    words: 20,
    fields: &[("base", 0), ("count", 4), ("strides", 8), ("grad_strides", 12), ("grad_base", 16)],
};

/// A tensor of classes: its strides along sequences, frames, cells and classes.
#[derive(Clone, Copy)]
pub(super) struct Classes<'a> {
    pub slot: Slot,
    pub placed: &'a Placed,
    pub strides: [u64; 4],
}

impl<'a> Classes<'a> {
    /// `axes` are those of sequences, frames and cells; the last one is the classes'.
    pub fn new(slot: Slot, placed: &'a Placed, axes: [Option<usize>; 3]) -> Classes<'a> {
        let stride = |axis: usize| placed.layout.strides[axis] as u64;
        let [n, t, u] = axes.map(|axis| axis.map_or(0, stride));
        Classes { slot, placed, strides: [n, t, u, stride(placed.layout.strides.len() - 1)] }
    }

    /// Elements before the first row of a box, and past its last.
    fn elements(&self, rows: &Rows) -> [u64; 2] {
        let along = |numbers: [u64; 3]| (0..3).map(|axis| numbers[axis] * self.strides[axis]).sum::<u64>();
        let first = self.placed.offset + along(rows.first);
        let last = along(rows.count.map(|count| count.saturating_sub(1))) + (rows.classes - 1) * self.strides[3];
        [first, first + last + 1]
    }

    /// Bytes of a box in the tensor's buffer, from an aligned offset to the end of its last word.
    fn bytes(&self, rows: &Rows, alignment: u64) -> [u64; 2] {
        let [first, end] = self.elements(rows).map(|element| element * self.placed.dtype.size());
        [first - first % alignment, end.next_multiple_of(4)]
    }

    /// Whether each row of a box is whole vectors of four.
    fn is_quads(&self, rows: &Rows) -> bool {
        let steps = (0..3).filter(|axis| rows.count[*axis] > 1).map(|axis| self.strides[axis]);
        let starts = [self.elements(rows)[0], rows.classes];
        self.strides[3] == 1 && steps.chain(starts).all(|elements| elements % 4 == 0)
    }
}

/// A box of rows: the first sequence, frame and cell, and the number of each.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Rows {
    pub first: [u64; 3],
    pub count: [u64; 3],
    pub classes: u64,
}

impl Rows {
    pub fn len(&self) -> u64 {
        self.count.iter().product()
    }
}

/// Boxes of these sequences' rows, each in one binding of every tensor: cut along the outermost axis of the first tensor.
///
/// # Errors
/// [`Error::Limit`] if one index of that axis is too large.
pub(super) fn windows(
    problem: &Problem<'_>,
    tensors: &[Classes<'_>],
    sequences: Range<u64>,
    cells: u64,
) -> Result<Vec<Rows>> {
    let count = [sequences.end - sequences.start, problem.sizes.frames, cells];
    let whole = Rows { first: [sequences.start, 0, 0], count, classes: problem.sizes.classes };
    if whole.len() == 0 {
        return Ok(Vec::new());
    }
    let alignment = u64::from(problem.limits.offset_alignment);
    let allowed = problem.limits.binding_bytes.min(u64::from(u32::MAX));
    let needed = |rows: &Rows| {
        let bytes = tensors.iter().map(|tensor| tensor.bytes(rows, alignment)).map(|[begin, end]| end - begin);
        bytes.max().unwrap_or(0)
    };
    let axis = (0..3).filter(|axis| count[*axis] > 1).max_by_key(|axis| tensors[0].strides[*axis]).unwrap_or(0);
    let part = |first: u64, count: u64| {
        let mut rows = whole;
        (rows.first[axis], rows.count[axis]) = (whole.first[axis] + first, count);
        rows
    };
    let mut all = Vec::new();
    let mut first = 0;
    while first < count[axis] {
        let (mut fits, mut most) = (0, count[axis] - first);
        while fits < most {
            let middle = (fits + most).div_ceil(2);
            if needed(&part(first, middle)) <= allowed { fits = middle } else { most = middle - 1 }
        }
        if fits == 0 {
            let what = format!("one step along the outermost axis of the classes of {}", problem.name);
            let needed = needed(&part(first, 1));
            return Err(Error::Limit { what, needed, allowed, limit: "max_storage_buffer_binding_size" });
        }
        all.push(part(first, fits));
        first += fits;
    }
    Ok(all)
}

/// The uniform of a box of rows of a tensor and, where it has one, of its gradient.
pub(super) fn uniform(
    problem: &Problem<'_>,
    rows: &Rows,
    classes: &Classes<'_>,
    grad: Option<&Classes<'_>>,
) -> Arc<Uniform> {
    let first = |tensor: &Classes<'_>| {
        let [begin, _] = tensor.bytes(rows, u64::from(problem.limits.offset_alignment));
        tensor.elements(rows)[0] - begin / tensor.placed.dtype.size()
    };
    let ([n, t, u], [ns, ts, us]) = (rows.first, rows.count);
    WINDOW
        .fill()
        .vector("base", [n, t, u, first(classes)])
        .vector("count", [ns, ts, us, rows.len()])
        .vector("strides", classes.strides)
        .vector("grad_strides", grad.map_or([0; 4], |grad| grad.strides))
        .vector("grad_base", [grad.map_or(0, first), 0, 0, 0])
        .done()
}

/// The bytes of a box of rows of a tensor.
pub(super) fn region(problem: &Problem<'_>, rows: &Rows, tensor: &Classes<'_>, writes: bool) -> Region {
    let bytes = tensor.bytes(rows, u64::from(problem.limits.offset_alignment));
    Region { slot: tensor.slot, writes, bytes: Some(bytes) }
}

/// How a tensor of classes is declared: whether rows are whole vectors, and whether words that rows share are stored.
#[derive(Clone, Copy)]
struct Form {
    dtype: DType,
    quads: bool,
    atomic: bool,
}

impl Form {
    fn declaration(self, binding: u32, access: &str, name: &str) -> String {
        let element = match (self.quads, self.dtype.is_packed(), self.atomic) {
            (true, false, _) => "vec4<u32>",
            (true, true, _) => "vec2<u32>",
            (false, _, true) => "atomic<u32>",
            (false, ..) => "u32",
        };
        format!("@group(0) @binding({binding}) var<storage, {access}> {name}: array<{element}>;\n")
    }

    /// Bits of the element `i`, as f32.
    fn element(self, name: &str) -> String {
        let dtype = self.dtype;
        let word = |at: &str| if self.atomic { format!("atomicLoad(&{name}[{at}])") } else { format!("{name}[{at}]") };
        match (self.quads, dtype.is_packed()) {
            (true, false) => format!("{name}[i / 4u][i % 4u]"),
            (true, true) => format!("widen_{dtype}({name}[i / 4u][i / 2u % 2u], i)"),
            (false, false) => word("i"),
            (false, true) => format!("widen_{dtype}({}, i)", word("i / 2u")),
        }
    }

    /// Bits of four elements from `i` on, which begin a vector.
    fn vector(self, name: &str) -> String {
        let dtype = self.dtype;
        if dtype.is_packed() { format!("widen4_{dtype}({name}[i / 4u])") } else { format!("{name}[i / 4u]") }
    }
}

/// Functions that load `kind`'s rows: a class, and four of them, of which those past the last are −∞.
fn loads(form: Form, name: &str, prefix: &str, strides: &str) -> String {
    let mut text = format!(
        "fn {prefix}_bits(base: u32, col: u32) -> u32 {{\n    let i = base + col * {strides};\n    return {};\n}}\n",
        form.element(name)
    );
    put!(text, "fn {prefix}_bits4(base: u32, col: u32) -> vec4<u32> {{\n");
    if form.quads {
        put!(text, "    let i = base + col;\n    return {};\n}}\n", form.vector(name));
        return text;
    }
    let each: Vec<String> = ["x", "y", "z", "w"].iter().map(|k| format!("{prefix}_bits(base, c.{k})")).collect();
    put!(
        text,
        "    let cols = vec4<u32>(col) + vec4<u32>(0u, 1u, 2u, 3u);\n    let last = vec4<u32>(sequences.classes - 1u);\n    \
         let c = min(cols, last);\n    let bits = vec4<u32>({});\n    \
         return select(bits, vec4<u32>(0xff800000u), cols > last);\n}}\n",
        each.join(", ")
    );
    text
}

/// Declarations and functions of kernels over a box of rows: `class_bits`, `class_bits4`, and of a gradient `store4`.
/// The classes are at `binding`, the gradient behind them, or in their place.
pub(super) fn access_text(
    problem: &Problem<'_>,
    rows: &Rows,
    classes: &Classes<'_>,
    grad: Option<(&Classes<'_>, Mode)>,
    binding: u32,
) -> String {
    let form = |tensor: &Classes<'_>, writes: bool| {
        let (dtype, quads) = (tensor.placed.dtype, tensor.is_quads(rows));
        Form { dtype, quads, atomic: writes && dtype.is_packed() && !quads }
    };
    let Some((grad, mode)) = grad else {
        let own = form(classes, false);
        return own.declaration(binding, problem.access(), "classes")
            + &loads(own, "classes", "class", "window.strides.w");
    };
    let out = form(grad, true);
    let (mut text, binding) = match mode {
        Mode::InPlace(_) => (loads(out, "d_classes", "class", "window.strides.w"), binding),
        _ => {
            let own = form(classes, false);
            let text = own.declaration(binding, problem.access(), "classes");
            (text + &loads(own, "classes", "class", "window.strides.w"), binding + 1)
        }
    };
    text.insert_str(0, &out.declaration(binding, "read_write", "d_classes"));
    text + &stores(out, mode == Mode::Accumulate)
}

/// The function that stores four classes of a gradient's row, or adds to them.
fn stores(form: Form, accumulate: bool) -> String {
    let mut text = String::new();
    let (mut value, mut nan) = ("value", "is_nan");
    if accumulate {
        text.push_str(&loads(form, "d_classes", "old", "window.grad_strides.w"));
        (value, nan) =
            ("value + bitcast<vec4<f32>>(old)", "is_nan | ((old & vec4<u32>(MAGNITUDE)) > vec4<u32>(INF_BITS))");
    }
    put!(text, "fn store4(base: u32, col: u32, value: vec4<f32>, is_nan: vec4<bool>) {{\n");
    if accumulate {
        put!(text, "    let old = old_bits4(base, col);\n");
    }
    put!(text, "    let bits = store_bits4({value}, {nan});\n");
    let dtype = form.dtype;
    match (form.quads, dtype.is_packed()) {
        (true, false) => put!(text, "    d_classes[(base + col) / 4u] = bits;\n}}\n"),
        (true, true) => put!(text, "    d_classes[(base + col) / 4u] = pack4_{dtype}(bits);\n}}\n"),
        (false, false) => put!(
            text,
            "    for (var k = 0u; k < 4u && col + k < sequences.classes; k++) {{\n        \
             d_classes[base + (col + k) * window.grad_strides.w] = bits[k];\n    }}\n}}\n"
        ),
        // Two rows may share a word, whose halves two workgroups then store.
        (false, true) => put!(
            text,
            "    let halves = narrow4_{dtype}(bits);\n    \
             for (var k = 0u; k < 4u && col + k < sequences.classes; k++) {{\n        \
             let i = base + (col + k) * window.grad_strides.w;\n        \
             atomicAnd(&d_classes[i / 2u], ~(0xffffu << (16u * (i & 1u))));\n        \
             atomicOr(&d_classes[i / 2u], halves[k] << (16u * (i & 1u)));\n    }}\n}}\n"
        ),
    }
    text
}
