/**
 * Coolify and deployments of the fake server. There is no connection at first; a token that begins
 * with `1|` may only deploy, `2|` may not read build logs, one without a bar is rejected. A commit
 * `fail…`, or the application `legacy-admin`, fails. `coolify@…` has a connection of the server's.
 */
import { randomUUID } from 'node:crypto';
import type { CoolifyApplication, CoolifyConnection } from '../src/api/coolify.ts';
import type { Deployment, DeploymentCheck, LogLine } from '../src/api/deployments.ts';

type Answer = { status: number; body: unknown };
type Body = Record<string, unknown>;
type Session = { id: string; environmentId: string; gitBranch?: string | null };
export type DeploymentCall = {
  method: string;
  area: string;
  part: readonly string[];
  query: URLSearchParams;
  body: Body;
  user: { id: string; email: string };
  sessions: readonly Session[];
  /** Whether all of a session's work is pushed. */
  statusOf: (sessionId: string) => {
    files: readonly { filename: string }[];
    ahead: number;
    head: string | null;
  };
  tell: (event: Body & { type: string }) => void;
};
type Coolify = {
  connection: CoolifyConnection;
  applications: Map<string, CoolifyApplication>;
  rows: Deployment[];
  logs: Map<string, LogLine[]>;
};

const SHOP = 'q8wk4c0os0g8wc4k';
const LEGACY = 'b4k0s8gw0cs4oc8k';
const BUILD_LINES = 60;
const coolifies = new Map<string, Coolify>();

const wait = (ms: number) => new Promise((resolve) => setTimeout(resolve, ms));
const time = (minutesAgo = 0) => new Date(Date.now() - minutesAgo * 60_000).toISOString();
const ok = (body: unknown): Answer => ({ status: 200, body });
const refuse = (status: number, code: string, error: string, more: Body = {}): Answer => ({
  status,
  body: { success: false, error, code, requestId: randomUUID().slice(0, 8), ...more },
});
const text = (value: unknown) => (typeof value === 'string' ? value : '');

const NONE: CoolifyConnection = {
  configured: false,
  source: null,
  url: null,
  version: null,
  abilities: null,
  missing: [],
  problem: null,
  advice: null,
  checkedAt: null,
  serverConfigured: false,
  hook: null,
};

function connectionOf(url: string, abilities: NonNullable<CoolifyConnection['abilities']>) {
  const { deploy, read, readSensitive } = abilities;
  const order =
    'In Coolify, make a token with deploy ticked first and the read boxes after it: ticking deploy clears the rest.';
  return {
    ...NONE,
    configured: true,
    source: 'user',
    url,
    version: '4.3.11',
    abilities,
    missing: [
      ...(deploy ? [] : ['deploy']),
      ...(read ? [] : ['read']),
      ...(readSensitive === false ? ['read:sensitive'] : []),
    ],
    problem: read
      ? null
      : {
          code: 'COOLIFY_ABILITY_MISSING',
          message: `The token may deploy but not read, so nobody could see how a deployment ends. ${order}`,
        },
    advice: read && readSensitive === false ? `Build logs stay hidden with this token. ${order}` : null,
    checkedAt: time(),
  } satisfies CoolifyConnection;
}

function application(id: string, name: string, fields: Partial<CoolifyApplication>): CoolifyApplication {
  return {
    id,
    name,
    branch: 'main',
    repository: 'lumen/storefront',
    status: 'running:healthy',
    state: 'running',
    health: 'healthy',
    address: `https://${name}.lumen.example`,
    matches: false,
    ...fields,
  };
}

function seeded(email: string): Coolify {
  const all = { deploy: true, read: true, readSensitive: true };
  const shared = email.startsWith('coolify');
  const applications = [
    application(SHOP, 'storefront', { branch: 'ada/checkout-redesign', matches: true }),
    application('o0c4w8k0s4g8ks0w', 'storefront-production', { matches: true }),
    application(LEGACY, 'legacy-admin', {
      repository: 'lumen/legacy-admin',
      status: 'exited:unhealthy',
      state: 'exited',
      health: 'unhealthy',
    }),
    application('w4s0k8c4g0o8wc0s', 'status-page', {
      repository: null,
      branch: null,
      status: 'running:unknown',
      health: 'unknown',
    }),
  ];
  return {
    connection: shared
      ? {
          ...connectionOf('https://coolify.lumen.example', all),
          source: 'server',
          serverConfigured: true,
        }
      : NONE,
    applications: new Map(applications.map((one) => [one.id, one])),
    rows: [],
    logs: new Map(),
  };
}

