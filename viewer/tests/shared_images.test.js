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

/** A parser of GLTFLoader for a tile with one texture: it calls `end` when the texture is there. @param {(texture: Texture) => any} end */
function makeParser(end) {
  return {
    json: { textures: [{ source: 0 }], images: [{ uri: "a.png" }] },
    /** @type {any} */ loader: null,
    loadTextureImage: (/** @type {number} */ _, /** @type {number} */ __, /** @type {any} */ loader) => new Promise((resolve, reject) => { loader.load(URL, resolve, undefined, reject); }),
    async parse(/** @type {any} */ done, /** @type {any} */ fail) {
      try {
        done({ scene: end(await this.loader.loadTexture(0)) });
      } catch (error) {
        fail(error);
      }
    },
  };
}

/** Parse a tile. @param {SharedImagesPlugin} plugin @param {(texture: Texture) => any} end @returns {Promise<any>} its model, or the error */
function parseTile(plugin, end) {
  const parser = makeParser(end);
  parser.loader = plugin.makeLoader(parser);
  return new Promise((resolve) => { parser.parse((/** @type {any} */ gltf) => resolve(gltf.scene), resolve); });
}

test("an image is disposed of if its only tile cannot be parsed", async () => {
  const { plugin, counts } = makePlugin();
  assert.equal((await parseTile(plugin, () => { throw new Error("broken"); })).message, "broken");
  await settle();
  assert.deepEqual([counts.loaded, counts.disposed, plugin.entries.size], [1, 1, 0]);
});

test("an image that arrives after its tile has failed is disposed of", async () => {
  const { plugin, counts } = makePlugin();
  const parser = makeParser(() => null);
  const { loadTexture } = plugin.makeLoader(Object.assign(parser, { parse: (/** @type {any} */ _, /** @type {any} */ fail) => fail(new Error("broken")) }));
  const texture = loadTexture(0);
  parser.parse(() => {}, () => {});
  await texture;
  await settle();
  assert.deepEqual([counts.loaded, counts.disposed, plugin.entries.size], [1, 1, 0]);
});

test("an image is disposed of with the copy of its texture that the model has instead", async () => {
  const { plugin, counts } = makePlugin();
  const scene = await parseTile(plugin, (texture) => new Group().add(new Mesh(undefined, new MeshBasicMaterial({ map: texture.clone() }))));
  plugin.processTileModel(scene, "one");
  await settle();
  assert.deepEqual([counts.disposed, plugin.entries.size], [0, 1]);
  scene.children[0].material.map.dispose();
  await settle();
  assert.deepEqual([counts.disposed, plugin.entries.size], [1, 0]);
});
