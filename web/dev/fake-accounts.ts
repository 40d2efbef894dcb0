/** GitHub, git hosts and variables of the fake server. A device code is "typed" after three questions. */
import { randomUUID } from 'node:crypto';
import type { GitHubRepository, GitHubStatus } from '../src/api/github';
import type { GitHost } from '../src/api/hosts';
import type { Variable } from '../src/api/variables';

type Answer = { status: number; body: unknown };
type Body = Record<string, unknown>;
export type AccountCall = {
  method: string;
  /** After `/api/`. */
  part: string[];
  query: URLSearchParams;
  body: Body;
  email: string;
  userId: string;
};
type Kept = { connected: boolean; asked: number; hosts: GitHost[]; variables: Map<string, Variable[]> };

const all = new Map<string, Kept>();
const days = (count: number) => new Date(Date.now() - count * 86_400_000).toISOString();
const ok = (body: unknown): Answer => ({ status: 200, body });
const text = (value: unknown) => (typeof value === 'string' ? value : '');
const refuse = (status: number, code: string, error: string, more: Body = {}): Answer => ({
  status,
  body: { success: false, error, code, requestId: randomUUID().slice(0, 8), ...more },
});

function variable(name: string, value: string | undefined): Variable {
  return {
    name,
    isSecret: value === undefined,
    ...(value === undefined ? {} : { value }),
    createdAt: days(30),
    updatedAt: days(name.length / 3),
  };
}

function keptFor(email: string): Kept {
  let kept = all.get(email);
  if (!kept) {
    const empty = email.startsWith('empty');
    kept = {
      connected: email.startsWith('ada'),
      asked: 0,
      hosts: empty
        ? []
        : [
            {
              id: randomUUID(),
              origin: 'https://git.lumen.example',
              username: 'ada',
              createdAt: days(60),
              updatedAt: days(60),
              lastUsedAt: days(0.1),
            },
            {
              id: randomUUID(),
              origin: 'https://forge.example:8443',
              username: 'git',
              createdAt: days(9),
              updatedAt: days(9),
              lastUsedAt: days(2),
              lastError: 'It refused the user name or the password.',
            },
          ],
      variables: new Map([
        [
          'all',
          empty
            ? []
            : [
                variable('EDITOR', 'vim'),
                variable('NPM_TOKEN', undefined),
                variable('STRIPE_TEST_KEY', undefined),
                variable('TZ', 'Europe/Stockholm'),
              ],
        ],
      ]),
    };
    all.set(email, kept);
  }
  return kept;
}

const REPOSITORIES = Array.from({ length: 74 }, (_, index): GitHubRepository => {
  const name = ['storefront', 'billing', 'search-index', 'mobile', 'handbook'][index] ?? `service-${index}`;
  return {
    id: 5_000 + index,
    name,
    full_name: `lumen/${name}`,
    description: index % 3 === 0 ? `What makes ${name} work, and what it needs to.` : null,
    html_url: `https://github.com/lumen/${name}`,
    clone_url: `https://github.com/lumen/${name}.git`,
    ssh_url: `git@github.com:lumen/${name}.git`,
    private: index % 2 === 0,
    default_branch: 'main',
    updated_at: days(index * 1.7),
    language: ['TypeScript', 'Python', 'Go', null][index % 4] ?? null,
    stargazers_count: index * 3,
    open_issues_count: index,
  };
});

