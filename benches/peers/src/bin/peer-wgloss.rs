//! wgloss, on the adapter (`peer-wgloss`), or on the host's cores (`peer-wgloss cpu`).

use half::bf16;
use measure::copy::Copy;
use wgloss::Wanted;
use wgloss::{Bindings, Bound, Context, CpuOutput, CpuPlan, HostTensor, Loss, PlanSpec, Tensor, losses};
use wgloss_peers::{Answer, DType, Fallible, LossName, Peer, Summary, Work, serve, summary};

fn loss_of(name: LossName) -> Loss {
    match name {
        LossName::CrossEntropy => losses::cross_entropy().into(),
        LossName::Mse => losses::mse(),
        LossName::Huber => losses::huber(1.0).into(),
    }
}

fn version() -> String {
    measure::VERSION.to_owned()
}

struct Gpu {
    ctx: Context,
    device: String,
}

impl Gpu {
    fn new() -> Fallible<Gpu> {
        let ctx = Context::new()?;
        let info = ctx.device().adapter_info();
        let driver = format!("{} {}", info.driver, info.driver_info);
        let device = [info.name, format!("{:?}", info.backend), driver, format!("{:?}", info.device_type)].join("; ");
        Ok(Gpu { ctx, device })
    }

    fn tensor(&self, values: &[f32], shape: &[usize], dtype: DType) -> wgloss::Result<Tensor> {
        match dtype {
            DType::F32 => Tensor::from_slice(&self.ctx, values, shape),
            DType::Bf16 => {
                let values: Vec<bf16> = values.iter().map(|x| bf16::from_f32(*x)).collect();
                Tensor::from_slice(&self.ctx, &values, shape)
            }
        }
    }
}

/// A bound plan; each step is submitted and waited for.
struct GpuStep {
    ctx: Context,
    bound: Bound,
}

impl Answer for GpuStep {
    fn step(&mut self) -> Fallible<()> {
        self.bound.submit()?;
        self.ctx.device().poll(wgpu::PollType::wait_indefinitely())?;
        Ok(())
    }

    fn read(&mut self) -> Fallible<Summary> {
        let gradient = self.bound.grad("input")?;
        let gradient = match gradient.dtype() {
            wgloss::DType::BF16 => wgloss::widen_bf16(&gradient.to_vec()?),
            _ => gradient.to_vec()?,
        };
        Ok(summary(f64::from(self.bound.read_loss()?), &gradient))
    }
}

/// As many bytes from one buffer to another, by the adapter.
struct CopyStep {
    ctx: Context,
    copy: Copy,
}

impl Answer for CopyStep {
    fn step(&mut self) -> Fallible<()> {
        let mut encoder = self.ctx.device().create_command_encoder(&wgpu::CommandEncoderDescriptor::default());
        (self.copy.command())(&mut encoder, None)?;
        self.ctx.queue().submit([encoder.finish()]);
        self.ctx.device().poll(wgpu::PollType::wait_indefinitely())?;
        Ok(())
    }

    fn read(&mut self) -> Fallible<Summary> {
        Ok(Summary { loss: 0.0, norm: 0.0, projection: 0.0 })
    }
}

impl Peer for Gpu {
    fn hello(&self) -> [String; 3] {
        ["wgloss".to_owned(), version(), self.device.clone()]
    }

    fn prepare(&mut self, work: &Work) -> Fallible<Box<dyn Answer>> {
        let ctx = &self.ctx;
        let shape = work.shape();
        let x = self.tensor(&work.input(), &shape, work.dtype)?;
        let y = match work.loss {
            LossName::CrossEntropy => Tensor::from_slice(ctx, &work.labels(), &shape[..1])?,
            _ => self.tensor(&work.target(), &shape, work.dtype)?,
        };
        let inputs = [("input", &x), ("target", &y)];
        let plan = ctx.plan(&loss_of(work.loss), &PlanSpec::new().like(&inputs).grad("input"))?;
        let bound = plan.bind(&Bindings::new().inputs(&inputs))?;
        Ok(Box::new(GpuStep { ctx: ctx.clone(), bound }))
    }

    fn prepare_copy(&mut self, bytes: u64) -> Fallible<Box<dyn Answer>> {
        let buffer = || {
            self.ctx.device().create_buffer(&wgpu::BufferDescriptor {
                label: Some("copy"),
                size: bytes,
                usage: wgpu::BufferUsages::STORAGE | wgpu::BufferUsages::COPY_SRC | wgpu::BufferUsages::COPY_DST,
                mapped_at_creation: false,
            })
        };
        let copy = Copy::between(&self.ctx, [buffer(), buffer()]);
        Ok(Box::new(CopyStep { ctx: self.ctx.clone(), copy }))
    }
}

/// The same programs on the host.
struct Cpu;

struct CpuStep {
    shape: Vec<usize>,
    input: Vec<f32>,
    target: Vec<f32>,
    labels: Vec<i32>,
    plan: Option<(CpuPlan<f32>, CpuOutput<f32>)>,
}

impl CpuStep {
    fn host(&self) -> [(&'static str, HostTensor<'_>); 2] {
        let target = match self.target.is_empty() {
            true => HostTensor::i32(&self.labels, &self.shape[..1]),
            false => HostTensor::f32(&self.target, &self.shape),
        };
        [("input", HostTensor::f32(&self.input, &self.shape)), ("target", target)]
    }
}

impl Answer for CpuStep {
    fn step(&mut self) -> Fallible<()> {
        let (plan, mut out) = self.plan.take().ok_or("a step before its plan")?;
        plan.run(&self.host(), &mut out)?;
        self.plan = Some((plan, out));
        Ok(())
    }

    fn read(&mut self) -> Fallible<Summary> {
        let (_, out) = self.plan.as_ref().ok_or("read before a step")?;
        Ok(summary(out.loss()?, out.grad("input")?))
    }
}

impl Peer for Cpu {
    fn hello(&self) -> [String; 3] {
        ["wgloss-cpu".to_owned(), version(), format!("{} threads", rayon::current_num_threads())]
    }

    fn prepare(&mut self, work: &Work) -> Fallible<Box<dyn Answer>> {
        if work.dtype != DType::F32 {
            return Err("host tensors are f32".into());
        }
        let is_labels = work.loss == LossName::CrossEntropy;
        let mut step = CpuStep {
            shape: work.shape(),
            input: work.input(),
            target: if is_labels { Vec::new() } else { work.target() },
            labels: work.labels(),
            plan: None,
        };
        let wanted = Wanted { loss: true, grads: vec!["input".to_owned()], ..Wanted::default() };
        let plan = CpuPlan::new(&loss_of(work.loss), &step.host(), &wanted)?;
        let out = plan.output();
        step.plan = Some((plan, out));
        Ok(Box::new(step))
    }
}

fn main() -> Fallible<()> {
    match std::env::args().nth(1).as_deref() {
        None => serve(&mut Gpu::new()?),
        Some("cpu") => serve(&mut Cpu),
        Some(other) => Err(format!("{other}: nothing, or cpu").into()),
    }
}
