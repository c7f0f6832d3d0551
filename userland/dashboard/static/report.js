// The report of a tuning run: figures with their intervals, classes, curves, groups, mistakes, and the trials of a search.

import {h, svg} from './dom.js';
import {
  beside, differing, interval, ordered, plain, polyline, promotion, sameData, title, trialsOf, verdict,
} from './figures.js';
import {link} from './router.js';
import {pill} from './table.js';
import {number, percent, seconds} from './units.js';

const LINES = ['var(--d-weights)', 'var(--d-kv)', 'var(--d-workspace)', 'var(--d-tuning)', 'var(--d-lease)', 'var(--d-foreign)'];

const WHOLE = '.whole'; // a part that takes the width of the page

/** All that is known of what came of one run; nothing where it has neither a report nor trials. */
export function reportOf(run) {
  const {report, ...facts} = run.facts ?? {};
  return [
    report ? figures(report) : null,
    facts.trials?.length ? searched(facts) : null,
    ...(report
      ? [
          classes(report.classes), groups(report.groups), unlabelled(report.unlabelled),
          mistakes(report.mistakes), texts(report.texts), lengths(report.lengths), cut(report.cut),
        ]
      : []),
  ].filter(Boolean);
}

/** Figures and recipes of several runs, a column each. */
export function compared(runs, names) {
  const rows = beside(runs);
  const recipes = differing(runs);
  const head = () => ['', ...names.map((name, at) => (runs[at] ? h('a.wrap', {href: link('task', {id: runs[at].id})}, name) : name))];
  return [
    rows.length
      ? part(
          'Figures beside each other',
          table(
            'Figures of the runs', head(),
            rows.map(({name, cells}) => [title(name), ...cells.map((figure) => (figure ? both(figure) : '–'))]),
          ),
          sameData(runs)
            ? 'Of held-out rows after tuning, with the interval that chance leaves; below it the untuned model.'
            : 'These runs had different data, so their held-out rows differ: hold figures against each other with care.',
          WHOLE,
        )
      : null,
    recipes.length
      ? part(
          'What differs',
          table('Recipes of the runs', head(), recipes.map(({name, cells}) => [title(name), ...cells])),
          '',
          WHOLE,
        )
      : null,
  ].filter(Boolean);
}

/** Whether a result is what its name means, as a label; nothing while there is no result. */
export function promoted(run) {
  const found = promotion(run);
  return found ? pill(...found) : null;
}

function both(figure) {
  return h('div', null, interval(figure.after), h('div.small.muted', null, `before ${interval(figure.before)}`));
}

function part(name, body, note = '', kind = '') {
  return h(`section.card.report${kind}`, {'data-key': name}, h('h3', null, name), note ? h('p.small.muted', null, note) : null, body);
}

/** A plain table that scrolls by itself where it is too wide; the first column names its row. */
function table(label, head, rows, props = {}) {
  return h(
    'div.scroll',
    {tabindex: 0, role: 'region', 'aria-label': label},
    h(
      'table.plain',
      props,
      h('thead', null, h('tr', null, head.map((name, at) => h(`th${at ? '.num' : ''}`, {scope: 'col'}, name || h('span.unseen', null, 'Name'))))),
      h(
        'tbody',
        null,
        rows.map((row) =>
          h('tr', null, row.map((cell, at) => (at ? (cell?.nodeName === 'TD' ? cell : h('td.num', null, cell)) : h('th', {scope: 'row'}, cell)))),
        ),
      ),
    ),
  );
}

function words(cell) {
  return h('td.words', null, cell);
}

function figures(report) {
  const names = ordered(report);
  if (!names.length) return null;
  const rows = names.map((name) => {
    const figure = report.figures[name];
    const difference = interval(figure.difference, true);
    return [title(name), interval(figure.before), interval(figure.after), difference, pill(...verdict(figure))];
  });
  const share = `${percent(report.share, 1)} of ${report.samples} bootstrap samples`;
  return part(
    'Figures of held-out rows',
    table('Figures of held-out rows', ['', 'before', 'after', 'difference', 'verdict'], rows),
    `[ ] holds ${share}; the difference is of the same rows.`,
    WHOLE,
  );
}

