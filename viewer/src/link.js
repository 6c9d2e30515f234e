/**
 * The link that reproduces a view: what is shown, as the fragment of the page's URL.
 *
 * Positions are in the coordinates of the tileset, so that a link holds for other versions too.
 *
 * @typedef {"single" | "swipe" | "changes"} Mode
 * @typedef {{
 *   tileset: string | null, version: string | null, mode: Mode, compare: string | null, swipe: number,
 *   position: number[] | null, target: number[] | null,
 *   error: number, boxes: boolean, wireframe: boolean, follow: boolean | null,
 * }} ViewState
 */

export const DEFAULT_ERROR_PX = 12;
export const ERROR_RANGE_PX = [1, 64];
const MODES = ["single", "swipe", "changes"];
/** Digits of a coordinate: a tenth of a millimetre at the size of the earth. */
const DIGITS = 12;

/** @type {ViewState} */
export const DEFAULT_STATE = Object.freeze({
  tileset: null, version: null, mode: "single", compare: null, swipe: 0.5, position: null, target: null,
  error: DEFAULT_ERROR_PX, boxes: false, wireframe: false, follow: null,
});

/** @param {ViewState} state @returns {string} the fragment, with its `#` */
export function formatLink(state) {
  /** @type {[string, string][]} */
  const parts = [];
  const put = (/** @type {string} */ key, /** @type {unknown} */ value) => parts.push([key, String(value)]);
  if (state.tileset) put("tileset", state.tileset);
  if (state.version) put("version", state.version);
  if (state.mode !== "single") {
    put("mode", state.mode);
    if (state.compare) put("compare", state.compare);
    if (state.mode === "swipe") put("swipe", Number(state.swipe.toFixed(3)));
  }
  if (state.position && state.target) {
    put("position", state.position.map(roundCoordinate).join(","));
    put("target", state.target.map(roundCoordinate).join(","));
  }
  if (state.error !== DEFAULT_ERROR_PX) put("error", state.error);
  if (state.boxes) put("boxes", 1);
  if (state.wireframe) put("wireframe", 1);
  if (state.follow !== null) put("follow", state.follow ? 1 : 0);
  return `#${parts.map(([key, value]) => `${key}=${encodeURIComponent(value).replaceAll("%2C", ",")}`).join("&")}`;
}

/** @param {number} value */
const roundCoordinate = (value) => Number(value.toPrecision(DIGITS));

/**
 * State of a link. What cannot be read has its default: a link is made by programs and cut off by people.
 * @param {string} fragment
 * @returns {ViewState}
 */
export function parseLink(fragment) {
  const given = new URLSearchParams(fragment.replace(/^#/, ""));
  const mode = given.get("mode") ?? "";
  const position = parseVector(given.get("position"));
  const target = parseVector(given.get("target"));
  return {
    tileset: given.get("tileset") || null,
    version: given.get("version") || null,
    mode: MODES.includes(mode) ? /** @type {Mode} */ (mode) : "single",
    compare: given.get("compare") || null,
    swipe: parseNumber(given.get("swipe"), 0, 1, DEFAULT_STATE.swipe),
    position: position && target ? position : null,
    target: position && target ? target : null,
    error: parseNumber(given.get("error"), ERROR_RANGE_PX[0], ERROR_RANGE_PX[1], DEFAULT_ERROR_PX),
    boxes: given.get("boxes") === "1",
    wireframe: given.get("wireframe") === "1",
    follow: given.has("follow") ? given.get("follow") === "1" : null,
  };
}

/** @param {string | null} text @returns {number[] | null} */
function parseVector(text) {
  const numbers = (text ?? "").split(",").map((part) => (part.trim() === "" ? NaN : Number(part)));
  return numbers.length === 3 && numbers.every(Number.isFinite) ? numbers : null;
}

/** @param {string | null} text @param {number} low @param {number} high @param {number} fallback */
function parseNumber(text, low, high, fallback) {
  const number = text === null || text === "" ? NaN : Number(text);
  return Number.isFinite(number) ? Math.min(high, Math.max(low, number)) : fallback;
}
