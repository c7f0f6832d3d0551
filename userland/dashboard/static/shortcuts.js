// The keys: one table, which also is what `?` shows. They can be switched off, for people who dictate.

import {h} from './dom.js';
import {tell} from './dialogs.js';

const OFF = 'llmos.keys';
const GO = {o: 'overview', l: 'charts', c: 'chat', m: 'models', t: 'tasks', j: 'journal', a: 'alerts', w: 'why'};

const HELP = [
  [['g', 'o'], 'go to the overview'],
  [['g', 'l'], 'go to the live charts'],
  [['g', 'c'], 'go to the chat'],
  [['g', 'm'], 'go to the models'],
  [['g', 't'], 'go to the tasks'],
  [['g', 'j'], 'go to the journal'],
  [['g', 'a'], 'go to the alerts'],
  [['g', 'w'], 'go to why'],
  [['/'], 'search on this page'],
  [['t'], 'change the theme'],
  [['?'], 'show these keys'],
  [['↑', '↓'], 'walk the rows of a table'],
  [['Enter'], 'open the row; send a message'],
  [['Shift', 'Enter'], 'a new line in a message'],
  [['Esc'], 'stop answers that are being written; close a dialog'],
];

export function enabled() {
  return localStorage.getItem(OFF) !== 'off';
}

/** Listen for keys. `go(page)`, `search()`, `theme()` and `stop()` are what they do. */
export function install({go, search, theme, stop}) {
  let first = '';
  document.addEventListener('keydown', (event) => {
    if (event.key === 'Escape') stop();
    const typing = event.target.closest?.('input, textarea, select, [contenteditable]');
    if (
      typing ||
      event.ctrlKey ||
      event.metaKey ||
      event.altKey ||
      document.querySelector('dialog[open]') ||
      !enabled()
    )
      return;
    const key = event.key;
    const started = first;
    first = '';
    if (started === 'g' && GO[key]) go(GO[key]);
    else if (key === 'g') first = 'g';
    else if (key === '/') search();
    else if (key === 't') theme();
    else if (key === '?') help();
    else return;
    event.preventDefault();
  });
}

export function help() {
  const box = h('input', {
    type: 'checkbox',
    checked: enabled(),
    onchange: () => localStorage.setItem(OFF, box.checked ? 'on' : 'off'),
  });
  tell(
    'Keyboard',
    h(
      'div.shortcuts',
      null,
      HELP.map(([keys, text]) => [
        h(
          'span',
          null,
          keys.map((key, at) => [at ? ' ' : '', h('kbd', null, key)]),
        ),
        h('span', null, text),
      ]),
    ),
    h('label.check', null, box, h('span', null, 'Use single-key shortcuts')),
  );
}
