/** Elements of the page. */

/**
 * @template {keyof HTMLElementTagNameMap} T
 * @param {T} tag @param {Record<string, any>} [properties] of the element; `dataset` and `attributes` are objects of their own
 * @param {...(Node | string | null)} children
 * @returns {HTMLElementTagNameMap[T]}
 */
export function make(tag, properties = {}, ...children) {
  const element = document.createElement(tag);
  const { dataset = {}, attributes = {}, ...others } = properties;
  Object.assign(element, others);
  Object.assign(element.dataset, dataset);
  for (const [name, value] of Object.entries(attributes)) element.setAttribute(name, String(value));
  element.append(...children.filter((child) => child !== null));
  return element;
}

/** @param {string} id @returns {any} the element of the page */
export function byId(id) {
  const element = document.getElementById(id);
  if (!element) throw new Error(`the page has no #${id}`);
  return element;
}

/** @param {HTMLElement} list a <dl> @param {[string, string, string?][]} rows label, value, class of the value */
export function fillList(list, rows) {
  list.replaceChildren(...rows.flatMap(([label, value, className = ""]) => [make("dt", {}, label), make("dd", { className }, value)]));
}

/** @param {HTMLSelectElement} select @param {{value: string, label: string, title?: string}[]} options @param {string | null} chosen */
export function fillSelect(select, options, chosen) {
  const wanted = JSON.stringify(options);
  if (select.dataset.options !== wanted) {
    select.replaceChildren(...options.map(({ value, label, title = "" }) => make("option", { value, title }, label)));
    select.dataset.options = wanted; // an open list is not rebuilt while nothing has changed
  }
  if (chosen !== null) select.value = chosen;
}

/**
 * Call a function at most once in a period, and once more at its end if it was asked for meanwhile.
 * @param {() => void} action @param {number} period ms
 */
export function throttle(action, period) {
  /** @type {number | null} */
  let timer = null;
  let last = -Infinity;
  return () => {
    if (timer !== null) return;
    const wait = Math.max(0, last + period - performance.now());
    timer = setTimeout(() => {
      timer = null;
      last = performance.now();
      action();
    }, wait);
  };
}
