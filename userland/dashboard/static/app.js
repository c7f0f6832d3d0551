// Starts the page: who is signed in, the live connection, the navigation, and which page is shown.

import * as api from './api.js';
import {empty, h, icon, toast} from './dom.js';
import {Live} from './live.js';
import {gate} from './gate.js';
import {keyIn, link, parse} from './router.js';
import * as shortcuts from './shortcuts.js';
import {ensureRows} from './table.js';
import * as theme from './theme.js';
import {alertsPage} from './alerts.js';
import {chartsPage} from './charts.js';
import {chatPage} from './chat.js';
import {journalPage} from './journal.js';
import {modelPage} from './model.js';
import {modelsPage} from './models.js';
import {overviewPage} from './overview.js';
import {taskPage} from './task.js';
import {tasksPage} from './tasks.js';
import {whyPage} from './why.js';

const PAGES = {
  overview: {title: 'Overview', icon: 'overview', make: overviewPage},
  charts: {title: 'Live charts', icon: 'charts', make: chartsPage},
  chat: {title: 'Chat', icon: 'chat', make: chatPage, lasting: true},
  models: {title: 'Models', icon: 'models', make: modelsPage},
  model: {title: 'Model', make: modelPage, under: 'models'},
  tasks: {title: 'Tasks', icon: 'tasks', make: tasksPage},
  task: {title: 'Runs', make: taskPage, under: 'tasks'},
  journal: {title: 'Journal', icon: 'journal', make: journalPage},
  alerts: {title: 'Alerts', icon: 'alert', make: alertsPage},
  why: {title: 'Why', icon: 'why', make: whyPage},
  none: {title: 'No such page', make: nowhere},
};

/** An address that names no page. */
function nowhere() {
  const home = h('a.button', {href: link('overview')}, 'To the overview');
  const card = h(
    'div.card',
    null,
    empty('search', 'There is nothing at this address', 'Choose a page on the left.', home),
  );
  return {root: h('div', null, h('header.page-head', null, h('h1', null, 'No such page')), card)};
}

const REST_MS = 60_000;
const POINTS_MS = 250; // a fast run tells thousands of steps a second: they are drawn together

const at = (id) => document.getElementById(id);

/** What every page gets: the calls, the live state, who is signed in, and where to go. */
class App {
  constructor() {
    Object.assign(this, {
      api,
      live: new Live(),
      who: {key: '', user: '', scopes: [], anonymous: false},
      page: null,
      lasting: new Map(),
      started: false,
      pointed: null,
    });
  }

  may(scope) {
    return this.who.scopes.includes(scope) || this.who.scopes.includes('admin');
  }

  go(page, params) {
    location.hash = link(page, params);
  }

  async start() {
    theme.apply();
    const key = keyIn(location.hash);
    if (key) {
      history.replaceState(null, '', location.pathname); // the key must not stay in the address bar
      try {
        await api.signIn(key);
      } catch (error) {
        toast(error.message, 'error');
      }
    }
    try {
      this.who = await api.get('/api/v1/whoami');
    } catch (error) {
      this.signedOut(error);
      return;
    }
    this.signedIn();
  }

  signedIn() {
    at('gate').hidden = true;
    at('gate').replaceChildren();
    at('shell').hidden = false;
    at('skip').hidden = false;
    if (!this.started) this.install();
    this.started = true;
    at('leave').hidden = this.who.anonymous;
    at('who').textContent = this.who.anonymous
      ? 'no key needed here'
      : `${this.who.user || this.who.key} · ${this.who.scopes.join(', ')}`;
    at('who').title = at('who').textContent;
    this.live.open();
    this.show();
  }

  signedOut(error = null) {
    this.live.close();
    at('shell').hidden = true;
    at('skip').hidden = true;
    at('banner').replaceChildren();
    gate(at('gate'), error, () => this.start());
  }

