// Asks one question under several policies, at once or in turn, and compares the answers.

import { ask, resolve } from "./api.js";
import { Column } from "./column.js";
import { byId } from "./dom.js";
import { count } from "./format.js";

export class Asking {
  /** @param onKeyFault is told what is wrong with the key, once a run. */
  constructor(onKeyFault) {
    this.onKeyFault = onKeyFault;
    this.place = byId("columns");
    this.status = byId("status");
    this.stopper = null;
  }

  /** Whether answers are under way. */
  get isBusy() {
    return this.stopper !== null;
  }

  /** End all answers that are under way. */
  stop() {
    this.stopper?.abort();
  }

  /**
   * Ask, and return the columns when all of them are done.
   *
   * @param cases title, policy and the list's entry of each.
   * @param body the request without its policy.
   * @param options `model`; `fresh`: nothing that another request computed is used; `inTurn`.
   */
  async run(cases, body, { model, fresh, inTurn }) {
    this.stopper = new AbortController();
    const { signal } = this.stopper;
    const columns = cases.map((it) => new Column(it.title, it.entry, model));
    this.place.replaceChildren(...columns.map((column) => column.element));
    byId("empty").hidden = true;
    this.status.textContent = `Asking ${count(cases.length, "policy", "policies")}.`;
    const asked = async (index) => {
      const salt = fresh ? { cache_salt: randomSalt() } : {};
      await this.#askOne(columns[index], { ...body, ...salt, skip_policy: cases[index].policy }, signal);
    };
    if (inTurn) for (const index of cases.keys()) await asked(index);
    else await Promise.all([...cases.keys()].map(asked));
    this.stopper = null;
    this.#compare(columns);
    this.#tellKeyFault(columns);
    return columns;
  }

  async #askOne(column, body, signal) {
    column.start();
    // Why there is no map the answer's own error says.
    const preview = resolve(body.skip_policy, signal).then(
      (it) => column.showPreview(it),
      () => {},
    );
    try {
      column.finish(await ask(body, (piece) => column.add(piece), signal));
    } catch (error) {
      column.fail(error);
      column.fault = error;
    }
    await preview;
  }

  #compare(columns) {
    const full = columns.find((column) => column.title === "full");
    const done = columns.filter((column) => column.end !== null);
    const failed = columns.filter((column) => column.error !== null);
    const words = [`${count(done.length, "answer")}.`];
    if (full?.end) {
      const others = done.filter((column) => column !== full);
      const same = others.filter((column) => column.compareWith(full.text));
      if (others.length > 0) words.push(`${same.length} of ${others.length} the same as full.`);
    }
    for (const { title, error } of failed) words.push(`${title}: ${error.title}.`);
    this.status.textContent = words.join(" ");
  }

  #tellKeyFault(columns) {
    const fault = columns.find((column) => column.fault?.status === 401)?.fault;
    if (fault !== undefined) this.onKeyFault(fault.message);
  }
}

function randomSalt() {
  const bytes = crypto.getRandomValues(new Uint8Array(12));
  return `playground-${Array.from(bytes, (byte) => byte.toString(16).padStart(2, "0")).join("")}`;
}
