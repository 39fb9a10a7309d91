"use strict";

const MOST_ROWS = 10;
const element = (id) => document.getElementById(id);
const percent = (share) => (share > 0 && share < 0.001 ? "< 0.1%" : `${(100 * share).toFixed(1)}%`);
let latest = 0;
let address = null;
let mostBytes = Infinity; // until the model is described

async function describe() {
  const model = await (await fetch("/model")).json();
  const name = model.dataset ? `Image classifier: ${model.dataset}` : "Image classifier";
  element("title").textContent = name;
  document.title = name;
  mostBytes = model.max_bytes;
  const shown = model.classes.slice(0, 12).join(", ");
  const more = model.classes.length > 12 ? ", …" : "";
  element("about").textContent =
    `${model.file} knows ${model.classes.length} classes: ${shown}${more}.`;
}

async function classify(file) {
  const turn = ++latest;
  if (file.size > mostBytes) {
    refuse(`the file is larger than ${+(mostBytes / 1e6).toPrecision(3)} MB`);
    return;
  }
  element("error").textContent = "";
  element("status").className = "";
  element("status").textContent = "Classifying…";
  try {
    const suffix = encodeURIComponent(suffixOf(file.name));
    const response = await fetch(`/predict?suffix=${suffix}`, { method: "POST", body: file });
    const answer = await response.json();
    if (turn !== latest) return; // another picture was chosen meanwhile
    element("status").textContent = "";
    if (response.ok) show(file, answer);
    else refuse(answer.error.message);
  } catch {
    if (turn === latest) refuse("the server does not answer");
  }
}

function suffixOf(name) {
  const dot = name.lastIndexOf(".");
  return dot > 0 ? name.slice(dot) : "";
}

function refuse(message) {
  element("status").textContent = "";
  element("result").hidden = true;
  element("error").textContent = `Not classified: ${message}.`;
}

function show(file, answer) {
  const [best] = answer.probabilities;
  if (address) URL.revokeObjectURL(address);
  address = URL.createObjectURL(file);
  const picture = element("picture");
  picture.hidden = false;
  picture.alt = "The picture that was classified";
  picture.onerror = () => { picture.hidden = true; }; // a format that browsers do not show
  picture.src = address;
  element("heading").textContent = `${best.label}: ${percent(best.probability)}`;
  element("status").className = "heard"; // the heading shows the same
  element("status").textContent = `Most probable class: ${best.label}, ${percent(best.probability)}.`;
  showSet(answer);
  element("classes").replaceChildren(...answer.probabilities.slice(0, MOST_ROWS).map(row));
  const rest = answer.probabilities.length - MOST_ROWS;
  element("rest").textContent = rest > 0 ? `and ${rest} less probable classes` : "";
  element("result").hidden = false;
}

function showSet(answer) {
  const labels = new Map(answer.probabilities.map((item) => [item.class, item.label]));
  element("set").textContent = answer.set === null ? "" :
    `Conformal set (${+(100 * answer.coverage).toFixed(2)}% coverage): ` +
    answer.set.map((name) => labels.get(name)).join(", ");
}

function row(item) {
  const line = document.createElement("tr");
  const name = document.createElement("th");
  name.scope = "row";
  const isolated = document.createElement("bdi");
  isolated.textContent = item.label;
  name.append(isolated);
  const cell = document.createElement("td");
  const bar = document.createElement("meter");
  bar.value = item.probability;
  bar.setAttribute("aria-hidden", "true"); // the number beside it says the same
  cell.append(bar, percent(item.probability));
  line.append(name, cell);
  return line;
}

const drop = element("drop");
element("file").addEventListener("change", (event) => {
  const [file] = event.target.files;
  if (file) classify(file);
  event.target.value = ""; // the same file may be chosen again
});
for (const kind of ["dragenter", "dragover", "dragleave", "drop"]) {
  document.addEventListener(kind, (event) => {
    event.preventDefault();
    drop.classList.toggle("over", kind === "dragenter" || kind === "dragover");
  });
}
document.addEventListener("drop", (event) => {
  const [file] = event.dataTransfer.files;
  if (file) classify(file);
});
document.addEventListener("paste", (event) => {
  const [file] = event.clipboardData.files;
  if (file) classify(file);
});
describe().catch(() => refuse("the server does not answer"));
