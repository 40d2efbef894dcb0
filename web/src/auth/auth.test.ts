import { describe, expect, it, vi } from 'vitest';
import { safeReturn } from './guards';
import { leaseLock } from './locks';
import { secondsLeft, STORAGE_KEY, TokenStore } from './tokens';

const USER = { id: 'u1', email: 'ada@example.com', name: 'Ada', emailVerified: true };
const SIGN_IN = { accessToken: 'a', refreshToken: 'r', user: USER };

describe('the token store', () => {
  it('tells of a change in another tab, and reads it', () => {
    localStorage.clear();
    const store = new TokenStore(localStorage, window);
    const told = vi.fn();
    store.subscribe(told);
    expect(store.read()).toBeNull();
    localStorage.setItem(STORAGE_KEY, JSON.stringify(SIGN_IN));
    window.dispatchEvent(new StorageEvent('storage', { key: STORAGE_KEY }));
    expect(told).toHaveBeenCalledTimes(1);
    expect(store.read()).toEqual(SIGN_IN);
    expect(store.read()).toBe(store.read());
  });

  it('takes anything broken for no sign-in', () => {
    for (const stored of [
      '',
      '{',
      'null',
      '[]',
      '{"accessToken":"a"}',
      '{"accessToken":1,"refreshToken":"r"}',
    ]) {
      localStorage.setItem(STORAGE_KEY, stored);
      expect(new TokenStore(localStorage).read()).toBeNull();
    }
  });

  it('lives as long as the page where storage is closed', () => {
    const store = new TokenStore(undefined);
    store.write(SIGN_IN);
    expect(store.read()).toEqual(SIGN_IN);
  });

  it('reads when a token ends, and takes nonsense for ended', () => {
    expect(secondsLeft(`h.${btoa(JSON.stringify({ exp: 100 }))}.s`, 40_000)).toBe(60);
    for (const token of ['', 'a.b.c', `h.${btoa('{}')}.s`]) expect(secondsLeft(token, 0)).toBe(0);
  });
});

describe('the lease', () => {
  it('lets one tab at a time run', async () => {
    localStorage.clear();
    let inside = 0;
    let most = 0;
    const runs = ['a', 'b', 'c'].map((tab) =>
      leaseLock(
        localStorage,
        tab,
      )(async () => {
        inside += 1;
        most = Math.max(most, inside);
        await new Promise((resolve) => setTimeout(resolve, 20));
        inside -= 1;
        return tab;
      }),
    );
    expect(await Promise.all(runs)).toEqual(['a', 'b', 'c']);
    expect(most).toBe(1);
  });
});

describe('going back after signing in', () => {
  it('goes only to places of this page', () => {
    expect(safeReturn('/s/1?x=2')).toBe('/s/1?x=2');
    for (const to of [
      null,
      '',
      'https://evil.example',
      '//evil.example',
      '/\\evil.example',
      '/login?return=/x',
    ]) {
      expect(safeReturn(to)).toBe('/');
    }
  });
});
