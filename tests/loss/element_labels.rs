//! Labels of elements: compared, checked against a number of classes, reported. GPU and CPU, against plain loops.

use crate::common::compare::{assert_close, is_nan, random};
use crate::common::context;
use wgloss::{
    Bindings, Context, DType, Error, HostTensor, Loss, PlanSpec, Reduction, RowAxis, Scope, Tensor, Wanted, cpu,
};

/// `L = max(0, 1 − s·x)`, `s = 1` for label 1, `−1` for label 0, and `½` for label 2; no loss for label −100.
fn pixel_hinge(axis: RowAxis) -> Loss {
    let definition = Loss::define("pixel_hinge").input("x", Scope::Element).labels("y", Scope::Element);
    definition.row_axis(axis).expr(|b| {
        let (x, y) = (b.input("x"), b.input("y"));
        let is = |class: i64| y.in_range(3).equals(b.graph().index(class));
        let sign = is(1).select(1.0, is(2).select(0.5, -1.0));
        (1.0 - sign * x).relu().masked(!b.label_is("y", -100))
    })
}

/// `L_r = Σ_j x_j·[some label of the row is j]`, each label a column: several classes per row, padded with −1.
fn multilabel() -> Loss {
    let definition = Loss::define("multilabel").input("x", Scope::Element).labels("y", Scope::Element);
    definition.row_axis(RowAxis::Last).expr(|b| {
        let (x, y) = (b.input("x"), b.input("y"));
        let given = y.in_columns().to_float().masked(!b.label_is("y", -1));
        given.sum() * x.max()
    })
}

struct Case {
    shape: Vec<usize>,
    x: Vec<f32>,
    y: Vec<i32>,
}

struct Got {
    losses: Vec<f64>,
    grad: Vec<f64>,
    status: Result<(), Error>,
}

impl Case {
    fn new(shape: &[usize], classes: i32) -> Case {
        let count = shape.iter().product();
        let y = (0..count as i32).map(|k| if k % 7 == 3 { -100 } else { k * 5 % classes }).collect();
        Case { shape: shape.to_vec(), x: random(count, 41), y }
    }

    fn on_cpu(&self, loss: &Loss) -> Got {
        let loss = loss.clone().reduction(Reduction::None);
        let inputs = [("x", HostTensor::f32(&self.x, &self.shape)), ("y", HostTensor::i32(&self.y, &self.shape))];
        let wanted = Wanted { loss: true, grads: vec!["x".to_owned()], ..Wanted::default() };
        let mut out = cpu::run::<f64>(&loss, &inputs, &wanted).unwrap();
        let status = out.loss_values().map(|_| ());
        out.take_bad_label();
        Got { losses: out.loss_values().unwrap().to_vec(), grad: out.grad("x").unwrap().to_vec(), status }
    }

    fn on_gpu(&self, ctx: &Context, loss: &Loss, dtype: DType) -> Got {
        let loss = loss.clone().reduction(Reduction::None);
        let x = Tensor::from_slice(ctx, &self.x, &self.shape).unwrap();
        let y = match dtype {
            DType::U32 => {
                let words: Vec<u32> = self.y.iter().map(|y| *y as u32).collect();
                Tensor::from_slice(ctx, &words, &self.shape).unwrap()
            }
            _ => Tensor::from_slice(ctx, &self.y, &self.shape).unwrap(),
        };
        let inputs = [("x", &x), ("y", &y)];
        let plan = ctx.plan(&loss, &PlanSpec::new().like(&inputs).grad("x")).unwrap();
        let bound = plan.bind(&Bindings::new().inputs(&inputs)).unwrap();
        bound.submit().unwrap();
        let status = pollster::block_on(bound.status());
        let read = |tensor: &Tensor| tensor.to_vec::<f32>().unwrap().into_iter().map(f64::from).collect();
        Got { losses: read(bound.loss().unwrap()), grad: read(bound.grad("x").unwrap()), status }
    }

    /// Losses and gradients of `pixel_hinge`, NaN where a label has no class.
    fn hinge(&self) -> (Vec<f64>, Vec<f64>) {
        let each = self.x.iter().zip(&self.y).map(|(x, y)| {
            let sign = match y {
                -100 => return (0.0, 0.0),
                0 => -1.0,
                1 => 1.0,
                2 => 0.5,
                _ => return (f64::NAN, f64::NAN),
            };
            let miss = 1.0 - sign * f64::from(*x);
            if miss > 0.0 { (miss, -sign) } else { (0.0, 0.0) }
        });
        each.unzip()
    }
}

