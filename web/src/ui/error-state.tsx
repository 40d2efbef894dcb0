import { CloudOff, RotateCw, TriangleAlert } from 'lucide-react';
import { ApiError, explain } from '@/api/errors';
import { Button } from './button';
import { cn } from './cn';
import { CopyButton } from './code';

/** Why something could not be shown, the id under which the server's log has it, and a way on. */
export function ErrorState({
  title,
  error,
  onRetry,
  busy = false,
  className,
}: {
  title: string;
  error: unknown;
  onRetry?: (() => void) | undefined;
  busy?: boolean;
  className?: string | undefined;
}) {
  const { reason, details, requestId, offline } = explain(error);
  const Icon = offline ? CloudOff : TriangleAlert;
  return (
    <div role="alert" className={cn('flex flex-col items-center px-6 py-12 text-center', className)}>
      <span className="mb-4 flex size-11 items-center justify-center rounded-xl bg-bad-soft text-bad">
        <Icon aria-hidden className="size-5" />
      </span>
      <p className="text-lg font-semibold">{title}</p>
      <p className="mt-1 max-w-md text-sm text-fg-2">{reason}</p>
      {details !== undefined && <p className="mt-1 max-w-md text-sm break-words text-fg-2">{details}</p>}
      {requestId !== undefined && (
        <p className="mt-3 flex items-center gap-1 text-xs text-fg-3">
          Request <code className="font-mono">{requestId}</code>
          <CopyButton text={requestId} label="Copy the request id" />
        </p>
      )}
      {onRetry && (
        <Button icon={RotateCw} busy={busy} onClick={onRetry} className="mt-5">
          Retry
        </Button>
      )}
    </div>
  );
}

/** The same in a line or two, inside a form or a panel. */
export function ErrorNote({ error, className }: { error: unknown; className?: string | undefined }) {
  // What the person can mend needs no look into the server's log.
  const theirs = !(error instanceof ApiError) || error.status >= 500;
  const { reason, details, requestId } = explain(error);
  return (
    <div
      role="alert"
      className={cn(
        'flex items-start gap-2.5 rounded-md border border-bad/30 bg-bad-soft px-3 py-2.5 text-sm',
        className,
      )}
    >
      <TriangleAlert aria-hidden className="mt-0.5 size-4 shrink-0 text-bad" />
      <div className="min-w-0">
        <p className="font-medium break-words text-fg">{reason}</p>
        {details !== undefined && <p className="break-words text-fg-2">{details}</p>}
        {requestId !== undefined && theirs && (
          <p className="mt-1 text-xs text-fg-2">
            Request <code className="font-mono">{requestId}</code>
          </p>
        )}
      </div>
    </div>
  );
}
