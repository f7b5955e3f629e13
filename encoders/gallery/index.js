// Filters and sorts the rows of the overview. `data-v` holds what a cell is sorted by: a number, or text.
const filter = document.getElementById("filter"), count = document.getElementById("count"), order = document.getElementById("order");
const rows = Array.from(document.querySelectorAll("tbody tr"));
document.querySelector(".tools").hidden = false;
function show() {
  const words = filter.value.toLowerCase().split(/\s+/).filter(Boolean);
  let shown = 0;
  for (const row of rows) { const text = row.textContent.toLowerCase(); row.hidden = !words.every(w => text.includes(w)); shown += !row.hidden; }
  for (const part of document.querySelectorAll("section")) part.hidden = !part.querySelector("tbody tr:not([hidden])");
  count.textContent = shown + " of " + rows.length;
}
function sort(table, column, down) {
  const key = row => row.cells[column].dataset.v || "", body = table.tBodies[0];
  const compare = (a, b) => { const x = Number(a), y = Number(b); return a !== "" && b !== "" && !isNaN(x) && !isNaN(y) ? x - y : a.localeCompare(b); };
  const sorted = Array.from(body.rows).sort((a, b) => (key(a) === "") - (key(b) === "") || (down ? -1 : 1) * compare(key(a), key(b)));
  for (const row of sorted) body.append(row);
  for (const head of table.tHead.rows[0].cells) head.removeAttribute("aria-sort");
  table.tHead.rows[0].cells[column].setAttribute("aria-sort", down ? "descending" : "ascending");
}
for (const table of document.querySelectorAll("table")) Array.from(table.tHead.rows[0].cells).forEach((head, i) =>
  head.querySelector("button")?.addEventListener("click", () => sort(table, i, head.getAttribute("aria-sort") === "ascending")));
filter.addEventListener("input", show);
order.addEventListener("change", () => { for (const table of document.querySelectorAll("table")) sort(table, Number(order.value[0]), order.value.endsWith("d")); });
function open() { const row = location.hash && document.getElementById(decodeURIComponent(location.hash.slice(1))); const more = row && row.querySelector("details"); if (more) more.open = true; }
addEventListener("hashchange", open); show(); open();
