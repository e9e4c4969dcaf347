//! Burn on Vulkan: autodiff and fusion.

use burn::nn::loss::{CrossEntropyLossConfig, HuberLossConfig, MseLoss, Reduction};
use burn::tensor::{Device, DeviceKind, Int, Tensor, TensorData};
use wgloss_peers::{Answer, DType, Fallible, LossName, Peer, Summary, Work, serve, summary};

struct Burn {
    device: Device,
}

/// Loss and gradient of the last step, kept so that fusion does not leave them out.
struct Step<const D: usize> {
    device: Device,
    input: Tensor<D>,
    forward: Box<dyn Fn(Tensor<D>) -> Tensor<1>>,
    last: Option<(Tensor<1>, Tensor<D>)>,
}

impl<const D: usize> Answer for Step<D> {
    fn step(&mut self) -> Fallible<()> {
        let input = self.input.clone().detach().require_grad();
        let loss = (self.forward)(input.clone());
        let gradients = loss.backward();
        let gradient = input.grad(&gradients).ok_or("no gradient")?;
        self.last = Some((loss, gradient));
        self.device.sync().map_err(|error| format!("{error:?}"))?;
        Ok(())
    }

    fn read(&mut self) -> Fallible<Summary> {
        let (loss, gradient) = self.last.clone().ok_or("read before a step")?;
        let loss = loss.into_data().try_to_vec::<f32>().map_err(|error| format!("{error:?}"))?;
        let gradient = gradient.into_data().try_to_vec::<f32>().map_err(|error| format!("{error:?}"))?;
        Ok(summary(f64::from(loss[0]), &gradient))
    }
}

impl Peer for Burn {
    fn hello(&self) -> [String; 3] {
        ["burn".to_owned(), "0.22".to_owned(), format!("{:?}", self.device)]
    }

    fn prepare(&mut self, work: &Work) -> Fallible<Box<dyn Answer>> {
        if work.dtype != DType::F32 {
            return Err("Burn is timed in f32".into());
        }
        let device = &self.device;
        let tensor = |values: Vec<f32>| Tensor::<1>::from_data(TensorData::new(values, [work.elements()]), device);
        if work.loss == LossName::CrossEntropy {
            let shape = [work.rows, work.cols];
            let input = Tensor::<2>::from_data(TensorData::new(work.input(), shape), device);
            let labels = Tensor::<1, Int>::from_data(TensorData::new(work.labels(), [work.rows]), device);
            let loss = CrossEntropyLossConfig::new().init(device);
            let forward = Box::new(move |x| loss.forward(x, labels.clone()));
            return Ok(Box::new(Step { device: device.clone(), input, forward, last: None }));
        }
        let (input, target) = (tensor(work.input()), tensor(work.target()));
        let huber = HuberLossConfig::new(1.0).init();
        let is_mse = work.loss == LossName::Mse;
        let forward = Box::new(move |x: Tensor<1>| match is_mse {
            true => MseLoss::new().forward(x, target.clone(), Reduction::Mean),
            false => huber.forward(x, target.clone(), Reduction::Mean),
        });
        Ok(Box::new(Step { device: device.clone(), input, forward, last: None }))
    }
}

fn main() -> Fallible<()> {
    serve(&mut Burn { device: Device::vulkan(DeviceKind::DefaultDevice).autodiff() })
}
