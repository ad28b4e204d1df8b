// The panels of the page; models.json says which models there are and where their functions run.

import { OnnxBackend, ServerBackend } from "./backends.js";
import { between, characters, controls, latents } from "./latents.js";

const $ = (id) => document.getElementById(id);
const part = (section, name) => $(section).querySelector(`[data-name="${name}"]`);

let backend;
let models = [];
let model;

// Pictures --------------------------------------------------------------------------------------------------------------

/** Images (N, C, H, W) in [-1, 1], side by side. */
function show(canvas, { dims, data }, columns) {
  const [n, channels, height, width] = dims;
  columns = Math.min(columns, n, window.innerWidth < 600 ? 4 : 8);
  const gap = n > 1 ? 1 : 0;
  const rows = Math.ceil(n / columns);
  canvas.width = columns * (width + gap) - gap;
  canvas.height = rows * (height + gap) - gap;
  if (n > 1) canvas.style.width = `${Math.min(columns * Math.max(64, width), 704)}px`;
  const context = canvas.getContext("2d");
  for (let i = 0; i < n; i++) {
    const image = context.createImageData(width, height);
    for (let p = 0; p < height * width; p++) {
      for (let c = 0; c < 3; c++) {
        const value = data[(i * channels + Math.min(c, channels - 1)) * height * width + p];
        image.data[4 * p + c] = Math.round((Math.min(1, Math.max(-1, value)) + 1) * 127.5);
      }
      image.data[4 * p + 3] = 255;
    }
    context.putImageData(image, (i % columns) * (width + gap), Math.floor(i / columns) * (height + gap));
  }
}

/** The tensor (1, C, H, W) in [-1, 1] of a source that a canvas can draw. */
function pixels(source, box, target) {
  const [channels, height, width] = model.shape;
  const canvas = new OffscreenCanvas(width, height);
  const context = canvas.getContext("2d", { willReadFrequently: true });
  context.fillStyle = target ? "#000" : "#fff"; // of digits and of emoji
  context.fillRect(0, 0, width, height);
  context.imageSmoothingQuality = "high";
  context.drawImage(source, ...box, ...(target ?? [0, 0, width, height]));
  const found = context.getImageData(0, 0, width, height).data;
  const data = new Float32Array(channels * height * width);
  for (let c = 0; c < channels; c++)
    for (let p = 0; p < height * width; p++) data[c * height * width + p] = found[4 * p + c] / 127.5 - 1;
  return { dims: [1, channels, height, width], data };
}

const same = (value, n) => ({ dims: [n], data: new BigInt64Array(n).fill(BigInt(value)) });

// Running ---------------------------------------------------------------------------------------------------------------

function say(text, isError = false) {
  $("status").textContent = text;
  $("status").classList.toggle("error", isError);
}

/** A handler of which one call runs at a time; of those that come meanwhile only the last one follows. */
function latest(work) {
  let busy = false;
  let again = false;
  return async () => {
    again = true;
    if (busy) return;
    busy = true;
    try {
      while (again) {
        again = false;
        const start = performance.now();
        await work();
        say(`${Math.round(performance.now() - start)} ms`);
      }
    } catch (error) {
      say(error.message, true);
    } finally {
      busy = false;
    }
  };
}

function input(section, name) {
  const element = part(section, name);
  const output = element.parentElement.querySelector("output");
  if (output) output.value = element.value;
  return Number(element.value);
}

/** Images of latents, of a class where the model has classes. */
function generate(z, label = 0) {
  const inputs = { z };
  if (model.functions.generate.inputs.includes("label")) inputs.label = same(label, z.dims[0]);
  return backend.run(model, "generate", inputs);
}

const row = (spec, seed) => latents(spec, 1, seed).data;

// Panels ----------------------------------------------------------------------------------------------------------------

const generates = () => Boolean(model.latent && model.functions.generate);
const fromNoise = () => generates() && !model.text;