const remembered = new Map<string, { appId: string; appName: string }>();

function row(session: Session, app: CoolifyApplication, fields: Partial<Deployment> = {}): Deployment {
  return {
    id: randomUUID(),
    environment_id: session.environmentId,
    session_id: session.id === session.environmentId ? null : session.id,
    app_id: app.id,
    app_name: app.name,
    kind: 'deploy',
    status: 'pending',
    reason: null,
    branch: app.branch,
    commit: null,
    pull_request_id: null,
    force: false,
    coolify_deployment_id: null,
    coolify_status: null,
    url: null,
    built_commit: null,
    health: null,
    health_text: null,
    queue_ahead: null,
    cancel_wanted: false,
    live: true,
    created_at: time(),
    updated_at: time(),
    building_at: null,
    ended_at: null,
    health_at: null,
    metadata: {},
    ...fields,
  };
}

function past(coolify: Coolify, session: Session, app: CoolifyApplication): void {
  const ended = (minutesAgo: number, commit: string, fields: Partial<Deployment>) =>
    row(session, app, {
      status: 'succeeded',
      commit,
      built_commit: commit,
      health: 'healthy',
      live: false,
      coolify_deployment_id: randomUUID(),
      url: `https://coolify.lumen.example/project/${app.id}`,
      created_at: time(minutesAgo),
      building_at: time(minutesAgo - 0.2),
      ended_at: time(minutesAgo - 1.7),
      health_at: time(minutesAgo - 2),
      ...fields,
    });
  coolify.rows.push(
    ended(50, '9fceb02d0ae598e95dc970b74767f19372d61af8', { health: 'running' }),
    ended(190, '41f0d1b6f7e2a0b96cf3f4f7f1b0c7d3a5e8b902', {
      status: 'failed',
      health: null,
      built_commit: null,
      health_at: null,
      reason: 'error: failed to solve: process "/bin/sh -c npm run build" did not complete: exit code: 1',
    }),
    ended(1_500, '7c1f0b4f4b8f9f0f9d1f1f0b4f4b8f9f0f9d1f1f', { health: 'superseded' }),
    ended(3_000, '1d3b0b4f4b8f9f0f9d1f1f0b4f4b8f9f0f9d1f1f', { status: 'cancelled', health: null }),
  );
  for (const one of coolify.rows) {
    coolify.logs.set(
      one.id,
      Array.from({ length: BUILD_LINES * (one.status === 'failed' ? 200 : 1) }, (_, at) => line(at + 1)),
    );
  }
}

function line(order: number, words?: string): LogLine {
  const said =
    words ??
    [
      `#${order} [build ${1 + (order % 9)}/9] RUN npm ci --no-audit --no-fund`,
      `#${order} sha256:${'4f'.repeat(12)} ${order} MB / 61 MB`,
      `\u001b[32m✓\u001b[0m ${order} modules transformed.`,
    ][order % 3] ??
    '';
  return { order, text: said, stream: order % 17 === 0 ? 'stderr' : 'stdout', at: time() };
}

async function run(coolify: Coolify, one: Deployment, tell: DeploymentCall['tell']): Promise<void> {
  const lines: LogLine[] = [];
  coolify.logs.set(one.id, lines);
  const change = (fields: Partial<Deployment>) => {
    Object.assign(one, fields, { updated_at: time() });
    tell({
      type: 'deployment.changed',
      id: one.id,
      environmentId: one.environment_id,
      sessionId: one.session_id,
    });
  };
  const cancelled = () => {
    if (!one.cancel_wanted) return false;
    change({ status: 'cancelled', live: false, ended_at: time() });
    return true;
  };
  await wait(900);
  change({
    coolify_deployment_id: randomUUID(),
    url: `https://coolify.lumen.example/project/${one.app_id}`,
    queue_ahead: 2,
  });
  await wait(2_500);
  if (cancelled()) return;
  change({ status: 'building', queue_ahead: null, building_at: time() });
  for (let at = 1; at <= BUILD_LINES; at += 1) {
    lines.push(line(at));
    await wait(150);
    if (cancelled()) return;
  }
  if (one.app_id === LEGACY) {
    lines.push({ ...line(BUILD_LINES + 1, 'error: exit code: 1'), stream: 'stderr' });
    change({ status: 'failed', live: false, ended_at: time(), reason: 'error: exit code: 1' });
    return;
  }
  change({ status: 'succeeded', health: 'waiting', health_text: 'running:starting', ended_at: time() });
  change({ built_commit: one.commit ?? '9fceb02d0ae598e95dc970b74767f19372d61af8' });
  await wait(3_000);
  change({ health: 'healthy', health_text: 'running:healthy', live: false, health_at: time() });
}

