// Try a model: draw a picture or fill in a form, see the answer, its latency and the state of the drift monitor.
// Everything on the page comes from GET signature; nothing is loaded from elsewhere and nothing is kept.
"use strict";

const $ = (id) => document.getElementById(id);
const latencies = [];
let token = null;
let signature = null;
let asked = 0; // number of the last question, so that a late answer to an earlier one is not shown
let shown = 0;

function element(tag, attributes = {}, ...children) {
  const made = Object.assign(document.createElement(tag), attributes);
  made.append(...children);
  return made;
}

async function call(path, body) {
  const headers = token ? { authorization: `Bearer ${token}` } : {};
  if (body !== undefined) headers["content-type"] = "application/json";
  const reply = await fetch(path, body === undefined ? { headers } : { method: "POST", headers, body: JSON.stringify(body) });
  if (reply.status === 401) {
    $("login").hidden = false;
    $("main").hidden = true;
    throw new Error("the server's token is needed");
  }
  const value = await reply.json();
  if (!reply.ok && path !== "v2/health/ready") throw new Error(value.error || `status ${reply.status}`);
  return value;
}

function problem(error) {
  $("problem").hidden = !error;
  $("problem").textContent = error ? error.message : "";
}

// ── asking ──────────────────────────────────────────────────────────────────────────────────────────────────────────────

async function ask(record) {
  const number = ++asked;
  const began = performance.now();
  try {
    const answer = await call("predict", record);
    if (number < shown) return;
    shown = number;
    latencies.push(performance.now() - began);
    if (latencies.length > 50) latencies.shift();
    problem(null);
    show(answer);
  } catch (error) {
    if (number >= shown) problem(error);
  }
  const json = JSON.stringify(record).replaceAll("'", "'\\''"); // as a shell wants it
  const short = json.length > 1200 ? "@record.json" : `'${json}'`;
  $("curl").textContent = `curl ${location.origin}${location.pathname}predict \\\n  ${token ? '-H "authorization: Bearer $GROUNDUP_TOKEN" ' : ""}-H 'content-type: application/json' \\\n  -d ${short}`;
}

function show(answer) {
  const value = answer.label ?? Object.values(answer)[0];
  $("answer").textContent = typeof value === "number" ? Number(value.toPrecision(6)).toLocaleString("en", { maximumSignificantDigits: 6 }) : value ?? "no answer";
  const given = answer.probabilities;
  let rows = given && !Array.isArray(given) ? Object.entries(given) : (given || []).map((p, i) => [String(i), p]);
  if (rows.length > 12) rows = rows.sort((a, b) => b[1] - a[1]).slice(0, 10);
  bars($("bars"), rows.map(([name, p]) => ({ name, share: p ?? 0, text: p === null ? "–" : `${(100 * p).toFixed(1)} %` })));
  const sorted = [...latencies].sort((a, b) => a - b);
  $("latency").textContent = `${latencies.at(-1).toFixed(1)} ms there and back; median of the last ${sorted.length}: ${sorted[sorted.length >> 1].toFixed(1)} ms`;
}

function bars(list, rows) {
  if (list.children.length !== rows.length) {
    list.replaceChildren(...rows.map(() => element("li", {}, element("span"), element("div", { className: "track" }, element("div", { className: "bar" })), element("span"))));
  }
  rows.forEach((row, i) => {
    const [name, track, text] = list.children[i].children;
    name.textContent = name.title = row.name;
    text.textContent = row.text;
    track.firstChild.style.width = `${Math.min(100, 100 * row.share)}%`;
    track.firstChild.classList.toggle("over", Boolean(row.over));
    if (row.limit !== undefined) {
      const limit = track.querySelector(".limit") || track.appendChild(element("div", { className: "limit" }));
      limit.style.left = `${100 * row.limit}%`;
    }
  });
}

// ── pictures ────────────────────────────────────────────────────────────────────────────────────────────────────────────

