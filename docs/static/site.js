// Tables sort by a click on a heading, long ones filter by a word, wide ones scroll by themselves.
"use strict";

const NUMBER = /^[+-]?(\d+\.?\d*|\.\d+)(e[+-]?\d+)?/i;

function value(row, column) {
  const text = row.cells[column].textContent.trim();
  const match = text.replace("−", "-").match(NUMBER);
  return { text, number: match ? Number(match[0]) : text === "inf" ? Infinity : NaN };
}

function sort(table, column, ascending) {
  const body = table.tBodies[0];
  const rows = [...body.rows].map((row) => ({ row, ...value(row, column) }));
  const missing = ({ text }) => text === "-" || text === "";
  const numeric = rows.every((r) => missing(r) || !Number.isNaN(r.number));
  rows.sort((a, b) => {
    if (missing(a) || missing(b)) return missing(a) - missing(b); // last, whichever way
    const order = numeric ? a.number - b.number : a.text.localeCompare(b.text, "en", { numeric: true });
    return ascending ? order : -order;
  });
  body.append(...rows.map(({ row }) => row));
}

function sortable(table) {
  const headings = [...table.tHead.rows[0].cells];
  headings.forEach((heading, column) => {
    if (!heading.textContent.trim()) return;
    const button = document.createElement("button");
    button.type = "button";
    button.append(...heading.childNodes);
    heading.append(button);
    button.addEventListener("click", () => {
      const ascending = heading.getAttribute("aria-sort") !== "ascending";
      headings.forEach((other) => other.removeAttribute("aria-sort"));
      heading.setAttribute("aria-sort", ascending ? "ascending" : "descending");
      sort(table, column, ascending);
    });
  });
}

function filterable(table, place) {
  const label = document.createElement("label");
  const input = document.createElement("input");
  label.className = "filter";
  input.type = "search";
  label.append("Rows with ", input);
  input.addEventListener("input", () => {
    const words = input.value.toLowerCase().split(/\s+/);
    for (const row of table.tBodies[0].rows) {
      const text = row.textContent.toLowerCase();
      row.hidden = !words.every((word) => text.includes(word));
    }
  });
  place.before(label);
}

document.addEventListener("DOMContentLoaded", () => {
  document.querySelectorAll(".sidebar-tree .caption[role=heading]").forEach((caption) => caption.setAttribute("aria-level", "2"));
  document.querySelectorAll("article pre").forEach((pre) => (pre.tabIndex = 0)); // so that the keyboard scrolls it
  for (const picture of document.querySelectorAll("article img")) {
    if (picture.closest("a")) continue;
    const link = document.createElement("a"); // a phone shows it whole, and larger when it is touched
    link.href = picture.src;
    picture.replaceWith(link);
    link.append(picture);
  }
  document.querySelectorAll("article table").forEach((table, n) => {
    const outer = table.closest(".table-wrapper") ?? table;
    const scroll = document.createElement("div");
    scroll.className = "scroll";
    outer.replaceWith(scroll);
    scroll.append(outer);
    scroll.tabIndex = 0;
    scroll.setAttribute("role", "region");
    scroll.setAttribute("aria-label", `Table ${n + 1}`);
    const body = table.tBodies[0];
    for (const cell of table.querySelectorAll("td")) {
      const text = cell.textContent.trim();
      cell.classList.remove("text-left");
      if (text.length < 24) cell.classList.add("short");
      if (/^[+-]?[\d.]+(e[+-]?\d+)?$/.test(text)) cell.classList.add("number");
    }
    if (table.tHead?.rows.length !== 1 || table.querySelector("[rowspan], [colspan]") || body?.rows.length < 2) return;
    if ([...body.rows].some((row) => [...row.cells].some((cell) => cell.textContent.length > 60))) table.classList.add("wordy");
    const names = [...table.tHead.rows[0].cells].map((cell) => cell.textContent.trim());
    for (const row of body.rows) {
      [...row.cells].forEach((cell, i) => {
        cell.dataset.label = names[i] ?? "";
      });
    }
    sortable(table);
    if (body.rows.length > 30) filterable(table, scroll);
  });
});
