// Kernels of the training loop, written by hand: 784-128-10 with ReLU, trained with Adam.
//
// Matrices are row-major. A row of a layer's input carries a one behind its features, so that the last used column of
// the weight, [outputs, inputs + 1], is the bias; zeros pad rows to 16 bytes. Images stay bytes until they are
// multiplied. An invocation computes a tile in registers, because loads are what a software adapter spends its time
// on; the grids are one-dimensional.

const LANES: u32 = 32u;
const BATCH: u32 = 64u;
const SIDE: u32 = 28u;         // pixels along an image
const QUADS: u32 = 196u;       // of pixels in an image
const IMAGE: u32 = 200u;       // words (of 4 pixels) from one image of a batch to the next, vec4 of w1 from row to row
const HIDDEN: u32 = 32u;       // vec4 of hidden units
const HIDDEN_ROW: u32 = 33u;   // vec4 from one row of hidden units, or of w2, to the next
const CLASSES: u32 = 10u;

struct Step {
    rows: u32,
    first: u32,      // the step's first entry in `order`
    max_shift: u32,  // pixels by which an image may be moved along either axis
    seed: u32,       // of those moves
    rate: f32,       // of learning, divided by Adam's 1 - beta1^t
    v_scale: f32,    // Adam's 1 / (1 - beta2^t)
}

@group(0) @binding(0) var<uniform> now: Step;

// gather: the step's images, each moved by its own offset, and their labels. Grid: an invocation 4 pixels.

@group(0) @binding(1) var<storage, read> all_pixels: array<u32>;    // [digits, 28, 28] bytes
@group(0) @binding(2) var<storage, read> all_labels: array<i32>;    // [digits]
@group(0) @binding(3) var<storage, read> order: array<u32>;
@group(0) @binding(4) var<storage, read_write> batch: array<u32>;   // [rows, IMAGE]
@group(0) @binding(5) var<storage, read_write> labels: array<i32>;  // [rows]

@compute @workgroup_size(LANES)
fn gather(@builtin(global_invocation_id) id: vec3u) {
    let row = id.x / QUADS;
    let quad = id.x % QUADS;
    if row >= now.rows { return; }

    let digit = order[now.first + row];
    let random = hash(now.seed ^ hash(now.first + row));
    let range = 2u * now.max_shift + 1u;
    let y = i32(4u * quad / SIDE + random % range) - i32(now.max_shift);
    let x = i32(4u * quad % SIDE + (random >> 16u) % range) - i32(now.max_shift);
    batch[row * IMAGE + quad] = pixel(digit, y, x) | pixel(digit, y, x + 1) << 8u
        | pixel(digit, y, x + 2) << 16u | pixel(digit, y, x + 3) << 24u;
    if quad == 0u { labels[row] = all_labels[digit]; }
}

fn pixel(digit: u32, y: i32, x: i32) -> u32 {
    if min(y, x) < 0 || max(y, x) >= i32(SIDE) { return 0u; }
    let at = (digit * SIDE + u32(y)) * SIDE + u32(x);
    return all_pixels[at / 4u] >> (8u * (at % 4u)) & 255u;
}

// PCG: Jarzynski and Olano (2020), https://jcgt.org/published/0009/03/02/
fn hash(value: u32) -> u32 {
    let state = value * 747796405u + 2891336453u;
    let word = (state >> ((state >> 28u) + 4u) ^ state) * 277803737u;
    return word >> 22u ^ word;
}

// forward_hidden: hidden = relu(images · w1ᵀ). Grid: an invocation 16 rows x 8 units.

@group(0) @binding(1) var<storage, read> images: array<u32>;         // [rows, IMAGE]
@group(0) @binding(2) var<storage, read> w1: array<vec4f>;           // [128, IMAGE]
@group(0) @binding(3) var<storage, read_write> hidden: array<vec4f>; // [rows, HIDDEN_ROW]

