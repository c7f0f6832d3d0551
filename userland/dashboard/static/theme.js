// Dark, light, or as the system says. The choice is the reader's and stays in this browser.

const ORDER = ['auto', 'light', 'dark'];
const NAMES = {auto: 'as the system', light: 'light', dark: 'dark'};
const ICONS = {auto: 'auto', light: 'sun', dark: 'moon'};
const KEY = 'llmos.theme';

export function chosen() {
  const kept = localStorage.getItem(KEY);
  return ORDER.includes(kept) ? kept : 'auto';
}

/** Put the theme on the page; tells everyone who draws with colours. */
export function apply() {
  const dark = chosen() === 'dark' || (chosen() === 'auto' && matchMedia('(prefers-color-scheme: dark)').matches);
  document.documentElement.dataset.theme = dark ? 'dark' : 'light';
  document.dispatchEvent(new CustomEvent('llmos:theme'));
}

export function next() {
  const after = ORDER[(ORDER.indexOf(chosen()) + 1) % ORDER.length];
  localStorage.setItem(KEY, after);
  apply();
  return after;
}

/** Keep a button showing which theme is chosen. */
export function button(node, icon) {
  const show = () => {
    node.replaceChildren(icon(ICONS[chosen()]));
    node.setAttribute('aria-label', `Theme: ${NAMES[chosen()]}`);
    node.title = `Theme: ${NAMES[chosen()]} (t)`;
  };
  node.onclick = next;
  document.addEventListener('llmos:theme', show);
  matchMedia('(prefers-color-scheme: dark)').addEventListener('change', apply);
  show();
}

/** A colour of the page's vocabulary, as it is now. */
export function colour(name) {
  return getComputedStyle(document.documentElement).getPropertyValue(name).trim();
}
