const UNITS: readonly [Intl.RelativeTimeFormatUnit, number][] = [
  ['day', 86_400],
  ['hour', 3_600],
  ['minute', 60],
];
const SOON_DAYS = 7;
const relative = new Intl.RelativeTimeFormat('en', { numeric: 'always' });

export type Ending = { words: string; state: 'fine' | 'soon' | 'over' };

/** When something ends, in words: "in 90 days", "in 12 minutes", "expired 3 days ago". Pure. */
export function ending(iso: string, nowMs: number): Ending {
  const seconds = (Date.parse(iso) - nowMs) / 1000;
  if (Number.isNaN(seconds)) return { words: 'at some time', state: 'fine' };
  const [unit, size] = UNITS.find(([, one]) => Math.abs(seconds) >= one) ?? (['minute', 60] as const);
  // Never more than is left: 1.9 days are one.
  const count = Math.trunc(seconds / size);
  if (seconds <= 0) return { words: `expired ${relative.format(count || -1, unit)}`, state: 'over' };
  return {
    words: `expires ${relative.format(count || 1, unit)}`,
    state: seconds < SOON_DAYS * 86_400 ? 'soon' : 'fine',
  };
}
