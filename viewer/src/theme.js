/** Light and dark: as the system says, until the reader chooses. */

const KEY = "tilesync-theme";

export class Theme {
  /** @param {(background: string) => void} onChange called with the colour behind the tiles */
  constructor(onChange) {
    this.onChange = onChange;
    this.system = matchMedia("(prefers-color-scheme: dark)");
    this.system.addEventListener("change", () => this.apply());
    this.apply();
  }

  /** @returns {"light" | "dark"} */
  get name() {
    return readChoice() ?? (this.system.matches ? "dark" : "light");
  }

  toggle() {
    const other = this.name === "dark" ? "light" : "dark";
    const isSystem = (other === "dark") === this.system.matches;
    writeChoice(isSystem ? null : other); // back to following the system
    this.apply();
  }

  apply() {
    document.documentElement.dataset.theme = this.name;
    this.onChange(getComputedStyle(document.documentElement).getPropertyValue("--sky").trim());
  }
}

/** @returns {"light" | "dark" | null} */
function readChoice() {
  try {
    const choice = localStorage.getItem(KEY);
    return choice === "light" || choice === "dark" ? choice : null;
  } catch {
    return null; // storage is forbidden: the system's choice holds
  }
}

/** @param {string | null} choice */
function writeChoice(choice) {
  try {
    if (choice) localStorage.setItem(KEY, choice);
    else localStorage.removeItem(KEY);
  } catch (error) {
    console.warn("the choice of light or dark is not remembered:", error);
  }
}
