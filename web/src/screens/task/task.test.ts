import { QueryClient } from '@tanstack/react-query';
import { describe, expect, it } from 'vitest';
import { keys } from '@/api/queries';
import type { ListedEnvironment } from '@/api/types';
import { urlProblem } from '../environments/naming';
import { whenReady } from './run';
import {
  freeName,
  nameFromPrompt,
  taskName,
  taskProblems,
  wantedEnvironment,
  wantedSession,
  type TaskForm,
} from './words';

const form = (fields: Partial<TaskForm> = {}): TaskForm => ({
  prompt: 'Round the total',
  source: 'environment',
  environmentId: 'e1',
  url: '',
  base: '',
  agentId: 'a1',
  name: '',
  environmentName: '',
  ...fields,
});

describe('a task’s name', () => {
  it('is the first words of what is to be done, as a branch spells them', () => {
    expect(nameFromPrompt('Round the total of the cart, please!\nAnd test it.')).toBe(
      'round-the-total-of-the-cart',
    );
    expect(nameFromPrompt('  Fix src/cart.py: it rounds twice ')).toBe('fix-src-cart.py-it-rounds-twice');
    expect(nameFromPrompt('Überarbeite die Prüfung')).toBe('uberarbeite-die-prufung');
    expect(nameFromPrompt('?!')).toBe('');
    expect(taskName({ name: '', prompt: '?!' })).toBe('task');
    expect(taskName({ name: ' mine ', prompt: 'Round' })).toBe('mine');
  });

  it('is short, cut where a word ends', () => {
    const name = nameFromPrompt('internationalisation characterisation standardisation of everything');
    expect(name).toBe('internationalisation-characterisation');
    expect(nameFromPrompt('x'.repeat(300))).toHaveLength(40);
  });

  it('is made free with a number', () => {
    expect(freeName('fix', new Set())).toBe('fix');
    expect(freeName('fix', new Set(['fix', 'fix-2']))).toBe('fix-3');
  });
});

describe('what is sent', () => {
  it('is an agent session on a new branch that begins where it was said', () => {
    const environment = { id: 'e1', branch: 'main', repositoryUrl: 'https://git.example.com/a/b' };
    expect(wantedSession(form(), environment, 'round-the-total')).toEqual({
      environmentId: 'e1',
      name: 'round-the-total',
      sessionType: 'agent',
      agentId: 'a1',
      prompt: 'Round the total',
      branch: 'round-the-total',
      baseBranch: 'main',
    });
    expect(wantedSession(form({ base: 'next' }), environment, 'x').baseBranch).toBe('next');
  });

  it('has no branch where there is no repository', () => {
    expect(wantedSession(form(), { id: 'e1', branch: 'main' }, 'x')).not.toHaveProperty('branch');
  });

  it('makes an environment for a repository', () => {
    const one = form({ source: 'url', url: ' https://git.example.com/a/b.git ', base: 'next' });
    expect(wantedEnvironment(one, 'b')).toEqual({
      name: 'b',
      repositoryUrl: 'https://git.example.com/a/b.git',
      branch: 'next',
    });
  });
});

it('a task needs words, an agent and a place', () => {
  const known = { agents: new Set(['a1']), environments: new Set(['e1']) };
  const problems = (fields: Partial<TaskForm>) => Object.keys(taskProblems(form(fields), known, urlProblem));
  expect(problems({})).toEqual([]);
  expect(problems({ prompt: ' \n' })).toEqual(['prompt']);
  expect(problems({ agentId: 'gone' })).toEqual(['agent']);
  expect(problems({ environmentId: '' })).toEqual(['environment']);
  expect(problems({ source: 'url', environmentId: '' })).toEqual(['url']);
  expect(problems({ source: 'url', url: 'https://git.example.com/a/b' })).toEqual([]);
});

describe('an environment that is being made', () => {
  const listed = (fields: Partial<ListedEnvironment>) =>
    [
      { id: 'e1', status: 'starting', cloneStatus: 'pending', sessions: [], ...fields },
    ] as unknown as ListedEnvironment[];

  it('is waited for until its repository is there too', async () => {
    const queries = new QueryClient();
    queries.setQueryData(keys.environments, listed({}));
    let ready = false;
    const waiting = whenReady(queries, 'e1').then((one) => {
      ready = true;
      return one;
    });
    queries.setQueryData(keys.environments, listed({ status: 'running', cloneStatus: 'cloning' }));
    await new Promise((resolve) => setTimeout(resolve)); // all that is due has run
    expect(ready).toBe(false);
    queries.setQueryData(keys.environments, listed({ status: 'running', cloneStatus: 'ready' }));
    expect((await waiting).id).toBe('e1');
  });

  it('is given up with the reason when its start fails', async () => {
    const queries = new QueryClient();
    queries.setQueryData(keys.environments, listed({}));
    const waiting = whenReady(queries, 'e1');
    queries.setQueryData(keys.environments, listed({ status: 'error', reason: 'no disk' }));
    await expect(waiting).rejects.toThrow('no disk');
  });
});
