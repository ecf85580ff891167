// Asks the server: the one file that sends anything, and only to where the page came from.

import { ApiError, fromReply } from "./errors.js";
import { events } from "./sse.js";

let key = "";

/** Send a key from now on; "" for none. */
export function useKey(value) {
  key = value;
}

/** Return the names that `model` may have, the served model first. */
export const models = async () => (await json("v1/models")).data;

/** Return the named skip policies. */
export const policies = async () => (await json("v1/skip_policies")).data;

/** Return what a policy, named or spelt out, would run and cost. */
export const resolve = (policy, signal) =>
  json("v1/skip_policies/resolve", { skip_policy: policy }, signal);

/**
 * Ask a question and return how the answer ended.
 *
 * @param body of a chat completion.
 * @param onText is given each piece of the answer.
 * @param signal stops it.
 * @returns finish reason and the reply's metrics.
 */
export async function ask(body, onText, signal) {
  const reply = await send("v1/chat/completions", { ...body, stream: true }, signal);
  let end = null;
  for await (const data of events(reply.body)) {
    // Read on to the end: whoever hangs up before it stops the answer.
    if (data === "[DONE]") continue;
    const chunk = JSON.parse(data);
    if (chunk.error) {
      throw new ApiError(chunk.error.code, chunk.error.message, { param: chunk.error.param });
    }
    const choice = chunk.choices[0];
    if (choice?.delta.content) onText(choice.delta.content);
    if (choice?.finish_reason) end = { reason: choice.finish_reason, metrics: chunk.metrics };
  }
  if (end === null) throw new ApiError(0, "the stream broke off before the answer was complete");
  return end;
}

async function json(path, body, signal) {
  return (await send(path, body, signal)).json();
}

async function send(path, body, signal) {
  const headers = key === "" ? {} : { Authorization: `Bearer ${key}` };
  const options = { headers, signal, credentials: "omit", cache: "no-store", redirect: "error" };
  if (body !== undefined) {
    options.method = "POST";
    options.body = JSON.stringify(body);
    headers["Content-Type"] = "application/json";
  }
  let reply;
  try {
    reply = await fetch(new URL(path, document.baseURI), options);
  } catch (error) {
    if (error.name === "AbortError") throw error;
    throw new ApiError(0, "the server cannot be reached, or ended the connection");
  }
  if (!reply.ok) throw await fromReply(reply);
  return reply;
}
