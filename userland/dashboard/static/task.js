// One task, or several runs laid over each other: their curves as they grow, and their results side by side.

import {Chart} from './charts.js';
import {align, metricsOf, result} from './curves.js';
import {select} from './dialogs.js';
import {empty, h, icon, loading, morphChildren} from './dom.js';
import {pointsOf} from './figures.js';
import {progressBar} from './loading.js';
import {Records} from './records.js';
import {compared, promoted, reportOf} from './report.js';
import {link} from './router.js';
import {pill, whyLink} from './table.js';
import {nameOf, taskDeeds} from './tasks.js';
import {number} from './units.js';

export function taskPage(app, params) {
  return new TaskPage(app, (params.get('id') ?? '').split(',').filter(Boolean));
}

class TaskPage {
  constructor(app, ids) {
    Object.assign(this, {app, ids, names: '', told: ''});
    this.records = new Records(app.api, () => this.draw());
    this.chart = new Chart({
      title: 'Curve',
      unit: 'by step',
      format: (value) => number(value, 4),
      series: [],
      xTime: false,
      xLabel: 'step',
    });
    this.metric = select('metric', [], '', {'aria-label': 'Metric', onchange: () => this.draw()});
    this.head = h('div', null, loading(3));
    this.none = h(
      'div.card',
      null,
      empty('charts', 'No curve yet', 'A tuning run reports its loss step by step; this task has not reported any.'),
    );
    this.results = h('div.section');
    this.curves = h(
      'section.section',
      {'aria-labelledby': 'h-curve', hidden: true},
      h('div.section-head', null, h('h2', {id: 'h-curve'}, 'Curves'), h('div.metric', null, this.metric)),
      this.chart.root,
      this.none,
    );
    this.reports = h('div.section');
    this.root = h('div', null, this.head, this.curves, this.results, this.reports);
  }

  update(what) {
    if (what === 'overview' || what === 'point') this.draw();
  }

  close() {
    this.chart.close();
  }

  draw() {
    const {overview, points} = this.app.live;
    if (!overview) return;
    const runs = this.ids.map((id) => points.get(id) ?? pointsOf(this.records.get(id)));
    const names = metricsOf(runs);
    if (names.join() !== this.names) {
      this.names = names.join();
      morphChildren(
        this.metric,
        names.map((name) => h('option', {value: name}, name)),
      );
    }
    const metric = this.metric.value || names[0];
    const tasks = this.ids.map((id) => this.task(id, overview, points));
    if (this.app.live.state === 'running') this.records.follow(tasks);
    morphChildren(this.head, this.heading(tasks));
    this.curves.hidden = false;
    this.metric.hidden = this.chart.root.hidden = !names.length;
    this.none.hidden = Boolean(names.length);
    if (names.length)
      this.chart.set(
        align(runs, metric),
        tasks.map((task) => ({name: task.name || task.id})),
      );
    morphChildren(
      this.results,
      names.length ? [h('div.section-head', null, h('h2', null, 'Results')), results(tasks, runs, metric)] : [],
    );
    this.report(tasks);
  }

  /** The task, or what is known of a run that ended before. */
  task(id, overview, points) {
    const record = this.records.get(id);
    return (
      (overview.tasks ?? []).find((task) => task.id === id) ?? {
        id,
        kind: record ? 'tune' : '',
        name: record ? nameOf(record) : id,
        state: record?.state ?? (points.has(id) ? 'ended' : 'unknown'),
        progress: {},
      }
    );
  }

  /** The report of a run, or figures side by side; drawn again only when a record is new, since it may be long. */
  report(tasks) {
    const records = tasks.map(({id}) => this.records.get(id));
    const told = JSON.stringify([tasks.map(({name}) => name), records.map((run) => run && [run.state, run.facts, run.promoted])]);
    if (told === this.told) return;
    this.told = told;
    const parts =
      tasks.length === 1
        ? records[0]
          ? reportOf(records[0])
          : []
        : compared(records, tasks.map((task) => task.name || task.id));
    this.reports.replaceChildren(
      ...(parts.length
        ? [h('div.section-head', null, h('h2', null, tasks.length === 1 ? 'Report' : 'Compared')), h('div.reports', null, parts)]
        : []),
    );
  }

  /** The version that a run made, and whether it is what its name means. */
  promotion(id) {
    const run = this.records.get(id);
    if (!run?.version) return null;
    return [promoted(run), h('span.small.muted.wrap', null, `${run.out}@${run.version}`)];
  }

  heading(tasks) {
    const [task] = tasks;
    const one = tasks.length === 1;
    return [
      h('a.back', {href: link('tasks')}, icon('back'), 'All tasks'),
      h(
        'header.page-head',
        null,
        h('h1.wrap', null, one ? task.name || task.id : `${tasks.length} runs compared`),
        one
          ? [pill(task.state), this.promotion(task.id), whyLink(task.id, task.name || task.id), h('div.push', null, taskDeeds(this.app, task))]
          : null,
      ),
      one && (task.progress?.done || task.progress?.stage)
        ? h('div.card', {'data-key': 'progress'}, progressBar(task.progress))
        : null,
    ];
  }
}

/** What came of each run, the best one marked. */
function results(tasks, runs, metric) {
  const found = runs.map((points) => result(points, metric));
  const best = Math.min(...found.filter(Boolean).map((one) => one.best));
  return h(
    'div.table-box',
    null,
    h(
      'table',
      {'aria-label': 'Results of the runs', role: 'table'},
      h(
        'thead',
        {role: 'rowgroup'},
        h(
          'tr',
          {role: 'row'},
          ['Run', 'State', 'Steps', `First ${metric}`, `Last ${metric}`, `Best ${metric}`].map((title, at) =>
            h(`th${at > 1 ? '.num' : ''}`, {scope: 'col', role: 'columnheader'}, title),
          ),
        ),
      ),
      h(
        'tbody',
        {role: 'rowgroup'},
        tasks.map((task, at) =>
          h(
            'tr',
            {role: 'row', 'data-key': task.id},
            h('td', {role: 'cell'}, h('a.name-cell', {href: link('task', {id: task.id})}, task.name || task.id)),
            h('td', {role: 'cell', 'data-label': 'State'}, pill(task.state)),
            ...[
              ['Steps', found[at] ? number(found[at].step, 6) : '–'],
              [`First ${metric}`, number(found[at]?.first, 4)],
              [`Last ${metric}`, number(found[at]?.last, 4)],
              [
                `Best ${metric}`,
                found[at]
                  ? `${number(found[at].best, 4)} at step ${found[at].bestStep}${found[at].best === best && tasks.length > 1 ? ' · best' : ''}`
                  : '–',
              ],
            ].map(([title, text]) => h('td.num', {role: 'cell', 'data-label': title}, text)),
          ),
        ),
      ),
    ),
  );
}
