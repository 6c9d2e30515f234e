/** The state of the page: which version of which tileset is shown, beside which other one, and what the server says. */

import { Changes } from "./changes.js";
import { DEFAULT_STATE, parseLink } from "./link.js";
import { findRemovedTiles } from "./removed.js";
import { ServerError } from "./server.js";
import { TilesetView } from "./tileset_view.js";

/** An old version stays on screen until its successor is complete, but no longer than this. */
const MAX_SWITCH_MS = 10_000;

export class App {
  /** @param {{server: import("./server.js").Server, stage: import("./stage.js").Stage, onChange: () => void}} parts */
  constructor({ server, stage, onChange }) {
    this.server = server;
    this.stage = stage;
    this.onChange = onChange;
    /** @type {import("./link.js").ViewState} */
    this.state = { ...DEFAULT_STATE };
    /** @type {import("./server.js").Site | null} */
    this.site = null;
    /** @type {TilesetView | null} */
    this.view = null;
    /** @type {TilesetView | null} the version that will replace `view` when it is complete */
    this.next = null;
    this.nextSince = 0;
    /** @type {TilesetView | null} the older version of a comparison side by side */
    this.other = null;
    /** @type {Changes | null} */
    this.changes = null;
    /** @type {string} */
    this.comparisonProblem = "";
    this.comparisonNote = "";
    /** @type {{tileset: string, version: string} | null} a version that was published while another one is shown */
    this.news = null;
    /** @type {string[]} what the reader of the page should know about the link */
    this.remarks = [];
    /** @type {ServerError | null} */
    this.outage = null;
    /** Numbers each comparison, so that the answer to an earlier one is dropped. */
    this.comparisonNumber = 0;
    this.pendingWork = 0;
    stage.onPlaced = (view) => this.placed(view);
  }

  // --- what the server has ---

  get tileset() {
    return this.site?.tilesets.find(({ name }) => name === this.state.tileset) ?? null;
  }

  get version() {
    return this.tileset?.versions.find(({ name }) => name === this.state.version) ?? null;
  }

  get compared() {
    return this.tileset?.versions.find(({ name }) => name === this.state.compare) ?? null;
  }

  /** True if new versions are taken up by themselves. */
  get follows() {
    return this.state.follow ?? this.tileset?.follow ?? false;
  }

  /** Ask the server what it has, and take up what is new. */
  async refresh() {
    this.pendingWork++;
    try {
      const site = await this.server.readSite();
      const wasOut = this.outage !== null;
      this.outage = null;
      if (site) this.takeSite(site);
      if (wasOut) for (const view of this.views()) if (view.problems.some(isOutage)) view.retry();
    } catch (error) {
      this.outage = error instanceof ServerError ? error : new ServerError(0, String(error));
    } finally {
      this.pendingWork--;
      this.onChange();
    }
  }

  /** @param {import("./server.js").Site} site */
  takeSite(site) {
    const before = this.tileset;
    this.site = site;
    const now = this.tileset;
    if (!this.view) return this.open(this.state);
    if (!before || !now) return this.open({ ...this.state });
    if (now.current && now.current !== before.current && now.current !== this.state.version) this.announce(now);
    if (!this.version) return this.showVersion(chooseVersion(now, null)); // it was retired
    this.load(this.version); // if it has another address now
  }

  /** @param {import("./server.js").Tileset} tileset with a new current version */
  announce(tileset) {
    const version = /** @type {string} */ (tileset.current);
    if (this.follows) this.showVersion(version);
    else this.news = { tileset: tileset.name, version };
  }

  // --- what is shown ---

  /** Show what a link describes. @param {import("./link.js").ViewState} wanted */
  open(wanted) {
    this.state = this.site ? this.state : { ...wanted };
    if (!this.site) return; // until it is known what there is
    const { tilesets } = this.site;
    this.remarks = [];
    const tileset = tilesets.find(({ name }) => name === wanted.tileset) ?? tilesets[0] ?? null;
    if (wanted.tileset && tileset?.name !== wanted.tileset) this.remarks.push(`There is no tileset “${wanted.tileset}” here.`);
    const isOther = tileset?.name !== this.state.tileset;
    const version = tileset ? chooseVersion(tileset, wanted.follow ? null : wanted.version) : null;
    if (wanted.version && version !== wanted.version && !wanted.follow) {
      this.remarks.push(`The version ${wanted.version} is no longer here; this is another one.`);
    }
    this.state = { ...wanted, tileset: tileset?.name ?? null, version };
    if (isOther || !this.view) this.clear();
    /** Camera of the link, for when the first root has arrived. */
    this.wantedPose = wanted.position && wanted.target ? { position: wanted.position, target: wanted.target } : null;
    if (this.wantedPose && this.stage.frame) this.stage.pose = this.wantedPose;
    const found = this.version;
    if (found) this.load(found);
    this.setMode(wanted.mode);
    this.applyOptions();
  }

