//! Losses of regions.

use super::{Array, Case, Losses, Opt, log_softmax, of_rows, range};
use crate::common::real::Real;

/// The losses of that name; `None` for those of other families.
pub fn losses<R: Real>(name: &str, case: &Case<R>) -> Option<Losses<R>> {
    Some(match name {
        "dice" => {
            regions(case, |t, p, sum| R::ONE - sum(&|k| t[k] * p[k]) * 2.0 / (sum(&|k| t[k]) + sum(&|k| p[k]) + 1e-7))
        }
        "tversky" => regions(case, |t, p, sum| {
            let (missed, added) = (sum(&|k| t[k] * (R::ONE - p[k])), sum(&|k| p[k] * (R::ONE - t[k])));
            let both = sum(&|k| t[k] * p[k]);
            let wrong = missed * case.num("alpha", 0.5) + added * case.num("beta", 0.5);
            R::ONE - both / (both + wrong + 1e-7)
        }),
        "boundary" => boundary(case),
        _ => return None,
    })
}

/// Sums of terms by index.
type Sum<'a, R> = &'a dyn Fn(&dyn Fn(usize) -> R) -> R;

/// One loss for all axes from Keras's `axis` on.
fn regions<R: Real>(case: &Case<R>, loss: impl Fn(&[R], &[R], Sum<'_, R>) -> R) -> Losses<R> {
    let first = if let Some(Opt::AxesFrom(axis)) = case.options.get("axis") { *axis } else { 0 };
    let shape = case.common_shape(&["y_true", "y_pred"]);
    let (t, p) = (case.spread("y_true", &shape), case.spread("y_pred", &shape));
    let size: usize = shape[first..].iter().product();
    let rows: Vec<Vec<usize>> = (0..t.len() / size).map(|row| (row * size..(row + 1) * size).collect()).collect();
    let one = |row: &Vec<usize>| loss(&t, &p, &|term| row.iter().map(|k| term(*k)).sum());
    Losses {
        values: rows.iter().map(one).collect(),
        shape: shape[..first].to_vec(),
        taken_from: rows.iter().map(|row| range(&p, row).max(1.0)).collect(),
        mean_over: None,
        ignored: vec![],
        batch: shape[0],
        divisor: None,
        of_batch: None,
    }
}

fn boundary<R: Real>(case: &Case<R>) -> Losses<R> {
    let (input, dist): (&Array<R>, _) = (&case.arrays["input"], case.values("dist"));
    let first = usize::from(!case.flag("include_background", true));
    let mut losses = of_rows(input, vec![], |_, places| {
        let log_p = log_softmax(&places.iter().map(|&k| input.values[k]).collect::<Vec<R>>());
        let reach = |j: usize| log_p[j].exp() * dist[places[j]];
        (first..places.len()).map(reach).sum::<R>() / (places.len() - first).max(1) as f64
    });
    losses.taken_from = losses.values.iter().map(|_| 4.0).collect();
    losses
}
