import { describe, expect, it } from 'vitest';
import { ApiError } from '@/api/errors';
import { problemsFrom } from './create';
import { discardedSentence } from './delete';
import { nameFromUrl, nameProblem, repositoryLabel, urlProblem } from './naming';
import { isReady, startSteps, withMessage, type Logs, type Starting } from './steps';

const states = (environment: Starting | undefined, withRepository = true) =>
  startSteps(environment, withRepository).map((step) => step.state);

const starting = (fields: Partial<Starting> = {}): Starting => ({
  status: 'starting',
  cloneStatus: 'pending',
  ...fields,
});

describe('the steps of a start', () => {
  it('go on with what the server says', () => {
    expect(states(undefined)).toEqual(['working', 'waiting', 'waiting']);
    expect(states(starting())).toEqual(['working', 'waiting', 'waiting']);
    expect(states(starting({ progress: { step: 'sandbox', message: '' } }))).toEqual([
      'done',
      'working',
      'waiting',
    ]);
    expect(states(starting({ status: 'running', cloneStatus: 'cloning' }))).toEqual([
      'done',
      'done',
      'working',
    ]);
    expect(states(starting({ status: 'running', cloneStatus: 'ready' }))).toEqual(['done', 'done', 'done']);
    expect(states(starting({ status: 'running', cloneStatus: 'none' }), false)).toEqual(['done', 'done']);
  });

  it('stop where it failed, with the reason', () => {
    const sandbox = starting({
      status: 'error',
      reason: 'no disk',
      progress: { step: 'sandbox', message: 'x' },
    });
    expect(states(sandbox)).toEqual(['done', 'failed', 'waiting']);
    expect(startSteps(sandbox, true)[1]?.note).toBe('no disk');
    const clone = starting({ status: 'running', cloneStatus: 'failed', cloneReason: 'no access' });
    expect(states(clone)).toEqual(['done', 'done', 'failed']);
    expect(startSteps(clone, true)[2]?.note).toBe('no access');
    expect(isReady(clone)).toBe(false);
  });

  it('keep what was said once, and the last lines only', () => {
    let logs: Logs = {};
    for (let line = 0; line < 500; line += 1) {
      const progress = { step: 'clone', message: `line ${line}` };
      logs = withMessage(withMessage(logs, progress), progress);
    }
    expect(logs.clone).toHaveLength(200);
    expect(logs.clone?.at(-1)).toBe('line 499');
    expect(withMessage(logs, null)).toBe(logs);
  });
});

describe('names and addresses', () => {
  it('offers the repository’s name for the environment', () => {
    expect(nameFromUrl('https://github.com/lumen/store.git')).toBe('store');
    expect(nameFromUrl(' git@github.com:lumen/store ')).toBe('store');
    expect(nameFromUrl('https://github.com/lumen/store/?tab=1')).toBe('store');
    for (const text of ['', 'https://', 'https://github.com', 'https://github.com/', 'word']) {
      expect(nameFromUrl(text)).toBe('');
    }
  });

  it('says what is plainly wrong before the server is asked', () => {
    expect(urlProblem('https://github.com/a/b')).toBeUndefined();
    expect(urlProblem('git@github.com:a/b')).toBeUndefined();
    expect(urlProblem('https://user:secret@host/a')).toMatch(/password/u);
    expect(urlProblem('word')).toMatch(/looks like/u);
    expect(nameProblem(' a')).toMatch(/space/u);
    expect(nameProblem('x'.repeat(65))).toMatch(/64/u);
    expect(nameProblem('x'.repeat(64))).toBeUndefined();
  });

  it('shortens an address only for hosts that everyone knows', () => {
    expect(repositoryLabel('https://github.com/a/b.git')).toBe('a/b');
    expect(repositoryLabel('https://git.example.com/a/b')).toBe('git.example.com/a/b');
  });

  it('puts a refusal beside the field it is about', () => {
    const refusal = (code: string) => problemsFrom(new ApiError('No', { status: 400, code }));
    expect(refusal('UPSTREAM_NOT_ALLOWED')).toEqual({ url: 'No' });
    expect(refusal('ENVIRONMENT_NAME_IN_USE')).toEqual({ name: 'No' });
    expect(refusal('BRANCH_NAME_INVALID')).toEqual({ branch: 'No' });
    expect(refusal('INTERNAL_ERROR')).toEqual({});
  });

  it('says what was lost', () => {
    expect(
      discardedSentence([
        { branch: 'a', unpushed: 2, uncommitted: true },
        { branch: 'b', unpushed: 0, uncommitted: true },
      ]),
    ).toBe('Gone with it: a: 2 unpushed commits and uncommitted changes; b: uncommitted changes.');
  });
});
