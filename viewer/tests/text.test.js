import assert from "node:assert/strict";
import { test } from "node:test";
import { describeVersion, labelTilesets, formatBytes, formatMetres, formatPlural, formatTime, shorten } from "../src/text.js";

test("bytes have decimal units", () => {
  assert.deepEqual([0, 999, 1000, 404_600, 999_999, 8_000_000, 5e12, null].map(formatBytes), ["0 B", "999 B", "1.0 kB", "404.6 kB", "1.0 MB", "8.0 MB", "5.0 TB", "unknown"]);
});

test("lengths are short", () => {
  assert.deepEqual([0.01234, 12.345, 1234.5, 12_345].map(formatMetres), ["0.0123 m", "12.3 m", "1,235 m", "12.3 km"]);
});

test("times are in UTC, from text and from seconds", () => {
  assert.equal(formatTime("2026-03-01T08:30:00Z"), "2026-03-01 08:30 UTC");
  assert.equal(formatTime(1772353800), "2026-03-01 08:30 UTC");
  assert.equal(formatTime(null), "");
  assert.equal(formatTime("some day"), "some day");
});

test("a count of one is singular", () => {
  assert.deepEqual([formatPlural(1, "tile"), formatPlural(2000, "tile")], ["1 tile", "2,000 tiles"]);
});

test("a version is described by what is known of it", () => {
  assert.equal(describeVersion({ name: "9f3c", modified: "2026-03-01T08:30:00Z", changeset: "0aad03c3d895", bytes: 8_000_000 }), "2026-03-01 08:30 UTC · changeset 0aad03c… · 8.0 MB");
  assert.equal(describeVersion({ name: "32721cf1-0aeb-5dbe-8606-e4deac30396f" }), "32721cf1-0aeb…");
});

test("tilesets with one title are told apart by their names", () => {
  const tilesets = [{ name: "old", title: "Demo city" }, { name: "bridge", title: "Bridge" }, { name: "new", title: "Demo city" }];
  assert.deepEqual([...labelTilesets(tilesets)], [["old", "Demo city (old)"], ["bridge", "Bridge"], ["new", "Demo city (new)"]]);
});

test("a tileset without a title has its name, which another one may have as its title", () => {
  assert.deepEqual([...labelTilesets([{ name: "a", title: null }, { name: "b" }])], [["a", "a"], ["b", "b"]]);
  assert.deepEqual([...labelTilesets([{ name: "a", title: "" }, { name: "b", title: "a" }]).values()], ["a", "a (b)"]);
});

test("short texts are not shortened", () => {
  assert.equal(shorten("abcdefghij"), "abcdefghij");
  assert.equal(shorten(null), "");
});
