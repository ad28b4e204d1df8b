// Inputs of the models, the same numbers that `zoo` draws: zoo/engine/rng.py and each model's `latent`.

const MASK = (1n << 64n) - 1n;
const GOLDEN = 0x9e3779b97f4a7c15n;
const MIX1 = 0xbf58476d1ce4e5b9n;
const MIX2 = 0x94d049bb133111ebn;

const IV = [
  0x6a09e667f3bcc908n, 0xbb67ae8584caa73bn, 0x3c6ef372fe94f82bn, 0xa54ff53a5f1d36f1n,
  0x510e527fade682d1n, 0x9b05688c2b3e6c1fn, 0x1f83d9abfb41bd6bn, 0x5be0cd19137e2179n,
];
const SIGMA = [
  [0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15],
  [14, 10, 4, 8, 9, 15, 13, 6, 1, 12, 0, 2, 11, 7, 5, 3],
  [11, 8, 12, 0, 5, 2, 15, 13, 10, 14, 3, 6, 7, 1, 9, 4],
  [7, 9, 3, 1, 13, 12, 11, 14, 2, 6, 5, 10, 4, 0, 15, 8],
  [9, 0, 5, 7, 2, 4, 10, 15, 14, 1, 11, 12, 6, 8, 3, 13],
  [2, 12, 6, 10, 0, 11, 8, 3, 4, 13, 7, 5, 15, 14, 1, 9],
  [12, 5, 1, 15, 14, 13, 4, 10, 0, 7, 6, 3, 9, 2, 8, 11],
  [13, 11, 7, 14, 12, 1, 3, 9, 5, 0, 15, 4, 8, 6, 2, 10],
  [6, 15, 14, 9, 11, 3, 0, 8, 12, 2, 13, 7, 1, 4, 10, 5],
  [10, 2, 8, 4, 7, 6, 1, 5, 15, 11, 9, 14, 3, 12, 13, 0],
];
const COLUMNS = [
  [0, 4, 8, 12], [1, 5, 9, 13], [2, 6, 10, 14], [3, 7, 11, 15],
  [0, 5, 10, 15], [1, 6, 11, 12], [2, 7, 8, 13], [3, 4, 9, 14],
];

/** BLAKE2b with 8 bytes of output (RFC 7693), of a text of at most 128 bytes. */
function blake2b(text) {
  const bytes = new TextEncoder().encode(text);
  if (bytes.length > 128) throw new Error("the purpose of a key is too long");
  const block = new Uint8Array(128);
  block.set(bytes);
  const words = new BigUint64Array(block.buffer);
  const rotated = (x, n) => (x >> n) | ((x << (64n - n)) & MASK);
  const h = [...IV];
  h[0] ^= 0x01010000n ^ 8n;
  const v = [...h, ...IV];
  v[12] ^= BigInt(bytes.length);
  v[14] ^= MASK; // the last block
  for (let round = 0; round < 12; round++) {
    const order = SIGMA[round % 10];
    COLUMNS.forEach(([a, b, c, d], i) => {
      v[a] = (v[a] + v[b] + words[order[2 * i]]) & MASK;
      v[d] = rotated(v[d] ^ v[a], 32n);
      v[c] = (v[c] + v[d]) & MASK;
      v[b] = rotated(v[b] ^ v[c], 24n);
      v[a] = (v[a] + v[b] + words[order[2 * i + 1]]) & MASK;
      v[d] = rotated(v[d] ^ v[a], 16n);
      v[c] = (v[c] + v[d]) & MASK;
      v[b] = rotated(v[b] ^ v[c], 63n);
    });
  }
  return h[0] ^ v[0] ^ v[8];
}

/** The key of a stream of numbers. */
export function key(seed, ...purpose) {
  return blake2b([seed, ...purpose].join("/")) >> 1n;
}

function bits(count, stream) {
  const found = new BigUint64Array(count);
  for (let i = 0; i < count; i++) {
    let x = (stream + BigInt(i + 1) * GOLDEN) & MASK;
    x = ((x ^ (x >> 30n)) * MIX1) & MASK;
    x = ((x ^ (x >> 27n)) * MIX2) & MASK;
    found[i] = x ^ (x >> 31n);
  }
  return found;
}

