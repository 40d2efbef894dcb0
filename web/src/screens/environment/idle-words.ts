import type { RadioOption } from '@/ui/toggles';

const DEFAULT = 'default';
const OFFERED = [0, 30, 60, 240, 1440] as const;
const HOUR = 60;

/** What a choice is called in the form; absent is what the server says. */
export function idleValue(minutes: number | null | undefined): string {
  return minutes === null || minutes === undefined ? DEFAULT : String(minutes);
}

export function minutesOf(value: string): number | null {
  return value === DEFAULT ? null : Number(value);
}

export function idleWords(minutes: number): string {
  if (minutes === 0) return 'Keep it running';
  if (minutes % HOUR !== 0) return `Stop it after ${minutes} minutes`;
  return minutes === HOUR ? 'Stop it after an hour' : `Stop it after ${minutes / HOUR} hours`;
}

/** The choices, with the one that is set, which may come from the command line. */
export function idleOptions(set: number | null | undefined): RadioOption<string>[] {
  const all = new Set<number>(OFFERED);
  if (typeof set === 'number') all.add(set);
  const sorted = [...all].sort((one, other) => one - other);
  return [
    { value: DEFAULT, label: 'As the server does' },
    ...sorted.map((minutes) => ({ value: String(minutes), label: idleWords(minutes) })),
  ];
}
