import assert from "node:assert/strict";
import { test } from "node:test";
import { describeProblem, refuseEmpty } from "../src/problems.js";
import { ServerError } from "../src/server.js";

/** What the page says of an answer with this Content-Length, if it refuses it. */
function refusal(length, status = 200) {
  try {
    refuseEmpty(new Response("", { status, headers: length === null ? {} : { "Content-Length": length } }));
    return null;
  } catch (error) {
    return describeProblem(error);
  }
}

test("an empty file is called so", () => {
  assert.equal(refusal("0"), "The file is empty.");
});

test("a file with bytes, or of unknown length, and an answer that is no file are not called so", () => {
  assert.deepEqual([refusal("20"), refusal(null), refusal("0", 404)], [null, null, null]);
});

test("what a parser says is kept, without the name of its library", () => {
  assert.equal(describeProblem(new Error("THREE.GLTFLoader: Unexpected end of JSON input")), "The content cannot be read: Unexpected end of JSON input");
  assert.equal(describeProblem("odd"), "The content cannot be read: odd");
});

test("the server's own words stay as they are", () => {
  assert.equal(describeProblem(new ServerError(404, "there is no file a.glb")), "there is no file a.glb");
});
