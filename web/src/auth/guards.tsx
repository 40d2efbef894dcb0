import { QueryClient, QueryClientProvider } from '@tanstack/react-query';
import { useEffect, useState } from 'react';
import { Navigate, Outlet, useLocation, useSearchParams } from 'react-router';
import { events } from '@/api/events';
import { keepFresh } from '@/api/live';
import { worthRetry } from '@/api/queries';
import { useSignIn } from './session';

/** Where to go after signing in: a path of this page, never another site's address. Pure. */
export function safeReturn(to: string | null): string {
  if (to === null || !/^\/(?![/\\])/u.test(to) || /^\/(?:login|register)(?:[/?#]|$)/u.test(to)) return '/';
  return to;
}

export function SignedOutOnly() {
  const signIn = useSignIn();
  const [params] = useSearchParams();
  if (signIn) return <Navigate to={safeReturn(params.get('return'))} replace />;
  return <Outlet />;
}

export function SignedInOnly() {
  const userId = useSignIn()?.user.id;
  const { pathname, search } = useLocation();
  if (userId === undefined) {
    const here = pathname + search;
    return <Navigate to={here === '/' ? '/login' : `/login?return=${encodeURIComponent(here)}`} replace />;
  }
  // With another user everything of the one before is forgotten.
  return <SignedIn key={userId} />;
}

function newQueryClient(): QueryClient {
  return new QueryClient({
    defaultOptions: {
      queries: {
        // Events say when something is old; looking at the page again reads it too, for servers without.
        staleTime: 30_000,
        retry: worthRetry,
        networkMode: 'always',
        refetchOnReconnect: true,
      },
      mutations: { networkMode: 'always' },
    },
  });
}

function SignedIn() {
  const [queries] = useState(newQueryClient);
  useEffect(() => {
    const end = keepFresh(queries, events);
    events.start();
    return () => {
      end();
      events.stop();
    };
  }, [queries]);
  return (
    <QueryClientProvider client={queries}>
      <Outlet />
    </QueryClientProvider>
  );
}