const panels = {
  sample: {
    fits: fromNoise,
    set() {
      const labels = part("sample", "label");
      labels.parentElement.hidden = !model.functions.generate.inputs.includes("label");
      labels.replaceChildren(...Array.from({ length: model.classes }, (_, i) => new Option(i)));
    },
    draw: latest(async () => {
      const seed = input("sample", "seed");
      part("sample", "command").textContent = `zoo sample ${model.slug} --seed ${seed}`;
      const label = Number(part("sample", "label").value);
      show($("sample").querySelector("canvas"), await generate(latents(model.latent, 16, seed), label), 8);
    }),
  },
  walk: {
    fits: fromNoise,
    set() {},
    draw: latest(async () => {
      const way = input("walk", "way") / 100;
      const ends = ["from", "to"].map((name) => row(model.latent, Math.max(0, Math.round(input("walk", name)))));
      const data = between(model.latent, ...ends, way);
      show($("walk").querySelector("canvas"), await generate({ dims: [1, data.length], data }), 1);
    }),
  },
  codes: {
    fits: () => fromNoise() && controls(model.latent).length > 0,
    set() {
      const start = row(model.latent, Math.max(0, Math.round(input("codes", "seed"))));
      this.code = start;
      part("codes", "sliders").replaceChildren(
        ...controls(model.latent).map((control) => {
          const label = document.createElement("label");
          label.append(control.name);
          label.append(control.count ? this.choice(control) : this.slider(control));
          return label;
        }),
      );
    },
    choice({ start, count }) {
      const select = document.createElement("select");
      select.append(...Array.from({ length: count }, (_, i) => new Option(i)));
      select.value = this.code.subarray(start, start + count).indexOf(1);
      select.addEventListener("change", () => {
        this.code.fill(0, start, start + count);
        this.code[start + Number(select.value)] = 1;
        panels.codes.draw();
      });
      return select;
    },
    slider({ start, low, high }) {
      const slider = Object.assign(document.createElement("input"), { type: "range", min: low, max: high, step: "any" });
      slider.value = this.code[start];
      slider.addEventListener("input", () => {
        this.code[start] = Number(slider.value);
        panels.codes.draw();
      });
      return slider;
    },
    draw: latest(async () => {
      const { code } = panels.codes;
      show($("codes").querySelector("canvas"), await generate({ dims: [1, code.length], data: code.slice() }), 1);
    }),
  },
  draw: {
    fits: () => isForDigits(model) && Boolean(model.functions.reconstruct || judge()),
    set() {
      part("draw", "answer").hidden = !model.functions.reconstruct;
    },
    draw: latest(async () => {
      const x = digit(part("draw", "pad"));
      show(part("draw", "seen"), x, 1);
      part("draw", "bars").replaceChildren();
      if (x.data.every((value) => value === -1)) return show(part("draw", "reconstruction"), x, 1);
      if (model.functions.reconstruct) {
        show(part("draw", "reconstruction"), await backend.run(model, "reconstruct", { x }), 1);
      }
      if (judge()) bars(part("draw", "bars"), (await backend.run(judge(), "classify", { x })).data);
    }),
  },
  translate: {
    fits: () => Boolean(model.domains),
    set() {
      part("translate", "target").replaceChildren(...model.domains.map((name, i) => new Option(name, i)));
      part("translate", "examples").replaceChildren(...model.examples.map((src, i) => example(src, i)));
      part("translate", "credit").textContent = model.credit;
      this.picture = null;
      if (model.examples.length) choose(model.examples[0]);
    },
    draw: latest(async () => {
      if (!panels.translate.picture) return;
      const x = panels.translate.picture;
      show(part("translate", "before"), x, 1);
      const target = input("translate", "target");
      const own = `translate:${model.domains[target]}`;
      const image = own in model.functions
        ? await backend.run(model, own, { x })
        : await backend.run(model, "translate", { x, target: same(target, 1) });
      show(part("translate", "after"), image, 1);
    }),
  },
  write: {
    fits: () => generates() && Boolean(model.text),
    set() {
      part("write", "sentence").value ||= model.text.example;
    },
    draw: latest(async () => {
      const n = 8;
      const sentence = characters(model.text, part("write", "sentence").value);
      const one = await backend.run(model, "encode_text", { characters: sentence });
      const embedding = { dims: [n, one.dims[1]], data: new Float32Array(n * one.dims[1]) };
      for (let i = 0; i < n; i++) embedding.data.set(one.data, i * one.dims[1]);
      const z = latents(model.latent, n, input("write", "seed"));
      show($("write").querySelector("canvas"), await backend.run(model, "generate", { z, embedding }), 8);
    }),
  },
};

