import { CircleStop, Compass, Ellipsis, Plus, RotateCw, Trash2 } from 'lucide-react';
import { lazy, Suspense, useState } from 'react';
import { Link, useNavigate, useParams, useSearchParams } from 'react-router';
import { ApiError } from '@/api/errors';
import { useEnvironment, useRetryEnvironment, useSessions } from '@/api/queries';
import type { Environment } from '@/api/types';
import { useCommands } from '@/app/commands';
import { CommandKeys } from '@/app/keys/shown';
import { Page } from '@/app/page';
import { environmentStatus, isStopping } from '@/app/status';
import { Button, IconButton } from '@/ui/button';
import { EmptyState } from '@/ui/empty';
import { ErrorState } from '@/ui/error-state';
import { DropdownMenu, type MenuItem } from '@/ui/menu';
import { SkeletonRows } from '@/ui/skeleton';
import { TabPanel, Tabs, type Tab } from '@/ui/tabs';
import { toast } from '@/ui/toast';
import { DeployPanel } from '../deployments/panel';
import { OverQuota } from '../disk/over-quota';
import { DeleteEnvironment } from '../environments/delete';
import { isReady } from '../environments/steps';
import { BranchesTab } from './branches-tab';
import { KeptNotices } from './kept-notice';
import { useNewSession } from './new-session';
import { Overview, Starting } from './overview';
import { PushesTab } from './pushes-tab';
import { SessionsTab } from './sessions-tab';
import { SettingsTab } from './settings-tab';
import { StopEnvironment } from './stop';
import { UnsavedWork } from './unsaved';

const CreateSession = lazy(async () => ({ default: (await import('./create-session')).CreateSession }));

const DiskTab = lazy(async () => ({ default: (await import('../disk/tab')).DiskTab }));

const CRUMBS = [{ label: 'Environments', to: '/envs' }];

export function Component() {
  const { env = '' } = useParams();
  const environment = useEnvironment(env);
  const missing = environment.error instanceof ApiError && environment.error.status === 404;
  if (environment.data !== undefined && !missing) {
    return <EnvironmentScreen key={env} environment={environment.data} />;
  }
  return (
    <Page title="Environment" crumbs={CRUMBS}>
      {environment.isPending && <SkeletonRows rows={5} label="Loading the environment" />}
      {missing && <NoSuchEnvironment />}
      {environment.isError && !missing && (
        <ErrorState
          title="The environment could not be read"
          error={environment.error}
          busy={environment.isFetching}
          onRetry={() => void environment.refetch()}
        />
      )}
    </Page>
  );
}

function NoSuchEnvironment() {
  return (
    <EmptyState
      icon={Compass}
      title="This environment is not there"
      action={
        <Button asChild variant="primary">
          <Link to="/envs">All environments</Link>
        </Button>
      }
    >
      It may have been deleted, or the link is wrong.
    </EmptyState>
  );
}

const TABS = ['sessions', 'branches', 'pushes', 'deployments', 'disk', 'settings'] as const;
const OF_A_REPOSITORY: readonly TabName[] = ['branches', 'pushes'];
type TabName = (typeof TABS)[number];

/** The tab is part of the address. */
function useTab(withRepository: boolean): [TabName, (tab: TabName) => void] {
  const [params, setParams] = useSearchParams();
  const asked = TABS.find((one) => one === params.get('tab')) ?? 'sessions';
  const there = withRepository || !OF_A_REPOSITORY.includes(asked);
  const change = (tab: TabName) =>
    setParams(
      (before) => {
        const next = new URLSearchParams(before);
        if (tab === 'sessions') next.delete('tab');
        else next.set('tab', tab);
        return next;
      },
      { replace: true },
    );
  return [there ? asked : 'sessions', change];
}

