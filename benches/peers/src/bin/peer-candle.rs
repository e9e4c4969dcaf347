//! candle on the host's cores: forward, then backward.

use candle_core::{Device, Tensor, Var};
use candle_nn::loss;
use half::bf16;
use wgloss_peers::{Answer, DType, Fallible, LossName, Peer, Summary, Work, serve, summary};

struct Candle;

struct Step {
    name: LossName,
    input: Var,
    target: Tensor,
    last: Option<(Tensor, Tensor)>,
}

impl Answer for Step {
    fn step(&mut self) -> Fallible<()> {
        let input = self.input.as_tensor();
        let value = match self.name {
            LossName::CrossEntropy => loss::cross_entropy(input, &self.target)?,
            LossName::Mse => loss::mse(input, &self.target)?,
            LossName::Huber => loss::huber(input, &self.target, 1.0)?,
        };
        let gradient = value.backward()?.remove(input).ok_or("no gradient")?;
        self.last = Some((value, gradient));
        Ok(())
    }

    fn read(&mut self) -> Fallible<Summary> {
        let (value, gradient) = self.last.as_ref().ok_or("read before a step")?;
        let f32 = candle_core::DType::F32;
        let gradient = gradient.to_dtype(f32)?.flatten_all()?.to_vec1::<f32>()?;
        Ok(summary(f64::from(value.to_dtype(f32)?.to_scalar::<f32>()?), &gradient))
    }
}

impl Peer for Candle {
    fn hello(&self) -> [String; 3] {
        ["candle-cpu".to_owned(), "0.11".to_owned(), "the host".to_owned()]
    }

    fn prepare(&mut self, work: &Work) -> Fallible<Box<dyn Answer>> {
        let shape = work.shape();
        let tensor = |values: Vec<f32>| match work.dtype {
            DType::F32 => Tensor::from_vec(values, shape.as_slice(), &Device::Cpu),
            DType::Bf16 => {
                let values: Vec<bf16> = values.into_iter().map(bf16::from_f32).collect();
                Tensor::from_vec(values, shape.as_slice(), &Device::Cpu)
            }
        };
        let target = match work.loss {
            LossName::CrossEntropy => {
                let labels: Vec<u32> = work.labels().iter().map(|label| *label as u32).collect();
                Tensor::from_vec(labels, work.rows, &Device::Cpu)?
            }
            _ => tensor(work.target())?,
        };
        Ok(Box::new(Step { name: work.loss, input: Var::from_tensor(&tensor(work.input())?)?, target, last: None }))
    }
}

fn main() -> Fallible<()> {
    serve(&mut Candle)
}
