/** What the page says beside the picture: versions, tile, problems, statistics, legend, notices. */

import { byId, fillList, fillSelect, make } from "./dom.js";
import { describeError } from "./app.js";
import { togglePanel } from "./input.js";
import { describeTile } from "./tile_facts.js";
import { describeVersion, formatBytes, formatCount, formatNumber, formatPlural, formatTime, labelTilesets, shorten } from "./text.js";

const MAX_LISTED_TILES = 400;
const MAX_LISTED_PROBLEMS = 50;
/** Changes in the order of the legend. */
const LEGEND = [
  ["added", "Added"], ["changed", "Changed"], ["moved", "Moved"], ["same", "Same"], ["removed", "Removed (boxes)"],
];

export class Panel {
  /** @param {import("./app.js").App} app @param {import("./stage.js").Stage} stage @param {{received: number}} traffic */
  constructor(app, stage, traffic) {
    this.app = app;
    this.stage = stage;
    this.traffic = traffic;
    /** @type {{view: import("./tileset_view.js").TilesetView, tile: any} | null} */
    this.selection = null;
    /** @type {Record<string, any> | null} what the server says of the selected file */
    this.fileFacts = null;
    /** @type {string} */
    this.fileProblem = "";
    /** @type {string | null} */
    this.removedName = null;
  }

  render() {
    this.renderChoices();
    this.renderCard();
    this.renderNotices();
    this.renderComparison();
    this.renderProblems();
    this.renderOptions();
    this.renderStatus();
    this.renderStatistics();
    this.renderTiles();
  }

  // --- above the picture ---

  renderChoices() {
    const { app } = this;
    const tilesets = app.site?.tilesets ?? [];
    const labels = labelTilesets(tilesets);
    byId("tileset-choice").hidden = tilesets.length < 2;
    fillSelect(byId("tileset"), [...labels].map(([name, label]) => ({ value: name, label, title: name })), app.state.tileset);
    const versions = (app.tileset?.versions ?? []).map((version) => ({
      value: version.name, label: `${version.current ? "current · " : ""}${describeVersion(version)}`, title: version.name,
    }));
    fillSelect(byId("version"), versions, app.state.version);
    byId("version").disabled = versions.length < 2;
    fillSelect(byId("compare"), versions.filter(({ value }) => value !== app.state.version), app.state.compare);
    for (const button of /** @type {NodeListOf<HTMLButtonElement>} */ (document.querySelectorAll("[data-mode]"))) {
      button.setAttribute("aria-pressed", String(button.dataset.mode === app.state.mode));
      button.disabled = button.dataset.mode !== "single" && versions.length < 2;
      button.title = button.disabled ? "There is only one version." : "";
    }
    const label = app.tileset ? labels.get(app.tileset.name) : "";
    document.title = label ? `${label} · tilesync` : "tilesync";
    byId("brand").textContent = (tilesets.length === 1 && app.version?.display_name) || "tilesync";
    byId("brand").title = label ?? "";
    byId("about").textContent = ["tilesync", app.site?.tilesync].filter(Boolean).join(" ");
  }

  renderCard() {
    const { app } = this;
    const card = byId("card");
    const content = this.cardContent();
    card.hidden = content === null;
    if (content === null || card.dataset.text === content.join("\n")) return;
    card.dataset.text = content.join("\n");
    const [title, ...lines] = content;
    card.replaceChildren(make("h2", {}, title), ...lines.filter(Boolean).map((line) => make("p", { className: "quiet" }, line)));
    if (app.view?.rootFailed) card.append(make("p", {}, make("button", { className: "plain-button", onclick: () => this.retry() }, "Try again")));
  }

  /** @returns {string[] | null} title and lines */
  cardContent() {
    const { app } = this;
    if (!app.site) return app.outage ? ["The server does not answer", describeError(app.outage), "This page tries again every few seconds."] : null;
    if (!app.site.tilesets.length) return ["No tileset", "This server offers no tileset."];
    if (app.tileset?.error) return ["This tileset cannot be read", app.tileset.error, "This page tries again every few seconds."];
    if (!app.tileset?.versions.length) return ["Nothing to show yet", "This tileset has no finished version. It appears here when the first one is published."];
    const failure = app.view?.rootFailed ? app.view.problems.find(({ tile }) => tile === null) : null;
    return failure ? ["This version cannot be shown", failure.status ? `Status ${failure.status}: ${failure.message}` : failure.message, failure.name ?? ""] : null;
  }

