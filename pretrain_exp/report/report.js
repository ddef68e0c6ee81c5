"use strict";
// Sorting: a click on a column's head orders the rows by it, a second click the other way round.
for (const table of document.querySelectorAll("table.sortable")) {
  const heads = [...table.tHead.rows[0].cells];
  heads.forEach((head, column) => {
    const button = head.querySelector("button");
    if (!button) return;
    button.addEventListener("click", () => {
      const down = head.getAttribute("aria-sort") === "ascending";
      heads.forEach((other) => other.removeAttribute("aria-sort"));
      head.setAttribute("aria-sort", down ? "descending" : "ascending");
      const value = (row) => row.cells[column].dataset.sort;
      const compare = (a, b) => {
        const [x, y] = [Number(value(a)), Number(value(b))];
        const order = Number.isNaN(x) || Number.isNaN(y) ? value(a).localeCompare(value(b)) : x === y ? 0 : x - y;
        return down ? -order : order;
      };
      table.tBodies[0].append(...[...table.tBodies[0].rows].sort(compare));
    });
  });
}
// On paper the examples are unfolded; the minor comparisons stay folded, they are in effects.csv.
addEventListener("beforeprint", () => document.querySelectorAll("details.paper").forEach((d) => { d.open = true; }));
