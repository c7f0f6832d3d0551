// The last minutes of every figure, one sample per second, for charts and sparklines. Pure, tested with node.

/** Ring of samples: `times` (seconds since the epoch) and one list per series; what was not known is null. */
export class History {
  constructor(limit = 1800) {
    this.limit = limit;
    this.times = [];
    this.series = new Map();
  }

  /** Add one sample; a series that is new was unknown before, one that is missing is unknown now. */
  add(at, values) {
    const last = this.times.at(-1);
    if (last !== undefined && at <= last) return;
    this.times.push(at);
    for (const name of Object.keys(values)) {
      if (!this.series.has(name)) this.series.set(name, Array(this.times.length - 1).fill(null));
    }
    for (const [name, list] of this.series) list.push(values[name] ?? null);
    while (this.times.length > this.limit) {
      this.times.shift();
      for (const [name, list] of this.series) {
        list.shift();
        if (list.every((value) => value === null)) this.series.delete(name);
      }
    }
  }

  /** Put what was before in front of what is known: `{times, series}`, oldest first. */
  seed({times, series}) {
    const first = this.times[0] ?? Infinity;
    const count = times.filter((at) => at < first).length;
    if (!count) return;
    const length = this.times.length;
    for (const name of new Set([...Object.keys(series), ...this.series.keys()])) {
      const before = series[name]?.slice(0, count) ?? Array(count).fill(null);
      this.series.set(name, [...before, ...(this.series.get(name) ?? Array(length).fill(null))]);
    }
    this.times.unshift(...times.slice(0, count));
  }

  /** A hole: nothing was known at this time, so lines must not be drawn across. */
  gap(at) {
    this.add(at, {});
  }

  names(prefix = '') {
    return [...this.series.keys()].filter((name) => name.startsWith(prefix));
  }

  /** `[times, values...]` of the last `span` seconds. */
  window(names, span) {
    const end = this.times.at(-1) ?? 0;
    const begin = this.times.findIndex((time) => time >= end - span);
    const from = begin < 0 ? 0 : begin;
    return [
      this.times.slice(from),
      ...names.map((name) => (this.series.get(name) ?? this.times.map(() => null)).slice(from)),
    ];
  }
}

/** Smallest, greatest, last and mean of what is known in a list; null when nothing is. */
export function summary(values) {
  const known = values.filter((value) => value !== null && Number.isFinite(value));
  if (!known.length) return null;
  const sum = known.reduce((total, value) => total + value, 0);
  return {least: Math.min(...known), most: Math.max(...known), last: known.at(-1), mean: sum / known.length};
}

/** At most `count` evenly spread rows of `[times, values...]`, newest first, for tables. */
export function rows(data, count = 20) {
  const [times] = data;
  const step = Math.max(1, Math.ceil(times.length / count));
  const found = [];
  for (let at = times.length - 1; at >= 0; at -= step) found.push(data.map((list) => list[at]));
  return found;
}
