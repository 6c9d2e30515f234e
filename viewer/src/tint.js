/** Tinted materials: a colour is mixed into what a material draws, so that shading and texture stay readable. */

import { Color } from "three";

const DECLARATION = "uniform vec3 tilesyncTint;\nuniform float tilesyncTintShare;\n";
// After the conversion to the colours of the screen: the legend shows the same ones.
const MIX = `#include <colorspace_fragment>
  float tilesyncLight = dot(gl_FragColor.rgb, vec3(0.299, 0.587, 0.114));
  gl_FragColor.rgb = mix(gl_FragColor.rgb, tilesyncTint * (0.55 + 0.5 * tilesyncLight), tilesyncTintShare);`;

/**
 * Make a material ready to be tinted. Call it once, before the material is first drawn.
 * @param {import("three").Material} material
 */
export function prepareTint(material) {
  const tint = { colour: { value: new Color(0, 0, 0) }, share: { value: 0 } };
  material.userData.tilesyncTint = tint;
  material.onBeforeCompile = (shader) => {
    shader.uniforms.tilesyncTint = tint.colour;
    shader.uniforms.tilesyncTintShare = tint.share;
    shader.fragmentShader = DECLARATION + shader.fragmentShader.replace("#include <colorspace_fragment>", MIX);
  };
  material.customProgramCacheKey = () => "tilesync-tint";
}

/**
 * Tint a material; with a share of 0 it looks as it is.
 * @param {import("three").Material} material @param {number} colour sRGB @param {number} share 0 to 1
 */
export function setTint(material, colour, share) {
  const tint = material.userData.tilesyncTint;
  if (!tint) return;
  tint.colour.value.setRGB(((colour >> 16) & 255) / 255, ((colour >> 8) & 255) / 255, (colour & 255) / 255);
  tint.share.value = share;
}
