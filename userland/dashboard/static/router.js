// Addresses of the pages: `#/models?path=/models/tiny`. Pure, tested with node.

/** `{page, params}` of an address; the overview when it names none, `none` when it is no address. */
export function parse(hash) {
  const [, page = '', query = ''] = /^#\/([\w-]*)(?:\?(.*))?$/.exec(hash) ?? [];
  return {
    page: page || (hash.startsWith('#/') && hash.length > 2 ? 'none' : 'overview'),
    params: new URLSearchParams(query),
  };
}

/** The address of a page; parameters without a value are left out. */
export function link(page, params = {}) {
  const given = Object.entries(params).filter(([, value]) => value !== '' && value !== null && value !== undefined);
  const query = new URLSearchParams(given).toString().replace(/%2F/g, '/').replace(/%3A/g, ':');
  return `#/${page}${query ? `?${query}` : ''}`;
}

/** A key in the address (`#key=...`), as printed by `llmos keys create`; empty when there is none. */
export function keyIn(hash) {
  return hash.startsWith('#key=') ? decodeURIComponent(hash.slice(5)) : '';
}
