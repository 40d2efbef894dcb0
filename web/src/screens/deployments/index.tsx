import { Compass, Undo2 } from 'lucide-react';
import { useState } from 'react';
import { Link, useNavigate, useParams, useSearchParams } from 'react-router';
import { useCoolifyApplications } from '@/api/coolify';
import { useDeployment, useDeployments, type Deployment, type Target } from '@/api/deployments';
import { ApiError } from '@/api/errors';
import { useEnvironment, useSessions } from '@/api/queries';
import { Page } from '@/app/page';
import { Button } from '@/ui/button';
import { EmptyState } from '@/ui/empty';
import { ErrorState } from '@/ui/error-state';
import { Card } from '@/ui/list';
import { SkeletonRows } from '@/ui/skeleton';
import { TabPanel, Tabs } from '@/ui/tabs';
import {
  ApplicationLogPart,
  BuildLogPart,
  CancelDeployment,
  DeploymentSaid,
  DeploymentState,
  OutLink,
  Steps,
  WhatIsDeployed,
} from './deployment-view';
import { RollbackDialog } from './rollback';

export function Component() {
  const { deployment: id = '' } = useParams();
  const row = useDeployment(id);
  const missing = row.error instanceof ApiError && row.error.status === 404;
  if (row.data && !missing) return <DeploymentScreen key={id} row={row.data} />;
  return (
    <Page title="Deployment" crumbs={[{ label: 'Environments', to: '/envs' }]}>
      {row.isPending && <SkeletonRows rows={5} label="Loading the deployment" />}
      {missing && (
        <EmptyState
          icon={Compass}
          title="This deployment is not there"
          action={
            <Button asChild variant="primary">
              <Link to="/envs">All environments</Link>
            </Button>
          }
        >
          It went with its environment, or the link is wrong.
        </EmptyState>
      )}
      {row.isError && !missing && (
        <ErrorState
          title="The deployment could not be read"
          error={row.error}
          busy={row.isFetching}
          onRetry={() => void row.refetch()}
        />
      )}
    </Page>
  );
}

/** The log that is shown is part of the address. */
type LogName = 'build' | 'application';

function DeploymentScreen({ row }: { row: Deployment }) {
  const environment = useEnvironment(row.environment_id);
  const session = useSessions(row.environment_id).data?.find((one) => one.id === row.session_id);
  const applications = useCoolifyApplications(row.environment_id);
  const application = applications.data?.find((one) => one.id === row.app_id);
  const [params, setParams] = useSearchParams();
  const shown: LogName = params.get('log') === 'application' ? 'application' : 'build';
  const tabs: { value: LogName; label: string }[] = [
    { value: 'build', label: 'Build log' },
    { value: 'application', label: 'The application’s log' },
  ];
  return (
    <Page
      title={`${row.kind === 'rollback' ? 'Roll back' : 'Deployment'} of ${row.app_name}`}
      heading={row.app_name}
      crumbs={[
        { label: environment.data?.name ?? 'Environment', to: `/e/${row.environment_id}?tab=deployments` },
        ...(session ? [{ label: session.name, to: `/s/${session.id}` }] : []),
      ]}
      actions={
        <>
          <CancelDeployment row={row} />
          {!row.live && <RollbackButton row={row} />}
        </>
      }
    >
      <DeploymentSaid row={row} />
      <div className="flex flex-col gap-6 lg:flex-row">
        <div className="flex shrink-0 flex-col gap-4 lg:w-80">
          <Card className="flex flex-col gap-3 p-4">
            <DeploymentState row={row} className="text-base" />
            <WhatIsDeployed row={row} />
            <div className="flex flex-wrap gap-x-4 gap-y-1 empty:hidden">
              <OutLink to={application?.address ?? null}>
                {application?.address?.replace(/^https?:\/\//u, '')}
              </OutLink>
              <OutLink to={row.url}>Its page in Coolify</OutLink>
            </div>
          </Card>
          <Card className="p-4 pb-0">
            <Steps row={row} />
          </Card>
          <p className="flex flex-wrap gap-x-4 text-sm">
            {session && (
              <Link to={`/s/${session.id}`} className="rounded-sm text-accent-fg hover:underline">
                The session {session.name}
              </Link>
            )}
            <Link
              to={`/e/${row.environment_id}?tab=deployments`}
              className="rounded-sm text-accent-fg hover:underline"
            >
              All deployments of {environment.data?.name ?? 'the environment'}
            </Link>
          </p>
        </div>
        <Tabs
          value={shown}
          onChange={(next) => setParams(next === 'build' ? {} : { log: next }, { replace: true })}
          tabs={tabs}
          label="Logs"
          className="min-w-0 flex-1"
        >
          <TabPanel value="build">
            <BuildLogPart row={row} className="h-[max(24rem,calc(100dvh-12rem))]" />
          </TabPanel>
          <TabPanel value="application">
            <ApplicationLogPart row={row} />
          </TabPanel>
        </Tabs>
      </div>
    </Page>
  );
}

function RollbackButton({ row }: { row: Deployment }) {
  const [open, setOpen] = useState(false);
  const navigate = useNavigate();
  const target: Target = {
    kind: 'environment',
    id: row.environment_id,
    environmentId: row.environment_id,
  };
  const history = useDeployments(target.id);
  return (
    <>
      <Button icon={Undo2} onClick={() => setOpen(true)}>
        <span className="max-md:sr-only">Roll back…</span>
      </Button>
      {open && (
        <RollbackDialog
          target={target}
          appId={row.app_id}
          appName={row.app_name}
          history={history.data ?? []}
          onClose={() => setOpen(false)}
          onStarted={(started) => void navigate(`/deployments/${started.id}`)}
        />
      )}
    </>
  );
}
