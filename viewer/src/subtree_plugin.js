/**
 * JSON subtrees, which 3d-tiles-renderer 0.5.3 does not read: turned into binary ones, with a name that it takes for one.
 * Source: 3D Tiles 1.1, implicit tiling, "Subtree JSON Format" and "Subtree Binary Format".
 */

import { refuseEmpty } from "./problems.js";

const MARK = ".tilesync.subtree";
const HEADER_BYTES = 24;

export class SubtreePlugin {
  constructor() {
    this.name = "TILESYNC_SUBTREES";
    this.priority = -9; // after ContentsPlugin, before the one for implicit tiling
  }

  /** @param {any} tile */
  preprocessNode(tile) {
    const subtrees = tile.implicitTiling?.subtrees;
    if (subtrees && /\.json$/i.test(subtrees.uri)) subtrees.uri += MARK;
  }

  /** @param {string | URL} url @param {RequestInit} options */
  fetchData(url, options) {
    const address = String(url);
    return address.endsWith(MARK) ? this.fetchSubtree(address.slice(0, -MARK.length), options) : null;
  }

  /** @param {string} url @param {RequestInit} options */
  async fetchSubtree(url, options) {
    const response = await fetch(url, options);
    refuseEmpty(response);
    return response.ok ? new Response(packSubtree(new Uint8Array(await response.arrayBuffer()))) : response;
  }
}

/** @param {Uint8Array} json @returns {Uint8Array<ArrayBuffer>} a binary subtree without a buffer of its own */
export function packSubtree(json) {
  const length = Math.ceil(json.length / 8) * 8;
  const packed = new Uint8Array(HEADER_BYTES + length).fill(0x20, HEADER_BYTES);
  const header = new DataView(packed.buffer);
  packed.set(new TextEncoder().encode("subt"));
  header.setUint32(4, 1, true);
  header.setBigUint64(8, BigInt(length), true);
  packed.set(json, HEADER_BYTES);
  return packed;
}