function classes(found) {
  if (!found?.after) return null;
  const {names, after, curves = []} = found;
  return h(
    'div.report-parts',
    {'data-key': 'classes'},
    after.confusion ? confusion(names, after.confusion) : null,
    after.each ? each(names, after.each) : null,
    curves.length ? square('ROC', 'share found, by share of false alarms', roc(curves), true) : null,
    curves.length ? square('Precision and recall', 'precision, by share found', precision(curves)) : null,
    after.calibration ? calibration(after.calibration) : null,
  );
}

function confusion(names, matrix) {
  const rows = matrix.map((row, at) => {
    const whole = Math.max(1, row.reduce((sum, value) => sum + value, 0));
    const cells = row.map((value, to) => {
      const kind = to === at ? 'right' : 'wrong';
      return h(`td.num.hue.${kind}`, {style: {'--share': `${Math.round((45 * value) / whole)}%`}}, String(value));
    });
    return [names[at], ...cells];
  });
  return part(
    'Confusion matrix',
    table('Confusion matrix', ['', ...names], rows),
    'Rows are what is right, columns what was said, after tuning.',
  );
}

function each(names, rows) {
  return part(
    'Classes',
    table(
      'Classes', ['', 'precision', 'recall', 'F1', 'rows'],
      rows.map((row, at) => [names[at], ...row.slice(0, 3).map((value) => number(value)), String(row[3])]),
    ),
  );
}

function roc(curves) {
  const lines = curves.map((one) => ({name: `${one.class}, area ${number(one.auc[1])}`, points: one.roc}));
  const [only] = curves;
  if (curves.length === 1) lines.push({name: `before, area ${number(only.auc[0])}`, points: only.roc_before, dash: true});
  return lines;
}

function precision(curves) {
  return curves.map((one) => ({
    name: `${one.class}, average precision ${number(one.average_precision[1])}`,
    points: one.precision_recall,
  }));
}

/** Curves in the unit square. */
function square(name, axes, lines, diagonal = false) {
  const grid = [25, 50, 75].map((at) => svg('path.grid', {d: `M${at} 0V100M0 ${at}H100`}));
  const drawn = lines.map(({points, dash}, at) =>
    svg('polyline', {points: polyline(points ?? []), 'stroke-dasharray': dash ? '3 2' : null, style: {stroke: LINES[at % LINES.length]}}),
  );
  return part(
    name,
    h(
      'figure.square',
      null,
      h(
        'div.unit',
        null,
        svg(
          'svg',
          {viewBox: '-1 -1 102 102', role: 'img', 'aria-label': `${name}: ${lines.map((line) => line.name).join('; ')}`},
          grid,
          diagonal ? svg('path.grid', {d: 'M0 100L100 0', 'stroke-dasharray': '2 2'}) : null,
          svg('path.frame', {d: 'M0 0V100H100'}),
          drawn,
        ),
        h('span.one', {'aria-hidden': 'true'}, '1'),
        h('span.zero', {'aria-hidden': 'true'}, '0'),
        h('span.end', {'aria-hidden': 'true'}, '1'),
      ),
      h(
        'ul.legend',
        null,
        lines.map((line, at) => h('li', null, h('i', {style: {background: LINES[at % LINES.length]}}), line.name)),
      ),
    ),
    axes,
  );
}

function calibration({error, bins}) {
  return part(
    'Calibration',
    table(
      'Calibration', ['rows', 'held as likely', 'right'],
      bins.map(([rows, likely, right]) => [String(rows), percent(likely, 1), percent(right, 1)]),
    ),
    `How often it is right where it is so sure; expected error ${number(error)}.`,
  );
}

