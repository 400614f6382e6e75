// One model in one WebAssembly heap: opened, run, timed, its heap read. The same in a browser's worker and in node.

const ARRAYS = {
  float32: Float32Array,
  float64: Float64Array,
  float16: Uint16Array,
  int8: Int8Array,
  uint8: Uint8Array,
  int16: Int16Array,
  uint16: Uint16Array,
  int32: Int32Array,
  uint32: Uint32Array,
  int64: BigInt64Array,
  uint64: BigUint64Array,
  bool: Uint8Array,
};

/**
 * A model that can be run. `ort` is a module of its own for each model, so that each has a heap of its own.
 *
 * `names` are the model's inputs in order; `inputs` holds `samples` and, for each input, `tensors` of
 * { type, dims, bytes }: the dims of one sample, the bytes of all. `clock` gives milliseconds.
 */
export async function openModel({ ort, wasm, model, names, inputs, clock }) {
  const memories = [];
  const restore = recordMemories(memories);
  let session;
  try {
    ort.env.wasm.numThreads = 1;
    ort.env.wasm.wasmBinary = wasm;
    session = await ort.InferenceSession.create(model, { executionProviders: ["wasm"] });
  } catch (error) {
    throw new Error(`onnxruntime-web cannot load it: ${words(error)}`);
  } finally {
    restore();
    ort.env.wasm.wasmBinary = undefined;
  }
  const feeds = Array.from({ length: inputs.samples }, (_, sample) => feed(ort, names, inputs.tensors, sample));
  const run = async (sample) => {
    try {
      return await session.run(feeds[sample % feeds.length]);
    } catch (error) {
      throw new Error(`onnxruntime-web cannot run it: ${words(error)}`);
    }
  };
  return {
    /** The first output for every sample: [{ type, dims, data }]. */
    async outputs() {
      const found = [];
      for (let sample = 0; sample < feeds.length; sample++) {
        const { type, dims, data } = (await run(sample))[session.outputNames[0]];
        found.push({ type, dims: [...dims], data: data.slice() });
      }
      return found;
    },
    /** Milliseconds that `count` runs take. */
    async time(count) {
      const start = clock();
      for (let number = 0; number < count; number++) await run(number);
      return clock() - start;
    },
    /** Bytes of the heap: it only grows, so this is its peak. */
    heapBytes: () => Math.max(0, ...memories.map((memory) => memory.buffer.byteLength)),
  };
}

function feed(ort, names, tensors, sample) {
  return Object.fromEntries(
    tensors.map(({ type, dims, bytes }, position) => {
      const length = dims.reduce((product, size) => product * size, 1);
      const Kind = ARRAYS[type];
      const start = sample * length * Kind.BYTES_PER_ELEMENT;
      const data = new Kind(bytes.slice(start, start + length * Kind.BYTES_PER_ELEMENT));
      return [names[position], new ort.Tensor(type, data, dims)];
    }),
  );
}

/** Notes every WebAssembly memory that is made until the function it returns is called. */
function recordMemories(memories) {
  const original = WebAssembly.Memory;
  WebAssembly.Memory = new Proxy(original, {
    construct(target, given) {
      const memory = new target(...given);
      memories.push(memory);
      return memory;
    },
  });
  return () => {
    WebAssembly.Memory = original;
  };
}

/** An error in words: WebAssembly throws bare numbers where C++ threw, for the most part out of memory. */
function words(error) {
  if (typeof error === "number") return `C++ exception ${error}, most likely out of memory`;
  return error?.message ?? String(error);
}
