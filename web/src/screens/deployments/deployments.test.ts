import { describe, expect, it } from 'vitest';
import type { CoolifyApplication } from '@/api/coolify';
import type { Deployment, DeploymentCheck, LogLine, LogPart } from '@/api/deployments';
import { BLOCK_LINES, blocksOf, grown, MOST_LINES, nextLook, NO_LOG } from './log';
import {
  abilityRows,
  applicationStatus,
  commitOf,
  currentOf,
  deploymentStatus,
  foundApplications,
  pushedWish,
  rollbackChoices,
  sentenceOf,
  stepsOf,
  took,
  underWay,
  worktreeName,
} from './words';

const A = 'a'.repeat(40);
const B = 'b'.repeat(40);
const C = 'c'.repeat(40);

const row = (fields: Partial<Deployment> = {}): Deployment => ({
  id: 'd1',
  environment_id: 'e1',
  session_id: 's1',
  app_id: 'app',
  app_name: 'shop',
  kind: 'deploy',
  status: 'pending',
  reason: null,
  branch: 'main',
  commit: A,
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
  created_at: '2026-01-01T10:00:00Z',
  updated_at: '2026-01-01T10:00:00Z',
  building_at: null,
  ended_at: null,
  health_at: null,
  metadata: {},
  ...fields,
});

const application = (fields: Partial<CoolifyApplication> = {}): CoolifyApplication => ({
  id: 'app',
  name: 'shop',
  branch: 'main',
  repository: 'lumen/shop',
  status: 'running:healthy',
  state: 'running',
  health: 'healthy',
  address: null,
  matches: false,
  ...fields,
});

const check = (fields: Partial<DeploymentCheck> = {}): DeploymentCheck => ({
  application: application(),
  source: 'user',
  branch: 'main',
  buildsBranch: 'main',
  matchesRepository: true,
  commit: A,
  ready: true,
  problems: [],
  live: null,
  ...fields,
});

const states = (fields: Partial<Deployment>) =>
  stepsOf(row(fields))
    .map(({ state }) => state)
    .join(' ');
const run = { coolify_deployment_id: 'r1' };

describe('the steps of a deployment', () => {
  it('are done one after the other', () => {
    expect(states({})).toBe('working waiting waiting waiting waiting');
    expect(states(run)).toBe('done working waiting waiting waiting');
    expect(states({ ...run, status: 'building' })).toBe('done done working waiting waiting');
    expect(states({ ...run, status: 'succeeded', health: 'waiting' })).toBe('done done done done working');
    expect(states({ ...run, status: 'succeeded', health: 'healthy' })).toBe('done done done done done');
    expect(states({ ...run, status: 'succeeded', health: 'running' })).toBe('done done done done done');
  });

  it('end where it failed or was cancelled, and tell why there', () => {
    const refused = stepsOf(row({ status: 'failed', reason: 'No such application.' }));
    expect(refused.map(({ state }) => state)).toEqual(['failed', ...Array<string>(4).fill('skipped')]);
    expect(refused[0]?.note).toBe('No such application.');
    expect(states({ ...run, status: 'failed' })).toBe('done done failed skipped skipped');
    expect(states({ status: 'cancelled' })).toBe('skipped skipped skipped skipped skipped');
    expect(states({ ...run, status: 'cancelled' })).toBe('done skipped skipped skipped skipped');
    const begun = { ...run, status: 'cancelled', building_at: '2026-01-01T10:00:05Z' } as const;
    expect(states(begun)).toBe('done done skipped skipped skipped');
    expect(states({ ...run, status: 'succeeded', health: 'unhealthy' })).toBe('done done done done failed');
    expect(states({ ...run, status: 'succeeded', health: 'superseded' })).toBe('done done done done skipped');
  });

  it('tell how many are before it, and how long the others took', () => {
    const queued = (queue_ahead: number | null) => stepsOf(row({ ...run, queue_ahead }))[1]?.note;
    expect([null, 0, 1, 3].map(queued)).toEqual([
      'Waiting for its turn.',
      'It is the next.',
      '1 deployment is before it.',
      '3 deployments are before it.',
    ]);
    const done = stepsOf(
      row({
        ...run,
        status: 'succeeded',
        health: 'healthy',
        building_at: '2026-01-01T10:00:40Z',
        ended_at: '2026-01-01T10:02:00Z',
        health_at: '2026-01-01T10:02:07Z',
      }),
    );
    expect(done.map(({ note }) => note)).toEqual([
      undefined,
      'Waited 40 s',
      'Took 1 min 20 s',
      undefined,
      'After 7 s',
    ]);
  });

  it('are told in a sentence to who cannot see them', () => {
    expect(sentenceOf(row({ reason: 'The queue is full.' }))).toBe(
      'shop: Asking Coolify. The queue is full.',
    );
    expect(sentenceOf(row({ ...run, status: 'succeeded', health: 'healthy' }))).toBe('shop: Healthy');
  });
});

