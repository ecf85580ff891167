// The API key: in memory, or for this tab where that is wanted; never in a link or the history.

import { useKey } from "./api.js";
import { byId } from "./dom.js";

const KEPT = "skipserve.key";

export class KeyField {
  /** @param onUse is called when a key is to be used from now on. */
  constructor(onUse) {
    this.box = byId("key-box");
    this.input = byId("key");
    this.fault = byId("key-fault");
    this.keeps = byId("key-keep");
    const kept = sessionStorage.getItem(KEPT);
    this.keeps.checked = kept !== null;
    this.input.value = kept ?? "";
    useKey(this.input.value);
    byId("key-form").addEventListener("submit", (event) => {
      event.preventDefault();
      this.#use();
      onUse();
    });
    this.keeps.addEventListener("change", () => this.#use());
  }

  /** Show what is wrong with the key, and let it be typed. */
  ask(message) {
    this.box.open = true;
    this.fault.textContent = message;
    this.input.setAttribute("aria-invalid", "true");
    this.input.focus();
  }

  /** Forget that something was wrong. */
  accept() {
    this.fault.textContent = "";
    this.input.removeAttribute("aria-invalid");
  }

  #use() {
    const key = this.input.value.trim();
    useKey(key);
    if (this.keeps.checked && key !== "") sessionStorage.setItem(KEPT, key);
    else sessionStorage.removeItem(KEPT);
  }
}
