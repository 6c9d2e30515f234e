import assert from "node:assert/strict";
import { test } from "node:test";
import { Changes } from "../src/changes.js";
import { Server, ServerError, readError, readLines } from "../src/server.js";

/** A server that gives these answers, one after the other, and notes the requests. */
function scripted(...answers) {
  const requests = [];
  const server = new Server(async (url, options) => {
    requests.push([url, options?.headers ?? {}]);
    const answer = answers.shift();
    if (answer instanceof Error) throw answer;
    return answer;
  });
  return { server, requests };
}

test("an unchanged site is no news, and costs no body", async () => {
  const first = new Response('{"tilesets": []}', { headers: { ETag: '"a"' } });
  const { server, requests } = scripted(first, new Response(null, { status: 304 }));
  assert.deepEqual(await server.readSite(), { tilesets: [] });
  assert.equal(await server.readSite(), null);
  assert.deepEqual(requests.map(([, headers]) => headers["If-None-Match"]), [undefined, '"a"']);
});

test("names are quoted in queries", async () => {
  const { server, requests } = scripted(new Response("{}"));
  await server.readFile("a b", "v", "tiles/0+1&x.glb");
  assert.equal(requests[0][0], "_tilesync/file.json?tileset=a+b&version=v&name=tiles%2F0%2B1%26x.glb");
});

test("an error has the server's own words", async () => {
  const { server } = scripted(new Response('{"error": "no such version", "hint": "list them"}', { status: 404 }));
  await assert.rejects(server.readDiff("t", "a", "b"), (error) => error instanceof ServerError && error.status === 404 && error.message === "no such version" && error.hint === "list them");
});

test("a page of a proxy is not shown as a message", async () => {
  const error = await readError(new Response("<html>nginx</html>", { status: 502, statusText: "Bad Gateway" }));
  assert.deepEqual([error.status, error.message], [502, "Bad Gateway"]);
});

test("no answer at all has status 0", async () => {
  const { server } = scripted(new TypeError("Failed to fetch"));
  await assert.rejects(server.readSite(), (error) => error instanceof ServerError && error.status === 0);
});

const DIFF = '{"kind":"file","change":"added","name":"häuser/🏠.glb"}\n\n{"kind":"finished","exit":13}\n';

/** A body that arrives in these chunks, and then ends or breaks off. */
function body(chunks, error = null) {
  return new ReadableStream({
    pull(controller) {
      if (chunks.length) controller.enqueue(chunks.shift());
      else if (error) controller.error(error);
      else controller.close();
    },
  });
}

test("a comparison is read line by line, wherever its chunks are cut", async () => {
  const bytes = new TextEncoder().encode(DIFF);
  for (let cut = 0; cut <= bytes.length; cut++) {
    const { server } = scripted(new Response(body([bytes.slice(0, cut), bytes.slice(cut)])));
    const lines = await server.readDiff("t", "a", "b");
    assert.deepEqual(lines, [{ kind: "file", change: "added", name: "häuser/🏠.glb" }, { kind: "finished", exit: 13 }], `cut at ${cut}`);
  }
  const single = await readLines(body([...bytes].map((byte) => Uint8Array.of(byte))));
  assert.deepEqual(single.map(({ kind }) => kind), ["file", "finished"]);
});

test("a comparison is never asked for as one text", async () => {
  const answer = new Response(DIFF);
  answer.text = () => assert.fail("the whole body was read as a string");
  assert.equal((await scripted(answer).server.readDiff("t", "a", "b")).length, 2);
});

test("a comparison that breaks off anywhere is an error with a hint", async () => {
  const bytes = new TextEncoder().encode(DIFF);
  const isBroken = (error) => error instanceof ServerError && error.status === 0 && error.hint === "Try again.";
  for (let end = 0; end < bytes.length; end++) await assert.rejects(readLines(body([bytes.slice(0, end)])), isBroken, `end at ${end}`);
  await assert.rejects(readLines(body([bytes.slice(0, 60)], new TypeError("network error"))), isBroken);
  await assert.rejects(readLines(null), isBroken);
});

test("changes are found by name; what has no line is the same", () => {
  const changes = new Changes([
    { kind: "file", change: "added", name: "new.glb" }, { kind: "file", change: "moved", name: "here.glb", from: "there.glb" },
    { kind: "file", change: "removed", name: "gone.glb", old_size: 7 },
    { kind: "finished", exit: 13, added: 1, removed: 1, changed: 0, moved: 1, same: 40 },
  ]);
  assert.deepEqual(["new.glb", "here.glb", "old.glb", null].map((name) => changes.of(name)), ["added", "moved", "same", "same"]);
  assert.deepEqual([...changes.removed], [["gone.glb", 7]]);
  assert.deepEqual(changes.counts, { added: 1, changed: 0, moved: 1, removed: 1, same: 40 });
});
