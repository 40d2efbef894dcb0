import { Box, ExternalLink, GitBranch, Play, ShieldAlert, ShieldCheck } from 'lucide-react';
import type { ReactNode } from 'react';
import { useRetryEnvironment } from '@/api/queries';
import type { Environment } from '@/api/types';
import { environmentStatus } from '@/app/status';
import { webAddress } from '@/terminal/text';
import { Badge } from '@/ui/badge';
import { Button } from '@/ui/button';
import { ErrorNote } from '@/ui/error-state';
import { Card } from '@/ui/list';
import { Status } from '@/ui/status';
import { Ago } from '@/ui/time';
import { Tooltip } from '@/ui/tooltip';
import { repositoryLabel } from '../environments/naming';
import { StartProgress } from '../environments/progress';
import { isReady } from '../environments/steps';
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

/** What keeps an environment from taking sessions, and the way on; nothing where it is ready. */
export function Starting({ environment }: { environment: Environment }) {
  const retry = useRetryEnvironment();
  if (isReady(environment)) return null;
  const start = () => retry.mutate(environment.id);
  if (environment.status === 'stopped') {
    return (
      <Card className="mb-6 flex flex-wrap items-center gap-3 p-4">
        <div className="min-w-0 flex-1 basis-64">
          <p className="font-medium">The sandbox is stopped</p>
          <p className="text-sm text-fg-2">
            {environment.reason ??
              'Files and sessions are kept. It starts in a moment, also by opening a terminal.'}
          </p>
        </div>
        <Button variant="primary" icon={Play} busy={retry.isPending} onClick={start}>
          Start
        </Button>
        {retry.isError && <ErrorNote error={retry.error} className="w-full" />}
      </Card>
    );
  }
  return (
    <Card className="mb-6 p-4 pb-0">
      <StartProgress
        environment={environment}
        withRepository={Boolean(environment.repositoryUrl)}
        retrying={retry.isPending}
        onRetry={start}
      />
      {retry.isError && <ErrorNote error={retry.error} className="mb-4" />}
    </Card>
  );
}
