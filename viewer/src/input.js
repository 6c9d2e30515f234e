/** Keys, buttons and the border between two versions. */

import { byId } from "./dom.js";

const TURN_PER_S = 1.2;
const WALK_PER_S = 0.7;
const ZOOM_PER_S = 1.6;
/** A key that is only tapped moves as if it were held for this long. */
const TAP_S = 0.08;
const SWIPE_STEP = 0.02;

/** Motions of a second, by key: turn right, turn up, walk right, walk ahead, climb, zoom in. */
const MOTIONS = new Map(Object.entries({
  ArrowLeft: [1, 0, 0, 0, 0, 0], ArrowRight: [-1, 0, 0, 0, 0, 0], ArrowUp: [0, 1, 0, 0, 0, 0], ArrowDown: [0, -1, 0, 0, 0, 0],
  d: [0, 0, 1, 0, 0, 0], a: [0, 0, -1, 0, 0, 0], w: [0, 0, 0, 1, 0, 0], s: [0, 0, 0, -1, 0, 0],
  e: [0, 0, 0, 0, 1, 0], q: [0, 0, 0, 0, -1, 0], "+": [0, 0, 0, 0, 0, 1], "=": [0, 0, 0, 0, 0, 1], "-": [0, 0, 0, 0, 0, -1],
}));

/**
 * @param {{app: import("./app.js").App, stage: import("./stage.js").Stage, panel: import("./panel.js").Panel,
 *   theme: import("./theme.js").Theme, copyLink: () => void}} parts
 */
export function connectInput({ app, stage, panel, theme, copyLink }) {
  connectKeys({ app, stage, panel, copyLink });
  connectSwipe(app, panel);
  byId("tileset").addEventListener("change", (/** @type {any} */ event) => app.showTileset(event.target.value));
  byId("version").addEventListener("change", (/** @type {any} */ event) => app.showVersion(event.target.value));
  byId("compare").addEventListener("change", (/** @type {any} */ event) => app.setCompared(event.target.value));
  byId("error").addEventListener("input", (/** @type {any} */ event) => app.setOptions({ error: Number(event.target.value) }));
  byId("boxes").addEventListener("change", (/** @type {any} */ event) => app.setOptions({ boxes: event.target.checked }));
  byId("wireframe").addEventListener("change", (/** @type {any} */ event) => app.setOptions({ wireframe: event.target.checked }));
  byId("follow").addEventListener("change", (/** @type {any} */ event) => {
    app.setOptions({ follow: event.target.checked });
    if (event.target.checked) app.showVersion(app.tileset?.current ?? null);
  });
  for (const button of /** @type {NodeListOf<HTMLButtonElement>} */ (document.querySelectorAll("[data-mode]"))) {
    button.addEventListener("click", () => app.setMode(/** @type {any} */ (button.dataset.mode)));
  }
  byId("fit").addEventListener("click", () => stage.fit());
  byId("zoom-in").addEventListener("click", () => stage.zoom(0.7));
  byId("zoom-out").addEventListener("click", () => stage.zoom(1 / 0.7));
  byId("theme").addEventListener("click", () => theme.toggle());
  byId("copy-link").addEventListener("click", copyLink);
  byId("help-open").addEventListener("click", () => byId("help").showModal());
  byId("panel-toggle").addEventListener("click", () => togglePanel());
  byId("section-tiles").addEventListener("toggle", () => panel.renderTiles());
  stage.onClick = (hit) => {
    if (hit?.removed) panel.showRemovedName(hit.removed);
    else panel.select(hit?.view ?? null, hit?.tile ?? null);
  };
}

/** @param {boolean} [open] */
export function togglePanel(open = document.body.classList.contains("panel-closed")) {
  document.body.classList.toggle("panel-closed", !open);
  byId("panel-toggle").setAttribute("aria-expanded", String(open));
}

