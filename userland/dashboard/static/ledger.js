// The ledger of bytes as one stacked bar, with a legend and the same as a table.

import {h} from './dom.js';
import {whyLink} from './table.js';
import {bytes, percent} from './units.js';

const NAMES = {
  weights: 'Weights',
  kv: 'KV cache',
  workspace: 'Workspace',
  tuning: 'Tuning',
  lease: 'Leases',
  buffer: 'Shared buffers',
  runtime: 'Own processes',
  foreign: 'Other processes',
  reserve: 'Reserve',
  other: 'Other',
};
const ORDER = Object.keys(NAMES);

/** The devices that take models: all but the memory of the machine itself, which no driver serves. Pure. */
export function takers(overview) {
  return (overview?.devices ?? []).filter(({name}) => name !== 'host');
}

/** What lies on a device by purpose, greatest purposes in a fixed order: `[{what, name, bytes, rows}]`. Pure. */
export function byPurpose(rows) {
  const found = new Map();
  for (const row of rows) {
    const what = NAMES[row.what] ? row.what : 'other';
    const group = found.get(what) ?? {what, name: NAMES[what], bytes: 0, rows: []};
    group.bytes += row.bytes;
    group.rows.push(row);
    found.set(what, group);
  }
  return [...found.values()].sort((a, b) => ORDER.indexOf(a.what) - ORDER.indexOf(b.what));
}

/** The bar of one device. */
export function ledgerBar(device) {
  const groups = byPurpose(device.rows ?? []).filter((group) => group.bytes > 0);
  const used = device.total - device.free;
  const text = `${bytes(used)} of ${bytes(device.total)} used: ${groups.map((group) => `${group.name} ${bytes(group.bytes)}`).join(', ') || 'nothing'}`;
  return h(
    'div.ledger',
    null,
    h(
      'div.bar',
      {role: 'img', 'aria-label': text},
      groups.map((group) =>
        h('span', {
          class: `d-${group.what}`,
          title: `${group.name}: ${bytes(group.bytes)} (${percent(group.bytes, device.total)})`,
          style: {width: `${Math.max(0.4, (100 * group.bytes) / Math.max(device.total, 1))}%`},
          'data-key': group.what,
        }),
      ),
    ),
    h(
      'ul.legend',
      null,
      groups.map((group) =>
        h(
          'li',
          {'data-key': group.what},
          h(`i.d-${group.what}`),
          group.name,
          ' ',
          h('b.value', null, bytes(group.bytes)),
        ),
      ),
      h('li', {'data-key': 'free'}, h('i.free'), 'Free ', h('b.value', null, bytes(device.free))),
    ),
  );
}

/** Row by row, who owns what. */
export function ledgerTable(device) {
  const groups = byPurpose(device.rows ?? []);
  if (!groups.length) return null;
  return h(
    'details',
    {'data-key': `rows-${device.id}`},
    h('summary', null, `Who owns what (${device.rows.length})`),
    h(
      'table.plain',
      null,
      h(
        'thead',
        null,
        h(
          'tr',
          null,
          h('th', {scope: 'col'}, 'Owner'),
          h('th', {scope: 'col'}, 'For'),
          h('th.num', {scope: 'col'}, 'Bytes'),
          h('th.num', {scope: 'col'}, 'Share'),
        ),
      ),
      h(
        'tbody',
        null,
        groups.flatMap((group) =>
          [...group.rows]
            .sort((a, b) => b.bytes - a.bytes)
            .map((row) =>
              h(
                'tr',
                null,
                h('td.wrap', null, row.owner || 'system', row.owner ? whyLink(row.owner) : null),
                h('td', null, h(`i.swatch.d-${group.what}`), group.name),
                h('td.num', null, bytes(row.bytes)),
                h('td.num', null, percent(row.bytes, device.total)),
              ),
            ),
        ),
      ),
    ),
  );
}
