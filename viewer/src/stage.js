/** The scene, the camera and its controls, and the drawing of one view or of two beside each other. */

import {
  DirectionalLight, HemisphereLight, Matrix4, PerspectiveCamera, Raycaster, Scene, Vector2, Vector3, WebGLRenderer,
} from "three";
import { OrbitControls } from "three/addons/controls/OrbitControls.js";
import { fitCamera, fromLocal, toLocal } from "./geometry.js";

const FIELD_OF_VIEW = 40;
const FIT_HEADING = 325;
const FIT_PITCH = -32;
const MAX_PIXEL_RATIO = 2;
/** Far and near plane: no farther apart than a depth buffer of 24 bits can tell neighbours apart. */
const MAX_DEPTH_RATIO = 200_000;
const CLICK_PX = 5;
const CLICK_MS = 600;
const WHEEL_PAUSE_MS = 250;
const REST_MS = 500;

export class Stage {
  /** @param {HTMLCanvasElement} canvas */
  constructor(canvas) {
    this.canvas = canvas;
    this.renderer = new WebGLRenderer({ canvas, antialias: true, powerPreference: "high-performance" });
    this.renderer.info.autoReset = false;
    this.scene = new Scene();
    this.camera = new PerspectiveCamera(FIELD_OF_VIEW, 1, 0.1, 1000);
    this.camera.up.set(0, 0, 1);
    this.camera.position.set(0, -10, 5);
    this.controls = new OrbitControls(this.camera, canvas);
    this.controls.zoomToCursor = true;
    this.controls.screenSpacePanning = true;
    this.controls.minDistance = 1e-3;
    this.controls.addEventListener("change", () => this.cameraMoved());
    this.addLights();
    /** @type {import("./geometry.js").Frame | null} the local frame, in which everything is drawn */
    this.frame = null;
    /** @type {Set<import("./tileset_view.js").TilesetView>} everything that is loaded, shown or not */
    this.views = new Set();
    /** @type {import("./tileset_view.js").TilesetView | null} */
    this.main = null;
    /** @type {import("./tileset_view.js").TilesetView | null} drawn to the left of the swipe */
    this.left = null;
    this.swipe = 0.5;
    this.isStale = true;
    this.frameMs = 0;
    this.lastDrawn = 0;
    /** @type {number | undefined} from the navigation to the first tile on screen */
    this.firstTileMs = undefined;
    this.lastWheel = 0;
    this.raycaster = new Raycaster();
    /** @type {(view: import("./tileset_view.js").TilesetView) => void} */
    this.onPlaced = () => {};
    this.onCamera = () => {};
    /** @type {(seconds: number) => boolean} moves the camera for keys that are held; true while it does */
    this.moveHeld = () => false;
    this.onDrawn = () => {};
    this.onTick = () => {};
    /** @type {(hit: ReturnType<Stage["pick"]>) => void} */
    this.onClick = () => {};
    this.listen();
    this.tick = this.tick.bind(this);
    this.lastTick = performance.now();
    requestAnimationFrame(this.tick);
  }

  addLights() {
    const sky = new HemisphereLight(0xffffff, 0x7d8590, 2.1);
    sky.position.set(0, 0, 1);
    // With the camera: whichever side is looked at, its edges can be told apart.
    const sun = new DirectionalLight(0xffffff, 1.7);
    sun.position.set(-0.6, 0.9, 0.5);
    sun.target.position.set(0, 0, -1);
    this.camera.add(sun, sun.target);
    this.scene.add(sky, this.camera);
  }

  listen() {
    const { canvas } = this;
    /** @type {{x: number, y: number, at: number} | null} */
    let pressed = null;
    canvas.addEventListener("pointerdown", (event) => {
      pressed = event.isPrimary && event.button === 0 ? { x: event.clientX, y: event.clientY, at: event.timeStamp } : null;
      if (event.isPrimary) this.adjustPivot(event);
    }, { capture: true }); // before the controls, which turn around the pivot
    canvas.addEventListener("pointerup", (event) => {
      const isClick = pressed && event.timeStamp - pressed.at < CLICK_MS && Math.hypot(event.clientX - pressed.x, event.clientY - pressed.y) < CLICK_PX;
      if (event.isPrimary && isClick) this.onClick(this.pick(event));
    });
    canvas.addEventListener("wheel", (event) => {
      if (event.timeStamp - this.lastWheel > WHEEL_PAUSE_MS) this.adjustPivot(event);
      this.lastWheel = event.timeStamp;
    }, { capture: true, passive: true });
    canvas.addEventListener("dblclick", (event) => this.approach(event));
    new ResizeObserver(() => this.resize()).observe(/** @type {Element} */ (canvas.parentElement));
  }

