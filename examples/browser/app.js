"use strict";

const SHOWN = 5; // classes
const byId = (id) => document.getElementById(id);
const toBytes = (text) => Uint8Array.from(atob(text), (character) => character.charCodeAt(0));
const toAddress = (text, type) => URL.createObjectURL(new Blob([toBytes(text)], { type }));

async function load() {
  ort.env.wasm.numThreads = 1; // more take headers that not every host sends
  ort.env.wasm.wasmPaths = { mjs: toAddress(RUNTIME.module, "text/javascript") };
  ort.env.wasm.wasmBinary = toBytes(RUNTIME.binary);
  return ort.InferenceSession.create(toBytes(MODEL.content));
}

// Colours as they are in the file, upright, over white: as tlkit reads photos.
async function decode(file) {
  const bitmap = await createImageBitmap(file, { colorSpaceConversion: "none" });
  const canvas = new OffscreenCanvas(bitmap.width, bitmap.height);
  const context = canvas.getContext("2d");
  context.fillStyle = "white";
  context.fillRect(0, 0, bitmap.width, bitmap.height);
  context.drawImage(bitmap, 0, 0);
  const { data } = context.getImageData(0, 0, bitmap.width, bitmap.height);
  const pixels = new Uint8Array((data.length / 4) * 3);
  for (let from = 0, to = 0; from < data.length; from += 4) {
    pixels[to++] = data[from];
    pixels[to++] = data[from + 1];
    pixels[to++] = data[from + 2];
  }
  return new ort.Tensor("uint8", pixels, [1, bitmap.height, bitmap.width, 3]);
}

async function classify(session, images) {
  const answer = await session.run({ images });
  const { classes } = MODEL.description;
  const probabilities = [...answer.probabilities.data];
  const order = classes.map((_, index) => index).sort((a, b) => probabilities[b] - probabilities[a]);
  let label;
  if (answer.labels) {
    // a photo may have several labels
    label = classes.filter((_, index) => answer.labels.data[index]).join(", ") || "none of the labels";
  } else if (answer.unknown.data[0]) {
    label = "unknown";
  } else {
    label = answer.unclassified.data[0] ? "unclassified" : classes[Number(answer.label.data[0])];
  }
  return { label, top: order.slice(0, SHOWN).map((index) => [classes[index], probabilities[index]]) };
}

function element(tag, text, attributes = {}) {
  const made = Object.assign(document.createElement(tag), attributes);
  made.append(text);
  return made;
}

function refuse(article, file, reason) {
  article.className = "refused";
  article.querySelector("h2").textContent = "No answer";
  article.append(element("p", reason));
  byId("status").textContent = `${file.name}: no answer`;
}

async function show(ready, file) {
  const article = element("article", element("h2", "…"));
  byId("results").prepend(article);
  let session;
  try {
    session = await ready;
  } catch (error) {
    refuse(article, file, `The network cannot be loaded: ${error.message}`);
    return;
  }
  let images;
  try {
    images = await decode(file);
  } catch (error) {
    refuse(article, file, `${file.name} is no photo that this browser can read.`);
    console.info(error);
    return;
  }
  try {
    const { label, top } = await classify(session, images);
    article.querySelector("h2").textContent = label;
    article.append(element("img", "", { src: URL.createObjectURL(file), alt: file.name }));
    const rows = top.map(([name, probability]) => {
      const row = element("li", `${name} ${(100 * probability).toFixed(1)}%`);
      row.append(element("progress", "", { value: probability, ariaLabel: name }));
      return row;
    });
    const list = element("ul", "");
    list.append(...rows);
    article.append(list);
    byId("status").textContent = `${file.name}: ${label}`;
  } catch (error) {
    refuse(article, file, `The network failed: ${error.message}`);
  }
}

const ready = load();
ready.then(
  () => (byId("status").textContent = `Ready: ${MODEL.description.classes.join(", ")}`),
  (error) => (byId("status").textContent = `The network cannot be loaded: ${error.message}`),
);
// one after the other: a session computes one photo at a time
let queue = Promise.resolve();
const add = (files) => [...files].forEach((file) => (queue = queue.then(() => show(ready, file))));
byId("files").addEventListener("change", (event) => add(event.target.files));
addEventListener("dragover", (event) => event.preventDefault());
addEventListener("drop", (event) => {
  event.preventDefault();
  add(event.dataTransfer.files);
});
