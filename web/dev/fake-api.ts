/**
 * A small server inside `vite dev`, with plausible things in it, to look at the page without the
 * real one. Not part of the build. `CRAFTASTIC_SERVER=http://localhost:3001 npm run dev` uses a
 * real server instead. An e-mail address that begins with `empty` has nothing yet; the password
 * `wrong-password` is wrong; registering asks for the one-time token `first` unless invited.
 */
import type { IncomingMessage, ServerResponse } from 'node:http';
import { randomUUID } from 'node:crypto';
import type { Plugin } from 'vite';
import type { GitStatus } from '../src/api/git';
import type { Environment, ListedEnvironment, SessionLine, User } from '../src/api/types';
import { accountAnswer } from './fake-accounts.ts';
import { agentAnswer, beginTurn, seedAgents, type AgentCall } from './fake-agents.ts';
import { coolifyAndDeployments } from './fake-deployments.ts';
import { gitAnswer } from './fake-git.ts';
import { jobAnswer } from './fake-jobs.ts';
import { administers, mailedAnswer, peopleAnswer } from './fake-people.ts';

type Answer = { status: number; body: unknown };
type Account = { user: User; environments: ListedEnvironment[]; streams: Set<ServerResponse> };
type Body = Record<string, unknown>;
type Call = { account: Account; body: Body; part: string[] };

const accounts = new Map<string, Account>();
const signIns = new Map<string, Account>();
let eventNumber = 0;

const minutes = (count: number) => new Date(Date.now() - count * 60_000).toISOString();
const text = (value: unknown) => (typeof value === 'string' ? value : '');
const wait = (ms: number) => new Promise((resolve) => setTimeout(resolve, ms));

function ok(body: unknown): Answer {
  return { status: 200, body };
}

function refuse(status: number, code: string, error: string, more: Body = {}): Answer {
  return { status, body: { success: false, error, code, requestId: randomUUID().slice(0, 8), ...more } };
}

function environment(user: User, fields: Partial<ListedEnvironment> & { name: string }): ListedEnvironment {
  return {
    id: randomUUID(),
    userId: user.id,
    branch: 'main',
    status: 'running',
    cloneStatus: fields.repositoryUrl === undefined ? 'none' : 'ready',
    runtime: 'docker',
    isolation: 'verified',
    desired: 'running',
    statusSince: minutes(120),
    pushPolicy: 'sessions',
    createdAt: minutes(9_000),
    updatedAt: minutes(120),
    sessions: [],
    ...fields,
  };
}

function session(parent: ListedEnvironment, name: string, fields: Partial<SessionLine> = {}): void {
  parent.sessions.push({
    id: randomUUID(),
    environmentId: parent.id,
    name,
    tmuxSessionName: `${name}-1`,
    workingDirectory: `/data/worktrees/${name}`,
    status: 'inactive',
    gitBranch: parent.repositoryUrl === undefined ? null : name,
    createdAt: minutes(300),
    updatedAt: minutes(60),
    lastActivity: minutes(60),
    ...fields,
  });
}

function seeded(user: User): ListedEnvironment[] {
  const github = (path: string) => `https://github.com/${path}`;
  const shop = environment(user, {
    name: 'storefront',
    repositoryUrl: github('lumen/storefront'),
    updatedAt: minutes(3),
  });
  session(shop, 'checkout-redesign', {
    status: 'active',
    lastActivity: minutes(0.2),
    gitBranch: 'ada/checkout-redesign',
  });
  session(shop, 'fix-cart-rounding', {
    status: 'active',
    lastActivity: minutes(4),
    gitBranch: 'fix/cart-rounding-1482',
  });
  session(shop, 'main', { lastActivity: minutes(900) });
  const billing = environment(user, {
    name: 'billing-service',
    repositoryUrl: github('lumen/billing'),
    updatedAt: minutes(44),
  });
  session(billing, 'invoice-export', { lastActivity: minutes(52), gitBranch: 'invoice-export' });
  session(billing, 'old-try', { status: 'dead', lastActivity: minutes(4_000) });
  const docs = environment(user, {
    name: 'handbook',
    repositoryUrl: 'https://git.lumen.example/docs/handbook',
    cloneStatus: 'failed',
    cloneReason:
      'git.lumen.example asked for a user name and a password. Add them under Settings, Git hosts, then retry.',
    updatedAt: minutes(11),
  });
  const search = environment(user, {
    name: 'search-index',
    repositoryUrl: github('lumen/search-index'),
    branch: 'develop',
    cloneStatus: 'cloning',
    progress: { step: 'clone', message: 'Receiving objects: 61% (128034/209892), 84.20 MiB', percent: 61 },
    updatedAt: minutes(0.5),
  });
  const mobile = environment(user, {
    name: 'mobile-app',
    repositoryUrl: github('lumen/mobile'),
    status: 'error',
    reasonCode: 'RUNTIME_UNAVAILABLE',
    reason: 'The Docker engine did not answer within 10 seconds.',
    updatedAt: minutes(26),
  });
  const scratch = environment(user, { name: 'scratch', status: 'stopped', updatedAt: minutes(20_000) });
  const ml = environment(user, {
    name: 'recommendations',
    repositoryUrl: github('lumen/recommendations'),
    updatedAt: minutes(1_500),
  });
  session(ml, 'feature-store', { lastActivity: minutes(1_400), gitBranch: 'spike/feature-store' });
  return [search, shop, docs, billing, mobile, ml, scratch];
}

