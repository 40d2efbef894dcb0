import type { Chord, Sequence } from './chord';

/** The longest pause within a sequence, in milliseconds. */
export const SEQUENCE_MS = 1_200;

export type Bound = { id: string; keys: Sequence };
export type Pending = { chords: readonly Chord[]; at: number };
export type Step = { run?: string; pending?: Pending };

function begins(keys: Sequence, chords: readonly Chord[]): boolean {
  return chords.length <= keys.length && chords.every((chord, index) => keys[index] === chord);
}

/**
 * Takes one chord: runs what is bound to it and the chords before, waits where something longer
 * begins with them, or takes the chord as a new beginning where they lead nowhere. Pure.
 */
export function step(bound: readonly Bound[], pending: Pending | undefined, chord: Chord, now: number): Step {
  const before = pending !== undefined && now - pending.at <= SEQUENCE_MS ? pending.chords : [];
  for (const chords of before.length > 0 ? [[...before, chord], [chord]] : [[chord]]) {
    const fitting = bound.filter(({ keys }) => begins(keys, chords));
    // Of several commands on the same keys the latest has them: a screen's over the page's.
    const whole = fitting.findLast(({ keys }) => keys.length === chords.length);
    if (whole) return { run: whole.id };
    if (fitting.length > 0) return { pending: { chords, at: now } };
  }
  return {};
}

/** The ids whose keys get in the way of these: the same, or one the beginning of the other. Pure. */
export function conflicts(bound: readonly Bound[], id: string, keys: Sequence): string[] {
  return bound
    .filter((other) => other.id !== id && (begins(other.keys, keys) || begins(keys, other.keys)))
    .map((other) => other.id);
}
