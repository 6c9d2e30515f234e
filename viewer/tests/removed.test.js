import assert from "node:assert/strict";
import { test } from "node:test";
import { findRemovedTiles } from "../src/removed.js";

const BASE = "http://127.0.0.1/city/versions/a/";

/** Find the removed tiles of tilesets that are given by their names. */
async function find(tilesets, ...removed) {
  const requests = [];
  const { tiles, isComplete } = await findRemovedTiles({
    url: `${BASE}tileset.json`,
    removed: new Set(removed),
    readJson: async (url) => {
      requests.push(url.slice(BASE.length));
      return tilesets[url.slice(BASE.length)];
    },
  });
  const boxes = tiles.map(({ name, volume }) => {
    const { obb } = volume;
    return [name, obb.transform.elements.slice(12, 15), obb.box.max.toArray()];
  });
  return { boxes: boxes.sort(), isComplete, requests };
}

const box = (x, y, half) => ({ box: [x, y, 0, half, 0, 0, 0, half, 0, 0, 0, half] });
const tile = (volume, uri, children = []) => ({ boundingVolume: volume, content: { uri }, children });

test("removed tiles have the boxes of the older version, moved by its transforms", async () => {
  const root = { ...tile(box(0, 0, 9), "root.glb", [tile(box(1, 2, 3), "a%20b.glb"), tile(box(4, 5, 6), "kept.glb")]), transform: [1, 0, 0, 0, 0, 1, 0, 0, 0, 0, 1, 0, 100, 200, 0, 1] };
  const { boxes } = await find({ "tileset.json": { root } }, "a b.glb", "never-there.glb");
  assert.deepEqual(boxes, [["a b.glb", [101, 202, 0], [3, 3, 3]]]);
});

test("a box around other removed tiles is left out", async () => {
  const root = tile(box(0, 0, 9), "root.glb", [tile(box(0, 0, 5), "coarse.glb", [tile(box(1, 1, 1), "fine.glb"), tile(box(3, 3, 1), "kept.glb")])]);
  const { boxes } = await find({ "tileset.json": { root } }, "root.glb", "coarse.glb", "fine.glb");
  assert.deepEqual(boxes.map(([name]) => name), ["fine.glb"]);
});

test("external tilesets are followed once, also in a cycle, and count as inside of their parents", async () => {
  const tilesets = {
    "tileset.json": { root: tile(box(0, 0, 9), "root.glb", [tile(box(0, 0, 9), "d/tileset.json"), tile(box(0, 0, 9), "d/tileset.json")]) },
    "d/tileset.json": { root: tile(box(0, 0, 5), "coarse.glb", [tile(box(1, 0, 1), "../top.glb"), tile(box(0, 0, 5), "../tileset.json")]) },
  };
  const { boxes, requests, isComplete } = await find(tilesets, "root.glb", "d/coarse.glb", "top.glb");
  assert.deepEqual(boxes.map(([name]) => name), ["top.glb"]);
  assert.deepEqual(requests, ["tileset.json", "d/tileset.json"]);
  assert.equal(isComplete, true);
});

test("several contents of a tile are one box each", async () => {
  const root = { boundingVolume: box(0, 0, 9), contents: [{ uri: "a.glb" }, { uri: "b.pnts" }] };
  assert.deepEqual((await find({ "tileset.json": { root } }, "a.glb", "b.pnts")).boxes.map(([name]) => name), ["a.glb", "b.pnts"]);
});

test("implicit tiles are computed from the names of their files, the deepest level only", async () => {
  const implicitTiling = { subdivisionScheme: "QUADTREE", subtreeLevels: 2, availableLevels: 3, subtrees: { uri: "s/{level}/{x}/{y}.subtree" } };
  const root = { ...tile(box(0, 0, 8), "c/{level}/{x}/{y}.glb"), implicitTiling };
  const { boxes, requests } = await find({ "tileset.json": { root } }, "c/1/0/0.glb", "c/2/3/0.glb", "s/0/0/0.subtree");
  assert.deepEqual(boxes, [["c/2/3/0.glb", [6, -6, 0], [2, 2, 8]]]);
  assert.deepEqual(requests, ["tileset.json"]);
});

test("a tiling that lost 200,000 tiles gives as many boxes, and compiles its template once", async (t) => {
  const removed = new Set(["other.glb"]);
  for (let at = 0; at < 200_000; at++) removed.add(`c/9/${at % 512}/${Math.floor(at / 512)}.glb`);
  const root = { ...tile(box(0, 0, 512), "c/{level}/{x}/{y}.glb"), implicitTiling: { subdivisionScheme: "QUADTREE" } };
  const compile = t.mock.method(globalThis, "RegExp");
  const { tiles } = await findRemovedTiles({ url: `${BASE}tileset.json`, removed, readJson: async () => ({ root }) });
  assert.equal(tiles.length, 200_000);
  assert.equal(compile.mock.callCount(), 1);
});
