/**
 * Boxes of tiles whose content is gone: found in the older version's tileset JSON, external tilesets included.
 * Implicit tiles are computed from the names of their files: no subtree is read.
 */

import { Matrix4 } from "three";
import { TileBoundingVolume } from "3d-tiles-renderer/src/three/renderer/math/TileBoundingVolume.js";
import { WGS84_ELLIPSOID } from "3d-tiles-renderer/three";
import { listContents } from "./contents_plugin.js";
import { compileTemplate, divideVolume, fileName, folderUrl } from "./names.js";

const MAX_TILESETS = 500;
const IS_TILESET = /\.json([?#]|$)/i;

/**
 * Find the tiles of the removed files.
 * @param {{url: string, removed: Set<string>, readJson: (url: string) => Promise<any>}} request `url`: absolute, of the root tileset
 * @returns {Promise<{tiles: {name: string, volume: TileBoundingVolume}[], isComplete: boolean}>} the deepest ones only:
 *   a box around other boxes would hide them
 */
export async function findRemovedTiles({ url, removed, readJson }) {
  const base = folderUrl(url);
  /** @type {{name: string, volume: TileBoundingVolume, hit: {isDeepest: boolean}}[]} */
  const found = [];
  const seen = new Set([url]);
  const pending = [{ url, transform: new Matrix4(), hit: { isDeepest: true } }];
  for (let next = pending.pop(); next; next = pending.pop()) {
    const folder = folderUrl(next.url);
    const tileset = await readJson(next.url);
    const stack = [{ tile: tileset.root, parent: next.transform, hit: next.hit }];
    for (let entry = stack.pop(); entry; entry = stack.pop()) {
      const { tile } = entry;
      const transform = entry.parent.clone();
      if (tile.transform) transform.multiply(new Matrix4().fromArray(tile.transform));
      let hit = entry.hit;
      for (const uri of contentUris(tile)) {
        const address = new URL(uri, folder).href;
        if (implicitOf(tile)) {
          const template = fileName(address.replaceAll("%7B", "{").replaceAll("%7D", "}"), base);
          // No push(...): every argument is on the stack, which has no room for 200,000.
          for (const each of implicitTiles({ tile, template, removed, transform })) found.push(each);
        } else if (IS_TILESET.test(uri)) {
          if (seen.has(address) || seen.size >= MAX_TILESETS) continue;
          seen.add(address);
          pending.push({ url: address, transform, hit });
        } else {
          const name = fileName(address, base);
          if (name === null || !removed.has(name)) continue;
          entry.hit.isDeepest = false;
          hit = { isDeepest: true };
          found.push({ name, volume: makeVolume(tile.boundingVolume, transform), hit });
        }
      }
      for (const child of tile.children ?? []) stack.push({ tile: child, parent: transform, hit });
    }
  }
  return { tiles: found.filter(({ hit }) => hit.isDeepest), isComplete: seen.size < MAX_TILESETS };
}

/** @param {any} tile @returns {string[]} */
function contentUris(tile) {
  const single = tile.content?.uri ?? tile.content?.url;
  return [...(single ? [single] : []), ...listContents(tile).map(({ uri }) => uri)];
}

/** @param {any} tile */
const implicitOf = (tile) => tile.implicitTiling ?? tile.extensions?.["3DTILES_implicit_tiling"] ?? null;

/** @param {{tile: any, template: string | null, removed: Set<string>, transform: Matrix4}} request */
function implicitTiles({ tile, template, removed, transform }) {
  if (template === null) return [];
  const isOctree = implicitOf(tile).subdivisionScheme === "OCTREE";
  const match = compileTemplate(template);
  const places = [];
  let deepest = 0;
  for (const name of removed) {
    const at = match(name);
    if (!at) continue;
    places.push({ name, at });
    deepest = Math.max(deepest, at.level);
  }
  return places
    .filter(({ at }) => at.level === deepest)
    .map(({ name, at }) => ({
      name, volume: makeVolume(divideVolume(tile.boundingVolume, at, isOctree), transform), hit: { isDeepest: true },
    }));
}

/** @param {any} volume of a tile @param {Matrix4} transform */
function makeVolume(volume, transform) {
  const made = new TileBoundingVolume();
  if (volume.sphere) made.setSphereData(.../** @type {[number, number, number, number]} */ (volume.sphere), transform);
  if (volume.box) made.setObbData(volume.box, transform);
  // @ts-expect-error the declarations of 3d-tiles-renderer 0.5.3 call the ellipsoid a number
  if (volume.region) made.setRegionData(WGS84_ELLIPSOID, ...volume.region);
  return made;
}
