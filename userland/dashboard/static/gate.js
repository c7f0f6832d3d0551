// Signing in with a key.

import * as api from './api.js';
import {failure, h, icon} from './dom.js';

/** Fill `node` with the sign-in form; `entered` is called once a key was accepted. */
export function gate(node, error, entered) {
  const problem = h('div', {id: 'gate-problem'}, error && error.status !== 401 ? failure(error, entered) : null);
  const input = h('input', {
    id: 'key',
    name: 'key',
    type: 'password',
    autocomplete: 'current-password',
    spellcheck: 'false',
    required: true,
    placeholder: 'llmos_…',
    'aria-describedby': 'gate-problem',
  });
  const button = h('button.primary', {type: 'submit'}, 'Sign in');
  const form = h(
    'form.gate-card',
    {
      onsubmit: async (event) => {
        event.preventDefault();
        button.disabled = true;
        try {
          await api.signIn(input.value.trim());
          entered();
        } catch (failed) {
          problem.replaceChildren(
            failure(Object.assign(failed, {title: failed.status === 401 ? 'This key does not open' : failed.title})),
          );
          input.select();
        } finally {
          button.disabled = false;
        }
      },
    },
    h('img', {src: '/dashboard/static/logo.svg', alt: '', width: 48, height: 48}),
    h('h1', null, 'LLM OS'),
    h('p.muted', null, 'Sign in with a key to see and steer this machine’s models.'),
    h('label.field', {for: 'key'}, h('span', null, 'Key'), input),
    button,
    problem,
    h(
      'p.small.muted.gate-hint',
      null,
      icon('key'),
      h('span', null, 'No key yet? In the shell: ', h('code', null, 'llmos keys create NAME')),
    ),
  );
  node.hidden = false;
  node.replaceChildren(form);
  input.focus();
}