function groups(found) {
  if (!found?.each) return null;
  const rows = Object.entries(found.each).map(([name, one]) => [name, String(one.rows), number(one.accuracy), number(one.f1_macro)]);
  const spread = (of, said) => Object.entries(of ?? {}).map(([name, values]) => [`${name}${said}`, ...values.map((value) => number(value))]);
  return part(
    `Groups by ${found.column}`,
    [
      table('Groups', ['', 'rows', 'accuracy', 'F1 macro'], rows),
      h('p.small.muted', null, 'Differences between the highest and the lowest group; 0 is alike.'),
      table(
        'Differences between groups', ['class', 'demographic parity', 'equal opportunity', 'equal odds'],
        [...spread(found.differences, ''), ...spread(found.differences_before, ', before')],
      ),
    ],
  );
}

function mistakes(found) {
  if (!found?.length) return null;
  const rows = found.map((one) => [one.text, words(one.said), words(one.wanted), number(one.by)]);
  const head = ['row', headWords('said'), headWords('wanted'), 'by'];
  return part('Worst mistakes', table('Worst mistakes', head, rows, {class: 'texts'}), '', WHOLE);
}

function headWords(name) {
  return h('span.head-words', null, name);
}

function unlabelled(found) {
  if (!found) return null;
  const [before, after] = found.sure ?? [];
  const rows = (found.to_label ?? []).map((one) => [one.place, number(one.doubt), words(one.said), words(one.text)]);
  return part(
    'Rows without labels',
    rows.length ? table('Worth a label next', ['worth a label next', 'doubt', headWords('said'), headWords('row')], rows) : null,
    `${found.rows} rows: sure of ${number(before)} of them before, of ${number(after)} after.`,
    WHOLE,
  );
}

function texts(found) {
  if (!found) return null;
  const rows = Object.entries(found.figures ?? {}).map(([name, values]) => [title(name), ...values.map((value) => number(value, 4))]);
  const examples = (found.examples ?? []).map((one) =>
    h(
      'dl.facts',
      null,
      ['prompt', 'wanted', 'before', 'after'].flatMap((name) => [h('dt', null, name === 'prompt' ? 'asked' : name), h('dd', null, one[name])]),
    ),
  );
  return part(
    'Answers written',
    [rows.length ? table('Figures of answers', ['', 'before', 'after'], rows) : null, examples],
    `${found.rows} answers, up to ${found.tokens} tokens each.`,
    WHOLE,
  );
}

function lengths(sides) {
  const names = Object.keys(sides ?? {}).filter((name) => sides[name] && Object.keys(sides[name]).length);
  if (!names.length) return null;
  const rows = Object.keys(sides[names[0]]).map((key) => [title(key), ...names.map((name) => plain(sides[name][key]))]);
  return part('Tokens of a row', table('Tokens of a row', ['', ...names.map(title)], rows));
}

function cut(names) {
  return names?.length ? h('p.small.muted', {'data-key': 'cut'}, `Left out, as there was too much of it: ${names.join(', ')}.`) : null;
}

function searched(facts) {
  const {trials, names} = trialsOf(facts);
  const rows = trials.map((one) => [
    `${one.number}${one.number === facts.best ? ' · best' : ''}`, pill(one.state, one.state === 'complete' ? 'good' : undefined),
    ...names.map((name) => plain(one.parameters[name])), number(one.value, 4), String(one.steps), seconds(one.seconds),
    words(one.error ?? ''),
  ]);
  const shares = Object.entries(facts.importance ?? {}).sort(([, a], [, b]) => b - a);
  return part('Trials of the search', [
    table('Trials of the search', ['trial', 'state', ...names.map(title), 'value', 'steps', 'time', headWords('error')], rows),
    shares.length
      ? h(
          'dl.shares',
          {'aria-label': 'Importance of what was searched'},
          h('dt.small.muted', null, 'What made the difference'),
          shares.map(([name, share]) =>
            h('dd', null, h('span', null, title(name)), h('meter', {min: 0, max: 1, value: share, 'aria-label': title(name)}), h('b.value', null, percent(share, 1))),
          ),
        )
      : null,
  ], '', WHOLE);
}
