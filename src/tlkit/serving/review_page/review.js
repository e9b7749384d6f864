"use strict";
// The page of `tlkit review`. Text from the audit is only ever set as text, never as HTML.

const $ = id => document.getElementById(id);
const DONE = {keep: "kept", relabel: "relabelled", remove: "removed", "same-photo": "the same photo", unsure: "not sure"};
const KEYS = {k: "keep", r: "relabel", x: "remove", s: "same-photo", n: "unsure"};

let shown;            // what the server answers under /suspects
let index = 0;        // the suspect on the page; shown.suspects.length is the end
let subject = 0;      // which image of a pair a decision is about
let heat = false;     // whether heat maps are shown in place of the photos
let busy = false;     // until a decision is on the disk

function element(tag, text, className) {
  const made = document.createElement(tag);
  if (text !== undefined) made.textContent = text;
  if (className) made.className = className;
  return made;
}

async function ask(address, body) {
  const options = body ? {method: "POST", headers: {"Content-Type": "application/json"}, body: JSON.stringify(body)} : {};
  let answer;
  try {
    answer = await fetch(address, options);
  } catch {
    throw new Error("The server does not answer. Start tlkit review again, and open the address that it prints: the decisions so far are kept.");
  }
  if (!answer.ok) {
    const text = await answer.text();
    let reason = text;
    try { reason = JSON.parse(text).error ?? text; } catch { /* plain text */ }
    throw new Error(reason);
  }
  return answer.json();
}

function fail(error) {
  $("problem").textContent = error.message;
  $("problem").hidden = false;
}

const suspect = () => shown.suspects[index];
const verdicts = () => shown.state.verdicts;
const label = image => shown.state.labels[image.image] ?? image.label;
const possible = decision => shown.possible.includes(decision);
const explained = image => suspect().suggested ?? label(image);  // the class that a heat map is about
const labelsOnly = () => !possible("keep");  // the images have no labels yet

function photo(image, size, alt) {
  return picture(`photo?image=${encodeURIComponent(image.image)}&size=${size}`, alt);
}

// Where the classifier looks for the class that is asked about.
function heatMap(image, name) {
  const address = `heat?image=${encodeURIComponent(image.image)}&label=${encodeURIComponent(name)}`;
  const made = picture(address, `Where the classifier looks for ${name} in ${image.image}`);
  $("status").textContent = "Computing the heat map: the first one takes some seconds …";
  made.addEventListener("load", () => { $("status").textContent = ""; });
  return made;
}

function picture(address, alt) {
  const made = element("img");
  made.alt = alt;
  made.src = address;
  made.addEventListener("error", async () => {
    const answer = await fetch(made.src).catch(() => null);
    const reason = answer ? (await answer.json().catch(() => ({}))).error : null;
    made.replaceWith(element("p", reason ?? "this photo cannot be shown", "broken"));
  });
  return made;
}

function figure(image, place) {
  const made = element("figure");
  const caption = element("figcaption");
  caption.append(element("span", label(image) || "no label yet", "label"), ` – ${image.image}${image.split ? ` (${image.split})` : ""}`);
  const about = explained(image);
  if (heat) caption.append(`; bright: what speaks for ${about}`);
  made.append(heat ? heatMap(image, about) : photo(image, "large", `Labelled ${label(image) || "nothing yet"}: ${image.image}`), caption);
  if (suspect().images.length > 1) {
    made.addEventListener("click", () => choose(place));
    if (place === subject) {
      made.classList.add("subject");
      made.setAttribute("aria-current", "true");
    }
  }
  return made;
}

// What is asked about a suspect; the words between ** are emphasised.
function question({kind, images, suggested, probability, similarity}) {
  const [image, other] = images;
  const number = value => value === null ? "" : value.toFixed(2);
  if (kind === "label")
    return `Labelled **${label(image)}**, probably **${suggested}** (probability of ${image.label}: ${number(probability)})`;
  if (kind === "unlabelled")
    return suggested === null ? "Which class is it?" : `Which class is it? Probably **${suggested}** (probability ${number(probability)})`;
  if (kind === "unlike") return `Labelled **${label(image)}**, and unlike all other images (largest similarity ${number(similarity)})`;
  const same = `The same photo? (correlation ${number(similarity)})`;
  if (label(image) !== label(other)) return `${same} Labelled **${label(image)}** and **${label(other)}**`;
  if (image.split === other.split) return `${same} Both labelled **${label(image)}**`;
  return `${same} Both labelled **${label(image)}**, in **${image.split}** and **${other.split}**`;
}

function emphasised(text) {
  return text.split("**").map((part, place) => place % 2 ? element("em", part) : part);
}

