// What the scripts of the dashboard compute. Run by test_static.py with `node --test` beside copies of them.

import assert from 'node:assert/strict';
import {test} from 'node:test';

import {change} from './arbiter.js';
import {align, metricsOf, result} from './curves.js';
import * as figures from './figures.js';
import {History, rows, summary} from './history.js';
import {merged, passes} from './journal.js';
import {byPurpose, takers} from './ledger.js';
import {Live, sample} from './live.js';
import {filtersOf, searchUrl} from './models.js';
import {chatBody, take} from './pane.js';
import {keyIn, link, parse} from './router.js';
import {Records} from './records.js';
import {EventParser} from './sse.js';
import {levelOf, sortRows} from './table.js';
import {nameOf, withRuns} from './tasks.js';
import {parts} from './text.js';
import * as units from './units.js';
import {figure, gathered, label} from './why.js';

test('numbers have three digits and no exponent', () => {
  assert.deepEqual(
    [0, 1, 3.14159, 12.345, 1234567, 0.00012345, -2.5].map((value) => units.number(value)),
    ['0', '1', '3.14', '12.3', '1\u202f234\u202f567', '0.000123', '-2.5'],
  );
  assert.deepEqual(
    [undefined, null, NaN, Infinity].map((value) => units.number(value)),
    ['–', '–', '–', '–'],
  );
  assert.equal(units.number(1234.5, 5), '1\u202f234.5');
});

test('bytes carry binary units', () => {
  assert.deepEqual([0, 1023, 1024, 1536, 24 * 2 ** 30, 134 * 2 ** 20, 5 * 2 ** 50].map(units.bytes), [
    '0 B',
    '1023 B',
    '1.00 KiB',
    '1.50 KiB',
    '24.0 GiB',
    '134 MiB',
    '5.00 PiB',
  ]);
  assert.equal(units.bytes(undefined), '–');
});

test('times go from microseconds to days', () => {
  assert.deepEqual([0, 0.0000123, 0.0456, 1.5, 119, 120, 7200, 200000].map(units.seconds), [
    '0 s',
    '12 µs',
    '45.6 ms',
    '1.5 s',
    '119 s',
    '2 min',
    '2 h 0 min',
    '2 d 7 h',
  ]);
  assert.equal(units.ago(0), 'never');
  assert.equal(units.ago(90, 100), '10 s ago');
  assert.equal(units.ago(100, 100.2), 'now');
  assert.equal(units.kept(-1), 'forever');
  assert.equal(units.kept(300), '5 min');
});

test('counts and shares', () => {
  assert.deepEqual([999, 9999, 12345, 4_022_468_096, 33_360_000].map(units.count), [
    '999',
    '9\u202f999',
    '12.3 k',
    '4.02 B',
    '33.4 M',
  ]);
  assert.equal(units.percent(1, 1000), '<1 %');
  assert.equal(units.percent(1, 4), '25 %');
  assert.equal(units.percent(1, 0), '–');
});

test('sizes that people type', () => {
  assert.equal(units.parseBytes('4 GiB'), 4 * 2 ** 30);
  assert.equal(units.parseBytes('500MB'), 500e6);
  assert.equal(units.parseBytes('1.5g'), 1.5 * 2 ** 30);
  assert.equal(units.parseBytes('17'), 17);
  assert.equal(units.parseBytes('many'), null);
});

test('rows sort by number or natural order, unknown last, equal ones as they were', () => {
  const rowsOf = [
    {n: 'b10', v: 3},
    {n: 'b2', v: null},
    {n: 'a', v: 1},
    {n: '', v: 1},
  ];
  assert.deepEqual(
    sortRows(rowsOf, (row) => row.n).map((row) => row.n),
    ['a', 'b2', 'b10', ''],
  );
  assert.deepEqual(
    sortRows(rowsOf, (row) => row.v).map((row) => row.n),
    ['a', '', 'b10', 'b2'],
  );
  assert.deepEqual(
    sortRows(rowsOf, (row) => row.v, true).map((row) => row.n),
    ['b10', 'a', '', 'b2'],
  );
  assert.deepEqual(['awake', 'failed', 'loading', 'stored'].map(levelOf), ['good', 'bad', 'warn', 'plain']);
});

