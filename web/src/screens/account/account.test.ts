import { describe, expect, it } from 'vitest';
import { ApiError } from '@/api/errors';
import { filterOf } from '../admin/audit';
import { userRefusal } from '../admin/users';
import { invitationLink, mailedToken, passwordProblem } from '../auth/password';
import { about, deed, facts } from './deeds';
import { deviceName } from './device';
import { ending } from './ending';
import { passwordRefusal } from './password';

const refusal = (code: string, message = 'no') => new ApiError(message, { status: 400, code });

describe('deviceName', () => {
  it('knows browsers that claim to be others', () => {
    const webkit = 'AppleWebKit/537.36 (KHTML, like Gecko)';
    for (const [said, name] of [
      ['Mozilla/5.0 (X11; Linux x86_64; rv:140.0) Gecko/20100101 Firefox/140.0', 'Firefox on Linux'],
      [
        `Mozilla/5.0 (Windows NT 10.0; Win64) ${webkit} Chrome/140.0 Safari/537.36 Edg/140.0`,
        'Edge on Windows',
      ],
      [`Mozilla/5.0 (Linux; Android 15) ${webkit} Chrome/140.0 Mobile Safari/537.36`, 'Chrome on Android'],
      [
        'Mozilla/5.0 (iPhone; CPU iPhone OS 18_0 like Mac OS X) Version/18.0 Safari/604.1',
        'Safari on iPhone',
      ],
      ['Mozilla/5.0 (Macintosh; Intel Mac OS X 10_15) Version/18.0 Safari/605.1.15', 'Safari on macOS'],
      ['python-httpx/0.28.1', 'Command line or script (Python)'],
      ['curl/8.5.0', 'curl'],
    ] as const) {
      expect(deviceName(said)).toBe(name);
    }
  });

  it('shows what it does not know as it is, cut short', () => {
    expect(deviceName('Toaster 3')).toBe('Toaster 3');
    expect(deviceName('x'.repeat(200))).toBe(`${'x'.repeat(60)}…`);
    expect(deviceName(null)).toBe('Unknown device');
    expect(deviceName(' ')).toBe('Unknown device');
  });
});

describe('ending', () => {
  const at = (seconds: number) => ending(new Date(1_000_000 + seconds * 1000).toISOString(), 1_000_000);

  it('says when, and whether it is soon', () => {
    expect(at(90 * 86_400)).toEqual({ words: 'expires in 90 days', state: 'fine' });
    expect(at(1.9 * 86_400)).toEqual({ words: 'expires in 1 day', state: 'soon' });
    expect(at(30)).toEqual({ words: 'expires in 1 minute', state: 'soon' });
    expect(at(-3 * 3_600)).toEqual({ words: 'expired 3 hours ago', state: 'over' });
    expect(at(-1)).toEqual({ words: 'expired 1 minute ago', state: 'over' });
  });
});

describe('deeds', () => {
  const event = {
    seq: 3,
    at: '',
    action: 'git.push',
    objectType: 'environment',
    objectId: 'e1',
    outcome: 'ok',
    requestId: null,
    details: { branch: 'main', updates: ['a', 'b'] },
  };

  it('has words for what is known, and makes some for what is not', () => {
    expect(deed('account.login')).toBe('Signed in');
    expect(deed('sandbox.new_thing')).toBe('Sandbox new thing');
    expect(deed('')).toBe('Did something');
  });

  it('says what it was done to, and all of it', () => {
    expect(about(event)).toBe('main');
    expect(about({ details: { from: 'a', to: 'b' } })).toBe('a → b');
    expect(about({ details: { address: '10.0.0.1' } })).toBe('from 10.0.0.1');
    expect(about({ details: { updates: [] } })).toBeUndefined();
    expect(facts(event)).toEqual([
      ['Number', '3'],
      ['Action', 'git.push'],
      ['environment', 'e1'],
      ['branch', 'main'],
      ['updates', '["a","b"]'],
    ]);
  });
});

describe('what a refusal is about', () => {
  it('is said at its field', () => {
    expect(passwordRefusal(refusal('WRONG_PASSWORD')).current).toBeDefined();
    expect(passwordRefusal(refusal('BAD_PASSWORD', 'Too common'))).toEqual({ fresh: 'Too common.' });
    expect(passwordRefusal(refusal('TOO_MANY_ATTEMPTS'))).toEqual({});
    expect(userRefusal(refusal('EMAIL_TAKEN', 'It is taken'))).toEqual({ email: 'It is taken.' });
    expect(userRefusal(new Error('x'))).toEqual({});
  });
});

describe('links', () => {
  it('have their token behind the #', () => {
    expect(mailedToken('#token=abc')).toBe('abc');
    for (const hash of ['', '#', '#x=1', '#token=']) expect(mailedToken(hash)).toBe('');
    expect(invitationLink('https://craft.example', 'a+b', 'ada@example.com')).toBe(
      'https://craft.example/register#invitation=a%2Bb&email=ada%40example.com',
    );
    expect(invitationLink('https://craft.example', 't', null)).not.toContain('email');
  });

  it('to the audit log filter by what is known alone', () => {
    const id = '7c9e6679-7425-40de-944b-e07fc1f90ae7';
    expect(filterOf(new URLSearchParams({ by: id, what: 'git' }))).toEqual({ actorId: id, action: 'git' });
    expect(filterOf(new URLSearchParams({ by: "x'", what: 'toString' }))).toEqual({});
  });
});

describe('passwordProblem', () => {
  it('counts characters as people do', () => {
    expect(passwordProblem('1234567')).toBeDefined();
    expect(passwordProblem('🦀'.repeat(8))).toBeUndefined();
    expect(passwordProblem('🦀'.repeat(129))).toBeDefined();
  });
});