function connection({ method, part, body, user }: DeploymentCall, coolify: Coolify): Answer {
  if (method === 'PUT') {
    const [url, token] = [text(body.url), text(body.token)];
    if (!/^https?:\/\/[^/]+/u.test(url)) {
      return refuse(400, 'COOLIFY_URL_INVALID', 'The address has to begin with https:// and name a host.');
    }
    if (!token.includes('|')) {
      return refuse(400, 'COOLIFY_TOKEN_REJECTED', 'Coolify does not take this token', {
        details: 'Copy all of it, with the number and the bar in front, or make a new one.',
      });
    }
    coolify.connection = connectionOf(url.replace(/\/+(?:api\/v1\/?)?$/u, ''), {
      deploy: true,
      read: !token.startsWith('1|'),
      readSensitive: token.startsWith('1|') ? null : !token.startsWith('2|'),
    });
  }
  if (method === 'DELETE') {
    coolify.connection = seeded(user.email).connection;
    return ok({ message: 'Coolify disconnected' });
  }
  if (part[1] === 'check') coolify.connection = { ...coolify.connection, checkedAt: time() };
  return ok(coolify.connection);
}

function coolifyAnswer(call: DeploymentCall, coolify: Coolify): Answer | undefined {
  const [what = ''] = call.part;
  if (what === 'connection') return connection(call, coolify);
  if (what === 'applications') return ok({ applications: [...coolify.applications.values()] });
  if (what !== 'hook' && what !== 'server-hook') return undefined;
  if (call.method === 'DELETE') {
    coolify.connection = { ...coolify.connection, hook: null };
    return ok({ message: 'Hook removed' });
  }
  if (what === 'hook') {
    coolify.connection = { ...coolify.connection, hook: { createdAt: time(), lastUsedAt: null } };
  }
  return ok({ url: `https://craftastic.lumen.example/api/deployment/hook/${'k'.repeat(43)}` });
}

function targetOf(call: DeploymentCall, id: string): Session {
  return call.sessions.find((one) => one.id === id) ?? { id, environmentId: id };
}

function check(call: DeploymentCall, target: Session, app: CoolifyApplication): DeploymentCheck {
  const inSession = target.id !== target.environmentId;
  const status = inSession ? call.statusOf(target.id) : { files: [], ahead: 0, head: null };
  const branch = inSession ? (target.gitBranch ?? null) : null;
  const problems = [
    ...(status.files.length === 0
      ? []
      : [
          {
            code: 'UNCOMMITTED_WORK' as const,
            message: `${status.files.length} changed files are not committed`,
            details: `Commit and push them first: ${status.files
              .slice(0, 3)
              .map(({ filename }) => filename)
              .join(', ')} and more.`,
          },
        ]),
    ...(status.ahead === 0
      ? []
      : [
          {
            code: 'UNPUSHED_WORK' as const,
            message: `Push ${branch ?? ''} first: ${status.ahead} commits are only here`,
            details: 'Coolify builds what is pushed.',
          },
        ]),
    ...(branch === null || branch === app.branch
      ? []
      : [
          {
            code: 'OTHER_BRANCH' as const,
            message: `Coolify builds ${app.branch ?? 'no branch'} here, not ${branch}`,
            details: 'Merge it there, choose an application of this branch, or change the branch in Coolify.',
          },
        ]),
  ];
  return {
    application: app,
    source: 'user',
    branch,
    buildsBranch: app.branch,
    matchesRepository: app.matches,
    commit: problems.length === 0 ? status.head : null,
    ready: problems.length === 0,
    problems,
    live: null,
  };
}

