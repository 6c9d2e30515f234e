import assert from "node:assert/strict";
import { test } from "node:test";
import { classifyPlace, dot, ellipsoidHeight, fitCamera, fromLocal, makeFrame, subtract, toLocal, unit } from "../src/geometry.js";

/** Point on the ellipsoid by longitude and latitude in degrees. */
function onGlobe(longitude, latitude, height = 0) {
  const [lon, lat] = [longitude, latitude].map((degrees) => (degrees * Math.PI) / 180);
  const n = 6378137 / Math.sqrt(1 - 0.00669437999014 * Math.sin(lat) ** 2);
  return [(n + height) * Math.cos(lat) * Math.cos(lon), (n + height) * Math.cos(lat) * Math.sin(lon), (n * (1 - 0.00669437999014) + height) * Math.sin(lat)];
}

test("heights on the ellipsoid are near zero", () => {
  for (const latitude of [-80, -45, 0, 30, 60, 89]) assert.ok(Math.abs(ellipsoidHeight(onGlobe(12, latitude))) < 1, String(latitude));
  assert.ok(Math.abs(ellipsoidHeight(onGlobe(5, 50, 1000)) - 1000) < 5);
});

test("a tileset on the ground lies on the globe, with and without a transform", () => {
  const centre = onGlobe(6.6, 46.5, 400);
  assert.equal(classifyPlace({ centre }), "globe");
  const { east, north, up } = makeFrame(centre, "globe");
  assert.equal(classifyPlace({ centre, transform: [...east, 0, ...north, 0, ...up, 0, ...centre, 1] }), "globe");
});

test("projected coordinates are no place on the globe", () => {
  for (const centre of [[510091, 6649129, 20], [0, 0, 0], [2_600_000, 1_200_000, 400]]) assert.equal(classifyPlace({ centre }), "project", String(centre));
});

test("a northing of the earth's radius is told apart from the equator by the transform", () => {
  const centre = [510091, 6357000, 12]; // 6,377.4 km from the centre of the earth, and near z = 0
  const translation = [1, 0, 0, 0, 0, 1, 0, 0, 0, 0, 1, 0, ...centre, 1];
  assert.equal(classifyPlace({ centre, transform: translation }), "project");
  assert.equal(classifyPlace({ centre }), "project");
  const { east, north, up } = makeFrame(centre, "globe");
  assert.equal(classifyPlace({ centre, transform: [...east, 0, ...north, 0, ...up, 0, ...centre, 1] }), "globe");
});

test("a region is on the globe wherever its centre seems to be", () => {
  assert.equal(classifyPlace({ centre: [0, 0, 0], isRegion: true }), "globe");
});

test("the frame has three orthogonal axes, also at the poles", () => {
  for (const point of [onGlobe(10, 50), onGlobe(0, 90), onGlobe(0, -90), onGlobe(-120, 0)]) {
    const { east, north, up } = makeFrame(point, "globe");
    for (const [a, b] of [[east, north], [north, up], [up, east]]) assert.ok(Math.abs(dot(a, b)) < 1e-12);
    for (const axis of [east, north, up]) assert.ok(Math.abs(Math.hypot(...axis) - 1) < 1e-12);
    assert.ok(dot(up, unit(point)) > 0.99);
  }
});

test("a point goes to the local frame and back without losing a millimetre", () => {
  const origin = [510091, 6649129, 0];
  for (const place of ["globe", "project"]) {
    const frame = makeFrame(origin, place);
    const point = [510100.123, 6649001.456, 17.789];
    assert.ok(Math.hypot(...subtract(fromLocal(frame, toLocal(frame, point)), point)) < 1e-8);
  }
  assert.deepEqual(toLocal(makeFrame(origin, "project"), [510092, 6649131, 3]), [1, 2, 3]);
});

test("all corners are in view, and the outline is in the middle", () => {
  const corners = [];
  for (const x of [-40, 300]) for (const y of [-10, 10]) for (const z of [0, 90]) corners.push([x, y, z]);
  for (const aspect of [0.5, 1, 1.8]) {
    const { position, target } = fitCamera({ corners, heading: 325, pitch: -32, fieldOfView: 40, aspect });
    const forward = unit(subtract(target, position));
    const right = [Math.cos((325 * Math.PI) / 180), -Math.sin((325 * Math.PI) / 180), 0];
    const above = [right[1] * forward[2] - 0, -right[0] * forward[2], right[0] * forward[1] - right[1] * forward[0]];
    const seen = corners.map((corner) => {
      const offset = subtract(corner, position);
      const depth = dot(offset, forward) * Math.tan((20 * Math.PI) / 180);
      return [dot(offset, right) / (depth * aspect), dot(offset, above) / depth];
    });
    const [xs, ys] = [0, 1].map((axis) => seen.map((share) => share[axis]));
    for (const share of [...xs, ...ys]) assert.ok(Math.abs(share) <= 1, `${share} is out of view`);
    for (const shares of [xs, ys]) assert.ok(Math.abs(Math.min(...shares) + Math.max(...shares)) < 0.05);
    assert.ok(Math.max(...xs, ...ys) > 0.85, "it fills the picture");
  }
});

test("a single point gives a camera with a distance", () => {
  const { position, target } = fitCamera({ corners: [[1, 2, 3]], heading: 0, pitch: -30, fieldOfView: 40, aspect: 1 });
  assert.ok(Math.hypot(...subtract(position, target)) > 0);
});
