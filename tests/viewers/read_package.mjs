// Reads the files named on standard input (a JSON list) from the package $3 by the reader $2 of the folder $1, and prints
// the SHA-256 of each as a JSON object. 3d-tiles-tools prints those of all files that it lists.
import { createHash } from "node:crypto";
import { readFileSync } from "node:fs";
import { createRequire } from "node:module";

const [packages, reader, path] = process.argv.slice(2);
const require = createRequire(packages);
const hash = (data) => createHash("sha256").update(new Uint8Array(data)).digest("hex");
const found = {};

if (reader === "3d-tiles-tools") {
  const { TilesetSources } = require("3d-tiles-tools");
  const source = await TilesetSources.createAndOpen(path);
  for await (const name of await source.getKeys()) {
    found[name] = hash(await source.getValue(name));
  }
  await source.close();
} else {
  const { Tiles3DArchiveFileLoader } = require("@loaders.gl/3d-tiles");
  const data = readFileSync(path);
  const buffer = data.buffer.slice(data.byteOffset, data.byteOffset + data.byteLength);
  for (const name of JSON.parse(readFileSync(0, "utf-8"))) {
    found[name] = hash(await Tiles3DArchiveFileLoader.parse(buffer, { "3d-tiles-archive": { path: name } }));
  }
}
console.log(JSON.stringify(found));
