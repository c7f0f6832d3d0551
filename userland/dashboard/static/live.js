// The one connection that brings everything live: overview, journal, points of curves. One EventSource per tab.

import {History} from './history.js';

const JOURNAL = 1000;
const POINTS = 20000;
const SILENT_MS = 20000; // there is an overview every second, so a longer silence is a dead connection

/** Holds the latest state; tells by events `overview`, `journal`, `point` and `state`. */
export class Live extends EventTarget {
  constructor(source = (url) => new EventSource(url)) {
    super();
    Object.assign(this, {source, link: 'connecting', overview: null, goneText: '', journal: [], seq: 0});
    this.history = new History();
    this.points = new Map();
    this.stream = null;
    this.retry = null;
    this.silence = null;
    this.told = this.state;
  }

  open() {
    this.close();
    const after = this.seq ? `&after=${this.seq}` : '';
    const stream = this.source(`/api/v1/live?parts=overview,journal,events${after}`);
    this.stream = stream;
    this.watch();
    stream.onopen = () => this.set('live');
    stream.onerror = () => this.broken(stream);
    for (const name of ['overview', 'past', 'journal', 'point', 'points', 'gone', 'back']) {
      stream.addEventListener(name, (event) => {
        this.watch();
        this[`on_${name}`](JSON.parse(event.data), event);
      });
    }
  }

  close() {
    clearTimeout(this.retry);
    clearTimeout(this.silence);
    this.stream?.close();
    this.stream = null;
  }

  /** A connection that died without a word (a laptop that slept, a lost network) is opened anew. */
  watch() {
    clearTimeout(this.silence);
    this.silence = setTimeout(() => {
      this.set('connecting');
      this.open();
    }, SILENT_MS);
  }

  /** The browser tries again by itself after a lost connection, but not after an answer such as 401 or 503. */
  broken(stream) {
    this.set('connecting');
    if (stream.readyState !== 2) return;
    this.dispatchEvent(new Event('refused'));
    clearTimeout(this.retry);
    this.retry = setTimeout(() => this.open(), 3000);
  }

  set(link) {
    if (link !== 'live') this.history.gap(Date.now() / 1000);
    this.link = link;
    this.tellState();
  }

  /** running, gone (the kernel), or connecting (the gateway). */
  get state() {
    if (this.link !== 'live') return this.overview ? 'connecting' : 'starting';
    return this.goneText || this.overview?.kernel?.state === 'gone' ? 'gone' : 'running';
  }

  tellState() {
    if (this.state === this.told) return;
    this.told = this.state;
    this.dispatchEvent(new Event('state'));
  }

  /** What needs attention: what the gateway raised, and first of all a kernel that is gone. */
  get alerts() {
    const raised = this.overview?.alerts ?? [];
    if (this.state !== 'gone') return raised;
    return [{id: 'gone', level: 'error', about: '', text: this.goneText || 'the kernel does not answer'}, ...raised];
  }

  on_overview(data) {
    this.overview = data;
    if (data.kernel?.state !== 'gone') this.goneText = '';
    this.link = 'live';
    this.tellState();
    if (data.kernel?.state === 'gone') this.history.gap(data.at);
    else this.history.add(data.at, sample(data));
    this.dispatchEvent(new Event('overview'));
  }

  /** What was before this page was opened. */
  on_past(data) {
    this.history.seed(data);
  }

  on_journal(record, event) {
    const known = this.journal.at(-1);
    this.seq = Number(event.lastEventId) || record.seq;
    if (known && record.seq <= known.seq && record.at <= known.at) return; // told again after a reconnect
    this.journal.push(record);
    if (this.journal.length > JOURNAL) this.journal.shift();
    this.dispatchEvent(new CustomEvent('journal', {detail: record}));
  }

  on_point(data) {
    const list = this.points.get(data.task) ?? [];
    this.points.set(data.task, list);
    if (list.length && data.step <= list.at(-1).step) return;
    list.push(data);
    if (list.length > POINTS) list.shift();
    this.dispatchEvent(new CustomEvent('point', {detail: data}));
  }

  on_points(list) {
    for (const point of list) this.on_point(point);
  }

  on_gone(data) {
    this.goneText = data.text || 'the kernel is gone';
    this.history.gap(Date.now() / 1000);
    this.tellState();
  }

  on_back() {
    this.goneText = '';
    this.seq = 0; // a new kernel counts its journal from the beginning
    this.tellState();
  }
}

/** What is drawn over time, out of one overview. */
export function sample(data) {
  const values = {...data.rates};
  for (const device of data.devices ?? []) values[`used:${device.id}`] = device.total - device.free;
  for (const model of data.models ?? []) values[`model:${model.id}`] = model.throughput;
  return values;
}