  resize() {
    const { clientWidth, clientHeight } = /** @type {Element} */ (this.canvas.parentElement);
    if (!clientWidth || !clientHeight) return;
    this.renderer.setPixelRatio(Math.min(devicePixelRatio, MAX_PIXEL_RATIO));
    this.renderer.setSize(clientWidth, clientHeight);
    this.camera.aspect = clientWidth / clientHeight;
    this.cameraMoved();
    this.draw(); // at once: the canvas is empty after a change of its size
  }

  // --- views ---

  /** @param {import("./tileset_view.js").TilesetView} view */
  addView(view) {
    this.views.add(view);
    this.scene.add(...view.objects());
    view.hidden = true;
    this.invalidate();
  }

  /** @param {import("./tileset_view.js").TilesetView} view */
  removeView(view) {
    this.views.delete(view);
    this.scene.remove(...view.objects());
    if (this.main === view) this.main = null;
    if (this.left === view) this.left = null;
    this.invalidate();
  }

  /** Put a view whose root has arrived into the local frame; the first one makes the frame.
   * @param {import("./tileset_view.js").TilesetView} view */
  placeView(view) {
    this.frame ??= view.ownFrame;
    const frame = /** @type {import("./geometry.js").Frame} */ (this.frame);
    const fromFrame = new Matrix4().makeBasis(new Vector3(...frame.east), new Vector3(...frame.north), new Vector3(...frame.up));
    view.place(fromFrame.setPosition(new Vector3(...frame.origin)).invert());
    this.onPlaced(view);
    this.updateDepth();
  }

  // --- camera ---

  /** Show all of the main view. */
  fit() {
    if (!this.main?.tiles.root) return;
    const { position, target } = fitCamera({
      corners: this.main.corners().map((corner) => /** @type {import("./geometry.js").Vector} */ (corner.toArray())),
      heading: FIT_HEADING, pitch: FIT_PITCH, fieldOfView: FIELD_OF_VIEW, aspect: this.camera.aspect,
    });
    this.look(new Vector3(...position), new Vector3(...target));
  }

  /** @param {Vector3} position @param {Vector3} target */
  look(position, target) {
    this.camera.position.copy(position);
    this.controls.target.copy(target);
    this.controls.update();
    this.cameraMoved();
  }

  /** Camera in the coordinates of the tileset; null before there is one. */
  get pose() {
    if (!this.frame) return null;
    const { frame } = this;
    const [position, target] = [this.camera.position, this.controls.target].map((point) => fromLocal(frame, /** @type {any} */ (point.toArray())));
    return { position, target };
  }

  /** @param {{position: number[], target: number[]} | null} pose in the coordinates of the tileset */
  set pose(pose) {
    if (!this.frame || !pose) return;
    const { frame } = this;
    const [position, target] = [pose.position, pose.target].map((point) => new Vector3(...toLocal(frame, /** @type {any} */ (point))));
    this.look(position, target);
  }

  cameraMoved() {
    this.updateDepth();
    this.invalidate();
    this.onCamera();
  }

  /** Set near and far plane to what the views need. */
  updateDepth() {
    const { camera } = this;
    let far = this.controls.getDistance() * 2;
    for (const view of this.views) {
      if (!view.tiles.root) continue;
      for (const corner of view.corners()) far = Math.max(far, corner.distanceTo(camera.position) * 1.2);
    }
    camera.far = far;
    camera.near = Math.max(far / MAX_DEPTH_RATIO, Math.min(this.controls.getDistance() * 0.02, far / 100));
    camera.updateProjectionMatrix();
    camera.updateMatrixWorld();
  }

  /** Move the pivot to the depth of what is under the pointer; the picture stays as it is.
   * @param {MouseEvent} event */
  adjustPivot(event) {
    const hit = this.pick(event);
    if (!hit?.point) return;
    const forward = this.camera.getWorldDirection(new Vector3());
    const depth = hit.point.clone().sub(this.camera.position).dot(forward);
    if (depth > this.camera.near) this.controls.target.copy(this.camera.position).addScaledVector(forward, depth);
  }

  /** Go halfway to what is under the pointer. @param {MouseEvent} event */
  approach(event) {
    const hit = this.pick(event);
    if (!hit?.point) return;
    const step = hit.point.clone().sub(this.camera.position).multiplyScalar(0.5);
    this.look(this.camera.position.clone().add(step), this.controls.target.clone().add(step));
  }

  /** Turn around the pivot. @param {number} heading radians @param {number} pitch radians */
  turn(heading, pitch) {
    this.controls.rotateLeft(heading);
    this.controls.rotateUp(pitch);
  }

