/** What a loaded tile consists of. */

import { formatCount, formatMetres, formatNumber } from "./text.js";

/** @param {any} tile @returns {[string, string][]} rows of a list */
export function describeTile(tile) {
  const { triangles, points, textures } = countContents(tile);
  /** @type {[string, string][]} */
  const rows = [
    ["Geometric error", formatMetres(tile.geometricError)],
    ["Error on screen", Number.isFinite(tile.traversal.error) ? `${formatNumber(tile.traversal.error)} px` : "inside"],
    ["Depth", String(tile.internal.depth)],
    ["Refinement", tile.refine],
  ];
  if (triangles) rows.push(["Triangles", formatCount(triangles)]);
  if (points) rows.push(["Points", formatCount(points)]);
  rows.push(["Textures", textures.length ? textures.join(", ") : "none"]);
  rows.push(["Bounding volume", describeVolume(tile.boundingVolume)]);
  return rows;
}

/** @param {any} tile */
function countContents(tile) {
  let triangles = 0;
  let points = 0;
  /** @type {Map<string, number>} */
  const sizes = new Map();
  tile.engineData.scene?.traverse((/** @type {any} */ part) => {
    const { geometry } = part;
    if (!geometry) return;
    const count = geometry.index?.count ?? geometry.attributes.position?.count ?? 0;
    const instances = part.isInstancedMesh ? part.count : 1;
    if (part.isMesh) triangles += (count / 3) * instances;
    if (part.isPoints) points += count;
  });
  for (const { image } of new Set(tile.engineData.textures ?? [])) {
    const size = image?.width ? `${image.width} × ${image.height}` : "?";
    sizes.set(size, (sizes.get(size) ?? 0) + 1);
  }
  return { triangles, points, textures: [...sizes].map(([size, count]) => (count > 1 ? `${count} of ${size}` : size)) };
}

/** @param {any} volume of a tile, as the tileset has it @returns {string} */
export function describeVolume(volume) {
  if (volume.box) {
    const sides = [3, 6, 9].map((at) => 2 * Math.hypot(...volume.box.slice(at, at + 3)));
    return `box, ${sides.map(formatMetres).join(" × ")}`;
  }
  if (volume.sphere) return `sphere, radius ${formatMetres(volume.sphere[3])}`;
  if (volume.region) {
    const [west, south, east, north] = volume.region.slice(0, 4).map((/** @type {number} */ angle) => ((angle * 180) / Math.PI).toFixed(5));
    const [low, high] = volume.region.slice(4).map(formatMetres);
    return `region, ${west}° to ${east}° E, ${south}° to ${north}° N, height ${low} to ${high}`;
  }
  return Object.keys(volume.extensions ?? {}).join(", ") || "unknown";
}
