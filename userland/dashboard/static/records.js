// The records of tuning runs, asked for again when a run has gone on.

const EVERY_MS = 5000;

export class Records {
  /** `changed` is called with what is new. */
  constructor(api, changed) {
    Object.assign(this, {api, changed, found: new Map(), asked: new Map()});
  }

  get(id) {
    return this.found.get(id) ?? null;
  }

  /** Ask for the record of each task that tunes, once for each state and now and then while it runs. */
  follow(tasks, now = Date.now()) {
    for (const {id, kind, state} of tasks) {
      if (kind && kind !== 'tune') continue;
      const before = this.asked.get(id);
      if (before && before.state === state && (state !== 'running' || now - before.at < EVERY_MS)) continue;
      this.asked.set(id, {state, at: now});
      this.fetch(id);
    }
  }

  async fetch(id) {
    try {
      this.found.set(id, await this.api.get(`/api/v1/runs/${encodeURIComponent(id)}`));
      this.changed();
    } catch {
      this.changed(); // there is no record, or none for this key: what is known without it is shown
    }
  }
}
