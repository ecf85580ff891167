// What was asked in this tab, newest first; it ends with the tab, and a key is never in it.

import { byId, el } from "./dom.js";
import { percent } from "./format.js";
import { check } from "./link.js";

const KEPT = "skipserve.history";
const MOST = 20;

export class History {
  /** @param onRestore is given the settings of an entry, and its picture if it is still there. */
  constructor(onRestore) {
    this.onRestore = onRestore;
    this.pictures = new Map();
    this.entries = remembered();
    byId("forget").addEventListener("click", () => {
      this.entries = [];
      this.pictures.clear();
      this.#keep();
    });
    this.#show();
  }

  /** Add a question that was answered. */
  add(settings, picture, thumb, columns) {
    const answers = columns.map(({ title, text, error, end }) => ({
      title,
      text: error ? `${error.title}: ${error.text}` : text,
      saved: end?.metrics?.skip.saved_ratio ?? null,
    }));
    const entry = { at: Date.now(), settings, thumb, answers };
    this.pictures.set(entry.at, picture);
    this.entries = [entry, ...this.entries].slice(0, MOST);
    this.#keep();
  }

  #keep() {
    try {
      sessionStorage.setItem(KEPT, JSON.stringify(this.entries));
    } catch {
      // There is no room: this tab's memory has them still.
    }
    this.#show();
  }

  #show() {
    byId("history-none").hidden = this.entries.length > 0;
    byId("forget").hidden = this.entries.length === 0;
    byId("past").replaceChildren(...this.entries.map((entry) => this.#item(entry)));
  }

  #item({ at, settings, thumb, answers }) {
    const time = new Date(at);
    const again = () => this.onRestore(settings, this.pictures.get(at) ?? null);
    const rows = answers.map(({ title, text, saved }) =>
      el("tr", {}, el("th", { scope: "row" }, title), el("td", {}, text), el("td", {}, saved === null ? "-" : percent(saved))),
    );
    const head = ["policy", "answer", "saved"].map((name) => el("th", { scope: "col" }, name));
    return el(
      "li",
      {},
      thumb ? el("img", { src: thumb, alt: "", width: 48, height: 48 }) : null,
      el(
        "details",
        {},
        el(
          "summary",
          {},
          el("span", { class: "asked" }, settings.question || "(no text)"),
          el("time", { datetime: time.toISOString() }, time.toLocaleTimeString()),
        ),
        el("table", {}, el("thead", {}, el("tr", {}, ...head)), el("tbody", {}, ...rows)),
        el("button", { type: "button", onclick: again }, "Use these settings"),
      ),
    );
  }
}

function remembered() {
  try {
    const kept = JSON.parse(sessionStorage.getItem(KEPT) ?? "[]");
    return kept.filter((entry) => check({ version: 1, ...entry.settings }) && Array.isArray(entry.answers));
  } catch {
    return [];
  }
}
