// Runs what `wgloss export` wrote, in a browser or any other JavaScript with WebGPU:
//
//   import { load } from "./manifest.js";
//   const adapter = await navigator.gpu.requestAdapter();
//   const program = await load(await adapter.requestDevice(), "exported/");
//   const outputs = await program.run({ input: logits, target: labels }, rows, cols);
//   console.log(new Float32Array(outputs.loss)[0], new Float32Array(outputs.d_input));
//
// A training loop would keep the buffers and the bind groups, and record `encode` alone in every step.

const OPERATORS = {
  add: (a, b) => a + b,
  mul: (a, b) => a * b,
  div_ceil: (a, b) => Math.ceil(a / b),
  rem: (a, b) => a % b,
  min: Math.min,
  max: Math.max,
  equal: (a, b) => Number(a === b),
  at_most: (a, b) => Number(a <= b),
};

function evaluate(formula, shape) {
  if (typeof formula === "number") return formula;
  if (typeof formula === "string") return shape[formula];
  const [operator, a, b] = formula;
  return OPERATORS[operator](evaluate(a, shape), evaluate(b, shape));
}

export async function load(device, folder) {
  const fetched = async (name) => {
    const response = await fetch(folder + name);
    if (!response.ok) throw new Error(`${folder}${name}: ${response.status}`);
    return response;
  };
  const manifest = await (await fetched("manifest.json")).json();
  if (manifest.format !== "wgloss manifest 1") throw new Error(`unknown format ${manifest.format}`);
  const modules = await Promise.all(
    manifest.kernels.map(async ({ file }) =>
      device.createShaderModule({ label: file, code: await (await fetched(file)).text() }),
    ),
  );
  const steps = await Promise.all(
    manifest.dispatches.map(async ({ kernel, grid, bindings }) => {
      const entries = bindings.map(({ binding, type }) => ({
        binding,
        visibility: GPUShaderStage.COMPUTE,
        buffer: { type },
      }));
      const layout = device.createBindGroupLayout({ entries });
      const pipeline = await device.createComputePipelineAsync({
        layout: device.createPipelineLayout({ bindGroupLayouts: [layout] }),
        compute: { module: modules[kernel], entryPoint: manifest.kernels[kernel].entry_point },
      });
      return { pipeline, layout, grid, bindings };
    }),
  );
  return new Program(device, manifest, steps);
}

class Program {
  constructor(device, manifest, steps) {
    Object.assign(this, { device, manifest, steps });
  }

  // The conditions that a shape does not meet, as text.
  unmet(rows, cols) {
    const fails = ({ formula }) => evaluate(formula, { rows, cols }) !== 1;
    return this.manifest.conditions.filter(fails).map(({ text }) => text);
  }

  // One buffer for each tensor, workspace and uniform, by name; `inputs` are typed arrays.
  buffers(inputs, rows, cols) {
    const buffers = {};
    for (const { name, kind, bytes, fields = [], initial = [] } of this.manifest.buffers) {
      const usage = kind === "uniform" ? GPUBufferUsage.UNIFORM : GPUBufferUsage.STORAGE;
      const buffer = this.device.createBuffer({
        label: name,
        size: evaluate(bytes, { rows, cols }),
        usage: usage | GPUBufferUsage.COPY_DST | GPUBufferUsage.COPY_SRC,
      });
      if (kind === "uniform") {
        const data = new DataView(new ArrayBuffer(buffer.size));
        for (const { offset, type, value } of fields) {
          const number = evaluate(value, { rows, cols });
          if (type === "f32") data.setFloat32(offset, number, true);
          else data.setUint32(offset, number, true);
        }
        this.device.queue.writeBuffer(buffer, 0, data);
      } else if (kind === "input") {
        const bytes = new Uint8Array(inputs[name].buffer, inputs[name].byteOffset, inputs[name].byteLength);
        const whole = new Uint8Array(Math.ceil(bytes.length / 4) * 4);
        whole.set(bytes);
        this.device.queue.writeBuffer(buffer, 0, whole);
      }
      this.device.queue.writeBuffer(buffer, 0, new Uint32Array(initial));
      buffers[name] = buffer;
    }
    return buffers;
  }

  encode(encoder, buffers, rows, cols) {
    for (const { from, from_offset, to, to_offset, bytes } of this.manifest.copies) {
      encoder.copyBufferToBuffer(buffers[from], from_offset, buffers[to], to_offset, bytes);
    }
    const pass = encoder.beginComputePass();
    for (const { pipeline, layout, grid, bindings } of this.steps) {
      const entries = bindings.map(({ binding, buffer }) => ({ binding, resource: { buffer: buffers[buffer] } }));
      pass.setPipeline(pipeline);
      pass.setBindGroup(0, this.device.createBindGroup({ layout, entries }));
      pass.dispatchWorkgroups(...grid.map((size) => evaluate(size, { rows, cols })));
    }
    pass.end();
  }

  // Every output as an ArrayBuffer, by name.
  async run(inputs, rows, cols) {
    const unmet = this.unmet(rows, cols);
    if (unmet.length > 0) throw new Error(`${rows} x ${cols}: ${unmet.join("; ")}`);
    const { device, manifest } = this;
    const buffers = this.buffers(inputs, rows, cols);
    const encoder = device.createCommandEncoder();
    this.encode(encoder, buffers, rows, cols);
    const { buffer, offset, none } = manifest.status;
    const wanted = manifest.buffers.filter(({ kind }) => kind === "output").map(({ name }) => name);
    const staged = [...wanted, buffer].map((name) => {
      const usage = GPUBufferUsage.MAP_READ | GPUBufferUsage.COPY_DST;
      const staging = device.createBuffer({ size: buffers[name].size, usage });
      encoder.copyBufferToBuffer(buffers[name], 0, staging, 0, staging.size);
      return staging;
    });
    device.queue.submit([encoder.finish()]);
    await Promise.all(staged.map((staging) => staging.mapAsync(GPUMapMode.READ)));
    const read = staged.map((staging) => staging.getMappedRange().slice(0));
    [...Object.values(buffers), ...staged].forEach((each) => each.destroy());
    const row = new DataView(read.pop()).getUint32(offset, true);
    if (row !== none) throw new Error(`the label of row ${row} is out of range`);
    return Object.fromEntries(wanted.map((name, place) => [name, read[place]]));
  }
}
