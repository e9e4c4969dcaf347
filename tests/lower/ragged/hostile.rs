//! Offsets and ids that are not allowed, and groups that cannot be.

use super::numbers::{By, Numbers, Rows, close, distance, read};
use crate::common::context;
use wgloss::cpu::CpuPlan;
use wgloss::export::Export;
use wgloss::{
    Bindings, Context, DType, Error, GroupInput, HostTensor, Layout, Loss, PlanSpec, Ragged, Reduction, RowAxis, Scope,
    Shard, Tensor, Wanted, losses,
};

/// Numbers between margins that no kernel may touch.
struct Guarded {
    whole: Tensor,
    inner: Tensor,
}

const MARGIN: usize = 64;
const CANARY: f32 = 123.5;

impl Guarded {
    fn new(ctx: &Context, values: &[f32], shape: &[usize]) -> Guarded {
        let all = [&[CANARY; MARGIN], values, &[CANARY; MARGIN]].concat();
        let whole = Tensor::from_slice(ctx, &all, &[all.len()]).unwrap();
        let inner = whole.view(MARGIN as u64, shape, &Layout::contiguous(shape).strides).unwrap();
        Guarded { whole, inner }
    }

    fn read(&self, what: &str) -> Vec<f64> {
        let all = read(&self.whole);
        let end = all.len() - MARGIN;
        let is_canary = |x: &f64| *x == f64::from(CANARY);
        assert!(all[..MARGIN].iter().chain(&all[end..]).all(is_canary), "{what}: {all:?}");
        all[MARGIN..end].to_vec()
    }
}

#[test]
fn hostile_groups_poison_and_are_told_and_change_nothing_else() {
    let Some(ctx) = context() else { return };
    let rows = Rows { lengths: vec![4, 3, 5], cols: 3 };
    let numbers = Numbers::new(&rows);
    let wild = [i32::MIN, -1, i32::MAX, 13, 0x4000_0000];
    let mut cases: Vec<(By, Vec<i32>, u64)> = Vec::new();
    for value in wild {
        for index in 0..4 {
            let mut offsets = rows.offsets();
            offsets[index] = value;
            cases.push((By::Offsets, offsets, index as u64));
        }
        for index in [0, 5, 11] {
            let mut ids = rows.ids();
            ids[index] = value;
            cases.push((By::Ids, ids, index as u64));
        }
    }
    cases.push((By::Offsets, vec![1, 4, 7, 12], 0));
    cases.push((By::Offsets, vec![0, 7, 4, 12], 2));
    cases.push((By::Offsets, vec![0, 4, 7, 11], 3));
    cases.push((By::Offsets, vec![12, 8, 4, 0], 0));
    cases.push((By::Ids, vec![2, 2, 2, 2, 1, 1, 1, 0, 0, 0, 0, 0], 4));
    cases.push((By::Ids, vec![0, 1, 2, 0, 1, 2, 0, 1, 2, 0, 1, 2], 3));
    // Offsets among which a search from row 11 finds no group, while the last group begins and ends where it may.
    cases.push((By::Offsets, vec![13, 9, 4, 12], 0));
    for (by, indices, first) in cases {
        check_hostile(ctx, &rows, &numbers, (by, &indices), first);
    }
}

/// A group whose offsets are allowed sums its rows, though the search from a row, among offsets that descend, may miss it.
/// A group that begins at an offset that is not allowed is poisoned, as is the one that ends there.
#[test]
fn a_group_is_poisoned_by_its_own_two_offsets_alone() {
    let Some(ctx) = context() else { return };
    let loss = Loss::define("sums").input("r", Scope::Row).input("x", Scope::Element).row_axis(RowAxis::Last);
    let loss = loss.expr(|b| (b.input("r") + b.input("x").sum()).sum_over(Scope::Group)).reduction(Reduction::None);
    let (r, x) = ([1.0f32; 64], [0.0f32; 64]);
    let nan = f64::NAN;
    let cases: [(&[i32], &[f64]); 4] = [
        (&[0, 36, 30, 50, 64], &[36.0, nan, nan, 14.0]),
        (&[1, 36, 50, 64], &[nan, 14.0, 14.0]),
        (&[i32::MIN, 64, 59, 64], &[nan, nan, nan]),
        // From row 30, a search sees 68, 70 and 100, and finds no group.
        (&[100, 70, 69, 68, 1, 2, 50, 64], &[nan, nan, nan, nan, nan, 48.0, 14.0]),
    ];
    for (offsets, want) in cases {
        let shape = [offsets.len()];
        let host = [
            ("r", HostTensor::f32(&r, &[64])),
            ("x", HostTensor::f32(&x, &[64, 1])),
            ("groups", HostTensor::i32(offsets, &shape)),
        ];
        let groups = Some(GroupInput::offsets("groups"));
        let mut out =
            wgloss::cpu::run::<f64>(&loss, &host, &Wanted { loss: true, groups, ..Wanted::default() }).unwrap();
        assert!(matches!(out.take_bad_group(), Some(Error::GroupOutOfRange { .. })), "{offsets:?}");
        close(&format!("{offsets:?}, CPU"), out.loss_values().unwrap(), want);
        let tensors = [
            ("r", &Tensor::from_slice(ctx, &r, &[64]).unwrap()),
            ("x", &Tensor::from_slice(ctx, &x, &[64, 1]).unwrap()),
            ("groups", &Tensor::from_slice(ctx, offsets, &shape).unwrap()),
        ];
        let plan = ctx.plan(&loss, &PlanSpec::new().like(&tensors).group_offsets("groups")).unwrap();
        let bound = plan.bind(&Bindings::new().inputs(&tensors)).unwrap();
        bound.submit().unwrap();
        close(&format!("{offsets:?}, GPU"), &read(bound.loss().unwrap()), want);
    }
}

