// Executes WebGPU commands that come over standard input, by Dawn; what came of each goes to standard output. backend-wgpu/src/dawn/ is the other end.
//
// A request is [bytes that follow, number, operation, payload …], an answer [bytes that follow, number, status, payload …], all 32-bit little-endian words
// but for host memory and texts. Requests begin in their order, which is the device's, and are answered as they end.
import { join } from 'node:path';
import { pathToFileURL } from 'node:url';

const [OK, MEMORY, ERROR] = [0, 1, 2];
const UNASKED = 0xffffffff;

const folder = process.argv[1];
const { create, globals } = await import(pathToFileURL(join(folder, 'node_modules/webgpu/index.js')));
const { GPUBufferUsage: Usage, GPUMapMode, GPUShaderStage } = globals;
const gpu = create([]);

let device;
let uniforms, uniformLayout, uniformGroup, staging;
const buffers = new Map();
const pipelines = new Map();
const layouts = new Map();

function answer(number, status, payload = Buffer.alloc(0)) {
    const bytes = typeof payload === 'string' ? Buffer.from(payload) : payload;
    const head = Buffer.alloc(12);
    head.writeUInt32LE(8 + bytes.length, 0);
    head.writeUInt32LE(number, 4);
    head.writeUInt32LE(status, 8);
    process.stdout.write(head);
    process.stdout.write(bytes);
}

class Refusal extends Error {
    constructor(status, message) {
        super(message);
        this.status = status;
    }
}

// What `work` returns, once the errors that it raised are known. No other request's work comes between, since it does not wait.
async function scoped(work) {
    for (const filter of ['validation', 'internal', 'out-of-memory']) device.pushErrorScope(filter);
    let value, thrown;
    try {
        value = work();
    } catch (error) {
        thrown = error;
    }
    const [memory, internal, validation] = await Promise.all([0, 1, 2].map(() => device.popErrorScope()));
    if (thrown) throw thrown;
    if (memory) throw new Refusal(MEMORY, memory.message);
    if (internal || validation) throw new Refusal(ERROR, (internal || validation).message);
    return value;
}

// Opens the device: words are the parameters' bytes in all and of one kernel, and the bytes of the staging buffer.
async function open(p) {
    const adapter = await gpu.requestAdapter();
    if (!adapter) throw new Refusal(ERROR, 'Dawn finds no adapter');
    const { maxBufferSize, maxStorageBufferBindingSize, maxComputeWorkgroupsPerDimension } = adapter.limits;
    const requiredFeatures = ['subgroups', 'shader-f16'].filter((feature) => adapter.features.has(feature));
    // The rest stays what every WebGPU has.
    device = await adapter.requestDevice({ requiredFeatures, requiredLimits: { maxBufferSize, maxStorageBufferBindingSize } });
    device.lost.then(({ message }) => answer(UNASKED, ERROR, `it was lost (${message})`));
    device.addEventListener('uncapturederror', ({ error }) => answer(UNASKED, ERROR, error.message));
    const [all, one, staged] = p;
    uniforms = device.createBuffer({ size: all, usage: Usage.UNIFORM | Usage.COPY_DST });
    staging = device.createBuffer({ size: staged, usage: Usage.COPY_SRC | Usage.COPY_DST });
    const entry = { binding: 0, visibility: GPUShaderStage.COMPUTE, buffer: { type: 'uniform', hasDynamicOffset: true } };
    uniformLayout = device.createBindGroupLayout({ entries: [entry] });
    uniformGroup = device.createBindGroup({
        layout: uniformLayout,
        entries: [{ binding: 0, resource: { buffer: uniforms, offset: 0, size: one } }],
    });
    const { vendor, architecture, description, subgroupMinSize, subgroupMaxSize, isFallbackAdapter } = adapter.info;
    const found = {
        name: adapter.info.device, vendor, architecture, driver: description, features: [...device.features].join(' '),
        subgroup_min: subgroupMinSize, subgroup_max: subgroupMaxSize, software: isFallbackAdapter ? 1 : 0,
        max_buffer: maxBufferSize, max_binding: maxStorageBufferBindingSize, max_groups: maxComputeWorkgroupsPerDimension,
    };
    return Object.entries(found).map(([key, value]) => `${key}=${value}\n`).join('');
}

// A storage buffer: its number and its bytes.
async function makeBuffer([id, size]) {
    const buffer = await scoped(() => device.createBuffer({ size, usage: Usage.STORAGE | Usage.COPY_SRC | Usage.COPY_DST }));
    buffers.set(id, buffer);
}

async function dropBuffer([id]) {
    buffers.get(id).destroy();
    buffers.delete(id);
}

async function compile(code) {
    let module;
    try {
        await scoped(() => (module = device.createShaderModule({ code })));
    } catch (refusal) {
        const { messages } = await module.getCompilationInfo();
        const lines = messages.map((m) => `${m.type} in line ${m.lineNum}: ${m.message}: ${code.split('\n')[m.lineNum - 1]}`);
        throw new Refusal(refusal.status, lines.join('; ') || refusal.message);
    }
    return module;
}

