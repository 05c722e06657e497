// The OpenAPI document for people: every operation with its schemas and examples, and a form to try it.
// Everything on the page comes from GET openapi.json; nothing is loaded from elsewhere and nothing is kept.
"use strict";

const $ = (id) => document.getElementById(id);
let token = null;
let schemas = {};

function element(tag, attributes = {}, ...children) {
  const made = Object.assign(document.createElement(tag), attributes);
  made.append(...children);
  return made;
}

function call(path, options = {}) {
  const headers = { ...options.headers, ...(token ? { authorization: `Bearer ${token}` } : {}) };
  return fetch(path.replace(/^\//, ""), { ...options, headers });
}

function problem(text) {
  $("problem").hidden = !text;
  $("problem").textContent = text || "";
}

// ── schemas ─────────────────────────────────────────────────────────────────────────────────────────────────────────────

// What a schema allows, in the fewest words: "number or null", "8 × 8 × integer", the name of an object.
function words(schema) {
  if (schema.$ref) return schema.$ref.split("/").pop();
  if (schema.anyOf) return schema.anyOf.map(words).join(" or ");
  if (schema.type === "array") {
    const size = schema.minItems !== undefined && schema.minItems === schema.maxItems ? `${schema.minItems} × ` : "list of ";
    return size + words(schema.items || {});
  }
  if (schema.type === "object" && schema.properties) return `object with ${Object.keys(schema.properties).join(", ")}`;
  return schema.format || schema.type || "anything";
}

// Every named schema that a schema leads to, each once.
function named(schema, found = new Set()) {
  for (const [key, value] of Object.entries(schema || {})) {
    if (key === "$ref") {
      const name = value.split("/").pop();
      if (!found.has(name)) named(schemas[name], found.add(name));
    } else if (value && typeof value === "object") named(value, found);
  }
  return found;
}

function fields(name) {
  const schema = schemas[name];
  const required = new Set(schema.required || []);
  const rows = Object.entries(schema.properties || {}).map(([field, s]) => {
    const known = (s.examples || []).filter((e) => e !== null && typeof e !== "object").join(", ");
    const note = [required.has(field) ? "" : "may be left out", s.description, known && `such as ${known}`].filter(Boolean).join("; ");
    return element("tr", {}, element("th", { textContent: field }), element("td", { textContent: words(s) }), element("td", { textContent: note }));
  });
  return element("div", {}, element("h3", { textContent: name }), element("table", {}, ...rows));
}

// ── operations ──────────────────────────────────────────────────────────────────────────────────────────────────────────

function operation(path, method, o) {
  const body = o.requestBody && o.requestBody.content["application/json"];
  const good = o.responses && o.responses["200"] && o.responses["200"].content && o.responses["200"].content["application/json"];
  const parts = [];
  const known = [...named({ body, good })];
  if (body) parts.push(element("p", { className: "quiet" }, "takes ", element("b", { textContent: words(body.schema) })));
  if (good) parts.push(element("p", { className: "quiet" }, "gives ", element("b", { textContent: words(good.schema) })));
  if (known.length) parts.push(element("details", {}, element("summary", { textContent: known.join(", ") }), ...known.map(fields)));
  const errors = Object.entries(o.responses || {}).filter(([status]) => status !== "200");
  if (errors.length) parts.push(element("p", { className: "quiet", textContent: errors.map(([status, r]) => `${status} ${r.description}`).join(" · ") }));

  const form = element("form", { className: "try" });
  let input = null;
  if (body) {
    input = element("textarea", { rows: 6, spellcheck: false, ariaLabel: `body of ${path}` });
    const examples = Object.entries(body.examples || {});
    const fill = (value) => { input.value = JSON.stringify(value, null, 1).replace(/\n\s+(?=[-\d\]])/g, " "); };
    if (examples.length) fill(examples[0][1].value);
    if (examples.length > 1) {
      const choice = element("select", { ariaLabel: `example for ${path}` }, ...examples.map(([name]) => element("option", { textContent: name })));
      choice.addEventListener("change", () => fill(body.examples[choice.value].value));
      form.append(choice);
    }
    form.append(input);
  }
  const status = element("output", { className: "quiet" });
  const answer = element("pre", { hidden: true });
  form.append(element("div", { className: "row" }, element("button", { textContent: "Try" }), status), answer);
  form.addEventListener("submit", async (event) => {
    event.preventDefault();
    const began = performance.now();
    try {
      const sent = input ? { method: "POST", body: input.value, headers: { "content-type": "application/json" } } : {};
      const reply = await call(path, sent);
      const text = await reply.text();
      status.textContent = `${reply.status}, ${(performance.now() - began).toFixed(1)} ms`;
      answer.textContent = text.length > 20000 ? `${text.slice(0, 20000)} … ${text.length} characters` : text;
    } catch (error) {
      status.textContent = "no answer";
      answer.textContent = error.message;
    }
    answer.hidden = false;
  });
  const head = element("summary", {}, element("b", { textContent: `${method.toUpperCase()} ${path}` }), ` ${o.summary || ""}`);
  return element("details", { className: "operation" }, head, ...parts, form);
}

async function begin() {
  const reply = await call("openapi.json");
  $("login").hidden = reply.status !== 401;
  if (!reply.ok) {
    problem(token && reply.status === 401 ? "this is not the server's token" : reply.status === 401 ? "" : `status ${reply.status}`);
    return;
  }
  problem("");
  const spec = await reply.json();
  schemas = spec.components.schemas;
  $("title").textContent = document.title = `${spec.info.title} API`;
  $("about").textContent = spec.info.description;
  const groups = new Map();
  for (const [path, methods] of Object.entries(spec.paths)) {
    for (const [method, o] of Object.entries(methods)) {
      const tag = (o.tags || ["other"])[0];
      groups.set(tag, [...(groups.get(tag) || []), operation(path, method, o)]);
    }
  }
  // What is asked most stands first.
  const order = ["predict", "v2", "invocations"];
  const rank = (tag) => (order.includes(tag) ? order.indexOf(tag) : order.length);
  const sorted = [...groups].sort((a, b) => rank(a[0]) - rank(b[0]));
  $("operations").replaceChildren(...sorted.map(([tag, all]) => element("section", {}, element("h2", { textContent: tag }), ...all)));
  const first = document.querySelector("details.operation");
  if (first) first.open = true;
}

$("login").addEventListener("submit", (event) => {
  event.preventDefault();
  token = $("token").value;
  begin();
});
begin();
