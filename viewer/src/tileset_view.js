/**
 * One version of a tileset in the scene: its tiles, errors, boxes and colours.
 *
 * @typedef {{name: string | null, url: string, status: number, message: string, tile: any}} TileProblem
 */

import { Matrix4, MeshStandardMaterial, PointsMaterial, Sphere } from "three";
import { TilesRenderer } from "3d-tiles-renderer/three";
import { ImplicitTilingPlugin } from "3d-tiles-renderer/core/plugins";
import { BoxSet, boxCorners, volumeBox } from "./boxes.js";
import { CHANGE_COLOURS } from "./changes.js";
import { ContentsPlugin } from "./contents_plugin.js";
import { lacksTexture, makeLoaderPlugin } from "./decoders.js";
import { classifyPlace, makeFrame } from "./geometry.js";
import { fileName, folderUrl } from "./names.js";
import { describeProblem, refuseEmpty } from "./problems.js";
import { ServerError, readError } from "./server.js";
import { SharedImagesPlugin } from "./shared_images.js";
import { SubtreePlugin } from "./subtree_plugin.js";
import { prepareTint, setTint } from "./tint.js";

const BOX_COLOUR = 0x4c8dff;
const ERROR_COLOUR = 0xe03131;
const SELECTED_COLOUR = 0x00b7ff;
const MAX_PROBLEMS = 500;
const QUIET_FRAMES = 2;
/** Memory of tiles: the limit, and what is kept of tiles out of view. */
const CACHE_BYTES = { desktop: [800e6, 600e6], phone: [300e6, 200e6] };
/** Without an environment to reflect, a metal is black. */
const MAX_METALNESS = 0.2;
/** Points of one pixel leave so many gaps that their colours look pale. */
const POINT_PX = 2.5;

export class TilesetView {
  /**
   * @param {{url: string, key: string, stage: import("./stage.js").Stage, onChange: () => void}} options
   *   `url`: absolute, of the root tileset; `key`: tells it from other versions at the same address; `onChange`: called when something must be drawn or listed anew
   */
  constructor({ url, key, stage, onChange }) {
    this.url = url;
    this.key = key;
    this.base = folderUrl(url);
    this.stage = stage;
    this.onChange = onChange;
    /** @type {TileProblem[]} */
    this.problems = [];
    /** @type {Set<any>} */
    this.failedTiles = new Set();
    /** @type {Set<any>} tiles that are drawn without one of their textures */
    this.incompleteTiles = new Set();
    /** @type {Set<string>} URLs that the browser must not answer from its cache: the file there is the broken one */
    this.reloaded = new Set();
    /** @type {Set<string>} what cannot be shown, in words */
    this.notes = new Set();
    this.toLocal = new Matrix4();
    /** @type {any} */
    this.selected = null;
    /** @type {import("./changes.js").Changes | null} */
    this.changes = null;
    this.wireframe = false;
    this.showsBoxes = false;
    this.boxes = new BoxSet({ colour: BOX_COLOUR });
    this.errorBoxes = new BoxSet({ colour: ERROR_COLOUR, faces: 0.18 });
    this.selectedBox = new BoxSet({ colour: SELECTED_COLOUR });
    this.removedBoxes = new BoxSet({ colour: CHANGE_COLOURS.removed, faces: 0.28 });
    /** True once everything that the first picture needs has been loaded. */
    this.hasSettled = false;
    this.quietFrames = 0;
    this.tiles = this.createRenderer();
    stage.addView(this);
  }

  /** The frame of the tileset; null until the root is loaded. @returns {import("./geometry.js").Frame | null} */
  get ownFrame() {
    const { root } = this.tiles;
    if (!root) return null;
    const { center } = this.boundingSphere();
    const centre = /** @type {import("./geometry.js").Vector} */ (center.toArray());
    const isRegion = "region" in root.boundingVolume;
    return makeFrame(centre, classifyPlace({ centre, transform: root.transform, isRegion }));
  }

  /** True while something is on its way that may change the picture. */
  get busy() {
    const { tiles } = this;
    if (!tiles.root) return !this.rootFailed;
    const { queued, downloading, parsing } = tiles.stats;
    return tiles.isLoading || tiles.processNodeQueue.running || queued + downloading + parsing > 0;
  }

  /** True until nothing was on its way for some frames: the frame after the last tile may ask for more. */
  get isUnsettled() {
    return this.busy || (this.tiles.root !== null && this.quietFrames < QUIET_FRAMES);
  }

  get rootFailed() {
    return !this.tiles.root && this.problems.some(({ tile }) => tile === null);
  }

