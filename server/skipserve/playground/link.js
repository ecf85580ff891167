// Settings as a link's fragment, and back. What comes from a link is not believed.

import { CLASSES, DROPPERS, PARTS } from "./draft.js";

export const LIMITS = { policies: 8, question: 4000, tokens: 4096, layers: 1024, link: 32000 };
const PREFIX = "#s=";
const NAME = /^[a-z0-9][a-z0-9.-]{0,63}$/;

/** Return the fragment that holds settings. */
export function write(settings) {
  const bytes = new TextEncoder().encode(JSON.stringify({ version: 1, ...settings }));
  const text = btoa(Array.from(bytes, (byte) => String.fromCharCode(byte)).join(""));
  return PREFIX + text.replaceAll("+", "-").replaceAll("/", "_").replaceAll("=", "");
}

/** Return the settings of a fragment, each of its own kind and size; null where there are none. */
export function read(fragment) {
  if (!fragment.startsWith(PREFIX) || fragment.length > LIMITS.link) return null;
  try {
    const text = fragment.slice(PREFIX.length).replaceAll("-", "+").replaceAll("_", "/");
    const bytes = Uint8Array.from(atob(text), (letter) => letter.charCodeAt(0));
    return check(JSON.parse(new TextDecoder("utf-8", { fatal: true }).decode(bytes)));
  } catch {
    return null;
  }
}

/** Return settings with only what the page knows, or null; nothing else of `value` is kept. */
export function check(value) {
  if (!isObject(value) || value.version !== 1) return null;
  return {
    question: typeof value.question === "string" ? value.question.slice(0, LIMITS.question) : "",
    sample: typeof value.sample === "string" && NAME.test(value.sample) ? value.sample : null,
    policies: list(value.policies, (it) => typeof it === "string" && NAME.test(it), LIMITS.policies),
    full: value.full !== false,
    drawn: value.drawn === true,
    draft: checkDraft(value.draft),
    maxTokens: number(value.maxTokens, 1, LIMITS.tokens, 64),
    temperature: number(value.temperature, 0, 2, 0, false),
    seed: number(value.seed, 0, 2 ** 31 - 1, null),
    fresh: value.fresh !== false,
    inTurn: value.inTurn === true,
  };
}

function checkDraft(value) {
  const skipped = {};
  for (const part of PARTS) {
    for (const name of CLASSES) {
      const key = `${part} ${name}`;
      const given = isObject(value?.skipped) ? value.skipped[key] : undefined;
      const layers = list(given, (it) => isWhole(it, 0, LIMITS.layers - 1), LIMITS.layers);
      if (layers.length > 0) skipped[key] = layers;
    }
  }
  return { skipped, dropper: checkDropper(value?.dropper) };
}

function checkDropper(value) {
  if (!isObject(value) || !Object.hasOwn(DROPPERS, value.method)) return null;
  return {
    method: value.method,
    before: number(value.before, 1, LIMITS.layers - 1, 2),
    keep: number(value.keep, 1, 99, 50),
  };
}

const isObject = (value) => typeof value === "object" && value !== null && !Array.isArray(value);
const isWhole = (value, least, most) => Number.isInteger(value) && value >= least && value <= most;

function number(value, least, most, otherwise, mustBeWhole = true) {
  const fits = typeof value === "number" && value >= least && value <= most;
  return fits && (!mustBeWhole || Number.isInteger(value)) ? value : otherwise;
}

function list(value, isGood, most) {
  return Array.isArray(value) ? [...new Set(value.filter(isGood))].slice(0, most) : [];
}
