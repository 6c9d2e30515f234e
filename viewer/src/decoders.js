/** Decoders of compressed meshes and textures. Those with WebAssembly are files beside the page, read when first needed. */

import { DRACOLoader } from "three/addons/loaders/DRACOLoader.js";
import { FileLoader } from "three";
import { KTX2Loader } from "three/addons/loaders/KTX2Loader.js";
import { MeshoptDecoder } from "three/addons/libs/meshopt_decoder.module.js";
import { GLTFExtensionsPlugin } from "3d-tiles-renderer/src/three/plugins/GLTFExtensionsPlugin.js";

const FOLDER = "_tilesync/";
const MAX_WORKERS = 2;

/** KTX2Loader with its worker from a file: see makeBasisWorker in build.mjs. */
class TextureLoader extends KTX2Loader {
  init() {
    this.transcoderPending ??= new FileLoader().setPath(FOLDER).setResponseType("arraybuffer").loadAsync("basis_transcoder.wasm").then((program) => {
      this.workerPool.setWorkerCreator(() => {
        const worker = new Worker(`${FOLDER}basis_worker.js`);
        const transcoderBinary = /** @type {ArrayBuffer} */ (program).slice(0);
        worker.postMessage({ type: "init", config: this.workerConfig, transcoderBinary }, [transcoderBinary]);
        return worker;
      });
    });
    return this.transcoderPending;
  }
}

/** @type {WeakMap<object, {dracoLoader: DRACOLoader, ktxLoader: TextureLoader}>} loaders of a renderer: all tilesets share them */
const shared = new WeakMap();

/** @param {import("three").WebGLRenderer} renderer @param {import("./shared_images.js").SharedImagesPlugin} images */
export function makeLoaderPlugin(renderer, images) {
  let loaders = shared.get(renderer);
  if (!loaders) {
    const dracoLoader = new DRACOLoader().setDecoderPath(FOLDER).setWorkerLimit(MAX_WORKERS);
    const ktxLoader = new TextureLoader().setTranscoderPath(FOLDER).setWorkerLimit(MAX_WORKERS).detectSupport(renderer);
    loaders = { dracoLoader, ktxLoader };
    shared.set(renderer, loaders);
  }
  const plugins = [(/** @type {any} */ parser) => images.makeLoader(parser), makeTextureCheck];
  return new GLTFExtensionsPlugin({ ...loaders, plugins, meshoptDecoder: MeshoptDecoder, metadata: false, autoDispose: false });
}

/** Plugin of GLTFLoader: marks models that lack a texture, of which the loader says nothing. @param {any} parser */
function makeTextureCheck(parser) {
  return {
    name: "TILESYNC_TEXTURE_CHECK",
    afterRoot: async (/** @type {{scenes: import("three").Group[]}} */ { scenes }) => {
      const textures = await Promise.all(Object.values(parser.textureCache));
      if (textures.includes(null)) for (const scene of scenes) scene.userData.lacksTexture = true;
    },
  };
}

/** Tell if a texture of a model could not be loaded. @param {import("three").Object3D} model @returns {boolean} */
export function lacksTexture(model) {
  let lacks = false;
  model.traverse(({ userData }) => { lacks ||= userData.lacksTexture === true; });
  return lacks;
}
