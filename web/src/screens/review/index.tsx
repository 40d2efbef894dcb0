import { SquareTerminal } from 'lucide-react';
import { Link, useParams, useSearchParams } from 'react-router';
import { useEnvironment, useSession } from '@/api/queries';
import { Page } from '@/app/page';
import { Button } from '@/ui/button';
import { ErrorState } from '@/ui/error-state';
import { SkeletonRows } from '@/ui/skeleton';
import { ReviewPanel } from './panel';
import { placeFrom, placeParams } from './scope';

/** The whole page for reviewing a session's changes; where somebody is in it is in the address. */
export function Component() {
  const { session: id = '' } = useParams();
  const session = useSession(id);
  const [params, setParams] = useSearchParams();
  const { data } = session;
  const environment = useEnvironment(data?.environmentId ?? '');
  if (data === undefined) {
    return (
      <Page title="Review" layout="full">
        {session.isPending ? (
          <SkeletonRows rows={6} label="Loading the session" />
        ) : (
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
  return (
    <Page
      title={`Review of ${data.name}`}
      heading="Review"
      crumbs={[
        { label: environment.data?.name ?? 'Environment', to: `/e/${data.environmentId}` },
        { label: data.name, to: `/s/${data.id}` },
      ]}
      layout="full"
      actions={
        <Button asChild>
          <Link to={`/s/${data.id}`}>
            <SquareTerminal aria-hidden className="size-4" />
            Terminal
          </Link>
        </Button>
      }
    >
      <ReviewPanel
        key={data.id}
        sessionId={data.id}
        environmentId={data.environmentId}
        place={placeFrom(params)}
        onPlace={(place) => setParams(placeParams(place), { replace: true })}
      />
    </Page>
  );
}