  install() {
    theme.button(at('theme'), icon);
    at('keys').onclick = shortcuts.help;
    at('leave').onclick = async () => {
      await api.signOut();
      this.lasting.clear();
      this.signedOut();
    };
    const drawer = (open) => {
      at('side').classList.toggle('open', open);
      at('shade').hidden = !open;
      at('menu').setAttribute('aria-expanded', String(open));
      if (open) at('side').querySelector('a').focus();
    };
    at('menu').onclick = () => drawer(!at('side').classList.contains('open'));
    at('shade').onclick = () => drawer(false);
    at('skip').onclick = (event) => {
      event.preventDefault();
      at('main').focus();
    };
    at('nav').replaceChildren(
      ...Object.entries(PAGES)
        .filter(([, page]) => page.icon)
        .map(([name, page]) =>
          h('li', null, h('a', {href: link(name), 'data-page': name}, icon(page.icon), page.title)),
        ),
    );
    shortcuts.install({
      go: (page) => this.go(page),
      search: () => at('main').querySelector('input[type=search]')?.focus(),
      theme: theme.next,
      stop: () => {
        drawer(false);
        this.lasting.get('chat')?.stop();
      },
    });
    addEventListener('hashchange', () => {
      if (keyIn(location.hash) || at('shell').hidden) return;
      drawer(false);
      this.show();
      if (!at('main').contains(document.activeElement)) at('main').focus({preventScroll: true});
      scrollTo(0, 0);
    });
    for (const name of ['overview', 'state', 'journal', 'point'])
      this.live.addEventListener(name, () => this.changed(name));
    this.live.addEventListener('refused', () => api.get('/api/v1/whoami').catch(() => {})); // a 401 shows the gate
    document.addEventListener('llmos:signed-out', () => this.signedOut());
    document.addEventListener('visibilitychange', () => this.seen(!document.hidden));
  }

  /** A tab that nobody looks at gives its connection back after a while: browsers open only six to one host. */
  seen(visible) {
    clearTimeout(this.resting);
    if (!visible) this.resting = setTimeout(() => this.live.close(), REST_MS);
    else if (!this.live.stream && at('gate').hidden) this.live.open();
    this.changed('overview');
  }

  show() {
    const {page: name, params} = parse(location.hash);
    const found = PAGES[name] ? name : 'none';
    const page = PAGES[found];
    if (this.page && !this.page.lasting) this.page.close?.();
    this.page = this.lasting.get(found) ?? page.make(this, params);
    at('main').replaceChildren(this.page.root);
    at('main').dataset.page = found;
    if (page.lasting) {
      this.page.lasting = true;
      this.lasting.set(found, this.page);
      this.page.enter?.(params);
    }
    document.title = `${page.title} · LLM OS`;
    at('top-title').textContent = page.title;
    for (const anchor of at('nav').querySelectorAll('a')) {
      if (anchor.dataset.page === (page.under ?? found)) anchor.setAttribute('aria-current', 'page');
      else anchor.removeAttribute('aria-current');
    }
    this.changed('overview');
  }

  /** Draw again what shows live state; not while nobody looks. */
  changed(what) {
    if (what === 'overview' || what === 'state') this.status();
    if (document.hidden) return;
    if (what === 'point') this.pointed ??= setTimeout(() => this.points(), POINTS_MS);
    else this.update(what);
  }

  points() {
    this.pointed = null;
    this.update('point');
  }

  update(what) {
    if (what === 'state' && this.live.state === 'running' && this.page?.error) this.page.again();
    this.page?.update?.(what);
    ensureRows(at('main'));
  }

  status() {
    const {state, goneText} = this.live;
    const texts = {
      running: 'live',
      gone: 'kernel gone',
      connecting: 'reconnecting',
      starting: 'connecting',
    };
    at('link-state').replaceChildren(h(`span.dot.${state}`), h('span', null, texts[state]));
    const banner = at('banner');
    const text =
      {
        gone: this.live.overview?.kernel?.version
          ? `The kernel is gone${goneText ? `: ${goneText}` : ''}. What you see is its last state; the page goes on by itself when it is back.`
          : 'No kernel answers. The page goes on by itself when one does.',
        connecting: 'The connection to the gateway is lost. Trying again.',
      }[state] ?? '';
    banner.className = state;
    if (banner.textContent !== text) banner.replaceChildren(...(text ? [h('span', null, text)] : []));
    const {alerts} = this.live;
    const anchor = at('nav').querySelector('[data-page=alerts]');
    anchor.querySelector('.badge')?.remove();
    if (alerts.length) {
      const level = alerts.some((alert) => alert.level === 'error') ? 'error' : 'warning';
      anchor.append(h(`span.badge.${level}`, null, String(alerts.length), h('span.unseen', null, ' alerts')));
    }
  }
}

const app = new App();
addEventListener('hashchange', () => {
  if (keyIn(location.hash)) app.start(); // a link with a key, opened in a tab that is already here
});
app.start();