test('a history keeps series of one length, with holes', () => {
  const history = new History(3);
  history.add(1, {a: 1});
  history.add(2, {a: 2, b: 5});
  history.add(2, {a: 9});
  history.gap(3);
  assert.deepEqual(history.window(['a', 'b', 'c'], 100), [
    [1, 2, 3],
    [1, 2, null],
    [null, 5, null],
    [null, null, null],
  ]);
  assert.deepEqual(history.window(['a'], 1), [
    [2, 3],
    [2, null],
  ]);
  history.seed({times: [0, 1, 2], series: {a: [0, 9, 9], d: [7, 7, 7]}});
  assert.deepEqual(history.window(['a', 'b', 'd'], 100), [
    [0, 1, 2, 3],
    [0, 1, 2, null],
    [null, null, 5, null],
    [7, null, null, null],
  ]);
  history.add(4, {a: 4});
  history.add(5, {a: 5});
  history.add(6, {a: 6});
  assert.deepEqual(history.times, [4, 5, 6]);
  assert.deepEqual(history.names(), ['a']);
  assert.deepEqual(summary([null, 2, 4]), {least: 2, most: 4, last: 4, mean: 3});
  assert.equal(summary([null]), null);
  assert.deepEqual(
    rows(
      [
        [1, 2, 3],
        [7, 8, 9],
      ],
      2,
    ),
    [
      [3, 9],
      [1, 7],
    ],
  );
});

test('events come out whole, however the bytes were cut', () => {
  const text = ': comment\r\n\r\nevent: point\r\nid: 7\r\ndata: {"a":\r\ndata: 1}\r\n\r\ndata: [DONE]\n\n';
  for (let cut = 1; cut < text.length; cut += 1) {
    if (text[cut - 1] === '\r') continue; // a pair that is cut apart reads as two ends of line; no server sends such pieces here
    const parser = new EventParser();
    const found = [...parser.feed(text.slice(0, cut)), ...parser.feed(text.slice(cut))];
    assert.deepEqual(found, [
      {event: 'point', data: '{"a":\n1}', id: '7'},
      {event: 'message', data: '[DONE]', id: ''},
    ]);
  }
});

test('addresses', () => {
  const {page, params} = parse('#/model?path=/models/a b');
  assert.equal(page, 'model');
  assert.equal(params.get('path'), '/models/a b');
  assert.equal(parse('').page, 'overview');
  assert.equal(parse('#/<x>').page, 'none');
  assert.equal(parse('#/').page, 'overview');
  assert.equal(link('why', {about: 'm-1', none: ''}), '#/why?about=m-1');
  assert.equal(link('model', {path: '/models/a&b'}), '#/model?path=/models/a%26b');
  assert.equal(keyIn('#key=llmos_a%2Bb'), 'llmos_a+b');
  assert.equal(keyIn('#/chat'), '');
});

test('bytes by purpose stand in a fixed order, and what is new counts as other', () => {
  const found = byPurpose([
    {what: 'foreign', bytes: 1},
    {what: 'weights', bytes: 2},
    {what: 'moon', bytes: 4},
    {what: 'weights', bytes: 3},
  ]);
  assert.deepEqual(
    found.map(({what, bytes}) => [what, bytes]),
    [
      ['weights', 5],
      ['foreign', 1],
      ['other', 4],
    ],
  );
});

test('filters of a search', () => {
  assert.deepEqual(filtersOf({task: 'text-generation', licence: ' mit ', sort: 'rank', fits: '', max: '1 KiB'}), {
    task: 'text-generation',
    licence: 'mit',
    max_bytes: 1024,
  });
  assert.throws(() => filtersOf({max: 'huge'}), /huge/);
  const url = new URL(searchUrl('a b', {sort: 'size'}), 'http://x');
  assert.deepEqual(JSON.parse(url.searchParams.get('filters')), {sort: 'size'});
  assert.equal(url.searchParams.get('query'), 'a b');
  assert.equal(new URL(searchUrl('', {}), 'http://x').searchParams.has('filters'), false);
});

test('a chat asks only for what was set', () => {
  const settings = {system: '', temperature: '0', top_p: '', max_tokens: '16', seed: '', stop: '\\n|END'};
  const body = chatBody('tiny', [{role: 'user', content: 'x'}], settings);
  assert.deepEqual(body, {
    model: 'tiny',
    stream: true,
    stream_options: {include_usage: true},
    messages: [{role: 'user', content: 'x'}],
    temperature: 0,
    max_tokens: 16,
    stop: ['\n', 'END'],
  });
  assert.equal(chatBody('tiny', [], {...settings, system: 'be kind'}).messages[0].role, 'system');
  const state = {text: '', pieces: 0, usage: null, reason: '', first: 0, last: 0};
  for (const piece of [
    {choices: [{delta: {role: 'assistant', content: ''}}]},
    {choices: [{delta: {content: 'a'}}]},
    {choices: [{delta: {}, finish_reason: 'stop'}]},
    {choices: [], usage: {completion_tokens: 1}},
  ])
    take(piece, state);
  assert.deepEqual([state.text, state.pieces, state.reason, state.usage.completion_tokens], ['a', 1, 'stop', 1]);
});

