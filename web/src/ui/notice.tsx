import { CircleCheck, Info, type LucideIcon } from 'lucide-react';
import type { ReactNode } from 'react';
import { cn } from './cn';

type Kind = 'note' | 'ok';

const LOOKS: Record<Kind, { frame: string; mark: string; icon: LucideIcon }> = {
  note: { frame: 'border-line bg-sunken', mark: 'text-fg-3', icon: Info },
  ok: { frame: 'border-ok/30 bg-ok-soft', mark: 'text-ok', icon: CircleCheck },
};

/** A line or two that a person should know here: what an action takes with it, or that one is done. */
export function Notice({
  kind = 'note',
  className,
  children,
}: {
  kind?: Kind;
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
      <div className="min-w-0 break-words">{children}</div>
    </div>
  );
}