function drawing(field) {
  const [height, width, channels] = field.shape;
  const canvas = $("canvas");
  const pen = canvas.getContext("2d", { willReadFrequently: true });
  canvas.height = Math.round((canvas.width * height) / width);
  let picture = false; // a picture is shown as it is, strokes are fitted to the frame
  let last = null;
  let queued = false;

  function clear() {
    pen.fillStyle = "#000";
    pen.fillRect(0, 0, canvas.width, canvas.height);
    picture = false;
  }

  // The part of the canvas that is looked at: all of it, or the strokes with a small margin, in the model's proportions.
  function frame(data) {
    if (picture || !$("fit").checked) return [0, 0, canvas.width, canvas.height];
    let [left, top, right, bottom] = [canvas.width, canvas.height, -1, -1];
    for (let y = 0; y < canvas.height; y++) {
      for (let x = 0; x < canvas.width; x++) {
        if (data[4 * (y * canvas.width + x)] > 40) {
          left = Math.min(left, x); right = Math.max(right, x); top = Math.min(top, y); bottom = Math.max(bottom, y);
        }
      }
    }
    if (right < 0) return [0, 0, canvas.width, canvas.height];
    const scale = Math.max((right - left + 1) / width, (bottom - top + 1) / height) * 1.04;
    const [w, h] = [scale * width, scale * height];
    return [(left + right + 1 - w) / 2, (top + bottom + 1 - h) / 2, w, h];
  }

  // Every pixel of the model is the mean of the canvas below it.
  function pixels() {
    const data = pen.getImageData(0, 0, canvas.width, canvas.height).data;
    const [x0, y0, w, h] = frame(data);
    const invert = $("invert").checked;
    const rows = [];
    for (let i = 0; i < height; i++) {
      const row = [];
      for (let j = 0; j < width; j++) {
        const sums = [0, 0, 0];
        const [ya, yb] = [y0 + (i * h) / height, y0 + ((i + 1) * h) / height].map(Math.round);
        const [xa, xb] = [x0 + (j * w) / width, x0 + ((j + 1) * w) / width].map(Math.round);
        for (let y = ya; y < Math.max(yb, ya + 1); y++) {
          for (let x = xa; x < Math.max(xb, xa + 1); x++) {
            if (x < 0 || y < 0 || x >= canvas.width || y >= canvas.height) continue;
            const at = 4 * (y * canvas.width + x);
            for (let c = 0; c < 3; c++) sums[c] += data[at + c];
          }
        }
        const count = Math.max(yb - ya, 1) * Math.max(xb - xa, 1);
        const [r, g, b] = sums.map((s) => s / count);
        const values = channels === 1 ? [0.299 * r + 0.587 * g + 0.114 * b] : [r, g, b, 255].slice(0, channels);
        row.push(values.map((v) => Math.max(0, Math.min(255, Math.round(invert ? 255 - v : v)))));
      }
      rows.push(row);
    }
    return rows;
  }

  function look() {
    queued = false;
    const seen = pixels();
    const small = $("seen");
    [small.width, small.height] = [width, height];
    const context = small.getContext("2d");
    const image = context.createImageData(width, height);
    seen.flat().forEach((p, i) => image.data.set(channels === 1 ? [p[0], p[0], p[0], 255] : [p[0], p[1], p[2], 255], 4 * i));
    context.putImageData(image, 0, 0);
    ask({ [field.name]: seen });
  }

  function soon() {
    if (!queued) {
      queued = true;
      setTimeout(look, 60);
    }
  }

  function point(event) {
    const box = canvas.getBoundingClientRect();
    return [((event.clientX - box.left) * canvas.width) / box.width, ((event.clientY - box.top) * canvas.height) / box.height];
  }

  function stroke(event) {
    const next = point(event);
    pen.strokeStyle = "#fff";
    pen.lineWidth = canvas.width / 11;
    pen.lineCap = pen.lineJoin = "round";
    pen.beginPath();
    pen.moveTo(...(last || next));
    pen.lineTo(...next);
    pen.stroke();
    last = next;
    soon();
  }

  canvas.addEventListener("pointerdown", (event) => {
    if (picture) clear();
    try { canvas.setPointerCapture(event.pointerId); } catch { /* a pointer that is gone already */ }
    last = null;
    stroke(event);
  });
  canvas.addEventListener("pointermove", (event) => { if (event.buttons) stroke(event); });
  $("clear").addEventListener("click", () => { clear(); soon(); });
  $("fit").addEventListener("change", soon);
  $("invert").addEventListener("change", soon);
  $("file").addEventListener("change", async (event) => {
    try {
      const bitmap = await createImageBitmap(event.target.files[0]);
      clear();
      picture = true;
      pen.drawImage(bitmap, 0, 0, canvas.width, canvas.height);
      soon();
    } catch {
      problem(new Error("this file is no picture that the browser can read"));
    }
    event.target.value = "";
  });
  $("size").textContent = `${width} × ${height}${channels === 1 ? " grey" : ` × ${channels}`}`;
  $("draw").hidden = false;
  clear();
}

// ── forms ───────────────────────────────────────────────────────────────────────────────────────────────────────────────

function form(fields, example) {
  const readers = {};
  let waiting = 0;
  const controls = fields.map((field) => {
    const [control, read, note] = input(field, example[field.name]);
    readers[field.name] = read;
    const name = element("span", {}, field.name, element("small", { textContent: field.description || note }));
    return element("label", { className: field.kind === "tensor" || field.kind === "image" ? "block" : "" }, name, control);
  });
  const submit = () => {
    clearTimeout(waiting);
    try {
      ask(Object.fromEntries(Object.entries(readers).map(([name, read]) => [name, read()])));
    } catch (error) {
      problem(error);
    }
  };
  $("form").append(...controls, element("button", { textContent: "Ask" }));
  $("form").addEventListener("submit", (event) => { event.preventDefault(); submit(); });
  $("form").addEventListener("input", () => { clearTimeout(waiting); waiting = setTimeout(submit, 300); });
  $("fill").hidden = false;
  submit();
}

