/**
 * Images that many tiles refer to, as mesh exports have them: each is loaded, kept and sent to the graphics card once.
 * By itself, 3d-tiles-renderer 0.5.3 decodes the image anew for each tile, until its cache is full.
 */

import { ImageLoader, Texture } from "three";
// @ts-expect-error the declarations of 3d-tiles-renderer 0.5.3 leave it out
import { MemoryUtils } from "3d-tiles-renderer/three";

/**
 * An image. `first` is its first texture, whose source the others share.
 * `holders` are these others, until they are disposed of, each with its tile; null until the tile is parsed.
 * @typedef {{first: Promise<Texture>, holders: Map<Texture, any>}} Entry
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
    /** @type {Set<Texture>} those that the parser got for its tile */
    const textures = new Set();
    let isParsed = false;
    const load = (/** @type {string} */ url, /** @type {(texture: Texture) => void} */ done, /** @type {unknown} */ _, /** @type {(error: unknown) => void} */ fail) => {
      this.load(url).then((texture) => {
        textures.add(texture);
        if (isParsed) texture.dispose(); // the tile has failed meanwhile
        done(texture);
      }, fail);
    };
    const end = (/** @type {any} */ scene) => {
      isParsed = true;
      this.keepUsed(textures, scene);
    };
    const parse = parser.parse.bind(parser);
    parser.parse = (/** @type {(gltf: any) => void} */ done, /** @type {(error: unknown) => void} */ fail) => {
      parse((/** @type {any} */ gltf) => {
        end(gltf.scene);
        done(gltf);
      }, (/** @type {unknown} */ error) => { // the renderer disposes of nothing then
        end(null);
        fail(error);
      });
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
      entry = { first: this.loadFirst(url), holders: new Map() };
      this.entries.set(url, entry);
      entry.first.catch(() => { // the next tile asks again
        this.entries.delete(url);
        this.failed.add(url);
      });
    }
    // Neither clone() nor needsUpdate: they would send the image to the graphics card once for each tile.
    const texture = new Texture();
    this.hold(entry, texture, url);
    texture.source = (await entry.first).source;
    texture.version = 1;
    texture.userData.tilesyncImage = url;
    return texture;
  }

  /**
   * The renderer disposes of the textures of a tile when it is unloaded, and also when its load is aborted.
   * Then the tile itself is disposed of before it is parsed, so that disposeTile() cannot release its images.
   * @param {Entry} entry @param {Texture} texture @param {string} url
   */
  hold(entry, texture, url) {
    entry.holders.set(texture, null);
    const release = () => {
      texture.removeEventListener("dispose", release);
      const payer = findPayer(entry);
      entry.holders.delete(texture);
      const next = findPayer(entry);
      if (payer === texture && next) this.tiles.recalculateBytesUsed(entry.holders.get(next));
      if (entry.holders.size) return;
      this.entries.delete(url);
      entry.first.then((first) => first.dispose());
    };
    texture.addEventListener("dispose", release);
  }

  /**
   * Hold the textures of a model, also copies that the loader made (KHR_texture_transform); release those not in it.
   * @param {Set<Texture>} textures @param {any} scene null if the tile could not be parsed
   */
  keepUsed(textures, scene) {
    const used = scene ? listShared(scene) : new Set();
    for (const texture of used) {
      const url = texture.userData.tilesyncImage;
      const entry = this.entries.get(url);
      if (entry && !entry.holders.has(texture)) this.hold(entry, texture, url);
    }
    for (const texture of textures) if (!used.has(texture)) texture.dispose();
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
    for (const texture of listShared(scene)) this.entries.get(texture.userData.tilesyncImage)?.holders.set(texture, tile);
  }

  /** Bytes that are already counted for another tile. @param {any} tile @param {any} scene */
  calculateBytesUsed(tile, scene) {
    let counted = 0;
    for (const texture of scene ? listShared(scene) : []) {
      const entry = this.entries.get(texture.userData.tilesyncImage);
      if (entry && findPayer(entry) !== texture) counted += MemoryUtils.getTextureByteLength(texture);
    }
    return -counted;
  }
}

/** The texture whose tile the bytes of an image are counted for. @param {Entry} entry */
function findPayer({ holders }) {
  for (const [texture, tile] of holders) if (tile) return texture;
  return null;
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
