// Where a model's functions run: in the page itself, or in the process that serves the page.

/** Functions as ONNX files, run by onnxruntime-web. */
export class OnnxBackend {
  constructor() {
    this.sessions = new Map();
  }

  async session(file) {
    if (!this.sessions.has(file)) {
      const opened = (async () => {
        this.ort ??= await import("./ort/ort.wasm.min.mjs");
        this.ort.env.wasm.wasmPaths = new URL("./ort/", import.meta.url).href;
        this.ort.env.wasm.numThreads = 1; // more need headers that static hosts rarely send
        return this.ort.InferenceSession.create(file, { executionProviders: ["wasm"] });
      })();
      this.sessions.set(file, opened);
      opened.catch(() => this.sessions.delete(file)); // so that it is tried again
    }
    return this.sessions.get(file);
  }

  async run(model, name, inputs) {
    const session = await this.session(model.functions[name].file);
    const feeds = {};
    for (const [input, { data, dims }] of Object.entries(inputs)) {
      const type = data instanceof BigInt64Array ? "int64" : "float32";
      feeds[input] = new this.ort.Tensor(type, data, dims);
    }
    const found = (await session.run(feeds))[session.outputNames[0]];
    return { dims: [...found.dims], data: found.data };
  }
}

/** Functions that the serving process runs. */
export class ServerBackend {
  async run(model, name, inputs) {
    const given = {};
    for (const [input, { data, dims }] of Object.entries(inputs)) given[input] = { dims, data: Array.from(data, Number) };
    const response = await fetch("run", {
      method: "POST",
      headers: { "Content-Type": "application/json" },
      body: JSON.stringify({ model: model.slug, function: name, inputs: given }),
    });
    if (!response.ok) throw new Error(await response.text());
    const dims = response.headers.get("X-Shape").split(",").map(Number);
    return { dims, data: new Float32Array(await response.arrayBuffer()) };
  }
}
