// Live charts over the one connection, each also as a table for those who cannot see lines.

import {empty, h, loading} from './dom.js';
import {rows, summary} from './history.js';
import {select} from './dialogs.js';
import {colour} from './theme.js';
import {bytes, clock, number, seconds} from './units.js';

const LINES = ['--d-weights', '--d-kv', '--d-workspace', '--d-tuning', '--d-lease', '--d-foreign', '--d-other'];

const BINARY = Array.from({length: 50}, (_, power) => 2 ** power); // so that bytes get round ticks

/** One uPlot chart in a figure with its present values and a table twin. */
export class Chart {
  constructor({title, unit, format, series, binary = false, xTime = true, xLabel = 'time'}) {
    Object.assign(this, {title, unit, format, series, binary, xTime, xLabel, plot: null, data: null, shown: ''});
    this.now = h('ul.legend', {'aria-live': 'off'});
    this.box = h('div.plot', {role: 'img', 'data-hold': '1'});
    this.table = h('div.twin', {'data-hold': '1'});
    this.details = h('details', {ontoggle: () => this.twin()}, h('summary', null, 'As a table'), this.table);
    this.root = h(
      'figure.card.chart',
      null,
      h('figcaption', null, h('h3', null, title), h('span.small.muted', null, unit)),
      this.now,
      this.box,
      this.details,
    );
    this.observer = new ResizeObserver(() => this.resize());
    this.observer.observe(this.box);
    this.recolour = () => this.rebuild();
    document.addEventListener('llmos:theme', this.recolour);
  }

  close() {
    this.observer.disconnect();
    document.removeEventListener('llmos:theme', this.recolour);
    this.plot?.destroy();
    this.plot = null;
  }

  /** Show `[x, ...values]`; `series` may change with the data (devices come and go). */
  set(data, series = this.series) {
    const names = series.map(({name}) => name).join('\n');
    const rebuild = names !== this.shown;
    Object.assign(this, {data, series, shown: names});
    if (rebuild || !this.plot) this.rebuild();
    else this.plot.setData(data);
    this.describe();
    this.twin();
  }

  describe() {
    const parts = this.series.map(({name}, at) => [name, summary(this.data[at + 1] ?? [])]);
    this.box.setAttribute(
      'aria-label',
      `${this.title}: ${parts
        .map(([name, found]) =>
          found
            ? `${name} now ${this.format(found.last)}, least ${this.format(found.least)}, most ${this.format(found.most)}`
            : `${name} unknown`,
        )
        .join('; ')}`,
    );
    this.now.replaceChildren(
      ...parts.map(([name, found], at) => {
        const swatch = h('i');
        swatch.style.background = colour(LINES[at % LINES.length]);
        return h('li', null, swatch, name, ' ', h('b.value', null, found ? this.format(found.last) : '–'));
      }),
    );
  }

  twin() {
    if (!this.details.open || !this.data) return;
    const head = [this.xLabel, ...this.series.map(({name}) => name)];
    this.table.replaceChildren(
      h(
        'table.plain',
        null,
        h('caption.unseen', null, `${this.title}, newest first`),
        h(
          'thead',
          null,
          h(
            'tr',
            null,
            head.map((name, at) => h(`th${at ? '.num' : ''}`, {scope: 'col'}, name)),
          ),
        ),
        h(
          'tbody',
          null,
          rows(this.data).map((row) =>
            h(
              'tr',
              null,
              row.map((value, at) =>
                h(
                  `td${at ? '.num' : ''}`,
                  null,
                  at ? (value === null ? '–' : this.format(value)) : this.xTime ? clock(value) : number(value, 6),
                ),
              ),
            ),
          ),
        ),
      ),
    );
  }

  rebuild() {
    if (!this.data || !this.box.clientWidth) return;
    this.plot?.destroy();
    const axis = {
      stroke: colour('--ink-3'),
      grid: {stroke: colour('--line'), width: 1},
      ticks: {show: false},
      font: `12px ${colour('--font')}`,
    };
    this.plot = new window.uPlot(
      {
        width: this.box.clientWidth,
        height: 190,
        legend: {show: false},
        cursor: {y: false, drag: {x: false, y: false}, points: {size: 7}},
        scales: {
          x: {time: this.xTime, range: (_, least, most) => [this.xTime ? Math.min(least, most - 60) : least, most]},
          y: {range: (_, least, most) => [Math.min(0, least ?? 0), most > 0 ? most * 1.1 : 1]},
        },
        axes: [
          {
            ...axis,
            space: 80,
            size: 30,
            values: this.xTime ? (_, ticks) => ticks.map((tick) => clock(tick)) : undefined,
          },
          {
            ...axis,
            size: 74,
            space: 34,
            incrs: this.binary ? BINARY : undefined,
            values: (_, ticks) => ticks.map((tick) => this.format(tick)),
          },
        ],
        series: [
          {},
          ...this.series.map(({name, dash}, at) => ({
            label: name,
            stroke: colour(LINES[at % LINES.length]),
            width: 1.75,
            points: {show: false},
            spanGaps: !this.xTime,
            dash: dash ?? undefined,
            fill: this.series.length === 1 ? `${colour(LINES[0])}22` : undefined,
          })),
        ],
      },
      this.data,
      this.box,
    );
  }