// WGSL that is validated and not kept.
async function validate(_, payload) {
    await compile(payload.toString());
}

// A pipeline: its number, the number of storage buffers, a bit for each that is written, and the WGSL.
async function makePipeline([id, count, written], payload) {
    const key = `${count} ${written}`;
    if (!layouts.has(key)) {
        const entries = Array.from({ length: count }, (_, binding) => ({
            binding,
            visibility: GPUShaderStage.COMPUTE,
            buffer: { type: (written >> binding) & 1 ? 'storage' : 'read-only-storage' },
        }));
        layouts.set(key, device.createBindGroupLayout({ entries }));
    }
    const group = layouts.get(key);
    const module = await compile(payload.toString('utf8', 12));
    // Not the asynchronous way: Dawn for Node spins while it waits.
    const pipeline = await scoped(() => {
        const layout = device.createPipelineLayout({ bindGroupLayouts: [group, uniformLayout] });
        return device.createComputePipeline({ layout, compute: { module, entryPoint: 'main' } });
    });
    pipelines.set(id, { pipeline, group });
}

// A batch: bytes of parameters, bytes of host memory, both, then the steps.
async function submit([parameters, staged], payload) {
    await scoped(() => {
        const steps = 8 + parameters + staged;
        if (parameters) device.queue.writeBuffer(uniforms, 0, payload, 8, parameters);
        if (staged) device.queue.writeBuffer(staging, 0, payload, 8 + parameters, staged);
        const encoder = device.createCommandEncoder();
        let pass;
        for (let at = steps; at < payload.length; ) {
            const next = () => payload.readUInt32LE((at += 4) - 4);
            if (next() === 0) {
                const { pipeline, group: layout } = pipelines.get(next());
                const offset = next();
                const groups = [next(), next(), next()];
                const entries = Array.from({ length: next() }, (_, binding) => ({
                    binding,
                    resource: { buffer: buffers.get(next()), offset: next(), size: next() },
                }));
                pass ??= encoder.beginComputePass();
                pass.setPipeline(pipeline);
                pass.setBindGroup(0, device.createBindGroup({ layout, entries }));
                pass.setBindGroup(1, uniformGroup, [offset]);
                pass.dispatchWorkgroups(...groups);
            } else {
                pass?.end();
                pass = undefined;
                const from = next();
                encoder.copyBufferToBuffer(staging, from, buffers.get(next()), next(), next());
            }
        }
        pass?.end();
        device.queue.submit([encoder.finish()]);
    });
}

// Host memory into a buffer: its number, the offset, the bytes.
async function write([id, offset], payload) {
    await scoped(() => device.queue.writeBuffer(buffers.get(id), offset, payload, 8));
}

// A buffer's memory: its number, the offset, how many bytes.
async function read([id, offset, size]) {
    const back = await scoped(() => {
        const back = device.createBuffer({ size, usage: Usage.MAP_READ | Usage.COPY_DST });
        const encoder = device.createCommandEncoder();
        encoder.copyBufferToBuffer(buffers.get(id), offset, back, 0, size);
        device.queue.submit([encoder.finish()]);
        return back;
    });
    await back.mapAsync(GPUMapMode.READ);
    const bytes = Buffer.from(new Uint8Array(back.getMappedRange()).slice());
    back.destroy();
    return bytes;
}

async function sync() {
    await device.queue.onSubmittedWorkDone();
}

const operations = [open, makeBuffer, dropBuffer, validate, makePipeline, submit, write, read, sync];

async function take(number, operation, payload) {
    const words = { *[Symbol.iterator]() { for (let at = 0; ; at += 4) yield payload.readUInt32LE(at); } };
    try {
        answer(number, OK, await operations[operation](words, payload));
    } catch (error) {
        answer(number, error.status ?? ERROR, error.message);
    }
}

let chunks = [];
let bytes = 0;
process.stdin.on('data', (chunk) => {
    chunks.push(chunk);
    bytes += chunk.length;
    while (bytes >= 4) {
        if (chunks[0].length < 4) chunks = [Buffer.concat(chunks)];
        const length = chunks[0].readUInt32LE(0);
        if (bytes < 4 + length) return;
        const all = chunks.length === 1 ? chunks[0] : Buffer.concat(chunks);
        // A copy of its own where Dawn will read it: views keep a pool alive, and offsets need be multiples of four.
        const frame = Buffer.from(all.subarray(4, 4 + length));
        chunks = [all.subarray(4 + length)];
        bytes -= 4 + length;
        take(frame.readUInt32LE(0), frame.readUInt32LE(4), frame.subarray(8));
    }
});
process.stdin.on('end', () => process.exit(0));
