//! Row values that survive between passes: a row is read again for its gradient alone, not to know its softmax once more.

use crate::common::compare::{assert_close, is_nan, random};
use crate::common::context;
use half::bf16;
use wgloss::{
    Bindings, Context, DType, Error, HostTensor, Kernel, Loss, Pinned, PlanSpec, RowAxis, Scope, Tensor, Wanted, cpu,
};

const ROWS: usize = 8;

/// A preference loss: −log σ of the difference of a group's log-probabilities under two models, `[rows, cols]` logits each.
fn preference() -> Loss {
    let definition = Loss::define("preference").input("policy", Scope::Element).input("reference", Scope::Element);
    let definition = definition.label("target").input("sign", Scope::Row).row_axis(RowAxis::Last);
    definition.expr(|b| {
        let log_p = |name: &str| b.input(name).log_softmax().at(b.input("target"));
        let margin = ((log_p("policy") - log_p("reference")) * b.input("sign")).sum_over(Scope::Group);
        -margin.log_sigmoid()
    })
}

struct Data {
    cols: usize,
    policy: Vec<f32>,
    reference: Vec<f32>,
    labels: Vec<i32>,
    sign: Vec<f32>,
}

impl Data {
    fn new(cols: usize) -> Data {
        let logits = |seed| random(ROWS * cols, seed).iter().map(|x| bf16::from_f32(2.0 * x).to_f32()).collect();
        let labels = (0..ROWS).map(|row| (row * 7 % cols) as i32).collect();
        let sign = (0..ROWS).map(|row| if row % 2 == 0 { 1.0 } else { -1.0 }).collect();
        Data { cols, policy: logits(1), reference: logits(2), labels, sign }
    }

    fn on_cpu(&self) -> (f64, [Vec<f64>; 2]) {
        let shape = [ROWS, self.cols];
        let host = [
            ("policy", HostTensor::f32(&self.policy, &shape)),
            ("reference", HostTensor::f32(&self.reference, &shape)),
            ("target", HostTensor::i32(&self.labels, &shape[..1])),
            ("sign", HostTensor::f32(&self.sign, &shape[..1])),
        ];
        let grads = vec!["policy".to_owned(), "reference".to_owned()];
        let plan = cpu::CpuPlan::<f64>::new(&preference(), &host, &Wanted { loss: true, grads, ..Wanted::default() });
        let plan = plan.unwrap().group_rows(2).unwrap();
        let mut out = plan.output();
        plan.run(&host, &mut out).unwrap();
        let _ = out.take_bad_label();
        let grads = ["policy", "reference"].map(|name| out.grad(name).unwrap().to_vec());
        (out.loss().unwrap(), grads)
    }

    /// Loss, gradients, and the explanation.
    fn on_gpu(&self, ctx: &Context, dtype: DType, pinned: Pinned) -> Result<(f64, Vec<Vec<f64>>, String), Error> {
        self.gradients_on_gpu(ctx, dtype, pinned, &["policy", "reference"])
    }

    fn gradients_on_gpu(
        &self,
        ctx: &Context,
        dtype: DType,
        pinned: Pinned,
        grads: &[&str],
    ) -> Result<(f64, Vec<Vec<f64>>, String), Error> {
        let shape = [ROWS, self.cols];
        let logits = |values: &[f32]| match dtype {
            DType::BF16 => {
                let halves: Vec<bf16> = values.iter().map(|x| bf16::from_f32(*x)).collect();
                Tensor::from_slice(ctx, &halves, &shape).unwrap()
            }
            _ => Tensor::from_slice(ctx, values, &shape).unwrap(),
        };
        let (policy, reference) = (logits(&self.policy), logits(&self.reference));
        let labels = Tensor::from_slice(ctx, &self.labels, &shape[..1]).unwrap();
        let sign = Tensor::from_slice(ctx, &self.sign, &shape[..1]).unwrap();
        let inputs = [("policy", &policy), ("reference", &reference), ("target", &labels), ("sign", &sign)];
        let spec = PlanSpec::new().like(&inputs).group_rows(2).pin(pinned);
        let spec = grads.iter().fold(spec, |spec, name| spec.grad(name).grad_dtype(name, DType::F32));
        let plan = ctx.plan(&preference(), &spec)?;
        let bound = plan.bind(&Bindings::new().inputs(&inputs)).unwrap();
        bound.submit().unwrap();
        let _ = pollster::block_on(bound.status());
        let read = |name: &str| -> Vec<f64> {
            bound.grad(name).unwrap().to_vec::<f32>().unwrap().into_iter().map(f64::from).collect()
        };
        Ok((f64::from(bound.read_loss().unwrap()), grads.iter().copied().map(read).collect(), plan.explain()))
    }
}

