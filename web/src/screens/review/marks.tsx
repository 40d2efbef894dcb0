import { cn } from '@/ui/cn';
import type { FileStatus } from './diff/files';

const STATUS: Readonly<Record<FileStatus, readonly [letter: string, word: string, colour: string]>> = {
  added: ['A', 'added', 'text-ok'],
  deleted: ['D', 'deleted', 'text-bad'],
  modified: ['M', 'modified', 'text-warn'],
  renamed: ['R', 'renamed', 'text-note'],
  copied: ['C', 'copied', 'text-note'],
  type: ['T', 'type changed', 'text-warn'],
  conflict: ['!', 'has conflicts', 'text-bad'],
  unknown: ['?', 'changed', 'text-fg-3'],
};

/** A file's state as a letter, with the word for those who hear it or rest on it. */
export function StatusLetter({ status, className }: { status: FileStatus; className?: string | undefined }) {
  const [letter, word, colour] = STATUS[status];
  return (
    <span
      role="img"
      aria-label={word}
      title={word}
      className={cn('w-4 shrink-0 text-center font-mono text-xs font-bold', colour, className)}
    >
      {letter}
    </span>
  );
}

/** How many lines came and went. */
export function Counts({
  added,
  removed,
  className,
}: {
  added: number | undefined;
  removed: number | undefined;
  className?: string | undefined;
}) {
  if (added === undefined && removed === undefined) return null;
  return (
    <span className={cn('flex shrink-0 gap-1.5 font-mono text-xs tabular-nums', className)}>
      {(added ?? 0) > 0 && (
        <span className="text-ok">
          <span className="sr-only">{added} lines added</span>
          <span aria-hidden>+{added}</span>
        </span>
      )}
      {(removed ?? 0) > 0 && (
        <span className="text-bad">
          <span className="sr-only">{removed} lines removed</span>
          <span aria-hidden>−{removed}</span>
        </span>
      )}
    </span>
  );
}