function begin(call: DeploymentCall, coolify: Coolify, kind: Deployment['kind']): Answer {
  const { body } = call;
  const target = targetOf(call, text(body.sessionId) || text(body.environmentId));
  const app = coolify.applications.get(text(body.appId));
  if (!app) return refuse(400, 'APPLICATION_NEEDED', 'Choose which Coolify application to deploy');
  const looked = check(call, target, app);
  const one = row(target, app, {
    kind,
    commit: kind === 'rollback' ? text(body.commit) : looked.commit,
    force: body.force === true,
  });
  coolify.rows.unshift(one);
  void run(coolify, one, call.tell);
  return ok({ deploymentId: one.id, status: 'pending', coolifyResponse: null, deployment: { ...one } });
}

function rememberedAnswer({ method, part, body }: DeploymentCall, coolify: Coolify): Answer {
  const [, environmentId = ''] = part;
  if (method === 'DELETE') remembered.delete(environmentId);
  if (method === 'PUT') {
    const app = coolify.applications.get(text(body.appId));
    if (!app) return refuse(404, 'COOLIFY_NOT_FOUND', 'Coolify has no such application');
    remembered.set(environmentId, { appId: app.id, appName: app.name });
  }
  return ok(remembered.get(environmentId) ?? { appId: null, appName: null });
}

function deploymentAnswer(call: DeploymentCall, coolify: Coolify): Answer | undefined {
  const { method, part, query } = call;
  const [what = '', id = ''] = part;
  if (method === 'POST' && what === 'deploy') return begin(call, coolify, 'deploy');
  if (method === 'POST' && what === 'rollback') return begin(call, coolify, 'rollback');
  if (what === 'application') return rememberedAnswer(call, coolify);
  const target = targetOf(call, id);
  if (what === 'list') {
    const shop = coolify.applications.get(SHOP);
    if (shop && coolify.rows.length === 0 && target.gitBranch?.startsWith('ada/') === true) {
      past(coolify, target, shop);
    }
    const rows = coolify.rows.filter(({ session_id, environment_id }) =>
      [session_id, environment_id].includes(id),
    );
    return ok({ deployments: rows });
  }
  if (what === 'check') {
    const app = coolify.applications.get(query.get('appId') ?? '');
    return app
      ? ok(check(call, target, app))
      : refuse(404, 'COOLIFY_NOT_FOUND', 'Coolify has no such application');
  }
  if (what === 'commits') {
    const built = coolify.rows.flatMap(({ built_commit, created_at }) =>
      built_commit === null ? [] : [{ commit: built_commit, createdAt: created_at }],
    );
    return ok({ commits: built.slice(0, 2).map((one, at) => ({ ...one, current: at === 0 })) });
  }
  const one = coolify.rows.find((row) => row.id === id);
  if (!one) return refuse(404, 'DEPLOYMENT_NOT_FOUND', 'Deployment not found');
  if (what === 'status') return ok(one);
  if (what === 'cancel') {
    one.cancel_wanted = true;
    return ok(one);
  }
  if (what === 'application-logs') {
    const log = Array.from({ length: 40 }, (_, at) => `GET /cart 200 ${at + 3} ms`).join('\n');
    return ok(one.app_id === LEGACY ? { running: false, log: null } : { running: true, log });
  }
  if (what !== 'logs') return undefined;
  if (coolify.connection.abilities?.readSensitive !== true) {
    const reason = 'The token for Coolify may not read build logs: it lacks read:sensitive.';
    return ok({ lines: [], next: 0, complete: !one.live, truncated: false, available: false, reason });
  }
  const after = Number(query.get('after') ?? 0);
  const all = (coolify.logs.get(id) ?? []).filter(({ order }) => order > after);
  const lines = all.slice(-2_000);
  return ok({
    lines,
    next: lines.at(-1)?.order ?? after,
    complete: one.status !== 'pending' && one.status !== 'building',
    truncated: all.length > lines.length,
    available: true,
    reason: null,
  });
}

/** Answers for Coolify and deployments; undefined for what others know. */
export function coolifyAndDeployments(call: DeploymentCall): Answer | undefined {
  if (call.area !== 'coolify' && call.area !== 'deployment') return undefined;
  const coolify = coolifies.get(call.user.id) ?? seeded(call.user.email);
  coolifies.set(call.user.id, coolify);
  return call.area === 'coolify' ? coolifyAnswer(call, coolify) : deploymentAnswer(call, coolify);
}
