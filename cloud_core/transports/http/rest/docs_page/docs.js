"use strict";

let description = null;

function make(tag, text, className) {
  const element = document.createElement(tag);
  if (text) element.textContent = text;
  if (className) element.className = className;
  return element;
}

/** An example of a schema: its members with empty values, references followed to a small depth. */
function example(schema, depth = 0) {
  if (!schema || depth > 3) return null;
  if (schema.$ref) return example(description.components.schemas[schema.$ref.split("/").pop()], depth + 1);
  if (schema.anyOf) return example(schema.anyOf[0], depth + 1);
  if (schema.allOf) return Object.assign({}, ...schema.allOf.map((one) => example(one, depth + 1)));
  if (schema.enum) return schema.enum[0];
  const kind = Array.isArray(schema.type) ? schema.type[0] : schema.type;
  if (kind === "object") {
    const wanted = schema.required || [];
    return Object.fromEntries(wanted.map((name) => [name, example(schema.properties[name], depth + 1)]));
  }
  if (kind === "array") return [example(schema.items, depth + 1)];
  return { string: "", integer: 0, number: 0, boolean: false }[kind] ?? null;
}

function mediaOf(operation) {
  return Object.keys(operation.requestBody.content)[0];
}

async function send(method, path, operation, form, output) {
  let filled = path;
  const query = new URLSearchParams();
  for (const parameter of operation.parameters) {
    const value = form.elements[parameter.in + ":" + parameter.name].value;
    if (parameter.in === "path") filled = filled.replace("{" + parameter.name + "}", encodeURIComponent(value));
    else if (value !== "") query.set(parameter.name, value);
  }
  const headers = {};
  const token = document.getElementById("token").value.trim();
  if (token) headers["X-Authorization"] = "Bearer " + token;
  const options = { method: method.toUpperCase(), headers };
  if (form.elements.body) {
    headers["Content-Type"] = mediaOf(operation);
    options.body = form.elements.body.value;
  }
  const asked = query.toString();
  try {
    const answer = await fetch(filled + (asked ? "?" + asked : ""), options);
    const text = await answer.text();
    let shown = text;
    try { shown = JSON.stringify(JSON.parse(text), null, 2); } catch { /* it is not JSON: shown as it is */ }
    output.textContent = answer.status + " " + answer.statusText + "\n" + shown;
  } catch (error) {
    output.textContent = "No answer: " + error.message;
  }
}

function formOf(method, path, operation) {
  const form = make("form");
  for (const parameter of operation.parameters) {
    const label = make("label", parameter.name + (parameter.required ? " *" : ""));
    const input = make("input");
    input.name = parameter.in + ":" + parameter.name;
    input.required = parameter.required;
    const known = parameter.schema.enum;
    input.placeholder = known ? known.join(" | ") : parameter.schema.format || parameter.schema.type || "";
    label.append(input);
    form.append(label);
  }
  if (operation.requestBody && mediaOf(operation) !== "multipart/form-data") {
    const area = make("textarea");
    area.name = "body";
    area.setAttribute("aria-label", "Body");
    const schema = operation.requestBody.content[mediaOf(operation)].schema;
    area.value = mediaOf(operation) === "application/json"
      ? JSON.stringify(example(schema), null, 2)
      : (schema.examples || [""])[0];
    form.append(area);
  }
  const output = make("pre");
  output.setAttribute("aria-live", "polite");
  form.append(make("button", "Try it"), output);
  form.addEventListener("submit", (event) => {
    event.preventDefault();
    send(method, path, operation, form, output);
  });
  return form;
}

function show() {
  const words = document.getElementById("find").value.toLowerCase();
  const groups = new Map();
  for (const [path, methods] of Object.entries(description.paths)) {
    for (const [method, operation] of Object.entries(methods)) {
      if (words && !(method + " " + path + " " + operation.summary).toLowerCase().includes(words)) continue;
      const tag = operation.tags[0];
      if (!groups.has(tag)) groups.set(tag, []);
      groups.get(tag).push([method, path, operation]);
    }
  }
  const main = document.getElementById("operations");
  main.replaceChildren();
  if (!groups.size) main.append(make("p", "Nothing is called so."));
  for (const [tag, operations] of [...groups].sort()) {
    main.append(make("h2", tag));
    for (const [method, path, operation] of operations) {
      const details = make("details");
      const summary = make("summary");
      summary.append(make("span", method.toUpperCase(), "method " + method), make("code", path));
      summary.append(make("span", operation.summary, "says"));
      details.append(summary);
      details.addEventListener("toggle", () => {
        if (details.open && !details.querySelector("form")) details.append(formOf(method, path, operation));
      });
      main.append(details);
    }
  }
}

document.getElementById("find").addEventListener("input", show);
fetch("/api/openapi.json")
  .then((answer) => answer.json())
  .then((found) => { description = found; show(); })
  .catch((error) => { document.getElementById("operations").textContent = "The description did not come: " + error.message; });