describe('a deployment', () => {
  it('has a word and a shape for each state', () => {
    const words = (fields: Partial<Deployment>) => {
      const { kind, word } = deploymentStatus(row(fields));
      return `${kind} ${word}`;
    };
    expect(words({})).toBe('working Asking Coolify');
    expect(words(run)).toBe('working Queued');
    expect(words({ ...run, cancel_wanted: true })).toBe('working Cancelling');
    expect(words({ status: 'cancelled', cancel_wanted: true, live: false })).toBe('ended Cancelled');
    expect(words({ status: 'failed', live: false })).toBe('failed Failed');
    expect(words({ status: 'succeeded', health: 'unhealthy' })).toBe('attention Unhealthy');
    expect(words({ status: 'succeeded', health: 'running' })).toBe('ready Deployed');
  });

  it('that is under way is shown before a newer one that has ended', () => {
    const rows = [row({ id: 'new', live: false, status: 'failed' }), row({ id: 'old' })];
    expect(currentOf(rows)?.id).toBe('old');
    expect(currentOf([row({ id: 'only', live: false })])?.id).toBe('only');
    expect(currentOf([])).toBeUndefined();
  });

  it('tells when another commit was built than was asked for', () => {
    expect(commitOf(row({ built_commit: null }))).toEqual({ commit: A, other: false });
    expect(commitOf(row({ commit: A.slice(0, 7), built_commit: A }))).toEqual({ commit: A, other: false });
    expect(commitOf(row({ built_commit: B }))).toEqual({ commit: B, other: true });
  });

  it('keeps the very same one from being begun twice', () => {
    expect(underWay(check(), [row()])?.id).toBe('d1');
    expect(underWay(check({ commit: B }), [row()])).toBeUndefined();
    expect(underWay(check({ commit: null }), [row({ commit: null })])).toBeUndefined();
    expect(underWay(check(), [row({ live: false })])).toBeUndefined();
    expect(underWay(check(), [row({ pull_request_id: 3 })])).toBeUndefined();
    expect(underWay(check(), [row({ status: 'succeeded', health: 'waiting' })])).toBeUndefined();
  });

  it('took a time that can be said', () => {
    const at = (time: string) => `2026-01-01T${time}Z`;
    expect(took(at('10:00:00'), at('10:00:09'))?.words).toBe('9 s');
    expect(took(at('10:00:00'), at('10:02:00'))?.words).toBe('2 min');
    expect(took(at('10:00:00'), at('11:01:05'))?.words).toBe('1 h 1 min');
    expect(took(at('10:00:00'), at('09:00:00'))).toBeUndefined();
    expect(took(null, at('10:00:00'))).toBeUndefined();
  });
});

describe('what stands in the way', () => {
  const problem = (code: DeploymentCheck['problems'][number]['code']) => ({ code, message: '', details: '' });

  it('is passed by deploying what is pushed, of the branch that Coolify builds', () => {
    expect(pushedWish(check())).toBeUndefined();
    expect(pushedWish(check({ problems: [problem('UNPUSHED_WORK')] }))).toEqual({ pushedOnly: true });
    const other = [problem('UNCOMMITTED_WORK'), problem('OTHER_BRANCH')];
    expect(pushedWish(check({ problems: other, buildsBranch: 'live' }))).toEqual({
      pushedOnly: true,
      branch: 'live',
    });
    expect(pushedWish(check({ problems: other, buildsBranch: null }))).toBeUndefined();
  });

  it('is not passed where nobody here knows what it is', () => {
    const problems = [{ code: 'FROZEN', message: '', details: '' }] as unknown as DeploymentCheck['problems'];
    expect(pushedWish(check({ problems }))).toBeUndefined();
  });

  it('is looked for anew with each change of the worktree', () => {
    const status = {
      branch: 'a',
      ahead: 0,
      behind: 0,
      files: [],
      clean: true,
      head: A,
      detached: false,
      operation: null,
      truncated: false,
    };
    expect(worktreeName(status)).toBe(worktreeName({ ...status }));
    expect(worktreeName({ ...status, ahead: 1 })).not.toBe(worktreeName(status));
    expect(worktreeName({ ...status, head: B })).not.toBe(worktreeName(status));
    expect(worktreeName(undefined)).toBe('');
  });
});

describe('what can be gone back to', () => {
  const ended = (id: string, commit: string, fields: Partial<Deployment> = {}) =>
    row({ id, status: 'succeeded', commit, built_commit: commit, live: false, ...fields });

  it('is what Coolify has an image of, then what was deployed from here', () => {
    const kept = [
      { commit: B, createdAt: null, current: false },
      { commit: A, createdAt: '2026-01-02T00:00:00Z', current: true },
      { commit: A, createdAt: '2026-01-01T00:00:00Z', current: false },
    ];
    const history = [
      ended('now', A),
      ended('lost', C),
      ended('before', B, { created_at: '2025-12-31T00:00:00Z' }),
      ended('other', 'd'.repeat(40), { app_id: 'another' }),
      ended('failed', 'e'.repeat(40), { status: 'failed' }),
      ended('preview', 'f'.repeat(40), { pull_request_id: 7 }),
    ];
    const choices = rollbackChoices(kept, history, 'app');
    expect(choices.map(({ commit, current, kept }) => [commit, current, kept])).toEqual([
      [A, true, true],
      [B, false, true],
      [C, false, false],
    ]);
    expect(choices[1]).toMatchObject({ at: '2025-12-31T00:00:00Z', deployment: { id: 'before' } });
  });

  it('comes from the history alone where Coolify does not say', () => {
    const choices = rollbackChoices(
      undefined,
      [ended('now', A), ended('before', B), ended('again', A)],
      'app',
    );
    expect(choices.map(({ commit, current, kept }) => [commit, current, kept])).toEqual([
      [A, true, undefined],
      [B, false, undefined],
    ]);
  });
});

