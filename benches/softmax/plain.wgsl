// Cross entropy as one would first write it: an invocation a row, f32, then one workgroup for the mean.
// Reads logits[row * cols + col], labels[row]; writes row_losses[row], d_logits; `mean` reads those and writes loss.

struct Shape { rows: u32, cols: u32 }

@group(0) @binding(0) var<uniform> shape: Shape;
@group(0) @binding(1) var<storage, read> logits: array<f32>;
@group(0) @binding(2) var<storage, read> labels: array<i32>;
@group(0) @binding(3) var<storage, read_write> d_logits: array<f32>;
@group(0) @binding(4) var<storage, read_write> row_losses: array<f32>;
@group(0) @binding(5) var<storage, read_write> loss: array<f32>;

@compute @workgroup_size(64)
fn rows(@builtin(global_invocation_id) id: vec3<u32>) {
  let row = id.x;
  if row >= shape.rows {
    return;
  }
  let first = row * shape.cols;
  var largest = logits[first];
  for (var col = 1u; col < shape.cols; col++) {
    largest = max(largest, logits[first + col]);
  }
  var sum = 0.0;
  for (var col = 0u; col < shape.cols; col++) {
    sum += exp(logits[first + col] - largest);
  }
  let label = u32(labels[row]);
  row_losses[row] = log(sum) + largest - logits[first + label];
  for (var col = 0u; col < shape.cols; col++) {
    let p = exp(logits[first + col] - largest) / sum;
    d_logits[first + col] = (p - select(0.0, 1.0, col == label)) / f32(shape.rows);
  }
}

var<workgroup> partial: array<f32, 64>;

@compute @workgroup_size(64)
fn mean(@builtin(local_invocation_index) lane: u32) {
  var sum = 0.0;
  for (var row = lane; row < shape.rows; row += 64u) {
    sum += row_losses[row];
  }
  partial[lane] = sum;
  // Lane 0 reads what the others wrote.
  workgroupBarrier();
  if lane == 0u {
    var total = 0.0;
    for (var k = 0u; k < 64u; k++) {
      total += partial[k];
    }
    loss[0] = total / f32(shape.rows);
  }
}