fn same(what: &str, got: &[f64], want: &[f64], rtol: f64) {
    assert_eq!(is_nan(got), is_nan(want), "{what}");
    let finite = |values: &[f64]| values.iter().map(|x| if x.is_nan() { 0.0 } else { *x }).collect::<Vec<_>>();
    assert_close(what, &finite(got), &finite(want), rtol);
}

#[test]
fn labels_of_elements_choose() {
    let Some(ctx) = context() else { return };
    // Around a vector of four and a workgroup; rows that are resident, odd, split.
    for shape in [&[3][..], &[4, 5], &[2, 16, 16], &[257], &[3, 1031], &[2, 20_003]] {
        let case = Case::new(shape, 3);
        let (losses, grad) = case.hinge();
        for axis in [RowAxis::None, RowAxis::Last] {
            let (what, loss) = (format!("{shape:?} {axis:?}"), pixel_hinge(axis));
            let cpu = case.on_cpu(&loss);
            same(&what, &cpu.losses, &losses, 1e-12);
            same(&what, &cpu.grad, &grad, 1e-12);
            assert_eq!(cpu.status, Ok(()), "{what}");
            let gpu = case.on_gpu(ctx, &loss, DType::I32);
            same(&what, &gpu.losses, &losses, 4e-6);
            same(&what, &gpu.grad, &grad, 4e-6);
            assert_eq!(gpu.status, Ok(()), "{what}");
        }
    }
}

#[test]
fn a_label_without_a_class_poisons_its_element_and_is_reported() {
    let Some(ctx) = context() else { return };
    for (bad, dtype) in [(3, DType::I32), (-1, DType::I32), (i32::MAX, DType::I32), (3, DType::U32), (-7, DType::U32)] {
        // In each component of a vector, and behind the last whole one.
        for at in [4, 5, 6, 7, 13] {
            let mut case = Case::new(&[15], 3);
            case.y.iter_mut().filter(|y| **y == -100).for_each(|y| *y = 0);
            case.y[at] = bad;
            case.y[14] = bad;
            let (losses, grad) = case.hinge();
            let what = format!("{bad} as {dtype} at {at}");
            let label = if dtype == DType::U32 { i64::from(bad as u32) } else { i64::from(bad) };
            let want = Err(Error::LabelOutOfRange { row: at as u64, label, classes: 3 });
            let gpu = case.on_gpu(ctx, &pixel_hinge(RowAxis::None), dtype);
            same(&what, &gpu.losses, &losses, 4e-6);
            same(&what, &gpu.grad, &grad, 4e-6);
            assert_eq!(gpu.status, want, "{what}");
            if dtype == DType::I32 {
                let cpu = case.on_cpu(&pixel_hinge(RowAxis::None));
                same(&what, &cpu.losses, &losses, 1e-12);
                same(&what, &cpu.grad, &grad, 1e-12);
                assert_eq!(cpu.status, want, "{what}");
            }
        }
    }
}

#[test]
fn a_label_without_a_class_poisons_its_row_where_there_are_rows() {
    let Some(ctx) = context() else { return };
    for cols in [3, 8, 1000, 20_003] {
        let mut case = Case::new(&[4, cols], 3);
        case.y[cols + 2] = 3;
        case.y[3 * cols + 1] = -1;
        let (mut losses, mut grad) = case.hinge();
        for row in [1, 3] {
            for k in row * cols..(row + 1) * cols {
                // What is masked is 0 whatever the row holds.
                if case.y[k] != -100 {
                    (losses[k], grad[k]) = (f64::NAN, f64::NAN);
                }
            }
        }
        let loss = pixel_hinge(RowAxis::Last);
        let want = Err(Error::LabelOutOfRange { row: 1, label: 3, classes: 3 });
        let (cpu, gpu) = (case.on_cpu(&loss), case.on_gpu(ctx, &loss, DType::I32));
        for (what, got) in [("CPU", &cpu), ("GPU", &gpu)] {
            same(&format!("{what}, {cols} columns"), &got.losses, &losses, 4e-6);
            same(&format!("{what}, {cols} columns"), &got.grad, &grad, 4e-6);
            assert_eq!(got.status, want, "{what}, {cols} columns");
        }
    }
}