  renderNotices() {
    const { app } = this;
    /** @type {[string, boolean, [string, () => void][]][]} text, bad, buttons */
    const notices = [];
    if (app.outage && app.site) notices.push([`${describeError(app.outage)} The tiles that are loaded stay; this page tries again every few seconds.`, true, []]);
    if (app.news && app.news.tileset === app.state.tileset) {
      const { version } = app.news;
      const entry = app.tileset?.versions.find(({ name }) => name === version);
      const label = entry ? describeVersion(entry) : shorten(version, 13);
      notices.push([`A new version was published: ${label}.`, false, [["Show", () => app.showVersion(version)], ["Later", () => this.dismissNews()]]]);
    }
    app.remarks.forEach((text) => notices.push([text, false, [["Close", () => this.dismiss(text)]]]));
    const missing = app.version?.missing;
    if (missing) notices.push([`${formatPlural(missing, "file")} of this version ${missing === 1 ? "is" : "are"} missing at the source.`, true, []]);
    if (this.message) notices.push([this.message, false, []]);
    const key = JSON.stringify(notices);
    const place = byId("notices");
    if (place.dataset.key === key) return;
    place.dataset.key = key;
    place.replaceChildren(...notices.map(([text, isBad, buttons]) => make(
      "div", { className: isBad ? "notice bad" : "notice" }, make("span", {}, text),
      ...buttons.map(([label, onclick]) => make("button", { className: "plain-button", onclick }, label)),
    )));
  }

  /** Say something for a few seconds. @param {string} text */
  say(text) {
    this.message = text;
    clearTimeout(this.messageTimer);
    this.messageTimer = setTimeout(() => {
      this.message = "";
      this.renderNotices();
    }, 4000);
    this.renderNotices();
  }

  dismissNews() {
    this.app.news = null;
    this.renderNotices();
  }

  /** @param {string} remark */
  dismiss(remark) {
    this.app.remarks = this.app.remarks.filter((each) => each !== remark);
    this.renderNotices();
  }

  // --- comparison ---

  renderComparison() {
    const { app } = this;
    const { mode } = app.state;
    byId("section-compare").hidden = mode === "single";
    const hasSwipe = mode === "swipe" && app.other !== null;
    byId("swipe").hidden = !hasSwipe;
    for (const [id, version] of /** @type {const} */ ([["side-left", app.compared], ["side-right", app.version]])) {
      byId(id).hidden = !hasSwipe;
      byId(id).textContent = version ? describeVersion(version) : "";
    }
    this.placeSwipe();
    const legend = byId("legend");
    legend.hidden = mode !== "changes" || !app.changes;
    if (app.changes) {
      const { counts } = app.changes;
      legend.replaceChildren(...LEGEND.map(([key, label]) => make(
        "div", {}, make("span", { className: `swatch ${key}` }), label, make("span", { className: "count" }, formatCount(counts[key])),
      )));
    }
    const lines = [app.comparisonProblem, app.comparisonNote].filter(Boolean).map((line) => make("p", { className: "problem" }, line));
    if (mode === "swipe" && !lines.length) lines.push(make("p", { className: "quiet" }, "Left: the version above. Right: the version at the top. Drag the border, or press [ and ]."));
    if (mode === "changes" && app.changes) lines.push(make("p", { className: "quiet" }, "Colours: what happened to the file of a tile since the version above. The legend counts files."));
    byId("comparison").replaceChildren(...lines);
  }

  placeSwipe() {
    const share = this.app.state.swipe;
    byId("swipe").style.left = `${share * 100}%`;
    byId("swipe").setAttribute("aria-valuenow", String(Math.round(share * 100)));
  }

  // --- problems ---

