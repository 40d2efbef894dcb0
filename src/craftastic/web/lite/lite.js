// The small page: sign-in, sessions, one terminal. No build, and nothing but xterm beside it.
import { FitAddon } from './vendor/addon-fit.js';
import { Terminal } from './vendor/xterm.js';

const KEY = 'craftastic.lite';
const $ = (id) => document.getElementById(id);
const say = (text) => { $('said').textContent = text; };
const wait = (ms) => new Promise((done) => setTimeout(done, ms));
const show = (id) => { for (const one of ['login', 'list', 'screen']) $(one).hidden = one !== id; };

// ---- sign-in --------------------------------------------------------------------------------

const signIn = () => { try { return JSON.parse(localStorage.getItem(KEY)); } catch { return null; } };
const keep = (value) => {
  if (value) localStorage.setItem(KEY, JSON.stringify(value));
  else localStorage.removeItem(KEY);
};

async function send(method, path, body, token) {
  const headers = {};
  if (body) headers['Content-Type'] = 'application/json';
  if (token) headers.Authorization = `Bearer ${token}`;
  const answer = await fetch(path, { method, headers, body: body && JSON.stringify(body) });
  const found = await answer.json().catch(() => ({}));
  if (answer.ok) return found;
  const why = found.details || found.message || found.error || `The server answered ${answer.status}`;
  throw Object.assign(new Error(why), { status: answer.status });
}

// A refresh token works once: one tab at a time uses it, and looks first who has been faster.
const alone = (run) => (navigator.locks ? navigator.locks.request(KEY, run) : run());

const refresh = (used) => alone(async () => {
  const now = signIn();
  if (!now) throw Object.assign(new Error('Sign in again'), { status: 401 });
  if (now.accessToken !== used) return now.accessToken;
  try {
    const { data } = await send('POST', '/api/auth/refresh', { refreshToken: now.refreshToken });
    keep(data);
    return data.accessToken;
  } catch (error) {
    if (error.status === 401) keep(null);
    throw error;
  }
});

async function api(method, path, body) {
  const token = signIn()?.accessToken;
  try {
    return await send(method, path, body, token);
  } catch (error) {
    if (error.status !== 401) throw error;
    return send(method, path, body, await refresh(token));
  }
}

$('login').addEventListener('submit', (event) => {
  event.preventDefault();
  const form = event.target;
  attempt(async () => {
    const body = { email: form.email.value, password: form.password.value };
    keep((await send('POST', '/api/auth/login', body)).data);
    form.password.value = '';
    await route();
  });
});

$('out').addEventListener('click', () => {
  const { refreshToken } = signIn() || {};
  keep(null);
  if (refreshToken) send('POST', '/api/auth/logout', { refreshToken }).catch(() => undefined);
  location.hash = '';
  route();
});

// ---- environments and sessions --------------------------------------------------------------

const add = (parent, tag, text, fields) => parent.appendChild(
  Object.assign(document.createElement(tag), { textContent: text }, fields),
);

async function list() {
  const { environments } = await api('GET', `/api/environments/user/${signIn().user.id}`);
  const main = $('list');
  main.textContent = '';
  if (!environments.length) add(main, 'p', 'No environment yet: craftastic env create NAME makes one.');
  for (const environment of environments) {
    add(main, 'h2', `${environment.name} (${environment.status})`);
    for (const session of environment.sessions || []) {
      const branch = session.gitBranch ? ` on ${session.gitBranch}` : '';
      const text = `${session.name || session.id}${branch} (${session.status})`;
      add(main, 'a', text, { href: `#/${environment.id}/${session.id}` });
    }
    const button = add(main, 'button', 'New session');
    button.addEventListener('click', () => attempt(() => create(environment.id)));
  }
  show('list');
}

async function create(environmentId) {
  const name = prompt('Name of the session (and of its branch, in a repository)');
  if (!name) return;
  say('Making the session …');
  const session = await api('POST', '/api/sessions', { environmentId, name, branch: name });
  location.hash = `#/${environmentId}/${session.id}`;
}

// ---- the terminal ---------------------------------------------------------------------------

let terminal, fit, socket, attached, control = false;

function open() {
  terminal = new Terminal({
    fontSize: 14, scrollback: 5000, screenReaderMode: false,
    linkHandler: { activate: (_event, to) => /^https?:/i.test(to) && window.open(to, '_blank', 'noopener') },
  });
  fit = new FitAddon();
  terminal.loadAddon(fit);
  terminal.open($('terminal'));
  terminal.onData((text) => type(new TextEncoder().encode(withControl(text))));
  terminal.onBinary((text) => type(Uint8Array.from(text, (one) => one.charCodeAt(0))));
  terminal.onResize(tellSize);
}

function withControl(text) {
  if (!control || text.length !== 1) return text;
  press(false);
  return String.fromCharCode(text.toUpperCase().charCodeAt(0) & 31);
}

