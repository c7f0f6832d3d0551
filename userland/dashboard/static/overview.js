// The overview: is it well, what is loaded, who has the bytes, how fast is it.

import {shortMenu} from './actions.js';
import {adviceList, queuesTable} from './arbiter.js';
import {empty, h, loading, morphChildren, svg} from './dom.js';
import {ledgerBar, ledgerTable} from './ledger.js';
import {link} from './router.js';
import {Table, pill, whyLink} from './table.js';
import {ago, bytes, clock, count, kept, number, percent, seconds} from './units.js';

const SPARK_S = 120;

export function overviewPage(app) {
  const root = h('div', null, loading(6));
  const redraw = () => draw(root, app, tables);
  const tables = {models: modelsTable(app, () => redraw()), drivers: driversTable(() => redraw()), queues: queuesTable(() => redraw())};
  return {root, update: (what) => what !== 'journal' && what !== 'point' && redraw()};
}

function draw(root, app, tables) {
  const data = app.live.overview;
  if (!data) return;
  const {kernel} = data;
  const gone = app.live.state === 'gone';
  if (gone && !kernel.version && !data.devices.length) {
    morphChildren(root, nobody());
    return;
  }
  morphChildren(root, [
    h(
      'header.page-head',
      null,
      h('h1', null, 'Overview'),
      h(
        'span.push.small.muted',
        null,
        pill(gone ? 'gone' : kernel.state),
        h(
          'span',
          null,
          `LLM OS ${kernel.version}, ${kernel.pid ? `pid ${kernel.pid}, ` : ''}${gone ? `last seen ${clock(data.at)}` : `up ${seconds(data.at - kernel.since)}`}`,
        ),
      ),
    ),
    alertStrip(data.alerts),
    h('section', {'aria-label': 'Now'}, h('dl.figures', null, figures(app.live))),
    section(
      'Devices',
      data.devices,
      h('div.cards', null, data.devices.map(deviceCard)),
      empty('overview', 'No device', 'No device driver is running. See the drivers below, and the journal for why.'),
    ),
    section(
      'Models',
      data.models,
      tables.models.render(data.models),
      empty(
        'models',
        'No model is loaded',
        'Load one to begin; the first chat with a stored model loads it too.',
        h('a.button', {href: link('models')}, 'Browse models'),
      ),
      data.models.length ? h('a.small', {href: link('models')}, 'Browse all models') : null,
    ),
    section(
      'Queues',
      data.queues ?? [],
      tables.queues.render(data.queues ?? []),
      empty('check', 'Nobody waits', 'No request runs or waits for a model.'),
    ),
    section(
      'Advice',
      data.advice ?? [],
      adviceList(data.advice ?? []),
      empty('check', 'Nothing to advise', 'What the kernel has seen gives no reason to change anything.'),
    ),
    section(
      'Drivers',
      data.drivers,
      tables.drivers.render(data.drivers),
      empty('overview', 'No driver', 'The kernel found no driver to start.'),
    ),
  ]);
}

/** The gateway runs, but no kernel has answered since. */
function nobody() {
  const text = 'The gateway runs, but no kernel answers it. Start one with llmos serve; this page goes on by itself.';
  return [
    h('header.page-head', null, h('h1', null, 'Overview')),
    h('div.card', null, empty('overview', 'No kernel', text)),
  ];
}

function section(title, list, body, nothing, more = null) {
  return h(
    'section.section',
    {'data-key': title, 'aria-labelledby': `h-${title}`},
    h(
      'div.section-head',
      null,
      h('h2', {id: `h-${title}`}, title),
      list.length ? h('span.muted.small.tabular', null, String(list.length)) : null,
      more,
    ),
    list.length ? body : h('div.card', null, nothing),
  );
}

function alertStrip(alerts) {
  if (!alerts?.length) return null;
  return h(
    'ul.alert-strip',
    {'data-key': 'alerts', 'aria-label': 'Alerts'},
    alerts
      .slice(0, 3)
      .map((alert) =>
        h(
          `li.${alert.level}`,
          {'data-key': alert.id},
          pill(alert.level),
          h('span.wrap', null, alert.text),
          alert.about ? whyLink(alert.about) : null,
        ),
      ),
    alerts.length > 3
      ? h('li.more', {'data-key': 'more'}, h('a', {href: link('alerts')}, `and ${alerts.length - 3} more`))
      : null,
  );
}

function figures(live) {
  const rates = live.state === 'running' ? live.overview.rates : {}; // nothing is known of now while it is gone
  const figure = (title, series, value, unit, note = '') =>
    h(
      'div.figure',
      {'data-key': title},
      h('dt', null, title),
      h('dd', null, h('span.value.big', null, value), ' ', h('span.unit', null, unit)),
      h('dd.note', null, note || '\u00a0'),
      h('dd.spark', {'aria-hidden': 'true'}, sparkline(live.history.window([series], SPARK_S))),
    );
  const time = (value) => {
    const text = seconds(value);
    const space = text.indexOf(' ');
    return space < 0 ? [text, ''] : [text.slice(0, space), text.slice(space + 1)];
  };
  return [
    figure('Tokens', 'tokens_per_s', number(rates.tokens_per_s), 'tokens/s'),
    figure('Requests', 'requests_per_s', number(rates.requests_per_s), 'requests/s'),
    figure('Queue', 'queue', number(rates.queue), 'waiting'),
    figure('First token', 'first_token_p50_s', ...time(rates.first_token_p50_s), within(rates.first_token_p95_s)),
    figure('Whole request', 'request_p50_s', ...time(rates.request_p50_s), within(rates.request_p95_s)),
    figure('Errors', 'errors_per_s', number(rates.errors_per_s), 'errors/s'),
  ];
}

