import { describe, expect, it } from 'vitest';
import { idleOptions, idleValue, idleWords, minutesOf } from './idle-words';

describe('idle policies', () => {
  it('keep what the server says apart from never', () => {
    expect(idleValue(undefined)).toBe('default');
    expect(idleValue(0)).toBe('0');
    expect([minutesOf('default'), minutesOf('0'), minutesOf('90')]).toEqual([null, 0, 90]);
  });

  it('are said in words', () => {
    expect([0, 30, 60, 240].map(idleWords)).toEqual([
      'Keep it running',
      'Stop it after 30 minutes',
      'Stop it after an hour',
      'Stop it after 4 hours',
    ]);
  });

  it('offer what is set although the page would not', () => {
    expect(idleOptions(45).map(({ value }) => value)).toEqual([
      'default',
      '0',
      '30',
      '45',
      '60',
      '240',
      '1440',
    ]);
    expect(idleOptions(null)).toHaveLength(6);
  });
});
