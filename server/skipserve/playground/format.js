// Numbers as people read them.

/** Return a share as a percentage: 0.2604 is "26.0 %". */
export const percent = (share) => `${(100 * share).toFixed(1)} %`;

/** Return a number of operations with the prefix that suits it. */
export function flops(count) {
  const prefixes = ["", "k", "M", "G", "T", "P"];
  let value = count;
  let index = 0;
  while (value >= 1000 && index < prefixes.length - 1) {
    value /= 1000;
    index += 1;
  }
  return `${value.toPrecision(3)} ${prefixes[index]}FLOPs`;
}

/** Return a time of seconds: "27 ms", "1.42 s". */
export function seconds(time) {
  return time < 1 ? `${Math.round(1000 * time)} ms` : `${time.toFixed(2)} s`;
}

/** Return how many there are of something. */
export const count = (number, one, many = `${one}s`) => `${number} ${number === 1 ? one : many}`;

/** Return a text that begins with a capital. */
export const capital = (text) => text.charAt(0).toUpperCase() + text.slice(1);
