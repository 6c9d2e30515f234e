/**
 * Tiles that 3d-tiles-renderer 0.5.3 does not read by itself: several contents (3D Tiles 1.1 `contents`, and
 * 3DTILES_multiple_contents), implicit tiling as an extension of 1.0, repeated variables in templates, composites in
 * composites, tilesets that contain themselves, and tilesets at the root of a server.
 *
 * The renderer loads the first content of a tile. This plugin loads the others with it and puts them into its scene.
 */

import { Group } from "three";
import { flattenComposite } from "./composite.js";

const IS_TILESET = /\.json([?#]|$)/i;
const VARIABLES = /(?:%7B|\{)(level|x|y|z)(?:%7D|\})/gi;

export class ContentsPlugin {
  /**
   * @param {(message: string) => void} onNote called with what cannot be shown
   * @param {(tile: any, url: string, error: Error) => void} onProblem called with a tile that is not loaded
   */
  constructor(onNote = () => {}, onProblem = () => {}) {
    this.name = "TILESYNC_CONTENTS";
    this.priority = -10; // before the plugin for implicit tiling, which reads what is written here
    this.onNote = onNote;
    this.onProblem = onProblem;
    /** @type {any} */
    this.tiles = null;
    /** @type {WeakMap<object, string[]>} */
    this.more = new WeakMap();
  }

  /** @param {any} tiles */
  init(tiles) {
    this.tiles = tiles;
  }

  /** @param {any} tile @param {string} _folder @param {any} parent */
  preprocessNode(tile, _folder, parent) {
    // Of a tileset at the root of the server, the folder already ends with a slash, and the renderer adds another one.
    tile.internal.basePath = tile.internal.basePath.replace(/\/+$/, "");
    const implicit = tile.extensions?.["3DTILES_implicit_tiling"];
    if (implicit && !tile.implicitTiling) {
      tile.implicitTiling = { availableLevels: (implicit.maximumLevel ?? 0) + 1, ...implicit };
    }
    this.breakCycle(tile);
    const contents = listContents(tile);
    if (contents.length === 0) return;
    if (tile.implicitTiling) {
      // The loader of subtrees fills one template in.
      tile.content = contents[0];
      this.onNote("Tiles of this implicit tiling have several contents; only the first of each is shown.");
    } else {
      this.split(tile, contents);
    }
    this.classify(tile, parent);
  }

  /** Take the content away from a tile that leads back to a tileset it lies in: it would never end.
   * Source: 3D Tiles 1.1, "External Tilesets": they must not form cycles. @param {any} tile */
  breakCycle(tile) {
    if (!IS_TILESET.test(tile.content?.uri ?? "")) return;
    const url = contentUrl(tile);
    const above = [new URL(this.tiles.rootURL, document.baseURI).href];
    for (let each = tile.parent; each; each = each.parent) if (each.internal.hasUnrenderableContent) above.push(contentUrl(each));
    if (!above.includes(url)) return;
    delete tile.content;
    Object.assign(tile.internal, { hasContent: false, hasUnrenderableContent: false });
    this.onProblem(tile, url, new Error("this tileset contains itself"));
  }

  /** Divide contents: one that the renderer loads, others that go with it, and tilesets, which become children.
   * @param {any} tile @param {any[]} contents */
  split(tile, contents) {
    const models = contents.filter(({ uri }) => !IS_TILESET.test(uri));
    const tilesets = contents.filter(({ uri }) => IS_TILESET.test(uri));
    if (models.length) {
      tile.content = models[0];
      this.more.set(tile, models.slice(1).map(({ uri }) => uri));
    }
    if (tilesets.length && !tile.children?.length) tile.refine = "ADD"; // they do not replace the models beside them
    const { boundingVolume, geometricError } = tile;
    tile.children = [
      ...(tile.children ?? []),
      ...tilesets.map((content) => ({ boundingVolume, geometricError, refine: "ADD", content })),
    ];
  }

  /** Say again what kind of content the tile has: the renderer looked before there was one.
   * @param {any} tile @param {any} parent */
  classify(tile, parent) {
    const { internal } = tile;
    if (!tile.content?.uri || internal.hasContent) return;
    internal.hasContent = true;
    internal.hasUnrenderableContent = IS_TILESET.test(tile.content.uri);
    internal.hasRenderableContent = !internal.hasUnrenderableContent;
    internal.depthFromRenderedParent = (parent?.internal.depthFromRenderedParent ?? 0) + (internal.hasRenderableContent ? 1 : 0);
  }

  /** @param {string} url @param {any} tile */
  preprocessURL(url, tile) {
    const at = tile?.implicitTilingData;
    return at ? url.replace(VARIABLES, (_, key) => at[key.toLowerCase()]) : url;
  }

  /** @param {ArrayBuffer} buffer @param {any} tile @param {string} extension @param {string} url @param {AbortSignal} signal */
  parseTile(buffer, tile, extension, url, signal) {
    if (!(buffer instanceof ArrayBuffer)) return null;
    const more = this.more.get(tile) ?? [];
    const flat = flattenComposite(buffer);
    return more.length || flat !== buffer ? this.parseAll(flat, tile, extension, url, signal, more) : null;
  }

  /** Parse one content after the other; the renderer keeps the result of the last one, so each is taken away first.
   * @param {ArrayBuffer} buffer @param {any} tile @param {string} extension @param {string} url @param {AbortSignal} signal @param {string[]} more */
  async parseAll(buffer, tile, extension, url, signal, more) {
    const { tiles } = this;
    const whole = { scene: new Group(), materials: [], geometry: [], textures: [] };
    const keep = () => {
      const { engineData } = tile;
      if (!engineData.scene) return;
      whole.scene.add(engineData.scene);
      for (const key of /** @type {const} */ (["materials", "geometry", "textures"])) whole[key].push(.../** @type {never[]} */ (engineData[key]));
      engineData.scene = null;
    };
    const parse = async (/** @type {ArrayBuffer} */ content, /** @type {string} */ suffix, /** @type {string} */ address) => {
      await tiles.parseTile(content, tile, suffix, address, signal);
      keep();
    };
    await parse(buffer, extension, url);
    for (const uri of more) {
      const address = new URL(uri, `${tile.internal.basePath}/`).toString();
      const response = await tiles.invokeOnePlugin((/** @type {any} */ plugin) => plugin.fetchData?.(address, { ...tiles.fetchOptions, signal }));
      const part = response instanceof Response ? await response.arrayBuffer() : response;
      await parse(flattenComposite(part), addressExtension(address), address);
    }
    if (signal.aborted) return;
    whole.scene.userData.tile = tile;
    Object.assign(tile.engineData, whole);
  }
}

/** @param {any} tile @returns {any[]} the contents of a tile that has several, in the forms of 1.1 and of the extension */
export function listContents(tile) {
  const extension = tile.extensions?.["3DTILES_multiple_contents"];
  const contents = tile.contents ?? extension?.contents ?? extension?.content ?? [];
  return contents.map((/** @type {any} */ each) => ({ ...each, uri: each.uri ?? each.url })).filter((/** @type {any} */ each) => each.uri);
}

/** @param {any} tile @returns {string} */
const contentUrl = (tile) => new URL(tile.content.uri, `${tile.internal.basePath}/`).href.replace(/#.*/, "");

/** @param {string} url */
const addressExtension = (url) => /\.([^./]+)$/.exec(new URL(url).pathname)?.[1] ?? "";
