// The model browser: search, filters, and the reason for each rank.

import {empty, failure, h, icon, loading, morphChildren} from './dom.js';
import {field, select} from './dialogs.js';
import {takers} from './ledger.js';
import {link} from './router.js';
import {Table, pill} from './table.js';
import {bytes, count, number, parseBytes} from './units.js';

const TASKS = [
  'text-generation',
  'text-classification',
  'token-classification',
  'feature-extraction',
  'fill-mask',
  'question-answering',
  'text-ranking',
  'translation',
  'summarization',
  'automatic-speech-recognition',
  'image-text-to-text',
  'image-classification',
];
const SORTS = [
  ['rank', 'Best match'],
  ['name', 'Name'],
  ['size', 'Smallest'],
  ['new', 'Newest'],
  ['speed', 'Fastest measured'],
  ['quality', 'Best measured'],
];
const LIMIT = 60;

/** The filters of a search as the filesystem takes them. Pure; throws a text when a size is none. */
export function filtersOf(values) {
  const found = {};
  for (const name of ['task', 'architecture', 'licence', 'language', 'kind', 'fits', 'sort']) {
    if (values[name] && !(name === 'sort' && values[name] === 'rank')) found[name] = values[name].trim();
  }
  if (values.max?.trim()) {
    const size = parseBytes(values.max);
    if (size === null) throw new Error(`“${values.max}” is no size; write for example 4 GiB or 500 MB`);
    found.max_bytes = size;
  }
  return found;
}

/** The address of a search. Pure. */
export function searchUrl(query, filters, limit = LIMIT) {
  const params = new URLSearchParams({path: '/models', query, limit: String(limit)});
  if (Object.keys(filters).length) params.set('filters', JSON.stringify(filters));
  return `/api/v1/search?${params}`;
}

export function modelsPage(app, params) {
  return new ModelsPage(app, params);
}

class ModelsPage {
  constructor(app, params) {
    Object.assign(this, {app, hits: null, error: null, running: null, timer: null});
    this.query = h('input', {
      type: 'search',
      name: 'query',
      value: params.get('q') ?? '',
      placeholder: 'Search by name, task, language, words of the card',
      'aria-label': 'Search models',
      oninput: () => this.soon(),
    });
    const change = {onchange: () => this.search()};
    const devices = takers(app.live.overview).map(({name}) => [name, `on ${name}`]);
    this.form = h(
      'form.filters',
      {
        role: 'search',
        onsubmit: (event) => {
          event.preventDefault();
          this.search();
        },
      },
      h('div.search-box', null, icon('search'), this.query),
      h(
        'details',
        {open: [...params.keys()].some((name) => name !== 'q')},
        h('summary', null, 'Filters'),
        h(
          'div.fields',
          null,
          field('Task', select('task', [['', 'any'], ...TASKS], params.get('task') ?? '', change)),
          field(
            'Kind',
            select(
              'kind',
              [
                ['', 'any'],
                ['model', 'models'],
                ['adapter', 'adapters'],
              ],
              params.get('kind') ?? '',
              change,
            ),
          ),
          field(
            'Architecture',
            h('input', {
              name: 'architecture',
              placeholder: 'any',
              value: params.get('architecture') ?? '',
              spellcheck: 'false',
              oninput: () => this.soon(),
            }),
          ),
          field(
            'Licence',
            h('input', {
              name: 'licence',
              placeholder: 'any',
              value: params.get('licence') ?? '',
              spellcheck: 'false',
              oninput: () => this.soon(),
            }),
          ),
          field(
            'Language',
            h('input', {
              name: 'language',
              placeholder: 'any',
              value: params.get('language') ?? '',
              spellcheck: 'false',
              oninput: () => this.soon(),
            }),
          ),
          field(
            'At most',
            h('input', {
              name: 'max',
              placeholder: 'any size',
              value: params.get('max') ?? '',
              spellcheck: 'false',
              oninput: () => this.soon(),
            }),
          ),
          field(
            'Fits',
            select('fits', [['', 'no matter'], ['any', 'on any device'], ...devices], params.get('fits') ?? '', change),
          ),
          field('Order', select('sort', SORTS, params.get('sort') ?? 'rank', change)),
        ),
      ),
    );
    this.status = h('p.small.muted', {role: 'status', 'aria-live': 'polite'});
    this.list = h('div', null, loading(5));
    this.table = new Table({
      label: 'Models',
      keyOf: (hit) => hit.path,
      open: (hit) => app.go('model', {path: hit.path}),
      changed: () => this.draw(),
      columns: COLUMNS(app),
    });
    this.root = h(
      'div',
      null,
      h(
        'header.page-head',
        null,
        h('h1', null, 'Models'),
        h(
          'p.lead',
          null,
          'Everything stored in /models, with its versions. Open one to see whether it fits and to load it.',
        ),
      ),
      this.form,
      h('div.section-head', null, this.status),
      this.list,
    );
    this.search();
  }