  /** Open the link in the address bar. */
  openLink() {
    this.open(parseLink(location.hash));
  }

  /** @param {string} name */
  showTileset(name) {
    if (name === this.state.tileset) return;
    this.news = null;
    this.open({ ...this.state, tileset: name, version: null, compare: null, mode: "single", position: null, target: null });
  }

  /** @param {string | null} name of a version of the same tileset; the camera stays */
  showVersion(name) {
    if (name === null || name === this.state.version) return;
    if (this.news?.version === name) this.news = null;
    this.remarks = [];
    this.state.version = name;
    if (this.state.compare === name) this.state.compare = null;
    if (this.version) this.load(this.version);
    this.setMode(this.state.mode);
  }

  /** @param {import("./server.js").Version} version that becomes the main one */
  load(version) {
    const key = keyOf(version);
    if (this.view?.key === key) return this.dropNext();
    if (this.next?.key === key) return;
    this.dropNext();
    const view = this.createView(version);
    if (!this.view) this.become(view);
    else [this.next, this.nextSince] = [view, performance.now()];
    this.onChange();
  }

  /** @param {import("./server.js").Version} version */
  createView(version) {
    const view = new TilesetView({ url: this.absolute(version.url), key: keyOf(version), stage: this.stage, onChange: this.onChange });
    this.applyOptionsTo(view);
    return view;
  }

  /** Replace the old version when the new one is complete. Call it often. */
  settle() {
    const { next } = this;
    if (!next) return;
    const isLate = performance.now() - this.nextSince > MAX_SWITCH_MS;
    if (next.rootFailed || isLate || (next.tiles.root && next.hasSettled)) {
      this.next = null;
      this.become(next);
    }
  }

  /** @param {TilesetView} view */
  become(view) {
    const old = this.view;
    this.view = view;
    this.stage.main = view;
    old?.dispose();
    if (this.state.mode === "changes") this.compare();
    this.stage.invalidate();
    this.onChange();
  }

  dropNext() {
    this.next?.dispose();
    this.next = null;
  }

  /** Remove everything: another tileset is coming. */
  clear() {
    this.dropNext();
    this.dropOther();
    this.view?.dispose();
    this.view = null;
    this.stage.frame = null;
  }

  dropOther() {
    this.other?.dispose();
    this.other = null;
    this.stage.left = null;
  }

  views() {
    return [this.view, this.next, this.other].filter((view) => view !== null);
  }

  /** @param {string} url relative to the page */
  absolute(url) {
    return new URL(url, document.baseURI).href;
  }

  /** A root has arrived: the first one decides on the camera. @param {TilesetView} view */
  placed(view) {
    if (view === this.view && !this.hasCamera) {
      this.hasCamera = true;
      if (this.wantedPose) this.stage.pose = this.wantedPose;
      else this.stage.fit();
    }
    if (view === this.view && this.state.mode === "changes") this.showRemoved();
  }

  /** True once the camera stands for the tileset that is shown. @returns {boolean} */
  get hasCamera() {
    return this.cameraFor !== undefined && this.cameraFor === this.state.tileset;
  }

  set hasCamera(has) {
    this.cameraFor = has ? this.state.tileset : undefined;
  }

  // --- comparison ---

  /** @param {import("./link.js").Mode} mode */
  setMode(mode) {
    this.state.mode = mode;
    this.comparisonProblem = "";
    this.comparisonNote = "";
    if (mode !== "single" && !this.compared) this.state.compare = this.chooseCompared();
    if (mode !== "single" && !this.compared) this.comparisonProblem = "There is only one version, so there is nothing to compare it with.";
    if (mode !== "swipe" || !this.compared) this.dropOther();
    if (mode !== "changes" || !this.compared) this.clearChanges();
    if (mode === "swipe" && this.compared) this.showOther(this.compared);
    if (mode === "changes" && this.compared) this.compare();
    this.stage.invalidate();
    this.onChange();
  }

  /** @param {string} name */
  setCompared(name) {
    this.state.compare = name;
    this.setMode(this.state.mode);
  }

  /** Name of the version before the one that is shown; if it is the oldest, of the one after it. */
  chooseCompared() {
    const versions = this.tileset?.versions ?? [];
    const at = versions.findIndex(({ name }) => name === this.state.version);
    return (versions[at + 1] ?? versions[at - 1])?.name ?? null;
  }

