import { useParams } from 'react-router';
import { ApiError } from '@/api/errors';
import { useEnvironments, useSession } from '@/api/queries';
import { Page } from '@/app/page';
import { ErrorState } from '@/ui/error-state';
import { SkeletonRows } from '@/ui/skeleton';
import { NoSuchSession } from './states';
import { Workspace } from './workspace';

export function Component() {
  const { session: id = '' } = useParams();
  const session = useSession(id);
  // The list knows which environment it is in before the session itself has been read.
  const listed = useEnvironments().data?.find(({ sessions }) => sessions.some((one) => one.id === id));
  const environmentId = session.data?.environmentId ?? listed?.id;
  const missing = session.error instanceof ApiError && session.error.status === 404;
  if (environmentId !== undefined && !missing) {
    return (
      <Workspace key={environmentId} environmentId={environmentId} sessionId={id} found={session.data} />
    );
  }
  return (
    <Page title="Session" crumbs={[{ label: 'Environments', to: '/envs' }]}>
      {session.isPending && <SkeletonRows rows={5} label="Loading the session" />}
      {missing && <NoSuchSession />}
      {session.isError && !missing && (
        <ErrorState
          title="The session could not be read"
          error={session.error}
          busy={session.isFetching}
          onRetry={() => void session.refetch()}
        />
      )}
    </Page>
  );
}
