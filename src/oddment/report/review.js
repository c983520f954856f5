"use strict";

// The reader's own verdicts on a report's images. Nothing here touches the page: what is marked and where it is kept,
// and the two files that carry it on, review.csv and clean.txt. `oddment.reviewing` reads them.
const Review = (() => {
  const VERDICTS = ["keep", "anomaly", "unsure"];
  const LETTERS = { "": ".", keep: "k", anomaly: "a", unsure: "u" };
  const WORDS = Object.fromEntries(Object.entries(LETTERS).map(([verdict, letter]) => [letter, verdict]));

  /** The name as Oddment's tables write it: what UTF-8 cannot carry as an escape. */
  const written = (name) => name.replace(/[\ud800-\udfff]/gu, (half) => `\\u${half.charCodeAt(0).toString(16)}`);
  const plain = (path) => path.replace(/^(\.\/+)+/, "");

  // --- marks -------------------------------------------------------------------------------------------------

  /** Marks on the images of one report, kept under its key as far as the browser allows. */
  class Marks {
    constructor(names, key) {
      this.key = key;
      this.kept = true;
      this.exported = true;
      this.past = [];
      this.marks = new Array(names.length).fill("");
      // An image that was named twice has two rows and one mark.
      this.rows = new Map();
      names.forEach((name, item) => {
        const path = plain(written(name));
        if (this.rows.has(path)) this.rows.get(path).push(item);
        else this.rows.set(path, [item]);
      });
      this.twins = new Map([...this.rows.values()].filter((items) => items.length > 1).flatMap((items) => items.map((item) => [item, items])));
      this.probe();
      this.load();
    }

    of(item) { return this.marks[item] || ""; }

    counts() {
      const counts = { any: this.marks.length, unmarked: 0, keep: 0, anomaly: 0, unsure: 0 };
      for (const mark of this.marks) counts[mark || "unmarked"] += 1;
      return counts;
    }

    /** Set marks, [[item, verdict], …], as one step that `undo` takes back; returns how many images changed. */
    set(changes) {
      const before = [];
      for (const [named, verdict] of changes) {
        for (const item of this.twins.get(named) || [named]) {
          if (this.marks[item] === verdict) continue;
          before.push([item, this.marks[item]]);
          this.marks[item] = verdict;
        }
      }
      if (before.length) {
        this.past.push(before);
        this.save();
      }
      return before.length;
    }

    clear() { return this.set(this.marks.map((_, item) => [item, ""])); }

    /** Take the last step back; returns its first image, or null where there is none. */
    undo() {
      const before = this.past.pop();
      if (!before) return null;
      for (const [item, mark] of before.reverse()) this.marks[item] = mark;
      this.save();
      return before[before.length - 1][0];
    }

    /** Whether the browser keeps anything shows when something is written; elsewhere, lest other windows take it for news. */
    probe() {
      try {
        localStorage.setItem("oddment.probe", "1");
        localStorage.removeItem("oddment.probe");
      } catch {
        this.kept = false;
      }
    }

    load() {
      try {
        const text = localStorage.getItem(this.key);
        this.marks = this.marks.map((_, item) => (text && WORDS[text[item]]) || "");
      } catch {
        this.kept = false;
      }
    }

    save() {
      this.exported = false;
      try {
        if (this.marks.some((mark) => mark)) localStorage.setItem(this.key, this.marks.map((mark) => LETTERS[mark]).join(""));
        else localStorage.removeItem(this.key);
        this.kept = true;
      } catch {
        this.kept = false;
      }
    }
  }

  // --- files -------------------------------------------------------------------------------------------------

  // A spreadsheet takes a cell that begins so for a formula. With "./" in front it is the same path, and text.
  const cell = (path) => (/^\s*[=+\-@\uff0b\uff0d\uff1d\uff20]|^[\t\r\n]/.test(path) ? `./${path}` : path);
  const quoted = (text) => `"${text.replaceAll('"', '""')}"`;

  /** review.csv: RFC 4180, a row for each image, in the order of the report. */
  function table(rows, hashes) {
    const lines = [["path", ...(hashes ? ["sha256"] : []), "score", "is_anomaly", "verdict"].join(",")];
    rows.forEach(({ name, score, selected, mark }, item) => {
      lines.push([quoted(cell(written(name))), ...(hashes ? [hashes[item] || ""] : []), score, selected, mark].join(","));
    });
    return `${lines.join("\r\n")}\r\n`;
  }

  /** Whether an image is left out of clean.txt: a mark decides; without one, or unsure, what the report selected. */
  const leavesOut = (mark, selected) => mark === "anomaly" || (selected && mark !== "keep");

  /** clean.txt: a path a line. A path that holds a line break cannot stand there. */
  function clean(rows) {
    const paths = rows.filter(({ selected, mark }) => !leavesOut(mark, selected)).map(({ name }) => written(name));
    const lines = [...new Set(paths)].filter((path) => !/[\r\n]/.test(path));
    return { text: lines.map((path) => `${path}\n`).join(""), count: lines.length, broken: paths.filter((path) => /[\r\n]/.test(path)).length };
  }

  /** The rows of a CSV file as [line number, cells]; the separator is the one that the header line uses. */
  function* csvRows(text) {
    const header = text.split(/\r|\n/, 1)[0];
    const separator = [",", ";", "\t"].find((mark) => header.includes(mark)) || ",";
    let [line, start, cells, field, inside] = [1, 1, [], "", false];
    for (let at = 0; at <= text.length; at += 1) {
      const char = text[at];
      if (char === "\n" || (char === "\r" && text[at + 1] !== "\n")) line += 1;
      if (inside) {
        if (char === undefined) throw new Error(`line ${start}: a quotation mark is not closed`);
        if (char !== '"') field += char;
        else if (text[at + 1] === '"') { field += char; at += 1; }
        else inside = false;
      } else if (char === '"' && !field) inside = true;
      else if (char === separator) { cells.push(field); field = ""; }
      else if (char === "\n" || char === "\r" || char === undefined) {
        if (char === "\r" && text[at + 1] === "\n") { at += 1; line += 1; }
        cells.push(field);
        if (cells.length > 1 || cells[0].trim()) yield [start, cells];
        [start, cells, field] = [line, [], ""];
      } else field += char;
    }
  }

  /** The marks in a review.csv, path → verdict, those without one left out. Throws what is wrong, in words. */
  function parse(text) {
    const rows = [...csvRows(text.replace(/^\ufeff/, ""))];
    const header = rows.length ? rows[0][1].map((name) => name.trim().toLowerCase()) : [];
    const [path, verdict] = ["path", "verdict"].map((name) => header.indexOf(name));
    if (path < 0 || verdict < 0) throw new Error("line 1 must name the columns path and verdict. Choose a review.csv that a report has written");
    const found = new Map();
    for (const [line, cells] of rows.slice(1)) {
      const mark = (cells[verdict] || "").trim().toLowerCase();
      const name = plain(cells[path] || "");
      if (mark && !VERDICTS.includes(mark)) throw new Error(`line ${line}: the verdict must be keep, anomaly, unsure or empty; got "${mark.slice(0, 40)}"`);
      if (!mark) continue;
      const other = found.get(name);
      if (other && other.mark !== mark) throw new Error(`line ${line}: ${mark}, but line ${other.line} says ${other.mark} of the same path. Delete one of them`);
      if (!other) found.set(name, { mark, line });
    }
    return new Map([...found].map(([name, { mark }]) => [name, mark]));
  }

  return { VERDICTS, Marks, table, clean, parse, leavesOut };
})();
