// The named policies, to choose some of.

import { byId, el } from "./dom.js";
import { percent } from "./format.js";
import { LIMITS } from "./link.js";
import { best } from "./quality.js";

const ORDERS = {
  catalog: () => 0,
  saved: (one, other) => other.saved_ratio - one.saved_ratio,
  quality: (one, other) => value(other) - value(one) || other.saved_ratio - one.saved_ratio,
};
let servedModel = "";
const value = (entry) => {
  const quality = best(entry.quality, servedModel);
  return quality?.model === servedModel ? quality.value : -1;
};

export class PolicyList {
  /** @param onChange is called when others are chosen. */
  constructor(onChange) {
    this.entries = [];
    this.chosen = new Set();
    this.onChange = onChange;
    this.list = byId("policy-list");
    this.filter = byId("policy-filter");
    this.order = byId("policy-order");
    this.filter.addEventListener("input", () => this.#show());
    this.order.addEventListener("change", () => this.#show());
  }

  /** Take what the server has. */
  fill(entries, model) {
    servedModel = model;
    this.entries = entries;
    this.#show();
  }

  /** Choose those, and return the names that the server lacks. */
  choose(names) {
    const known = new Set(this.entries.map((entry) => entry.name));
    this.chosen = new Set(names.filter((name) => known.has(name)));
    this.#show();
    return names.filter((name) => !known.has(name));
  }

  /** Return what is known of a named policy. */
  find(name) {
    return this.entries.find((entry) => entry.name === name) ?? null;
  }

  #show() {
    const words = this.filter.value.toLowerCase().split(/\s+/).filter(Boolean);
    const fits = (entry) =>
      words.every((word) => `${entry.name} ${entry.description}`.toLowerCase().includes(word));
    const shown = this.entries.filter(fits).sort(ORDERS[this.order.value]);
    this.list.replaceChildren(...shown.map((entry) => this.#row(entry)));
    byId("policy-none").hidden = shown.length > 0 || this.entries.length === 0;
    this.#count();
  }

  #count() {
    const full = this.chosen.size >= LIMITS.policies;
    for (const box of this.list.querySelectorAll("input")) box.disabled = full && !box.checked;
    byId("policy-count").textContent = `${this.chosen.size} of ${this.entries.length} chosen`;
  }

  #row(entry) {
    const change = (event) => {
      if (event.target.checked) this.chosen.add(entry.name);
      else this.chosen.delete(entry.name);
      this.#count();
      this.onChange();
    };
    const checked = this.chosen.has(entry.name);
    const box = el("input", { type: "checkbox", value: entry.name, checked, onchange: change });
    const fill = el("span", { class: "fill" });
    fill.style.width = percent(1 - entry.saved_ratio).replace(" ", "");
    return el(
      "li",
      {},
      el(
        "label",
        { title: entry.description },
        box,
        el("span", { class: "name" }, entry.name),
        el("span", { class: "facts" }, ...this.#facts(entry)),
        el("span", { class: "bar", "aria-hidden": "true" }, fill),
      ),
    );
  }

  #facts(entry) {
    const quality = best(entry.quality, servedModel);
    const saved = entry.saved_ratio > 0.0005 ? `saves ${percent(entry.saved_ratio)}` : "saves nothing";
    const facts = [entry.default ? `default, ${saved}` : saved];
    if (quality?.model === servedModel) {
      const full = quality.full === null || entry.name === "full" ? "" : ` (full ${quality.full})`;
      facts.push(`${quality.value} % right${full}`);
    }
    return facts.map((fact) => el("span", {}, fact));
  }
}
