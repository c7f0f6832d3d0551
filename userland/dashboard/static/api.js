// Calls of the gateway. Every error becomes an ApiError with what happened, which value, and what to try.

import {events} from './sse.js';

export class ApiError extends Error {
  constructor(status, body) {
    super(body.message ?? `the gateway answered ${status}`);
    Object.assign(this, {
      status,
      type: body.type ?? '',
      code: body.code ?? '',
      fields: body.fields ?? {},
      reasons: body.reasons ?? [],
    });
    this.title = TITLES[status] ?? (status ? `Error ${status}` : 'No connection');
  }

  /** The service behind it comes with a later release. */
  get later() {
    return this.status === 501;
  }
}

const TITLES = {
  401: 'Please sign in',
  403: 'This key may not do that',
  404: 'Not found',
  409: 'Not possible now',
  429: 'Too many requests',
  501: 'Not offered yet',
  503: 'Not available now',
  507: 'Not enough memory',
};

const HEADERS = {'X-LLMOS-Dashboard': '1'};

/** Send a request; the Response when it went well, else ApiError. An abort is passed on as it is. */
export async function request(path, {method = 'GET', body, signal, accept = 'application/json'} = {}) {
  const headers = {...HEADERS, Accept: accept};
  if (body !== undefined) headers['Content-Type'] = 'application/json';
  let response;
  try {
    response = await fetch(path, {
      method,
      headers,
      signal,
      credentials: 'same-origin',
      body: body === undefined ? undefined : JSON.stringify(body),
    });
  } catch (error) {
    if (error.name === 'AbortError') throw error;
    throw new ApiError(0, {message: 'the gateway does not answer; is it running?'});
  }
  if (response.ok) return response;
  throw await failed(response);
}

async function failed(response) {
  const text = await response.text();
  let body = {};
  try {
    body = JSON.parse(text).error ?? {};
  } catch {
    body = {message: text.slice(0, 300) || response.statusText};
  }
  const error = new ApiError(response.status, typeof body === 'string' ? {message: body} : body);
  if (response.status === 401 && !response.url.endsWith('/dashboard/login'))
    document.dispatchEvent(new CustomEvent('llmos:signed-out'));
  return error;
}

/** A GET whose answer is JSON; `{value: ...}` of a syscall is unwrapped. */
export function get(path, options) {
  return whole(path, options);
}

/** A syscall by name. */
export function call(name, body, options) {
  return whole(`/api/v1/${name}`, {method: 'POST', body, ...options});
}

async function whole(path, options) {
  pending(1);
  try {
    return unwrap(await (await request(path, options)).json());
  } finally {
    setTimeout(() => pending(-1)); // once the page has drawn what came
  }
}

let waiting = 0;

/** The page says by `data-pending` how many answers it waits for. */
function pending(change) {
  waiting += change;
  const root = globalThis.document?.documentElement;
  if (waiting) root?.setAttribute('data-pending', String(waiting));
  else root?.removeAttribute('data-pending');
}

function unwrap(answer) {
  return answer !== null && typeof answer === 'object' && 'value' in answer ? answer.value : answer;
}

/** A syscall that reports how far it has come; `onProgress({done, total, unit, stage})`. */
export async function callWithProgress(name, body, onProgress, signal) {
  const response = await request(`/api/v1/${name}`, {method: 'POST', body, signal, accept: 'text/event-stream'});
  if (!response.headers.get('content-type')?.startsWith('text/event-stream')) return unwrap(await response.json());
  for await (const {event, data} of events(response)) {
    const value = JSON.parse(data);
    if (event === 'progress') onProgress(value);
    else if (event === 'error') throw new ApiError(500, value.error ?? value);
    else if (event === 'end') return unwrap(value);
  }
  throw new ApiError(0, {message: 'the answer broke off'});
}

/** The pieces of a chat completion as they come. */
export async function* chat(body, signal) {
  const response = await request('/v1/chat/completions', {method: 'POST', body, signal, accept: 'text/event-stream'});
  for await (const {data} of events(response)) {
    if (data === '[DONE]') return;
    const piece = JSON.parse(data);
    if (piece.error) throw new ApiError(500, piece.error);
    yield piece;
  }
  throw new ApiError(0, {message: 'the answer broke off before its end'});
}

/** Part of a path: slashes stay, everything else is escaped. */
export function escapePath(path) {
  return path.split('/').map(encodeURIComponent).join('/');
}

export async function signIn(key) {
  await request('/dashboard/login', {method: 'POST', body: {key}});
}

export async function signOut() {
  await request('/dashboard/logout', {method: 'POST', body: {}});
}
