/**
 * Images that many tiles refer to, as mesh exports have them: each is loaded, kept and sent to the graphics card once.
 * By itself, 3d-tiles-renderer 0.5.3 decodes the image anew for each tile, until its cache is full.
 */

import { ImageLoader, Texture } from "three";
import { MemoryUtils } from "3d-tiles-renderer/three";

/**
 * @typedef {{texture: Promise<Texture>, holders: Set<any>}} Entry  `texture` is the first one with the image; others share its source
 */

export class SharedImagesPlugin {
  constructor() {
    this.name = "TILESYNC_SHARED_IMAGES";
    /** @type {Map<string, Entry>} by the URL of the image */
    this.entries = new Map();
    /** @type {Set<string>} URLs of images that failed: the browser must not answer from its cache */
    this.failed = new Set();
    /** @type {any} */
    this.tiles = null;
  }

  /** @param {any} tiles */
  init(tiles) {
    this.tiles = tiles;
  }

  /** Plugin of GLTFLoader: takes over textures whose image is a file. @param {any} parser */
  makeLoader(parser) {
    const load = (/** @type {string} */ url, /** @type {(texture: Texture) => void} */ done, /** @type {unknown} */ _, /** @type {(error: unknown) => void} */ fail) => {
      this.load(url).then(done, fail);
    };
    return {
      name: "TILESYNC_SHARED_IMAGES",
      loadTexture: (/** @type {number} */ index) => {
        const { source, extensions } = parser.json.textures[index];
        const uri = parser.json.images?.[source]?.uri;
        if (!uri || extensions || /^(data|blob):/.test(uri)) return null;
        return parser.loadTextureImage(index, source, { load });
      },
    };
  }

  /** @param {string} url @returns {Promise<Texture>} a texture of its own, with the image that all share */
  async load(url) {
    let entry = this.entries.get(url);
    if (!entry) {
      entry = { texture: this.loadFirst(url), holders: new Set() };
      this.entries.set(url, entry);
      entry.texture.catch(() => { // the next tile asks again
        this.entries.delete(url);
        this.failed.add(url);
      });
    }
    const first = await entry.texture;
    // Neither clone() nor needsUpdate: they would send the image to the graphics card once for each tile.
    const texture = new Texture();
    texture.source = first.source;
    texture.version = 1;
    texture.userData.tilesyncImage = url;
    return texture;
  }

  /** @param {string} url */
  async loadFirst(url) {
    if (this.failed.delete(url)) await refreshCache(url);
    // No ImageBitmap: the renderer closes those of a tile, and others may still need this one.
    const image = await new ImageLoader(this.tiles.manager).loadAsync(url);
    await image.decode().catch((error) => { // beside the drawing, not in it
      this.tiles.manager.itemError(url);
      throw error;
    });
    const texture = new Texture(image);
    texture.needsUpdate = true;
    texture.userData.tilesyncImage = url;
    return texture;
  }

  /** @param {any} scene @param {any} tile */
  processTileModel(scene, tile) {
    for (const texture of listShared(scene)) this.entries.get(texture.userData.tilesyncImage)?.holders.add(tile);
  }

  /** Bytes that are already counted for another tile. @param {any} tile @param {any} scene */
  calculateBytesUsed(tile, scene) {
    let counted = 0;
    for (const texture of scene ? listShared(scene) : []) {
      const [first] = this.entries.get(texture.userData.tilesyncImage)?.holders ?? [tile];
      if (first !== tile) counted += MemoryUtils.getTextureByteLength(texture);
    }
    return -counted;
  }

  /** @param {any} tile */
  disposeTile(tile) {
    for (const [url, { holders, texture }] of this.entries) {
      const [payer] = holders;
      if (!holders.delete(tile)) continue;
      const [next] = holders;
      if (payer === tile && next) this.tiles.recalculateBytesUsed(next);
      if (holders.size) continue;
      this.entries.delete(url);
      texture.then((first) => first.dispose());
    }
  }
}

/** Have the browser replace the broken file in its cache. @param {string} url */
async function refreshCache(url) {
  try {
    await (await fetch(url, { cache: "reload" })).arrayBuffer();
  } catch (error) {
    console.warn(error); // the image itself is requested next, and its failure is listed
  }
}

/** @param {any} scene @returns {Set<Texture>} */
function listShared(scene) {
  const textures = new Set();
  scene.traverse((/** @type {any} */ part) => {
    for (const material of [part.material ?? []].flat()) {
      for (const value of Object.values(material)) if (value instanceof Texture && value.userData.tilesyncImage) textures.add(value);
    }
  });
  return textures;
}