  renderProblems() {
    const { app } = this;
    const problems = app.views().flatMap((view) => view.problems.map((problem) => ({ ...problem, view })));
    const notes = app.views().flatMap((view) => [...view.notes]);
    const refused = app.views().reduce((sum, view) => sum + view.tiles.stats.refused, 0);
    if (refused) notes.push("The memory for tiles is full, so the picture is coarser than asked for. Move the detail to the right, or look at a smaller part.");
    const section = byId("section-problems");
    section.hidden = !problems.length && !notes.length;
    byId("problem-count").textContent = problems.length ? formatCount(problems.length) : "";
    const key = JSON.stringify([problems.map(({ url, message }) => [url, message]), notes]);
    const place = byId("problems");
    if (place.dataset.key === key) return;
    place.dataset.key = key;
    const cards = problems.slice(0, MAX_LISTED_PROBLEMS).map(({ name, url, status, message }) => make(
      "div", { className: "problem" }, make("strong", {}, name ?? shorten(url, 80)), make("p", {}, status ? `Status ${status}: ${message}` : message),
    ));
    const more = problems.length - cards.length;
    place.replaceChildren(
      ...[...new Set(notes)].map((note) => make("p", { className: "problem" }, note)), ...cards,
      more > 0 ? make("p", { className: "quiet" }, `and ${formatCount(more)} more`) : "",
      problems.length ? make("button", { className: "plain-button", onclick: () => this.retry() }, "Try again") : "",
    );
  }

  retry() {
    for (const view of this.app.views()) view.retry();
  }

  // --- options and figures ---

  renderOptions() {
    const { state } = this.app;
    byId("error").value = state.error;
    byId("error-value").textContent = `${formatNumber(state.error)} px`;
    byId("boxes").checked = state.boxes;
    byId("wireframe").checked = state.wireframe;
    byId("follow").checked = this.app.follows;
  }

  totals() {
    const totals = { visible: 0, loaded: 0, queued: 0, loading: 0, failed: 0, known: 0 };
    for (const { tiles } of this.app.views()) {
      const { stats } = tiles;
      totals.visible += tiles.visibleTiles.size;
      totals.loaded += stats.loaded;
      totals.queued += stats.queued;
      totals.loading += stats.downloading + stats.parsing;
      totals.known += stats.inCache;
    }
    totals.failed = this.app.views().reduce((sum, view) => sum + view.problems.length, 0);
    return totals;
  }

  renderStatus() {
    const { visible, queued, loading, failed } = this.totals();
    const busy = this.app.views().filter((view) => view.busy);
    const parts = this.app.view ? [`${formatPlural(visible, "tile")} visible`] : [];
    if (queued + loading) parts.push(`${formatCount(queued + loading)} loading`);
    if (failed) parts.push(`${formatPlural(failed, "problem")}`);
    if (this.app.next) parts.push("the new version is loading");
    byId("status").textContent = parts.join(" · ");
    const progress = byId("progress");
    const share = busy.length ? Math.min(...busy.map(({ tiles }) => (tiles.root ? tiles.loadProgress : 0))) : 1;
    progress.hidden = !busy.length;
    progress.setAttribute("aria-valuenow", String(Math.round(share * 100)));
    progress.firstElementChild.style.width = `${Math.max(4, share * 100)}%`;
  }

  renderStatistics() {
    const { info } = this.stage.renderer;
    const totals = this.totals();
    const cache = this.app.view?.tiles.lruCache.cachedBytes ?? 0;
    fillList(byId("statistics"), [
      ["Tiles visible", formatCount(totals.visible)],
      ["Tiles loaded", formatCount(totals.loaded)],
      ["Tiles in cache", formatCount(totals.known)],
      ["Queued, loading", `${formatCount(totals.queued)}, ${formatCount(totals.loading)}`],
      ["Triangles", formatCount(info.render.triangles)],
      ...(info.render.points ? [/** @type {[string, string]} */ (["Points", formatCount(info.render.points)])] : []),
      ["Draw calls", formatCount(info.render.calls)],
      ["Received", formatBytes(this.traffic.received)],
      ["Memory of tiles", formatBytes(cache)],
      ["Geometries, textures", `${formatCount(info.memory.geometries)}, ${formatCount(info.memory.textures)}`],
      ["Frames per second", this.stage.framesPerSecond ? formatCount(this.stage.framesPerSecond) : "at rest"],
    ]);
  }

  // --- tiles ---