@compute @workgroup_size(8)
fn forward_hidden(@builtin(global_invocation_id) id: vec3u) {
    let row = id.x / (HIDDEN / 2u) * 16u;
    let quad = id.x % (HIDDEN / 2u) * 2u;
    if row >= now.rows { return; }

    // Columns are rows of the batch, components are units.
    var a0 = mat4x4f(); var a1 = mat4x4f(); var a2 = mat4x4f(); var a3 = mat4x4f();
    var b0 = mat4x4f(); var b1 = mat4x4f(); var b2 = mat4x4f(); var b3 = mat4x4f();
    for (var k = 0u; k <= QUADS; k++) {
        let wa = w1_tile(quad, k);
        let wb = w1_tile(quad + 1u, k);
        let x0 = image_tile(row, k);
        let x1 = image_tile(row + 4u, k);
        let x2 = image_tile(row + 8u, k);
        let x3 = image_tile(row + 12u, k);
        a0 += wa * x0; a1 += wa * x1; a2 += wa * x2; a3 += wa * x3;
        b0 += wb * x0; b1 += wb * x1; b2 += wb * x2; b3 += wb * x3;
    }
    store_hidden(row, quad, a0); store_hidden(row, quad + 1u, b0);
    store_hidden(row + 4u, quad, a1); store_hidden(row + 4u, quad + 1u, b1);
    store_hidden(row + 8u, quad, a2); store_hidden(row + 8u, quad + 1u, b2);
    store_hidden(row + 12u, quad, a3); store_hidden(row + 12u, quad + 1u, b3);
}

// Four images, a column each; pixels 4k to 4k + 3.
fn image_tile(row: u32, k: u32) -> mat4x4f {
    let at = row * IMAGE + k;
    return mat4x4f(unpack4x8unorm(images[at]), unpack4x8unorm(images[at + IMAGE]),
        unpack4x8unorm(images[at + 2u * IMAGE]), unpack4x8unorm(images[at + 3u * IMAGE]));
}

// Four units, a row each; their weights of pixels 4k to 4k + 3.
fn w1_tile(quad: u32, k: u32) -> mat4x4f {
    let at = 4u * quad * IMAGE + k;
    return transpose(mat4x4f(w1[at], w1[at + IMAGE], w1[at + 2u * IMAGE], w1[at + 3u * IMAGE]));
}

fn store_hidden(row: u32, quad: u32, units: mat4x4f) {
    let at = row * HIDDEN_ROW + quad;
    let zero = vec4f();
    hidden[at] = max(units[0], zero);
    hidden[at + HIDDEN_ROW] = max(units[1], zero);
    hidden[at + 2u * HIDDEN_ROW] = max(units[2], zero);
    hidden[at + 3u * HIDDEN_ROW] = max(units[3], zero);
}

// forward_logits: logits = hidden · w2ᵀ. Grid: an invocation 4 rows x 1 class.

@group(0) @binding(1) var<storage, read> activations: array<vec4f>; // [rows, HIDDEN_ROW]; what was `hidden`
@group(0) @binding(2) var<storage, read> w2: array<vec4f>;          // [CLASSES, HIDDEN_ROW]
@group(0) @binding(3) var<storage, read_write> logits: array<f32>;  // [rows, CLASSES]

@compute @workgroup_size(LANES)
fn forward_logits(@builtin(global_invocation_id) id: vec3u) {
    let row = id.x / CLASSES * 4u;
    let class_ = id.x % CLASSES;
    if row >= now.rows { return; }

    var sum = vec4f();
    for (var k = 0u; k < HIDDEN_ROW; k++) {
        let at = row * HIDDEN_ROW + k;
        sum += w2[class_ * HIDDEN_ROW + k] * mat4x4f(activations[at], activations[at + HIDDEN_ROW],
            activations[at + 2u * HIDDEN_ROW], activations[at + 3u * HIDDEN_ROW]);
    }
    for (var r = 0u; r < 4u; r++) { logits[(row + r) * CLASSES + class_] = sum[r]; }
}

// backward_hidden: d_hidden = d_logits · w2, where the unit is not clipped. Grid: an invocation 1 row x 4 units.

@group(0) @binding(3) var<storage, read> d_logits: array<f32>;         // [BATCH, CLASSES]
@group(0) @binding(4) var<storage, read_write> d_hidden: array<vec4f>; // [BATCH, HIDDEN]

@compute @workgroup_size(LANES)
fn backward_hidden(@builtin(global_invocation_id) id: vec3u) {
    let row = id.x / HIDDEN;
    let quad = id.x % HIDDEN;
    if row >= BATCH { return; }

    var sum = vec4f();
    for (var c = 0u; c < CLASSES; c++) { sum += d_logits[row * CLASSES + c] * w2[c * HIDDEN_ROW + quad]; }
    let open = activations[row * HIDDEN_ROW + quad] > vec4f();
    d_hidden[id.x] = select(vec4f(), sum, open);
}

// update_output: Adam's step of w2 with d_w2 = d_logitsᵀ · hidden. Grid: an invocation 1 class x 4 units.
// update_hidden: Adam's step of w1 with d_w1 = d_hiddenᵀ · images. Grid: an invocation 8 units x 16 pixels.

