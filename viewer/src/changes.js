/**
 * Changes between two versions: colours, and which file has which change.
 *
 * @typedef {"added" | "changed" | "moved" | "same" | "removed"} Change
 */

/** Colours that people with colour blindness can tell apart; sRGB. The legend has the same ones. */
export const CHANGE_COLOURS = Object.freeze({
  added: 0x1b9e77, changed: 0xe6a100, moved: 0x3f78d8, same: 0xb4bcc6, removed: 0xd6295f,
});

export class Changes {
  /** @param {import("./server.js").DiffLine[]} lines of `tilesync diff --json` */
  constructor(lines) {
    /** @type {Map<string, Change>} changes of the files of the newer version */
    this.byName = new Map();
    /** @type {Map<string, number | null>} files that are gone, with their sizes */
    this.removed = new Map();
    /** @type {Record<string, number>} */
    this.counts = { added: 0, changed: 0, moved: 0, removed: 0, same: 0 };
    for (const line of lines) {
      if (line.kind === "finished") {
        for (const key of Object.keys(this.counts)) this.counts[key] = Number(line[key] ?? 0);
      } else if (line.kind === "file" && line.name) {
        if (line.change === "removed") this.removed.set(line.name, line.old_size ?? line.size ?? null);
        else this.byName.set(line.name, /** @type {Change} */ (line.change));
      }
    }
  }

  /** @param {string | null} name of a file @returns {Change} */
  of(name) {
    return (name !== null && this.byName.get(name)) || "same";
  }
}
