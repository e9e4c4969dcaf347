//! Numbers to compare, and comparisons that NaN fails.

/// The worst number that is off by more than `rtol·|want| + atol`, in words. NaN is always off.
pub fn mismatch(got: &[f64], want: &[f64], rtol: f64, atol: impl Fn(usize) -> f64) -> Option<String> {
    if got.len() != want.len() {
        return Some(format!("{} numbers, want {}", got.len(), want.len()));
    }
    let distance = |k: usize| (got[k] - want[k]).abs();
    let fits = |k: usize| got[k] == want[k] || distance(k) <= atol(k) + rtol * want[k].abs();
    let worst = (0..got.len()).filter(|&k| !fits(k)).max_by(|&a, &b| distance(a).total_cmp(&distance(b)));
    worst.map(|k| format!("[{k}] is {}, want {} ± {:.1e}", got[k], want[k], atol(k) + rtol * want[k].abs()))
}

/// Fails where a number is off by more than `rtol` of it and of the largest one.
pub fn assert_close(what: &str, got: &[f64], want: &[f64], rtol: f64) {
    let most = largest(want);
    if let Some(worst) = mismatch(got, want, rtol, |_| rtol * most) {
        panic!("{what}{worst}");
    }
}

/// Which of the numbers are NaN.
pub fn is_nan(values: &[f64]) -> Vec<bool> {
    values.iter().map(|x| x.is_nan()).collect()
}

/// The largest magnitude.
pub fn largest(values: &[f64]) -> f64 {
    values.iter().fold(0.0, |most, x| x.abs().max(most))
}

/// Fails with the first complaints, if there are any.
pub fn report(complaints: Vec<String>, cases: usize) {
    let shown = complaints.iter().take(20).map(|c| format!("  {c}\n")).collect::<String>();
    assert!(complaints.is_empty(), "{} of {cases} cases:\n{shown}", complaints.len());
}

/// Numbers from −4 to 4 that are the same on every machine.
pub fn random(count: usize, seed: u32) -> Vec<f32> {
    let mut state = seed.wrapping_mul(2_654_435_761).max(1);
    let mut next = || {
        state ^= state << 13;
        state ^= state >> 17;
        state ^= state << 5;
        state
    };
    (0..count).map(|_| (next() >> 8) as f32 / (1 << 24) as f32 * 8.0 - 4.0).collect()
}

/// The contract (design §6): 2e-6 of the row's largest gradient plus 1e-6 relative.
pub fn assert_grads(what: &str, got: &[f32], want: &[f64], cols: usize) {
    assert_eq!(got.len(), want.len(), "{what}");
    for (row, (got, want)) in got.chunks(cols).zip(want.chunks(cols)).enumerate() {
        let largest = largest(want);
        for (col, (got, want)) in got.iter().zip(want).enumerate() {
            let allowed = 2e-6 * largest + 1e-6 * want.abs() + 1e-37;
            let off = (f64::from(*got) - want).abs();
            assert!(off <= allowed, "{what} row {row} col {col}: got {got}, want {want}, off {off:e} of {allowed:e}");
        }
    }
}