// [control, function that reads it, note] of one column.
function input(field, example) {
  const missing = field.nullable ? "may be missing" : "";
  const range = field.minimum === null || field.maximum === null ? "" : `${Number(field.minimum.toPrecision(4))} to ${Number(field.maximum.toPrecision(4))} in training`;
  const note = [field.kind === "datetime" ? "" : range, missing].filter(Boolean).join("; ");
  if (field.kind === "number" || field.kind === "integer") {
    const control = element("input", { type: "number", step: field.kind === "integer" ? "1" : "any", value: example ?? "", placeholder: missing });
    return [control, () => (control.value === "" ? null : Number(control.value)), note];
  }
  if (field.kind === "boolean") {
    const choices = [["false", "no"], ["true", "yes"], ...(field.nullable ? [["", "missing"]] : [])];
    const control = element("select", {}, ...choices.map(([value, text]) => element("option", { value, textContent: text })));
    return [control, () => (control.value === "" ? null : control.value === "true"), note];
  }
  if (field.kind === "category") {
    const list = element("datalist", { id: `list-${field.name}` }, ...(field.categories || []).slice(0, 500).map((value) => element("option", { value })));
    const control = element("input", { value: example ?? "", placeholder: missing });
    control.setAttribute("list", list.id);
    return [element("span", {}, control, list), () => (control.value === "" ? null : control.value), note];
  }
  if (field.kind === "datetime") {
    const control = element("input", { type: "datetime-local", step: "1", value: (example || "").slice(0, 19) });
    return [control, () => (control.value === "" ? null : `${control.value}Z`), [note, "UTC"].filter(Boolean).join("; ")];
  }
  const control = element("textarea", { rows: 6, value: JSON.stringify(example), spellcheck: false });
  return [control, () => {
    try { return JSON.parse(control.value); } catch { throw new Error(`${field.name}: this is not JSON`); }
  }, `${field.shape.join(" × ")} numbers as nested lists`];
}

// ── drift ───────────────────────────────────────────────────────────────────────────────────────────────────────────────

async function watch() {
  if (document.hidden || $("main").hidden) return;
  try {
    const [health, state] = await Promise.all([call("v2/health/ready"), call("monitor")]);
    badge(health.ready);
    drift(state);
  } catch {
    badge(false);
  }
}

function badge(ready) {
  $("ready").textContent = ready ? "ready" : "not ready";
  $("ready").className = `badge ${ready ? "good" : "bad"}`;
}

function drift(state) {
  if (!state.enabled) {
    $("drift").textContent = `Not watched: ${state.reason}.`;
    return;
  }
  const seen = state.drift;
  const limit = seen.settings.threshold;
  const tested = seen.last ? `last window ${seen.last.rows} rows` : "no window tested yet";
  $("drift").textContent = `${state.alarm ? "Alarm: live traffic does not look like the training data." : "No alarm."} ${state.rows} rows seen, ${seen.windows} windows tested, ${tested}, ${seen.open.rows} rows in the open one.`;
  $("drift").className = state.alarm ? "bad" : "quiet";
  const scores = Object.entries((seen.last || seen.open).columns).sort((a, b) => b[1].excess - a[1].excess).slice(0, 12);
  $("legend").hidden = !scores.length;
  bars($("columns"), scores.map(([name, s]) => ({ name, share: s.excess / (2 * limit), limit: 0.5, over: s.state === "drifted", text: s.excess.toFixed(3) })));
}

// ── begin ───────────────────────────────────────────────────────────────────────────────────────────────────────────────

async function begin() {
  try {
    signature = await call("signature");
  } catch (error) {
    problem($("login").hidden || token ? error : null);
    return;
  }
  problem(null);
  $("login").hidden = true;
  $("main").hidden = false;
  $("name").textContent = document.title = signature.name;
  const metrics = Object.entries(signature.metrics).slice(0, 1).map(([name, value]) => `${name} ${Number(value.toPrecision(4))}`); // the headline
  $("about").textContent = [signature.task, `version ${signature.version}`, ...metrics].join(" · ");
  const pictures = signature.inputs.length === 1 && signature.inputs[0].kind === "image";
  if (pictures) drawing(signature.inputs[0]);
  else form(signature.inputs, signature.example);
  watch();
  setInterval(watch, 3000);
}

$("login").addEventListener("submit", (event) => {
  event.preventDefault();
  token = $("token").value;
  begin();
});
begin();
