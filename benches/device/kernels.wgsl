// What the device benchmark needs beside the losses. Grid: x, y; a workgroup takes 256 vectors, in the order of y,
// then x. Reads `source`, writes `sink`; the last workgroups may reach past the end, where nothing happens.

// Numbers of a piece of a tensor differ from those of its other pieces.
override SEED: u32 = 0u;
override IS_BF16: bool = false;

const WG: u32 = 256u;
// NaN, as a float and as two brain floats; no kernel writes this one.
const POISON: u32 = 0x7fc17fc1u;
// Numbers lie in −SPAN..SPAN.
const SPAN: f32 = 6.0;

@group(0) @binding(0) var<storage, read> source: array<vec4<u32>>;
@group(0) @binding(1) var<storage, read_write> sink: array<vec4<u32>>;
@group(0) @binding(2) var<storage, read_write> count: atomic<u32>;

struct Invocation {
  @builtin(workgroup_id) group: vec3<u32>,
  @builtin(num_workgroups) groups: vec3<u32>,
  @builtin(local_invocation_index) lane: u32,
}

// An invocation's vector.
fn place(who: Invocation) -> u32 {
  return (who.group.y * who.groups.x + who.group.x) * WG + who.lane;
}

// PCG, Jarzynski and Olano (2020).
fn hash(seed: vec4<u32>) -> vec4<u32> {
  let state = seed * 747796405u + 2891336453u;
  let word = ((state >> ((state >> vec4(28u)) + 4u)) ^ state) * 277803737u;
  return (word >> vec4(22u)) ^ word;
}

fn uniform_bits(seed: vec4<u32>) -> vec4<u32> {
  return bitcast<vec4<u32>>(vec4<f32>(hash(seed) >> vec4(8u)) * (2.0 * SPAN / 16777216.0) - SPAN);
}

@compute @workgroup_size(WG)
fn fill(who: Invocation) {
  let at = place(who);
  if at < arrayLength(&sink) {
    let seed = hash(vec4(SEED)) ^ (4u * at + vec4(0u, 1u, 2u, 3u));
    let bits = uniform_bits(seed);
    sink[at] = select(bits, (bits >> vec4(16u)) | (uniform_bits(~seed) & vec4(0xffff0000u)), IS_BF16);
  }
}

@compute @workgroup_size(WG)
fn poison(who: Invocation) {
  let at = place(who);
  if at < arrayLength(&sink) {
    sink[at] = vec4(POISON);
  }
}

// Adds the vectors in which poison is left.
@compute @workgroup_size(WG)
fn count_poison(who: Invocation) {
  let at = place(who);
  if at < arrayLength(&source) {
    let differs = source[at] ^ vec4(POISON);
    let is_half = any((differs & vec4(0xffffu)) == vec4(0u)) || any((differs >> vec4(16u)) == vec4(0u));
    if any(differs == vec4(0u)) || (IS_BF16 && is_half) {
      atomicAdd(&count, 1u);
    }
  }
}