test('code in a message', () => {
  assert.deepEqual(parts('a\n```py\nx = 1\n```\nb'), [
    {code: false, language: '', text: 'a\n'},
    {code: true, language: 'py', text: 'x = 1'},
    {code: false, language: '', text: 'b'},
  ]);
  assert.deepEqual(parts('```\nopen'), [{code: true, language: '', text: 'open'}]);
  assert.deepEqual(parts('a ``` b'), [{code: false, language: '', text: 'a ``` b'}]);
  assert.deepEqual(parts(''), []);
});

test('curves of several runs on one axis', () => {
  const one = [
    {step: 0, values: {loss: 3}},
    {step: 10, values: {loss: 2, lr: 1}},
  ];
  const two = [
    {step: 5, values: {loss: 4}},
    {step: 10, values: {loss: 1}},
  ];
  assert.deepEqual(align([one, two], 'loss'), [
    [0, 5, 10],
    [3, null, 2],
    [null, 4, 1],
  ]);
  assert.deepEqual(metricsOf([one, two]), ['loss', 'lr']);
  assert.deepEqual(result(two, 'loss'), {first: 4, last: 1, best: 1, bestStep: 10, step: 10});
  assert.equal(result([], 'loss'), null);
  assert.equal(
    align([Array.from({length: 5000}, (_, step) => ({step, values: {loss: 1}}))], 'loss', 100)[0].at(-1),
    4999,
  );
});

test('journal filters and merging', () => {
  const record = {seq: 1, at: 5, level: 'warning', about: 'm-1', text: 'tiny is slow', unit: 'models', fields: {}};
  assert.ok(passes(record, {level: 'info', words: 'Slow tiny'}));
  assert.ok(!passes(record, {level: 'error'}));
  assert.ok(!passes(record, {about: 'm-2'}));
  assert.ok(!passes(record, {unit: 'kernel'}));
  assert.deepEqual(
    merged([record], [record, {...record, seq: 2, at: 4}]).map(({seq}) => seq),
    [2, 1],
  );
});

test('reasons stand once, newest first', () => {
  const found = gathered([
    {text: 'a', at: 1},
    {text: 'b', at: 2},
    {text: 'a', at: 3},
    {text: 'now', at: 0},
  ]);
  assert.deepEqual(
    found.map(({text, times}) => [text, times]),
    [
      ['now', 1],
      ['a', 2],
      ['b', 1],
    ],
  );
  assert.deepEqual(
    [
      figure('took_s', 0.5),
      figure('tokens_per_s', 41.2),
      figure('free', 1024),
      figure('restarts', 2),
      figure('why', 'x'),
    ],
    ['500 ms', '41.2/s', '1.00 KiB', '2', 'x'],
  );
});

class Source extends EventTarget {
  constructor(url) {
    super();
    Object.assign(this, {url, readyState: 1, closed: false});
  }

  close() {
    this.closed = true;
  }

  tell(name, data, id = '') {
    this.dispatchEvent(Object.assign(new Event(name), {data: JSON.stringify(data), lastEventId: id}));
  }
}

