use wgloss::{Context, Tensor, losses};
#[test]
fn smoke() {
    let ctx = Context::new().unwrap();
    println!("{ctx:?}");
    let logits = Tensor::from_slice(&ctx, &[2.0f32, 0.5, -1.0, 0.0, 1.0, 3.0], &[2, 3]).unwrap();
    let labels = Tensor::from_slice(&ctx, &[0i32, 2], &[2]).unwrap();
    let target = Tensor::from_slice(&ctx, &[1.0f32, 0.5, -1.0, 0.0, 1.0, 2.0], &[2, 3]).unwrap();
    let out = losses::mse().forward_backward(&ctx, &[("input", &logits), ("target", &target)]).unwrap();
    println!("{} {:?} {}", out.loss().unwrap(), out.grad("input").unwrap().to_vec::<f32>(), out.bound().explain());
    let out = losses::cross_entropy().forward_backward(&ctx, &[("input", &logits), ("target", &labels)]).unwrap();
    println!("{} {:?} {}", out.loss().unwrap(), out.grad("input").unwrap().to_vec::<f32>(), out.bound().explain());
}
