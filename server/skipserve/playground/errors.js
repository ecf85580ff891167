// What went wrong, in words for whoever asked.

import { capital, count } from "./format.js";

/** An error that the server told, or that it was not reached. */
export class ApiError extends Error {
  /**
   * @param status of HTTP; 0 where no reply came.
   * @param message the server's own.
   * @param param the field at fault, if it names one.
   * @param retryAfter in seconds, if it says so.
   */
  constructor(status, message, { param = null, retryAfter = null } = {}) {
    super(message);
    this.status = status;
    this.param = param;
    this.retryAfter = retryAfter;
  }
}

/** Return the error of a reply that is none of success. */
export async function fromReply(reply) {
  const body = await reply.json().catch(() => null);
  const told = body?.error;
  const message = typeof told?.message === "string" ? told.message : `status ${reply.status}`;
  const seconds = Number.parseInt(reply.headers.get("Retry-After") ?? "", 10);
  return new ApiError(reply.status, message, {
    param: typeof told?.param === "string" ? told.param : null,
    retryAfter: Number.isFinite(seconds) ? seconds : null,
  });
}

const TITLES = {
  0: "Not reached",
  400: "Refused",
  401: "API key",
  403: "Not allowed",
  404: "Not found",
  408: "Out of time",
  413: "Too large",
  422: "The picture cannot be read",
  429: "Too many requests",
  503: "The server is busy",
};

/** Return title and text of an error. */
export function explain(error) {
  if (error.name === "AbortError") return { title: "Stopped", text: "You stopped this answer." };
  if (!(error instanceof ApiError)) return { title: "The page failed", text: String(error) };
  const isPicture = error.status === 400 && /\bimage|picture/.test(error.message);
  const title = isPicture ? "The picture" : (TITLES[error.status] ?? `Error ${error.status}`);
  const wait = error.retryAfter;
  // Some messages say it themselves.
  const isTold = wait === null || /again in \d/.test(error.message);
  const advice = isTold ? "" : ` Try again in ${count(wait, "second")}.`;
  const text = error.message.endsWith(".") ? error.message : `${error.message}.`;
  return { title, text: `${capital(text)}${advice}` };
}
