import { ExternalLink, GitCommitHorizontal, RotateCw, Square, TriangleAlert } from 'lucide-react';
import { useState, type ReactNode } from 'react';
import { useApplicationLog, useCancelDeployment, type Deployment } from '@/api/deployments';
import { webAddress } from '@/terminal/text';
import { Button } from '@/ui/button';
import { Checklist } from '@/ui/checklist';
import { cn } from '@/ui/cn';
import { ConfirmDialog } from '@/ui/dialog';
import { ErrorNote } from '@/ui/error-state';
import { Notice } from '@/ui/notice';
import { Select } from '@/ui/select';
import { SkeletonRows } from '@/ui/skeleton';
import { Status } from '@/ui/status';
import { Ago } from '@/ui/time';
import { JobLog } from '../environment/job-log';
import { short } from '../environment/words';
import { Visible } from '../review/visible';
import { ConnectionError } from './connection';
import { LogView } from './log-view';
import { useBuildLog } from './use-log';
import { commitOf, deploymentStatus, sentenceOf, stepsOf } from './words';

/** How a deployment stands. */
export function DeploymentState({ row, className }: { row: Deployment; className?: string | undefined }) {
  return <Status {...deploymentStatus(row)} className={cn('font-medium text-fg', className)} />;
}

/**
 * Tells who hears the page of each change of a deployment that is under way. It has to be there
 * before there is something to say, and says nothing of what had ended before.
 */
export function DeploymentSaid({ row }: { row: Deployment | undefined }) {
  const [watched, setWatched] = useState<string>();
  if (row?.live && row.id !== watched) setWatched(row.id);
  return (
    <span role="status" className="sr-only">
      {row !== undefined && row.id === watched ? sentenceOf(row) : ''}
    </span>
  );
}

export function Steps({ row }: { row: Deployment }) {
  return <Checklist steps={stepsOf(row)} label="Steps of the deployment" />;
}

/** Which commit of which branch. */
export function WhatIsDeployed({ row }: { row: Deployment }) {
  const { commit, other } = commitOf(row);
  return (
    <div className="min-w-0 text-sm text-fg-2">
      <p className="flex min-w-0 flex-wrap items-center gap-x-2 gap-y-0.5">
        <GitCommitHorizontal aria-hidden className="size-4 shrink-0 text-fg-3" />
        {commit === null ? (
          <span>As the branch is pushed</span>
        ) : (
          <span className="font-mono text-xs text-fg">{short(commit)}</span>
        )}
        {row.branch !== null && row.branch !== '' && (
          <span className="min-w-0 truncate font-mono text-xs">
            <Visible text={row.branch} />
          </span>
        )}
        {row.pull_request_id !== null && <span>preview of pull request {row.pull_request_id}</span>}
        {row.force && <span>without the cache</span>}
        <Ago at={row.created_at} className="text-fg-3" />
      </p>
      {other && row.commit !== null && (
        <p className="mt-1 flex items-start gap-1.5">
          <TriangleAlert aria-hidden className="mt-0.5 size-3.5 shrink-0 text-warn" />
          <span>
            Asked for was <span className="font-mono text-xs">{short(row.commit)}</span>: the branch has moved
            on since.
          </span>
        </p>
      )}
    </div>
  );
}

export function OutLink({
  to,
  children,
  className,
}: {
  to: string | null;
  children: ReactNode;
  className?: string | undefined;
}) {
  const address = to === null ? null : webAddress(to);
  if (address === null) return null;
  return (
    <a
      href={address}
      target="_blank"
      rel="noopener noreferrer"
      className={cn(
        'inline-flex min-w-0 items-center gap-1 rounded-sm text-sm text-accent-fg hover:underline pointer-coarse:min-h-11',
        className,
      )}
    >
      <span className="truncate">{children}</span>
      <ExternalLink aria-label="(opens in a new tab)" className="size-3.5 shrink-0" />
    </a>
  );
}

