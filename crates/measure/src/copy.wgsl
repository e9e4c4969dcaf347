// A copy: what a kernel of any loss can reach at best. Grid: x, y; a workgroup takes WG vectors (copy4: 4 WG), in the
// order of y, then x. Reads `source`, writes `sink`; the last workgroups may reach past the end, where nothing happens.

const WG: u32 = 256u;

@group(0) @binding(0) var<storage, read> source: array<vec4<u32>>;
@group(0) @binding(1) var<storage, read_write> sink: array<vec4<u32>>;

struct Invocation {
    @builtin(workgroup_id) group: vec3<u32>,
    @builtin(num_workgroups) groups: vec3<u32>,
    @builtin(local_invocation_index) lane: u32,
}

// The first of an invocation's `vectors`; the others follow WG apart.
fn first(who: Invocation, vectors: u32) -> u32 {
    return (who.group.y * who.groups.x + who.group.x) * WG * vectors + who.lane;
}

@compute @workgroup_size(WG)
fn copy1(who: Invocation) {
    let at = first(who, 1u);
    if (at < arrayLength(&sink)) {
        sink[at] = source[at];
    }
}

// Four loads in flight per invocation.
@compute @workgroup_size(WG)
fn copy4(who: Invocation) {
    let at = first(who, 4u);
    let size = arrayLength(&sink);
    if (at + 3u * WG < size) {
        let a = source[at];
        let b = source[at + WG];
        let c = source[at + 2u * WG];
        let d = source[at + 3u * WG];
        sink[at] = a;
        sink[at + WG] = b;
        sink[at + 2u * WG] = c;
        sink[at + 3u * WG] = d;
    } else {
        for (var k = at; k < size; k += WG) {
            sink[k] = source[k];
        }
    }
}
