// Small helpers to build elements and to bring a page up to date without losing focus, selection or scroll.

const SVG = 'http://www.w3.org/2000/svg';

/** An element: `h('div.card#x', {onclick, title, style: {width: '3%'}}, ...children)`; null and false children are left out. */
export function h(tag, props, ...children) {
  return fill(document.createElement(tag.match(/^[\w-]+/)[0]), tag, props, children);
}

/** The same for an SVG element. */
export function svg(tag, props, ...children) {
  return fill(document.createElementNS(SVG, tag.match(/^[\w-]+/)[0]), tag, props, children);
}

/** One picture of the sprite in the page. */
export function icon(name) {
  return svg('svg.icon', {'aria-hidden': 'true', viewBox: '0 0 24 24'}, svg('use', {href: `#i-${name}`}));
}

function fill(node, tag, props, children) {
  for (const [, mark, name] of tag.matchAll(/([.#])([\w-]+)/g)) {
    if (mark === '.') node.classList.add(name);
    else node.id = name;
  }
  for (const [name, value] of Object.entries(props ?? {})) {
    if (value === null || value === undefined || value === false) continue;
    if (name.startsWith('on')) listen(node, name, value);
    else if (name === 'class') node.classList.add(...String(value).split(' ').filter(Boolean));
    else if (name === 'style') for (const [key, text] of Object.entries(value)) node.style.setProperty(key, text);
    else if (name === 'value' || name === 'checked' || name === 'selected' || name === 'disabled') node[name] = value;
    else node.setAttribute(name, value === true ? '' : value);
  }
  node.append(...children.flat(Infinity).filter((child) => child !== null && child !== undefined && child !== false));
  return node;
}

function listen(node, name, handler) {
  (node.llmosHandlers ??= {})[name] = handler;
  node[name] = handler;
}

/** Make `target` look like `fresh` with the fewest changes; returns what now stands in the page. */
export function morph(target, fresh) {
  if (target.nodeType !== fresh.nodeType || target.nodeName !== fresh.nodeName || keyOf(target) !== keyOf(fresh)) {
    target.replaceWith(fresh);
    return fresh;
  }
  if (target.nodeType === Node.TEXT_NODE) {
    if (target.data !== fresh.data) target.data = fresh.data;
    return target;
  }
  if ('hold' in target.dataset && 'hold' in fresh.dataset) return target; // somebody else draws in there
  attributes(target, fresh);
  morphChildren(target, [...fresh.childNodes]);
  return target;
}

/** Make the children of `target` look like `fresh`, a list of nodes (or texts). */
export function morphChildren(target, fresh) {
  const wanted = fresh
    .flat(Infinity)
    .filter((node) => node !== null && node !== undefined && node !== false)
    .map((node) => (typeof node === 'string' ? document.createTextNode(node) : node));
  const chosen = target.nodeName === 'SELECT' ? target.value : null;
  const keyed = new Map([...target.childNodes].filter(keyOf).map((node) => [keyOf(node), node]));
  let at = target.firstChild;
  for (const node of wanted) {
    const old = keyOf(node) ? keyed.get(keyOf(node)) : at;
    if (!old || (keyOf(node) === '' && keyOf(old) !== '')) {
      target.insertBefore(node, at);
      continue;
    }
    if (old === at) at = at.nextSibling;
    else target.insertBefore(old, at);
    morph(old, node);
  }
  while (at) {
    const next = at.nextSibling;
    at.remove();
    at = next;
  }
  if (chosen !== null && [...target.options].some((option) => option.value === chosen)) target.value = chosen;
}

function keyOf(node) {
  return node.dataset?.key ?? '';
}

const KEPT = new Set(['style', 'open', 'value', 'checked', 'tabindex']); // the reader's own, or set by other means

function attributes(target, fresh) {
  for (const {name} of [...target.attributes]) {
    if (!KEPT.has(name) && !fresh.hasAttribute(name)) target.removeAttribute(name);
  }
  for (const {name, value} of fresh.attributes) {
    if (!KEPT.has(name) && target.getAttribute(name) !== value) target.setAttribute(name, value);
  }
  if (target.nodeName === 'PROGRESS' && fresh.hasAttribute('value')) target.value = fresh.value;
  if (target.style.cssText !== fresh.style.cssText) target.style.cssText = fresh.style.cssText;
  for (const name of Object.keys(target.llmosHandlers ?? {})) target[name] = null;
  for (const [name, handler] of Object.entries(fresh.llmosHandlers ?? {})) target[name] = handler;
  if (fresh.llmosHandlers || target.llmosHandlers) target.llmosHandlers = fresh.llmosHandlers ?? {};
  if ('disabled' in fresh && target.disabled !== fresh.disabled) target.disabled = fresh.disabled;
}

let toasts = 0;

/** Say something for a few seconds, also to screen readers. `level`: info, good or error. */
export function toast(text, level = 'info') {
  const box = document.getElementById('toasts');
  const node = h(
    `div.toast.${level}`,
    {id: `toast-${(toasts += 1)}`},
    h('span', null, text),
    h('button.quiet', {type: 'button', 'aria-label': 'Dismiss', onclick: () => node.remove()}, icon('close')),
  );
  box.append(node);
  setTimeout(() => node.remove(), level === 'error' ? 12000 : 5000);
}

/** What stands where there is nothing (yet): a picture, a title, a sentence, perhaps something to do. */
export function empty(picture, title, text, ...actions) {
  return h(
    'div.empty',
    null,
    icon(picture),
    h('h3', null, title),
    h('p', null, text),
    actions.length ? h('div.actions', null, actions) : null,
  );
}

/** Grey bars while something is fetched. */
export function loading(lines = 3, label = 'Loading') {
  const bars = Array.from({length: lines}, (_, at) => h('span.bone', {style: {width: `${92 - at * 17}%`}}));
  return h('div.loading', {role: 'status'}, h('span.unseen', null, label), bars);
}

/** An error as people read it: what happened, and what to try. */
export function failure(error, retry) {
  const facts = error.fields
    ? Object.entries(error.fields).filter(
        ([name, value]) => value !== '' && value !== null && name !== 'retry_after_ms',
      )
    : [];
  return h(
    'div.failure',
    {role: 'alert'},
    icon('alert'),
    h(
      'div',
      null,
      h('strong', null, error.title ?? 'That did not work'),
      h('p', null, sentence(error.message ?? String(error))),
      facts.length
        ? h('p.small.muted', null, facts.map(([name, value]) => `${name}: ${plain(value)}`).join(' · '))
        : null,
      retry ? h('button', {type: 'button', onclick: retry}, 'Try again') : null,
    ),
  );
}

function sentence(text) {
  return text.charAt(0).toUpperCase() + text.slice(1);
}

function plain(value) {
  return typeof value === 'object' ? JSON.stringify(value) : String(value);
}
