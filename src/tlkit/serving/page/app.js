"use strict";

// Labels photos with the service that this page comes from; nothing is loaded from elsewhere.

const byId = (id) => document.getElementById(id);
const LABELS = {
  unknown: "This looks like none of the classes.",
  unclassified: "The classifier is not sure enough.",
};

function headers(file) {
  const values = { "Content-Type": file.type.startsWith("image/") ? file.type : "application/octet-stream" };
  const token = byId("token").value;
  return token ? { ...values, Authorization: `Bearer ${token}` } : values;
}

async function send(path, file) {
  const model = byId("model").value;
  const query = model ? `?model=${encodeURIComponent(model)}` : "";
  let response;
  try {
    response = await fetch(path + query, { method: "POST", headers: headers(file), body: file });
  } catch {
    throw new Error("the service cannot be reached");
  }
  if (response.status === 401) byId("token-row").hidden = false;
  if (!response.ok) {
    const body = await response.json().catch(() => ({}));
    throw new Error(body.error || `the service answered ${response.status}`);
  }
  return response;
}

function percent(value) {
  return `${(100 * value).toFixed(1)}%`;
}

// Where images may have several labels, an answer lists them.
function describe(answer) {
  if (answer.labels) {
    return answer.labels.map(({ label, score }) => `${label}, ${percent(score)}`).join("; ") || "none of the labels";
  }
  return answer.label in LABELS ? answer.label : `${answer.label}, ${percent(answer.score)}`;
}

function showAnswer(article, answer) {
  article.querySelector("h2").textContent = describe(answer);
  article.querySelector(".remark").textContent = answer.labels ? "" : LABELS[answer.label] ?? "";
  const list = article.querySelector(".scores");
  for (const { label, score } of answer.top) {
    const item = document.createElement("li");
    const name = document.createElement("span");
    const number = document.createElement("span");
    const bar = document.createElement("progress");
    name.textContent = label;
    number.textContent = percent(score);
    number.className = "number";
    bar.max = 1;
    bar.value = score;
    bar.setAttribute("aria-label", `${label}, ${percent(score)}`);
    item.append(name, number, bar);
    list.append(item);
  }
}

function showRefusal(article, error) {
  article.classList.add("refused");
  article.querySelector("h2").textContent = "No answer";
  article.querySelector(".remark").textContent = error.message;
  article.querySelector(".explain").remove();
}

async function explain(article, file) {
  const button = article.querySelector(".explain");
  const picture = article.querySelector(".heat");
  button.disabled = true;
  try {
    const response = await send("explain", file);
    picture.src = URL.createObjectURL(await response.blob());
    picture.alt = "Heat map: the brighter, the more the network looked there";
    picture.hidden = false;
    button.remove();
  } catch (error) {
    article.querySelector(".remark").textContent = error.message;
    button.disabled = false;
  }
}

async function label(file) {
  const article = byId("result").content.cloneNode(true).querySelector("article");
  const photo = article.querySelector(".photo");
  photo.src = URL.createObjectURL(file);
  photo.alt = file.name;
  photo.addEventListener("error", () => photo.remove());
  article.querySelector("h2").textContent = "…";
  byId("results").prepend(article);
  try {
    const [answer] = await (await send("predict", file)).json();
    showAnswer(article, answer);
    const button = article.querySelector(".explain");
    button.addEventListener("click", () => explain(article, file));
    button.disabled = false;
    return `${file.name}: ${answer.label ?? describe(answer)}`;
  } catch (error) {
    showRefusal(article, error);
    return `${file.name}: ${error.message}`;
  }
}

async function labelAll(files) {
  for (const file of files) {
    byId("status").textContent = `Labelling ${file.name}…`;
    byId("status").textContent = await label(file);
  }
}

async function listModels() {
  const response = await fetch("models").catch(() => null);
  if (response?.status === 401) byId("token-row").hidden = false;
  if (!response?.ok) return;
  const models = await response.json();
  for (const { name } of models) byId("model").append(new Option(name));
  byId("model-row").hidden = models.length < 2;
}

for (const id of ["files", "camera"]) {
  byId(id).addEventListener("change", (event) => {
    const chosen = [...event.target.files];
    event.target.value = "";
    labelAll(chosen);
  });
}
for (const kind of ["dragover", "dragleave", "drop"]) {
  byId("drop").addEventListener(kind, (event) => {
    event.preventDefault();
    byId("drop").classList.toggle("over", kind === "dragover");
    if (kind === "drop") labelAll([...event.dataTransfer.files]);
  });
}
byId("drop").addEventListener("keydown", (event) => {
  if (event.key === "Enter" || event.key === " ") byId("files").click();
});
document.addEventListener("paste", (event) => labelAll([...event.clipboardData.files]));
listModels();
