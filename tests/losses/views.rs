//! Losses of views of one buffer.

use crate::common::context;
use wgloss::{Bindings, DType, GradMode, Layout, PlanSpec, Reduction, Result, Tensor, losses};

/// Height, width.
const IMAGE: [usize; 2] = [5, 7];

fn pixel(k: usize) -> f32 {
    ((k * 37 + 11) % 29) as f32 / 8.0
}

/// The total variation of the image along both axes, and its gradient, by plain loops.
fn want(image: &[f32]) -> (f64, Vec<f64>) {
    let [height, width] = IMAGE;
    let (mut sum, mut gradient) = (0.0, vec![0.0; image.len()]);
    let mut pair = |k: usize, next: usize| {
        let difference = f64::from(image[next]) - f64::from(image[k]);
        sum += difference.abs();
        let sign = if difference == 0.0 { 0.0 } else { difference.signum() };
        gradient[next] += sign;
        gradient[k] -= sign;
    };
    for row in 0..height {
        (1..width).for_each(|column| pair(row * width + column - 1, row * width + column));
    }
    for column in 0..width {
        (1..height).for_each(|row| pair((row - 1) * width + column, row * width + column));
    }
    (sum, gradient)
}

#[test]
fn total_variation_of_views_of_one_image_adds_its_gradients_up_in_one_buffer() -> Result<()> {
    let Some(ctx) = context() else { return Ok(()) };
    let [height, width] = IMAGE;
    let values: Vec<f32> = (0..height * width).map(pixel).collect();
    let image = Tensor::from_slice(ctx, &values, &IMAGE)?;
    let gradient = Tensor::zeros(ctx, DType::F32, &IMAGE)?;
    let loss = losses::total_variation().reduction(Reduction::Sum);
    let mut sum = 0.0;
    for (shape, step) in [([height, width - 1], 1), ([height - 1, width], width as u64)] {
        let view = |tensor: &Tensor, offset: u64| tensor.view(offset, &shape, &[width, 1]);
        let layout = || Layout { shape: shape.to_vec(), strides: vec![width, 1] };
        for (input, offset) in [("input", 0), ("next", step)] {
            let spec = PlanSpec::new().input_with("input", DType::F32, layout());
            let spec = spec.input_with("next", DType::F32, layout()).grad_mode(input, GradMode::Accumulate);
            let bindings = Bindings::new().input("input", &view(&image, 0)?).input("next", &view(&image, step)?);
            let bound = ctx.plan(&loss, &spec)?.bind(&bindings.grad(input, &view(&gradient, offset)?))?;
            bound.submit()?;
            // Both plans of an axis have its loss.
            sum += f64::from(bound.read_loss()?) / 2.0;
        }
    }
    let (total, slopes) = want(&values);
    assert!((sum - total).abs() < 1e-5 * total, "{sum}, want {total}");
    let got: Vec<f64> = gradient.to_vec::<f32>()?.into_iter().map(f64::from).collect();
    assert_eq!(got, slopes);
    Ok(())
}
