// Builds the page into tilesync/serving/viewer_files/; with --check, compares instead, byte for byte.
// The result depends on the sources and the lock file only: no time, no path of this machine.
import { createHash } from "node:crypto";
import { mkdirSync, readFileSync, readdirSync, rmSync, writeFileSync } from "node:fs";
import { dirname, join, relative, sep } from "node:path";
import { fileURLToPath } from "node:url";
import { build } from "esbuild";
import { KTX2Loader } from "three/addons/loaders/KTX2Loader.js";

const here = dirname(fileURLToPath(import.meta.url));
const target = join(here, "..", "tilesync", "serving", "viewer_files");
const modules = join(here, "node_modules");
const LIBS = "three/examples/jsm/libs";
// Read by the page when a tile needs them: WebAssembly and the scripts of its workers.
const DECODERS = ["draco/gltf/draco_wasm_wrapper.js", "draco/gltf/draco_decoder.wasm", "basis/basis_transcoder.wasm"];
// In the package of three.js, with licences of their own that the package does not repeat.
const INSIDE_THREE = [
  ["Draco (draco_wasm_wrapper.js, draco_decoder.wasm)", "https://github.com/google/draco", "Apache-2.0, Copyright The Draco Authors"],
  ["Basis Universal (basis_worker.js, basis_transcoder.wasm)", "https://github.com/BinomialLLC/basis_universal", "Apache-2.0, Copyright 2019-2022 Binomial LLC"],
  ["meshoptimizer (in viewer.js)", "https://github.com/zeux/meshoptimizer", "MIT, Copyright 2016-2025 Arseny Kapoulkine"],
];

const files = await makeFiles();
if (process.argv.includes("--check")) check(files);
else write(files);
for (const [name, bytes] of files) console.log(String(bytes.length).padStart(9), createHash("sha256").update(bytes).digest("hex").slice(0, 16), name);

async function makeFiles() {
  const bundle = await build({
    absWorkingDir: here,
    entryPoints: { viewer: "src/main.js" },
    outdir: "out",
    bundle: true,
    write: false,
    metafile: true,
    minify: true,
    format: "esm",
    target: "es2022",
    charset: "utf8",
    legalComments: "none", // they are in THIRD_PARTY_NOTICES.txt
    define: { "process.env.NODE_ENV": '"production"' },
  });
  const style = await build({ absWorkingDir: here, entryPoints: ["src/viewer.css"], write: false, minify: true, charset: "utf8", outdir: "out" });
  const packages = new Set(Object.keys(bundle.metafile.inputs).map(packageOf).filter(Boolean));
  return new Map([
    ["index.html", readFileSync(join(here, "src", "index.html"))],
    ["viewer.js", Buffer.from(bundle.outputFiles[0].contents)],
    ["viewer.css", Buffer.from(style.outputFiles[0].contents)],
    ["basis_worker.js", Buffer.from(makeBasisWorker())],
    ...DECODERS.map((path) => [path.split("/").at(-1), readFileSync(join(modules, LIBS, path))]),
    ["THIRD_PARTY_NOTICES.txt", Buffer.from(makeNotices([...packages].sort()))],
  ]);
}

/**
 * The worker of KTX2Loader as a file. By itself, the loader makes it a blob, which is under the policy of the page; but the
 * transcoder makes functions of text, which that policy forbids. As a file, it has a policy of its own.
 */
function makeBasisWorker() {
  const work = KTX2Loader.BasisWorker.toString();
  const names = ["EngineFormat", "EngineType", "TranscoderFormat", "BasisFormat"];
  return [
    ...names.map((name) => `let _${name} = ${JSON.stringify(KTX2Loader[name])}`),
    readFileSync(join(modules, LIBS, "basis", "basis_transcoder.js"), "utf8"),
    work.slice(work.indexOf("{") + 1, work.lastIndexOf("}")),
    "",
  ].join("\n");
}

/** Name of the package that an input of the bundle belongs to; null for our own sources. */
function packageOf(path) {
  const parts = path.split("/");
  const at = parts.lastIndexOf("node_modules");
  if (at < 0) return null;
  return parts[at + 1].startsWith("@") ? `${parts[at + 1]}/${parts[at + 2]}` : parts[at + 1];
}

function makeNotices(packages) {
  const sections = packages.map((name) => {
    const folder = join(modules, name);
    const { version, license, homepage, repository } = JSON.parse(readFileSync(join(folder, "package.json"), "utf8"));
    const licence = readdirSync(folder).find((file) => /^licen[cs]e/i.test(file));
    if (!licence) throw new Error(`${name} has no licence file`);
    const place = homepage ?? repository?.url ?? repository;
    return `${name} ${version}\n${place}\nLicence: ${license}\n\n${readFileSync(join(folder, licence), "utf8").replaceAll("\r\n", "\n").trim()}\n`;
  });
  const inside = INSIDE_THREE.map(([name, place, licence]) => `${name}\n${place}\nLicence: ${licence}\n`);
  const line = `\n${"-".repeat(80)}\n\n`;
  return `The viewer page of tilesync contains these programs of others.\n${line}${[...sections, ...inside].join(line)}`;
}

function write(made) {
  rmSync(target, { recursive: true, force: true });
  mkdirSync(target, { recursive: true });
  for (const [name, bytes] of made) writeFileSync(join(target, name), bytes);
}

function check(made) {
  const differing = [];
  const present = new Set(readdirSync(target));
  for (const [name, bytes] of made) if (!present.delete(name) || !readFileSync(join(target, name)).equals(bytes)) differing.push(name);
  differing.push(...present);
  if (!differing.length) return;
  const place = relative(join(here, ".."), target).split(sep).join("/");
  console.error(`${place} is not what viewer/ builds: ${differing.join(", ")}. Run \`make viewer\` and commit the result.`);
  process.exit(1);
}
