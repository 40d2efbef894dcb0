import { Box, ExternalLink, GitBranch, ShieldAlert, ShieldCheck } from 'lucide-react';
import type { ReactNode } from 'react';
import { useRetryEnvironment } from '@/api/queries';
import type { Environment } from '@/api/types';
import { environmentStatus, isStopping } from '@/app/status';
import { whyOf } from '@/app/why';
import { webAddress } from '@/terminal/text';
import { Badge } from '@/ui/badge';
import { ErrorNote } from '@/ui/error-state';
import { Card } from '@/ui/list';
import { Notice } from '@/ui/notice';
import { Status } from '@/ui/status';
import { Ago } from '@/ui/time';
import { Tooltip } from '@/ui/tooltip';
import { repositoryLabel } from '../environments/naming';
import { StartProgress } from '../environments/progress';
import { WayOn } from './why';
import { isolationShown } from './words';

/** What an environment is, in a line. */
export function Overview({ environment }: { environment: Environment }) {
  const { kind, word } = environmentStatus(environment);
  const isolation = isolationShown(environment.isolation);
  return (
    <div className="mb-5 flex flex-wrap items-center gap-x-4 gap-y-1.5 text-sm text-fg-2">
      <Status kind={kind} word={word} className="font-medium text-fg" />
      <Repository url={environment.repositoryUrl} />
      {environment.repositoryUrl && (
        <Fact icon={<GitBranch aria-hidden className="size-4 text-fg-3" />} label="Base branch">
          <span className="truncate font-mono text-xs">{environment.branch}</span>
        </Fact>
      )}
      <Fact icon={<Box aria-hidden className="size-4 text-fg-3" />} label="Runtime">
        {environment.runtime}
      </Fact>
      {isolation && (
        <Tooltip content={isolation.full}>
          {/* Focusable, so that the whole sentence is there by keyboard too. */}
          <button type="button" className="flex items-center rounded-full">
            <Badge tone={isolation.tone}>
              {isolation.tone === 'ok' ? (
                <ShieldCheck aria-hidden className="size-3.5" />
              ) : (
                <ShieldAlert aria-hidden className="size-3.5" />
              )}
              {isolation.word}
            </Badge>
          </button>
        </Tooltip>
      )}
      <span className="text-fg-3 sm:ml-auto">
        Created <Ago at={environment.createdAt} />
      </span>
    </div>
  );
}

function Fact({ icon, label, children }: { icon: ReactNode; label: string; children: ReactNode }) {
  return (
    <span className="flex min-w-0 items-center gap-1.5">
      {icon}
      <span className="sr-only">{label}: </span>
      {children}
    </span>
  );
}

function Repository({ url }: { url: string | null | undefined }) {
  if (!url) return <span>No repository</span>;
  const address = webAddress(url.replace(/\.git$/u, ''));
  if (address === null) return <span className="truncate">{repositoryLabel(url)}</span>;
  return (
    <a
      href={address}
      target="_blank"
      rel="noopener noreferrer"
      className="flex min-w-0 items-center gap-1 rounded-sm text-fg hover:underline"
    >
      <span className="truncate">{repositoryLabel(url)}</span>
      <ExternalLink aria-label="(opens in a new tab)" className="size-3.5 shrink-0 text-fg-3" />
    </a>
  );
}

/** That something in its sandbox was killed for its memory, where that was; everything else goes on. */
function Killed({ environment }: { environment: Environment }) {
  if (environment.reasonCode !== 'OUT_OF_MEMORY') return null;
  return (
    <Notice kind="warn" className="mb-6">
      {environment.reason}
    </Notice>
  );
}

/** What keeps an environment from taking sessions, and the way on; nothing where it is ready. */
export function Starting({ environment }: { environment: Environment }) {
  const retry = useRetryEnvironment();
  const why = whyOf(environment);
  const stopping = isStopping(environment);
  if (why === undefined) return <Killed environment={environment} />;
  if (environment.status === 'stopped' || stopping) {
    return (
      <Card className="mb-6 flex flex-wrap items-center gap-3 p-4">
        <div className="min-w-0 flex-1 basis-64">
          <p className="font-medium">
            {stopping ? 'The sandbox is being stopped' : 'The sandbox is stopped'}
            {why.since !== undefined && !stopping && (
              <span className="font-normal text-fg-3">
                {' '}
                since <Ago at={why.since} />
              </span>
            )}
          </p>
          <p className="text-sm wrap-anywhere text-fg-2">{why.reason}</p>
          {why.wayOn !== undefined && <p className="text-sm text-fg-2">{why.wayOn}</p>}
        </div>
        <WayOn environment={environment} variant="primary" size="md" />
      </Card>
    );
  }
  return (
    <Card className="mb-6 p-4 pb-0">
      <StartProgress
        environment={environment}
        withRepository={Boolean(environment.repositoryUrl)}
        retrying={retry.isPending}
        onRetry={() => retry.mutate(environment.id)}
      />
      {why.action !== undefined && why.wayOn !== undefined && (
        <p className="mb-4 text-sm text-fg-2">
          {why.wayOn}
          {why.since !== undefined && (
            <>
              {' '}
              It is like this since <Ago at={why.since} />.
            </>
          )}
        </p>
      )}
      {retry.isError && <ErrorNote error={retry.error} className="mb-4" />}
    </Card>
  );
}
