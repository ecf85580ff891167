// A policy that is being drawn: what is left out, and the rules that say it. Knows no page.

export const CLASSES = ["text", "visual", "last", "generated"];
export const PARTS = ["attention", "ffn"];
export const DROPPERS = {
  vtw: "drop_visual",
  fastv: "drop_visual",
  dart: "drop_visual",
  pyramiddrop: "drop_visual",
  sparsevlm: "drop_visual",
  visionzip: "reduce_visual",
  vispruner: "reduce_visual",
  divprune: "reduce_visual",
  downsample: "reduce_visual",
};
/** Those that take rows away at several layers, as their papers say. */
export const STAGED = new Set(["pyramiddrop", "sparsevlm"]);

// The scopes that together make a set of classes, spelt as CLASSES with - for those left out.
const SCOPES = {
  "----": [],
  "---g": ["generated"],
  "-v--": ["visual"],
  "-v-g": ["visual", "generated"],
  "--lg": ["answer"],
  "-vlg": ["visual", "answer"],
  "tvl-": ["prompt"],
  "tvlg": ["all"],
};
const ACTIONS = { attention: "skip_attention", ffn: "skip_ffn", both: "skip_block" };

export class Draft {
  /** @param numLayers of the model. */
  constructor(numLayers) {
    this.numLayers = numLayers;
    this.dropper = null;
    this.clear();
  }

  /** Leave nothing out; the dropper stays. */
  clear() {
    const none = () => Array.from({ length: this.numLayers }, () => new Set());
    this.skipped = { attention: none(), ffn: none() };
  }

  /** Whether a class leaves a part of a layer out. */
  skips(layer, part, name) {
    return this.skipped[part][layer].has(name);
  }

  /** Whether nothing is left out and no row leaves. */
  get isEmpty() {
    return this.rules().length === 0;
  }

  /**
   * Leave a part of a layer out for a class, or run it.
   *
   * Scopes are what rules know: the prompt's text is skipped with all of the prompt, its last row
   * with the prompt or the generated tokens. What must follow does.
   */
  set(layer, part, name, isSkipped) {
    const set = this.skipped[part][layer];
    if (isSkipped) {
      set.add(name);
      if (name === "text") set.add("visual").add("last");
      if (name === "last" && !set.has("text")) set.add("generated");
    } else {
      set.delete(name);
      if (name === "visual" || name === "last") set.delete("text");
      if (!set.has("text") && !set.has("generated")) set.delete("last");
    }
  }

  /** Return the rules, layers that are treated alike in one. */
  rules() {
    const layersOf = new Map();
    const note = (action, scope, layer) => {
      const key = `${action} ${scope}`;
      layersOf.set(key, [...(layersOf.get(key) ?? []), layer]);
    };
    for (let layer = 0; layer < this.numLayers; layer += 1) {
      const [attention, ffn] = PARTS.map((part) => this.#scopes(layer, part));
      if (attention.join() === ffn.join()) {
        for (const scope of ffn) note(ACTIONS.both, scope, layer);
      } else {
        for (const scope of attention) note(ACTIONS.attention, scope, layer);
        for (const scope of ffn) note(ACTIONS.ffn, scope, layer);
      }
    }
    const rules = [...layersOf].map(([key, layers]) => {
      const [action, scope] = key.split(" ");
      return { action, layers: asLayers(layers), scope };
    });
    return this.dropper === null ? rules : [...rules, dropRule(this.dropper)];
  }

  /** Return it as a link keeps it: of each part and class the layers that are left out. */
  save() {
    const kept = {};
    for (const part of PARTS) {
      for (const name of CLASSES) {
        const layers = [...this.skipped[part].keys()].filter((it) => this.skips(it, part, name));
        if (layers.length > 0) kept[`${part} ${name}`] = layers;
      }
    }
    return { skipped: kept, dropper: this.dropper };
  }

  /** Take what was saved; layers that this model lacks are left out. Return how many were. */
  load(saved) {
    this.clear();
    this.dropper = saved.dropper;
    let numLost = 0;
    for (const [key, layers] of Object.entries(saved.skipped)) {
      const [part, name] = key.split(" ");
      for (const layer of layers) {
        if (layer < this.numLayers) this.set(layer, part, name, true);
        else numLost += 1;
      }
    }
    return numLost;
  }

  #scopes(layer, part) {
    const spelt = CLASSES.map((name) => (this.skips(layer, part, name) ? name[0] : "-")).join("");
    return SCOPES[spelt];
  }
}

function asLayers(layers) {
  const [from, to] = [layers[0], layers.at(-1)];
  return to > from && to - from === layers.length - 1 ? { from, to } : layers;
}

function dropRule({ method, before, keep }) {
  const rule = { action: DROPPERS[method], method };
  if (rule.action === "drop_visual" && !STAGED.has(method)) rule.before = before;
  if (method !== "vtw" && !STAGED.has(method)) rule.keep = `${keep}%`;
  return rule;
}
