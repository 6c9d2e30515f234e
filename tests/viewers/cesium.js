// CesiumJS without globe, sky and ion: it asks for the tileset and nothing else.
import { rest, stand, wrongs } from "./flight.js";

const { CesiumWidget, Cesium3DTileset, Cartesian3, Color } = window.Cesium;
const bare = { globe: false, skyBox: false, skyAtmosphere: false, baseLayer: false, useDefaultRenderLoop: false };
// Each tile that a view needs is asked for at once, not when the camera has stood still for a while.
const eager = { cullRequestsWhileMoving: false, foveatedScreenSpaceError: false, dynamicScreenSpaceError: false };
let widget, tileset, loaded = 0;

window.begin = async (url, background) => {
  const creditContainer = document.createElement("div"); // out of sight: a logo is no tile
  widget = new CesiumWidget("map", { ...bare, creditContainer, scene3DOnly: true, msaaSamples: 1 });
  widget.scene.backgroundColor = Color.fromCssColorString(background);
  tileset = await Cesium3DTileset.fromUrl(url, eager);
  tileset.environmentMapManager.enabled = false; // reflections of the sky take seconds without a graphics card
  tileset.tileFailed.addEventListener(({ url: name, message }) => wrongs.push(`tileFailed: ${name} ${message}`));
  tileset.tileLoad.addEventListener(() => loaded++);
  widget.scene.renderError.addEventListener((_, error) => wrongs.push(`renderError: ${error}`));
  widget.scene.primitives.add(tileset);
};

window.look = async (view) => {
  const { center, radius } = tileset.boundingSphere;
  const vector = (numbers) => new Cartesian3(...numbers);
  const { position, direction, up } = stand([center.x, center.y, center.z], radius, view);
  widget.camera.setView({
    destination: vector(position),
    orientation: { direction: vector(direction), up: vector(up) },
  });
  tileset.maximumScreenSpaceError = view.error;
  widget.resize();
  widget.scene.debugCommandFilter = () => false; // to draw takes seconds without a graphics card
  await rest(() => widget.render(), () => !tileset.tilesLoaded);
  widget.scene.debugCommandFilter = undefined;
  widget.render(); // only what has come to rest
  return { loaded, wrongs };
};