function accountFor(email: string, name = 'Ada Lindqvist'): Account {
  const known = accounts.get(email);
  if (known) return known;
  const user: User = { id: randomUUID(), email, name, emailVerified: !email.startsWith('new') };
  const account = {
    user,
    environments: email.startsWith('empty') ? [] : seeded(user),
    streams: new Set<ServerResponse>(),
  };
  accounts.set(email, account);
  seedAgents(user, account.environments, (event) => tell(account, event));
  return account;
}

function tokens(account: Account): Answer {
  const part = (value: unknown) => Buffer.from(JSON.stringify(value)).toString('base64url');
  const exp = Math.floor(Date.now() / 1000) + 900;
  const accessToken = `${part({ alg: 'none' })}.${part({ sub: account.user.email, exp })}.${randomUUID()}`;
  const refreshToken = randomUUID();
  signIns.set(accessToken, account);
  signIns.set(refreshToken, account);
  return ok({ success: true, data: { accessToken, refreshToken, user: account.user } });
}

function tell(account: Account, event: Body & { type: string }): void {
  eventNumber += 1;
  for (const stream of account.streams) {
    stream.write(`id: ${eventNumber}\nevent: ${event.type}\ndata: ${JSON.stringify(event)}\n\n`);
  }
}

function change(account: Account, one: ListedEnvironment, fields: Partial<Environment>): void {
  Object.assign(one, fields, { updatedAt: new Date().toISOString() });
  tell(account, { type: 'environment.changed', id: one.id });
}

async function grow(account: Account, one: ListedEnvironment): Promise<void> {
  const say = (step: string, message: string, percent: number | null = null) =>
    change(account, one, { progress: { step, message, percent } });
  for (const percent of [8, 31, 64, 100]) {
    say('image', `Fetching the image craftastic-sandbox (${percent} of 100 MiB)`, percent);
    await wait(500);
  }
  say('sandbox', 'Starting the sandbox');
  await wait(900);
  if (one.name.startsWith('fail')) {
    change(account, one, {
      status: 'error',
      reason: 'The sandbox did not come up: no space left on the device.',
    });
    return;
  }
  change(account, one, {
    status: 'running',
    progress: null,
    cloneStatus: one.repositoryUrl ? 'cloning' : 'none',
  });
  if (one.repositoryUrl) void clone(account, one);
}

async function clone(account: Account, one: ListedEnvironment): Promise<void> {
  for (let percent = 0; percent <= 100; percent += 10) {
    change(account, one, {
      progress: {
        step: 'clone',
        message: `Receiving objects: ${percent}% (${percent * 412}/41200)`,
        percent,
      },
    });
    await wait(300);
  }
  change(account, one, { progress: null, cloneStatus: 'ready' });
}

const suggestions = (name: string) => [
  `${name}-2`,
  `${name}-copy`,
  `${name}-${new Date().toISOString().slice(0, 10)}`,
];

async function createEnvironment({ account, body }: Call): Promise<Answer> {
  const name = String(body.name);
  if (account.environments.some((one) => one.name === name)) {
    return refuse(409, 'ENVIRONMENT_NAME_IN_USE', 'Environment name already exists', {
      suggestions: suggestions(name),
    });
  }
  const url = typeof body.repositoryUrl === 'string' ? body.repositoryUrl : undefined;
  if (url?.includes('internal') === true) {
    return refuse(400, 'UPSTREAM_NOT_ALLOWED', 'The address of internal is private and not allowed here.');
  }
  const one = environment(account.user, {
    name,
    status: 'starting',
    cloneStatus: url === undefined ? 'none' : 'pending',
    branch: typeof body.branch === 'string' ? body.branch : 'main',
    createdAt: new Date().toISOString(),
    ...(url === undefined ? {} : { repositoryUrl: url }),
  });
  account.environments.unshift(one);
  tell(account, { type: 'environment.changed', id: one.id });
  await grow(account, one);
  return ok(one);
}

