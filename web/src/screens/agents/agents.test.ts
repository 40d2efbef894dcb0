import { describe, expect, it } from 'vitest';
import { answeredBefore, type AgentType, type CredentialKind } from '@/api/agents';
import { ApiError } from '@/api/errors';
import { formatBytes } from '@/app/bytes';
import { lateWord } from '../inbox/answers';
import { busy, EscapeTwice, limitFrom, promptsShown, receiptWord, waits } from '../workspace/agent-words';
import { wishOf } from './create';
import { baseUrlProblem, credentialProblem, enters, isInstallable, kindOf, MAX_FILE } from './words';

const kind = (
  type: string,
  delivery: CredentialKind['delivery'],
  aliases: string[] = [],
): CredentialKind => ({
  type,
  title: type,
  delivery,
  entersSandbox: delivery !== 'gateway',
  readableBy: '',
  aliases,
  takesBaseUrl: delivery === 'gateway',
});
const key = kind('api_key', 'gateway', ['old_name']);
const file = kind('login', 'file');
const type: AgentType = { name: 'cli', title: 'The CLI', version: '1', credentials: [key, file] };
const blank = { type: 'cli', name: '', kind: 'api_key', value: '', baseUrl: '', model: '' };

describe('an agent’s credential', () => {
  it('is found under its other names, and none is none', () => {
    expect(kindOf({ type: 'cli', credential_type: 'old_name' }, [type])).toBe(key);
    expect(kindOf({ type: 'cli', credential_type: null }, [type])).toBeUndefined();
    expect(kindOf({ type: 'gone', credential_type: 'api_key' }, [type])).toBeUndefined();
    expect([key, file, undefined].map(enters)).toEqual([false, true, false]);
  });

  it('is looked over before it is sent', () => {
    expect(credentialProblem(' ', key)).toBeDefined();
    expect(credentialProblem(' sk-1 ', key)).toBeUndefined();
    expect(credentialProblem('sk-1\nsk-2', key)).toContain('line breaks');
    expect(credentialProblem('{\n}', file)).toBeUndefined();
    expect(credentialProblem('x'.repeat(MAX_FILE + 1), file)).toContain('much smaller');
  });

  it('is sent without what was pasted round it, a file as it is', () => {
    expect(wishOf({ ...blank, value: ' sk-1\n' }, type, key)).toEqual({
      name: 'The CLI',
      type: 'cli',
      credential: { type: 'api_key', value: 'sk-1' },
    });
    expect(wishOf({ ...blank, name: 'Mine', kind: 'login', value: '{}\n' }, type, file).credential).toEqual({
      type: 'login',
      value: '{}\n',
    });
  });

  it('goes to another address only where the server is who sends it', () => {
    const address = { ...blank, value: 'x', baseUrl: 'https://models.example.com', model: 'm' };
    expect(wishOf(address, type, key)).toMatchObject({ baseUrl: 'https://models.example.com', model: 'm' });
    expect(wishOf(address, type, file)).not.toHaveProperty('baseUrl');
    expect(baseUrlProblem('')).toBeUndefined();
    expect(baseUrlProblem('https://models.example.com/v1')).toBeUndefined();
    for (const wrong of ['models', 'ftp://a/b', 'https://me:secret@a/b', 'https://a/b?key=1']) {
      expect(baseUrlProblem(wrong)).toBeDefined();
    }
  });
});

it('what the server cannot install is told from what it can', () => {
  expect(isInstallable({ version: '1' })).toBe(true);
  expect(isInstallable({ version: null })).toBe(false);
  expect(isInstallable({ version: null, installable: true })).toBe(true);
  expect(isInstallable({ version: '1', installable: false })).toBe(false);
});

describe('an answer', () => {
  const refusal = (status: number, code: string, message = 'It was answered in the terminal') =>
    new ApiError(message, { status, code });

  it('that came too late is told with who was first', () => {
    expect(answeredBefore(refusal(409, 'APPROVAL_ANSWERED'))).toBe(true);
    expect(answeredBefore(refusal(404, 'APPROVAL_NOT_FOUND'))).toBe(true);
    expect(answeredBefore(refusal(409, 'SOMETHING_ELSE'))).toBe(false);
    expect(answeredBefore(refusal(0, 'NETWORK'))).toBe(false);
    expect(lateWord(refusal(409, 'APPROVAL_ANSWERED'))).toBe('It was answered in the terminal.');
    expect(lateWord(refusal(404, 'APPROVAL_NOT_FOUND'))).toBe('It does not wait any more.');
  });
});

describe('a prompt', () => {
  const prompt = (id: string, status: 'queued' | 'delivered' | 'blocked', minute: number) => ({
    id,
    text: id,
    status,
    reason: null,
    createdAt: `2026-01-01T12:0${minute}:00.000Z`,
  });

  it('is shown while it waits, and what was sent from here until it is there', () => {
    const all = [prompt('c', 'queued', 3), prompt('a', 'delivered', 1), prompt('b', 'blocked', 2)];
    expect(promptsShown(all, undefined).map((one) => one.id)).toEqual(['b', 'c']);
    expect(promptsShown(all, 'a').map((one) => one.id)).toEqual(['a', 'b', 'c']);
    expect(all.filter(waits).map((one) => one.id)).toEqual(['c', 'b']);
  });

  it('has a receipt with the reason', () => {
    expect(receiptWord({ status: 'queued' }).word).toBe('Queued, until the agent is done');
    expect(receiptWord({ status: 'blocked', reason: 'The agent has ended.' })).toEqual({
      kind: 'attention',
      word: 'Blocked: The agent has ended.',
    });
    expect(receiptWord({ status: 'delivered' })).toEqual({ kind: 'ready', word: 'Delivered' });
    expect(receiptWord({ status: 'delivered', reason: 'not confirmed' }).kind).toBe('unknown');
  });
});

it('reads a number of tokens as people write one', () => {
  expect(['', ' ', '200000', '200 000', '1,000'].map(limitFrom)).toEqual([
    null,
    null,
    200_000,
    200_000,
    1_000,
  ]);
  expect(['0', '-5', 'many', '1e6', '.', '9'.repeat(13)].map(limitFrom)).toEqual(Array(6).fill(undefined));
});

describe('interrupting', () => {
  it('takes Escape twice in a row, and soon', () => {
    const escape = new EscapeTwice();
    expect(escape.press('Escape', 0)).toBe(false);
    expect(escape.press('Escape', 500)).toBe(true);
    expect(escape.press('Escape', 600)).toBe(false);
    expect(escape.press('Escape', 5_000)).toBe(false);
    expect(escape.press('a', 5_100)).toBe(false);
    expect(escape.press('Escape', 5_200)).toBe(false);
  });

  it('is for who works or waits', () => {
    expect((['working', 'waiting_permission'] as const).every(busy)).toBe(true);
    expect((['idle', 'done', 'exited', 'error', 'unknown', null] as const).some(busy)).toBe(false);
  });
});

it('says sizes in words', () => {
  expect([0, 1_023, 1_536, 300 << 10].map(formatBytes)).toEqual([
    '0 bytes',
    '1023 bytes',
    '1.5 KiB',
    '300 KiB',
  ]);
});
