// What needs attention now, and what did lately.

import {empty, h, loading, morphChildren} from './dom.js';
import {link} from './router.js';
import {pill, whyLink} from './table.js';
import {clock} from './units.js';

export function alertsPage(app) {
  const root = h('div', null, loading(3));
  return {root, update: (what) => what !== 'point' && draw(root, app)};
}

function draw(root, app) {
  const data = app.live.overview;
  if (!data) return;
  const {alerts} = app.live;
  const past = app.live.journal
    .filter(({level}) => level === 'warning' || level === 'error')
    .slice(-50)
    .reverse();
  morphChildren(root, [
    h(
      'header.page-head',
      null,
      h('h1', null, 'Alerts'),
      h(
        'p.lead',
        null,
        'Raised by the rules of the configuration, and by the gateway from what the kernel reports; each goes away by itself when its cause does.',
      ),
    ),
    alerts.length
      ? h(
          'ul.stack',
          {'aria-label': 'Alerts now'},
          alerts.map((alert) =>
            h(
              `li.card.alert.${alert.level}`,
              {'data-key': alert.id},
              pill(alert.level),
              h('p.wrap', null, alert.text),
              alert.about ? h('a.button', {href: link('why', {about: alert.about})}, `Why: ${alert.about}`) : null,
            ),
          ),
        )
      : h('div.card', null, empty('check', 'All is well', 'No device, queue or driver needs attention.')),
    h(
      'section.section',
      {'data-key': 'past', 'aria-labelledby': 'h-past'},
      h(
        'div.section-head',
        null,
        h('h2', {id: 'h-past'}, 'Warnings lately'),
        h('a.small', {href: link('journal', {level: 'warning'})}, 'In the journal'),
      ),
      past.length
        ? h(
            'ul.lines',
            null,
            past.map((record) =>
              h(
                'li',
                {'data-key': `r${record.seq}`},
                h('time.muted', {datetime: new Date(record.at * 1000).toISOString()}, clock(record.at)),
                pill(record.level),
                h('span.wrap', null, record.text),
                record.about ? whyLink(record.about) : null,
              ),
            ),
          )
        : h('p.muted', null, 'None since this page was opened.'),
    ),
  ]);
}