// Drawing ---------------------------------------------------------------------------------------------------------------

const isForDigits = ({ shape, data }) => shape.join() === "1,28,28" && [null, "MNIST"].includes(data);

/** The model that names a digit: the chosen one, or a classifier beside it. */
function judge() {
  const classifies = models.filter((other) => other.functions.classify && isForDigits(other));
  return classifies.find((other) => other.supervised) ?? classifies.find((other) => other === model);
}

/** The drawing as MNIST has its digits: 20 pixels long, its center of mass in the middle. */
function digit(pad) {
  const { width, height } = pad;
  const found = pad.getContext("2d").getImageData(0, 0, width, height).data;
  let [left, top, right, bottom, mass, mx, my] = [width, height, -1, -1, 0, 0, 0];
  for (let y = 0; y < height; y++) {
    for (let x = 0; x < width; x++) {
      const value = found[4 * (y * width + x)];
      if (!value) continue;
      [left, right, top, bottom] = [Math.min(left, x), Math.max(right, x), Math.min(top, y), Math.max(bottom, y)];
      mass += value, mx += value * x, my += value * y;
    }
  }
  if (right < 0) return pixels(pad, [0, 0, width, height], [0, 0, 28, 28]);
  const [w, h] = [right - left + 1, bottom - top + 1];
  const scale = 20 / Math.max(w, h);
  const place = [14 - (mx / mass - left) * scale, 14 - (my / mass - top) * scale, w * scale, h * scale];
  return pixels(pad, [left, top, w, h], place);
}

/** Probabilities in percent, a bar for each. */
function bars(element, probabilities) {
  element.replaceChildren(
    ...Array.from(probabilities, (p, i) => {
      const bar = document.createElement("div");
      bar.title = `${i}: ${(100 * p).toFixed(1)} %`;
      bar.innerHTML = `<span>${Math.round(100 * p)}</span><i style="height:${Math.round(60 * p)}%"></i><b>${i}</b>`;
      return bar;
    }),
  );
}

function preparePad() {
  const pad = part("draw", "pad");
  const context = pad.getContext("2d", { willReadFrequently: true });
  const pen = { x: 140, y: 60, isDown: false };
  const clear = () => {
    context.fillStyle = "#000";
    context.fillRect(0, 0, pad.width, pad.height);
  };
  const line = (x, y) => {
    Object.assign(context, { strokeStyle: "#fff", lineWidth: 22, lineCap: "round", lineJoin: "round" });
    context.beginPath();
    context.moveTo(pen.x, pen.y);
    context.lineTo(x, y);
    context.stroke();
    Object.assign(pen, { x, y });
    if (model && panels.draw.fits()) panels.draw.draw();
  };
  const at = (event) => {
    const box = pad.getBoundingClientRect();
    return [((event.clientX - box.left) / box.width) * pad.width, ((event.clientY - box.top) / box.height) * pad.height];
  };
  pad.addEventListener("pointerdown", (event) => {
    pad.setPointerCapture(event.pointerId);
    [pen.x, pen.y] = at(event);
    line(pen.x, pen.y);
  });
  pad.addEventListener("pointermove", (event) => {
    if (event.buttons & 1) line(...at(event));
  });
  pad.addEventListener("keydown", (event) => {
    const moves = { ArrowLeft: [-10, 0], ArrowRight: [10, 0], ArrowUp: [0, -10], ArrowDown: [0, 10] };
    if (event.key === " ") {
      pen.isDown = !pen.isDown;
      if (pen.isDown) line(pen.x, pen.y);
    } else if (moves[event.key]) {
      const [x, y] = [pen.x + moves[event.key][0], pen.y + moves[event.key][1]];
      const inside = [Math.min(pad.width, Math.max(0, x)), Math.min(pad.height, Math.max(0, y))];
      if (pen.isDown) line(...inside);
      else [pen.x, pen.y] = inside;
    } else return;
    event.preventDefault();
  });
  part("draw", "clear").addEventListener("click", () => {
    clear();
    panels.draw.draw();
  });
  clear();
  // A three to begin with.
  [pen.x, pen.y] = [95, 75];
  for (const [x, y] of [[125, 55], [160, 60], [175, 90], [160, 120], [130, 132], [170, 145], [185, 180], [165, 215], [125, 225], [90, 208]])
    line(x, y);
}

