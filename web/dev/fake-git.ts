/** What git says of the fake server's sessions: one set of changes for each, that can be committed, pushed and pulled. */
import { randomUUID } from 'node:crypto';
import { readFileSync } from 'node:fs';
import type { Commit, Diff, DiffFile, GitStatus, StatusFile } from '../src/api/git';
import { parseDiff, type PatchFile } from '../src/screens/review/diff/parse.ts';

type Answer = { status: number; body: unknown };
type Body = Record<string, unknown>;
export type GitCall = {
  method: string;
  /** After `/api/git/`. */
  part: string[];
  query: URLSearchParams;
  body: Body;
  branchOf: (sessionId: string) => string | null | undefined;
  knowsEnvironment: (id: string) => boolean;
};
type Worktree = { patch: string; commits: Commit[]; head: string; behind: number; upstream: boolean };

const PATCH = readFileSync(new URL('./fake-changes.patch', import.meta.url), 'utf8').replaceAll(
  /\{U\+([0-9A-F]+)\}/gu,
  (_, code: string) => String.fromCodePoint(Number.parseInt(code, 16)),
);
const LETTERS: Record<PatchFile['kind'], string> = {
  added: 'A',
  deleted: 'D',
  modified: 'M',
  renamed: 'R',
  copied: 'C',
  unmerged: 'U',
};
const worktrees = new Map<string, Worktree>();

const hash = () => (randomUUID() + randomUUID()).replaceAll('-', '').slice(0, 40);
const hours = (count: number) => new Date(Date.now() - count * 3_600_000).toISOString();
const data = (value: unknown, message = ''): Answer => ({
  status: 200,
  body: { success: true, message, data: value },
});
const refuse = (status: number, code: string, error: string, more: Body = {}): Answer => ({
  status,
  body: { success: false, error, code, requestId: randomUUID().slice(0, 8), ...more },
});

function commit(message: string, hoursAgo: number, pushed: boolean, more: Partial<Commit> = {}): Commit {
  return {
    hash: hash(),
    author: 'Ada Lindqvist',
    email: 'ada@lumen.example',
    date: hours(hoursAgo),
    message,
    body: '',
    parents: [hash()],
    refs: [],
    pushed,
    ...more,
  };
}

function seeded(): Worktree {
  const commits = [
    commit('Keep the address while the payment is tried again', 2, false, {
      body: 'The form was made anew after each refusal, and with it went what was typed.',
    }),
    commit('Name the steps of the checkout', 5, false),
    commit('Merge branch main', 20, true, { parents: [hash(), hash()], refs: ['origin/main', 'main'] }),
    ...Array.from({ length: 30 }, (_, index) =>
      commit(`Work on the storefront, part ${30 - index}`, 24 + index * 9, true),
    ),
  ];
  return { patch: PATCH, commits, head: commits[0]?.hash ?? hash(), behind: 1, upstream: true };
}

function filesOf(patch: string): DiffFile[] {
  return parseDiff(patch).map((one) => ({
    filename: one.name,
    status: LETTERS[one.kind],
    ...(one.kind === 'renamed' && one.oldName !== null ? { originalFilename: one.oldName } : {}),
    ...(one.binary ? { binary: true } : { added: one.added, deleted: one.removed, binary: false }),
  }));
}

function statusOf(worktree: Worktree, branch: string): GitStatus {
  const files = filesOf(worktree.patch).map((one): StatusFile => ({
    ...one,
    status: one.status === 'A' ? '??' : one.status,
    staged: false,
    modified: one.status !== 'A',
    untracked: one.status === 'A',
    conflicted: false,
  }));
  return {
    branch,
    ...(worktree.upstream ? { upstream: `origin/${branch}` } : {}),
    ahead: worktree.commits.filter((one) => !one.pushed).length,
    behind: worktree.behind,
    files,
    clean: files.length === 0,
    head: worktree.head,
    detached: false,
    operation: null,
    truncated: false,
  };
}

