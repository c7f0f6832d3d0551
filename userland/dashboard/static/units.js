// Numbers as people read them, each with its unit. Pure functions, tested with node.

const DASH = '–';

function known(value) {
  return typeof value === 'number' && Number.isFinite(value);
}

/** Three significant digits, no exponent, thousands apart by a thin space. */
export function number(value, digits = 3) {
  if (!known(value)) return DASH;
  if (value === 0) return '0';
  const size = Math.floor(Math.log10(Math.abs(value)));
  const places = Math.max(0, Math.min(6, digits - 1 - size));
  const [whole, rest] = value.toFixed(places).split('.');
  const apart = whole.replace(/\B(?=(\d{3})+$)/g, '\u202f');
  const short = rest ? rest.replace(/0+$/, '') : '';
  return short ? `${apart}.${short}` : apart;
}

/** Bytes in binary units: 1536 is "1.5 KiB". */
export function bytes(value) {
  if (!known(value)) return DASH;
  const names = ['B', 'KiB', 'MiB', 'GiB', 'TiB', 'PiB'];
  let size = Math.abs(value);
  let at = 0;
  while (size >= 1024 && at < names.length - 1) {
    size /= 1024;
    at += 1;
  }
  const text = at === 0 ? String(Math.round(size)) : size.toFixed(size < 10 ? 2 : size < 100 ? 1 : 0);
  return `${value < 0 ? '-' : ''}${text} ${names[at]}`;
}

/** A length of time, from microseconds to days. */
export function seconds(value) {
  if (!known(value)) return DASH;
  if (value === 0) return '0 s';
  if (value < 0) return `-${seconds(-value)}`;
  if (value < 0.001) return `${number(value * 1e6, 2)} µs`;
  if (value < 1) return `${number(value * 1e3)} ms`;
  if (value < 120) return `${number(value)} s`;
  if (value < 7200) return `${Math.floor(value / 60)} min`;
  if (value < 172800) return `${Math.floor(value / 3600)} h ${Math.floor((value % 3600) / 60)} min`;
  return `${Math.floor(value / 86400)} d ${Math.floor((value % 86400) / 3600)} h`;
}

/** Counts such as parameters: 1.24 B, 135 M, 12.3 k. */
export function count(value) {
  if (!known(value)) return DASH;
  for (const [size, name] of [
    [1e12, 'T'],
    [1e9, 'B'],
    [1e6, 'M'],
    [1e4, 'k'],
  ]) {
    if (Math.abs(value) >= size) return `${number(value / (name === 'k' ? 1e3 : size))} ${name}`;
  }
  return number(value, 6);
}

/** So many of something per second. */
export function rate(value, what) {
  return `${number(value)} ${what}/s`;
}

export function percent(part, whole) {
  if (!known(part) || !known(whole) || whole <= 0) return DASH;
  const share = (100 * part) / whole;
  return `${share > 0 && share < 1 ? '<1' : Math.round(share)} %`;
}

/** How long ago a time (seconds since the epoch) was; never for 0. */
export function ago(at, now = Date.now() / 1000) {
  if (!at) return 'never';
  const past = now - at;
  return past < 1 ? 'now' : past < 60 ? `${Math.floor(past)} s ago` : `${seconds(past)} ago`;
}

/** Time of day, with the date when it is another day. */
export function clock(at, now = Date.now() / 1000) {
  if (!at) return DASH;
  const date = new Date(at * 1000);
  const two = (value) => String(value).padStart(2, '0');
  const time = `${two(date.getHours())}:${two(date.getMinutes())}:${two(date.getSeconds())}`;
  const today = new Date(now * 1000).toDateString() === date.toDateString();
  return today ? time : `${date.getFullYear()}-${two(date.getMonth() + 1)}-${two(date.getDate())} ${time}`;
}

/** How long an idle model stays: -1 is forever. */
export function kept(value) {
  if (!known(value)) return DASH;
  return value < 0 ? 'forever' : value === 0 ? 'not at all' : seconds(value);
}

/** A size people type ("2GiB", "500 MB", "1.5g") in bytes; null when it is none. */
export function parseBytes(text) {
  const found = /^\s*(\d+(?:[.,]\d+)?)\s*(?:([kmgt])(i?)b?|b)?\s*$/i.exec(text);
  if (!found) return null;
  const base = found[2] && !found[3] && /b\s*$/i.test(text) ? 1000 : 1024;
  const power = found[2] ? 'kmgt'.indexOf(found[2].toLowerCase()) + 1 : 0;
  return Math.round(Number(found[1].replace(',', '.')) * base ** power);
}
