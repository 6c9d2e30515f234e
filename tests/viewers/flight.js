// What both viewers' pages share: where a camera stands for a view of a sphere, and when a viewer has come to rest.
// A view is {heading, pitch, distance, error}: degrees, degrees, radii of the sphere, pixels.

const QUIET_FRAMES = 4;

const add = (a, b, scale) => a.map((value, axis) => value + scale * b[axis]);
const cross = (a, b) => [a[1] * b[2] - a[2] * b[1], a[2] * b[0] - a[0] * b[2], a[0] * b[1] - a[1] * b[0]];
const unit = (a) => a.map((value) => value / Math.hypot(...a));

// Up is away from the earth's centre, or z for a tileset that lies nowhere on it.
function frame(centre) {
  const up = Math.hypot(...centre) > 6e6 ? unit(centre) : [0, 0, 1];
  const east = Math.hypot(up[0], up[1]) > 1e-6 ? unit(cross([0, 0, 1], up)) : [1, 0, 0];
  return { east, north: cross(up, east), up };
}

export function stand(centre, radius, view) {
  const { east, north, up } = frame(centre);
  const [heading, pitch] = [view.heading, view.pitch].map((degrees) => (degrees * Math.PI) / 180);
  const level = add(north.map((value) => value * Math.cos(heading)), east, Math.sin(heading));
  const direction = add(level.map((value) => value * Math.cos(pitch)), up, Math.sin(pitch));
  const above = add(level.map((value) => value * -Math.sin(pitch)), up, Math.cos(pitch));
  return { position: add(centre, direction, -radius * view.distance), direction: unit(direction), up: unit(above) };
}

// Draws frame after frame until nothing has been under way for some in a row: what one frame brings may ask for more.
// The one who waits has the time limit.
export async function rest(draw, busy) {
  for (let quiet = 0; quiet < QUIET_FRAMES; ) {
    await new Promise(requestAnimationFrame);
    draw();
    quiet = busy() ? 0 : quiet + 1;
  }
}

// What went wrong so far, in words, wherever it was said.
export const wrongs = [];
addEventListener("error", (event) => wrongs.push(`error: ${event.message}`));
addEventListener("unhandledrejection", (event) => wrongs.push(`rejection: ${event.reason}`));
const say = console.error;
console.error = (...words) => {
  wrongs.push(`console: ${words.join(" ")}`);
  say(...words);
};