function describe(verdict) {
  if (verdict.decision === null) return `Nothing to decide: ${verdict.image} is left out already`;
  const name = suspect().images.length > 1 ? `${verdict.image}: ` : "";
  return `Decided – ${name}${labelsOnly() && verdict.new_label ? "labelled" : DONE[verdict.decision]}${verdict.new_label ? ` to ${verdict.new_label}` : ""}`;
}

function render() {
  const total = shown.suspects.length, decided = verdicts().filter(verdict => verdict !== null).length;
  const ended = index >= total;
  $("title").textContent = `Review of ${shown.name}`;
  for (const button of document.querySelectorAll("[data-decision]")) button.hidden = !possible(button.dataset.decision);
  document.querySelector("[data-decision='relabel'] span").textContent = labelsOnly() ? "Label…" : "Relabel…";
  $("decided").textContent = `${decided} of ${total} decided`;
  $("position").textContent = ended ? "end" : `${index + 1} / ${total}`;
  $("bar").max = Math.max(1, total);
  $("bar").value = decided;
  $("previous").disabled = index === 0;
  $("next").disabled = ended;
  $("suspect").hidden = ended;
  $("end").hidden = !ended;
  $("actions").hidden = total === 0;
  for (const button of document.querySelectorAll("[data-decision]")) button.disabled = ended;
  $("heat").hidden = ended || !shown.explains || !explained(suspect().images[subject]);
  $("heat").setAttribute("aria-pressed", String(heat));
  $("swap").hidden = ended || suspect().images.length < 2;
  if (possible("same-photo")) document.querySelector("[data-decision='same-photo']").hidden = !ended && suspect().images.length < 2;
  if (ended) {
    const left = total - decided;
    $("end-title").textContent = total === 0 ? "There is nothing to review" : left ? `${left} of ${total} are left: ← leads back` : `All ${total} are decided`;
    $("file").textContent = shown.file;
    return;
  }
  const {images} = suspect(), verdict = verdicts()[index];
  $("hint").hidden = images.length < 2;
  $("question").replaceChildren(...emphasised(question(suspect())));
  $("verdict").hidden = verdict === null;
  if (verdict !== null) $("verdict").textContent = describe(verdict);
  $("photos").className = images.length > 1 ? "pair" : "";
  $("photos").replaceChildren(...images.map(figure));
  const neighbours = images[subject].neighbours.filter(({image}) => !images.some(other => other.image === image));
  $("similar").hidden = neighbours.length === 0;
  $("neighbours").replaceChildren(...neighbours.map(neighbour => {
    const item = element("li"), made = element("figure");
    const caption = element("figcaption");
    caption.append(element("strong", label(neighbour)), ` ${neighbour.similarity.toFixed(2)}`);
    made.title = neighbour.image;
    made.append(photo(neighbour, "small", `Labelled ${label(neighbour)}: ${neighbour.image}`), caption);
    item.append(made);
    return item;
  }));
}

function choose(place) {
  subject = place;
  render();
  $("status").textContent = `Decide about ${suspect().images[subject].image}`;
}

function toggleHeat() {
  heat = !heat;
  $("status").textContent = "";
  render();
}

function go(to) {
  index = Math.max(0, Math.min(shown.suspects.length, to));
  subject = 0;
  heat = false;
  render();
  $(index < shown.suspects.length ? "suspect" : "end").focus({preventScroll: true});
  window.scrollTo(0, 0);
}

// The first undecided suspect from a place on, then from the beginning; the end if there is none.
function nextUndecided(from) {
  const order = [...verdicts().keys()].map(step => (from + step) % verdicts().length);
  return order.find(place => verdicts()[place] === null) ?? verdicts().length;
}

async function send(address, body, then) {
  if (busy) return;
  busy = true;
  document.body.setAttribute("aria-busy", "true");
  try {
    shown.state = await ask(address, body);
  } catch (error) {
    return fail(error);
  } finally {
    busy = false;
    document.body.removeAttribute("aria-busy");
  }
  $("problem").hidden = true;
  then(shown.state.changed);
}

function decide(decision, newLabel = "") {
  if (index >= shown.suspects.length || !possible(decision)) return;
  const {image} = suspect().images[subject];
  if (decision === "same-photo" && suspect().images.length < 2) return;
  send("decisions", {suspect: index, image, decision, new_label: newLabel}, changed => {
    const saved = describe(verdicts()[changed]);
    go(nextUndecided(changed + 1));
    $("status").textContent = `${saved}. Saved.`;
  });
}

function undo() {
  send("undo", {}, changed => {
    if (changed !== null) go(changed);
    $("status").textContent = changed === null ? "There is no decision to undo" : "Undone";
  });
}

