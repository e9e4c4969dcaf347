//! Classes at axis 1 in 16 bits: one lane takes two neighbouring rows, whose gradients share words.

use crate::common::compare::{assert_close, random};
use crate::common::context;
use half::{bf16, f16};
use wgloss::cpu::CpuPlan;
use wgloss::{
    Bindings, Bound, Context, DType, GradMode, HostTensor, Kernel, Loss, Pinned, PlanSpec, RowAxis, Scope, Tensor,
    Wanted, losses,
};

/// Logits of 16 bits, `[samples, classes, height, width]`, and labels of which some are ignored.
struct Data {
    shape: [usize; 4],
    dtype: DType,
    logits: Vec<f32>,
    labels: Vec<i32>,
}

impl Data {
    fn new(shape: [usize; 4], dtype: DType) -> Data {
        let round = |x: f32| if dtype == DType::BF16 { bf16::from_f32(x).to_f32() } else { f16::from_f32(x).to_f32() };
        let logits = random(shape.iter().product(), 1).into_iter().map(round).collect();
        let [samples, classes, height, width] = shape;
        let label = |k: usize| if k % 7 == 3 { -100 } else { (k * 5 % classes) as i32 };
        Data { shape, dtype, logits, labels: (0..samples * height * width).map(label).collect() }
    }

    fn rows(&self) -> [usize; 3] {
        [self.shape[0], self.shape[2], self.shape[3]]
    }

    fn tensor(&self, ctx: &Context, values: &[f32]) -> Tensor {
        let bf16s = || values.iter().map(|x| bf16::from_f32(*x)).collect::<Vec<_>>();
        let f16s = || values.iter().map(|x| f16::from_f32(*x)).collect::<Vec<_>>();
        let made = match self.dtype {
            DType::BF16 => Tensor::from_slice(ctx, &bf16s(), &self.shape),
            _ => Tensor::from_slice(ctx, &f16s(), &self.shape),
        };
        made.unwrap()
    }

    fn read(&self, tensor: &Tensor) -> Vec<f64> {
        match self.dtype {
            DType::BF16 => tensor.to_vec::<bf16>().unwrap().into_iter().map(f64::from).collect(),
            _ => tensor.to_vec::<f16>().unwrap().into_iter().map(f64::from).collect(),
        }
    }

    /// The loss and its gradient in f64.
    fn expected(&self, loss: &Loss) -> (f64, Vec<f64>) {
        let rows = self.rows();
        let host =
            [("input", HostTensor::f32(&self.logits, &self.shape)), ("target", HostTensor::i32(&self.labels, &rows))];
        let wanted = Wanted { loss: true, grads: vec!["input".to_owned()], ..Wanted::default() };
        let plan = CpuPlan::<f64>::new(loss, &host, &wanted).unwrap();
        let mut out = plan.output();
        plan.run(&host, &mut out).unwrap();
        (out.loss_values().unwrap()[0], out.grad("input").unwrap().to_vec())
    }

    fn bound(&self, ctx: &Context, loss: &Loss, spec: &dyn Fn(PlanSpec) -> PlanSpec, pairs: bool) -> (Bound, Tensor) {
        let logits = self.tensor(ctx, &self.logits);
        let labels = Tensor::from_slice(ctx, &self.labels, &self.rows()).unwrap();
        let inputs = [("input", &logits), ("target", &labels)];
        let plan = ctx.plan(loss, &spec(PlanSpec::new().like(&inputs).grad("input"))).unwrap();
        assert_eq!(plan.explain().contains("streamed pairs of rows"), pairs, "{:?}: {}", self.shape, plan.explain());
        (plan.bind(&Bindings::new().inputs(&inputs)).unwrap(), logits)
    }

    fn check(&self, what: &str, got: &[f64], want: &[f64]) {
        // One rounding.
        let rounding = if self.dtype == DType::BF16 { 1.0 / 256.0 } else { 1.0 / 2048.0 };
        assert_close(&format!("{what}, {:?} in {}: ", self.shape, self.dtype), got, want, 0.51 * rounding);
    }
}

fn catalogue() -> Vec<Loss> {
    vec![
        losses::cross_entropy().into(),
        losses::cross_entropy().label_smoothing(0.1).entropy_bonus(0.1).into(),
        losses::multiclass_focal().gamma(2.0).into(),
    ]
}