function github(kept: Kept, { method, part, query, email }: AccountCall): Answer {
  switch (`${method} ${part[2] ?? ''}`) {
    case 'GET status': {
      const status: GitHubStatus = {
        connected: kept.connected,
        username: kept.connected ? 'ada-lindqvist' : null,
        configured: !email.startsWith('nohub'),
        needsReconnect: email.startsWith('broken'),
        reason: email.startsWith('broken') ? 'GitHub does not take its token any more.' : null,
        kind: kept.connected ? 'oauth' : null,
        scopes: kept.connected ? ['repo', 'read:user'] : [],
        missingScopes: kept.connected ? ['workflow'] : [],
        installUrl: null,
      };
      return ok({ success: true, data: status });
    }
    case 'POST initiate':
      kept.asked = 0;
      return ok({
        success: true,
        data: {
          device_code: randomUUID(),
          user_code: 'WDJB-MJHT',
          verification_uri: 'https://github.com/login/device',
          expires_in: email.startsWith('late') ? 8 : 899,
          interval: 2,
        },
      });
    case 'POST poll':
      kept.asked += 1;
      if (email.startsWith('deny')) {
        return refuse(400, 'GITHUB_DEVICE_FLOW_FAILED', 'access_denied', {
          message: 'You said no at GitHub. Get a new code to try again.',
        });
      }
      if (kept.asked < 8 || email.startsWith('late')) {
        return ok({
          success: false,
          pending: true,
          error: 'authorization_pending',
          message: 'Waiting for you to enter the code at GitHub',
          interval: 2,
        });
      }
      kept.connected = true;
      return ok({ success: true, message: 'GitHub authentication completed' });
    case 'DELETE disconnect':
      kept.connected = false;
      return ok({ success: true, message: 'GitHub account disconnected' });
    case 'GET repos': {
      if (!kept.connected)
        return refuse(400, 'GITHUB_AUTHENTICATION_REQUIRED', 'GitHub authentication required');
      const [page, size] = [Number(query.get('page') ?? 1), Number(query.get('per_page') ?? 30)];
      const words = (query.get('q') ?? '').toLowerCase();
      const found = REPOSITORIES.filter((one) => one.full_name.includes(words));
      const shown = found.slice((page - 1) * size, page * size);
      const more = found.length > page * size;
      return ok({
        success: true,
        data: {
          repositories: shown,
          page,
          per_page: size,
          total_count: shown.length,
          has_more: more,
          next_page: more ? page + 1 : null,
          install_url: null,
          sso_url: null,
        },
      });
    }
    default:
      return refuse(404, 'ROUTE_NOT_FOUND', 'The server has no such route');
  }
}

function hosts(kept: Kept, { method, part, body }: AccountCall): Answer {
  if (method === 'GET') return ok({ success: true, data: { hosts: kept.hosts } });
  if (method === 'DELETE') {
    kept.hosts = kept.hosts.filter((one) => one.id !== part[2]);
    return ok({ success: true, message: 'Git host removed' });
  }
  const origin = text(body.origin).trim().toLowerCase().replace(/\/$/u, '');
  if (!/^https?:\/\/[^/@]+$/u.test(origin)) {
    return refuse(400, 'GIT_HOST_INVALID', 'Write the git host alone, as https://host or https://host:port.');
  }
  const now = new Date().toISOString();
  const host: GitHost = {
    id: randomUUID(),
    origin,
    username: text(body.username) || 'git',
    createdAt: now,
    updatedAt: now,
  };
  kept.hosts = [...kept.hosts.filter((one) => one.origin !== origin), host];
  return ok({ success: true, data: { host } });
}

function variables(kept: Kept, environmentId: string, name: string, { method, body }: AccountCall): Answer {
  const list = kept.variables.get(environmentId) ?? [];
  if (method === 'GET') {
    const account = kept.variables.get('all') ?? [];
    return ok({
      variables: list,
      ...(environmentId === 'all'
        ? {}
        : {
            inherited: account.map((one) => ({
              name: one.name,
              isSecret: one.isSecret,
              overridden: list.some((other) => other.name === one.name),
            })),
          }),
    });
  }
  const rest = list.filter((one) => one.name !== name);
  if (method === 'DELETE') {
    kept.variables.set(environmentId, rest);
    return ok({ success: true });
  }
  if (name === 'PATH') {
    return refuse(
      400,
      'BAD_VARIABLE_NAME',
      'PATH cannot be set: the shell sets it itself; change it in ~/.profile',
    );
  }
  const secret = body.isSecret !== false;
  const before = list.find((one) => one.name === name);
  const value = typeof body.value === 'string' ? body.value : before?.value;
  const made = {
    ...variable(name, secret ? undefined : (value ?? '')),
    updatedAt: new Date().toISOString(),
  };
  kept.variables.set(environmentId, [...rest, made]);
  return ok(made);
}

/** Answers for a person's accounts and variables; undefined for what others know. */
export function accountAnswer(call: AccountCall): Answer | undefined {
  const kept = keptFor(call.email);
  const [first, second = '', third = '', fourth = ''] = call.part;
  if (first === 'auth' && second === 'github') return github(kept, call);
  if (first === 'auth' && second === 'logout-all')
    return ok({ success: true, message: 'Logged out from all sessions' });
  if (first === 'git' && second === 'hosts') return hosts(kept, call);
  if (first === 'variables') return variables(kept, 'all', second, call);
  if (first === 'environments' && third === 'variables') return variables(kept, second, fourth, call);
  return undefined;
}
