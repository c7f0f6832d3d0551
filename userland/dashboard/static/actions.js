// What can be done with a loaded model, each with a confirmation that says what it means.

import {h, toast} from './dom.js';
import {ask} from './dialogs.js';
import {bytes} from './units.js';

/** The deeds: name, title, when it is possible, what it means, and the call. */
const DEEDS = [
  {
    name: 'wake',
    title: 'Wake',
    when: (m) => m.state === 'asleep',
    text: (m) => `${m.name} comes back to ${m.device} and answers at once.`,
  },
  {
    name: 'sleep',
    title: 'Sleep',
    when: (m) => m.state === 'awake' && !m.base,
    text: (m) =>
      `${m.name} leaves ${m.device} (${bytes(m.bytes)} become free) and stays ready in the machine’s memory. The next request wakes it.`,
  },
  {
    name: 'pin',
    title: 'Pin',
    when: (m) => !m.base && !m.pinned,
    text: (m) => `${m.name} stays where it is: nothing evicts it and no idle time puts it to sleep.`,
  },
  {
    name: 'unpin',
    title: 'Unpin',
    when: (m) => !m.base && m.pinned !== false,
    text: (m) => `${m.name} may leave again when others need the bytes.`,
  },
];

/** The most used ones, for a row of a table. */
export function shortMenu(app, model) {
  return actionsMenu(app, model, DEEDS.slice(0, 2));
}

/** Small buttons for one model; greyed with the reason when the key may not. */
export function actionsMenu(app, model, deeds = DEEDS) {
  const allowed = app.may('manage');
  const title = allowed ? null : 'This needs a key with the scope manage';
  const button = (name, run, danger) =>
    h(
      `button.tiny${danger ? '.danger' : ''}`,
      {
        type: 'button',
        disabled: !allowed,
        title,
        'aria-label': `${name} ${model.name}`,
        onclick: run,
        'data-key': name,
      },
      name,
    );
  return h(
    'div.button-row.tight',
    null,
    deeds.filter((deed) => deed.when(model)).map((deed) => button(deed.title, () => act(app, model, deed))),
    button('Unload', () => unload(app, model), true),
  );
}

function act(app, model, deed) {
  return ask({
    title: `${deed.title} ${model.name}?`,
    body: h('p', null, deed.text(model)),
    confirm: deed.title,
    action: async () => {
      await app.api.call('control_object', {handle: `model:${model.id}`, action: deed.name, options: {}});
      toast(`${model.name}: ${deed.name} done`, 'good');
    },
  });
}

function unload(app, model) {
  const busy = model.running + model.waiting;
  return ask({
    title: `Unload ${model.name}?`,
    danger: true,
    confirm: 'Unload',
    body: [
      h(
        'p',
        null,
        `${model.name} leaves ${model.device}; ${bytes(model.bytes)} become free. Loading it again reads it from disk.`,
      ),
      busy ? h('p', null, `${busy} of its requests are under way.`) : null,
      h('label.check', null, h('input', {type: 'checkbox', name: 'force'}), h('span', null, 'End its requests too')),
    ],
    action: async (form) => {
      const freed = await app.api.call('unload_model', {model: model.id, force: form.elements.force.checked});
      toast(`${model.name} is unloaded, ${bytes(freed?.bytes)} are free again`, 'good');
    },
  });
}
