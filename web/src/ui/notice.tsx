import { CircleCheck, CircleX, Info, TriangleAlert, type LucideIcon } from 'lucide-react';
import type { ReactNode } from 'react';
import { cn } from './cn';

type Kind = 'note' | 'ok' | 'warn' | 'bad';

const LOOKS: Record<Kind, { frame: string; mark: string; icon: LucideIcon }> = {
  note: { frame: 'border-line bg-sunken', mark: 'text-fg-3', icon: Info },
  ok: { frame: 'border-ok/30 bg-ok-soft', mark: 'text-ok', icon: CircleCheck },
  warn: { frame: 'border-warn/30 bg-warn-soft', mark: 'text-warn', icon: TriangleAlert },
  bad: { frame: 'border-bad/30 bg-bad-soft', mark: 'text-bad', icon: CircleX },
};

/** A line or two that a person should know here: what an action takes with it, or that one is done. */
export function Notice({
  kind = 'note',
  action,
  className,
  children,
}: {
  kind?: Kind;
  /** A button at its end, below on a phone. */
  action?: ReactNode;
  className?: string | undefined;
  children: ReactNode;
}) {
  const { frame, mark, icon: Icon } = LOOKS[kind];
  return (
    <div
      role={kind === 'ok' ? 'status' : undefined}
      className={cn(
        'flex items-start gap-2.5 rounded-md border px-3 py-2.5 text-sm text-fg',
        frame,
        className,
      )}
    >
      <Icon aria-hidden className={cn('mt-0.5 size-4 shrink-0', mark)} />
      <div className="flex min-w-0 flex-1 flex-wrap items-center gap-x-4 gap-y-2">
        <div className="min-w-0 flex-1 basis-56 break-words">{children}</div>
        {action}
      </div>
    </div>
  );
}
