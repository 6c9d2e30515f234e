import assert from "node:assert/strict";
import { test } from "node:test";
import { DEFAULT_STATE, formatLink, parseLink } from "../src/link.js";

test("a link gives back the state that it was made of", () => {
  const states = [
    DEFAULT_STATE,
    { ...DEFAULT_STATE, tileset: "a bridge & co", version: "9f3c", position: [510091.1234, 6649129.5, 12], target: [1e-7, -2, 3], error: 4, boxes: true, wireframe: true, follow: false },
    { ...DEFAULT_STATE, tileset: "b", version: "v2", mode: "swipe", compare: "v1", swipe: 0.25, follow: true },
    { ...DEFAULT_STATE, tileset: "b", version: "v2", mode: "changes", compare: "v1" },
  ];
  for (const state of states) assert.deepEqual(parseLink(formatLink(state)), state);
});

test("coordinates of the globe keep a tenth of a millimetre", () => {
  const position = [4374536.88003712, 511699.481442, -4602734.84919518];
  const { position: read } = parseLink(formatLink({ ...DEFAULT_STATE, position, target: [0, 0, 0] }));
  position.forEach((value, axis) => assert.ok(Math.abs(value - read[axis]) < 1e-4));
});

test("a link has only what differs from the defaults", () => {
  assert.equal(formatLink({ ...DEFAULT_STATE, tileset: "x", version: "v" }), "#tileset=x&version=v");
});

test("nonsense in a link becomes the defaults", () => {
  for (const text of ["", "#", "#mode=film&swipe=x&error=-&position=1,2&target=3,4,5", "#%", "#position=a,b,c&target=,,"]) {
    assert.deepEqual(parseLink(text), DEFAULT_STATE, text);
  }
});

test("numbers out of range are brought into it", () => {
  const state = parseLink("#swipe=7&error=0.0001");
  assert.deepEqual([state.swipe, state.error], [1, 1]);
});
