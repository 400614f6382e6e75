// The page: a button, progress, results, and a file with them.

import { bench } from "./bench.mjs";
import { bars, element, table } from "./charts.mjs";
import { fileBytes, fileText } from "./files.mjs";
import { openRemote } from "./remote.mjs";

const WARM_UP_MS = 500;
const SAMPLE_MS = 20; // browsers round their clocks to as much as a millisecond

const find = (id) => document.getElementById(id);
const plural = (count, word) => `${count} ${word}${count === 1 ? "" : "s"}`;

let manifest;
let saved;
let stop = false;

async function start() {
  manifest = JSON.parse(await fileText("manifest.json"));
  document.title = manifest.title;
  find("title").textContent = manifest.title;
  const [base, ...others] = manifest.models.map(({ name }) => name);
  find("summary").textContent = others.length
    ? `${others.join(", ")} against ${base}, timed in this browser. Nothing leaves this device.`
    : `${base}, timed in this browser. Nothing leaves this device.`;
  find("rounds").value = String(manifest.rounds);
  if (!find("rounds").value) {
    find("rounds").append(element("option", { value: manifest.rounds, selected: true }, [plural(manifest.rounds, "round")]));
  }
  const { name, version, licence } = manifest.runtime;
  find("runtime").textContent = `${name} ${version} (${licence}), one thread, SIMD`;
  find("device").textContent = navigator.userAgent;
  show(manifest.models.map(unmeasured));
  find("run").disabled = false;
}

/** A result of which only the file is known. */
function unmeasured({ name, bytes }) {
  const nothing = { ms: null, speedup: null, heap_bytes: null, top1_rows: 0, sqnr_db: null };
  return { name, file_bytes: bytes, error: null, ...nothing };
}

function describedInputs() {
  const { samples, seed, tensors } = manifest.inputs;
  return {
    count: plural(samples, seed === null ? "given input" : "random input"),
    shape: tensors.map(({ dims }) => dims.join("×")).join(" and "),
  };
}

function show(models) {
  find("bars").replaceChildren(...bars(models, describedInputs()));
  find("table").replaceChildren(table(models));
}

async function run() {
  stop = false;
  saved = undefined;
  setRunning(true);
  find("notes").replaceChildren();
  const open = [];
  let hidden = document.hidden;
  const noteHidden = () => (hidden ||= document.hidden);
  document.addEventListener("visibilitychange", noteHidden);
  try {
    const models = await bench(await entries(open), {
      rounds: Number(find("rounds").value),
      warmUpMs: WARM_UP_MS,
      sampleMs: SAMPLE_MS,
      progress: showProgress,
      stopped: () => stop,
    });
    show(models);
    notes(models, hidden).forEach((text) => find("notes").append(element("li", {}, [text])));
    saved = results(models, hidden);
    const rounds = Math.max(...models.map((model) => model.rounds));
    say(rounds ? `Done: ${plural(rounds, "round")}.` : "Nothing was measured.");
  } catch (error) {
    say(`Failed: ${error.message}`);
  } finally {
    document.removeEventListener("visibilitychange", noteHidden);
    open.forEach((model) => model.close());
    setRunning(false);
  }
}

/** What the bench needs of every model; `open` collects what has to be closed. */
async function entries(open) {
  say("Loading the runtime");
  const { script, wasm } = manifest.runtime.files;
  const [workerSource, runnerSource, ortSource] = await Promise.all(["worker.js", "runner.mjs", script].map(fileText));
  const [wasmBytes, tensors] = await Promise.all([
    fileBytes(wasm),
    Promise.all(
      manifest.inputs.tensors.map(async ({ type, dims, file }) => ({ type, dims, bytes: (await fileBytes(file)).buffer })),
    ),
  ]);
  const inputs = { samples: manifest.inputs.samples, tensors };
  return manifest.models.map(({ name, file, bytes, inputs: names }) => ({
    name,
    fileBytes: bytes,
    open: async () => {
      const sources = { workerSource, runnerSource, ortSource };
      const model = await openRemote({ ...sources, wasm: wasmBytes, model: await fileBytes(file), names, inputs });
      open.push(model);
      return model;
    },
  }));
}

function notes(models, hidden) {
  const found = models.filter(({ error }) => error).map(({ name, error }) => `${name} failed: ${error}`);
  if (hidden) found.push("The page was hidden meanwhile, so these times are not to be trusted: run again.");
  const restless = models.filter((model) => model.speedup_p90 > 1.5 * model.speedup_p10).map(({ name }) => name);
  if (restless.length) {
    found.push(`The rounds of ${restless.join(", ")} differ a lot: the device was busy, or hot. Run again, with more rounds.`);
  }
  return found;
}

function results(models, hidden) {
  return {
    format: 1,
    title: manifest.title,
    date: new Date().toISOString(),
    user_agent: navigator.userAgent,
    hardware_concurrency: navigator.hardwareConcurrency ?? null,
    page_was_hidden: hidden,
    runtime: `${manifest.runtime.name} ${manifest.runtime.version}`,
    inputs: { samples: manifest.inputs.samples, seed: manifest.inputs.seed },
    models: models.map((model, position) => ({ ...model, sha256: manifest.models[position].sha256 })),
  };
}

function save() {
  const url = URL.createObjectURL(new Blob([JSON.stringify(saved, null, 2)], { type: "application/json" }));
  element("a", { href: url, download: "bench.json" }).click();
  setTimeout(() => URL.revokeObjectURL(url), 10_000); // a phone may ask first
}

// -- progress --------------------------------------------------------------------------------------

function showProgress({ stage, name, done, total }) {
  find("progress").max = total;
  find("progress").value = stage === "measure" ? done : 0;
  if (stage === "load") say(`Loading ${name} (${done} of ${total})`);
  else if (stage === "warm-up") say("Warming up");
  else if (done === 1 || done % 10 === 0 || done === total) say(`Round ${done} of ${total}`);
}

function say(text) {
  find("status").textContent = text;
}

function setRunning(running) {
  find("run").hidden = running;
  find("stop").hidden = !running;
  find("progress").hidden = !running;
  find("rounds").disabled = running;
  find("save").hidden = running || !saved;
  find("progress").removeAttribute("value");
  document.body.dataset.state = running ? "running" : "ready";
}

find("run").addEventListener("click", run);
find("stop").addEventListener("click", () => {
  stop = true;
  say("Stopping");
});
find("save").addEventListener("click", save);
start().catch((error) => say(`This page is not whole: ${error.message}`));
