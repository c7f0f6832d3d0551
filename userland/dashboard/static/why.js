// Why is it as it is? Every decision about one object, newest first, with the numbers that were weighed.

import {escapePath} from './api.js';
import {empty, failure, h, icon, loading, morphChildren} from './dom.js';
import {link} from './router.js';
import {bytes, clock, number, seconds} from './units.js';

/** Reasons newest first; one that came several times stands once, with how often. Pure. */
export function gathered(reasons) {
  const found = new Map();
  for (const reason of [...reasons].sort((a, b) => (a.at || Infinity) - (b.at || Infinity))) {
    const times = (found.get(reason.text)?.times ?? 0) + 1;
    found.delete(reason.text);
    found.set(reason.text, {...reason, times});
  }
  return [...found.values()].reverse();
}

export function whyPage(app, params) {
  return new WhyPage(app, params.get('about') ?? '');
}

class WhyPage {
  constructor(app, about) {
    Object.assign(this, {app, about, reasons: null, error: null, names: '', refetch: 0});
    this.input = h('input', {
      type: 'search',
      name: 'about',
      list: 'objects',
      value: about,
      placeholder: 'Model, device, driver, task or request',
      'aria-label': 'Object to ask about',
      autocomplete: 'off',
      spellcheck: 'false',
    });
    this.options = h('datalist', {id: 'objects'});
    this.body = h('div');
    this.root = h(
      'div',
      null,
      h(
        'header.page-head',
        null,
        h('h1.wrap', null, about ? `Why: ${this.called()}` : 'Why'),
        h(
          'p.lead',
          null,
          'Why it waits, why it was evicted, why it runs there: every decision carries its reason and the numbers it weighed.',
        ),
      ),
      h(
        'form.filters',
        {
          role: 'search',
          onsubmit: (event) => {
            event.preventDefault();
            app.go('why', {about: this.input.value.trim()});
          },
        },
        h('div.search-box', null, icon('search'), this.input, this.options),
      ),
      this.body,
    );
    if (about) this.fetch();
    else this.draw();
  }

  /** The name people know an id by. */
  called() {
    const {models = [], tasks = []} = this.app.live.overview ?? {};
    return [...models, ...tasks].find(({id}) => id === this.about)?.name || this.about;
  }

  /** Ask the kernel; `again` keeps what is shown until the answer is there. */
  async fetch(again = false) {
    if (!again) this.body.replaceChildren(loading(5));
    try {
      this.reasons = await this.app.api.get(`/api/v1/why/${escapePath(this.about.replace(/^\//, ''))}`);
      this.error = null;
    } catch (error) {
      if (again) return; // what is shown stays; the banner says when the kernel is gone
      this.error = error;
    }
    this.draw();
  }

  /** The kernel is back after what was asked had failed. */
  again() {
    this.fetch();
  }

  update(what) {
    if (what === 'journal' && this.about && this.app.live.journal.at(-1)?.about === this.about) {
      clearTimeout(this.refetch);
      this.refetch = setTimeout(() => this.fetch(true), 500);
    }
    if (what === 'overview') this.offer();
  }

  close() {
    clearTimeout(this.refetch);
  }

  offer() {
    const {devices = [], drivers = [], models = [], tasks = []} = this.app.live.overview ?? {};
    const names = [...new Set([...models, ...devices, ...drivers, ...tasks].map(({name, id}) => name || id))];
    if (names.join() !== this.names) this.options.replaceChildren(...names.map((name) => h('option', {value: name})));
    if (names.join() !== this.names && !this.about) this.draw(names);
    this.names = names.join();
  }

  draw(names = []) {
    if (this.error) {
      morphChildren(this.body, [failure(this.error, () => this.fetch())]);
    } else if (!this.about) {
      morphChildren(this.body, [
        h(
          'div.card',
          null,
          empty(
            'why',
            'Ask about anything',
            'Choose an object, or type the name or id of a model, device, driver, task or request.',
            names.slice(0, 12).map((name) => h('a.button', {href: link('why', {about: name})}, name)),
          ),
        ),
      ]);
    } else if (!this.reasons?.length) {
      morphChildren(this.body, [
        h(
          'div.card',
          null,
          empty(
            'why',
            'Nothing is known',
            `No decision about “${this.about}” is kept. Look for it in the journal, or check the name.`,
            h('a.button', {href: link('journal', {about: this.about})}, 'Journal'),
          ),
        ),
      ]);
    } else {
      morphChildren(this.body, [
        h(
          'ol.timeline.card',
          {'aria-label': `Decisions about ${this.called()}, newest first`},
          gathered(this.reasons).map(entry),
        ),
        h(
          'p.small.section',
          null,
          h('a', {href: link('journal', {about: this.about, level: 'debug'})}, 'The same in the journal'),
        ),
      ]);
    }
  }
}

function entry(reason) {
  const numbers = Object.entries(reason.numbers ?? {});
  return h(
    'li',
    {'data-key': `${reason.text}`},
    h(
      'p.small.muted',
      null,
      h('time', null, reason.at ? clock(reason.at) : 'now'),
      reason.times > 1 ? ` · ${reason.times} times` : '',
    ),
    h('p.wrap', null, reason.text),
    numbers.length
      ? h(
          'p.numbers',
          null,
          numbers.map(([name, value]) =>
            h('span.tabular', null, `${label(name)}: `, h('b', null, figure(name, value))),
          ),
        )
      : null,
    h('p.code', null, reason.code, reason.rule ? ` · rule: ${reason.rule}` : ''),
    reason.change ? h('p.small.wrap', null, h('span.muted', null, 'To change it: '), reason.change) : null,
  );
}

/** What a number is called for people: the figure beside it has the unit. Pure. */
export function label(name) {
  return name.replace(/_(per_s|s|ms|bytes)$/, '').replaceAll('_', ' ');
}

/** A number with the unit that its name tells. Pure. */
export function figure(name, value) {
  if (typeof value !== 'number') return String(value);
  if (/_per_s$/.test(name)) return `${number(value)}/s`;
  if (name === 'keep_alive_s' && value < 0) return 'forever';
  if (/(^|_)(s|seconds)$/.test(name)) return seconds(value);
  if (/_ms$/.test(name)) return seconds(value / 1000);
  if (/(^|_)(bytes|needed|free|freed|frees|evictable|total|short|weights)$/.test(name)) return bytes(value);
  return number(value, 6);
}