describe('applications', () => {
  it('of the same repository are first, then by name', () => {
    const list = [
      application({ id: '1', name: 'zebra' }),
      application({ id: '2', name: 'ant' }),
      application({ id: '3', name: 'yak', matches: true }),
    ];
    expect(foundApplications(list, '').map(({ name }) => name)).toEqual(['yak', 'ant', 'zebra']);
    expect(foundApplications(list, ' ZEB lumen').map(({ id }) => id)).toEqual(['1']);
    expect(foundApplications(list, 'zebra ant')).toEqual([]);
  });

  it('are shown as Coolify says they are', () => {
    const shown = (status: string) => {
      const [state = '', health = null] = status.split(':');
      const { kind, word } = applicationStatus(application({ status, state, health }));
      return `${kind} ${word}`;
    };
    expect(shown('running:healthy')).toBe('ready Healthy');
    expect(shown('running:unhealthy')).toBe('attention Unhealthy');
    expect(shown('running')).toBe('ready Running');
    expect(shown('exited:unhealthy')).toBe('ended Stopped');
    expect(shown('degraded:unhealthy')).toBe('attention Degraded');
    expect(shown('hibernating')).toBe('unknown hibernating');
  });
});

it('says of each ability whether the token has it', () => {
  const of = (read: boolean, deploy: boolean, readSensitive: boolean | null) =>
    abilityRows({ read, deploy, readSensitive }).map(({ id, state }) => `${id} ${state}`);
  expect(of(false, true, null)).toEqual(['deploy yes', 'read no', 'read:sensitive unknown']);
  expect(of(true, true, false)).toEqual(['deploy yes', 'read yes', 'read:sensitive no']);
});

describe('a build log', () => {
  const line = (order: number, text = `line ${order}`, stream: LogLine['stream'] = 'stdout'): LogLine => ({
    order,
    text,
    stream,
    at: null,
  });
  const part = (lines: LogLine[], fields: Partial<LogPart> = {}): LogPart => ({
    lines,
    next: Math.max(0, ...lines.map(({ order }) => order)),
    complete: false,
    truncated: false,
    available: true,
    reason: null,
    ...fields,
  });
  const many = (from: number, count: number) =>
    part(Array.from({ length: count }, (_, index) => line(from + index)));

  it('grows by what is new, in order, and nothing stands there twice', () => {
    const first = grown(NO_LOG, part([line(2), line(1), line(2)]));
    const second = grown(first, part([line(2), line(4), line(3)]));
    expect(second.lines.map(({ order }) => order)).toEqual([1, 2, 3, 4]);
    expect(second.next).toBe(4);
    expect(grown(second, part([], { next: 0 })).next).toBe(4);
  });

  it('stays the same list while nothing comes', () => {
    const first = grown(NO_LOG, part([line(1)]));
    expect(grown(first, part([], { complete: true })).lines).toBe(first.lines);
  });

  it('is text without what commands a terminal', () => {
    const { lines } = grown(NO_LOG, part([line(1, '\u001b[31mred\u001b[0m\u0007 <b>', 'stderr')]));
    expect(lines).toEqual([{ order: 1, text: 'red <b>', error: true }]);
  });

  it('keeps its newest lines by whole blocks, and says that there were more', () => {
    const full = grown(NO_LOG, many(1, MOST_LINES));
    expect(full.cut).toBe(false);
    const over = grown(full, many(MOST_LINES + 1, 3));
    expect(over.cut).toBe(true);
    expect(over.lines[0]?.order).toBe(BLOCK_LINES + 1);
    expect(over.lines.at(-1)?.order).toBe(MOST_LINES + 3);
    const [before, after] = [blocksOf(full.lines)[1], blocksOf(over.lines)[0]];
    expect(after).toEqual(before);
    expect(grown(NO_LOG, part([line(9)], { truncated: true })).cut).toBe(true);
  });

  it('is asked for again until it is complete, more slowly where it cannot be read', () => {
    const log = { complete: false, available: true };
    expect(nextLook(log, 0)).toBe(2_000);
    expect(nextLook({ ...log, available: false }, 0)).toBe(8_000);
    expect(nextLook({ ...log, complete: true }, 0)).toBeUndefined();
    expect(nextLook(log, 1)).toBe(4_000);
    expect(nextLook(log, 20)).toBe(30_000);
  });
});
