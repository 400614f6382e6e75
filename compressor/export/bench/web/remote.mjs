// A model that runs in a worker, with the calls of one that runs here.

/** A model of runner.mjs in a fresh worker; `close()` ends the worker. */
export async function openRemote({ workerSource, ...given }) {
  const url = URL.createObjectURL(new Blob([workerSource], { type: "text/javascript" }));
  const worker = new Worker(url);
  const waiting = new Map();
  let last = 0;
  let dead;
  const fail = (message) => {
    dead = new Error(message); // such a worker never answers again
    for (const { reject } of waiting.values()) reject(dead);
    waiting.clear();
  };
  worker.onmessage = ({ data: { id, value, error } }) => {
    const { resolve, reject } = waiting.get(id);
    waiting.delete(id);
    if (error === undefined) resolve(value);
    else reject(new Error(error));
  };
  worker.onerror = (event) => {
    event.preventDefault();
    fail(`its worker failed: ${event.message ?? "no reason given"}`);
  };
  const call = (name) => (argument) =>
    new Promise((resolve, reject) => {
      if (dead) throw dead;
      last += 1;
      waiting.set(last, { resolve, reject });
      worker.postMessage({ id: last, name, argument });
    });
  const close = () => worker.terminate();
  try {
    await call("open")(given);
  } catch (error) {
    close();
    throw error;
  }
  return { outputs: call("outputs"), time: call("time"), heapBytes: call("heapBytes"), close };
}