// The dialog that chooses a class: the suggested one first, then the others in their order.

let offered = [], selected = 0;

function openClasses() {
  if (busy || index >= shown.suspects.length) return;
  $("filter").value = "";
  offer();
  $("relabel").showModal();
  $("filter").focus();
}

const classes = () => [...new Set([...shown.classes, ...Object.values(shown.state.labels)])];

// Whether a digit stands for a class by its place: else it is part of a name.
const digitsCount = () => !classes().some(name => /^[1-9]/.test(name));

function offer() {
  const current = label(suspect().images[subject]), typed = $("filter").value.trim(), text = typed.toLowerCase();
  const other = suspect().images[1 - subject];
  const suggested = other ? label(other) : suspect().suggested;
  const names = [...new Set([suggested, ...classes()])].filter(name => name !== null && (labelsOnly() || name !== current));
  // a digit may also begin the name of a new class, so that it only selects
  const numbered = labelsOnly() && digitsCount() && /^[1-9]$/.test(text) ? names[text - 1] : undefined;
  // what is typed comes before the names that contain it, so that Enter saves it and nothing else
  offered = [...new Set([
    ...names.filter(name => name === typed),
    ...names.filter(name => name.toLowerCase() === text),
    ...(numbered === undefined ? [] : [numbered]),
    ...(labelsOnly() && typed ? [typed] : []),  // a new class
    ...names.filter(name => name.toLowerCase().includes(text)),
  ])];
  // whoever types the label that the image has does not mean another class whose name contains it
  const isCurrent = text !== "" && text === current.toLowerCase() && offered[0]?.toLowerCase() !== text;
  selected = isCurrent ? -1 : 0;
  renderClasses();
}

function renderClasses() {
  const known = classes(), keys = $("filter").value === "" && digitsCount();
  $("digits").hidden = !keys;
  $("digits-do").textContent = labelsOnly() ? "selects" : "chooses";
  $("classes").replaceChildren(...offered.map((name, place) => {
    const item = element("li");
    item.id = `class-${place}`;
    item.setAttribute("role", "option");
    item.setAttribute("aria-selected", String(place === selected));
    if (keys && place < 9) item.append(element("kbd", String(place + 1)), " ");
    item.append(name);
    if (!known.includes(name) && name !== suspect().suggested) item.append(" (new class)");
    item.addEventListener("click", () => relabel(place));
    return item;
  }));
  $("filter").setAttribute("aria-activedescendant", selected in offered ? `class-${selected}` : "");
  $("classes").children[selected]?.scrollIntoView({block: "nearest"});
}

function relabel(place) {
  if (!(place in offered)) return;
  $("relabel").close();
  decide("relabel", offered[place]);
}

$("filter").addEventListener("input", offer);
$("filter").addEventListener("keydown", event => {
  const step = {ArrowDown: 1, ArrowUp: -1}[event.key];
  if (step && offered.length) {
    selected = (Math.max(selected, step === 1 ? -1 : 0) + step + offered.length) % offered.length;
    renderClasses();
  } else if (event.key === "Enter") {
    relabel(selected);
  } else if (/^[1-9]$/.test(event.key) && event.key <= offered.length && !labelsOnly() && $("filter").value === "" && digitsCount()) {
    relabel(Number(event.key) - 1);
  } else {
    return;
  }
  event.preventDefault();
});

document.addEventListener("keydown", event => {
  if (!shown || $("relabel").open || event.ctrlKey || event.altKey || event.metaKey || event.repeat) return;
  const key = event.key.toLowerCase();
  if (key === "r") openClasses();
  else if (key in KEYS) decide(KEYS[key]);
  else if (key === "u") undo();
  else if (key === "o" && !$("swap").hidden) choose(1 - subject);
  else if (key === "h" && !$("heat").hidden) toggleHeat();
  else if (key === "arrowleft") go(index - 1);
  else if (key === "arrowright") go(index + 1);
  else return;
  event.preventDefault();
});
for (const button of document.querySelectorAll("[data-decision]")) {
  const {decision} = button.dataset;
  button.addEventListener("click", () => decision === "relabel" ? openClasses() : decide(decision));
}
$("undo").addEventListener("click", undo);
$("heat").addEventListener("click", toggleHeat);
$("swap").addEventListener("click", () => choose(1 - subject));
$("previous").addEventListener("click", () => go(index - 1));
$("next").addEventListener("click", () => go(index + 1));

ask("suspects").then(answer => {
  shown = answer;
  document.title = `Review of ${shown.name}`;
  go(nextUndecided(0));
}, fail);