  createRenderer() {
    const tiles = /** @type {any} */ (new TilesRenderer(this.url));
    const note = (/** @type {string} */ message) => this.addNote(message);
    tiles.registerPlugin(new ContentsPlugin(note, (tile, url, error) => this.addProblem(tile, url, error)));
    tiles.registerPlugin(new SubtreePlugin());
    tiles.registerPlugin(new ImplicitTilingPlugin());
    const images = new SharedImagesPlugin();
    tiles.registerPlugin(images);
    tiles.registerPlugin(makeLoaderPlugin(this.stage.renderer, images));
    tiles.registerPlugin({ name: "TILESYNC_FETCH", fetchData: (/** @type {any} */ url, /** @type {any} */ options) => this.fetch(String(url), options) });
    const [most, least] = matchMedia("(pointer: coarse)").matches ? CACHE_BYTES.phone : CACHE_BYTES.desktop;
    Object.assign(tiles.lruCache, { maxBytesSize: most, minBytesSize: least }); // shared by all views
    tiles.setCamera(this.stage.camera);
    tiles.addEventListener("load-root-tileset", () => this.stage.placeView(this));
    tiles.addEventListener("load-model", (/** @type {any} */ event) => this.prepareModel(event.scene, event.tile));
    tiles.addEventListener("dispose-model", (/** @type {any} */ event) => event.tile === this.selected && this.select(null));
    tiles.addEventListener("load-error", (/** @type {any} */ event) => this.addProblem(event.tile, event.url, event.error));
    tiles.manager.onError = (/** @type {string} */ url) => this.addProblem(undefined, url, new ServerError(0, "A texture or buffer of a tile cannot be loaded."));
    for (const type of ["needs-update", "tile-visibility-change", "load-tileset", "tiles-load-end"]) {
      tiles.addEventListener(type, () => this.changed());
    }
    return tiles;
  }

  /** Note that the picture is out of date. */
  changed() {
    this.boxesAreStale = true;
    this.stage.invalidate();
    this.onChange();
  }

  /** @param {string} message */
  addNote(message) {
    if (this.notes.has(message)) return;
    this.notes.add(message);
    this.onChange();
  }

  /** @param {Matrix4} toLocal from the coordinates of the tileset to the local frame of the stage */
  place(toLocal) {
    this.toLocal.copy(toLocal);
    const { group } = this.tiles;
    toLocal.decompose(group.position, group.quaternion, group.scale);
    group.updateMatrixWorld(true);
    this.showErrorBoxes();
    this.changed();
  }

  /** Bounding sphere of the root, in the coordinates of the tileset. */
  boundingSphere() {
    const sphere = new Sphere();
    const { boundingVolume } = this.tiles.root.engineData;
    if (boundingVolume.sphere) sphere.copy(boundingVolume.sphere);
    else {
      const corners = boxCorners(volumeBox(boundingVolume, new Matrix4()));
      corners.forEach((corner) => sphere.center.addScaledVector(corner, 1 / corners.length));
      sphere.radius = Math.max(...corners.map((corner) => corner.distanceTo(sphere.center)));
    }
    return sphere;
  }

  /** Corners of the root's bounding volume in the local frame. */
  corners() {
    return boxCorners(volumeBox(this.tiles.root.engineData.boundingVolume, this.toLocal));
  }

  /** Load what is missing for the camera, and show what is there. Call it for each frame that may be drawn. */
  update() {
    this.tiles.setResolutionFromRenderer(this.stage.camera, this.stage.renderer);
    this.tiles.update();
    if (this.tiles.root && !this.busy) this.quietFrames++;
    else this.quietFrames = 0;
    if (!this.isUnsettled) this.hasSettled = true;
    if (this.showsBoxes && this.boxesAreStale) this.boxes.show(this.boxesOf(this.tiles.visibleTiles));
    this.boxesAreStale = false;
  }

  /** @param {Iterable<any>} tiles */
  boxesOf(tiles) {
    return [...tiles].map((tile) => ({ name: this.nameOf(tile), matrix: volumeBox(tile.engineData.boundingVolume, this.toLocal) }));
  }

  /** @param {boolean} hidden */
  set hidden(hidden) {
    for (const object of this.objects()) object.visible = !hidden;
    this.boxes.visible = !hidden && this.showsBoxes;
  }

  objects() {
    return [this.tiles.group, this.errorBoxes, this.selectedBox, this.removedBoxes, this.boxes];
  }

  // --- tiles ---

  /** @param {any} scene @param {any} tile */
  prepareModel(scene, tile) {
    scene.traverse((/** @type {any} */ part) => {
      for (const material of [part.material ?? []].flat()) {
        prepareTint(material);
        if (material instanceof MeshStandardMaterial && !material.envMap) material.metalness = Math.min(material.metalness, MAX_METALNESS);
        if ("wireframe" in material) material.wireframe = this.wireframe;
        if (material instanceof PointsMaterial) Object.assign(material, { sizeAttenuation: false, size: POINT_PX * this.stage.renderer.getPixelRatio() });
      }
    });
    this.paint(tile);
    this.failedTiles.delete(tile);
    if (lacksTexture(scene)) this.incompleteTiles.add(tile);
    else this.incompleteTiles.delete(tile);
    this.problems = this.problems.filter((problem) => problem.tile !== tile);
    this.changed();
  }

