/** Names of files: from the URL of a tile to the name in the manifest, and back from the templates of implicit tilings. */

/**
 * Name of a file relative to the folder of its tileset, decoded as the server and the manifest have it.
 * @param {string} url of the file
 * @param {string} base URL of the folder, with its slash
 * @returns {string | null} null if the file lies elsewhere, or inside a `data:` URI
 */
export function fileName(url, base) {
  const bare = url.split(/[?#]/, 1)[0];
  if (!bare.startsWith(base)) return null;
  return decodePath(bare.slice(base.length));
}

/** @param {string} path */
export function decodePath(path) {
  return path
    .split("/")
    .map((segment) => {
      try {
        return decodeURIComponent(segment);
      } catch {
        return segment; // a lone % is a literal one
      }
    })
    .join("/");
}

/** @param {string} url @returns {string} the URL of the folder that a file lies in, with its slash */
export const folderUrl = (url) => new URL(".", url).href;

/**
 * Function that reads the coordinates of an implicit tile from the name of its file.
 * @param {string} template such as `content/{level}/{x}/{y}.glb`, relative to the same folder as the names
 * @returns {(name: string) => {level: number, x: number, y: number, z: number} | null} null if the name is none of the template
 */
export function compileTemplate(template) {
  const seen = new Set();
  const pattern = template.replace(/\{(level|x|y|z)\}|[^{]+|\{/g, (part, key) => {
    if (!key) return part.replace(/[.*+?^${}()|[\]\\]/g, "\\$&");
    if (seen.has(key)) return `\\k<${key}>`;
    seen.add(key);
    return `(?<${key}>\\d+)`;
  });
  const compiled = new RegExp(`^${pattern}$`);
  return (name) => {
    const found = seen.size ? compiled.exec(name) : null;
    if (!found) return null;
    const { level = "0", x = "0", y = "0", z = "0" } = found.groups ?? {};
    return { level: Number(level), x: Number(x), y: Number(y), z: Number(z) };
  };
}

/**
 * Bounding volume of an implicit tile: the volume of the root, divided.
 * Source: 3D Tiles 1.1, implicit tiling, "Subdivision Rules".
 * @param {{box?: number[], region?: number[]}} root
 * @param {{level: number, x: number, y: number, z: number}} at
 * @param {boolean} isOctree
 * @returns {{box?: number[], region?: number[]}}
 */
export function divideVolume(root, at, isOctree) {
  const share = 2 ** -at.level;
  const steps = [at.x, at.y, at.z];
  const axes = isOctree ? 3 : 2;
  if (root.region) {
    const region = [...root.region];
    const sides = [[0, 2], [1, 3], [4, 5]];
    for (let axis = 0; axis < axes; axis++) {
      const [low, high] = sides[axis];
      const step = (root.region[high] - root.region[low]) * share;
      region[low] = root.region[low] + step * steps[axis];
      region[high] = region[low] + step;
    }
    return { region };
  }
  if (!root.box) return root;
  const box = [...root.box];
  for (let axis = 0; axis < axes; axis++) {
    for (let row = 0; row < 3; row++) {
      const half = root.box[3 + axis * 3 + row];
      box[3 + axis * 3 + row] = half * share;
      box[row] += half * (share * (2 * steps[axis] + 1) - 1);
    }
  }
  return { box };
}