  resize() {
    if (!this.plot) this.rebuild();
    else if (this.box.clientWidth && this.box.clientWidth !== this.plot.width)
      this.plot.setSize({width: this.box.clientWidth, height: 190});
  }
}

const CHARTS = [
  {
    title: 'Tokens',
    unit: 'tokens per second',
    format: (value) => `${number(value)}/s`,
    series: [{id: 'tokens_per_s', name: 'All models'}],
    models: true,
  },
  {
    title: 'Latency',
    unit: 'time of a request',
    format: seconds,
    series: [
      {id: 'first_token_p50_s', name: 'First token, median'},
      {id: 'first_token_p95_s', name: 'First token, 95 %', dash: [5, 4]},
      {id: 'request_p50_s', name: 'Whole, median'},
      {id: 'request_p95_s', name: 'Whole, 95 %', dash: [5, 4]},
    ],
  },
  {
    title: 'Queue',
    unit: 'requests waiting',
    format: (value) => number(value),
    series: [{id: 'queue', name: 'Waiting'}],
  },
  {
    title: 'Requests',
    unit: 'requests per second',
    format: (value) => `${number(value)}/s`,
    series: [{id: 'requests_per_s', name: 'Requests'}],
  },
  {title: 'Memory', unit: 'bytes used, by device', format: bytes, series: [], devices: true, binary: true},
  {
    title: 'Errors',
    unit: 'errors per second',
    format: (value) => `${number(value)}/s`,
    series: [{id: 'errors_per_s', name: 'Errors'}],
  },
];

export function chartsPage(app) {
  const charts = CHARTS.map((spec) => [spec, new Chart(spec)]);
  let paused = false;
  const span = select(
    'span',
    [
      ['60', 'Last minute'],
      ['300', 'Last 5 minutes'],
      ['1800', 'Last 30 minutes'],
    ],
    '300',
    {'aria-label': 'Time shown', onchange: () => draw()},
  );
  const pause = h(
    'button',
    {
      type: 'button',
      'aria-pressed': 'false',
      onclick: () => {
        paused = !paused;
        pause.textContent = paused ? 'Go on' : 'Pause';
        pause.setAttribute('aria-pressed', String(paused));
        draw();
      },
    },
    'Pause',
  );
  const waiting = h('div', null, loading(4, 'Collecting the first samples'));
  const grid = h(
    'div.chart-grid',
    {hidden: true},
    charts.map(([, chart]) => chart.root),
  );
  const root = h(
    'div',
    null,
    h(
      'header.page-head',
      null,
      h('h1', null, 'Live charts'),
      h('div.push', null, span, pause),
      h('p.lead', null, 'The last half hour: every second while this page is open, every five before. A gap means that nothing was known then.'),
    ),
    waiting,
    grid,
  );

  function draw() {
    const {history} = app.live;
    if (paused || !app.live.overview) return;
    const ready = history.times.length > 1;
    if (grid.hidden === ready) {
      grid.hidden = !ready;
      waiting.replaceChildren(
        ...(ready
          ? []
          : [
              app.live.state === 'gone'
                ? empty('charts', 'Nothing to draw yet', 'The kernel is gone; the charts begin when it is back.')
                : loading(4),
            ]),
      );
    }
    for (const [spec, chart] of charts) {
      const series = seriesOf(spec, app.live);
      chart.set(
        history.window(
          series.map(({id}) => id),
          Number(span.value),
        ),
        series,
      );
    }
  }
  return {
    root,
    update: (what) => (what === 'overview' || what === 'state') && draw(),
    close: () => charts.forEach(([, chart]) => chart.close()),
  };
}

function seriesOf(spec, live) {
  if (spec.devices)
    return live.history.names('used:').map((id) => ({
      id,
      name: live.overview.devices.find((device) => `used:${device.id}` === id)?.name ?? id.slice(5),
    }));
  if (!spec.models || live.overview.models.length < 2) return spec.series;
  return [
    ...spec.series,
    ...live.overview.models.slice(0, 5).map((model) => ({id: `model:${model.id}`, name: model.name})),
  ];
}