  /** Move sideways, along the view and up, in shares of the distance to the pivot.
   * @param {number} right @param {number} ahead @param {number} up */
  walk(right, ahead, up) {
    const distance = this.controls.getDistance();
    const forward = this.camera.getWorldDirection(new Vector3());
    const level = new Vector3(forward.x, forward.y, 0);
    if (level.lengthSq() < 1e-6) level.setFromMatrixColumn(this.camera.matrixWorld, 1).setZ(0);
    level.normalize();
    const step = level.clone().multiplyScalar(ahead * distance);
    step.addScaledVector(new Vector3(level.y, -level.x, 0), right * distance);
    step.z += up * distance;
    this.look(this.camera.position.clone().add(step), this.controls.target.clone().add(step));
  }

  /** @param {number} factor of the distance to the pivot */
  zoom(factor) {
    const { target } = this.controls;
    this.look(target.clone().add(this.camera.position.clone().sub(target).multiplyScalar(factor)), target.clone());
  }

  // --- picking ---

  /**
   * Tile or removed box under a point of the page.
   * @param {{clientX: number, clientY: number}} event
   */
  pick({ clientX, clientY }) {
    const area = this.canvas.getBoundingClientRect();
    const share = (clientX - area.left) / area.width;
    const view = this.left && share < this.swipe ? this.left : this.main;
    if (!view?.tiles.root) return null;
    const { raycaster } = this;
    raycaster.setFromCamera(new Vector2(share * 2 - 1, 1 - ((clientY - area.top) / area.height) * 2), this.camera);
    Object.assign(raycaster, { firstHitOnly: true }); // read by TilesGroup
    raycaster.params.Points.threshold = this.controls.getDistance() * 0.004;
    raycaster.params.Line.threshold = this.controls.getDistance() * 0.004;
    /** @type {any[]} */
    const hits = [];
    view.tiles.raycast(raycaster, hits);
    const [first] = hits.sort((a, b) => a.distance - b.distance);
    const box = view.removedBoxes.hit(raycaster);
    if (box && (!first || box.distance < first.distance)) return { view, tile: null, removed: box.box.name, point: null };
    return first ? { view, tile: first.object.userData.tile, removed: null, point: /** @type {Vector3} */ (first.point) } : null;
  }

  // --- drawing ---

  invalidate() {
    this.isStale = true;
  }

  /** @param {number} now */
  tick(now) {
    requestAnimationFrame(this.tick);
    const seconds = Math.min((now - this.lastTick) / 1000, 0.1);
    this.lastTick = now;
    this.moveHeld(seconds);
    const isStale = this.isStale;
    const isBusy = [...this.views].some((view) => view.isUnsettled);
    if (!isStale && !isBusy) return;
    this.isStale = false; // what the updates bring makes it stale again
    for (const view of this.views) view.update();
    this.onTick();
    if (isStale) {
      this.draw();
      this.countFrame(now);
    }
  }

  /** @param {number} now */
  countFrame(now) {
    const pause = now - this.lastDrawn;
    this.lastDrawn = now;
    if (pause > REST_MS) this.frameMs = 0; // it stood still in between
    else this.frameMs = this.frameMs ? this.frameMs * 0.9 + pause * 0.1 : pause;
  }

  /** Frames of a second while the picture moves; 0 at rest. */
  get framesPerSecond() {
    return this.frameMs && performance.now() - this.lastDrawn < REST_MS ? 1000 / this.frameMs : 0;
  }

  draw() {
    const { renderer } = this;
    renderer.info.reset();
    const { clientWidth: width, clientHeight: height } = this.canvas;
    if (this.main && this.left) {
      const edge = Math.round(width * this.swipe);
      renderer.setScissorTest(true);
      this.drawOnly(this.left, [0, 0, edge, height]);
      this.drawOnly(this.main, [edge, 0, width - edge, height]);
      renderer.setScissorTest(false);
    } else {
      this.drawOnly(this.main, null);
    }
    if (this.main?.tiles.visibleTiles.size) this.firstTileMs ??= performance.now();
    this.onDrawn();
  }

  /** @param {import("./tileset_view.js").TilesetView | null} shown @param {[number, number, number, number] | null} scissor */
  drawOnly(shown, scissor) {
    if (scissor && scissor[2] <= 0) return;
    if (scissor) this.renderer.setScissor(...scissor);
    for (const view of this.views) view.hidden = view !== shown;
    this.renderer.render(this.scene, this.camera);
  }

  /** True while nothing is on its way and the picture is up to date. */
  get isIdle() {
    return !this.isStale && ![...this.views].some((view) => view.isUnsettled);
  }
}
