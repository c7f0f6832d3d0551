// One model: what it is, whether it fits, and what can be done with it.

import {actionsMenu} from './actions.js';
import {escapePath} from './api.js';
import {empty, failure, h, icon, loading, morphChildren} from './dom.js';
import {byPurpose, takers} from './ledger.js';
import {load, transform} from './loading.js';
import {loadedAt} from './models.js';
import {link} from './router.js';
import {pill, whyLink} from './table.js';
import {tune} from './tasks.js';
import {bytes, clock, count, percent} from './units.js';

export function modelPage(app, params) {
  return new ModelPage(app, params.get('path') ?? '');
}

class ModelPage {
  constructor(app, path) {
    Object.assign(this, {app, path, entry: null, error: null, plans: new Map(), planning: false});
    this.root = h('div', null, loading(6));
    this.fetch();
  }

  async fetch() {
    try {
      this.entry = await this.app.api.get(`/api/v1/stat/${escapePath(this.path.replace(/^\//, ''))}`);
      this.error = null;
    } catch (error) {
      this.error = error;
    }
    this.draw();
  }

  async plan() {
    this.planning = true;
    this.plans.clear();
    this.draw();
    await Promise.all(
      takers(this.app.live.overview).map(async ({name}) => {
        const params = new URLSearchParams({path: this.path, device: name});
        try {
          const answer = await this.app.api.get(`/api/v1/plan?${params}`);
          this.plans.set(name, answer.plan ?? answer);
        } catch (error) {
          this.plans.set(name, error);
        }
        this.draw();
      }),
    );
    this.planning = false;
    this.draw();
  }

  /** The kernel is back after what was asked had failed. */
  again() {
    this.fetch();
  }

  update(what) {
    if (what === 'overview') this.draw();
  }

