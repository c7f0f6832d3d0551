// Questions over the page: a confirmation that says what will happen, and forms that show their errors in place.

import {failure, h} from './dom.js';

/**
 * Ask before acting. `action` runs when confirmed, while the dialog waits; its error is shown and the dialog stays open.
 * Resolves to what `action` answered, or undefined when the reader left.
 */
export function ask({title, body, confirm, danger = false, action}) {
  return new Promise((resolve) => {
    let answer;
    const problem = h('div');
    const yes = h(`button.${danger ? 'danger' : 'primary'}`, {type: 'submit'}, confirm);
    const form = h(
      'form',
      {
        method: 'dialog',
        onsubmit: async (event) => {
          event.preventDefault();
          yes.disabled = true;
          yes.setAttribute('aria-busy', 'true');
          try {
            answer = await action(form);
            dialog.close('done');
          } catch (error) {
            problem.replaceChildren(error.later ? later(error) : failure(error));
          } finally {
            yes.disabled = false;
            yes.removeAttribute('aria-busy');
          }
        },
      },
      h('h2', {id: 'dialog-title'}, title),
      h('div.dialog-body', null, body, problem),
      h('div.button-row', null, h('button', {type: 'button', onclick: () => dialog.close()}, 'Cancel'), yes),
    );
    const dialog = h(
      'dialog',
      {
        'aria-labelledby': 'dialog-title',
        onclose: () => {
          dialog.remove();
          resolve(dialog.returnValue === 'done' ? answer : undefined);
        },
      },
      form,
    );
    show(dialog);
  });
}

/** Something to read, closed with Escape. */
export function tell(title, ...body) {
  const dialog = h(
    'dialog',
    {'aria-labelledby': 'dialog-title', onclose: () => dialog.remove()},
    h('h2', {id: 'dialog-title'}, title),
    h('div.dialog-body', null, body),
    h('div.button-row', null, h('button', {type: 'button', autofocus: true, onclick: () => dialog.close()}, 'Close')),
  );
  show(dialog);
}

function show(dialog) {
  document.getElementById('dialogs').append(dialog);
  dialog.showModal();
}

/** What a service that this release does not offer shows: its own words, calmly. */
export function later(error) {
  const why = error.fields?.why;
  return h(
    'div.later',
    {'data-state': 'later', role: 'status'},
    h(
      'div',
      null,
      h('strong', null, 'Not offered yet'),
      h('p', null, error.message),
      why ? h('p.small', null, why) : null,
    ),
  );
}

/** A field with its label. */
export function field(title, control, hint = '') {
  return h('label.field', null, h('span', null, title), control, hint ? h('span.hint', null, hint) : null);
}

/** A list to choose from: texts, or `[value, title]`. */
export function select(name, options, value = '', props = {}) {
  return h(
    'select',
    {name, ...props},
    options.map((option) => {
      const [key, title] = Array.isArray(option) ? option : [option, option];
      return h('option', {value: key, selected: key === value}, title);
    }),
  );
}
