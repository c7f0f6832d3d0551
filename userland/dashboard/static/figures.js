// What a report of a tuning run says, as texts for tables. Pure, tested with node.

import {number} from './units.js';

/** A name of the report as people read it. */
export function title(name) {
  return name.replaceAll('_', ' ');
}

/** A value, and from where to where it reaches: `0.91 [0.88, 0.94]`. */
export function interval(values, signed = false) {
  const shown = (values ?? []).map((value) => `${signed && value > 0 ? '+' : ''}${number(value, 4)}`);
  if (!shown.length) return '–';
  return shown.length === 3 ? `${shown[0]} [${shown[1]}, ${shown[2]}]` : shown[0];
}

/** What is to be thought of a figure: `[word, level]`. */
export function verdict(figure) {
  if (figure.better === 'after') return ['better', 'good'];
  if (figure.better === 'before') return ['worse', 'bad'];
  return [figure.difference.length > 1 ? 'may be chance' : 'too few to tell', 'plain'];
}

/** Names of figures: what the run is judged by, the loss, the others. */
export function ordered(report) {
  const rank = (name) => (name === report.judged_by ? 0 : name === 'loss' ? 1 : 2);
  return Object.keys(report.figures ?? {}).sort((a, b) => rank(a) - rank(b));
}

/** Whether the result of a run is what its name means; empty while there is none. */
export function promotion(run) {
  if (run?.promoted === true) return ['promoted', 'good'];
  return run?.promoted === false ? ['not promoted', 'warn'] : null;
}

/** The points of a record's curve as the live stream tells them. */
export function pointsOf(run) {
  return (run?.curve ?? []).map(({step, at, ...values}) => ({task: run.id, step, values}));
}

/** Figures of several runs: `[{name, cells}]`, a cell for each run, null where it has no such figure. */
export function beside(runs) {
  const reports = runs.map((run) => run?.facts?.report);
  const names = [...new Set(reports.flatMap((report) => (report ? ordered(report) : [])))];
  return names.map((name) => ({name, cells: reports.map((report) => report?.figures?.[name] ?? null)}));
}

/** Fields in which the recipes of several runs differ: `[{name, cells}]`, each as text. */
export function differing(runs) {
  const names = [...new Set(runs.flatMap((run) => Object.keys(run?.recipe ?? {})))].sort();
  return names
    .map((name) => ({name, cells: runs.map((run) => plain(run?.recipe?.[name]))}))
    .filter(({cells}) => new Set(cells.filter((_, at) => runs[at])).size > 1);
}

/** Whether the runs had the same data, so that their figures can be held against each other. */
export function sameData(runs) {
  const known = runs.filter(Boolean).map((run) => run.facts?.data_sha256 || run.facts?.data?.digest || run.data);
  return new Set(known).size < 2;
}

export function plain(value) {
  if (value === null || value === undefined || value === '') return '–';
  if (typeof value === 'number') return number(value, 4);
  return typeof value === 'object' ? JSON.stringify(value) : String(value);
}

/** The trials of a search: the best first, then those that came to their end, then the others. */
export function trialsOf(facts) {
  const rank = ({number: at, state}) => (at === facts.best ? 0 : ['complete', 'cut'].includes(state) ? 1 : 2);
  const trials = [...(facts.trials ?? [])].sort((a, b) => rank(a) - rank(b) || a.number - b.number);
  return {trials, names: [...new Set(trials.flatMap(({parameters}) => Object.keys(parameters)))].sort()};
}

/** Points of a curve in the unit square as those of an SVG of 100 by 100, whose y goes down. */
export function polyline(points) {
  return points.map(([across, up]) => `${round(100 * across)},${round(100 - 100 * up)}`).join(' ');
}

function round(value) {
  return Math.round(value * 10) / 10;
}
