// The page: what is on it, joined together.

import * as api from "./api.js";
import { Asking } from "./asking.js";
import { byId } from "./dom.js";
import { Drawing } from "./drawing.js";
import { explain } from "./errors.js";
import { count } from "./format.js";
import { History } from "./history.js";
import { KeyField } from "./key_field.js";
import * as link from "./link.js";
import { Picture } from "./picture.js";
import { PolicyList } from "./policy_list.js";
import { followTheme } from "./theme.js";

const FIRST = {
  version: 1,
  question: "Describe the image.",
  sample: "scene-4",
  policies: ["skip-block-every-3-from-16-all", "exit-after-24"],
};

class Page {
  constructor() {
    this.model = "";
    this.drawing = null;
    this.key = new KeyField(() => this.load());
    this.picture = new Picture();
    this.list = new PolicyList(() => {});
    this.asking = new Asking((message) => this.key.ask(message));
    this.history = new History((settings, picture) => this.#restore(settings, picture));
    followTheme(byId("theme"));
    byId("question-form").addEventListener("submit", (event) => {
      event.preventDefault();
      this.ask();
    });
    byId("question").addEventListener("keydown", (event) => {
      if (event.key === "Enter" && (event.ctrlKey || event.metaKey)) byId("question-form").requestSubmit();
    });
    byId("stop").addEventListener("click", () => this.asking.stop());
    byId("share").addEventListener("click", () => this.share());
    byId("retry").addEventListener("click", () => this.load());
    window.addEventListener("hashchange", () => this.#openLink());
    this.#apply(link.check(FIRST));
  }

  /** Learn from the server what there is; say what is missing. */
  async load() {
    try {
      const [models, policies] = await Promise.all([api.models(), api.policies()]);
      const { runs } = await api.resolve((policies.find((it) => it.default) ?? policies[0]).name);
      this.#fill(models[0], policies, runs.text.attention.length);
      this.key.accept();
      byId("problem").hidden = true;
    } catch (error) {
      const { title, text } = explain(error);
      byId("problem").hidden = false;
      byId("problem-text").textContent = `${title}: ${text}`;
      if (error.status === 401) this.key.ask(error.message);
    }
  }

  /** Ask what the form says. */
  async ask() {
    if (this.asking.isBusy) return;
    const settings = this.settings();
    const cases = this.#cases(settings);
    if (cases.length === 0) {
      byId("status").textContent = "Choose a policy first, or compare with full.";
      return;
    }
    const [picture, thumb] = [this.picture.state, this.picture.thumb()];
    this.#isAsking(true);
    byId("answers").scrollIntoView({ block: window.innerWidth < 1024 ? "start" : "nearest" });
    const columns = await this.asking.run(cases, body(settings, picture.url), { ...settings, model: this.model });
    this.#isAsking(false);
    this.history.add(settings, picture, thumb, columns);
  }

  /** Put the settings into the address, and the address where it can be pasted. */
  async share() {
    history.replaceState(null, "", link.write(this.settings()));
    const isOwn = this.picture.url !== null && this.picture.sample === null;
    const but = isOwn ? " Your own picture is not in it." : "";
    try {
      await navigator.clipboard.writeText(location.href);
      byId("status").textContent = `The link is copied.${but}`;
    } catch {
      byId("status").textContent = `The link is in the address bar.${but}`;
    }
  }

  /** Return what the form says, as a link holds it. */
  settings() {
    const whole = (id) => (byId(id).value === "" ? null : byId(id).valueAsNumber);
    return link.check({
      version: 1,
      question: byId("question").value,
      sample: this.picture.sample,
      policies: [...this.list.chosen],
      full: byId("full").checked,
      drawn: byId("drawn").checked,
      draft: this.drawing?.draft.save(),
      maxTokens: whole("max-tokens"),
      temperature: whole("temperature"),
      seed: whole("seed"),
      fresh: byId("fresh").checked,
      inTurn: byId("in-turn").checked,
    });
  }

  #fill(model, policies, numLayers) {
    this.model = model.root;
    const where = model.dtype ? `, ${model.dtype} on ${model.device}` : "";
    byId("model").textContent = `${model.root}: ${numLayers} layers${where}`;
    this.list.fill(policies, model.root);
    // A key need not have the right to it.
    byId("full").disabled = this.list.find("full") === null;
    const isFirst = this.drawing === null;
    this.drawing ??= new Drawing(numLayers, model.root, () => {
      byId("drawn").checked = !this.drawing.draft.isEmpty;
    });
    byId("ask").disabled = false;
    if (isFirst && !this.#openLink()) this.list.choose(FIRST.policies);
  }

  /** Take the settings of the address; nothing is asked. Return whether there are some. */
  #openLink() {
    const settings = link.read(location.hash);
    if (settings === null) return false;
    this.#apply(settings);
    const missing = this.list.choose(settings.policies);
    const numLost = this.drawing?.load(settings.draft) ?? 0;
    const notes = ["These settings are a link's; nothing has been asked yet."];
    if (missing.length > 0) notes.push(`This server has no ${missing.join(", ")}.`);
    if (numLost > 0) notes.push(`Of what is drawn, ${count(numLost, "cell")} fit no layer here.`);
    byId("status").textContent = notes.join(" ");
    return true;
  }

  #restore(settings, picture) {
    const known = link.check({ version: 1, ...settings });
    this.#apply(known);
    if (picture !== null) this.picture.restore(picture);
    const isGone = picture === null && known.sample === null;
    byId("status").textContent = isGone ? "The picture of then is not kept: choose it again." : "";
    this.list.choose(known.policies);
    this.drawing?.load(known.draft);
    byId("question").focus();
  }

  #apply(settings) {
    byId("question").value = settings.question;
    byId("full").checked = settings.full;
    byId("drawn").checked = settings.drawn;
    byId("max-tokens").value = settings.maxTokens;
    byId("temperature").value = settings.temperature;
    byId("seed").value = settings.seed ?? "";
    byId("fresh").checked = settings.fresh;
    byId("in-turn").checked = settings.inTurn;
    if (settings.sample !== null) this.picture.takeSample(settings.sample);
  }

  #cases({ policies, full, drawn }) {
    const names = full && !byId("full").disabled ? ["full", ...policies.filter((name) => name !== "full")] : policies;
    const cases = names.map((name) => ({ title: name, policy: name, entry: this.list.find(name) }));
    if (drawn) cases.push({ title: "drawn", policy: this.drawing.policy, entry: null });
    return cases;
  }

  #isAsking(isAsking) {
    byId("ask").disabled = isAsking;
    byId("stop").hidden = !isAsking;
  }
}

function body({ question, maxTokens, temperature, seed }, picture) {
  const image = picture === null ? [] : [{ type: "image_url", image_url: { url: picture } }];
  const content = [...image, { type: "text", text: question }];
  const drawn = seed === null ? {} : { seed };
  return { messages: [{ role: "user", content }], max_tokens: maxTokens, temperature, ...drawn };
}

new Page().load();