function diffOf(worktree: Worktree, query: URLSearchParams): Answer {
  const base = query.get('base') ?? undefined;
  if (base?.startsWith('nope') === true) {
    return refuse(404, 'REF_NOT_FOUND', `There is no branch, tag or commit '${base}' here.`);
  }
  let patch = query.get('staged') === 'true' ? '' : worktree.patch;
  if (base !== undefined && base !== worktree.head) patch += large();
  const file = query.get('file');
  if (file !== null) patch = without(patch, (one) => one.name !== file);
  const answer: Diff = {
    diff: patch,
    file,
    staged: query.get('staged') === 'true',
    ...(base === undefined ? {} : { base, baseCommit: base }),
    truncated: false,
    masked: false,
    files: filesOf(patch),
  };
  return data(answer);
}

function without(patch: string, gone: (file: PatchFile) => boolean): string {
  return parseDiff(patch)
    .filter((one) => !gone(one))
    .map((one) => patch.slice(one.from, one.to))
    .join('');
}

/** A long change, to see how the page bears it. */
function large(): string {
  const lines = Array.from({ length: 6_000 }, (_, index) =>
    index % 3 === 2
      ? `-  row(${index}, 'before'),\n+  row(${index}, 'after'),`
      : `   row(${index}, 'stays as it is'),`,
  );
  return [
    'diff --git a/src/table.ts b/src/table.ts',
    'index 1..2 100644',
    '--- a/src/table.ts',
    '+++ b/src/table.ts',
    '@@ -1,6000 +1,6000 @@ export const table = [',
    ...lines,
    '',
  ].join('\n');
}

function commitChanges(worktree: Worktree, body: Body, branch: string): Answer {
  const message = typeof body.message === 'string' ? body.message : '';
  if (message.startsWith('hook') && body.noVerify !== true) {
    return refuse(409, 'COMMIT_REFUSED', 'The commit was refused.', {
      details:
        '> lint-staged\n\nsrc/cart/total.ts\n  12:3  error  Unexpected console statement  no-console\n\n1 problem (1 error)',
    });
  }
  if (message.startsWith('moved')) {
    return refuse(409, 'BRANCH_MOVED', 'The branch has moved meanwhile.', {
      details: 'Look at it again before going on.',
      head: hash(),
    });
  }
  if (message.startsWith('locked')) {
    return refuse(409, 'GIT_LOCKED', 'Another git command is working in this worktree.', {
      details: 'Try again. If none is running, one was cut short: remove .git/index.lock',
    });
  }
  const chosen = Array.isArray(body.files) ? (body.files as string[]) : undefined;
  const before = parseDiff(worktree.patch);
  const taken = before.filter((one) => chosen === undefined || chosen.includes(one.name));
  if (taken.length === 0 && body.amend !== true) {
    return refuse(409, 'NOTHING_TO_COMMIT', 'There is nothing to commit.');
  }
  worktree.patch = without(worktree.patch, (one) => taken.some(({ name }) => name === one.name));
  const [subject = '', ...rest] = message.split('\n');
  if (body.amend === true) worktree.commits.shift();
  const made = commit(subject, 0, false, { body: rest.join('\n').trim() });
  worktree.commits.unshift(made);
  worktree.head = made.hash;
  const sum = (of: (one: PatchFile) => number) => taken.reduce((all, one) => all + of(one), 0);
  return data({
    commit: made.hash,
    branch,
    summary: subject,
    filesChanged: taken.length,
    insertions: sum((one) => one.added),
    deletions: sum((one) => one.removed),
  });
}

