// 3d-tiles-renderer in a scene of three.js with two lights.
import { TilesRenderer } from "3d-tiles-renderer/three";
import { ImplicitTilingPlugin } from "3d-tiles-renderer/core/plugins";
import { DirectionalLight, HemisphereLight, PerspectiveCamera, Scene, Sphere, Vector3, WebGLRenderer } from "three";
import { rest, stand, wrongs } from "./flight.js";

let renderer, scene, camera, sun, tiles, loaded = 0;

window.begin = async (url, background) => {
  renderer = new WebGLRenderer();
  renderer.setSize(innerWidth, innerHeight);
  renderer.setClearColor(background);
  document.body.append(renderer.domElement);
  camera = new PerspectiveCamera(40, innerWidth / innerHeight);
  tiles = new TilesRenderer(url);
  tiles.registerPlugin(new ImplicitTilingPlugin());
  if (location.search === "?signed") passOn(url);
  tiles.addEventListener("load-error", ({ url: name, error }) => wrongs.push(`load-error: ${name} ${error}`));
  tiles.addEventListener("load-model", () => loaded++);
  tiles.manager.onError = (name) => wrongs.push(`load-error: ${name}`);
  tiles.setCamera(camera);
  tiles.setResolutionFromRenderer(camera, renderer);
  sun = new DirectionalLight(0xffffff, 2);
  scene = new Scene().add(tiles.group, new HemisphereLight(0xffffff, 0x888888, 2), sun, sun.target);
  await rest(() => tiles.update(), () => !tiles.rootTileset && !wrongs.length);
};

// As docs/stores.md shows it: the signature of the tileset's URL goes with every file.
function passOn(url) {
  const { search } = new URL(url);
  const sign = (name) => (/^(data|blob):|\?/.test(name) ? name : name + search);
  tiles.registerPlugin({ preprocessURL: sign }); // behind the ImplicitTilingPlugin, which makes URLs too
  tiles.manager.setURLModifier(sign); // textures and buffers beside a GLB
}

window.look = async (view) => {
  const sphere = new Sphere();
  tiles.getBoundingSphere(sphere);
  const { position, direction, up } = stand(sphere.center.toArray(), sphere.radius, view);
  camera.position.set(...position);
  camera.up.set(...up);
  camera.lookAt(new Vector3(...direction).add(camera.position));
  camera.near = sphere.radius / 1000;
  camera.far = sphere.radius * (view.distance + 2);
  camera.updateProjectionMatrix();
  camera.updateMatrixWorld();
  sun.position.copy(camera.position);
  sun.target.position.copy(sphere.center);
  tiles.errorTarget = view.error;
  await rest(
    () => tiles.update(),
    () => {
      const { queued, downloading, parsing } = tiles.stats;
      return tiles.isLoading || tiles.processNodeQueue.running || queued + downloading + parsing > 0;
    },
  );
  renderer.render(scene, camera); // only what has come to rest: to draw takes seconds without a graphics card
  return { loaded, wrongs };
};