  /** Give a tile the colour of its change, or that of the selection. @param {any} tile */
  paint(tile) {
    const change = this.changes?.of(this.nameOf(tile));
    const colour = tile === this.selected ? SELECTED_COLOUR : change ? CHANGE_COLOURS[change] : 0;
    const share = tile === this.selected ? 0.5 : change ? 0.8 : 0;
    for (const material of tile.engineData.materials ?? []) setTint(material, colour, share);
  }

  /** @param {(tile: any) => void} visit */
  forEachLoaded(visit) {
    this.tiles.forEachLoadedModel((/** @type {any} */ _scene, /** @type {any} */ tile) => visit(tile));
  }

  /** @param {import("./changes.js").Changes | null} changes to colour the tiles by; null for their own colours */
  colourBy(changes) {
    this.changes = changes;
    this.forEachLoaded((tile) => this.paint(tile));
    this.changed();
  }

  /** @param {{name: string, volume: any}[]} tiles of the older version that are gone */
  showRemoved(tiles) {
    this.removedBoxes.show(tiles.map(({ name, volume }) => ({ name, matrix: volumeBox(volume, this.toLocal) })));
    this.changed();
  }

  /** @param {boolean} on */
  setWireframe(on) {
    this.wireframe = on;
    this.forEachLoaded((tile) => {
      for (const material of tile.engineData.materials ?? []) if ("wireframe" in material) material.wireframe = on;
    });
    this.changed();
  }

  /** @param {boolean} on */
  setBoxes(on) {
    this.showsBoxes = on;
    this.boxes.visible = on;
    if (!on) this.boxes.show([]);
    this.changed();
  }

  /** @param {number} pixels that a tile may be wrong by */
  setErrorTarget(pixels) {
    this.tiles.errorTarget = pixels;
    this.changed();
  }

  /** @param {any} tile to mark, or null */
  select(tile) {
    const last = this.selected;
    this.selected = tile;
    if (last?.engineData) this.paint(last);
    if (tile) this.paint(tile);
    this.selectedBox.show(tile ? this.boxesOf([tile]) : []);
    this.changed();
  }

  /** @param {any} tile @returns {string} the absolute URL of its content */
  urlOf(tile) {
    return tile.content?.uri ? new URL(tile.content.uri, `${tile.internal.basePath}/`).href : "";
  }

  /** @param {any} tile @returns {string | null} the name of its file in the manifest; null for a `data:` URI */
  nameOf(tile) {
    return fileName(this.urlOf(tile), this.base);
  }

  /** @param {string} url @param {RequestInit} options */
  fetch(url, options) {
    return fetchTile(url, this.reloaded.has(url) ? { ...options, cache: "reload" } : options);
  }

  // --- errors ---

  /** @param {any} tile null for the root, undefined if it is not known @param {string | URL} url @param {any} error */
  addProblem(tile, url, error) {
    const isInside = String(url).startsWith("blob:"); // an image in a GLB; its address says nothing
    const address = isInside ? "A texture inside a tile" : String(url);
    const name = tile?.content ? this.nameOf(tile) : fileName(address, this.base);
    const status = error instanceof ServerError ? error.status : 0;
    if (tile) this.failedTiles.add(tile);
    const others = this.problems.filter((problem) => problem.url !== address);
    this.problems = [...others, { name, url: address, status, message: describeProblem(error), tile }].slice(-MAX_PROBLEMS);
    this.showErrorBoxes();
    this.changed();
  }

  showErrorBoxes() {
    this.errorBoxes.show(this.boxesOf([...this.failedTiles].filter((tile) => tile.engineData?.boundingVolume)));
  }

  /** Request what failed once more, and tiles whose textures failed. */
  retry() {
    this.problems = [];
    // resetFailedTiles() of 3d-tiles-renderer 0.5.3 keeps failed tiles in its cache, so that they are not requested again,
    // and throws where a tile was not reached yet. It is good for the root only.
    for (const tile of [...this.failedTiles, ...this.incompleteTiles]) {
      this.reloaded.add(this.urlOf(tile));
      this.tiles.lruCache.remove(tile);
    }
    this.failedTiles.clear();
    this.incompleteTiles.clear();
    this.showErrorBoxes();
    if (this.tiles.root) this.tiles.stats.failed = 0;
    else this.tiles.resetFailedTiles();
    this.changed();
  }

  dispose() {
    this.stage.removeView(this);
    for (const box of [this.boxes, this.errorBoxes, this.selectedBox, this.removedBoxes]) box.dispose();
    this.tiles.dispose();
  }
}

/** @param {string} url @param {RequestInit} options */
async function fetchTile(url, options) {
  let response;
  try {
    response = await fetch(url, options);
  } catch (error) {
    if (error instanceof Error && error.name === "AbortError") throw error;
    throw new ServerError(0, "The server does not answer.");
  }
  if (!response.ok) throw await readError(response);
  refuseEmpty(response);
  return response;
}
