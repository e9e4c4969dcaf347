// What every skeleton shares: the shape of the problem, scalars, and classification by bits.

// Owner: src/plan/uniform.rs; a test compares the offsets.
struct Shape {
    rows: u32,
    cols: u32,
    // A number to divide by, which may be more than 32 bits hold.
    elements: f32,
    batch: u32,
    group_rows: u32,
    // Where the sums of groups lie in `work`, and how many groups there are.
    group_base: u32,
    groups: u32,
    // Workgroups of this dispatch that share a row, and where the states lie in `work`: `slots` a row.
    splits: u32,
    state_base: u32,
    // Where `work` keeps the halves of words that two rows share.
    edge_base: u32,
    reserved0: u32,
    slots: u32,
    // Of the columns of a whole row, those before this dispatch, and how many there are; of the workgroups that share
    // a row, those before this dispatch; states of a row that wait to be combined.
    first_col: u32,
    classes: u32,
    first_split: u32,
    states: u32,
    // Rows (elements, without rows) of this dispatch, those before it, and the same of workgroups that leave sums.
    items: u32,
    first_item: u32,
    first_group: u32,
    sum_groups: u32,
    // Where `work` keeps what scans leave of rows in hand.
    scan_base: u32,
    reserved1: u32,
    reserved2: u32,
    reserved3: u32,
    // Merged axes, outermost first; with rows, the last one is the columns.
    axes: vec4<u32>,
    // Of each tensor: its strides along the axes, then its first element in .x.
    tensors: array<vec4<u32>, 32>,
}

// Scalars of the plan: inputs and sums over everything, as bits.
struct Scalars {
    // Lowest row with a label out of range; 0xffffffff where there is none.
    bad_row: atomic<u32>,
    values: array<u32>,
}

const NAN_BITS: u32 = 0x7fc00000u;
const INF_BITS: u32 = 0x7f800000u;
const MAGNITUDE: u32 = 0x7fffffffu;
// The most negative finite number: below any logit but −∞, and with rest −1 the empty softmax state.
const LOWEST: f32 = -3.40282346e38;

// Bits to store: NaN where poisoned, whatever arithmetic gave.
fn store_bits(value: f32, poison: bool) -> u32 {
    return select(bitcast<u32>(value), NAN_BITS, poison);
}

fn store_bits4(value: vec4<f32>, poison: vec4<bool>) -> vec4<u32> {
    return select(bitcast<vec4<u32>>(value), vec4<u32>(NAN_BITS), poison);
}

// a / b with 0/0 = NaN and x/0 = ±∞ on every driver.
fn ratio(a: f32, b: f32) -> f32 {
    let sign = (bitcast<u32>(a) ^ bitcast<u32>(b)) & 0x80000000u;
    let by_zero = select(INF_BITS | sign, NAN_BITS, a == 0.0);
    return bitcast<f32>(select(bitcast<u32>(a / b), by_zero, b == 0.0));
}

// Where an element lies, by its number in row-major order of axes of these sizes.
fn offset(index: u32, sizes: vec4<u32>, strides: vec4<u32>) -> u32 {
    let k3 = index % sizes.w;
    let rest3 = index / sizes.w;
    let k2 = rest3 % sizes.z;
    let rest2 = rest3 / sizes.z;
    let k1 = rest2 % sizes.y;
    let k0 = rest2 / sizes.y;
    return k0 * strides.x + k1 * strides.y + k2 * strides.z + k3 * strides.w;
}
