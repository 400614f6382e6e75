// The whole bench: models opened, compared with the first of them, timed in turns. The page and node run this.

import { agreement } from "./agreement.mjs";
import { measure, quantile } from "./measure.mjs";

/**
 * One result for each of `entries`, { name, fileBytes, open } where `open()` gives a model of runner.mjs.
 *
 * The first entry is the baseline. A model that fails has `error`, in words, and the others go on. Ratios are taken
 * round by round, baseline over model: `speedup` is their median, with the range from the 10th to the 90th percentile.
 * `progress({ stage, name, done, total })` follows; `keepOutputs` adds the outputs to the results.
 */
export async function bench(entries, { progress = () => {}, stopped = () => false, keepOutputs = false, ...timing }) {
  const models = [];
  for (const { name, fileBytes, open } of entries) {
    const model = { name, fileBytes };
    models.push(model);
    if (stopped()) continue;
    progress({ stage: "load", name, done: models.length, total: entries.length });
    try {
      model.runner = await open();
      model.outputs = await model.runner.outputs();
      if (models[0].outputs) model.agreement = agreement(models[0].outputs, model.outputs);
    } catch (error) {
      model.error = error.message;
    }
  }
  const timed = models.filter((model) => !model.error && model.runner);
  const clocks = timed.map(({ runner }) => ({ time: (count) => runner.time(count) }));
  progress({ stage: "warm-up", done: 0, total: clocks.length });
  const step = (done, total) => progress({ stage: "measure", done, total });
  const times = await measure(clocks, { ...timing, progress: step, stopped });
  for (const [position, model] of timed.entries()) {
    model.error = clocks[position].error;
    model.times = times[position];
    if (!model.error) model.heapBytes = await model.runner.heapBytes();
  }
  return models.map((model) => ({ ...result(model, models[0]), ...(keepOutputs && { outputs: model.outputs }) }));
}

function result(model, baseline) {
  const times = (!model.error && model.times) || [];
  const baseTimes = (!baseline.error && baseline.times) || [];
  const ratios = times.slice(0, baseTimes.length).map((time, round) => baseTimes[round] / time);
  const { top1 = null, rows = 0, sqnrDb = null } = (!model.error && model.agreement) || {};
  return {
    name: model.name,
    error: model.error ?? null,
    file_bytes: model.fileBytes,
    heap_bytes: model.heapBytes ?? null,
    rounds: times.length,
    ...range("ms", times),
    ...range("speedup", ratios),
    top1_same: top1,
    top1_rows: rows,
    sqnr_db: Number.isFinite(sqnrDb) ? sqnrDb : null,
    identical: sqnrDb === Infinity,
  };
}

function range(name, values) {
  const at = (q) => (values.length ? quantile(values, q) : null);
  return { [name]: at(0.5), [`${name}_p10`]: at(0.1), [`${name}_p90`]: at(0.9) };
}
