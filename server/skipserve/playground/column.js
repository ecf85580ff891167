// One answer as it grows, and what the server tells of it.

import { compare } from "./agreement.js";
import { el } from "./dom.js";
import { explain } from "./errors.js";
import { capital, count, flops, percent, seconds } from "./format.js";
import { layerMap } from "./layer_map.js";
import { best, tell } from "./quality.js";

export class Column {
  /**
   * @param title what the policy is called.
   * @param entry what `/v1/skip_policies` tells of it; null for one that was drawn.
   * @param model the served model's name.
   */
  constructor(title, entry, model) {
    this.title = title;
    this.model = model;
    this.text = "";
    this.end = null;
    this.error = null;
    this.began = performance.now();
    this.firstSeconds = null;
    this.answer = el("p", { class: "answer" });
    this.agreement = el("p", { class: "agreement" });
    this.facts = el("dl", { class: "facts" });
    this.cost = el("div", { class: "cost" });
    this.more = el("div", { class: "more" });
    const description = entry?.description || (entry === null ? "Drawn on this page." : "");
    this.element = el(
      "article",
      { class: "column", "aria-label": `Answer under ${title}`, "aria-busy": "true" },
      el("h3", {}, title),
      el("p", { class: "note description" }, description),
      this.answer,
      this.agreement,
      this.facts,
      this.cost,
      this.more,
    );
    this.#showTimes();
    if (entry !== null) this.#showQuality(entry.quality);
  }

  /** Note that it is being asked now. */
  start() {
    this.began = performance.now();
    this.element.classList.add("waiting");
  }

  /** Take a piece of the answer. */
  add(piece) {
    this.firstSeconds ??= (performance.now() - this.began) / 1000;
    this.text += piece;
    this.answer.textContent = this.text;
    this.element.classList.remove("waiting");
    this.#showTimes();
  }

  /** Take how the answer ended. */
  finish(end) {
    this.end = end;
    this.#isOver();
    if (this.text === "") this.answer.append(el("em", {}, "an empty answer"));
    this.#showTimes();
    if (end.metrics) this.#showCost(end.metrics.skip);
  }

  /** Tell that there is no answer, or only a part. */
  fail(error) {
    this.error = explain(error);
    this.#isOver();
    this.element.classList.add("failed");
    const { title, text } = this.error;
    this.agreement.replaceChildren(el("span", { class: "fault" }, el("strong", {}, `${title}.`), ` ${text}`));
  }

  /** Show where the answer leaves that of the full model. Return whether it is the same. */
  compareWith(full) {
    const { same, shared, rest, word } = compare(this.text, full);
    const chip = same ? "Same as full" : `Differs from full at word ${word}`;
    this.agreement.replaceChildren(el("span", { class: same ? "chip good" : "chip other" }, chip));
    if (!same) this.answer.replaceChildren(shared, el("mark", {}, rest || "(ends here)"));
    return same;
  }

  /** Show what runs. */
  showPreview({ skip, quality, runs }) {
    const rows = skip.image_rows
      ? `${skip.image_rows.kept} of ${skip.image_rows.of} rows of an image`
      : skip.visual_rows?.map((it) => `${it.kept} of ${it.of} rows of an image from layer ${it.layer}`).join(", ");
    if (rows) this.more.append(el("p", { class: "note" }, `Goes on with ${rows}.`));
    this.more.append(layerMap(runs));
    if (this.title === "drawn") this.#showQuality(quality);
  }

  #isOver() {
    this.element.setAttribute("aria-busy", "false");
    this.element.classList.remove("waiting");
  }

  #showTimes() {
    const metrics = this.end?.metrics;
    const first = metrics?.time_to_first_token_seconds ?? this.firstSeconds;
    const rows = [
      ["First token", first === null ? "-" : seconds(first)],
      ["In all", metrics ? seconds(metrics.duration_seconds) : "-"],
    ];
    if (metrics) {
      const tokens = count(metrics.skip.saved_for.generated_tokens, "token");
      rows.push(["Answer", this.end.reason === "length" ? `${tokens}, cut off` : tokens]);
    }
    this.facts.replaceChildren(...rows.map(([name, value]) => el("div", {}, el("dt", {}, name), el("dd", {}, value))));
  }

  #showCost(skip) {
    const fill = el("span", { class: "fill" });
    fill.style.width = `${(100 * skip.planned_flops) / skip.full_flops}%`;
    const saved = skip.saved_ratio > 0 ? `, ${percent(skip.saved_ratio)} saved` : "";
    const { prompt, cached_tokens: cached } = skip.saved_for;
    this.cost.replaceChildren(
      el("p", {}, `${flops(skip.planned_flops)}${saved}`),
      el("span", { class: "bar large", "aria-hidden": "true" }, fill),
      el("p", { class: "note" }, `of ${flops(skip.full_flops)}; prompt ${prompt}${cached ? `, ${cached} cached` : ""}`),
    );
  }

  #showQuality(qualities) {
    const quality = best(qualities, this.model);
    const text = quality ? capital(tell(quality, this.model)) : "Its quality has not been measured.";
    this.more.prepend(el("p", { class: "note" }, text));
  }
}
