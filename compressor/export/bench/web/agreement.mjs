// How far the outputs of two models are from each other.

/**
 * Over all samples of a first output, [{ dims, data }] each: `top1`, in how many of `rows` rows of [batch, classes] both
 * have the same largest class, null for outputs of another rank; `sqnrDb`, the power of the reference over that of
 * the difference, in decibels, Infinity for equal outputs. Throws where the shapes differ.
 */
export function agreement(reference, found) {
  let [signal, noise, same, rows] = [0, 0, 0, 0];
  reference.forEach((expected, sample) => {
    const other = found[sample];
    if (String(expected.dims) !== String(other.dims)) {
      throw new Error(`its output is [${other.dims}], the first model's [${expected.dims}]`);
    }
    for (let i = 0; i < expected.data.length; i++) {
      const value = Number(expected.data[i]);
      const difference = value - Number(other.data[i]);
      signal += value * value;
      noise += difference * difference;
    }
    const classes = classesOf(expected.dims);
    for (let start = 0; classes && start < expected.data.length; start += classes, rows++) {
      if (largest(expected.data, start, classes) === largest(other.data, start, classes)) same++;
    }
  });
  return { top1: rows ? same : null, rows, sqnrDb: noise === 0 ? Infinity : 10 * Math.log10(signal / noise) };
}

/** The number of classes of a classifier's output [batch, classes]; 0 for any other. */
function classesOf(dims) {
  return dims.length === 2 && dims[1] > 1 ? dims[1] : 0;
}

/** The position of the largest of `count` values from `start` on: the first of equals, NaN where one is NaN. */
function largest(data, start, count) {
  let best = start;
  for (let i = start; i < start + count; i++) {
    if (Number.isNaN(data[i])) return NaN;
    if (data[i] > data[best]) best = i;
  }
  return best - start;
}
