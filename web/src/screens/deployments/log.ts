import type { LogLine, LogPart } from '@/api/deployments';
import { plainLog } from '../environment/plain-log';

/** How many lines are shown at most: the newest. Coolify itself has all. */
export const MOST_LINES = 10_000;
/** Lines are drawn by the block: only the last one changes while a log grows. */
export const BLOCK_LINES = 200;

export type ShownLine = Pick<LogLine, 'order' | 'text'> & { error: boolean };

export type BuildLog = {
  lines: readonly ShownLine[];
  /** What to ask on after. */
  next: number;
  complete: boolean;
  /** Whether earlier lines are left out. */
  cut: boolean;
  available: boolean;
  reason: string | null;
};

export const NO_LOG: BuildLog = {
  lines: [],
  next: 0,
  complete: false,
  cut: false,
  available: true,
  reason: null,
};

/** A log with what has come since: in order, nothing twice, only the newest lines. Pure. */
export function grown(before: BuildLog, part: LogPart): BuildLog {
  const last = before.lines.at(-1)?.order ?? -Infinity;
  const fresh = part.lines.filter(({ order }) => order > last).sort((a, b) => a.order - b.order);
  const added = fresh
    .filter(({ order }, index) => order !== fresh[index - 1]?.order)
    .map(({ order, text, stream }) => ({ order, text: plainLog(text), error: stream === 'stderr' }));
  const all = added.length === 0 ? before.lines : [...before.lines, ...added];
  const over = Math.max(0, Math.ceil((all.length - MOST_LINES) / BLOCK_LINES)) * BLOCK_LINES;
  return {
    // By whole blocks, so that those that stay are the same ones.
    lines: over === 0 ? all : all.slice(over),
    next: Math.max(before.next, part.next),
    complete: part.complete,
    cut: before.cut || part.truncated || over > 0,
    available: part.available,
    reason: part.reason,
  };
}

/** The lines by the block; a full one never changes. Pure. */
export function blocksOf(lines: readonly ShownLine[]): ShownLine[][] {
  const blocks: ShownLine[][] = [];
  for (let at = 0; at < lines.length; at += BLOCK_LINES) blocks.push(lines.slice(at, at + BLOCK_LINES));
  return blocks;
}

/** Milliseconds until a log is asked for again; undefined: not any more. Pure. */
export function nextLook(
  log: Pick<BuildLog, 'complete' | 'available'>,
  failures: number,
): number | undefined {
  if (failures > 0) return Math.min(30_000, 2_000 * 2 ** failures);
  if (log.complete) return undefined;
  return log.available ? 2_000 : 8_000;
}