async function environments(call: Call, method: string): Promise<Answer> {
  const { account, part } = call;
  const [first = '', second = '', third = ''] = part;
  if (method === 'POST' && first === '') return await createEnvironment(call);
  if (first === 'user') return ok({ environments: account.environments });
  if (first === 'check-name') {
    const free = !account.environments.some((one) => one.name === third);
    return ok({ available: free, name: third, suggestions: free ? [] : suggestions(third), message: '' });
  }
  const one = account.environments.find(({ id }) => id === first);
  if (!one) return refuse(404, 'ENVIRONMENT_NOT_FOUND', 'Environment not found');
  if (method === 'DELETE') {
    account.environments = account.environments.filter((other) => other !== one);
    tell(account, { type: 'environment.deleted', id: one.id });
    return ok({
      success: true,
      discarded: [{ branch: 'fix/cart-rounding-1482', unpushed: 2, uncommitted: true }],
    });
  }
  if (method === 'PATCH') change(account, one, call.body);
  if (method === 'POST' && second === 'stop') {
    change(account, one, {
      status: 'stopped',
      reason: 'It was stopped; the next session or terminal starts it again.',
    });
  }
  if (method === 'POST' && (second === 'retry' || second === 'start')) {
    if (one.status === 'running') {
      change(account, one, { cloneStatus: 'cloning', cloneReason: null });
      void clone(account, one);
      return ok(one);
    }
    one.name = one.name.replace(/^fail-?/u, 'saved-');
    change(account, one, { status: 'starting', reason: null });
    await grow(account, one);
  }
  return ok(one);
}

function agentCall(account: Account, method: string, part: readonly string[], body: Body): AgentCall {
  const { user, environments: list } = account;
  return { method, part, body, user, environments: list, tell: (event) => tell(account, event) };
}

/** A line of the list as it is when it is asked for by itself. */
function whole(line: SessionLine | undefined): Body {
  return { agentId: null, sessionType: line?.agentState ? 'agent' : 'terminal', ...line };
}

function sessions({ account, part, body }: Call, method: string): Answer {
  const [first = '', second = ''] = part;
  const all = account.environments.flatMap((one) => one.sessions);
  if (method === 'POST' && first === '') {
    const parent = account.environments.find(({ id }) => id === body.environmentId);
    if (!parent) return refuse(404, 'ENVIRONMENT_NOT_FOUND', 'Environment not found');
    const now = new Date().toISOString();
    session(parent, text(body.name) || text(body.branch) || 'session', {
      createdAt: now,
      updatedAt: now,
      lastActivity: now,
    });
    const made = parent.sessions.at(-1);
    tell(account, { type: 'session.changed', id: made?.id, environmentId: parent.id });
    if (made && body.sessionType === 'agent') {
      Object.assign(made, { agentId: body.agentId, agentState: 'starting', agentStateSince: now });
      beginTurn(agentCall(account, method, ['sessions'], body), made);
    }
    return ok(whole(made));
  }
  if (first === 'environment') {
    return ok({ sessions: all.filter(({ environmentId }) => environmentId === second).map(whole) });
  }
  if (first.startsWith('check-')) return ok({ available: true, name: part[2], branch: part[2], message: '' });
  const one = all.find(({ id }) => id === first);
  if (!one) return refuse(404, 'SESSION_NOT_FOUND', 'Session not found');
  if (method === 'PATCH') Object.assign(one, body);
  if (method === 'DELETE') {
    const parent = account.environments.find(({ id }) => id === one.environmentId);
    if (parent) parent.sessions = parent.sessions.filter((other) => other !== one);
    tell(account, { type: 'session.deleted', id: one.id, environmentId: one.environmentId });
    const kept = {
      ref: `refs/craftastic/kept/${one.id}`,
      commit: '9fceb02d0ae598e95dc970b74767f19372d61af8',
    };
    return ok({ success: true, message: '', kept: { ...kept, unpushed: 2, uncommitted: true } });
  }
  return ok(whole(one));
}

