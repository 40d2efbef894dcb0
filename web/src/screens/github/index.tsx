import { ExternalLink, FolderGit2, Lock, Search, Star, TriangleAlert, Unplug } from 'lucide-react';
import { useEffect, useRef, useState, type ReactNode } from 'react';
import {
  useDisconnectGitHub,
  useGitHubRepositories,
  useGitHubStatus,
  type GitHubRepository,
  type GitHubStatus,
} from '@/api/github';
import { useDebounced } from '@/app/debounced';
import { Section } from '@/app/page';
import { useRowKeys } from '@/app/rows';
import { SettingsPage } from '@/screens/settings/frame';
import { Badge } from '@/ui/badge';
import { Button } from '@/ui/button';
import { ConfirmDialog } from '@/ui/dialog';
import { EmptyState } from '@/ui/empty';
import { ErrorNote, ErrorState } from '@/ui/error-state';
import { Input } from '@/ui/input';
import { Card, List, ListRow } from '@/ui/list';
import { SkeletonRows } from '@/ui/skeleton';
import { Status } from '@/ui/status';
import { Ago } from '@/ui/time';
import { toast } from '@/ui/toast';
import { Connecting } from './connecting';
import { safeAddress, useDeviceFlow } from './flow';

const SEARCH_AFTER_MS = 300;

export function Component() {
  const status = useGitHubStatus();
  return (
    <SettingsPage
      title="GitHub"
      lead="With your account connected, private repositories can be cloned and pushed. Its token stays on the server and never enters a sandbox."
    >
      {status.isPending && <SkeletonRows rows={2} label="Loading the connection to GitHub" />}
      {status.isError && status.data === undefined && (
        <ErrorState
          title="The connection to GitHub could not be read"
          error={status.error}
          busy={status.isFetching}
          onRetry={() => void status.refetch()}
        />
      )}
      {status.data && <Connection status={status.data} />}
      {status.data?.connected === true && <Repositories />}
    </SettingsPage>
  );
}

function Connection({ status }: { status: GitHubStatus }) {
  const { flow, start, end } = useDeviceFlow();
  const seen = useRef(false);
  useEffect(() => {
    if (flow.state !== 'done' || seen.current) return;
    seen.current = true;
    toast.ok('GitHub is connected');
  }, [flow.state]);
  if (!status.configured) return <NotConfigured />;
  if (flow.state !== 'idle' && !(flow.state === 'done' && status.connected)) {
    return <Connecting flow={flow} onRetry={start} onEnd={end} />;
  }
  if (status.connected) return <Connected status={status} onReconnect={start} />;
  return (
    <Card className="flex flex-col items-start gap-4 p-5">
      {status.needsReconnect ? (
        <>
          <Status kind="attention" word="Needs to be connected again" />
          <p className="text-sm text-fg-2">
            {status.username !== null && `The connection to ${status.username} does not work any more. `}
            {status.reason}
          </p>
        </>
      ) : (
        <>
          <Status kind="idle" word="Not connected" />
          <p className="max-w-lg text-sm text-fg-2">
            You get a short code, enter it at GitHub, and agree there. Public repositories work without.
          </p>
        </>
      )}
      <div className="flex flex-wrap gap-2">
        <Button variant="primary" onClick={start}>
          {status.needsReconnect ? 'Connect again' : 'Connect GitHub'}
        </Button>
        {status.needsReconnect && <Disconnect username={status.username} />}
      </div>
    </Card>
  );
}

function NotConfigured() {
  return (
    <EmptyState
      icon={FolderGit2}
      title="This server has no GitHub app"
      className="rounded-lg border border-line py-10"
    >
      Whoever runs it has to set <code className="font-mono text-xs">GITHUB_CLIENT_ID</code>. Public
      repositories can be cloned all the same, and private ones with a token under Git hosts.
    </EmptyState>
  );
}

function Connected({ status, onReconnect }: { status: GitHubStatus; onReconnect: () => void }) {
  const install = status.installUrl === null ? undefined : safeAddress(status.installUrl);
  return (
    <Section title="Connection">
      <Card className="divide-y divide-line">
        <div className="flex flex-wrap items-center gap-3 p-4">
          <div className="min-w-0 flex-1">
            <p className="truncate text-base font-semibold">{status.username ?? 'Your GitHub account'}</p>
            <Status kind="ready" word="Connected" className="mt-0.5" />
          </div>
          <Disconnect username={status.username} />
        </div>
        {status.missingScopes.length > 0 && (
          <div className="flex flex-wrap items-start gap-3 p-4">
            <TriangleAlert aria-hidden className="mt-0.5 size-4 shrink-0 text-warn" />
            <div className="min-w-0 flex-1 text-sm">
              <p className="font-medium">GitHub did not grant everything</p>
              <p className="text-fg-2">
                Missing: <Scopes scopes={status.missingScopes} />. Some pushes may be refused.
              </p>
            </div>
            <Button onClick={onReconnect}>Connect again</Button>
          </div>
        )}
        {status.scopes.length > 0 && (
          <p className="p-4 text-sm text-fg-2">
            It may use <Scopes scopes={status.scopes} />.
          </p>
        )}
        {install !== undefined && (
          <div className="flex flex-wrap items-center justify-between gap-3 p-4 text-sm text-fg-2">
            <span>The GitHub App sees the repositories that you give it.</span>
            <OutLink to={install}>Choose repositories</OutLink>
          </div>
        )}
      </Card>
    </Section>
  );
}