  draw() {
    const name = this.path.replace(/^\/models\//, '');
    const back = h('a.back', {href: link('models')}, icon('back'), 'All models');
    if (this.error)
      morphChildren(this.root, [
        back,
        h('header.page-head', null, h('h1', null, name)),
        failure(this.error, () => this.fetch()),
      ]);
    if (this.error || !this.entry) return;
    const {fields, version} = this.entry;
    const loaded = loadedAt(this.app, this.path);
    morphChildren(this.root, [
      back,
      h(
        'header.page-head',
        null,
        h('h1.wrap', null, name),
        pill(loaded?.state ?? 'stored'),
        whyLink(loaded?.id ?? this.path, name),
        h('div.push', null, this.deeds(loaded, fields)),
      ),
      fields.problem
        ? h(
            'div.failure',
            null,
            icon('alert'),
            h('div', null, h('strong', null, 'This model is damaged'), h('p', null, fields.problem)),
          )
        : null,
      h(
        'div.two',
        {'data-key': 'two'},
        h('div.stack', null, this.facts(fields, version), this.versions(fields), lineage(fields)),
        h('div.stack', null, this.fits(loaded), later(this.app, this.path)),
      ),
    ]);
  }

  deeds(loaded, fields) {
    const may = this.app.may('load');
    const talk = (fields.tasks ?? []).some((task) => task.includes('generation') || task.includes('to-text'));
    return [
      loaded
        ? actionsMenu(this.app, loaded)
        : h(
            'button.primary',
            {
              type: 'button',
              disabled: !may,
              title: may ? null : 'This needs a key with the scope load',
              onclick: () => load(this.app, this.path, {...fields, bytes: this.entry.bytes}),
            },
            'Load',
          ),
      talk
        ? h('a.button', {href: link('chat', {model: loaded?.name ?? this.path.replace(/^\/models\//, '')})}, 'Chat')
        : null,
    ];
  }

  facts(fields, version) {
    const quant = fields.quant ? JSON.stringify(fields.quant) : '';
    const facts = [
      ['Path', h('span.mono', null, this.path)],
      ['Version', version],
      ['Architecture', fields.architecture],
      ['Tasks', fields.tasks?.join(', ')],
      ['Parameters', fields.parameters ? count(fields.parameters) : ''],
      ['Data type', fields.dtype],
      ['Quantized', quant],
      ['On disk', bytes(this.entry.bytes)],
      [
        'Weights as',
        Object.entries(fields.bytes_by_dtype ?? {})
          .map(([dtype, size]) => `${dtype} ${bytes(size)}`)
          .join(', '),
      ],
      ['Context', fields.context ? `${count(fields.context)} tokens` : ''],
      ['Chat template', fields.chat_template ? 'yes' : 'no'],
      ['Languages', fields.languages?.join?.(', ') ?? fields.languages],
      ['Licence', fields.licence],
      ['From', text(fields.origin)],
      ['Signature', text(fields.signature)],
      ['Tags', Array.isArray(fields.tags) ? fields.tags.join(', ') : ''],
      [
        'Stored',
        fields.created
          ? String(fields.created)
              .replace('T', ' ')
              .replace(/Z|\+00:00/, ' UTC')
          : clock(this.entry.mtime),
      ],
    ].filter(([, value]) => value);
    return h(
      'section.card',
      {'aria-labelledby': 'h-facts', 'data-key': 'facts'},
      h('div.section-head', null, h('h2', {id: 'h-facts'}, 'What it is')),
      h(
        'dl.facts',
        null,
        facts.map(([title, value]) => [h('dt', null, title), h('dd', null, value)]),
      ),
    );
  }

  versions(fields) {
    const names = fields.versions ?? [];
    const pointing = (version) =>
      Object.entries(fields.aliases ?? {})
        .filter(([, to]) => to === version)
        .map(([alias]) => `@${alias}`);
    return h(
      'section.card',
      {'aria-labelledby': 'h-versions', 'data-key': 'versions'},
      h(
        'div.section-head',
        null,
        h('h2', {id: 'h-versions'}, 'Versions'),
        h('span.small.muted', null, String(names.length)),
      ),
      names.length
        ? h(
            'ul.stack.small',
            null,
            [...names]
              .reverse()
              .slice(0, 12)
              .map((version) =>
                h(
                  'li',
                  null,
                  h('span.mono', null, version),
                  ' ',
                  version === fields.current ? h('span.chip', null, 'current') : null,
                  pointing(version).map((alias) => h('span.chip', null, alias)),
                ),
              ),
          )
        : h('p.muted', null, 'This folder has no versions of its own.'),
    );
  }

  fits(loaded) {
    const devices = takers(this.app.live.overview);
    const body = loaded
      ? h('p.muted', null, `It is loaded on ${loaded.device} and takes ${bytes(loaded.bytes)}.`)
      : null;
    return h(
      'section.card',
      {'aria-labelledby': 'h-fits', 'data-key': 'fits'},
      h('div.section-head', null, h('h2', {id: 'h-fits'}, 'Will it fit?')),
      body,
      h(
        'div.plans',
        {'aria-live': 'polite'},
        devices.filter(({name}) => this.plans.has(name)).map((device) => verdict(device, this.plans.get(device.name))),
        this.planning && !this.plans.size ? loading(2, 'Planning') : null,
        !devices.length ? empty('overview', 'No device', 'No device driver is running.') : null,
      ),
      h(
        'div.actions',
        null,
        h(
          'button',
          {type: 'button', disabled: this.planning || !devices.length, onclick: () => this.plan()},
          this.plans.size ? 'Plan again' : 'Plan it',
        ),
      ),
    );
  }
}

/** Whether it fits on one device, with the numbers behind it. */
export function verdict(device, plan) {
  if (plan instanceof Error) {
    return h(
      'div.plan',
      {'data-key': device.id},
      h('h3', null, device.name),
      h('p.verdict.bad', null, icon('close'), plan.title),
      h('p.small.wrap', null, plan.message),
    );
  }
  const evicts = plan.would_evict ?? [];
  const [level, mark, words] = plan.fits
    ? ['good', 'check', 'It fits']
    : evicts.length
      ? ['warn', 'alert', 'Only if others leave']
      : ['bad', 'close', 'It does not fit'];
  const scale = Math.max(plan.needed, plan.free, 1);
  const groups = byPurpose((plan.rows ?? []).map((row) => ({...row, bytes: row.predicted || row.ledger})));
  return h(
    'div.plan',
    {'data-key': device.id, 'data-fits': String(plan.fits)},
    h('h3', null, device.name),
    h(`p.verdict.${level}`, null, icon(mark), words),
    h(
      'p.small',
      null,
      `needs ${bytes(plan.needed)}, ${bytes(plan.free)} free (${percent(plan.needed, plan.free)} of it)`,
    ),
    h(
      'div.bar',
      {
        role: 'img',
        'aria-label':
          groups.map((group) => `${group.name} ${bytes(group.bytes)}`).join(', ') || `needs ${bytes(plan.needed)}`,
      },
      groups.map((group) =>
        h('span', {
          class: `d-${group.what}`,
          style: {width: `${(100 * group.bytes) / scale}%`},
          title: `${group.name}: ${bytes(group.bytes)}`,
        }),
      ),
    ),
    evicts.length ? h('p.small.wrap', null, `would leave: ${evicts.join(', ')}`) : null,
  );
}

function lineage(fields) {
  const parents = fields.parents ?? [];
  const children = fields.children ?? [];
  if (!parents.length && !children.length) return null;
  const name = (one) => (typeof one === 'string' ? one : one.path);
  const item = (one, how) => {
    const path = name(one).startsWith('/') ? name(one) : `/models/${name(one)}`;
    return h(
      'li',
      null,
      h('span.muted', null, `${how} `),
      h('a.wrap', {href: link('model', {path})}, name(one)),
      one.version ? h('span.mono.muted', null, `@${one.version}`) : null,
      one.recipe ? h('span.muted', null, `, recipe ${text(one.recipe)}`) : null,
    );
  };
  return h(
    'section.card',
    {'aria-labelledby': 'h-lineage', 'data-key': 'lineage'},
    h('div.section-head', null, h('h2', {id: 'h-lineage'}, 'Lineage')),
    h(
      'ul.stack.small',
      null,
      parents.map((one) => item(one, `${one.how ?? 'made'} from`)),
      children.map((one) => item(one, 'became')),
    ),
  );
}

function later(app, path) {
  const may = app.may('manage');
  return h(
    'section.card',
    {'aria-labelledby': 'h-more', 'data-key': 'more'},
    h('div.section-head', null, h('h2', {id: 'h-more'}, 'Make another of it')),
    h('p.muted', null, 'Smaller numbers for less memory, or a copy that knows your data.'),
    h(
      'div.actions',
      null,
      h('button', {type: 'button', disabled: !may, onclick: () => transform(app, path)}, 'Quantize'),
      h('button', {type: 'button', disabled: !app.may('tune'), onclick: () => tune(app, path)}, 'Tune'),
    ),
  );
}

function text(value) {
  return value && typeof value === 'object' ? JSON.stringify(value) : value;
}
