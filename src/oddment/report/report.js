// One search's report. Everything is read from two data blocks of this file: #data (columns as JSON) and #pictures
// (base64 of all pictures end to end, cut out when a card comes into view). Nothing is ever fetched.
(() => {
  const byId = (id) => document.getElementById(id);
  const all = (selector) => [...document.querySelectorAll(selector)];

  // --- data --------------------------------------------------------------------------------------------------

  const unpack = (text, Type) => new Type(Uint8Array.from(atob(text), (char) => char.charCodeAt(0)).buffer);

  const data = JSON.parse(byId("data").textContent);
  const scored = data.scored;
  const nListed = scored.names.length;
  const scores = unpack(scored.scores, Float64Array);
  const pValues = unpack(scored.pValues, Float64Array);
  const ranks = unpack(scored.ranks, Uint32Array);
  const sizes = unpack(scored.sizes, Uint32Array);
  const nRegions = unpack(scored.nRegions, Uint32Array);
  const selected = unpack(scored.selected, Uint8Array);
  const modelThreshold = unpack(data.threshold, Float64Array)[0];
  const calibration = unpack(data.calibration, Float32Array);
  const others = unpack(data.others, Float32Array);
  const listedSorted = Float64Array.from(scores).sort();
  const pictures = locatePictures();

  // An item is a number: 0 … nListed - 1 are the scored images, the rejected files follow.
  const nItems = nListed + data.rejected.length;
  const isRejected = (item) => item >= nListed;
  const rejection = (item) => data.rejected[item - nListed];
  const nameOf = (item) => (isRejected(item) ? rejection(item)[0] : scored.names[item]);
  const sizeOf = (item) => (isRejected(item) ? rejection(item)[2] || [0, 0] : [sizes[2 * item], sizes[2 * item + 1]]);
  const regionsOf = (item) => scored.regions[item] || [];

  const state = { threshold: modelThreshold, filter: "all", marked: "any", sort: "rank", query: "", view: "gallery", log: false };
  const marks = new Review.Marks(scored.names, data.key);
  const verdictOf = (item) =>
    isRejected(item) ? "rejected" : scores[item] > state.threshold ? "anomaly" : "normal";
  // A selection from the whole batch (--fdr) has a threshold of its own: in its place stands the lowest that it took.
  const owner = data.fdr === null ? "the model's" : "the selection's";
  const aboveAre = data.fdr === null ? "anomalies" : "selected";
  const isModelThreshold = () => state.threshold === modelThreshold;

  function locatePictures() {
    const found = new Map();
    let start = 0;
    for (const [item, width, height, ...lengths] of data.pictures) {
      found.set(item, { width, height, start, lengths });
      start += lengths[0] + lengths[1] + lengths[2];
    }
    return found;
  }

  let pictureText = null;

  function pictureSource(item, which) {
    const entry = pictures.get(item);
    if (!entry || !entry.lengths[which]) return null;
    if (pictureText === null) pictureText = byId("pictures").textContent;
    const start = entry.start + entry.lengths.slice(0, which).reduce((sum, length) => sum + length, 0);
    const text = pictureText.slice(start, start + entry.lengths[which]);
    return `data:image/${text.startsWith("/9j/") ? "jpeg" : "webp"};base64,${text}`;
  }

  // --- numbers and words -------------------------------------------------------------------------------------

  const count = (number) => Math.round(number).toLocaleString("en-US");
  const plural = (number, one, many) => `${count(number)} ${Math.round(number) === 1 ? one : many}`;

  function significant(number, digits = 4) {
    if (!Number.isFinite(number)) return number > 0 ? "∞" : "–";
    const size = Math.abs(number);
    if (size !== 0 && (size < 1e-4 || size >= 1e7)) return number.toExponential(digits - 2).replace("-", "−");
    return String(Number(number.toPrecision(digits)));
  }

  const percent = (share) => `${significant(100 * share, 3)} %`;
  const dimensions = ([width, height]) => (width ? `${width} × ${height}` : "–");
  const VERDICTS = { anomaly: "Anomaly", normal: "Normal", rejected: "Rejected" };

  // Control characters would vanish or break the line: show their pictures instead.
  // Direction marks can make "exe.png" of "gnp.exe": name them.
  const visible = (text) => text
    .replace(/[\u0000-\u001f]/g, (char) => String.fromCharCode(0x2400 + char.charCodeAt(0)))
    .replace(/[\u200e\u200f\u202a-\u202e\u2066-\u2069]/g, (char) => `[U+${char.charCodeAt(0).toString(16).toUpperCase()}]`);

  function splitName(path) {
    const text = visible(path);
    const cut = Math.max(text.lastIndexOf("/"), text.lastIndexOf("\\")) + 1;
    return cut < text.length ? [text.slice(0, cut), text.slice(cut)] : ["", text];
  }

  /** How many of an ascending array lie strictly above the value. */
  function above(ascending, value) {
    let low = 0;
    let high = ascending.length;
    while (low < high) {
      const middle = (low + high) >> 1;
      if (ascending[middle] > value) high = middle;
      else low = middle + 1;
    }
    return ascending.length - low;
  }

  const otherWeight = others.length ? data.nOthers / others.length : 0;
  const otherAnomalies = (threshold) => Math.round(otherWeight * above(others, threshold));

  function countAnomalies(threshold) {
    if (threshold === modelThreshold) return data.nAnomalies;
    return above(listedSorted, threshold) + otherAnomalies(threshold);
  }

  function element(tag, className, ...children) {
    const node = document.createElement(tag);
    if (className) node.className = className;
    node.append(...children);
    return node;
  }

  function svg(tag, attributes, ...children) {
    const node = document.createElementNS("http://www.w3.org/2000/svg", tag);
    for (const [key, value] of Object.entries(attributes)) node.setAttribute(key, value);
    node.append(...children);
    return node;
  }

  // --- score axis --------------------------------------------------------------------------------------------

  const range = scoreRange();
  state.log = range.low > 0 && range.high / range.middle > 6;

  function scoreRange() {
    const ends = [calibration, others, listedSorted].filter((values) => values.length);
    const finite = ends.flatMap((values) => [values[0], values[values.length - 1]]).filter(Number.isFinite);
    if (Number.isFinite(modelThreshold)) finite.push(modelThreshold);
    const low = finite.length ? Math.min(...finite) : 0;
    const high = finite.length ? Math.max(...finite) : 1;
    const reference = ends.length ? ends[0][ends[0].length >> 1] : high;
    return { low, high: high > low ? high : low + Math.max(Math.abs(low), 1) * 0.1, middle: reference };
  }

  /** The axis in use: `to` maps a score to 0 … 1, `from` maps back. */
  function makeAxis() {
    const bend = state.log ? Math.log : (value) => value;
    const unbend = state.log ? Math.exp : (value) => value;
    const pad = 0.02 * (bend(range.high) - bend(range.low));
    const low = bend(range.low) - pad;
    const high = bend(range.high) + pad;
    return {
      low: unbend(low),
      high: unbend(high),
      to: (value) => Math.min(1, Math.max(0, (bend(value) - low) / (high - low))),
      from: (share) => unbend(low + share * (high - low)),
    };
  }

  let axis = makeAxis();

  function ticks(most) {
    if (state.log && axis.high / axis.low > 8) {
      for (const steps of [[1, 2, 5], [1, 3], [1]]) {
        const found = logTicks(steps);
        if (found.length <= most + 2) return found;
      }
    }
    return linearTicks(axis.low, axis.high, most);
  }

  function logTicks(steps) {
    const found = [];
    for (let power = Math.floor(Math.log10(axis.low)); power <= Math.log10(axis.high); power += 1) {
      for (const step of steps) found.push(Number(`${step}e${power}`));
    }
    return found.filter((value) => value >= axis.low && value <= axis.high);
  }

  function linearTicks(low, high, most) {
    const rough = (high - low) / most;
    const power = 10 ** Math.floor(Math.log10(rough));
    const step = power * [1, 2, 5, 10].find((factor) => factor * power >= rough);
    const found = [];
    for (let index = Math.ceil(low / step); index * step <= high; index += 1) found.push(Number((index * step).toPrecision(10)));
    return found;
  }

  /** A threshold as round as one step of the slider allows, so that what is shown is what is compared. */
  function roundThreshold(share) {
    const value = axis.from(share);
    const step = Math.abs(axis.from(share + 0.0005) - axis.from(share - 0.0005));
    const decimals = Math.min(20, Math.max(0, Math.ceil(-Math.log10(step || 1))));
    return Number(value.toFixed(decimals));
  }

  // --- histogram ---------------------------------------------------------------------------------------------

  const chart = { line: null, modelLine: null, label: null, clip: null, width: 0, left: 52, right: 14 };
  const chartX = (value) => chart.left + axis.to(value) * (chart.width - chart.left - chart.right);

  /** Bins are laid so that one begins at the model's threshold: no bar is half normal, half anomaly. */
  function binCounts(weighted, nBins) {
    const bins = new Float64Array(nBins + 1);
    const shift = binShift(nBins);
    for (const [values, weight] of weighted) {
      for (const value of values) {
        if (Number.isFinite(value)) bins[Math.min(nBins, Math.floor(axis.to(value) * nBins + shift))] += weight;
      }
    }
    return bins;
  }

  const binShift = (nBins) => 1 - ((axis.to(modelThreshold) * nBins) % 1);

  function drawHistogram() {
    const host = byId("histogram");
    chart.width = host.clientWidth;
    if (!chart.width) return;
    const panelHeight = chart.width < 520 ? 96 : 144;
    const [top, between, bottom] = [42, 40, 46];
    const height = top + 2 * panelHeight + between + bottom;
    const nBins = Math.max(24, Math.min(96, Math.round((chart.width - chart.left - chart.right) / 9)));
    const secondTop = top + panelHeight + between;
    const picture = svg("svg", { viewBox: `0 0 ${chart.width} ${height}`, height, role: "img", "aria-label": describe() });
    picture.append(definitions(height));
    const calibrationBins = binCounts([[calibration, calibration.length ? data.nCalibration / calibration.length : 0]], nBins);
    const newBins = binCounts([[scores, 1], [others, otherWeight]], nBins);
    const names = [
      drawPanel(picture, calibrationBins, top, panelHeight, data.audit ? "Expected" : "Calibration",
        data.audit ? "if all were ordinary" : plural(data.nCalibration, "normal image", "normal images"), ["calibration"]),
      drawPanel(picture, newBins, secondTop, panelHeight, data.audit ? "This folder" : "This search", plural(data.nScored, "image", "images"), ["below", "above"]),
    ];
    drawScoreAxis(picture, secondTop + panelHeight);
    drawThreshold(picture, top - 26, secondTop + panelHeight);
    // Last, so that the halo of the names keeps the threshold line out of them.
    picture.append(...names);
    host.replaceChildren(picture);
    moveThresholdLine();
  }

  function definitions(height) {
    const hatch = svg("pattern", { id: "hatch", width: 5, height: 5, patternUnits: "userSpaceOnUse", patternTransform: "rotate(45)" });
    hatch.append(svg("rect", { width: 5, height: 5 }), svg("path", { d: "M0 0V5", "stroke-width": 5 }));
    chart.clip = svg("rect", { x: 0, y: 0, width: chart.width, height });
    return svg("defs", {}, hatch, svg("clipPath", { id: "above-threshold" }, chart.clip));
  }

  function drawPanel(picture, bins, top, height, title, subtitle, kinds) {
    const most = Math.max(1, ...bins);
    const width = (chart.width - chart.left - chart.right) / (bins.length - 1);
    const shift = binShift(bins.length - 1);
    const base = top + height;
    for (const value of linearTicks(0, most, 3).filter(Number.isInteger)) {
      const y = base - (value / most) * height;
      if (value) picture.append(svg("line", { class: "grid-line", x1: chart.left, x2: chart.width - chart.right, y1: y, y2: y }));
      picture.append(svg("text", { x: chart.left - 8, y: y + 4, "text-anchor": "end" }, count(value)));
    }
    const name = svg("text", { class: "panel-name", x: chart.width - chart.right, y: top - 9, "text-anchor": "end" }, title);
    name.append(svg("tspan", { dx: 6 }, subtitle));
    let path = "";
    bins.forEach((value, bin) => {
      // A single odd image must show among thousands: no bar is lower than 3 pixels.
      const bar = value ? Math.max(3, (value / most) * height) : 0;
      const left = chart.left + (bin - shift) * width + 0.5;
      if (bar) path += `M${left.toFixed(2)} ${base}v${(-bar).toFixed(1)}h${Math.max(1, width - 1).toFixed(2)}v${bar.toFixed(1)}z`;
    });
    for (const kind of kinds) {
      const bars = svg("path", { class: `bar ${kind}`, d: path });
      if (kind === "above") bars.setAttribute("clip-path", "url(#above-threshold)");
      picture.append(bars);
    }
    picture.append(svg("line", { class: "base", x1: chart.left, x2: chart.width - chart.right, y1: base, y2: base }));
    return name;
  }

  function drawScoreAxis(picture, base) {
    for (const value of ticks(Math.max(3, Math.floor(chart.width / 110)))) {
      const x = chartX(value);
      picture.append(svg("line", { class: "base", x1: x, x2: x, y1: base, y2: base + 4 }));
      picture.append(svg("text", { x, y: base + 18, "text-anchor": "middle" }, significant(value, 3)));
    }
    const title = `Anomaly score${state.log ? ", log scale" : ""} → odder`;
    picture.append(svg("text", { x: (chart.width + chart.left - chart.right) / 2, y: base + 38, "text-anchor": "middle" }, title));
    const middle = base - (chart.width < 520 ? 110 : 160);
    picture.append(svg("text", { x: 12, y: middle, transform: `rotate(-90 12 ${middle})`, "text-anchor": "middle" }, "Images per bin"));
  }

  function drawThreshold(picture, top, base) {
    if (Number.isFinite(modelThreshold)) {
      const x = chartX(modelThreshold);
      chart.modelLine = svg("line", { class: "model-threshold", x1: x, x2: x, y1: top + 6, y2: base });
      picture.append(chart.modelLine);
    }
    chart.line = svg("line", { class: "threshold", y1: top + 6, y2: base });
    chart.label = svg("text", { class: "threshold-label", y: top - 2 });
    picture.append(chart.line, chart.label);
  }

  function moveThresholdLine() {
    if (!chart.line) return;
    const x = chartX(state.threshold);
    chart.line.setAttribute("x1", x);
    chart.line.setAttribute("x2", x);
    chart.clip.setAttribute("x", x);
    if (chart.modelLine) chart.modelLine.style.visibility = isModelThreshold() ? "hidden" : "visible";
    const side = x < 110 ? "start" : x > chart.width - 110 ? "end" : "middle";
    chart.label.setAttribute("text-anchor", side);
    chart.label.setAttribute("x", x);
    chart.label.textContent = `Threshold ${significant(state.threshold)}`;
  }

  function describe() {
    const first = data.audit ? "what is expected of ordinary images" : plural(data.nCalibration, "calibration image", "calibration images");
    return `Two histograms over the anomaly score: ${first} ` +
      `and ${plural(data.nScored, "image", "images")} of this search, of which ${count(countAnomalies(state.threshold))} ` +
      `lie above the threshold ${significant(state.threshold)}.`;
  }

  function dragThreshold(event) {
    if (event.buttons !== 1) return;
    const box = byId("histogram").getBoundingClientRect();
    const share = (event.clientX - box.left - chart.left) / (chart.width - chart.left - chart.right);
    setThreshold(roundThreshold(Math.min(1, Math.max(0, share))));
  }

  // --- threshold ---------------------------------------------------------------------------------------------

  let pending = 0;

  function setThreshold(value) {
    state.threshold = value;
    // A slider fires faster than the screen draws: one redraw a frame is enough.
    if (!pending) pending = requestAnimationFrame(() => { pending = 0; showThreshold(); });
  }

  function showThreshold() {
    const anomalies = countAnomalies(state.threshold);
    const own = isModelThreshold();
    byId("slider").value = Math.round(1000 * axis.to(state.threshold));
    byId("slider").setAttribute("aria-valuetext", `${significant(state.threshold)}, ${plural(anomalies, "anomaly", "anomalies")}`);
    byId("threshold").value = Number.isFinite(state.threshold) ? String(Number(state.threshold.toPrecision(6))) : "∞";
    byId("threshold").removeAttribute("aria-invalid");
    showEstimates(anomalies);
    byId("live-hint").hidden = !own;
    byId("permanent").hidden = own;
    byId("command").textContent = data.recompute.replace("{threshold}", String(state.threshold));
    byId("n-anomalies").textContent = count(anomalies);
    byId("n-anomalies").classList.toggle("none", anomalies === 0);
    byId("n-anomalies-note").textContent = summaryNote(anomalies, own);
    byId("summary-threshold").textContent = significant(state.threshold);
    byId("summary-threshold-note").textContent = own ? `scores above it are ${aboveAre}` : `changed here; ${owner} is ${significant(modelThreshold)}`;
    moveThresholdLine();
    refreshView();
    announce(`${plural(anomalies, "anomaly", "anomalies")} above the threshold ${significant(state.threshold)}`);
  }

  function summaryNote(anomalies, own) {
    if (!data.nScored) return "no image could be scored";
    return own ? `${percent(anomalies / data.nScored)} of the images scored` : `at your threshold; ${count(data.nAnomalies)} at ${owner}`;
  }

  function showEstimates(anomalies) {
    byId("live-anomalies").replaceChildren(count(anomalies), element("small", "", `of ${count(data.nScored)} images`));
    if (!calibration.length || !data.nScored) {
      byId("live-fpr").textContent = byId("live-expected").textContent = "–";
      return;
    }
    const share = above(calibration, state.threshold) / calibration.length;
    const flagged = Math.round(share * data.nCalibration);
    const basis = data.audit ? "as far as their bulk tells" : `${count(flagged)} of ${count(data.nCalibration)}`;
    byId("live-fpr").replaceChildren(percent(share), element("small", "", basis));
    const expected = share * data.nScored;
    const words = expected === 0 ? "none seen" : expected < 1 ? "fewer than 1" : `about ${count(expected)}`;
    byId("live-expected").replaceChildren(words, element("small", "", data.audit ? "if all were ordinary" : "if all images were normal"));
  }

  let announcement = 0;
  let lastSaid = null;

  function announce(text) {
    clearTimeout(announcement);
    announcement = setTimeout(() => {
      if (lastSaid !== null && lastSaid !== text) byId("live").textContent = text;
      lastSaid = text;
    }, 400);
  }

  function typeThreshold() {
    const field = byId("threshold");
    const value = Number(field.value.trim().replace(",", "."));
    if (field.value.trim() === "" || !Number.isFinite(value)) field.setAttribute("aria-invalid", "true");
    else setThreshold(value);
  }

  async function copyCommand() {
    const text = byId("command").textContent;
    try {
      await navigator.clipboard.writeText(text);
      byId("copy").textContent = "Copied";
    } catch {
      // No clipboard for this page: select the text, so that one key copies it.
      getSelection().selectAllChildren(byId("command"));
      byId("copy").textContent = "Selected";
    }
    setTimeout(() => { byId("copy").textContent = "Copy"; }, 1600);
  }

  // --- which items, in which order ---------------------------------------------------------------------------

  const orders = new Map();
  const lowerNames = [];
  let shownItems = [];

  function orderBy(sort) {
    if (orders.has(sort)) return orders.get(sort);
    const items = Array.from({ length: nItems }, (_, item) => item);
    const collator = new Intl.Collator("en", { numeric: true });
    const area = (item) => sizeOf(item)[0] * sizeOf(item)[1];
    const keys = {
      rank: (a, b) => ranks[a] - ranks[b],
      lowest: (a, b) => scores[a] - scores[b],
      p: (a, b) => pValues[a] - pValues[b] || ranks[a] - ranks[b],
      name: (a, b) => collator.compare(nameOf(a), nameOf(b)),
      size: (a, b) => area(b) - area(a) || ranks[a] - ranks[b],
    };
    const mixed = sort === "name" || sort === "size";
    const last = (a, b) => (mixed ? 0 : isRejected(a) - isRejected(b));
    items.sort((a, b) => last(a, b) || keys[sort](a, b) || a - b);
    orders.set(sort, items);
    return items;
  }

  function matches(item) {
    if (state.filter !== "all") {
      const verdict = verdictOf(item);
      if (verdict !== (state.filter === "anomalies" ? "anomaly" : state.filter)) return false;
    }
    if (state.marked !== "any" && (isRejected(item) || (marks.of(item) || "unmarked") !== state.marked)) return false;
    if (!state.query) return true;
    if (lowerNames[item] === undefined) lowerNames[item] = nameOf(item).toLowerCase();
    return lowerNames[item].includes(state.query);
  }

  function refreshView() {
    shownItems = orderBy(state.sort).filter(matches);
    active = Math.max(0, Math.min(active, shownItems.length - 1));
    showCounts();
    layoutItems();
  }

  function showCounts() {
    const anomalies = above(listedSorted, state.threshold);
    const numbers = { all: nItems, anomalies, normal: nListed - anomalies, rejected: data.rejected.length };
    for (const button of all("[data-filter]")) button.querySelector("span").textContent = count(numbers[button.dataset.filter]);
    byId("shown").textContent = `Showing ${count(shownItems.length)} of ${plural(nItems, "file", "files")}`;
    showMarkCounts();
    const empty = byId("empty");
    empty.hidden = shownItems.length > 0;
    if (!empty.hidden) empty.replaceChildren(...emptyMessage());
  }

  function emptyMessage() {
    if (!nItems) return [element("strong", "", "No files were searched.")];
    if (state.marked !== "any" && !state.query) {
      const what = state.marked === "unmarked" ? "Every image here is marked." : `No image here is marked ${state.marked}.`;
      return [element("strong", "", what), "Choose “Any mark” to see the others."];
    }
    if (state.filter === "anomalies" && !state.query) return [element("strong", "", "No anomalies."), "No score lies above the threshold."];
    if (state.filter === "rejected" && !state.query) return [element("strong", "", "No rejected files."), "Every file could be used."];
    if (state.filter === "normal" && !state.query) return [element("strong", "", "No normal images.")];
    const button = element("button", "", "Clear the search");
    button.type = "button";
    button.addEventListener("click", () => { byId("search").value = ""; state.query = ""; refreshView(); byId("search").focus(); });
    return [element("strong", "", "No file of this kind has that in its name."), button];
  }

  // --- cards and rows, only those in view --------------------------------------------------------------------

  const list = byId("items");
  const alive = new Map();
  const grid = { columns: 1, width: 0, rowHeight: 1, gap: 0, height: 0 };
  let active = 0;
  let printing = false;

  function layoutItems() {
    const width = list.clientWidth;
    if (!width) return;
    if (state.view === "list") {
      Object.assign(grid, { columns: 1, width, gap: 0, height: width < 780 ? 68 : 56 });
    } else {
      const gap = width < 620 ? 12 : 16;
      const columns = Math.max(1, Math.floor((width + gap) / (316 + gap)));
      const cardWidth = (width - gap * (columns - 1)) / columns;
      // Frame, three square thumbs, their labels, four lines of text and the marks: known heights make scrolling exact.
      Object.assign(grid, { columns, width: cardWidth, gap, height: Math.ceil(22 + (cardWidth - 34) / 3 + 18 + 4 + 22 + 18 + 2 * 24 + 40) });
    }
    grid.rowHeight = grid.height + grid.gap;
    const rows = Math.ceil(shownItems.length / grid.columns);
    list.style.height = `${Math.max(0, rows * grid.rowHeight - grid.gap)}px`;
    renderVisible();
  }

  function visiblePositions() {
    if (printing) return [0, Math.min(shownItems.length, 60)];
    const top = -list.getBoundingClientRect().top;
    const first = Math.max(0, Math.floor((top - 300) / grid.rowHeight));
    const last = Math.ceil((top + innerHeight + 300) / grid.rowHeight);
    return [first * grid.columns, Math.min(shownItems.length, Math.max(0, last) * grid.columns)];
  }

  function renderVisible() {
    const [first, last] = visiblePositions();
    const positions = [];
    for (let position = first; position < last; position += 1) positions.push(position);
    // The active card stays, wherever the page is scrolled to: it is the tab stop, and the keyboard goes on from it.
    if (active < first) positions.unshift(active);
    else if (active >= Math.max(first, last) && active < shownItems.length) positions.push(active);
    const wanted = new Set(positions.map((position) => shownItems[position]));
    for (const [item, node] of alive) {
      if (!wanted.has(item)) { node.remove(); alive.delete(item); }
    }
    let cursor = list.firstChild;
    for (const position of positions) {
      const item = shownItems[position];
      let node = alive.get(item);
      if (!node) { node = makeItem(item); alive.set(item, node); }
      if (node === cursor) cursor = cursor.nextSibling;
      else list.insertBefore(node, cursor);
      placeItem(node, item, position);
    }
  }

  function placeItem(node, item, position) {
    const column = position % grid.columns;
    const row = (position - column) / grid.columns;
    node.style.width = `${grid.width}px`;
    node.style.height = `${grid.height}px`;
    node.style.transform = `translate(${column * (grid.width + grid.gap)}px, ${row * grid.rowHeight}px)`;
    node.setAttribute("aria-posinset", position + 1);
    node.setAttribute("aria-setsize", shownItems.length);
    const button = node.firstChild;
    button.tabIndex = position === active ? 0 : -1;
    button.dataset.position = position;
    const verdict = verdictOf(item);
    const mark = marks.of(item);
    if (node.dataset.verdict === verdict && node.dataset.mark === mark) return;
    Object.assign(node.dataset, { verdict, mark });
    showPressed(node, mark);
    node.classList.toggle("is-anomaly", verdict === "anomaly");
    node.querySelector(".verdict").replaceWith(verdictBadge(verdict));
    button.setAttribute("aria-label", spoken(item, verdict) + (mark ? `, you marked it ${mark}` : ""));
  }

  function spoken(item, verdict) {
    const name = visible(nameOf(item));
    if (isRejected(item)) return `${name}, rejected: ${rejection(item)[1]}`;
    return `Rank ${ranks[item]}, ${name}, ${verdict}, score ${significant(scores[item])}, p-value ${significant(pValues[item], 3)}`;
  }

  function verdictBadge(verdict) {
    const shape = element("i", `shape ${verdict}`);
    shape.setAttribute("aria-hidden", "true");
    return element("span", `verdict ${verdict}`, shape, VERDICTS[verdict]);
  }

  function makeItem(item) {
    const button = element("button", state.view === "list" ? "row row-grid" : "card");
    button.type = "button";
    button.title = visible(nameOf(item));
    button.append(...(state.view === "list" ? rowParts(item) : cardParts(item)));
    const node = element("li", "", button);
    if (!isRejected(item)) {
      node.classList.add("markable");
      node.append(markButtons(visible(nameOf(item)), -1));
    }
    return node;
  }

  function nameParts(item) {
    const [folder, name] = splitName(nameOf(item));
    return [element("span", "name", element("bdi", "", name)), element("span", "folder", element("bdi", "", folder || "\u00a0"))];
  }

  function cardParts(item) {
    const facts = element("span", "facts", element("span", "verdict"));
    if (isRejected(item)) return [thumbs(item), element("span", "caption", ...nameParts(item)), facts];
    facts.append(element("span", "muted", `p = ${significant(pValues[item], 3)}`), element("span", "score", significant(scores[item])));
    const place = element("span", "facts muted", `#${count(ranks[item])}`, element("span", "", dimensions(sizeOf(item))), element("span", "", regionWords(item)));
    return [thumbs(item), element("span", "caption", ...nameParts(item)), facts, place];
  }

  function regionWords(item) {
    const number = nRegions[item];
    return number ? plural(number, "region", "regions") : "";
  }

  function rowParts(item) {
    const scoredItem = !isRejected(item);
    const who = element("span", "who", ...nameParts(item));
    if (!scoredItem) who.lastChild.textContent = rejection(item)[1];
    const cell = (className, text) => element("span", `num ${className}`, text);
    return [
      thumbs(item),
      element("span", "rank muted", scoredItem ? `#${count(ranks[item])}` : "–"),
      who,
      element("span", "verdict"),
      cell("score", scoredItem ? significant(scores[item]) : "–"),
      cell("p", scoredItem ? significant(pValues[item], 3) : "–"),
      cell("size muted", dimensions(sizeOf(item))),
      cell("count muted", scoredItem ? count(nRegions[item]) : "–"),
    ];
  }

  const LABELS = ["Original", "Reconstruction", "Heat map"];

  function thumbs(item) {
    const host = element("span", "thumbs");
    if (isRejected(item)) host.append(element("span", "no-picture", element("span", "reason", state.view === "list" ? "" : rejection(item)[1])));
    else if (!pictures.has(item)) host.append(element("span", "no-picture", state.view === "list" ? "–" : "Picture not kept"));
    else host.append(...figures(item));
    return host;
  }

  function figures(item) {
    const found = [];
    LABELS.forEach((label, which) => {
      const source = pictureSource(item, which);
      if (source) found.push(figure(item, which, label, source));
    });
    return found;
  }

  function figure(item, which, label, source) {
    const picture = element("img");
    picture.alt = "";
    picture.decoding = "async";
    picture.draggable = false;
    picture.src = source;
    const entry = pictures.get(item);
    const frame = element("span", Math.max(entry.width, entry.height) <= 64 ? "frame crisp" : "frame", picture);
    if (which !== 1 && regionsOf(item).length) frame.append(boxes(item));
    return element("span", `thumb kind-${which}`, frame, element("b", "", label));
  }

  function boxes(item) {
    const [width, height] = sizeOf(item);
    const overlay = svg("svg", { viewBox: `0 0 ${width} ${height}`, "aria-hidden": "true" });
    for (const className of ["halo", "line"]) {
      for (const [left, top, right, bottom] of regionsOf(item)) {
        overlay.append(svg("rect", { class: className, x: left, y: top, width: right - left, height: bottom - top }));
      }
    }
    return overlay;
  }

  function rebuildItems() {
    for (const node of alive.values()) node.remove();
    alive.clear();
    list.classList.toggle("as-list", state.view === "list");
    byId("list-head").hidden = state.view !== "list";
    layoutItems();
  }

  // --- keyboard in the gallery -------------------------------------------------------------------------------

  function focusPosition(position) {
    if (!shownItems.length) return;
    active = Math.max(0, Math.min(shownItems.length - 1, position));
    scrollToPosition(active);
    renderVisible();
    const node = alive.get(shownItems[active]);
    if (node) node.firstChild.focus({ preventScroll: true });
    // Focus has moved: let the card that held it go.
    renderVisible();
  }

  function scrollToPosition(position) {
    const top = list.getBoundingClientRect().top + Math.floor(position / grid.columns) * grid.rowHeight;
    const edge = getComputedStyle(document.querySelector(".toolbar")).position === "sticky" ? document.querySelector(".toolbar").offsetHeight + 12 : 12;
    if (top < edge) scrollBy(0, top - edge);
    else if (top + grid.height > innerHeight - 12) scrollBy(0, top + grid.height - innerHeight + 12);
  }

  function galleryKey(event) {
    if (event.ctrlKey || event.metaKey || event.altKey) return;
    if (shownItems.length && markKey(event, shownItems[active])) return;
    const page = grid.columns * Math.max(1, Math.floor(innerHeight / grid.rowHeight) - 1);
    const steps = { ArrowRight: 1, ArrowLeft: -1, ArrowDown: grid.columns, ArrowUp: -grid.columns, PageDown: page, PageUp: -page, Home: -Infinity, End: Infinity };
    if (!(event.key in steps)) return;
    event.preventDefault();
    focusPosition(active + steps[event.key]);
  }

  // --- larger view -------------------------------------------------------------------------------------------

  const viewer = byId("viewer");
  const viewing = { item: 0, position: 0, heat: true, boxes: true };

  function openViewer(position) {
    active = position;
    viewing.item = shownItems[position];
    viewing.boxes = byId("boxes").checked;
    showViewed();
    viewer.showModal();
  }

  function step(by) {
    const next = active + by;
    if (next < 0 || next >= shownItems.length) return;
    active = next;
    viewing.item = shownItems[next];
    showViewed();
  }

  function showViewed() {
    const item = viewing.item;
    viewing.position = active;
    byId("viewer-place").textContent = `${count(active + 1)} of ${count(shownItems.length)}`;
    byId("viewer-name").replaceChildren(element("bdi", "", visible(nameOf(item))));
    byId("viewer-previous").disabled = active === 0;
    byId("viewer-next").disabled = active === shownItems.length - 1;
    byId("viewer-marks").hidden = isRejected(item);
    showPressed(byId("viewer-marks"), marks.of(item));
    showViewedPictures(item);
    byId("viewer-facts").replaceChildren(viewedFacts(item));
    byId("viewer-explained").replaceChildren(...explained(item));
    byId("viewer").querySelector(".viewer-body").scrollTop = 0;
  }

  function showViewedPictures(item) {
    const host = byId("viewer-pictures");
    const found = isRejected(item) ? [] : figures(item).filter((node) => viewing.heat || !node.classList.contains("kind-2"));
    const reason = isRejected(item) ? "This file could not be used, so there is nothing to show." : "The picture of this image was not kept in this file.";
    host.replaceChildren(...(found.length ? found : [element("div", "no-picture", reason)]));
    host.classList.toggle("no-boxes", !viewing.boxes);
    const [width, height] = pictures.has(item) && sizeOf(item)[0] ? sizeOf(item) : [1, 1];
    // A panorama or a pole keeps a frame of sensible shape around it.
    const aspect = Math.min(3, Math.max(0.6, width / height));
    host.style.setProperty("--aspect", String(aspect));
    // The pictures, their labels and the facts fit on the screen together.
    const room = Math.max(220, innerHeight - 330);
    host.style.gridTemplateColumns = `repeat(${Math.max(1, found.length)}, minmax(0, ${found.length ? Math.round(room * aspect) : 900}px))`;
    byId("viewer-boxes").setAttribute("aria-pressed", viewing.boxes);
    byId("viewer-heat").setAttribute("aria-pressed", viewing.heat);
    byId("viewer-boxes").disabled = !regionsOf(item).length || !found.length;
    byId("viewer-heat").disabled = !pictureSource(item, 2);
  }

  function viewedFacts(item) {
    const facts = element("dl");
    const add = (label, value, small, className = "") =>
      facts.append(element("div", className, element("dt", "", label), element("dd", "", value, ...(small ? [element("small", "", small)] : []))));
    add("Verdict", verdictBadge(verdictOf(item)), isModelThreshold() || isRejected(item) ? "" : "at your threshold");
    if (isRejected(item)) {
      add("Reason", rejection(item)[1], "", "wide");
      if (rejection(item)[2]) add("Size", dimensions(sizeOf(item)));
      return facts;
    }
    add("Score", significant(scores[item]), `threshold ${significant(state.threshold)}`);
    add("p-value", significant(pValues[item], 3), Number.isFinite(pValues[item]) ? `${percent(pValues[item])} of normal images` : "");
    add("Rank", `${count(ranks[item])}`, `of ${count(data.nScored)}`);
    add("Size", dimensions(sizeOf(item)), "pixels");
    const regions = regionsOf(item);
    const peak = regions.length ? Math.max(...regions.map((region) => region[4] || 0)) : 0;
    add("Regions", nRegions[item] ? count(nRegions[item]) : "none", regions.length ? `peak ${significant(peak, 3)}` : "");
    return facts;
  }

  /** What speaks for the verdict: the parts of a combined score, and normal images to compare with. */
  function explained(item) {
    return [contributions(data.explained.parts[item]), similarImages(data.explained.similar[item])].filter(Boolean);
  }

  function contributions(parts) {
    if (!parts) return null;
    const most = Math.max(...parts.map(([, value]) => Math.abs(value))) || 1;
    const rows = parts.map(([name, value]) => {
      const bar = svg("svg", { viewBox: "0 0 100 8", preserveAspectRatio: "none", "aria-hidden": "true" });
      bar.append(svg("rect", { width: 100 * Math.max(0, value) / most, height: 8 }));
      const sign = value > 0 ? "+" : value < 0 ? "−" : "";
      return element("div", "", element("dt", "", name), element("dd", "", bar, `${sign}${significant(Math.abs(value), 3)}`));
    });
    return element("section", "", element("h3", "", "What each score adds"), element("dl", "parts", ...rows),
      element("p", "hint", "In standard deviations above the mean of held-out normal images; their sum is the score."));
  }

  function similarImages(indices) {
    if (!indices || !indices.length) return null;
    const shown = indices.map((index) => {
      const [name, code] = data.explained.examples[index];
      const picture = element("img");
      picture.src = `data:image/webp;base64,${code}`;
      picture.alt = "";
      const [, file] = splitName(name);
      const figure = element("figure", "", element("span", "frame", picture), element("figcaption", "", element("bdi", "", file)));
      figure.title = visible(name);
      return figure;
    });
    return element("section", "", element("h3", "", "Most similar normal images"), element("div", "similar", ...shown),
      element("p", "hint", "From the images that the model was trained on. For comparison by eye; the score does not use them."));
  }

  function viewerKey(event) {
    if (event.ctrlKey || event.metaKey || event.altKey) return;
    if (markKey(event, viewing.item)) return;
    const actions = {
      ArrowRight: () => step(1),
      ArrowLeft: () => step(-1),
      Home: () => step(-active),
      End: () => step(shownItems.length - 1 - active),
      b: () => toggle("boxes"),
      h: () => toggle("heat"),
    };
    const action = actions[event.key.length === 1 ? event.key.toLowerCase() : event.key];
    if (!action) return;
    event.preventDefault();
    action();
  }

  function toggle(what) {
    if (byId(`viewer-${what}`).disabled) return;
    viewing[what] = !viewing[what];
    if (what === "boxes") setBoxes(viewing.boxes);
    showViewedPictures(viewing.item);
  }

  function setBoxes(on) {
    byId("boxes").checked = on;
    list.classList.toggle("no-boxes", !on);
  }

  // --- the reader's marks ------------------------------------------------------------------------------------

  // Told apart by shape and word, not by colour alone.
  const MARKS = {
    keep: { word: "Keep", key: "k", path: "m3 8.5 3.5 3.5L13 4.5" },
    anomaly: { word: "Anomaly", key: "a", path: "M8 2.5 14.5 13.5h-13z" },
    unsure: { word: "Unsure", key: "u", path: "M5 5.5a3 3 0 1 1 4.2 2.8C8.3 8.7 8 9.3 8 10.2M8 13v.4" },
  };

  function markIcon(mark) {
    const icon = svg("svg", { viewBox: "0 0 16 16", width: 13, height: 13, class: `mark-icon ${mark}`, "aria-hidden": "true" });
    icon.append(svg("path", { d: MARKS[mark].path }));
    return icon;
  }

  /** The three buttons of one image; in the gallery its card is the tab stop, and the keys reach them from there. */
  function markButtons(name, tabIndex = 0) {
    const host = element("div", "marks");
    host.setAttribute("role", "group");
    host.setAttribute("aria-label", `Your mark${name ? ` on ${name}` : ""}`);
    for (const [mark, { word, key }] of Object.entries(MARKS)) {
      const button = element("button", `mark ${mark}`, markIcon(mark), element("span", "", word), element("kbd", "", key.toUpperCase()));
      Object.assign(button, { type: "button", tabIndex });
      button.dataset.set = mark;
      button.setAttribute("aria-pressed", "false");
      button.setAttribute("aria-keyshortcuts", key);
      button.setAttribute("aria-label", word);
      host.append(button);
    }
    return host;
  }

  function showPressed(host, mark) {
    for (const button of host.querySelectorAll("[data-set]")) button.setAttribute("aria-pressed", button.dataset.set === mark);
  }

  /** Whether the key was one of the marks' own. */
  function markKey(event, item) {
    // Where the layout has other letters on the keys, the place of the key counts.
    const key = /^[a-z]$/i.test(event.key) ? event.key.toLowerCase() : event.code.replace(/^Key/, "").toLowerCase();
    const mark = Object.keys(MARKS).find((name) => MARKS[name].key === key);
    if (!mark && event.key !== "Backspace") return false;
    event.preventDefault();
    // A key held down would mark image after image.
    if (event.repeat) return true;
    if (mark) toggleMark(item, mark, true);
    else undoMark();
    return true;
  }

  function toggleMark(item, mark, advance) {
    if (isRejected(item)) return sayMark("Rejected files carry no mark.");
    const taken = marks.of(item) === mark;
    marks.set([[item, taken ? "" : mark]]);
    const [, name] = splitName(nameOf(item));
    const next = taken || !advance ? item : nextUnmarked(item);
    sayMark(taken ? `${name}: mark taken away.` : `${name}: ${mark}.${next === null ? " No unmarked image follows." : ""}`);
    showMarked(next === null ? item : next);
  }

  function nextUnmarked(item) {
    const start = shownItems.indexOf(item) + 1;
    const found = shownItems.slice(start).find((other) => !isRejected(other) && !marks.of(other));
    return found === undefined ? null : found;
  }

  function undoMark() {
    const item = marks.undo();
    if (item === null) return sayMark("Nothing to undo.");
    sayMark("Undone.");
    showMarked(item);
  }

  /** Marks have changed: show them, and go to this image if the filters let it. */
  function showMarked(item) {
    const wasInList = list.contains(document.activeElement);
    const place = active;
    refreshView();
    const found = shownItems.indexOf(item);
    active = found >= 0 ? found : Math.max(0, Math.min(place, shownItems.length - 1));
    if (viewer.open) {
      if (!shownItems.length) return viewer.close();
      viewing.item = shownItems[active];
      showViewed();
    } else if (wasInList) {
      focusPosition(active);
    }
  }

  function sayMark(text) {
    const { keep, anomaly, unsure } = marks.counts();
    const place = viewer.open ? "viewer-said" : "marks-live";
    byId(place).textContent = `${text} ${count(keep + anomaly + unsure)} of ${count(nListed)} marked.`;
  }

  function showMarkCounts() {
    const counts = marks.counts();
    const marked = nListed - counts.unmarked;
    for (const button of all("[data-marked]:not([data-marked=any])")) button.querySelector("span").textContent = count(counts[button.dataset.marked]);
    byId("review-start").disabled = !counts.unmarked;
    byId("review-undo").disabled = byId("viewer-undo").disabled = !marks.past.length;
    byId("kept").textContent = marks.kept ? "Saved in this browser only: export to keep them" : "Not saved by this browser: export before closing";
    byId("kept").classList.toggle("warning", !marks.kept);
    if (byId("export").open) showExport(marked, counts);
  }

  function showExport(marked = nListed - marks.counts().unmarked, counts = marks.counts()) {
    const where = marks.kept
      ? "They are saved in this browser only, for this report: export them to keep them."
      : "This browser refuses to save them: they are lost when the page is closed or loaded again. Export them to keep them.";
    byId("export-state").textContent = `${count(marked)} of ${plural(nListed, "image", "images")} marked: ${count(counts.keep)} keep, ${count(counts.anomaly)} anomaly, ${count(counts.unsure)} unsure. ${where}`;
    byId("export-state").classList.toggle("warning", !marks.kept);
    const unlisted = data.nScored - nListed;
    const missing = unlisted > 0 ? ` The other ${count(unlisted)} images of the search are not on this page.` : "";
    byId("export-review-help").textContent = `A table of the ${plural(nListed, "image", "images")} listed here: path, score, whether the report selected it, and your mark.${missing}`;
    byId("export-clean").disabled = unlisted > 0;
    byId("export-clean-help").textContent = unlisted > 0
      ? `It would lack the ${count(unlisted)} images that are not listed on this page. Train with review.csv instead: it leaves out what it names and nothing else.`
      : cleanHelp();
    byId("marks-clear").disabled = !marked;
  }

  function cleanHelp() {
    const { count: left, broken } = Review.clean(reviewed());
    const anomaly = marks.counts().anomaly;
    const undecided = reviewed().filter(({ selected: chosen, mark }) => chosen && Review.leavesOut(mark, chosen) && mark !== "anomaly").length;
    const moved = isModelThreshold() ? "" : " The threshold that you try on this page does not count.";
    const lost = broken ? ` ${plural(broken, "path", "paths")} with a line break cannot be listed.` : "";
    return `${plural(left, "path", "paths")}, one a line. Left out: the ${count(anomaly)} you marked anomaly, and the ${count(undecided)} that the report selected and you left unmarked or unsure.${moved}${lost}`;
  }

  const reviewed = () => scored.names.map((name, item) => ({ name, score: scores[item], selected: selected[item] === 1, mark: marks.of(item) }));

  function download(name, type, text) {
    const link = element("a");
    link.href = URL.createObjectURL(new Blob([text], { type }));
    link.download = name;
    link.click();
    // Not at once: the browser may still be about to read it.
    setTimeout(() => URL.revokeObjectURL(link.href), 10_000);
    byId("export-said").textContent = `${name} was handed to the browser's downloads.`;
  }

  async function importMarks(file) {
    try {
      const text = new TextDecoder("utf-8", { fatal: true }).decode(await file.arrayBuffer());
      byId("export-said").textContent = adopt(Review.parse(text), file.name);
    } catch (error) {
      const reason = error instanceof TypeError ? "it is no text in UTF-8. Save it as “CSV UTF-8”" : error.message;
      byId("export-said").textContent = `${file.name} was not loaded: ${reason}.`;
    }
  }

  function adopt(found, name) {
    const known = [...found].filter(([path]) => marks.rows.has(path));
    const changed = marks.set(known.map(([path, mark]) => [marks.rows.get(path)[0], mark]));
    showMarked(shownItems[active]);
    const strange = found.size - known.length;
    const other = strange ? ` ${plural(strange, "path is", "paths are")} not on this page, such as ${[...found.keys()].find((path) => !marks.rows.has(path))}.` : "";
    return `${name}: ${plural(known.length, "mark", "marks")} loaded, ${count(changed)} of them new or changed.${other}`;
  }

  function startReview() {
    const first = shownItems.findIndex((item) => !isRejected(item) && !marks.of(item));
    if (first >= 0) return openViewer(first);
    // Those that are left are hidden by the filters.
    state.marked = "unmarked";
    press("[data-marked]", document.querySelector("[data-marked=unmarked]"));
    Object.assign(state, { filter: "all", query: "" });
    press("[data-filter]", document.querySelector("[data-filter=all]"));
    byId("search").value = "";
    refreshView();
    openViewer(0);
  }

  function wireMarks() {
    byId("marks-bar").hidden = byId("items-help").hidden = !nListed;
    byId("viewer-marks").append(markButtons(""));
    for (const mark of Review.VERDICTS) document.querySelector(`[data-marked=${mark}]`).prepend(markIcon(mark));
    for (const button of all("[data-marked]")) {
      button.addEventListener("click", () => { state.marked = button.dataset.marked; press("[data-marked]", button); backToTop(); refreshView(); });
    }
    byId("viewer-marks").addEventListener("click", (event) => { const button = event.target.closest("button"); if (button) toggleMark(viewing.item, button.dataset.set, true); });
    byId("review-start").addEventListener("click", startReview);
    for (const name of ["review-undo", "viewer-undo"]) byId(name).addEventListener("click", undoMark);
    wireExport();
    // Another window of the same report: its marks are these.
    addEventListener("storage", (event) => { if (event.key === marks.key || event.key === null) { marks.load(); showMarked(shownItems[active]); } });
    addEventListener("beforeunload", (event) => { if (!marks.kept && !marks.exported) event.preventDefault(); });
  }

  function wireExport() {
    const dialog = byId("export");
    byId("export-open").addEventListener("click", () => { byId("export-said").textContent = ""; showExport(); dialog.showModal(); });
    byId("export-close").addEventListener("click", () => dialog.close());
    dialog.addEventListener("click", (event) => { if (event.target === dialog) dialog.close(); });
    byId("export-review").addEventListener("click", () => { download("review.csv", "text/csv", Review.table(reviewed(), scored.hashes)); marks.exported = true; });
    byId("export-clean").addEventListener("click", () => download("clean.txt", "text/plain", Review.clean(reviewed()).text));
    byId("import-open").addEventListener("click", () => byId("import").click());
    byId("import").addEventListener("change", (event) => {
      const [file] = event.target.files;
      if (file) importMarks(file);
      // The same file may be chosen again, once it is mended.
      event.target.value = "";
    });
    byId("marks-clear").addEventListener("click", () => {
      const cleared = marks.clear();
      showMarked(shownItems[active]);
      byId("export-said").textContent = `${plural(cleared, "mark", "marks")} cleared.`;
    });
  }

  // --- rejected files ----------------------------------------------------------------------------------------

  let nRejectedShown = 0;

  function showMoreRejected() {
    const body = byId("rejected-rows");
    if (!body) return;
    const until = Math.min(data.rejected.length, nRejectedShown + (nRejectedShown ? 200 : 20));
    for (; nRejectedShown < until; nRejectedShown += 1) {
      const [name, reason] = data.rejected[nRejectedShown];
      body.append(element("tr", "", element("td", "", element("bdi", "", visible(name))), element("td", "", reason)));
    }
    const left = data.rejected.length - nRejectedShown;
    byId("more-rejected").hidden = left === 0;
    byId("more-rejected").textContent = `Show ${count(Math.min(200, left))} more`;
  }

  // --- wiring ------------------------------------------------------------------------------------------------

  function press(selector, chosen) {
    for (const button of all(selector)) button.setAttribute("aria-pressed", button === chosen);
  }

  function backToTop() {
    active = 0;
    const top = byId("images").getBoundingClientRect().top;
    if (top < 0) scrollBy(0, top);
  }

  function onFrame(action) {
    let waiting = false;
    return () => {
      if (waiting) return;
      waiting = true;
      requestAnimationFrame(() => { waiting = false; action(); });
    };
  }

  function wireThreshold() {
    byId("slider").addEventListener("input", (event) => setThreshold(roundThreshold(event.target.value / 1000)));
    byId("threshold").addEventListener("change", typeThreshold);
    byId("reset").addEventListener("click", () => { setThreshold(modelThreshold); byId("slider").focus(); });
    byId("copy").addEventListener("click", copyCommand);
    byId("histogram").addEventListener("pointerdown", dragThreshold);
    byId("histogram").addEventListener("pointermove", dragThreshold);
    byId("axis").hidden = !(range.low > 0);
    byId("axis").addEventListener("click", () => { state.log = !state.log; showAxis(); });
  }

  function showAxis() {
    axis = makeAxis();
    byId("axis").setAttribute("aria-pressed", state.log);
    byId("slider").value = Math.round(1000 * axis.to(state.threshold));
    drawHistogram();
  }

  function wireGallery() {
    for (const button of all("[data-filter]")) {
      button.addEventListener("click", () => { state.filter = button.dataset.filter; press("[data-filter]", button); backToTop(); refreshView(); });
    }
    for (const button of all("[data-view]")) {
      button.addEventListener("click", () => { state.view = button.dataset.view; press("[data-view]", button); backToTop(); rebuildItems(); });
    }
    byId("sort").addEventListener("change", (event) => { state.sort = event.target.value; backToTop(); refreshView(); });
    byId("search").addEventListener("input", (event) => { state.query = event.target.value.trim().toLowerCase(); backToTop(); refreshView(); });
    byId("boxes").addEventListener("change", (event) => setBoxes(event.target.checked));
    list.addEventListener("keydown", galleryKey);
    list.addEventListener("focusin", (event) => { const node = event.target.closest("li"); if (node) active = Number(node.firstChild.dataset.position); });
    list.addEventListener("click", (event) => { const button = event.target.closest("button"); if (button) clicked(button); });
  }

  function clicked(button) {
    if (!button.dataset.set) return openViewer(Number(button.dataset.position));
    // A mouse goes where its hand wants: the mark stays under it.
    active = Number(button.closest("li").firstChild.dataset.position);
    toggleMark(shownItems[active], button.dataset.set, false);
  }

  function wireViewer() {
    viewer.addEventListener("keydown", viewerKey);
    // Closing gives the focus back to the card that opened it, which makes that one active: go on from the last seen.
    viewer.addEventListener("close", () => focusPosition(viewing.position));
    viewer.addEventListener("click", (event) => { if (event.target === viewer) viewer.close(); });
    byId("viewer-close").addEventListener("click", () => viewer.close());
    byId("viewer-previous").addEventListener("click", () => step(-1));
    byId("viewer-next").addEventListener("click", () => step(1));
    byId("viewer-boxes").addEventListener("click", () => toggle("boxes"));
    byId("viewer-heat").addEventListener("click", () => toggle("heat"));
  }

  function wirePage() {
    addEventListener("scroll", onFrame(renderVisible), { passive: true });
    let width = 0;
    new ResizeObserver(onFrame(() => {
      if (printing || width === document.documentElement.clientWidth) return;
      width = document.documentElement.clientWidth;
      drawHistogram();
      layoutItems();
    })).observe(document.documentElement);
    addEventListener("resize", onFrame(() => { if (!printing) renderVisible(); }));
    addEventListener("beforeprint", () => { printing = true; renderVisible(); });
    addEventListener("afterprint", () => { printing = false; layoutItems(); });
    const more = byId("more-rejected");
    if (more) more.addEventListener("click", showMoreRejected);
  }

  document.documentElement.classList.add("js");
  wireThreshold();
  wireGallery();
  wireViewer();
  wireMarks();
  wirePage();
  showAxis();
  showThreshold();
  showMoreRejected();
})();
