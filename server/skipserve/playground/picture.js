// The picture: dropped, pasted, chosen or a sample. It is sent as it is; the server says its limits.

import { byId, el } from "./dom.js";

export const SAMPLES = [
  { id: "scene-4", alt: "Orange triangle, yellow circle, red and white square, cyan circle" },
  { id: "scene-41", alt: "Blue circle and star, yellow circle and star, on pink" },
  { id: "scene-45", alt: "Purple square and star, red star, orange circle and triangle, on grey" },
  { id: "scene-56", alt: "Yellow circles and square, blue and white star, on dark blue" },
  { id: "scene-28", alt: "Two small red circles and a large yellow one, on grey" },
];
const THUMB = 64;

export class Picture {
  constructor() {
    this.url = null;
    this.sample = null;
    this.zone = byId("drop");
    this.file = byId("file");
    this.preview = byId("preview");
    this.fault = byId("picture-fault");
    this.buttons = new Map(SAMPLES.map((sample) => [sample.id, this.#sampleButton(sample)]));
    byId("samples").append(...this.buttons.values());
    this.file.addEventListener("change", () => {
      if (this.file.files[0]) this.#read(this.file.files[0]);
      this.file.value = "";
    });
    byId("no-picture").addEventListener("click", () => this.#show(null, null, ""));
    this.#listen();
  }

  /** Take a sample by its id; no other picture of elsewhere can be named. */
  async takeSample(id) {
    const sample = SAMPLES.find((it) => it.id === id);
    if (sample === undefined) return;
    const place = new URL(`playground/samples/${id}.png`, document.baseURI);
    const reply = await fetch(place, { credentials: "omit" });
    this.#show(await asDataUrl(await reply.blob()), id, sample.alt);
  }

  /** Show a picture of before again. */
  restore({ url, sample, alt }) {
    this.#show(url, sample, alt);
  }

  /** What `restore` takes. */
  get state() {
    return { url: this.url, sample: this.sample, alt: this.preview.alt };
  }

  /** Return a small copy; null without a picture, or if the browser cannot read it. */
  thumb() {
    if (this.url === null || !this.preview.naturalWidth) return null;
    const canvas = el("canvas", { width: THUMB, height: THUMB });
    const { naturalWidth: width, naturalHeight: height } = this.preview;
    const scale = THUMB / Math.max(width, height);
    const [across, down] = [width * scale, height * scale];
    const [left, top] = [(THUMB - across) / 2, (THUMB - down) / 2];
    canvas.getContext("2d").drawImage(this.preview, left, top, across, down);
    return canvas.toDataURL("image/png");
  }

  #sampleButton({ id, alt }) {
    const image = el("img", { src: `playground/samples/${id}.png`, alt, width: 48, height: 48 });
    const take = () => this.takeSample(id);
    return el("button", { type: "button", class: "sample", "aria-pressed": "false", onclick: take }, image);
  }

  #listen() {
    const isOver = (over) => this.zone.classList.toggle("over", over);
    // Elsewhere on the page a dropped file would replace the page.
    for (const name of ["dragover", "drop"]) {
      document.addEventListener(name, (event) => event.preventDefault());
    }
    this.zone.addEventListener("dragover", () => isOver(true));
    this.zone.addEventListener("dragleave", () => isOver(false));
    this.zone.addEventListener("drop", (event) => {
      isOver(false);
      if (event.dataTransfer.files[0]) this.#read(event.dataTransfer.files[0]);
    });
    document.addEventListener("paste", (event) => {
      const file = event.clipboardData?.files[0];
      if (file) this.#read(file);
    });
  }

  async #read(file) {
    if (!file.type.startsWith("image/")) {
      this.fault.textContent = `${file.name || "This"} is no picture: take PNG, JPEG, WebP, GIF or BMP.`;
      return;
    }
    this.#show(await asDataUrl(file), null, file.name || "Pasted picture");
  }

  #show(url, sample, alt) {
    this.url = url;
    this.sample = sample;
    this.fault.textContent = "";
    this.zone.classList.toggle("full", url !== null);
    byId("no-picture").hidden = url === null;
    this.preview.hidden = url === null;
    this.preview.alt = alt;
    byId("picture-name").textContent = alt;
    if (url === null) this.preview.removeAttribute("src");
    else this.preview.src = url;
    for (const [id, button] of this.buttons) button.setAttribute("aria-pressed", String(id === sample));
  }
}

function asDataUrl(blob) {
  return new Promise((resolve, reject) => {
    const reader = new FileReader();
    reader.addEventListener("load", () => resolve(reader.result));
    reader.addEventListener("error", () => reject(reader.error));
    reader.readAsDataURL(blob);
  });
}