  soon() {
    clearTimeout(this.timer);
    this.timer = setTimeout(() => this.search(), 180);
  }

  async search() {
    clearTimeout(this.timer);
    this.running?.abort();
    this.running = new AbortController();
    const values = Object.fromEntries(new FormData(this.form));
    this.keep(values);
    try {
      this.hits = await this.app.api.get(searchUrl(values.query.trim(), filtersOf(values)), {
        signal: this.running.signal,
      });
      this.error = null;
    } catch (error) {
      if (error.name === 'AbortError') return;
      this.error = error;
    }
    this.draw();
  }

  /** The search stands in the address, so that it can be kept and shared; without a new entry in the history. */
  keep({query, ...filters}) {
    if (filters.sort === 'rank') delete filters.sort;
    history.replaceState(null, '', link('models', {q: query, ...filters}));
  }

  draw() {
    if (this.error) {
      this.status.textContent = '';
      morphChildren(this.list, [failure(this.error, () => this.search())]);
      return;
    }
    if (!this.hits) return;
    const many = this.hits.length;
    this.status.textContent = `${many}${many === LIMIT ? ' or more' : ''} ${many === 1 ? 'model' : 'models'}`;
    morphChildren(this.list, [
      many
        ? this.table.render(this.hits)
        : h(
            'div.card',
            null,
            empty(
              'search',
              'No model matches',
              'Try fewer words or filters. New models come in with: llmos pull SOURCE',
            ),
          ),
    ]);
  }

  /** The kernel is back after what was asked had failed. */
  again() {
    this.search();
  }

  update(what) {
    if (what === 'overview' && this.hits) this.draw();
  }

  close() {
    clearTimeout(this.timer);
    this.running?.abort();
  }
}

/** The loaded model behind a path, if there is one. */
export function loadedAt(app, path) {
  return (app.live.overview?.models ?? []).find((model) => model.path === path || model.path.split('@')[0] === path);
}

/** Why it stands here; a size alone is no reason, it has its own column. */
function reasonOf(hit) {
  return /^[\d.]+ [KMGT]?i?B$/.test(hit.reason) ? '' : hit.reason;
}

const measured = (hit) =>
  hit.fields.measured?.tokens_per_s ?? Object.values(hit.fields.measured ?? {})[0]?.tokens_per_s;

const COLUMNS = (app) => [
  {
    key: 'path',
    title: 'Model',
    value: (hit) => hit.path,
    cell: (hit) =>
      h(
        'div',
        null,
        h('a.name-cell', {href: link('model', {path: hit.path})}, hit.path.replace(/^\/models\//, '')),
        h('div.reason', {title: 'Why it stands here'}, hit.fields.problem || reasonOf(hit)),
      ),
  },
  {
    key: 'state',
    title: 'State',
    value: (hit) => loadedAt(app, hit.path)?.state ?? 'stored',
    cell: (hit) => pill(loadedAt(app, hit.path)?.state ?? 'stored'),
  },
  {
    key: 'task',
    title: 'Tasks',
    class: 'wide',
    value: (hit) => hit.fields.tasks?.[0],
    cell: (hit) =>
      h(
        'span.chips',
        null,
        (hit.fields.tasks ?? []).slice(0, 2).map((task) => h('span.chip', null, task)),
        hit.fields.tasks?.length > 2
          ? h('span.chip', {title: hit.fields.tasks.slice(2).join(', ')}, `+${hit.fields.tasks.length - 2}`)
          : null,
      ),
  },
  {
    key: 'parameters',
    title: 'Parameters',
    numeric: true,
    value: (hit) => hit.fields.parameters,
    cell: (hit) => (hit.fields.parameters ? count(hit.fields.parameters) : '–'),
  },
  {
    key: 'bytes',
    title: 'Size',
    numeric: true,
    value: (hit) => hit.fields.bytes,
    cell: (hit) => bytes(hit.fields.bytes),
  },
  {
    key: 'context',
    title: 'Context',
    numeric: true,
    value: (hit) => hit.fields.context,
    cell: (hit) => (hit.fields.context ? `${count(hit.fields.context)} tokens` : '–'),
  },
  {
    key: 'licence',
    title: 'Licence',
    value: (hit) => hit.fields.licence,
    class: 'nowrap',
    cell: (hit) => hit.fields.licence || '–',
  },
  {
    key: 'speed',
    title: 'Measured',
    numeric: true,
    value: measured,
    cell: (hit) => (measured(hit) ? `${number(measured(hit))} tokens/s` : '–'),
  },
];
