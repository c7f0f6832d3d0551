// Work that outlives a call: imports, runs of tuning, programs; with what has come of it.

import {empty, h, loading, morphChildren, toast} from './dom.js';
import {ask, field} from './dialogs.js';
import {progressBar} from './loading.js';
import {promoted} from './report.js';
import {link} from './router.js';
import {Table, pill, whyLink} from './table.js';

export function tasksPage(app) {
  const chosen = new Set();
  const runs = new Map();
  let asked = null;
  const root = h('div', null, loading(4));
  const table = new Table({
    label: 'Tasks',
    keyOf: (task) => task.id,
    changed: () => draw(),
    open: (task) => app.go('task', {id: task.id}),
    columns: columns(app, chosen, runs, () => draw()),
  });

  /** Ask for the runs when a task of tuning came, went or changed its state. */
  async function follow(tasks) {
    const states = tasks.filter(({kind}) => kind === 'tune').map(({id, state}) => `${id} ${state}`);
    if (asked === states.join('\n')) return;
    asked = states.join('\n');
    try {
      for (const run of await app.api.get('/api/v1/runs')) runs.set(run.id, run);
      draw();
    } catch {
      // what is known without records is shown; with the next change of the tasks they are asked for again
    }
  }

  function draw() {
    const data = app.live.overview;
    if (!data) return;
    follow(data.tasks ?? []);
    const tasks = withRuns(data.tasks ?? [], app.live.points, runs);
    morphChildren(root, [
      h(
        'header.page-head',
        null,
        h('h1', null, 'Tasks'),
        h(
          'div.push',
          null,
          h(
            'button',
            {type: 'button', disabled: chosen.size < 2, onclick: () => app.go('task', {id: [...chosen].join(',')})},
            `Compare runs${chosen.size ? ` (${chosen.size})` : ''}`,
          ),
          h(
            'button.primary',
            {
              type: 'button',
              disabled: !app.may('tune'),
              title: app.may('tune') ? null : 'This needs a key with the scope tune',
              onclick: () => tune(app, ''),
            },
            'Tune a model',
          ),
        ),
        h(
          'p.lead',
          null,
          'Imports, tuning runs and programs. Tick two or more runs to lay their curves over each other.',
        ),
      ),
      tasks.length
        ? table.render(tasks)
        : h(
            'div.card',
            null,
            empty(
              'tasks',
              'Nothing is under way',
              'Imports (llmos pull), transforms and tuning runs appear here with their progress, and stay until the kernel forgets them.',
            ),
          ),
    ]);
  }
  return {root, update: (what) => (what === 'overview' || what === 'point') && draw()};
}

/** The tasks, and runs that have ended but whose records or curves are still known. */
export function withRuns(tasks, points, runs) {
  const known = new Set(tasks.map(({id}) => id));
  return [
    ...tasks,
    ...[...new Set([...runs.keys(), ...points.keys()])]
      .filter((id) => !known.has(id))
      .map((id) => ({
        id,
        kind: 'tune',
        name: runs.has(id) ? nameOf(runs.get(id)) : id,
        state: runs.get(id)?.state ?? 'ended',
        progress: {},
      })),
  ];
}

/** What a run without a task is called. */
export function nameOf(run) {
  return `${run.method} ${run.model.name} to ${run.out}`;
}

/** How far a task has come: one that is done has come all the way, whatever it said last. */
function come({state, progress}) {
  return state === 'done' && progress.total ? {...progress, done: progress.total} : progress;
}

const columns = (app, chosen, runs, redraw) => [
  {
    key: 'pick',
    title: 'Compare',
    cell: (task) =>
      app.live.points.has(task.id) || runs.has(task.id)
        ? h('input', {
            type: 'checkbox',
            checked: chosen.has(task.id),
            'aria-label': `Compare ${task.name || task.id}`,
            onchange: (event) => {
              if (event.target.checked) chosen.add(task.id);
              else chosen.delete(task.id);
              redraw();
            },
          })
        : '',
  },
  {
    key: 'name',
    title: 'Task',
    value: (task) => task.name || task.id,
    cell: (task) =>
      h(
        'div',
        null,
        h('a.name-cell', {href: link('task', {id: task.id})}, task.name || task.id),
        whyLink(task.id, task.name || task.id),
        h('div.small.muted.mono', null, task.id),
      ),
  },
  {key: 'kind', title: 'Kind', value: (task) => task.kind, cell: (task) => task.kind},
  {key: 'state', title: 'State', value: (task) => task.state, cell: (task) => pill(task.state)},
  {
    key: 'progress',
    title: 'Progress',
    class: 'wide',
    value: (task) => (task.progress?.total ? task.progress.done / task.progress.total : null),
    cell: (task) =>
      task.progress?.done || task.progress?.stage
        ? progressBar(come(task), `Progress of ${task.name || task.id}`)
        : '–',
  },
  {
    key: 'result',
    title: 'Result',
    value: (task) => runs.get(task.id)?.version ?? '',
    cell: (task) => resultOf(runs.get(task.id)),
  },
  {key: 'deeds', title: '', class: 'wide deeds', cell: (task) => taskDeeds(app, task)},
];