// Translating -----------------------------------------------------------------------------------------------------------

function example(src, i) {
  const button = Object.assign(document.createElement("button"), { type: "button" });
  button.append(Object.assign(document.createElement("img"), { src, alt: `Example ${i + 1}` }));
  button.addEventListener("click", () => choose(src));
  return button;
}

/** Take a picture, the central square of it: a file, or the address of one. */
async function choose(source) {
  try {
    const blob = typeof source === "string" ? await (await fetch(source)).blob() : source;
    const bitmap = await createImageBitmap(blob);
    const side = Math.min(bitmap.width, bitmap.height);
    const box = [(bitmap.width - side) / 2, (bitmap.height - side) / 2, side, side];
    panels.translate.picture = pixels(bitmap, box);
  } catch {
    return say("this file is no picture that the browser can read: take a PNG or JPEG", true);
  }
  panels.translate.draw();
}

// The page --------------------------------------------------------------------------------------------------------------

function select(slug) {
  model = models.find((other) => other.slug === slug);
  $("about").textContent = `${model.class}, ${model.parameters.toLocaleString("en")} parameters`;
  for (const [name, panel] of Object.entries(panels)) {
    $(name).hidden = !panel.fits();
    if ($(name).hidden) continue;
    panel.set();
    panel.draw();
  }
}

function listen() {
  $("model").addEventListener("change", () => select($("model").value));
  for (const [section, names] of Object.entries({ sample: ["seed", "label"], walk: ["from", "to", "way"], write: ["sentence", "seed"] }))
    for (const name of names) part(section, name).addEventListener("input", panels[section].draw);
  part("sample", "next").addEventListener("click", () => {
    part("sample", "seed").value = (input("sample", "seed") + 1) % 100;
    panels.sample.draw();
  });
  part("walk", "play").addEventListener("click", play);
  const again = () => {
    panels.codes.set();
    panels.codes.draw();
  };
  part("codes", "reset").addEventListener("click", again);
  part("codes", "seed").addEventListener("input", again);
  part("translate", "target").addEventListener("change", panels.translate.draw);
  part("translate", "file").addEventListener("change", (event) => event.target.files.length && choose(event.target.files[0]));
  const drop = $("translate").querySelector(".drop");
  for (const kind of ["dragover", "dragleave", "drop"]) {
    $("translate").addEventListener(kind, (event) => {
      event.preventDefault();
      drop.classList.toggle("over", kind === "dragover");
      if (kind === "drop" && event.dataTransfer.files.length) choose(event.dataTransfer.files[0]);
    });
  }
  preparePad();
}

let playing = false;

/** There and back once; a second press stops it. */
async function play() {
  playing = !playing;
  part("walk", "play").textContent = playing ? "Stop" : "Play";
  const way = part("walk", "way");
  for (let step = 0; playing && step <= 200; step += 2) {
    way.value = step <= 100 ? step : 200 - step;
    await panels.walk.draw();
    await new Promise((done) => setTimeout(done, 40));
  }
  playing = false;
  part("walk", "play").textContent = "Play";
}

try {
  const found = await (await fetch("models.json")).json();
  models = found.models;
  backend = found.backend === "onnx" ? new OnnxBackend() : new ServerBackend();
  listen();
  $("model").append(...models.map(({ slug }) => new Option(slug)));
  select(models[0].slug);
} catch (error) {
  say(`The page cannot start: ${error.message}`, true);
}
