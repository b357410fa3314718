// Shows the OpenAPI document of this server. All text goes into text nodes, never into markup.
"use strict";

function element(name, attributes, ...children) {
  const made = document.createElement(name);
  for (const [key, value] of Object.entries(attributes)) made.setAttribute(key, value);
  for (const child of children) made.append(child);
  return made;
}

function typeOf(schema) {
  if (schema === true || schema === undefined) return "any";
  if (schema.$ref) return schema.$ref.split("/").pop();
  if (schema.anyOf) return schema.anyOf.map(typeOf).join(" | ");
  if (schema.type === "array") return typeOf(schema.items) + "[]";
  return [].concat(schema.type || "any").join(" | ");
}

function reference(schema) {
  const name = typeOf(schema);
  const known = schema && JSON.stringify(schema).includes("#/components/schemas/");
  const target = name.replace(/\[\]$/, "").split(" | ")[0];
  return known ? element("a", { href: "#schema-" + target }, name) : document.createTextNode(name);
}

function parameters(operation) {
  const rows = (operation.parameters || []).map((parameter) =>
    element("tr", {},
      element("td", {}, element("code", {}, parameter.name)),
      element("td", {}, parameter.in),
      element("td", {}, typeOf(parameter.schema)),
      element("td", {}, parameter.description || "")));
  return rows.length ? element("table", {}, ...rows) : "";
}

function contents(title, content) {
  return Object.entries(content || {}).map(([kind, media]) =>
    element("p", {}, title + " ", element("code", {}, kind), " ", reference(media.schema)));
}

function operation(path, method, described) {
  const parts = contents("Takes", described.requestBody && described.requestBody.content);
  for (const [status, response] of Object.entries(described.responses)) {
    parts.push(...contents(status === "default" ? "Refused:" : status, response.content));
  }
  return element("details", { id: described.operationId },
    element("summary", {},
      element("span", { class: "method" }, method),
      element("span", { class: "path" }, path),
      element("span", { class: "summary" }, described.summary)),
    parameters(described), ...parts);
}

function show(described) {
  document.getElementById("about").textContent = described.info.description;
  const groups = new Map();
  for (const [path, methods] of Object.entries(described.paths)) {
    for (const [method, one] of Object.entries(methods)) {
      const tag = one.tags[0];
      if (!groups.has(tag)) groups.set(tag, []);
      groups.get(tag).push(operation(path, method, one));
    }
  }
  const operations = document.getElementById("operations");
  operations.replaceChildren();
  for (const [tag, shown] of groups) operations.append(element("h2", {}, tag), ...shown);
  const schemas = document.getElementById("schemas");
  schemas.append(element("h2", {}, "types"));
  for (const [name, schema] of Object.entries(described.components.schemas)) {
    schemas.append(element("details", { id: "schema-" + name },
      element("summary", {}, element("span", { class: "path" }, name)),
      element("pre", {}, JSON.stringify(schema, null, 2))));
  }
}

fetch("/api/v1/openapi.json")
  .then((response) => response.ok ? response.json() : Promise.reject(new Error(response.statusText)))
  .then(show)
  .catch((error) => {
    document.getElementById("operations").textContent = "openapi.json cannot be read: " + error.message;
  });
