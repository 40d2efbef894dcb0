import { describe, expect, it } from 'vitest';
import { hostOf } from './hosts';
import { ADMINISTRATION, addressOf, SETTINGS } from './parts';
import { variableNameProblem } from './variables-editor';

describe('hostOf', () => {
  it('cuts what is pasted down to the host', () => {
    for (const [pasted, host] of [
      ['https://git.example.com', 'https://git.example.com'],
      [' HTTPS://git.example.com:8443/team/repo.git ', 'https://git.example.com:8443'],
      ['https://bob@git.example.com/team/repo', 'https://git.example.com'],
      ['git.example.com/team', 'https://git.example.com'],
      ['git@git.example.com:team/repo.git', 'https://git.example.com'],
      ['http://localhost:3000', 'http://localhost:3000'],
    ] as const) {
      expect(hostOf(pasted)).toBe(host);
    }
  });

  it('never keeps a password that stands in an address', () => {
    expect(hostOf('https://bob:secret@git.example.com/x')).toBe('https://git.example.com');
  });
});

it('has each part at an address of its own', () => {
  const addresses = [...SETTINGS, ...ADMINISTRATION].map(addressOf);
  expect(new Set(addresses).size).toBe(addresses.length);
  expect(addresses).toContain('/settings/coolify');
});

describe('variableNameProblem', () => {
  it('takes what a shell takes for a name', () => {
    for (const name of ['A', '_x', 'API_KEY_2']) expect(variableNameProblem(name)).toBeUndefined();
    for (const name of ['', '2A', 'A-B', 'A B', 'Ä', 'A'.repeat(129)]) {
      expect(variableNameProblem(name)).toBeDefined();
    }
  });
});
