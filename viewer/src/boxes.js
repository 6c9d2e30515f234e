/** Boxes of bounding volumes: many in one draw call for their edges and one for their faces. */

import {
  BoxGeometry, BufferAttribute, BufferGeometry, Color, DoubleSide, Group, InstancedMesh, LineBasicMaterial, LineSegments,
  Matrix4, MeshBasicMaterial, Vector3,
} from "three";

const EDGES = [[0, 1], [2, 3], [4, 5], [6, 7], [0, 2], [1, 3], [4, 6], [5, 7], [0, 4], [1, 5], [2, 6], [3, 7]];
/** Thickness of a flat box, as a share of its size: a face needs some, to be seen from all sides. */
const FLAT_SHARE = 1e-4;

/**
 * @typedef {{matrix: Matrix4, name: string | null}} Box  `matrix` takes the cube from -1 to 1 to the box, in the local frame
 */

export class BoxSet extends Group {
  /** @param {{colour: number, faces?: number}} look sRGB colour of the edges; opacity of the faces, 0 for none */
  constructor({ colour, faces = 0 }) {
    super();
    const shade = new Color(colour);
    this.faceOpacity = faces;
    this.lines = new LineSegments(new BufferGeometry(), new LineBasicMaterial({ color: shade }));
    this.lines.frustumCulled = false;
    this.faceMaterial = new MeshBasicMaterial({ color: shade, transparent: true, opacity: faces, depthWrite: false, side: DoubleSide });
    /** @type {InstancedMesh | null} */
    this.faces = null;
    /** @type {Box[]} */
    this.boxes = [];
    this.add(this.lines);
  }

  /** @param {Box[]} boxes that are shown from now on */
  show(boxes) {
    this.boxes = boxes;
    this.lines.geometry.dispose();
    this.lines.geometry = new BufferGeometry();
    this.lines.geometry.setAttribute("position", new BufferAttribute(edgePositions(boxes), 3));
    this.lines.visible = boxes.length > 0;
    if (this.faces) {
      this.remove(this.faces);
      this.faces.dispose();
      this.faces.geometry.dispose();
      this.faces = null;
    }
    if (!this.faceOpacity || !boxes.length) return;
    this.faces = new InstancedMesh(new BoxGeometry(2, 2, 2), this.faceMaterial, boxes.length);
    this.faces.frustumCulled = false;
    boxes.forEach(({ matrix }, index) => this.faces?.setMatrixAt(index, matrix));
    this.add(this.faces);
  }

  /** @param {import("three").Raycaster} raycaster @returns {{box: Box, distance: number} | null} the nearest box that is hit */
  hit(raycaster) {
    if (!this.faces || !this.visible) return null;
    this.faces.computeBoundingSphere();
    const [first] = raycaster.intersectObject(this.faces, false);
    return first?.instanceId === undefined ? null : { box: this.boxes[first.instanceId], distance: first.distance };
  }

  dispose() {
    this.show([]);
    this.lines.geometry.dispose();
    /** @type {LineBasicMaterial} */ (this.lines.material).dispose();
    this.faceMaterial.dispose();
    this.removeFromParent();
  }
}

/** @param {Box[]} boxes */
function edgePositions(boxes) {
  const positions = new Float32Array(boxes.length * EDGES.length * 6);
  let at = 0;
  for (const { matrix } of boxes) {
    const corners = boxCorners(matrix);
    for (const pair of EDGES) for (const corner of pair) at = put(positions, at, corners[corner]);
  }
  return positions;
}

/** @param {Float32Array} positions @param {number} at @param {Vector3} point */
function put(positions, at, point) {
  point.toArray(positions, at);
  return at + 3;
}

/** @param {Matrix4} matrix of a box @returns {Vector3[]} its eight corners */
export function boxCorners(matrix) {
  const signs = [-1, 1];
  return signs.flatMap((z) => signs.flatMap((y) => signs.map((x) => new Vector3(x, y, z).applyMatrix4(matrix))));
}

/**
 * Box of a bounding volume of the renderer.
 * @param {any} volume a TileBoundingVolume
 * @param {Matrix4} toLocal from the coordinates of the tileset to the local frame
 * @returns {Matrix4}
 */
export function volumeBox(volume, toLocal) {
  const box = { min: new Vector3(), max: new Vector3() };
  const matrix = new Matrix4();
  if (volume.obb || volume.regionObb) {
    const obb = volume.obb ?? volume.regionObb;
    box.min.copy(obb.box.min);
    box.max.copy(obb.box.max);
    matrix.copy(obb.transform);
  } else {
    const { center, radius } = volume.sphere;
    box.min.copy(center).subScalar(radius);
    box.max.copy(center).addScalar(radius);
  }
  const half = box.max.clone().sub(box.min).multiplyScalar(0.5);
  const thinnest = Math.max(half.x, half.y, half.z, 1e-6) * FLAT_SHARE;
  half.max(new Vector3(thinnest, thinnest, thinnest));
  const centre = box.min.clone().add(box.max).multiplyScalar(0.5);
  const shape = new Matrix4().makeScale(half.x, half.y, half.z).setPosition(centre);
  return new Matrix4().multiplyMatrices(toLocal, matrix).multiply(shape);
}
