//! Exports against the plans that they come from.

use super::*;
use crate::expr::op::Kind;
use crate::losses;
use crate::plan::operator::Prepared;
use crate::{DType, Reduction};

fn spec(loss: &Loss, dtype: DType, [rows, cols]: [u64; 2]) -> PlanSpec {
    let (rows, cols) = (rows as usize, cols as usize);
    let mut spec = PlanSpec::new();
    for input in loss.inputs().into_iter().filter(|input| !input.optional) {
        let shape = match input.scope {
            Scope::Element => vec![rows, cols],
            Scope::Row => vec![rows],
            Scope::Column => vec![cols],
            _ => Vec::new(),
        };
        spec = spec.input(&input.name, if input.kind == Kind::Int { DType::I32 } else { dtype }, &shape);
    }
    spec.grad(&loss.differentiable().unwrap())
}

fn planned(loss: &Loss, spec: &PlanSpec) -> (Planned, Vec<Kernel>) {
    let prepared = PreparedLoss::new(loss, spec, &Limits::WEBGPU).unwrap();
    let tensors = prepared.planned_tensors().unwrap();
    let kernels = prepared.schedules().unwrap().iter().map(|schedule| schedule.kernel).collect();
    (prepared.plan(&tensors, Conditions::default()).unwrap(), kernels)
}

/// Whether the formulas give the dispatches of that shape.
fn agrees(export: &Export, planned: &Planned, [rows, cols]: [u64; 2]) -> bool {
    let same = |(dispatch, exported): (&Dispatch, &ExportDispatch)| {
        let uniforms = dispatch.uniforms.iter().all(|(binding, uniform)| {
            let (_, resource) = exported.bindings.iter().find(|bound| bound.0 == *binding).unwrap();
            match resource {
                ExportResource::Uniform(index) => {
                    export.uniforms[*index].at(rows, cols) == bytemuck::cast_slice::<u32, u8>(&uniform.words(&[]))
                }
                _ => true,
            }
        });
        dispatch.grid == exported.grid.each_ref().map(|size| size.at(rows, cols)) && uniforms
    };
    export.work_bytes.at(rows, cols) == (4 * planned.workspace).max(16)
        && planned.all().count() == export.dispatches.len()
        && planned.all().zip(&export.dispatches).all(same)
}

/// The loss with rows along its first axis and no values per sample and class, as an export takes it.
fn exportable(loss: Loss) -> Loss {
    let loss = if loss.rows_along() == crate::RowAxis::From(0) { loss.row_axis(crate::RowAxis::Last) } else { loss };
    if loss.option_value("batch").is_some() { loss.option("batch", true) } else { loss }
}

