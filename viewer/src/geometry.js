/**
 * Coordinates: where a tileset lies, a local frame for it, and the camera that shows all of it. Plain numbers only.
 *
 * @typedef {[number, number, number]} Vector
 * @typedef {{east: Vector, north: Vector, up: Vector, origin: Vector}} Frame
 */

const EQUATOR_M = 6378137;
const POLE_M = 6356752.314245;
/** Heights in which tilesets on the globe are looked for: deep mines to aircraft. */
const HEIGHT_RANGE_M = [-20_000, 60_000];
/** Projected coordinates have a z of metres; on the globe this happens close to the equator only. */
const NEAR_EQUATOR_M = 20_000;

/** @param {Vector} a @param {Vector} b @returns {Vector} */
export const cross = (a, b) => [a[1] * b[2] - a[2] * b[1], a[2] * b[0] - a[0] * b[2], a[0] * b[1] - a[1] * b[0]];
/** @param {Vector} a @param {Vector} b */
export const dot = (a, b) => a[0] * b[0] + a[1] * b[1] + a[2] * b[2];
/** @param {Vector} a @returns {Vector} */
export const unit = (a) => scale(a, 1 / Math.hypot(...a));
/** @param {Vector} a @param {number} factor @returns {Vector} */
export const scale = (a, factor) => [a[0] * factor, a[1] * factor, a[2] * factor];
/** @param {Vector} a @param {Vector} b @returns {Vector} */
export const add = (a, b) => [a[0] + b[0], a[1] + b[1], a[2] + b[2]];
/** @param {Vector} a @param {Vector} b @returns {Vector} */
export const subtract = (a, b) => [a[0] - b[0], a[1] - b[1], a[2] - b[2]];

/**
 * Height above the ellipsoid WGS 84, approximately: along the line to the centre of the earth.
 * @param {Vector} point
 */
export function ellipsoidHeight(point) {
  const distance = Math.hypot(...point);
  if (distance === 0) return -EQUATOR_M;
  const [x, y, z] = scale(point, 1 / distance);
  return distance - 1 / Math.sqrt((x * x + y * y) / EQUATOR_M ** 2 + (z * z) / POLE_M ** 2);
}

/**
 * Normal of the ellipsoid at a point near its surface.
 * @param {Vector} point
 * @returns {Vector}
 */
export const ellipsoidNormal = ([x, y, z]) => unit([x / EQUATOR_M ** 2, y / EQUATOR_M ** 2, z / POLE_M ** 2]);

/**
 * Decide if a tileset lies on the globe (`globe`) or in the coordinates of a project with z up (`project`).
 *
 * A northing of some 6,370 km with z near 0 is also a point on the globe: on the equator. There the transform of the
 * root decides: on the globe it turns z to the normal of the ellipsoid.
 * @param {{centre: Vector, transform?: number[] | null, isRegion?: boolean}} root of the tileset; the centre with its transform
 * @returns {"globe" | "project"}
 */
export function classifyPlace({ centre, transform = null, isRegion = false }) {
  if (isRegion) return "globe";
  const height = ellipsoidHeight(centre);
  if (height < HEIGHT_RANGE_M[0] || height > HEIGHT_RANGE_M[1]) return "project";
  if (Math.abs(centre[2]) > NEAR_EQUATOR_M) return "globe";
  const axis = transform ? unit([transform[8], transform[9], transform[10]]) : [0, 0, 1];
  return dot(/** @type {Vector} */ (axis), ellipsoidNormal(centre)) > 0.9 ? "globe" : "project";
}

/**
 * Local frame at a point: east, north, up. In the coordinates of a project: x, y, z.
 * @param {Vector} origin
 * @param {"globe" | "project"} place
 * @returns {Frame}
 */
export function makeFrame(origin, place) {
  if (place === "project") return { east: [1, 0, 0], north: [0, 1, 0], up: [0, 0, 1], origin };
  const up = ellipsoidNormal(origin);
  const east = Math.hypot(up[0], up[1]) > 1e-6 ? unit(cross([0, 0, 1], up)) : /** @type {Vector} */ ([0, 1, 0]);
  return { east, north: cross(up, east), up, origin };
}

/**
 * Point of the tileset in the local frame. The difference is taken first: millions of metres lose no millimetres.
 * @param {Frame} frame @param {Vector} point @returns {Vector}
 */
export function toLocal(frame, point) {
  const relative = subtract(point, frame.origin);
  return [dot(relative, frame.east), dot(relative, frame.north), dot(relative, frame.up)];
}

/** @param {Frame} frame @param {Vector} local @returns {Vector} the point in the coordinates of the tileset */
export function fromLocal(frame, local) {
  const parts = [scale(frame.east, local[0]), scale(frame.north, local[1]), scale(frame.up, local[2])];
  return parts.reduce((sum, part) => add(sum, part), frame.origin);
}

/**
 * Camera that has all corners in view, with their outline in the middle of the picture.
 * @param {{corners: Vector[], heading: number, pitch: number, fieldOfView: number, aspect: number}} view
 *   angles in degrees: heading clockwise from north, pitch negative downwards, vertical field of view
 * @returns {{position: Vector, target: Vector}}
 */
export function fitCamera({ corners, heading, pitch, fieldOfView, aspect }) {
  const [h, p, v] = [heading, pitch, fieldOfView].map((degrees) => (degrees * Math.PI) / 180);
  /** @type {Vector} */
  const forward = [Math.sin(h) * Math.cos(p), Math.cos(h) * Math.cos(p), Math.sin(p)];
  /** @type {Vector} */
  const right = [Math.cos(h), -Math.sin(h), 0];
  const above = cross(right, forward);
  const tangent = Math.tan(v / 2);
  let target = corners.reduce((sum, corner) => add(sum, scale(corner, 1 / corners.length)), /** @type {Vector} */ ([0, 0, 0]));
  let distance = 0;
  for (let round = 0; round < FIT_ROUNDS; round++) {
    distance = 0;
    for (const corner of corners) {
      const offset = subtract(corner, target);
      const across = Math.max(Math.abs(dot(offset, right)) / (tangent * aspect), Math.abs(dot(offset, above)) / tangent);
      distance = Math.max(distance, across - dot(offset, forward));
    }
    distance = (distance || 1) * FIT_MARGIN;
    // What is near looks larger: move the target to where the outline has its middle.
    const seen = corners.map((corner) => {
      const offset = subtract(corner, target);
      const depth = Math.max(distance + dot(offset, forward), distance * 1e-3);
      return [dot(offset, right) / depth, dot(offset, above) / depth];
    });
    for (const [axis, direction] of /** @type {[number, Vector][]} */ ([[0, right], [1, above]])) {
      const shares = seen.map((share) => share[axis]);
      target = add(target, scale(direction, ((Math.min(...shares) + Math.max(...shares)) / 2) * distance));
    }
  }
  return { position: subtract(target, scale(forward, distance)), target };
}

const FIT_ROUNDS = 6;
const FIT_MARGIN = 1.04;
