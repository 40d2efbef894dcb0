import { cn } from './cn';

/**
 * Every state has a colour, a shape and a word, so that none depends on the colour:
 * working = turning ring, ready = full dot, attention = triangle, unseen = ringed dot,
 * idle = hollow ring, ended = bar, failed = cross, unknown = dashed ring.
 */
export type StatusKind =
  'working' | 'ready' | 'attention' | 'unseen' | 'idle' | 'ended' | 'failed' | 'unknown';

const COLOURS: Record<StatusKind, string> = {
  working: 'text-accent-fg',
  ready: 'text-ok',
  attention: 'text-warn',
  unseen: 'text-note',
  idle: 'text-fg-3',
  ended: 'text-fg-3',
  failed: 'text-bad',
  unknown: 'text-fg-3',
};

function Shape({ kind }: { kind: StatusKind }) {
  switch (kind) {
    case 'ready':
      return <circle cx="6" cy="6" r="4" fill="currentColor" />;
    case 'working':
      return (
        <g className="origin-center animate-spin">
          <circle cx="6" cy="6" r="4" fill="none" stroke="currentColor" strokeOpacity="0.3" strokeWidth="2" />
          <path
            d="M6 2a4 4 0 0 1 4 4"
            fill="none"
            stroke="currentColor"
            strokeWidth="2"
            strokeLinecap="round"
          />
        </g>
      );
    case 'attention':
      return <path d="M6 1.4 11.2 10.4H.8Z" fill="currentColor" />;
    case 'unseen':
      return (
        <>
          <circle cx="6" cy="6" r="5" fill="none" stroke="currentColor" strokeOpacity="0.5" />
          <circle cx="6" cy="6" r="3" fill="currentColor" />
        </>
      );
    case 'idle':
      return <circle cx="6" cy="6" r="3.5" fill="none" stroke="currentColor" strokeWidth="1.6" />;
    case 'ended':
      return <rect x="2" y="5" width="8" height="2" rx="1" fill="currentColor" />;
    case 'failed':
      return (
        <path d="M3 3l6 6M9 3l-6 6" fill="none" stroke="currentColor" strokeWidth="2" strokeLinecap="round" />
      );
    case 'unknown':
      return (
        <circle
          cx="6"
          cy="6"
          r="4"
          fill="none"
          stroke="currentColor"
          strokeWidth="1.6"
          strokeDasharray="2.4 1.8"
        />
      );
  }
}

/** The mark alone; give `label` where no word stands beside it. */
export function StatusDot({
  kind,
  label,
  className,
}: {
  kind: StatusKind;
  label?: string | undefined;
  className?: string | undefined;
}) {
  return (
    <svg
      viewBox="0 0 12 12"
      role={label === undefined ? undefined : 'img'}
      aria-label={label}
      aria-hidden={label === undefined || undefined}
      className={cn('size-3 shrink-0', COLOURS[kind], className)}
    >
      {label !== undefined && <title>{label}</title>}
      <Shape kind={kind} />
    </svg>
  );
}

export function Status({
  kind,
  word,
  className,
}: {
  kind: StatusKind;
  word: string;
  className?: string | undefined;
}) {
  return (
    <span className={cn('inline-flex items-center gap-1.5 text-sm text-fg-2', className)}>
      <StatusDot kind={kind} />
      {word}
    </span>
  );
}