/// Kernels for one shape, asked about others: wherever the same kernels are chosen there, the formulas give the
/// dispatches that a plan of that shape has.
#[test]
fn formulas_give_the_dispatches_of_other_shapes() {
    // Registers, streamed rows, split rows, single elements, masked windows; one step of sums, and two.
    let made_for = [[4096, 1000], [50_000, 12], [300, 50_257], [300, 100_000], [3, 200_000], [700, 10], [64, 77]];
    let (mut same, mut kinds) = (0, std::collections::HashSet::new());
    for name in losses::CATALOGUE.iter().map(|entry| entry.name) {
        let loss = exportable(losses::by_name(name).unwrap());
        // Some have rows of one length.
        let fixed = loss.cols().unwrap();
        for loss in [loss.clone(), loss.reduction(Reduction::None)] {
            for (dtype, shape) in [DType::F32, DType::BF16].iter().flat_map(|t| made_for.map(|shape| (*t, shape))) {
                let [rows, cols] = [shape[0], fixed.unwrap_or(shape[1])];
                let shape = [rows, cols];
                // A gradient of one value per row is exported in f32 only.
                let wrt = loss.differentiable().unwrap();
                let is_per_row = loss.inputs().iter().any(|input| input.name == wrt && input.scope == Scope::Row);
                if is_per_row && dtype == DType::BF16 {
                    continue;
                }
                let export = Export::new(&loss, &spec(&loss, dtype, shape)).unwrap();
                for other in [
                    [rows - 1, cols],
                    [rows / 2 + 1, cols],
                    [rows, cols.saturating_sub(4)],
                    [rows - 1, cols.saturating_sub(5)],
                    [2, cols],
                ] {
                    if fixed.is_some_and(|fixed| other[1] != fixed) {
                        continue;
                    }
                    if export.conditions.iter().any(|c| c.formula.at(other[0], other[1]) == 0) {
                        continue;
                    }
                    let (planned, kernels) = planned(&loss, &spec(&loss, dtype, other));
                    // An exported kernel is the plan's, but for the loads that it checks, since rows may be shorter.
                    let checked = |wgsl: &str| wgsl.replace("const EXACT: bool = true;", "const EXACT: bool = false;");
                    let kernel = |d: &Dispatch| export.kernels.iter().position(|wgsl| **wgsl == checked(&d.wgsl));
                    let chosen: Vec<_> = planned.all().map(kernel).collect();
                    let exported: Vec<_> = export.dispatches.iter().map(|d| Some(d.kernel)).collect();
                    if chosen == exported {
                        assert!(agrees(&export, &planned, other), "{name} {dtype} {shape:?} at {other:?}");
                        kinds.extend(kernels);
                        same += 1;
                    }
                }
            }
        }
    }
    assert!(same > 500, "only {same} compared");
    assert!(kinds.iter().any(|kind| matches!(kind, Kernel::RowSplit { .. })), "{kinds:?}");
    assert!(kinds.contains(&Kernel::Row) && kinds.contains(&Kernel::Elementwise), "{kinds:?}");
}

/// Sums over the rows for each column, of elements and of a softmax whose rows an earlier pass has saved; the ranges of rows
/// are those of the shape that the export was made for.
#[test]
fn sums_by_column_are_exported() {
    let loss = Loss::define("columns").input("x", Scope::Element).input("w", Scope::Column);
    let loss = loss.row_axis(crate::RowAxis::Last).expr(|b| {
        let p = b.input("x").softmax().sum_over(Scope::Column);
        b.input("w") * p / (1.0 + (b.input("x") * b.input("x")).sum_over(Scope::Column))
    });
    let of = |rows: usize| {
        let spec = PlanSpec::new().input("x", DType::F32, &[rows, 40]).input("w", DType::F32, &[40]);
        spec.grad("x").grad("w")
    };
    let export = Export::new(&loss, &of(100_000)).unwrap();
    for rows in [100_000, 99_999, 100_003] {
        assert!(export.conditions.iter().all(|c| c.formula.at(rows, 40) == 1), "{:?}", export.conditions);
        let (planned, kernels) = planned(&loss, &of(rows as usize));
        assert!(kernels.iter().any(|kernel| matches!(kernel, Kernel::ColumnSums { .. })), "{kernels:?}");
        assert!(agrees(&export, &planned, [rows, 40]), "{rows} rows");
    }
}

/// Sums over groups of what is known without the elements, of rows' sums, of both, and their adjoints, beside sums
/// over everything.
#[test]
fn sums_over_groups_are_exported() {
    let loss = Loss::define("groups")
        .input("x", Scope::Element)
        .input("r", Scope::Row)
        .row_axis(crate::RowAxis::Last)
        .expr(|b| {
            let (x, r) = (b.input("x"), b.input("r"));
            let known = r.sum_over(Scope::Group) / (r * r).sum_over(Scope::Total);
            let found = x.sum().sum_over(Scope::Group) - r;
            x * known + found * found
        })
        .reduction(Reduction::Sum);
    let of = |rows: usize| {
        let spec = PlanSpec::new().input("x", DType::F32, &[rows, 40]).input("r", DType::F32, &[rows]);
        spec.grad("x").grad("r").group_rows(4)
    };
    let export = Export::new(&loss, &of(400)).unwrap();
    let allowed = |rows| export.conditions.iter().all(|c| c.formula.at(rows, 40) == 1);
    assert!(allowed(1200) && !allowed(402), "{:?}", export.conditions);
    for rows in [400, 404, 1200] {
        let (planned, _) = planned(&loss, &of(rows));
        assert!(agrees(&export, &planned, [rows as u64, 40]), "{rows} rows");
    }
    assert!(matches!(Export::new(&loss, &of(402)), Err(Error::Param { param, .. }) if param == "group_rows"));
}

