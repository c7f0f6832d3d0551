// Loading and transforming a stored model: what is asked before, and how far it has come.

import {ask, field, select} from './dialogs.js';
import {h, toast} from './dom.js';
import {takers} from './ledger.js';
import {bytes, number, percent, seconds} from './units.js';

/** How far work has come, as a bar with its numbers. */
export function progressBar({done = 0, total = 0, unit = '', stage = ''} = {}, label = 'Progress') {
  const amount = (value) =>
    unit === 'bytes' || unit === 'B' ? bytes(value) : `${number(value, 6)}${unit ? ` ${unit}` : ''}`;
  const text = total
    ? `${stage ? `${stage}: ` : ''}${amount(done)} of ${amount(total)} (${percent(done, total)})`
    : `${stage || (done ? amount(done) : '')}`;
  return h(
    'div.progress',
    null,
    h('progress', {max: 1, value: total ? Math.min(1, done / total) : null, 'aria-label': label}),
    h('span.small.muted.tabular', null, text || '\u00a0'),
  );
}

/** Ask how, then load; the dialog shows the progress and stays when it fails. */
export function load(app, path, fields) {
  const devices = takers(app.live.overview).map(({name, free}) => [name, `${name} (${bytes(free)} free)`]);
  const name = path.split('/').at(-1).split('@')[0];
  const progress = h('div', {'aria-live': 'polite'});
  const adapterOf = (fields.parents ?? []).find(({how}) => how === 'adapter');
  const bases = (app.live.overview?.models ?? []).filter((model) => !model.base).map((model) => [model.id, model.name]);
  return ask({
    title: `Load ${name}?`,
    confirm: 'Load',
    body: [
      h(
        'p',
        null,
        `${fields.bytes ? bytes(fields.bytes) : 'It'} will be read from disk. The plan is made first: it is refused, with the numbers, if it does not fit.`,
      ),
      h(
        'div.fields',
        null,
        field('Device', select('device', [['', 'let policy choose'], ...devices])),
        adapterOf
          ? field(
              'On the model',
              select('base', bases, bases.find(([, title]) => adapterOf.path?.endsWith(title))?.[0] ?? ''),
            )
          : null,
        field('Name', h('input', {name: 'name', value: name, spellcheck: 'false'})),
        field('Data type', select('dtype', [['auto', 'as stored'], 'bfloat16', 'float16', 'float32'])),
        field('Weights', select('quant', [['', 'as stored'], ['8', 'quantized to 8 bits'], ['4', 'quantized to 4 bits']])),
        field(
          'Keep when idle',
          select('keep_alive', [
            ['-1', 'forever'],
            ['300', '5 minutes'],
            ['3600', '1 hour'],
            ['0', 'not at all'],
          ]),
        ),
      ),
      h('label.check', null, h('input', {type: 'checkbox', name: 'pin'}), h('span', null, 'Pin it: never evict')),
      progress,
    ],
    action: async (form) => {
      const {device, base, dtype, quant, keep_alive: keep, name: called} = Object.fromEntries(new FormData(form));
      const options = {
        name: called,
        keep_alive: Number(keep),
        pin: form.elements.pin.checked,
        ...(dtype === 'auto' ? {} : {dtype}),
        ...(quant ? {quant: {width: Number(quant)}} : {}),
        ...(adapterOf ? {adapter: true} : {}),
      };
      const body = {path, options, ...(device ? {device} : {}), ...(adapterOf && base ? {base} : {})};
      const began = performance.now();
      const info = await app.api.callWithProgress('load_model', body, (found) =>
        progress.replaceChildren(progressBar(found, `Loading ${name}`)),
      );
      toast(
        `${info?.name || name} is loaded${info?.device ? ` on ${info.device}` : ''} after ${seconds((performance.now() - began) / 1000)}`,
        'good',
      );
    },
  });
}

/** Quantize into a new model: a task, whose end says what it cost. */
export function transform(app, path) {
  return ask({
    title: 'Quantize',
    confirm: 'Quantize',
    body: [
      h('p', null, `A new model with fewer bits per weight; ${path} stays as it is.`),
      h(
        'div.fields',
        null,
        field('Bits', select('width', ['8', '4'])),
        field('Group', select('group', ['128', '64', '32'])),
        field('Method', select('method', [['rtn', 'nearest numbers'], ['gptq', 'GPTQ'], ['awq', 'AWQ']])),
        field('Save as', h('input', {name: 'out', required: true, value: `${path.split('@')[0]}-small`, spellcheck: 'false'})),
      ),
    ],
    action: async (form) => {
      const {width, group, method, out} = Object.fromEntries(new FormData(form));
      const task = await app.api.call('transform_model', {
        sources: [path],
        out,
        recipe: {kind: 'quantize', quant: {width: Number(width), group: Number(group), method}},
      });
      toast(`${task.id} has begun`, 'good');
      app.go('tasks');
    },
  });
}
