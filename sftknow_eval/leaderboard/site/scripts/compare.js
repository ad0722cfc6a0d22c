// Compares any two rows of a board. Data comes by script elements, which also load from a disk.
(function () {
  "use strict";
  const boards = JSON.parse(document.getElementById("boards").textContent);
  const by = (id) => document.getElementById(id);
  const [board, first, second, which] = ["board", "first", "second", "which"].map(by);
  const state = by("state");
  const waiting = new Map();
  let arrived = null;
  window.sftknowData = function (kind, value) { arrived = { kind, value }; };

  function load(address) {
    if (!waiting.has(address)) {
      waiting.set(address, new Promise(function (done, failed) {
        const script = document.createElement("script");
        script.src = address;
        // The handler runs right after the script itself: what arrived is this one's.
        script.onload = () => { done(arrived.value); script.remove(); };
        script.onerror = () => { waiting.delete(address); failed(new Error(address + " could not be loaded")); };
        document.head.append(script);
      }));
    }
    return waiting.get(address);
  }
  function options(select, entries, chosen) {
    select.replaceChildren(...entries.map(function ([value, label]) {
      const option = document.createElement("option");
      option.value = value;
      option.textContent = label;
      option.selected = value === chosen;
      return option;
    }));
  }
  // Two-sided exact McNemar: twice the smaller tail of a fair coin, by logarithms.
  function mcnemar(b, c) {
    const n = b + c;
    if (n === 0) return null;
    let log = -n * Math.LN2, tail = Math.exp(log);
    for (let i = 0; i < Math.min(b, c); i++) {
      log += Math.log((n - i) / (i + 1));
      tail += Math.exp(log);
    }
    return Math.min(1, 2 * tail);
  }
  function cell(kind, text, name) {
    const made = document.createElement(kind);
    made.textContent = text;
    if (name) made.className = name;
    return made;
  }
  function hits(row, i) {
    const letter = row.hits[i];
    return letter === "." ? null : row.hits.charCodeAt(i) - 48;
  }
  function right(row, i) { return 2 * hits(row, i) > row.seeds; }
  function p(value) {
    if (value === null) return "–";
    return value < 0.001 ? "< 0.001" : value.toFixed(3);
  }
  function sums(facts, one, two) {
    const groups = new Map();
    const of = function (label) {
      if (!groups.has(label)) groups.set(label, [0, 0, 0, 0]);
      return groups.get(label);
    };
    for (const domain of ["id", "ood"]) {
      if (!facts.some((fact) => fact[2] === domain)) continue;
      for (let s = 0; s < 5; s++) of(domain.toUpperCase() + ", stratum " + s);
      of(domain.toUpperCase() + ", all");
    }
    facts.forEach(function (fact, i) {
      if (hits(one, i) === null || hits(two, i) === null) return;
      const place = right(one, i) ? (right(two, i) ? 0 : 1) : right(two, i) ? 2 : 3;
      const domain = fact[2].toUpperCase();
      of(domain + ", stratum " + fact[1])[place] += 1;
      of(domain + ", all")[place] += 1;
    });
    return [...groups].filter(([, counts]) => counts.some((n) => n > 0));
  }
  function showSums(facts, one, two) {
    by("sums").tBodies[0].replaceChildren(...sums(facts, one, two).map(function ([label, n]) {
      const row = document.createElement("tr");
      const head = cell("th", label);
      head.scope = "row";
      row.append(head, ...n.map((count) => cell("td", String(count), "n")));
      row.append(cell("td", p(mcnemar(n[1], n[2])), "n"));
      return row;
    }));
  }
  const LIMIT = 200;
  function showFacts(facts, one, two) {
    const rows = [];
    let found = 0;
    const order = facts.map((_, i) => i).sort((a, b) => facts[b][1] - facts[a][1] || a - b);
    for (const i of order) {
      if (hits(one, i) === null || hits(two, i) === null) continue;
      const a = right(one, i), b = right(two, i);
      const kind = a ? (b ? "both" : "first") : b ? "second" : "neither";
      if (which.value !== "all" && which.value !== kind && !(which.value === "differ" && a !== b)) continue;
      found += 1;
      if (rows.length >= LIMIT) continue;
      const row = document.createElement("tr");
      row.append(cell("td", facts[i][3]), cell("td", facts[i][4]));
      row.append(cell("td", facts[i][2].toUpperCase()), cell("td", String(facts[i][1])));
      for (const [r, ok] of [[one, a], [two, b]]) {
        const made = cell("td", r.out[i]);
        const note = cell("small", (ok ? "right" : "wrong") + ", " + hits(r, i) + " of " + r.seeds, ok ? "good" : "bad");
        made.append(" ", note);
        row.append(made);
      }
      rows.push(row);
    }
    by("facts").tBodies[0].replaceChildren(...rows);
    state.textContent = found + " facts" + (found > LIMIT ? "; the first " + LIMIT + " are shown" : "");
  }
  async function show() {
    const chosen = boards.find((entry) => entry.slug === board.value);
    const a = chosen.rows.find((row) => row.id === first.value);
    const b = chosen.rows.find((row) => row.id === second.value);
    if (!a || !b) return;
    state.textContent = "Loading.";
    try {
      // One after the other: what arrives is told apart by its turn.
      const facts = await load(chosen.facts);
      const one = await load(a.file);
      const two = await load(b.file);
      if (first.value !== a.id || second.value !== b.id || board.value !== chosen.slug) return;
      by("result-head").textContent = a.title + " and " + b.title;
      by("first-head").textContent = a.title;
      by("second-head").textContent = b.title;
      showSums(facts, one, two);
      showFacts(facts, one, two);
      by("result").hidden = false;
      const address = new URLSearchParams({ board: chosen.slug, a: a.id, b: b.id });
      history.replaceState(null, "", "?" + address);
    } catch (error) {
      by("result").hidden = true;
      state.textContent = "The rows could not be compared: " + error.message + ".";
    }
  }
  function fill(a, b) {
    const rows = boards.find((entry) => entry.slug === board.value).rows;
    const names = rows.map((row) => [row.id, row.title + " (" + row.id + ")"]);
    options(first, names, rows.some((row) => row.id === a) ? a : rows[0].id);
    const other = rows.find((row) => row.id !== first.value) || rows[0];
    options(second, names, rows.some((row) => row.id === b) ? b : other.id);
  }
  if (!boards.length) return;
  const asked = new URLSearchParams(location.search);
  const start = boards.find((entry) => entry.slug === asked.get("board")) || boards[0];
  options(board, boards.map((entry) => [entry.slug, entry.label]), start.slug);
  fill(asked.get("a"), asked.get("b"));
  board.addEventListener("change", function () { fill(null, null); show(); });
  for (const select of [first, second, which]) select.addEventListener("change", show);
  by("no-choice").remove();
  by("chooser").hidden = false;
  show();
})();