#[test]
fn neighbouring_rows_share_words() {
    let Some(ctx) = context() else { return };
    let as_it_is: &dyn Fn(PlanSpec) -> PlanSpec = &|spec| spec;
    for dtype in [DType::BF16, DType::F16] {
        for shape in [[2, 3, 20, 32], [1, 19, 30, 50], [3, 2, 1, 1024], [1100, 5, 1, 2]] {
            let data = Data::new(shape, dtype);
            for loss in catalogue() {
                let (want, grads) = data.expected(&loss);
                let (bound, _) = data.bound(ctx, &loss, as_it_is, true);
                bound.submit().unwrap();
                assert_close("loss ", &[f64::from(bound.read_loss().unwrap())], &[want], 2e-6);
                data.check(&loss.name(), &data.read(bound.grad("input").unwrap()), &grads);
            }
        }
        // An odd number of neighbouring rows shares words between columns; few rows have several lanes each.
        for shape in [[50, 3, 5, 7], [2, 3, 4, 8]] {
            let data = Data::new(shape, dtype);
            let loss = Loss::from(losses::cross_entropy());
            let (bound, _) = data.bound(ctx, &loss, as_it_is, false);
            bound.submit().unwrap();
            data.check("apart", &data.read(bound.grad("input").unwrap()), &data.expected(&loss).1);
        }
    }
}

#[test]
fn pairs_overwrite_accumulate_and_find_infinities() {
    let Some(ctx) = context() else { return };
    let data = Data::new([2, 5, 24, 32], DType::BF16);
    let loss = Loss::from(losses::cross_entropy());
    let grads = data.expected(&loss).1;
    let (bound, logits) = data.bound(ctx, &loss, &|spec| spec.grad_mode("input", GradMode::InPlace), true);
    bound.submit().unwrap();
    data.check("in place", &data.read(&logits), &grads);

    let labels = Tensor::from_slice(ctx, &data.labels, &data.rows()).unwrap();
    let (logits, sum) = (data.tensor(ctx, &data.logits), data.tensor(ctx, &vec![0.5; grads.len()]));
    let inputs = [("input", &logits), ("target", &labels)];
    let spec = PlanSpec::new().like(&inputs).grad_mode("input", GradMode::Accumulate).found_inf();
    let plan = ctx.plan(&loss, &spec).unwrap();
    assert!(plan.explain().contains("streamed pairs of rows"), "{}", plan.explain());
    let bound = plan.bind(&Bindings::new().inputs(&inputs).grad("input", &sum)).unwrap();
    bound.submit().unwrap();
    let sums: Vec<f64> = grads.iter().map(|grad| 0.5 + grad).collect();
    data.check("accumulated", &data.read(&sum), &sums);
    let found = |bound: &Bound| bound.found_inf().unwrap().to_vec::<f32>().unwrap()[0];
    assert_eq!(found(&bound), 0.0);
    // An infinity in the second row of a pair, then in the first.
    for at in [1, 2] {
        let mut old = vec![bf16::ZERO; grads.len()];
        old[at] = bf16::INFINITY;
        sum.write(ctx, &old).unwrap();
        bound.submit().unwrap();
        assert_eq!(found(&bound), 1.0, "at {at}");
        let got = data.read(&sum);
        assert!((0..got.len()).all(|k| got[k].is_finite() == (k != at)), "at {at}");
    }
}

/// NaN and a label out of range poison their own row, not the other half of its words.
#[test]
fn poison_stays_in_its_row_of_a_pair() {
    let Some(ctx) = context() else { return };
    let mut data = Data::new([1, 4, 32, 40], DType::BF16);
    let rows = 32 * 40;
    for row in [6, 11] {
        data.logits[2 * rows + row] = f32::NAN;
    }
    data.labels[21] = 4;
    let loss = Loss::from(losses::cross_entropy()).reduction(wgloss::Reduction::None);
    let (bound, _) = data.bound(ctx, &loss, &|spec| spec, true);
    bound.submit().unwrap();
    let got = data.read(bound.grad("input").unwrap());
    for (k, grad) in got.iter().enumerate() {
        assert_eq!(grad.is_nan(), [6, 11, 21].contains(&(k % rows)), "element {k}");
    }
}

