import { expect, it } from 'vitest';
import { initials } from './avatar';
import { shareAfterKey } from './split';

const room = { min: 0.2, max: 0.8, vertical: false, initial: 0.5 };

it('moves a divider with the keys of its direction, within its bounds', () => {
  expect(shareAfterKey('ArrowRight', 0.5, room)).toBeCloseTo(0.52);
  expect(shareAfterKey('ArrowLeft', 0.21, room)).toBe(0.2);
  expect(shareAfterKey('ArrowDown', 0.5, room)).toBeUndefined();
  expect(shareAfterKey('ArrowDown', 0.5, { ...room, vertical: true })).toBeCloseTo(0.52);
  expect(shareAfterKey('Home', 0.5, room)).toBe(0.2);
  expect(shareAfterKey('End', 0.5, room)).toBe(0.8);
  expect(shareAfterKey('Enter', 0.7, room)).toBe(0.5);
});

it('makes initials of any name', () => {
  expect(initials('Ada Lindqvist')).toBe('AL');
  expect(initials('grace')).toBe('G');
  expect(initials(' ')).toBe('?');
  expect(initials('😀 x')).toBe('😀X');
});
