// Makes the table of a board sortable and filterable. Without it the table is all there.
(function () {
  "use strict";
  const table = document.getElementById("rows");
  if (!table || !window.DataTable) return;
  const missing = "–";
  // A cell is a value and, smaller, its interval: only the value counts for sorting.
  function value(cell) {
    const text = (cell.firstChild ? cell.firstChild.textContent : "").trim();
    if (text === missing || text === "") return null;
    const scale = { k: 1e3, M: 1e6, B: 1e9 }[text.slice(-1)] || 1;
    return parseFloat(text) * scale;
  }
  const body = Array.from(table.tBodies[0].rows);
  const count = document.getElementById("count");
  const find = document.getElementById("find");
  const status = document.getElementById("status");
  const kind = document.getElementById("kind");
  const headings = table.tHead.rows[1].cells.length;
  // Missing values stay at the end, whichever way the column is sorted.
  DataTable.ext.type.order["measure-asc"] = (a, b) =>
    a === b ? 0 : a === null ? 1 : b === null ? -1 : a - b;
  DataTable.ext.type.order["measure-desc"] = (a, b) =>
    a === b ? 0 : a === null ? 1 : b === null ? -1 : b - a;
  const numeric = [];
  for (let i = 0; i < headings; i++) if (i === 0 || i > 2) numeric.push(i);
  const data = new DataTable(table, {
    autoWidth: false,
    order: [],
    orderMulti: false,
    orderClasses: false,
    layout: { topStart: null, topEnd: null, bottomStart: null, bottomEnd: body.length > 100 ? "paging" : null },
    paging: body.length > 100,
    pageLength: 100,
    columnDefs: [
      {
        targets: numeric,
        type: "measure",
        render: function (text, type, row, place) {
          return type === "sort" || type === "type" ? value(body[place.row].cells[place.col]) : text;
        },
      },
      {
        targets: [1],
        render: function (text, type, row, place) {
          return type === "sort" ? body[place.row].cells[1].querySelector("a").textContent : text;
        },
      },
    ],
    language: { paginate: { first: "First", previous: "Previous", next: "Next", last: "Last" } },
  });
  function wanted(row) {
    if (kind.value === "control") return row.classList.contains("control");
    if (kind.value === "unranked") return row.classList.contains("unranked");
    if (kind.value === "ranked") return row.className === "" || !/control|unranked/.test(row.className);
    if (kind.value === "pareto") return row.cells[1].querySelector(".pareto") !== null;
    return true;
  }
  data.search.fixed("status", (text, cells, index) =>
    !status.value || body[index].cells[2].textContent.trim() === status.value);
  data.search.fixed("kind", (text, cells, index) => wanted(body[index]));
  function say() {
    const shown = data.rows({ search: "applied" }).count();
    count.textContent = shown === body.length ? shown + " rows" : shown + " of " + body.length + " rows";
  }
  find.addEventListener("input", () => data.search(find.value).draw());
  status.addEventListener("change", () => data.draw());
  kind.addEventListener("change", () => data.draw());
  data.on("draw", say);
  say();
  for (const part of document.querySelectorAll(".js-tools, .sorting")) part.hidden = false;
})();
