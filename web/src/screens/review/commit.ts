import type { GitStatus, NewCommit } from '@/api/git';
import type { ReviewFile } from './diff/files';

export const SUBJECT_MOST = 72;

/** A message's first line. Pure. */
export function subjectOf(message: string): string {
  const end = message.indexOf('\n');
  return (end === -1 ? message : message.slice(0, end)).trim();
}

/** What is to be said of a message before it is sent; nothing keeps it from being sent. Pure. */
export function messageHint(message: string): string | undefined {
  const [subject = '', second = ''] = message.split('\n');
  if (Array.from(subject.trim()).length > SUBJECT_MOST)
    return `The first line is long: up to ${SUBJECT_MOST} are shown everywhere.`;
  if (second.trim() !== '') return 'Leave a blank line after the first.';
  return undefined;
}

type Names = Pick<NewCommit, 'files' | 'filenamesBase64'>;

/**
 * The names that a commit of these files takes. A rename that git has not noted takes the old name
 * too: there it is a file that was deleted. Pure.
 */
export function commitNames(chosen: readonly ReviewFile[], status: Pick<GitStatus, 'files'>): Names {
  const changed = new Set(status.files.map((one) => one.filenameBase64 ?? one.filename));
  const files = new Set<string>();
  const filenamesBase64 = new Set<string>();
  const take = (name: string, base64: string | null | undefined) => {
    if (base64) filenamesBase64.add(base64);
    else files.add(name);
  };
  for (const { name, original, status: kind } of chosen) {
    take(name.name, name.base64);
    if (kind === 'renamed' && original && changed.has(original.base64 ?? original.name)) {
      take(original.name, original.base64);
    }
  }
  return {
    files: [...files],
    ...(filenamesBase64.size > 0 ? { filenamesBase64: [...filenamesBase64] } : {}),
  };
}

/** "1 file", "3 files". Pure. */
export function filesWord(count: number): string {
  return count === 1 ? '1 file' : `${count} files`;
}