function Scopes({ scopes }: { scopes: readonly string[] }) {
  return scopes.map((scope, index) => (
    <span key={scope}>
      {index > 0 && ', '}
      <code className="rounded-sm bg-sunken px-1 py-0.5 font-mono text-xs">{scope}</code>
    </span>
  ));
}

function OutLink({ to, children }: { to: string; children: ReactNode }) {
  return (
    <Button asChild>
      <a href={to} target="_blank" rel="noopener noreferrer">
        {children} <ExternalLink aria-hidden className="size-3.5" />
        <span className="sr-only">(opens GitHub)</span>
      </a>
    </Button>
  );
}

function Disconnect({ username }: { username: string | null }) {
  const [asking, setAsking] = useState(false);
  const disconnect = useDisconnectGitHub();
  return (
    <>
      <Button variant="danger-ghost" icon={Unplug} onClick={() => setAsking(true)}>
        Disconnect
      </Button>
      <ConfirmDialog
        open={asking}
        onOpenChange={setAsking}
        title={`Disconnect ${username ?? 'GitHub'}?`}
        action="Disconnect"
        busy={disconnect.isPending}
        onConfirm={() =>
          disconnect.mutate(undefined, {
            onSuccess: () => {
              setAsking(false);
              toast.ok('GitHub is disconnected');
            },
          })
        }
      >
        <p>
          Its tokens are deleted here and ended at GitHub. Environments stay as they are, but cannot fetch
          from private repositories or push until you connect again.
        </p>
        {disconnect.isError && <ErrorNote error={disconnect.error} />}
      </ConfirmDialog>
    </>
  );
}

function Repositories() {
  const [search, setSearch] = useState('');
  const settled = useDebounced(search.trim(), SEARCH_AFTER_MS);
  const repositories = useGitHubRepositories(settled, true);
  const list = useRef<HTMLUListElement>(null);
  useRowKeys(list);
  const pages = repositories.data?.pages ?? [];
  const found = pages.flatMap((page) => page.repositories);
  const sso = pages.at(-1)?.sso_url;
  const ssoLink = sso === undefined || sso === null ? undefined : safeAddress(sso);
  return (
    <Section title="Repositories">
      <div className="mb-3">
        <Input
          icon={Search}
          type="search"
          aria-label="Search your repositories"
          placeholder="Search your repositories"
          value={search}
          onChange={(event) => setSearch(event.target.value)}
        />
      </div>
      {ssoLink !== undefined && (
        <Card className="mb-3 flex flex-wrap items-center justify-between gap-3 p-3 text-sm text-fg-2">
          <span>An organization hides its repositories until you sign in there.</span>
          <OutLink to={ssoLink}>Sign in</OutLink>
        </Card>
      )}
      {repositories.isPending && <SkeletonRows rows={5} label="Loading your repositories" />}
      {repositories.isError && found.length === 0 && (
        <ErrorState
          title="Your repositories could not be read"
          error={repositories.error}
          busy={repositories.isFetching}
          onRetry={() => void repositories.refetch()}
        />
      )}
      {repositories.isSuccess && found.length === 0 && (
        <p role="status" className="py-8 text-center text-sm text-fg-2">
          {settled === '' ? 'Your account reaches no repository.' : `No repository fits “${settled}”.`}
        </p>
      )}
      {found.length > 0 && (
        <List ref={list} aria-label="Repositories">
          {found.map((one) => (
            <RepositoryRow key={one.id} repository={one} />
          ))}
        </List>
      )}
      {repositories.hasNextPage && (
        <Button
          className="mt-3 w-full"
          busy={repositories.isFetchingNextPage}
          onClick={() => void repositories.fetchNextPage()}
        >
          Show more
        </Button>
      )}
      {repositories.isFetchNextPageError && <ErrorNote error={repositories.error} className="mt-3" />}
    </Section>
  );
}

function RepositoryRow({ repository }: { repository: GitHubRepository }) {
  const to = safeAddress(repository.html_url);
  const name = <span className="truncate text-base font-medium">{repository.full_name}</span>;
  return (
    <ListRow>
      <div className="min-w-0 flex-1">
        <div className="flex min-w-0 items-center gap-2">
          {to === undefined ? (
            name
          ) : (
            <a
              href={to}
              target="_blank"
              rel="noopener noreferrer"
              data-row
              className="flex min-w-0 after:absolute after:inset-0 focus-visible:outline-none focus-visible:after:outline-2 focus-visible:after:-outline-offset-2 focus-visible:after:outline-ring"
            >
              {name}
              <span className="sr-only">(opens GitHub)</span>
            </a>
          )}
          {repository.private && (
            <Badge>
              <Lock aria-hidden className="size-3" /> private
            </Badge>
          )}
        </div>
        {repository.description !== null && (
          <p className="truncate text-sm text-fg-3">{repository.description}</p>
        )}
      </div>
      <span className="w-24 shrink-0 truncate text-sm text-fg-3 max-sm:hidden">{repository.language}</span>
      <span className="flex w-14 shrink-0 items-center gap-1 text-sm text-fg-3 tabular-nums max-sm:hidden">
        <Star aria-hidden className="size-3.5" />
        <span className="sr-only">stars:</span> {repository.stargazers_count}
      </span>
      <Ago at={repository.updated_at} className="w-20 shrink-0 text-right text-sm text-fg-3" />
    </ListRow>
  );
}