function push(worktree: Worktree, body: Body, branch: string): Answer {
  if (worktree.behind > 0 && body.force !== true) {
    return refuse(409, 'PUSH_REJECTED', 'The branch has commits upstream that are not here.', {
      details: 'Pull first: that brings in the commits that are only there. (fetch first)',
    });
  }
  const old = worktree.commits.find((one) => one.pushed)?.hash ?? '0'.repeat(40);
  const moved = worktree.commits.some((one) => !one.pushed);
  worktree.commits = worktree.commits.map((one) => ({ ...one, pushed: true }));
  worktree.upstream = true;
  return data({
    stdout: '',
    stderr:
      'remote: Resolving deltas: 100% (3/3), completed.\nremote: View it at https://github.com/lumen/storefront\n',
    branch,
    commit: worktree.head,
    updates: moved
      ? [{ ref: `refs/heads/${branch}`, old, new: worktree.head, outcome: 'ok', reason: null }]
      : [],
  });
}

function pull(worktree: Worktree, body: Body, branch: string): Answer {
  const ahead = worktree.commits.filter((one) => !one.pushed).length;
  if (worktree.behind > 0 && ahead > 0 && body.mode !== 'rebase') {
    return refuse(409, 'PULL_DIVERGED', 'The branch and its upstream have commits of their own each.', {
      details: 'Pull with mode "rebase", or merge in a terminal.',
      ahead,
      behind: worktree.behind,
    });
  }
  const commits = worktree.behind;
  const before = worktree.head;
  if (commits > 0) {
    const place = worktree.commits.findIndex((one) => one.pushed);
    worktree.commits.splice(Math.max(place, 0), 0, commit('Raise the limit of the cart', 1, true));
    worktree.head = worktree.commits[0]?.hash ?? before;
  }
  worktree.behind = 0;
  return data({
    branch,
    upstream: `origin/${branch}`,
    before,
    after: worktree.head,
    updated: commits > 0,
    commits,
  });
}

function branches(): Answer {
  const one = (name: string, more: Body = {}) => ({
    name,
    current: false,
    local: true,
    remote: true,
    head: hash(),
    upstream: `origin/${name}`,
    ahead: 0,
    behind: 0,
    subject: `Work on ${name}`,
    date: hours(name.length),
    ...more,
  });
  return data({
    branches: [
      one('ada/checkout-redesign', { current: true, ahead: 2, behind: 1 }),
      one('fix/cart-rounding-1482', { current: true, remote: false, upstream: null }),
      one('main'),
      one('develop', { behind: 12 }),
      one('release/2026-04', { local: false, upstream: null }),
    ],
    defaultBranch: 'main',
    truncated: false,
  });
}

/** Answers what git's routes are asked; undefined for what others know. */
export function gitAnswer({
  method,
  part,
  query,
  body,
  branchOf,
  knowsEnvironment,
}: GitCall): Answer | undefined {
  const [what = '', id = ''] = part;
  if (what === 'branches') {
    return knowsEnvironment(id) ? branches() : refuse(404, 'ENVIRONMENT_NOT_FOUND', 'Environment not found');
  }
  if (!['status', 'diff', 'log', 'commit', 'push', 'pull', 'fetch'].includes(what)) return undefined;
  const branch = branchOf(id);
  if (branch === undefined) return refuse(404, 'SESSION_NOT_FOUND', 'Session not found');
  if (branch === null) return refuse(400, 'NO_WORKTREE', 'The session has no repository');
  const worktree = worktrees.get(id) ?? seeded();
  worktrees.set(id, worktree);
  switch (`${method} ${what}`) {
    case 'GET status':
      return data(statusOf(worktree, branch));
    case 'GET diff':
      return diffOf(worktree, query);
    case 'GET log': {
      const [limit, offset] = [Number(query.get('limit') ?? 10), Number(query.get('offset') ?? 0)];
      return data({
        commits: worktree.commits.slice(offset, offset + limit),
        limit,
        offset,
        truncated: false,
      });
    }
    case 'POST commit':
      return commitChanges(worktree, body, branch);
    case 'POST push':
      return push(worktree, body, branch);
    case 'POST pull':
      return pull(worktree, body, branch);
    case 'POST fetch':
      return data({
        branch,
        upstream: `origin/${branch}`,
        ahead: worktree.commits.filter((one) => !one.pushed).length,
        behind: worktree.behind,
        updates: [],
      });
    default:
      return undefined;
  }
}
