// The grid that a policy is drawn on: layers by classes of tokens, attention and FFN of each.

import { CLASSES, PARTS } from "./draft.js";
import { el } from "./dom.js";
import { CLASS_NAMES } from "./layer_map.js";

const PART_NAMES = { attention: "attention", ffn: "FFN" };
const LANES = CLASSES.flatMap((name) => PARTS.map((part) => ({ name, part })));
const WIDE = window.matchMedia("(min-width: 88rem)");

export class PolicyGrid {
  /**
   * @param table takes the grid.
   * @param draft what is drawn; changed in place.
   * @param onChange is called after each change.
   */
  constructor(table, draft, onChange) {
    this.table = table;
    this.draft = draft;
    this.onChange = onChange;
    this.at = [1, 1];
    this.painting = null;
    this.hasPainted = false;
    WIDE.addEventListener("change", () => this.build());
    table.addEventListener("keydown", (event) => this.#key(event));
    table.addEventListener("focusin", (event) => this.#focused(event));
    document.addEventListener("pointerup", () => {
      this.painting = null;
    });
    this.build();
  }

  /** Lay the grid out: layers run to the right where there is room, else down. */
  build() {
    this.isWide = WIDE.matches;
    const layers = Array.from({ length: this.draft.numLayers }, (_, layer) => ({ layer }));
    const [across, down] = this.isWide ? [layers, LANES] : [LANES, layers];
    const head = el("tr", {}, el("td", { class: "corner" }, this.isWide ? "layer" : ""), ...across.map((it) => this.#head(it, "col")));
    const rows = down.map((one) =>
      el("tr", {}, this.#head(one, "row"), ...across.map((other) => this.#cell({ ...one, ...other }))),
    );
    this.table.classList.toggle("wide", this.isWide);
    this.table.replaceChildren(el("thead", {}, head), el("tbody", {}, ...rows));
    this.at = [Math.min(this.at[0], down.length), Math.min(this.at[1], across.length)];
    this.show();
  }

  /** Show the draft as it is now. */
  show() {
    for (const button of this.table.querySelectorAll("td button")) {
      const { layer, part, name } = button.dataset;
      button.setAttribute("aria-pressed", String(this.draft.skips(Number(layer), part, name)));
    }
    for (const button of this.table.querySelectorAll("button")) button.tabIndex = -1;
    const current = this.#button(...this.at);
    if (current) current.tabIndex = 0;
  }

  #head(lane, scope) {
    const isLayer = lane.layer !== undefined;
    const label = isLayer ? `all of layer ${lane.layer}` : `${PART_NAMES[lane.part]} of ${CLASS_NAMES[lane.name].toLowerCase()} tokens in all layers`;
    const text = isLayer ? [`${lane.layer}`] : [el("span", { class: "lane-class" }, CLASS_NAMES[lane.name]), el("span", { class: "lane-part" }, PART_NAMES[lane.part])];
    const toggle = () => this.#toggle(this.#cellsOf(lane));
    const button = el("button", { type: "button", "aria-label": `Leave out ${label}`, onclick: toggle }, ...text);
    return el("th", { scope, class: isLayer ? "layer" : `lane ${lane.part}` }, button);
  }

  #cell({ layer, part, name }) {
    const label = `Layer ${layer}, ${CLASS_NAMES[name].toLowerCase()}, ${PART_NAMES[part]}: leave out`;
    const button = el("button", {
      type: "button",
      class: part,
      "aria-label": label,
      "data-layer": layer,
      "data-part": part,
      "data-name": name,
      onclick: (event) => {
        // A mouse has painted already; keys and fingers have not.
        if (event.detail === 0 || !this.hasPainted) this.#toggle([{ layer, part, name }]);
      },
      onpointerdown: (event) => this.#startPainting(event, { layer, part, name }),
      onpointerenter: () => this.#paint({ layer, part, name }),
    });
    return el("td", {}, button);
  }

  #cellsOf({ layer, part, name }) {
    if (layer !== undefined) return LANES.map((lane) => ({ layer, ...lane }));
    return Array.from({ length: this.draft.numLayers }, (_, index) => ({ layer: index, part, name }));
  }

  #toggle(cells) {
    const skips = !cells.every((it) => this.draft.skips(it.layer, it.part, it.name));
    for (const { layer, part, name } of cells) this.draft.set(layer, part, name, skips);
    this.show();
    this.onChange();
  }

  #startPainting(event, cell) {
    // A finger that moves scrolls the page.
    this.hasPainted = event.pointerType === "mouse" && event.button === 0;
    if (!this.hasPainted) return;
    this.#toggle([cell]);
    this.painting = this.draft.skips(cell.layer, cell.part, cell.name);
  }

  #paint({ layer, part, name }) {
    if (this.painting === null || this.draft.skips(layer, part, name) === this.painting) return;
    this.draft.set(layer, part, name, this.painting);
    this.show();
    this.onChange();
  }

  #button(row, column) {
    return this.table.rows[row]?.cells[column]?.querySelector("button") ?? null;
  }

  #focused(event) {
    const cell = event.target.closest("td, th");
    if (cell === null) return;
    this.at = [cell.parentElement.rowIndex, cell.cellIndex];
    for (const button of this.table.querySelectorAll("button[tabindex='0']")) button.tabIndex = -1;
    event.target.tabIndex = 0;
  }

  #key(event) {
    const [row, column] = this.at;
    const [lastRow, lastColumn] = [this.table.rows.length - 1, this.table.rows[0].cells.length - 1];
    const places = {
      ArrowUp: [row - 1, column],
      ArrowDown: [row + 1, column],
      ArrowLeft: [row, column - 1],
      ArrowRight: [row, column + 1],
      Home: [event.ctrlKey ? 0 : row, row === 0 || event.ctrlKey ? 1 : 0],
      End: [event.ctrlKey ? lastRow : row, lastColumn],
      PageUp: [0, column || 1],
      PageDown: [lastRow, column],
    };
    const place = places[event.key];
    if (place === undefined) return;
    event.preventDefault();
    const next = this.#button(...place);
    if (next === null) return;
    const from = event.target.dataset;
    next.focus();
    const to = next.dataset;
    // With Shift the next cell becomes what this one is.
    if (event.shiftKey && from.layer !== undefined && to.layer !== undefined) {
      const skips = this.draft.skips(Number(from.layer), from.part, from.name);
      this.draft.set(Number(to.layer), to.part, to.name, skips);
      this.show();
      this.onChange();
    }
  }
}
