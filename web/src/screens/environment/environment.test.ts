import { describe, expect, it } from 'vitest';
import { ApiError } from '@/api/errors';
import type { Branch, GitStatus } from '@/api/git';
import type { Setup } from '@/api/sessions';
import type { Session } from '@/api/types';
import { firstForm, unfitBranch } from './create-session';
import { newSessionAt } from './new-session';
import { plainLog } from './plain-log';
import { unsavedWork } from './session-dialogs';
import { worthShowing } from './setup';
import {
  branchesFitting,
  branchFromName,
  branchOf,
  branchProblem,
  nameOf,
  problemsFrom,
  problemsOf,
  pullNumber,
  wanted,
  type SessionForm,
} from './start-from';
import { onlyHere } from './unsaved';
import { byActivity, distance, isolationShown, keptSentence, pushShown, startedFrom } from './words';

const form = (fields: Partial<SessionForm> = {}): SessionForm => ({
  ...firstForm({ branch: 'main' }, {}),
  ...fields,
});

const branch = (name: string, fields: Partial<Branch> = {}): Branch => ({
  name,
  current: false,
  local: true,
  remote: true,
  head: 'a'.repeat(40),
  ahead: 0,
  behind: 0,
  subject: '',
  date: '',
  ...fields,
});

const session = (id: string, fields: Partial<Session> = {}): Session => ({
  id,
  environmentId: 'e',
  name: id,
  tmuxSessionName: id,
  workingDirectory: '/w',
  status: 'inactive',
  createdAt: '2026-01-01T00:00:00.000Z',
  updatedAt: '2026-01-01T00:00:00.000Z',
  agentId: null,
  sessionType: 'terminal',
  gitBranch: id,
  ...fields,
});

describe('a branch’s name', () => {
  it('follows from what the work is called', () => {
    expect(branchFromName('Fix the cart')).toBe('fix-the-cart');
    expect(branchFromName('Größere Körbe!')).toBe('grossere-korbe');
    expect(branchFromName('  ada/Try #2.. ')).toBe('ada/try-2');
    expect(branchFromName('購物車 修正')).toBe('購物車-修正');
    for (const text of ['', '...', '///', '!?']) expect(branchFromName(text)).toBe('');
  });

  it('is one that git takes, whatever was typed', () => {
    for (const text of ['a..b', 'a.lock/b', '-x', 'a//b', 'x~^:?*[\\', 'A\tB', 'long '.repeat(80)]) {
      const name = branchFromName(text);
      expect(name === '' ? undefined : branchProblem(name)).toBeUndefined();
    }
  });

  it('is refused where git would refuse it', () => {
    for (const name of [
      '',
      'a b',
      'a..b',
      '-a',
      '/a',
      'a/',
      'a//b',
      '.a',
      'a/.b',
      'a.lock',
      'a~1',
      '@',
      'a@{1}',
    ]) {
      expect(branchProblem(name)).toBeTypeOf('string');
    }
    for (const name of ['main', 'feature/gift-cards', 'v1.2', 'ünï/cödé']) {
      expect(branchProblem(name)).toBeUndefined();
    }
  });
});