test('the live state survives a lost kernel and a lost connection', (context) => {
  const sources = [];
  const live = new Live((url) => sources.at(sources.push(new Source(url)) - 1));
  context.after(() => live.close());
  live.open();
  const [source] = sources;
  assert.equal(live.state, 'starting');
  const overview = {
    at: 1,
    kernel: {state: 'running'},
    devices: [{id: 'd', total: 10, free: 4}],
    models: [],
    rates: {queue: 2},
  };
  source.tell('overview', overview);
  source.tell('past', {times: [0], series: {queue: [1]}});
  assert.deepEqual(live.history.window(['queue'], 9), [
    [0, 1],
    [1, 2],
  ]);
  assert.equal(live.state, 'running');
  assert.deepEqual(sample(overview), {queue: 2, 'used:d': 6});
  source.tell('journal', {seq: 8, at: 1, text: 'x'}, '8');
  source.tell('journal', {seq: 8, at: 1, text: 'x'}, '8');
  assert.equal(live.journal.length, 1);
  const told = [];
  live.addEventListener('state', () => told.push(live.state));
  assert.deepEqual(live.alerts, []);
  source.tell('gone', {text: 'killed'});
  assert.equal(live.state, 'gone');
  assert.deepEqual(
    live.alerts.map(({level, text}) => [level, text]),
    [['error', 'killed']],
  );
  source.tell('overview', {...overview, at: 2, kernel: {state: 'gone'}});
  source.tell('overview', {...overview, at: 3});
  assert.deepEqual(told, ['gone', 'running']);
  source.tell('gone', {text: 'killed'});
  assert.equal(live.overview.at, 3);
  source.tell('back', {});
  source.tell('journal', {seq: 1, at: 9, text: 'new kernel'}, '1');
  assert.equal(live.journal.length, 2);
  source.tell('overview', {...overview, at: 9});
  assert.equal(live.state, 'running');
  source.readyState = 0;
  source.onerror();
  assert.equal(live.state, 'connecting');
  live.open();
  assert.ok(source.closed);
  assert.match(sources[1].url, /after=1$/);
  source.tell('point', {task: 't', step: 1, values: {loss: 1}});
  source.tell('point', {task: 't', step: 1, values: {loss: 1}});
  source.tell('points', [
    {task: 't', step: 1, values: {loss: 1}},
    {task: 'u', step: 1, values: {loss: 1}},
  ]);
  assert.deepEqual([...live.points.values()].map((list) => list.length), [1, 1]);
  live.close();
});

test('a connection that died without a word is opened anew', (context) => {
  context.mock.timers.enable({apis: ['setTimeout']});
  const sources = [];
  const live = new Live((url) => sources.at(sources.push(new Source(url)) - 1));
  context.after(() => live.close());
  live.open();
  context.mock.timers.tick(15000);
  sources[0].tell('overview', {at: 1, kernel: {state: 'running'}, devices: [], models: [], rates: {}});
  context.mock.timers.tick(15000);
  assert.equal(sources.length, 1);
  assert.equal(live.state, 'running');
  context.mock.timers.tick(6000);
  assert.equal(sources.length, 2);
  assert.ok(sources[0].closed);
  assert.equal(live.state, 'connecting');
  live.close();
  context.mock.timers.tick(60000);
  assert.equal(sources.length, 2);
});

test('models are planned for devices that a driver serves', () => {
  const devices = [{name: 'cpu0'}, {name: 'host'}];
  assert.deepEqual(takers({devices}), [{name: 'cpu0'}]);
  assert.deepEqual(takers(null), []);
});

test('what advice changes keeps its sign and its unit', () => {
  assert.equal(change('weights_bytes', -(2 ** 20)), '−1.00 MiB');
  assert.equal(change('reload_s', 2), units.seconds(2));
  assert.equal(change('evictions', -3), '−3');
  assert.equal(change('what', 'tokens'), 'tokens');
});

test('numbers of reasons have the unit that their name tells', () => {
  assert.equal(figure('needed', 1024), '1.00 KiB');
  assert.equal(figure('new_tokens', 5), '5');
  assert.equal(figure('refused', 2), '2');
  assert.equal(figure('used', 5), '5');
  assert.equal(figure('retry_after_ms', 1500), units.seconds(1.5));
  assert.equal(figure('gain_seconds', -2), '-2 s');
  assert.equal(figure('keep_alive_s', -1), 'forever');
  assert.deepEqual(['idle_s', 'weights_bytes', 'retry_after_ms', 'tokens_per_s', 'slots'].map(label), [
    'idle', 'weights', 'retry after', 'tokens', 'slots',
  ]);
  assert.equal(figure('waited_s', 1.5), units.seconds(1.5));
});

const judged = (after, better = '') => ({before: [0.5, 0.4, 0.6], after, difference: [0.25, 0.125, 0.375], better});

test('figures are told with their intervals, and what is to be thought of them', () => {
  assert.equal(figures.interval([0.91, 0.88, 0.94]), '0.91 [0.88, 0.94]');
  assert.equal(figures.interval([0.25, -0.125, null], true), '+0.25 [-0.125, –]');
  assert.deepEqual([figures.interval([0.5]), figures.interval([]), figures.interval(undefined)], ['0.5', '–', '–']);
  assert.deepEqual(
    ['after', 'before', ''].map((better) => figures.verdict(judged([1], better))[0]),
    ['better', 'worse', 'may be chance'],
  );
  assert.equal(figures.verdict({difference: [1], better: ''})[0], 'too few to tell');
  const report = {judged_by: 'f1', figures: {accuracy: 1, loss: 1, f1: 1}};
  assert.deepEqual(figures.ordered(report), ['f1', 'loss', 'accuracy']);
});

