alias F = f32;
alias U = u32;
alias I = i32;
alias B = bool;

fn math_exp(x: F) -> F { return exp(x);
}

fn math_exp_neg(x: F) -> F { return exp(x);
}

fn math_log1p(x: F) -> F { return log(F(1.0) + x);
}

fn math_log(x: F) -> F { return log(x);
}

fn math_expm1(x: F) -> F { return exp(x) - F(1.0);
}

fn math_sqrt(x: F) -> F { return sqrt(x);
}