  renderTiles() {
    const section = byId("section-tiles");
    byId("tile-count").textContent = formatCount(this.totals().loaded);
    if (!section.open) return;
    /** @type {{view: import("./tileset_view.js").TilesetView, tile: any, name: string}[]} */
    const entries = [];
    for (const view of [this.app.view, this.app.other]) {
      view?.forEachLoaded((tile) => entries.push({ view, tile, name: view.nameOf(tile) ?? "(data: URI)" }));
    }
    entries.sort((a, b) => a.name.localeCompare(b.name, "en", { numeric: true }));
    const shown = entries.slice(0, MAX_LISTED_TILES);
    const isVisible = (/** @type {typeof entries[number]} */ { view, tile }) => view.tiles.visibleTiles.has(tile);
    const key = JSON.stringify([shown.map((entry) => [entry.name, isVisible(entry)]), this.selection?.tile && this.selection.view.nameOf(this.selection.tile)]);
    const place = byId("tiles");
    if (place.dataset.key === key) return;
    place.dataset.key = key;
    const items = shown.map((entry) => make("li", {}, make(
      "button", { type: "button", onclick: () => this.select(entry.view, entry.tile), attributes: { "aria-current": entry.tile === this.selection?.tile } },
      make("span", {}, entry.name), make("span", {}, isVisible(entry) ? "visible" : ""),
    )));
    const more = entries.length - shown.length;
    place.replaceChildren(make("ul", {}, ...items), more > 0 ? make("p", { className: "quiet" }, `and ${formatCount(more)} more`) : "");
  }

  /** Select a tile, and ask the server about its file. @param {import("./tileset_view.js").TilesetView | null} view @param {any} tile */
  async select(view, tile) {
    const last = this.selection;
    if (last && last.view !== view) last.view.select(null);
    view?.select(tile);
    this.selection = view && tile ? { view, tile } : null;
    this.fileFacts = null;
    this.fileProblem = "";
    this.removedName = null;
    if (this.selection) togglePanel(true);
    this.renderTile();
    this.renderTiles();
    const name = tile && view ? view.nameOf(tile) : null;
    const version = view === this.app.other ? this.app.state.compare : this.app.state.version;
    if (name === null || !version || !this.app.state.tileset) return;
    const { selection } = this;
    this.app.pendingWork++;
    try {
      const facts = await this.app.server.readFile(this.app.state.tileset, version, name);
      if (this.selection === selection) this.fileFacts = facts;
    } catch (error) {
      if (this.selection === selection) this.fileProblem = describeError(error);
    } finally {
      this.app.pendingWork--;
      this.renderTile();
    }
  }

  /** @param {string} name of a file that is gone */
  showRemovedName(name) {
    this.select(null, null);
    this.removedName = name;
    this.renderTile();
  }

  renderTile() {
    const place = byId("tile");
    if (this.removedName !== null) {
      const size = this.app.changes?.removed.get(this.removedName);
      place.replaceChildren(make("p", { className: "tile-name" }, this.removedName), make("p", { className: "quiet" }, `Removed since the other version${size ? ` (${formatBytes(size)})` : ""}.`));
    } else if (!this.selection) {
      place.replaceChildren(make("p", { className: "quiet" }, "Click a tile to see its file, size and digest."));
    } else {
      const { view, tile } = this.selection;
      const list = make("dl");
      const change = view.changes?.of(view.nameOf(tile));
      fillList(list, [...this.fileRows(), ...(change ? [/** @type {[string, string]} */ (["Change", change])] : []), ...describeTile(tile)]);
      place.replaceChildren(
        make("p", { className: "tile-name" }, view.nameOf(tile) ?? "Content in a data: URI of the tileset"), list,
        this.fileProblem ? make("p", { className: "quiet" }, `No digest: ${this.fileProblem}`) : "",
      );
    }
    if (this.selection || this.removedName !== null) byId("section-tile").open = true;
  }

  /** @returns {[string, string, string?][]} */
  fileRows() {
    const facts = this.fileFacts;
    if (!facts) return [];
    /** @type {[string, string | null | undefined, string?][]} */
    const rows = [
      ["Size", facts.size === null || facts.size === undefined ? null : `${formatBytes(facts.size)} (${formatCount(facts.size)} B)`],
      ["SHA-256", facts.sha256, "code"],
      ["MD5", facts.sha256 ? null : facts.md5, "code"],
      ["Type", [facts.content_type, facts.content_encoding].filter(Boolean).join(", ")],
      ["Modified", formatTime(facts.last_modified)],
    ];
    return /** @type {[string, string, string?][]} */ (rows.filter(([, value]) => value));
  }
}
