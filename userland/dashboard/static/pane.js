// One conversation with one model: its settings, its messages, and the answer that is being written.

import {field} from './dialogs.js';
import {empty, failure, h, icon, toast} from './dom.js';
import {rendered} from './text.js';
import {count, number, seconds} from './units.js';

const DEFAULTS = {system: '', temperature: '0.7', top_p: '1', max_tokens: '512', seed: '', stop: ''};

/** The body of the request: only what was set. Pure. */
export function chatBody(model, messages, settings) {
  const body = {model, stream: true, stream_options: {include_usage: true}};
  body.messages = settings.system.trim() ? [{role: 'system', content: settings.system}, ...messages] : messages;
  for (const name of ['temperature', 'top_p', 'max_tokens', 'seed']) {
    if (settings[name] !== '' && Number.isFinite(Number(settings[name]))) body[name] = Number(settings[name]);
  }
  const stop = settings.stop
    .split('|')
    .map((text) => text.replaceAll('\\n', '\n'))
    .filter(Boolean);
  if (stop.length) body.stop = stop.slice(0, 4);
  return body;
}

export class Pane {
  constructor({app, models, model, changed, close}) {
    Object.assign(this, {app, changed, messages: [], writing: null, settings: {...DEFAULTS}});
    this.id = crypto.getRandomValues(new Uint32Array(1))[0].toString(36);
    this.choice = h('select', {'aria-label': 'Model of this conversation', onchange: () => this.changed()});
    this.log = h('div.log', {tabindex: 0, role: 'log', 'aria-label': 'Conversation', 'aria-live': 'off'});
    this.done = h('div.unseen', {role: 'status'});
    this.panel = h('div.pane-settings', {id: `set-${this.id}`, hidden: true});
    this.closer = h(
      'button.quiet.square',
      {type: 'button', 'aria-label': 'Close this conversation', title: 'Close', onclick: close},
      icon('close'),
    );
    const toggle = h(
      'button.quiet.square',
      {
        type: 'button',
        'aria-label': 'Settings',
        title: 'Settings',
        'aria-expanded': 'false',
        'aria-controls': this.panel.id,
        onclick: () => {
          this.panel.hidden = !this.panel.hidden;
          toggle.setAttribute('aria-expanded', String(!this.panel.hidden));
        },
      },
      icon('settings'),
    );
    this.root = h(
      'section.pane',
      {'aria-label': 'Conversation with a model'},
      h('div.pane-head', null, this.choice, toggle, this.closer),
      this.panel,
      this.log,
      this.done,
    );
    this.fillSettings();
    this.offer(models, model);
    this.clear();
  }

  /** The models to choose from, in groups. */
  offer(models, chosen = this.choice.value) {
    const groups = new Map();
    for (const model of models) {
      const state = model.llmos?.adapter_of
        ? 'Adapters'
        : model.llmos?.state === 'stored'
          ? 'Stored (loaded on first use)'
          : 'Loaded';
      groups.set(state, [...(groups.get(state) ?? []), model]);
    }
    this.choice.replaceChildren(
      ...['Loaded', 'Adapters', 'Stored (loaded on first use)']
        .filter((name) => groups.has(name))
        .map((name) =>
          h(
            'optgroup',
            {label: name},
            groups
              .get(name)
              .map(({id, llmos}) =>
                h('option', {value: id}, llmos?.adapter_of ? `${id} (on ${llmos.adapter_of})` : id),
              ),
          ),
        ),
    );
    if (models.some(({id}) => id === chosen)) this.choice.value = chosen;
    this.choice.disabled = !models.length;
  }

  fillSettings() {
    const input = (name, props) =>
      h('input', {
        name,
        value: this.settings[name],
        oninput: (event) => {
          this.settings[name] = event.target.value;
        },
        ...props,
      });
    const digits = {type: 'number', inputmode: 'decimal'};
    this.panel.append(
      field(
        'System prompt',
        h('textarea', {
          rows: 2,
          placeholder: 'none',
          oninput: (event) => {
            this.settings.system = event.target.value;
          },
        }),
      ),
      h(
        'div.fields',
        null,
        field('Temperature', input('temperature', {...digits, min: 0, max: 2, step: 0.1})),
        field('Top p', input('top_p', {...digits, min: 0, max: 1, step: 0.05})),
        field('Most tokens', input('max_tokens', {...digits, min: 1, step: 1})),
        field('Seed', input('seed', {...digits, step: 1, placeholder: 'random'})),
        field('Stop at', input('stop', {placeholder: 'none', spellcheck: 'false'}), 'apart by |, \\n is a new line'),
      ),
    );
  }

  get busy() {
    return this.writing !== null;
  }

  stop() {
    this.writing?.abort();
  }

