/**
 * The JSON API of `tilesync serve`.
 *
 * @typedef {{
 *   name: string, url: string, export?: string | null, imodel?: string | null, display_name?: string | null,
 *   changeset?: string | null, modified?: string | number | null, finished?: string | number | null,
 *   files?: number | null, bytes?: number | null, current?: boolean, missing?: number | null,
 * }} Version
 * @typedef {{
 *   name: string, title?: string | null, kind: string, base: string, url: string, current: string | null,
 *   follow?: boolean, error?: string, versions: Version[],
 * }} Tileset
 * @typedef {{tilesync?: string, tilesets: Tileset[]}} Site
 * @typedef {{
 *   kind: string, change?: string, name?: string, from?: string | null, size?: number | null, old_size?: number | null,
 * } & Record<string, unknown>} DiffLine
 */

/** Failure of a request: `status` 0 if there was no answer. */
export class ServerError extends Error {
  /** @param {number} status @param {string} message @param {string} [hint] */
  constructor(status, message, hint = "") {
    super(message);
    this.name = "ServerError";
    this.status = status;
    this.hint = hint;
  }
}

/**
 * Turn an answer that is no success into an error with the server's own words.
 * @param {Response} response
 */
export async function readError(response) {
  let message = "";
  let hint = "";
  try {
    const text = await response.text();
    const answer = text.startsWith("{") ? JSON.parse(text) : null;
    message = answer ? String(answer.error ?? "") : text.startsWith("<") ? "" : text.slice(0, 200);
    hint = answer ? String(answer.hint ?? "") : "";
  } catch {
    message = ""; // a body that breaks off says nothing; the status does
  }
  return new ServerError(response.status, message || response.statusText || `HTTP status ${response.status}`, hint);
}

/** Client of the API; remembers the ETag of the site. */
export class Server {
  /** @param {(url: string, options?: RequestInit) => Promise<Response>} request `fetch`, or another one in tests */
  constructor(request) {
    this.request = request;
    /** @type {string | null} */
    this.etag = null;
  }

  /** @returns {Promise<Site | null>} null if nothing has changed since the last call */
  async readSite() {
    const headers = this.etag ? { "If-None-Match": this.etag } : undefined;
    // no-store: the condition is ours, and the browser must not answer in the server's place
    const response = await this.send("_tilesync/site.json", { headers, cache: "no-store" });
    if (response.status === 304) return null;
    if (!response.ok) throw await readError(response);
    const site = await response.json();
    this.etag = response.headers.get("ETag");
    return site;
  }

  /** @param {string} tileset @param {string} version @param {string} name @returns {Promise<Record<string, any>>} */
  async readFile(tileset, version, name) {
    const query = new URLSearchParams({ tileset, version, name });
    const response = await this.send(`_tilesync/file.json?${query}`);
    if (!response.ok) throw await readError(response);
    return response.json();
  }

  /** @param {string} tileset @param {string} a @param {string} b @returns {Promise<DiffLine[]>} */
  async readDiff(tileset, a, b) {
    const query = new URLSearchParams({ tileset, a, b });
    const response = await this.send(`_tilesync/diff.jsonl?${query}`);
    if (!response.ok) throw await readError(response);
    return readLines(response.body);
  }

  /** @param {string} url @param {RequestInit} [options] */
  async send(url, options) {
    try {
      return await this.request(url, options);
    } catch (error) {
      throw new ServerError(0, `The server does not answer (${error instanceof Error ? error.message : error}).`);
    }
  }
}

/**
 * Parse JSON lines as they arrive: the text of a large comparison is never in memory as a whole.
 * @param {ReadableStream<Uint8Array> | null} body each of its lines ends with a line feed
 * @returns {Promise<DiffLine[]>} Raises ServerError if the last line is missing: the answer broke off.
 */
export async function readLines(body) {
  /** @type {DiffLine[]} */
  const lines = [];
  let rest = "";
  try {
    const reader = body?.pipeThrough(/** @type {ReadableWritablePair<string, Uint8Array>} */ (new TextDecoderStream())).getReader();
    for (let part = await reader?.read(); part && !part.done; part = await reader?.read()) {
      const texts = (rest + part.value).split("\n");
      rest = texts.pop() ?? "";
      for (const text of texts) if (text) lines.push(JSON.parse(text));
    }
  } catch (error) {
    if (error instanceof SyntaxError) throw error;
    throw brokenOff(); // the connection was lost
  }
  if (rest || lines.at(-1)?.kind !== "finished") throw brokenOff();
  return lines;
}

const brokenOff = () => new ServerError(0, "The comparison broke off before its end.", "Try again.");
