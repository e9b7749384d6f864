// Sorts a table by the column whose heading is clicked, and enlarges a photo that is clicked.
"use strict";

function value(row, column) {
  const cell = row.cells[column];
  const text = cell.dataset.value ?? cell.textContent.trim();
  const number = Number.parseFloat(text.replaceAll(",", ""));
  return Number.isNaN(number) ? text : number;
}

function compare(a, b) {
  if (typeof a === "number" && typeof b === "number") return a - b;
  return String(a).localeCompare(String(b));
}

for (const table of document.querySelectorAll("table.sortable")) {
  const cells = [...table.tHead.rows[0].cells];
  cells.forEach((cell, column) => {
    if (cell.classList.contains("fixed")) return;
    const button = document.createElement("button");
    button.append(...cell.childNodes);
    cell.append(button);
    button.addEventListener("click", () => {
      const sign = cell.getAttribute("aria-sort") === "ascending" ? -1 : 1;
      for (const other of cells) other.removeAttribute("aria-sort");
      cell.setAttribute("aria-sort", sign === 1 ? "ascending" : "descending");
      const rows = [...table.tBodies[0].rows];
      table.tBodies[0].append(...rows.sort((a, b) => sign * compare(value(a, column), value(b, column))));
    });
  });
}

const dialog = document.createElement("dialog");
dialog.addEventListener("click", () => dialog.close());
document.body.append(dialog);
for (const photo of document.querySelectorAll(".photos img, .pair img")) {
  const enlarge = () => {
    const copy = photo.cloneNode();
    copy.removeAttribute("role");
    copy.removeAttribute("tabindex");
    const caption = document.createElement("p");
    caption.textContent = photo.closest("figure")?.querySelector("figcaption")?.textContent ?? photo.alt;
    dialog.replaceChildren(copy, caption);
    dialog.showModal();
  };
  photo.tabIndex = 0;
  photo.setAttribute("role", "button");
  photo.addEventListener("click", enlarge);
  photo.addEventListener("keydown", (event) => {
    if (event.key === "Enter" || event.key === " ") {
      event.preventDefault();
      enlarge();
    }
  });
}
