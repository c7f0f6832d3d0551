// What the arbiter does: who waits by model, class and user; what it advises.

import {h} from './dom.js';
import {Table, pill, whyLink} from './table.js';
import {number, seconds} from './units.js';
import {figure, label} from './why.js';

export function queuesTable(changed) {
  return new Table({
    label: 'Queues',
    keyOf: (queue) => `${queue.model} ${queue.work_class} ${queue.owner}`,
    changed,
    columns: [
      {
        key: 'name',
        title: 'Model',
        value: (q) => q.name,
        cell: (q) => h('span', null, h('span.name-cell', null, q.name), whyLink(q.model, q.name)),
      },
      {key: 'class', title: 'Class', value: (q) => q.work_class, cell: (q) => pill(q.work_class)},
      {key: 'owner', title: 'User', value: (q) => q.owner, cell: (q) => (q.owner ? owner(q.owner) : '–')},
      {key: 'waiting', title: 'Waiting', numeric: true, value: (q) => q.waiting, cell: (q) => number(q.waiting)},
      {key: 'running', title: 'Running', numeric: true, value: (q) => q.running, cell: (q) => number(q.running)},
      {
        key: 'oldest',
        title: 'Oldest waits',
        numeric: true,
        value: (q) => q.oldest_s,
        cell: (q) => (q.waiting ? seconds(q.oldest_s) : '–'),
      },
    ],
  });
}

function owner(name) {
  return h('span', null, name, whyLink(name));
}

/** The advice, each with what it rests on, what it is expected to bring, and what to do. */
export function adviceList(advice) {
  return h(
    'ul.stack',
    {'aria-label': 'Advice'},
    advice.map((each) =>
      h(
        'li.card.advice',
        {'data-key': `${each.code} ${each.about}`},
        h(
          'div.device-head',
          null,
          h('h3', null, each.name || each.about),
          pill(each.code.replaceAll('_', ' ')),
          whyLink(each.about, each.name || each.about),
        ),
        h('p.wrap', null, each.text),
        numbers('Seen', each.evidence),
        numbers('Expected', each.gain),
        each.action ? h('p.code.wrap', null, each.action) : null,
      ),
    ),
  );
}

function numbers(title, values) {
  const found = Object.entries(values ?? {});
  if (!found.length) return null;
  return h(
    'p.numbers',
    null,
    h('span.muted', null, `${title}: `),
    found.map(([name, value]) => h('span.tabular', null, `${label(name)}: `, h('b', null, change(name, value)))),
  );
}

/** A number that may be a change: less than nothing keeps its sign before the unit. Pure. */
export function change(name, value) {
  return typeof value === 'number' && value < 0 ? `−${figure(name, -value)}` : figure(name, value);
}
