// The bench in node: `node node.mjs job.json` writes result.json, and the outputs, beside the job.

import { readFile, writeFile } from "node:fs/promises";
import { join } from "node:path";
import { pathToFileURL } from "node:url";

import { bench } from "./bench.mjs";
import { openModel } from "./runner.mjs";

const job = JSON.parse(await readFile(process.argv[2], "utf8"));
const read = async (path) => new Uint8Array(await readFile(path));
const wasm = await read(job.wasm);
const tensors = await Promise.all(
  job.inputs.tensors.map(async ({ file, ...tensor }) => ({ ...tensor, bytes: (await read(file)).buffer })),
);

// CPU time of the process: other programs do not count, and only one model runs at a time.
const clock = () => {
  const { user, system } = process.cpuUsage();
  return (user + system) / 1000;
};

const entries = job.models.map(({ name, file, bytes, inputs: names }, position) => ({
  name,
  fileBytes: bytes,
  open: async () =>
    openModel({
      ort: await import(`${pathToFileURL(job.ort)}?model=${position}`), // a module, hence a heap, of its own
      wasm,
      model: await read(file),
      names,
      inputs: { samples: job.inputs.samples, tensors },
      clock,
    }),
}));

const models = await bench(entries, { ...job.timing, keepOutputs: true });
for (const [position, model] of models.entries()) {
  model.outputs = await Promise.all(
    (model.outputs ?? []).map(async ({ type, dims, data }, sample) => {
      const file = join(job.folder, `output-${position}-${sample}`);
      await writeFile(file, new Uint8Array(data.buffer, data.byteOffset, data.byteLength));
      return { type, dims, file };
    }),
  );
}
await writeFile(join(job.folder, "result.json"), JSON.stringify({ node: process.version, models }));