/** @param {{app: import("./app.js").App, stage: import("./stage.js").Stage, panel: import("./panel.js").Panel, copyLink: () => void}} parts */
function connectKeys({ app, stage, panel, copyLink }) {
  /** @type {Record<string, () => void>} */
  const commands = {
    f: () => stage.fit(),
    b: () => app.setOptions({ boxes: !app.state.boxes }),
    x: () => app.setOptions({ wireframe: !app.state.wireframe }),
    l: copyLink,
    p: () => togglePanel(),
    "?": () => byId("help").showModal(),
    1: () => app.setMode("single"),
    2: () => byId("version").disabled || app.setMode("swipe"),
    3: () => byId("version").disabled || app.setMode("changes"),
    "[": () => moveSwipe(app, panel, app.state.swipe - SWIPE_STEP),
    "]": () => moveSwipe(app, panel, app.state.swipe + SWIPE_STEP),
    Escape: () => panel.select(null, null),
  };
  /** @type {Set<string>} */
  const held = new Set();
  addEventListener("keydown", (event) => {
    if (event.ctrlKey || event.metaKey || event.altKey || isTyping(event.target)) return;
    const key = event.key.length === 1 ? event.key.toLowerCase() : event.key;
    if (MOTIONS.has(key)) {
      event.preventDefault();
      if (!event.repeat) move(stage, [key], TAP_S);
      held.add(key);
    } else if (commands[key]) {
      event.preventDefault();
      commands[key]();
    }
  });
  addEventListener("keyup", (event) => held.delete(event.key.length === 1 ? event.key.toLowerCase() : event.key));
  addEventListener("blur", () => held.clear());
  stage.moveHeld = (seconds) => move(stage, held, seconds);
}

/** @param {EventTarget | null} target @returns {boolean} true where keys have a meaning of their own */
function isTyping(target) {
  return target instanceof Element && target.closest("input, select, textarea, dialog, [role=slider]") !== null;
}

/** @param {import("./stage.js").Stage} stage @param {Iterable<string>} keys @param {number} seconds */
function move(stage, keys, seconds) {
  const sum = [0, 0, 0, 0, 0, 0];
  for (const key of keys) MOTIONS.get(key)?.forEach((share, axis) => (sum[axis] += share * seconds));
  const [heading, pitch, right, ahead, up, zoom] = sum;
  if (heading || pitch) stage.turn(heading * TURN_PER_S, pitch * TURN_PER_S);
  if (right || ahead || up) stage.walk(right * WALK_PER_S, ahead * WALK_PER_S, up * WALK_PER_S);
  if (zoom) stage.zoom(Math.exp(-zoom * ZOOM_PER_S));
  return sum.some((share) => share !== 0);
}

/** @param {import("./app.js").App} app @param {import("./panel.js").Panel} panel @param {number} share */
function moveSwipe(app, panel, share) {
  app.setOptions({ swipe: Math.min(1, Math.max(0, share)) });
  panel.placeSwipe(); // at once, so that it stays under the finger
}

/** @param {import("./app.js").App} app @param {import("./panel.js").Panel} panel */
function connectSwipe(app, panel) {
  const swipe = byId("swipe");
  swipe.addEventListener("pointerdown", (/** @type {PointerEvent} */ event) => {
    swipe.setPointerCapture(event.pointerId);
    swipe.focus();
    event.preventDefault();
  });
  swipe.addEventListener("pointermove", (/** @type {PointerEvent} */ event) => {
    if (!swipe.hasPointerCapture(event.pointerId)) return;
    const area = byId("stage").getBoundingClientRect();
    moveSwipe(app, panel, (event.clientX - area.left) / area.width);
  });
  swipe.addEventListener("keydown", (/** @type {KeyboardEvent} */ event) => {
    const { swipe: share } = app.state;
    /** @type {Record<string, number>} */
    const shares = { ArrowLeft: share - SWIPE_STEP, ArrowRight: share + SWIPE_STEP, ArrowDown: share - SWIPE_STEP, ArrowUp: share + SWIPE_STEP, Home: 0, End: 1 };
    if (!(event.key in shares)) return;
    event.preventDefault();
    moveSwipe(app, panel, shares[event.key]);
  });
}
