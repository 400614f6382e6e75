// Interleaved timing: every round runs every model, in alternating order, so that a busy moment meets all of them.

/**
 * Milliseconds of one run: for each model a list with one number a round.
 *
 * A model has `time(count)`; one that fails gets its `error` and leaves the rotation. Each is warmed up for
 * `warmUpMs`, then a round runs it so often that it takes about `sampleMs`. `progress(done, total)` follows the rounds;
 * `stopped()` ends them early.
 */
export async function measure(models, { rounds, warmUpMs, sampleMs, progress = () => {}, stopped = () => false }) {
  const counts = new Map();
  for (const model of models) {
    if (stopped()) break;
    await attempt(model, async () => counts.set(model, await runsOf(model, warmUpMs, sampleMs)));
  }
  const times = new Map(models.map((model) => [model, []]));
  for (let round = 0; round < rounds && !stopped(); round++) {
    const order = models.filter((model) => !model.error && counts.has(model));
    if (round % 2) order.reverse();
    for (const model of order) {
      const count = counts.get(model);
      await attempt(model, async () => times.get(model).push((await model.time(count)) / count));
    }
    progress(round + 1, rounds);
  }
  return models.map((model) => times.get(model));
}

/** How many runs take `sampleMs`, known after `warmUpMs` of them: the first ones compile what is used. */
async function runsOf(model, warmUpMs, sampleMs) {
  let count = 1;
  let spent = 0;
  for (;;) {
    const last = await model.time(count);
    spent += last;
    if (last < sampleMs / 2) count *= 2;
    else if (spent >= warmUpMs) return Math.max(1, Math.round((count * sampleMs) / last));
  }
}

async function attempt(model, action) {
  try {
    await action();
  } catch (error) {
    model.error = error.message;
  }
}

/** The value below which the fraction `q` of the values lies, interpolated; NaN for none. */
export function quantile(values, q) {
  const sorted = [...values].sort((a, b) => a - b);
  if (sorted.length === 0) return NaN;
  const at = q * (sorted.length - 1);
  const low = Math.floor(at);
  const high = Math.ceil(at);
  return sorted[low] + (sorted[high] - sorted[low]) * (at - low);
}
