// A copy: what a kernel of any loss can reach at best. Grid: x, y; a workgroup takes WG * VECTORS vectors, in the order
// of y, then x. Reads `source`, writes `sink`; the last workgroups may reach past the end, where nothing happens.

override VECTORS: u32 = 1u;
const WG: u32 = 256u;

@group(0) @binding(0) var<storage, read> source: array<vec4<u32>>;
@group(0) @binding(1) var<storage, read_write> sink: array<vec4<u32>>;

@compute @workgroup_size(WG)
fn main(
    @builtin(workgroup_id) group: vec3<u32>,
    @builtin(num_workgroups) groups: vec3<u32>,
    @builtin(local_invocation_index) lane: u32,
) {
    let first = (group.y * groups.x + group.x) * WG * VECTORS + lane;
    let size = arrayLength(&sink);
    for (var k = 0u; k < VECTORS; k++) {
        let at = first + k * WG;
        if (at < size) {
            sink[at] = source[at];
        }
    }
}
