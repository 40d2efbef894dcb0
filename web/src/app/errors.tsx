import { CloudOff, Compass, RotateCw } from 'lucide-react';
import { useEffect } from 'react';
import { Link, useRouteError } from 'react-router';
import { Button } from '@/ui/button';
import { EmptyState } from '@/ui/empty';
import { ErrorState } from '@/ui/error-state';
import { Page } from './page';

/** The page's parts have new names after an update of the server; the old page cannot load them. */
function isStaleBuild(error: unknown): boolean {
  return (
    error instanceof Error &&
    /dynamically imported module|module script failed|Unable to preload|Importing a module/iu.test(
      error.message,
    )
  );
}

/** Stands in for one screen that broke; the frame round it stays. */
export function ScreenError() {
  const error = useRouteError();
  if (isStaleBuild(error) && !navigator.onLine) return <NotFetched />;
  if (isStaleBuild(error)) {
    return (
      <EmptyState
        icon={RotateCw}
        title="There is a new version of this page"
        action={
          <Button variant="primary" icon={RotateCw} onClick={() => window.location.reload()}>
            Reload
          </Button>
        }
      >
        The server was updated, or this part of the page could not be fetched. Your sessions go on meanwhile.
      </EmptyState>
    );
  }
  return (
    <>
      <title>Something went wrong · Craftastic</title>
      <ErrorState
        title="This screen stopped working"
        error={error}
        onRetry={() => window.location.reload()}
        className="flex-1 justify-center"
      />
    </>
  );
}

/** A screen that was never gone to while there was a network; it comes with the network. */
function NotFetched() {
  useEffect(() => {
    const reload = () => window.location.reload();
    window.addEventListener('online', reload);
    return () => window.removeEventListener('online', reload);
  }, []);
  return (
    <>
      <title>Offline · Craftastic</title>
      <EmptyState icon={CloudOff} title="You are offline">
        This part of the page has not been fetched yet. It is as soon as there is a network again.
      </EmptyState>
    </>
  );
}

export function NotFound() {
  return (
    <Page title="Not found">
      <EmptyState
        icon={Compass}
        title="There is nothing at this address"
        action={
          <Button asChild variant="primary">
            <Link to="/">Go home</Link>
          </Button>
        }
      >
        It may have been deleted, or the link is wrong.
      </EmptyState>
    </Page>
  );
}