/** What nearly all requests stay within; nothing while there were none. */
function within(value) {
  return typeof value === 'number' ? `95 % within ${seconds(value)}` : '';
}

/** The last two minutes of one figure as a line. */
function sparkline([times, values]) {
  const known = values.filter((value) => value !== null && value !== undefined);
  if (known.length < 2) return svg('svg', {viewBox: '0 0 100 28', preserveAspectRatio: 'none'});
  const most = Math.max(...known) || 1;
  const end = times.at(-1);
  const span = Math.min(SPARK_S, Math.max(30, end - times[0]));
  let pen = 'M';
  const path = times.map((time, at) => {
    if (values[at] === null || values[at] === undefined) {
      pen = 'M';
      return '';
    }
    const point = `${pen}${(100 - (100 * (end - time)) / span).toFixed(1)} ${(26 - (24 * values[at]) / most).toFixed(1)}`;
    pen = 'L';
    return point;
  });
  return svg(
    'svg',
    {viewBox: '0 0 100 28', preserveAspectRatio: 'none'},
    svg('path', {d: path.join(' '), 'vector-effect': 'non-scaling-stroke'}),
  );
}

function deviceCard(device) {
  const used = device.total - device.free;
  return h(
    'article.card.device',
    {'data-key': device.id},
    h(
      'div.device-head',
      null,
      h('h3', null, device.name),
      pill(device.health === 'ok' ? device.state : device.health),
      whyLink(device.name),
      h('span.push.value.muted', null, `${bytes(used)} of ${bytes(device.total)} · ${percent(used, device.total)}`),
    ),
    device.description ? h('p.small.muted', null, device.description) : null,
    ledgerBar(device),
    device.restarts
      ? h(
          'p.small.muted',
          null,
          `restarted ${device.restarts === 1 ? 'once' : `${device.restarts} times`}${device.cause ? `, last: ${device.cause}` : ''}`,
        )
      : null,
    ledgerTable(device),
  );
}

/** The name behind the id of a loaded model. */
function nameOf(app, id) {
  return app.live.overview.models.find((model) => model.id === id)?.name ?? id;
}

export function modelsTable(app, changed) {
  const open = (model) => app.go('model', {path: model.path});
  return new Table({
    label: 'Loaded models',
    keyOf: (model) => model.id,
    open,
    changed,
    columns: [
      {
        key: 'name',
        title: 'Model',
        value: (m) => m.name,
        cell: (m) =>
          h(
            'div',
            null,
            h('a.name-cell', {href: link('model', {path: m.path})}, m.name),
            whyLink(m.id, m.name),
            h('div.small.muted.wrap', null, m.base ? `adapter of ${nameOf(app, m.base)}` : m.path),
          ),
      },
      {key: 'state', title: 'State', value: (m) => m.state, cell: (m) => pill(m.health === 'ok' ? m.state : m.health)},
      {
        key: 'bytes',
        title: 'Memory',
        numeric: true,
        value: (m) => m.bytes,
        cell: (m) => h('div', null, bytes(m.bytes), h('div.small.muted', null, m.device)),
      },
      {key: 'running', title: 'Running', numeric: true, value: (m) => m.running, cell: (m) => number(m.running)},
      {key: 'waiting', title: 'Waiting', numeric: true, value: (m) => m.waiting, cell: (m) => number(m.waiting)},
      {
        key: 'tokens',
        title: 'Tokens/s',
        numeric: true,
        value: (m) => m.tokens_per_s,
        cell: (m) => (m.tokens_per_s ? number(m.tokens_per_s) : '–'),
      },
      {
        key: 'first',
        title: 'First token',
        numeric: true,
        value: (m) => m.first_token_s,
        cell: (m) => (m.first_token_s ? seconds(m.first_token_s) : '–'),
      },
      {key: 'requests', title: 'Requests', numeric: true, value: (m) => m.requests, cell: (m) => count(m.requests)},
      {
        key: 'used',
        title: 'Used',
        class: 'nowrap',
        value: (m) => m.used,
        cell: (m) => h('div', null, ago(m.used), h('div.small.muted', null, m.pinned ? 'pinned' : `kept ${kept(m.keep_alive)}`)),
      },
      {key: 'actions', title: '', class: 'wide deeds', cell: (m) => shortMenu(app, m)},
    ],
  });
}

function driversTable(changed) {
  return new Table({
    label: 'Drivers',
    keyOf: (driver) => driver.name,
    changed,
    columns: [
      {
        key: 'name',
        title: 'Driver',
        value: (d) => d.name,
        cell: (d) => h('span', null, h('span.name-cell', null, d.name), whyLink(d.name)),
      },
      {key: 'state', title: 'State', value: (d) => d.state, cell: (d) => pill(d.state)},
      {key: 'health', title: 'Health', value: (d) => d.health, cell: (d) => pill(d.health)},
      {key: 'restarts', title: 'Restarts', numeric: true, value: (d) => d.restarts, cell: (d) => number(d.restarts)},
      {key: 'pid', title: 'Process', numeric: true, value: (d) => d.pid, cell: (d) => (d.pid ? `pid ${d.pid}` : '–')},
    ],
  });
}