function EnvironmentScreen({ environment }: { environment: Environment }) {
  const withRepository = Boolean(environment.repositoryUrl);
  const [tab, setTab] = useTab(withRepository);
  const create = useNewSession();
  const navigate = useNavigate();
  const sessions = useSessions(environment.id);
  const ready = environment.status === 'running' && isReady(environment) && !isStopping(environment);
  // Making a session wakes a stopped sandbox.
  const creatable = ready || environment.status === 'stopped';
  const living = sessions.data?.filter((one) => one.status !== 'dead').length;
  useCommands([
    {
      id: 'session.new',
      title: `New session in ${environment.name}`,
      group: 'Create',
      keys: 'n',
      icon: Plus,
      enabled: creatable,
      run: () => create.show(),
    },
  ]);
  const tabs: Tab<TabName>[] = [
    { value: 'sessions', label: 'Sessions', count: living === 0 ? undefined : living },
    ...(withRepository
      ? [
          { value: 'branches' as const, label: 'Branches' },
          { value: 'pushes' as const, label: 'Pushes' },
        ]
      : []),
    { value: 'deployments', label: 'Deployments' },
    { value: 'disk', label: 'Disk' },
    { value: 'settings', label: 'Settings' },
  ];
  return (
    <Page
      title={environment.name}
      crumbs={CRUMBS}
      actions={
        <>
          <Button
            variant="primary"
            icon={Plus}
            disabled={!creatable}
            onClick={() => create.show()}
            className="max-md:px-2.5"
          >
            <span className="max-md:sr-only">New session</span>
            <span className="max-md:hidden">
              <CommandKeys id="session.new" />
            </span>
          </Button>
          <MoreMenu environment={environment} ready={ready} />
        </>
      }
    >
      <Overview environment={environment} />
      <Starting environment={environment} />
      {/* The tab itself says it with its figures. */}
      {tab !== 'disk' && <OverQuota environmentId={environment.id} onFree={() => setTab('disk')} />}
      <KeptNotices environmentId={environment.id} />
      <Tabs value={tab} onChange={setTab} tabs={tabs} label="Parts of the environment">
        <TabPanel value="sessions">
          <SessionsTab environment={environment} ready={creatable} onCreate={() => create.show()} />
        </TabPanel>
        <TabPanel value="branches">
          <BranchesTab environment={environment} ready={ready} onCreate={create.show} />
        </TabPanel>
        <TabPanel value="pushes">
          <PushesTab environmentId={environment.id} />
        </TabPanel>
        <TabPanel value="deployments">
          <div className="max-w-3xl">
            <DeployPanel
              target={{ kind: 'environment', id: environment.id, environmentId: environment.id }}
              worktree=""
            />
          </div>
        </TabPanel>
        <TabPanel value="disk">
          <Suspense fallback={<SkeletonRows rows={4} label="Reading the disk use" />}>
            <DiskTab environment={environment} />
          </Suspense>
        </TabPanel>
        <TabPanel value="settings">
          <SettingsTab environment={environment} ready={ready} />
        </TabPanel>
      </Tabs>
      <Suspense fallback={<div role="dialog" aria-label="Loading" data-state="open" className="sr-only" />}>
        {create.open && creatable && (
          <CreateSession
            environment={environment}
            wish={create.wish}
            onClose={create.hide}
            onCreated={(session) => void navigate(`/s/${session.id}`)}
          />
        )}
      </Suspense>
    </Page>
  );
}

function MoreMenu({ environment, ready }: { environment: Environment; ready: boolean }) {
  const [deleting, setDeleting] = useState(false);
  const [stopping, setStopping] = useState(false);
  const retry = useRetryEnvironment();
  const navigate = useNavigate();
  const { kind } = environmentStatus(environment);
  const items: MenuItem[] = [
    ...(kind === 'failed' || kind === 'idle'
      ? [
          {
            label: kind === 'failed' ? 'Try again' : 'Start',
            icon: RotateCw,
            onSelect: () =>
              retry.mutate(environment.id, {
                onError: (error) => toast.failed(`${environment.name} was not started`, error),
              }),
          },
          { kind: 'separator' as const },
        ]
      : []),
    ...(environment.status === 'running' && !isStopping(environment)
      ? [
          { label: 'Stop…', icon: CircleStop, onSelect: () => setStopping(true) },
          { kind: 'separator' as const },
        ]
      : []),
    { label: 'Delete…', icon: Trash2, danger: true, onSelect: () => setDeleting(true) },
  ];
  return (
    <>
      <DropdownMenu items={items}>
        <IconButton icon={Ellipsis} label={`More about ${environment.name}`} busy={retry.isPending} />
      </DropdownMenu>
      {stopping && <StopEnvironment environment={environment} onClose={() => setStopping(false)} />}
      {deleting && (
        <DeleteEnvironment
          environment={environment}
          onClose={() => setDeleting(false)}
          onDeleted={() => void navigate('/envs')}
        >
          <UnsavedWork environmentId={environment.id} enabled={ready && Boolean(environment.repositoryUrl)} />
        </DeleteEnvironment>
      )}
    </>
  );
}
