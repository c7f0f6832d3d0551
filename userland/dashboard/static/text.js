// What models write, as elements: plain text, and fenced code in boxes. Nothing in it is ever taken for HTML.

import {h} from './dom.js';

/** Text and code of a message: `[{code: bool, language, text}]`. An open fence at the end counts as code. Pure. */
export function parts(text) {
  const found = [];
  const fence = /^```([\w+-]*)[^\S\n]*\n?/m;
  let rest = text;
  for (;;) {
    const open = fence.exec(rest);
    if (!open) break;
    if (open.index) found.push({code: false, language: '', text: rest.slice(0, open.index)});
    const body = rest.slice(open.index + open[0].length);
    const close = /^```[^\S\n]*$/m.exec(body);
    found.push({code: true, language: open[1], text: (close ? body.slice(0, close.index) : body).replace(/\n$/, '')});
    rest = close ? body.slice(close.index + close[0].length).replace(/^\n/, '') : '';
    if (!close) break;
  }
  if (rest) found.push({code: false, language: '', text: rest});
  return found;
}

/** The nodes of a message. */
export function rendered(text) {
  return parts(text).map(({code, language, text: inside}) =>
    code
      ? h('pre', {'aria-label': language ? `${language} code` : 'code', tabindex: 0}, inside)
      : document.createTextNode(inside),
  );
}