  /** @param {import("./server.js").Version} version */
  showOther(version) {
    if (this.other?.key === keyOf(version)) return;
    this.dropOther();
    this.other = this.createView(version);
    this.stage.left = this.other;
    this.stage.swipe = this.state.swipe;
  }

  clearChanges() {
    this.comparisonNumber++;
    if (!this.changes) return;
    this.changes = null;
    this.view?.colourBy(null);
    this.view?.showRemoved([]);
  }

  /** Colour the tiles by what happened to them since the other version. */
  async compare() {
    const number = ++this.comparisonNumber;
    const { tileset, version, compare } = this.state;
    if (!tileset || !version || !compare) return;
    this.pendingWork++;
    try {
      const changes = new Changes(await this.server.readDiff(tileset, compare, version));
      if (number !== this.comparisonNumber) return;
      this.changes = changes;
      this.view?.colourBy(changes);
      await this.showRemoved();
    } catch (error) {
      if (number === this.comparisonNumber) this.comparisonProblem = describeError(error);
    } finally {
      this.pendingWork--;
      this.onChange();
    }
  }

  /** Show the tiles that are gone as boxes. */
  async showRemoved() {
    const { view, changes, compared } = this;
    if (!view?.tiles.root || !changes || !compared) return;
    if (!changes.removed.size) return view.showRemoved([]);
    this.pendingWork++;
    try {
      const { tiles, isComplete } = await findRemovedTiles({
        url: this.absolute(compared.url), removed: new Set(changes.removed.keys()), readJson: (url) => this.readJson(url),
      });
      if (this.view !== view || this.changes !== changes) return;
      view.showRemoved(tiles);
      this.comparisonNote = isComplete ? "" : "The older version has very many tilesets: not all removed tiles are shown as boxes.";
    } catch (error) {
      this.comparisonProblem = `The removed tiles cannot be shown: ${describeError(error)}`;
    } finally {
      this.pendingWork--;
      this.onChange();
    }
  }

  /** @param {string} url */
  async readJson(url) {
    const response = await this.server.send(url);
    if (!response.ok) throw new ServerError(response.status, `${url} cannot be read (status ${response.status}).`);
    return response.json();
  }

  // --- options ---

  /** @param {Partial<import("./link.js").ViewState>} options */
  setOptions(options) {
    Object.assign(this.state, options);
    this.applyOptions();
  }

  applyOptions() {
    for (const view of this.views()) this.applyOptionsTo(view);
    this.stage.swipe = this.state.swipe;
    this.stage.invalidate();
    this.onChange();
  }

  /** @param {TilesetView} view */
  applyOptionsTo(view) {
    const { error, boxes, wireframe } = this.state;
    if (view.tiles.errorTarget !== error) view.setErrorTarget(error);
    if (view.showsBoxes !== boxes) view.setBoxes(boxes);
    if (view.wireframe !== wireframe) view.setWireframe(wireframe);
  }

  /** State with the camera as it is now, for the link. @returns {import("./link.js").ViewState} */
  snapshot() {
    const pose = this.hasCamera ? this.stage.pose : null;
    return { ...this.state, position: pose?.position ?? this.state.position, target: pose?.target ?? this.state.target };
  }

  get isIdle() {
    return this.site !== null && this.pendingWork === 0 && this.next === null && this.stage.isIdle;
  }
}

/** Key of the view of a version: in the flat layout, all versions have the same address, one after the other.
 * @param {import("./server.js").Version} version */
const keyOf = ({ name, url }) => `${name} ${url}`;

/** @param {import("./tileset_view.js").TileProblem} problem that may be over when the server answers again */
const isOutage = ({ status }) => status === 0 || status === 401 || status >= 500;

/**
 * Version to show: the wanted one, or the current one, or the newest.
 * @param {import("./server.js").Tileset} tileset @param {string | null} wanted a name or the unique beginning of one
 */
export function chooseVersion(tileset, wanted) {
  const names = tileset.versions.map(({ name }) => name);
  if (wanted !== null) {
    const matching = names.includes(wanted) ? [wanted] : names.filter((name) => name.startsWith(wanted));
    if (matching.length === 1) return matching[0];
  }
  if (tileset.current !== null && names.includes(tileset.current)) return tileset.current;
  return (tileset.versions.find(({ current }) => current) ?? tileset.versions[0])?.name ?? null;
}

/** @param {unknown} error */
export function describeError(error) {
  if (error instanceof ServerError) return [error.message, error.hint].filter(Boolean).join(" ");
  return error instanceof Error ? error.message : String(error);
}
