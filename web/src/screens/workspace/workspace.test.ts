import { describe, expect, it } from 'vitest';
import type { GitStatus, StatusFile } from '@/api/git';
import { fileStatus, inOrder, nextStep, totals } from './git-words';

const file = (filename: string, fields: Partial<StatusFile> = {}): StatusFile => ({
  filename,
  status: 'M',
  staged: false,
  modified: true,
  untracked: false,
  conflicted: false,
  ...fields,
});

const status = (fields: Partial<GitStatus> = {}): GitStatus => ({
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

describe('the one thing to do next', () => {
  it('is to commit before anything is pushed', () => {
    expect(nextStep(status({ files: [file('a')], ahead: 3 }))).toEqual({ step: 'commit', files: 1 });
    expect(nextStep(status({ truncated: true })).step).toBe('commit');
  });

  it('is to push what the remote has not, for the first time too', () => {
    expect(nextStep(status({ ahead: 2 }))).toEqual({ step: 'push', commits: 2, first: false });
    expect(nextStep(status({ upstream: null }))).toEqual({ step: 'push', commits: 0, first: true });
  });

  it('is to pull where only the remote went on', () => {
    expect(nextStep(status({ behind: 4 }))).toEqual({ step: 'pull', commits: 4 });
    expect(nextStep(status({ behind: 4, ahead: 1 })).step).toBe('push');
  });

  it('is to end what was begun, conflicts first', () => {
    expect(nextStep(status({ operation: 'rebase', ahead: 1 })).step).toBe('resolve');
    expect(nextStep(status({ files: [file('a', { conflicted: true })] })).step).toBe('resolve');
  });

  it('is nothing where there is nothing to do or no way to do it', () => {
    expect(nextStep(status())).toEqual({ step: 'none', why: 'Up to date' });
    expect(nextStep(status({ detached: true, ahead: 1 })).step).toBe('none');
    expect(nextStep(status({ head: null, upstream: null })).step).toBe('none');
  });
});

describe('a changed file', () => {
  it('has one state, from git’s two letters', () => {
    const of = (letters: string, fields: Partial<StatusFile> = {}) =>
      fileStatus(file('x', { status: letters, ...fields }));
    expect(of('??', { untracked: true })).toBe('added');
    expect(of('AM')).toBe('added');
    expect(of('AD')).toBe('added');
    expect(of('MM')).toBe('modified');
    expect(of('MD')).toBe('deleted');
    expect(of('D')).toBe('deleted');
    expect(of('RM')).toBe('renamed');
    expect(of('UU', { conflicted: true })).toBe('conflict');
    expect(of('X')).toBe('unknown');
  });

  it('stands in the list by its name, after those with conflicts', () => {
    const names = inOrder([file('b'), file('a'), file('z', { conflicted: true })]).map((one) => one.filename);
    expect(names).toEqual(['z', 'a', 'b']);
    expect(totals([file('a', { added: 2, deleted: 1 }), file('b')])).toEqual({ added: 2, removed: 1 });
  });
});
