/** Problems with files of a tileset, in words. */

import { ServerError } from "./server.js";

/** Failure of a file that was received, and has no bytes. */
export class EmptyFileError extends Error {
  constructor() {
    super("The file is empty.");
    this.name = "EmptyFileError";
  }
}

/**
 * Throw an error for a file without bytes: what a parser says of them names its own inside.
 * @param {Response} response
 */
export function refuseEmpty(response) {
  if (response.ok && response.headers.get("Content-Length") === "0") throw new EmptyFileError();
}

/** @param {unknown} error why a file is not shown */
export function describeProblem(error) {
  const text = error instanceof Error ? error.message : String(error);
  if (error instanceof ServerError || error instanceof EmptyFileError) return text;
  return `The content cannot be read: ${text.replace(/^(TilesRenderer|THREE\.\w+)\s*:\s*/, "")}`;
}
