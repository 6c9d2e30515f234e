import assert from "node:assert/strict";
import { test } from "node:test";
import { Group, Mesh, MeshBasicMaterial, Texture } from "three";
import { SharedImagesPlugin } from "../src/shared_images.js";

const URL = "https://example.com/a.png";

/** A plugin without a network: it counts the images that it loads and those that it disposes of. */
function makePlugin() {
  const plugin = new SharedImagesPlugin();
  const counts = { loaded: 0, disposed: 0, recalculated: /** @type {any[]} */ ([]) };
  plugin.init({ recalculateBytesUsed: (/** @type {any} */ tile) => counts.recalculated.push(tile) });
  plugin.loadFirst = async () => {
    counts.loaded += 1;
    const texture = new Texture({ width: 8, height: 8 });
    texture.addEventListener("dispose", () => { counts.disposed += 1; });
    return texture;
  };
  return { plugin, counts };
}

/** Load the image for a tile and parse the tile, as the renderer does. @param {SharedImagesPlugin} plugin @param {any} tile */
async function parse(plugin, tile) {
  const texture = await plugin.load(URL);
  const scene = new Group().add(new Mesh(undefined, new MeshBasicMaterial({ map: texture })));
  plugin.processTileModel(scene, tile);
  return { scene, texture };
}

const settle = () => new Promise((resolve) => setImmediate(resolve));

test("an image is disposed of with the last tile that refers to it", async () => {
  const { plugin, counts } = makePlugin();
  const [one, two] = [await parse(plugin, "one"), await parse(plugin, "two")];
  assert.equal(one.texture.source, two.texture.source);
  assert.equal(plugin.calculateBytesUsed("one", one.scene), -0);
  assert.ok(plugin.calculateBytesUsed("two", two.scene) < 0);
  one.texture.dispose();
  await settle();
  assert.deepEqual(counts, { loaded: 1, disposed: 0, recalculated: ["two"] });
  assert.equal(plugin.calculateBytesUsed("two", two.scene), -0);
  two.texture.dispose();
  await settle();
  assert.deepEqual([counts.disposed, plugin.entries.size], [1, 0]);
});

test("an image is disposed of if the load of its only tile is aborted", async () => {
  const { plugin, counts } = makePlugin();
  const { texture } = await parse(plugin, "aborted"); // parsed although the renderer has dropped the tile meanwhile
  texture.dispose(); // so the renderer drops its textures
  await settle();
  assert.deepEqual([counts.disposed, plugin.entries.size], [1, 0]);
});

test("a tile that begins to load an image keeps it while another is unloaded", async () => {
  const { plugin, counts } = makePlugin();
  const one = await parse(plugin, "one");
  const next = parse(plugin, "two");
  one.texture.dispose();
  const two = await next;
  assert.deepEqual([counts.loaded, counts.disposed, plugin.entries.size], [1, 0, 1]);
  two.texture.dispose();
  await settle();
  assert.deepEqual([counts.disposed, plugin.entries.size], [1, 0]);
});