#[test]
fn several_labels_per_row_are_columns() {
    let Some(ctx) = context() else { return };
    let cols = 12;
    let mut case = Case::new(&[3, cols], 12);
    case.y.iter_mut().enumerate().for_each(|(k, y)| *y = if k % 3 == 0 { (k * 5 % cols) as i32 } else { -1 });
    let losses = |case: &Case| -> Vec<f64> {
        let row = |(x, y): (&[f32], &[i32])| {
            let most = x.iter().copied().fold(f32::MIN, f32::max);
            let sum: i32 = y.iter().filter(|y| **y != -1).sum();
            f64::from(most) * f64::from(sum)
        };
        case.x.chunks(cols).zip(case.y.chunks(cols)).map(row).collect()
    };
    let want = losses(&case);
    let (cpu, gpu) = (case.on_cpu(&multilabel()), case.on_gpu(ctx, &multilabel(), DType::I32));
    same("CPU", &cpu.losses, &want, 1e-12);
    same("GPU", &gpu.losses, &want, 4e-6);
    assert_eq!((cpu.status, gpu.status), (Ok(()), Ok(())));
    // Column 12 is none.
    case.y[2 * cols + 3] = 12;
    let status = Err(Error::LabelOutOfRange { row: 2, label: 12, classes: 12 });
    let (cpu, gpu) = (case.on_cpu(&multilabel()), case.on_gpu(ctx, &multilabel(), DType::I32));
    for got in [&cpu, &gpu] {
        assert_eq!(is_nan(&got.losses), [false, false, true]);
        assert_eq!(got.status, status);
    }
    assert!(cpu.grad[2 * cols..].iter().all(|x| x.is_nan()) && gpu.grad[2 * cols..].iter().all(|x| x.is_nan()));
}

#[test]
fn a_label_of_an_element_is_read_at_the_label_of_the_row() {
    let Some(ctx) = context() else { return };
    // x_k·[y_k = 1] at the row's label k.
    let loss = Loss::define("at").input("x", Scope::Element).labels("y", Scope::Element).label("k");
    let loss = loss.row_axis(RowAxis::Last).expr(|b| {
        let taken = b.input("y").in_range(2).to_float();
        (b.input("x") * taken).at(b.input("k"))
    });
    let loss = loss.reduction(Reduction::None);
    let (x, y, k) = (random(20, 3), (0..20).map(|k| k * 3 % 2).collect::<Vec<i32>>(), vec![2i32, 0, 4, 1]);
    let at = |row: usize| row * 5 + k[row] as usize;
    let losses: Vec<f64> = (0..4).map(|row| f64::from(x[at(row)]) * f64::from(y[at(row)])).collect();
    let mut grad = vec![0.0; 20];
    (0..4).for_each(|row| grad[at(row)] = f64::from(y[at(row)]));
    let host =
        [("x", HostTensor::f32(&x, &[4, 5])), ("y", HostTensor::i32(&y, &[4, 5])), ("k", HostTensor::i32(&k, &[4]))];
    let out = cpu::forward_backward(&loss, &host, &["x"]).unwrap();
    same("CPU", out.loss_values().unwrap(), &losses, 1e-12);
    same("CPU", out.grad("x").unwrap(), &grad, 1e-12);
    let tensors = [Tensor::from_slice(ctx, &y, &[4, 5]).unwrap(), Tensor::from_slice(ctx, &k, &[4]).unwrap()];
    let x = Tensor::from_slice(ctx, &x, &[4, 5]).unwrap();
    let inputs = [("x", &x), ("y", &tensors[0]), ("k", &tensors[1])];
    let out = loss.forward_backward_of(ctx, &inputs, &["x"]).unwrap();
    let wide = |values: Vec<f32>| values.into_iter().map(f64::from).collect::<Vec<_>>();
    same("GPU", &wide(out.loss_values().unwrap()), &losses, 4e-6);
    same("GPU", &wide(out.grad("x").unwrap().to_vec().unwrap()), &grad, 4e-6);
}

#[test]
fn labels_have_rows_or_elements_and_columns_need_rows() {
    let zeros = HostTensor::f32(&[0.0; 4], &[4]);
    let message = |loss: Loss| {
        let labels = HostTensor::i32(&[0; 4], &[4]);
        match cpu::forward_backward(&loss, &[("x", zeros.clone()), ("y", labels)], &[]) {
            Err(Error::Expr { message, .. }) => message,
            other => panic!("{other:?}"),
        }
    };
    let define = |scope: Scope| Loss::define("own").input("x", Scope::Element).labels("y", scope);
    let scalar = define(Scope::Scalar).expr(|b| b.input("x"));
    assert!(message(scalar).contains("rows and elements have labels"));
    let loss = define(Scope::Element).expr(|b| b.input("x") * b.input("y").in_columns().to_float());
    assert!(message(loss).contains("need a row axis"));
    let number = define(Scope::Element).expr(|b| b.input("x").in_range(2).to_float() + b.input("y").to_float());
    assert!(message(number).contains("class index per row or element"));
}
