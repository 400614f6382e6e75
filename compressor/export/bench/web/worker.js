// One model in a worker of its own, so that it has a heap of its own and the page stays alive.
// A classic script: a module worker cannot be started from a page that was opened as a file.

let model;

const calls = {
  async open({ ortSource, runnerSource, ...given }) {
    const [ort, { openModel }] = await Promise.all([ortSource, runnerSource].map(moduleOf));
    model = await openModel({ ...given, ort, clock: () => performance.now() });
  },
  outputs: () => model.outputs(),
  time: (count) => model.time(count),
  heapBytes: () => model.heapBytes(),
};

/** A module from its text: what a page that was opened as a file links to, its workers may not import. */
function moduleOf(source) {
  return import(URL.createObjectURL(new Blob([source], { type: "text/javascript" })));
}

self.onmessage = async ({ data: { id, name, argument } }) => {
  try {
    self.postMessage({ id, value: await calls[name](argument) });
  } catch (error) {
    self.postMessage({ id, error: error?.message ?? String(error) });
  }
};
