// What was measured of a policy, on the served model before anything that is published.

/** Return the quality that counts here, or null: measured on this model, else the first. */
export function best(qualities, model) {
  return qualities.find((it) => it.model === model) ?? qualities[0] ?? null;
}

/** Say it in one line, which begins with what was measured. */
export function tell(quality, model) {
  const against = quality.full === null || quality.full === undefined ? "" : ` (full ${quality.full})`;
  const size = quality.n ? `, n = ${quality.n}` : "";
  const where = quality.model === model ? "measured here" : `published for ${quality.model}`;
  return `${quality.metric}: ${quality.value}${against}; ${quality.dataset}${size}, ${where}`;
}