/** Asks, and ends a deployment that has not ended. */
export function CancelDeployment({ row, size = 'md' }: { row: Deployment; size?: 'sm' | 'md' }) {
  const [asking, setAsking] = useState(false);
  const cancel = useCancelDeployment();
  if (!row.live || (row.status !== 'pending' && row.status !== 'building')) return null;
  return (
    <>
      <Button
        size={size}
        variant="danger-ghost"
        icon={Square}
        busy={row.cancel_wanted}
        onClick={() => setAsking(true)}
      >
        {row.cancel_wanted ? 'Cancelling' : 'Cancel'}
      </Button>
      <ConfirmDialog
        open={asking}
        onOpenChange={setAsking}
        title={`Cancel the deployment of ${row.app_name}?`}
        action="Cancel the deployment"
        busy={cancel.isPending}
        onConfirm={() => cancel.mutate(row.id, { onSuccess: () => setAsking(false) })}
      >
        <p>Coolify ends the build. What runs now goes on running.</p>
        {cancel.isError && <ErrorNote error={cancel.error} />}
      </ConfirmDialog>
    </>
  );
}

/** What a build prints, as it does. */
export function BuildLogPart({ row, className }: { row: Deployment; className?: string | undefined }) {
  const begun = row.coolify_deployment_id !== null;
  const { log, read, error } = useBuildLog(row.id, row.status, begun);
  if (!begun) {
    return (
      <Quiet>
        {row.live
          ? 'The log begins when Coolify has taken the deployment.'
          : 'Coolify did not take it: there is no log.'}
      </Quiet>
    );
  }
  if (!read && error === undefined) return <SkeletonRows rows={3} label="Reading the build log" />;
  return (
    <div className={cn('flex min-h-0 flex-col gap-2', className)}>
      {error !== undefined && <ErrorNote error={error} />}
      {!log.available && log.lines.length === 0 && read && (
        <Notice>
          <p>{log.reason ?? 'Coolify does not show the build log.'}</p>
          {row.url !== null && <OutLink to={row.url}>The log in Coolify</OutLink>}
        </Notice>
      )}
      {log.available && log.lines.length === 0 && read && (
        <Quiet>{log.complete ? 'The build printed nothing.' : 'Nothing was printed yet.'}</Quiet>
      )}
      {log.lines.length > 0 && (
        <LogView log={log} label={`Build log of ${row.app_name}`} className="min-h-0 flex-1" />
      )}
    </div>
  );
}

function Quiet({ children }: { children: ReactNode }) {
  return (
    <p className="rounded-md border border-dashed border-line px-3 py-2 text-sm text-fg-3">{children}</p>
  );
}

const LINES = ['100', '500', '1000'] as const;

/** What the application itself prints, when it is asked for. */
export function ApplicationLogPart({ row }: { row: Deployment }) {
  const [lines, setLines] = useState<(typeof LINES)[number]>('100');
  const answer = useApplicationLog(row.id, Number(lines));
  return (
    <div className="flex min-h-0 flex-1 flex-col gap-2">
      <div className="flex flex-wrap items-center justify-between gap-2">
        <p className="text-sm text-fg-2">What the application printed last.</p>
        <span className="flex items-center gap-2">
          <Select
            aria-label="How many lines"
            value={lines}
            onChange={setLines}
            options={LINES.map((value) => ({ value, label: `${value} lines` }))}
            className="h-8 w-32 text-sm"
          />
          <Button icon={RotateCw} busy={answer.isFetching} onClick={() => void answer.refetch()}>
            Look again
          </Button>
        </span>
      </div>
      {answer.isPending && <SkeletonRows rows={3} label="Reading the application’s log" />}
      {answer.isError && <ConnectionError error={answer.error} />}
      {answer.data &&
        (answer.data.running ? (
          <JobLog
            key={lines}
            log={answer.data.log ?? ''}
            truncated={false}
            label={`Log of ${row.app_name}`}
            className="max-h-[60vh]"
          />
        ) : (
          <Notice>The application is not running, so it has no log now.</Notice>
        ))}
    </div>
  );
}
