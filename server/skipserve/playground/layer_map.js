// Draws what runs: layers from left to right, and for each class of tokens attention above FFN.

import { CLASSES } from "./draft.js";
import { el, svg } from "./dom.js";

export const CLASS_NAMES = {
  text: "Text",
  visual: "Visual",
  last: "Last of prompt",
  generated: "Generated",
};

/** Return the map of a table of `/v1/skip_policies/resolve`, for eyes and for ears. */
export function layerMap(runs) {
  const rows = CLASSES.flatMap((name) => [
    el("span", { class: "map-name", "aria-hidden": "true" }, CLASS_NAMES[name]),
    strip(runs[name]),
  ]);
  const told = CLASSES.map((name) => tell(name, runs[name])).join("; ");
  return el("div", { class: "map", role: "img", "aria-label": `What runs. ${told}` }, ...rows);
}

function tell(name, column) {
  const [attention, ffn] = [column.attention.filter(Boolean), column.ffn.filter((it) => it !== "none")];
  const total = column.attention.length;
  return `${CLASS_NAMES[name]}: attention in ${attention.length} of ${total} layers, FFN in ${ffn.length}`;
}

function strip(column) {
  const total = column.attention.length;
  const cells = [];
  for (let layer = 0; layer < total; layer += 1) {
    const attention = column.attention[layer] ? "attention" : column.kv[layer] ? "kv" : "off";
    const ffn = column.ffn[layer];
    const isParallel = ffn.startsWith("parallel") || column.pair[layer] !== "none";
    cells.push(cell(layer, 0, attention));
    cells.push(cell(layer, 9, ffn === "none" ? "off" : isParallel ? "parallel" : "ffn"));
  }
  const box = { viewBox: `0 0 ${10 * total} 18`, preserveAspectRatio: "none", "aria-hidden": "true" };
  return svg("svg", { class: "strip", ...box }, ...cells);
}

const cell = (layer, y, kind) => svg("rect", { x: 10 * layer + 0.5, y: y + 0.5, width: 9, height: 8, class: kind });
