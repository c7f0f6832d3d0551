// Server-sent events out of a fetched stream (EventSource can neither POST nor be cancelled with a reason). Pure.

/** Feed it text as it arrives; it gives whole events `{event, data, id}`. */
export class EventParser {
  constructor() {
    this.rest = '';
  }

  feed(text) {
    const blocks = (this.rest + text).replace(/\r\n?/g, '\n').split('\n\n');
    this.rest = blocks.pop();
    return blocks.map(parse).filter((event) => event !== null);
  }
}

function parse(block) {
  const found = {event: 'message', data: null, id: ''};
  for (const line of block.split('\n')) {
    const colon = line.indexOf(':');
    if (colon === 0) continue;
    const name = colon < 0 ? line : line.slice(0, colon);
    const value = colon < 0 ? '' : line.slice(colon + 1).replace(/^ /, '');
    if (name === 'data') found.data = found.data === null ? value : `${found.data}\n${value}`;
    else if (name === 'event') found.event = value;
    else if (name === 'id') found.id = value;
  }
  return found.data === null ? null : found;
}

/** The events of a response, one by one. */
export async function* events(response) {
  const parser = new EventParser();
  const reader = response.body.pipeThrough(new TextDecoderStream()).getReader();
  try {
    for (;;) {
      const {value, done} = await reader.read();
      if (done) return;
      yield* parser.feed(value);
    }
  } finally {
    reader.cancel().catch(() => {});
  }
}