describe('a new session', () => {
  it('is asked for by what it starts from', () => {
    expect(wanted(form({ name: 'Fix it' }), 'e', true)).toEqual({
      environmentId: 'e',
      name: 'Fix it',
      sessionType: 'terminal',
      branch: 'fix-it',
      baseBranch: 'main',
    });
    expect(wanted(form({ from: 'existing', existing: 'a/b' }), 'e', true)).toMatchObject({
      name: 'a/b',
      branch: 'a/b',
    });
    expect(wanted(form({ from: 'existing', existing: 'a/b' }), 'e', true)).not.toHaveProperty('baseBranch');
    expect(wanted(form({ from: 'pull', pull: '#7' }), 'e', true)).toMatchObject({
      name: 'pr-7',
      branch: 'pr-7',
      pullRequest: 7,
    });
    expect(wanted(form({ from: 'commit', name: 'x', commit: ' ABCDEF1 ' }), 'e', true)).toMatchObject({
      baseCommit: 'abcdef1',
    });
    expect(wanted(form({ name: 'x' }), 'e', false)).toEqual({
      environmentId: 'e',
      name: 'x',
      sessionType: 'terminal',
    });
  });

  it('says what is missing, by field', () => {
    expect(Object.keys(problemsOf(form(), true))).toEqual(['name']);
    expect(Object.keys(problemsOf(form({ from: 'existing' }), true))).toEqual(['name', 'existing']);
    expect(problemsOf(form({ from: 'pull', name: 'x', pull: 'seven' }), true)).toHaveProperty('pull');
    expect(problemsOf(form({ from: 'commit', name: 'x', commit: 'abc' }), true)).toHaveProperty('commit');
    expect(problemsOf(form({ name: '!!' }), true)).toHaveProperty('branch');
    expect(problemsOf(form({ name: '!!' }), false)).toEqual({});
    expect(problemsOf(form({ name: 'a', branch: 'b c' }), true)).toHaveProperty('branch');
  });

  it('puts a refusal beside the field it is about', () => {
    const refusal = (code: string) => new ApiError('No', { status: 409, code });
    expect(problemsFrom(refusal('SESSION_NAME_IN_USE'), 'new')).toEqual({ name: 'No' });
    expect(problemsFrom(refusal('BASE_NOT_FOUND'), 'commit')).toEqual({ commit: 'No' });
    expect(problemsFrom(refusal('BRANCH_IN_USE'), 'existing')).toEqual({ existing: 'No' });
    expect(problemsFrom(refusal('BRANCH_EXISTS'), 'new')).toEqual({ branch: 'No' });
    expect(problemsFrom(refusal('TOO_MANY_SESSIONS'), 'new')).toEqual({});
  });

  it('begins with what its address asks for', () => {
    const at = new URL(newSessionAt('e', { branch: 'a&b' }), 'http://x');
    expect(at.searchParams.get('branch')).toBe('a&b');
    expect(firstForm({ branch: 'main' }, { branch: 'a&b' })).toMatchObject({
      from: 'existing',
      existing: 'a&b',
    });
    expect(firstForm({ branch: 'main' }, { commit: 'abc' }).from).toBe('commit');
    expect(branchOf(form({ from: 'pull' }))).toBe('pr-number');
    expect(nameOf(form({ from: 'pull', pull: '9' }))).toBe('pr-9');
  });

  it('reads a pull request’s number from what people paste', () => {
    expect(pullNumber('42')).toBe(42);
    expect(pullNumber(' #42 ')).toBe(42);
    expect(pullNumber('https://github.com/a/b/pull/42/files')).toBe(42);
    expect(pullNumber('https://gitlab.com/a/b/-/merge_requests/3#note')).toBe(3);
    for (const text of ['', '0', '-1', '1.5', '99999999999', 'pull'])
      expect(pullNumber(text)).toBeUndefined();
  });

  it('finds branches, those that begin with the text first', () => {
    const all = [branch('fix/cart'), branch('cart'), branch('main')];
    expect(branchesFitting(all, 'CART').map(({ name }) => name)).toEqual(['cart', 'fix/cart']);
    expect(branchesFitting(all, ' ')).toHaveLength(3);
    expect(unfitBranch(branch('a', { sessionId: 's' }))).toBe('has a session');
    expect(unfitBranch(branch('a', { current: true }))).toBe('is checked out');
    expect(unfitBranch(branch('a'))).toBeUndefined();
  });
});