  clear() {
    this.stop();
    this.messages = [];
    this.log.replaceChildren(
      empty(
        'chat',
        'Say something',
        'Your message goes to every open conversation, so models can be compared side by side.',
      ),
    );
  }

  bubble(role, text) {
    const body = h('div.text', null, rendered(text));
    const stats = h('div.stats');
    const node = h(
      `div.message.${role}`,
      null,
      h('span.unseen', null, role === 'user' ? 'You:' : `${this.choice.value}:`),
      body,
      role === 'user' ? null : stats,
    );
    if (!this.messages.length && !this.log.querySelector('.message')) this.log.replaceChildren();
    this.log.append(node);
    this.log.scrollTop = this.log.scrollHeight;
    return {node, body, stats};
  }

  /** Ask the model; what it writes appears as it comes. */
  async send(text) {
    if (this.busy || !this.choice.value) return;
    this.bubble('user', text);
    this.messages.push({role: 'user', content: text});
    const {node, body, stats} = this.bubble('assistant', '');
    node.classList.add('writing');
    const state = {text: '', pieces: 0, usage: null, reason: '', began: performance.now(), first: 0, last: 0};
    this.writing = new AbortController();
    this.changed();
    const show = paintOncePerFrame(() => {
      if (!node.classList.contains('writing')) return; // it has ended since
      const low = this.log.scrollHeight - this.log.scrollTop - this.log.clientHeight < 80;
      body.replaceChildren(...rendered(state.text));
      stats.replaceChildren(...figures(state, false));
      if (low) this.log.scrollTop = this.log.scrollHeight;
    });
    try {
      for await (const piece of this.app.api.chat(
        chatBody(this.choice.value, this.messages, this.settings),
        this.writing.signal,
      )) {
        take(piece, state);
        show();
      }
    } catch (error) {
      if (error.name === 'AbortError') state.reason = 'cancelled';
      else {
        state.reason = 'failed';
        node.append(failure(error));
      }
    }
    this.writing = null;
    node.classList.remove('writing');
    body.replaceChildren(...rendered(state.text));
    stats.replaceChildren(...figures(state, true), state.text ? this.copier(state.text) : '');
    if (state.text) this.messages.push({role: 'assistant', content: state.text});
    else if (state.reason !== 'failed')
      body.append(
        h('span.muted', null, state.reason === 'cancelled' ? '(cancelled before the first word)' : '(no text)'),
      );
    this.done.textContent = `${this.choice.value} ${state.reason === 'cancelled' ? 'was stopped' : state.reason === 'failed' ? 'failed' : 'has answered'}: ${state.text.slice(0, 300)}`;
    this.log.scrollTop = this.log.scrollHeight;
    this.changed();
  }

  copier(text) {
    return h(
      'button.quiet.square',
      {
        type: 'button',
        'aria-label': 'Copy the answer',
        title: 'Copy',
        onclick: async () => {
          await navigator.clipboard.writeText(text);
          toast('Copied');
        },
      },
      icon('copy'),
    );
  }
}

/** What one piece of the stream adds. */
export function take(piece, state) {
  const choice = piece.choices?.[0];
  const text = choice?.delta?.content ?? '';
  if (text) {
    state.text += text;
    state.pieces += 1;
    state.last = performance.now();
    state.first ||= state.last;
  }
  if (choice?.finish_reason) state.reason = choice.finish_reason;
  if (piece.usage) state.usage = piece.usage;
}

const REASONS = {
  stop: 'ended by itself',
  length: 'cut at the most tokens',
  cancelled: 'stopped',
  tool_calls: 'calls a tool',
  failed: 'failed',
};

/** Tokens, speed and times of an answer, each with its unit. */
function figures(state, ended) {
  const tokens = state.usage?.completion_tokens ?? state.pieces;
  const spent = (state.last - state.first) / 1000;
  const cached = state.usage?.prompt_tokens_details?.cached_tokens;
  const facts = [
    state.first
      ? `first token ${seconds((state.first - state.began) / 1000)}`
      : ended
        ? ''
        : 'waiting for the first token',
    tokens > 1 && spent > 0 ? `${number((tokens - 1) / spent)} tokens/s` : '',
    tokens ? `${count(tokens)} ${tokens === 1 ? 'token' : 'tokens'}` : '',
    state.usage ? `${count(state.usage.prompt_tokens)} in${cached ? `, ${count(cached)} cached` : ''}` : '',
    ended ? (REASONS[state.reason] ?? state.reason) : '',
  ];
  return facts.filter(Boolean).map((text) => h('span', null, text));
}

function paintOncePerFrame(paint) {
  let waiting = false;
  return () => {
    if (waiting) return;
    waiting = true;
    requestAnimationFrame(() => {
      waiting = false;
      paint();
    });
  };
}