function frame(kind, bytes) {
  const found = new Uint8Array(bytes.length + 1);
  found[0] = kind;
  found.set(bytes, 1);
  if (socket && socket.readyState === 1) socket.send(found);
}
const type = (bytes) => frame(1, bytes);
const tellSize = () => {
  const size = { type: 'resize', cols: terminal.cols, rows: terminal.rows };
  if (socket && socket.readyState === 1) socket.send(JSON.stringify(size));
};

// Numbers of 8 bytes, without BigInt: older browsers have none.
const number = (view) => view.getUint32(1) * 2 ** 32 + view.getUint32(5);
function acknowledge(at) {
  const view = new DataView(new ArrayBuffer(8));
  view.setUint32(0, Math.floor(at / 2 ** 32));
  view.setUint32(4, at % 2 ** 32);
  frame(2, new Uint8Array(view.buffer));
}

function take(place, { data }) {
  if (typeof data === 'string') {
    const message = JSON.parse(data);
    if (message.stream) place.stream = message.stream;
    if (message.type === 'request-resize') tellSize();
    if (message.type === 'error') say(message.message);
    return;
  }
  const [kind] = new Uint8Array(data, 0, 1);
  const bytes = new Uint8Array(data, 9);
  place.seen = number(new DataView(data)) + (kind === 1 ? bytes.length : 0);
  if (kind === 2) terminal.reset();
  const at = place.seen;
  terminal.write(bytes, () => acknowledge(at));
}

function connect(place, ticket) {
  const query = new URLSearchParams({ environmentId: place.environment, ticket });
  if (place.stream) for (const name of ['stream', 'seen']) query.set(name, place[name]);
  const from = location.origin.replace(/^http/, 'ws');
  socket = new WebSocket(`${from}/api/terminal/ws/${place.session}?${query}`, 'craftastic.v2');
  socket.binaryType = 'arraybuffer';
  return new Promise((done) => {
    socket.onopen = () => { say(''); place.tries = 0; fit.fit(); tellSize(); };
    socket.onmessage = (event) => { if (place === attached) take(place, event); };
    socket.onclose = done;
  });
}

// One connection, from its ticket (good once, for some seconds: addresses get into logs) to its end.
async function once(place) {
  if (!signIn()) return { code: 401 };
  try {
    const { ticket } = await api('POST', '/api/terminal/ticket', { sessionId: place.session });
    if (attached !== place) return {};
    return await connect(place, ticket);
  } catch (error) {
    const final = [400, 403, 404].includes(error.status);
    return { code: final ? 1008 : error.status, reason: error.message };
  }
}

// Comes back by itself, from the byte it had, until the program or the sign-in ends.
async function attach(environment, session) {
  const place = { environment, session, stream: '', seen: 0, tries: 0 };
  attached = place;
  show('screen');
  if (!terminal) open();
  terminal.reset();
  fit.fit();
  terminal.focus();
  while (attached === place) {
    const { code, reason } = await once(place);
    if (attached !== place) return;
    if (code === 401) return route();
    if (code === 1000) return say(`${reason || 'The terminal has ended'}.`);
    if (code === 1008 && !/authentication/i.test(reason)) return say(reason);
    place.tries += 1;
    say(reason ? `${reason}. Reconnecting …` : 'Reconnecting …');
    await Promise.race([wait(Math.min(8000, 250 * 2 ** place.tries)), new Promise((now) => { place.now = now; })]);
  }
}

const press = (on) => {
  control = on;
  $('keys').querySelector('[aria-pressed]').setAttribute('aria-pressed', String(on));
};
const KEYS = { Esc: '\x1b', Tab: '\t', '←': '\x1b[D', '↑': '\x1b[A', '↓': '\x1b[B', '→': '\x1b[C', '^C': '\x03' };
const ctrl = add($('keys'), 'button', 'Ctrl');
ctrl.setAttribute('aria-pressed', 'false');
ctrl.addEventListener('click', () => { press(!control); terminal.focus(); });
for (const [name, text] of Object.entries(KEYS)) {
  add($('keys'), 'button', name).addEventListener('click', () => {
    type(new TextEncoder().encode(text));
    terminal.focus();
  });
}

// ---- addresses ------------------------------------------------------------------------------

async function attempt(run) {
  say('');
  try { await run(); } catch (error) { say(error.message); if (error.status === 401) show('login'); }
}

async function route() {
  attached = null;
  if (socket) socket.close();
  const [, environment, session] = location.hash.split('/');
  $('out').hidden = !signIn();
  $('where').textContent = signIn()?.user?.email || '';
  if (!signIn()) return show('login');
  return attempt(() => (session ? attach(environment, session) : list()));
}

window.addEventListener('hashchange', route);
window.addEventListener('resize', () => { if (terminal && !$('screen').hidden) fit.fit(); });
for (const event of ['online', 'focus', 'visibilitychange']) {
  window.addEventListener(event, () => { if (attached?.now) attached.now(); }, true);
}
route();
