/** Numbers and times as text. */

const UNITS = ["B", "kB", "MB", "GB", "TB"];

/** @param {number | null | undefined} count of bytes; decimal units, as the command line has them */
export function formatBytes(count) {
  if (count === null || count === undefined) return "unknown";
  let unit = 0;
  let value = count;
  while (value >= 999.95 && unit < UNITS.length - 1) {
    value /= 1000;
    unit++;
  }
  return `${unit === 0 ? value : value.toFixed(1)} ${UNITS[unit]}`;
}

/** @param {number} count */
export const formatCount = (count) => Math.round(count).toLocaleString("en-US");

/** @param {number} count @param {string} one @param {string} [many] */
export const formatPlural = (count, one, many = `${one}s`) => `${formatCount(count)} ${count === 1 ? one : many}`;

/** @param {number} value with three significant digits */
export function formatNumber(value) {
  if (!Number.isFinite(value)) return String(value);
  if (Math.abs(value) >= 1000) return formatCount(value);
  return String(Number(value.toPrecision(3)));
}

/** @param {number} value a length @returns {string} */
export const formatMetres = (value) => (Math.abs(value) >= 10_000 ? `${formatNumber(value / 1000)} km` : `${formatNumber(value)} m`);

/** @param {string | number | null | undefined} time ISO 8601 or seconds since the epoch @returns {string} such as 2026-03-01 08:30 UTC */
export function formatTime(time) {
  if (time === null || time === undefined || time === "") return "";
  const date = new Date(typeof time === "number" ? time * 1000 : time);
  if (Number.isNaN(date.getTime())) return String(time);
  return `${date.toISOString().slice(0, 16).replace("T", " ")} UTC`;
}

/**
 * Labels of tilesets by name: their titles, followed by the name where several have the same.
 * @param {readonly {name: string, title?: string | null}[]} tilesets @returns {Map<string, string>}
 */
export function labelTilesets(tilesets) {
  const titles = tilesets.map(({ name, title }) => title || name);
  /** @type {Map<string, number>} */
  const counts = new Map();
  for (const title of titles) counts.set(title, (counts.get(title) ?? 0) + 1);
  return new Map(tilesets.map(({ name }, at) => {
    const title = titles[at];
    return [name, counts.get(title) === 1 || title === name ? title : `${title} (${name})`];
  }));
}

/** @param {string | null | undefined} digest or id @param {number} [length] */
export const shorten = (digest, length = 8) => (digest && digest.length > length + 2 ? `${digest.slice(0, length)}…` : (digest ?? ""));

/**
 * Name of a version in a list: its date, changeset and size.
 * @param {{name: string, changeset?: string | null, modified?: string | number | null, finished?: string | number | null, files?: number | null, bytes?: number | null}} version
 */
export function describeVersion(version) {
  const parts = [formatTime(version.modified ?? version.finished) || shorten(version.name, 13)];
  if (version.changeset) parts.push(`changeset ${shorten(version.changeset, 7)}`);
  if (version.bytes !== null && version.bytes !== undefined) parts.push(formatBytes(version.bytes));
  return parts.join(" · ");
}
