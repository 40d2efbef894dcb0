import { describe, expect, it } from 'vitest';
import { ApiError } from '@/api/errors';
import { commitNames, messageHint, subjectOf } from './commit';
import { lastUpTo } from './diff-list';
import { reviewFiles } from './diff/files';
import { apartOf, filesOf, isOutput, waysOn, withoutColours } from './refusals';
import { diffOf, placeFrom, placeParams, shortRef, usualBase } from './scope';
import { refNames } from './history';
import { standing } from './sync';

const refusal = (code: string, body: Record<string, unknown> = {}, details?: string) =>
  new ApiError('no', { status: 409, code, body, details });
const status = (filename: string, more: object = {}) => ({
  filename,
  status: 'M',
  staged: false,
  modified: true,
  untracked: false,
  conflicted: false,
  ...more,
});

describe('what a commit takes', () => {
  const files = reviewFiles({
    diff: '',
    files: [
      { filename: 'new.ts', originalFilename: 'old.ts', status: 'R' },
      { filename: 'x\ufffd', filenameBase64: 'eP8=', status: 'M' },
      { filename: 'copy.ts', originalFilename: 'from.ts', status: 'C' },
    ],
  });

  it('takes the old name of a rename that git has not noted, and not of one that it has', () => {
    const seen = { files: [status('old.ts'), status('new.ts'), status('from.ts')] };
    expect(commitNames(files, seen)).toEqual({
      files: ['new.ts', 'old.ts', 'copy.ts'],
      filenamesBase64: ['eP8='],
    });
    const noted = { files: [status('new.ts', { originalFilename: 'old.ts', status: 'R' })] };
    expect(commitNames(files.slice(0, 1), noted)).toEqual({ files: ['new.ts'] });
  });

  it('says what is odd about a message', () => {
    expect(messageHint('Short\n\nand more')).toBeUndefined();
    expect(messageHint('x'.repeat(73))).toContain('72');
    expect(messageHint('one\ntwo')).toContain('blank');
    expect(subjectOf('  a b \nc')).toBe('a b');
  });
});

describe('the place of a review', () => {
  it('is in the address, and reads whatever stands there', () => {
    for (const place of [
      { scope: { kind: 'uncommitted' as const }, file: undefined },
      { scope: { kind: 'staged' as const }, file: 'a b.ts' },
      { scope: { kind: 'base' as const, base: 'origin/main' }, file: undefined },
    ]) {
      expect(placeFrom(new URLSearchParams(placeParams(place)))).toEqual(place);
    }
    expect(placeFrom(new URLSearchParams('scope=nonsense')).scope).toEqual({ kind: 'uncommitted' });
    expect(placeFrom(new URLSearchParams('scope=base')).scope).toEqual({ kind: 'uncommitted' });
  });

  it('compares with the last commit by its hash, and with nothing before the first', () => {
    expect(diffOf({ kind: 'uncommitted' }, { head: 'abc' })).toEqual({ base: 'abc' });
    expect(diffOf({ kind: 'uncommitted' }, { head: null })).toEqual({});
    expect(diffOf({ kind: 'staged' }, { head: 'abc' })).toEqual({ staged: true });
  });

  it("begins from the environment's branch, as the remote has it", () => {
    const branch = (name: string, remote: boolean) => ({
      name,
      remote,
      current: false,
      local: true,
      head: '',
      ahead: 0,
      behind: 0,
      subject: '',
      date: '',
    });
    const list = [branch('main', true), branch('develop', false)];
    expect(usualBase(list, 'develop', 'main')).toBe('develop');
    expect(usualBase(list, 'gone', null)).toBe('origin/main');
    expect(usualBase(undefined, 'main', null)).toBeUndefined();
    expect(shortRef('a'.repeat(40))).toBe('aaaaaaaa');
    expect(shortRef('deadbeef-branch')).toBe('deadbeef-branch');
  });
});

describe('refusals', () => {
  it('each have a way on', () => {
    expect(waysOn(refusal('PUSH_REJECTED'))).toContain('pull');
    expect(waysOn(refusal('COMMIT_REFUSED'))).toContain('skip-hooks');
    expect(waysOn(refusal('SOMETHING_NEW'))).toEqual(['retry']);
    expect(waysOn(new Error('x'))).toEqual(['retry']);
  });

  it('tell what came with them, whatever came', () => {
    expect(filesOf(refusal('MERGE_CONFLICTS', { files: ['a', 3, 'b'] }))).toEqual(['a', 'b']);
    expect(filesOf(refusal('MERGE_CONFLICTS', { files: 'a' }))).toEqual([]);
    expect(apartOf(refusal('PULL_DIVERGED', { ahead: 1, behind: 2 }))).toEqual({ ahead: 1, behind: 2 });
    expect(apartOf(refusal('PULL_DIVERGED'))).toBeUndefined();
    expect(isOutput(refusal('GIT_LOCKED', {}, 'one line'))).toBe(false);
    expect(isOutput(refusal('COMMIT_REFUSED', {}, 'one line'))).toBe(true);
  });
});

describe('withoutColours', () => {
  it('leaves the words', () => {
    expect(withoutColours('\u001b[1;31merror\u001b[0m: \u001b]8;;https://x\u0007link\u001b]8;;\u0007')).toBe(
      'error: link',
    );
    expect(withoutColours('a\u001bb')).toBe('a\u001bb');
  });
});

describe('standing', () => {
  const at = (more: object) => ({
    branch: 'x',
    ahead: 0,
    behind: 0,
    upstream: 'origin/x',
    detached: false,
    head: 'a',
    ...more,
  });
  it('says how a branch stands to the remote', () => {
    expect(standing(at({}))).toBe('Up to date');
    expect(standing(at({ ahead: 1 }))).toBe('1 commit to push');
    expect(standing(at({ ahead: 2, behind: 1 }))).toBe('2 commits to push, 1 commit to pull');
    expect(standing(at({ upstream: undefined }))).toBe('Not pushed yet');
    expect(standing(at({ upstream: 'origin/main', ahead: 1 }))).toBe(
      'Not pushed yet, 1 commit beyond origin/main',
    );
    expect(standing(at({ upstream: 'origin/main' }))).toBe('Not pushed yet, as origin/main');
    expect(standing(at({ detached: true }))).toContain('no branch');
    expect(standing(at({ head: null }))).toBe('No commit yet');
  });
});

describe('refNames', () => {
  it('calls refs as people do', () => {
    const refs = [
      'HEAD',
      'refs/heads/a/b',
      'refs/remotes/origin/HEAD',
      'refs/remotes/origin/a',
      'refs/tags/v1',
    ];
    expect(refNames(refs)).toEqual(['a/b', 'origin/a', 'v1']);
  });
});

describe('lastUpTo', () => {
  it('finds the last place that is not after another', () => {
    expect([0, 4, 5, 9, 99].map((at) => lastUpTo([0, 5, 9], at))).toEqual([0, 0, 5, 9, 9]);
    expect(lastUpTo([3], 2)).toBe(-1);
    expect(lastUpTo([], 2)).toBe(-1);
  });
});