#[test]
fn pairs_survive_chunks_and_fewer_rows() {
    let Some(_) = context() else { return };
    let limits = wgpu::Limits { max_storage_buffer_binding_size: 1 << 17, ..wgpu::Limits::default() };
    let ctx = Context::with_limits(limits).unwrap();
    let loss = Loss::from(losses::cross_entropy());
    let data = Data::new([12, 7, 32, 40], DType::BF16);
    let (bound, _) = data.bound(&ctx, &loss, &|spec| spec, true);
    bound.submit().unwrap();
    data.check("in chunks", &data.read(bound.grad("input").unwrap()), &data.expected(&loss).1);

    let few = Data::new([3, 7, 32, 40], DType::BF16);
    let spec = PlanSpec::new().input("input", DType::BF16, &data.shape).input("target", DType::I32, &data.rows());
    let plan = ctx.plan(&loss, &spec.grad("input")).unwrap();
    let (logits, labels) = (few.tensor(&ctx, &few.logits), Tensor::from_slice(&ctx, &few.labels, &few.rows()).unwrap());
    let bound = plan.bind(&Bindings::new().inputs(&[("input", &logits), ("target", &labels)])).unwrap();
    bound.submit().unwrap();
    few.check("fewer samples", &few.read(bound.grad("input").unwrap()), &few.expected(&loss).1);
}

#[test]
fn pairs_can_be_pinned_where_there_are_any() {
    let Some(ctx) = context() else { return };
    let data = Data::new([2, 3, 20, 32], DType::F16);
    let loss = Loss::from(losses::cross_entropy());
    let pinned = |kernel| Pinned { kernel: Some(kernel), ..Pinned::default() };
    for (kernel, pairs) in [(Kernel::RowPairs, true), (Kernel::Row, false)] {
        let (bound, _) = data.bound(ctx, &loss, &|spec| spec.pin(pinned(kernel)), pairs);
        bound.submit().unwrap();
        data.check(&format!("{kernel:?}"), &data.read(bound.grad("input").unwrap()), &data.expected(&loss).1);
    }
    let spec = PlanSpec::new().input("input", DType::F32, &data.shape).input("target", DType::I32, &data.rows());
    let error = ctx.plan(&loss, &spec.grad("input").pin(pinned(Kernel::RowPairs))).map(|_| ()).unwrap_err();
    assert!(error.to_string().contains("pairs of rows"), "{error}");
}

/// Two outputs of 16 bits, two stages, a class vector and a value of each row.
#[test]
fn several_outputs_share_words() {
    let Some(ctx) = context() else { return };
    let loss = Loss::define("weighed").input("input", Scope::Element).input("other", Scope::Element);
    let loss = loss.input("w", Scope::Column).input("r", Scope::Row).row_axis(RowAxis::At(1)).expr(|b| {
        let (x, y) = (b.input("input") * b.input("w"), b.input("other"));
        ((x.softmax() - y.softmax()).pow(2.0)).sum() * b.input("r")
    });
    let shape = [2, 5, 700];
    let round = |x: f32| bf16::from_f32(x).to_f32();
    let made = |seed: u32, count: usize| random(count, seed).into_iter().map(round).collect::<Vec<f32>>();
    let (x, y, w, r) = (made(1, 7000), made(2, 7000), made(3, 5), made(4, 1400));
    let host = [
        ("input", HostTensor::f32(&x, &shape)),
        ("other", HostTensor::f32(&y, &shape)),
        ("w", HostTensor::f32(&w, &[5])),
        ("r", HostTensor::f32(&r, &[2, 700])),
    ];
    let names = ["input", "other", "r"];
    let wanted = Wanted { loss: true, grads: names.map(str::to_owned).to_vec(), ..Wanted::default() };
    let plan = CpuPlan::<f64>::new(&loss, &host, &wanted).unwrap();
    let mut out = plan.output();
    plan.run(&host, &mut out).unwrap();
    let halves = |values: &[f32], shape: &[usize]| {
        let values: Vec<bf16> = values.iter().map(|x| bf16::from_f32(*x)).collect();
        Tensor::from_slice(ctx, &values, shape).unwrap()
    };
    let tensors = [halves(&x, &shape), halves(&y, &shape), halves(&w, &[5]), halves(&r, &[2, 700])];
    let inputs: Vec<(&str, &Tensor)> = ["input", "other", "w", "r"].into_iter().zip(&tensors).collect();
    let spec = names.iter().fold(PlanSpec::new().like(&inputs), |spec, name| spec.grad(name));
    let plan = ctx.plan(&loss, &spec).unwrap();
    assert!(plan.explain().contains("streamed pairs of rows"), "{}", plan.explain());
    let bound = plan.bind(&Bindings::new().inputs(&inputs)).unwrap();
    bound.submit().unwrap();
    for name in names {
        let got: Vec<f64> = bound.grad(name).unwrap().to_vec::<bf16>().unwrap().into_iter().map(f64::from).collect();
        assert_close(&format!("{name}: "), &got, out.grad(name).unwrap(), 0.51 / 256.0);
    }
}
