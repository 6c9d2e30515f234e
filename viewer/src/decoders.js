/** Decoders of compressed meshes and textures. Those with WebAssembly are files beside the page, read when first needed. */

import { DRACOLoader } from "three/addons/loaders/DRACOLoader.js";
import { KTX2Loader } from "three/addons/loaders/KTX2Loader.js";
import { MeshoptDecoder } from "three/addons/libs/meshopt_decoder.module.js";
import { GLTFExtensionsPlugin } from "3d-tiles-renderer/src/three/plugins/GLTFExtensionsPlugin.js";

const FOLDER = "_tilesync/";
const MAX_WORKERS = 2;

/** @type {WeakMap<object, {dracoLoader: DRACOLoader, ktxLoader: KTX2Loader}>} loaders of a renderer: all tilesets share them */
const shared = new WeakMap();

/** @param {import("three").WebGLRenderer} renderer @param {import("./shared_images.js").SharedImagesPlugin} images */
export function makeLoaderPlugin(renderer, images) {
  let loaders = shared.get(renderer);
  if (!loaders) {
    const dracoLoader = new DRACOLoader().setDecoderPath(FOLDER).setWorkerLimit(MAX_WORKERS);
    const ktxLoader = new KTX2Loader().setTranscoderPath(FOLDER).setWorkerLimit(MAX_WORKERS).detectSupport(renderer);
    loaders = { dracoLoader, ktxLoader };
    shared.set(renderer, loaders);
  }
  const plugins = [(/** @type {any} */ parser) => images.makeLoader(parser)];
  return new GLTFExtensionsPlugin({ ...loaders, plugins, meshoptDecoder: MeshoptDecoder, metadata: false, autoDispose: false });
}
