// The sum of a lane's terms of one tensor, from element `first` to `end`; their gradients are written.
fn sum0(first: u32, end: u32, lane: u32) -> Sum {
    let w = penalized.tensors[0].z;
    let d = penalized.tensors[0].w;
    var s = Sum(0u, 0.0);
    for (var begin = first + lane; begin < end; begin += RUN * WG) {
        var run = Sum(0u, 0.0);
        let stop = min(begin + RUN * WG, end);
        for (var i = begin; i < stop; i += WG) {
            let bits = w0[w + i];
            d0[d + i] = added(bits, 0u);
            run = combine(run, Sum(bits & MAGNITUDE, term(bitcast<f32>(bits))));
        }
        s = combine(s, run);
    }
    return s;
}
