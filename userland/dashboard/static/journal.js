// The journal, newest first, as it is written; with filters, and the reasons behind each line.

import {empty, failure, h, icon, loading, morphChildren} from './dom.js';
import {select} from './dialogs.js';
import {link} from './router.js';
import {pill, whyLink} from './table.js';
import {clock} from './units.js';

const LEVELS = ['debug', 'info', 'warning', 'error'];
const MOST = 300;

/** Whether a record passes the filters. Pure. */
export function passes(record, {level, about, words, unit}) {
  return (
    LEVELS.indexOf(record.level) >= LEVELS.indexOf(level || 'info') &&
    (!about || record.about === about || record.about.includes(about)) &&
    (!unit || record.unit === unit) &&
    (!words ||
      words
        .toLowerCase()
        .split(/\s+/)
        .every((word) => `${record.text} ${record.about} ${record.unit}`.toLowerCase().includes(word)))
  );
}

/** Two lists of records as one, in order, each once. Pure. */
export function merged(one, other) {
  const found = new Map([...one, ...other].map((record) => [`${record.seq}:${record.at}`, record]));
  return [...found.values()].sort((a, b) => a.at - b.at || a.seq - b.seq);
}

export function journalPage(app, params) {
  return new JournalPage(app, params);
}

class JournalPage {
  constructor(app, params) {
    Object.assign(this, {app, records: null, error: null, frozen: null});
    const change = {onchange: () => this.fetch()};
    this.level = select(
      'level',
      [
        ['debug', 'everything'],
        ['info', 'info and above'],
        ['warning', 'warnings and errors'],
        ['error', 'errors only'],
      ],
      params.get('level') || 'info',
      {'aria-label': 'Lowest level', ...change},
    );
    this.unit = h(
      'select',
      {'aria-label': 'Unit', onchange: () => this.draw()},
      h('option', {value: ''}, 'every unit'),
    );
    this.about = h('input', {
      name: 'about',
      placeholder: 'about: name or id',
      'aria-label': 'About which object',
      value: params.get('about') ?? '',
      spellcheck: 'false',
      onchange: () => this.fetch(),
    });
    this.words = h('input', {
      type: 'search',
      name: 'words',
      placeholder: 'Words in the line',
      'aria-label': 'Words in the line',
      value: params.get('q') ?? '',
      oninput: () => this.draw(),
    });
    this.pause = h(
      'button',
      {type: 'button', 'aria-pressed': 'false', onclick: () => this.toggle()},
      icon('pause'),
      'Pause',
    );
    this.status = h('p.small.muted', {role: 'status', 'aria-live': 'off'});
    this.list = h('div', null, loading(6));
    this.root = h(
      'div',
      null,
      h(
        'header.page-head',
        null,
        h('h1', null, 'Journal'),
        h('div.push', null, this.pause),
        h('p.lead', null, 'Every decision and event of the kernel and its drivers, newest first.'),
      ),
      h(
        'div.filters',
        null,
        h(
          'div.fields',
          {role: 'search'},
          h('div.search-box', null, icon('search'), this.words),
          this.about,
          this.level,
          this.unit,
        ),
      ),
      h('div.section-head', null, this.status),
      this.list,
    );
    this.fetch();
  }

  async fetch() {
    const params = new URLSearchParams({
      after: '-1',
      level: this.level.value,
      about: this.about.value.trim(),
      limit: String(MOST),
    });
    history.replaceState(
      null,
      '',
      link('journal', {
        level: this.level.value === 'info' ? '' : this.level.value,
        about: this.about.value.trim(),
        q: this.words.value,
      }),
    );
    try {
      this.records = await this.app.api.get(`/api/v1/journal?${params}`);
      this.error = null;
    } catch (error) {
      this.error = error;
    }
    this.draw();
  }

  toggle() {
    this.frozen = this.frozen ? null : this.all();
    this.pause.setAttribute('aria-pressed', String(Boolean(this.frozen)));
    this.pause.replaceChildren(icon(this.frozen ? 'play' : 'pause'), this.frozen ? 'Go on' : 'Pause');
    this.draw();
  }

  all() {
    return merged(this.records ?? [], this.app.live.journal);
  }

  /** The kernel is back after what was asked had failed. */
  again() {
    this.fetch();
  }

  update(what) {
    if (
      what === 'journal' &&
      !this.frozen &&
      !this.list.contains(document.getSelection()?.isCollapsed === false ? document.getSelection().anchorNode : null)
    )
      this.draw();
  }

  draw() {
    if (this.error) morphChildren(this.list, [failure(this.error, () => this.fetch())]);
    if (this.error || !this.records) return;
    const all = this.frozen ?? this.all();
    const units = [...new Set(all.map(({unit}) => unit))].sort();
    morphChildren(this.unit, [
      h('option', {value: ''}, 'every unit'),
      ...units.map((unit) => h('option', {value: unit}, unit)),
    ]);
    const filters = {
      level: this.level.value,
      about: this.about.value.trim(),
      words: this.words.value.trim(),
      unit: this.unit.value,
    };
    const shown = all
      .filter((record) => passes(record, filters))
      .slice(-MOST)
      .reverse();
    this.status.textContent = `${shown.length} ${shown.length === 1 ? 'line' : 'lines'}${this.frozen ? ', paused' : ''}`;
    morphChildren(this.list, [
      shown.length
        ? h('ul.lines', {'aria-label': 'Journal'}, shown.map(line))
        : h('div.card', null, empty('journal', 'No line matches', 'Try a lower level or fewer words.')),
    ]);
  }
}

function line(record) {
  const more = record.reasons?.length || Object.keys(record.fields ?? {}).length;
  return h(
    'li',
    {'data-key': `${record.seq}:${record.at}`},
    h('time.muted', {datetime: new Date(record.at * 1000).toISOString()}, clock(record.at)),
    pill(record.level),
    h(
      'div.wrap',
      null,
      h('span.unit', null, `${record.unit} `),
      record.text,
      more
        ? h(
            'details',
            null,
            h('summary', null, 'Details'),
            h(
              'div.because',
              null,
              (record.reasons ?? []).map((reason) => h('p', null, `because ${reason.text}`)),
              Object.entries(record.fields ?? {}).map(([name, value]) =>
                h('p.mono', null, `${name} = ${typeof value === 'object' ? JSON.stringify(value) : value}`),
              ),
            ),
          )
        : null,
    ),
    record.about ? whyLink(record.about) : h('span'),
  );
}
