/** The page: makes the parts and connects them. */

import { App } from "./app.js";
import { byId, throttle } from "./dom.js";
import { connectInput, togglePanel } from "./input.js";
import { formatLink } from "./link.js";
import { Panel } from "./panel.js";
import { Server } from "./server.js";
import { Stage } from "./stage.js";
import { Theme } from "./theme.js";

const POLL_MS = 5000;
const RENDER_MS = 150;
const LINK_MS = 300;
const PHONE = "(max-width: 760px)";
/** Frames in a row without work before the page counts as at rest: what one frame brings may ask for more. */
const QUIET_FRAMES = 4;

const traffic = { received: 0 };
new PerformanceObserver((list) => {
  for (const entry of list.getEntries()) traffic.received += /** @type {PerformanceResourceTiming} */ (entry).transferSize;
}).observe({ type: "resource", buffered: true });

const stage = makeStage();
if (stage) start(stage);

/** @returns {Stage | null} null if there is no WebGL, which the page then says */
function makeStage() {
  try {
    return new Stage(byId("canvas"));
  } catch (error) {
    console.error(error);
    const card = byId("card");
    card.textContent = "This browser cannot draw in 3D: WebGL 2 is missing or switched off. Try another browser, or switch on its hardware acceleration.";
    card.hidden = false;
    return null;
  }
}

/** @param {Stage} stage */
function start(stage) {
  const server = new Server((url, options) => fetch(url, options));
  const render = throttle(() => panel.render(), RENDER_MS);
  const app = new App({ server, stage, onChange: () => { render(); writeLink(); } });
  const panel = new Panel(app, stage, traffic);
  const theme = new Theme((background) => {
    stage.renderer.setClearColor(background);
    stage.invalidate();
  });
  let written = "";
  const writeLink = throttle(() => {
    if (!app.site || !app.view) return;
    written = formatLink(app.snapshot());
    if (written !== location.hash) history.replaceState(null, "", written);
  }, LINK_MS);
  stage.onCamera = writeLink;
  stage.onDrawn = render;
  stage.onTick = () => app.settle();

  const copyLink = async () => {
    const link = new URL(formatLink(app.snapshot()), location.href);
    link.search = ""; // a token is nobody else's business
    try {
      await navigator.clipboard.writeText(link.href);
      panel.say("The link is copied.");
    } catch {
      panel.say(`This browser does not let the page copy. The link is in the address bar: ${link.href}`);
    }
  };
  connectInput({ app, stage, panel, theme, copyLink });
  if (matchMedia(PHONE).matches) togglePanel(false);
  addEventListener("hashchange", () => {
    if (location.hash !== written) app.openLink();
  });
  removeTokenFromAddress();
  stage.resize();
  app.openLink(); // without a site yet: only the options
  expose({ app, stage, panel, theme, poll: keepAsking(app) });
}

/** The server has put the token into a cookie; nobody needs it in the history or in a screenshot. */
function removeTokenFromAddress() {
  const address = new URL(location.href);
  if (!address.searchParams.has("token")) return;
  address.searchParams.delete("token");
  history.replaceState(null, "", address);
}

/** Ask the server for news every few seconds while the page is seen. @param {App} app @returns {() => Promise<void>} asks at once */
function keepAsking(app) {
  /** @type {number | undefined} */
  let timer;
  const ask = async () => {
    clearTimeout(timer);
    await app.refresh();
    if (app.outage?.status === 401) askForToken(app.outage.hint || app.outage.message);
    clearTimeout(timer);
    timer = setTimeout(() => !document.hidden && ask(), POLL_MS);
  };
  document.addEventListener("visibilitychange", () => !document.hidden && ask());
  ask();
  return ask;
}

/** @param {string} hint */
function askForToken(hint) {
  const dialog = byId("token");
  if (dialog.open) return;
  byId("token-hint").textContent = hint;
  dialog.addEventListener("close", () => {
    const token = byId("token-value").value;
    if (!token) return;
    const address = new URL(location.href);
    address.searchParams.set("token", token);
    location.replace(address); // the server answers with a cookie
    if (address.href === location.href) location.reload();
  }, { once: true });
  dialog.showModal();
}

/**
 * What tests and the curious may use: `await tilesyncViewer.idle()`, `tilesyncViewer.state()`.
 * @param {{app: App, stage: Stage, panel: Panel, theme: Theme, poll: () => Promise<void>}} parts
 */
function expose({ app, stage, panel, theme, poll }) {
  const idle = async () => {
    for (let quiet = 0; quiet < QUIET_FRAMES; ) {
      await new Promise(requestAnimationFrame);
      quiet = app.isIdle ? quiet + 1 : 0;
    }
    panel.render();
    panel.renderTile();
  };
  const state = () => ({
    ...app.snapshot(),
    link: formatLink(app.snapshot()),
    theme: theme.name,
    follows: app.follows,
    place: stage.frame,
    outage: app.outage && { status: app.outage.status, message: app.outage.message },
    news: app.news?.version ?? null,
    counts: app.changes?.counts ?? null,
    removedBoxes: app.view?.removedBoxes.boxes.length ?? 0,
    errorBoxes: app.view?.errorBoxes.boxes.length ?? 0,
    problems: app.views().flatMap((view) => view.problems.map(({ name, url, status, message }) => ({ name, url, status, message }))),
    notes: app.views().flatMap((view) => [...view.notes]),
    totals: panel.totals(),
    draw: { ...stage.renderer.info.render },
    received: traffic.received,
    firstTileMs: stage.firstTileMs ?? null,
    selected: panel.selection && { name: panel.selection.view.nameOf(panel.selection.tile), facts: panel.fileFacts },
    names: app.view ? [...app.view.tiles.visibleTiles].map((tile) => app.view?.nameOf(tile)) : [],
  });
  Object.assign(window, { tilesyncViewer: { idle, state, poll, app, ready: idle() } });
}
