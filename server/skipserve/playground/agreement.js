// Whether an answer is the full model's, and where it leaves it.

/**
 * Compare an answer with the full model's.
 *
 * @returns whether they are the same, and of the answer the text before the first word that is
 *   another, and the rest; `word` counts that word from 1.
 */
export function compare(answer, full) {
  if (answer === full) return { same: true, shared: answer, rest: "", word: null };
  const [own, others] = [answer, full].map((text) => text.match(/\s*\S+|\s+$/g) ?? []);
  let index = 0;
  while (index < own.length && own[index] === others[index]) index += 1;
  const shared = own.slice(0, index).join("");
  return { same: false, shared, rest: answer.slice(shared.length), word: index + 1 };
}