/** Draws from U(low, high). */
export function uniform(count, stream, low = 0, high = 1) {
  const scale = Math.fround(high - low);
  return Float32Array.from(bits(count, stream), (x) =>
    Math.fround(Math.fround(Number(x >> 40n) * 2 ** -24 * scale) + low),
  );
}

/** Draws from N(0, 1). */
export function normal(count, stream) {
  return Float32Array.from(bits(count, stream), (x) => {
    const angle = Number(x & 0xffffffffn) * 2 * Math.PI * 2 ** -32;
    return Math.sqrt(-2 * Math.log((Number(x >> 32n) + 0.5) * 2 ** -32)) * Math.cos(angle);
  });
}

/** What `model.latent(n, seed=seed)` gives, as a tensor. */
export function latents(spec, n, seed) {
  const stream = key(seed, "sample");
  if (spec.kind === "codes") return codes(spec, n, stream);
  let data;
  if (spec.kind === "uniform") data = uniform(n * spec.size, stream, -spec.limit, spec.limit);
  else data = normal(n * spec.size, stream).map((x) => x * spec.std);
  return { dims: [n, spec.size], data };
}

// InfoGAN: noise, one-hot categories, continuous codes.
function codes(spec, n, stream) {
  const draws = spec.continuous + spec.categorical.length;
  const row = spec.size + draws;
  const u = uniform(n * row, stream, -1, 1);
  const z = spec.normal ? normal(n * spec.size, key(stream, "z")) : null;
  const width = spec.size + spec.categorical.reduce((a, b) => a + b, 0) + spec.continuous;
  const data = new Float32Array(n * width);
  for (let i = 0; i < n; i++) {
    let place = i * width;
    for (let j = 0; j < spec.size; j++) data[place++] = z ? z[i * spec.size + j] : u[i * row + j];
    const own = i * row + spec.size;
    spec.categorical.forEach((count, k) => {
      const chosen = Math.floor(Math.fround(Math.fround(u[own + spec.continuous + k] + 1) * (count / 2)));
      data[place + Math.min(chosen, count - 1)] = 1;
      place += count;
    });
    for (let k = 0; k < spec.continuous; k++) data[place++] = u[own + k];
  }
  return { dims: [n, width], data };
}

/** The codes of a row that a person may set: where each lies, and between which values. */
export function controls(spec) {
  if (spec.kind === "codes") {
    let start = spec.size;
    const found = spec.categorical.map((count, i) => {
      const name = spec.categorical.length > 1 ? `category ${i + 1}` : "category";
      const control = { name, start, count };
      start += count;
      return control;
    });
    for (let i = 0; i < spec.continuous; i++) found.push({ name: `code ${i + 1}`, start: start + i, low: -2, high: 2 });
    return found;
  }
  if (spec.kind !== "normal" || !spec.code || spec.size > 64) return [];
  const far = 3 * spec.std;
  return Array.from({ length: spec.size }, (_, i) => ({ name: `z${i}`, start: i, low: -far, high: far }));
}

/** The way from one row to another: along the sphere for Gaussian noise, else straight. */
export function between(spec, a, b, t) {
  if (spec.kind !== "normal") return a.map((x, i) => (1 - t) * x + t * b[i]);
  const norm = (v) => Math.sqrt(v.reduce((sum, x) => sum + x * x, 0));
  const cosine = a.reduce((sum, x, i) => sum + x * b[i], 0) / (norm(a) * norm(b));
  const angle = Math.acos(Math.min(1, Math.max(-1, cosine)));
  if (Math.sin(angle) < 1e-6) return a.map((x, i) => (1 - t) * x + t * b[i]);
  const [p, q] = [Math.sin((1 - t) * angle), Math.sin(t * angle)].map((x) => x / Math.sin(angle));
  return a.map((x, i) => p * x + q * b[i]);
}

/** Numbers of a sentence's characters, as the text encoder reads them. */
export function characters(spec, sentence) {
  const space = spec.alphabet.lastIndexOf(" ");
  const data = new BigInt64Array(spec.max_length).fill(BigInt(spec.alphabet.length));
  [...sentence.toLowerCase()].slice(0, spec.max_length).forEach((character, i) => {
    const number = spec.alphabet.lastIndexOf(character);
    data[i] = BigInt(number < 0 ? space : number);
  });
  return { dims: [1, spec.max_length], data };
}