function auth(part: string[], body: Body): Answer {
  const mailed = mailedAnswer(part[0] ?? '', body);
  if (mailed) return mailed;
  const email = text(body.email).toLowerCase();
  switch (part[0]) {
    case 'login':
      if (body.password === 'wrong-password')
        return refuse(401, 'INVALID_CREDENTIALS', 'Invalid email or password');
      return tokens(accountFor(email));
    case 'register':
      if (body.setupToken !== 'first' && body.invitation === undefined) {
        return refuse(
          403,
          'SETUP_TOKEN_NEEDED',
          'The first account needs the one-time token that the server printed',
        );
      }
      return tokens(accountFor(`empty-${email}`, String(body.name)));
    case 'refresh': {
      const account = signIns.get(String(body.refreshToken));
      signIns.delete(String(body.refreshToken));
      return account
        ? tokens(account)
        : refuse(401, 'INVALID_REFRESH_TOKEN', 'Invalid or expired refresh token');
    }
    default:
      return ok({ success: true, message: 'Logged out successfully' });
  }
}

async function bodyOf(request: IncomingMessage): Promise<Body> {
  let whole = '';
  for await (const piece of request) whole += String(piece);
  return whole === '' ? {} : (JSON.parse(whole) as Body);
}

function stream(account: Account, response: ServerResponse): void {
  response.writeHead(200, { 'Content-Type': 'text/event-stream', 'Cache-Control': 'no-store' });
  response.write(': hello\n\n');
  account.streams.add(response);
  const beat = setInterval(() => response.write(': beat\n\n'), 15_000);
  response.on('close', () => {
    clearInterval(beat);
    account.streams.delete(response);
  });
}

function others(
  account: Account,
  request: IncomingMessage,
  method: string,
  area: string,
  part: string[],
  body: Body,
): Answer | undefined {
  const { searchParams: query } = new URL(request.url ?? '', 'http://fake');
  const { id: userId, email } = account.user;
  const call = { method, part: [area, ...part], query, body, email, userId };
  const accounts = accountAnswer(call) ?? peopleAnswer(call);
  if (accounts) return accounts;
  const lines = account.environments.flatMap((one) => one.sessions);
  const git = (wish: { method: string; part: string[] }) =>
    gitAnswer({
      ...wish,
      query,
      body,
      branchOf: (id) => lines.find((one) => one.id === id)?.gitBranch,
      knowsEnvironment: (id) => account.environments.some((one) => one.id === id),
    });
  if (area === 'git') return git({ method, part });
  return coolifyAndDeployments({
    method,
    area,
    part,
    query,
    body,
    user: account.user,
    sessions: lines,
    statusOf: (id) => (git({ method: 'GET', part: ['status', id] })?.body as { data: GitStatus }).data,
    tell: (event) => tell(account, event),
  });
}

async function answer(request: IncomingMessage, response: ServerResponse): Promise<void> {
  const part = (request.url ?? '').split('?')[0]?.split('/').slice(2).map(decodeURIComponent) ?? [];
  const area = part.shift();
  const body = await bodyOf(request);
  const method = request.method ?? 'GET';
  const bearer = request.headers.authorization?.replace(/^Bearer /u, '') ?? '';
  // A sign-in that a screenshot script made up: `dev:ada@example.com`.
  const account = bearer.startsWith('dev:') ? accountFor(bearer.slice(4)) : signIns.get(bearer);
  let result: Answer;
  await wait(120);
  const more =
    account && area !== undefined
      ? (agentAnswer(agentCall(account, method, [area, ...part], body)) ??
        jobAnswer({ method, area, part }) ??
        others(account, request, method, area, part, body))
      : undefined;
  if (more) result = more;
  else if (area === 'auth' && part[0] !== 'me') result = auth(part, body);
  else if (!account) result = refuse(401, 'UNAUTHENTICATED', 'Unauthorized');
  else if (area === 'events') {
    stream(account, response);
    return;
  } else if (area === 'auth') {
    const { user } = account;
    result = ok({ success: true, data: { user, isAdmin: administers(user.email) } });
  } else if (area === 'environments') result = await environments({ account, body, part }, method);
  else if (area === 'sessions') result = sessions({ account, body, part }, method);
  else result = refuse(404, 'ROUTE_NOT_FOUND', 'The server has no such route');
  response.writeHead(result.status, { 'Content-Type': 'application/json' });
  response.end(JSON.stringify(result.body));
}

export function fakeApi(): Plugin {
  return {
    name: 'fake-api',
    configureServer(server) {
      server.middlewares.use((request, response, next) => {
        if (request.url === '/readyz') {
          response.writeHead(200, { 'Content-Type': 'application/json' });
          response.end(
            JSON.stringify({ status: 'ok', checks: { database: 'ok', runtime: 'ok', disk: 'ok' } }),
          );
          return;
        }
        if (request.url?.startsWith('/api/') !== true) {
          next();
          return;
        }
        answer(request, response).catch(next);
      });
    },
  };
}