#[test]
fn scalars_of_sixteen_bits_are_widened_by_a_dispatch() {
    let of = |dtype| {
        let spec = PlanSpec::new().input("input", DType::F32, &[64, 100]).input("target", DType::F32, &[64, 100]);
        let spec = spec.grad("input").input("n", dtype, &[]).input("s", DType::F32, &[]);
        let loss = losses::mse().scaled_by("s").reduction(Reduction::By("n".to_owned()));
        let export = Export::new(&loss, &spec).unwrap();
        let [_, words] = ["s", "n"].map(|name| export.scalar_inputs.iter().any(|input| input.0 == name));
        (export.dispatches.len(), words, export)
    };
    let ((plain, copied, _), (widened, widened_copied, export)) = (of(DType::F32), of(DType::BF16));
    assert_eq!((widened, copied, widened_copied), (plain + 1, true, false));
    let first = &export.dispatches[0];
    assert!(export.kernels[first.kernel].contains("widen_bf16"));
    let tensor = export.tensors.iter().position(|tensor| tensor.name == "n").unwrap();
    let bound = ExportResource::Storage { buffer: ExportBuffer::Tensor(tensor), writes: false };
    assert!(first.bindings.iter().any(|binding| binding.1 == bound), "{first:?}");
}

#[test]
fn an_export_calls_inputs_by_their_new_names_and_options_on_the_gpu_by_theirs() {
    let loss = losses::huber("width").rename_input("input", "x").reduction(Reduction::Sum);
    let of = |size: [u64; 2]| spec(&loss, DType::F32, size).grad("width");
    let export = Export::new(&loss, &of([64, 100])).unwrap();
    let names: Vec<&str> = export.tensors.iter().map(|tensor| tensor.name.as_str()).collect();
    assert!(names.contains(&"x") && !names.contains(&"input"), "{names:?}");
    assert!(export.scalar_inputs.iter().any(|input| input.0 == "width"), "{:?}", export.scalar_inputs);
    for size in [[64, 100], [80, 100]] {
        let (planned, _) = planned(&loss, &of(size));
        assert!(agrees(&export, &planned, size), "{size:?}");
    }
}

#[test]
fn what_cannot_be_exported_says_so() {
    let loss = losses::cross_entropy();
    let plain = |shape| spec(&loss, DType::F32, shape);
    let in_place = |shape| {
        let spec = spec(&loss, DType::F32, shape);
        PlanSpec { modes: vec![("input".to_owned(), crate::GradMode::InPlace)], ..spec }
    };
    let cases = [
        (plain([1, 1000]), "fewer than two rows"),
        (plain([0, 1000]), "fewer than two rows"),
        (plain([1 << 16, 1000]), "128 MiB"),
        (plain([2, 1 << 25]), "128 MiB"),
        (plain([64, 1000]).separate_backward(), "separate backward"),
        (in_place([64, 1000]), "in place"),
    ];
    for (spec, told) in cases {
        let error = Export::new(&loss, &spec).unwrap_err();
        assert!(error.to_string().contains(told), "{told}: {error}");
    }
    let strided = crate::shape::Layout { shape: vec![64, 10], strides: vec![12, 1] };
    let spec = PlanSpec::new().input_with("input", DType::F32, strided).input("target", DType::I32, &[64]);
    let error = Export::new(&loss, &spec.grad("input")).unwrap_err();
    assert!(error.to_string().contains("not contiguous"), "{error}");
    let spaced = PlanSpec::new().input("input", DType::F32, &[4, 16, 10]).input("target", DType::I32, &[4, 10]);
    assert!(Export::new(&loss, &spaced).unwrap_err().to_string().contains("[rows, cols]"));
}
