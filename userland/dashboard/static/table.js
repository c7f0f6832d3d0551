// Tables that sort by any column, walk by arrow keys, and become cards on a phone.

import {h, icon} from './dom.js';

/** Rows in the order of a column: numbers as numbers, texts by their natural order, what is unknown always last. */
export function sortRows(rows, value, descending = false) {
  const unknown = (found) => found === null || found === undefined || found === '' || Number.isNaN(found);
  return rows
    .map((row, at) => [value(row), at, row])
    .sort(([a, i], [b, j]) => {
      if (unknown(a) || unknown(b)) return unknown(a) - unknown(b) || i - j;
      const order =
        typeof a === 'number' && typeof b === 'number'
          ? a - b
          : String(a).localeCompare(String(b), undefined, {numeric: true});
      return (descending ? -order : order) || i - j;
    })
    .map(([, , row]) => row);
}

/**
 * One table of a page. `columns`: `{key, title, value(row) for sorting, cell(row), numeric, help}`; a column without `value` is not
 * sortable. `open(row)` is what Enter and a click on a row do. Changing the order calls `changed`, which draws the page again.
 */
export class Table {
  constructor({label, columns, keyOf, open, changed, sort = null, descending = false}) {
    Object.assign(this, {label, columns, keyOf, open, changed, sort, descending});
  }

  order(rows) {
    const column = this.columns.find(({key}) => key === this.sort);
    return column?.value ? sortRows(rows, column.value, this.descending) : rows;
  }

  by(column) {
    this.descending = this.sort === column.key ? !this.descending : Boolean(column.numeric);
    this.sort = column.key;
    this.changed?.();
  }

  render(rows) {
    const body = h(
      'tbody',
      {role: 'rowgroup', onkeydown: this.open ? walk : null},
      this.order(rows).map((row, at) => this.row(row, at)),
    );
    return h(
      'div.table-box',
      null,
      h(
        'table',
        {role: 'table', 'aria-label': this.label},
        h(
          'thead',
          {role: 'rowgroup'},
          h(
            'tr',
            {role: 'row'},
            this.columns.map((column) => this.head(column)),
          ),
        ),
        body,
      ),
    );
  }

  head(column) {
    const sorted = this.sort === column.key;
    const state = sorted ? (this.descending ? 'descending' : 'ascending') : 'none';
    const props = {
      scope: 'col',
      role: 'columnheader',
      class: column.numeric ? 'num' : '',
      'aria-sort': column.value ? state : null,
    };
    if (!column.value) return h('th', props, column.title || h('span.unseen', null, 'Actions'));
    return h(
      'th',
      props,
      h(
        'button.sort',
        {type: 'button', title: column.help ?? null, onclick: () => this.by(column)},
        column.title,
        h('span.arrow', {'aria-hidden': 'true', class: state}),
      ),
    );
  }

  row(row, at) {
    const props = {role: 'row', 'data-key': this.keyOf(row)};
    if (this.open) {
      props.tabindex = at === 0 ? 0 : -1;
      props.class = 'opens';
      props.onclick = (event) => {
        if (!event.target.closest('a, button, input, select, summary') && !String(getSelection())) this.open(row);
      };
      props['data-opens'] = '1';
      props.onfocus = settle;
      props.onkeydown = (event) => {
        if (event.key === 'Enter' && event.target === event.currentTarget) this.open(row);
      };
    }
    return h(
      'tr',
      props,
      this.columns.map((column) =>
        h(
          'td',
          {
            role: 'cell',
            class: `${column.numeric ? 'num' : ''} ${column.class ?? ''}`,
            'data-label': column.title || null,
          },
          column.cell(row),
        ),
      ),
    );
  }
}

/** Arrow keys go from row to row; one row at a time takes part in the order of Tab. */
function walk(event) {
  const rows = [...event.currentTarget.querySelectorAll('tr[data-opens]')];
  const at = rows.indexOf(event.target);
  const to = {ArrowDown: at + 1, ArrowUp: at - 1, Home: 0, End: rows.length - 1}[event.key];
  if (at < 0 || to === undefined || !rows[to]) return;
  event.preventDefault();
  rows[to].focus();
}

function settle(event) {
  const row = event.currentTarget;
  for (const other of row.parentElement.querySelectorAll('tr[data-opens]')) other.tabIndex = other === row ? 0 : -1;
}

/** A state as a small coloured label; colour is never the only sign. */
export function pill(text, level = levelOf(text)) {
  return h(`span.pill.${level}`, null, text || 'unknown');
}

const LEVELS = {
  good: ['ready', 'awake', 'running', 'ok', 'done', 'live'],
  warn: [
    'starting',
    'loading',
    'suspect',
    'queued',
    'paused',
    'waking',
    'restarting',
    'warning',
    'checkpointing',
    'down',
    'lost',
    'draining',
  ],
  bad: ['failed', 'gone', 'error', 'dead'],
};

export function levelOf(text) {
  return Object.keys(LEVELS).find((level) => LEVELS[level].includes(text)) ?? 'plain';
}

/** A link to the reasons of an object. */
export function whyLink(about, name = about) {
  return h(
    'a.why',
    {href: `#/why?about=${encodeURIComponent(about)}`, title: `Why is ${name} as it is?`},
    icon('why'),
    h('span.unseen', null, `Why is ${name} as it is?`),
  );
}

/** Exactly one row of each table takes part in the order of Tab, also after rows came and went. */
export function ensureRows(root) {
  for (const body of root.querySelectorAll('tbody')) {
    const rows = [...body.querySelectorAll('tr[data-opens]')];
    if (rows.length && !rows.some((row) => row.tabIndex === 0)) rows[0].tabIndex = 0;
  }
}