@group(0) @binding(4) var<storage, read_write> weight: array<vec4f>;            // w1 or w2
@group(0) @binding(5) var<storage, read_write> moments: array<array<vec4f, 2>>; // of the gradient and of its square
// Uniforms, because a software adapter reads these twice as fast.
@group(0) @binding(6) var<uniform> batch_images: array<vec4u, BATCH * IMAGE / 4u>;
@group(0) @binding(7) var<uniform> batch_d_hidden: array<vec4f, BATCH * HIDDEN>;

@compute @workgroup_size(LANES)
fn update_output(@builtin(global_invocation_id) id: vec3u) {
    let class_ = id.x / HIDDEN_ROW;
    let quad = id.x % HIDDEN_ROW;
    if class_ >= CLASSES { return; }

    var sum = vec4f();
    for (var row = 0u; row < BATCH; row++) {
        sum += d_logits[row * CLASSES + class_] * activations[row * HIDDEN_ROW + quad];
    }
    adam(id.x, sum);
}

@compute @workgroup_size(8)
fn update_hidden(@builtin(global_invocation_id) id: vec3u) {
    let quad = id.x / (IMAGE / 4u) * 2u;
    let tile = id.x % (IMAGE / 4u);
    if quad >= HIDDEN { return; }

    // Columns are units, components are pixels.
    var a0 = mat4x4f(); var a1 = mat4x4f(); var a2 = mat4x4f(); var a3 = mat4x4f();
    var b0 = mat4x4f(); var b1 = mat4x4f(); var b2 = mat4x4f(); var b3 = mat4x4f();
    for (var row = 0u; row < BATCH; row += 4u) {
        let da = d_hidden_tile(row, quad);
        let db = d_hidden_tile(row, quad + 1u);
        let at = row * (IMAGE / 4u) + tile;
        let r0 = batch_images[at];
        let r1 = batch_images[at + IMAGE / 4u];
        let r2 = batch_images[at + IMAGE / 2u];
        let r3 = batch_images[at + 3u * IMAGE / 4u];
        let x0 = unpack(vec4u(r0.x, r1.x, r2.x, r3.x));
        let x1 = unpack(vec4u(r0.y, r1.y, r2.y, r3.y));
        let x2 = unpack(vec4u(r0.z, r1.z, r2.z, r3.z));
        let x3 = unpack(vec4u(r0.w, r1.w, r2.w, r3.w));
        a0 += x0 * da; a1 += x1 * da; a2 += x2 * da; a3 += x3 * da;
        b0 += x0 * db; b1 += x1 * db; b2 += x2 * db; b3 += x3 * db;
    }
    adam_units(4u * quad, 4u * tile, a0); adam_units(4u * quad + 4u, 4u * tile, b0);
    adam_units(4u * quad, 4u * tile + 1u, a1); adam_units(4u * quad + 4u, 4u * tile + 1u, b1);
    adam_units(4u * quad, 4u * tile + 2u, a2); adam_units(4u * quad + 4u, 4u * tile + 2u, b2);
    adam_units(4u * quad, 4u * tile + 3u, a3); adam_units(4u * quad + 4u, 4u * tile + 3u, b3);
}

fn unpack(words: vec4u) -> mat4x4f {
    return mat4x4f(unpack4x8unorm(words.x), unpack4x8unorm(words.y), unpack4x8unorm(words.z), unpack4x8unorm(words.w));
}

// Four rows of the batch, a row each; four units.
fn d_hidden_tile(row: u32, quad: u32) -> mat4x4f {
    let at = row * HIDDEN + quad;
    return transpose(mat4x4f(batch_d_hidden[at], batch_d_hidden[at + HIDDEN],
        batch_d_hidden[at + 2u * HIDDEN], batch_d_hidden[at + 3u * HIDDEN]));
}

fn adam_units(unit: u32, k: u32, gradient: mat4x4f) {
    let at = unit * IMAGE + k;
    adam(at, gradient[0]);
    adam(at + IMAGE, gradient[1]);
    adam(at + 2u * IMAGE, gradient[2]);
    adam(at + 3u * IMAGE, gradient[3]);
}

fn adam(at: u32, gradient: vec4f) {
    let m = mix(gradient, moments[at][0], 0.9);
    let v = mix(gradient * gradient, moments[at][1], 0.999);
    moments[at] = array(m, v);
    weight[at] -= now.rate * m / (sqrt(v * now.v_scale) + 1e-8);
}
