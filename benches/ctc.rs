//! CTC loss and gradient from logits, beside PyTorch on the CPU where `WGLOSS_TORCH_PYTHON` names a Python that has it:
//! `cargo bench --bench ctc -- [sequences frames classes labels]`. Checked before it is timed, rounds interleaved.

use std::io::{BufRead, BufReader, Write};
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};
use std::time::Instant;
use wgloss::{Bindings, Bound, Context, DType, HostTensor, PlanSpec, Tensor, fused};

const ROUNDS: usize = 5;

/// Sizes of the problem, whose values are those of `ctc_peer.py` too.
#[derive(Clone, Copy)]
struct Sizes {
    sequences: usize,
    frames: usize,
    classes: usize,
    labels: usize,
}

impl Sizes {
    fn logits(self, sequences: std::ops::Range<usize>) -> Vec<f32> {
        let mut all = Vec::with_capacity(self.frames * sequences.len() * self.classes);
        for t in 0..self.frames {
            for n in sequences.clone() {
                let of = |c: usize| (((t * 31 + n * 17 + c * 7919) % 1009) as f32) / 1009.0 * 6.0 - 3.0;
                all.extend((0..self.classes).map(of));
            }
        }
        all
    }

    fn targets(self) -> Vec<i32> {
        let label = |n: usize, s: usize| (1 + (n * 13 + s * 29) % (self.classes - 1)) as i32;
        (0..self.sequences).flat_map(|n| (0..self.labels).map(move |s| label(n, s))).collect()
    }

    fn lengths(self) -> [Vec<i32>; 2] {
        let frames = |n: usize| (self.frames - n % 8) as i32;
        let labels = |n: usize| (self.labels - n % 16) as i32;
        [(0..self.sequences).map(frames).collect(), (0..self.sequences).map(labels).collect()]
    }

    fn bind(self, ctx: &Context) -> wgloss::Result<Bound> {
        let Sizes { sequences, frames, classes, labels } = self;
        let spec = PlanSpec::new()
            .input("logits", DType::F32, &[frames, sequences, classes])
            .input("targets", DType::I32, &[sequences, labels])
            .input("input_lengths", DType::I32, &[sequences])
            .input("target_lengths", DType::I32, &[sequences])
            .grad("logits");
        let plan = ctx.plan(&fused::ctc().from_logits(), &spec)?;
        println!("{}", plan.explain());
        let [of_frames, of_labels] = self.lengths();
        let logits = Tensor::from_slice(ctx, &self.logits(0..sequences), &[frames, sequences, classes])?;
        let targets = Tensor::from_slice(ctx, &self.targets(), &[sequences, labels])?;
        let of_frames = Tensor::from_slice(ctx, &of_frames, &[sequences])?;
        let of_labels = Tensor::from_slice(ctx, &of_labels, &[sequences])?;
        let inputs =
            [("logits", &logits), ("targets", &targets), ("input_lengths", &of_frames), ("target_lengths", &of_labels)];
        plan.bind(&Bindings::new().inputs(&inputs))
    }

    /// The first sequence's gradient, in f64.
    fn first(self) -> wgloss::Result<Vec<f64>> {
        let Sizes { frames, classes, labels, sequences } = self;
        let (logits, targets, [of_frames, of_labels]) = (self.logits(0..1), self.targets(), self.lengths());
        let inputs = [
            ("logits", HostTensor::f32(&logits, &[frames, 1, classes])),
            ("targets", HostTensor::i32(&targets[..labels], &[1, labels])),
            ("input_lengths", HostTensor::i32(&of_frames[..1], &[1])),
            ("target_lengths", HostTensor::i32(&of_labels[..1], &[1])),
        ];
        let out = fused::cpu::forward_backward(&fused::ctc().from_logits(), &inputs, &["logits"])?;
        Ok(out.grad("logits")?.iter().map(|g| g / sequences as f64).collect())
    }
}