/** Which version a run made, and whether it is what its name means. */
function resultOf(run) {
  return run?.version ? h('div', null, promoted(run), h('div.small.muted.wrap', null, `${run.out}@${run.version}`)) : '';
}

/** Pause, resume, cancel: only what the state allows. */
export function taskDeeds(app, task) {
  const name = task.name || task.id;
  const control = async (action) => {
    try {
      await app.api.call('control_object', {handle: `task:${task.id}`, action, options: {}});
    } catch (error) {
      toast(error.message, 'error');
    }
  };
  const cancel = () =>
    ask({
      title: `Cancel ${name}?`,
      danger: true,
      confirm: 'Cancel the task',
      body: h('p', null, 'It ends now. What it had finished before stays; what it was writing vanishes.'),
      action: () => app.api.call('cancel_task', {task: task.id}),
    });
  return h(
    'div.button-row.tight',
    null,
    task.state === 'running'
      ? h(
          'button.tiny',
          {
            type: 'button',
            'data-key': 'pause',
            disabled: !app.may('manage'),
            'aria-label': `Pause ${name}`,
            onclick: () => control('pause'),
          },
          'Pause',
        )
      : null,
    task.state === 'paused'
      ? h(
          'button.tiny',
          {
            type: 'button',
            'data-key': 'resume',
            disabled: !app.may('manage'),
            'aria-label': `Resume ${name}`,
            onclick: () => control('resume'),
          },
          'Resume',
        )
      : null,
    ['running', 'paused', 'queued', 'checkpointing'].includes(task.state)
      ? h(
          'button.tiny.danger',
          {
            type: 'button',
            'data-key': 'cancel',
            disabled: !app.may('infer'),
            'aria-label': `Cancel ${name}`,
            onclick: cancel,
          },
          'Cancel',
        )
      : null,
  );
}

/** Ask for a run of tuning; what is wrong with it is said in the system's own words, else its page opens. */
export function tune(app, path) {
  const loaded = (app.live.overview?.models ?? []).filter((model) => !model.base);
  return ask({
    title: 'Tune a model',
    confirm: 'Begin',
    body: [
      h(
        'p',
        null,
        'Adapters learn from your data on the same resident weights that serve requests, and give way to them between steps.',
      ),
      h(
        'div.fields',
        null,
        field(
          'Model',
          h('input', {name: 'model', required: true, value: path || loaded[0]?.path || '', spellcheck: 'false'}),
        ),
        field(
          'Data',
          h('input', {name: 'data', required: true, placeholder: '/home/me/train.jsonl', spellcheck: 'false'}),
        ),
        field('Save as', h('input', {name: 'out', required: true, placeholder: '/models/mine', spellcheck: 'false'})),
        field('Rank', h('input', {name: 'rank', type: 'number', min: 1, value: 8})),
        field('Learning rate', h('input', {name: 'learning_rate', type: 'number', step: 'any', min: 0, value: 0.0002})),
        field('Epochs', h('input', {name: 'epochs', type: 'number', step: 'any', min: 0, value: 1})),
        field(
          'Held out',
          h('input', {name: 'eval_fraction', type: 'number', step: 'any', min: 0, max: 0.9, value: 0.1}),
        ),
      ),
    ],
    action: async (form) => {
      const {model, data, out, ...given} = Object.fromEntries(new FormData(form));
      const numbers = Object.fromEntries(Object.entries(given).map(([name, value]) => [name, Number(value)]));
      const answer = await (
        await app.api.request('/microtune', {
          method: 'POST',
          body: {model, data, out, method: 'lora', ...numbers},
        })
      ).json();
      app.go('task', {id: answer.value.id});
    },
  });
}
