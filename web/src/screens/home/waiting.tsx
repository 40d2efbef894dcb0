import { RotateCw } from 'lucide-react';
import { Link } from 'react-router';
import { useRetryEnvironment } from '@/api/queries';
import type { Attention } from '@/app/inbox';
import { Button } from '@/ui/button';
import { cn } from '@/ui/cn';
import { StatusDot } from '@/ui/status';
import { Ago } from '@/ui/time';
import { toast } from '@/ui/toast';
import { Answerable, ApprovalInput } from '../inbox/approval';
import { VisibleLines } from '../review/visible';

const WAITING = 'rounded-lg border border-line bg-surface p-4 shadow-sm';

/** One thing that waits for the person, with what can be done about it here. */
export function WaitingCard({ waiting }: { waiting: Attention }) {
  if (waiting.approval) {
    return (
      <Answerable as="li" approval={waiting.approval} className={cn(WAITING, 'flex min-w-0 flex-col')}>
        <WaitingHead waiting={waiting} />
        <ApprovalInput approval={waiting.approval} className="mt-3" />
      </Answerable>
    );
  }
  return (
    <li className={cn(WAITING, 'min-w-0')}>
      <WaitingHead waiting={waiting} />
      {waiting.what === 'environment' ? (
        <RetryActions waiting={waiting} />
      ) : (
        <Button asChild className="mt-3">
          <Link to={waiting.to}>{waiting.what === 'question' ? 'Answer' : 'Open'}</Link>
        </Button>
      )}
    </li>
  );
}

function WaitingHead({ waiting }: { waiting: Attention }) {
  const failed = waiting.kind === 'failed';
  return (
    <div className="flex items-start gap-3">
      <span
        className={cn(
          'flex size-8 shrink-0 items-center justify-center rounded-md',
          failed ? 'bg-bad-soft' : 'bg-warn-soft',
        )}
      >
        <StatusDot kind={waiting.kind} />
      </span>
      <div className="min-w-0 flex-1">
        <p className="flex min-w-0 items-baseline gap-2">
          <Link
            to={waiting.to}
            data-row
            className="min-w-0 truncate rounded-sm text-base font-semibold hover:underline"
          >
            {waiting.title}
          </Link>
          {waiting.since !== '' && <Ago at={waiting.since} className="ml-auto shrink-0 text-xs text-fg-3" />}
        </p>
        <p className={cn('text-sm font-medium wrap-anywhere', failed ? 'text-bad' : 'text-warn')}>
          <VisibleLines text={waiting.why} />
        </p>
        {waiting.details !== undefined && (
          <p className="mt-0.5 line-clamp-3 text-sm wrap-anywhere text-fg-2">
            <VisibleLines text={waiting.details} />
          </p>
        )}
      </div>
    </div>
  );
}

function RetryActions({ waiting }: { waiting: Attention }) {
  const retry = useRetryEnvironment();
  return (
    <div className="mt-3 flex gap-2">
      <Button
        icon={RotateCw}
        busy={retry.isPending}
        onClick={() =>
          retry.mutate(waiting.environmentId, {
            onError: (error) => toast.failed(`${waiting.title} was not started`, error),
          })
        }
      >
        Try again
      </Button>
      <Button asChild variant="ghost">
        <Link to={waiting.to}>Open</Link>
      </Button>
    </div>
  );
}
