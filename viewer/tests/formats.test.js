import assert from "node:assert/strict";
import { test } from "node:test";
import { flattenComposite, listInnerTiles } from "../src/composite.js";
import { packSubtree } from "../src/subtree_plugin.js";

/** A tile of a format, with the header that composites look at. */
function tile(magic, body) {
  const bytes = new Uint8Array(16 + body.length);
  bytes.set(new TextEncoder().encode(magic));
  new DataView(bytes.buffer).setUint32(4, 1, true);
  new DataView(bytes.buffer).setUint32(8, bytes.length, true);
  bytes.set(body, 16);
  return bytes;
}

function composite(...tiles) {
  const bytes = tile("cmpt", Uint8Array.from(tiles.flatMap((each) => [...each])));
  new DataView(bytes.buffer).setUint32(12, tiles.length, true);
  return bytes;
}

test("composites inside composites become one composite", () => {
  const [a, b, c] = [tile("b3dm", [1]), tile("i3dm", [2, 3]), tile("pnts", [])];
  const nested = composite(a, composite(composite(b), c));
  assert.deepEqual(new Uint8Array(flattenComposite(nested.buffer)), composite(a, b, c));
});

test("a composite inside which there is none stays as it is, and so does everything else", () => {
  for (const bytes of [composite(tile("b3dm", [1])), tile("b3dm", [9]), new Uint8Array(2)]) {
    assert.equal(flattenComposite(bytes.buffer), bytes.buffer);
  }
});

test("a composite that is cut off, or whose tiles have no length, is an error", () => {
  const whole = composite(tile("b3dm", [1]), composite(tile("b3dm", [2])));
  assert.throws(() => flattenComposite(whole.slice(0, -20).buffer), RangeError);
  const endless = composite(tile("b3dm", [1]));
  new DataView(endless.buffer).setUint32(16 + 8, 0, true);
  assert.throws(() => listInnerTiles(endless.buffer), RangeError);
});

test("a JSON subtree becomes a binary one, padded to 8 bytes", () => {
  const json = new TextEncoder().encode('{"buffers":[]}');
  const packed = packSubtree(json);
  const header = new DataView(packed.buffer);
  assert.equal(new TextDecoder().decode(packed.subarray(0, 4)), "subt");
  assert.equal(packed.length, 24 + 16);
  assert.deepEqual([header.getUint32(4, true), header.getBigUint64(8, true), header.getBigUint64(16, true)], [1, 16n, 0n]);
  assert.deepEqual(JSON.parse(new TextDecoder().decode(packed.subarray(24))), { buffers: [] });
});
