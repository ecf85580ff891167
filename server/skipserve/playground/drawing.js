// The part of the page on which a policy is drawn, with what it would cost as the server counts it.

import { resolve } from "./api.js";
import { byId, el } from "./dom.js";
import { DROPPERS, Draft, STAGED } from "./draft.js";
import { explain } from "./errors.js";
import { capital, flops, percent } from "./format.js";
import { layerMap } from "./layer_map.js";
import { PolicyGrid } from "./policy_grid.js";
import { best, tell } from "./quality.js";

const PAUSE_MS = 200;

export class Drawing {
  /**
   * @param numLayers of the model.
   * @param model its name.
   * @param onDraw is called when a person has drawn.
   */
  constructor(numLayers, model, onDraw) {
    this.draft = new Draft(numLayers);
    this.model = model;
    this.onDraw = onDraw;
    this.timer = null;
    this.asking = null;
    this.grid = new PolicyGrid(byId("grid"), this.draft, () => this.#changed());
    this.fields = { method: byId("method"), before: byId("before"), keep: byId("keep") };
    this.fields.before.max = numLayers - 1;
    for (const field of Object.values(this.fields)) {
      field.addEventListener("input", () => {
        this.#readDropper();
        this.#changed();
      });
    }
    byId("clear").addEventListener("click", () => {
      this.draft.clear();
      this.draft.dropper = null;
      this.#showAll();
      this.#changed();
    });
    byId("count").addEventListener("click", () => this.#count());
    byId("copy-rules").addEventListener("click", () => {
      navigator.clipboard?.writeText(byId("rules").textContent);
    });
    this.#showAll();
    this.#showRules();
    this.#count();
  }

  /** What a request would name. */
  get policy() {
    return { rules: this.draft.rules() };
  }

  /** Take what a link or the history has; nothing of it is sent. Return how many layers are lost. */
  load(saved) {
    const numLost = this.draft.load(saved);
    this.#showAll();
    this.#showRules();
    this.#wait();
    return numLost;
  }

  #showAll() {
    const dropper = this.draft.dropper;
    this.fields.method.value = dropper?.method ?? "";
    if (dropper !== null) {
      this.fields.before.value = dropper.before;
      this.fields.keep.value = dropper.keep;
    }
    this.#showFields();
    this.grid.show();
  }

  #showFields() {
    const method = this.draft.dropper?.method;
    const action = DROPPERS[method];
    const isStaged = STAGED.has(method);
    byId("before-row").hidden = action !== "drop_visual" || isStaged;
    byId("keep-row").hidden = action === undefined || isStaged || method === "vtw";
    byId("staged").hidden = !isStaged;
  }

  #readDropper() {
    const { method, before, keep } = this.fields;
    const within = (field) => Math.min(Math.max(Math.round(field.valueAsNumber) || 1, field.min), field.max);
    this.draft.dropper =
      method.value === "" ? null : { method: method.value, before: within(before), keep: within(keep) };
    this.#showFields();
  }

  #changed() {
    this.#showRules();
    clearTimeout(this.timer);
    this.timer = setTimeout(() => this.#count(), PAUSE_MS);
    this.onDraw();
  }

  #showRules() {
    byId("rules").textContent = JSON.stringify({ skip_policy: this.policy }, null, 1);
  }

  #wait() {
    clearTimeout(this.timer);
    this.asking?.abort();
    byId("count").hidden = false;
    byId("saving").textContent = "This was drawn elsewhere; nothing of it has been sent yet.";
    byId("cost").replaceChildren();
  }

  async #count() {
    this.asking?.abort();
    this.asking = new AbortController();
    const { signal } = this.asking;
    byId("count").hidden = true;
    try {
      const preview = await resolve(this.policy, signal);
      const saved = el("strong", {}, percent(preview.skip.saved_ratio));
      byId("saving").replaceChildren(saved, " of the FLOPs saved");
      byId("cost").replaceChildren(...this.#told(preview));
    } catch (error) {
      if (error.name === "AbortError") return;
      const { title, text } = explain(error);
      byId("saving").replaceChildren(el("span", { class: "fault" }, `${title}: ${text}`));
      byId("cost").replaceChildren();
    }
  }

  #told({ skip, quality, runs }) {
    const fill = el("span", { class: "fill" });
    fill.style.width = `${(100 * skip.planned_flops) / skip.full_flops}%`;
    const { prompt, generated_tokens: tokens } = skip.saved_for;
    const measured = best(quality, this.model);
    const left = skip.visual_rows?.map((it) => `${it.kept} of ${it.of} from layer ${it.layer}`).join(", ");
    const rows = skip.image_rows ? `${skip.image_rows.kept} of ${skip.image_rows.of}` : left;
    return [
      el("span", { class: "bar large", "aria-hidden": "true" }, fill),
      el(
        "p",
        { class: "note" },
        `${flops(skip.planned_flops)} of ${flops(skip.full_flops)} for a prompt of ${prompt} rows and ${tokens} tokens of answer.`,
      ),
      rows ? el("p", { class: "note" }, `Rows of an image that go on: ${rows}.`) : null,
      el("p", { class: "note" }, measured ? capital(tell(measured, this.model)) : "Its quality has not been measured."),
      layerMap(runs),
    ].filter(Boolean);
  }
}
