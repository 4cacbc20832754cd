"use strict";

// Light and dark: the system decides until the button is pressed; nothing is remembered.
const root = document.documentElement;
document.querySelector("#theme").addEventListener("click", () => {
  const system = matchMedia("(prefers-color-scheme: dark)").matches ? "dark" : "light";
  root.dataset.theme = (root.dataset.theme ?? system) === "dark" ? "light" : "dark";
});

// Tables: sort by column, show what the filters choose.
const words = new Intl.Collator("en");
const filters = document.querySelector(".filters");
const tables = [...document.querySelectorAll("table.ranking")].map((element) => ({
  element,
  headers: [...element.tHead.rows[0].cells],
  rows: [...element.tBodies[0].rows], // as written: every sort starts from this order, so that ties keep it
}));

function comparison(header, direction) {
  const column = header.cellIndex;
  const sign = direction === "ascending" ? 1 : -1;
  const numeric = header.classList.contains("number");
  return (first, second) => {
    const [a, b] = [first, second].map((row) => row.cells[column].dataset.value);
    if (a === "" || b === "") return (a === "") - (b === ""); // missing figures come last either way
    return sign * (numeric ? a - b : words.compare(a, b));
  };
}

function sort(table, header) {
  const opposite = { ascending: "descending", descending: "ascending" };
  const direction = opposite[header.getAttribute("aria-sort")] ?? header.dataset.first;
  table.headers.forEach((other) => other.removeAttribute("aria-sort"));
  header.setAttribute("aria-sort", direction);
  table.element.tBodies[0].append(...[...table.rows].sort(comparison(header, direction)));
  separateBudgets(table);
}

// A rule between budgets, while the lines stand by budget.
function separateBudgets({ element, headers }) {
  const column = headers.find((header) => header.classList.contains("budget"));
  let last = null;
  for (const row of element.tBodies[0].rows) {
    if (row.hidden) continue;
    const budget = row.cells[column.cellIndex].dataset.value;
    row.classList.toggle("opens", column.hasAttribute("aria-sort") && last !== null && budget !== last);
    last = budget;
  }
}

function filter() {
  const choices = [...filters.elements].map((select) => [select.name, select.value]);
  for (const table of tables) {
    const { element, rows } = table;
    for (const row of [...rows, ...element.tFoot.rows]) {
      row.hidden = choices.some(([name, value]) => value !== "" && (row.dataset[name] ?? value) !== value);
    }
    choices.forEach(([name, value]) => element.classList.toggle(`one-${name}`, value !== ""));
    const empty = rows.every((row) => row.hidden);
    element.parentElement.hidden = empty;
    element.parentElement.nextElementSibling.hidden = !empty;
    separateBudgets(table);
  }
}

for (const table of tables) {
  for (const header of table.headers) {
    header.querySelector("button").addEventListener("click", () => sort(table, header));
  }
}
if (filters) {
  filters.hidden = false;
  filters.addEventListener("change", filter);
  filter();
}

// Enlarged pictures: those of one row replace each other in place, so that differences flicker.
const dialog = document.querySelector("dialog");
let series = [];
let current = 0;

function show(index) {
  current = (index + series.length) % series.length;
  const button = series[current];
  const picture = button.querySelector("img").cloneNode();
  dialog.classList.toggle("pixels", button.classList.contains("pixels"));
  dialog.querySelector(".stage").replaceChildren(picture);
  dialog.querySelector(".label").textContent = button.dataset.caption;
}

for (const button of document.querySelectorAll("button.zoom")) {
  button.addEventListener("click", () => {
    series = [...button.closest("figure").querySelectorAll("button.zoom")];
    dialog.classList.toggle("single", series.length === 1);
    show(series.indexOf(button));
    dialog.showModal();
  });
}
dialog.addEventListener("click", ({ target }) => {
  if (target.dataset.step) show(current + Number(target.dataset.step));
  else if (target === dialog || "close" in target.dataset) dialog.close();
});
dialog.addEventListener("keydown", ({ key }) => {
  const step = { ArrowLeft: -1, ArrowRight: 1 }[key];
  if (step) show(current + step);
});

// Copy buttons; where the clipboard is out of reach the text is selected instead.
for (const button of document.querySelectorAll("button.copy")) {
  button.addEventListener("click", async () => {
    const code = button.parentElement.querySelector("code");
    try {
      await navigator.clipboard.writeText(code.textContent);
      button.textContent = "Copied";
    } catch {
      getSelection().selectAllChildren(code);
      button.textContent = "Selected";
    }
  });
}
