// Results as bars and as a table.

const number = (digits) => (value) =>
  value.toLocaleString("en", { minimumFractionDigits: digits, maximumFractionDigits: digits });
const times = (value) => `${number(2)(value)}×`;
const mib = (bytes) => `${number(1)(bytes / 2 ** 20)} MiB`;
const size = (bytes) => (bytes < 1e6 ? `${number(bytes < 1e4 ? 1 : 0)(bytes / 1e3)} kB` : `${number(2)(bytes / 1e6)} MB`);
const milliseconds = (value) => `${number(value < 10 ? 2 : 1)(value)} ms`;

/** What is shown of a result: `value` gives a number or null, `text` its words, `most` the length of a full bar. */
const MEASURES = [
  {
    title: "Time",
    note: (base, { shape }) => `one run on ${shape}, median; shorter is better`,
    value: (model) => model.ms,
    text: (model) => milliseconds(model.ms),
  },
  {
    title: "Speed-up",
    note: (base) => `over ${base}, median of the rounds (10th to 90th percentile)`,
    value: (model) => model.speedup,
    text: (model, base) =>
      model === base
        ? times(1)
        : `${times(model.speedup)}${model.speedup < 1 ? ", slower" : ""} (${number(2)(model.speedup_p10)}–${number(2)(model.speedup_p90)})`,
    slow: (model) => model.speedup !== null && model.speedup < 1,
  },
  {
    title: "Heap",
    note: () => "WebAssembly memory at its peak; every heap starts at 16 MiB",
    value: (model) => model.heap_bytes,
    text: (model) => mib(model.heap_bytes),
  },
  {
    title: "File",
    note: () => "what is downloaded",
    value: (model) => model.file_bytes,
    text: (model) => size(model.file_bytes),
  },
  {
    title: "Agreement",
    note: (base, { count }) => `inputs with the same top-1 class as ${base}, of ${count}`,
    value: (model) => (model.top1_rows ? model.top1_same / model.top1_rows : null),
    text: (model) => `${number(1)((100 * model.top1_same) / model.top1_rows)} % (${model.top1_same} of ${model.top1_rows})`,
    most: 1,
  },
];

/** One section of bars for each measure that any model has; `inputs` has their `count` and `shape` in words. */
export function bars(models, inputs) {
  return MEASURES.filter(({ value }) => models.some((model) => value(model) !== null)).map((measure) => {
    const longest = measure.most ?? Math.max(...models.map((model) => measure.value(model) ?? 0));
    const rows = models.map((model) => bar(measure, model, models[0], longest));
    return element("section", { className: "measure" }, [
      element("h2", {}, [measure.title]),
      element("p", { className: "note" }, [measure.note(models[0].name, inputs)]),
      element("ul", {}, rows),
    ]);
  });
}

function bar(measure, model, base, longest) {
  const value = measure.value(model);
  const fill = element("span", { className: "fill" });
  fill.style.width = `${value === null ? 0 : Math.max(0.5, (100 * value) / longest)}%`;
  const kind = model === base ? "base" : measure.slow?.(model) ? "slow" : "";
  const without = model.error ? "failed" : "not measured";
  const text = value === null ? without : measure.text(model, base);
  return element("li", { className: kind }, [
    element("span", { className: "name" }, breakable(model.name)),
    element("span", { className: "value" }, [text]),
    element("span", { className: "track", ariaHidden: "true" }, [fill]),
  ]);
}

/** All numbers in a table. */
export function table(models) {
  const columns = ["Model", ...MEASURES.map(({ title }) => title), "SQNR"];
  const head = columns.map((title) => element("th", { scope: "col" }, [title]));
  const body = models.map((model) =>
    element("tr", {}, [
      element("th", { scope: "row" }, breakable(model.name)),
      ...MEASURES.map(({ value, text }) => cell(value(model) === null ? "–" : text(model, models[0]))),
      cell(model.identical ? "identical" : model.sqnr_db === null ? "–" : `${number(1)(model.sqnr_db)} dB`),
    ]),
  );
  return element("table", {}, [
    element("thead", {}, [element("tr", {}, head)]),
    element("tbody", {}, body),
  ]);
}

/** A file's name that may break where its parts end. */
function breakable(name) {
  return name.split(/(?<=[._-])/).flatMap((part) => [part, element("wbr", {})]);
}

function cell(text) {
  return element("td", {}, [text]);
}

/** An element with properties and children, strings as text. */
export function element(tag, properties, children = []) {
  const made = Object.assign(document.createElement(tag), properties);
  made.append(...children);
  return made;
}
