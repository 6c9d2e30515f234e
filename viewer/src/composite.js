/**
 * Composite tiles inside composite tiles, which 3d-tiles-renderer 0.5.3 leaves out.
 * Source: 3D Tiles 1.0, "Composite": a header of 16 bytes, then tiles with their lengths at byte 8.
 */

const HEADER_BYTES = 16;
const LENGTH_AT = 8;
const COUNT_AT = 12;

/** @param {ArrayBuffer} buffer @param {number} at @returns {string} the four letters of a format */
const magic = (buffer, at) => (buffer.byteLength >= at + 4 ? String.fromCharCode(...new Uint8Array(buffer, at, 4)) : "");

/**
 * List the tiles inside a composite tile, those of inner composites included.
 * @param {ArrayBuffer} buffer @param {number} [start] @returns {Uint8Array[]} Throws a RangeError if it is cut off.
 */
export function listInnerTiles(buffer, start = 0) {
  const view = new DataView(buffer, start);
  const tiles = [];
  let at = start + HEADER_BYTES;
  for (let left = view.getUint32(COUNT_AT, true); left > 0; left--) {
    const length = new DataView(buffer, at).getUint32(LENGTH_AT, true);
    if (length < HEADER_BYTES - 4) throw new RangeError("a tile inside the composite has no length");
    if (magic(buffer, at) === "cmpt") tiles.push(...listInnerTiles(buffer, at));
    else tiles.push(new Uint8Array(buffer, at, length));
    at += length;
  }
  return tiles;
}

/**
 * Make a composite of one level out of a composite that contains others.
 * @param {ArrayBuffer} buffer of any content
 * @returns {ArrayBuffer} the same one if there is nothing to do
 */
export function flattenComposite(buffer) {
  if (magic(buffer, 0) !== "cmpt") return buffer;
  const tiles = listInnerTiles(buffer);
  if (new DataView(buffer).getUint32(COUNT_AT, true) === tiles.length && !hasInner(buffer)) return buffer;
  const length = tiles.reduce((sum, tile) => sum + tile.length, HEADER_BYTES);
  const flat = new Uint8Array(length);
  flat.set(new Uint8Array(buffer, 0, HEADER_BYTES));
  const header = new DataView(flat.buffer);
  header.setUint32(LENGTH_AT, length, true);
  header.setUint32(COUNT_AT, tiles.length, true);
  let at = HEADER_BYTES;
  for (const tile of tiles) {
    flat.set(tile, at);
    at += tile.length;
  }
  return flat.buffer;
}

/** @param {ArrayBuffer} buffer of a composite @returns {boolean} true if a tile directly inside is a composite */
function hasInner(buffer) {
  const view = new DataView(buffer);
  let at = HEADER_BYTES;
  for (let left = view.getUint32(COUNT_AT, true); left > 0; left--) {
    if (magic(buffer, at) === "cmpt") return true;
    at += view.getUint32(at + LENGTH_AT, true);
  }
  return false;
}