/// PyTorch in a process of its own, which makes the same problem and runs it when told.
struct Peer {
    child: Child,
    told: ChildStdin,
    says: BufReader<ChildStdout>,
}

impl Peer {
    fn start(sizes: Sizes) -> Option<Peer> {
        let python = std::env::var_os("WGLOSS_TORCH_PYTHON")?;
        let script = concat!(env!("CARGO_MANIFEST_DIR"), "/benches/ctc_peer.py");
        let sizes = [sizes.sequences, sizes.frames, sizes.classes, sizes.labels].map(|size| size.to_string());
        let mut child = Command::new(python)
            .arg(script)
            .args(sizes)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .expect("the Python that WGLOSS_TORCH_PYTHON names");
        let (told, says) = (child.stdin.take().expect("a pipe"), child.stdout.take().expect("a pipe"));
        Some(Peer { child, told, says: BufReader::new(says) })
    }

    /// Milliseconds of a step, and its loss.
    fn step(&mut self) -> [f64; 2] {
        writeln!(self.told, "step").expect("the peer listens");
        let mut line = String::new();
        self.says.read_line(&mut line).expect("the peer answers");
        let mut numbers = line.split_whitespace().map(|text| text.parse().expect("a number"));
        [numbers.next().expect("milliseconds"), numbers.next().expect("a loss")]
    }
}

fn median(mut times: Vec<f64>) -> f64 {
    times.sort_by(f64::total_cmp);
    times[times.len() / 2]
}

fn main() -> wgloss::Result<()> {
    let given: Vec<usize> = std::env::args().skip(1).filter_map(|arg| arg.parse().ok()).collect();
    let &[sequences, frames, classes, labels] = (if given.len() == 4 { &given[..] } else { &[64, 1000, 5000, 100] })
    else {
        unreachable!("four sizes")
    };
    let sizes = Sizes { sequences, frames, classes, labels };
    let ctx = Context::new()?;
    let bound = sizes.bind(&ctx)?;
    let step = || -> wgloss::Result<(f64, f32)> {
        let start = Instant::now();
        bound.submit()?;
        let loss = bound.read_loss()?;
        Ok((start.elapsed().as_secs_f64() * 1e3, loss))
    };
    // Check, then time.
    let (_, loss) = step()?;
    let (want, grad) = (sizes.first()?, bound.grad("logits")?);
    let rows = grad.view(0, &[frames, 1, classes], &[sequences * classes, classes, 1])?;
    let got: Vec<f32> = rows.to_vec()?;
    let most = want.iter().fold(0.0, |most: f64, g| most.max(g.abs()));
    let worst = got.iter().zip(&want).map(|(got, want)| (f64::from(*got) - want).abs()).fold(0.0, f64::max);
    println!("loss {loss}; first sequence's gradient is off by {:.1e} of its largest", worst / most);
    assert!(worst <= 2e-6 * most, "the gradient is off by {worst:e}");
    let mut peer = Peer::start(sizes);
    if let Some(peer) = &mut peer {
        let [_, theirs] = peer.step();
        assert!((f64::from(loss) - theirs).abs() <= 1e-4 * theirs, "{loss}, PyTorch {theirs}");
    }
    let (mut ours, mut theirs) = (Vec::new(), Vec::new());
    for _ in 0..ROUNDS {
        ours.push(step()?.0);
        theirs.extend(peer.as_mut().map(|peer| peer.step()[0]));
    }
    let ours = median(ours);
    println!("ctc [{frames}, {sequences}, {classes}], {labels} labels: wgloss {ours:.0} ms");
    if !theirs.is_empty() {
        let theirs = median(theirs);
        println!("PyTorch on the CPU {theirs:.0} ms: {:.2} of its time", ours / theirs);
    }
    if let Some(Peer { mut child, told, .. }) = peer {
        drop(told);
        child.wait().expect("the peer ends");
    }
    Ok(())
}
