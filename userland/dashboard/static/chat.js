// The playground: one message to several models at once, side by side.

import {empty, failure, h, icon, morphChildren} from './dom.js';
import {link} from './router.js';
import {Pane} from './pane.js';

const MOST = 4; // browsers open six connections to one host; the live one and one for calls must stay free

export function chatPage(app) {
  return new ChatPage(app);
}

class ChatPage {
  constructor(app) {
    Object.assign(this, {app, panes: [], models: [], waiting: false, error: null});
    this.area = h('div.panes', {role: 'group', 'aria-label': 'Conversations'});
    this.input = h('textarea', {
      rows: 1,
      placeholder: 'Write a message',
      'aria-label': 'Message to every open conversation',
      onkeydown: (event) => this.key(event),
      oninput: () => this.refresh(),
    });
    this.button = h('button.primary', {type: 'submit'});
    this.add = h('button', {type: 'button', onclick: () => this.open()}, icon('plus'), 'Compare');
    this.wipe = h(
      'button.quiet',
      {type: 'button', onclick: () => this.panes.forEach((pane) => pane.clear())},
      'New chat',
    );
    this.note = h('div');
    this.root = h(
      'div.chat',
      null,
      h('header.page-head', null, h('h1', null, 'Chat'), h('div.push', null, this.wipe, this.add)),
      this.area,
      h(
        'form.composer',
        {
          onsubmit: (event) => {
            event.preventDefault();
            if (this.busy) this.stop();
            else this.send();
          },
        },
        this.input,
        this.button,
      ),
    );
  }

  /** Shown (again), perhaps with a model to talk to. */
  async enter(params) {
    this.refresh();
    this.input.focus();
    try {
      const models = (await this.app.api.get('/v1/models')).data ?? [];
      this.models = models.filter(({llmos}) => talks(llmos?.tasks));
      this.error = null;
    } catch (error) {
      this.error = error;
      if (!this.panes.length)
        this.area.replaceChildren(
          h(
            'div.card',
            null,
            failure(error, () => this.enter(params)),
          ),
        );
      return;
    }
    const wanted = params.get('model') ?? '';
    if (!this.models.length) {
      morphChildren(this.area, [
        h(
          'div.card',
          null,
          empty(
            'models',
            'No model to talk to',
            'There is no model of text in /models. Bring one in with: llmos pull SOURCE',
            h('a.button', {href: link('models')}, 'Browse models'),
          ),
        ),
      ]);
    } else if (!this.panes.length) {
      this.area.replaceChildren();
      this.open(wanted);
    }
    for (const pane of this.panes) pane.offer(this.models);
    if (wanted && this.panes.length && !this.panes.some((pane) => pane.busy)) this.panes[0].choice.value = wanted;
    this.refresh();
    if (this.waiting) this.send();
  }

  /** The kernel is back after the models could not be asked for. */
  again() {
    this.enter(new URLSearchParams());
  }

  open(wanted = '') {
    if (this.panes.length >= MOST || !this.models.length) return;
    const taken = new Set(this.panes.map((pane) => pane.choice.value));
    const model =
      wanted ||
      this.models.find(({id, llmos}) => !taken.has(id) && llmos?.state !== 'stored')?.id ||
      this.models.find(({id}) => !taken.has(id))?.id ||
      this.models[0].id;
    const pane = new Pane({
      app: this.app,
      models: this.models,
      model,
      changed: () => this.refresh(),
      close: () => {
        pane.stop();
        pane.root.remove();
        this.panes = this.panes.filter((other) => other !== pane);
        this.refresh();
        this.input.focus();
      },
    });
    this.panes.push(pane);
    this.area.append(pane.root);
    this.refresh();
  }

  get busy() {
    return this.panes.some((pane) => pane.busy);
  }

  key(event) {
    if (event.key !== 'Enter' || event.shiftKey || event.isComposing) return;
    event.preventDefault();
    if (!this.busy) this.send();
  }

  send() {
    const text = this.input.value.trim();
    this.waiting = Boolean(text) && !this.panes.length; // sent before the models are known: goes out with the first pane
    if (!text || this.waiting) return;
    this.input.value = '';
    for (const pane of this.panes) pane.send(text);
  }

  stop() {
    for (const pane of this.panes) pane.stop();
  }

  refresh() {
    const allowed = this.app.may('infer');
    for (const pane of this.panes) pane.closer.hidden = this.panes.length < 2;
    this.add.hidden = this.panes.length >= MOST;
    this.add.disabled = !this.panes.length;
    this.button.classList.toggle('danger', this.busy);
    this.button.classList.toggle('primary', !this.busy);
    this.button.disabled = !this.busy && (!allowed || !this.panes.length || !this.input.value.trim());
    const face = this.busy ? 'Stop' : 'Send';
    if (this.button.dataset.face !== face) this.button.replaceChildren(icon(face.toLowerCase()), face);
    this.button.dataset.face = face;
    this.input.disabled = !allowed;
    if (!allowed) this.input.placeholder = 'This key may not run models (scope infer)';
  }
}

/** Whether a model continues text at all; one that does not say is offered. */
function talks(tasks) {
  return (
    !tasks?.length ||
    tasks.some((task) =>
      ['text-generation', 'image-text-to-text', 'any-to-any', 'text2text-generation', 'chat'].includes(task),
    )
  );
}
