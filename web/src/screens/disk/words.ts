import type { DiskTier, DiskUse, Kept, SessionDisk, TierNumber } from '@/api/disk';
import { formatBytes } from '@/app/bytes';
import { counted } from '../environment/words';

export type Part = { id: string; label: string; bytes: number; fill: string };

/** From this share of a quota on it is nearly full; what was over it has to come down to here. */
const NEARLY = 0.9;

/** Of what an environment's use consists, the order being that of the meter. Pure. */
export function partsOf(use: DiskUse): Part[] {
  const worktrees = use.sessions.reduce((sum, { bytes }) => sum + bytes, 0);
  const parts: Part[] = [
    { id: 'worktrees', label: 'Working trees', bytes: worktrees, fill: 'bg-accent' },
    { id: 'repository', label: 'Repository', bytes: use.repositoryBytes, fill: 'bg-note' },
    { id: 'home', label: 'Home folder', bytes: use.homeBytes, fill: 'bg-ok' },
    { id: 'caches', label: 'Caches', bytes: use.cacheBytes, fill: 'bg-warn' },
    { id: 'other', label: 'Other files', bytes: use.otherBytes, fill: 'bg-fg-3' },
  ];
  return parts.filter(({ id, bytes }) => bytes > 0 || id !== 'other');
}

/** How full it is, for a person; `percent` is of the quota, undefined where there is none. Pure. */
export function fullness({ totalBytes, quotaBytes, overQuota }: DiskSizes): {
  level: 'ok' | 'nearly' | 'over';
  percent: number | undefined;
  sentence: string;
} {
  if (quotaBytes === null || quotaBytes <= 0) {
    return { level: 'ok', percent: undefined, sentence: `${formatBytes(totalBytes)}, without a quota` };
  }
  const share = totalBytes / quotaBytes;
  const sentence = `${formatBytes(totalBytes)} of ${formatBytes(quotaBytes)}`;
  // Never shown as full as long as it is not.
  const percent = share > 1 ? Math.max(101, Math.round(share * 100)) : Math.floor(share * 100);
  return { level: overQuota ? 'over' : share >= NEARLY ? 'nearly' : 'ok', percent, sentence };
}
export type DiskSizes = Pick<DiskUse, 'totalBytes' | 'quotaBytes' | 'overQuota'>;

type TierWords = { title: string; what: string; back: string };

/** What each tier is about, and how what it removes comes back. */
const TIERS: Readonly<Record<TierNumber, TierWords>> = {
  1: {
    title: 'Caches',
    what: 'Packages that were downloaded, kept in case they are needed again, and what git has stored twice.',
    back: 'Programs fetch them again when they need them.',
  },
  2: {
    title: 'What can be built again',
    what: 'Folders such as node_modules, .venv or dist in working trees of sessions that have ended. git ignores them.',
    back: 'The next install or build makes them again.',
  },
  3: {
    title: 'Working trees of ended sessions',
    what: 'Only those with nothing in them that is not committed and pushed.',
    back: 'Branch and session stay; bringing the session back makes its working tree again.',
  },
};

/** What freeing a tier removes: its own and those before it. Pure. */
export function upTo(tiers: readonly DiskTier[], last: number): DiskTier[] {
  return tiers.filter(({ tier }) => tier <= last).sort((one, other) => one.tier - other.tier);
}

/** What a tier is about; undefined for one that this page does not know. Pure. */
export function tierWords(tier: number): (TierWords & { tier: TierNumber }) | undefined {
  return tier === 1 || tier === 2 || tier === 3 ? { ...TIERS[tier], tier } : undefined;
}

export function bytesOf(tiers: readonly DiskTier[]): number {
  return tiers.reduce((sum, { bytes }) => sum + bytes, 0);
}

/** To how much an environment has to come down that was over its quota. Pure. */
export function below(quotaBytes: number): string {
  return formatBytes(Math.floor(quotaBytes * NEARLY));
}

/** What was freed, in a sentence. Pure. */
export function freedSentence(freedBytes: number, kept: readonly Kept[]): string {
  const freed = freedBytes > 0 ? `${formatBytes(freedBytes)} freed` : 'Nothing was freed';
  return kept.length === 0
    ? `${freed}.`
    : `${freed}; ${counted(kept.length, 'thing was', 'things were')} kept.`;
}

/** Whether a session's work is anywhere else, in a word or two. Pure. */
export function savedWord({ saved, state }: Pick<SessionDisk, 'saved' | 'state'>): string | undefined {
  if (saved === true) return 'saved';
  if (saved === false) return 'has work that is only here';
  return state === 'ended' ? 'not known whether it is saved' : undefined;
}

/** How a folder is called: by its session, else by its path. Pure. */
export function nameOf({ name, path }: Pick<SessionDisk, 'name' | 'path'>): string {
  return name ?? path.split('/').filter(Boolean).at(-1) ?? path;
}