/// Both paths name the element `first`, agree on what is NaN, and compute the rest.
fn check_hostile(ctx: &Context, rows: &Rows, numbers: &Numbers, (by, indices): (By, &[i32]), first: u64) {
    let what = format!("{by:?} {indices:?}");
    let loss = distance().reduction(Reduction::None);
    let inputs = numbers.inputs(rows, &[]);
    let shape = [indices.len()];
    let mut host: Vec<(&str, HostTensor<'_>)> =
        inputs.iter().map(|(name, values, shape)| (*name, HostTensor::f32(values, shape))).collect();
    host.push(("groups", HostTensor::i32(indices, &shape)));
    let grads = ["x", "r", "t"];
    let wanted = Wanted {
        loss: true,
        grads: grads.map(str::to_owned).to_vec(),
        extras: vec!["above".to_owned()],
        groups: Some(rows.group_input(by)),
        ..Wanted::default()
    };
    let mut out = wgloss::cpu::run::<f64>(&loss, &host, &wanted).unwrap();
    let told = out.loss_values().unwrap_err();
    assert_eq!(out.take_bad_group().as_ref(), Some(&told), "{what}");
    let Error::GroupOutOfRange { ref input, index, value, .. } = told else { panic!("{what}: {told}") };
    assert_eq!((input.as_str(), index, value), ("groups", first, Some(indices[first as usize].into())), "{what}");
    let mut want = vec![out.loss_values().unwrap().to_vec()];
    want.extend(grads.map(|name| out.grad(name).unwrap().to_vec()));
    want.push(out.extra("above").unwrap().to_vec());
    assert!(want[0].iter().chain(&want[4]).any(|x| x.is_nan()), "{what}: {want:?}");

    let guarded: Vec<(&str, Guarded)> =
        inputs.iter().map(|(name, values, shape)| (*name, Guarded::new(ctx, values, shape))).collect();
    let groups = [&[7; MARGIN], indices, &[7; MARGIN]].concat();
    let groups = Tensor::from_slice(ctx, &groups, &[groups.len()]).unwrap().view(MARGIN as u64, &shape, &[1]).unwrap();
    let mut tensors: Vec<(&str, &Tensor)> = guarded.iter().map(|(name, tensor)| (*name, &tensor.inner)).collect();
    tensors.push(("groups", &groups));
    let spec = grads.iter().fold(PlanSpec::new().like(&tensors), |spec, name| spec.grad(name)).extra("above");
    let plan = ctx.plan(&loss, &rows.give(spec, by)).unwrap();
    let written: Vec<Guarded> =
        inputs.iter().map(|(_, values, shape)| Guarded::new(ctx, &vec![0.0; values.len()], shape)).collect();
    let of_groups = Guarded::new(ctx, &[0.0; 3], &[3]);
    let above = Guarded::new(ctx, &[0.0; 12], &[12]);
    let bindings = Bindings::new().inputs(&tensors).loss(&of_groups.inner).extra("above", &above.inner);
    let named = grads.iter().zip(&written);
    let bindings = named.fold(bindings, |bindings, (name, grad)| bindings.grad(name, &grad.inner));
    let bound = plan.bind(&bindings).unwrap();
    bound.submit().unwrap();
    assert_eq!(pollster::block_on(bound.status()), Err(told), "{what}");
    assert_eq!(pollster::block_on(bound.status()), Ok(()), "{what}: told once");
    close(&format!("{what}: loss"), &of_groups.read(&what), &want[0]);
    for (k, (name, got)) in grads.iter().zip(&written).enumerate() {
        close(&format!("{what}: gradient of {name}"), &got.read(&what), &want[1 + k]);
    }
    close(&format!("{what}: above"), &above.read(&what), &want[4]);
}

#[test]
fn groups_that_cannot_be_are_refused_alike() {
    let ctx = context();
    let sums = || {
        Loss::define("sums")
            .input("x", Scope::Element)
            .row_axis(RowAxis::Last)
            .expr(|b| b.input("x").sum().sum_over(Scope::Group))
    };
    let flat = || Loss::define("flat").input("x", Scope::Element).row_axis(RowAxis::Last).expr(|b| b.input("x").sum());
    let offsets = || GroupInput::offsets("groups");
    type IsRight = fn(&Error) -> bool;
    let cases: [(Loss, GroupInput, usize, Vec<usize>, IsRight); 9] = [
        (sums(), offsets(), 4, vec![], |e| matches!(e, Error::Shape { .. })),
        (sums(), offsets(), 4, vec![2, 2], |e| matches!(e, Error::Shape { .. })),
        (sums(), offsets(), 4, vec![0], |e| matches!(e, Error::Shape { .. })),
        (sums(), offsets(), 4, vec![1], |e| matches!(e, Error::Shape { .. })),
        (sums(), GroupInput::ids("groups", 2), 4, vec![5], |e| matches!(e, Error::Shape { .. })),
        (sums(), GroupInput::ids("groups", 0), 4, vec![4], |e| matches!(e, Error::Shape { .. })),
        (sums(), GroupInput::offsets("x"), 4, vec![3], |e| matches!(e, Error::Name { .. })),
        (flat(), offsets(), 4, vec![3], |e| matches!(e, Error::Expr { .. })),
        (sums(), offsets(), 0, vec![3], |e| matches!(e, Error::Unsupported { .. })),
    ];
    for (loss, groups, rows, shape, is_right) in cases {
        let what = format!("{} {groups:?} of {rows} rows, {shape:?}", loss.name());
        let (x, indices) = (vec![1.0; rows * 2], vec![0; shape.iter().product()]);
        let host = [("x", HostTensor::f32(&x, &[rows, 2])), ("groups", HostTensor::i32(&indices, &shape))];
        let wanted = Wanted { loss: true, groups: Some(groups.clone()), ..Wanted::default() };
        let error = CpuPlan::<f64>::new(&loss, &host, &wanted).map(|_| ()).unwrap_err();
        assert!(is_right(&error), "{what} on the CPU: {error}");
        let Some(ctx) = ctx else { continue };
        let spec = PlanSpec::new().input("x", DType::F32, &[rows, 2]).input("groups", DType::I32, &shape);
        let spec = match groups.by {
            Ragged::Offsets => spec.group_offsets(&groups.input),
            Ragged::Ids { groups: count } => spec.group_ids(&groups.input, count),
        };
        let error = ctx.plan(&loss, &spec).map(|_| ()).unwrap_err();
        assert!(is_right(&error), "{what} on the GPU: {error}");
    }
    let Some(ctx) = ctx else { return };
    let spec =
        |dtype| PlanSpec::new().input("x", DType::F32, &[4, 2]).input("groups", dtype, &[3]).group_offsets("groups");
    let plan = |spec: &PlanSpec| ctx.plan(&sums(), spec).map(|_| ());
    assert_eq!(plan(&spec(DType::U32)), Ok(()));
    assert!(matches!(plan(&spec(DType::F32)), Err(Error::DType { input, .. }) if input == "groups"));
    assert!(matches!(plan(&spec(DType::I32).group_rows(2)), Err(Error::Param { param, .. }) if param == "group_rows"));
    let missing = PlanSpec::new().input("x", DType::F32, &[4, 2]).group_offsets("groups");
    assert!(matches!(plan(&missing), Err(Error::Name { name, .. }) if name == "groups"));
    let shard = Shard { first: 0, classes: 4, shards: 2 };
    assert!(matches!(plan(&spec(DType::I32).shard(shard)), Err(Error::Unsupported { .. })));
    let export = Export::new(&sums(), &spec(DType::I32));
    assert!(matches!(export, Err(Error::Unsupported { .. })));
    let beside = ctx.plan(&sums().beside(losses::mse()), &spec(DType::I32)).map(|_| ());
    assert!(matches!(beside, Err(Error::Unsupported { .. }) | Err(Error::Name { .. })), "{beside:?}");
}
