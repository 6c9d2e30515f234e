import assert from "node:assert/strict";
import { test } from "node:test";
import { compileTemplate, divideVolume, fileName, folderUrl } from "../src/names.js";

const BASE = "http://127.0.0.1:8000/bridge/versions/v1/";

test("a name is decoded as the manifest has it", () => {
  assert.equal(fileName(`${BASE}tiles/0%20a.glb`, BASE), "tiles/0 a.glb");
  assert.equal(fileName(`${BASE}a+b%2Bc.glb?id=1#x`, BASE), "a+b+c.glb");
  assert.equal(fileName(`${BASE}100%.glb`, BASE), "100%.glb");
});

test("what lies elsewhere has no name", () => {
  assert.equal(fileName("http://127.0.0.1:8000/bridge/versions/v2/a.glb", BASE), null);
  assert.equal(fileName("data:application/octet-stream;base64,AAAA", BASE), null);
});

test("the folder of a file ends with a slash", () => {
  assert.equal(folderUrl(`${BASE}tileset.json?x=1`), BASE);
});

test("a template gives the coordinates of a file", () => {
  assert.deepEqual(compileTemplate("content/{level}/{x}/{y}.glb")("content/3/5/2.glb"), { level: 3, x: 5, y: 2, z: 0 });
  assert.deepEqual(compileTemplate("{level}_{x}_{y}_{z}.glb")("1_0_1_1.glb"), { level: 1, x: 0, y: 1, z: 1 });
  assert.deepEqual(compileTemplate("{level}/{x}-{level}.glb")("2/1-2.glb"), { level: 2, x: 1, y: 0, z: 0 });
});

test("a name that only looks similar is none of the template", () => {
  for (const name of ["content/3/5/x.glb", "content/3/5/2xglb", "a/content/3/5/2.glb"]) {
    assert.equal(compileTemplate("content/{level}/{x}/{y}.glb")(name), null, name);
  }
  assert.equal(compileTemplate("{level}/{x}-{level}.glb")("2/1-3.glb"), null);
  assert.equal(compileTemplate("plain.glb")("plain.glb"), null);
});

test("a box is divided along its own axes", () => {
  const box = [10, 20, 30, 4, 0, 0, 0, 8, 0, 0, 0, 2];
  assert.deepEqual(divideVolume({ box }, { level: 1, x: 0, y: 1, z: 1 }, true).box, [8, 24, 31, 2, 0, 0, 0, 4, 0, 0, 0, 1]);
  assert.deepEqual(divideVolume({ box }, { level: 1, x: 0, y: 1, z: 0 }, false).box, [8, 24, 30, 2, 0, 0, 0, 4, 0, 0, 0, 2]);
  assert.deepEqual(divideVolume({ box }, { level: 0, x: 0, y: 0, z: 0 }, true).box, box);
});

test("a region is divided by angles, in a quadtree not by height", () => {
  const region = [0, 0, 4, 8, 0, 100];
  assert.deepEqual(divideVolume({ region }, { level: 2, x: 3, y: 1, z: 0 }, false).region, [3, 2, 4, 4, 0, 100]);
  assert.deepEqual(divideVolume({ region }, { level: 1, x: 0, y: 0, z: 1 }, true).region, [0, 0, 2, 4, 50, 100]);
});