test('runs stand beside each other by every figure that one of them has, and by what differs', () => {
  const one = {data: '/a', recipe: {rank: 8, seed: 0}, facts: {report: {figures: {loss: judged([1]), f1: judged([2])}}}};
  const other = {data: '/a', recipe: {rank: 16, seed: 0}, facts: {report: {figures: {loss: judged([3])}}}};
  const rows = figures.beside([one, null, other]);
  assert.deepEqual(
    rows.map(({name, cells}) => [name, cells.map((cell) => cell?.after[0] ?? null)]),
    [
      ['loss', [1, null, 3]],
      ['f1', [2, null, null]],
    ],
  );
  assert.deepEqual(figures.differing([one, null, other]), [{name: 'rank', cells: ['8', '–', '16']}]);
  assert.deepEqual([figures.sameData([one, other]), figures.sameData([one, {...other, data: '/b'}])], [true, false]);
  assert.equal(figures.sameData([{...one, facts: {data_sha256: '1'}}, {...other, facts: {data_sha256: '2'}}]), false);
});

test('a result is promoted, is not, or is not there', () => {
  const words = [true, false, null].map((promoted) => figures.promotion({promoted})?.[0] ?? '');
  assert.deepEqual(words, ['promoted', 'not promoted', '']);
  assert.equal(figures.promotion(null), null);
});

test('trials: the best first, then what came to its end', () => {
  const trial = (number, state, parameters = {}) => ({number, state, parameters});
  const trials = [trial(0, 'pruned', {rank: 1}), trial(1, 'complete'), trial(2, 'cut', {lr: 1}), trial(3, 'complete')];
  const found = figures.trialsOf({best: 3, trials});
  assert.deepEqual(
    found.trials.map(({number}) => number),
    [3, 1, 2, 0],
  );
  assert.deepEqual(found.names, ['lr', 'rank']);
  assert.equal(trials[0].number, 0);
});

test('curves of the unit square hang from its top', () => {
  assert.equal(figures.polyline([[0, 0], [0.5, 0.875], [1, 1]]), '0,100 50,12.5 100,0');
});

test('a record tells its curve as the live stream does, and stands in the list when its task is gone', () => {
  const run = {id: 't-1', state: 'done', method: 'lora', model: {name: 'm'}, out: '/o', curve: [{step: 2, at: 9, loss: 1}]};
  assert.deepEqual(figures.pointsOf(run), [{task: 't-1', step: 2, values: {loss: 1}}]);
  assert.deepEqual(figures.pointsOf(null), []);
  const listed = withRuns([{id: 't-3', name: 'now'}], new Map([['t-2', []], ['t-3', []]]), new Map([['t-1', run]]));
  assert.deepEqual(
    listed.map(({id, name, state}) => [id, name, state]),
    [
      ['t-3', 'now', undefined],
      ['t-1', 'lora m to /o', 'done'],
      ['t-2', 't-2', 'ended'],
    ],
  );
  assert.equal(nameOf(run), 'lora m to /o');
});

test('records are asked for with each state, now and then while a run goes on, and only those of runs', async () => {
  const asked = [];
  const api = {
    get: async (path) => {
      asked.push(path.split('/').at(-1));
      if (path.endsWith('t-2')) throw new Error('none');
      return {id: 't-1'};
    },
  };
  let changes = 0;
  const records = new Records(api, () => (changes += 1));
  const at = (state, now) => records.follow([{id: 't-1', kind: 'tune', state}, {id: 't-9', kind: 'import', state}], now);
  at('running', 0);
  at('running', 4000);
  assert.deepEqual(asked, ['t-1']);
  at('running', 5000);
  at('done', 5001);
  at('done', 50000);
  assert.deepEqual(asked, ['t-1', 't-1', 't-1']);
  records.follow([{id: 't-2', kind: '', state: 'unknown'}], 0);
  await new Promise(setImmediate);
  assert.deepEqual([records.get('t-1'), records.get('t-2'), changes], [{id: 't-1'}, null, 4]);
});