/// Reads of an input per pass, as explained.
fn reads(explained: &str, input: &str) -> Vec<u32> {
    let lines = explained.lines().filter(|line| line.trim_start().starts_with(input) && line.contains("read"));
    lines.map(|line| line.split_whitespace().nth(2).unwrap().parse().unwrap()).collect()
}

#[test]
fn a_preference_loss_reads_its_logits_twice() {
    let Some(ctx) = context() else { return };
    for cols in [32, 1000, 5003] {
        let data = Data::new(cols);
        let (loss, grads) = data.on_cpu();
        for dtype in [DType::F32, DType::BF16] {
            let kernels =
                [None, Some(Kernel::Row), Some(Kernel::RowResident { trips: 0 }), Some(Kernel::RowSplit { splits: 3 })];
            for kernel in kernels {
                let pinned = Pinned { kernel, ..Pinned::default() };
                let (got, found, explained) = match data.on_gpu(ctx, dtype, pinned) {
                    Ok(all) => all,
                    // Too long for a row in registers, or for a loop.
                    Err(Error::Unsupported { .. }) => continue,
                    Err(error) => panic!("{error}"),
                };
                let what = format!("{cols} columns, {dtype}, {kernel:?}");
                assert!((got - loss).abs() <= 2e-6 * loss.abs(), "{what}: loss {got}, want {loss}");
                for (found, want) in found.iter().zip(&grads) {
                    assert_close(&format!("{what}: gradient"), found, want, 2e-6);
                }
                assert_eq!(reads(&explained, "policy"), [1, 1], "{what}\n{explained}");
            }
        }
    }
}

#[test]
fn the_gradient_of_one_of_two_softmaxes_reads_its_row_once_more() {
    let Some(ctx) = context() else { return };
    for cols in [32, 1000, 5003] {
        let mut data = Data::new(cols);
        for is_nan in [false, true] {
            if is_nan {
                data.policy[5 * cols + 3] = f32::NAN;
            }
            let (loss, [want, _]) = data.on_cpu();
            for kernel in [None, Some(Kernel::Row), Some(Kernel::RowSplit { splits: 3 })] {
                let pinned = Pinned { kernel, ..Pinned::default() };
                let (got, found, explained) = data.gradients_on_gpu(ctx, DType::BF16, pinned, &["policy"]).unwrap();
                let what = format!("{cols} columns, {kernel:?}");
                let reads = ["policy", "reference"].map(|input| reads(&explained, input));
                assert_eq!(reads, [vec![1, 1], vec![1]], "{what}\n{explained}");
                if is_nan {
                    assert!(got.is_nan());
                    assert_eq!(
                        crate::common::compare::is_nan(&found[0]),
                        crate::common::compare::is_nan(&want),
                        "{what}"
                    );
                } else {
                    assert!((got - loss).abs() <= 2e-6 * loss.abs(), "{what}: loss {got}, want {loss}");
                    assert_close(&format!("{what}: gradient"), &found[0], &want, 2e-6);
                }
            }
        }
    }
}

#[test]
fn a_saved_row_is_poisoned_as_one_that_is_read_again() {
    let Some(ctx) = context() else { return };
    for kernel in [Kernel::Row, Kernel::RowResident { trips: 0 }, Kernel::RowSplit { splits: 3 }] {
        for bad_label in [false, true] {
            let mut data = Data::new(100);
            match bad_label {
                true => data.labels[3] = 100,
                false => data.reference[3 * 100 + 50] = f32::NAN,
            }
            let (_, want) = data.on_cpu();
            let pinned = Pinned { kernel: Some(kernel), ..Pinned::default() };
            let (loss, got, _) = data.on_gpu(ctx, DType::F32, pinned).unwrap();
            assert!(loss.is_nan());
            for (got, want) in got.iter().zip(&want) {
                assert_eq!(is_nan(got), is_nan(want), "{kernel:?}");
                assert_eq!(got.iter().filter(|x| x.is_nan()).count(), 200, "rows 2 and 3 are one group");
            }
        }
    }
}

#[test]
fn an_infinite_logit_poisons_a_saved_row() {
    let Some(ctx) = context() else { return };
    for kernel in [Kernel::Row, Kernel::RowResident { trips: 0 }, Kernel::RowSplit { splits: 3 }] {
        let mut data = Data::new(100);
        data.reference[3 * 100 + 50] = f32::INFINITY;
        let (_, want) = data.on_cpu();
        let (loss, got, _) =
            data.on_gpu(ctx, DType::F32, Pinned { kernel: Some(kernel), ..Pinned::default() }).unwrap();
        assert!(loss.is_nan());
        for (got, want) in got.iter().zip(&want) {
            assert_eq!(is_nan(got), is_nan(want), "{kernel:?}");
        }
    }
}