describe('a program’s output', () => {
  it('is readable without a terminal', () => {
    expect(plainLog('\u001b[32mok\u001b[0m\r\n')).toBe('ok');
    expect(plainLog('10%\r50%\r100%\nnext')).toBe('100%\nnext');
    expect(plainLog('\u001b]0;title\u0007a\u001b]8;;http://x\u001b\\link\u001b]8;;\u001b\\')).toBe('alink');
    expect(plainLog('a\u001b(Bb\u0000\u0008c\u202ed')).toBe('abcd');
    expect(plainLog('\u001b')).toBe('');
  });

  it('is bounded', () => {
    expect(plainLog('x\n'.repeat(10_000)).split('\n').length).toBeLessThanOrEqual(3_000);
    expect(plainLog('y'.repeat(100_000))).toHaveLength(4_000);
    const started = performance.now();
    plainLog('\u001b['.repeat(200_000));
    plainLog('\u001b]'.repeat(200_000));
    expect(performance.now() - started).toBeLessThan(2_000);
  });
});

describe('what is said', () => {
  const status = (fields: Partial<GitStatus>): GitStatus => ({
    branch: 'a',
    upstream: 'origin/a',
    ahead: 0,
    behind: 0,
    files: [],
    clean: true,
    head: 'a',
    detached: false,
    operation: null,
    truncated: false,
    ...fields,
  });

  it('of work that is only in a session', () => {
    expect(unsavedWork(status({}))).toBeUndefined();
    expect(unsavedWork(status({ ahead: 1 }))).toBe('1 unpushed commit');
    expect(unsavedWork(status({ upstream: null }))).toBe('a branch that was never pushed');
    const all = [
      branch('a'),
      branch('b', { ahead: 2 }),
      branch('c', { remote: false }),
      branch('d', { local: false, ahead: 9 }),
    ];
    expect(onlyHere(all).map(({ name }) => name)).toEqual(['b', 'c']);
    expect(keptSentence({ unpushed: 2, uncommitted: true })).toBe(
      '2 unpushed commits and uncommitted changes',
    );
  });

  it('of branches and pushes', () => {
    expect(distance({ ahead: 1, behind: 2 })).toBe('1 commit to push, 2 commits to pull');
    expect(distance({ ahead: 0, behind: 0 })).toBe('Up to date');
    const [zero, one, two] = ['0', '1', '2'].map((digit) => digit.repeat(40)) as [string, string, string];
    expect(pushShown({ ref: 'refs/heads/a/b', old: zero, new: one })).toEqual({
      name: 'a/b',
      kind: 'branch',
      what: 'created at 11111111',
    });
    expect(pushShown({ ref: 'refs/tags/v1', old: one, new: zero }).what).toBe('deleted, was 11111111');
    expect(pushShown({ ref: 'refs/notes/x', old: one, new: two })).toMatchObject({
      name: 'refs/notes/x',
      kind: 'ref',
    });
  });

  it('of sessions', () => {
    const later = session('b', { lastActivity: '2026-02-01T00:00:00.000Z' });
    const { living, ended } = byActivity([session('a'), later, session('c', { status: 'dead' })]);
    expect(living.map(({ id }) => id)).toEqual(['b', 'a']);
    expect(ended.map(({ id }) => id)).toEqual(['c']);
    expect(startedFrom({ startedFrom: { pullRequest: 7, commit: 'abcdef0123' } })).toBe(
      'pull request 7 at abcdef01',
    );
    expect(startedFrom({ startedFrom: { baseCommit: 'abcdef0', commit: 'abcdef0123' } })).toBe(
      'commit abcdef01',
    );
    expect(startedFrom({})).toBeUndefined();
  });

  it('of the sandbox’s walls, never better than they are', () => {
    expect(isolationShown('network isolation: verified')?.tone).toBe('ok');
    expect(isolationShown('network isolation: not verified; it reached 10.0.0.1')?.tone).toBe('warn');
    expect(isolationShown(null)).toBeUndefined();
  });

  it('of a setup, only where there is something to say', () => {
    const none: Setup = { status: 'none', log: '', truncated: false, copied: [], warnings: [] };
    expect(worthShowing(none)).toBe(false);
    expect(worthShowing({ ...none, error: 'line 1' })).toBe(true);
    expect(worthShowing({ ...none, command: 'npm ci' })).toBe(true);
  });
});
